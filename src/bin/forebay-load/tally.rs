//! What one thread has measured, in one window of time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::failure::{Cause, Failure};
use crate::session::Negotiated;

/// Latencies that are told apart: from 100 ns to 10 minutes, to three digits.
const LATENCY_NS: (u64, u64) = (100, 600_000_000_000);
const LATENCY_DIGITS: u8 = 3;

/// Latencies, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(pub(crate) Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let (low, high) = LATENCY_NS;
        let histogram = Histogram::new_with_bounds(low, high, LATENCY_DIGITS);
        Self(histogram.expect("the bounds are constants that fit"))
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }
}

/// The failures of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    /// The words of the first.
    pub(crate) example: String,
}

/// Counts and latencies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Operations that were due or begun; in a closed loop those that ended.
    pub(crate) offered: u64,
    /// Operations that succeeded.
    pub(crate) operations: u64,
    /// Operations that succeeded while the window lasted, whenever they were due.
    pub(crate) completed_inside: u64,
    /// Operations that failed.
    pub(crate) failed: BTreeMap<Cause, Failures>,
    /// Latencies of operations that succeeded, and of those whose client ran out of time.
    pub(crate) latencies: Latencies,
    /// From the due time to the end of the handshake, where that is not the operation.
    pub(crate) handshake_latencies: Latencies,
    /// How late this program began operations for which there was room.
    pub(crate) lateness: Latencies,
    /// Application bytes received while the window lasted.
    pub(crate) bytes_received: u64,
    /// Application bytes sent while the window lasted.
    pub(crate) bytes_sent: u64,
    /// Handshakes completed while the window lasted.
    pub(crate) handshakes: u64,
    /// Of these, resumptions.
    pub(crate) resumed: u64,
    /// What handshakes agreed on, and how many.
    pub(crate) negotiated: BTreeMap<Negotiated, u64>,
    /// Connections that were opened again because the server had ended them in between.
    pub(crate) reconnects: u64,
    /// CPU time of this thread while the window lasted.
    pub(crate) cpu: Duration,
}

impl Tally {
    pub(crate) fn fail(&mut self, failure: &Failure) {
        let failures = self.failed.entry(failure.cause).or_default();
        if failures.count == 0 {
            failures.example = failure.to_string();
        }
        failures.count += 1;
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().map(|failures| failures.count).sum()
    }

    pub(crate) fn failures_of(&self, causes: &[Cause]) -> u64 {
        let of = |cause: &Cause| self.failed.get(cause).map_or(0, |failures| failures.count);
        causes.iter().map(of).sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.operations += other.operations;
        self.completed_inside += other.completed_inside;
        for (cause, failures) in &other.failed {
            let sum = self.failed.entry(*cause).or_default();
            if sum.count == 0 {
                sum.example.clone_from(&failures.example);
            }
            sum.count += failures.count;
        }
        self.latencies.add(&other.latencies);
        self.handshake_latencies.add(&other.handshake_latencies);
        self.lateness.add(&other.lateness);
        self.bytes_received += other.bytes_received;
        self.bytes_sent += other.bytes_sent;
        self.handshakes += other.handshakes;
        self.resumed += other.resumed;
        for (negotiated, count) in &other.negotiated {
            *self.negotiated.entry(*negotiated).or_default() += count;
        }
        self.reconnects += other.reconnects;
        self.cpu += other.cpu;
    }
}

/// A stretch of time that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: Instant,
    pub(crate) end: Instant,
}

impl Window {
    pub(crate) fn contains(&self, moment: Instant) -> bool {
        self.start <= moment && moment < self.end
    }
}
