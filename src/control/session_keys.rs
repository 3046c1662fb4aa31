//! The ticket keys of the process over time: secrets from files or of its own, epochs
//! that end, files that change.
//!
//! ```text
//!   reload ──stage──▶ secrets read, nothing changed yet ──put_in_force──▶ rings
//!   every turn ──look_after──▶ file changed? epoch over? ──────────────▶ rings
//! ```
//!
//! Files are looked at once a second instead of watched by inotify(7): a file that is
//! replaced by a rename, or behind links that are, would need watches on every directory
//! of its path, and a second is nothing to a key that seals for hours.
//!
//! A file that cannot be used changes nothing: the secrets in force stay.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::control_cells::ControlCells;
use super::secret_files::{self, SecretFilesError, Stamp};
use crate::config::{Finding, Settings};
use crate::tls::CryptoLibrary;
use crate::tls::tickets::secret_file::SECRETS_MAX;
use crate::tls::tickets::{
    DomainId, EpochTooFar, KeyRing, KeySet, NoRandomness, Secret, SecretKind, Timing, sealing,
    unix_seconds,
};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why secrets cannot be used.
#[derive(Debug, thiserror::Error)]
enum SecretsError {
    #[error(transparent)]
    File(#[from] SecretFilesError),
    #[error(
        "{path}: secret {id:08x} counts epochs of {in_file} s, and session.epoch is \
         {configured} s: set it to that, or make new secrets"
    )]
    OtherEpoch { path: String, id: u32, in_file: u64, configured: u64 },
    #[error("the files of session.secrets hold more than {SECRETS_MAX} secrets: list fewer")]
    TooMany,
    #[error(transparent)]
    TooFar(#[from] EpochTooFar),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Shared by the preparer, which stages, and the supervisor, which looks after them; both
/// on the control thread.
#[derive(Clone, Debug, Default)]
pub struct SessionKeys(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    in_force: Option<Plan>,
    rings: HashMap<DomainId, Arc<KeyRing>>,
    /// What the rings were last made for.
    published: Option<Window>,
    looked: Option<Instant>,
    /// Versions of files that could not be used: reported once.
    refused: HashMap<PathBuf, Option<Stamp>>,
    /// The files do not show yet how far a ratchet has gone.
    unsaved: bool,
}

/// Secrets and when they are used.
#[derive(Debug)]
struct Plan {
    library: CryptoLibrary,
    timing: Timing,
    sources: Vec<Source>,
}

/// A file, or what this process made for itself.
#[derive(Debug)]
struct Source {
    file: Option<(PathBuf, Stamp)>,
    secrets: Vec<Secret>,
}

/// All that a key set depends on beside its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    oldest: u64,
    epoch: u64,
    sealing: Option<u32>,
}

/// What a configuration would put in force.
#[derive(Debug)]
pub struct Staged {
    plan: Option<Plan>,
    rings: HashMap<DomainId, Arc<KeyRing>>,
    library: CryptoLibrary,
}

impl SessionKeys {
    /// Reads the secrets that `settings` name. Without any the process has its own, which
    /// stays until the epochs change.
    ///
    /// `None`, with findings, if they cannot be used.
    pub fn stage(&self, settings: &Settings, findings: &mut Vec<Finding>) -> Option<Staged> {
        let library = settings.tls.provider;
        let session = &settings.session;
        let timing = Timing {
            epoch_seconds: session.epoch.as_secs(),
            overlap_seconds: session.overlap.as_secs(),
        };
        let staged = |plan| Some(Staged { plan, rings: HashMap::new(), library });
        let place = session.secrets.first().map(|first| first.place.clone()).unwrap_or_default();
        let fail = |error: SecretsError| settings.error(&place, error.to_string());
        if session.secrets.is_empty() {
            let stays = self.lock().in_force.as_ref().is_some_and(|plan| {
                plan.timing == timing && plan.sources.iter().all(|source| source.file.is_none())
            });
            if stays {
                return staged(None);
            }
            let own = Secret::random(library).map_err(|error| findings.push(fail(error.into())));
            let secrets = vec![own.ok()?.into_ratchet(timing, unix_seconds())];
            let sources = vec![Source { file: None, secrets }];
            return staged(Some(Plan { library, timing, sources }));
        }
        let errors_before = findings.len();
        let mut sources = Vec::new();
        for path in &session.secrets {
            match Source::read(path.value.clone(), timing) {
                Ok(source) => sources.push(source),
                Err(error) => findings.push(settings.error(&path.place, error.to_string())),
            }
        }
        let plan = Plan { library, timing, sources };
        if findings.len() == errors_before
            && let Err(error) = plan.check(unix_seconds())
        {
            findings.push(fail(error));
        }
        if findings.len() > errors_before { None } else { staged(Some(plan)) }
    }

    /// The ring of a domain: the one in force if there is one, so that sessions survive a
    /// reload.
    pub fn ring(&self, staged: &mut Staged, domain: DomainId) -> Arc<KeyRing> {
        let library = staged.library;
        let ring = staged.rings.entry(domain).or_insert_with(|| {
            let in_force = self.lock().rings.get(&domain).cloned();
            in_force.unwrap_or_else(|| Arc::new(KeyRing::new(library)))
        });
        Arc::clone(ring)
    }

    /// Uses what was staged.
    pub fn put_in_force(&self, staged: Staged) {
        let mut state = self.lock();
        if let Some(plan) = staged.plan {
            state.in_force = Some(plan);
            state.refused.clear();
        }
        state.rings = staged.rings;
        state.published = None;
        state.publish(unix_seconds());
    }

    /// To be called every turn: notices that a file has changed and that an epoch is over.
    pub fn look_after(&self, cells: &ControlCells) {
        let mut state = self.lock();
        if state.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            state.looked = Some(Instant::now());
            state.look_at_files(cells);
            if state.unsaved {
                state.save(cells);
            }
        }
        let now = unix_seconds();
        state.publish(now);
        let Some(plan) = &state.in_force else { return };
        cells.session_epoch.set(plan.timing.epoch(now));
        cells.session_secrets.set(plan.secrets().len() as u64);
        cells.session_secrets_usable.set(u64::from(state.refused.is_empty()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many domains have a ring.
    #[cfg(test)]
    pub(super) fn rings(&self) -> HashMap<DomainId, Arc<KeyRing>> {
        self.lock().rings.clone()
    }
}

impl State {
    /// Reads anew what has changed.
    fn look_at_files(&mut self, cells: &ControlCells) {
        let Some(plan) = &mut self.in_force else { return };
        let timing = plan.timing;
        for index in 0..plan.sources.len() {
            let Some((path, stamp)) = plan.sources[index].file.clone() else { continue };
            let seen = Stamp::of(&path);
            if seen == Some(stamp) {
                self.refused.remove(&path);
                continue;
            }
            if self.refused.get(&path) == Some(&seen) {
                continue;
            }
            let read = Source::read(path.clone(), timing).and_then(|source| {
                let old = std::mem::replace(&mut plan.sources[index], source);
                plan.check(unix_seconds()).inspect_err(|_| plan.sources[index] = old)
            });
            match read {
                Ok(()) => {
                    self.refused.remove(&path);
                    self.published = None;
                    cells.session_secret_changes.increment();
                    let secrets = plan.sources[index].secrets.len();
                    tracing::info!(file = %path.display(), secrets, "ticket secrets changed");
                }
                Err(error) => {
                    self.refused.insert(path, seen);
                    tracing::error!("{error}; the ticket secrets in force stay");
                }
            }
        }
    }

    /// Gives the rings the keys of `now`, if they have not got them.
    fn publish(&mut self, now: u64) {
        let Some(plan) = &mut self.in_force else { return };
        let secrets = plan.secrets();
        let window = Window {
            oldest: plan.timing.oldest_epoch(now),
            epoch: plan.timing.epoch(now),
            sealing: sealing(&secrets, now).map(|index| secrets[index].id()),
        };
        if self.published == Some(window) {
            return;
        }
        if let Some(before) = self.published
            && before.epoch > window.epoch
        {
            tracing::warn!(
                epoch = window.epoch,
                before = before.epoch,
                "the clock went back past the beginning of a ticket epoch"
            );
        }
        let (library, timing) = (plan.library, plan.timing);
        let sets = self.rings.iter().map(|(domain, ring)| {
            KeySet::new(library, &secrets, domain, timing, now).map(|keys| (ring, keys))
        });
        match sets.collect::<Result<Vec<_>, _>>() {
            Ok(sets) => sets.into_iter().for_each(|(ring, keys)| ring.put_in_force(keys)),
            // The keys in force stay; the window is noted, so that this is said once.
            Err(error) => tracing::error!("{error}; the ticket keys in force stay"),
        }
        self.published = Some(window);
        for secret in plan.sources.iter_mut().flat_map(|source| &mut source.secrets) {
            if let SecretKind::Ratchet { epoch, .. } = secret.kind()
                && epoch > window.epoch
            {
                tracing::warn!(
                    secret = format!("{:08x}", secret.id()),
                    epoch,
                    clock = window.epoch,
                    "the clock is behind the ratchet: other nodes may not open our tickets"
                );
            }
            match secret.forget_before(window.oldest) {
                Ok(forgot) => self.unsaved |= forgot,
                Err(error) => tracing::error!("{error}"),
            }
        }
    }

    /// Writes ratchets that have gone on to their files.
    fn save(&mut self, cells: &ControlCells) {
        let Some(plan) = &mut self.in_force else { return };
        self.unsaved = false;
        for source in &mut plan.sources {
            let ratchets = source.secrets.iter().any(|one| one.kind() != SecretKind::Fixed);
            let Some((path, stamp)) = &mut source.file else { continue };
            // What has changed meanwhile is read at the next look, not overwritten.
            if !ratchets || Stamp::of(path) != Some(*stamp) {
                continue;
            }
            match secret_files::replace(path, &source.secrets) {
                Ok(()) => {
                    if let Some(written) = Stamp::of(path) {
                        *stamp = written;
                    }
                }
                Err(error) => {
                    self.unsaved = true;
                    if cells.session_ratchet_failures.value() == 0 {
                        tracing::error!(
                            "{error}; until it can be, whoever reads it opens tickets of \
                             past epochs"
                        );
                    }
                    cells.session_ratchet_failures.increment();
                }
            }
        }
    }
}

impl Plan {
    fn secrets(&self) -> Vec<&Secret> {
        self.sources.iter().flat_map(|source| &source.secrets).collect()
    }

    /// Whether all of it can be used at `now`.
    fn check(&self, now: u64) -> Result<(), SecretsError> {
        let secrets = self.secrets();
        if secrets.len() > SECRETS_MAX {
            return Err(SecretsError::TooMany);
        }
        let domain = DomainId::of_names([]);
        KeySet::new(self.library, &secrets, &domain, self.timing, now)?;
        Ok(())
    }
}

impl Source {
    fn read(path: PathBuf, timing: Timing) -> Result<Self, SecretsError> {
        let (file, stamp) = secret_files::read(&path)?;
        for secret in &file.secrets {
            if let SecretKind::Ratchet { epoch_seconds, .. } = secret.kind()
                && epoch_seconds != timing.epoch_seconds
            {
                return Err(SecretsError::OtherEpoch {
                    path: path.display().to_string(),
                    id: secret.id(),
                    in_file: epoch_seconds,
                    configured: timing.epoch_seconds,
                });
            }
        }
        Ok(Self { file: Some((path, stamp)), secrets: file.secrets })
    }
}
