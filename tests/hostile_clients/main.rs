//! Clients that break every rule, against the real binary: each gets the alert that its
//! fault deserves or is closed, and nobody else notices.
//!
//! | file | what is done to forebay |
//! |---|---|
//! | `first_bytes` | bytes that are no ClientHello, or less or more than one |
//! | `records` | records that no honest client sends after the handshake |
//! | `renegotiation` | TLS 1.2 clients that want to shake hands again |
//! | `crowds` | a thousand connections that go no further |
//! | `failure_log` | failures of every kind, and many at once, to see what the log says |
//! | `stage` | forebay with a backend, and what must hold after each act |
//! | `forged_records` | seals whatever it is told to |

#[path = "../support/mod.rs"]
mod support;

mod crowds;
mod failure_log;
mod first_bytes;
mod forged_records;
mod records;
mod renegotiation;
mod stage;
