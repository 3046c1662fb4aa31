//! `forebay reload`: asks the process that runs to read its configuration again, waits, and
//! says what came of it.
//!
//! By the admin address and not by a signal: a signal needs the process's number, and
//! nobody hears what came of it. The process takes this request from its own machine only.

use std::time::Duration;

use super::admin_client::{self, Which};
use super::output::say;
use super::{ExitStatus, FAILURE, SUCCESS, WRONG_INPUT};
use crate::control::reload_requests::ReloadOutcome;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// How long to wait for the end of the reload, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn reload(arguments: &Arguments) -> ExitStatus {
    let timeout = Duration::from_secs(arguments.timeout);
    let asked = arguments.which.address().and_then(|address| {
        let (status, body) = admin_client::request(address, "POST", "/reload", timeout)?;
        Ok((address, status, body))
    });
    let (address, status, body) = match asked {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("{error}");
            return WRONG_INPUT;
        }
    };
    let Ok(outcome) = serde_json::from_slice::<ReloadOutcome>(&body) else {
        let said = String::from_utf8_lossy(&body);
        eprintln!("{address}: the reload was not begun ({status}): {}", said.trim_end());
        return WRONG_INPUT;
    };
    if arguments.json {
        say(String::from_utf8_lossy(&body));
    } else {
        for finding in &outcome.findings {
            eprintln!("{finding}");
        }
    }
    let ReloadOutcome { succeeded, generation, .. } = outcome;
    if !succeeded {
        eprintln!("reload refused: the configuration in force stays (generation {generation})");
        return FAILURE;
    }
    if !arguments.json {
        say(format_args!("reloaded: generation {generation} is in force"));
    }
    SUCCESS
}
