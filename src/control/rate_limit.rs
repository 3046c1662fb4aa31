//! A token bucket that remembers what it refused.
//!
//! Knows only plain data, so it is exact under test.

#![forbid(unsafe_code)]

use crate::clock::Moment;
use crate::token_bucket::{Bucket, Rate};

/// Admits `per_second` things a second on average, and at most one second's worth at
/// once after a quiet time.
#[derive(Debug)]
pub struct RateLimit {
    rate: Rate,
    bucket: Bucket,
    suppressed: u64,
}

impl RateLimit {
    /// A full bucket. `per_second` 0 admits nothing.
    pub fn new(per_second: u32, now: Moment) -> Self {
        let rate = Rate::per_second(per_second);
        Self { rate, bucket: Bucket::full(rate, now), suppressed: 0 }
    }

    /// Takes a token and returns how many things were suppressed since the last one
    /// that was admitted; `None` if this one is suppressed too.
    pub fn admit(&mut self, now: Moment) -> Option<u64> {
        if !self.bucket.take(self.rate, now) {
            self.suppressed += 1;
            return None;
        }
        Some(std::mem::take(&mut self.suppressed))
    }

    /// Counts `count` things that were lost before they could ask.
    pub fn add_suppressed(&mut self, count: u64) {
        self.suppressed += count;
    }

    /// Things suppressed since the last one admitted.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_milliseconds(milliseconds: u64) -> Moment {
        Moment::from_nanoseconds(milliseconds * 1_000_000)
    }

    fn admitted(limit: &mut RateLimit, now: Moment, attempts: usize) -> usize {
        (0..attempts).filter(|_| limit.admit(now).is_some()).count()
    }

    #[test]
    fn a_burst_of_one_second_is_admitted_and_no_more() {
        let mut limit = RateLimit::new(10, at_milliseconds(0));
        assert_eq!(admitted(&mut limit, at_milliseconds(0), 25), 10);
        assert_eq!(limit.suppressed(), 15);
    }

    #[test]
    fn the_next_one_admitted_reports_what_was_suppressed_once() {
        let mut limit = RateLimit::new(10, at_milliseconds(0));
        admitted(&mut limit, at_milliseconds(0), 15);
        assert_eq!(limit.admit(at_milliseconds(200)), Some(5));
        assert_eq!(limit.admit(at_milliseconds(200)), Some(0));
    }

    #[test]
    fn tokens_come_back_at_the_rate() {
        let mut limit = RateLimit::new(10, at_milliseconds(0));
        admitted(&mut limit, at_milliseconds(0), 10);
        assert_eq!(admitted(&mut limit, at_milliseconds(99), 5), 0);
        assert_eq!(admitted(&mut limit, at_milliseconds(100), 5), 1);
        assert_eq!(admitted(&mut limit, at_milliseconds(600), 9), 5);
    }

    #[test]
    fn a_long_quiet_time_saves_up_one_second_only() {
        let mut limit = RateLimit::new(3, at_milliseconds(0));
        assert_eq!(admitted(&mut limit, at_milliseconds(3_600_000), 100), 3);
    }

    #[test]
    fn what_was_lost_elsewhere_is_reported_too() {
        let mut limit = RateLimit::new(1, at_milliseconds(0));
        limit.add_suppressed(7);
        assert_eq!(limit.admit(at_milliseconds(0)), Some(7));
    }

    #[test]
    fn a_rate_of_zero_admits_nothing() {
        let mut limit = RateLimit::new(0, at_milliseconds(0));
        assert_eq!(limit.admit(at_milliseconds(10_000)), None);
    }
}
