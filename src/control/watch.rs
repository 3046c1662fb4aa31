//! Notices that certificate files have changed (inotify(7)), and waits until whoever
//! writes them has finished.
//!
//! Directories are watched, not files: a renewal that writes beside and renames makes a
//! new file, and a new certificate in a directory is to be noticed too. Nothing here is
//! relied on: where a watch cannot be had, SIGHUP does the same.
//!
//! May know: paths. Must not know: what a certificate is, beyond how its file is called.

#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// Files are taken for complete when nothing has happened for so long: a renewal that
/// replaces certificate and key one after the other is one change.
const QUIET: Duration = Duration::from_millis(250);

/// A directory in which something happens all the time is looked at after so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Events taken at one look; the rest is there at the next one.
const EVENTS_MAX: usize = 4_096;

/// What a certificate store changes instead of files: Kubernetes switches a whole volume
/// by renaming this link.
const VOLUME_LINK: &str = "..data";

/// Watches the places that certificates come from.
#[derive(Debug, Default)]
pub struct Watch {
    inotify: Option<OwnedFd>,
    /// Whether every place is watched.
    complete: bool,
    places: HashSet<PathBuf>,
    directories: HashMap<i32, Directory>,
    change: Option<Change>,
}

/// One watched directory.
#[derive(Debug, Default)]
struct Directory {
    /// Whether every certificate, key and staple in it matters.
    whole: bool,
    /// The files that matter otherwise.
    files: HashSet<OsString>,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    first: Instant,
    last: Instant,
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

    /// Whether something has changed since the last time this was so, and is complete.
    pub fn changed(&mut self, now: Instant) -> bool {
        if let Some(looked) = self.look() {
            if looked {
                let first = self.change.map_or(now, |change| change.first);
                self.change = Some(Change { first, last: now });
            }
        } else {
            // A directory is gone, and may be there again under the same name.
            self.renew();
            self.change = Some(Change { first: now, last: now });
        }
        let complete = self.change.is_some_and(|change| {
            now.duration_since(change.last) >= QUIET || now.duration_since(change.first) >= PATIENCE
        });
        if complete {
            self.change = None;
        }
        complete
    }

    fn renew(&mut self) {
        self.directories.clear();
        self.complete = false;
        // Closing the old one ends all of its watches.
        self.inotify = None;
        let inotify = match inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC) {
            Ok(inotify) => inotify,
            Err(error) => return unwatched(Path::new("anywhere"), error),
        };
        self.complete = true;
        for place in &self.places {
            let whole = place.is_dir();
            let directory = if whole { Some(place.as_path()) } else { place.parent() };
            let directory = match directory {
                Some(directory) if !directory.as_os_str().is_empty() => directory,
                _ => Path::new("."),
            };
            let flags = WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::DELETE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            match inotify::add_watch(&inotify, directory, flags) {
                Ok(watch) => {
                    let directory = self.directories.entry(watch).or_default();
                    directory.whole |= whole;
                    // The key and the staple may lie beside.
                    let files =
                        [place.clone(), place.with_extension("key"), place.with_extension("ocsp")];
                    directory.files.extend(
                        files.iter().filter_map(|file| file.file_name()).map(OsStr::to_owned),
                    );
                }
                Err(error) => {
                    self.complete = false;
                    unwatched(directory, error);
                }
            }
        }
        self.inotify = Some(inotify);
    }

    /// Whether anything that matters has happened; `None` if a directory is gone.
    fn look(&self) -> Option<bool> {
        let Some(inotify) = &self.inotify else { return Some(false) };
        let mut buffer = [MaybeUninit::uninit(); 4_096];
        let mut reader = Reader::new(inotify, &mut buffer);
        let mut happened = false;
        for _ in 0..EVENTS_MAX {
            // WOULDBLOCK: that was all. Other errors do not come from inotify(7).
            let Ok(event) = reader.next() else { break };
            let flags = event.events();
            if flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
                return None;
            }
            // Too much has happened for the kernel to keep: anything may have changed.
            happened |= flags.contains(ReadFlags::QUEUE_OVERFLOW);
            if let (Some(directory), Some(name)) =
                (self.directories.get(&event.wd()), event.file_name())
            {
                happened |= directory.cares_for(OsStr::from_bytes(name.to_bytes()));
            }
        }
        Some(happened)
    }
}

impl Directory {
    fn cares_for(&self, name: &OsStr) -> bool {
        let ending = Path::new(name).extension().and_then(OsStr::to_str);
        name == VOLUME_LINK
            || self.whole && matches!(ending, Some("pem" | "crt" | "key" | "ocsp"))
            || self.files.contains(name)
    }
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
