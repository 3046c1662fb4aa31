//! One PEM file: its certificates and keys, or what it is instead.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls_pki_types::pem::{self, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::Problem;
use super::encrypted_key::{self, Closed, Passphrases};

/// The sections of a PEM file that matter here.
#[derive(Debug)]
pub(super) struct PemFile {
    /// Its certificates, in the order of the file.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// Its private keys.
    pub(super) keys: Vec<PrivateKeyDer<'static>>,
    /// Its permission bits, if everyone may read it.
    pub(super) readable_by_others: Option<u32>,
}

/// Longer than any chain: 1 MiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a file that should hold PEM certificates, keys, or both; `passphrases` open keys
/// that are encrypted.
pub(super) fn read(path: &Path, passphrases: &Passphrases) -> Result<PemFile, Problem> {
    let unreadable = |error: std::io::Error| Problem::Unreadable(error.to_string());
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        // Opening a FIFO would wait for its writer.
        return Err(Problem::NotAFile);
    }
    let mut contents = Zeroizing::new(Vec::new());
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents))
        .map_err(unreadable)?;
    if contents.len() as u64 > FILE_BYTES_MAX {
        return Err(Problem::TooLarge { limit_bytes: FILE_BYTES_MAX });
    }
    let (certificates, keys) = parse(path, &contents, passphrases)?;
    let mode = metadata.mode() & 0o7777;
    let readable_by_others = (mode & 0o004 != 0).then_some(mode);
    Ok(PemFile { certificates, keys, readable_by_others })
}

type Sections = (Vec<CertificateDer<'static>>, Vec<PrivateKeyDer<'static>>);

/// Reads the sections of a file; `path` is for advice.
pub(super) fn parse(
    path: &Path,
    contents: &[u8],
    passphrases: &Passphrases,
) -> Result<Sections, Problem> {
    // Some editors put a byte order mark in front, which would hide the first BEGIN.
    let contents = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents);
    if contents.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::Empty);
    }
    let labels = labels(contents);
    if labels.is_empty() {
        return Err(not_pem(path, contents));
    }
    // OpenSSL's older form says so in a header line (RFC 1421 section 4.6.1.1).
    if contents.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"Proc-Type: 4,ENCRYPTED"))
    {
        return Err(Problem::OldEncryption(path.to_owned()));
    }
    if let Some(problem) = foreign_section(path, &labels) {
        return Err(problem);
    }

    // The reader skips labels that it does not know. What is encrypted shows in the DER.
    let relabelled = Zeroizing::new(without_encrypted_label(contents));
    let contents = relabelled.as_slice();
    let mut certificates = Vec::new();
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(contents) {
        let (kind, der) = section.map_err(|error| Problem::BrokenPem(describe(&error)))?;
        match kind {
            SectionKind::Certificate => certificates.push(CertificateDer::from(der)),
            SectionKind::PrivateKey if encrypted_key::is_encrypted(&der) => {
                let closed = |closed| closed_key(path, closed);
                keys.push(encrypted_key::open(&der, passphrases).map_err(closed)?);
            }
            // Parameters, requests, revocation lists: harmless, not ours.
            _ => keys.extend(PrivateKeyDer::from_pem(kind, der)),
        }
    }
    Ok((certificates, keys))
}

/// The same with every "ENCRYPTED PRIVATE KEY" called "PRIVATE KEY".
fn without_encrypted_label(contents: &[u8]) -> Vec<u8> {
    const ENCRYPTED: &[u8] = b"ENCRYPTED ";
    let mut relabelled = Vec::with_capacity(contents.len());
    for line in contents.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        let label = [&b"-----BEGIN "[..], b"-----END "]
            .into_iter()
            .find(|mark| line.strip_prefix(*mark).is_some_and(|rest| rest.starts_with(ENCRYPTED)));
        match label {
            Some(mark) => {
                relabelled.extend_from_slice(mark);
                relabelled.extend_from_slice(&line[mark.len() + ENCRYPTED.len()..]);
            }
            None => relabelled.extend_from_slice(line),
        }
    }
    relabelled
}

fn closed_key(path: &Path, closed: Closed) -> Problem {
    let path = path.to_owned();
    match closed {
        Closed::NoPassphrase => Problem::EncryptedKey(path),
        Closed::WrongPassphrases(tried) => Problem::WrongPassphrase { path, tried },
        Closed::Unsupported(what) => Problem::UnsupportedEncryption { path, what },
    }
}

/// What stands between "-----BEGIN " and the dashes, section by section.
fn labels(contents: &[u8]) -> Vec<&[u8]> {
    contents
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter_map(|line| line.strip_prefix(b"-----BEGIN "))
        .map(|rest| rest.split(|byte| *byte == b'-').next().unwrap_or(rest))
        .collect()
}

/// Sections that hold what we want in a form that we do not read.
fn foreign_section(path: &Path, labels: &[&[u8]]) -> Option<Problem> {
    let path = path.display();
    let (label, command) = labels.iter().find_map(|label| match *label {
        b"TRUSTED CERTIFICATE" => {
            Some(("TRUSTED CERTIFICATE", format!("openssl x509 -in {path} -out {path}.pem")))
        }
        b"PKCS7" => {
            Some(("PKCS7", format!("openssl pkcs7 -print_certs -in {path} -out {path}.pem")))
        }
        b"OPENSSH PRIVATE KEY" => {
            Some(("OPENSSH PRIVATE KEY", format!("ssh-keygen -p -m PEM -f {path}")))
        }
        _ => None,
    })?;
    Some(Problem::ForeignSection { label, command })
}

/// Names the usual binary forms, which are all one DER SEQUENCE.
fn not_pem(path: &Path, contents: &[u8]) -> Problem {
    // PFX ::= SEQUENCE { version INTEGER (3), ... }: RFC 7292 section 4.
    let sequence = super::der::sequence_content(contents);
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    let is_pkcs12 = sequence.is_some_and(|sequence| sequence.starts_with(&[0x02, 0x01, 0x03]))
        || ending.is_some_and(|ending| ending == "p12" || ending == "pfx");
    if x509_parser::parse_x509_certificate(contents).is_ok() {
        Problem::DerCertificate(path.to_owned())
    } else if is_pkcs12 {
        Problem::Pkcs12(path.to_owned())
    } else if PrivateKeyDer::try_from(contents).is_ok() {
        Problem::DerKey(path.to_owned())
    } else {
        Problem::NotPem
    }
}

fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("the section {:?} has no END line", String::from_utf8_lossy(end_marker))
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("bad BEGIN line {:?}", String::from_utf8_lossy(line))
        }
        pem::Error::Base64Decode(_) => "a section is not valid base64".to_owned(),
        error => error.to_string(),
    }
}
