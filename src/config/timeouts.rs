//! `[timeouts]`: how long each phase of a connection may take.

use std::time::Duration;

use super::item::Section;
use super::report::Report;

/// `[timeouts]`. All but `first_data_wait` and `drain_notice` take `"10ms"` to `"7d"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeoutSettings {
    /// `client_hello`, default `"5s"`: from accept to the last byte of the ClientHello.
    /// Ends clients that connect and say nothing, or little at a time.
    pub client_hello: Duration,
    /// `handshake`, default `"10s"`: from the ClientHello to the end of the handshake, time
    /// in queues included.
    pub handshake: Duration,
    /// `connect`, default `"3s"`: for each attempt to connect to a backend; then the next
    /// one is tried.
    pub connect: Duration,
    /// `queue`, default `"5s"`: for a place at a backend, when every one of the pool has
    /// as many connections as it may have; then the client is closed.
    pub queue: Duration,
    /// `idle`, default `"5m"`: without a byte in either direction. Long-lived quiet
    /// connections (WebSocket, gRPC streams) need their pings to be more frequent.
    pub idle: Duration,
    /// `half_closed`, default `"10s"`: without a byte, after one side has finished and
    /// the other has not.
    pub half_closed: Duration,
    /// `drain`, default `"30s"`: after the signal to stop, for connections to end by
    /// themselves; then they are cut.
    pub drain: Duration,
    /// `drain_notice`, `"0s"` to `"1h"`, default `"0s"`: after the signal to stop, how long
    /// new clients are still served while `/health` says `draining`, so that whoever sends
    /// them here can learn of it first. `drain` begins after it.
    pub drain_notice: Duration,
    /// `first_data_wait`, `"0ms"` to `"1s"`, default `"3ms"`: how long the PROXY protocol
    /// header is held back for the client's first bytes, and a TLS 1.3 client's session
    /// ticket for the server's, so that both leave in one send. `"0ms"`: they leave at
    /// once. It delays the first byte only where the server speaks first.
    pub first_data_wait: Duration,
}

impl Default for TimeoutSettings {
    fn default() -> Self {
        Self {
            client_hello: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            connect: Duration::from_secs(3),
            queue: Duration::from_secs(5),
            idle: Duration::from_secs(5 * 60),
            half_closed: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            drain_notice: Duration::ZERO,
            first_data_wait: Duration::from_millis(3),
        }
    }
}

pub(super) const KEYS: &[&str] = &[
    "client_hello",
    "handshake",
    "connect",
    "queue",
    "idle",
    "half_closed",
    "drain",
    "drain_notice",
    "first_data_wait",
];

pub(super) fn read(report: &mut Report<'_>, root: &Section<'_>) -> TimeoutSettings {
    let section = &root.section(report, "timeouts", KEYS);
    const LEAST: Duration = Duration::from_millis(10);
    const MOST: Duration = Duration::from_secs(7 * 86_400);
    let default = TimeoutSettings::default();
    let mut timeout = |key, default| {
        section.value(report, key, default, |item, report| item.duration(report, LEAST..=MOST))
    };
    TimeoutSettings {
        client_hello: timeout("client_hello", default.client_hello),
        handshake: timeout("handshake", default.handshake),
        connect: timeout("connect", default.connect),
        queue: timeout("queue", default.queue),
        idle: timeout("idle", default.idle),
        half_closed: timeout("half_closed", default.half_closed),
        drain: timeout("drain", default.drain),
        drain_notice: section.value(
            report,
            "drain_notice",
            default.drain_notice,
            |item, report| item.duration(report, Duration::ZERO..=Duration::from_secs(3600)),
        ),
        first_data_wait: section.value(
            report,
            "first_data_wait",
            default.first_data_wait,
            |item, report| item.duration(report, Duration::ZERO..=Duration::from_secs(1)),
        ),
    }
}
