//! The way to the servers behind: pools, the choice of a backend, the PROXY protocol.
//!
//! Sans-I/O: no sockets, no clocks. May know: endpoints and what a handshake
//! negotiated. Must not know: the engine, the driver, files.

pub mod pool;
pub mod proxy_protocol;

pub use pool::{Backend, Balance, Balancer, Pool, Tried};
pub use proxy_protocol::ProxyProtocol;
