//! How fast handshakes may begin on this engine, all sources together.
#![forbid(unsafe_code)]

use super::sources;
use crate::clock::Moment;
use crate::token_bucket::{Bucket, Rate};

/// This engine's share of `limits.handshakes_per_second`.
#[derive(Debug, Default)]
pub(super) struct Pace(Option<(Rate, Bucket)>);

impl Pace {
    /// Sets the rate of all `engines` together; `None` for none.
    pub(super) fn set(&mut self, per_second: Option<u32>, engines: usize, now: Moment) {
        let share = per_second.map(|per_second| sources::rate(per_second, engines));
        // A reload that leaves the rate as it is gives nobody a second burst.
        if self.0.map(|(rate, _)| rate) != share {
            self.0 = share.map(|rate| (rate, Bucket::full(rate, now)));
        }
    }

    /// Whether one more may begin.
    pub(super) fn allows(&self, now: Moment) -> bool {
        self.0.is_none_or(|(rate, bucket)| bucket.has(rate, now))
    }

    /// Counts one that begins.
    pub(super) fn count(&mut self, now: Moment) {
        if let Some((rate, bucket)) = &mut self.0 {
            bucket.take(*rate, now);
        }
    }

    /// When the next may begin; `None` if any may at any time.
    pub(super) fn next(&self) -> Option<Moment> {
        self.0.and_then(|(rate, bucket)| bucket.next(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_nanoseconds(5);

    #[test]
    fn without_a_rate_any_may_begin() {
        let mut pace = Pace::default();
        (0..1_000).for_each(|_| pace.count(NOW));
        assert!(pace.allows(NOW));
        assert_eq!(pace.next(), None);
    }

    #[test]
    fn a_reload_with_the_same_rate_gives_no_second_burst() {
        let mut pace = Pace::default();
        pace.set(Some(1), 1, NOW);
        pace.count(NOW);
        pace.set(Some(1), 1, NOW);
        assert!(!pace.allows(NOW));
        let next = pace.next().expect("it comes");
        assert!(pace.allows(next));
        pace.set(None, 1, NOW);
        assert!(pace.allows(NOW));
    }
}
