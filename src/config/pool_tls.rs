//! `[pool.tls]`: TLS towards the servers of a pool.

use std::path::{Path, PathBuf};

use rustls_pki_types::ServerName;

use crate::tls::CryptoLibrary;
use crate::tls::to_servers::NameSource;

use super::finding::{Located, Place};
use super::item::{Item, Section};
use super::report::Report;
use super::tls::{TlsPolicy, read_policy};

/// `[pool.tls]`, behind its `[[pool]]`; without it the servers get plaintext. A PROXY
/// protocol header goes in front of the TLS stream, in clear.
///
/// `minimum_version`, `cipher_suites` and `groups` are as in `[tls]`, with the same
/// defaults, whatever is written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTlsSettings {
    /// Where the table begins.
    pub place: Place,
    /// What is offered.
    pub policy: TlsPolicy,
    /// `verify = "full" | "dangerously_accept_anyone"`, default `"full"`: whether a server
    /// must have a certificate for the name, from an authority that is trusted. Otherwise
    /// whoever comes between reads and changes everything.
    pub verify: bool,
    /// `ca = "path"`, default the system's bundle: a PEM file of the authorities that are
    /// trusted, and no others. Relative to the configuration file; noticed when it changes.
    pub ca: Option<Located<PathBuf>>,
    /// `server_name = "name"`, default absent: the DNS name or IP address to ask servers for
    /// and to find in their certificates.
    /// `server_name_from = "backend" | "client"`, default `"backend"`, instead: the host part
    /// of the backend as it is listed, or the name that the client asked for (that of the
    /// backend, should it ask for none).
    pub name: NameSource,
    /// `certificate = "path"`, default absent: a PEM file of the chain that is shown to
    /// servers that ask for one, with its key in it or beside it (ending `.key`). Relative
    /// to the configuration file; noticed when it changes.
    pub certificate: Option<Located<PathBuf>>,
}

pub(super) const KEYS: &[&str] = &[
    "verify",
    "ca",
    "server_name",
    "server_name_from",
    "certificate",
    "minimum_version",
    "cipher_suites",
    "groups",
];

const VERIFY: [(&str, bool); 2] = [("full", true), ("dangerously_accept_anyone", false)];
const NAME_FROM: [(&str, bool); 2] = [("backend", false), ("client", true)];

/// The table of the pool in `pool`; `None` if it has none.
pub(super) fn read(
    report: &mut Report<'_>,
    pool: &Section<'_>,
    directory: &Path,
    provider: CryptoLibrary,
) -> Option<PoolTlsSettings> {
    pool.item(report, "tls")?;
    let section = pool.section(report, "tls", KEYS);
    let path = |item: &Item<'_>, report: &mut Report<'_>| {
        item.path(report, directory).map(|path| item.locate(path))
    };
    let verify = section.value(report, "verify", true, |item, report| item.choice(report, &VERIFY));
    let ca = section.optional(report, "ca", path);
    if !verify && let Some(item) = section.item(report, "verify") {
        let message = "servers are not verified: whoever comes between reads and changes \
                       everything";
        let help = "write verify = \"full\", and ca = \"…\" for an authority of your own";
        report.warning(item.place(), message.into(), Some(help.into()));
        if let Some(ca) = &ca {
            let message = "authorities are named, and nothing is verified";
            let help = "take it out, or write verify = \"full\"";
            report.error(&ca.place, message.into(), Some(help.into()));
        }
    }
    Some(PoolTlsSettings {
        place: section.place().clone(),
        policy: read_policy(report, &section, provider, &TlsPolicy::new(provider)),
        verify,
        ca,
        name: read_name(report, &section),
        certificate: section.optional(report, "certificate", path),
    })
}

fn read_name(report: &mut Report<'_>, section: &Section<'_>) -> NameSource {
    let fixed = section.optional(report, "server_name", |item, report| {
        let text = item.text(report)?;
        let name = ServerName::try_from(text).map(|name| name.to_owned());
        if name.is_err() {
            let help = "write a DNS name, such as \"app.internal\", or an IP address";
            let message = format!("{text:?} is not a name that a server can have");
            report.error(item.place(), message, Some(help.into()));
        }
        name.ok()
    });
    let from = section.optional(report, "server_name_from", |item, report| {
        let of_client = item.choice(report, &NAME_FROM)?;
        if fixed.is_some() {
            let message = "server_name says it already";
            report.error(item.place(), message.into(), Some("take one of the two out".into()));
        }
        Some(if of_client { NameSource::Client } else { NameSource::Server })
    });
    fixed.map(NameSource::Fixed).or(from).unwrap_or_default()
}
