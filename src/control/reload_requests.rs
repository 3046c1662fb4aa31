//! Reloads that somebody asked for at the admin address, and what became of them.
//!
//! ```text
//!   admin thread ── ask ──▶ Asked ── take, control thread ──▶ UnderWay ── answer ──▶ outcome
//!                   409 while somebody else waits                    │
//!   admin thread ◀──────────────── outcome(number) ──────────────────┘
//! ```
//!
//! At most one at a time: who asks meanwhile is told so. Who asked and left costs nothing:
//! his outcome stays until the next one takes its place.
//!
//! Must not know: HTTP, what a reload is.

#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Findings that are handed over; the log has all of them.
pub const FINDINGS_MAX: usize = 1_000;

/// What became of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadOutcome {
    /// Whether a new configuration is in force.
    pub succeeded: bool,
    /// The number of the configuration in force now.
    pub generation: u64,
    /// Everything found wrong, a line each; warnings too. At most [`FINDINGS_MAX`].
    pub findings: Vec<String>,
}

/// The place where admin and control thread meet.
#[derive(Debug, Default)]
pub struct ReloadRequests(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The number of the request that was made last.
    asked: u64,
    phase: Phase,
}

#[derive(Debug, Default)]
enum Phase {
    /// Nobody has asked, or what he asked for is done.
    #[default]
    Idle,
    Asked,
    UnderWay,
    Done(ReloadOutcome),
}

impl ReloadRequests {
    /// Asks for a reload; returns its number, or `None` while another one is not done.
    pub fn ask(&self) -> Option<u64> {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Asked | Phase::UnderWay) {
            return None;
        }
        state.asked += 1;
        state.phase = Phase::Asked;
        Some(state.asked)
    }

    /// Whether somebody asks; he is then waiting for [`ReloadRequests::answer`].
    pub fn take(&self) -> bool {
        let mut state = self.lock();
        let asked = matches!(state.phase, Phase::Asked);
        if asked {
            state.phase = Phase::UnderWay;
        }
        asked
    }

    /// Tells who asked, if anybody did.
    pub fn answer(&self, mut outcome: ReloadOutcome) {
        let more = outcome.findings.len().saturating_sub(FINDINGS_MAX);
        if more > 0 {
            outcome.findings.truncate(FINDINGS_MAX);
            outcome.findings.push(format!("and {more} more findings, which the log has"));
        }
        let mut state = self.lock();
        if matches!(state.phase, Phase::UnderWay) {
            state.phase = Phase::Done(outcome);
        }
    }

    /// What became of the request with this number; `None` while it is not done.
    pub fn outcome(&self, number: u64) -> Option<ReloadOutcome> {
        match &*self.lock() {
            State { asked, phase: Phase::Done(outcome) } if *asked == number => {
                Some(outcome.clone())
            }
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(generation: u64, findings: usize) -> ReloadOutcome {
        let findings = (0..findings).map(|number| number.to_string()).collect();
        ReloadOutcome { succeeded: true, generation, findings }
    }

    #[test]
    fn who_asks_gets_the_outcome_and_who_asks_meanwhile_does_not() {
        let requests = ReloadRequests::default();
        assert!(!requests.take(), "nobody has asked");
        let number = requests.ask().expect("the first");
        assert_eq!(requests.ask(), None);
        assert!(requests.take());
        assert!(!requests.take(), "told once");
        assert_eq!((requests.ask(), requests.outcome(number)), (None, None));
        requests.answer(outcome(2, 1));
        assert_eq!(requests.outcome(number), Some(outcome(2, 1)));
        let next = requests.ask().expect("the second");
        assert_eq!(requests.outcome(next), None, "the old outcome is not the new one's");
    }

    #[test]
    fn a_reload_by_signal_answers_nobody() {
        let requests = ReloadRequests::default();
        requests.answer(outcome(2, 0));
        let number = requests.ask().expect("asks");
        // A signal's reload ends before this one is taken.
        requests.answer(outcome(3, 0));
        assert_eq!(requests.outcome(number), None);
    }

    #[test]
    fn findings_beyond_the_bound_are_counted() {
        let requests = ReloadRequests::default();
        let number = requests.ask().expect("asks");
        assert!(requests.take());
        requests.answer(outcome(2, FINDINGS_MAX + 7));
        let findings = requests.outcome(number).expect("done").findings;
        assert_eq!(findings.len(), FINDINGS_MAX + 1);
        assert_eq!(findings[FINDINGS_MAX], "and 7 more findings, which the log has");
    }
}
