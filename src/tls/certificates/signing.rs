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

use super::{CertificateName, CryptoLibrary, Passphrases, Severity, load_file, unix_seconds};

/// After a file could not be read it is not tried again for so long: whoever asks for its
/// name again and again must not keep the workers busy with it.
const RETRY_PAUSE_SECONDS: i64 = 10;

/// How exactly it is known when a certificate was last used.
const LAST_USED_SECONDS: i64 = 60;

/// No time at which a certificate was used.
const NEVER: i64 = i64::MIN;

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
        staple_ends: Option<i64>,
        cache: &Arc<KeyCache>,
    ) -> Self {
        let this = Arc::new(OnDisk {
            source,
            names,
            library,
            cache: Arc::clone(cache),
            resident: RwLock::new(None),
            used: AtomicBool::new(false),
            last_used: AtomicI64::new(NEVER),
            kept: AtomicBool::new(false),
            retry_at: AtomicI64::new(i64::MIN),
        });
        if let Some(certified) = certified
            && cache.admit_if_room(&this)
        {
            *write(&this.resident) = Some(Resident::new(certified, staple_ends));
        }
        Self(Origin::OnDisk(this))
    }

    /// The chain, leaf first, the key, and the staple unless its time is over, ready for
    /// rustls, which shows them to a client now. May read files: not for engines. `None` if
    /// they cannot be read any more, which is logged with its cause.
    pub fn certified(&self) -> Option<Arc<CertifiedKey>> {
        match &self.0 {
            Origin::InMemory(certified) => Some(Arc::clone(certified)),
            Origin::OnDisk(on_disk) => {
                let now = unix_seconds(SystemTime::now());
                on_disk.note_use(now);
                on_disk.certified(now)
            }
        }
    }

    /// The same chain and key, to be tried out: no client has seen them.
    pub fn for_trial(&self) -> Option<Self> {
        match &self.0 {
            Origin::InMemory(_) => Some(self.clone()),
            Origin::OnDisk(on_disk) => {
                let certified = on_disk.certified(unix_seconds(SystemTime::now()))?;
                Some(Self::in_memory(certified))
            }
        }
    }

    /// Whether chain and key are in memory now.
    pub fn is_resident(&self) -> bool {
        match &self.0 {
            Origin::InMemory(_) => true,
            Origin::OnDisk(on_disk) => read(&on_disk.resident).is_some(),
        }
    }

    /// When a client was last shown it, in seconds since the UNIX epoch, to the minute;
    /// `None` if that has not been since the file was read.
    pub fn last_used(&self) -> Option<i64> {
        match &self.0 {
            Origin::InMemory(_) => None,
            Origin::OnDisk(on_disk) => {
                Some(on_disk.last_used.load(Ordering::Relaxed)).filter(|at| *at != NEVER)
            }
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

/// What is handed to rustls, and until when as it is.
struct Resident {
    certified: Arc<CertifiedKey>,
    /// Seconds since the UNIX epoch; without a staple never.
    staple_ends: i64,
}

impl Resident {
    fn new(certified: Arc<CertifiedKey>, staple_ends: Option<i64>) -> Self {
        // A staple whose time was over when it was read is not in it.
        let staple_ends = staple_ends.filter(|_| certified.ocsp.is_some());
        Self { certified, staple_ends: staple_ends.unwrap_or(i64::MAX) }
    }
}

struct OnDisk {
    source: Arc<Path>,
    names: Arc<[CertificateName]>,
    library: CryptoLibrary,
    cache: Arc<KeyCache>,
    resident: RwLock<Option<Resident>>,
    /// Since the clock's hand came by.
    used: AtomicBool,
    /// Seconds since the UNIX epoch, written once a minute at most.
    last_used: AtomicI64,
    /// Not to be let go: see [`Signing::keep`].
    kept: AtomicBool,
    /// Seconds since the UNIX epoch before which a failed read is not tried again.
    retry_at: AtomicI64,
}

impl OnDisk {
    /// Only once a minute: a store would take the line from every other worker.
    fn note_use(&self, now: i64) {
        if now.saturating_sub(self.last_used.load(Ordering::Relaxed)) >= LAST_USED_SECONDS {
            self.last_used.store(now, Ordering::Relaxed);
        }
    }

    fn certified(self: &Arc<Self>, now: i64) -> Option<Arc<CertifiedKey>> {
        if let Some(resident) = &*read(&self.resident) {
            // Only once a round, for the same reason.
            if !self.used.load(Ordering::Relaxed) {
                self.used.store(true, Ordering::Relaxed);
            }
            if now < resident.staple_ends {
                return Some(Arc::clone(&resident.certified));
            }
        }
        self.without_staple(now).or_else(|| self.load())
    }

    /// Lets go of a staple whose time is over.
    fn without_staple(&self, now: i64) -> Option<Arc<CertifiedKey>> {
        let mut resident = write(&self.resident);
        let resident = resident.as_mut()?;
        if now >= resident.staple_ends {
            let certified = CertifiedKey { ocsp: None, ..CertifiedKey::clone(&resident.certified) };
            *resident = Resident::new(Arc::new(certified), None);
            tracing::warn!(
                file = %super::ocsp::path_of(&self.source).display(),
                "the time of an OCSP staple is over, and it is no longer sent: fetch it anew"
            );
        }
        Some(Arc::clone(&resident.certified))
    }

    /// Two workers may load at once and do the same; the first one's result stays.
    fn load(self: &Arc<Self>) -> Option<Arc<CertifiedKey>> {
        let now = unix_seconds(SystemTime::now());
        if now < self.retry_at.load(Ordering::Relaxed) {
            return None;
        }
        let mut findings = Vec::new();
        let loaded =
            load_file(&self.source, self.library, &self.cache.passphrases(), &mut findings)
                .filter(|loaded| loaded.names == self.names)
                .and_then(|loaded| Some((loaded.signing.certified()?, loaded.staple_ends)));
        let Some((certified, staple_ends)) = loaded else {
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
            return Some(Arc::clone(&other.certified));
        }
        *resident = Some(Resident::new(Arc::clone(&certified), staple_ends));
        drop(resident);
        self.cache.admit(self);
        Some(certified)
    }
}

/// Bounds how many chains and keys are in memory, of all listeners together.
#[derive(Debug, Default)]
pub(super) struct KeyCache {
    keys_max: AtomicUsize,
    /// What encrypted keys are opened with when they are read again.
    passphrases: Mutex<Passphrases>,
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

    /// What encrypted keys are opened with when they are read again, from now on.
    pub(super) fn set_passphrases(&self, passphrases: Passphrases) {
        *lock(&self.passphrases) = passphrases;
    }

    fn passphrases(&self) -> Passphrases {
        lock(&self.passphrases).clone()
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
