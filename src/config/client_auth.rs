//! `[listener.client_auth]` and `[[listener.client_auth_for]]`: which clients show a
//! certificate, and which of those come in.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::tls::certificates::CertificateName;
use crate::tls::client_auth::{Revocation, Rule, Rules};

use super::finding::Located;
use super::item::{Item, Section};
use super::report::Report;

/// `[listener.client_auth]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAuthSettings {
    /// `mode = "none" | "optional" | "required"`, default `"none"`: whether clients are
    /// asked for a certificate, and whether they come in without one. A certificate that is
    /// shown must be good in either case.
    pub mode: ClientAuthMode,
    /// `ca = "path" | [several]`, required unless `mode = "none"`: PEM files of the
    /// authorities that clients' certificates must lead to. Relative to the configuration
    /// file; a change is noticed as one of the certificates is.
    pub authorities: Vec<Located<PathBuf>>,
    /// `crl = "path" | [several]`, default none, which is no look at revocation: PEM files
    /// of revocation lists, noticed likewise.
    pub revocation_lists: Vec<Located<PathBuf>>,
    /// How they are used, once there are any:
    ///
    /// * `crl_scope = "chain" | "client"`, default `"chain"`: whether the authorities between
    ///   are looked up too, or the client's own certificate only.
    /// * `crl_missing = "refuse" | "accept"`, default `"refuse"`: what becomes of a client
    ///   whose chain has an issuer that none of the lists is of.
    /// * `crl_outdated = "refuse" | "accept"`, default `"refuse"`: and of one whose list is
    ///   past its next update.
    pub revocation: Revocation,
    /// `allow = [rules]`, default empty, which is everybody with a good certificate, at most
    /// [`Rules::COUNT_MAX`]: of those only clients for which any one holds:
    /// `"dns:app.example"`, `"dns:*.example"`, `"uri:spiffe://domain/path/*"`,
    /// `"email:@corp.example"`, `"cn:app"`, `"spki:sha256/…"`.
    pub rules: Rules,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuthMode {
    /// They are not asked for one.
    #[default]
    None,
    /// They may.
    Optional,
    /// They must.
    Required,
}

/// `[[listener.client_auth_for]]`, at most [`NamedClientAuth::COUNT_MAX`] for each listener:
/// clients that ask for certain names, instead of `[listener.client_auth]`. The keys are the
/// same, and those that are not written are taken from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedClientAuth {
    /// `sni = "name" | [several]`, required: `"admin.example.com"`, or `"*.example.com"` for
    /// any one label in front. Exact names go first, whatever the order.
    pub names: Vec<CertificateName>,
    /// The other keys.
    pub settings: ClientAuthSettings,
}

impl NamedClientAuth {
    /// The most of these tables: each has TLS configurations of its own.
    pub const COUNT_MAX: usize = 256;
    /// The most names of one.
    const NAMES_MAX: usize = 1_024;
}

/// The most files of one key.
const FILES_MAX: usize = 64;

pub(super) const KEYS: &[&str] =
    &["mode", "ca", "crl", "crl_scope", "crl_missing", "crl_outdated", "allow"];
pub(super) const NAMED_KEYS: &[&str] =
    &["sni", "mode", "ca", "crl", "crl_scope", "crl_missing", "crl_outdated", "allow"];

const MODES: [(&str, ClientAuthMode); 3] = [
    ("none", ClientAuthMode::None),
    ("optional", ClientAuthMode::Optional),
    ("required", ClientAuthMode::Required),
];
const END_ENTITY_ONLY: [(&str, bool); 2] = [("chain", false), ("client", true)];
const ACCEPTED: [(&str, bool); 2] = [("refuse", false), ("accept", true)];

pub(super) fn read(
    report: &mut Report<'_>,
    listener: &Section<'_>,
    directory: &Path,
) -> ClientAuthSettings {
    let section = listener.section(report, "client_auth", KEYS);
    read_table(report, &section, directory, &ClientAuthSettings::default())
}

pub(super) fn read_named(
    report: &mut Report<'_>,
    listener: &Section<'_>,
    directory: &Path,
    base: &ClientAuthSettings,
) -> Vec<NamedClientAuth> {
    let sections = listener.sections(report, "client_auth_for", NAMED_KEYS);
    if let Some(beyond) = sections.get(NamedClientAuth::COUNT_MAX) {
        let message = format!("{} of these tables", sections.len());
        let help = format!("write at most {}", NamedClientAuth::COUNT_MAX);
        report.error(beyond.place(), message, Some(help));
        return Vec::new();
    }
    let mut seen = HashSet::new();
    sections
        .iter()
        .map(|section| NamedClientAuth {
            names: section
                .required(report, "sni", "write sni = \"admin.example.com\"", |item, report| {
                    read_names(report, item, &mut seen)
                })
                .unwrap_or_default(),
            settings: read_table(report, section, directory, base),
        })
        .collect()
}

fn read_table(
    report: &mut Report<'_>,
    section: &Section<'_>,
    directory: &Path,
    base: &ClientAuthSettings,
) -> ClientAuthSettings {
    let files = |report: &mut Report<'_>, key, default: &Vec<Located<PathBuf>>| {
        section.value(report, key, default.clone(), |item, report| {
            item.paths(report, directory, FILES_MAX)
        })
    };
    let mode = section.value(report, "mode", base.mode, |item, report| item.choice(report, &MODES));
    let settings = ClientAuthSettings {
        mode,
        authorities: files(report, "ca", &base.authorities),
        revocation_lists: files(report, "crl", &base.revocation_lists),
        revocation: Revocation {
            end_entity_only: section.value(
                report,
                "crl_scope",
                base.revocation.end_entity_only,
                |item, report| item.choice(report, &END_ENTITY_ONLY),
            ),
            unknown_is_good: section.value(
                report,
                "crl_missing",
                base.revocation.unknown_is_good,
                |item, report| item.choice(report, &ACCEPTED),
            ),
            outdated_list_counts: section.value(
                report,
                "crl_outdated",
                base.revocation.outdated_list_counts,
                |item, report| item.choice(report, &ACCEPTED),
            ),
        },
        rules: section.value(report, "allow", base.rules.clone(), read_rules),
    };
    if mode != ClientAuthMode::None
        && settings.authorities.is_empty()
        && section.item(report, "ca").is_none()
    {
        let item = section.item(report, "mode");
        let place = item.as_ref().map_or(section.place(), Item::place);
        let help = "write ca = \"clients-ca.pem\": whoever these authorities vouch for comes in";
        let message = "clients' certificates must lead to an authority, and none is named";
        report.error(place, message.into(), Some(help.into()));
    }
    settings
}

pub(super) fn read_rules(item: &Item<'_>, report: &mut Report<'_>) -> Option<Rules> {
    let elements = item.elements(report)?;
    if elements.is_empty() {
        let help = "write rules, or take the key out, which means everybody with a good \
                    certificate";
        report.error(item.place(), "an empty list would let nobody in".into(), Some(help.into()));
        return None;
    }
    if let Some(beyond) = elements.get(Rules::COUNT_MAX) {
        let message = format!("{} rules", elements.len());
        report.error(beyond.place(), message, Some(format!("write at most {}", Rules::COUNT_MAX)));
        return None;
    }
    let mut rules: Vec<Rule> = Vec::with_capacity(elements.len());
    for element in elements {
        let Some(text) = element.text(report) else { continue };
        match text.parse() {
            Ok(rule) if rules.contains(&rule) => {
                let help = "take one of the two out".into();
                report.error(element.place(), format!("{text:?} is listed twice"), Some(help));
            }
            Ok(rule) => rules.push(rule),
            Err(error) => report.error(element.place(), error.to_string(), None),
        }
    }
    Some(Rules::new(rules))
}

fn read_names(
    report: &mut Report<'_>,
    item: &Item<'_>,
    seen: &mut HashSet<CertificateName>,
) -> Option<Vec<CertificateName>> {
    let elements = item.one_or_more(report)?;
    if !(1..=NamedClientAuth::NAMES_MAX).contains(&elements.len()) {
        let message = format!("{} names", elements.len());
        let help = format!("write 1 to {}", NamedClientAuth::NAMES_MAX);
        report.error(item.place(), message, Some(help));
        return None;
    }
    let mut names = Vec::with_capacity(elements.len());
    for element in elements {
        let Some(text) = element.text(report) else { continue };
        match CertificateName::parse(text) {
            None | Some(CertificateName::Address(_)) => {
                let help = "write \"admin.example.com\" or \"*.example.com\"; clients that ask \
                            for no name are those of [listener.client_auth]";
                let message = format!("{text:?} is not a server name");
                report.error(element.place(), message, Some(help.into()));
            }
            Some(name) if !seen.insert(name.clone()) => {
                let help = "a client can be authenticated in one way only: take one out".into();
                report.error(element.place(), format!("{text:?} is listed twice"), Some(help));
            }
            Some(name) => names.push(name),
        }
    }
    Some(names)
}
