//! When operations are due.
//!
//! Open loop: at a constant rate from a given moment on, whatever becomes of earlier ones.
//! An operation that cannot begin when it is due keeps its due time, from which its
//! latency is measured: that is what corrects for coordinated omission.

use std::time::{Duration, Instant};

/// The due times of one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Whenever there is room.
    Closed,
    /// One after the other at equal distances.
    Open {
        /// When the first is due.
        first: Instant,
        /// From one to the next, in nanoseconds: a fraction too, lest the rate be rounded.
        interval_ns: f64,
        /// How many have been handed out.
        taken: u64,
    },
}

impl Pace {
    /// The share of thread `number` of `threads` in `rate` operations a second from `begin`
    /// on: threads take turns.
    pub(crate) fn open(rate: f64, begin: Instant, number: usize, threads: usize) -> Self {
        let step_ns = 1e9 / rate;
        Self::Open {
            first: begin + Duration::from_nanos((step_ns * number as f64) as u64),
            interval_ns: step_ns * threads as f64,
            taken: 0,
        }
    }

    /// When the next operation is due; `now` if any time is as good.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        match self {
            Self::Closed => now,
            Self::Open { first, interval_ns, taken } => {
                *first + Duration::from_nanos((*interval_ns * *taken as f64) as u64)
            }
        }
    }

    /// The next operation has begun, or is given up.
    pub(crate) fn take(&mut self) {
        if let Self::Open { taken, .. } = self {
            *taken += 1;
        }
    }

    /// Whether the rate is given from outside.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_times(mut pace: Pace, begin: Instant, count: usize) -> Vec<u128> {
        (0..count)
            .map(|_| {
                let due = pace.next(begin);
                pace.take();
                (due - begin).as_nanos()
            })
            .collect()
    }

    #[test]
    fn threads_take_turns_in_one_constant_rate() {
        let begin = Instant::now();
        assert_eq!(
            due_times(Pace::open(1_000.0, begin, 0, 2), begin, 3),
            [0, 2_000_000, 4_000_000]
        );
        assert_eq!(due_times(Pace::open(1_000.0, begin, 1, 2), begin, 2), [1_000_000, 3_000_000]);
    }

    #[test]
    fn a_rate_that_is_no_whole_number_of_nanoseconds_does_not_drift() {
        let begin = Instant::now();
        let mut pace = Pace::open(7_000.0, begin, 0, 1);
        for _ in 0..7_000 * 3_600 {
            pace.take();
        }
        let off = (pace.next(begin) - begin).abs_diff(Duration::from_secs(3_600));
        assert!(off < Duration::from_micros(1), "{off:?}");
    }

    #[test]
    fn due_times_do_not_depend_on_when_operations_begin() {
        let begin = Instant::now();
        let mut pace = Pace::open(100.0, begin, 0, 1);
        let late = begin + Duration::from_secs(1);
        assert_eq!(pace.next(late), begin, "still due, and its latency counts from then");
        pace.take();
        assert_eq!(pace.next(late), begin + Duration::from_millis(10));
        assert_eq!(Pace::Closed.next(late), late);
    }
}
