//! `[[pool]]`: the servers that get the plaintext.

use std::path::Path;

use crate::endpoint::Endpoint;
use crate::proxy_protocol::ProxyProtocol;
use crate::upstream::{Balance, Pool};

use super::finding::Located;
use super::item::{Item, Section};
use super::report::Report;
use super::values;

/// `[[pool]]`, at least one and at most [`PoolSettings::COUNT_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// `name = "text"`, required: what listeners refer to. No two pools share one.
    pub name: Located<String>,
    /// `backends = ["address", ...]`, required, 1 to 128: `"10.0.0.1:8080"`,
    /// `"[2001:db8::1]:8080"`, `"unix:/run/app.sock"` (relative to the configuration
    /// file), or `"host.example:8080"`, which is resolved at start and at reload and
    /// stands for all addresses of that name.
    pub backends: Vec<Located<BackendAddress>>,
    /// `balance = "round_robin" | "least_connections"`, default `"round_robin"`: which
    /// backend a connection goes to. Least connections suits connections of very unequal
    /// length. Each engine balances its own.
    pub balance: Balance,
    /// `proxy_protocol = "none" | "v1" | "v2"`, default `"none"`: what is sent in front of
    /// the plaintext. `"v1"` tells the client's address, `"v2"` also ALPN, server name,
    /// TLS version and cipher suite. The servers must be configured to expect it.
    pub proxy_protocol: ProxyProtocol,
}

impl PoolSettings {
    /// The most pools of a file.
    pub const COUNT_MAX: usize = 256;
}

/// Where a backend is, as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// An address that needs no resolving.
    Endpoint(Endpoint),
    /// A host name, to be resolved.
    Host {
        /// The name.
        host: String,
        /// The TCP port.
        port: u16,
    },
}

pub(super) const KEYS: &[&str] = &["name", "backends", "balance", "proxy_protocol"];

const BALANCE: [(&str, Balance); 2] =
    [("round_robin", Balance::RoundRobin), ("least_connections", Balance::LeastConnections)];
const PROXY_PROTOCOL: [(&str, ProxyProtocol); 3] =
    [("none", ProxyProtocol::None), ("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];

pub(super) fn read_all(
    report: &mut Report<'_>,
    root: &Section<'_>,
    directory: &Path,
) -> Vec<PoolSettings> {
    let sections = root.sections(report, "pool", KEYS);
    super::check::table_count(report, root, "pool", &sections, PoolSettings::COUNT_MAX);
    let mut pools: Vec<PoolSettings> = Vec::new();
    for section in &sections {
        let pool = read(report, section, directory);
        let known = |other: &PoolSettings| other.name.value == pool.name.value;
        if !pool.name.value.is_empty() && pools.iter().any(known) {
            let message = format!("another pool is already called {:?}", pool.name.value);
            report.error(&pool.name.place, message, Some("give each a name of its own".into()));
        }
        pools.push(pool);
    }
    pools
}

fn read(report: &mut Report<'_>, section: &Section<'_>, directory: &Path) -> PoolSettings {
    PoolSettings {
        name: section
            .required(report, "name", "write name = \"web\"", |item, report| {
                name(report, item).map(|name| item.locate(name))
            })
            .unwrap_or_default(),
        backends: section
            .required(report, "backends", "write backends = [\"10.0.0.1:8080\"]", |item, report| {
                read_backends(report, item, directory)
            })
            .unwrap_or_default(),
        balance: section.value(report, "balance", Balance::default(), |item, report| {
            item.choice(report, &BALANCE)
        }),
        proxy_protocol: section.value(
            report,
            "proxy_protocol",
            ProxyProtocol::default(),
            |item, report| item.choice(report, &PROXY_PROTOCOL),
        ),
    }
}

fn read_backends(
    report: &mut Report<'_>,
    item: &Item<'_>,
    directory: &Path,
) -> Option<Vec<Located<BackendAddress>>> {
    let elements = item.elements(report)?;
    if elements.is_empty() || elements.len() > Pool::BACKENDS_MAX {
        let message = match elements.len() {
            0 => "no backend is listed".into(),
            count => format!("{count} backends are listed"),
        };
        let help = format!("a pool has 1 to {}, such as [\"10.0.0.1:8080\"]", Pool::BACKENDS_MAX);
        report.error(item.place(), message, Some(help));
        return None;
    }
    let mut backends: Vec<Located<BackendAddress>> = Vec::new();
    for element in elements {
        let Some(text) = element.text(report) else { continue };
        let read = values::backend_address(text, directory);
        let Some(backend) = element.understood(report, read) else { continue };
        if backends.iter().any(|other| other.value == backend) {
            let help = "take one of the two out".into();
            report.error(element.place(), format!("{text:?} is listed twice"), Some(help));
        } else {
            backends.push(element.locate(backend));
        }
    }
    Some(backends)
}

/// A name of a pool or listener: it becomes part of log lines.
pub(super) fn name(report: &mut Report<'_>, item: &Item<'_>) -> Option<String> {
    const CHARACTERS_MAX: usize = 64;
    let name = item.text(report)?;
    let count = name.chars().count();
    if (1..=CHARACTERS_MAX).contains(&count) && !name.chars().any(char::is_control) {
        return Some(name.into());
    }
    let message = format!("{name:?} cannot be a name");
    let help = format!("write 1 to {CHARACTERS_MAX} characters without line breaks");
    report.error(item.place(), message, Some(help));
    None
}
