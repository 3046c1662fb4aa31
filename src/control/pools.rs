//! The pools in force: made of the settings and of what names stand for, and made anew when
//! that changes.
//!
//! ```text
//!   settings ─┐
//!             ├─▶ pools ─▶ snapshot ─▶ engines
//!   names ────┘     ▲
//!        └─ changed ┘   only pools whose servers are others; the rest of the snapshot stays
//! ```
//!
//! A server that its name no longer stands for is in no later snapshot: it is given no new
//! connections, and keeps those it has.

#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::resolver::{Names, Resolver};
use super::servers::KnownServers;
use crate::clock::Moment;
use crate::config::{self, BackendAddress, Finding, Place, Settings};
use crate::dns::Wanted;
use crate::endpoint::Endpoint;
use crate::engine::snapshot::Snapshot;
use crate::upstream::{Backend, Pool};

/// The shortest time between two snapshots that names have changed: each is kept for as long
/// as a connection that began with it lives.
const RENEWALS_APART: Duration = Duration::from_secs(1);

/// Makes pools, one configuration after the other.
#[derive(Debug)]
pub struct PoolMaker {
    resolver: Resolver,
    servers: KnownServers,
    engines: usize,
    in_force: Option<InForce>,
}

#[derive(Debug)]
struct InForce {
    settings: Settings,
    snapshot: Arc<Snapshot>,
    /// [`Names::changes`] when the pools were made.
    changes: u64,
    made_at: Moment,
    /// What was wrong with the names then.
    findings: Vec<Finding>,
}

impl PoolMaker {
    /// Engines of the process.
    pub const fn engines(&self) -> usize {
        self.engines
    }

    /// Makes pools for a process of `engines` engines.
    pub fn new(engines: usize) -> Self {
        Self {
            resolver: Resolver::default(),
            servers: KnownServers::default(),
            engines,
            in_force: None,
        }
    }

    /// What is known of names.
    pub fn names(&self) -> Arc<Names> {
        Arc::clone(self.resolver.names())
    }

    /// The pools of `settings`. Waits for the names that were never asked for, a bounded
    /// time; findings as [`config::resolve`] has them.
    pub fn make(&mut self, settings: &Settings) -> (Vec<Pool>, Vec<Finding>) {
        let wanted = names_of(settings);
        let mut all = wanted.clone();
        if let Some(in_force) = &self.in_force {
            // Those of the configuration in force, in case this one is refused.
            all.extend(names_of(&in_force.settings));
        }
        if let Err(error) = self.resolver.want(all, &settings.resolver) {
            let message = format!("there can be no resolver: {error}");
            return (Vec::new(), vec![settings.error(&Place::default(), message)]);
        }
        self.resolver.wait_for(&wanted);
        self.resolve(settings)
    }

    fn resolve(&self, settings: &Settings) -> (Vec<Pool>, Vec<Finding>) {
        let names = self.resolver.names();
        let (mut pools, findings) =
            config::resolve(settings, self.engines, |name| names.servers(name));
        self.servers.recognise(&mut pools);
        (pools, findings)
    }

    /// `snapshot` is in force now, made of `settings`: from now on its names are asked for,
    /// and no others.
    pub fn put_in_force(&mut self, settings: &Settings, snapshot: &Arc<Snapshot>) {
        let now = Moment::now();
        self.enlist(&snapshot.pools, now);
        self.want_only(settings);
        self.in_force = Some(InForce {
            settings: settings.clone(),
            snapshot: Arc::clone(snapshot),
            // What was learned since the pools were made is looked at in the next turn.
            changes: 0,
            made_at: now,
            findings: Vec::new(),
        });
    }

    /// What was made last is not put in force: only the names of what is are asked for.
    pub fn discard(&mut self) {
        if let Some(in_force) = self.in_force.take() {
            self.want_only(&in_force.settings);
            self.in_force = Some(in_force);
        }
    }

    /// `pools` are in force: whoever is in them is named again.
    fn enlist(&mut self, pools: &[Arc<Pool>], now: Moment) {
        self.servers.remember(pools);
        for backend in pools.iter().flat_map(|pool| &pool.backends) {
            backend.status.change(now, |opinions| opinions.unnamed = false);
        }
    }

    fn want_only(&mut self, settings: &Settings) {
        if let Err(error) = self.resolver.want(names_of(settings), &settings.resolver) {
            tracing::error!(%error, "there can be no resolver: names stand for what they did");
        }
    }

    /// The snapshot in force with other pools, if names stand for other servers than when its
    /// own were made.
    pub fn renewed(&mut self, now: Moment) -> Option<Arc<Snapshot>> {
        let changes = self.resolver.names().changes();
        let in_force = self.in_force.as_ref()?;
        if changes == in_force.changes || now.since(in_force.made_at) < RENEWALS_APART {
            return None;
        }
        let (pools, findings) = self.resolve(&in_force.settings);
        let in_force = self.in_force.as_mut()?;
        in_force.changes = changes;
        // A pool that has no server keeps those it had: names never lose all of theirs.
        let findings: Vec<_> = findings.into_iter().filter(|one| !one.is_error()).collect();
        if in_force.findings != findings {
            findings.iter().for_each(|finding| tracing::warn!("{finding}"));
            in_force.findings = findings;
        }
        let before = &in_force.snapshot.pools;
        let pools: Vec<Arc<Pool>> = before
            .iter()
            .zip(pools)
            .map(|(before, pool)| {
                let stays = pool.backends.is_empty() || same_servers(before, &pool);
                if stays { Arc::clone(before) } else { Arc::new(following(before, pool)) }
            })
            .collect();
        if pools.iter().zip(before).all(|(pool, before)| Arc::ptr_eq(pool, before)) {
            return None;
        }
        before.iter().zip(&pools).for_each(|(before, pool)| drain_missing(before, pool, now));
        let snapshot = Arc::new(in_force.snapshot.with_pools(pools));
        in_force.snapshot = Arc::clone(&snapshot);
        in_force.made_at = now;
        self.enlist(&snapshot.pools, now);
        Some(snapshot)
    }
}

/// `pool` with what is negotiated with the servers of `before`, and the keys and names that
/// their headers have.
fn following(before: &Pool, pool: Pool) -> Pool {
    let tls = before.tls.as_ref().map(|tls| {
        let places = before.backends.iter().enumerate();
        let places: HashMap<&Endpoint, usize> =
            places.map(|(place, backend)| (&backend.endpoint, place)).collect();
        let server = |one: &Backend| (places.get(&one.endpoint).copied(), one.host.clone());
        Arc::new(tls.followed_by(pool.backends.iter().map(server)))
    });
    Pool { tls, header: before.header.clone(), ..pool }
}

/// Whether pools of the same settings have the same servers.
fn same_servers(one: &Pool, other: &Pool) -> bool {
    one.backends.len() == other.backends.len()
        && one.backends.iter().zip(&other.backends).all(|(one, other)| {
            (&one.endpoint, one.weight, one.backup) == (&other.endpoint, other.weight, other.backup)
        })
}

/// Clients who are on their way to a server of `before` do not choose those that `after` has
/// no longer: unless there is no other for them, since who is gone from a name often serves
/// for a while still.
fn drain_missing(before: &Pool, after: &Pool, now: Moment) {
    let named: HashSet<&Endpoint> = after.backends.iter().map(|one| &one.endpoint).collect();
    let (stay, leave): (Vec<_>, Vec<_>) =
        before.backends.iter().partition(|backend| named.contains(&backend.endpoint));
    if stay.iter().any(|backend| backend.status.standing().takes_connections()) {
        for backend in leave {
            backend.status.change(now, |opinions| opinions.unnamed = true);
        }
    }
}

fn names_of(settings: &Settings) -> BTreeSet<Wanted> {
    let backends = settings.pools.iter().flat_map(|pool| &pool.backends);
    let name = |address: &BackendAddress| match address {
        BackendAddress::Named { wanted, .. } => Some(wanted.clone()),
        BackendAddress::Endpoint(_) => None,
    };
    backends.filter_map(|backend| name(&backend.value.address)).collect()
}
