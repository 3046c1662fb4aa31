//! `forebay proxy-verify`: whether a PROXY protocol header was written with one of the keys
//! of a file.
//!
//! Exit codes: 0 it was; 1 it is not to be believed; 2 the keys or the header cannot be read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::output::say;
use super::{ExitStatus, FAILURE, SUCCESS, WRONG_INPUT};
use crate::control::proxy_headers::{ProxyKeysError, read_keys};
use crate::proxy_protocol::authentication::{AuthenticationKey, Verified, verify};
use crate::proxy_protocol::decode::V2_RECEIVED_BYTES_MAX;
use crate::tls::digits;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file with the keys, a line of 64 hexadecimal digits each
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// How many seconds ago the header may have been written, or how far in the future
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    max_age: u64,
    /// The time to judge it by, in milliseconds since 1970; now by default
    #[arg(long, value_name = "MILLISECONDS")]
    at: Option<u64>,
    /// The header is written as hexadecimal digits
    #[arg(long)]
    hex: bool,
    /// The file that begins with the header; standard input by default
    file: Option<PathBuf>,
}

/// Why nothing can be verified.
#[derive(Debug, thiserror::Error)]
enum ProxyVerifyError {
    #[error(transparent)]
    Keys(#[from] ProxyKeysError),
    #[error("{name}: cannot be read: {source}")]
    Header { name: String, source: io::Error },
    #[error("{name}: is not hexadecimal: leave --hex out if it is the header itself")]
    NotHexadecimal { name: String },
    #[error("the clock is before 1970: set it, or use --at")]
    Clock,
}

pub(super) fn proxy_verify(arguments: &Arguments) -> ExitStatus {
    let (keys, header, now) = match read(arguments) {
        Ok(read) => read,
        Err(error) => {
            eprintln!("forebay: {error}");
            return WRONG_INPUT;
        }
    };
    match verify(&header, &keys, now, Duration::from_secs(arguments.max_age)) {
        Ok(verified) => {
            print(&verified);
            SUCCESS
        }
        Err(error) => {
            eprintln!("forebay: {error}");
            FAILURE
        }
    }
}

type Input = (Vec<AuthenticationKey>, Vec<u8>, Duration);

fn read(arguments: &Arguments) -> Result<Input, ProxyVerifyError> {
    let keys = read_keys(&arguments.keys)?;
    let header = read_header(arguments)?;
    let now = match arguments.at {
        Some(milliseconds) => Duration::from_millis(milliseconds),
        None => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| ProxyVerifyError::Clock)?,
    };
    Ok((keys, header, now))
}

fn read_header(arguments: &Arguments) -> Result<Vec<u8>, ProxyVerifyError> {
    let path = arguments.file.as_deref();
    let name = path.unwrap_or(Path::new("standard input")).display().to_string();
    // What follows the header is of no interest, unless it is part of a digit.
    let bytes_max = if arguments.hex { 4 } else { 1 } * V2_RECEIVED_BYTES_MAX as u64;
    let mut bytes = Vec::new();
    match path {
        Some(path) => {
            File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes))
        }
        None => io::stdin().take(bytes_max).read_to_end(&mut bytes),
    }
    .map_err(|source| ProxyVerifyError::Header { name: name.clone(), source })?;
    if !arguments.hex {
        return Ok(bytes);
    }
    bytes.retain(|byte| !byte.is_ascii_whitespace());
    let mut header = vec![0; bytes.len() / 2];
    std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| digits::hexadecimal(text, &mut header))
        .ok_or(ProxyVerifyError::NotHexadecimal { name })?;
    Ok(header)
}

fn print(verified: &Verified<'_>) {
    say(format_args!(
        "genuine: key {:08x}, written {} ms ago",
        verified.key_id,
        verified.age.as_millis()
    ));
    match verified.header.addresses {
        Some((client, destination)) => {
            say(format_args!("client {client}, which connected to {destination}"));
        }
        None => say("client unknown: the header has no addresses"),
    }
}
