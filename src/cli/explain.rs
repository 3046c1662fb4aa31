//! `forebay explain`: what would become of a client, and why.
//!
//! The answer is that of the code that a running engine asks, on a real ClientHello: the one
//! in a file, or one made from the options.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

use super::output::say;
use super::run::print;
use super::{ExitStatus, FAILURE, SUCCESS, WRONG_INPUT};
use crate::clock::Moment;
use crate::config::{self, Settings};
use crate::control::prepare::{self, CertificateSource, Preparer};
use crate::control::session_keys::SessionKeys;
use crate::engine::snapshot::{Listener, Snapshot};
use crate::routing::{Action, CERTIFICATE, Client};
use crate::tls::CryptoLibrary;
use crate::tls::certificates::policy_file;
use crate::tls::client_hello::{
    CLIENT_HELLO_BYTES_MAX, CLIENT_HELLO_STREAM_BYTES_MAX, ClientHello, Ja4, Scan, scan,
};
use crate::tls::names::CipherSuite;
use crate::tls::policy::candidate::Verdict;
use crate::tls::provider::{crypto_provider, default_groups};
use crate::tls::unverified::any_certificate;
use crate::tls::{Refusal, Version};
use crate::upstream::{self, Balance, Balancer, Choice, HashBy, Pool, Tried};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// The listener's name; the first one by default
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The server name that the client asks for; none by default
    #[arg(long, value_name = "NAME", conflicts_with = "clienthello")]
    sni: Option<String>,
    /// The application protocols that it offers, such as h2,http/1.1
    #[arg(long, value_name = "PROTOCOLS", value_delimiter = ',', conflicts_with = "clienthello")]
    alpn: Vec<String>,
    /// The only TLS version that it offers, 1.2 or 1.3; both by default
    #[arg(long, value_name = "VERSION", value_parser = version, conflicts_with = "clienthello")]
    tls: Option<Version>,
    /// Where it comes from
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    source: IpAddr,
    /// The address of the listener that it connects to: without --sni it may choose a certificate
    #[arg(long, value_name = "ADDRESS")]
    destination: Option<IpAddr>,
    /// A file with the first bytes that a client sent, instead of --sni, --alpn and --tls
    #[arg(long, value_name = "FILE")]
    clienthello: Option<PathBuf>,
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "1.2" => Ok(Version::Tls12),
        "1.3" => Ok(Version::Tls13),
        _ => Err("write 1.2 or 1.3".to_owned()),
    }
}

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error("there is no listener {name:?}; the listeners are {known}")]
    NoListener { name: String, known: String },
    #[error("--sni {0:?} is no server name")]
    NotAName(String),
    #[error("{path}: cannot be read: {source}")]
    File { path: String, source: std::io::Error },
    #[error("{path}: the ClientHello in it is incomplete")]
    Incomplete { path: String },
    #[error("no ClientHello can be made: {0}")]
    Make(String),
}

pub(super) fn explain(arguments: &Arguments) -> ExitStatus {
    let (settings, mut findings) = config::load(&arguments.config);
    let Some(settings) = settings else {
        print(&findings);
        return WRONG_INPUT;
    };
    let bound = prepare::addresses(&settings);
    let mut preparer = Preparer::new(CertificateSource::Files, SessionKeys::default());
    let (prepared, found) = preparer.prepare(&settings, &bound, 1);
    findings.extend(found);
    print(&findings);
    let Some(prepared) = prepared else { return WRONG_INPUT };
    match explain_in(arguments, &settings, &prepared.snapshot) {
        Ok(served) => served,
        Err(error) => {
            eprintln!("forebay: {error}");
            WRONG_INPUT
        }
    }
}

fn explain_in(
    arguments: &Arguments,
    settings: &Settings,
    snapshot: &Snapshot,
) -> Result<ExitStatus, ExplainError> {
    let listener = match &arguments.listener {
        None => &snapshot.listeners[0],
        Some(name) => {
            snapshot.listeners.iter().find(|listener| *listener.name == **name).ok_or_else(
                || {
                    let known: Vec<_> =
                        settings.listeners.iter().map(|listener| listener.name.as_str()).collect();
                    ExplainError::NoListener { name: name.clone(), known: known.join(", ") }
                },
            )?
        }
    };
    let bytes = match &arguments.clienthello {
        Some(path) => read(path)?,
        None => client_hello(arguments)?,
    };
    let mut scratch = Box::new([0; CLIENT_HELLO_BYTES_MAX]);
    line("listener", &listener.name);
    match scan(&bytes, &mut scratch) {
        Scan::Complete(hello) => Ok(explain_client(arguments, &hello, listener, snapshot)),
        Scan::Refused(refusal) => Ok(refused(refusal)),
        Scan::Incomplete => {
            let path = arguments.clienthello.as_deref().unwrap_or(Path::new("the ClientHello"));
            Err(ExplainError::Incomplete { path: path.display().to_string() })
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ExplainError> {
    let error = |source| ExplainError::File { path: path.display().to_string(), source };
    let mut bytes = Vec::new();
    let most = CLIENT_HELLO_STREAM_BYTES_MAX as u64;
    File::open(path).map_err(error)?.take(most).read_to_end(&mut bytes).map_err(error)?;
    Ok(bytes)
}

/// What a client of rustls sends that has these options.
fn client_hello(arguments: &Arguments) -> Result<Vec<u8>, ExplainError> {
    let make = |error: &dyn std::fmt::Display| ExplainError::Make(error.to_string());
    let library = CryptoLibrary::AwsLc;
    let provider = crypto_provider(library, &CipherSuite::DEFAULT_ORDER, default_groups(library))
        .map_err(|error| make(&error))?;
    let provider = Arc::new(provider);
    let versions = match arguments.tls {
        None => rustls::ALL_VERSIONS,
        Some(Version::Tls12) => &[&rustls::version::TLS12],
        Some(Version::Tls13) => &[&rustls::version::TLS13],
    };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| make(&error))?
        .dangerous()
        .with_custom_certificate_verifier(any_certificate(&provider))
        .with_no_client_auth();
    config.alpn_protocols = arguments.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    // A client that knows the server by address asks for no name.
    let name = match &arguments.sni {
        None => ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Some(name) => {
            ServerName::try_from(name.clone()).map_err(|_| ExplainError::NotAName(name.clone()))?
        }
    };
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(|error| make(&error))?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).map_err(|error| make(&error))?;
    Ok(bytes)
}

/// Says what becomes of the client; whether it is served.
fn explain_client(
    arguments: &Arguments,
    hello: &ClientHello<'_>,
    listener: &Listener,
    snapshot: &Snapshot,
) -> ExitStatus {
    let Arguments { source, destination, .. } = *arguments;
    let name = hello.server_name.as_ref().map(|name| name.as_str());
    line("client", &format!("from {source}, asks for {}", name.unwrap_or("no name")));
    line("fingerprint", &Ja4::of(hello).map_or("none".to_owned(), |made| made.to_string()));
    let (version, protocol) = listener.policy.preview(hello, destination);
    let client = Client { source, hello, version, protocol };
    let routes = listener.routes.as_slice();
    let found = listener.routes.find(&client);
    for route in &routes[..found.unwrap_or(routes.len())] {
        match (listener.routes.unmet(route, &client).unwrap_or("nothing"), route.action) {
            (CERTIFICATE, Action::Forward { pool }) => {
                let pool = &snapshot.pools[pool].name;
                let name = &route.name;
                line("", &format!("route {name:?} if its certificate is meant: pool {pool:?}"));
            }
            (unmet, _) => line("", &format!("not route {:?}: {unmet} does not hold", route.name)),
        }
    }
    match found {
        Some(place) => line("route", &format!("{:?}: its conditions hold", routes[place].name)),
        None => line("route", "none takes it: the listener's pool"),
    }
    match listener.way_of(source, destination, hello) {
        Action::Reject => refused(Refusal::RejectedByRoute),
        Action::Passthrough { pool } => {
            line("action", "passthrough: TLS ends at the server");
            explain_pool(&snapshot.pools[pool], &upstream::Client { source, server_name: name });
            SUCCESS
        }
        Action::Forward { pool } => {
            line("action", "forward: TLS ends here");
            let policy = &listener.policy;
            let admitted = policy.admit(hello, destination);
            let chosen = admitted.and_then(|_| policy.certificate(hello, destination));
            let certificate = match chosen {
                Ok(certificate) => certificate,
                Err(refusal) => return refused(refusal),
            };
            let text = version.map_or("none".to_owned(), |version| version.to_string());
            line("version", &text);
            let protocol = protocol.map(String::from_utf8_lossy);
            line("protocol", protocol.as_deref().unwrap_or("none is negotiated"));
            let names: Vec<_> = certificate.names.iter().map(ToString::to_string).collect();
            let is_for = |address| policy.has_certificate_for_address(address);
            let why = match (name, destination) {
                (None, Some(address)) if is_for(address) => "it is for the address",
                (None, Some(_)) => "the default, since no certificate is for the address",
                (None, None) => "the default, since no name is asked for",
                (Some(name), _) if policy.has_certificate_for(name) => "it is for the name",
                (Some(_), _) => "the default, since no certificate is for the name",
            };
            let shows = match listener.policy.gate(name).map(|gate| gate.verifier()) {
                None => "is not asked for a certificate",
                Some(verifier) if verifier.requires_a_certificate() => "must show a certificate",
                Some(_) => "may show a certificate",
            };
            line("asked", shows);
            line(
                "certificate",
                &format!(
                    "{} ({}, {}): {why}",
                    certificate.source.display(),
                    names.join(", "),
                    certificate.key_type
                ),
            );
            if let Some(policy) = &certificate.policy {
                let file = policy_file::path_of(&certificate.source);
                line("policy", &format!("{}: {policy}", file.display()));
            }
            if let Some(verdict) = listener.verdict_on(hello, destination) {
                line("shadow", would_meet(verdict));
            }
            explain_pool(&snapshot.pools[pool], &upstream::Client { source, server_name: name });
            SUCCESS
        }
    }
}

/// What becomes of a client under the policy that is only tried.
const fn would_meet(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Served => "would be served as well",
        Verdict::Version => "would fail (version): it offers none that would be allowed",
        Verdict::CipherSuite => "would fail (cipher_suite): it offers none that would be allowed",
        Verdict::Certificate => {
            "would fail (certificate): none for the name has a key that might sign"
        }
        Verdict::SignatureScheme => {
            "would fail (signature_scheme): it offers none that would be allowed"
        }
        Verdict::Group => "would fail (group): it offers none that would be allowed",
    }
}

fn explain_pool(pool: &Pool, client: &upstream::Client<'_>) {
    let balance = match &pool.balance {
        Balance::RoundRobin => "each server in turn, by weight",
        Balance::LeastConnections => "the server with the fewest connections for its weight",
        Balance::RandomTwo => {
            "of two servers drawn by weight, the one with fewer connections for its weight"
        }
        Balance::Maglev(maglev) => match (maglev.hash(), client.server_name) {
            (HashBy::Source, _) => "the server of the client's address",
            (HashBy::ServerName, Some(_)) => "the server of the name that is asked for",
            (HashBy::ServerName, None) => "the server of the client's address, for want of a name",
        },
    };
    line("pool", &format!("{:?}: {balance}", &*pool.name));
    let chosen = chosen(pool, client);
    for (place, backend) in pool.backends.iter().enumerate() {
        let mut text = format!("{}, weight {}", backend.name, backend.weight);
        if let Some(most) = backend.connections_max {
            text.push_str(&format!(", at most {most} connections"));
        }
        if backend.backup {
            text.push_str(", backup");
        }
        if chosen == Some(place) {
            text.push_str(": chosen while it takes connections");
        }
        line("server", &text);
    }
}

/// The server of the client, if it does not depend on other clients.
fn chosen(pool: &Pool, client: &upstream::Client<'_>) -> Option<usize> {
    let Balance::Maglev(_) = pool.balance else { return None };
    match Balancer::new(pool, 0).pick(&Tried::NONE, client, Moment::default()) {
        Choice::Server(place) => Some(place),
        Choice::AllFull | Choice::Nobody => None,
    }
}

fn refused(refusal: Refusal) -> ExitStatus {
    let told = match refusal.alert() {
        Some(alert) => format!("alert {alert:?}"),
        None => "closed in silence".to_owned(),
    };
    line("refused", &format!("{refusal}; {told}"));
    FAILURE
}

fn line(what: &str, text: &str) {
    say(format_args!("{what:12} {text}"));
}
