//! Pools of servers.
//!
//! ```text
//!   Pool (immutable, shared by every engine)      Balancer (one engine's, mutable)
//!   ┌─────────────────────────┐                   ┌──────────────────────────────┐
//!   │ backends: a, b, c       │ ◀── same index ──▶│ seats: what each is owed     │
//!   │ balance, limits         │                   └──────────────────────────────┘
//!   └────────────┬────────────┘                     │ counts in its own cells of
//!                ▼                                  ▼
//!   ServerStatus (one for each server and process, kept over reloads)
//! ```
#![forbid(unsafe_code)]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::health::Check;
use super::maglev::{self, HashBy, Maglev};
use super::source_address::SourceAddress;
use super::status::ServerStatus;
use crate::endpoint::Endpoint;
use crate::proxy_protocol::{Contents, ProxyProtocol};
use crate::tls::to_servers::ToServers;

/// Servers that are interchangeable. Immutable: a reload makes a new one.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The name that listeners refer to and the log shows.
    pub name: Arc<str>,
    /// The servers, at least one and at most [`Pool::BACKENDS_MAX`], no endpoint twice.
    pub backends: Vec<Backend>,
    /// How one is chosen.
    pub balance: Balance,
    /// Clients of the whole process that may wait for a place at a server, when all are
    /// full.
    pub queue_max: u32,
    /// How long a server that came back takes to get its whole weight; zero for at once.
    pub slow_start: Duration,
    /// When servers are taken out because connections to them fail; `None` is never.
    pub ejection: Option<Ejection>,
    /// Where connections to the servers come from.
    pub source: SourceAddress,
    /// How the servers are checked; `None` is not at all.
    pub check: Option<Arc<Check>>,
    /// What the servers expect in front of the plaintext.
    pub proxy_protocol: ProxyProtocol,
    /// What it says, in version 2.
    pub header: Contents,
    /// What is negotiated with the servers; `None`: they get plaintext.
    pub tls: Option<Arc<ToServers>>,
}

const _: () = assert!(Pool::BACKENDS_MAX <= maglev::SERVERS_MAX);

impl Pool {
    /// The most backends of a pool. It makes [`Tried`] a pair of words in each
    /// connection; configuration refuses more.
    pub const BACKENDS_MAX: usize = 128;

    /// Balance by tables of `backends`, which clients are found in by `hash`.
    pub fn maglev(hash: HashBy, backends: &[Backend]) -> Balance {
        let server = |backend: &Backend| maglev::Server {
            name: backend.endpoint.to_string(),
            weight: backend.weight,
            backup: backend.backup,
        };
        let servers: Vec<_> = backends.iter().map(server).collect();
        Balance::Maglev(Arc::new(Maglev::new(hash, &servers)))
    }

    /// A pool that has the default of everything else.
    pub fn new(name: &str, backends: Vec<Backend>) -> Self {
        Self {
            name: name.into(),
            backends,
            balance: Balance::default(),
            queue_max: 0,
            slow_start: Duration::ZERO,
            ejection: None,
            source: SourceAddress::default(),
            check: None,
            proxy_protocol: ProxyProtocol::default(),
            header: Contents::default(),
            tls: None,
        }
    }
}

/// When servers are taken out because connections to them fail, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures within ten seconds that take a server out, if they are most of its attempts.
    pub after: NonZeroU32,
    /// For how long the first time.
    pub time: Duration,
    /// Hundredths of the pool's servers that may be out at a time, rounded down.
    pub share_max_percent: u8,
}

/// One server.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What people call it.
    pub name: String,
    /// Its share of the connections, next to those of the others; 0 is none at all. At most
    /// [`Self::WEIGHT_MAX`].
    pub weight: u16,
    /// It stands in for the others: it is given connections only while none of those that
    /// are no backups takes any.
    pub backup: bool,
    /// Connections of the whole process that it may have; `None` is no limit.
    pub connections_max: Option<u32>,
    /// What its certificate is to be for, unless the pool says otherwise.
    pub host: Option<ServerName<'static>>,
    /// What is known of it, in every configuration that has it.
    pub status: Arc<ServerStatus>,
}

impl Backend {
    /// The largest weight, which is that of HAProxy.
    pub const WEIGHT_MAX: u16 = 256;

    /// A server that is called by its address and of which nothing is known yet, for a
    /// process of `engines` engines.
    pub fn new(endpoint: Endpoint, engines: usize) -> Self {
        let status = Arc::new(ServerStatus::new(engines));
        Self {
            name: endpoint.to_string(),
            endpoint,
            weight: 1,
            backup: false,
            connections_max: None,
            host: None,
            status,
        }
    }

    /// Whether it is given new connections.
    pub fn takes_connections(&self) -> bool {
        self.weight > 0 && self.status.standing().takes_connections()
    }
}

/// How a backend is chosen, by weight each time.
#[derive(Clone, Debug, Default)]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest open connections; equal ones in turn.
    LeastConnections,
    /// Of two drawn by chance, the one with fewer open connections.
    RandomTwo,
    /// The one that the client always has.
    Maglev(Arc<Maglev>),
}

/// The backends already tried for one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried([u64; Pool::BACKENDS_MAX / 64]);

impl Tried {
    /// Nothing tried yet.
    pub const NONE: Self = Self([0; Pool::BACKENDS_MAX / 64]);

    /// Notes that `backend` was tried.
    ///
    /// # Panics
    /// If `backend` is not below [`Pool::BACKENDS_MAX`].
    pub fn insert(&mut self, backend: usize) {
        self.0[backend / 64] |= 1 << (backend % 64);
    }

    /// Whether `backend` was tried.
    ///
    /// # Panics
    /// If `backend` is not below [`Pool::BACKENDS_MAX`].
    pub fn contains(&self, backend: usize) -> bool {
        self.0[backend / 64] & (1 << (backend % 64)) != 0
    }

    /// How many were tried.
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}
