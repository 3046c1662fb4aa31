//! forebay: a TLS concentrator for bare-metal Linux.
//!
//! N identical machines take TCP on :443, do TLS, and hand the plaintext byte stream
//! with the client's address (PROXY protocol) to the servers behind. There is no HTTP on
//! the data path, no async runtime and no lock.
//!
//! ```text
//!   clients ──TLS──▶ engine 0..n ──plaintext + PROXY header──▶ servers behind
//!                     │      ▲     (one thread, CPU, io_uring and set of sockets each)
//!    handshake step   │      │   flight, keys, session facts
//!                     ▼      │
//!                   worker 0..m    (rustls; no sockets)
//!
//!   control thread: start, signals, reload, drain     admin thread: metrics, health
//!   log thread: the one that writes
//! ```
//!
//! A connection is accepted by an engine, which reads and judges its ClientHello; its
//! handshake steps run on a worker; from then on the engine opens and seals its records
//! in place, between the client's socket and the upstream one.
//!
//! | Module | Its job |
//! |---|---|
//! | [`cli`] | the command line: `run`, `check`, `demo` |
//! | [`control`] | start, reload, drain, the admin address, metrics, the log |
//! | [`config`] | TOML into checked settings |
//! | [`engine`] | the loop of one data core: connections, relay, timers, buffers |
//! | [`handshake`] | handshake steps: queues, scheduling, shedding, workers |
//! | [`upstream`] | pools, the choice of a backend, the PROXY protocol |
//! | [`tls`] | ClientHello, certificates, policy, tickets, the record layer |
//! | [`driver`] | the only door to the kernel: `io_uring`, sockets; all `unsafe` is here |
//! | [`endpoint`], [`clock`], [`metrics`] | addresses, time and counters as plain data |
//!
//! Dependencies point down this table, never up.
#![deny(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
#[allow(unsafe_code)]
pub mod driver;
pub mod endpoint;
pub mod engine;
pub mod handshake;
pub mod metrics;
pub mod tls;
pub mod upstream;
