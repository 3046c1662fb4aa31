//! `forebay run`: the service.

use std::path::PathBuf;

use super::{ExitStatus, FAILURE, SUCCESS, WRONG_INPUT};
use crate::config::{self, Finding};
use crate::control::logging::{self, Log};
use crate::control::prepare::CertificateSource;
use crate::control::reload::log_findings;
use crate::control::start::{Running, Start, StartError, start};
use crate::control::supervise::Ended;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(arguments: Arguments) -> ExitStatus {
    let (settings, findings) = config::load(&arguments.config);
    let Some(settings) = settings else {
        // There is no log yet: its level stands in the file.
        print(&findings);
        return WRONG_INPUT;
    };
    let log = match logging::start(settings.log.level) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("forebay: {error}");
            return WRONG_INPUT;
        }
    };
    log_findings(&findings);
    let started = start(Start {
        settings,
        certificates: CertificateSource::Files,
        file: Some(arguments.config),
        log_lines_dropped: Some(log.dropped()),
    });
    run_to_the_end(started, log, |_| ())
}

/// Runs what was started, after `announce`; both `run` and `demo` end here.
pub(super) fn run_to_the_end(
    started: Result<Running, StartError>,
    log: Log,
    announce: impl FnOnce(&Running),
) -> ExitStatus {
    let status = match started {
        Ok(running) => {
            announce(&running);
            match running.run() {
                Ended::AsAsked => SUCCESS,
                Ended::EngineFailed => FAILURE,
            }
        }
        Err(StartError::Configuration(findings)) => {
            log_findings(&findings);
            tracing::error!("not started: the configuration cannot be used");
            WRONG_INPUT
        }
        Err(error) => {
            tracing::error!("not started: {error}");
            FAILURE
        }
    };
    // Writes out what waits.
    drop(log);
    status
}

/// Every finding on a line of its own.
pub(super) fn print(findings: &[Finding]) {
    for finding in findings {
        eprintln!("{finding}");
    }
}
