//! The signature scheme that a handshake was signed with, noted where rustls chooses it.
//!
//! rustls does not tell, and has no way to say which connection it signs for but the thread
//! it is called on: as with [`super::secrets`], who runs a step calls [`take`] after each.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::Arc;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

thread_local! {
    static CHOSEN: Cell<Option<u16>> = const { Cell::new(None) };
}

/// The scheme chosen on this thread since the last call, by its IANA code point; `None` if
/// nothing was signed. Nothing stays behind.
pub fn take() -> Option<u16> {
    CHOSEN.take()
}

/// A key that notes what it is asked to sign with.
#[derive(Debug)]
pub struct NotingKey(Arc<dyn SigningKey>);

impl NotingKey {
    /// Signs with `key`.
    pub fn new(key: Arc<dyn SigningKey>) -> Self {
        Self(key)
    }
}

impl SigningKey for NotingKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = self.0.choose_scheme(offered)?;
        CHOSEN.set(Some(u16::from(signer.scheme())));
        Some(signer)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}
