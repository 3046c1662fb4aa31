//! All certificates of a process, across reloads: a file is read again only if it has
//! changed, and one that was changed for the worse costs nothing that works.
//!
//! ```text
//!   Store (in force) ──┐
//!                      ├─▶ Loading: unchanged? taken over : read ──▶ commit ─▶ Store
//!   files ─────────────┘        unreadable now? the old one stays
//! ```

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use super::{
    Finding, KeyCache, LoadedCertificate, Passphrases, Problem, Severity, Signing, load_file, ocsp,
    sources,
};
use crate::tls::CryptoLibrary;

/// With fewer files than this to read, threads are not worth their start.
const FILES_PER_THREAD_MIN: usize = 64;

/// Threads that read files; more only wait for the disk.
const THREADS_MAX: usize = 16;

/// The certificates in force, by file.
#[derive(Debug, Default)]
pub struct Store {
    keys: Arc<KeyCache>,
    entries: HashMap<PathBuf, Entry>,
}

/// A file as it was read.
#[derive(Clone, Debug)]
struct Entry {
    library: CryptoLibrary,
    stamp: Option<Stamp>,
    certificate: LoadedCertificate,
    /// Warnings that hold as long as the file does not change.
    findings: Vec<Finding>,
}

/// What tells whether a certificate's file, or the one with its key or staple, has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    certificate: FileIdentity,
    key: Option<FileIdentity>,
    staple: Option<FileIdentity>,
}

/// A file's state, to the nanosecond. The inode tells renames from rewrites, and the time
/// of change what a copied modification time would hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let certificate = FileIdentity::of(path)?;
        let key = FileIdentity::of(&path.with_extension("key"));
        let staple = FileIdentity::of(&ocsp::path_of(path));
        Some(Self { certificate, key, staple })
    }
}

impl Store {
    /// Begins to load what a configuration names. The certificates in force stay as they
    /// are until the result is handed to [`Store::commit`]; that at most `keys_max` chains
    /// and keys are kept in memory holds at once.
    pub fn begin(
        &self,
        library: CryptoLibrary,
        keys_max: usize,
        passphrases: Passphrases,
        now: SystemTime,
    ) -> Loading<'_> {
        self.keys.set_keys_max(keys_max);
        Loading { store: self, library, passphrases, now, entries: HashMap::new() }
    }

    /// Puts in force what was loaded; what is no longer named is forgotten.
    pub fn commit(&mut self, loaded: Loaded) {
        self.entries = loaded.entries;
        self.keys.set_passphrases(loaded.passphrases);
    }
}

/// Certificates being loaded.
#[derive(Debug)]
pub struct Loading<'a> {
    store: &'a Store,
    library: CryptoLibrary,
    passphrases: Passphrases,
    now: SystemTime,
    entries: HashMap<PathBuf, Entry>,
}

/// What [`Loading`] came to.
#[derive(Debug)]
pub struct Loaded {
    entries: HashMap<PathBuf, Entry>,
    passphrases: Passphrases,
}

impl Loading<'_> {
    /// Every certificate that `path` leads to, a file or a directory as in
    /// [`super::load`], and everything found wrong.
    ///
    /// Of a file that was good before and is bad now the old certificate is returned, and
    /// the finding is a warning. The same holds, without a certificate, for a bad file in
    /// a directory of which others are in force: one file that somebody puts there must
    /// not keep the rest from being renewed.
    pub fn load(&mut self, path: &Path) -> (Vec<LoadedCertificate>, Vec<Finding>) {
        let mut findings = Vec::new();
        let files = sources::expand(std::slice::from_ref(&path.to_owned()), &mut findings);
        let in_force = |file: &PathBuf| self.store.entries.contains_key(file);
        let lenient = path.is_dir() && files.iter().any(in_force);
        let outcomes = in_parallel(&files, |file| self.load_one(file));
        let mut certificates = Vec::with_capacity(files.len());
        for (file, (entry, found)) in files.into_iter().zip(outcomes) {
            match entry {
                Some(entry) => {
                    entry.certificate.check_dates(self.now, &mut findings);
                    findings.extend(entry.findings.iter().chain(&found).cloned());
                    certificates.push(entry.certificate.clone());
                    self.entries.insert(file, entry);
                }
                None if lenient => findings.extend(
                    found
                        .into_iter()
                        .map(|finding| finding.tolerated("it is left out until it is mended")),
                ),
                None => findings.extend(found),
            }
        }
        (certificates, findings)
    }

    /// Everything that was loaded, to be committed.
    pub fn finish(self) -> Loaded {
        Loaded { entries: self.entries, passphrases: self.passphrases }
    }

    /// The entry of a file, and what is to be said now and not again.
    fn load_one(&self, file: &PathBuf) -> (Option<Entry>, Vec<Finding>) {
        // Before the file is read: whatever changes from here on is noticed next time.
        let stamp = Stamp::of(file);
        let known = self.entries.get(file).or_else(|| self.store.entries.get(file));
        let known = known.filter(|known| known.library == self.library);
        if let Some(known) = known
            && known.stamp.is_some()
            && known.stamp == stamp
        {
            return (Some(known.clone()), Vec::new());
        }
        let mut findings = Vec::new();
        let Some(mut certificate) = load_file(file, self.library, &self.passphrases, &mut findings)
        else {
            let Some(known) = known else { return (None, findings) };
            let outcome = match known.certificate.signing.keep() {
                true => "the certificate read before stays in use",
                false => {
                    "the certificate read before was not in use, and is not served until \
                          the file is mended"
                }
            };
            let findings = findings.into_iter().map(|finding| finding.tolerated(outcome));
            // Without a stamp it is read again each time, until it is good.
            return (Some(Entry { stamp: None, ..known.clone() }), findings.collect());
        };
        certificate.signing = Signing::on_disk(
            Arc::clone(&certificate.source),
            Arc::clone(&certificate.names),
            self.library,
            certificate.signing.certified(),
            certificate.staple_ends,
            &self.store.keys,
        );
        let entry = Entry { library: self.library, stamp, certificate, findings };
        (Some(entry), Vec::new())
    }
}

impl Finding {
    /// The same, as something that need not stop anybody because of `outcome`.
    fn tolerated(self, outcome: &'static str) -> Self {
        match self.severity {
            Severity::Warning => self,
            Severity::Error => {
                let problem = Problem::Tolerated { problem: Box::new(self.problem), outcome };
                Self { severity: Severity::Warning, path: self.path, problem }
            }
        }
    }
}

/// What `work` makes of each item, in their order, by as many threads as it is worth.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = cpus.min(THREADS_MAX).min(items.len() / FILES_PER_THREAD_MIN);
    if threads < 2 {
        return items.iter().map(work).collect();
    }
    let chunks: Vec<&[T]> = items.chunks(FILES_PER_THREAD_MIN).collect();
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, Vec<R>)> = thread::scope(|scope| {
        let begin = |_| {
            scope.spawn(|| {
                let mut done = Vec::new();
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(chunk) = chunks.get(place) else { return done };
                    done.push((place, chunk.iter().map(&work).collect()));
                }
            })
        };
        let readers: Vec<_> = (0..threads).map(begin).collect();
        let join = |reader: thread::ScopedJoinHandle<'_, _>| {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        readers.into_iter().flat_map(join).collect()
    });
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

#[cfg(test)]
mod tests;
