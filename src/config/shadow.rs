//! `[listener.shadow]`: a policy that is tried on clients without any effect on them.

use crate::tls::CryptoLibrary;
use crate::tls::names::{Group, SignatureScheme};
use crate::tls::policy::candidate::CandidateTerms;

use super::finding::Located;
use super::item::{Item, Section};
use super::report::Report;
use super::tls::{self, TlsPolicy};

/// `[listener.shadow]`, default absent: of the clients that the listener serves, those that
/// it would refuse under these keys are counted, by name and cause. Nothing else changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowSettings {
    /// What would be negotiated:
    ///
    /// * `minimum_version`, `cipher_suites`, `groups`, default those of the listener.
    /// * `require_pq = true | false`, default `false`: of the groups only the post-quantum
    ///   hybrid X25519MLKEM768, which TLS 1.2 does not have.
    /// * `signature_schemes = [names]`, IANA's, default all: what the servers' certificates
    ///   may sign with.
    /// * `no_rsa = true | false`, default `false`: of those none of RSA keys, so that clients
    ///   must take a certificate with an elliptic-curve key.
    pub terms: CandidateTerms,
    /// `names = 16 to 65536`, default 1024: names that have counts of their own, some 0.4 KiB
    /// of memory each in every engine.
    pub names: usize,
}

impl ShadowSettings {
    const NAMES_DEFAULT: usize = 1_024;
}

pub(super) const KEYS: &[&str] = &[
    "minimum_version",
    "cipher_suites",
    "groups",
    "require_pq",
    "signature_schemes",
    "no_rsa",
    "names",
];

/// The table of a listener whose own policy is `policy`.
pub(super) fn read(
    report: &mut Report<'_>,
    listener: &Section<'_>,
    provider: CryptoLibrary,
    policy: &TlsPolicy,
) -> Option<Located<ShadowSettings>> {
    let item = listener.item(report, "shadow")?;
    let section = item.section(report, KEYS);
    let TlsPolicy { minimum_version, cipher_suites, mut groups } =
        tls::read_policy(report, &section, provider, policy);
    if let Some(item) = wanted(report, &section, "require_pq") {
        groups.retain(|group| *group == Group::X25519_MLKEM768);
        if groups.is_empty() {
            let message = "no post-quantum group is left";
            let help = "add \"X25519MLKEM768\" to `groups`, with provider = \"aws-lc-rs\"";
            report.error(item.place(), message.into(), Some(help.into()));
        }
    }
    let mut signature_schemes = section.optional(report, "signature_schemes", |item, report| {
        tls::read_names(report, item, |_, _, _: SignatureScheme| {})
    });
    if let Some(item) = wanted(report, &section, "no_rsa") {
        let schemes = signature_schemes.get_or_insert_with(|| SignatureScheme::all().collect());
        schemes.retain(|scheme| !scheme.is_rsa());
        if schemes.is_empty() {
            let help = "add \"ecdsa_secp256r1_sha256\" to `signature_schemes`";
            report.error(item.place(), "no signature scheme is left".into(), Some(help.into()));
        }
    }
    let names = section.value(report, "names", ShadowSettings::NAMES_DEFAULT, |item, report| {
        item.count(report, 16..=65_536)
    });
    let terms = CandidateTerms { minimum_version, cipher_suites, groups, signature_schemes };
    if refuses_nobody(&terms, policy) {
        let message = "no client could fail: the listener allows nothing that this does not";
        let help = "write what is to be tried, such as minimum_version = \"1.3\"";
        report.warning(item.place(), message.into(), Some(help.into()));
    }
    Some(item.locate(ShadowSettings { terms, names }))
}

/// The item of a key that is `true`.
fn wanted<'t>(report: &mut Report<'_>, section: &Section<'t>, key: &str) -> Option<Item<'t>> {
    let item = section.item(report, key)?;
    item.boolean(report)?.then_some(item)
}

fn refuses_nobody(terms: &CandidateTerms, policy: &TlsPolicy) -> bool {
    terms.minimum_version <= policy.minimum_version
        && terms.signature_schemes.is_none()
        && policy.cipher_suites.iter().all(|suite| terms.cipher_suites.contains(suite))
        && policy.groups.iter().all(|group| terms.groups.contains(group))
}
