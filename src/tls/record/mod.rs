//! The record layer after the handshake: open and seal in place.
#![forbid(unsafe_code)]

/// Opens records from the peer.
#[derive(Debug)]
pub struct Opener;

/// Seals records to the peer.
#[derive(Debug)]
pub struct Sealer;
