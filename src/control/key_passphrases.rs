//! `tls.key_passphrase_file`: read with the care that a file of ticket secrets gets.

#![forbid(unsafe_code)]

use std::path::Path;

use super::secret_files::{self, SecretFilesError};
use crate::config::{Finding, Settings};
use crate::tls::certificates::{Passphrases, PassphrasesError};

/// Sixteen lines of more than anybody types: 16 KiB.
const FILE_BYTES_MAX: usize = 16 * 1_024;

/// Why the passphrases cannot be used.
#[derive(Debug, thiserror::Error)]
enum KeyPassphrasesError {
    #[error(transparent)]
    File(#[from] SecretFilesError),
    #[error("{path}: {source}")]
    Content { path: String, source: PassphrasesError },
}

/// The passphrases that `settings` name, none without a file. What is wrong with the file
/// is a finding, and then nothing is returned.
pub fn read(settings: &Settings, findings: &mut Vec<Finding>) -> Option<Passphrases> {
    let Some(file) = &settings.tls.key_passphrase_file else {
        return Some(Passphrases::default());
    };
    read_file(&file.value)
        .map_err(|error| findings.push(settings.error(&file.place, error.to_string())))
        .ok()
}

fn read_file(path: &Path) -> Result<Passphrases, KeyPassphrasesError> {
    let content = secret_files::read_content(path, FILE_BYTES_MAX)?;
    Passphrases::parse(&content)
        .map_err(|source| KeyPassphrasesError::Content { path: path.display().to_string(), source })
}
