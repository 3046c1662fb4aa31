//! Which files the configured paths lead to.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Finding, Problem};

/// The files of certificates behind a path, and what lies beside them.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Certificate files, in the order of name.
    pub(super) files: Vec<Arc<Path>>,
    /// All other file names of the directory; `None` if it was not listed.
    pub(super) others: Option<HashSet<OsString>>,
}

impl Listing {
    /// Whether a file may be there, without asking the kernel.
    pub(super) fn may_have(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        self.others.as_ref().is_none_or(|others| others.contains(name))
    }
}

/// The certificate files behind `paths`, each once, in the order of configuration and,
/// in a directory, of name.
pub(super) fn expand(paths: &[PathBuf], findings: &mut Vec<Finding>) -> Vec<Arc<Path>> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(list(path, findings).files);
    }
    // A file that is listed and also lies in a listed directory is meant once.
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    files
}

/// The certificate files behind one path.
pub(super) fn list(path: &Path, findings: &mut Vec<Finding>) -> Listing {
    if !path.is_dir() {
        return Listing { files: vec![path.into()], others: None };
    }
    match certificate_files(path) {
        Ok(listing) => {
            if listing.files.is_empty() {
                findings.push(Finding::new(path, Problem::EmptyDirectory));
            }
            listing
        }
        Err(error) => {
            findings.push(Finding::new(path, Problem::Unreadable(error.to_string())));
            Listing::default()
        }
    }
}

fn certificate_files(directory: &Path) -> io::Result<Listing> {
    let mut files: Vec<Arc<Path>> = Vec::new();
    let mut others = HashSet::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        // Asks the kernel only where the directory does not say what it is.
        let is_directory = || match entry.file_type() {
            Ok(kind) if !kind.is_symlink() => kind.is_dir(),
            _ => entry.path().is_dir(),
        };
        if is_certificate_name(&name) && !is_directory() {
            files.push(entry.path().into());
        } else {
            others.insert(name);
        }
    }
    // As paths are, which differ here in the last component: a tenth of the time.
    files.sort_unstable_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
    Ok(Listing { files, others: Some(others) })
}

/// Whether a file of a directory is taken for a certificate's, and is there.
pub(super) fn is_certificate_file(path: &Path) -> bool {
    path.file_name().is_some_and(is_certificate_name) && path.exists() && !path.is_dir()
}

fn is_certificate_name(name: &OsStr) -> bool {
    let hidden = name.as_encoded_bytes().starts_with(b".");
    let ending = Path::new(name).extension().and_then(OsStr::to_str);
    !hidden && matches!(ending, Some("pem" | "crt"))
}
