//! What the control thread counts. One writer for each cell: the control thread, or who is
//! named there.

use crate::metrics::{Counter, Gauge};

/// The cells of the control thread.
#[derive(Debug, Default)]
pub struct ControlCells {
    /// Number of the configuration in force; the one of the start is 1.
    pub snapshot_generation: Gauge,
    /// When the configuration in force was loaded, in seconds since 1970-01-01 UTC.
    pub snapshot_loaded_unix_seconds: Gauge,
    /// Reloads that put a new configuration in force.
    pub reloads_succeeded: Counter,
    /// Reloads refused because of their findings; the old configuration stayed.
    pub reloads_failed: Counter,
    /// 1 if the last reload succeeded or none was tried, 0 if it failed.
    pub last_reload_succeeded: Gauge,
    /// 1 while draining, else 0.
    pub draining: Gauge,
    /// Engine events that found their queue full.
    pub events_dropped: Counter,
    /// Times a server was taken out because connections to it failed.
    pub server_ejections: Counter,
    /// Pools none of whose servers takes connections.
    pub pools_out: Gauge,
    /// Checks that began a second late or more. Written by the prober, not the control thread.
    pub checks_late: Counter,
    /// The number of the current ticket epoch, by this node's clock.
    pub session_epoch: Gauge,
    /// Ticket secrets in force.
    pub session_secrets: Gauge,
    /// 1 while every file of secrets is in force as it is, 0 if one cannot be used.
    pub session_secrets_usable: Gauge,
    /// Times a changed file of secrets was put in force.
    pub session_secret_changes: Counter,
    /// Failures to write a ratchet to its file.
    pub session_ratchet_failures: Counter,
}
