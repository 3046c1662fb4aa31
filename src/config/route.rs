//! `[[listener.route]]`: clients that go another way than the listener's other ones.

use std::collections::HashSet;
use std::sync::Arc;

use crate::routing::{self, Action, CERTIFICATE, Conditions, NamePatterns, ROUTES_MAX, Route};
use crate::tls::Version;
use crate::tls::certificates::CertificateName;
use crate::tls::client_hello::Ja4;

use super::client_auth::read_rules;
use super::item::{Item, Section};
use super::listener::{read_alpn, read_pool};
use super::pool::{self, PoolSettings};
use super::report::Report;

/// The most values of one condition.
const VALUES_MAX: usize = 1_024;

/// `[[listener.route]]`, behind its listener, at most [`ROUTES_MAX`] for each; read into
/// [`Route`]. The first whose conditions all hold decides; a client that none takes goes to
/// the listener's pool.
///
/// * `name = "text"`, default `"route N"`, counted from 1: what people call it.
/// * `sni = "name" | [several]`: the name asked for: `"api.example.com"`,
///   `"*.example.com"` for any one label in front, `""` for clients that ask for none.
/// * `alpn = [protocols]`: the application protocol; with `action = "passthrough"` any that
///   the client offers, otherwise the one that the listener would choose.
/// * `source = [addresses and prefixes]`, at most 64: where the client comes from.
/// * `version = "1.2" | "1.3" | [both]`: likewise the version.
/// * `ja4 = "fingerprint" | [several]`: the fingerprint of the client's TLS library.
/// * `client_certificate = [rules]`, at most [`Rules::COUNT_MAX`]: what the client's certificate
///   says, in the words of `allow` in `[listener.client_auth]`; known when the handshake is done,
///   so only with `action = "forward"`, and behind all routes with other actions.
/// * `action = "forward" | "passthrough" | "reject"`, default `"forward"`: TLS ends here and
///   the plaintext goes to the pool; the stream goes there as it is; the client gets the
///   alert access_denied.
/// * `pool = "name"`, required but for `"reject"`: where to.
pub(super) const KEYS: &[&str] =
    &["name", "sni", "alpn", "source", "version", "ja4", "client_certificate", "action", "pool"];

/// The most prefixes of `source`.
const SOURCES_MAX: usize = 64;

const VERSIONS: [(&str, Version); 2] = [("1.2", Version::Tls12), ("1.3", Version::Tls13)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Forward,
    Passthrough,
    Reject,
}

const KINDS: [(&str, Kind); 3] =
    [("forward", Kind::Forward), ("passthrough", Kind::Passthrough), ("reject", Kind::Reject)];

/// `asks`: some clients of the listener are asked for a certificate.
pub(super) fn read_all(
    report: &mut Report<'_>,
    listener: &Section<'_>,
    pools: &[PoolSettings],
    asks: bool,
) -> Vec<Route> {
    let sections = listener.sections(report, "route", KEYS);
    if let Some(beyond) = sections.get(ROUTES_MAX) {
        let message = format!("{} routes", sections.len());
        report.error(beyond.place(), message, Some(format!("write at most {ROUTES_MAX}")));
        return Vec::new();
    }
    let routes: Vec<Route> = sections
        .iter()
        .enumerate()
        .filter_map(|(place, section)| read(report, section, place, pools))
        .collect();
    if let Some(item) = sections.iter().find_map(|section| section.item(report, CERTIFICATE))
        && !asks
    {
        let message = "no client of this listener is asked for a certificate";
        let help = "set mode in [listener.client_auth], or take it out".into();
        report.error(item.place(), message.into(), Some(help));
    }
    // With one missing, the places are not those of the file.
    if routes.len() == sections.len() {
        let mut after_handshake = false;
        for (route, section) in routes.iter().zip(&sections) {
            let forwards = matches!(route.action, Action::Forward { .. });
            if after_handshake && !forwards {
                let message = "a route before it asks for the client's certificate, which is \
                               known only when TLS has ended here";
                let help = "put it before all routes with client_certificate".into();
                report.error(section.place(), message.into(), Some(help));
            }
            after_handshake |= route.conditions.certificates.is_some();
        }
        for (place, earlier) in routing::unreachable(&routes) {
            let message = format!(
                "no client reaches {:?}: {:?} before it takes all of them",
                routes[place].name, routes[earlier].name
            );
            let help = "put it before that one, or take it out".into();
            report.warning(sections[place].place(), message, Some(help));
        }
    }
    routes
}

fn read(
    report: &mut Report<'_>,
    section: &Section<'_>,
    place: usize,
    pools: &[PoolSettings],
) -> Option<Route> {
    let name = section.optional(report, "name", |item, report| pool::name(report, item));
    let conditions = Conditions {
        server_names: section.optional(report, "sni", read_names),
        protocols: section.optional(report, "alpn", |item, report| {
            let protocols = read_alpn(report, item)?;
            let protocols = non_empty(report, item, protocols)?;
            Some(protocols.into_iter().map(|name| name.into_bytes().into()).collect())
        }),
        sources: section.optional(report, "source", |item, report| {
            let prefixes = item.prefixes(report, SOURCES_MAX)?;
            non_empty(report, item, prefixes)
        }),
        versions: section.optional(report, "version", |item, report| {
            let elements = elements(report, item)?;
            elements.iter().map(|element| element.choice(report, &VERSIONS)).collect()
        }),
        fingerprints: section.optional(report, "ja4", read_fingerprints),
        certificates: section.optional(report, CERTIFICATE, read_rules),
    };
    let kind =
        section.value(report, "action", Kind::Forward, |item, report| item.choice(report, &KINDS));
    let pool = match kind {
        Kind::Reject => {
            if let Some(item) = section.item(report, "pool") {
                let help = "take it out, or write another action".into();
                report.error(
                    item.place(),
                    "a client that is rejected has no pool".into(),
                    Some(help),
                );
            }
            None
        }
        Kind::Forward | Kind::Passthrough => {
            let help = "write pool = \"name\" of a [[pool]], or action = \"reject\"";
            section.required(report, "pool", help, |item, report| read_pool(report, item, pools))
        }
    };
    let action = match (kind, pool) {
        (Kind::Reject, _) => Action::Reject,
        (Kind::Forward, Some(pool)) => Action::Forward { pool },
        (Kind::Passthrough, Some(pool)) => Action::Passthrough { pool },
        (_, None) => return None,
    };
    if kind != Kind::Forward
        && let Some(item) = section.item(report, CERTIFICATE)
    {
        let message = "the certificate is known only when TLS has ended here";
        let help = "take it out, or write action = \"forward\"";
        report.error(item.place(), message.into(), Some(help.into()));
    }
    let name = name.unwrap_or_else(|| format!("route {}", place + 1));
    Some(Route { name: Arc::from(name), conditions, action })
}

/// The values of a condition: at least one, or nobody would ever be meant.
fn elements<'t>(report: &mut Report<'_>, item: &Item<'t>) -> Option<Vec<Item<'t>>> {
    let elements = item.one_or_more(report)?;
    if let Some(beyond) = elements.get(VALUES_MAX) {
        let message = format!("{} values", elements.len());
        report.error(beyond.place(), message, Some(format!("write at most {VALUES_MAX}")));
        return None;
    }
    non_empty(report, item, elements)
}

fn non_empty<T>(report: &mut Report<'_>, item: &Item<'_>, values: Vec<T>) -> Option<Vec<T>> {
    if values.is_empty() {
        let help = "write what is meant, or take the key out, which means everybody".into();
        report.error(item.place(), "an empty list means nobody".into(), Some(help));
        return None;
    }
    Some(values)
}

fn read_names(item: &Item<'_>, report: &mut Report<'_>) -> Option<NamePatterns> {
    let mut patterns = NamePatterns::default();
    for element in elements(report, item)? {
        let text = element.text(report)?;
        if text.is_empty() {
            patterns.none = true;
            continue;
        }
        match CertificateName::parse(text) {
            Some(CertificateName::Exact(name)) => patterns.exact.insert(name),
            Some(CertificateName::Wildcard(suffix)) => patterns.one_label.insert(suffix),
            Some(CertificateName::Address(_)) | None => {
                let message = format!("{text:?} is not a server name");
                let help = "write \"www.example.com\", \"*.example.com\", or \"\" for clients \
                            that ask for no name; an address is never asked for";
                report.error(element.place(), message, Some(help.into()));
                return None;
            }
        };
    }
    Some(patterns)
}

fn read_fingerprints(item: &Item<'_>, report: &mut Report<'_>) -> Option<HashSet<Ja4>> {
    let mut fingerprints = HashSet::new();
    for element in elements(report, item)? {
        let text = element.text(report)?;
        let Ok(fingerprint) = text.parse() else {
            let message = format!("{text:?} is not a JA4 fingerprint");
            let help = "write one such as \"t13d1516h2_8daaf6152771_e5627efa2ab1\"".into();
            report.error(element.place(), message, Some(help));
            return None;
        };
        fingerprints.insert(fingerprint);
    }
    Some(fingerprints)
}
