//! Client certificates: who a client is, and whether it may come in.
//!
//! ```text
//!   chain ─▶ Verifier ─▶ rustls: authorities, revocation ─▶ Rules::allow ─▶ in, or an alert
//!              │                                              any one rule
//!              └─ id ─▶ security domain of sessions
//! ```
//!
//! Whoever has come in is a [`Client`], who can be asked for later; see [`Gate`].
//!
//! May know: X.509, names. Must not know: connections, configuration files, clocks.
#![forbid(unsafe_code)]

mod certificate;
mod choice;
mod gate;
mod rule;
mod spiffe;
#[cfg(test)]
mod tests;
mod verifier;

pub use certificate::{ClientCertificate, UnreadableCertificate};
pub use choice::{Choices, OpenChoice};
pub use gate::{AdmittedClients, Client, Entrance, Gate};
pub use rule::{Rule, RuleError, Rules};
pub use verifier::{Demand, RefusedChain, Revocation, Verifier, VerifierError, VerifierSettings};
