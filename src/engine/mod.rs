//! The loop of one data core: connections, relay states, timers, buffers.
//!
//! May know: the driver trait, the handshake service, the record layer, upstream
//! choice. Must not know: files, rustls handshakes, the kernel itself.

pub mod events;
pub mod metrics;
