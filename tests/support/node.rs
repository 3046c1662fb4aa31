//! A place for one forebay: a directory with its certificate, an address, a backend.

use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use super::configuration::configuration;
use super::echo::EchoBackend;
use super::forebay::Forebay;
use super::ports::free_address;

pub struct Node {
    pub directory: TempDir,
    pub address: SocketAddr,
    pub backend: EchoBackend,
}

impl Node {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        Self { directory, address: free_address(), backend: EchoBackend::start() }
    }

    pub fn at(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// A listener that shows `site.pem`; `rest` is more sections.
    pub fn configuration(&self, rest: &str) -> String {
        let backend = self.backend.address.to_string();
        configuration(self.address, &[&self.at("site.pem")], &[&backend], "", rest)
    }

    pub fn start(&self, rest: &str) -> Forebay {
        Forebay::start(self.directory.path(), &self.configuration(rest))
    }
}
