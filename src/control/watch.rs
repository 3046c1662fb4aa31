//! Notices that certificate files have changed (inotify(7)), and waits until whoever
//! writes them has finished.
//!
//! Directories are watched, not files: a renewal that writes beside and renames makes a
//! new file, and a new certificate in a directory is to be noticed too. Where a watch cannot be
//! had, or may not see everything, SIGHUP looks at every file.
//!
//! May know: paths. Must not know: what a certificate is, beyond how its file is called.

#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::statfs;

/// Files are taken for complete when nothing has happened for so long: a renewal that
/// replaces certificate and key one after the other is one change.
const QUIET: Duration = Duration::from_millis(250);

/// A directory in which something happens all the time is looked at after so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Events taken at one look. With more than this, all files are looked at.
const EVENTS_MAX: usize = 16_384;

/// With more files than this, all are looked at.
const FILES_MAX: usize = 4_096;

/// The endings of what may lie beside a certificate: its key, staple and policy.
const BESIDE: [&str; 3] = ["key", "ocsp", "policy"];

/// File systems on which nothing changes but through this kernel, so that inotify(7) tells of
/// it: by their numbers in statfs(2). Others, of the network above all, may change unseen.
const SEEN_FILE_SYSTEMS: [u32; 9] = [
    0x0000_ef53, // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xca45_1a4e, // bcachefs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs: whoever changes a layer beneath it must not, says the kernel
];

/// What a certificate store changes instead of files: Kubernetes switches a whole volume
/// by renaming this link.
const VOLUME_LINK: &str = "..data";

/// Watches the places that certificates come from.
#[derive(Debug, Default)]
pub struct Watch {
    inotify: Option<OwnedFd>,
    /// Whether every place is watched.
    complete: bool,
    /// Whether, besides, no directory is on a file system that may change unseen.
    sees_all: bool,
    places: HashSet<PathBuf>,
    directories: HashMap<i32, Directory>,
    change: Option<Change>,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// These files, as they are called by way of the places that are watched; others have
    /// not.
    Files(HashSet<PathBuf>),
    /// Nobody knows; it may be anything.
    Anything,
}

/// What a watch has to say to somebody who reads everything now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What has changed.
    pub changed: Changed,
    /// Whether that is all, short of what happens to a file elsewhere that a link leads to.
    pub is_all: bool,
}

impl Changed {
    /// Nothing yet.
    pub fn nothing() -> Self {
        Self::Files(HashSet::new())
    }

    /// Both changes together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Files(mut files), Self::Files(others)) => {
                files.extend(others);
                if files.len() <= FILES_MAX { Self::Files(files) } else { Self::Anything }
            }
            _ => Self::Anything,
        }
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Files(files) if files.is_empty())
    }
}

/// One watched directory.
#[derive(Debug)]
struct Directory {
    /// Device and inode: tells whether a path still leads here.
    identity: Option<(u64, u64)>,
    /// What places call it: a link may lead to it too.
    paths: HashSet<PathBuf>,
    /// Whether every certificate, key, staple and policy in it matters.
    whole: bool,
    /// The files that matter otherwise.
    files: HashSet<OsString>,
}

#[derive(Debug)]
struct Change {
    first: Instant,
    last: Instant,
    what: Changed,
}

impl Watch {
    /// Watches these files and directories, and nothing else. Done before the files are
    /// read, so that no change falls between; what has changed until now is forgotten.
    pub fn set<'a>(&mut self, places: impl Iterator<Item = &'a Path>) {
        let places: HashSet<PathBuf> = places.map(Path::to_owned).collect();
        let watched = places == self.places && self.complete && self.look().is_some();
        if !watched {
            self.places = places;
            self.renew();
        }
        self.change = None;
    }

    /// Whether these files and directories are the ones that are watched.
    pub fn is_on<'a>(&self, places: impl Iterator<Item = &'a Path>) -> bool {
        places.map(Path::to_owned).collect::<HashSet<_>>() == self.places
    }

    /// What has happened that nobody was told of, complete or not, for somebody who reads all
    /// of it now.
    pub fn take(&mut self, now: Instant) -> Told {
        let happened = match self.are_in_place() {
            true => self.look(),
            false => None,
        };
        let is_all = self.sees_all && happened.is_some();
        let happened = happened.unwrap_or_else(|| self.renew());
        self.note(happened, now);
        let changed = self.change.take().map_or_else(Changed::nothing, |change| change.what);
        Told { changed, is_all }
    }

    /// Tells of these again, as if they had just changed.
    pub fn put_back(&mut self, files: HashSet<PathBuf>, now: Instant) {
        self.note(Changed::Files(files), now);
    }

    /// Whether paths lead to the directories that are watched: somebody may have exchanged one
    /// further up, which none of these tells of.
    fn are_in_place(&self) -> bool {
        self.directories.values().all(|directory| {
            let identity_of = |path: &PathBuf| identity(or_here(path));
            directory.identity.is_some()
                && directory.paths.iter().all(|path| identity_of(path) == directory.identity)
        })
    }

    /// What has changed since the last time that this was asked, once it is complete.
    pub fn changed(&mut self, now: Instant) -> Option<Changed> {
        // A directory that is gone may be there again under the same name.
        let happened = self.look().unwrap_or_else(|| self.renew());
        self.note(happened, now);
        let complete = self.change.as_ref().is_some_and(|change| {
            now.duration_since(change.last) >= QUIET || now.duration_since(change.first) >= PATIENCE
        });
        self.change.take_if(|_| complete).map(|change| change.what)
    }

    fn note(&mut self, happened: Changed, now: Instant) {
        if happened.is_nothing() {
            return;
        }
        let before = self.change.take();
        let first = before.as_ref().map_or(now, |change| change.first);
        let what = before.map_or_else(Changed::nothing, |change| change.what).and(happened);
        self.change = Some(Change { first, last: now, what });
    }

    /// Begins anew. Whatever has happened may have gone unseen.
    fn renew(&mut self) -> Changed {
        self.directories.clear();
        self.complete = false;
        self.sees_all = false;
        // Closing the old one ends all of its watches.
        self.inotify = None;
        let inotify = match inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC) {
            Ok(inotify) => inotify,
            Err(error) => {
                unwatched(Path::new("anywhere"), error);
                return Changed::Anything;
            }
        };
        self.complete = true;
        self.sees_all = true;
        for place in &self.places {
            let whole = place.is_dir();
            let path = if whole { Some(place.as_path()) } else { place.parent() };
            let path = path.unwrap_or(Path::new(""));
            let directory = or_here(path);
            let flags = WatchFlags::CLOSE_WRITE
                | WatchFlags::MODIFY
                | WatchFlags::ATTRIB
                | WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::DELETE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            match inotify::add_watch(&inotify, directory, flags) {
                Ok(watch) => {
                    self.sees_all &= sees_all(directory);
                    let directory = self.directories.entry(watch).or_insert_with(|| Directory {
                        identity: identity(directory),
                        paths: HashSet::new(),
                        whole: false,
                        files: HashSet::new(),
                    });
                    directory.paths.insert(path.to_owned());
                    directory.whole |= whole;
                    let beside = BESIDE.map(|ending| place.with_extension(ending));
                    let files = beside.iter().chain([place]);
                    directory
                        .files
                        .extend(files.filter_map(|file| file.file_name()).map(OsStr::to_owned));
                }
                Err(error) => {
                    self.complete = false;
                    self.sees_all = false;
                    unwatched(directory, error);
                }
            }
        }
        self.inotify = Some(inotify);
        Changed::Anything
    }

    /// What has happened that matters; `None` if a directory is gone.
    fn look(&self) -> Option<Changed> {
        let mut happened = Changed::nothing();
        let Some(inotify) = &self.inotify else { return Some(happened) };
        let mut buffer = [MaybeUninit::uninit(); 4_096];
        let mut reader = Reader::new(inotify, &mut buffer);
        for _ in 0..EVENTS_MAX {
            // WOULDBLOCK: that was all. Other errors do not come from inotify(7).
            let Ok(event) = reader.next() else { return Some(happened) };
            let flags = event.events();
            if flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
                return None;
            }
            // Too much has happened for the kernel to keep.
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                happened = Changed::Anything;
            }
            if let (Some(directory), Some(name)) =
                (self.directories.get(&event.wd()), event.file_name())
            {
                happened = happened.and(directory.change_of(OsStr::from_bytes(name.to_bytes())));
            }
        }
        // More may have happened than was looked at.
        Some(Changed::Anything)
    }
}

impl Directory {
    /// What it means that something has happened to the file of this name.
    fn change_of(&self, name: &OsStr) -> Changed {
        if name == VOLUME_LINK {
            return Changed::Anything;
        }
        let ending = Path::new(name).extension().and_then(OsStr::to_str);
        let is_kind = |ending| ["pem", "crt"].contains(&ending) || BESIDE.contains(&ending);
        let matters = self.whole && ending.is_some_and(is_kind) || self.files.contains(name);
        if !matters {
            return Changed::nothing();
        }
        Changed::Files(self.paths.iter().map(|path| path.join(name)).collect())
    }
}

fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn identity(directory: &Path) -> Option<(u64, u64)> {
    directory.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Whether nothing changes in a directory but through this kernel.
fn sees_all(directory: &Path) -> bool {
    // The number is 32 bits long whatever the type.
    let magic = statfs(directory).map(|facts| facts.f_type as u32);
    let seen = magic.is_ok_and(|magic| SEEN_FILE_SYSTEMS.contains(&magic));
    if !seen {
        tracing::info!(
            directory = %directory.display(),
            "its file system may change unseen: every reload that is asked for looks at all files"
        );
    }
    seen
}

fn unwatched(place: &Path, error: rustix::io::Errno) {
    tracing::warn!(
        directory = %place.display(),
        %error,
        "certificates are not watched for changes: send SIGHUP after renewing them"
    );
}

#[cfg(test)]
mod tests;
