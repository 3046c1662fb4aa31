//! What was shed, of whom, and why: counted at once, told once a second.
//!
//! A flood sheds tens of thousands of connections a second, so nothing is reported for
//! each. The sources that had most of them are kept by the *space-saving* algorithm
//! (Metwally, Agrawal, El Abbadi 2005): of a bounded number of counters the smallest is
//! given to whoever has none, with what it counted noted as a possible error. A source
//! that has more than one in so many of all sheds is always among them.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::events::Whose;
use super::metrics::ShedCause;
use crate::clock::Moment;
use arrayvec::ArrayVec;

/// Counters for sources; so many lines an engine gives the control thread at most.
const COUNTERS: usize = 16;

/// From the first shed on, or from the last report, to the next report.
const REPORTED_EVERY: Duration = Duration::from_secs(1);

/// What has been shed since the last report.
#[derive(Debug, Default)]
pub(super) struct Shedding {
    counters: ArrayVec<Counter, COUNTERS>,
    since: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    whose: Whose,
    cause: ShedCause,
    count: u64,
    /// How much of the count may be others'.
    error: u64,
}

impl Shedding {
    /// Counts one connection.
    pub(super) fn count(&mut self, whose: Whose, cause: ShedCause, now: Moment) {
        self.since.get_or_insert(now);
        let mut counters = self.counters.iter_mut();
        if let Some(counter) = counters.find(|known| known.cause == cause && known.whose == whose) {
            counter.count += 1;
        } else if self.counters.is_full()
            && let Some(least) = self.counters.iter_mut().min_by_key(|least| least.count)
        {
            let error = least.count;
            *least = Counter { whose, cause, count: error + 1, error };
        } else {
            self.counters.push(Counter { whose, cause, count: 1, error: 0 });
        }
    }

    /// When the next report is due; `None` while there is nothing to report.
    pub(super) fn report_due(&self) -> Option<Moment> {
        self.since.map(|since| since.after(REPORTED_EVERY))
    }

    /// What is to be reported, once it is due: whose, the cause, and how many at least.
    pub(super) fn report(
        &mut self,
        now: Moment,
    ) -> impl Iterator<Item = (Whose, ShedCause, u64)> + use<> {
        let due = self.report_due().is_some_and(|due| due <= now);
        let counters = if due {
            self.since = None;
            std::mem::take(&mut self.counters)
        } else {
            ArrayVec::new()
        };
        counters
            .into_iter()
            .map(|counter| (counter.whose, counter.cause, counter.count - counter.error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAUSE: ShedCause = ShedCause::SourceConnections;

    fn source(number: u32) -> Whose {
        Whose::Source(std::net::IpAddr::from(number.to_be_bytes()).into())
    }

    fn at_milliseconds(milliseconds: u64) -> Moment {
        Moment::from_nanoseconds(milliseconds * 1_000_000)
    }

    #[test]
    fn what_was_shed_is_reported_after_a_second_and_once() {
        let mut shedding = Shedding::default();
        assert_eq!(shedding.report_due(), None);
        for _ in 0..3 {
            shedding.count(source(1), CAUSE, at_milliseconds(10));
        }
        shedding.count(Whose::Anybody, ShedCause::NoCredit, at_milliseconds(20));
        assert_eq!(shedding.report_due(), Some(at_milliseconds(1_010)));
        assert_eq!(shedding.report(at_milliseconds(1_000)).count(), 0);
        let report: Vec<_> = shedding.report(at_milliseconds(1_010)).collect();
        assert_eq!(report, [(source(1), CAUSE, 3), (Whose::Anybody, ShedCause::NoCredit, 1)]);
        assert_eq!(shedding.report_due(), None);
    }

    #[test]
    fn causes_are_counted_apart() {
        let mut shedding = Shedding::default();
        shedding.count(source(1), CAUSE, at_milliseconds(0));
        shedding.count(source(1), ShedCause::SourceIncompleteHandshakes, at_milliseconds(0));
        assert_eq!(shedding.report(at_milliseconds(1_000)).count(), 2);
    }

    #[test]
    fn the_source_with_most_is_found_among_any_number_of_others() {
        let mut shedding = Shedding::default();
        for number in 0..10_000_u32 {
            shedding.count(source(1_000 + number), CAUSE, at_milliseconds(0));
            if number % 8 == 0 {
                shedding.count(source(7), CAUSE, at_milliseconds(0));
            }
        }
        let most = shedding.report(at_milliseconds(1_000)).max_by_key(|(_, _, count)| *count);
        let (found, _, count) = most.expect("a report");
        assert_eq!(found, source(7));
        // Never more than was counted.
        assert!(count <= 1_250, "{count}");
    }
}
