//! The way to the servers behind: pools and the choice of a backend.
//!
//! Sans-I/O: no sockets, no clock is read. May know: endpoints, moments, counters. Must not
//! know: the engine, the driver, files.

pub mod pool;
pub mod status;

pub use pool::{Backend, Balance, Balancer, Pool, Tried};
pub use status::ServerStatus;
