//! The way to the servers behind: pools, the choice of a backend, and what is known of each.
//!
//! Sans-I/O: no sockets, no clock is read. May know: endpoints, moments, counters. Must not
//! know: the engine, the driver, files.

pub mod agent;
pub mod balancer;
pub mod exchange;
pub mod health;
pub mod maglev;
pub mod opinions;
pub mod pool;
pub mod source_address;
pub mod status;

pub use balancer::{Balancer, Choice};
pub use maglev::{Client, HashBy, Maglev};
pub use pool::{Backend, Balance, Pool, Tried};
pub use source_address::SourceAddress;
pub use status::ServerStatus;
