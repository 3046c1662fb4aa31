//! Reload: the file is read again, and everything that it leads to is built again, off
//! the engines. Only if nothing is wrong does anybody hear of it.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use super::certificate_index::IndexKeeper;
use super::prepare::{self, Bound, Preparer};
use super::supervise::{Attempt, Scope};
use super::watch::{Changed, Told, Watch};
use crate::config::{self, Finding, Settings, Severity};
use crate::engine::snapshot::Snapshot;
use crate::tls::certificates::store::Look;

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
        let (wanted, findings) = match &scope {
            Scope::Certificates(_) => {
                tracing::info!("certificate files have changed: reloading them");
                (in_force.clone(), Vec::new())
            }
            Scope::Everything => {
                tracing::info!(file = %file.display(), "reloading");
                let (loaded, mut findings) = config::load(file);
                let Some(loaded) = loaded else {
                    log_findings(&findings);
                    return Attempt { reloaded: None, findings: texts(&findings) };
                };
                findings.extend(prepare::needs_restart(&at_start, &loaded));
                (loaded, findings)
            }
        };
        let told = match &scope {
            Scope::Certificates(changed) => Told { changed: changed.clone(), is_all: true },
            Scope::Everything => watch.borrow_mut().take(Instant::now()),
        };
        pending = std::mem::replace(&mut pending, Changed::Anything).and(told.changed);
        let look = match &pending {
            Changed::Files(files)
                if told.is_all
                    && watch.borrow().is_on(prepare::certificate_places(&wanted))
                    && !opens_keys(&in_force, &wanted, files) =>
            {
                match scope {
                    Scope::Everything => Look::Asked(files),
                    Scope::Certificates(_) => Look::Changed(files),
                }
            }
            _ => Look::Everywhere,
        };
        let everywhere = matches!(look, Look::Everywhere);
        if everywhere {
            // It forgets what has happened until now, and so all must be read then.
            watch.borrow_mut().set(prepare::certificate_places(&wanted));
        }
        let (reloaded, findings) =
            preparer.prepare_again(&wanted, look, &bound, generation, findings);
        log_findings(&findings);
        let Some(reloaded) = reloaded else {
            if scope == Scope::Everything {
                // What has changed besides is none of the mistake's business.
                let mut watch = watch.borrow_mut();
                let since = watch.take(Instant::now()).changed;
                let before = std::mem::replace(&mut pending, Changed::nothing());
                if everywhere {
                    watch.set(prepare::certificate_places(&in_force));
                    pending = Changed::Anything;
                }
                if let Changed::Files(files) = before.and(since) {
                    watch.put_back(files, Instant::now());
                }
            }
            preparer.pools().borrow_mut().discard();
            return Attempt { reloaded: None, findings: texts(&findings) };
        };
        in_force = wanted;
        pending = Changed::nothing();
        preparer.pools().borrow_mut().put_in_force(&in_force, &reloaded.snapshot);
        keep_index(index.as_ref(), &mut preparer);
        Attempt { reloaded: Some(reloaded), findings: texts(&findings) }
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
fn opens_keys(before: &Settings, wanted: &Settings, changed: &HashSet<PathBuf>) -> bool {
    let file = |settings: &Settings| {
        settings.tls.key_passphrase_file.as_ref().map(|place| place.value.clone())
    };
    let wanted = file(wanted);
    wanted != file(before) || wanted.is_some_and(|wanted| changed.contains(&wanted))
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
