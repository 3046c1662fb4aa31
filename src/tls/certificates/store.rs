//! All certificates of a process, across reloads: a file is read again only if it has
//! changed, and one that was changed for the worse costs nothing that works.
//!
//! ```text
//!   Store (in force) ──┐
//!                      ├─▶ Loading: unchanged? taken over : read ──▶ commit ─▶ Store
//!   files ─────────────┘        unreadable now? the old one stays
//! ```
//!
//! Where it is known which files have changed, nobody looks at the others: of 100,000
//! certificates ten cost what ten cost. At the start of a process the [file index](super::file_index)
//! says what was in the files that have not changed since it was written.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::SystemTime;

use aws_lc_rs::digest::{self, SHA256};

use super::file_index::{FileIndex, Snapshot};
use super::sources::Listing;
use super::{
    Finding, KeyCache, LoadedCertificate, Passphrases, Problem, Severity, Signing, load_file, ocsp,
    policy_file, read_policy, sources,
};
use crate::tls::CryptoLibrary;

/// With fewer files than this to read, threads are not worth their start.
const FILES_PER_THREAD_MIN: usize = 64;

/// Threads that read files; more only wait for the disk.
const THREADS_MAX: usize = 16;

/// Certificates in the order in which they are to be tried, shared by whoever has them.
pub type Certificates = Arc<[Arc<LoadedCertificate>]>;

/// The certificates in force, by file.
#[derive(Debug, Default)]
pub struct Store {
    keys: Arc<KeyCache>,
    entries: HashMap<Arc<Path>, Entry>,
    /// What each path of the configuration came to.
    places: HashMap<PathBuf, Certificates>,
    /// What an earlier process wrote down, until the first certificates are in force.
    indexed: FileIndex,
    /// Whether a file index that is written now would differ from the last one.
    index_outdated: bool,
}

/// A file as it was read.
#[derive(Clone, Debug)]
struct Entry {
    library: CryptoLibrary,
    stamp: Option<Stamp>,
    certificate: Arc<LoadedCertificate>,
    /// Warnings that hold as long as the file does not change.
    findings: Box<[Finding]>,
}

/// What tells whether a certificate's file, or one that lies beside it, has changed: half of
/// a SHA-256 digest of what the kernel says of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([u8; 16]);

impl Stamp {
    fn of(path: &Path, listing: &Listing) -> Option<Self> {
        let mut context = digest::Context::new(&SHA256);
        add_identity(&mut context, path)?;
        let beside = [path.with_extension("key"), ocsp::path_of(path), policy_file::path_of(path)];
        for beside in beside {
            let there = listing.may_have(&beside) && add_identity(&mut context, &beside).is_some();
            context.update(&[u8::from(there)]);
        }
        context.finish().as_ref().first_chunk().copied().map(Self)
    }
}

impl Stamp {
    /// Reads what [`Display`](fmt::Display) writes: 32 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A file's state, to the nanosecond. The inode tells renames from rewrites, and the time
/// of change what a copied modification time would hide.
fn add_identity(context: &mut digest::Context, path: &Path) -> Option<()> {
    let metadata = path.metadata().ok()?;
    for number in [metadata.dev(), metadata.ino(), metadata.size()] {
        context.update(&number.to_le_bytes());
    }
    let (modified, changed) = (metadata.mtime(), metadata.ctime());
    for number in [modified, metadata.mtime_nsec(), changed, metadata.ctime_nsec()] {
        context.update(&number.to_le_bytes());
    }
    Some(())
}

impl Store {
    /// A store that need not read the files that have not changed since `index` was written.
    pub fn indexed(index: FileIndex) -> Self {
        Self { indexed: index, ..Self::default() }
    }

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
        Loading {
            store: self,
            library,
            passphrases,
            now,
            changed: None,
            loaded: HashMap::new(),
            gone: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Puts in force what was loaded; what is no longer named is forgotten.
    pub fn commit(&mut self, loaded: Loaded) {
        let Loaded { entries, gone, places, passphrases, only_changes, read } = loaded;
        if only_changes {
            self.index_outdated |= !entries.is_empty() || !gone.is_empty();
            for file in &gone {
                self.entries.remove(&**file);
            }
            self.entries.extend(entries);
        } else {
            let indexed_before = self.entries.len().max(self.indexed.len());
            self.index_outdated |= read || entries.len() != indexed_before;
            self.entries = entries;
        }
        self.places = places;
        self.indexed = FileIndex::default();
        self.keys.set_passphrases(passphrases);
    }

    /// What a later process need not read again, if that is not what was asked for last.
    /// Files with warnings are not in it: they are to be read, and warned of, again.
    pub fn index_if_outdated(&mut self) -> Option<Snapshot> {
        if !std::mem::take(&mut self.index_outdated) {
            return None;
        }
        let library = self.entries.values().next()?.library;
        let files = self.entries.values().filter(|entry| entry.findings.is_empty());
        let files = files.filter_map(|entry| Some((entry.stamp?, Arc::clone(&entry.certificate))));
        Some(Snapshot { library, files: files.collect() })
    }
}

/// Certificates being loaded.
#[derive(Debug)]
pub struct Loading<'a> {
    store: &'a Store,
    library: CryptoLibrary,
    passphrases: Passphrases,
    now: SystemTime,
    changed: Option<&'a HashSet<PathBuf>>,
    /// Files that were looked at, and whether they had to be read.
    loaded: HashMap<Arc<Path>, (Entry, bool)>,
    gone: Vec<PathBuf>,
    places: HashMap<PathBuf, Certificates>,
}

/// What [`Loading`] came to.
#[derive(Debug)]
pub struct Loaded {
    entries: HashMap<Arc<Path>, Entry>,
    gone: Vec<PathBuf>,
    places: HashMap<PathBuf, Certificates>,
    passphrases: Passphrases,
    /// The entries are those of changed files only.
    only_changes: bool,
    /// Whether any file had to be read.
    read: bool,
}

/// A file's entry, whether it had to be read for it, and what is to be said now and not
/// again.
type Outcome = (Option<(Entry, bool)>, Vec<Finding>);

impl<'a> Loading<'a> {
    /// Only these files, of certificates or beside them, have changed since the last
    /// commit: nobody looks at the others.
    #[must_use]
    pub fn only(mut self, changed: &'a HashSet<PathBuf>) -> Self {
        // Keys that could not be opened might be now, with another library too.
        let same = self.store.entries.values().next();
        if same.is_some_and(|entry| entry.library == self.library) {
            self.changed = Some(changed);
        }
        self
    }

    /// Every certificate that `path` leads to, a file or a directory as in
    /// [`super::load`], and everything found wrong.
    ///
    /// Of a file that was good before and is bad now the old certificate is returned, and
    /// the finding is a warning. The same holds, without a certificate, for a bad file in
    /// a directory of which others are in force: one file that somebody puts there must
    /// not keep the rest from being renewed.
    pub fn load(&mut self, path: &Path) -> (Certificates, Vec<Finding>) {
        let mut findings = Vec::new();
        let before = self.store.places.get(path);
        let certificates = match (before, self.changed) {
            (Some(before), Some(changed)) => {
                self.load_changed(path, before, changed, &mut findings)
            }
            _ => self.load_all(path, &mut findings),
        };
        self.places.insert(path.to_owned(), Arc::clone(&certificates));
        (certificates, findings)
    }

    fn load_all(&mut self, path: &Path, findings: &mut Vec<Finding>) -> Certificates {
        let listing = sources::list(path, findings);
        let in_force = |file: &Arc<Path>| self.store.entries.contains_key(file);
        let lenient = path.is_dir() && listing.files.iter().any(in_force);
        self.loaded.reserve(listing.files.len());
        let outcomes = in_parallel(&listing.files, |file| self.load_one(file, &listing));
        let taken =
            outcomes.into_iter().filter_map(|outcome| self.take(outcome, lenient, findings));
        taken.collect()
    }

    /// As [`Self::load_all`], with a look at what has changed of `before` only.
    fn load_changed(
        &mut self,
        path: &Path,
        before: &Certificates,
        changed: &HashSet<PathBuf>,
        findings: &mut Vec<Finding>,
    ) -> Certificates {
        let is_directory = path.is_dir();
        let belongs = |file: &PathBuf| match is_directory {
            true => file.parent() == Some(path),
            false => file == path,
        };
        // A key, a staple or a policy has changed for the certificate beside it.
        let certificate_files = |file: &PathBuf| match is_directory {
            true => vec![file.clone(), file.with_extension("pem"), file.with_extension("crt")],
            false if file.with_extension("") == path.with_extension("") => vec![path.to_owned()],
            false => Vec::new(),
        };
        let mut files: Vec<PathBuf> = changed.iter().flat_map(certificate_files).collect();
        files.retain(belongs);
        files.sort();
        files.dedup();
        if files.is_empty() {
            return Arc::clone(before);
        }
        let mut certificates = before.to_vec();
        for file in files {
            let place = certificates.binary_search_by(|one| (*one.source).cmp(&file));
            if is_directory && !sources::is_certificate_file(&file) {
                if let Ok(place) = place {
                    certificates.remove(place);
                    self.gone.push(file);
                }
                continue;
            }
            let outcome = self.load_one(&Arc::from(file), &Listing::default());
            match (place, self.take(outcome, !before.is_empty(), findings)) {
                (Ok(place), Some(certificate)) => certificates[place] = certificate,
                (Err(place), Some(certificate)) => certificates.insert(place, certificate),
                (_, None) => {}
            }
        }
        if certificates.is_empty() {
            findings.push(Finding::new(path, Problem::EmptyDirectory));
        }
        certificates.into()
    }

    fn take(
        &mut self,
        outcome: Outcome,
        lenient: bool,
        findings: &mut Vec<Finding>,
    ) -> Option<Arc<LoadedCertificate>> {
        let (entry, found) = outcome;
        let Some((entry, read)) = entry else {
            let outcome = "it is left out until it is mended";
            findings.extend(found.into_iter().map(|finding| match lenient {
                true => finding.tolerated(outcome),
                false => finding,
            }));
            return None;
        };
        entry.certificate.check_dates(self.now, findings);
        findings.extend(entry.findings.iter().chain(&found).cloned());
        let certificate = Arc::clone(&entry.certificate);
        self.loaded.insert(Arc::clone(&certificate.source), (entry, read));
        Some(certificate)
    }

    /// Everything that was loaded, to be committed.
    pub fn finish(self) -> Loaded {
        let read = self.loaded.values().any(|(_, read)| *read);
        let entries = self.loaded.into_iter().map(|(file, (entry, _))| (file, entry));
        Loaded {
            entries: entries.collect(),
            gone: self.gone,
            places: self.places,
            passphrases: self.passphrases,
            only_changes: self.changed.is_some(),
            read,
        }
    }

    fn load_one(&self, file: &Arc<Path>, listing: &Listing) -> Outcome {
        // Before the file is read: whatever changes from here on is noticed next time.
        let stamp = Stamp::of(file, listing);
        let known = self.loaded.get(&**file).map(|(entry, _)| entry);
        let known = known.or_else(|| self.store.entries.get(&**file));
        let known = known.filter(|known| known.library == self.library);
        if let Some(known) = known
            && known.stamp.is_some()
            && known.stamp == stamp
        {
            return (Some((known.clone(), false)), Vec::new());
        }
        let mut findings = Vec::new();
        let policy = match listing.may_have(&policy_file::path_of(file)) {
            true => read_policy(file, &mut findings),
            false => Ok(None),
        };
        let Ok(policy) = policy else {
            let Some(known) = known else { return (None, findings) };
            let outcome = "the certificate and the policy read before stay in use";
            let findings = findings.into_iter().map(|finding| finding.tolerated(outcome));
            let kept = Entry { stamp: None, ..known.clone() };
            return (Some((kept, true)), findings.collect());
        };
        let keys = &self.store.keys;
        if let Some(stamp) = stamp
            && let Some(facts) = self.store.indexed.find(file, stamp, self.library)
        {
            let certificate = facts.certificate(Arc::clone(file), policy, self.library, keys);
            return (Some((self.entry(Some(stamp), certificate, findings), false)), Vec::new());
        }
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
            let kept = Entry { stamp: None, ..known.clone() };
            return (Some((kept, true)), findings.collect());
        };
        certificate.source = Arc::clone(file);
        certificate.policy = policy;
        certificate.signing = Signing::on_disk(
            Arc::clone(file),
            Arc::clone(&certificate.names),
            self.library,
            certificate.signing.certified(),
            certificate.staple_ends,
            keys,
        );
        (Some((self.entry(stamp, certificate, findings), true)), Vec::new())
    }

    fn entry(
        &self,
        stamp: Option<Stamp>,
        certificate: LoadedCertificate,
        findings: Vec<Finding>,
    ) -> Entry {
        let (certificate, findings) = (Arc::new(certificate), findings.into());
        Entry { library: self.library, stamp, certificate, findings }
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
fn in_parallel<T: Sync, R: Send + Sync>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = cpus.min(THREADS_MAX).min(items.len() / FILES_PER_THREAD_MIN);
    if threads < 2 {
        return items.iter().map(work).collect();
    }
    // One block of memory, which is given back as one.
    let results: Vec<OnceLock<R>> = items.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let begin = next.fetch_add(FILES_PER_THREAD_MIN, Ordering::Relaxed)
                    && begin < items.len()
                {
                    let end = items.len().min(begin + FILES_PER_THREAD_MIN);
                    for (item, result) in items[begin..end].iter().zip(&results[begin..end]) {
                        // Each place is one thread's.
                        let _ = result.set(work(item));
                    }
                }
            });
        }
    });
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

#[cfg(test)]
mod tests;
