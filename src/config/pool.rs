//! `[[pool]]`: the servers that get the plaintext.

use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

use crate::dns::Wanted;
use crate::endpoint::Endpoint;
use crate::proxy_protocol::ProxyProtocol;
use crate::tls::CryptoLibrary;
use crate::tls::to_servers::NameSource;
use crate::upstream::health::Check;
use crate::upstream::pool::Ejection;
use crate::upstream::status::Standing;
use crate::upstream::{Backend, HashBy, Pool, SourceAddress};

use super::finding::Located;
use super::item::{Item, Section};
use super::pool_tls::{self, PoolTlsSettings};
use super::proxy_header::{self, ProxyHeaderSettings};
use super::report::Report;
use super::values;

/// `[[pool]]`, at least one and at most [`PoolSettings::COUNT_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// `name = "text"`, required: what listeners refer to. No two pools share one.
    pub name: Located<String>,
    /// `backends = [backend, ...]`, required, 1 to 128. A backend is its address, or a table
    /// with `address` and more, see [`BackendSettings`].
    pub backends: Vec<Located<BackendSettings>>,
    /// `balance = "round_robin" | "least_connections" | "random_two" | "maglev"`, default
    /// `"round_robin"`: which backend a connection goes to, by weight each time. Least
    /// connections suits connections of very unequal length; so does random two (the less
    /// loaded of two drawn by chance), which also does where many nodes share the backends.
    /// Maglev keeps a client with its backend, on every node. Each engine balances its own.
    ///
    /// `hash = "source" | "sni"`, default `"source"`: what Maglev knows a client by, its
    /// address or the name that it asks for.
    pub balance: BalanceSetting,
    /// `queue_max = N`, 0 to 1,000,000, default 1,000: clients that may wait for a place
    /// when every backend has as many connections as it may have (`connections_max`), for
    /// `timeouts.queue` at most. Further ones are closed at once.
    pub queue_max: u32,
    /// `slow_start = duration`, `"0s"` to `"1h"`, default `"0s"`: how long a backend that
    /// comes back takes to get its whole weight, from a hundredth on.
    pub slow_start: Duration,
    /// `eject_after = N`, 1 to 1,000,000, default none: a backend to which so many
    /// connections failed within ten seconds, and more than half of all, is given none for a
    /// while. Failed is what could not be connected, and what the backend reset before its
    /// first byte.
    ///
    /// `eject_time = duration`, `"1s"` to `"1h"`, default `"10s"`: for how long the first
    /// time. Twice as long each time in a row, up to 64 times.
    ///
    /// `eject_share_max = N`, 1 to 99, default 50: hundredths of the backends, rounded down,
    /// that may be out at a time. The last that takes connections is never ejected.
    pub ejection: Option<Ejection>,
    /// Where connections to the backends come from, one of:
    ///
    /// * `bind = "address" | [one of each family]`, default absent, which is what the kernel
    ///   chooses: an address of this machine, for backends of its family.
    /// * `transparent = true | false`, default `false`: the client's own address. The answers
    ///   must be routed back through this machine, and the process needs CAP_NET_ADMIN.
    ///   A backend of another family than the client is passed over.
    pub source: Option<Located<SourceAddress>>,
    /// `[pool.check]`, default none: how backends are checked.
    pub check: Option<Arc<Check>>,
    /// `proxy_protocol = "none" | "v1" | "v2"`, default `"none"`: what is sent in front of
    /// the plaintext. `"v1"` tells the client's address, `"v2"` also what `proxy_tlvs` and
    /// the other keys of [`ProxyHeaderSettings`] say. The servers must be configured to
    /// expect it.
    pub proxy_protocol: ProxyProtocol,
    /// What it says, in version 2.
    pub header: ProxyHeaderSettings,
    /// `[pool.tls]`, default absent: TLS towards the servers.
    pub tls: Option<PoolTlsSettings>,
}

impl PoolSettings {
    /// The most pools of a file.
    pub const COUNT_MAX: usize = 256;

    const QUEUE_MAX: u32 = 1_000;

    /// A pool of these backends that has the default of everything else.
    pub fn new(name: String, backends: Vec<BackendAddress>) -> Self {
        let settings = |address| Located::from(BackendSettings::new(address));
        Self {
            name: name.into(),
            backends: backends.into_iter().map(settings).collect(),
            balance: BalanceSetting::default(),
            queue_max: Self::QUEUE_MAX,
            slow_start: Duration::ZERO,
            ejection: None,
            source: None,
            check: None,
            proxy_protocol: ProxyProtocol::default(),
            header: ProxyHeaderSettings::default(),
            tls: None,
        }
    }
}

/// How a backend is chosen, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BalanceSetting {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest open connections.
    LeastConnections,
    /// Of two drawn by chance, the one with fewer open connections.
    RandomTwo,
    /// The one that the client always has.
    Maglev(HashBy),
}

/// One backend, or all that its name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSettings {
    /// `address = "..."`, required: `"10.0.0.1:8080"`, `"[2001:db8::1]:8080"`,
    /// `"unix:/run/app.sock"` (relative to the configuration file), `"host.example:8080"`,
    /// which stands for all addresses of that name, or `"srv:_app._tcp.example"`, which
    /// stands for all servers of that service, with its ports, weights and priorities. What
    /// names stand for is asked anew when the answers have ended, see
    /// [`ResolverSettings`](super::ResolverSettings).
    pub address: BackendAddress,
    /// `weight = N`, 0 to 256, default 1: its share of the connections, next to those of
    /// the others. 0: no new connections. Not for a service, which has its own.
    pub weight: u16,
    /// `backup = true | false`, default `false`: it gets connections only while none of the
    /// backends that are no backups takes any.
    pub backup: bool,
    /// `connections_max = N`, 1 to 1,000,000, default none: connections that it may have,
    /// divided evenly among the engines, but one each at least. In `[[pool]]` it is the
    /// default of every backend of the pool.
    pub connections_max: Option<u32>,
}

impl BackendSettings {
    /// A backend that has the default of everything else.
    pub const fn new(address: BackendAddress) -> Self {
        Self { address, weight: 1, backup: false, connections_max: None }
    }
}

/// Where a backend is, as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// An address that needs no resolving.
    Endpoint(Endpoint),
    /// A name, to be resolved.
    Named {
        /// The name of a host or a service.
        wanted: Wanted,
        /// The TCP port; a service has its own.
        port: Option<u16>,
    },
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => endpoint.fmt(formatter),
            Self::Named { wanted, port: Some(port) } => write!(formatter, "{wanted}:{port}"),
            Self::Named { wanted, port: None } => wanted.fmt(formatter),
        }
    }
}

pub(super) const KEYS: &[&str] = &[
    "name",
    "backends",
    "balance",
    "hash",
    "connections_max",
    "queue_max",
    "slow_start",
    "eject_after",
    "eject_time",
    "eject_share_max",
    "bind",
    "transparent",
    "proxy_protocol",
    "proxy_tlvs",
    "proxy_align",
    "proxy_custom_tlvs",
    "proxy_pass_tlvs",
    "proxy_key_file",
    "tls",
    "check",
];

const BACKEND_KEYS: &[&str] = &["address", "weight", "backup", "connections_max"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    RoundRobin,
    LeastConnections,
    RandomTwo,
    Maglev,
}

const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("round_robin", Algorithm::RoundRobin),
    ("least_connections", Algorithm::LeastConnections),
    ("random_two", Algorithm::RandomTwo),
    ("maglev", Algorithm::Maglev),
];
const HASHES: [(&str, HashBy); 2] = [("source", HashBy::Source), ("sni", HashBy::ServerName)];
const PROXY_PROTOCOL: [(&str, ProxyProtocol); 3] =
    [("none", ProxyProtocol::None), ("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];

pub(super) fn read_all(
    report: &mut Report<'_>,
    root: &Section<'_>,
    directory: &Path,
    provider: CryptoLibrary,
) -> Vec<PoolSettings> {
    let sections = root.sections(report, "pool", KEYS);
    super::check::table_count(report, root, "pool", &sections, PoolSettings::COUNT_MAX);
    let mut pools: Vec<PoolSettings> = Vec::new();
    for section in &sections {
        let pool = read(report, section, directory, provider);
        let known = |other: &PoolSettings| other.name.value == pool.name.value;
        if !pool.name.value.is_empty() && pools.iter().any(known) {
            let message = format!("another pool is already called {:?}", pool.name.value);
            report.error(&pool.name.place, message, Some("give each a name of its own".into()));
        }
        pools.push(pool);
    }
    pools
}

fn read(
    report: &mut Report<'_>,
    section: &Section<'_>,
    directory: &Path,
    provider: CryptoLibrary,
) -> PoolSettings {
    let connections_max = section.optional(report, "connections_max", read_connections_max);
    let backends = section.required(
        report,
        "backends",
        "write backends = [\"10.0.0.1:8080\"]",
        |item, report| read_backends(report, item, directory, connections_max),
    );
    let backends = backends.unwrap_or_default();
    let check = super::pool_check::read(report, section);
    let limited = backends.iter().any(|backend| backend.value.connections_max.is_some())
        || check.as_ref().is_some_and(|check| check.agent_port.is_some());
    if let Some(item) = section.item(report, "queue_max")
        && !limited
    {
        let message = "has no effect: no backend of the pool has connections_max".into();
        report.warning(item.place(), message, Some("write connections_max too".into()));
    }
    let proxy_protocol =
        section.value(report, "proxy_protocol", ProxyProtocol::default(), |item, report| {
            item.choice(report, &PROXY_PROTOCOL)
        });
    let pool = PoolSettings {
        name: section
            .required(report, "name", "write name = \"web\"", |item, report| {
                name(report, item).map(|name| item.locate(name))
            })
            .unwrap_or_default(),
        backends,
        balance: read_balance(report, section),
        queue_max: section.value(report, "queue_max", PoolSettings::QUEUE_MAX, |item, report| {
            item.count(report, 0..=1_000_000)
        }),
        slow_start: section.value(report, "slow_start", Duration::ZERO, |item, report| {
            item.duration(report, Duration::ZERO..=Duration::from_secs(3_600))
        }),
        ejection: read_ejection(report, section),
        source: super::source_address::read(report, section),
        check,
        proxy_protocol,
        header: proxy_header::read(report, section, directory, proxy_protocol),
        tls: pool_tls::read(report, section, directory, provider),
    };
    check_server_names(report, &pool);
    super::source_address::check(report, &pool);
    pool
}

/// Every server that TLS is spoken with needs a name.
fn check_server_names(report: &mut Report<'_>, pool: &PoolSettings) {
    let Some(tls) = &pool.tls else { return };
    if matches!(tls.name, NameSource::Fixed(_)) {
        return;
    }
    for backend in &pool.backends {
        if backend.value.address.host().is_none() {
            let message = "it has no name that its certificate could be for";
            let help = "write server_name = \"app.internal\" in [pool.tls]";
            report.error(&backend.place, message.into(), Some(help.into()));
        }
    }
}

impl BackendAddress {
    /// What its certificate is to be for: the name as written, or the address; `None` for a
    /// UNIX socket, for a name that no certificate can be for, and for a service: whoever
    /// answers for its name would choose the names of its hosts.
    pub fn host(&self) -> Option<ServerName<'static>> {
        match self {
            Self::Endpoint(Endpoint::Inet(address)) => {
                Some(ServerName::IpAddress(address.ip().into()))
            }
            Self::Endpoint(Endpoint::Unix(_)) => None,
            Self::Named { wanted: Wanted::Host(host), .. } => {
                ServerName::try_from(host.clone()).ok()
            }
            Self::Named { wanted: Wanted::Service(_), .. } => None,
        }
    }
}

fn read_ejection(report: &mut Report<'_>, section: &Section<'_>) -> Option<Ejection> {
    let after = section.optional(report, "eject_after", |item, report| {
        item.count(report, 1..=1_000_000_u32).and_then(NonZeroU32::new)
    });
    let time = section.value(report, "eject_time", Duration::from_secs(10), |item, report| {
        item.duration(report, Duration::from_secs(1)..=Duration::from_secs(3_600))
    });
    let share_max_percent =
        section.value(report, "eject_share_max", 50, |item, report| item.count(report, 1..=99_u8));
    for key in ["eject_time", "eject_share_max"] {
        if let Some(item) = section.item(report, key)
            && after.is_none()
        {
            let message = "has no effect without eject_after".into();
            report.warning(item.place(), message, Some("write eject_after too".into()));
        }
    }
    after.map(|after| Ejection { after, time, share_max_percent })
}

fn read_balance(report: &mut Report<'_>, section: &Section<'_>) -> BalanceSetting {
    let algorithm = section.value(report, "balance", Algorithm::RoundRobin, |item, report| {
        item.choice(report, &ALGORITHMS)
    });
    let hash = section
        .value(report, "hash", HashBy::default(), |item, report| item.choice(report, &HASHES));
    if let Some(item) = section.item(report, "hash")
        && algorithm != Algorithm::Maglev
        && hash != HashBy::default()
    {
        let message = "has no effect without balance = \"maglev\"".into();
        report.warning(item.place(), message, Some("take one of the two out".into()));
    }
    match algorithm {
        Algorithm::RoundRobin => BalanceSetting::RoundRobin,
        Algorithm::LeastConnections => BalanceSetting::LeastConnections,
        Algorithm::RandomTwo => BalanceSetting::RandomTwo,
        Algorithm::Maglev => BalanceSetting::Maglev(hash),
    }
}

fn read_connections_max(item: &Item<'_>, report: &mut Report<'_>) -> Option<u32> {
    item.count(report, 1..=Standing::CONNECTIONS_MAX)
}

fn read_backends(
    report: &mut Report<'_>,
    item: &Item<'_>,
    directory: &Path,
    connections_max: Option<u32>,
) -> Option<Vec<Located<BackendSettings>>> {
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
    let mut backends: Vec<Located<BackendSettings>> = Vec::new();
    for element in &elements {
        let Some(mut backend) = read_backend(report, element, directory) else { continue };
        backend.value.connections_max = backend.value.connections_max.or(connections_max);
        if backends.iter().any(|other| other.value.address == backend.value.address) {
            let help = "take one of the two out".into();
            let message = format!("\"{}\" is listed twice", backend.value.address);
            report.error(&backend.place, message, Some(help));
        } else {
            backends.push(backend);
        }
    }
    if backends.len() == elements.len() && backends.iter().all(|backend| backend.value.weight == 0)
    {
        let message = "no backend has a weight above 0: nobody would be served".into();
        report.error(item.place(), message, Some("give one of them a weight".into()));
    }
    Some(backends)
}

fn read_backend(
    report: &mut Report<'_>,
    item: &Item<'_>,
    directory: &Path,
) -> Option<Located<BackendSettings>> {
    let address = |item: &Item<'_>, report: &mut Report<'_>| {
        let text = item.text(report)?;
        item.understood(report, values::backend_address(text, directory))
    };
    if !item.is_table() {
        return address(item, report).map(|address| item.locate(BackendSettings::new(address)));
    }
    let section = item.section(report, BACKEND_KEYS);
    let help = "write { address = \"10.0.0.1:8080\" }";
    let settings = BackendSettings::new(section.required(report, "address", help, address)?);
    let weight =
        |item: &Item<'_>, report: &mut Report<'_>| item.count(report, 0..=Backend::WEIGHT_MAX);
    if let BackendAddress::Named { port: None, .. } = settings.address
        && let Some(item) = section.item(report, "weight")
    {
        let message = "a service has the weights of its SRV records".into();
        report.error(item.place(), message, Some("take the weight out".into()));
    }
    Some(item.locate(BackendSettings {
        weight: section.value(report, "weight", settings.weight, weight),
        backup:
            section.value(report, "backup", settings.backup, |item, report| item.boolean(report)),
        connections_max: section.optional(report, "connections_max", read_connections_max),
        ..settings
    }))
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
