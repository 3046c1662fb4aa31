//! The command line: one file a subcommand.
//!
//! Exit codes: 0 all is well, and the end was asked for; 1 something failed while
//! starting or running, or there are findings; 2 the command line or the configuration is
//! wrong, or what was asked for could not be looked at.
//!
//! May know: everything below. Nothing knows it.

#![forbid(unsafe_code)]

mod admin_client;
mod certs;
mod check;
mod demo;
mod explain;
mod facts;
mod output;
mod proxy_verify;
mod reload;
mod run;
mod servers;
mod shadow;
mod ticket_secret;

use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

use crate::control::build;

/// Something failed while starting or running.
const FAILURE: ExitStatus = ExitStatus(1);
/// The command line or the configuration is wrong (clap ends with the same code).
const WRONG_INPUT: ExitStatus = ExitStatus(2);
/// All is well.
const SUCCESS: ExitStatus = ExitStatus(0);

/// An exit code that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ExitStatus(u8);

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let of = build::dependency;
    format!(
        "{} (rustls {}, aws-lc-rs {}, ring {})",
        build::VERSION,
        of("rustls"),
        of("aws-lc-rs"),
        of("ring")
    )
});

/// A TLS concentrator: takes TLS, hands plaintext and the client's address to the
/// servers behind.
#[derive(Debug, Parser)]
#[command(
    name = "forebay",
    version = VERSION.as_str(),
    after_help = "Exit codes: 0 ended as asked; 1 failed; 2 wrong command line or configuration.\n\
                  Signals: SIGTERM or SIGINT drain, a second one stops at once; SIGHUP reloads."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run with a configuration file until told to end
    Run(run::Arguments),
    /// Check a configuration file and everything it names, and print every finding
    Check(check::Arguments),
    /// Say what would become of a client, and why: route, certificate, pool
    Explain(explain::Arguments),
    /// Have the running process read its configuration and certificates again, and wait for
    /// the outcome
    Reload(reload::Arguments),
    /// List the servers behind, or have one drained, maintained, or ready again
    Servers(servers::Arguments),
    /// List who would fail under the policies that are only tried: [listener.shadow]
    Shadow(shadow::Arguments),
    /// List the certificates that are served, or check whether clients will take them
    Certs(certs::Arguments),
    /// Run with a self-signed certificate and a backend of its own, without any file
    Demo(demo::Arguments),
    /// Make, rotate or inspect the file of secrets that a tier's session tickets are
    /// sealed with
    TicketSecret(ticket_secret::Arguments),
    /// Say whether a PROXY protocol header was written with one of the keys of a file
    ProxyVerify(proxy_verify::Arguments),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let status = match CommandLine::parse().command {
        Command::Run(arguments) => run::run(arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Reload(arguments) => reload::reload(&arguments),
        Command::Servers(arguments) => servers::servers(&arguments),
        Command::Shadow(arguments) => shadow::shadow(&arguments),
        Command::Certs(arguments) => certs::certs(&arguments),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::TicketSecret(arguments) => ticket_secret::ticket_secret(&arguments),
        Command::ProxyVerify(arguments) => proxy_verify::proxy_verify(&arguments),
    };
    ExitCode::from(status.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from([&["forebay"], arguments].concat())
    }

    #[test]
    fn the_commands_parse() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
        for arguments in [
            &["run", "-c", "forebay.toml"][..],
            &["check", "--config", "forebay.toml"],
            &["check", "-c", "forebay.toml", "--facts"],
            &["reload", "-c", "forebay.toml"],
            &["reload", "--admin", "127.0.0.1:9440", "--timeout", "5", "--json"],
            &["servers", "list", "-c", "forebay.toml", "--json"],
            &["servers", "drain", "--admin", "[::1]:9440", "web", "10.0.0.1:80"],
            &["servers", "maintain", "-c", "forebay.toml", "web", "unix:/run/app.sock"],
            &["servers", "ready", "-c", "forebay.toml", "web", "app:80 (10.0.0.1)"],
            &["shadow", "-c", "forebay.toml"],
            &["shadow", "--admin", "127.0.0.1:9440", "--limit", "10000", "--json"],
            &["certs", "list", "--admin", "[::1]:9440", "--json"],
            &["certs", "check", "-c", "forebay.toml"],
            &["certs", "check", "site.pem", "certificates/", "shop.example:443"],
            &["certs", "check", "--names", "a.example,b.example", "--days", "7", "site.pem"],
            &["certs", "check", "--nodes", "a:443,b:443", "--same", "--roots", "ca.pem"],
            &["demo"],
            &["ticket-secret", "generate", "--ratchet", "--epoch", "3600", "tier.secrets"],
            &["ticket-secret", "rotate", "--delay", "0", "--keep", "2", "tier.secrets"],
            &["ticket-secret", "inspect", "tier.secrets"],
            &["proxy-verify", "--keys", "proxy.keys"],
            &["proxy-verify", "--keys", "proxy.keys", "--hex", "--max-age", "5", "header"],
            &["demo", "--port", "0", "--admin", "[::1]:0", "--provider", "ring"],
        ] {
            assert!(parse(arguments).is_ok(), "{arguments:?}");
        }
    }

    #[test]
    fn what_is_wrong_ends_with_code_two() {
        for arguments in [
            &["run"][..],
            &["serve"],
            &["demo", "--provider", "openssl"],
            &["demo", "--port", "70000"],
            &["ticket-secret", "rotate", "--keep", "1", "tier.secrets"],
            &["ticket-secret", "generate"],
            &["proxy-verify", "header"],
            &["reload"],
            &["servers", "list"],
            &["servers", "drain", "-c", "forebay.toml", "web"],
            &["shadow"],
            &["shadow", "-c", "forebay.toml", "--limit", "10001"],
            &["certs", "list"],
            &["certs", "check"],
            &["certs", "check", "--same", "site.pem"],
            &[],
        ] {
            let error = parse(arguments).expect_err("wrong");
            assert_eq!(error.exit_code(), i32::from(WRONG_INPUT.0), "{arguments:?}");
        }
    }

    #[test]
    fn the_version_names_both_crypto_libraries() {
        let error = parse(&["--version"]).expect_err("the version");
        let text = error.to_string();
        assert!(text.contains("aws-lc-rs ") && text.contains("ring "), "{text}");
        assert_eq!(error.exit_code(), 0);
    }
}
