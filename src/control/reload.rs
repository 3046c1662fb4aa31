//! Reload: the file is read again, and everything that it leads to is built again, off
//! the engines. Only if nothing is wrong does anybody hear of it.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::prepare::{self, Bound, Preparer};
use super::supervise::Reloaded;
use crate::config::{self, Finding, Settings, Severity};
use crate::engine::snapshot::Snapshot;

/// Loads the configuration anew, as the generation given; `None` if the old one stays.
pub type Reloader = Box<dyn FnMut(u64) -> Option<Reloaded<Snapshot>>>;

/// What the supervisor calls on SIGHUP. `at_start` are the settings that the process
/// started with: what cannot change while it runs is compared with them each time.
/// `bound` are the addresses that engines listen on.
pub fn reloader(
    file: Option<PathBuf>,
    at_start: Settings,
    preparer: Preparer,
    bound: Vec<Bound>,
) -> Reloader {
    Box::new(move |generation| {
        let Some(file) = &file else {
            tracing::error!("there is no configuration file to read again");
            return None;
        };
        tracing::info!(file = %file.display(), "reloading");
        let (loaded, mut findings) = config::load(file);
        let Some(loaded) = loaded else {
            log_findings(&findings);
            return None;
        };
        findings.extend(prepare::needs_restart(&at_start, &loaded));
        let (reloaded, of_preparing) = preparer.prepare(&loaded, &bound, generation);
        findings.extend(of_preparing);
        log_findings(&findings);
        if findings.iter().any(Finding::is_error) {
            return None;
        }
        reloaded
    })
}

/// One line for each finding.
pub fn log_findings(findings: &[Finding]) {
    for finding in findings {
        match finding.severity {
            Severity::Error => tracing::error!("{finding}"),
            Severity::Warning => tracing::warn!("{finding}"),
        }
    }
}
