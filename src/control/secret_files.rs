//! Files of secrets (those of session tickets, the passphrases of keys): read with a look
//! at who else may read them, written so that a crash leaves the old content or the new.

#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::replace_file;
use crate::tls::tickets::Secret;
use crate::tls::tickets::secret_file::{FILE_BYTES_MAX, SecretFile, SecretFileError};

/// Why a file of secrets was not read or written. The path goes in front.
#[derive(Debug, thiserror::Error)]
pub enum SecretFilesError {
    /// The kernel's answer.
    #[error("{path}: cannot be {what}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A secret that others read is none.
    #[error(
        "{path}: has mode {mode:04o}, so others than its owner can read or change it: \
         `chmod 600 {path}`, and make new secrets if somebody may have read it"
    )]
    OpenToOthers {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory or a device.
    #[error("{path}: is not a regular file")]
    NotAFile {
        /// The path.
        path: String,
    },
    /// Larger than any file of its kind.
    #[error("{path}: is larger than {bytes_max} bytes")]
    TooLarge {
        /// The file.
        path: String,
        /// The bound.
        bytes_max: usize,
    },
    /// The content is wrong.
    #[error("{path}: {source}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: SecretFileError,
    },
}

/// What tells one version of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Permissions count too.
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of what is at `path` now; `None` if nothing can be seen there.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }
}

impl From<&fs::Metadata> for Stamp {
    fn from(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Reads the file of ticket secrets at `path`.
///
/// # Errors
/// It cannot be read, others can read it, or its content is wrong.
pub fn read(path: &Path) -> Result<(SecretFile, Stamp), SecretFilesError> {
    // The parser says what is wrong with a file that is too large.
    let (content, stamp) = read_start(path, FILE_BYTES_MAX + 1)?;
    let parsed = SecretFile::parse(&content)
        .map_err(|source| SecretFilesError::Content { path: path.display().to_string(), source })?;
    Ok((parsed, stamp))
}

/// Reads a file of at most `bytes_max` bytes that nobody but its owner can read.
///
/// # Errors
/// It cannot be read, is larger, or others can read it.
pub fn read_content(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, SecretFilesError> {
    let (content, _) = read_start(path, bytes_max + 1)?;
    if content.len() > bytes_max {
        let path = path.display().to_string();
        return Err(SecretFilesError::TooLarge { path, bytes_max });
    }
    Ok(content)
}

/// Up to `bytes_max` bytes from the start of a file that nobody but its owner can read.
fn read_start(
    path: &Path,
    bytes_max: usize,
) -> Result<(Zeroizing<Vec<u8>>, Stamp), SecretFilesError> {
    let name = || path.display().to_string();
    let io = |source| SecretFilesError::Io { path: name(), what: "read", source };
    // A named pipe without a writer would wait for ever.
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(SecretFilesError::NotAFile { path: name() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretFilesError::OpenToOthers { path: name(), mode });
    }
    // As large as it can become, so that no copy is left behind.
    let mut content = Zeroizing::new(Vec::with_capacity(bytes_max));
    let most = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut content).map_err(io)?;
    Ok((content, Stamp::from(&metadata)))
}

/// Puts `secrets` at `path`, in our own form, in the place of what is there: all of it or
/// nothing (rename(2)), readable by the owner alone, on the disk when this returns.
///
/// # Errors
/// The kernel's. The file is as it was.
pub fn replace<'a>(
    path: &Path,
    secrets: impl IntoIterator<Item = &'a Secret>,
) -> Result<(), SecretFilesError> {
    let error =
        |source| SecretFilesError::Io { path: path.display().to_string(), what: "written", source };
    replace_file::replace(path, SecretFile::print(secrets).as_bytes()).map_err(error)
}

/// Makes the file at `path`, which must not be there yet.
///
/// # Errors
/// The kernel's, such as that it exists.
pub fn create<'a>(
    path: &Path,
    secrets: impl IntoIterator<Item = &'a Secret>,
) -> Result<(), SecretFilesError> {
    let content = SecretFile::print(secrets);
    replace_file::write_new(path, content.as_bytes()).map_err(|source| SecretFilesError::Io {
        path: path.display().to_string(),
        what: "made",
        source,
    })
}
