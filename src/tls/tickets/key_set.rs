//! The keys of one domain at one time: which seals, which open, and the form of a ticket.
//!
//! ```text
//!    0        4        8             16           40                          n-16     n
//!    ┌────────┬────────┬─────────────┬────────────┬────────────┬───────────────┬──────┐
//!    │ secret │ domain │    epoch    │    salt    │ issued (8) │ rustls' state │ tag  │
//!    └────────┴────────┴─────────────┴────────────┴────────────┴───────────────┴──────┘
//!    └──────────── name ─────────────┘            └───── AES-256-GCM sealed ────┘
//! ```
//!
//! Each ticket has an AES key of its own, HKDF-Expand(key of the epoch, salt), so that
//! nodes that share a key need not share nonces: with 192 random bits no two tickets of a
//! tier have the same key. The name is authenticated with it.
//!
//! The name is compared with that of every key, in constant time and to the end, so the
//! time tells nothing about which keys there are. Its first two parts are public numbers
//! and only say, when no key fits, why.
#![forbid(unsafe_code)]

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand::SecureRandom as _;
use ring::rand::SecureRandom as _;

use super::secret::{EPOCH_NAME_BYTES, EpochTooFar, ID_BYTES, NoRandomness, zeros};
use super::uses::Refused;
use super::{CryptoLibrary, DomainId, Secret, Timing};
use crate::tls::aead::{AeadKey, Algorithm, NONCE_BYTES, TAG_BYTES};
use crate::tls::key_schedule::{Hash, KeyBytes, hkdf_expand};

/// The longest ticket made, and the longest looked at, in bytes. A session without a
/// client certificate needs some 200 and the server's name.
pub const TICKET_BYTES_MAX: usize = 8 * 1_024;

const NAME_BYTES: usize = ID_BYTES + TAG_OF_DOMAIN_BYTES + EPOCH_NAME_BYTES;
const TAG_OF_DOMAIN_BYTES: usize = 4;
const SALT_BYTES: usize = 24;
const ISSUED_BYTES: usize = 8;
const HEAD_BYTES: usize = NAME_BYTES + SALT_BYTES;
const OVERHEAD_BYTES: usize = HEAD_BYTES + ISSUED_BYTES + TAG_BYTES;

/// How far ahead of ours the clock of the node that made a ticket may seem before it is
/// counted: NTP keeps clocks far closer.
const AHEAD_SECONDS: u64 = 2;

/// The keys of one domain: of each secret those of the epochs that open now, the current
/// and the next one.
pub struct KeySet {
    library: CryptoLibrary,
    keys: Vec<NamedKey>,
    /// Among `keys`; `None`: no ticket is made.
    sealing: Option<usize>,
    lifetime_seconds: u64,
}

struct NamedKey {
    name: [u8; NAME_BYTES],
    key: KeyBytes,
}

/// A ticket that was opened.
pub struct Opened {
    /// rustls' state.
    pub state: Vec<u8>,
    /// It was issued in what is the future here: one of the two clocks is wrong.
    pub ahead: bool,
}

impl KeySet {
    /// The keys of `domain` at `now`, in seconds since 1970. The newest of `secrets` that
    /// seals by now does; before any does, the first to begin.
    ///
    /// # Errors
    /// See [`EpochTooFar`].
    pub fn new(
        library: CryptoLibrary,
        secrets: &[&Secret],
        domain: &DomainId,
        timing: Timing,
        now: u64,
    ) -> Result<Self, EpochTooFar> {
        let current = timing.epoch(now);
        let sealing_secret = sealing(secrets, now);
        let mut set = Self {
            library,
            keys: Vec::new(),
            sealing: None,
            lifetime_seconds: timing.overlap_seconds,
        };
        for (index, secret) in secrets.iter().enumerate() {
            // A ratchet that is ahead of the clock has no older keys: it seals with its
            // first, which nodes with a right clock open.
            let seals = current.max(secret.first_epoch());
            let first = timing.oldest_epoch(now).max(secret.first_epoch());
            for epoch in first..=seals.saturating_add(1) {
                let material = secret.material(timing, epoch, domain)?;
                if Some(index) == sealing_secret && epoch == seals {
                    set.sealing = Some(set.keys.len());
                }
                let mut name = [0; NAME_BYTES];
                let (id, rest) = name.split_at_mut(ID_BYTES);
                let (tag, epoch_name) = rest.split_at_mut(TAG_OF_DOMAIN_BYTES);
                id.copy_from_slice(&secret.id().to_be_bytes());
                tag.copy_from_slice(&domain.as_bytes()[..TAG_OF_DOMAIN_BYTES]);
                epoch_name.copy_from_slice(&material.name);
                set.keys.push(NamedKey { name, key: material.key });
            }
        }
        Ok(set)
    }

    /// No keys: makes no ticket and opens none.
    pub(super) const fn empty(library: CryptoLibrary) -> Self {
        Self { library, keys: Vec::new(), sealing: None, lifetime_seconds: 0 }
    }

    /// How long a ticket lives, in seconds.
    pub const fn lifetime_seconds(&self) -> u64 {
        self.lifetime_seconds
    }

    /// A ticket that holds `state`; `None` if it would be longer than
    /// [`TICKET_BYTES_MAX`], or without randomness.
    pub fn seal(&self, state: &[u8], now: u64) -> Option<Vec<u8>> {
        let key = &self.keys[self.sealing?];
        if state.len() > TICKET_BYTES_MAX - OVERHEAD_BYTES {
            return None;
        }
        let mut ticket = Vec::with_capacity(OVERHEAD_BYTES + state.len());
        ticket.extend_from_slice(&key.name);
        ticket.resize(HEAD_BYTES, 0);
        fill_random(self.library, &mut ticket[NAME_BYTES..]).ok()?;
        ticket.extend_from_slice(&now.to_be_bytes());
        ticket.extend_from_slice(state);
        let (head, sealed) = ticket.split_at_mut(HEAD_BYTES);
        let mut tag = [0; TAG_BYTES];
        self.cipher(key, &head[NAME_BYTES..])
            .seal([0; NONCE_BYTES], &head[..NAME_BYTES], sealed, &mut tag)
            .ok()?;
        ticket.extend_from_slice(&tag);
        Some(ticket)
    }

    /// Opens a ticket.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn open(&self, ticket: &[u8], now: u64) -> Result<Opened, Refused> {
        if !(OVERHEAD_BYTES..=TICKET_BYTES_MAX).contains(&ticket.len()) {
            return Err(Refused::Malformed);
        }
        let (head, rest) = ticket.split_at(HEAD_BYTES);
        let (name, salt) = head.split_at(NAME_BYTES);
        let (sealed, tag_bytes) = rest.split_at(rest.len() - TAG_BYTES);
        let mut found = None;
        for key in &self.keys {
            if verify_slices_are_equal(&key.name, name).is_ok() {
                found = Some(key);
            }
        }
        let key = found.ok_or_else(|| self.why_unknown(name))?;
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(tag_bytes);
        let mut state = sealed.to_vec();
        self.cipher(key, salt)
            .open([0; NONCE_BYTES], name, &mut state, &tag)
            .map_err(|_| Refused::BadSeal)?;
        let mut issued = [0; ISSUED_BYTES];
        issued.copy_from_slice(&state[..ISSUED_BYTES]);
        let issued = u64::from_be_bytes(issued);
        if now.saturating_sub(issued) > self.lifetime_seconds {
            return Err(Refused::Expired);
        }
        state.drain(..ISSUED_BYTES);
        Ok(Opened { state, ahead: issued > now.saturating_add(AHEAD_SECONDS) })
    }

    /// What is different about a name that no key has.
    fn why_unknown(&self, name: &[u8]) -> Refused {
        let like = |bytes: usize| self.keys.iter().any(|key| key.name[..bytes] == name[..bytes]);
        if like(ID_BYTES + TAG_OF_DOMAIN_BYTES) {
            Refused::UnknownEpoch
        } else if like(ID_BYTES) {
            Refused::OtherDomain
        } else {
            Refused::UnknownSecret
        }
    }

    /// The cipher of the one ticket with this salt.
    fn cipher(&self, key: &NamedKey, salt: &[u8]) -> AeadKey {
        let mut of_ticket = zeros();
        let info: [&[u8]; 2] = [b"forebay ticket v1", salt];
        let output = of_ticket.as_mut_slice();
        hkdf_expand(self.library, Hash::Sha256, key.key.as_slice(), &info, output);
        AeadKey::new(self.library, Algorithm::Aes256Gcm, of_ticket.as_slice())
            .expect("AES-256 takes 32 bytes")
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "KeySet({} keys)", self.keys.len())
    }
}

/// Which of `secrets` seals at `now`, in seconds since 1970; `None` if there are none.
pub fn sealing(secrets: &[&Secret], now: u64) -> Option<usize> {
    let begun = |index: &usize| secrets[*index].seals_from() <= now;
    // Of two with the same time the first in the file.
    let newest =
        (0..secrets.len()).rev().filter(begun).max_by_key(|&index| secrets[index].seals_from());
    newest.or_else(|| (0..secrets.len()).min_by_key(|&index| secrets[index].seals_from()))
}

pub(super) fn fill_random(library: CryptoLibrary, bytes: &mut [u8]) -> Result<(), NoRandomness> {
    match library {
        CryptoLibrary::AwsLc => {
            aws_lc_rs::rand::SystemRandom::new().fill(bytes).map_err(|_| NoRandomness)
        }
        CryptoLibrary::Ring => {
            ring::rand::SystemRandom::new().fill(bytes).map_err(|_| NoRandomness)
        }
    }
}
