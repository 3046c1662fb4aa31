//! Who connects: one entry for every source of connections, and what it is held to.
//!
//! A *source* is a prefix of client addresses. Entries are found by a hash with a key of
//! this process's own, so that nobody can choose addresses that collide:
//!
//! ```text
//!   heads: hash ─▶ entry ─▶ entry ─▶ …          connections refer to entries by place
//!   entries: │ in use │ remembered │ free │      idle: oldest ─▶ … ─▶ newest
//! ```
//!
//! An entry with connections is never given up, and there are more entries than there
//! can be connections, so a new source always finds one: the one that has had no
//! connections for longest. All that is forgotten with it is how much of its rate it has
//! used up. The memory is taken at start.
//!
//! May know: addresses, prefixes, the clock. Must not know: connections, sockets.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::metrics::ShedCause;
use super::snapshot::ClientLimits;
use crate::clock::Moment;
use crate::token_bucket::{Bucket, Rate};

/// Sources remembered at least, besides those that have connections.
const REMEMBERED_MIN: usize = 4_096;

/// No entry.
const NONE: u32 = u32::MAX;

/// The source of a connection, as a place in [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source(u32);

impl Source {
    /// Held to nothing, and counted nowhere.
    pub(super) const EXEMPT: Self = Self(NONE);
}

impl Default for Source {
    fn default() -> Self {
        Self::EXEMPT
    }
}

/// Every source of connections of one engine.
#[derive(Debug)]
pub(super) struct Sources {
    hash_key: RandomState,
    heads: Box<[u32]>,
    entries: Box<[Entry]>,
    /// Entries without connections: the first and the last.
    idle: (u32, u32),
    allowed: Allowed,
    with_connections: usize,
    /// Sources that handshake workers owe something.
    with_owed: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    prefix: IpNet,
    /// Whether `prefix` is anybody's, and the entry in a chain.
    is_known: bool,
    /// The next entry of the same hash.
    next: u32,
    /// Neighbours among the idle.
    idle_previous: u32,
    idle_next: u32,
    connections: u32,
    /// Connections without a session yet.
    incomplete: u32,
    /// Time that handshake workers owe it.
    owed: Duration,
    handshakes: Bucket,
}

/// What this engine allows to one source.
#[derive(Debug, Default)]
struct Allowed {
    connections: Option<u32>,
    incomplete: Option<u32>,
    handshakes: Option<Rate>,
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    exempt: Vec<IpNet>,
}

impl Sources {
    /// Takes the memory for an engine with so many `connections`.
    pub(super) fn new(connections: usize, limits: &ClientLimits, engines: usize) -> Self {
        let count = Self::entries(connections);
        let unknown = Entry {
            prefix: IpNet::V4(Ipv4Net::default()),
            is_known: false,
            next: NONE,
            idle_previous: NONE,
            idle_next: NONE,
            connections: 0,
            incomplete: 0,
            owed: Duration::ZERO,
            handshakes: Bucket::default(),
        };
        let mut sources = Self {
            hash_key: RandomState::new(),
            heads: vec![NONE; count.next_power_of_two()].into_boxed_slice(),
            entries: vec![unknown; count].into_boxed_slice(),
            idle: (NONE, NONE),
            allowed: Allowed::default(),
            with_connections: 0,
            with_owed: 0,
        };
        for place in 0..count as u32 {
            sources.rest(place);
        }
        sources.set_limits(limits, engines);
        sources
    }

    fn entries(connections: usize) -> usize {
        connections + connections.max(REMEMBERED_MIN)
    }

    /// Bytes that the sources of an engine with so many `connections` take.
    pub(super) fn memory_bytes(connections: usize) -> usize {
        let entries = Self::entries(connections);
        entries * size_of::<Entry>() + entries.next_power_of_two() * size_of::<u32>()
    }

    /// Holds sources to other limits, of which this engine has its share. With other
    /// prefixes the connections that are there stay with the sources that they had.
    pub(super) fn set_limits(&mut self, limits: &ClientLimits, engines: usize) {
        self.allowed = Allowed {
            connections: limits.source_connections.map(|limit| share(limit, engines)),
            incomplete: limits.source_incomplete_handshakes.map(|limit| share(limit, engines)),
            handshakes: limits.source_handshakes_per_second.map(|limit| rate(limit, engines)),
            ipv4_prefix: limits.ipv4_prefix,
            ipv6_prefix: limits.ipv6_prefix,
            exempt: limits.exempt.clone(),
        };
    }

    /// Counts a new connection to its source.
    ///
    /// # Errors
    /// The source has all that it may have.
    pub(super) fn enter(
        &mut self,
        address: IpAddr,
        now: Moment,
    ) -> Result<Source, (Source, ShedCause)> {
        let address = address.to_canonical();
        if self.allowed.exempt.iter().any(|prefix| prefix.contains(&address)) {
            return Ok(Source::EXEMPT);
        }
        let place = self.find_or_make(self.prefix_of(address), now);
        let entry = &mut self.entries[place as usize];
        let allowed = &self.allowed;
        let exceeds = |count: u32, allowed: Option<u32>| allowed.is_some_and(|most| count >= most);
        let cause = if exceeds(entry.connections, allowed.connections) {
            Some(ShedCause::SourceConnections)
        } else if exceeds(entry.incomplete, allowed.incomplete) {
            Some(ShedCause::SourceIncompleteHandshakes)
        } else if allowed.handshakes.is_some_and(|rate| !entry.handshakes.has(rate, now)) {
            Some(ShedCause::SourceHandshakesPerSecond)
        } else {
            None
        };
        match cause {
            Some(cause) => {
                // Who goes on trying is not forgotten for those who came later.
                if entry.connections == 0 {
                    self.wake(place);
                    self.rest(place);
                }
                Err((Source(place), cause))
            }
            None => {
                entry.connections += 1;
                entry.incomplete += 1;
                if entry.connections == 1 {
                    self.with_connections += 1;
                    self.wake(place);
                }
                Ok(Source(place))
            }
        }
    }

    /// Counts a handshake, whose ClientHello is complete, to the source's rate.
    ///
    /// # Errors
    /// The source has used its rate up.
    pub(super) fn begin_handshake(&mut self, source: Source, now: Moment) -> Result<(), ShedCause> {
        let Some(rate) = self.allowed.handshakes else { return Ok(()) };
        match self.entry_mut(source).map(|entry| entry.handshakes.take(rate, now)) {
            Some(false) => Err(ShedCause::SourceHandshakesPerSecond),
            Some(true) | None => Ok(()),
        }
    }

    /// A connection has its session.
    pub(super) fn complete_handshake(&mut self, source: Source) {
        if let Some(entry) = self.entry_mut(source) {
            entry.incomplete -= 1;
        }
    }

    /// A connection is over; `complete` if it had a session.
    pub(super) fn leave(&mut self, source: Source, complete: bool) {
        if !complete {
            self.complete_handshake(source);
        }
        let Some(entry) = self.entry_mut(source) else { return };
        entry.connections -= 1;
        if entry.connections == 0 {
            self.with_connections -= 1;
            self.rest(source.0);
        }
    }

    /// Handshake workers owe a source so much more of their time.
    pub(super) fn charge(&mut self, source: Source, cost: Duration) {
        let Some(entry) = self.entry_mut(source) else { return };
        let first = entry.owed.is_zero();
        entry.owed += cost;
        self.with_owed += u32::from(first);
    }

    /// So much of it is paid.
    pub(super) fn settle(&mut self, source: Source, cost: Duration) {
        let Some(entry) = self.entry_mut(source) else { return };
        entry.owed = entry.owed.saturating_sub(cost);
        let last = entry.owed.is_zero();
        self.with_owed -= u32::from(last);
    }

    /// What a source is owed, and how many sources are owed something.
    pub(super) fn owed(&self, source: Source) -> (Duration, u32) {
        let owed = self.entries.get(source.0 as usize).map_or(Duration::ZERO, |entry| entry.owed);
        (owed, self.with_owed)
    }

    /// The prefix of a source; `None` if it is exempt.
    pub(super) fn prefix(&self, source: Source) -> Option<IpNet> {
        self.entries.get(source.0 as usize).map(|entry| entry.prefix)
    }

    /// Sources that have connections now.
    pub(super) fn with_connections(&self) -> usize {
        self.with_connections
    }

    fn entry_mut(&mut self, source: Source) -> Option<&mut Entry> {
        self.entries.get_mut(source.0 as usize)
    }

    fn prefix_of(&self, address: IpAddr) -> IpNet {
        let bits = match address {
            IpAddr::V4(_) => self.allowed.ipv4_prefix,
            IpAddr::V6(_) => self.allowed.ipv6_prefix,
        };
        // More bits than the address has are the address.
        IpNet::new(address, bits).unwrap_or_else(|_| IpNet::from(address)).trunc()
    }

    fn head_of(&self, prefix: IpNet) -> usize {
        self.hash_key.hash_one(prefix) as usize & (self.heads.len() - 1)
    }

    fn find_or_make(&mut self, prefix: IpNet, now: Moment) -> u32 {
        let head = self.head_of(prefix);
        let mut place = self.heads[head];
        while let Some(entry) = self.entries.get(place as usize) {
            if entry.prefix == prefix {
                return place;
            }
            place = entry.next;
        }
        // One rests whenever a connection can be accepted: there are more entries than
        // connections.
        let place = self.idle.0;
        self.forget(place);
        let entry = &mut self.entries[place as usize];
        entry.prefix = prefix;
        entry.is_known = true;
        entry.next = self.heads[head];
        let rate = self.allowed.handshakes;
        entry.handshakes = rate.map_or_else(Bucket::default, |rate| Bucket::full(rate, now));
        self.heads[head] = place;
        // What was made last is forgotten last.
        self.wake(place);
        self.rest(place);
        place
    }

    /// Takes an entry that rests out of its chain.
    fn forget(&mut self, place: u32) {
        let Entry { prefix, is_known, next, .. } = self.entries[place as usize];
        if !is_known {
            return;
        }
        let head = self.head_of(prefix);
        if self.heads[head] == place {
            self.heads[head] = next;
        } else {
            let mut before = self.heads[head];
            while self.entries[before as usize].next != place {
                before = self.entries[before as usize].next;
            }
            self.entries[before as usize].next = next;
        }
        self.entries[place as usize].is_known = false;
    }

    /// Puts an entry behind all others that have no connections.
    fn rest(&mut self, place: u32) {
        let last = self.idle.1;
        let entry = &mut self.entries[place as usize];
        (entry.idle_previous, entry.idle_next) = (last, NONE);
        match self.entries.get_mut(last as usize) {
            Some(last) => last.idle_next = place,
            None => self.idle.0 = place,
        }
        self.idle.1 = place;
    }

    /// Takes an entry from among those that have no connections.
    fn wake(&mut self, place: u32) {
        let Entry { idle_previous, idle_next, .. } = self.entries[place as usize];
        match self.entries.get_mut(idle_previous as usize) {
            Some(previous) => previous.idle_next = idle_next,
            None => self.idle.0 = idle_next,
        }
        match self.entries.get_mut(idle_next as usize) {
            Some(next) => next.idle_previous = idle_previous,
            None => self.idle.1 = idle_previous,
        }
    }
}

/// One engine's share of a limit on a number of things.
///
/// The kernel spreads a source's connections over the engines by chance. With an exact
/// share, a source well within its limit would be refused on the engine that happens to
/// have more of it; so two standard deviations of that chance are added.
pub(super) fn share(limit: u32, engines: usize) -> u32 {
    if engines <= 1 {
        return limit;
    }
    let mean = f64::from(limit) / engines as f64;
    let share = (mean + 2.0 * mean.sqrt()).ceil();
    (share as u32).clamp(1, limit)
}

/// One engine's share of a rate. Over time chance evens out, so only what may come at
/// once has the margin of [`share`].
pub(super) fn rate(per_second: u32, engines: usize) -> Rate {
    let thousandths = (u64::from(per_second) * 1_000).div_ceil(engines.max(1) as u64);
    Rate::new(thousandths, share(per_second, engines))
}

#[cfg(test)]
mod tests;
