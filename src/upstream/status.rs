//! What is known of a server while the process runs: whether it is given connections, and
//! what became of those that it was given.
//!
//! ```text
//!   control, prober ── Standing ──▶ one atomic word ──▶ engines, at the choice of a server
//!   engine n        ── counts ────▶ cells of engine n ─▶ control, prober, metrics
//! ```
//!
//! One for each server of a pool and process. It is kept over reloads, so that a server
//! that is out stays out and its connections stay counted. The word is written by the
//! control thread and the prober, which agree on it among themselves; engines read it and
//! nothing else, so that a choice shares nothing that is written for each connection.
//!
//! May know: the clock's moments, counters. Must not know: pools, who decides.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// It is to have no new ones: its agent says so, or its name no longer has it.
    Drain,
    /// Too many connections to it have failed of late.
    Ejected,
    /// The operator has taken it out.
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
    /// When it last came back, to the millisecond; `None` if it was never out, so that
    /// there is nothing to begin slowly with.
    pub up_since: Option<Moment>,
}

impl Standing {
    /// What an agent may multiply a weight by at most.
    pub const WEIGHT_PERCENT_MAX: u16 = 1_000;

    /// A server of which nothing is known: up, with its configured weight.
    pub const INITIAL: Self =
        Self { availability: Availability::Up, weight_percent: 100, up_since: None };

    /// Whether it is given new connections.
    pub fn takes_connections(self) -> bool {
        self.availability == Availability::Up && self.weight_percent > 0
    }

    // | up_since, ms, plus 1; 0 is none | weight_percent | availability |
    // | 40 bits                         | 16             | 8            |
    fn to_word(self) -> u64 {
        const MILLISECONDS_MAX: u64 = (1 << 40) - 2;
        let since = self.up_since.map_or(0, |moment| {
            (moment.as_nanoseconds() / NANOSECONDS_PER_MILLISECOND).min(MILLISECONDS_MAX) + 1
        });
        let weight = self.weight_percent.min(Self::WEIGHT_PERCENT_MAX);
        since << 24 | u64::from(weight) << 8 | self.availability as u64
    }

    pub(super) fn from_word(word: u64) -> Self {
        let since = (word >> 24).checked_sub(1);
        Self {
            availability: Availability::ALL[usize::from(word as u8)],
            weight_percent: (word >> 8) as u16,
            up_since: since.map(|milliseconds| {
                Moment::from_nanoseconds(milliseconds * NANOSECONDS_PER_MILLISECOND)
            }),
        }
    }
}

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

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

/// One server's standing and counts.
#[derive(Debug)]
pub struct ServerStatus {
    word: AtomicU64,
    engines: Box<[ServerCounts]>,
}

impl ServerStatus {
    /// A server of which nothing is known yet, for a process of `engines` engines.
    pub fn new(engines: usize) -> Self {
        Self {
            word: AtomicU64::new(Standing::INITIAL.to_word()),
            engines: (0..engines).map(|_| ServerCounts::default()).collect(),
        }
    }

    /// What engines go by now.
    pub fn standing(&self) -> Standing {
        Standing::from_word(self.word())
    }

    /// What they are to go by from now on. For the control thread and the prober.
    pub fn set_standing(&self, standing: Standing) {
        self.word.store(standing.to_word(), Ordering::Relaxed);
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
            milliseconds in proptest::option::of(0_u64..1 << 39),
        ) {
            let up_since = milliseconds.map(|milliseconds| {
                Moment::from_nanoseconds(milliseconds * NANOSECONDS_PER_MILLISECOND)
            });
            let standing = Standing { availability, weight_percent, up_since };
            let status = ServerStatus::new(1);
            status.set_standing(standing);
            prop_assert_eq!(status.standing(), standing);
        }
    }
}
