//! The sender: tells the server behind who the client is.
//!
//! Bytes go into memory that the caller owns, nothing is allocated.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use arrayvec::ArrayString;

use super::authentication;
use super::contents::{Contents, Value};
use super::decode::Values;
use super::template::Template;
use super::{
    TLV_BYTES, TYPE_ALPN, TYPE_AUTHORITY, TYPE_CRC32C, TYPE_NETNS, TYPE_NOOP, TYPE_SSL,
    TYPE_UNIQUE_ID, V2_FIXED_BYTES, V2_INET6_BYTES, V2_SIGNATURE,
};
use crate::handshake::SessionFacts;
use crate::tls::certificates::{CertificateKind, CertificateSignature, KeyType};
use crate::tls::client_hello::Ja4;
use crate::tls::{Version, names};

/// Which version of the PROXY protocol a pool's servers expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// No header: the server sees forebay's address.
    #[default]
    None,
    /// The line of text: addresses and ports only.
    V1,
    /// Binary, with what the pool's [`Contents`] say.
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
    /// no place for it either, nor for what follows.
    pub certificate: Option<CertificateFacts<'a>>,
    /// The connection's name, of at most [`UNIQUE_ID_BYTES_MAX`] bytes.
    pub unique_id: Option<&'a [u8]>,
    /// Values of the balancer in front, of at most [`PASSED_ON_BYTES_MAX`] bytes in all.
    pub passed_on: Values<'a>,
    /// The client's fingerprint.
    pub fingerprint: Option<&'a Ja4>,
    /// How long the handshake took, in microseconds.
    pub handshake_us: Option<u32>,
    /// The time, since 1970; only looked at to sign.
    pub now: Duration,
}

impl Header<'_> {
    /// A header that says nothing but the addresses.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            source,
            destination,
            server_name: None,
            session: None,
            certificate: None,
            unique_id: None,
            passed_on: Values::default(),
            fingerprint: None,
            handshake_us: None,
            now: Duration::ZERO,
        }
    }
}

/// What is said of a client's certificate.
#[derive(Clone, Copy, Debug)]
pub struct CertificateFacts<'a> {
    /// Its common name; one of more than [`COMMON_NAME_BYTES_MAX`] is left out.
    pub common_name: Option<&'a str>,
    /// Itself, in DER; left out if the header would have more than [`HEADER_BYTES_MAX`]
    /// bytes with it.
    pub der: &'a [u8],
}

/// The header does not fit into the memory offered, or one of its values is longer
/// than the protocol it comes from allows (ALPN 255 bytes, server name 253).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the PROXY protocol header does not fit")]
pub struct HeaderTooLarge;

/// A header that was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Its length.
    pub bytes: usize,
    /// The client's certificate is not in it, though it should: there was no room.
    pub certificate_left_out: bool,
}

/// The longest version 1 line: both IPv6 addresses and both ports written in full.
/// The specification (section 2.1) reserves 107 bytes for the line, without the zero
/// byte of a C string; the longest of known family has 104.
pub const V1_BYTES_MAX: usize = "PROXY TCP6 ".len() + 2 * (39 + 1) + 2 * 5 + " ".len() + 2;

/// The longest version 2 header without a client's certificate: IPv6 addresses and every
/// value at its maximum.
const V2_BYTES_MAX: usize = V2_FIXED_BYTES
    + V2_INET6_BYTES
    + (TLV_BYTES + ALPN_BYTES_MAX)
    + (TLV_BYTES + AUTHORITY_BYTES_MAX)
    + (TLV_BYTES + UNIQUE_ID_BYTES_MAX)
    + (TLV_BYTES + Contents::NAME_BYTES_MAX)
    + Contents::CUSTOM_MAX * (TLV_BYTES + Template::BYTES_MAX)
    + PASSED_ON_BYTES_MAX
    + (TLV_BYTES + SSL_FIXED_BYTES)
    + (TLV_BYTES + VERSION_BYTES)
    + (TLV_BYTES + COMMON_NAME_BYTES_MAX)
    + (TLV_BYTES + names::longest(&names::CIPHER_SUITES))
    + (TLV_BYTES + CertificateSignature::NAME_BYTES_MAX)
    + (TLV_BYTES + KEY_NAME_BYTES_MAX)
    + (TLV_BYTES + names::longest(&names::GROUPS))
    + (TLV_BYTES + names::longest(&names::SIGNATURE_SCHEMES))
    + TAIL_BYTES_MAX;

/// The longest of what follows the client's certificate: filling, sum and authentication.
const TAIL_BYTES_MAX: usize = (TLV_BYTES + Contents::ALIGNMENT_MAX)
    + (TLV_BYTES + CRC32C_BYTES)
    + (TLV_BYTES + authentication::VALUE_BYTES);

/// No header is longer than this, because nginx takes none that is
/// (`NGX_PROXY_PROTOCOL_MAX_HEADER` in `ngx_proxy_protocol.h`).
pub const HEADER_BYTES_MAX: usize = 4_096;

// So nothing but a certificate is ever left out for want of room.
const _: () = assert!(V2_BYTES_MAX <= HEADER_BYTES_MAX && V1_BYTES_MAX <= HEADER_BYTES_MAX);

/// Writes the header to the start of `out`; its length is 0 for [`ProxyProtocol::None`].
/// `out` of [`HEADER_BYTES_MAX`] bytes is always enough for values that came out of a
/// handshake. `contents` are what version 2 says.
///
/// IPv4 addresses mapped into IPv6 (`::ffff:a.b.c.d`, what a dual-stack listener
/// reports) are written as IPv4. If the families still differ both are written as
/// IPv6, because a header has only one family.
///
/// # Errors
/// [`HeaderTooLarge`]; the contents of `out` are then unspecified.
pub fn encode(
    version: ProxyProtocol,
    contents: &Contents,
    header: &Header<'_>,
    out: &mut [u8],
) -> Result<Encoded, HeaderTooLarge> {
    match version {
        ProxyProtocol::None => Ok(Encoded::default()),
        ProxyProtocol::V1 => {
            encode_v1(header, out).map(|bytes| Encoded { bytes, certificate_left_out: false })
        }
        ProxyProtocol::V2 => encode_v2(contents, header, out),
    }
}

/// Version 2, command PROXY.
const V2_PROXY: u8 = 0x21;
const V2_TCP_OVER_IPV4: u8 = 0x11;
const V2_TCP_OVER_IPV6: u8 = 0x21;

const SUBTYPE_SSL_VERSION: u8 = 0x21;
const SUBTYPE_SSL_CN: u8 = 0x22;
const SUBTYPE_SSL_CIPHER: u8 = 0x23;
const SUBTYPE_SSL_SIG_ALG: u8 = 0x24;
const SUBTYPE_SSL_KEY_ALG: u8 = 0x25;
const SUBTYPE_SSL_GROUP: u8 = 0x26;
const SUBTYPE_SSL_SIG_SCHEME: u8 = 0x27;
const SUBTYPE_SSL_CLIENT_CERT: u8 = 0x28;
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
/// Section 2.2.5.
pub const UNIQUE_ID_BYTES_MAX: usize = 128;
/// What goes on from a balancer in front, types and lengths included. AWS and Azure name an
/// endpoint by some 30 bytes.
pub const PASSED_ON_BYTES_MAX: usize = 512;
const CRC32C_BYTES: usize = 4;
/// "RSA8192".
const KEY_NAME_BYTES_MAX: usize = 7;

/// OpenSSL's spelling; the same as `Version`'s `Display`, without the formatter.
const fn version_name(version: Version) -> &'static str {
    match version {
        Version::Tls12 => "TLSv1.2",
        Version::Tls13 => "TLSv1.3",
    }
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
fn encode_v2(
    contents: &Contents,
    header: &Header<'_>,
    out: &mut [u8],
) -> Result<Encoded, HeaderTooLarge> {
    let values = contents.values;
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

    let alpn = header.session.and_then(|session| session.alpn.as_ref());
    if let Some(alpn) = alpn.filter(|_| values.contains(Value::Alpn)) {
        out.put_tlv(TYPE_ALPN, alpn, ALPN_BYTES_MAX)?;
    }
    if let Some(name) = header.server_name.filter(|_| values.contains(Value::Authority)) {
        out.put_tlv(TYPE_AUTHORITY, name.as_bytes(), AUTHORITY_BYTES_MAX)?;
    }
    put_names_and_customs(contents, header, &mut out)?;
    // Behind what always has room: the certificate in it has not.
    let certificate_left_out = match header.session.filter(|_| values.contains(Value::Ssl)) {
        Some(session) => put_ssl(contents, session, header.certificate, &mut out)?,
        None => false,
    };
    put_tail(contents, header.now, &mut out)?;
    Ok(Encoded { bytes: out.length, certificate_left_out })
}

/// What names the connection and where it came in, what is of our own making, and what a
/// balancer in front has said. That balancer's name for the connection goes before ours.
fn put_names_and_customs(
    contents: &Contents,
    header: &Header<'_>,
    out: &mut Out<'_>,
) -> Result<(), HeaderTooLarge> {
    let values = contents.values;
    let passed_on =
        || header.passed_on.iter().filter(|(kind, _)| contents.passed_on.contains(*kind));
    let is_passed_on = |wanted| passed_on().any(|(kind, _)| kind == wanted);
    if let Some(id) = header.unique_id
        && values.contains(Value::UniqueId)
        && !is_passed_on(TYPE_UNIQUE_ID)
    {
        out.put_tlv(TYPE_UNIQUE_ID, id, UNIQUE_ID_BYTES_MAX)?;
    }
    if values.contains(Value::Netns)
        && !contents.network_namespace.is_empty()
        && !is_passed_on(TYPE_NETNS)
    {
        let name = contents.network_namespace.as_bytes();
        out.put_tlv(TYPE_NETNS, name, Contents::NAME_BYTES_MAX)?;
    }
    for custom in &contents.custom {
        let mut value = [0; Template::BYTES_MAX];
        let length = custom.template.write(header, &contents.node, &mut value);
        let value = &value[..length.ok_or(HeaderTooLarge)?];
        // Of what is not known nothing is said.
        if !value.is_empty() {
            out.put_tlv(custom.kind, value, Template::BYTES_MAX)?;
        }
    }
    for (kind, value) in passed_on() {
        out.put_tlv(kind, value, PASSED_ON_BYTES_MAX)?;
    }
    Ok(())
}

/// Section 2.2.6. Whether the client's certificate was left out for want of room.
fn put_ssl(
    contents: &Contents,
    session: &SessionFacts,
    certificate: Option<CertificateFacts<'_>>,
    out: &mut Out<'_>,
) -> Result<bool, HeaderTooLarge> {
    let values = contents.values;
    let bits = match (certificate, session.resumed) {
        (None, _) => CLIENT_SSL,
        (Some(_), true) => CLIENT_SSL | CLIENT_CERTIFICATE_IN_SESSION,
        (Some(_), false) => CLIENT_SSL | CLIENT_CERTIFICATE_IN_SESSION | CLIENT_CERTIFICATE_NOW,
    };
    out.put(&[TYPE_SSL])?;
    let ssl_length = out.put_length()?;
    out.put(&[bits])?;
    out.put(&VERIFIED.to_be_bytes())?;
    out.put_tlv(SUBTYPE_SSL_VERSION, version_name(session.version).as_bytes(), VERSION_BYTES)?;
    let common_name = certificate.and_then(|certificate| certificate.common_name);
    if let Some(name) = common_name.filter(|_| values.contains(Value::SslCn))
        && name.len() <= COMMON_NAME_BYTES_MAX
    {
        out.put_tlv(SUBTYPE_SSL_CN, name.as_bytes(), COMMON_NAME_BYTES_MAX)?;
    }
    if values.contains(Value::SslCipher) {
        let cipher = names::cipher_suite_name(session.cipher_suite).unwrap_or("unknown");
        let longest = names::longest(&names::CIPHER_SUITES);
        out.put_tlv(SUBTYPE_SSL_CIPHER, cipher.as_bytes(), longest)?;
    }
    put_what_we_showed(contents, session, out)?;
    let mut left_out = false;
    if let Some(certificate) = certificate
        && values.contains(Value::SslClientCert)
    {
        left_out =
            out.length + TLV_BYTES + certificate.der.len() + TAIL_BYTES_MAX > HEADER_BYTES_MAX;
        if !left_out {
            out.put_tlv(SUBTYPE_SSL_CLIENT_CERT, certificate.der, HEADER_BYTES_MAX)?;
        }
    }
    out.fill_length(ssl_length)?;
    Ok(left_out)
}

/// Our certificate, and how we have agreed on keys.
fn put_what_we_showed(
    contents: &Contents,
    session: &SessionFacts,
    out: &mut Out<'_>,
) -> Result<(), HeaderTooLarge> {
    let asked = |value| contents.values.contains(value);
    let signature = session.certificate.and_then(|certificate| certificate.signature.name());
    if let Some(name) = signature.filter(|_| asked(Value::SslSigAlg)) {
        let longest = CertificateSignature::NAME_BYTES_MAX;
        out.put_tlv(SUBTYPE_SSL_SIG_ALG, name.as_bytes(), longest)?;
    }
    if let Some(certificate) = session.certificate.filter(|_| asked(Value::SslKeyAlg)) {
        let name = key_name(certificate)?;
        out.put_tlv(SUBTYPE_SSL_KEY_ALG, name.as_bytes(), KEY_NAME_BYTES_MAX)?;
    }
    let group = session.group.and_then(names::group_name);
    if let Some(name) = group.filter(|_| asked(Value::SslGroup)) {
        out.put_tlv(SUBTYPE_SSL_GROUP, name.as_bytes(), names::longest(&names::GROUPS))?;
    }
    let scheme = session.signature_scheme.and_then(names::signature_scheme_name);
    if let Some(name) = scheme.filter(|_| asked(Value::SslSigScheme)) {
        let longest = names::longest(&names::SIGNATURE_SCHEMES);
        out.put_tlv(SUBTYPE_SSL_SIG_SCHEME, name.as_bytes(), longest)?;
    }
    Ok(())
}

/// As HAProxy writes it (`cert_get_pkey_algo` in `ssl_utils.c`), which has no name for
/// Ed25519: that is OpenSSL's.
fn key_name(
    certificate: CertificateKind,
) -> Result<ArrayString<KEY_NAME_BYTES_MAX>, HeaderTooLarge> {
    use std::fmt::Write as _;
    let CertificateKind { key_type, key_bits, .. } = certificate;
    let mut name = ArrayString::new();
    match key_type {
        KeyType::Rsa => write!(name, "RSA{key_bits}"),
        KeyType::Ed25519 => name.write_str("ED25519"),
        KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::EcdsaP521 => {
            write!(name, "EC{key_bits}")
        }
    }
    .map_err(|_| HeaderTooLarge)?;
    Ok(name)
}

/// What is known only when all else is there: filling, sum, authentication.
fn put_tail(contents: &Contents, now: Duration, out: &mut Out<'_>) -> Result<(), HeaderTooLarge> {
    let summed = contents.values.contains(Value::Crc32c);
    let mut whole = out.length;
    whole += if summed { TLV_BYTES + CRC32C_BYTES } else { 0 };
    whole += contents.key.as_ref().map_or(0, |_| TLV_BYTES + authentication::VALUE_BYTES);
    let missing = whole.next_multiple_of(contents.alignment) - whole;
    if missing > 0 {
        // Section 2.2.4: a value has at least the three bytes of its type and length.
        let beyond = TLV_BYTES.saturating_sub(missing).next_multiple_of(contents.alignment);
        let filling = [0; TLV_BYTES + Contents::ALIGNMENT_MAX];
        let filling_bytes = missing + beyond - TLV_BYTES;
        let filling = filling.get(..filling_bytes).ok_or(HeaderTooLarge)?;
        out.put_tlv(TYPE_NOOP, filling, filling.len())?;
    }
    let sum_place = out.length + TLV_BYTES;
    if summed {
        out.put_tlv(TYPE_CRC32C, &[0; CRC32C_BYTES], CRC32C_BYTES)?;
    }
    match &contents.key {
        Some(key) => out.length = key.append(out.bytes, out.length, now)?,
        None => out.fill_length(V2_FIXED_BYTES - 2)?,
    }
    if summed {
        let sum = super::sum_without(&out.bytes[..out.length], sum_place);
        out.bytes[sum_place..sum_place + CRC32C_BYTES].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(())
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
pub(super) mod tests;
