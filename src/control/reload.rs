//! Reload: the file is read again, and everything that it leads to is built again, off
//! the engines. Only if nothing is wrong does anybody hear of it.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use super::certificate_index::IndexKeeper;
use super::prepare::{self, Bound, Preparer};
use super::supervise::{Attempt, Scope};
use super::watch::{Changed, Watch};
use crate::config::{self, Finding, Settings, Severity};
use crate::engine::snapshot::Snapshot;

/// Loads anew what is asked for, as the generation given.
pub type Reloader = Box<dyn FnMut(Scope, u64) -> Attempt<Snapshot>>;

/// What the supervisor calls on SIGHUP and when certificates have changed. `at_start` are
/// the settings that the process started with: what cannot change while it runs is
/// compared with them each time. `bound` are the addresses that engines listen on.
pub fn reloader(
    file: Option<PathBuf>,
    at_start: Settings,
    mut preparer: Preparer,
    index: Option<IndexKeeper>,
    bound: Vec<Bound>,
    watch: Rc<RefCell<Watch>>,
) -> Reloader {
    let mut in_force = at_start.clone();
    // What no reload has taken in yet, because it was refused.
    let mut pending = Changed::nothing();
    Box::new(move |scope, generation| {
        let Some(file) = &file else {
            let nothing = "there is no configuration file to read again";
            tracing::error!("{nothing}");
            return Attempt { reloaded: None, findings: vec![nothing.to_owned()] };
        };
        let (wanted, changed, mut findings) = match &scope {
            Scope::Certificates(changed) => {
                tracing::info!("certificate files have changed: reloading them");
                pending = std::mem::replace(&mut pending, Changed::Anything).and(changed.clone());
                if opens_keys(&in_force, &pending) {
                    pending = Changed::Anything;
                }
                (in_force.clone(), pending.clone(), Vec::new())
            }
            Scope::Everything => {
                tracing::info!(file = %file.display(), "reloading");
                let (loaded, mut findings) = config::load(file);
                let Some(loaded) = loaded else {
                    log_findings(&findings);
                    return Attempt { reloaded: None, findings: texts(&findings) };
                };
                findings.extend(prepare::needs_restart(&at_start, &loaded));
                (loaded, Changed::Anything, findings)
            }
        };
        // It forgets what has changed until now, and so must be read then.
        if changed == Changed::Anything {
            watch.borrow_mut().set(prepare::certificate_places(&wanted));
        }
        let (reloaded, of_preparing) =
            preparer.prepare_changed(&wanted, &changed, &bound, generation);
        findings.extend(of_preparing);
        log_findings(&findings);
        if reloaded.is_none() || findings.iter().any(Finding::is_error) {
            if scope == Scope::Everything {
                watch.borrow_mut().set(prepare::certificate_places(&in_force));
            }
            preparer.pools().borrow_mut().discard();
            return Attempt { reloaded: None, findings: texts(&findings) };
        }
        in_force = wanted;
        pending = Changed::nothing();
        if let Some(reloaded) = &reloaded {
            preparer.pools().borrow_mut().put_in_force(&in_force, &reloaded.snapshot);
        }
        keep_index(index.as_ref(), &mut preparer);
        Attempt { reloaded, findings: texts(&findings) }
    })
}

/// Has written down what is in the certificates' files now, if there is a place for it.
pub fn keep_index(keeper: Option<&IndexKeeper>, preparer: &mut Preparer) {
    if let Some(keeper) = keeper
        && let Some(outdated) = preparer.index_if_outdated()
    {
        keeper.keep(outdated);
    }
}

/// Whether passphrases have changed, which may open any key.
fn opens_keys(settings: &Settings, changed: &Changed) -> bool {
    match (&settings.tls.key_passphrase_file, changed) {
        (Some(place), Changed::Files(files)) => files.contains(&place.value),
        _ => false,
    }
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(Finding::to_string).collect()
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
