//! A header that proves who wrote it: whoever reaches the server's port could otherwise
//! claim to be any client.
//!
//! The value, 45 bytes, of a type for applications ([`TYPE_AUTHENTICATION`]):
//!
//! ```text
//!   version 1 | key id | time          | code
//!   1 byte    | 4      | 8, ms of 1970 | 32, HMAC-SHA256
//! ```
//!
//! The code is over [`LABEL`] and the whole header, from its signature to its last byte,
//! with zeros where the code itself and the sum of a CRC32C stand. So nobody without the key
//! can change an address or a value, nor put one in or take one out. Numbers are in network
//! byte order. `docs/PROXY_AUTHENTICATION.md` is the format for who writes another verifier.
//!
//! The time bounds for how long a header that somebody has seen can be used again.
//!
//! Text and bytes in, keys and verdicts out: opens no file, asks no clock.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use super::decode::{Decoded, HeaderError, Received, decode};
use super::{HeaderTooLarge, TLV_BYTES, TYPE_CRC32C, V2_FIXED_BYTES};
use crate::tls::digits;

/// The type of the value, of those that the specification leaves to applications
/// (section 2.2.8).
pub const TYPE_AUTHENTICATION: u8 = 0xe7;

/// Bytes of the value.
pub const VALUE_BYTES: usize = CODE_PLACE + CODE_BYTES;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// The most keys of a file: the one in use, one to come and some that go.
pub const KEYS_MAX: usize = 8;

/// A larger file holds no keys. Bytes.
pub const KEY_FILE_BYTES_MAX: usize = 4 * 1_024;

/// What the code begins with, so that it means nothing elsewhere.
pub const LABEL: &[u8] = b"forebay proxy header v1";

/// What a key's number is made of.
const ID_LABEL: &[u8] = b"forebay proxy header key id v1";

const VERSION: u8 = 1;
const ID_BYTES: usize = 4;
const TIME_BYTES: usize = 8;
const CODE_BYTES: usize = 32;
/// Where in the value the code begins.
const CODE_PLACE: usize = 1 + ID_BYTES + TIME_BYTES;

/// A shared key. The library wipes it on drop; it is never printed.
pub struct AuthenticationKey {
    id: [u8; ID_BYTES],
    key: hmac::Key,
}

impl AuthenticationKey {
    /// The key of these bytes.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let key = hmac::Key::new(HMAC_SHA256, bytes);
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&hmac::sign(&key, ID_LABEL).as_ref()[..ID_BYTES]);
        Self { id, key }
    }

    /// The number that headers name the key by. No secret, and tells nothing of the key.
    pub fn id(&self) -> u32 {
        u32::from_be_bytes(self.id)
    }

    /// Puts the value behind a version 2 header, which has `length` bytes at the start of
    /// `header`, and returns the length with it. `now` is the time since 1970.
    ///
    /// The sum of a CRC32C must still be zeros, and is filled in afterwards.
    ///
    /// # Errors
    /// [`HeaderTooLarge`]: `header` has no room for it. It is then as it was.
    pub fn append(
        &self,
        header: &mut [u8],
        length: usize,
        now: Duration,
    ) -> Result<usize, HeaderTooLarge> {
        let whole = length + TLV_BYTES + VALUE_BYTES;
        let header = header.get_mut(..whole).ok_or(HeaderTooLarge)?;
        let behind = whole.checked_sub(V2_FIXED_BYTES).ok_or(HeaderTooLarge)?;
        let behind = u16::try_from(behind).map_err(|_| HeaderTooLarge)?;
        header[V2_FIXED_BYTES - 2..V2_FIXED_BYTES].copy_from_slice(&behind.to_be_bytes());

        let (front, code) = header.split_at_mut(whole - CODE_BYTES);
        let [kind, size @ .., version] = &mut front[length..length + TLV_BYTES + 1] else {
            return Err(HeaderTooLarge);
        };
        *kind = TYPE_AUTHENTICATION;
        size.copy_from_slice(&(VALUE_BYTES as u16).to_be_bytes());
        *version = VERSION;
        let (id, time) = front[length + TLV_BYTES + 1..].split_at_mut(ID_BYTES);
        id.copy_from_slice(&self.id);
        time.copy_from_slice(&milliseconds(now).to_be_bytes());

        code.fill(0);
        let tag = self.code(header, &[]);
        header[whole - CODE_BYTES..].copy_from_slice(tag.as_ref());
        Ok(whole)
    }

    /// The code of a header, as if zeros stood in `cleared`, which are in order.
    fn code(&self, header: &[u8], cleared: &[Range<usize>]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(LABEL);
        let mut done = 0;
        for place in cleared {
            context.update(&header[done..place.start]);
            context.update(&[0; CODE_BYTES][..place.len()]);
            done = place.end;
        }
        context.update(&header[done..]);
        context.sign()
    }
}

impl fmt::Debug for AuthenticationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AuthenticationKey({:08x})", self.id())
    }
}

fn milliseconds(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// What is wrong with a file of keys, and in which line, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// A line that is no key.
    #[error("line {0}: a key has 64 hexadecimal digits (`openssl rand -hex 32` makes one)")]
    NotAKey(usize),
    /// More than [`KEYS_MAX`].
    #[error("line {0}: the file holds more than {KEYS_MAX} keys: take the oldest out")]
    TooMany(usize),
    /// There is none.
    #[error("holds no key: `openssl rand -hex 32` makes one")]
    Empty,
}

/// Keys of a file, a line each, of 64 hexadecimal digits; empty lines and those that begin
/// with `#` do not count. The first is the one that a sender uses; a receiver takes any.
///
/// # Errors
/// See [`KeyFileError`]. No error shows any of the content.
pub fn parse_keys(content: &[u8]) -> Result<Vec<AuthenticationKey>, KeyFileError> {
    let mut keys = Vec::new();
    for (index, line) in content.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let number = index + 1;
        if keys.len() == KEYS_MAX {
            return Err(KeyFileError::TooMany(number));
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        std::str::from_utf8(line)
            .ok()
            .and_then(|text| digits::hexadecimal(text, bytes.as_mut_slice()))
            .ok_or(KeyFileError::NotAKey(number))?;
        keys.push(AuthenticationKey::new(&bytes));
    }
    if keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(keys) }
}

/// A header whose writer had one of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<'a> {
    /// What it says.
    pub header: Received<'a>,
    /// The number of the key that it was made with.
    pub key_id: u32,
    /// How long ago it was written; zero if the writer's clock is ahead.
    pub age: Duration,
}

/// Why a header is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// More bytes are needed.
    #[error("the header is incomplete")]
    Incomplete,
    /// No header at all.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It is not authenticated. Neither is any of version 1 or with the command LOCAL.
    #[error("the header has no authentication (a value of type {TYPE_AUTHENTICATION:#04x})")]
    Missing,
    /// Two, of which one may be anything.
    #[error("the header has more than one authentication")]
    Repeated,
    /// Another length or version.
    #[error(
        "the header's authentication is not of version {VERSION} with {VALUE_BYTES} bytes: \
         its writer and this verifier are of different releases"
    )]
    UnknownVersion,
    /// None of the keys.
    #[error("the header was made with key {0:08x}, which is not among those given")]
    UnknownKey(u32),
    /// Altered, or made with another key of the same number.
    #[error("the header's authentication code is wrong: it was altered or forged")]
    WrongCode,
    /// Genuine, but written too long ago, or by a clock that is ahead.
    #[error(
        "the header is genuine but was written {distance_ms} ms {direction}, and \
         {age_max_ms} ms are allowed: it is used again, or a clock is wrong",
        direction = if *.ahead { "in the future" } else { "ago" }
    )]
    NotNow {
        /// How far from now.
        distance_ms: u64,
        /// Whether its time is yet to come.
        ahead: bool,
        /// How far it may be.
        age_max_ms: u64,
    },
}

/// Looks for a header at the start of `received` and checks that one of `keys` was used to
/// write it, at most `age_max` before or after `now`, which is the time since 1970.
///
/// Within `age_max` a header that somebody has seen can be used again; a receiver that must
/// rule this out remembers the codes that it has taken.
///
/// # Errors
/// See [`VerifyError`].
pub fn verify<'a>(
    received: &'a [u8],
    keys: &[AuthenticationKey],
    now: Duration,
    age_max: Duration,
) -> Result<Verified<'a>, VerifyError> {
    let header = match decode(received) {
        Decoded::Complete(header) => header,
        Decoded::Incomplete => return Err(VerifyError::Incomplete),
        Decoded::Refused(error) => return Err(error.into()),
    };
    let bytes = &received[..header.bytes];
    let (value, cleared) = find(bytes, header)?;
    let (fixed, code) = value.split_at(CODE_PLACE);
    let [VERSION, i, j, k, l, time @ ..] = fixed else { return Err(VerifyError::UnknownVersion) };
    let id = [*i, *j, *k, *l];
    let time = <[u8; TIME_BYTES]>::try_from(time).map_err(|_| VerifyError::UnknownVersion)?;

    let mut named = keys.iter().filter(|key| key.id == id).peekable();
    if named.peek().is_none() {
        return Err(VerifyError::UnknownKey(u32::from_be_bytes(id)));
    }
    let genuine = |key: &AuthenticationKey| {
        verify_slices_are_equal(key.code(bytes, &cleared).as_ref(), code).is_ok()
    };
    if !named.any(genuine) {
        return Err(VerifyError::WrongCode);
    }

    // Only now: what is not genuine has no time.
    let (written_ms, now_ms) = (u64::from_be_bytes(time), milliseconds(now));
    let (distance_ms, age_max_ms) = (now_ms.abs_diff(written_ms), milliseconds(age_max));
    if distance_ms > age_max_ms {
        let ahead = written_ms > now_ms;
        return Err(VerifyError::NotNow { distance_ms, ahead, age_max_ms });
    }
    let age = Duration::from_millis(now_ms.saturating_sub(written_ms));
    Ok(Verified { header, key_id: u32::from_be_bytes(id), age })
}

/// The authentication value, and which bytes of the header are zeros for its code.
fn find<'a>(
    bytes: &[u8],
    header: Received<'a>,
) -> Result<(&'a [u8], Vec<Range<usize>>), VerifyError> {
    let values_bytes: usize = header.values.iter().map(|(_, value)| TLV_BYTES + value.len()).sum();
    let mut end = bytes.len() - values_bytes;
    let mut found = None;
    let mut cleared = Vec::new();
    for (kind, value) in header.values.iter() {
        let start = end + TLV_BYTES;
        end = start + value.len();
        if kind == TYPE_CRC32C {
            cleared.push(start..end);
        } else if kind == TYPE_AUTHENTICATION {
            if found.replace(value).is_some() {
                return Err(VerifyError::Repeated);
            }
            if value.len() != VALUE_BYTES {
                return Err(VerifyError::UnknownVersion);
            }
            cleared.push(start + CODE_PLACE..end);
        }
    }
    found.map(|value| (value, cleared)).ok_or(VerifyError::Missing)
}

#[cfg(test)]
mod tests;
