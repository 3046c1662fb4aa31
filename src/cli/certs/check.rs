//! `forebay certs check`: files, directories, servers, and servers beside each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::{ExitStatus, WRONG_INPUT};
use super::nodes::{Comparison, NODES_MAX};
use super::probe::Prober;
use super::report::{NameReport, Report};
use super::{files, servers};
use crate::config::{self, Settings};
use crate::control::pool_tls::SYSTEM_ROOTS;
use crate::control::{key_passphrases, prepare};
use crate::tls::CryptoLibrary;
use crate::tls::certificates::examination::{Examination, Roots, Standard};
use crate::tls::certificates::{Passphrases, unix_now};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing is wrong; 1 there are findings; 2 something could not be checked."
)]
pub(super) struct Arguments {
    /// Files and directories of certificates, and servers as HOST:PORT; by default the
    /// certificates of the configuration
    #[arg(value_name = "DIR|FILE|HOST:PORT", required_unless_present_any = ["config", "nodes"])]
    targets: Vec<String>,
    /// A configuration file: its certificates are looked at if nothing else is named, their
    /// names are those to be covered, and its passphrases open encrypted keys
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The names to be covered
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    names: Vec<String>,
    /// Certificates that expire within so many days are findings
    #[arg(long, value_name = "DAYS", default_value_t = 30,
          value_parser = clap::value_parser!(i64).range(0..=36_500))]
    days: i64,
    /// The authorities that are trusted, as PEM; by default those of the machine
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// Servers that must be one to a client: same certificate, chain, ALPN and versions, and
    /// each resumes the sessions of every other
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    nodes: Vec<String>,
    /// With --nodes: certificates that are equivalent but not the same are findings too
    #[arg(long, requires = "nodes")]
    same: bool,
    /// Application protocols to offer to servers
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "h2,http/1.1")]
    alpn: Vec<String>,
    /// How long a server may take for a handshake, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// What a target is.
enum Target<'a> {
    Files(&'a Path),
    Server(&'a str),
}

pub(super) fn check(arguments: &Arguments) -> ExitStatus {
    match prepare(arguments) {
        Ok(prepared) => run(arguments, &prepared).print(arguments.json),
        Err(messages) => {
            for message in messages {
                eprintln!("{message}");
            }
            WRONG_INPUT
        }
    }
}

/// What is needed before anything is looked at.
struct Prepared {
    settings: Option<Settings>,
    passphrases: Passphrases,
    roots: Option<Roots>,
    prober: Prober,
}

fn prepare(arguments: &Arguments) -> Result<Prepared, Vec<String>> {
    if arguments.nodes.len() > NODES_MAX || arguments.nodes.len() == 1 {
        return Err(vec![format!("--nodes takes 2 to {NODES_MAX} servers")]);
    }
    if let Some(bad) = arguments.nodes.iter().find(|node| !is_server(node)) {
        return Err(vec![format!("--nodes: {bad:?} is not HOST:PORT")]);
    }
    let (settings, passphrases) = match &arguments.config {
        None => (None, Passphrases::default()),
        Some(file) => {
            let (settings, mut findings) = config::load_in_part(file);
            let passphrases = settings
                .as_ref()
                .and_then(|settings| key_passphrases::read(settings, &mut findings));
            let errors: Vec<String> = findings
                .iter()
                .filter(|finding| finding.is_error())
                .map(ToString::to_string)
                .collect();
            if !errors.is_empty() {
                return Err(errors);
            }
            (settings, passphrases.unwrap_or_default())
        }
    };
    let prober = Prober::new(Duration::from_secs(arguments.timeout))
        .map_err(|error| vec![error.to_string()])?;
    Ok(Prepared { settings, passphrases, roots: roots(arguments)?, prober })
}

/// The authorities trusted; `None`, with a line about it, where the machine has none.
fn roots(arguments: &Arguments) -> Result<Option<Roots>, Vec<String>> {
    let named = arguments.roots.as_deref();
    let file = named.or_else(|| SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists()));
    let Some(file) = file else {
        eprintln!(
            "no trusted authorities on this machine: whether chains are complete is not judged; name them by --roots"
        );
        return Ok(None);
    };
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    let roots = read().map_err(|error| vec![format!("{}: {error}", file.display())])?;
    if roots.is_empty() {
        return Err(vec![format!("{}: holds no certificate", file.display())]);
    }
    Ok(Some(Roots::new(roots)))
}

fn run(arguments: &Arguments, prepared: &Prepared) -> Report {
    let Prepared { settings, passphrases, roots, prober } = prepared;
    let mut report = Report::default();
    let standard = Standard { roots: roots.as_ref(), now: unix_now(), days: arguments.days };
    let library = settings.as_ref().map_or_else(CryptoLibrary::default, |one| one.tls.provider);
    let configured: Vec<&Path> = settings.iter().flat_map(prepare::certificate_paths).collect();
    let wanted = match (arguments.names.as_slice(), &settings) {
        ([], Some(_)) => names_in(&configured, library, passphrases),
        (names, _) => names.to_vec(),
    };

    let mut targets = Vec::new();
    for target in &arguments.targets {
        if Path::new(target).exists() {
            targets.push(Target::Files(Path::new(target)));
        } else if is_server(target) {
            targets.push(Target::Server(target));
        } else {
            report.fail(target, "is no file, no directory, and not HOST:PORT");
        }
    }
    if arguments.targets.is_empty() && arguments.nodes.is_empty() {
        targets.extend(configured.iter().copied().map(Target::Files));
    }

    let mut examined: Vec<(String, Examination)> = Vec::new();
    for target in &targets {
        examined.extend(match target {
            Target::Files(path) => files::look(path, library, passphrases, standard, &mut report),
            Target::Server(server) => {
                servers::look(server, &wanted, prober, &arguments.alpn, standard, &mut report)
            }
        });
    }
    if !targets.is_empty() {
        cover(&wanted, &examined, &mut report);
    }
    if !arguments.nodes.is_empty() {
        let comparison = Comparison {
            nodes: &arguments.nodes,
            names: &wanted,
            alpn: &arguments.alpn,
            prober,
            standard,
            same: arguments.same,
        };
        comparison.run(&mut report);
    }
    report
}

/// Which of the names wanted are covered by what.
fn cover(wanted: &[String], examined: &[(String, Examination)], report: &mut Report) {
    for name in wanted {
        let places: BTreeSet<&String> = examined
            .iter()
            .filter(|(_, examination)| examination.covers(name))
            .map(|(place, _)| place)
            .collect();
        if places.is_empty() {
            report.find(name, "no certificate is for this name: have one issued, or take it out");
        }
        let covered_by = places.into_iter().cloned().collect();
        report.names.push(NameReport { name: name.clone(), covered_by });
    }
}

/// Every name in the certificates at `paths`, once.
fn names_in(paths: &[&Path], library: CryptoLibrary, passphrases: &Passphrases) -> Vec<String> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| (*path).to_owned()).collect();
    let (loaded, _) =
        crate::tls::certificates::load(&paths, library, passphrases, SystemTime::now());
    let names = loaded.iter().flat_map(|certificate| certificate.names.iter());
    let names: BTreeSet<String> = names.map(ToString::to_string).collect();
    names.into_iter().collect()
}

/// Whether it looks like `HOST:PORT`.
fn is_server(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}
