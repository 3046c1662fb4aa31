//! A forebay with nginx behind it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::certificates::{Key, self_signed};
use crate::support::configuration::configuration;
use crate::support::forebay::Forebay;
use crate::support::nginx::Nginx;
use crate::support::ports::free_address;

/// Everything that takes part.
pub(crate) struct Site {
    pub(crate) forebay: Forebay,
    pub(crate) address: SocketAddr,
    /// Self-signed, for `a.test`.
    pub(crate) certificate: PathBuf,
    _nginx: Nginx,
    _directory: TempDir,
}

/// The size of `/files/small`.
pub(crate) const SMALL_BYTES: usize = 1_024;
/// The size of `/files/large`.
pub(crate) const LARGE_BYTES: usize = 4 << 20;

impl Site {
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// `more` is further sections of forebay's configuration.
    pub(crate) fn with(more: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let certificate = self_signed(directory.path(), "main.pem", Key::EcdsaP256, &["a.test"]);
        let nginx = Nginx::start(directory.path());
        fs::write(nginx.files.join("small"), [b'x'; SMALL_BYTES]).expect("write");
        fs::write(nginx.files.join("large"), vec![b'x'; LARGE_BYTES]).expect("write");
        let address = free_address();
        let pool = "proxy_protocol = \"v2\"";
        let rest = format!(
            "[engine]\nengines = 1\nmax_connections = 512\n[handshake]\nworkers = 1\n{more}"
        );
        let endpoints = nginx.http1_endpoints();
        let text = configuration(address, &[&certificate], &[&endpoints[0]], pool, &rest);
        let forebay = Forebay::start(directory.path(), &text);
        Self { forebay, address, certificate, _nginx: nginx, _directory: directory }
    }

    /// The address as the command line takes it.
    pub(crate) fn at(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn pid(&self) -> String {
        self.forebay.pid().to_string()
    }
}
