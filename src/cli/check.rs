//! `forebay check`: everything that a start would find wrong, without starting.
//!
//! Loads the certificates, builds the policies, resolves the backends and places the
//! threads. Does not listen: the service that runs has the addresses.

use std::path::{Path, PathBuf};

use super::facts::facts;
use super::output::say;
use super::run::print;
use super::{ExitStatus, SUCCESS, WRONG_INPUT};
use crate::config::{self, Finding};
use crate::control::prepare::{self, CertificateSource, Preparer};
use crate::control::session_keys::SessionKeys;
use crate::control::start::place;
use crate::control::switches;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Print what the file settles as key=value lines, for programs; certificates and
    /// backends are not looked at
    #[arg(long)]
    facts: bool,
}

pub(super) fn check(arguments: &Arguments) -> ExitStatus {
    if arguments.facts { print_facts(&arguments.config) } else { check_all(&arguments.config) }
}

fn print_facts(file: &Path) -> ExitStatus {
    let (settings, findings) = config::load(file);
    print(&findings);
    let Some(settings) = settings else { return WRONG_INPUT };
    match facts(&settings) {
        Ok(facts) => {
            say(facts.to_string().trim_end());
            SUCCESS
        }
        Err(error) => {
            print(&[settings.error(&config::Place::default(), error.to_string())]);
            WRONG_INPUT
        }
    }
}

fn check_all(file: &Path) -> ExitStatus {
    let (settings, mut findings) = config::load_in_part(file);
    let mut preparer = Preparer::new(CertificateSource::Files, SessionKeys::default());
    match &settings {
        None => {}
        // What depends on several keys would be misjudged; a file stands for itself.
        Some(settings) if findings.iter().any(Finding::is_error) => {
            findings.extend(preparer.check_certificates(settings));
        }
        Some(settings) => {
            let bound = prepare::addresses(settings);
            findings.extend(preparer.prepare(settings, &bound, 1).1);
            match place(settings) {
                Ok(placement) => findings.extend(switches::check(settings, &placement)),
                Err(error) => {
                    findings.push(settings.error(&config::Place::default(), error.to_string()));
                }
            }
        }
    }
    print(&findings);
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let warnings = findings.len() - errors;
    let file = file.display();
    if findings.iter().any(Finding::is_error) {
        eprintln!("{file}: cannot be used (errors: {errors}, warnings: {warnings})");
        return WRONG_INPUT;
    }
    say(format_args!("{file}: good (warnings: {warnings})"));
    SUCCESS
}
