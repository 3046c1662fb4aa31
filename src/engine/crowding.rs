//! What to do about a crowd: far more clients than can be served.
//!
//! A refusal takes an accept and a reset, tens of microseconds of which nearly all is the
//! kernel's. To refuse a crowd of ten times what the workers can do would take half the
//! CPU from those who are served. A SYN that finds its listener's queue full is dropped for
//! a microsecond, and its client comes again after a second. So
//!
//! * of those who have had their share only so many a second are refused. When that is used
//!   up nobody is accepted, unless clients within their share come too, whom to accept is
//!   worth any number of refusals;
//! * while that is so, or the workers are owed all that they may be, the listeners' queues
//!   are short: who is in one is served soon, instead of late or never. Who is in a long
//!   queue when that begins is refused besides.
//!
//! May know: the clock. Must not know: why somebody is refused.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::clock::Moment;
use crate::token_bucket::{Bucket, Rate};

/// Refusals a second, and at once: at some 25 µs each they take 5 % of a CPU.
const REFUSALS: Rate = Rate::new(2_000_000, 64);

/// Clients within their share in one [`WINDOW`] that are more than the health checks and
/// the like that every server has.
const WITHIN_SHARE_MIN: u32 = 8;
const WINDOW: Duration = Duration::from_secs(1);

/// After so long without a crowd the queues are long again.
const OVER_AFTER: Duration = Duration::from_secs(1);

/// After so long without anything of the kind all that was counted is of no account.
const AT_EASE_AFTER: Duration = Duration::from_secs(3);

/// One engine's view of the crowd before it.
#[derive(Debug)]
pub(super) struct Crowding {
    /// There is nothing to judge: the usual case, which costs a turn nothing.
    at_ease: bool,
    disturbed_last: Moment,
    /// What a listener's queue may hold, and so who may be in it when a crowd begins.
    queue: u32,
    refusals: Bucket,
    /// Clients within their share that came in this window and in the one before.
    within_share: [u32; 2],
    window_began: Moment,
    is_crowded: bool,
    /// How many may still be refused because the queue was long.
    queued: u32,
    crowded_last: Moment,
}

impl Crowding {
    pub(super) fn new(queue: u32, now: Moment) -> Self {
        Self {
            queue,
            at_ease: true,
            disturbed_last: now,
            refusals: Bucket::full(REFUSALS, now),
            within_share: [0; 2],
            window_began: now,
            is_crowded: false,
            queued: 0,
            crowded_last: now,
        }
    }

    /// A client was refused that had had its share.
    pub(super) fn refused(&mut self, now: Moment) {
        self.disturb(now);
        if self.queued > 0 {
            self.queued -= 1;
        } else {
            self.refusals.take(REFUSALS, now);
        }
    }

    /// A client came that had not, while others had.
    pub(super) fn came_within_share(&mut self, now: Moment) {
        self.disturb(now);
        self.turn_window(now);
        self.within_share[0] += 1;
    }

    /// Whether accepting is worth it.
    pub(super) fn may_accept(&self, now: Moment) -> bool {
        self.at_ease
            || self.queued > 0
            || self.refusals.has(REFUSALS, now)
            || self.within_share.iter().any(|count| *count >= WITHIN_SHARE_MIN)
    }

    /// When it will be again whoever comes, or the crowd may be over.
    pub(super) fn next_judgement(&self, now: Moment) -> Option<Moment> {
        if self.at_ease {
            return None;
        }
        let worth_it = if self.may_accept(now) { None } else { self.refusals.next(REFUSALS) };
        worth_it.or_else(|| self.is_crowded.then(|| self.crowded_last.after(OVER_AFTER)))
    }

    /// Whether the listeners' queues are short.
    pub(super) fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// Once a turn, told whether the workers are owed all that they may be: whether that
    /// has made the queues short (`true`) or long again.
    pub(super) fn judge(&mut self, is_full: bool, now: Moment) -> Option<bool> {
        if self.at_ease && !is_full {
            return None;
        }
        self.turn_window(now);
        let was = self.is_crowded;
        if is_full || !self.may_accept(now) {
            self.disturb(now);
            self.crowded_last = now;
            self.is_crowded = true;
            if !was {
                self.queued = self.queue;
            }
        } else if now.since(self.crowded_last) >= OVER_AFTER {
            self.is_crowded = false;
            self.queued = 0;
            if now.since(self.disturbed_last) >= AT_EASE_AFTER {
                *self = Self::new(self.queue, now);
            }
        }
        (self.is_crowded != was).then_some(self.is_crowded)
    }

    fn disturb(&mut self, now: Moment) {
        self.at_ease = false;
        self.disturbed_last = now;
    }

    fn turn_window(&mut self, now: Moment) {
        let age = now.since(self.window_began);
        if age < WINDOW {
            return;
        }
        let before = if age < 2 * WINDOW { self.within_share[0] } else { 0 };
        self.within_share = [0, before];
        self.window_began = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_milliseconds(milliseconds: u64) -> Moment {
        Moment::from_nanoseconds(milliseconds * 1_000_000)
    }

    const QUEUE: u32 = 100;

    /// One that has refused all that it may at this moment.
    fn tired(now: Moment) -> Crowding {
        let mut crowding = Crowding::new(QUEUE, now);
        while crowding.may_accept(now) {
            crowding.refused(now);
        }
        crowding
    }

    #[test]
    fn only_so_many_are_refused_in_a_second() {
        let mut crowding = Crowding::new(QUEUE, at_milliseconds(0));
        let mut refused = 0;
        for milliseconds in 0..1_000 {
            while crowding.may_accept(at_milliseconds(milliseconds)) {
                crowding.refused(at_milliseconds(milliseconds));
                refused += 1;
            }
            let next = crowding.next_judgement(at_milliseconds(milliseconds)).expect("it comes");
            assert!(next > at_milliseconds(milliseconds));
        }
        assert!((2_000..2_100).contains(&refused), "{refused}");
    }

    #[test]
    fn clients_within_their_share_are_worth_any_number_of_refusals() {
        let mut crowding = tired(at_milliseconds(0));
        for _ in 0..WITHIN_SHARE_MIN {
            assert!(!crowding.may_accept(at_milliseconds(0)));
            crowding.came_within_share(at_milliseconds(0));
        }
        assert!(crowding.may_accept(at_milliseconds(0)));
    }

    #[test]
    fn they_count_for_one_or_two_seconds() {
        let mut crowding = tired(at_milliseconds(0));
        (0..WITHIN_SHARE_MIN).for_each(|_| crowding.came_within_share(at_milliseconds(0)));
        for (milliseconds, expected) in [(1_500, true), (2_600, false)] {
            crowding.judge(false, at_milliseconds(milliseconds));
            (0..2 * QUEUE).for_each(|_| crowding.refused(at_milliseconds(milliseconds)));
            assert_eq!(crowding.may_accept(at_milliseconds(milliseconds)), expected);
        }
    }

    #[test]
    fn who_is_in_the_long_queue_when_a_crowd_begins_is_refused_besides() {
        let now = at_milliseconds(0);
        let mut crowding = tired(now);
        assert_eq!(crowding.judge(false, now), Some(true));
        for _ in 0..QUEUE {
            assert!(crowding.may_accept(now));
            crowding.refused(now);
        }
        assert!(!crowding.may_accept(now));
    }

    #[test]
    fn queues_are_short_in_a_crowd_and_long_again_a_second_after_it() {
        let mut crowding = Crowding::new(QUEUE, at_milliseconds(0));
        assert_eq!(crowding.judge(false, at_milliseconds(0)), None);
        assert_eq!(crowding.judge(true, at_milliseconds(1)), Some(true));
        assert_eq!(crowding.judge(false, at_milliseconds(500)), None);
        assert_eq!(crowding.judge(true, at_milliseconds(900)), None);
        assert_eq!(crowding.judge(false, at_milliseconds(1_899)), None);
        let over = crowding.next_judgement(at_milliseconds(1_899));
        assert_eq!(over, Some(at_milliseconds(1_900)));
        assert_eq!(crowding.judge(false, at_milliseconds(1_900)), Some(false));
        assert!(!crowding.is_crowded());
        assert_eq!(crowding.next_judgement(at_milliseconds(1_900)), None);
        crowding.judge(false, at_milliseconds(4_000));
        assert!(crowding.at_ease);
    }
}
