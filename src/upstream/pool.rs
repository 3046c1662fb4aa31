//! Pools of servers, and one engine's choice among them.
//!
//! ```text
//!   Pool (immutable, shared by every engine)      Balancer (one engine's, mutable)
//!   ┌─────────────────────────┐                   ┌──────────────────────────────┐
//!   │ backends: a, b, c       │ ◀── same index ──▶│ open connections: 4, 3, 4    │
//!   │ balance, proxy_protocol │                   │ next in rotation: b          │
//!   └─────────────────────────┘                   └──────────────────────────────┘
//! ```
//!
//! Engines do not share counts: each balances the connections it owns, which is even
//! in the sum because the kernel spreads connections evenly over engines.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::endpoint::Endpoint;

use crate::proxy_protocol::ProxyProtocol;

/// Servers that are interchangeable. Immutable: a reload makes a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What people call it.
    pub name: String,
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
    /// Connections open, or being opened, by backend. Counts are shared with the
    /// balancers of earlier configurations, whose connections live on after a reload.
    open: Box<[Rc<Cell<u32>>]>,
    /// Where the rotation goes on.
    next: usize,
}

impl Balancer {
    /// A balancer without connections. Engines pass their own number as `rotation`, so
    /// that they do not all begin with the same backend.
    pub fn new(pool: &Pool, rotation: usize) -> Self {
        let count = pool.backends.len();
        assert!(count <= Pool::BACKENDS_MAX, "configuration bounds the backends of a pool");
        Self {
            balance: pool.balance,
            open: (0..count).map(|_| Rc::default()).collect(),
            next: rotation.checked_rem(count).unwrap_or(0),
        }
    }

    /// Chooses a backend that is not in `tried`; `None` when all of them are.
    pub fn pick(&mut self, tried: &Tried) -> Option<usize> {
        let count = self.open.len();
        let rotation = (self.next..count).chain(0..self.next);
        let mut untried = rotation.filter(|backend| !tried.contains(*backend));
        let chosen = match self.balance {
            Balance::RoundRobin => untried.next(),
            // The first of equal ones: the rotation breaks ties.
            Balance::LeastConnections => untried.min_by_key(|backend| self.open[*backend].get()),
        }?;
        self.next = (chosen + 1) % count;
        Some(chosen)
    }

    /// A connection to `backend` is being opened.
    ///
    /// # Panics
    /// If the pool has no such backend.
    pub fn opened(&mut self, backend: usize) {
        let open = &self.open[backend];
        open.set(open.get() + 1);
    }

    /// A connection to `backend` ended, or could not be opened.
    ///
    /// # Panics
    /// If the pool has no such backend.
    pub fn closed(&mut self, backend: usize) {
        let open = &self.open[backend];
        debug_assert!(open.get() > 0, "closed more often than opened");
        open.set(open.get().saturating_sub(1));
    }

    /// Connections of this engine to `backend` that are open or being opened.
    ///
    /// # Panics
    /// If the pool has no such backend.
    pub fn open(&self, backend: usize) -> u32 {
        self.open[backend].get()
    }

    /// The balancer for `new`, which replaces `old`: backends with the same endpoint
    /// share their counts with this one, so that connections of both configurations
    /// are seen, and the rotation goes on where it was if that backend stays.
    #[must_use]
    pub fn carry_over(&self, old: &Pool, new: &Pool) -> Self {
        debug_assert_eq!(old.backends.len(), self.open.len(), "the pool of this balancer");
        let places: HashMap<&Endpoint, usize> = old
            .backends
            .iter()
            .enumerate()
            .map(|(index, backend)| (&backend.endpoint, index))
            .collect();
        let open = new
            .backends
            .iter()
            .map(|backend| match places.get(&backend.endpoint) {
                Some(index) => Rc::clone(&self.open[*index]),
                None => Rc::default(),
            })
            .collect();
        let next = old
            .backends
            .get(self.next)
            .and_then(|backend| {
                new.backends.iter().position(|other| other.endpoint == backend.endpoint)
            })
            .unwrap_or(self.next);
        Self { balance: new.balance, open, next: next.checked_rem(new.backends.len()).unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests;
