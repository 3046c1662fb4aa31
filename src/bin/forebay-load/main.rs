//! forebay-load: makes load on a TLS server, anybody's, and measures it.
//!
//! ```text
//!   arguments ──▶ modes ──▶ run ──▶ crew ──▶ event_loop (a thread each, its own clients)
//!                            │                 └▶ client ─▶ connection ─▶ session (rustls)
//!                            ├─▶ server_process   CPU time and memory of the server
//!                            └─▶ report ─▶ table, JSON
//! ```
//!
//! | file | its story |
//! |---|---|
//! | `arguments` | the command line |
//! | `modes` | what each subcommand asks of the threads |
//! | `run` | prepare, warm up, measure, report |
//! | `crew` | threads, their CPUs and orders |
//! | `event_loop` | when operations begin and end, and what is counted |
//! | `pace`, `work`, `tally` | due times; what is to be done; what was measured |
//! | `client`, `connection`, `session` | one client: its steps, its socket, its TLS |
//! | `tls`, `tickets` | what is offered and accepted; sessions to resume |
//! | `http`, `outgoing`, `failure` | requests and answers; bytes to write; why something failed |
//! | `backend` | the server behind the thing under test; makes no load |
//! | `server_process` | what the server costs |
//! | `report`, `table`, `progress` | what is printed |
//! | `curve`, `plot` | latencies as a file and as a picture |

#![deny(unsafe_code)]

mod arguments;
mod backend;
mod client;
mod connection;
mod crew;
mod curve;
mod event_loop;
mod failure;
mod http;
mod modes;
mod outgoing;
mod pace;
mod plot;
mod progress;
mod report;
mod run;
mod server_process;
mod session;
mod table;
mod tally;
mod tickets;
mod tls;
mod work;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Command, CommandLine, OutputArguments};
use run::{Outcome, RunError};
use table::Table;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let (outcome, output) = match &command_line.command {
        Command::Handshakes(arguments) => (modes::handshakes::run(arguments), &arguments.output),
        Command::Requests(arguments) => (modes::requests::run(arguments), &arguments.output),
        Command::Bulk(arguments) => (modes::bulk::run(arguments), &arguments.output),
        Command::Idle(arguments) => (modes::idle::run(arguments), &arguments.output),
        Command::Mixed(arguments) => (modes::mixed::run(arguments), &arguments.output),
        Command::Backend(arguments) => return code_of(backend::run(arguments)),
        Command::Plot(arguments) => return code_of(modes::plot::run(arguments)),
    };
    finish(outcome, output)
}

/// Success, or the error told.
fn code_of(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what came of it; the exit code says whether it is to be relied on.
fn finish(outcome: Result<Outcome, RunError>, output: &OutputArguments) -> ExitCode {
    let Outcome { report, tally, curves } = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return code_of(Err(error)),
    };
    if output.json {
        match serde_json::to_string(&report) {
            Ok(text) => println!("{text}"),
            Err(error) => return code_of(Err(error)),
        }
    } else {
        print!("{}", Table::of(&report));
    }
    for warning in &report.warnings {
        eprintln!("forebay-load: {warning}");
    }
    if let Err(error) = modes::plot::keep(&report, &curves, output) {
        return code_of(Err(error));
    }
    if output.allow_failures.allows(tally.failures(), tally.offered.max(tally.failures())) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
