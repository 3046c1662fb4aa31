//! From the settings of client authentication to gates: files of authorities and
//! revocation lists read, verifiers built.
//!
//! One [`ClientFiles`] serves one preparation: what several listeners and names share is
//! read once, and found wanting once.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::metrics::RevocationListEnd;
use crate::config::client_auth::{ClientAuthMode, ClientAuthSettings};
use crate::config::{Finding, ListenerSettings, Located, Settings};
use crate::tls::client_auth::{AdmittedClients, Demand, Gate, Verifier, VerifierSettings};
use crate::tls::provider;
use crate::tls::tickets::unix_seconds;

/// The largest file that is read. Lists of public authorities have some 10 MiB.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What a file is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holds {
    Authorities,
    RevocationLists,
}

impl Holds {
    const fn section(self) -> SectionKind {
        match self {
            Self::Authorities => SectionKind::Certificate,
            Self::RevocationLists => SectionKind::Crl,
        }
    }
}

/// Why a file cannot be used; its path goes in front.
#[derive(Debug, thiserror::Error)]
enum UnusableFile {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("is not a regular file: name the files one by one")]
    NotAFile,
    #[error("is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("is not PEM as it should be: {0}")]
    BrokenPem(String),
    #[error(
        "holds no certificate in PEM form; for DER: \
         `openssl x509 -inform DER -in {path} -out {path}.pem`",
        path = .0.display()
    )]
    NoCertificate(PathBuf),
    #[error(
        "holds no revocation list in PEM form; for DER: \
         `openssl crl -inform DER -in {path} -out {path}.pem`",
        path = .0.display()
    )]
    NoRevocationList(PathBuf),
}

/// The files of one preparation.
#[derive(Debug, Default)]
pub struct ClientFiles {
    /// What each holds, in DER; `None`: it cannot be used, which has been said.
    read: HashMap<(PathBuf, Holds), Option<Vec<Vec<u8>>>>,
    /// When each revocation list should be replaced.
    pub revocation_lists: Vec<RevocationListEnd>,
}

impl ClientFiles {
    /// The gate that `wanted` asks for at `listener`, which notes in `admitted` whom it lets
    /// in; `None` if clients are not asked for a certificate, or if it cannot be made, which
    /// is among `findings` then.
    pub fn gate(
        &mut self,
        settings: &Settings,
        listener: &ListenerSettings,
        wanted: &ClientAuthSettings,
        admitted: &Arc<AdmittedClients>,
        findings: &mut Vec<Finding>,
    ) -> Option<Arc<Gate>> {
        let demand = match wanted.mode {
            ClientAuthMode::None => return None,
            ClientAuthMode::Optional => Demand::Optional,
            ClientAuthMode::Required => Demand::Required,
        };
        let authorities = self.all(settings, &wanted.authorities, Holds::Authorities, findings);
        let lists = self.all(settings, &wanted.revocation_lists, Holds::RevocationLists, findings);
        let (authorities, lists) = (authorities?, lists?);
        let policy = &listener.policy;
        let library = settings.tls.provider;
        // Of a listener without, the policy says so.
        let provider =
            provider::crypto_provider(library, &policy.cipher_suites, &policy.groups).ok()?;
        let verifier = VerifierSettings {
            demand,
            authorities: authorities.into_iter().map(CertificateDer::from).collect(),
            revocation_lists: lists.into_iter().map(CertificateRevocationListDer::from).collect(),
            revocation: wanted.revocation,
            rules: wanted.rules.clone(),
        };
        match Verifier::new(verifier, Arc::new(provider)) {
            Ok(verifier) => Some(Arc::new(Gate::new(Arc::new(verifier), Arc::clone(admitted)))),
            Err(error) => {
                let first = wanted.authorities.first().map(|first| first.place.clone());
                findings.push(settings.error(&first.unwrap_or_default(), error.to_string()));
                None
            }
        }
    }

    /// What all of the files hold, if all of them can be used.
    fn all(
        &mut self,
        settings: &Settings,
        paths: &[Located<PathBuf>],
        holds: Holds,
        findings: &mut Vec<Finding>,
    ) -> Option<Vec<Vec<u8>>> {
        let mut all = Some(Vec::new());
        for path in paths {
            let key = (path.value.clone(), holds);
            if !self.read.contains_key(&key) {
                let read = match read(&path.value, holds) {
                    Ok(read) => {
                        if holds == Holds::RevocationLists {
                            self.note_lists(settings, path, &read, findings);
                        }
                        Some(read)
                    }
                    Err(error) => {
                        let message = format!("{} {error}", path.value.display());
                        findings.push(settings.error(&path.place, message));
                        None
                    }
                };
                self.read.insert(key.clone(), read);
            }
            match (&mut all, &self.read[&key]) {
                (Some(all), Some(read)) => all.extend_from_slice(read),
                _ => all = None,
            }
        }
        all
    }

    /// When the lists of a file should be replaced. What is wrong with one is said by the
    /// verifier.
    fn note_lists(
        &mut self,
        settings: &Settings,
        path: &Located<PathBuf>,
        lists: &[Vec<u8>],
        findings: &mut Vec<Finding>,
    ) {
        for der in lists {
            let Ok((_, list)) = CertificateRevocationList::from_der(der) else { continue };
            let Some(next_update) = list.next_update() else { continue };
            let end = RevocationListEnd {
                issuer: list.issuer().to_string(),
                source: path.value.display().to_string(),
                next_update_unix_seconds: next_update.timestamp(),
            };
            if u64::try_from(end.next_update_unix_seconds).is_ok_and(|end| end < unix_seconds()) {
                let message = format!(
                    "{}: the list of {} should have been replaced by {next_update}",
                    end.source, end.issuer
                );
                let help = "fetch the present one: until then clients of this issuer are \
                            refused, unless crl_outdated = \"accept\"";
                findings.push(settings.warning(&path.place, message).with_help(help));
            }
            self.revocation_lists.push(end);
        }
    }
}

/// The DER of every section of the kind that the file is to hold; others are passed over.
fn read(path: &Path, holds: Holds) -> Result<Vec<Vec<u8>>, UnusableFile> {
    if !path.metadata()?.is_file() {
        // Opening a FIFO would wait for its writer.
        return Err(UnusableFile::NotAFile);
    }
    let mut contents = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > FILE_BYTES_MAX {
        return Err(UnusableFile::TooLarge);
    }
    let mut sections = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&contents) {
        let (kind, der) = section.map_err(|error| UnusableFile::BrokenPem(error.to_string()))?;
        if kind == holds.section() {
            sections.push(der);
        }
    }
    match (sections.is_empty(), holds) {
        (false, _) => Ok(sections),
        (true, Holds::Authorities) => Err(UnusableFile::NoCertificate(path.to_owned())),
        (true, Holds::RevocationLists) => Err(UnusableFile::NoRevocationList(path.to_owned())),
    }
}
