//! The log lines of what engines report: one structured line for each failed
//! handshake and each client without a backend, rate-limited. What was shed, `shed_log`
//! sums up.
//!
//! The limit protects the disk and the reader from a scanner. It is one for the whole
//! process, and one for each kind, so that a storm of failed handshakes does not hide a
//! dead pool. What was suppressed is counted into the next line (`suppressed=…`), or
//! into a summary when no next line comes.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use tracing::{info, warn};

use super::rate_limit::RateLimit;
use super::shed_log::ShedLog;
use crate::clock::Moment;
use crate::driver::Errno;
use crate::engine::events::{
    Event, EventSource, HandshakeFailed, NoBackend, ServerHandshakeFailed,
};
use crate::handshake::FailureReason;
use crate::tls::client_hello::Ja4;

/// Lines about clients without a backend that the process writes a second.
const NO_BACKEND_LINES_PER_SECOND: u32 = 10;

/// Lines about handshakes with servers that failed.
const SERVER_HANDSHAKE_LINES_PER_SECOND: u32 = 10;

/// How long a count of suppressed lines waits for a line to ride on.
const SUMMARY_AFTER: Duration = Duration::from_secs(10);

/// Reads the engines' events and writes their log lines.
#[derive(Debug)]
pub struct EventLog {
    sources: Vec<EventSource>,
    /// Drops of each source that were already told.
    dropped_told: Vec<u64>,
    handshakes: Kind,
    backends: Kind,
    servers: Kind,
    shed: ShedLog,
}

#[derive(Debug)]
struct Kind {
    limit: RateLimit,
    last_line: Moment,
}

impl EventLog {
    /// A log of these engines' events, with at most `failures_per_second` lines about
    /// failed handshakes; 0 writes none.
    pub fn new(sources: Vec<EventSource>, failures_per_second: u32, now: Moment) -> Self {
        let kind = |per_second| Kind { limit: RateLimit::new(per_second, now), last_line: now };
        Self {
            dropped_told: vec![0; sources.len()],
            sources,
            handshakes: kind(failures_per_second),
            backends: kind(NO_BACKEND_LINES_PER_SECOND),
            servers: kind(SERVER_HANDSHAKE_LINES_PER_SECOND),
            shed: ShedLog::default(),
        }
    }

    /// Takes what is waiting and writes what the limit allows.
    pub fn drain(&mut self, now: Moment) {
        for (source, told) in self.sources.iter().zip(&mut self.dropped_told) {
            let dropped = source.dropped();
            // A full queue is nearly always full of failed handshakes.
            self.handshakes.limit.add_suppressed(dropped - *told);
            *told = dropped;
            // Bounded by the queue's length even while the engine goes on reporting.
            for _ in 0..crate::engine::events::EVENTS_WAITING_MAX {
                match source.next() {
                    Some(Event::HandshakeFailed(failed)) => {
                        if let Some(suppressed) = self.handshakes.admit(now) {
                            log_handshake_failed(&failed, suppressed);
                        }
                    }
                    Some(Event::NoBackend(event)) => {
                        if let Some(suppressed) = self.backends.admit(now) {
                            log_no_backend(&event, suppressed);
                        }
                    }
                    Some(Event::ServerHandshakeFailed(failed)) => {
                        if let Some(suppressed) = self.servers.admit(now) {
                            log_server_handshake_failed(&failed, suppressed);
                        }
                    }
                    Some(Event::Shed(shed)) => self.shed.add(shed),
                    None => break,
                }
            }
        }
        self.shed.tell(now);
        if let Some(suppressed) = self.handshakes.summary(now) {
            info!(suppressed, "more handshakes failed than are logged one by one");
        }
        if let Some(suppressed) = self.servers.summary(now) {
            warn!(suppressed, "more handshakes with servers failed than are logged one by one");
        }
        if let Some(suppressed) = self.backends.summary(now) {
            warn!(suppressed, "more clients found no backend than are logged one by one");
        }
    }

    /// Events that found an engine's queue full, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped_told.iter().sum()
    }
}

impl Kind {
    fn admit(&mut self, now: Moment) -> Option<u64> {
        let suppressed = self.limit.admit(now)?;
        self.last_line = now;
        Some(suppressed)
    }

    /// What is still untold a while after the last line.
    fn summary(&mut self, now: Moment) -> Option<u64> {
        if self.limit.suppressed() == 0 || now.since(self.last_line) < SUMMARY_AFTER {
            return None;
        }
        self.admit(now)
    }
}

fn log_handshake_failed(failed: &HandshakeFailed, suppressed: u64) {
    // Strings from the client are recorded as `&str` values: the subscriber quotes
    // and escapes those, so a hostile name cannot forge a line.
    let HandshakeFailed { peer, listener, server_name, fingerprint, reason, detail } = failed;
    let server_name = server_name.as_deref().unwrap_or_default();
    // Only in lines of those of whom it is known.
    let ja4 = fingerprint.as_ref().map(Ja4::as_str);
    let peer = as_the_client_knows_it(*peer);
    if *reason == FailureReason::Internal {
        warn!(
            %peer, listener = &**listener, server_name, ja4, reason = reason.label(),
            detail = detail.as_str(), suppressed,
            "handshake failed on our side"
        );
    } else {
        info!(
            %peer, listener = &**listener, server_name, ja4, reason = reason.label(),
            detail = detail.as_str(), suppressed,
            "handshake failed"
        );
    }
}

fn log_no_backend(event: &NoBackend, suppressed: u64) {
    let NoBackend { peer, listener, pool, attempts, last_error, last_failure } = event;
    let peer = as_the_client_knows_it(*peer);
    let last_error = match (last_error, last_failure) {
        (Some(error), _) => explained(*error),
        (None, Some(reason)) => format!("TLS with it failed: {}", reason.label()),
        (None, None) => "no attempt was made".to_owned(),
    };
    warn!(
        %peer, listener = &**listener, pool = &**pool, attempts, last_error, suppressed,
        "no backend could be connected: the client was closed"
    );
}

/// The kernel's words, and what they mean where those are of little help.
fn explained(error: Errno) -> String {
    let meaning = match error.0 {
        libc::EADDRNOTAVAIL => ": no port is left towards the server, or `bind` is not here",
        libc::EAFNOSUPPORT => ": client and server have addresses of different families",
        libc::EPERM => ": `transparent` needs CAP_NET_ADMIN",
        _ => "",
    };
    format!("{error}{meaning}")
}

fn log_server_handshake_failed(failed: &ServerHandshakeFailed, suppressed: u64) {
    let ServerHandshakeFailed { pool, backend, reason, detail, next_is_tried } = failed;
    let outcome = match next_is_tried {
        true => "the next one is tried",
        false => "it did so after ours, and the client was reset",
    };
    warn!(
        pool = &**pool,
        backend = backend.as_str(),
        reason = reason.label(),
        detail = detail.as_str(),
        suppressed,
        "handshake with a server failed: {outcome}"
    );
}

/// IPv4 clients of a dual-stack listener have mapped addresses, which nobody greps for.
fn as_the_client_knows_it(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::logging::captured;
    use crate::engine::events::{EVENTS_WAITING_MAX, EventSink, event_queue};

    fn fail(sink: &EventSink, server_name: &str, reason: FailureReason) {
        sink.report(Event::HandshakeFailed(HandshakeFailed {
            peer: "192.0.2.7:4711".parse().expect("an address"),
            listener: Arc::from("main"),
            server_name: Some(server_name.into()),
            fingerprint: None,
            reason,
            detail: "peer is incompatible".to_owned(),
        }));
    }

    const PER_SECOND: u32 = 20;

    fn log_of(source: EventSource) -> EventLog {
        EventLog::new(vec![source], PER_SECOND, at_seconds(0))
    }

    fn at_seconds(seconds: u64) -> Moment {
        Moment::from_nanoseconds(seconds * 1_000_000_000)
    }

    #[test]
    fn a_failed_handshake_is_one_line_with_every_field() {
        let (sink, source) = event_queue();
        fail(&sink, "shop.example", FailureReason::NoSharedVersion);
        let mut log = log_of(source);
        let text = captured(|| log.drain(at_seconds(0)));
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in [
            "INFO",
            "handshake failed",
            "peer=192.0.2.7:4711",
            "listener=\"main\"",
            "server_name=\"shop.example\"",
            "reason=\"no_shared_version\"",
            "detail=\"peer is incompatible\"",
            "suppressed=0",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_failure_on_our_side_is_a_warning() {
        let (sink, source) = event_queue();
        fail(&sink, "shop.example", FailureReason::Internal);
        let mut log = log_of(source);
        let text = captured(|| log.drain(at_seconds(0)));
        assert!(text.contains("WARN"), "{text}");
    }

    #[test]
    fn a_hostile_server_name_cannot_forge_a_line() {
        let (sink, source) = event_queue();
        fail(&sink, "x\n2026-01-01 ERROR forged \u{1b}[31m", FailureReason::Protocol);
        let mut log = log_of(source);
        let text = captured(|| log.drain(at_seconds(0)));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn lines_beyond_the_rate_are_counted_into_the_next_one() {
        let (sink, source) = event_queue();
        let mut log = log_of(source);
        for _ in 0..PER_SECOND + 30 {
            fail(&sink, "a.example", FailureReason::ClientGone);
        }
        let text = captured(|| log.drain(at_seconds(0)));
        assert_eq!(text.lines().count(), PER_SECOND as usize);
        fail(&sink, "b.example", FailureReason::ClientGone);
        let text = captured(|| log.drain(at_seconds(1)));
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("suppressed=30"), "{text}");
    }

    #[test]
    fn a_count_that_finds_no_line_to_ride_on_gets_a_summary() {
        let (sink, source) = event_queue();
        let mut log = log_of(source);
        for _ in 0..PER_SECOND + 5 {
            fail(&sink, "a.example", FailureReason::ClientGone);
        }
        captured(|| log.drain(at_seconds(0)));
        assert_eq!(captured(|| log.drain(at_seconds(9))), "");
        let text = captured(|| log.drain(at_seconds(10)));
        assert!(text.contains("suppressed=5"), "{text}");
        assert_eq!(captured(|| log.drain(at_seconds(30))), "", "told once");
    }

    #[test]
    fn what_a_full_queue_dropped_is_reported_and_counted() {
        let (sink, source) = event_queue();
        let mut log = log_of(source);
        for _ in 0..EVENTS_WAITING_MAX + 11 {
            fail(&sink, "a.example", FailureReason::ClientGone);
        }
        let text = captured(|| log.drain(at_seconds(0)));
        let first = text.lines().next().expect("a line");
        assert!(first.contains("suppressed=11"), "{first}");
        assert_eq!(log.dropped(), 11);
    }

    #[test]
    fn a_rate_of_zero_writes_nothing_about_handshakes() {
        let (sink, source) = event_queue();
        let mut log = EventLog::new(vec![source], 0, at_seconds(0));
        fail(&sink, "a.example", FailureReason::ClientGone);
        assert_eq!(captured(|| log.drain(at_seconds(0))), "");
        assert_eq!(captured(|| log.drain(at_seconds(60))), "");
    }

    #[test]
    fn a_storm_of_failed_handshakes_does_not_hide_a_dead_pool() {
        let (sink, source) = event_queue();
        for _ in 0..200 {
            fail(&sink, "a.example", FailureReason::NotTls);
        }
        sink.report(Event::NoBackend(NoBackend {
            peer: "[::ffff:198.51.100.7]:99".parse().expect("an address"),
            listener: Arc::from("main"),
            pool: Arc::from("web"),
            attempts: 3,
            last_error: Some(Errno(111)),
            last_failure: None,
        }));
        let mut log = log_of(source);
        let text = captured(|| log.drain(at_seconds(0)));
        let line = text.lines().find(|line| line.contains("no backend")).expect("the line");
        for part in
            ["WARN", "pool=\"web\"", "attempts=3", "Connection refused", "peer=198.51.100.7:99"]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}
