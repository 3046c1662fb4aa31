//! What is known of a server while the process runs: whether it is given connections, and
//! what became of those that it was given.
//!
//! ```text
//!   control, prober, admin ── Opinions ──▶ one atomic word ──▶ engines, at the choice
//!   engine n               ── counts ────▶ cells of engine n ─▶ control, metrics
//! ```
//!
//! One for each server of a pool and process. It is kept over reloads, so that a server
//! that is out stays out and its connections stay counted. Who has an opinion of the server
//! writes it behind a lock, and the word follows; engines read the word and nothing else, so
//! that a choice takes no lock and shares nothing that is written for each connection.
//!
//! May know: opinions, the clock's moments, counters. Must not know: pools, who decides.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::opinions::Opinions;
use crate::clock::Moment;
use crate::metrics::{Counter, Gauge};

/// Whether a server is given new connections, and if not, why. Connections that it has
/// stay with it in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Availability {
    /// It takes connections. Servers begin so.
    #[default]
    Up,
    /// Its checks fail.
    Down,
    /// It is to have no new ones: the operator or its agent says so, or its name has it no more.
    Drain,
    /// Too many connections to it have failed of late.
    Ejected,
    /// The operator or its agent has taken it out.
    Maintenance,
}

impl Availability {
    /// Every one of them, in `repr` order.
    pub const ALL: [Self; 5] =
        [Self::Up, Self::Down, Self::Drain, Self::Ejected, Self::Maintenance];

    /// The value of the `state` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Drain => "drain",
            Self::Ejected => "ejected",
            Self::Maintenance => "maintenance",
        }
    }
}

/// What engines go by when they choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is given new connections.
    pub availability: Availability,
    /// Hundredths of its configured weight that it is to have, at most
    /// [`Self::WEIGHT_PERCENT_MAX`]; 0 is no new connections.
    pub weight_percent: u16,
    /// Connections that it may have, of the whole process and at most
    /// [`Self::CONNECTIONS_MAX`]; `None` is the configured limit.
    pub connections_max: Option<u32>,
    /// When it last came back, to a tenth of a second; `None` if it was never out, so that
    /// there is nothing to begin slowly with.
    pub up_since: Option<Moment>,
}

impl Standing {
    /// What an agent may multiply a weight by at most.
    pub const WEIGHT_PERCENT_MAX: u16 = 1_000;

    /// What an agent may limit connections to at most, and configuration too.
    pub const CONNECTIONS_MAX: u32 = 1_000_000;

    /// A server of which nothing is known: up, with its configured weight and limit.
    pub const INITIAL: Self = Self {
        availability: Availability::Up,
        weight_percent: 100,
        connections_max: None,
        up_since: None,
    };

    /// Whether it is given new connections.
    pub fn takes_connections(self) -> bool {
        self.availability == Availability::Up && self.weight_percent > 0
    }

    // | up_since, tenths of seconds, plus 1 | connections_max, plus 1 | weight_percent | availability |
    // | 28 bits, 0 is none                  | 20 bits, 0 is none      | 12             | 4            |
    fn to_word(self) -> u64 {
        // Who has been up for 300 days of the process is in no slow start any more.
        const TENTHS_MAX: u64 = (1 << 28) - 2;
        let since = self.up_since.map_or(0, |moment| {
            (moment.as_nanoseconds() / NANOSECONDS_PER_TENTH).min(TENTHS_MAX) + 1
        });
        let limit = self.connections_max.map_or(0, |most| most.min(Self::CONNECTIONS_MAX) + 1);
        let weight = self.weight_percent.min(Self::WEIGHT_PERCENT_MAX);
        since << 36 | u64::from(limit) << 16 | u64::from(weight) << 4 | self.availability as u64
    }

    pub(super) fn from_word(word: u64) -> Self {
        let since = (word >> 36).checked_sub(1);
        let limit = ((word >> 16) as u32 & 0xF_FFFF).checked_sub(1);
        Self {
            availability: Availability::ALL[(word & 0xF) as usize],
            weight_percent: (word >> 4) as u16 & 0xFFF,
            connections_max: limit,
            up_since: since.map(|tenths| Moment::from_nanoseconds(tenths * NANOSECONDS_PER_TENTH)),
        }
    }
}

const NANOSECONDS_PER_TENTH: u64 = 100_000_000;

const _: () = {
    assert!(Standing::CONNECTIONS_MAX < 0xF_FFFF && Standing::WEIGHT_PERCENT_MAX <= 0xFFF);
    assert!(Availability::ALL.len() <= 0xF);
};

/// What one engine counts of one server. A cache line of its own, so that engines do not
/// take it from each other.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ServerCounts {
    /// Connections open, or being opened.
    pub open: Gauge,
    /// Connections made.
    pub connected: Counter,
    /// Attempts to connect that failed, those given up included.
    pub failed: Counter,
    /// Connections that the server reset before it had sent a byte.
    pub reset_early: Counter,
}

/// What the prober counts of one server.
#[derive(Debug, Default)]
pub struct CheckCounts {
    /// Checks that it passed.
    pub passed: Counter,
    /// Checks that it failed.
    pub failed: Counter,
    /// Times that failed checks took it out.
    pub taken_out: Counter,
    /// Questions to its agent that were not answered, or not in an agent's words.
    pub agent_failed: Counter,
}

/// What people are told of one server beside its standing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Why the last check that it failed was not passed.
    pub check_failure: Option<String>,
    /// Why its agent was not heard when that last was so.
    pub agent_failure: Option<String>,
}

/// One server's standing and counts.
#[derive(Debug)]
pub struct ServerStatus {
    word: AtomicU64,
    /// Not taken by engines.
    opinions: Mutex<Opinions>,
    remarks: Mutex<Remarks>,
    checks: CheckCounts,
    engines: Box<[ServerCounts]>,
}

impl ServerStatus {
    /// A server of which nothing is known yet, for a process of `engines` engines.
    pub fn new(engines: usize) -> Self {
        Self {
            word: AtomicU64::new(Standing::INITIAL.to_word()),
            opinions: Mutex::default(),
            remarks: Mutex::default(),
            checks: CheckCounts::default(),
            engines: (0..engines).map(|_| ServerCounts::default()).collect(),
        }
    }

    /// What engines go by now.
    pub fn standing(&self) -> Standing {
        Standing::from_word(self.word())
    }

    /// What they are to go by until an opinion changes.
    pub fn set_standing(&self, standing: Standing) {
        self.word.store(standing.to_word(), Ordering::Relaxed);
    }

    /// What is said of it now.
    pub fn opinions(&self) -> Opinions {
        *self.lock()
    }

    /// Changes what is said of it, and with it what engines go by. The standing before and
    /// after.
    pub fn change(&self, now: Moment, change: impl FnOnce(&mut Opinions)) -> (Standing, Standing) {
        let mut opinions = self.lock();
        change(&mut opinions);
        let before = self.standing();
        let after = opinions.standing(before, now);
        self.set_standing(after);
        (before, after)
    }

    fn lock(&self) -> MutexGuard<'_, Opinions> {
        self.opinions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What people are told of it, to be read or written.
    pub fn remarks(&self) -> MutexGuard<'_, Remarks> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts of its checks, which the prober is the only one to write.
    pub fn checks(&self) -> &CheckCounts {
        &self.checks
    }

    /// The standing as engines compare it: equal words are equal standings.
    pub(super) fn word(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }

    /// The counts of engine `engine`, which is the only one to write them.
    ///
    /// # Panics
    /// If the process has no such engine.
    pub fn of_engine(&self, engine: usize) -> &ServerCounts {
        &self.engines[engine]
    }

    /// The counts of every engine.
    pub fn of_engines(&self) -> &[ServerCounts] {
        &self.engines
    }

    /// Connections of all engines that are open or being opened.
    pub fn open(&self) -> u64 {
        self.engines.iter().map(|counts| counts.open.value()).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_server_of_which_nothing_is_known_takes_connections() {
        let status = ServerStatus::new(2);
        assert_eq!(status.standing(), Standing::INITIAL);
        assert!(status.standing().takes_connections());
    }

    #[test]
    fn a_server_without_weight_takes_no_connections() {
        let standing = Standing { weight_percent: 0, ..Standing::INITIAL };
        assert!(!standing.takes_connections());
    }

    #[test]
    fn open_connections_are_those_of_all_engines() {
        let status = ServerStatus::new(3);
        status.of_engine(0).open.set(2);
        status.of_engine(2).open.set(5);
        assert_eq!(status.open(), 7);
    }

    proptest! {
        #[test]
        fn engines_read_the_standing_that_was_set(
            availability in prop::sample::select(&Availability::ALL[..]),
            weight_percent in 0..=Standing::WEIGHT_PERCENT_MAX,
            connections_max in proptest::option::of(0..=Standing::CONNECTIONS_MAX),
            tenths in proptest::option::of(0_u64..1 << 27),
        ) {
            let up_since =
                tenths.map(|tenths| Moment::from_nanoseconds(tenths * NANOSECONDS_PER_TENTH));
            let standing = Standing { availability, weight_percent, connections_max, up_since };
            let status = ServerStatus::new(1);
            status.set_standing(standing);
            prop_assert_eq!(status.standing(), standing);
        }
    }
}
