//! Certificate files for tests.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::tls::test_support::{openssl_certificate, restrict};

pub(super) const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";

/// A directory with `a.crt` and `a.key`, P-256, for a.example.
pub(super) fn one_certificate() -> TempDir {
    let directory = TempDir::new().unwrap();
    openssl_certificate(directory.path(), "a", P256, "DNS:a.example");
    directory
}

/// Concatenates files of the directory into another.
pub(super) fn concatenate(directory: &Path, from: &[&str], to: &str) -> PathBuf {
    let bytes: Vec<u8> =
        from.iter().flat_map(|name| fs::read(directory.join(name)).unwrap()).collect();
    write(directory, to, &bytes)
}

pub(super) fn write(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, bytes).unwrap();
    restrict(&path);
    path
}
