//! `openssl s_client`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::program::{Finished, command, run};

/// A client that has yet to run.
pub struct OpensslClient {
    command: Command,
}

impl OpensslClient {
    /// Will connect to `address`. It takes any certificate unless told otherwise.
    pub fn new(address: SocketAddr) -> Self {
        let mut command = command("openssl");
        command.args(["s_client", "-ign_eof", "-connect", &address.to_string()]);
        Self { command }
    }

    /// Asks for a server name; without this it asks for none.
    pub fn name(mut self, name: &str) -> Self {
        self.command.args(["-servername", name]);
        self
    }

    /// Takes only a certificate that is `trusted`, or signed by it, and is for `name`.
    pub fn verify(mut self, trusted: &Path, name: &str) -> Self {
        self.command.arg("-CAfile").arg(trusted);
        self.command.args(["-verify_return_error", "-verify_hostname", name]);
        self
    }

    /// More arguments.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// An argument that is followed by a file.
    pub fn with_file(mut self, argument: &str, file: &Path) -> Self {
        self.command.arg(argument).arg(file);
        self
    }

    /// Shakes hands, sends `input` and waits for the server's close_notify. Without one it
    /// fails.
    pub fn run(mut self, input: &str) -> Finished {
        if !self.command.get_args().any(|argument| argument == "-servername") {
            self.command.arg("-noservername");
        }
        run(self.command, input)
    }
}

/// The option that leaves only this version.
pub fn only(version: &str) -> &'static str {
    match version {
        "TLSv1.2" => "-tls1_2",
        "TLSv1.3" => "-tls1_3",
        _ => panic!("{version} is not a version we speak"),
    }
}
