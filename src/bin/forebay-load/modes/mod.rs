//! One file a mode: what its arguments ask of the threads.

pub(crate) mod bulk;
pub(crate) mod handshakes;
pub(crate) mod idle;
pub(crate) mod mixed;
pub(crate) mod plot;
pub(crate) mod requests;
