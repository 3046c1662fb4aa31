//! Files of secrets (those of session tickets, the passphrases of keys): read with a look
//! at who else may read them, written so that a crash leaves the old content or the new.

#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

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
    // Where a link points, so that the link stays.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let beside = beside(&target);
    let content = SecretFile::print(secrets);
    write_beside(&beside, content.as_bytes())
        .and_then(|()| keep_owner(&target, &beside))
        .and_then(|()| fs::rename(&beside, &target))
        .map_err(|source| {
            // What is left of a failed attempt holds secrets.
            let _ = fs::remove_file(&beside);
            error(source)
        })?;
    // The name is in the directory; without this a crash could bring the old file back.
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new("."))).and_then(|at| at.sync_all()).map_err(error)
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
    write_new(path, content.as_bytes()).map_err(|source| SecretFilesError::Io {
        path: path.display().to_string(),
        what: "made",
        source,
    })
}

fn beside(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    target.with_file_name(name)
}

/// Takes the place of what an earlier attempt may have left.
fn write_beside(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => write_new(path, content),
    }
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // The umask may have taken bits away, and a file that its owner cannot read is no use.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    file.sync_all()
}

/// Whoever could read the old file, such as forebay's own user when root rotates, can read
/// the new one.
fn keep_owner(old: &Path, new: &Path) -> io::Result<()> {
    match (fs::metadata(old), fs::metadata(new)) {
        (Ok(old), Ok(made)) if (old.uid(), old.gid()) != (made.uid(), made.gid()) => {
            std::os::unix::fs::chown(new, Some(old.uid()), Some(old.gid()))
        }
        _ => Ok(()),
    }
}
