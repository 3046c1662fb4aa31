//! The key set in force in one domain, as rustls asks for it.
//!
//! The control thread puts a new set in force when an epoch ends or the secrets change.
//! Workers read it behind a lock with eight shards, of which a thread uses one, so that few
//! of them write to the same cache line.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{Arc, PoisonError};

use crossbeam::sync::ShardedLock;
use rustls::server::ProducesTickets;

use super::{CryptoLibrary, KeySet, unix_seconds, uses};

/// The tickets of one security domain.
pub struct KeyRing {
    in_force: ShardedLock<Arc<KeySet>>,
}

impl KeyRing {
    /// A ring without keys: until some are put in force, no ticket is made.
    pub fn new(library: CryptoLibrary) -> Self {
        Self { in_force: ShardedLock::new(Arc::new(KeySet::empty(library))) }
    }

    /// Seals and opens with `keys` from now on.
    pub fn put_in_force(&self, keys: KeySet) {
        let keys = Arc::new(keys);
        // The old set is wiped outside of the lock.
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *in_force, keys);
        drop(in_force);
        drop(old);
    }

    fn with<R>(&self, act: impl FnOnce(&KeySet) -> R) -> R {
        act(&self.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ProducesTickets for KeyRing {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.with(|keys| u32::try_from(keys.lifetime_seconds()).unwrap_or(u32::MAX))
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        self.with(|keys| keys.seal(state, unix_seconds()))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        match self.with(|keys| keys.open(ticket, unix_seconds())) {
            Ok(opened) => {
                uses::opened(opened.ahead);
                Some(opened.state)
            }
            Err(refused) => {
                uses::refused(refused);
                None
            }
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|keys| write!(formatter, "KeyRing({keys:?})"))
    }
}
