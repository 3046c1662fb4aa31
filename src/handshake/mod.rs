//! Handshakes, away from the data path: tasks, their scheduling, and the workers.
//!
//! ```text
//!   engine ──Box<Task>──▶ intake (bounded, lock-free) ──▶ Scheduler ──▶ worker: one step
//!      ▲                                                  (cost class,        │
//!      └───────────── inbox (bounded by the credits) ◀──── deadline, age) ◀───┘
//! ```
//!
//! A [`Task`] is also the *credit* that admits a handshake: a fixed number of boxes is
//! made at start, so every queue here is bounded by construction and no handshake step
//! costs the engine an allocation.
//!
//! May know: rustls, the tls module, clocks, threads. Must not know: sockets, rings,
//! buffers of the engine.

pub mod metrics;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::tls::Version;
use crate::tls::record::{Opener, Sealer};

/// What a step will cost, known before any cryptography is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CostClass {
    /// A later flight of a handshake that already cost its key exchange.
    Continuation,
    /// A TLS 1.2 resumption: symmetric cryptography only.
    Resumption,
    /// Elliptic-curve signature, or a TLS 1.3 resumption with its key exchange.
    EllipticCurve,
    /// An RSA signature.
    Rsa,
}

impl CostClass {
    /// Every class, in order of preference.
    pub const ALL: [Self; 4] =
        [Self::Continuation, Self::Resumption, Self::EllipticCurve, Self::Rsa];

    /// The value of the `class` label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Continuation => "continuation",
            Self::Resumption => "resumption",
            Self::EllipticCurve => "ec",
            Self::Rsa => "rsa",
        }
    }
}

/// Why a task was refused before any asymmetric cryptography was spent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShedReason {
    /// The queue of its class was full.
    QueueFull,
    /// Its deadline had passed when its turn came.
    Expired,
    /// The client had gone when its turn came.
    ClientGone,
}

/// A credit: one admitted handshake and the buffers it works in, made once at start
/// and used again for handshake after handshake.
pub struct Task {
    /// Which engine's inbox the result goes to.
    pub engine: usize,
    /// Place of this credit in its engine's liveness table.
    pub credit: u32,
    /// The engine's connection slot.
    pub slot: u32,
    /// The slot's generation; also what the liveness table must still hold.
    pub generation: u32,
    /// When the step was submitted; workers set the queue wait from it.
    pub submitted: Moment,
    /// Past this moment the step is not worth doing.
    pub deadline: Moment,
    /// What it will cost.
    pub class: CostClass,
    /// The configuration to begin with; taken by the first step.
    pub config: Option<Arc<rustls::ServerConfig>>,
    /// The handshake between its steps; `None` before the first and after the last.
    pub state: Option<Box<rustls::server::UnbufferedServerConnection>>,
    /// Ciphertext from the client that no step has consumed yet.
    pub input: Vec<u8>,
    /// The flight that the step produced, to be sent to the client.
    pub output: Vec<u8>,
    /// What came of the step.
    pub outcome: StepOutcome,
    /// Time the step spent queued, set by the worker.
    pub queue_wait: Duration,
    /// Time the step spent working, set by the worker.
    pub work: Duration,
}

/// What came of a step.
#[derive(Debug, Default)]
pub enum StepOutcome {
    /// Not run yet.
    #[default]
    Pending,
    /// Send `output`, then bring more bytes from the client.
    NeedsInput,
    /// Send `output`; the handshake is done. What is left in `input` are records for
    /// the opener.
    Established(Box<Established>),
    /// Send `output` (an alert, possibly empty), then close.
    Failed(HandshakeFailure),
    /// Not run: close without spending anything on it.
    Shed(ShedReason),
}

/// Everything the engine needs of a finished handshake. Plain data: no rustls inside.
#[derive(Debug)]
pub struct Established {
    /// Opens records from the client.
    pub opener: Opener,
    /// Seals records to the client.
    pub sealer: Sealer,
    /// What was negotiated.
    pub facts: SessionFacts,
}

/// What was negotiated, for the PROXY header, metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// Protocol version.
    pub version: Version,
    /// Cipher suite by its IANA code point.
    pub cipher_suite: u16,
    /// Key-exchange group by its IANA code point; `None` if none took place.
    pub group: Option<u16>,
    /// Whether a session was resumed.
    pub resumed: bool,
    /// The protocol chosen by ALPN (RFC 7301).
    pub alpn: Option<Box<[u8]>>,
    /// The name the client asked for (RFC 6066 section 3), lower case.
    pub server_name: Option<Box<str>>,
}

/// Why a handshake failed, in terms that a metric label and a log line can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeFailure {
    /// The class of the failure.
    pub reason: FailureReason,
    /// The library's own words, for the log.
    pub detail: String,
}

/// The classes of handshake failure, one metric label each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum FailureReason {
    /// The first byte was not that of a TLS handshake record.
    NotTls,
    /// The client spoke HTTP without TLS.
    PlainHttp,
    /// The ClientHello does not parse.
    ClientHelloMalformed,
    /// The ClientHello is larger than we take.
    ClientHelloTooLarge,
    /// No certificate for the name, and unknown names are rejected.
    UnknownServerName,
    /// No protocol version in common.
    NoSharedVersion,
    /// No cipher suite in common.
    NoSharedCipherSuite,
    /// No key-exchange group in common.
    NoSharedGroup,
    /// No signature scheme in common with any certificate.
    NoSharedSignatureScheme,
    /// No application protocol in common (RFC 7301 section 3.2).
    NoSharedProtocol,
    /// A record did not decrypt.
    BadRecord,
    /// The client broke the handshake protocol.
    Protocol,
    /// The client sent a fatal alert (often: it does not trust the certificate).
    ClientAlert,
    /// The client closed or reset before the handshake was done.
    ClientGone,
    /// The ClientHello did not arrive in time.
    ClientHelloTimeout,
    /// The handshake was not done in time.
    Timeout,
    /// Something on our side: never the client's fault.
    Internal,
}

impl FailureReason {
    /// Every reason, in `repr` order.
    pub const ALL: [Self; 17] = [
        Self::NotTls,
        Self::PlainHttp,
        Self::ClientHelloMalformed,
        Self::ClientHelloTooLarge,
        Self::UnknownServerName,
        Self::NoSharedVersion,
        Self::NoSharedCipherSuite,
        Self::NoSharedGroup,
        Self::NoSharedSignatureScheme,
        Self::NoSharedProtocol,
        Self::BadRecord,
        Self::Protocol,
        Self::ClientAlert,
        Self::ClientGone,
        Self::ClientHelloTimeout,
        Self::Timeout,
        Self::Internal,
    ];

    /// The value of the `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::PlainHttp => "plain_http",
            Self::ClientHelloMalformed => "client_hello_malformed",
            Self::ClientHelloTooLarge => "client_hello_too_large",
            Self::UnknownServerName => "unknown_server_name",
            Self::NoSharedVersion => "no_shared_version",
            Self::NoSharedCipherSuite => "no_shared_cipher_suite",
            Self::NoSharedGroup => "no_shared_group",
            Self::NoSharedSignatureScheme => "no_shared_signature_scheme",
            Self::NoSharedProtocol => "no_shared_protocol",
            Self::BadRecord => "bad_record",
            Self::Protocol => "protocol",
            Self::ClientAlert => "client_alert",
            Self::ClientGone => "client_gone",
            Self::ClientHelloTimeout => "client_hello_timeout",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}

/// Where an engine hands in tasks and takes results: offloaded, inline, or the
/// simulator's delayed kind.
pub trait HandshakeService {
    /// Hands in a task whose `input` holds bytes for the next step.
    ///
    /// # Errors
    /// The task comes back if the queue of its class is full.
    fn submit(&mut self, task: Box<Task>) -> Result<(), Box<Task>>;

    /// The next finished task of this engine.
    fn next_result(&mut self) -> Option<Box<Task>>;

    /// Tells whoever may hold the task of this credit that its client has gone.
    fn abandon(&mut self, credit: u32);

    /// Results are waiting: the engine must not sleep.
    fn has_results(&self) -> bool;
}
