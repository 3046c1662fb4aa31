//! The families with one plain cell for each engine, worker or process: name, help,
//! cell. Counters get their `_total` from the encoder.

use super::control_cells::ControlCells;
use crate::engine::metrics::EngineMetrics;
use crate::handshake::metrics::WorkerMetrics;
use crate::metrics::{Counter, Gauge};

/// One family of plain cells in `Cells`.
type Family<Cells, Cell> = (&'static str, &'static str, fn(&Cells) -> &Cell);

pub(super) const CONTROL_COUNTERS: &[Family<ControlCells, Counter>] = &[
    ("reloads_succeeded", "Reloads that put a new configuration in force", |cells| {
        &cells.reloads_succeeded
    }),
    ("reloads_failed", "Reloads refused; the old configuration stayed in force", |cells| {
        &cells.reloads_failed
    }),
    ("events_dropped", "Events for the log that found their queue full", |cells| {
        &cells.events_dropped
    }),
    (
        "server_ejections",
        "Times a server was taken out because connections to it failed",
        |cells| &cells.server_ejections,
    ),
    (
        "server_checks_late",
        "Checks of servers that began a second late because so many were under way",
        |cells| &cells.checks_late,
    ),
    (
        "session_secret_changes",
        "Times a changed file of ticket secrets was put in force",
        |cells| &cells.session_secret_changes,
    ),
    ("session_ratchet_failures", "Failures to write a ratchet to its file", |cells| {
        &cells.session_ratchet_failures
    }),
];

pub(super) const CONTROL_GAUGES: &[Family<ControlCells, Gauge>] = &[
    ("configuration_generation", "Number of the configuration in force, from 1", |cells| {
        &cells.snapshot_generation
    }),
    (
        "configuration_loaded_timestamp_seconds",
        "When the configuration in force was loaded",
        |cells| &cells.snapshot_loaded_unix_seconds,
    ),
    (
        "last_reload_succeeded",
        "1 if the last reload succeeded or none was tried, 0 if it failed",
        |cells| &cells.last_reload_succeeded,
    ),
    ("draining", "1 while draining, else 0", |cells| &cells.draining),
    ("pools_out", "Pools none of whose servers takes connections", |cells| &cells.pools_out),
    ("session_epoch", "Number of the current ticket epoch, by this node's clock", |cells| {
        &cells.session_epoch
    }),
    ("session_secrets", "Ticket secrets in force", |cells| &cells.session_secrets),
    (
        "session_secrets_usable",
        "1 while every file of ticket secrets is in force as it is, 0 if one cannot be used",
        |cells| &cells.session_secrets_usable,
    ),
];

pub(super) const ENGINE_COUNTERS: &[Family<EngineMetrics, Counter>] = &[
    ("connections_accepted", "Connections accepted", |engine| &engine.accepted),
    (
        "proxy_headers_received",
        "PROXY protocol headers received from balancers in front",
        |engine| &engine.proxy_headers_received,
    ),
    (
        "proxy_header_certificates_left_out",
        "PROXY protocol headers sent without the client's certificate, for want of room",
        |engine| &engine.header_certificates_left_out,
    ),
    (
        "proxy_header_values_left_out",
        "PROXY protocol headers received with more values to pass on than there is room for",
        |engine| &engine.header_values_left_out,
    ),
    ("connections_passed_through", "Connections passed through, TLS and all", |engine| {
        &engine.passed_through
    }),
    (
        "client_certificates_verified",
        "Full handshakes of clients that showed a certificate",
        |engine| &engine.client_certificates[0],
    ),
    (
        "client_certificates_resumed",
        "Resumed handshakes of clients that once showed a certificate",
        |engine| &engine.client_certificates[1],
    ),
    ("accept_failures", "Accepts that failed, as at the descriptor limit", |engine| {
        &engine.accept_failures
    }),
    ("records_opened", "TLS records opened", |engine| &engine.records_opened),
    ("records_sealed", "TLS records sealed", |engine| &engine.records_sealed),
    ("truncations", "Clients that ended the stream without close_notify", |engine| {
        &engine.truncations
    }),
    ("upstream_connected", "Upstream connections made", |engine| &engine.upstream_connected),
    ("upstream_failed", "Upstream connection attempts that failed", |engine| {
        &engine.upstream_failed
    }),
    (
        "server_truncations",
        "Servers spoken TLS with that ended the stream without close_notify",
        |engine| &engine.server_truncations,
    ),
    ("server_queued", "Clients that waited for a place at a server of their pool", |engine| {
        &engine.server_queued
    }),
    ("buffers_exhausted", "Times a connection had to wait for a buffer", |engine| {
        &engine.buffers_exhausted
    }),
    ("completion_overflows", "Completion queue overflows: an alarm, expected to be 0", |engine| {
        &engine.completion_overflows
    }),
    ("engine_turns", "Turns of the engine's loop", |engine| &engine.turns),
    ("engine_completions", "Completions handled", |engine| &engine.completions),
];

pub(super) const ENGINE_GAUGES: &[Family<EngineMetrics, Gauge>] = &[
    ("connections", "Connections open now, in any state", |engine| &engine.connections),
    ("sources", "Sources that have connections now", |engine| &engine.sources),
    ("connections_established", "Connections relaying now", |engine| &engine.established),
    ("handshakes_in_progress", "Handshakes in progress now", |engine| {
        &engine.handshakes_in_progress
    }),
    ("crowded", "1 while far more clients come than can be served", |engine| &engine.crowded),
    ("upstream_connections", "Upstream connections open now", |engine| {
        &engine.upstream_connections
    }),
    ("server_queue", "Clients that wait for a place at a server now", |engine| {
        &engine.server_queue
    }),
    ("buffers_in_use", "Pool buffers in use now", |engine| &engine.buffers_in_use),
];

pub(super) const WORKER_COUNTERS: &[Family<WorkerMetrics, Counter>] = &[
    (
        "handshake_newest_first",
        "Times the newest step was taken because the oldest had waited too long",
        |worker| &worker.newest_first,
    ),
    ("session_tickets_offered", "Session tickets that clients offered", |worker| {
        &worker.tickets_offered
    }),
    ("session_tickets_accepted", "Session tickets that resumed a session", |worker| {
        &worker.tickets_accepted
    }),
    (
        "session_tickets_ahead",
        "Session tickets that opened and were issued over 2 s in the future",
        |worker| &worker.tickets_ahead,
    ),
];
