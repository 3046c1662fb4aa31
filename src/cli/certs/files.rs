//! Certificates in files and directories, loaded as forebay loads them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::report::Report;
use crate::tls::CryptoLibrary;
use crate::tls::certificates::examination::{Examination, Standard, examine};
use crate::tls::certificates::{self, Passphrases, Problem};

/// Examines everything at `path` and returns what was found out, with the file.
pub(super) fn look(
    path: &Path,
    library: CryptoLibrary,
    passphrases: &Passphrases,
    standard: Standard<'_>,
    report: &mut Report,
) -> Vec<(String, Examination)> {
    let paths: [PathBuf; 1] = [path.to_owned()];
    let (loaded, findings) = certificates::load(&paths, library, passphrases, SystemTime::now());
    for finding in &findings {
        let place = finding.path.display().to_string();
        match &finding.problem {
            Problem::Unreadable(_) | Problem::NotAFile => report.fail(&place, &finding.problem),
            // Judged below, by the days asked for and for every certificate of the chain.
            Problem::Expired(_)
            | Problem::ExpiresSoon { .. }
            | Problem::NotYetValid(_)
            | Problem::CommonNameOnly(_)
            | Problem::UnlinkedCertificate { .. } => {}
            problem => report.find(&place, problem),
        }
    }
    let mut examined = Vec::new();
    for certificate in &loaded {
        let place = certificate.source.display().to_string();
        let Some(certified) = certificate.signing.certified() else { continue };
        let examination = examine(&certified.cert, library, standard);
        report.examined(&place, &examination);
        examined.push((place, examination));
    }
    examined
}
