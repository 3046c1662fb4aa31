//! Counters, gauges and histograms that cost the writer no lock and no bus-locked
//! instruction: each cell has **one writing thread**, any thread may read.
//!
//! Knows nothing of the rest of the crate. The owners (`engine::metrics`,
//! `handshake::metrics`) say what is counted; `control::metrics` prints it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows. One writer; a second writer would lose counts, never
/// corrupt them.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`: a plain load and a plain store.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls. One writer.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.set(self.value().wrapping_add(1));
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.set(self.value().wrapping_sub(1));
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of a [`Histogram`]: upper bounds double from 1 µs to about 8.4 s, and the
/// last bucket has no bound.
pub const HISTOGRAM_BUCKETS: usize = 25;

/// A histogram of durations with power-of-two bounds in microseconds. One writer.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; HISTOGRAM_BUCKETS],
    sum_nanoseconds: Counter,
}

impl Histogram {
    /// Records one duration.
    pub fn record(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let microseconds = nanoseconds.div_ceil(1_000).max(1);
        // The smallest power of two that is not below the duration.
        let exponent = (u64::BITS - (microseconds - 1).leading_zeros()) as usize;
        self.buckets[exponent.min(HISTOGRAM_BUCKETS - 1)].increment();
        self.sum_nanoseconds.add(nanoseconds);
    }

    /// Upper bound of bucket `index` in seconds; the last has none.
    pub fn upper_bound_seconds(index: usize) -> f64 {
        if index + 1 >= HISTOGRAM_BUCKETS { f64::INFINITY } else { (1_u64 << index) as f64 / 1e6 }
    }

    /// Counts per bucket (not cumulative).
    pub fn counts(&self) -> [u64; HISTOGRAM_BUCKETS] {
        std::array::from_fn(|index| self.buckets[index].value())
    }

    /// Sum of all durations recorded, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_nanoseconds.value() as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lands_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for microseconds in [0, 1, 2, 3, 4, 1_000] {
            histogram.record(Duration::from_micros(microseconds));
        }
        histogram.record(Duration::from_secs(3_600));
        let counts = histogram.counts();
        assert_eq!(counts[0], 2, "up to 1 µs");
        assert_eq!(counts[1], 1, "up to 2 µs");
        assert_eq!(counts[2], 2, "up to 4 µs");
        assert_eq!(counts[10], 1, "1,000 µs is up to 1,024 µs");
        assert_eq!(counts[HISTOGRAM_BUCKETS - 1], 1, "beyond every bound");
    }

    #[test]
    fn the_sum_is_in_seconds() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(1_500));
        assert!((histogram.sum_seconds() - 1.5).abs() < 1e-9);
    }
}
