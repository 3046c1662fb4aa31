//! What an engine tells the control thread: one small record an event, through a
//! bounded queue.
//!
//! The engine moves what it already holds into the record (no formatting, no
//! allocation, no lock); the control thread writes the log line. A full queue drops
//! the record and counts it: a log must never slow a connection down.
//!
//! May know: addresses, failure reasons. Must not know: logging, the control thread.

use std::net::SocketAddr;
use std::sync::Arc;

use arrayvec::ArrayString;
use crossbeam::queue::ArrayQueue;
use ipnet::IpNet;

use super::metrics::ShedCause;
use crate::driver::Errno;
use crate::handshake::{FailureReason, ServerFailureReason};
use crate::metrics::Counter;
use crate::tls::client_hello::Ja4;
use crate::tls::server_name::ServerName;

/// Records that one engine may have waiting. The control thread looks several times a
/// second, so this is thousands of failures a second before one goes unlogged.
pub const EVENTS_WAITING_MAX: usize = 1_024;

/// Something that deserves a line in the log.
#[derive(Debug)]
pub enum Event {
    /// A handshake did not succeed.
    HandshakeFailed(HandshakeFailed),
    /// A handshake with a server did not succeed.
    ServerHandshakeFailed(ServerHandshakeFailed),
    /// No backend of the pool could be connected, so the client was closed.
    NoBackend(NoBackend),
    /// Connections were shed.
    Shed(Shed),
}

/// A handshake that did not succeed.
#[derive(Debug)]
pub struct HandshakeFailed {
    /// The client.
    pub peer: SocketAddr,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The name the client asked for, if its ClientHello was read so far.
    pub server_name: Option<Box<str>>,
    /// Its fingerprint, if that is wanted and known.
    pub fingerprint: Option<Ja4>,
    /// The class of the failure.
    pub reason: FailureReason,
    /// The library's own words; empty if the reason says it all.
    pub detail: String,
}

/// A handshake with a server that did not succeed.
#[derive(Debug)]
pub struct ServerHandshakeFailed {
    /// The pool's name.
    pub pool: Arc<str>,
    /// What people call the server.
    pub backend: String,
    /// The class of the failure.
    pub reason: ServerFailureReason,
    /// The library's own words; empty if the reason says it all.
    pub detail: String,
    /// Whether another server can be: not when the session stood for us already, and bytes
    /// of the client may have been sent.
    pub next_is_tried: bool,
}

/// Every server of a pool was tried in vain.
#[derive(Debug)]
pub struct NoBackend {
    /// The client that was closed.
    pub peer: SocketAddr,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The pool's name.
    pub pool: Arc<str>,
    /// Connection attempts made for this client.
    pub attempts: usize,
    /// Why the last attempt failed; `None` if none was made.
    pub last_error: Option<Errno>,
    /// Why the handshake failed with a server that was connected.
    pub last_failure: Option<ServerFailureReason>,
}

/// Whose connections were shed.
// A name is as large as names can be, so that to count one allocates nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// It did not matter whose.
    Anybody,
    /// Those of a source, which had all that it may have.
    Source(IpNet),
    /// Those that asked for a name, or for none.
    ServerName(Option<ServerName>),
    /// Those for a pool, whose servers had all that they may have.
    Pool(PoolName),
}

/// A pool's name, as plain data.
type PoolName = ArrayString<POOL_NAME_BYTES_MAX>;

/// The longest name of a pool that is told whole: 64 characters in UTF-8.
const POOL_NAME_BYTES_MAX: usize = 256;

impl Whose {
    /// Those for the pool of this name.
    pub fn pool(name: &str) -> Self {
        Self::Pool(PoolName::from(name).unwrap_or_default())
    }
}

/// Connections that were shed since the engine last said so.
#[derive(Clone, Copy, Debug)]
pub struct Shed {
    /// Whose they were.
    pub whose: Whose,
    /// Why.
    pub cause: ShedCause,
    /// How many, at least.
    pub count: u64,
    /// The limit of the whole process that was reached, if there is a number to it.
    pub limit: Option<u32>,
}

/// Makes the two ends of one engine's event queue.
pub fn event_queue() -> (EventSink, EventSource) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(EVENTS_WAITING_MAX),
        dropped: Counter::default(),
    });
    (EventSink(Arc::clone(&shared)), EventSource(shared))
}

/// The engine's end. Not `Clone`: the drop counter has one writer.
#[derive(Debug)]
pub struct EventSink(Arc<Shared>);

impl EventSink {
    /// Hands in one event; drops and counts it if the queue is full.
    pub fn report(&self, event: Event) {
        if self.0.queue.push(event).is_err() {
            self.0.dropped.increment();
        }
    }

    /// Hands in an event that speaks for many: if the queue is full, the oldest one makes
    /// room for it, and is counted as dropped.
    pub fn report_surely(&self, event: Event) {
        if self.0.queue.force_push(event).is_some() {
            self.0.dropped.increment();
        }
    }
}

/// The control thread's end.
#[derive(Debug)]
pub struct EventSource(Arc<Shared>);

impl EventSource {
    /// The oldest event waiting.
    pub fn next(&self) -> Option<Event> {
        self.0.queue.pop()
    }

    /// Events that found the queue full since the start.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.value()
    }
}

#[derive(Debug)]
struct Shared {
    queue: ArrayQueue<Event>,
    dropped: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(port: u16) -> Event {
        Event::HandshakeFailed(HandshakeFailed {
            peer: SocketAddr::from(([192, 0, 2, 1], port)),
            listener: Arc::from("main"),
            server_name: None,
            fingerprint: None,
            reason: FailureReason::NotTls,
            detail: String::new(),
        })
    }

    #[test]
    fn events_come_out_in_the_order_they_went_in() {
        let (sink, source) = event_queue();
        sink.report(failure(1));
        sink.report(failure(2));
        for port in [1, 2] {
            let Some(Event::HandshakeFailed(failed)) = source.next() else { panic!("an event") };
            assert_eq!(failed.peer.port(), port);
        }
        assert!(source.next().is_none());
    }

    #[test]
    fn an_event_that_speaks_for_many_finds_room_in_a_full_queue() {
        let (sink, source) = event_queue();
        for port in 0..EVENTS_WAITING_MAX {
            sink.report(failure(port as u16));
        }
        let (cause, limit) = (ShedCause::NoCredit, None);
        sink.report_surely(Event::Shed(Shed { whose: Whose::Anybody, cause, count: 9, limit }));
        assert_eq!(source.dropped(), 1);
        let last = std::iter::from_fn(|| source.next()).last();
        assert!(matches!(last, Some(Event::Shed(Shed { count: 9, .. }))), "{last:?}");
    }

    #[test]
    fn a_full_queue_drops_the_newest_event_and_counts_it() {
        let (sink, source) = event_queue();
        for _ in 0..EVENTS_WAITING_MAX + 3 {
            sink.report(failure(1));
        }
        assert_eq!(source.dropped(), 3);
        let mut taken = 0;
        while source.next().is_some() {
            taken += 1;
        }
        assert_eq!(taken, EVENTS_WAITING_MAX);
    }
}
