//! Token buckets in whole numbers: a rate, and how much of it is saved up.
//!
//! Plain data on a clock that the caller reads, so they are exact under test, and small,
//! so that there can be one for every source of connections. Knows only the clock.
#![forbid(unsafe_code)]

use crate::clock::Moment;

/// Parts of a token. A rate in thousandths of a token a second brings as many parts in
/// each nanosecond, so that no fraction is lost between two looks at a bucket.
const PARTS: u64 = 1_000_000_000_000;

/// So many a second on average, and at most so many at once after a quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    thousandths_per_second: u64,
    capacity_parts: u64,
}

impl Rate {
    /// The most tokens that can be saved up.
    pub const BURST_MAX: u32 = (u64::MAX / PARTS) as u32;

    /// A rate in thousandths of a token a second. A `burst` above [`Self::BURST_MAX`] is
    /// taken for that.
    pub const fn new(thousandths_per_second: u64, burst: u32) -> Self {
        let burst = if burst < Self::BURST_MAX { burst } else { Self::BURST_MAX };
        Self { thousandths_per_second, capacity_parts: burst as u64 * PARTS }
    }

    /// `per_second` tokens, of which a quiet time saves up one second's worth.
    pub const fn per_second(per_second: u32) -> Self {
        Self::new(per_second as u64 * 1_000, per_second)
    }
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    parts: u64,
    /// When `parts` was right.
    looked_at: Moment,
}

impl Bucket {
    /// A bucket with all that can be saved up.
    pub const fn full(rate: Rate, now: Moment) -> Self {
        Self { parts: rate.capacity_parts, looked_at: now }
    }

    /// Whether a token is there.
    pub fn has(&self, rate: Rate, now: Moment) -> bool {
        self.parts_at(rate, now) >= PARTS
    }

    /// Takes a token if one is there.
    pub fn take(&mut self, rate: Rate, now: Moment) -> bool {
        self.parts = self.parts_at(rate, now);
        self.looked_at = now;
        let enough = self.parts >= PARTS;
        if enough {
            self.parts -= PARTS;
        }
        enough
    }

    /// When the next token will be there; `None` if never.
    pub fn next(&self, rate: Rate) -> Option<Moment> {
        if rate.capacity_parts < PARTS {
            return None;
        }
        let missing = PARTS.saturating_sub(self.parts);
        let nanoseconds = if missing == 0 {
            0
        } else if rate.thousandths_per_second == 0 {
            return None;
        } else {
            missing.div_ceil(rate.thousandths_per_second)
        };
        let looked_at = self.looked_at.as_nanoseconds();
        Some(Moment::from_nanoseconds(looked_at.saturating_add(nanoseconds)))
    }

    fn parts_at(&self, rate: Rate, now: Moment) -> u64 {
        let elapsed = now.as_nanoseconds().saturating_sub(self.looked_at.as_nanoseconds());
        let brought = elapsed.saturating_mul(rate.thousandths_per_second);
        self.parts.saturating_add(brought).min(rate.capacity_parts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at_milliseconds(milliseconds: u64) -> Moment {
        Moment::from_nanoseconds(milliseconds * 1_000_000)
    }

    fn taken(bucket: &mut Bucket, rate: Rate, now: Moment, attempts: usize) -> usize {
        (0..attempts).filter(|_| bucket.take(rate, now)).count()
    }

    #[test]
    fn a_full_bucket_gives_its_burst_at_once_and_no_more() {
        let rate = Rate::new(2_000, 5);
        let mut bucket = Bucket::full(rate, at_milliseconds(0));
        assert_eq!(taken(&mut bucket, rate, at_milliseconds(0), 20), 5);
        assert!(!bucket.has(rate, at_milliseconds(499)));
        assert!(bucket.has(rate, at_milliseconds(500)));
    }

    #[test]
    fn fractions_of_a_token_are_kept_between_looks() {
        let rate = Rate::per_second(1);
        let mut bucket = Bucket::full(rate, at_milliseconds(0));
        assert!(bucket.take(rate, at_milliseconds(0)));
        for milliseconds in (1..1_000).step_by(7) {
            assert!(!bucket.take(rate, at_milliseconds(milliseconds)));
        }
        assert!(bucket.take(rate, at_milliseconds(1_000)));
    }

    #[test]
    fn a_third_of_a_token_a_second_brings_one_in_three_seconds() {
        let rate = Rate::new(334, 1);
        let mut bucket = Bucket::full(rate, at_milliseconds(0));
        assert!(bucket.take(rate, at_milliseconds(0)));
        assert!(!bucket.take(rate, at_milliseconds(2_990)));
        assert!(bucket.take(rate, at_milliseconds(2_995)));
    }

    #[test]
    fn the_next_token_comes_when_it_is_said_to_come() {
        let rate = Rate::new(3_000, 1);
        let mut bucket = Bucket::full(rate, at_milliseconds(10));
        assert_eq!(bucket.next(rate), Some(at_milliseconds(10)));
        assert!(bucket.take(rate, at_milliseconds(10)));
        let next = bucket.next(rate).expect("it comes");
        assert!(!bucket.has(rate, Moment::from_nanoseconds(next.as_nanoseconds() - 1)));
        assert!(bucket.has(rate, next));
    }

    #[test]
    fn a_rate_without_burst_gives_nothing_ever() {
        let rate = Rate::per_second(0);
        let mut bucket = Bucket::full(rate, at_milliseconds(0));
        assert!(!bucket.take(rate, at_milliseconds(1_000_000)));
        assert_eq!(bucket.next(rate), None);
    }

    #[test]
    fn a_smaller_rate_takes_hold_of_a_bucket_filled_by_a_larger_one() {
        let mut bucket = Bucket::full(Rate::per_second(1_000), at_milliseconds(0));
        let smaller = Rate::per_second(2);
        assert_eq!(taken(&mut bucket, smaller, at_milliseconds(0), 100), 2);
    }

    proptest! {
        /// However it is asked, a bucket gives no more than burst and rate allow, and
        /// whoever asks all the time gets all of it but for the last fraction.
        #[test]
        fn no_more_is_given_than_the_rate_allows(
            thousandths in 1_u64..5_000_000,
            burst in 1_u32..1_000,
            steps in proptest::collection::vec((0_u64..2_000_000_000, 0_usize..50), 1..200),
        ) {
            let rate = Rate::new(thousandths, burst);
            let mut bucket = Bucket::full(rate, Moment::default());
            let (mut now, mut given) = (0_u64, 0_u128);
            for (elapsed, attempts) in steps {
                now += elapsed;
                given += taken(&mut bucket, rate, Moment::from_nanoseconds(now), attempts) as u128;
                let brought = u128::from(now) * u128::from(thousandths) / u128::from(PARTS);
                prop_assert!(given <= u128::from(burst) + brought);
            }
        }

        #[test]
        fn whoever_asks_all_the_time_gets_the_whole_rate(thousandths in 1_u64..100_000) {
            let rate = Rate::new(thousandths, 1);
            let mut bucket = Bucket::full(rate, Moment::default());
            let (mut now, mut given) = (Moment::default(), 0_u64);
            while given < 50 {
                prop_assert!(bucket.take(rate, now));
                given += 1;
                now = bucket.next(rate).expect("it comes");
            }
            let least = (given - 1) * PARTS / thousandths;
            prop_assert!(now.as_nanoseconds() <= least + PARTS / thousandths + given);
        }
    }
}
