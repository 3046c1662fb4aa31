//! `[[listener]]`: where clients connect, and what they are shown.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::routing::Route;
use crate::tls::policy::UnknownServerName;

use super::client_auth::{ClientAuthMode, ClientAuthSettings, NamedClientAuth};
use super::finding::Located;
use super::item::{Item, Section};
use super::pool::PoolSettings;
use super::report::Report;
use super::shadow::{self, ShadowSettings};
use super::tls::{self, TlsPolicy, TlsSettings};
use super::{suggest, values};

/// `[[listener]]`, at least one and at most [`ListenerSettings::COUNT_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// `name = "text"`, default the first address as written: what the log calls it. No two listeners share one.
    pub name: String,
    /// `address = "IP:port" | [several]`, required: where clients connect. `"[::]:443"`
    /// and `":443"` take IPv6 and IPv4, `"0.0.0.0:443"` IPv4 only.
    pub addresses: Vec<Located<SocketAddr>>,
    /// `certificates = [paths]`, required: PEM files with chain and key, or directories
    /// of such; which one a client is shown depends on the server name it asks for, or, if
    /// it asks for none, on the address that it has connected to.
    /// Relative to the configuration file.
    pub certificates: Vec<Located<PathBuf>>,
    /// `default_certificate = "path"`, default absent, which is the first of
    /// `certificates`: shown to clients that ask for no name or, with `unknown_sni =
    /// "default"`, for one that no certificate has. It need not be in `certificates` too.
    pub default_certificate: Option<Located<PathBuf>>,
    /// `unknown_sni = "default" | "reject"`, default `"default"`: what a client gets that
    /// asks for a name that no certificate has: the default certificate, or the alert
    /// unrecognized_name. Without any name it gets the default certificate in both cases.
    pub unknown_sni: UnknownServerName,
    /// `alpn = [protocols]`, default empty, which is no negotiation: application
    /// protocols that the pool speaks, in order of preference, such as
    /// `["h2", "http/1.1"]`. Clients that offer only others are refused (RFC 7301).
    pub alpn: Vec<String>,
    /// `accept_proxy_from = [addresses and prefixes]`, default empty, at most 64: peers
    /// whose connections begin with a PROXY protocol header, version 1 or 2: balancers in
    /// front. The client is whom the header names, for limits, logs and the pool. From
    /// these peers a header must come, from others none is taken.
    pub accept_proxy_from: Vec<IpNet>,
    /// `session_domain = "text"`, default absent, which stands for the names in the
    /// listener's certificates: sessions are resumed by every listener, on any node with
    /// the same secrets, that has the same domain. To be set where nodes have certificates
    /// with names of their own beside the shared ones.
    pub session_domain: Option<String>,
    /// `pool = "name"`, required; here its index in `Settings::pools`: where the
    /// plaintext goes.
    pub pool: usize,
    /// `[[listener.route]]`: clients that go another way, in order; see
    /// [`crate::routing`].
    pub routes: Vec<Route>,
    /// `[listener.client_auth]`: whether clients show a certificate, and which come in.
    pub client_auth: ClientAuthSettings,
    /// `[[listener.client_auth_for]]`: the same for clients that ask for certain names.
    pub client_auth_for: Vec<NamedClientAuth>,
    /// `minimum_version`, `cipher_suites`, `groups`, default those of `[tls]`, which are
    /// filled in here.
    pub policy: TlsPolicy,
    /// `[listener.shadow]`: a policy that is only tried.
    pub shadow: Option<Located<ShadowSettings>>,
}

impl ListenerSettings {
    /// The most listeners of a file.
    pub const COUNT_MAX: usize = 256;
    /// The most addresses of a listener.
    pub const ADDRESSES_MAX: usize = 64;
    /// The most prefixes that headers are taken from: every accept looks at each.
    pub const ACCEPT_PROXY_FROM_MAX: usize = 64;
    /// The most protocols of a listener.
    pub const ALPN_MAX: usize = 16;
}

pub(super) const KEYS: &[&str] = &[
    "name",
    "address",
    "certificates",
    "default_certificate",
    "unknown_sni",
    "alpn",
    "accept_proxy_from",
    "session_domain",
    "pool",
    "route",
    "client_auth",
    "client_auth_for",
    "minimum_version",
    "cipher_suites",
    "groups",
    "shadow",
];

const UNKNOWN_SNI: [(&str, UnknownServerName); 2] =
    [("default", UnknownServerName::Default), ("reject", UnknownServerName::Reject)];

pub(super) fn read_all(
    report: &mut Report<'_>,
    root: &Section<'_>,
    directory: &Path,
    tls: &TlsSettings,
    pools: &[PoolSettings],
) -> Vec<ListenerSettings> {
    let sections = root.sections(report, "listener", KEYS);
    super::check::table_count(report, root, "listener", &sections, ListenerSettings::COUNT_MAX);
    let mut names = HashSet::new();
    sections
        .iter()
        .map(|section| {
            let listener = read(report, section, directory, tls, pools);
            if !listener.name.is_empty() && !names.insert(listener.name.clone()) {
                let item = section.item(report, "name");
                let place = item.as_ref().map_or(section.place(), Item::place);
                let message = format!("another listener is already called {:?}", listener.name);
                report.error(place, message, Some("give each a name of its own".into()));
            }
            listener
        })
        .collect()
}

fn read(
    report: &mut Report<'_>,
    section: &Section<'_>,
    directory: &Path,
    tls: &TlsSettings,
    pools: &[PoolSettings],
) -> ListenerSettings {
    let addresses = section
        .required(report, "address", "write address = \":443\"", |item, report| {
            read_addresses(report, item)
        })
        .unwrap_or_default();
    let name = section.optional(report, "name", |item, report| super::pool::name(report, item));
    // As written, not as understood: ":443" is what the operator looks for in the log.
    let first_address = || {
        let item = section.item(report, "address")?;
        let text = item.first_text()?;
        Some(text.to_owned())
    };
    let name = name.or_else(first_address).unwrap_or_default();
    let certificates = section
        .required(
            report,
            "certificates",
            "write certificates = [\"site.pem\"] or a directory of PEM files",
            |item, report| read_certificates(report, item, directory),
        )
        .unwrap_or_default();
    let client_auth = super::client_auth::read(report, section, directory);
    let client_auth_for = super::client_auth::read_named(report, section, directory, &client_auth);
    let asks = std::iter::once(&client_auth)
        .chain(client_auth_for.iter().map(|named| &named.settings))
        .any(|settings| settings.mode != ClientAuthMode::None);
    let policy = tls::read_policy(report, section, tls.provider, &tls.policy);
    ListenerSettings {
        name,
        addresses,
        certificates,
        default_certificate: section.optional(report, "default_certificate", |item, report| {
            item.path(report, directory).map(|path| item.locate(path))
        }),
        unknown_sni: section.value(
            report,
            "unknown_sni",
            UnknownServerName::default(),
            |item, report| item.choice(report, &UNKNOWN_SNI),
        ),
        alpn: section.value(report, "alpn", Vec::new(), |item, report| read_alpn(report, item)),
        accept_proxy_from: section.value(
            report,
            "accept_proxy_from",
            Vec::new(),
            |item, report| item.prefixes(report, ListenerSettings::ACCEPT_PROXY_FROM_MAX),
        ),
        session_domain: section
            .optional(report, "session_domain", |item, report| super::pool::name(report, item)),
        pool: section
            .required(report, "pool", "write pool = \"name\" of a [[pool]]", |item, report| {
                read_pool(report, item, pools)
            })
            .unwrap_or_default(),
        routes: super::route::read_all(report, section, pools, asks),
        client_auth_for,
        client_auth,
        shadow: shadow::read(report, section, tls.provider, &policy),
        policy,
    }
}

fn read_addresses(report: &mut Report<'_>, item: &Item<'_>) -> Option<Vec<Located<SocketAddr>>> {
    let elements = item.one_or_more(report)?;
    if elements.is_empty() || elements.len() > ListenerSettings::ADDRESSES_MAX {
        let message = format!("{} addresses are listed", elements.len());
        let help = format!("write 1 to {}", ListenerSettings::ADDRESSES_MAX);
        report.error(item.place(), message, Some(help));
        return None;
    }
    let mut addresses = Vec::new();
    for element in elements {
        let Some(text) = element.text(report) else { continue };
        if let Some(address) = element.understood(report, values::listen_address(text)) {
            addresses.push(element.locate(address));
        }
    }
    Some(addresses)
}

fn read_certificates(
    report: &mut Report<'_>,
    item: &Item<'_>,
    directory: &Path,
) -> Option<Vec<Located<PathBuf>>> {
    let elements = item.one_or_more(report)?;
    if elements.is_empty() {
        let help = "write the path of a PEM file, or of a directory of such".into();
        report.error(item.place(), "no certificate is listed".into(), Some(help));
        return None;
    }
    item.paths(report, directory, usize::MAX)
}

/// RFC 7301 section 3.1: a protocol name has 1 to 255 bytes.
pub(super) fn read_alpn(report: &mut Report<'_>, item: &Item<'_>) -> Option<Vec<String>> {
    let elements = item.elements(report)?;
    if elements.len() > ListenerSettings::ALPN_MAX {
        let message = format!("{} protocols are listed", elements.len());
        let help = format!("write at most {}", ListenerSettings::ALPN_MAX);
        report.error(item.place(), message, Some(help));
        return None;
    }
    let mut protocols: Vec<String> = Vec::new();
    for element in elements {
        let Some(name) = element.text(report) else { continue };
        let (message, help) = if !(1..=255).contains(&name.len()) {
            let message = format!("a protocol name of {} bytes", name.len());
            (message, "a name has 1 to 255 bytes, such as \"h2\" or \"http/1.1\"")
        } else if protocols.iter().any(|other| other == name) {
            (format!("{name:?} is listed twice"), "its first place counts: take this one out")
        } else {
            protocols.push(name.into());
            continue;
        };
        report.error(element.place(), message, Some(help.into()));
    }
    Some(protocols)
}

pub(super) fn read_pool(
    report: &mut Report<'_>,
    item: &Item<'_>,
    pools: &[PoolSettings],
) -> Option<usize> {
    let name = item.text(report)?;
    let index = pools.iter().position(|pool| pool.name.value == name);
    if index.is_none() {
        let names: Vec<&str> = pools.iter().map(|pool| pool.name.value.as_str()).collect();
        let help = match suggest::nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None if names.is_empty() => format!("add a [[pool]] with name = {name:?}"),
            None => {
                let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
                format!("the pools are {}", names.join(", "))
            }
        };
        report.error(item.place(), format!("there is no pool {name:?}"), Some(help));
    }
    index
}
