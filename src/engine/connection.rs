//! One connection's state: plain data, no behaviour beyond asking about itself.
//!
//! ```text
//!   ClientHello ─▶ (Parked ─▶) Handshaking ─▶ Connecting ─▶ Relaying ─▶ Ending
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;

use super::metrics::EndReason;
use super::server_tls::ServerTls;
use super::snapshot::Epoch;
use super::sources::Source;
use crate::clock::Moment;
use crate::driver::{Buffer, Driver, Errno, Readiness, Socket};
use crate::handshake::{Established, Task};
use crate::proxy_protocol::passed_on::PassedOn;
use crate::tls::client_hello::Ja4;
use crate::tls::record::RecordSizer;
use crate::upstream::maglev::Client;
use crate::upstream::pool::Tried;
use crate::upstream::status::ServerCounts;

/// The classes of timeout; a connection has at most one armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum TimerClass {
    /// The ClientHello is incomplete.
    ClientHello,
    /// The ClientHello is complete but no credit is free.
    Parked,
    /// The ClientHello is complete, but others have not had their share of the workers.
    Deferred,
    /// The handshake is in progress.
    Handshake,
    /// Every server of the pool is full, and it waits for a place.
    ServerQueue,
    /// The upstream connection is being made, its handshake included.
    Connect,
    /// The PROXY header, or the client's session ticket, waits for the first data to leave
    /// with it.
    FirstData,
    /// Relaying in both directions.
    Idle,
    /// Relaying in one direction; the other has ended.
    HalfClosed,
    /// Operations were cancelled and have not all completed.
    Ending,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// The slot is free.
    #[default]
    Free,
    /// Collecting the ClientHello in `inbound.buffer`.
    ClientHello,
    /// The ClientHello is complete and waits for a credit, or until others have had their
    /// share of the workers (`TimerClass::Deferred`).
    Parked,
    /// A credit is held: by the connection (`task`) or by a worker (`at_worker`).
    Handshaking,
    /// The session is established, the upstream connection is being made, its handshake
    /// included, or is to be once a server has a place (`TimerClass::ServerQueue`).
    Connecting,
    /// Both connections stand.
    Relaying,
    /// Operations in flight are being brought to their end.
    Ending,
}

/// What the send in flight to the client is. One at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ClientWrite {
    /// None is in flight.
    #[default]
    None,
    /// Part of a handshake flight.
    Flight,
    /// A control record: KeyUpdate or warning alert.
    Control,
    /// close_notify: the write side is shut down after it.
    CloseNotify,
    /// The last alert: the connection ends after it.
    LastAlert,
    /// Relayed data.
    Data,
}

/// What the send in flight to the upstream server is. One at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum UpstreamWrite {
    /// None is in flight.
    #[default]
    None,
    /// The PROXY header alone.
    Header,
    /// Part of a flight of the handshake with it, with the PROXY header in front of the
    /// first.
    Flight,
    /// Data, with the PROXY header in front if it was due.
    Data,
    /// close_notify: the write side is shut down after it.
    CloseNotify,
    /// The last alert: the connection ends after it.
    LastAlert,
}

/// Client to upstream server: ciphertext in, plaintext out, in one buffer.
///
/// ```text
///   buffer | headroom | opened plaintext | rest: part of a record | free |
///                       ^ plain            ^ cipher
/// ```
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// A receive on the client's socket is in flight.
    pub receiving: bool,
    /// It brings a pool buffer of its own, rather than filling one given to it.
    pub receiving_fresh: bool,
    /// The buffer, while it is not with an operation.
    pub buffer: Option<Buffer>,
    /// Plaintext ready to send, in the buffer; empty if none.
    pub plain: Range<usize>,
    /// Ciphertext not opened yet, in the buffer (also while a receive continues it).
    pub cipher: Range<usize>,
    /// What of the buffer the send in flight sends.
    pub sending: Range<usize>,
    /// The last send took only a part of what it was given.
    pub cut_short: bool,
    /// Bytes that the record at the start of `cipher` needs in all.
    pub record_bytes: usize,
    /// The client will send no more: close_notify or the end of the stream was seen.
    pub ended: bool,
    /// The end was carried to the upstream server.
    pub finished: bool,
    /// What comes is thrown away: the upstream server takes no more.
    pub discarding: bool,
    /// Whether the socket is likely to have data now.
    pub readiness: Option<Readiness>,
    /// The last receive filled its buffer and there was more: a large one would be used.
    pub bulk: bool,
}

/// Upstream server to client: plaintext in, sealed in place, ciphertext out.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// A receive on the upstream socket is in flight.
    pub receiving: bool,
    /// It brings a pool buffer of its own, rather than filling one given to it.
    pub receiving_fresh: bool,
    /// Plaintext that waits for the client's send side, at the headroom's end.
    pub buffer: Option<Buffer>,
    /// A session ticket, sealed, at the start of a buffer of its own: it waits for
    /// whatever is sent next, to leave with that.
    pub ticket: Option<Buffer>,
    /// Its bytes.
    pub ticket_bytes: usize,
    /// Its bytes.
    pub plain: Range<usize>,
    /// The last receive filled its buffer and there was more: a large one would be used.
    pub bulk: bool,
    /// The upstream server has sent something.
    pub answered: bool,
    /// The upstream server has ended its stream.
    pub ended: bool,
    /// A send to the upstream server failed: what looks like the end of its stream is not
    /// one.
    pub broken: bool,
    /// close_notify was sent and the write side shut down.
    pub finished: bool,
    /// What of its buffer the send in flight to the client sends.
    pub sending: Range<usize>,
    /// Whether the socket is likely to have data now.
    pub readiness: Option<Readiness>,
}

/// Control records that wait for the client's send side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ControlDue {
    /// A KeyUpdate, as the answer to one or because of the AEAD's limit.
    pub key_update: bool,
    /// A `no_renegotiation` warning.
    pub no_renegotiation: bool,
}

impl ControlDue {
    pub(super) fn any(self) -> bool {
        self.key_update || self.no_renegotiation
    }
}

/// What a connection does when it gets the buffer it waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BufferWanted {
    /// Start the receive from the client again.
    pub inbound: bool,
    /// Start the receive from the upstream server again.
    pub outbound: bool,
    /// Something is to be written: a flight, a control record, a header, leftovers.
    pub write: bool,
}

/// No neighbour in a list.
pub(super) const NONE: u32 = u32::MAX;

/// A connection's place in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub previous: u32,
    pub next: u32,
    pub linked: bool,
}

impl Default for Links {
    fn default() -> Self {
        Self { previous: NONE, next: NONE, linked: false }
    }
}

impl Links {
    /// Whether the connection is in the list.
    pub(super) fn is_linked(&self) -> bool {
        self.linked
    }
}

/// Which of a connection's links a list runs through.
#[derive(Clone, Copy, Debug)]
pub(super) enum Through {
    /// Timers: a connection has at most one armed.
    Timer,
    /// Waiting for a pool buffer.
    BufferWait,
    /// Waiting for a place at a server of the pool.
    ServerQueue,
    /// Waiting for a credit, for the handshake with the server.
    CreditWait,
}

impl Through {
    /// How many link pairs a connection has.
    pub(super) const COUNT: usize = 4;
}

/// What is known before a connection has a session, and is told to its server.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    /// From the balancer in front.
    pub passed_on: PassedOn,
    /// Of a client that is passed through.
    pub fingerprint: Option<Ja4>,
}

/// How a socket is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// In order.
    #[default]
    Close,
    /// By a reset, so that a cut stream never looks like a complete one.
    Reset,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub generation: u32,
    pub phase: Phase,
    pub timer: Option<TimerClass>,
    pub client_write: ClientWrite,
    pub upstream_write: UpstreamWrite,
    pub control_due: ControlDue,
    pub wanted: BufferWanted,
    /// Operations started whose completion has not come.
    pub in_flight: u8,
    /// The PROXY header has yet to be sent.
    pub header_due: bool,
    /// The upstream connection attempt was given up by its timeout.
    pub connect_timed_out: bool,
    pub client_fate: Fate,
    pub upstream_fate: Fate,
    pub end_reason: Option<EndReason>,
    pub links: [Links; Through::COUNT],
    pub timer_armed: Moment,
    pub accepted: Moment,
    pub listener: u16,
    pub source: Source,
    pub client: Option<Socket>,
    pub upstream: Option<Socket>,
    /// A PROXY protocol header has to come before the ClientHello.
    pub awaits_header: bool,
    /// The client: the socket's peer, or whom that speaks for.
    pub peer: SocketAddr,
    /// Where the client connected to, as the header has it, or as the kernel has said;
    /// otherwise it is the socket's own address.
    pub destination: Option<SocketAddr>,
    /// What is kept for the header to the server; only if some pool wants it.
    pub noted: Option<Box<Noted>>,
    /// The configuration that the connection began with.
    pub epoch: Option<Rc<Epoch>>,
    /// The credit, while no worker has it.
    pub task: Option<Box<Task>>,
    /// The credit's number, while a worker has it.
    pub at_worker: Option<u32>,
    /// Bytes of the task's flight already handed to the kernel.
    pub flight_sent_bytes: usize,
    pub session: Option<Box<Established>>,
    /// The stream is passed through as it is; TLS does not end here.
    pub passed_through: bool,
    /// The name that such a client asked for.
    pub passed_name: Option<Box<str>>,
    /// The pool it goes to, as an index into the snapshot's.
    pub pool: usize,
    pub sizer: RecordSizer,
    pub backend: Option<usize>,
    pub tried: Tried,
    /// TLS with the server, if its pool wants that.
    pub server_tls: Option<Box<ServerTls>>,
    /// Why the last upstream attempt failed.
    pub connect_error: Option<Errno>,
    pub inbound: Inbound,
    pub outbound: Outbound,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            generation: 0,
            phase: Phase::Free,
            timer: None,
            client_write: ClientWrite::None,
            upstream_write: UpstreamWrite::None,
            control_due: ControlDue::default(),
            wanted: BufferWanted::default(),
            in_flight: 0,
            header_due: false,
            connect_timed_out: false,
            client_fate: Fate::Close,
            upstream_fate: Fate::Close,
            end_reason: None,
            links: Default::default(),
            timer_armed: Moment::default(),
            accepted: Moment::default(),
            listener: 0,
            source: Source::EXEMPT,
            client: None,
            upstream: None,
            awaits_header: false,
            peer: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            destination: None,
            noted: None,
            epoch: None,
            task: None,
            at_worker: None,
            flight_sent_bytes: 0,
            session: None,
            passed_through: false,
            passed_name: None,
            pool: 0,
            sizer: RecordSizer::default(),
            backend: None,
            tried: Tried::default(),
            server_tls: None,
            connect_error: None,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
        }
    }
}

impl Connection {
    /// Whether something waits to leave with the first data.
    pub(super) fn awaits_first_data(&self) -> bool {
        self.header_due || self.outbound.ticket.is_some()
    }

    /// Whether the handshake is behind it, or none of ours is to come.
    pub(super) fn is_established(&self) -> bool {
        self.session.is_some() || self.passed_through
    }

    /// Whom the choice of a server goes by.
    pub(super) fn as_client(&self) -> Client<'_> {
        let of_session = || self.session.as_ref()?.facts.server_name.as_deref();
        Client {
            source: self.peer.ip(),
            server_name: self.passed_name.as_deref().or_else(of_session),
        }
    }

    /// Counts something of the server that it is connected to.
    pub(super) fn count_of_server(&self, count: impl FnOnce(&ServerCounts)) {
        if let (Some(backend), Some(epoch)) = (self.backend, &self.epoch) {
            count(epoch.balancers.borrow()[self.pool].counts(backend));
        }
    }

    /// The server ends the connection otherwise than in order: that is counted of it if it
    /// had said nothing yet.
    pub(super) fn count_if_early(&self) {
        if !self.outbound.answered {
            self.count_of_server(|counts| counts.reset_early.increment());
        }
    }

    /// Where the client connected to. Asks the kernel if nobody has said it yet; a socket
    /// that was reset a moment ago does not know it any more.
    pub(super) fn destination(&self, driver: &impl Driver) -> Option<SocketAddr> {
        self.destination.or_else(|| driver.local_address(self.client.as_ref()?).ok())
    }

    /// Operations in flight on the upstream socket.
    pub(super) fn upstream_operations(&self) -> u8 {
        let of_client =
            u8::from(self.inbound.receiving) + u8::from(self.client_write != ClientWrite::None);
        self.in_flight - of_client
    }
}
