//! The index of certificate files on the disk: read at start, written behind everybody's
//! back whenever what it says has changed.
//!
//! Whatever goes wrong with it costs time at the next start, and nothing else: it is said in
//! one line of the log.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use memmap2::MmapMut;

use super::replace_file;
use crate::tls::certificates::file_index::{FileIndex, Snapshot};

/// A million certificates with some names each.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Keeps the index at one path. Clones keep the same.
#[derive(Clone, Debug)]
pub struct IndexKeeper {
    path: PathBuf,
    writing: Arc<Mutex<Writing>>,
}

/// One thread writes at a time; who comes meanwhile takes the place of who waits.
#[derive(Debug, Default)]
struct Writing {
    busy: bool,
    next: Option<Snapshot>,
}

impl IndexKeeper {
    /// Keeps the index at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, writing: Arc::default() }
    }

    /// What an earlier process has written; nothing if that is of no use.
    pub fn read(&self) -> FileIndex {
        let file = self.path.display();
        let bytes = match read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::info!(%file, "there is no index of certificates yet: reading them all");
                return FileIndex::default();
            }
            Err(error) => {
                tracing::warn!(
                    %file,
                    %error,
                    "the index of certificates cannot be read: reading them all"
                );
                return FileIndex::default();
            }
        };
        FileIndex::read(bytes).unwrap_or_else(|error| {
            let why = error.to_string();
            tracing::warn!(
                %file,
                why,
                "the index of certificates is not used: reading them all, and making it anew"
            );
            FileIndex::default()
        })
    }

    /// Has the index written by another thread, which nobody waits for.
    pub fn keep(&self, snapshot: Snapshot) {
        let mut writing = self.lock();
        writing.next = Some(snapshot);
        if writing.busy {
            return;
        }
        writing.busy = true;
        drop(writing);
        let this = self.clone();
        let started = thread::Builder::new().name("index".to_owned()).spawn(move || this.write());
        if let Err(error) = started {
            *self.lock() = Writing::default();
            self.not_written(&error);
        }
    }

    fn write(&self) {
        loop {
            let next = {
                let mut writing = self.lock();
                writing.busy = writing.next.is_some();
                writing.next.take()
            };
            let Some(snapshot) = next else { return };
            let written = replace_file::replace_with(&self.path, |file| {
                let mut file = BufWriter::new(file);
                snapshot.write_to(&mut file)?;
                file.flush()
            });
            match written {
                Ok(()) => tracing::debug!(
                    file = %self.path.display(),
                    certificates = snapshot.files.len(),
                    "the index of certificates is written"
                ),
                Err(error) => self.not_written(&error),
            }
        }
    }

    fn not_written(&self, error: &io::Error) {
        tracing::warn!(
            file = %self.path.display(),
            %error,
            "the index of certificates cannot be written: the next start reads them all"
        );
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Into memory of its own, which goes back to the kernel as soon as it is not needed: what the
/// allocator has once had stays where memory is locked, because locked pages cannot be given
/// back one by one (madvise(2), `MADV_DONTNEED`).
fn read(path: &Path) -> io::Result<impl AsRef<[u8]> + Send + Sync + 'static> {
    // Opening a FIFO would wait for its writer.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut file = File::open(path)?;
    let length_bytes = file.metadata()?.len();
    if length_bytes > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    let length_bytes = usize::try_from(length_bytes).map_err(io::Error::other)?;
    let mut bytes = MmapMut::map_anon(length_bytes)?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
