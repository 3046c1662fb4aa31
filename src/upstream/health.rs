//! Active checks of one server, without the sockets: when the next is due, and what their
//! results come to.
//!
//! ```text
//!   passes ──`fall` failures in a row──▶ fails ──`rise` successes in a row──▶ passes
//! ```
//!
//! Sans-I/O: moments and results come in, transitions go out. May know: what a check is.
//! Must not know: sockets, clocks, pools, statuses.
#![forbid(unsafe_code)]

use std::hash::{Hash, Hasher};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::exchange::Script;
use crate::clock::Moment;
use crate::random::SplitMix64;

/// How the servers of a pool are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// From the start of one check to that of the next.
    pub interval: Duration,
    /// How long a check may take, connecting included.
    pub timeout: Duration,
    /// Successes in a row that bring a server back.
    pub rise: u32,
    /// Failures in a row that take it out.
    pub fall: u32,
    /// Hundredths of the interval that it is longer or shorter by, at most.
    pub jitter_percent: u8,
    /// The TCP port that is checked, if it is not the server's own.
    pub port: Option<u16>,
    /// What is said on the connection.
    pub script: Script,
    /// The TCP port of an agent of HAProxy's kind on the same address.
    pub agent_port: Option<u16>,
}

impl Default for Check {
    /// A connection every two seconds.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            jitter_percent: 10,
            port: None,
            script: Script::default(),
            agent_port: None,
        }
    }
}

/// What the results of a server's checks come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    fails: bool,
    /// Results in a row that speak against `fails` as it is.
    contrary: u32,
}

/// A change that results have led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The server passes its checks now.
    Passes,
    /// It fails them now.
    Fails,
}

impl Health {
    /// Takes one result in.
    pub fn note(&mut self, passed: bool, check: &Check) -> Option<Transition> {
        if passed != self.fails {
            self.contrary = 0;
            return None;
        }
        self.contrary += 1;
        let needed = if self.fails { check.rise } else { check.fall };
        if self.contrary < needed {
            return None;
        }
        self.fails = !self.fails;
        self.contrary = 0;
        Some(if self.fails { Transition::Fails } else { Transition::Passes })
    }
}

/// When a server is checked. Everything follows from who checks whom, so that neither the
/// nodes of a tier nor the servers of a pool fall into step, not even after a restart of all.
#[derive(Clone, Debug)]
pub struct Rhythm(SplitMix64);

impl Rhythm {
    /// That in which the node `node` checks what `server` tells from others.
    pub fn new(node: &str, server: impl Hash) -> Self {
        // Keyed with zeros: the same in every build.
        let mut hasher = SipHasher13::new();
        node.hash(&mut hasher);
        server.hash(&mut hasher);
        Self(SplitMix64::new(hasher.finish()))
    }

    /// When the first check is due: within one interval.
    pub fn first(&mut self, now: Moment, check: &Check) -> Moment {
        now.after(self.part_of(check.interval))
    }

    /// When the next one is due, after one that began at `began` and ended at `now`.
    pub fn next(&mut self, began: Moment, now: Moment, check: &Check) -> Moment {
        let spread = check.interval * u32::from(check.jitter_percent) / 100;
        let wait = (check.interval + self.part_of(2 * spread)).saturating_sub(spread);
        began.after(wait).max(now)
    }

    fn part_of(&mut self, whole: Duration) -> Duration {
        let nanoseconds = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.0.below(nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(rise: u32, fall: u32) -> Check {
        Check { rise, fall, ..Check::default() }
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::from_nanoseconds(milliseconds * 1_000_000)
    }

    #[test]
    fn failures_in_a_row_take_a_server_out_and_successes_in_a_row_bring_it_back() {
        let (mut health, check) = (Health::default(), check(2, 3));
        let mut note = |passed| health.note(passed, &check);
        assert_eq!([note(false), note(false), note(true)], [None; 3], "not in a row");
        assert_eq!([note(false), note(false)], [None; 2]);
        assert_eq!(note(false), Some(Transition::Fails));
        assert_eq!([note(true), note(false), note(true)], [None; 3]);
        assert_eq!(note(true), Some(Transition::Passes));
    }

    #[test]
    fn nodes_and_servers_check_at_times_of_their_own_and_the_same_ones_after_a_restart() {
        let first = |node: &str, server: &str| {
            Rhythm::new(node, ("web", server)).first(at(0), &check(1, 1))
        };
        assert_eq!(first("a", "10.0.0.1:80"), first("a", "10.0.0.1:80"));
        assert_ne!(first("a", "10.0.0.1:80"), first("b", "10.0.0.1:80"));
        assert_ne!(first("a", "10.0.0.1:80"), first("a", "10.0.0.2:80"));
    }

    #[test]
    fn the_first_checks_of_many_servers_are_spread_over_the_interval() {
        let mut tenths = [0; 10];
        for server in 0..1_000 {
            let first = Rhythm::new("node", server).first(at(0), &check(1, 1));
            tenths[(first.since(at(0)).as_millis() / 200) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (60..140).contains(count)), "{tenths:?}");
    }

    #[test]
    fn a_check_that_took_longer_than_the_interval_is_followed_at_once() {
        let mut rhythm = Rhythm::new("node", 1);
        assert_eq!(rhythm.next(at(0), at(5_000), &check(1, 1)), at(5_000));
    }

    #[test]
    fn intervals_are_spread_over_all_of_the_jitter() {
        let check = Check { jitter_percent: 10, ..check(1, 1) };
        let mut rhythm = Rhythm::new("node", 1);
        let mut waits: Vec<_> =
            (0..1_000).map(|_| rhythm.next(at(0), at(0), &check).since(at(0))).collect();
        waits.sort_unstable();
        let tenth = |place: usize| waits[place * 100].as_millis();
        assert!(tenth(1) < 1_860 && tenth(9) > 2_140, "{} to {} ms", tenth(1), tenth(9));
        assert!((1_960..2_040).contains(&tenth(5)), "{} ms", tenth(5));
    }

    proptest! {
        #[test]
        fn the_next_check_is_due_within_the_jitter(
            server: u64, jitter_percent in 0_u8..=50, began in 0_u64..1_000_000,
        ) {
            let check = Check { jitter_percent, ..check(1, 1) };
            let due = Rhythm::new("node", server).next(at(began), at(began), &check);
            let wait = due.since(at(began)).as_millis() as i64;
            let spread = i64::from(jitter_percent) * 20;
            prop_assert!((2_000 - spread..=2_000 + spread).contains(&wait), "{}", wait);
        }

        #[test]
        fn a_transition_comes_of_the_results_before_it_and_no_other(
            results in prop::collection::vec(any::<bool>(), 0..200), rise in 1_u32..5, fall in 1_u32..5,
        ) {
            let (mut health, check) = (Health::default(), check(rise, fall));
            let mut fails = false;
            for (place, passed) in results.iter().enumerate() {
                let transition = health.note(*passed, &check);
                let needed = if fails { rise } else { fall } as usize;
                let last = &results[(place + 1).saturating_sub(needed)..=place];
                // As many in a row, none of which was needed for the transition before.
                match transition {
                    Some(Transition::Fails) => prop_assert!(!fails && last.iter().all(|one| !one)),
                    Some(Transition::Passes) => prop_assert!(fails && last.iter().all(|one| *one)),
                    None => {}
                }
                if transition.is_some() {
                    prop_assert_eq!(last.len(), needed);
                    fails = !fails;
                } else if last.len() == needed {
                    prop_assert!(last.iter().any(|one| *one != fails), "a transition is overdue");
                }
            }
        }
    }
}
