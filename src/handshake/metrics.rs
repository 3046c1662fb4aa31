//! What those who run handshake steps count. One writer each: the worker that the
//! cells belong to, or the engine that runs its steps inline.

use std::time::Duration;

use super::fingerprints::Fingerprints;
use super::{CostClass, ShedReason, Task};
use crate::metrics::{Counter, Histogram};
use crate::tls::tickets::uses::{self, Refused};

/// The cells of one worker.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Steps run, by [`CostClass`] index.
    pub steps: [Counter; CostClass::ALL.len()],
    /// Tasks dropped because the queue of their class was full, by class.
    pub shed_queue_full: [Counter; CostClass::ALL.len()],
    /// Tasks dropped because their deadline had passed, by class.
    pub shed_expired: [Counter; CostClass::ALL.len()],
    /// Tasks dropped because their client had gone, by class.
    pub shed_client_gone: [Counter; CostClass::ALL.len()],
    /// Times the worker took the newest task because the oldest had waited too long.
    pub newest_first: Counter,
    /// Session tickets that clients offered.
    pub tickets_offered: Counter,
    /// Tickets that resumed a session.
    pub tickets_accepted: Counter,
    /// Tickets accepted that were issued in what is the future here.
    pub tickets_ahead: Counter,
    /// Tickets that did not resume one, by [`Refused`] index.
    pub tickets_refused: [Counter; Refused::ALL.len()],
    /// Time from submission to the start of the step.
    pub queue_wait: Histogram,
    /// Time the step took.
    pub step_time: Histogram,
    /// Clients whose first step was run, by fingerprint, if that is wanted.
    pub fingerprints: Fingerprints,
}

impl WorkerMetrics {
    /// Counts a step that was run, on the thread that ran it.
    pub(super) fn ran(&self, class: CostClass, queue_wait: Duration, work: Duration) {
        self.steps[class as usize].increment();
        self.queue_wait.record(queue_wait);
        self.step_time.record(work);
        let tickets = uses::take();
        if tickets.offered() == 0 {
            return;
        }
        self.tickets_offered.add(tickets.offered().into());
        self.tickets_accepted.add(tickets.opened.into());
        self.tickets_ahead.add(tickets.ahead.into());
        for (cell, refused) in self.tickets_refused.iter().zip(tickets.refused) {
            cell.add(refused.into());
        }
    }

    /// Counts the client of `task`, whose first step was run.
    pub(super) fn met(&self, task: &Task) {
        if let Some(fingerprint) = &task.fingerprint {
            self.fingerprints.count(fingerprint);
        }
    }

    /// Counts a task that was dropped.
    pub(super) fn shed(&self, class: CostClass, reason: ShedReason) {
        let cells = match reason {
            ShedReason::QueueFull => &self.shed_queue_full,
            ShedReason::Expired => &self.shed_expired,
            ShedReason::ClientGone => &self.shed_client_gone,
            // The end of the process, which nobody scrapes any more.
            ShedReason::Stopping => return,
        };
        cells[class as usize].increment();
    }
}
