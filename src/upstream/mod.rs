//! The way to the servers behind: pools and the choice of a backend.
//!
//! Sans-I/O: no sockets, no clocks. May know: endpoints. Must not know: the engine, the
//! driver, files.

pub mod pool;

pub use pool::{Backend, Balance, Balancer, Pool, Tried};
