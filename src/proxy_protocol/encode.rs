//! The sender: tells the server behind who the client is.
//!
//! Bytes go into memory that the caller owns, nothing is allocated.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{
    TLV_BYTES, TYPE_ALPN, TYPE_AUTHORITY, TYPE_SSL, V2_FIXED_BYTES, V2_INET6_BYTES, V2_SIGNATURE,
};
use crate::handshake::SessionFacts;
use crate::tls::{Version, names};

/// Which version of the PROXY protocol a pool's servers expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// No header: the server sees forebay's address.
    #[default]
    None,
    /// The line of text: addresses and ports only.
    V1,
    /// Binary, with ALPN, server name, TLS version, cipher suite and client certificate.
    V2,
}

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The client's address and port.
    pub source: SocketAddr,
    /// The address and port that the client connected to.
    pub destination: SocketAddr,
    /// The name that the client asked for.
    pub server_name: Option<&'a str>,
    /// What was negotiated with the client; `None` if it goes on to speak TLS with the
    /// server. Version 1 has no place for it.
    pub session: Option<&'a SessionFacts>,
    /// The client's certificate, which was verified; `None` if it showed none. Version 1 has
    /// no place for it either.
    pub certificate: Option<CertificateFacts<'a>>,
}

/// What is said of a client's certificate.
#[derive(Clone, Copy, Debug)]
pub struct CertificateFacts<'a> {
    /// Its common name; one of more than [`COMMON_NAME_BYTES_MAX`] is left out.
    pub common_name: Option<&'a str>,
}

/// The header does not fit into the memory offered, or one of its values is longer
/// than the protocol it comes from allows (ALPN 255 bytes, server name 253).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the PROXY protocol header does not fit")]
pub struct HeaderTooLarge;

/// The longest version 1 line: both IPv6 addresses and both ports written in full.
/// The specification (section 2.1) reserves 107 bytes for the line, without the zero
/// byte of a C string; the longest of known family has 104.
pub const V1_BYTES_MAX: usize = "PROXY TCP6 ".len() + 2 * (39 + 1) + 2 * 5 + " ".len() + 2;

/// The longest version 2 header: IPv6 addresses and every value at its maximum.
pub const V2_BYTES_MAX: usize = V2_FIXED_BYTES
    + V2_INET6_BYTES
    + (TLV_BYTES + ALPN_BYTES_MAX)
    + (TLV_BYTES + AUTHORITY_BYTES_MAX)
    + (TLV_BYTES + SSL_FIXED_BYTES)
    + (TLV_BYTES + VERSION_BYTES)
    + (TLV_BYTES + COMMON_NAME_BYTES_MAX)
    + (TLV_BYTES + cipher_name_bytes_max());

/// No header is longer than this.
pub const HEADER_BYTES_MAX: usize =
    if V1_BYTES_MAX > V2_BYTES_MAX { V1_BYTES_MAX } else { V2_BYTES_MAX };

// The engine writes the header into the room in front of received data.
const _: () = assert!(HEADER_BYTES_MAX <= 700);

/// Writes the header to the start of `out`; returns its length in bytes, which is 0
/// for [`ProxyProtocol::None`]. `out` of [`HEADER_BYTES_MAX`] bytes is always enough
/// for values that came out of a handshake.
///
/// IPv4 addresses mapped into IPv6 (`::ffff:a.b.c.d`, what a dual-stack listener
/// reports) are written as IPv4. If the families still differ both are written as
/// IPv6, because a header has only one family.
///
/// # Errors
/// [`HeaderTooLarge`]; the contents of `out` are then unspecified.
pub fn encode(
    version: ProxyProtocol,
    header: &Header<'_>,
    out: &mut [u8],
) -> Result<usize, HeaderTooLarge> {
    match version {
        ProxyProtocol::None => Ok(0),
        ProxyProtocol::V1 => encode_v1(header, out),
        ProxyProtocol::V2 => encode_v2(header, out),
    }
}

/// Version 2, command PROXY.
const V2_PROXY: u8 = 0x21;
const V2_TCP_OVER_IPV4: u8 = 0x11;
const V2_TCP_OVER_IPV6: u8 = 0x21;

const SUBTYPE_SSL_VERSION: u8 = 0x21;
const SUBTYPE_SSL_CN: u8 = 0x22;
const SUBTYPE_SSL_CIPHER: u8 = 0x23;
/// Client bits (one byte) and verification result (four).
const SSL_FIXED_BYTES: usize = 5;
/// `PP2_CLIENT_SSL`: the client connected over TLS.
const CLIENT_SSL: u8 = 0x01;
/// `PP2_CLIENT_CERT_CONN`: it showed a certificate on this connection.
const CLIENT_CERTIFICATE_NOW: u8 = 0x02;
/// `PP2_CLIENT_CERT_SESS`: it did in this session, perhaps on an earlier connection.
const CLIENT_CERTIFICATE_IN_SESSION: u8 = 0x04;
/// The specification calls for zero when a certificate was verified, as each that is
/// spoken of here was, and leaves the value without a certificate open; HAProxy sends zero
/// (`make_proxy_line_v2` sets the field only for a session with a certificate), and
/// receivers go by the client bits.
const VERIFIED: u32 = 0;

/// RFC 7301 section 3.1: a protocol name has one byte for its length.
const ALPN_BYTES_MAX: usize = 255;
/// RFC 1035 section 2.3.4: 255 bytes on the wire, which is 253 characters.
const AUTHORITY_BYTES_MAX: usize = 253;
/// RFC 5280 appendix A.1, `ub-common-name`; half of a longer one would be another's.
pub const COMMON_NAME_BYTES_MAX: usize = 64;
/// "TLSv1.2" and "TLSv1.3".
const VERSION_BYTES: usize = 7;

/// OpenSSL's spelling; the same as `Version`'s `Display`, without the formatter.
const fn version_name(version: Version) -> &'static str {
    match version {
        Version::Tls12 => "TLSv1.2",
        Version::Tls13 => "TLSv1.3",
    }
}

const fn cipher_name_bytes_max() -> usize {
    let mut longest = "unknown".len();
    let mut index = 0;
    while index < names::CIPHER_SUITES.len() {
        let length = names::CIPHER_SUITES[index].1.len();
        if length > longest {
            longest = length;
        }
        index += 1;
    }
    longest
}

/// Both addresses in the one family that the header can carry.
enum Pair {
    V4([u8; 4], [u8; 4]),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Pair {
    fn new(source: IpAddr, destination: IpAddr) -> Self {
        match (source.to_canonical(), destination.to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::V4(source.octets(), destination.octets())
            }
            (source, destination) => Self::V6(into_v6(source), into_v6(destination)),
        }
    }
}

fn into_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Section 2.1.
fn encode_v1(header: &Header<'_>, out: &mut [u8]) -> Result<usize, HeaderTooLarge> {
    let room = out.len();
    let mut rest = out;
    let (source, destination) = (header.source.port(), header.destination.port());
    match Pair::new(header.source.ip(), header.destination.ip()) {
        Pair::V4(from, to) => {
            let (from, to) = (IpAddr::from(from), IpAddr::from(to));
            write!(rest, "PROXY TCP4 {from} {to} {source} {destination}\r\n")
        }
        Pair::V6(from, to) => {
            let (from, to) = (Hexadecimal(from), Hexadecimal(to));
            write!(rest, "PROXY TCP6 {from} {to} {source} {destination}\r\n")
        }
    }
    .map_err(|_| HeaderTooLarge)?;
    Ok(room - rest.len())
}

/// An IPv6 address without the dotted tail of mapped addresses: section 2.1 asks for
/// "sets of 4 hexadecimal digits", nothing else.
struct Hexadecimal(Ipv6Addr);

impl std::fmt::Display for Hexadecimal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.to_ipv4_mapped(), self.0.segments()) {
            (Some(_), [.., high, low]) => write!(formatter, "::ffff:{high:x}:{low:x}"),
            (None, _) => write!(formatter, "{}", self.0),
        }
    }
}

/// Section 2.2.
fn encode_v2(header: &Header<'_>, out: &mut [u8]) -> Result<usize, HeaderTooLarge> {
    let session = header.session;
    let mut out = Out { bytes: out, length: 0 };
    out.put(&V2_SIGNATURE)?;
    out.put(&[V2_PROXY])?;
    match Pair::new(header.source.ip(), header.destination.ip()) {
        Pair::V4(from, to) => {
            out.put(&[V2_TCP_OVER_IPV4, 0, 0])?;
            out.put(&from)?;
            out.put(&to)?;
        }
        Pair::V6(from, to) => {
            out.put(&[V2_TCP_OVER_IPV6, 0, 0])?;
            out.put(&from.octets())?;
            out.put(&to.octets())?;
        }
    }
    out.put(&header.source.port().to_be_bytes())?;
    out.put(&header.destination.port().to_be_bytes())?;

    if let Some(alpn) = session.and_then(|session| session.alpn.as_ref()) {
        out.put_tlv(TYPE_ALPN, alpn, ALPN_BYTES_MAX)?;
    }
    if let Some(name) = header.server_name {
        out.put_tlv(TYPE_AUTHORITY, name.as_bytes(), AUTHORITY_BYTES_MAX)?;
    }
    if let Some(session) = session {
        put_ssl(session, header.certificate, &mut out)?;
    }
    out.fill_length(V2_FIXED_BYTES - 2)?;
    Ok(out.length)
}

/// Section 2.2.6.
fn put_ssl(
    session: &SessionFacts,
    certificate: Option<CertificateFacts<'_>>,
    out: &mut Out<'_>,
) -> Result<(), HeaderTooLarge> {
    let bits = match (certificate, session.resumed) {
        (None, _) => CLIENT_SSL,
        (Some(_), true) => CLIENT_SSL | CLIENT_CERTIFICATE_IN_SESSION,
        (Some(_), false) => CLIENT_SSL | CLIENT_CERTIFICATE_IN_SESSION | CLIENT_CERTIFICATE_NOW,
    };
    let (version, cipher) = (
        version_name(session.version),
        names::cipher_suite_name(session.cipher_suite).unwrap_or("unknown"),
    );
    out.put(&[TYPE_SSL])?;
    let ssl_length = out.put_length()?;
    out.put(&[bits])?;
    out.put(&VERIFIED.to_be_bytes())?;
    out.put_tlv(SUBTYPE_SSL_VERSION, version.as_bytes(), VERSION_BYTES)?;
    let common_name = certificate.and_then(|certificate| certificate.common_name);
    if let Some(name) = common_name.filter(|name| name.len() <= COMMON_NAME_BYTES_MAX) {
        out.put_tlv(SUBTYPE_SSL_CN, name.as_bytes(), COMMON_NAME_BYTES_MAX)?;
    }
    out.put_tlv(SUBTYPE_SSL_CIPHER, cipher.as_bytes(), cipher_name_bytes_max())?;
    out.fill_length(ssl_length)
}

/// Bytes written so far.
struct Out<'o> {
    bytes: &'o mut [u8],
    length: usize,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), HeaderTooLarge> {
        let end = self.length + bytes.len();
        self.bytes.get_mut(self.length..end).ok_or(HeaderTooLarge)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    fn put_tlv(&mut self, kind: u8, value: &[u8], max: usize) -> Result<(), HeaderTooLarge> {
        if value.len() > max {
            return Err(HeaderTooLarge);
        }
        self.put(&[kind])?;
        let length = self.put_length()?;
        self.put(value)?;
        self.fill_length(length)
    }

    /// Leaves room for a length of two bytes; returns where it is.
    fn put_length(&mut self) -> Result<usize, HeaderTooLarge> {
        let place = self.length;
        self.put(&[0, 0])?;
        Ok(place)
    }

    /// Writes at `place` how many bytes follow it.
    fn fill_length(&mut self, place: usize) -> Result<(), HeaderTooLarge> {
        let value = u16::try_from(self.length - place - 2).map_err(|_| HeaderTooLarge)?;
        self.bytes[place..place + 2].copy_from_slice(&value.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
