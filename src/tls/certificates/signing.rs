//! Chain and key of a certificate: in memory for good, or read when a client asks.
//!
//! ```text
//!   worker ──▶ Signing ── resident? ──▶ chain and key
//!                 │ no
//!                 ▼
//!            read the files again ──▶ KeyCache: has it room? else the one goes that
//!                                     nobody has asked for since the last round
//! ```
//!
//! Whoever asks for a resident one takes a read lock of that certificate only, beside the
//! reference count that rustls wants anyway: workers wait for each other in no case but
//! the moment of a load. The cache's own lock is taken for a load, which takes reading
//! and parsing files, hundreds of times as long.
//!
//! The cache goes round like a clock (second chance): as good as exact order of use for
//! this purpose, and a use costs nothing but a flag, written only where it is not set.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::SystemTime;

use rustls::sign::CertifiedKey;

use super::{CertificateName, CryptoLibrary, Severity, load_file, unix_seconds};

/// After a file could not be read it is not tried again for so long: whoever asks for its
/// name again and again must not keep the workers busy with it.
const RETRY_PAUSE_SECONDS: i64 = 10;

/// The way to a chain and its key. Clones lead to the same.
#[derive(Clone)]
pub struct Signing(Origin);

#[derive(Clone)]
enum Origin {
    InMemory(Arc<CertifiedKey>),
    OnDisk(Arc<OnDisk>),
}

impl Signing {
    /// A chain and key that stay in memory.
    pub fn in_memory(certified: Arc<CertifiedKey>) -> Self {
        Self(Origin::InMemory(certified))
    }

    /// A chain and key that were just read from `source` and stay in memory as long as
    /// `cache` has room for them; afterwards they are read again, and taken only if the
    /// certificate is still for `names`.
    pub(super) fn on_disk(
        source: Arc<Path>,
        names: Arc<[CertificateName]>,
        library: CryptoLibrary,
        certified: Option<Arc<CertifiedKey>>,
        cache: &Arc<KeyCache>,
    ) -> Self {
        let this = Arc::new(OnDisk {
            source,
            names,
            library,
            cache: Arc::clone(cache),
            resident: RwLock::new(None),
            used: AtomicBool::new(false),
            kept: AtomicBool::new(false),
            retry_at: AtomicI64::new(i64::MIN),
        });
        if let Some(certified) = certified
            && cache.admit_if_room(&this)
        {
            *write(&this.resident) = Some(certified);
        }
        Self(Origin::OnDisk(this))
    }

    /// The chain, leaf first, and the key, ready for rustls. May read files: not for
    /// engines. `None` if they cannot be read any more, which is logged with its cause.
    pub fn certified(&self) -> Option<Arc<CertifiedKey>> {
        match &self.0 {
            Origin::InMemory(certified) => Some(Arc::clone(certified)),
            Origin::OnDisk(on_disk) => on_disk.certified(),
        }
    }

    /// Whether chain and key are in memory now.
    pub fn is_resident(&self) -> bool {
        match &self.0 {
            Origin::InMemory(_) => true,
            Origin::OnDisk(on_disk) => read(&on_disk.resident).is_some(),
        }
    }

    /// The file has become useless: what is in memory now must last. Returns whether
    /// anything is.
    pub(super) fn keep(&self) -> bool {
        if let Origin::OnDisk(on_disk) = &self.0 {
            on_disk.kept.store(true, Ordering::Relaxed);
        }
        self.is_resident()
    }
}

impl fmt::Debug for Signing {
    /// Says where it is; keys are nobody's business.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::InMemory(_) => formatter.write_str("Signing(in memory)"),
            Origin::OnDisk(on_disk) => write!(formatter, "Signing({})", on_disk.source.display()),
        }
    }
}

struct OnDisk {
    source: Arc<Path>,
    names: Arc<[CertificateName]>,
    library: CryptoLibrary,
    cache: Arc<KeyCache>,
    resident: RwLock<Option<Arc<CertifiedKey>>>,
    /// Since the clock's hand came by.
    used: AtomicBool,
    /// Not to be let go: see [`Signing::keep`].
    kept: AtomicBool,
    /// Seconds since the UNIX epoch before which a failed read is not tried again.
    retry_at: AtomicI64,
}

impl OnDisk {
    fn certified(self: &Arc<Self>) -> Option<Arc<CertifiedKey>> {
        if let Some(certified) = &*read(&self.resident) {
            // Only once a round: a store would take the line from every other worker.
            if !self.used.load(Ordering::Relaxed) {
                self.used.store(true, Ordering::Relaxed);
            }
            return Some(Arc::clone(certified));
        }
        self.load()
    }

    /// Two workers may load at once and do the same; the first one's result stays.
    fn load(self: &Arc<Self>) -> Option<Arc<CertifiedKey>> {
        let now = unix_seconds(SystemTime::now());
        if now < self.retry_at.load(Ordering::Relaxed) {
            return None;
        }
        let mut findings = Vec::new();
        let loaded = load_file(&self.source, self.library, &mut findings)
            .filter(|loaded| loaded.names == self.names)
            .and_then(|loaded| loaded.signing.certified());
        let Some(certified) = loaded else {
            self.retry_at.store(now.saturating_add(RETRY_PAUSE_SECONDS), Ordering::Relaxed);
            let error = findings.iter().find(|finding| finding.severity == Severity::Error);
            let cause = error.map_or_else(
                || "it is for other names now, and not reloaded yet".to_owned(),
                ToString::to_string,
            );
            tracing::error!(
                file = %self.source.display(),
                cause,
                "a certificate that a client asked for cannot be read any more"
            );
            return None;
        };
        let mut resident = write(&self.resident);
        if let Some(other) = &*resident {
            return Some(Arc::clone(other));
        }
        *resident = Some(Arc::clone(&certified));
        drop(resident);
        self.cache.admit(self);
        Some(certified)
    }
}

/// Bounds how many chains and keys are in memory, of all listeners together.
#[derive(Debug, Default)]
pub(super) struct KeyCache {
    keys_max: AtomicUsize,
    /// In the order in which the hand comes by. A certificate that is no longer
    /// configured leaves when the hand comes to it; its key is gone before.
    round: Mutex<VecDeque<Weak<OnDisk>>>,
}

impl fmt::Debug for OnDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("OnDisk").field(&self.source).finish()
    }
}

impl KeyCache {
    /// The bound from now on. If it is lower than before, the next load brings the
    /// number down.
    pub(super) fn set_keys_max(&self, keys_max: usize) {
        self.keys_max.store(keys_max, Ordering::Relaxed);
    }

    /// Takes note of one more if nobody must go for it.
    fn admit_if_room(&self, newcomer: &Arc<OnDisk>) -> bool {
        let mut round = lock(&self.round);
        let keys_max = self.keys_max.load(Ordering::Relaxed);
        if round.len() >= keys_max {
            round.retain(|resident| resident.strong_count() > 0);
        }
        let room = round.len() < keys_max;
        if room {
            round.push_back(Arc::downgrade(newcomer));
        }
        room
    }

    /// Takes note of one more, and lets go of one if there are too many.
    fn admit(&self, newcomer: &Arc<OnDisk>) {
        let mut round = lock(&self.round);
        // Once round clears every flag, so the second time somebody goes.
        for _ in 0..2 * round.len() {
            if round.len() < self.keys_max.load(Ordering::Relaxed) {
                break;
            }
            let Some(oldest) = round.pop_front() else { break };
            let Some(resident) = oldest.upgrade() else { continue };
            if resident.kept.load(Ordering::Relaxed) {
                // It cannot be read again. It stays, and counts no more.
                continue;
            }
            if resident.used.swap(false, Ordering::Relaxed) {
                round.push_back(oldest);
            } else {
                *write(&resident.resident) = None;
            }
        }
        round.push_back(Arc::downgrade(newcomer));
    }
}

// Nothing panics while it holds one of these locks; what they guard is whole anyway.

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
