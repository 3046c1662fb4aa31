//! forebay: a TLS concentrator for bare-metal Linux.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod driver;
pub mod endpoint;
pub mod engine;
pub mod handshake;
pub mod metrics;
pub mod tls;
pub mod upstream;
