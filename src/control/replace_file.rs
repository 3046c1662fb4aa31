//! Files that are replaced whole: whoever reads one finds the old content or the new.

#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Puts `content` at `path` in the place of what is there: all of it or nothing
/// (rename(2)), readable by the owner alone, on the disk when this returns.
///
/// # Errors
/// The kernel's. The file is as it was.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, |file| file.write_all(content))
}

/// The same with what `write` writes.
///
/// # Errors
/// The kernel's. The file is as it was.
pub fn replace_with(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    // Where a link points, so that the link stays.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let beside = beside(&target);
    write_beside(&beside, write)
        .and_then(|()| keep_owner(&target, &beside))
        .and_then(|()| fs::rename(&beside, &target))
        .inspect_err(|_| {
            // What is left of a failed attempt may hold secrets.
            let _ = fs::remove_file(&beside);
        })?;
    // The name is in the directory; without this a crash could bring the old file back.
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new("."))).and_then(|at| at.sync_all())
}

fn beside(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    target.with_file_name(name)
}

/// Takes the place of what an earlier attempt may have left.
fn write_beside(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => write_new_with(path, write),
    }
}

/// Makes a file that must not be there yet, readable by the owner alone.
///
/// # Errors
/// The kernel's.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    write_new_with(path, |file| file.write_all(content))
}

fn write_new_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // The umask may have taken bits away, and a file that its owner cannot read is no use.
    file.set_permissions(Permissions::from_mode(0o600))?;
    write(&mut file)?;
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
