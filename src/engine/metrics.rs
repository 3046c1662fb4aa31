//! What an engine counts. One writer: the engine's own thread.

use crate::handshake::{CostClass, FailureReason, ServerFailureReason, SessionFacts, ShedReason};
use crate::metrics::{Counter, Gauge, Histogram};
pub use crate::tls::names::{CIPHER_SUITES, GROUPS};

/// Why a connection ended, for the `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum EndReason {
    /// Both sides finished in order.
    Finished,
    /// The client reset the connection or vanished.
    ClientReset,
    /// The upstream server reset the connection or vanished.
    UpstreamReset,
    /// The client broke the record protocol after the handshake.
    ClientProtocol,
    /// The handshake failed (counted by reason elsewhere).
    HandshakeFailed,
    /// It was shed, by [`ShedCause`]: nearly always before any cryptography.
    Shed,
    /// No backend of the pool could be connected.
    NoBackend,
    /// No byte either way for the idle timeout.
    IdleTimeout,
    /// One side finished and the other did not within the half-closed timeout.
    HalfClosedTimeout,
    /// The drain deadline passed, or the process was told to stop at once.
    Stopped,
    /// The AEAD's limit was reached under TLS 1.2, which has no KeyUpdate.
    KeyLimit,
    /// The connection held a buffer longest when the pool ran dry.
    BufferReclaimed,
    /// The client's certificate would not let it in any more.
    ClientRefused,
}

impl EndReason {
    /// Every reason, in `repr` order.
    pub const ALL: [Self; 13] = [
        Self::Finished,
        Self::ClientReset,
        Self::UpstreamReset,
        Self::ClientProtocol,
        Self::HandshakeFailed,
        Self::Shed,
        Self::NoBackend,
        Self::IdleTimeout,
        Self::HalfClosedTimeout,
        Self::Stopped,
        Self::KeyLimit,
        Self::BufferReclaimed,
        Self::ClientRefused,
    ];

    /// The value of the `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::ClientReset => "client_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::ClientProtocol => "client_protocol",
            Self::HandshakeFailed => "handshake_failed",
            Self::Shed => "shed",
            Self::NoBackend => "no_backend",
            Self::IdleTimeout => "idle_timeout",
            Self::HalfClosedTimeout => "half_closed_timeout",
            Self::Stopped => "stopped",
            Self::KeyLimit => "key_limit",
            Self::BufferReclaimed => "buffer_reclaimed",
            Self::ClientRefused => "client_refused",
        }
    }
}

/// Why a connection was shed, for the `cause` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum ShedCause {
    /// Its source had as many connections as it may have.
    SourceConnections,
    /// Its source had as many connections without a session as it may have.
    SourceIncompleteHandshakes,
    /// Its source had begun as many handshakes as it may begin in that time.
    SourceHandshakesPerSecond,
    /// Handshake workers could not keep up, and its source had its share of them.
    SourceShare,
    /// The same of the name that it asked for.
    NameShare,
    /// It waited in vain to begin its handshake: as many were begun as may be.
    HandshakesPerSecond,
    /// It waited in vain for a credit.
    NoCredit,
    /// It waited in vain for a buffer.
    NoBuffer,
    /// Its step found the queue of its class full.
    QueueFull,
    /// Its step waited for a worker for longer than a handshake may take.
    Expired,
    /// The workers were stopping.
    Stopping,
    /// Every server of its pool was full, and so was the queue for them.
    ServerQueueFull,
    /// It waited in vain for a place at a server.
    ServerQueueTimeout,
}

impl ShedCause {
    /// Every cause, in `repr` order.
    pub const ALL: [Self; 13] = [
        Self::SourceConnections,
        Self::SourceIncompleteHandshakes,
        Self::SourceHandshakesPerSecond,
        Self::SourceShare,
        Self::NameShare,
        Self::HandshakesPerSecond,
        Self::NoCredit,
        Self::NoBuffer,
        Self::QueueFull,
        Self::Expired,
        Self::Stopping,
        Self::ServerQueueFull,
        Self::ServerQueueTimeout,
    ];

    /// The value of the `cause` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SourceConnections => "source_connections",
            Self::SourceIncompleteHandshakes => "source_incomplete_handshakes",
            Self::SourceHandshakesPerSecond => "source_handshakes_per_second",
            Self::SourceShare => "source_share",
            Self::NameShare => "name_share",
            Self::HandshakesPerSecond => "handshakes_per_second",
            Self::NoCredit => "no_credit",
            Self::NoBuffer => "no_buffer",
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::Stopping => "stopping",
            Self::ServerQueueFull => "server_queue_full",
            Self::ServerQueueTimeout => "server_queue_timeout",
        }
    }

    /// The configuration key that decides; `None` if none does.
    pub const fn key(self) -> Option<&'static str> {
        match self {
            Self::SourceConnections => Some("limits.source_connections"),
            Self::SourceIncompleteHandshakes => Some("limits.source_incomplete_handshakes"),
            Self::SourceHandshakesPerSecond => Some("limits.source_handshakes_per_second"),
            Self::SourceShare | Self::NameShare => Some("handshake.queue_time"),
            Self::HandshakesPerSecond => Some("limits.handshakes_per_second"),
            Self::NoCredit => Some("handshake.credits"),
            Self::NoBuffer => Some("engine.buffers"),
            Self::QueueFull => Some("handshake.queue"),
            Self::Expired => Some("timeouts.handshake"),
            Self::Stopping => None,
            Self::ServerQueueFull => Some("pool.queue_max"),
            Self::ServerQueueTimeout => Some("timeouts.queue"),
        }
    }
}

impl From<ShedReason> for ShedCause {
    fn from(reason: ShedReason) -> Self {
        match reason {
            ShedReason::QueueFull => Self::QueueFull,
            ShedReason::Expired => Self::Expired,
            ShedReason::Stopping | ShedReason::ClientGone => Self::Stopping,
        }
    }
}

/// The cells of one engine.
#[derive(Debug, Default)]
pub struct EngineMetrics {
    /// Connections accepted.
    pub accepted: Counter,
    /// PROXY protocol headers received from balancers in front.
    pub proxy_headers_received: Counter,
    /// Headers to servers without the client's certificate, for want of room.
    pub header_certificates_left_out: Counter,
    /// Headers received with values that were to go on, and did not all have room.
    pub header_values_left_out: Counter,
    /// Connections passed through as they are.
    pub passed_through: Counter,
    /// Connections open now, in any state.
    pub connections: Gauge,
    /// Connections relaying now.
    pub established: Gauge,
    /// Handshakes in progress now (credits in use).
    pub handshakes_in_progress: Gauge,
    /// Time that handshake workers owe this engine, in microseconds.
    pub backlog_us: Gauge,
    /// 1 while the listeners' queues are short, because far more come than can be served.
    pub crowded: Gauge,
    /// Ends by [`EndReason`].
    pub ended: [Counter; EndReason::ALL.len()],
    /// Those of them that were shed, by [`ShedCause`].
    pub shed: [Counter; ShedCause::ALL.len()],
    /// Sources that have connections now.
    pub sources: Gauge,
    /// Handshakes completed, by suite, group and resumption; see [`Self::handshake`].
    pub handshakes: [[[Counter; 2]; GROUPS.len()]; CIPHER_SUITES.len()],
    /// Those of them whose client has a certificate, full ones and resumed ones.
    pub client_certificates: [Counter; 2],
    /// Handshakes failed, by [`FailureReason`].
    pub failures: [Counter; FailureReason::ALL.len()],
    /// Tasks that found the queue of their class full.
    pub shed_queue_full: [Counter; CostClass::ALL.len()],
    /// From accept to the established session.
    pub handshake_time: Histogram,
    /// Plaintext bytes from clients to upstream servers.
    pub bytes_from_clients: Counter,
    /// Plaintext bytes from upstream servers to clients.
    pub bytes_to_clients: Counter,
    /// Records opened.
    pub records_opened: Counter,
    /// Records sealed.
    pub records_sealed: Counter,
    /// Clients that ended the stream without close_notify.
    pub truncations: Counter,
    /// Upstream connections made.
    pub upstream_connected: Counter,
    /// Upstream connection attempts that failed.
    pub upstream_failed: Counter,
    /// Handshakes with servers completed: full ones, and sessions resumed.
    pub server_handshakes: [Counter; 2],
    /// Handshakes with servers failed, by [`ServerFailureReason`].
    pub server_handshake_failures: [Counter; ServerFailureReason::ALL.len()],
    /// Servers that ended the stream without close_notify.
    pub server_truncations: Counter,
    /// Upstream connections open now.
    pub upstream_connections: Gauge,
    /// Clients that waited for a place at a server.
    pub server_queued: Counter,
    /// Those that do now.
    pub server_queue: Gauge,
    /// Pool buffers in use now.
    pub buffers_in_use: Gauge,
    /// Times a connection had to wait for a buffer: the pool was empty, or a burst of
    /// receives found the kernel's short ring of them empty.
    pub buffers_exhausted: Counter,
    /// Completion-queue overflows: an alarm, the queue is sized so that this is 0.
    pub completion_overflows: Counter,
    /// Accepts that failed (descriptor limit and the like).
    pub accept_failures: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Completions handled.
    pub completions: Counter,
}

impl EngineMetrics {
    /// The cell of a completed handshake; `None` for a suite that is not in the table.
    pub fn handshake(&self, facts: &SessionFacts) -> Option<&Counter> {
        let suite = CIPHER_SUITES.iter().position(|(code, _)| *code == facts.cipher_suite)?;
        let group = facts.group.unwrap_or(0);
        let group = GROUPS.iter().position(|(code, _)| *code == group).unwrap_or(GROUPS.len() - 1);
        Some(&self.handshakes[suite][group][usize::from(facts.resumed)])
    }
}
