//! `forebay certs list`: what is served, as table or JSON.
//!
//! From the running process, by its admin address, a page at a time; else from the files of
//! the configuration, and then nobody knows when a certificate was last used.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

use super::super::admin_client::{self, AdminClientError, Which};
use super::super::output::{say, table};
use super::super::{ExitStatus, FAILURE, SUCCESS, WRONG_INPUT};
use crate::config;
use crate::control::key_passphrases;
use crate::control::served::{PAGE_MAX, ServedCertificate, ServedPage};
use crate::tls::certificates::examination::leaf_issuer;
use crate::tls::certificates::{self, Severity, day, minute};

/// How long a page may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Names shown of one certificate in the table.
const NAMES_IN_TABLE: usize = 3;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 shown; 1 some certificates cannot be loaded; 2 nothing could be shown."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// A certificate with what only its file tells.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    served: ServedCertificate,
    /// `None` if the file cannot be read here.
    issuer: Option<String>,
}

pub(super) fn list(arguments: &Arguments) -> ExitStatus {
    let asked = arguments.which.address().and_then(ask_for_all);
    let (served, status) = match (asked, &arguments.which.config) {
        (Ok(served), _) => (served, SUCCESS),
        (Err(error), Some(file)) => {
            eprintln!("{error}");
            eprintln!("shown is what {} names, without last use", file.display());
            let Some(loaded) = load(file) else { return WRONG_INPUT };
            loaded
        }
        (Err(error), None) => {
            eprintln!("{error}");
            return WRONG_INPUT;
        }
    };
    let listed: Vec<Listed> = served
        .into_iter()
        .map(|served| Listed { issuer: issuer_in(Path::new(&served.file)), served })
        .collect();
    if arguments.json {
        match serde_json::to_string_pretty(&listed) {
            Ok(text) => say(text),
            Err(error) => eprintln!("forebay: {error}"),
        }
    } else {
        print_table(&listed);
    }
    status
}

fn ask_for_all(address: std::net::SocketAddr) -> Result<Vec<ServedCertificate>, AdminClientError> {
    admin_client::all_pages(
        address,
        TIMEOUT,
        |offset| format!("/certificates?offset={offset}&limit={PAGE_MAX}"),
        |page: ServedPage| (page.certificates, page.next_offset),
    )
}

/// What a configuration would serve; `None` if it cannot be read.
fn load(file: &Path) -> Option<(Vec<ServedCertificate>, ExitStatus)> {
    let (settings, mut findings) = config::load_in_part(file);
    let passphrases = settings.as_ref().and_then(|one| key_passphrases::read(one, &mut findings));
    for finding in findings.iter().filter(|finding| finding.is_error()) {
        eprintln!("{finding}");
    }
    let settings = settings?;
    let passphrases = passphrases.unwrap_or_default();
    let mut status = SUCCESS;
    let mut served = Vec::new();
    for listener in &settings.listeners {
        let paths = listener.default_certificate.iter().chain(&listener.certificates);
        let paths: Vec<_> = paths.map(|path| path.value.clone()).collect();
        let (loaded, problems) =
            certificates::load(&paths, settings.tls.provider, &passphrases, SystemTime::now());
        for problem in &problems {
            eprintln!("{problem}");
            if problem.severity == Severity::Error {
                status = FAILURE;
            }
        }
        served.extend(loaded.iter().map(|certificate| ServedCertificate {
            in_memory: false,
            ..ServedCertificate::new(&listener.name, certificate)
        }));
    }
    Some((served, status))
}

/// The issuer of the certificate that a file is about.
fn issuer_in(file: &Path) -> Option<String> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(file).ok()?.collect::<Result<_, _>>().ok()?;
    leaf_issuer(&chain)
}

fn print_table(listed: &[Listed]) {
    let mut rows = vec![
        ["NAMES", "KEY", "EXPIRES", "STAPLE UNTIL", "LAST USED", "LISTENER", "FILE", "ISSUER"]
            .map(str::to_owned),
    ];
    rows.extend(listed.iter().map(|Listed { served, issuer }| {
        let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            names(served),
            served.key.clone(),
            day(served.not_after),
            text(served.staple_ends.map(day)),
            text(served.last_used.map(minute)),
            served.listener.clone(),
            served.file.clone(),
            text(issuer.clone()),
        ]
    }));
    table(rows);
}

fn names(served: &ServedCertificate) -> String {
    if served.names.is_empty() {
        return "-".to_owned();
    }
    let shown = served.names.iter().take(NAMES_IN_TABLE).cloned().collect::<Vec<_>>().join(" ");
    match served.names_total.saturating_sub(NAMES_IN_TABLE) {
        0 => shown,
        more => format!("{shown} +{more}"),
    }
}
