//! Which files the configured paths lead to.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Finding, Problem};

/// The certificate files behind `paths`, each once, in the order of configuration and,
/// in a directory, of name.
pub(super) fn expand(paths: &[PathBuf], findings: &mut Vec<Finding>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            match certificate_files(path) {
                Ok(found) if found.is_empty() => {
                    findings.push(Finding::new(path, Problem::EmptyDirectory));
                }
                Ok(found) => files.extend(found),
                Err(error) => {
                    findings.push(Finding::new(path, Problem::Unreadable(error.to_string())));
                }
            }
        } else {
            files.push(path.clone());
        }
    }
    // A file that is listed and also lies in a listed directory is meant once.
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    files
}

fn certificate_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if is_certificate_file(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_certificate_file(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let ending = path.extension().and_then(OsStr::to_str);
    !hidden && matches!(ending, Some("pem" | "crt")) && !path.is_dir()
}
