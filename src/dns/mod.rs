//! What host names and services stand for, asked of nameservers again and again.
//!
//! ```text
//!   Book ── due ──▶ Lookup ── Query ──▶ │ whoever has │ ──▶ nameserver
//!    ▲                ▲                 │ the sockets │
//!    └─── Outcome ────┴──── message ◀── │             │ ◀──
//! ```
//!
//! [`message`] writes queries and reads answers, [`lookup`] asks one name to the end,
//! [`book`] knows what names stand for and when each is to be asked again. [`resolv_conf`]
//! and [`hosts`] read the files of the system.
//!
//! Sans-I/O: no socket, no file, no clock. May know: moments, addresses. Must not know: pools,
//! settings as they are written, threads.
#![forbid(unsafe_code)]

pub mod book;
pub mod hosts;
pub mod lookup;
pub mod message;
pub mod resolv_conf;

pub use book::{Book, Condition, NamedServer, Wanted};
pub use lookup::{Failure, Lookup, Outcome, Step, Transport};
