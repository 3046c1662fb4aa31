//! `forebay certs`: what is served, and whether clients will take it.
//!
//! | file | job |
//! |---|---|
//! | `list` | the certificates of the running process, or of a configuration |
//! | `check` | what to look at, and what it comes to |
//! | `files` | certificates in files, as forebay would serve them |
//! | `servers` | certificates that a server shows for each name |
//! | `nodes` | whether several servers are one to a client |
//! | `probe` | one handshake with a server |
//! | `report` | what was found, as text or JSON |
//!
//! Exit codes of `check`: 0 nothing is wrong; 1 there are findings; 2 something could not be
//! checked.

mod check;
mod files;
mod list;
mod nodes;
mod probe;
mod report;
mod servers;

use super::ExitStatus;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the certificates that are served
    List(list::Arguments),
    /// Check certificates in files, or as servers show them
    Check(check::Arguments),
}

pub(super) fn certs(arguments: &Arguments) -> ExitStatus {
    match &arguments.action {
        Action::List(arguments) => list::list(arguments),
        Action::Check(arguments) => check::check(arguments),
    }
}
