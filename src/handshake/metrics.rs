//! What the handshake workers count. One writer each: the worker it belongs to.

use crate::metrics::{Counter, Histogram};

use super::CostClass;

/// The cells of one worker.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Steps run, by [`CostClass`] index.
    pub steps: [Counter; CostClass::ALL.len()],
    /// Tasks dropped because their deadline had passed, by class.
    pub shed_expired: [Counter; CostClass::ALL.len()],
    /// Tasks dropped because their client had gone, by class.
    pub shed_client_gone: [Counter; CostClass::ALL.len()],
    /// Times the worker took the newest task because the oldest had waited too long.
    pub newest_first: Counter,
    /// Time from submission to the start of the step.
    pub queue_wait: Histogram,
    /// Time the step took.
    pub step_time: Histogram,
}
