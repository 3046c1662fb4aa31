//! The address of ours that a client has connected to, told to whoever chooses a
//! certificate on the same thread.
//!
//! rustls asks for the certificate inside of a handshake step, and says all about the
//! ClientHello and nothing about the connection; so the step says it here before.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::net::IpAddr;

thread_local! {
    static DESTINATION: Cell<Option<IpAddr>> = const { Cell::new(None) };
}

/// The client whose handshake goes on next on this thread has connected to `address`;
/// `None` if nobody needs to know.
pub fn set(address: Option<IpAddr>) {
    DESTINATION.set(address);
}

/// What was said last on this thread.
pub(super) fn get() -> Option<IpAddr> {
    DESTINATION.get()
}
