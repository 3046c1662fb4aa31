//! `forebay demo`: the whole way in one command and without any file.
//!
//! ```text
//!   curl ──TLS──▶ forebay, the very same start as `run` ──PROXY v2, UNIX socket──▶ responder
//! ```
//!
//! Only the settings are made here instead of read: a self-signed certificate in
//! memory, a listener on loopback, and as pool a backend that shows what it was handed.

mod page;
mod proxy_header;
mod responder;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::output::say;
use super::run::run_to_the_end;
use super::{ExitStatus, FAILURE, WRONG_INPUT};
use crate::config::{
    AdminSettings, BackendAddress, ClientAuthSettings, EngineSettings, ListenerSettings, Located,
    PoolSettings, Settings, TlsPolicy, TlsSettings,
};
use crate::control::logging;
use crate::control::prepare::CertificateSource;
use crate::control::start::{Running, Start, start};
use crate::endpoint::Endpoint;
use crate::proxy_protocol::ProxyProtocol;
use crate::tls::CryptoLibrary;
use crate::tls::policy::UnknownServerName;
use crate::tls::self_signed::self_signed;
use responder::Responder;

/// The name that the printed command asks for (reserved by RFC 2606).
const SERVER_NAME: &str = "forebay.example";

/// Small, so that the demo takes tens of megabytes on any machine.
const CONNECTIONS_MAX: usize = 1_024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The port on 127.0.0.1 to take TLS on; 0 lets the kernel choose
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// The address for metrics and health
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9440")]
    admin: SocketAddr,
    /// The cryptography: aws-lc-rs or ring
    #[arg(long, value_name = "LIBRARY", default_value = "aws-lc-rs", value_parser = library)]
    provider: CryptoLibrary,
}

fn library(name: &str) -> Result<CryptoLibrary, String> {
    let libraries = [CryptoLibrary::AwsLc, CryptoLibrary::Ring];
    let found = libraries.into_iter().find(|library| library.to_string() == name);
    found.ok_or_else(|| "write aws-lc-rs or ring".to_owned())
}

pub(super) fn demo(arguments: &Arguments) -> ExitStatus {
    let log = match logging::start(tracing::Level::INFO) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("forebay: {error}");
            return WRONG_INPUT;
        }
    };
    let names = [SERVER_NAME, "*.forebay.example", "localhost", "127.0.0.1", "::1"];
    let certificate = match self_signed(&names, arguments.provider) {
        Ok(certificate) => certificate,
        Err(error) => {
            tracing::error!("{error}");
            return FAILURE;
        }
    };
    let backend = match Responder::start(&std::env::temp_dir(), responder::Limits::default()) {
        Ok(backend) => backend,
        Err(error) => {
            tracing::error!("cannot start the demo's backend: {error}");
            return FAILURE;
        }
    };
    let started = start(Start {
        settings: settings(arguments, backend.path()),
        certificates: CertificateSource::InMemory(vec![Arc::new(certificate)]),
        file: None,
        log_lines_dropped: Some(log.dropped()),
    });
    run_to_the_end(started, log, announce)
}

fn settings(arguments: &Arguments, backend: PathBuf) -> Settings {
    let policy = TlsPolicy::new(arguments.provider);
    let backend = BackendAddress::Endpoint(Endpoint::Unix(backend));
    Settings {
        file: PathBuf::from("demo"),
        engine: EngineSettings { max_connections: CONNECTIONS_MAX, ..EngineSettings::default() },
        tls: TlsSettings {
            provider: arguments.provider,
            policy: policy.clone(),
            ..TlsSettings::default()
        },
        admin: AdminSettings { address: Some(Located::from(arguments.admin)) },
        listeners: vec![ListenerSettings {
            name: "demo".to_owned(),
            addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port)).into()],
            certificates: Vec::new(),
            default_certificate: None,
            unknown_sni: UnknownServerName::Default,
            // The backend speaks nothing else.
            alpn: vec!["http/1.1".to_owned()],
            accept_proxy_from: Vec::new(),
            routes: Vec::new(),
            session_domain: None,
            client_auth: ClientAuthSettings::default(),
            client_auth_for: Vec::new(),
            pool: 0,
            shadow: None,
            policy,
        }],
        pools: vec![PoolSettings {
            proxy_protocol: ProxyProtocol::V2,
            ..PoolSettings::new("demo-backend".to_owned(), vec![backend])
        }],
        ..Settings::default()
    }
}

fn announce(running: &Running) {
    let Some(address) = running.addresses().first() else { return };
    let port = address.port();
    // The log goes to standard error: this is the demo's own output.
    say(format_args!(
        "\nThe demo runs. Try, from another terminal:\n\n  \
         curl --insecure --resolve {SERVER_NAME}:{port}:127.0.0.1 https://{SERVER_NAME}:{port}/\n\n\
         or open https://localhost:{port}/ in a browser; it warns of the self-signed certificate.\n"
    ));
    if let Some(admin) = running.admin_address() {
        say(format_args!("Metrics: curl http://{admin}/metrics\n"));
    }
    say("Ctrl-C drains and ends.\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::prepare::{Preparer, addresses};
    use crate::control::session_keys::SessionKeys;

    #[test]
    fn the_demos_settings_make_a_configuration_with_either_library() {
        for provider in [CryptoLibrary::AwsLc, CryptoLibrary::Ring] {
            let admin = SocketAddr::from(([127, 0, 0, 1], 0));
            let arguments = Arguments { port: 0, admin, provider };
            let settings = settings(&arguments, PathBuf::from("/tmp/backend.sock"));
            let certificate = self_signed(&[SERVER_NAME], provider).expect("a certificate");
            let source = CertificateSource::InMemory(vec![Arc::new(certificate)]);
            let mut preparer = Preparer::new(source, SessionKeys::default());
            let (prepared, findings) = preparer.prepare(&settings, &addresses(&settings), 1);
            assert!(findings.is_empty(), "{findings:?}");
            assert_eq!(prepared.expect("a configuration").snapshot.listeners.len(), 1);
        }
    }
}
