//! Pools of servers, and one engine's choice among them.
//!
//! ```text
//!   Pool (immutable, shared by every engine)      Balancer (one engine's, mutable)
//!   ┌─────────────────────────┐                   ┌──────────────────────────────┐
//!   │ backends: a, b, c       │ ◀── same index ──▶│ next in rotation: b          │
//!   │ balance, proxy_protocol │                   └──────────────────────────────┘
//!   └────────────┬────────────┘                     │ counts in its own cells of
//!                ▼                                  ▼
//!   ServerStatus (one for each server and process, kept over reloads)
//! ```
//!
//! Engines do not go by each other's counts: each balances the connections it owns, which
//! is even in the sum because the kernel spreads connections evenly over engines.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::status::{ServerCounts, ServerStatus};
use crate::endpoint::Endpoint;
use crate::proxy_protocol::ProxyProtocol;

/// Servers that are interchangeable. Immutable: a reload makes a new one.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The name that listeners refer to and the log shows.
    pub name: Arc<str>,
    /// The servers, at least one and at most [`Pool::BACKENDS_MAX`], no endpoint twice.
    pub backends: Vec<Backend>,
    /// How one is chosen.
    pub balance: Balance,
    /// What the servers expect in front of the plaintext.
    pub proxy_protocol: ProxyProtocol,
}

impl Pool {
    /// The most backends of a pool. It makes [`Tried`] a pair of words in each
    /// connection; configuration refuses more.
    pub const BACKENDS_MAX: usize = 128;

    /// A pool that has the default of everything else.
    pub fn new(name: &str, backends: Vec<Backend>) -> Self {
        Self {
            name: name.into(),
            backends,
            balance: Balance::default(),
            proxy_protocol: ProxyProtocol::default(),
        }
    }
}

/// One server.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What people call it.
    pub name: String,
    /// What is known of it, in every configuration that has it.
    pub status: Arc<ServerStatus>,
}

impl Backend {
    /// A server that is called by its address and of which nothing is known yet, for a
    /// process of `engines` engines.
    pub fn new(endpoint: Endpoint, engines: usize) -> Self {
        let status = Arc::new(ServerStatus::new(engines));
        Self { name: endpoint.to_string(), endpoint, status }
    }
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest open connections; equal ones in turn.
    LeastConnections,
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

/// One engine's choice among the backends of one pool.
///
/// The caller tells it of every connection: [`Self::opened`] when it *starts* to
/// connect (so that a burst spreads at once) and [`Self::closed`] exactly once for
/// each, when the attempt fails or the connection ends.
#[derive(Clone, Debug)]
pub struct Balancer {
    balance: Balance,
    /// Whose cells of [`ServerStatus`] are counted in. They are those of the balancers of
    /// earlier configurations, whose connections live on after a reload.
    engine: usize,
    servers: Box<[Arc<ServerStatus>]>,
    /// Where the rotation goes on.
    next: usize,
}

impl Balancer {
    /// The balancer of engine `engine`. Engines do not all begin with the same backend.
    pub fn new(pool: &Pool, engine: usize) -> Self {
        let count = pool.backends.len();
        assert!(count <= Pool::BACKENDS_MAX, "configuration bounds the backends of a pool");
        Self {
            balance: pool.balance,
            engine,
            servers: pool.backends.iter().map(|backend| Arc::clone(&backend.status)).collect(),
            next: engine.checked_rem(count).unwrap_or(0),
        }
    }

    /// Chooses a backend that takes connections and is not in `tried`; `None` if there is
    /// none.
    pub fn pick(&mut self, tried: &Tried) -> Option<usize> {
        let count = self.servers.len();
        let rotation = (self.next..count).chain(0..self.next);
        let mut able = rotation.filter(|backend| {
            !tried.contains(*backend) && self.servers[*backend].standing().takes_connections()
        });
        let chosen = match self.balance {
            Balance::RoundRobin => able.next(),
            // The first of equal ones: the rotation breaks ties.
            Balance::LeastConnections => able.min_by_key(|backend| self.open(*backend)),
        }?;
        self.next = (chosen + 1) % count;
        Some(chosen)
    }

    /// A connection to `backend` is being opened.
    ///
    /// # Panics
    /// If the pool has no such backend.
    pub fn opened(&mut self, backend: usize) {
        self.counts(backend).open.increment();
    }

    /// A connection to `backend` ended, or could not be opened.
    ///
    /// # Panics
    /// If the pool has no such backend.
    pub fn closed(&mut self, backend: usize) {
        let open = &self.counts(backend).open;
        debug_assert!(open.value() > 0, "closed more often than opened");
        open.set(open.value().saturating_sub(1));
    }

    /// Connections of this engine to `backend` that are open or being opened.
    ///
    /// # Panics
    /// If the pool has no such backend.
    pub fn open(&self, backend: usize) -> u64 {
        self.counts(backend).open.value()
    }

    /// What this engine counts of `backend`.
    ///
    /// # Panics
    /// If the pool has no such backend.
    pub fn counts(&self, backend: usize) -> &ServerCounts {
        self.servers[backend].of_engine(self.engine)
    }

    /// The balancer for `new`, which replaces `old`: the rotation goes on where it was if
    /// that backend stays.
    #[must_use]
    pub fn carry_over(&self, old: &Pool, new: &Pool) -> Self {
        let next = old.backends.get(self.next).and_then(|backend| {
            new.backends.iter().position(|other| other.endpoint == backend.endpoint)
        });
        let next = next.unwrap_or(self.next).checked_rem(new.backends.len()).unwrap_or(0);
        Self { next, ..Self::new(new, self.engine) }
    }
}

#[cfg(test)]
mod tests;
