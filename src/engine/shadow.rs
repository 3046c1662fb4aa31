//! Who of a listener's clients would be refused under a policy that is only tried.
//!
//! ```text
//!   ClientHello ── admitted ──▶ judge ──▶ verdict, kept with the credit
//!                                            │ session established
//!                                            ▼
//!   counts of this engine: │ sum │ no name │ other │ set │ set │ … │   read by anybody
//!                                            ▲        └ 16 rows: name, clients by verdict
//!                                            └── rows that made room
//! ```
//!
//! A name has its row in one *set*, chosen by a hash with a key of this process's own. In a
//! full set a client that would be refused takes the row of the name with the fewest such
//! clients, whose counts go to *other* (Metwally, Agrawal and El Abbadi, "Efficient
//! computation of frequent and top-k elements", 2005, within a set). So sums are exact; of a
//! row it is known how many refused clients its name can have had before it got the row. A
//! client that would be served takes nobody's row.
//!
//! One engine writes its counts, without a lock; who reads them meanwhile may see a client
//! in one place and not yet in another. The memory is taken when the configuration is
//! prepared.
//!
//! May know: names, verdicts. Must not know: connections.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::metrics::{Counter, Gauge};
use crate::tls::policy::candidate::{Candidate, Verdict};
use crate::tls::server_name::SERVER_NAME_BYTES_MAX;

/// Rows of one set: enough that few sets are full before most of the rows are taken, and few
/// enough that their tags are in two cache lines.
const ROWS: usize = 16;

/// Words of a name of the greatest length.
const NAME_WORDS: usize = SERVER_NAME_BYTES_MAX.div_ceil(size_of::<u64>());

/// How often a reader looks at a row that is being given to another name.
const READ_TRIES_MAX: usize = 100;

/// What is tried on a listener's clients, and what came of it.
#[derive(Debug)]
pub struct Shadow {
    /// The policy that is tried.
    pub candidate: Candidate,
    /// Kept over reloads that change nothing about what is tried.
    pub counts: Arc<ShadowCounts>,
}

/// Clients by verdict and name.
#[derive(Debug)]
pub struct ShadowCounts {
    hash_key: RandomState,
    engines: Box<[EngineCounts]>,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked<'a> {
    /// No name.
    Nothing,
    /// A name that there is a certificate for.
    Served(&'a str),
    /// Any other name: those have no rows, since anybody can think of any number of them.
    Unserved,
}

#[derive(Debug)]
struct EngineCounts {
    sum: ByVerdict<Counter>,
    no_name: ByVerdict<Counter>,
    other: ByVerdict<Counter>,
    sets: Box<[Set]>,
}

type ByVerdict<Cell> = [Cell; Verdict::ALL.len()];

#[derive(Debug, Default)]
struct Set {
    /// Which row is whose: a hash of the name, never 0; 0 is nobody's. 63 bits under a secret
    /// key stand for the name.
    tags: [AtomicU64; ROWS],
    rows: [Row; ROWS],
}

#[derive(Debug, Default)]
struct Row {
    /// Odd while the row is given to another name.
    sequence: AtomicU64,
    clients: ByVerdict<Gauge>,
    /// Refused clients that the name can have had at most before it got the row.
    missed: Gauge,
    /// 1 if the row was another name's: the name may have had clients before.
    is_late: Gauge,
    name_bytes: Gauge,
    name: [AtomicU64; NAME_WORDS],
}

/// What is known of one name. Numbers are of all engines together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameCounts {
    /// Clients by verdict, since the name has its row.
    pub clients: [u64; Verdict::ALL.len()],
    /// Refused clients that it can have had at most besides.
    pub missed_max: u64,
    /// Whether it may have had other clients besides.
    pub is_partial: bool,
}

impl NameCounts {
    /// Clients that would be refused.
    pub fn refused(&self) -> u64 {
        refused(&self.clients)
    }
}

/// Of clients by verdict those that would be refused.
pub fn refused(clients: &[u64; Verdict::ALL.len()]) -> u64 {
    clients.iter().sum::<u64>() - clients[Verdict::Served as usize]
}

impl ShadowCounts {
    /// Takes the memory for `names` at least, and for so many engines.
    pub fn new(names: usize, engines: usize) -> Self {
        let sets = names.div_ceil(ROWS).next_power_of_two();
        let engine = || EngineCounts {
            sum: Default::default(),
            no_name: Default::default(),
            other: Default::default(),
            sets: (0..sets).map(|_| Set::default()).collect(),
        };
        Self { hash_key: RandomState::new(), engines: (0..engines).map(|_| engine()).collect() }
    }

    /// Counts a client of the engine number `engine`.
    pub(super) fn count(&self, engine: usize, asked: Asked<'_>, verdict: Verdict) {
        let counts = &self.engines[engine];
        counts.sum[verdict as usize].increment();
        match asked {
            Asked::Nothing => counts.no_name[verdict as usize].increment(),
            Asked::Unserved => counts.other[verdict as usize].increment(),
            Asked::Served(name) => {
                let hash = self.hash_key.hash_one(name);
                let set = &counts.sets[hash as usize & (counts.sets.len() - 1)];
                match set.row_of(hash | 1 << 63, name, verdict, &counts.other) {
                    Some(row) => row.clients[verdict as usize].increment(),
                    None => counts.other[verdict as usize].increment(),
                }
            }
        }
    }

    /// All clients, by verdict.
    pub fn sum(&self) -> [u64; Verdict::ALL.len()] {
        self.of_all(|counts| &counts.sum)
    }

    /// Those that asked for no name.
    pub fn no_name(&self) -> [u64; Verdict::ALL.len()] {
        self.of_all(|counts| &counts.no_name)
    }

    /// Those that asked for a name without a row.
    pub fn other(&self) -> [u64; Verdict::ALL.len()] {
        self.of_all(|counts| &counts.other)
    }

    fn of_all(
        &self,
        cells: impl Fn(&EngineCounts) -> &ByVerdict<Counter>,
    ) -> [u64; Verdict::ALL.len()] {
        std::array::from_fn(|verdict| {
            self.engines.iter().map(|counts| cells(counts)[verdict].value()).sum()
        })
    }

    /// Names that there is room for, in each engine.
    pub fn names_max(&self) -> usize {
        self.engines.first().map_or(0, |counts| counts.sets.len() * ROWS)
    }

    /// Every name that has a row in some engine.
    pub fn names(&self) -> BTreeMap<String, NameCounts> {
        let mut names = BTreeMap::new();
        for place in 0..self.names_max() / ROWS {
            self.read_set(place, &mut names);
        }
        names
    }

    /// Puts together what the engines have in the set at `place`.
    fn read_set(&self, place: usize, names: &mut BTreeMap<String, NameCounts>) {
        let read = |counts: &EngineCounts| -> Vec<(String, NameCounts)> {
            counts.sets[place].rows.iter().filter_map(Row::read).collect()
        };
        let of_engines: Vec<_> = self.engines.iter().map(read).collect();
        for (name, _) in of_engines.iter().flatten() {
            names.entry(name.clone()).or_insert_with(|| {
                let mut all = NameCounts::default();
                of_engines.iter().for_each(|rows| all.add(name, rows));
                all
            });
        }
    }
}

impl NameCounts {
    /// Adds what one engine knows of the name, which has these rows in its set.
    fn add(&mut self, name: &str, rows: &[(String, NameCounts)]) {
        if let Some((_, known)) = rows.iter().find(|(other, _)| other == name) {
            for (sum, clients) in self.clients.iter_mut().zip(known.clients) {
                *sum += clients;
            }
            self.missed_max += known.missed_max;
            self.is_partial |= known.is_partial;
        } else if rows.len() == ROWS {
            let least = rows.iter().map(|(_, known)| known.refused() + known.missed_max).min();
            self.missed_max += least.unwrap_or_default();
            self.is_partial = true;
        }
    }
}

impl Set {
    /// The row of a name, which it may have to be given first; `None` if there is none for
    /// it. Counts of a name that makes room are added to `other`.
    fn row_of(
        &self,
        tag: u64,
        name: &str,
        verdict: Verdict,
        other: &ByVerdict<Counter>,
    ) -> Option<&Row> {
        for (held, row) in self.tags.iter().zip(&self.rows) {
            match held.load(Ordering::Relaxed) {
                0 => {
                    held.store(tag, Ordering::Relaxed);
                    row.give_to(name, 0, false);
                    return Some(row);
                }
                held if held == tag => return Some(row),
                _ => {}
            }
        }
        if verdict == Verdict::Served {
            return None;
        }
        let (weight, place) =
            self.rows.iter().enumerate().map(|(place, row)| (row.weight(), place)).min()?;
        let row = &self.rows[place];
        for (sum, clients) in other.iter().zip(&row.clients) {
            sum.add(clients.value());
        }
        self.tags[place].store(tag, Ordering::Relaxed);
        row.give_to(name, weight, true);
        Some(row)
    }
}

impl Row {
    /// The refused clients that its name can have had at most.
    fn weight(&self) -> u64 {
        refused(&self.counted()) + self.missed.value()
    }

    fn counted(&self) -> [u64; Verdict::ALL.len()] {
        std::array::from_fn(|verdict| self.clients[verdict].value())
    }

    fn give_to(&self, name: &str, missed: u64, is_late: bool) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // Nobody sees what follows without the odd number.
        fence(Ordering::Release);
        for cell in &self.clients {
            cell.set(0);
        }
        self.missed.set(missed);
        self.is_late.set(u64::from(is_late));
        self.name_bytes.set(name.len() as u64);
        for (word, bytes) in self.name.iter().zip(name.as_bytes().chunks(size_of::<u64>())) {
            let mut padded = [0; size_of::<u64>()];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The name and its counts; `None` if it is nobody's, or changes hands again and again.
    fn read(&self) -> Option<(String, NameCounts)> {
        for _ in 0..READ_TRIES_MAX {
            let before = self.sequence.load(Ordering::Acquire);
            if before == 0 {
                return None;
            }
            let known = NameCounts {
                clients: self.counted(),
                missed_max: self.missed.value(),
                is_partial: self.is_late.value() != 0,
            };
            let words = self.name.iter().map(|word| word.load(Ordering::Relaxed));
            let mut name: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
            name.truncate(self.name_bytes.value() as usize);
            // What was read was read before the second look at the number.
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.sequence.load(Ordering::Relaxed) {
                return Some((String::from_utf8(name).ok()?, known));
            }
            std::hint::spin_loop();
        }
        None
    }
}

#[cfg(test)]
mod tests;
