//! The configuration as an engine sees it: one immutable snapshot per reload.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::connection::Through;
use super::lists::List;
use super::shadow::{Asked, Shadow};
use crate::proxy_protocol::contents::TypeSet;
use crate::routing::{Action, Client, Routes};
use crate::tls::client_auth::OpenChoice;
use crate::tls::client_hello::ClientHello;
use crate::tls::policy::Policy;
use crate::tls::policy::candidate::Verdict;
use crate::upstream::balancer::{Balancer, share_of};
use crate::upstream::pool::Pool;

/// Everything about the configuration that an engine asks for while it runs.
/// Connections keep the snapshot they began with.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts reloads, from 1.
    pub generation: u64,
    /// One per listening socket of the driver, in the same order.
    pub listeners: Arc<[Listener]>,
    /// The pools that listeners name by index.
    pub pools: Vec<Arc<Pool>>,
    /// Durations of the timer classes.
    pub timeouts: Timeouts,
    /// Record sizes and stream ends.
    pub records: Records,
    /// What clients may ask for.
    pub limits: ClientLimits,
}

impl Snapshot {
    /// The same with other `pools`, of the same number and names.
    #[must_use]
    pub fn with_pools(&self, pools: Vec<Arc<Pool>>) -> Self {
        let Self { generation, listeners, timeouts, records, limits, .. } = self;
        Self {
            generation: *generation,
            listeners: Arc::clone(listeners),
            pools,
            timeouts: *timeouts,
            records: *records,
            limits: limits.clone(),
        }
    }
}

/// What a listening socket leads to.
#[derive(Debug)]
pub struct Listener {
    /// For logs and metrics.
    pub name: Arc<str>,
    /// Certificates and protocol choices.
    pub policy: Arc<Policy>,
    /// A policy that is tried on its clients.
    pub shadow: Option<Arc<Shadow>>,
    /// Who goes another way than to `pool`. Their pools are indices as well.
    pub routes: Routes,
    /// Index into [`Snapshot::pools`].
    pub pool: usize,
    /// Peers that begin with a PROXY protocol header: balancers in front, which speak for
    /// their clients.
    pub header_senders: Vec<IpNet>,
}

impl Listener {
    /// Which way a client goes that comes from `source` to `destination`, as far as that is
    /// known, with this ClientHello.
    pub fn way_of(
        &self,
        source: IpAddr,
        destination: Option<IpAddr>,
        hello: &ClientHello<'_>,
    ) -> Action {
        let routes = self.routes.as_slice();
        if routes.is_empty() {
            return Action::Forward { pool: self.pool };
        }
        let (version, protocol) = self.policy.preview(hello, destination);
        let found = self.routes.find(&Client { source, hello, version, protocol });
        found.map_or(Action::Forward { pool: self.pool }, |place| routes[place].action)
    }

    /// Which pools the client's certificate may lead to instead; `None`: none.
    pub fn choice_of(
        &self,
        source: IpAddr,
        destination: Option<IpAddr>,
        hello: &ClientHello<'_>,
    ) -> Option<OpenChoice> {
        if !self.routes.asks_for_certificates() {
            return None;
        }
        let (version, protocol) = self.policy.preview(hello, destination);
        self.routes.choice_of(&Client { source, hello, version, protocol })
    }

    /// What would become of a client under the policy that is tried, if there is one.
    pub fn verdict_on(
        &self,
        hello: &ClientHello<'_>,
        destination: Option<IpAddr>,
    ) -> Option<Verdict> {
        Some(self.shadow.as_ref()?.candidate.judge(hello, destination))
    }

    /// Counts such a client, which asked for `name`, for the engine number `engine`.
    pub(super) fn count_verdict(&self, engine: usize, name: Option<&str>, verdict: Verdict) {
        let Some(shadow) = &self.shadow else { return };
        let asked = match name {
            None => Asked::Nothing,
            Some(name) if self.policy.has_certificate_for(name) => Asked::Served(name),
            Some(_) => Asked::Unserved,
        };
        shadow.counts.count(engine, asked, verdict);
    }

    /// Whether a connection from `address` begins with a PROXY protocol header.
    pub fn expects_header_from(&self, address: IpAddr) -> bool {
        // A dual-stack socket shows IPv4 addresses mapped into IPv6.
        let address = address.to_canonical();
        self.header_senders.iter().any(|prefix| prefix.contains(&address))
    }
}

/// Durations of the timer classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the complete ClientHello.
    pub client_hello: Duration,
    /// From the complete ClientHello to the established session.
    pub handshake: Duration,
    /// For a place at a server, when all are full.
    pub queue: Duration,
    /// For one upstream connection attempt.
    pub connect: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// The same, once one direction has ended.
    pub half_closed: Duration,
    /// How long the PROXY header waits for the first plaintext, to leave in one send.
    pub first_data_wait: Duration,
}

/// How records are made and how an unannounced end is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records {
    /// Bytes that go in one-segment records after an idle time.
    pub small_bytes: u32,
    /// A client that closes without close_notify is cut off, not half-closed.
    pub strict_truncation: bool,
}

/// What clients may ask for: the whole process's limits, of which every engine has a
/// share. `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections of one source, in any state.
    pub source_connections: Option<u32>,
    /// Connections of one source without a session yet.
    pub source_incomplete_handshakes: Option<u32>,
    /// Handshakes that one source may begin in a second.
    pub source_handshakes_per_second: Option<u32>,
    /// Handshakes begun in a second, of all sources.
    pub handshakes_per_second: Option<u32>,
    /// Bits of an IPv4 address that make a source, at most 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make a source, at most 128.
    pub ipv6_prefix: u8,
    /// Clients that are held to no limit of a source.
    pub exempt: Vec<IpNet>,
}

impl ClientLimits {
    /// No limits; sources are told apart as they are by default.
    pub const NONE: Self = Self {
        source_connections: None,
        source_incomplete_handshakes: None,
        source_handshakes_per_second: None,
        handshakes_per_second: None,
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        exempt: Vec::new(),
    };
}

/// A snapshot together with this engine's own state for it.
#[derive(Debug)]
pub(super) struct Epoch {
    pub engine: usize,
    pub snapshot: Arc<Snapshot>,
    /// Values that some pool wants passed on from balancers in front.
    pub passed_on: TypeSet,
    pub balancers: RefCell<Vec<Balancer>>,
    /// Who waits for a place at a server, by pool. Shared with the epochs before, whose
    /// clients came first.
    pub queues: Vec<Rc<RefCell<List>>>,
}

impl Epoch {
    /// Begins the first epoch of engine `engine`.
    pub(super) fn first(snapshot: Arc<Snapshot>, engine: usize) -> Self {
        let balancers = snapshot.pools.iter().map(|pool| Balancer::new(pool, engine)).collect();
        let queues = snapshot.pools.iter().map(|_| empty_queue()).collect();
        let passed_on = passed_on(&snapshot);
        Self { engine, snapshot, passed_on, balancers: RefCell::new(balancers), queues }
    }

    /// Begins the epoch after `self`.
    pub(super) fn next(&self, snapshot: Arc<Snapshot>) -> Self {
        let old = self.balancers.borrow();
        let (balancers, queues) = snapshot
            .pools
            .iter()
            .map(|pool| {
                let before = self.snapshot.pools.iter().position(|other| other.name == pool.name);
                match before {
                    Some(index) => (
                        old[index].carry_over(&self.snapshot.pools[index], pool),
                        Rc::clone(&self.queues[index]),
                    ),
                    None => (Balancer::new(pool, self.engine), empty_queue()),
                }
            })
            .unzip();
        let (engine, passed_on) = (self.engine, passed_on(&snapshot));
        Self { engine, snapshot, passed_on, balancers: RefCell::new(balancers), queues }
    }

    /// Clients of the pool that may wait on this engine.
    pub(super) fn queue_max(&self, pool: usize, engines: usize) -> usize {
        share_of(self.snapshot.pools[pool].queue_max, self.engine, engines) as usize
    }
}

/// The types of [`Epoch::passed_on`].
fn passed_on(snapshot: &Snapshot) -> TypeSet {
    let mut types = TypeSet::default();
    for pool in &snapshot.pools {
        types.insert_all(&pool.header.passed_on);
    }
    types
}

fn empty_queue() -> Rc<RefCell<List>> {
    Rc::new(RefCell::new(List::new(Through::ServerQueue)))
}
