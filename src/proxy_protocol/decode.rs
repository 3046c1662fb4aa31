//! The receiver: what a balancer in front tells of the client, in version 1 or 2.
//!
//! ```text
//!   bytes received so far ──▶ Incomplete | Refused(why) | Complete(what, how many bytes)
//! ```
//!
//! As strict as the specification lets a receiver be: whatever is not exactly a header is
//! no header. Which of a listener's peers may send one at all is not decided here.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    TLV_BYTES, TYPE_CRC32C, V2_FIXED_BYTES, V2_INET_BYTES, V2_INET6_BYTES, V2_SIGNATURE,
    V2_UNIX_BYTES,
};

/// The longest version 1 line with its end (section 2.1: 107 characters).
pub const V1_LINE_BYTES_MAX: usize = 107;

/// The longest version 2 header that is taken, of the 65,551 bytes that one could have.
/// Balancers send some hundred; a client's certificate adds a few thousand.
pub const V2_RECEIVED_BYTES_MAX: usize = 8 * 1024;

/// What a version 1 line begins with.
const V1_PREFIX: &[u8] = b"PROXY ";

/// What the bytes received so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// So far so good: bring more bytes.
    Incomplete,
    /// A whole header.
    Complete(Received<'a>),
    /// Not a header that is taken; bytes to come would not change it.
    Refused(HeaderError),
}

/// A header that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Bytes that it took; what follows is the client's.
    pub bytes: usize,
    /// The client's address and the one it connected to. `None` when the sender speaks
    /// for itself (a health check) or does not know: the connection's own addresses hold.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Whatever else it said. Version 1 has nothing.
    pub values: Values<'a>,
}

/// The values behind the addresses of a version 2 header, checked to be well-formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    /// Values that were checked before; should they not be, they end at the first that is not
    /// well-formed.
    pub(super) const fn stored(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Type and value of each, in order.
    pub fn iter(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (kind, value, behind) = split_value(rest)?;
            rest = behind;
            Some((kind, value))
        })
    }
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It begins with something else.
    #[error("no PROXY protocol header: the sender must be told to send one")]
    NotAHeader,
    /// Version 1: not a line of the specification.
    #[error("the PROXY protocol line is not as version 1 has it: {0}")]
    Line(&'static str),
    /// Version 2: not as specified.
    #[error("the PROXY protocol header is not as version 2 has it: {0}")]
    Binary(&'static str),
    /// Version 2: longer than is taken.
    #[error("the PROXY protocol header has {0} bytes; at most {V2_RECEIVED_BYTES_MAX} are taken")]
    TooLong(usize),
    /// Version 2: the sum is another one.
    #[error("the PROXY protocol header was altered on its way: its CRC32C is another one")]
    Checksum,
}

/// Looks for a header at the start of `received`: all the bytes of the connection so far.
/// Called again with more bytes after [`Decoded::Incomplete`].
pub fn decode(received: &[u8]) -> Decoded<'_> {
    let outcome = if begins_alike(received, &V2_SIGNATURE) {
        decode_v2(received)
    } else if begins_alike(received, V1_PREFIX) {
        decode_v1(received)
    } else {
        Err(HeaderError::NotAHeader)
    };
    match outcome {
        Ok(None) => Decoded::Incomplete,
        Ok(Some(header)) => Decoded::Complete(header),
        Err(error) => Decoded::Refused(error),
    }
}

fn begins_alike(received: &[u8], beginning: &[u8]) -> bool {
    let length = received.len().min(beginning.len());
    received[..length] == beginning[..length]
}

/// Section 2.1.
fn decode_v1(received: &[u8]) -> Result<Option<Received<'_>>, HeaderError> {
    let window = &received[..received.len().min(V1_LINE_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if received.len() >= V1_LINE_BYTES_MAX {
            Err(HeaderError::Line("it does not end within 107 bytes"))
        } else {
            Ok(None)
        };
    };
    let line = std::str::from_utf8(&window[V1_PREFIX.len().min(end)..end])
        .map_err(|_| HeaderError::Line("it is no text"))?;
    let mut fields = line.split(' ');
    let addresses = match fields.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(addresses_v1(fields, ipv4)?),
        Some("TCP6") => Some(addresses_v1(fields, ipv6)?),
        _ => return Err(HeaderError::Line("the family is none of TCP4, TCP6, UNKNOWN")),
    };
    Ok(Some(Received { bytes: end + 2, addresses, values: Values::default() }))
}

fn addresses_v1<'a>(
    mut fields: impl Iterator<Item = &'a str>,
    address: impl Fn(&str) -> Option<IpAddr>,
) -> Result<(SocketAddr, SocketAddr), HeaderError> {
    let (source, destination) = (fields.next(), fields.next());
    let (source_port, destination_port) = (fields.next(), fields.next());
    if fields.next().is_some() {
        return Err(HeaderError::Line("it has more than four fields behind the family"));
    }
    let address = |field: Option<&str>| {
        field.and_then(&address).ok_or(HeaderError::Line("an address is missing or none"))
    };
    let port = |field: Option<&str>| {
        field.and_then(decimal_port).ok_or(HeaderError::Line("a port is missing or none"))
    };
    Ok((
        SocketAddr::new(address(source)?, port(source_port)?),
        SocketAddr::new(address(destination)?, port(destination_port)?),
    ))
}

/// Without leading zeros, which some read as octal; the standard library refuses them.
fn ipv4(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// Hexadecimal groups. An IPv4 address is not written in this family by any sender that
/// keeps to the specification, but the dotted tail of a mapped one is understood.
fn ipv6(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// 0 to 65535 without leading zeros and signs.
fn decimal_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text.len() == 1 || !text.starts_with('0');
    if plain && canonical { text.parse().ok() } else { None }
}

/// Section 2.2.
fn decode_v2(received: &[u8]) -> Result<Option<Received<'_>>, HeaderError> {
    const VERSION: u8 = 0x2;
    const LOCAL: u8 = 0x0;
    const PROXY: u8 = 0x1;

    let Some((&version_and_command, rest)) =
        received.get(V2_SIGNATURE.len()..).and_then(<[u8]>::split_first)
    else {
        return Ok(None);
    };
    if version_and_command >> 4 != VERSION {
        return Err(HeaderError::Binary("its version is not 2"));
    }
    let command = version_and_command & 0xf;
    if !matches!(command, LOCAL | PROXY) {
        return Err(HeaderError::Binary("its command is neither LOCAL nor PROXY"));
    }
    let [family, high, low, ..] = *rest else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let bytes = V2_FIXED_BYTES + length;
    if bytes > V2_RECEIVED_BYTES_MAX {
        return Err(HeaderError::TooLong(bytes));
    }
    let Some(header) = received.get(..bytes) else { return Ok(None) };
    let block = &header[V2_FIXED_BYTES..];
    if command == LOCAL {
        // Section 2.2: the block is skipped, whatever it holds.
        return Ok(Some(Received { bytes, addresses: None, values: Values::default() }));
    }
    let (addresses, values) = addresses_v2(family, block)?;
    check_values(values)?;
    check_sum(header, values)?;
    Ok(Some(Received { bytes, addresses, values: Values(values) }))
}

type Addresses = Option<(SocketAddr, SocketAddr)>;

fn addresses_v2(family: u8, block: &[u8]) -> Result<(Addresses, &[u8]), HeaderError> {
    let short = HeaderError::Binary("it is too short for its addresses");
    match family {
        // Unspecified: the sender does not know.
        0x00 => Ok((None, block)),
        0x11 => {
            let (fixed, values) = block.split_first_chunk::<V2_INET_BYTES>().ok_or(short)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *fixed;
            let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            Ok((Some(with_ports(source.into(), destination.into(), ports)), values))
        }
        0x21 => {
            let (fixed, values) = block.split_first_chunk::<V2_INET6_BYTES>().ok_or(short)?;
            let (source, rest) = fixed.split_first_chunk::<16>().ok_or(short)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let ports = *rest.first_chunk::<4>().ok_or(short)?;
            let (source, destination) = (Ipv6Addr::from(*source), Ipv6Addr::from(*destination));
            Ok((Some(with_ports(source.into(), destination.into(), ports)), values))
        }
        // A UNIX stream socket: there is no address that a server behind could use.
        0x31 => {
            let (_, values) = block.split_at_checked(V2_UNIX_BYTES).ok_or(short)?;
            Ok((None, values))
        }
        0x12 | 0x22 | 0x32 => {
            Err(HeaderError::Binary("it speaks of datagrams, and this is a stream"))
        }
        _ => Err(HeaderError::Binary("its address family or protocol is not assigned")),
    }
}

fn with_ports(source: IpAddr, destination: IpAddr, ports: [u8; 4]) -> (SocketAddr, SocketAddr) {
    let [source_high, source_low, destination_high, destination_low] = ports;
    (
        SocketAddr::new(source, u16::from_be_bytes([source_high, source_low])),
        SocketAddr::new(destination, u16::from_be_bytes([destination_high, destination_low])),
    )
}

/// Type, value, and what follows it.
fn split_value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, high, low], rest) = bytes.split_first_chunk::<TLV_BYTES>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((*kind, value, rest))
}

fn check_values(mut values: &[u8]) -> Result<(), HeaderError> {
    while !values.is_empty() {
        let Some((_, _, rest)) = split_value(values) else {
            return Err(HeaderError::Binary("one of its values goes beyond its end"));
        };
        values = rest;
    }
    Ok(())
}

/// Section 2.2.3: the sum is that of the header with zeros in its own place.
fn check_sum(header: &[u8], values: &[u8]) -> Result<(), HeaderError> {
    let mut found = None;
    let mut offset = header.len() - values.len();
    for (kind, value) in Values(values).iter() {
        let place = offset + TLV_BYTES;
        offset = place + value.len();
        if kind == TYPE_CRC32C {
            let Ok(sum) = <[u8; 4]>::try_from(value) else {
                return Err(HeaderError::Binary("its CRC32C does not have four bytes"));
            };
            if found.replace((place, u32::from_be_bytes(sum))).is_some() {
                return Err(HeaderError::Binary("it has two checksums"));
            }
        }
    }
    let Some((place, expected)) = found else { return Ok(()) };
    if super::sum_without(header, place) == expected { Ok(()) } else { Err(HeaderError::Checksum) }
}

#[cfg(test)]
mod tests;
