//! A secret, and the keys that follow from it for an epoch and a domain.
//!
//! ```text
//!   fixed:    secret ─────────────────────────┬─▶ root of epoch n
//!   ratchet:  chain n-1 ──▶ chain n ──▶ chain n+1 …
//!                              └─▶ root of epoch n ──domain──▶ name, key
//! ```
//!
//! A **fixed** secret opens every ticket it ever sealed a key for. Of a **ratchet** only
//! the chain value of the oldest epoch that still opens is kept; the arrow cannot be
//! walked back, so whoever takes the value later opens no older ticket.
//!
//! Every arrow is HKDF-Expand with SHA-256 (RFC 5869) under a label of its own. The
//! labels and their order are fixed for ever: nodes of different versions share them.
#![forbid(unsafe_code)]

use std::fmt;

use aws_lc_rs::digest;

use super::{CryptoLibrary, DomainId, Timing};
use crate::tls::key_schedule::{Hash, KeyBytes, hkdf_expand};

/// Epochs that a ratchet is walked at most in one go: a second's work, and more than a
/// thousand years of the default epoch.
pub const RATCHET_STEPS_MAX: u64 = 1 << 20;

/// Bytes of a secret's public number.
pub(super) const ID_BYTES: usize = 4;
/// Bytes of an epoch's name under one secret and domain.
pub(super) const EPOCH_NAME_BYTES: usize = 8;

const SECRET_BYTES: usize = 32;

/// The system's random generator gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator gave no bytes")]
pub struct NoRandomness;

/// The clock is further ahead of a ratchet than it is ever walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "secret {id:08x} was last used more than {RATCHET_STEPS_MAX} epochs ago; check the clock, \
     or take a copy of the file from a node that runs"
)]
pub struct EpochTooFar {
    /// The secret's number.
    pub id: u32,
}

/// How a secret is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// As it was made.
    Fixed,
    /// As the chain value of an epoch; older ones cannot be had from it.
    Ratchet {
        /// The length of the epochs that the chain counts, in seconds.
        epoch_seconds: u64,
        /// The epoch that the value belongs to.
        epoch: u64,
    },
}

/// A secret that ticket keys come from. Wiped on drop, never printed.
pub struct Secret {
    id: [u8; ID_BYTES],
    seals_from: u64,
    kind: SecretKind,
    value: KeyBytes,
}

/// What seals and opens in one epoch of one domain.
pub(super) struct EpochMaterial {
    pub(super) name: [u8; EPOCH_NAME_BYTES],
    pub(super) key: KeyBytes,
}

impl Secret {
    /// A fixed secret that seals from the beginning of time.
    ///
    /// # Errors
    /// See [`NoRandomness`].
    pub fn random(library: CryptoLibrary) -> Result<Self, NoRandomness> {
        let mut value = zeros();
        super::key_set::fill_random(library, value.as_mut_slice())?;
        Ok(Self::fixed(value, 0))
    }

    /// A fixed secret from bytes that another program takes for ticket keys, however
    /// many they are.
    pub(super) fn of_key_material(bytes: &[u8], seals_from: u64) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"forebay ticket secret of key material v1");
        context.update(bytes);
        let mut value = zeros();
        value.as_mut_slice().copy_from_slice(context.finish().as_ref());
        Self::fixed(value, seals_from)
    }

    pub(super) fn fixed(value: KeyBytes, seals_from: u64) -> Self {
        let mut id = [0; ID_BYTES];
        expand(value.as_slice(), &[b"forebay ticket secret id v1"], &mut id);
        Self { id, seals_from, kind: SecretKind::Fixed, value }
    }

    pub(super) fn ratchet(
        id: u32,
        seals_from: u64,
        (epoch_seconds, epoch): (u64, u64),
        value: KeyBytes,
    ) -> Self {
        let kind = SecretKind::Ratchet { epoch_seconds, epoch };
        Self { id: id.to_be_bytes(), seals_from, kind, value }
    }

    /// The same secret, kept as a ratchet whose first epoch is the oldest that opens at
    /// `now`. A ratchet stays as it is.
    #[must_use]
    pub fn into_ratchet(self, timing: Timing, now: u64) -> Self {
        let kind = match self.kind {
            SecretKind::Fixed => SecretKind::Ratchet {
                epoch_seconds: timing.epoch_seconds,
                epoch: timing.oldest_epoch(now),
            },
            ratchet @ SecretKind::Ratchet { .. } => ratchet,
        };
        Self { kind, ..self }
    }

    /// The same secret, sealing from `seals_from` on.
    #[must_use]
    pub fn sealing_from(self, seals_from: u64) -> Self {
        Self { seals_from, ..self }
    }

    /// Its public number: what tickets show of it.
    pub const fn id(&self) -> u32 {
        u32::from_be_bytes(self.id)
    }

    /// When it begins to seal, in seconds since 1970. It opens before that too.
    pub const fn seals_from(&self) -> u64 {
        self.seals_from
    }

    /// How it is kept.
    pub const fn kind(&self) -> SecretKind {
        self.kind
    }

    pub(super) fn value(&self) -> &[u8] {
        self.value.as_slice()
    }

    /// Forgets what opens tickets of epochs before `epoch`; whether that was anything.
    ///
    /// # Errors
    /// See [`EpochTooFar`]; then nothing was forgotten.
    pub fn forget_before(&mut self, epoch: u64) -> Result<bool, EpochTooFar> {
        let SecretKind::Ratchet { epoch_seconds, epoch: at } = self.kind else { return Ok(false) };
        if epoch <= at {
            return Ok(false);
        }
        self.value = self.chain(epoch)?;
        self.kind = SecretKind::Ratchet { epoch_seconds, epoch };
        Ok(true)
    }

    /// The first epoch that it has keys of.
    pub(super) const fn first_epoch(&self) -> u64 {
        match self.kind {
            SecretKind::Fixed => 0,
            SecretKind::Ratchet { epoch, .. } => epoch,
        }
    }

    /// The keys of `epoch`, not before [`Self::first_epoch`].
    pub(super) fn material(
        &self,
        timing: Timing,
        epoch: u64,
        domain: &DomainId,
    ) -> Result<EpochMaterial, EpochTooFar> {
        let chain = self.chain(epoch)?;
        let (length, number) = (timing.epoch_seconds.to_be_bytes(), epoch.to_be_bytes());
        let mut root = zeros();
        let info: [&[u8]; 3] = [b"forebay ticket epoch v1", &length, &number];
        expand(chain.as_slice(), &info, root.as_mut_slice());
        let mut name = [0; EPOCH_NAME_BYTES];
        expand(root.as_slice(), &[b"forebay ticket name v1", domain.as_bytes()], &mut name);
        let mut key = zeros();
        let info: [&[u8]; 2] = [b"forebay ticket key v1", domain.as_bytes()];
        expand(root.as_slice(), &info, key.as_mut_slice());
        Ok(EpochMaterial { name, key })
    }

    /// What the root of `epoch` is made from.
    fn chain(&self, epoch: u64) -> Result<KeyBytes, EpochTooFar> {
        let mut value = zeros();
        value.as_mut_slice().copy_from_slice(self.value());
        let SecretKind::Ratchet { epoch: at, .. } = self.kind else { return Ok(value) };
        let steps = epoch.saturating_sub(at);
        if steps > RATCHET_STEPS_MAX {
            return Err(EpochTooFar { id: self.id() });
        }
        for _ in 0..steps {
            let mut next = zeros();
            expand(value.as_slice(), &[b"forebay ticket ratchet v1"], next.as_mut_slice());
            value = next;
        }
        Ok(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secret({:08x}, {:?}, from {})", self.id(), self.kind, self.seals_from)
    }
}

pub(super) fn zeros() -> KeyBytes {
    KeyBytes::zeros(SECRET_BYTES).expect("KeyBytes holds 32 bytes")
}

/// Nodes must derive the same, so the library is not a matter of configuration here.
fn expand(secret: &[u8], info: &[&[u8]], output: &mut [u8]) {
    hkdf_expand(CryptoLibrary::AwsLc, Hash::Sha256, secret, info, output);
}
