//! forebay: a TLS concentrator for bare-metal Linux.
//!
//! ```text
//!   clients ──TLS──▶ engine 0..n  (pinned, one io_uring each) ──plaintext + PROXY──▶ servers
//!                      │  ▲
//!      ClientHello     │  │  flight, keys, facts
//!                      ▼  │
//!                   worker 0..m   (pinned elsewhere; rustls; no sockets)
//! ```
//!
//! A connection travels from `engine::accept` over `engine::handshaking` (ClientHello,
//! steps on workers) and `engine::connecting` to `engine::inbound` and
//! `engine::outbound`, and ends in `engine::ending`. `docs/ARCHITECTURE.md` follows it
//! file by file.
//!
//! | module | job | may know |
//! |---|---|---|
//! | [`cli`] | the subcommands | everything below |
//! | [`control`] | start, reload, drain, admin, metrics, log | everything below |
//! | [`config`] | TOML to checked settings | [`tls`], [`routing`], [`upstream`], [`proxy_protocol`], [`dns`] names and types |
//! | [`engine`] | the loop of one data core | the driver trait, [`handshake`], [`upstream`], [`routing`], [`proxy_protocol`], [`tls`] |
//! | [`handshake`] | workers, queues, scheduling, shedding | [`tls`], threads |
//! | [`upstream`] | pools and balancing; sans-I/O | [`proxy_protocol`] versions, what [`tls`] negotiates with servers |
//! | [`routing`] | which way a client goes, by its ClientHello; sans-I/O | [`tls`] ClientHello, versions and rules on client certificates |
//! | [`proxy_protocol`] | who the client is, received and sent; sans-I/O | what a handshake negotiated |
//! | [`dns`] | what host names and services stand for; sans-I/O | nothing |
//! | [`tls`] | certificates, ClientHello, record layer; sans-I/O, no `unsafe` | rustls, ring, aws-lc-rs |
//! | [`driver`] | the only door to the kernel, and its simulator; all `unsafe` | the kernel |
//! | [`metrics`], [`clock`], [`endpoint`], [`switch`], [`token_bucket`], [`random`] | plain data | nothing |

#![deny(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod dns;
#[allow(unsafe_code)]
pub mod driver;
pub mod endpoint;
pub mod engine;
#[doc(hidden)]
pub mod fuzz;
pub mod handshake;
pub mod metrics;
pub mod proxy_protocol;
pub mod random;
pub mod routing;
pub mod switch;
pub mod tls;
pub mod token_bucket;
pub mod upstream;
