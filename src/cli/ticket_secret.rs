//! `forebay ticket-secret`: makes, renews and shows the file that a tier's session ticket
//! keys come from.
//!
//! Never prints a secret. Files are written with mode 0600 and in one piece.

use std::path::{Path, PathBuf};

use clap::builder::RangedU64ValueParser;

use super::output::say;
use super::{ExitStatus, FAILURE, SUCCESS};
use crate::control::secret_files::{self, SecretFilesError};
use crate::tls::CryptoLibrary;
use crate::tls::tickets::secret_file::{Form, SECRETS_MAX};
use crate::tls::tickets::{NoRandomness, Secret, SecretKind, Timing, sealing, unix_seconds};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a file with one secret; it must not exist yet
    Generate {
        /// The file
        file: PathBuf,
        /// Make a ratchet: every node rewrites its copy when an epoch is over, and nobody
        /// who takes it later opens older tickets
        #[arg(long)]
        ratchet: bool,
        /// The `session.epoch` of the tier, in seconds; a ratchet is bound to it
        #[arg(long, value_name = "SECONDS", default_value_t = Timing::DEFAULT.epoch_seconds,
              value_parser = RangedU64ValueParser::<u64>::new().range(1..=604_800))]
        epoch: u64,
    },
    /// Put a new secret in front of those of a file; the others still open
    Rotate {
        /// The file, in forebay's own form
        file: PathBuf,
        /// Seconds until the new secret seals, for the file to reach every node; it opens
        /// tickets at once
        #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
        delay: u64,
        /// How many secrets stay in the file, the new one included
        #[arg(long, value_name = "COUNT", default_value_t = 3,
              value_parser = RangedU64ValueParser::<usize>::new().range(2..=SECRETS_MAX as u64))]
        keep: usize,
    },
    /// Show what a file holds, but no secret
    Inspect {
        /// The file, in any form that forebay reads
        file: PathBuf,
    },
}

/// Why the command did nothing.
#[derive(Debug, thiserror::Error)]
enum TicketSecretError {
    #[error(transparent)]
    File(#[from] SecretFilesError),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error(
        "{0}: is a key file of another program: rotate it with that program's means, or make \
         a file with `forebay ticket-secret generate`"
    )]
    NotOurs(String),
}

pub(super) fn ticket_secret(arguments: &Arguments) -> ExitStatus {
    let done = match &arguments.action {
        Action::Generate { file, ratchet, epoch } => generate(file, ratchet.then_some(*epoch)),
        Action::Rotate { file, delay, keep } => rotate(file, *delay, *keep),
        Action::Inspect { file } => inspect(file),
    };
    match done {
        Ok(()) => SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            FAILURE
        }
    }
}

fn generate(path: &Path, ratchet_seconds: Option<u64>) -> Result<(), TicketSecretError> {
    let secret = new_secret(ratchet_seconds, unix_seconds())?;
    secret_files::create(path, [&secret])?;
    say(format_args!("{}: made with secret {:08x}", path.display(), secret.id()));
    Ok(())
}

fn new_secret(ratchet_seconds: Option<u64>, now: u64) -> Result<Secret, NoRandomness> {
    let secret = Secret::random(CryptoLibrary::default())?;
    Ok(match ratchet_seconds {
        None => secret,
        Some(epoch_seconds) => {
            // From the epoch before: another node's clock may be behind.
            let timing = Timing { epoch_seconds, overlap_seconds: epoch_seconds };
            secret.into_ratchet(timing, now)
        }
    })
}

fn rotate(path: &Path, delay: u64, keep: usize) -> Result<(), TicketSecretError> {
    let (file, _) = secret_files::read(path)?;
    if file.form != Form::Forebay {
        return Err(TicketSecretError::NotOurs(path.display().to_string()));
    }
    let now = unix_seconds();
    let ratchet_seconds = file.secrets.iter().find_map(|secret| match secret.kind() {
        SecretKind::Ratchet { epoch_seconds, .. } => Some(epoch_seconds),
        SecretKind::Fixed => None,
    });
    let new = new_secret(ratchet_seconds, now)?.sealing_from(now.saturating_add(delay));
    let mut secrets = vec![new];
    secrets.extend(file.secrets);
    secrets.truncate(keep);
    secret_files::replace(path, &secrets)?;
    say(format_args!(
        "{}: secret {:08x} seals in {delay} s; secrets in the file: {}",
        path.display(),
        secrets[0].id(),
        secrets.len()
    ));
    Ok(())
}

fn inspect(path: &Path) -> Result<(), TicketSecretError> {
    let (file, _) = secret_files::read(path)?;
    let form = match file.form {
        Form::Forebay => "forebay's own",
        Form::Haproxy => "HAProxy's tls-ticket-keys",
        Form::Nginx => "nginx' ssl_session_ticket_key",
    };
    say(format_args!("{}: {form}", path.display()));
    let now = unix_seconds();
    let secrets: Vec<&Secret> = file.secrets.iter().collect();
    let seals = sealing(&secrets, now);
    for (index, secret) in secrets.into_iter().enumerate() {
        let role = if seals == Some(index) {
            "seals and opens".to_owned()
        } else if secret.seals_from() > now {
            format!("opens; seals in {} s", secret.seals_from() - now)
        } else {
            "opens".to_owned()
        };
        let kind = match secret.kind() {
            SecretKind::Fixed => "fixed".to_owned(),
            SecretKind::Ratchet { epoch_seconds, epoch } => {
                format!("ratchet at epoch {epoch} of {epoch_seconds} s")
            }
        };
        say(format_args!("  {:08x}  {kind}  {role}", secret.id()));
    }
    Ok(())
}
