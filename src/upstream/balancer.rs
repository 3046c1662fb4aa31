//! One engine's choice among the servers of a pool.
//!
//! ```text
//!   regular servers, then backups:
//!     takes connections? tried? ── no ──▶ not this one
//!        └─ has a place? ──────── no ──▶ somebody is full: wait rather than take a backup
//!              └─▶ round robin | least connections | random two | maglev, by weight
//! ```
//!
//! Engines do not go by each other's counts: each balances the connections it owns. That
//! is even in the sum because the kernel spreads connections evenly over engines, and it
//! is why *least connections* stays honest: a server that is slow keeps its connections
//! for longer in every engine alike, so each engine sees its own part of it. What an
//! engine cannot see is chance: of a few connections per server, engines have unequal
//! parts. A limit of connections is divided among engines, so that it holds without
//! asking anybody.
//!
//! A *weight* is a server's share of the connections (of the open ones, for least
//! connections and the better of two). What counts is the configured weight times what its
//! agent says and, after the server came back, how far it has come in its slow start.
//!
//! Sans-I/O. May know: pools, statuses, moments. Must not know: engines, clocks.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use super::maglev::{Client, Maglev};
use super::pool::{Balance, Pool, Tried};
use super::status::{ServerCounts, ServerStatus, Standing};
use crate::clock::Moment;
use crate::random::SplitMix64;

/// What a server that is in its slow start has of its weight at least, in hundredths.
const RAMP_PERCENT_MIN: u32 = 1;

/// What became of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This server, by its place in the pool.
    Server(usize),
    /// There are servers that take connections, but all of them have as many from this
    /// engine as they may have.
    AllFull,
    /// No server takes connections that was not tried.
    Nobody,
}

/// One engine's choice among the backends of one pool.
///
/// The caller tells it of every connection: [`Self::opened`] when it *starts* to
/// connect (so that a burst spreads at once) and [`Self::closed`] exactly once for
/// each, when the attempt fails or the connection ends.
#[derive(Clone, Debug)]
pub struct Balancer {
    balance: Balance,
    slow_start: Duration,
    /// Whose cells of [`ServerStatus`] are counted in. They are those of the balancers of
    /// earlier configurations, whose connections live on after a reload.
    engine: usize,
    seats: Box<[Seat]>,
    has_backups: bool,
    /// Where to begin among equal ones.
    next: usize,
    random: SplitMix64,
}

/// A server, as this engine sees it.
#[derive(Clone, Debug)]
struct Seat {
    status: Arc<ServerStatus>,
    weight: u32,
    backup: bool,
    /// The configured limit of the whole process.
    connections_max: Option<u32>,
    /// The standing, as a word, that the next four follow from.
    word: u64,
    /// Connections that this engine may have to it.
    open_max: u64,
    /// Hundredths of its weight that it has now.
    percent: u32,
    /// It is in its slow start: `percent` changes with time.
    ramps: bool,
    /// `weight` times `percent`; 0 if it takes no connections.
    effective: u32,
    /// What it is owed, in the measure of `effective`, less what the others are.
    owed: i64,
    /// The choice that is being made may be this one.
    able: bool,
}

impl Balancer {
    /// The balancer of engine `engine`. Engines do not all begin with the same backend.
    ///
    /// # Panics
    /// If the statuses of the servers have no such engine.
    pub fn new(pool: &Pool, engine: usize) -> Self {
        let count = pool.backends.len();
        assert!(count <= Pool::BACKENDS_MAX, "configuration bounds the backends of a pool");
        let next = engine.checked_rem(count).unwrap_or(0);
        let seat = |(place, backend): (usize, &super::Backend)| {
            let weight = u32::from(backend.weight);
            Seat {
                status: Arc::clone(&backend.status),
                weight,
                backup: backend.backup,
                connections_max: backend.connections_max,
                word: Seat::NO_WORD,
                open_max: 0,
                percent: 100,
                ramps: false,
                effective: weight * 100,
                // Less than any weight, so that it decides among equal ones only.
                owed: ((count - place + next - 1) % count) as i64,
                able: false,
            }
        };
        Self {
            balance: pool.balance.clone(),
            slow_start: pool.slow_start,
            engine,
            seats: pool.backends.iter().enumerate().map(seat).collect(),
            has_backups: pool.backends.iter().any(|backend| backend.backup),
            next,
            random: SplitMix64::new(engine as u64),
        }
    }

    /// Chooses a backend that takes connections, has a place, and is not in `tried`.
    pub fn pick(&mut self, tried: &Tried, client: &Client<'_>, now: Moment) -> Choice {
        for backup in [false, true] {
            if backup && !self.has_backups {
                break;
            }
            let mut weights = 0;
            let mut some_full = false;
            for (place, seat) in self.seats.iter_mut().enumerate() {
                seat.look(self.engine, self.slow_start, now);
                seat.able = seat.backup == backup && seat.effective > 0 && !tried.contains(place);
                if seat.able && seat.open(self.engine) >= seat.open_max {
                    seat.able = false;
                    some_full = true;
                }
                weights += if seat.able { u64::from(seat.effective) } else { 0 };
            }
            if weights > 0 {
                return Choice::Server(self.choose(weights, client, backup));
            }
            if some_full {
                return Choice::AllFull;
            }
        }
        Choice::Nobody
    }

    /// Chooses among the seats that are able, whose weights come to `weights`.
    fn choose(&mut self, weights: u64, client: &Client<'_>, backup: bool) -> usize {
        match &self.balance {
            Balance::RoundRobin => self.most_owed(weights),
            Balance::LeastConnections => self.least_loaded(),
            Balance::RandomTwo => self.better_of_two(weights),
            Balance::Maglev(maglev) => self.of_client(maglev, maglev.of(client), backup),
        }
    }

    /// Smooth weighted round robin, as nginx has it: each is owed its weight more, and who
    /// is owed most pays for all. So turns of a heavy server lie apart.
    fn most_owed(&mut self, weights: u64) -> usize {
        let mut chosen = (0, i64::MIN);
        for (place, seat) in self.seats.iter_mut().enumerate().filter(|(_, seat)| seat.able) {
            seat.owed += i64::from(seat.effective);
            if seat.owed > chosen.1 {
                chosen = (place, seat.owed);
            }
        }
        self.seats[chosen.0].owed -= weights as i64;
        chosen.0
    }

    /// The one with the fewest open connections for its weight; equal ones in turn.
    fn least_loaded(&mut self) -> usize {
        let count = self.seats.len();
        let rotation = (self.next..count).chain(0..self.next);
        let chosen = rotation
            .filter(|place| self.seats[*place].able)
            .reduce(|best, other| if self.is_less_loaded(other, best) { other } else { best })
            .unwrap_or(self.next);
        self.next = (chosen + 1) % count;
        chosen
    }

    /// Of two drawn by weight, the one with fewer open connections for its weight: nearly
    /// as even as the least of all, and no server that looks idle to every engine and node
    /// at once is overrun.
    fn better_of_two(&mut self, weights: u64) -> usize {
        let one = self.drawn(weights, None);
        let rest = weights - u64::from(self.seats[one].effective);
        if rest == 0 {
            return one;
        }
        let other = self.drawn(rest, Some(one));
        if self.is_less_loaded(other, one) { other } else { one }
    }

    /// One by chance, by weight, other than `besides`; `weights` are those of all the others.
    fn drawn(&mut self, weights: u64, besides: Option<usize>) -> usize {
        let mut left = self.random.below(weights);
        let mut drawn = 0;
        for (place, seat) in self.seats.iter().enumerate() {
            if !seat.able || besides == Some(place) {
                continue;
            }
            drawn = place;
            match left.checked_sub(seat.effective.into()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        drawn
    }

    /// The first server in the order of the client's. One that has only a part of its
    /// weight takes that part of its clients, always the same ones; the rest goes on.
    fn of_client(&self, maglev: &Maglev, hash: u64, backup: bool) -> usize {
        // Bits that do not decide about the entry.
        let hundredth = (hash >> 40) as u32 % 100;
        let is_willing = |seat: &Seat| seat.able && hundredth < seat.percent;
        let some_willing = self.seats.iter().any(is_willing);
        let mut order = maglev.order(hash, backup);
        order
            .find(|place| {
                let seat = &self.seats[*place];
                if some_willing { is_willing(seat) } else { seat.able }
            })
            // Every server with a weight has an entry, so this cannot be.
            .unwrap_or(0)
    }

    /// Whether `one` has fewer open connections for its weight than `other`, when each has
    /// one more.
    fn is_less_loaded(&self, one: usize, other: usize) -> bool {
        let load = |place: usize| u128::from(self.open(place) + 1);
        let weight = |place: usize| u128::from(self.seats[place].effective);
        load(one) * weight(other) < load(other) * weight(one)
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
        self.seats[backend].open(self.engine)
    }

    /// What this engine counts of `backend`.
    ///
    /// # Panics
    /// If the pool has no such backend.
    pub fn counts(&self, backend: usize) -> &ServerCounts {
        self.seats[backend].status.of_engine(self.engine)
    }

    /// The balancer for `new`, which replaces `old`: for servers that stay, the rotation
    /// goes on where it was.
    #[must_use]
    pub fn carry_over(&self, old: &Pool, new: &Pool) -> Self {
        let mut carried = Self::new(new, self.engine);
        carried.random = self.random.clone();
        let place_of = |backend: &super::Backend| {
            old.backends.iter().position(|other| other.endpoint == backend.endpoint)
        };
        for (place, backend) in new.backends.iter().enumerate() {
            let Some(before) = place_of(backend) else { continue };
            let (seat, before_seat) = (&mut carried.seats[place], &self.seats[before]);
            (seat.effective, seat.owed) = (before_seat.effective, before_seat.owed);
            if before == self.next {
                carried.next = place;
            }
        }
        carried
    }
}

impl Seat {
    /// The word of no standing.
    const NO_WORD: u64 = u64::MAX;

    fn open(&self, engine: usize) -> u64 {
        self.status.of_engine(engine).open.value()
    }

    /// Sees whether the server's weight or limit is another one now.
    fn look(&mut self, engine: usize, slow_start: Duration, now: Moment) {
        let word = self.status.word();
        if word == self.word && !self.ramps {
            return;
        }
        self.word = word;
        let standing = Standing::from_word(word);
        let engines = self.status.of_engines().len();
        let limit = standing.connections_max.or(self.connections_max);
        self.open_max = limit.map_or(u64::MAX, |most| share_of(most, engine, engines).into());
        let ramp =
            standing.up_since.map_or(100, |since| ramp_percent(now.since(since), slow_start));
        self.ramps = ramp < 100;
        self.percent = if standing.takes_connections() {
            (u32::from(standing.weight_percent) * ramp / 100).max(1)
        } else {
            0
        };
        let before = std::mem::replace(&mut self.effective, self.weight * self.percent);
        // Turns that it has had or is owed are turns of its new weight.
        self.owed = match before {
            0 => 0,
            _ => self.owed * i64::from(self.effective) / i64::from(before),
        };
    }
}

/// Hundredths of its weight that a server has so long after it came back.
fn ramp_percent(up_for: Duration, slow_start: Duration) -> u32 {
    if up_for >= slow_start {
        return 100;
    }
    let percent = up_for.as_nanos() * 100 / slow_start.as_nanos().max(1);
    (percent as u32).max(RAMP_PERCENT_MIN)
}

/// The part of a limit of the whole process that engine `engine` of `engines` has. The parts
/// come to the limit, or to one for each engine if that is more; of none, none.
pub fn share_of(limit: u32, engine: usize, engines: usize) -> u32 {
    let engines = u32::try_from(engines.max(1)).unwrap_or(u32::MAX);
    let rest = (engine as u64) < u64::from(limit % engines);
    (limit / engines + u32::from(rest)).max(u32::from(limit > 0))
}

#[cfg(test)]
mod tests;
