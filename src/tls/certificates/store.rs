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
//! certificates ten cost what ten cost. Those that may have changed without anybody's knowing,
//! and those that somebody is to be told of again, are remembered by themselves. At the start of a process the [file index](super::file_index)
//! says what was in the files that have not changed since it was written.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::SystemTime;

use aws_lc_rs::digest::{self, SHA256};
use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxAttributes, StatxFlags, makedev, statx};

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
    /// Files that are looked at whenever somebody asks for it: bad ones, such that somebody is
    /// warned of, and such that may be changed from elsewhere.
    doubtful: HashSet<Arc<Path>>,
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
    /// Whether something else than a change in its directory may change it.
    reached_from_elsewhere: bool,
    certificate: Arc<LoadedCertificate>,
    /// Warnings that hold as long as the file does not change.
    findings: Box<[Finding]>,
}

/// What tells whether a certificate's file, or one that lies beside it, has changed: half of
/// a SHA-256 digest of what the kernel says of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([u8; 16]);

/// What the kernel says of a certificate's files.
struct Stamped {
    stamp: Stamp,
    reached_from_elsewhere: bool,
}

impl Stamped {
    fn of(path: &Path, listing: &Listing) -> Option<Self> {
        let mut context = digest::Context::new(&SHA256);
        let mut reached_from_elsewhere = add_identity(&mut context, path)?;
        let beside = [path.with_extension("key"), ocsp::path_of(path), policy_file::path_of(path)];
        for beside in beside {
            let there = listing.may_have(&beside).then(|| add_identity(&mut context, &beside));
            let there = there.flatten();
            context.update(&[u8::from(there.is_some())]);
            reached_from_elsewhere |= there.unwrap_or_default();
        }
        let stamp = context.finish().as_ref().first_chunk().copied().map(Stamp)?;
        Some(Self { stamp, reached_from_elsewhere })
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
///
/// Returns whether the file may be changed without its directory's knowing, by a link to it,
/// another name of it, or a mount on it.
fn add_identity(context: &mut digest::Context, path: &Path) -> Option<bool> {
    let ask = |flags| statx(CWD, path, flags, StatxFlags::BASIC_STATS).ok();
    let mut facts = ask(AtFlags::SYMLINK_NOFOLLOW)?;
    let is_link = FileType::from_raw_mode(facts.stx_mode.into()) == FileType::Symlink;
    if is_link {
        facts = ask(AtFlags::empty())?;
    }
    let Statx { stx_dev_major, stx_dev_minor, stx_ino, stx_size, stx_mtime, stx_ctime, .. } = facts;
    for number in [makedev(stx_dev_major, stx_dev_minor), stx_ino, stx_size] {
        context.update(&number.to_le_bytes());
    }
    for time in [stx_mtime, stx_ctime] {
        context.update(&time.tv_sec.to_le_bytes());
        context.update(&i64::from(time.tv_nsec).to_le_bytes());
    }
    let is_mount = facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Some(is_link || is_mount || facts.stx_nlink > 1)
}

/// Which files a reload looks at.
#[derive(Clone, Copy, Debug)]
pub enum Look<'a> {
    /// All.
    Everywhere,
    /// These have changed, as a watch says. Besides, whatever it may have missed, and whatever
    /// there is to be told again: somebody has asked.
    Asked(&'a HashSet<PathBuf>),
    /// These have changed, and nobody has asked.
    Changed(&'a HashSet<PathBuf>),
}

impl Entry {
    fn is_doubtful(&self) -> bool {
        self.reached_from_elsewhere || self.stamp.is_none() || !self.findings.is_empty()
    }
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
            look: Look::Everywhere,
            loaded: HashMap::new(),
            read: false,
            left_out: Vec::new(),
            gone: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Puts in force what was loaded; what is no longer named is forgotten.
    pub fn commit(&mut self, loaded: Loaded) {
        let Loaded { entries, left_out, gone, places, passphrases, only_changes, read } = loaded;
        if !only_changes {
            self.doubtful.clear();
        }
        for file in &gone {
            self.doubtful.remove(&**file);
        }
        for (file, entry) in &entries {
            match entry.is_doubtful() {
                true => drop(self.doubtful.insert(Arc::clone(file))),
                false => drop(self.doubtful.remove(file)),
            }
        }
        self.doubtful.extend(left_out);
        if only_changes {
            self.index_outdated |= read;
            for file in &gone {
                self.index_outdated |= self.entries.remove(&**file).is_some();
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
    look: Look<'a>,
    /// Files that were looked at.
    loaded: HashMap<Arc<Path>, Entry>,
    /// Whether any had to be read.
    read: bool,
    /// Files that nothing could be made of.
    left_out: Vec<Arc<Path>>,
    gone: Vec<PathBuf>,
    places: HashMap<PathBuf, Certificates>,
}

/// What [`Loading`] came to.
#[derive(Debug)]
pub struct Loaded {
    entries: HashMap<Arc<Path>, Entry>,
    left_out: Vec<Arc<Path>>,
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
    /// Files that are not among these, of certificates or beside them, have not changed since
    /// the last commit: nobody looks at them.
    #[must_use]
    pub fn look(mut self, look: Look<'a>) -> Self {
        // Keys that could not be opened might be now, with another library too.
        let same = self.store.entries.values().next();
        if same.is_some_and(|entry| entry.library == self.library) {
            self.look = look;
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
        let certificates = match (before, self.look) {
            (Some(before), Look::Changed(changed)) => {
                self.load_changed(path, before, changed, &mut findings)
            }
            (Some(before), Look::Asked(changed)) if path.is_dir() => {
                let certificates = self.load_changed(path, before, changed, &mut findings);
                for certificate in certificates.iter() {
                    if !self.loaded.contains_key(&certificate.source) {
                        certificate.check_dates(self.now, &mut findings);
                    }
                }
                certificates
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
        let outcomes = listing.files.iter().zip(outcomes);
        let taken =
            outcomes.filter_map(|(file, outcome)| self.take(file, outcome, lenient, findings));
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
        if let Look::Asked(_) = self.look {
            files.extend(self.store.doubtful.iter().map(|file| file.to_path_buf()));
        }
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
                }
                self.gone.push(file);
                continue;
            }
            let file = Arc::from(file);
            let outcome = self.load_one(&file, &Listing::default());
            match (place, self.take(&file, outcome, !before.is_empty(), findings)) {
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
        file: &Arc<Path>,
        outcome: Outcome,
        lenient: bool,
        findings: &mut Vec<Finding>,
    ) -> Option<Arc<LoadedCertificate>> {
        let (entry, found) = outcome;
        let Some((entry, read)) = entry else {
            self.left_out.push(Arc::clone(file));
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
        self.read |= read;
        self.loaded.insert(Arc::clone(&certificate.source), entry);
        Some(certificate)
    }

    /// Everything that was loaded, to be committed.
    pub fn finish(self) -> Loaded {
        Loaded {
            entries: self.loaded,
            left_out: self.left_out,
            gone: self.gone,
            places: self.places,
            passphrases: self.passphrases,
            only_changes: !matches!(self.look, Look::Everywhere),
            read: self.read,
        }
    }

    fn load_one(&self, file: &Arc<Path>, listing: &Listing) -> Outcome {
        // Before the file is read: whatever changes from here on is noticed next time.
        let stamped = Stamped::of(file, listing);
        let reached_from_elsewhere =
            stamped.as_ref().is_some_and(|stamped| stamped.reached_from_elsewhere);
        let stamp = stamped.map(|stamped| stamped.stamp);
        let entry = |stamp, certificate, findings: Vec<Finding>| Entry {
            library: self.library,
            stamp,
            reached_from_elsewhere,
            certificate: Arc::new(certificate),
            findings: findings.into(),
        };
        let known = self.loaded.get(&**file).or_else(|| self.store.entries.get(&**file));
        let known = known.filter(|known| known.library == self.library);
        if let Some(known) = known
            && known.stamp.is_some()
            && known.stamp == stamp
        {
            let known = Entry { reached_from_elsewhere, ..known.clone() };
            return (Some((known, false)), Vec::new());
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
            return (Some((entry(Some(stamp), certificate, findings), false)), Vec::new());
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
        (Some((entry(stamp, certificate, findings), true)), Vec::new())
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
