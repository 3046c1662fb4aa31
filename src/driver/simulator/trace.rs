//! What happened, in order: a running hash to compare two runs by, and lines to read.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::clock::Moment;

/// The trace of one run. Holds lengths and moments, never bytes: those are encrypted
/// with fresh randomness and differ from run to run.
#[derive(Debug)]
pub(super) struct Trace {
    hasher: DefaultHasher,
    printed: bool,
}

impl Trace {
    pub(super) fn new() -> Self {
        // `DefaultHasher::new` has fixed keys, unlike the hasher of a `HashMap`.
        Self { hasher: DefaultHasher::new(), printed: false }
    }

    /// Writes every further event to standard error as well.
    pub(super) fn print(&mut self) {
        self.printed = true;
    }

    /// Adds an event: what, to whom (a connection, a listener, a token), how much.
    pub(super) fn note(&mut self, at: Moment, what: &'static str, whom: u64, value: i64) {
        (at, what, whom, value).hash(&mut self.hasher);
        if self.printed {
            let microseconds = at.as_nanoseconds() / 1000;
            eprintln!("{microseconds:>12} µs  {what:<24} {whom:>6} {value:>8}");
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}
