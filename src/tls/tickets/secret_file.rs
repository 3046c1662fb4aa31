//! The files that secrets come in.
//!
//! | form | told by | seals |
//! |---|---|---|
//! | forebay's | the first line, [`HEADER`] | the newest whose time has come |
//! | HAProxy's `tls-ticket-keys` | lines of base64, 48 or 80 bytes each, at least three | the last but one |
//! | nginx' `ssl_session_ticket_key` | exactly 48 or 80 bytes | that one |
//!
//! ```text
//!   forebay ticket secrets 1
//!   # comment
//!   secret  SEALS-FROM HEX
//!   ratchet SEALS-FROM HEX EPOCH-SECONDS EPOCH ID
//! ```
//!
//! SEALS-FROM, EPOCH-SECONDS and EPOCH are decimal, ID has 8 hexadecimal digits and a
//! value 64. Times are seconds since 1970. Text in, secrets out: no file is opened here.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::Secret;
use super::SecretKind;
use super::secret::zeros;
use crate::tls::digits;
use crate::tls::key_schedule::KeyBytes;

/// The first line of forebay's own form.
pub const HEADER: &str = "forebay ticket secrets 1";

/// The most secrets of a file. Each is three keys to compare a ticket's name with.
pub const SECRETS_MAX: usize = 8;

/// A larger file holds no secrets; reading stops there. Bytes.
pub const FILE_BYTES_MAX: usize = 16 * 1_024;

/// HAProxy keeps three keys and refuses a file with fewer (its manual, `tls-ticket-keys`).
const HAPROXY_KEYS_MIN: usize = 3;

/// What is wrong with a file, and in which line, counted from 1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretFileError {
    /// Neither of the three forms.
    #[error(
        "is none of: a file that begins with \"{HEADER}\" (make one with `forebay \
         ticket-secret generate`), a tls-ticket-keys file of HAProxy, an \
         ssl_session_ticket_key file of nginx (48 or 80 bytes)"
    )]
    UnknownForm,
    /// More than [`FILE_BYTES_MAX`].
    #[error("is larger than {FILE_BYTES_MAX} bytes: it holds no ticket secrets")]
    TooLarge,
    /// There is none.
    #[error("holds no secret: make one with `forebay ticket-secret generate`")]
    Empty,
    /// More than [`SECRETS_MAX`].
    #[error("line {line}: the file holds more than {SECRETS_MAX} secrets: take the oldest out")]
    TooMany {
        /// The first beyond.
        line: usize,
    },
    /// HAProxy would not take it.
    #[error("holds {keys} keys where HAProxy takes no fewer than 3: add a line for each")]
    TooFewKeys {
        /// As many as there are.
        keys: usize,
    },
    /// A line that says nothing we know.
    #[error(
        "line {line}: expected `secret SEALS-FROM HEX` or `ratchet SEALS-FROM HEX \
         EPOCH-SECONDS EPOCH ID`"
    )]
    UnknownLine {
        /// Which.
        line: usize,
    },
    /// A number that is none.
    #[error("line {line}: {field} is not a number that fits")]
    BadNumber {
        /// Which line.
        line: usize,
        /// Which number.
        field: &'static str,
    },
    /// A secret that is none.
    #[error("line {line}: a secret has 64 hexadecimal digits")]
    BadSecret {
        /// Which.
        line: usize,
    },
    /// A key of another length.
    #[error("line {line}: a key of HAProxy has 48 or 80 bytes in base64, this one {bytes}")]
    BadKeyLength {
        /// Which.
        line: usize,
        /// What it has.
        bytes: usize,
    },
}

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Ours.
    Forebay,
    /// HAProxy's `tls-ticket-keys`.
    Haproxy,
    /// nginx' `ssl_session_ticket_key`.
    Nginx,
}

/// What a file holds.
#[derive(Debug)]
pub struct SecretFile {
    /// Its form.
    pub form: Form,
    /// The secrets in the order of the file, 1 to [`SECRETS_MAX`].
    pub secrets: Vec<Secret>,
}

impl SecretFile {
    /// Reads the content of a file.
    ///
    /// # Errors
    /// See [`SecretFileError`]. No error shows any of the content.
    pub fn parse(content: &[u8]) -> Result<Self, SecretFileError> {
        if content.len() > FILE_BYTES_MAX {
            return Err(SecretFileError::TooLarge);
        }
        let text = std::str::from_utf8(content).ok();
        match text.and_then(|text| text.strip_prefix(HEADER)) {
            Some(rest) if rest.is_empty() || rest.starts_with(['\n', '\r']) => {
                let secrets = parse_ours(rest)?;
                return Ok(Self { form: Form::Forebay, secrets });
            }
            _ => {}
        }
        if is_key_length(content.len()) {
            let secrets = vec![Secret::of_key_material(content, 0)];
            return Ok(Self { form: Form::Nginx, secrets });
        }
        let secrets = parse_haproxy(text.ok_or(SecretFileError::UnknownForm)?)?;
        Ok(Self { form: Form::Haproxy, secrets })
    }

    /// The content of a file in our own form. Wiped on drop.
    pub fn print<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Zeroizing<String> {
        // As large as it can become, so that no copy is left behind.
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "{HEADER}\n# Keep it readable by forebay alone.");
        for secret in secrets {
            let word = match secret.kind() {
                SecretKind::Fixed => "secret",
                SecretKind::Ratchet { .. } => "ratchet",
            };
            let _ = write!(text, "{word} {} ", secret.seals_from());
            for byte in secret.value() {
                let _ = write!(text, "{byte:02x}");
            }
            if let SecretKind::Ratchet { epoch_seconds, epoch } = secret.kind() {
                let _ = write!(text, " {epoch_seconds} {epoch} {:08x}", secret.id());
            }
            text.push('\n');
        }
        text
    }
}

const fn is_key_length(bytes: usize) -> bool {
    matches!(bytes, 48 | 80)
}

/// Everything behind the header.
fn parse_ours(text: &str) -> Result<Vec<Secret>, SecretFileError> {
    let mut secrets = Vec::new();
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        let content = content.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if secrets.len() == SECRETS_MAX {
            return Err(SecretFileError::TooMany { line });
        }
        let words: Vec<&str> = content.split_ascii_whitespace().collect();
        let number = |text: &str, field| {
            text.parse::<u64>().map_err(|_| SecretFileError::BadNumber { line, field })
        };
        secrets.push(match words[..] {
            ["secret", from, value] => {
                Secret::fixed(hexadecimal(value, line)?, number(from, "SEALS-FROM")?)
            }
            ["ratchet", from, value, epoch_seconds, epoch, id] => {
                let id = u32::from_str_radix(id, 16)
                    .map_err(|_| SecretFileError::BadNumber { line, field: "ID" })?;
                let chain = (number(epoch_seconds, "EPOCH-SECONDS")?, number(epoch, "EPOCH")?);
                let from = number(from, "SEALS-FROM")?;
                Secret::ratchet(id, from, chain, hexadecimal(value, line)?)
            }
            _ => return Err(SecretFileError::UnknownLine { line }),
        });
    }
    if secrets.is_empty() { Err(SecretFileError::Empty) } else { Ok(secrets) }
}

fn hexadecimal(text: &str, line: usize) -> Result<KeyBytes, SecretFileError> {
    let mut value = zeros();
    digits::hexadecimal(text, value.as_mut_slice()).ok_or(SecretFileError::BadSecret { line })?;
    Ok(value)
}

/// The last three keys count: HAProxy seals with the last but one and opens with all.
fn parse_haproxy(text: &str) -> Result<Vec<Secret>, SecretFileError> {
    let mut keys = Vec::new();
    for (index, content) in text.lines().enumerate() {
        let content = content.trim();
        if content.is_empty() {
            continue;
        }
        let key = digits::base64(content).ok_or(SecretFileError::UnknownForm)?;
        if !is_key_length(key.len()) {
            return Err(SecretFileError::BadKeyLength { line: index + 1, bytes: key.len() });
        }
        keys.push(key);
    }
    if keys.len() < HAPROXY_KEYS_MIN {
        return Err(match keys.len() {
            0 => SecretFileError::Empty,
            keys => SecretFileError::TooFewKeys { keys },
        });
    }
    let last = &keys[keys.len() - HAPROXY_KEYS_MIN..];
    let seals_from = [0, 1, 0];
    Ok(last.iter().zip(seals_from).map(|(key, from)| Secret::of_key_material(key, from)).collect())
}
