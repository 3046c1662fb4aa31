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
//! | file | job |
//! |---|---|
//! | `task` | the credit, its buffers, what comes of a step |
//! | `step` | one step of one handshake: bytes in, flight out |
//! | `to_server` | the same for a handshake with a server behind, as its client |
//! | `failure` | why a handshake failed, in our terms |
//! | `server_failure` | why one with a server did |
//! | `scheduler` | which task runs next, which never will |
//! | `workers` | threads that run steps for all engines |
//! | `inline` | the same on the engine's own thread |
//! | `calibration` | what steps cost on this machine |
//! | `metrics` | what is counted |
//! | `fingerprints` | which clients come most often |
//!
//! May know: rustls, the tls module, clocks, threads. Must not know: sockets, rings,
//! buffers of the engine.

pub mod calibration;
pub mod fingerprints;
pub mod inline;
pub mod metrics;
mod refusal;
pub mod scheduler;
pub mod step;
pub mod to_server;
pub mod workers;

mod failure;
mod server_failure;
mod task;
#[cfg(test)]
mod test_support;

use std::time::Duration;

pub use failure::{FailureReason, HandshakeFailure};
pub use server_failure::{ServerFailure, ServerFailureReason};
pub use task::{Established, SessionFacts, StepOutcome, Task};
pub use to_server::ToServer;

/// What a step will cost, known before any cryptography is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
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

/// What a step of each class takes of a worker's time; none is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepCosts {
    /// See [`CostClass::Continuation`].
    pub continuation: Duration,
    /// See [`CostClass::Resumption`].
    pub resumption: Duration,
    /// See [`CostClass::EllipticCurve`].
    pub elliptic_curve: Duration,
    /// See [`CostClass::Rsa`].
    pub rsa: Duration,
}

impl StepCosts {
    /// On a server's core of some years ago; [`calibration`] measures this machine's.
    pub const TYPICAL: Self = Self {
        continuation: Duration::from_micros(40),
        resumption: Duration::from_micros(40),
        elliptic_curve: Duration::from_micros(120),
        rsa: Duration::from_micros(700),
    };

    /// What a step of this class costs.
    pub const fn of(&self, class: CostClass) -> Duration {
        match class {
            CostClass::Continuation => self.continuation,
            CostClass::Resumption => self.resumption,
            CostClass::EllipticCurve => self.elliptic_curve,
            CostClass::Rsa => self.rsa,
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
    /// The workers are stopping.
    Stopping,
}

/// Where an engine hands in tasks and takes results: offloaded, inline, or the
/// simulator's delayed kind.
///
/// Every task handed in comes back exactly once: by [`Self::next_result`], or at once
/// as the error of [`Self::submit`].
pub trait HandshakeService {
    /// Hands in a task whose `input` holds bytes for the next step.
    ///
    /// # Errors
    /// The task comes back if it cannot be taken.
    fn submit(&mut self, task: Box<Task>) -> Result<(), Box<Task>>;

    /// The next finished task of this engine.
    ///
    /// An inline service runs a step in here, so an engine takes a bounded number of
    /// results a turn.
    fn next_result(&mut self) -> Option<Box<Task>>;

    /// Whether the fingerprint of every client is wanted, whatever its pool is told.
    fn wants_fingerprints(&self) -> bool {
        false
    }

    /// Tells whoever may hold the task of this credit that its client has gone.
    ///
    /// The task still comes back: shed if its step had not begun, otherwise with what
    /// came of it.
    fn abandon(&mut self, credit: u32);

    /// Results are waiting: the engine must not sleep.
    fn has_results(&self) -> bool;

    /// Whether the engine serves established connections: whoever shares its CPU is then
    /// to keep them waiting as little as it can.
    fn set_urgent(&mut self, urgent: bool);

    /// The engine has done what there was to do, and would sleep now: a worker that gave
    /// way to it may go on. Called after the engine has said that it is about to sleep, if
    /// it is going to.
    fn turn_done(&mut self);
}
