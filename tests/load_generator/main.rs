//! The real load generator against the real forebay, with nginx behind it, and against
//! other servers: what it reports is what happened.

#[path = "../support/mod.rs"]
mod support;

mod backend;
mod failures;
mod handshakes;
mod idle;
mod mixed;
mod program;
mod requests;
mod site;
