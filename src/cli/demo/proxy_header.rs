//! The receiver's side of the PROXY protocol, version 2, as the demo's backend needs
//! it. Source: HAProxy's `doc/proxy-protocol.txt`, section 2.2.
//!
//! Strict: whatever is not exactly as specified is refused. Bytes in, values out;
//! knows no sockets.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

/// Signature, version and command, family, length.
pub(super) const FIXED_BYTES: usize = 16;

/// The longest header taken here; forebay's own is below 700 bytes.
pub(super) const HEADER_BYTES_MAX: usize = 4_096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a header said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxyHeader {
    /// The client and the address it connected to; `None` for a connection of the
    /// proxy's own (command LOCAL) or a family without addresses.
    pub(super) addresses: Option<Addresses>,
    /// The protocol chosen by ALPN.
    pub(super) alpn: Option<String>,
    /// The name the client asked for by SNI.
    pub(super) authority: Option<String>,
    /// Present if the client came over TLS.
    pub(super) tls: Option<Tls>,
}

/// Both ends of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) client: SocketAddr,
    pub(super) destination: SocketAddr,
}

/// What the SSL value carried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) version: Option<String>,
    pub(super) cipher: Option<String>,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    #[error("the connection does not begin with a PROXY protocol version 2 signature")]
    Signature,
    #[error("version and command are {0:#04x}; 0x20 and 0x21 are known")]
    VersionOrCommand(u8),
    #[error("address family and transport are {0:#04x}; TCP over IPv4 or IPv6 is expected")]
    Family(u8),
    #[error("the header has {0} bytes, more than the 4096 taken here")]
    TooLong(usize),
    #[error("the header ends inside its addresses or values")]
    Truncated,
    #[error("the value of type {0:#04x} occurs twice")]
    Twice(u8),
    #[error("the value of type {0:#04x} is not text")]
    NotText(u8),
    #[error("the SSL value says that the client did not come over TLS")]
    SslWithoutTls,
}

use ProxyHeaderError as Error;

/// Bytes of the whole header, from its fixed part.
pub(super) fn header_bytes(fixed: &[u8; FIXED_BYTES]) -> Result<usize, Error> {
    if !fixed.starts_with(SIGNATURE) {
        return Err(Error::Signature);
    }
    let total = FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if total > HEADER_BYTES_MAX { Err(Error::TooLong(total)) } else { Ok(total) }
}

/// Reads a whole header, neither longer nor shorter.
pub(super) fn decode(bytes: &[u8]) -> Result<ProxyHeader, Error> {
    let (fixed, rest) = bytes.split_first_chunk::<FIXED_BYTES>().ok_or(Error::Truncated)?;
    if header_bytes(fixed)? != bytes.len() {
        return Err(Error::Truncated);
    }
    match fixed[12] {
        // LOCAL: the receiver must use the connection's own addresses and skip the rest.
        0x20 => return Ok(ProxyHeader::default()),
        0x21 => {}
        other => return Err(Error::VersionOrCommand(other)),
    }
    let (addresses, values) = match fixed[13] {
        0x00 => (None, rest),
        0x11 => decode_addresses::<4, 12>(rest)?,
        0x21 => decode_addresses::<16, 36>(rest)?,
        other => return Err(Error::Family(other)),
    };
    let mut header = ProxyHeader { addresses, ..ProxyHeader::default() };
    for_each_value(values, |kind, value| match kind {
        0x01 => set_text(&mut header.alpn, kind, value),
        0x02 => set_text(&mut header.authority, kind, value),
        0x20 if header.tls.is_some() => Err(Error::Twice(kind)),
        0x20 => {
            header.tls = Some(decode_tls(value)?);
            Ok(())
        }
        // "Receivers must ignore values that they do not know."
        _ => Ok(()),
    })?;
    Ok(header)
}

/// Two addresses of `WIDTH` bytes and two ports, `TOTAL` bytes in all, and what follows.
fn decode_addresses<const WIDTH: usize, const TOTAL: usize>(
    bytes: &[u8],
) -> Result<(Option<Addresses>, &[u8]), Error>
where
    std::net::IpAddr: From<[u8; WIDTH]>,
{
    let (block, values) = bytes.split_at_checked(TOTAL).ok_or(Error::Truncated)?;
    let address = |at: usize| {
        let mut address = [0; WIDTH];
        address.copy_from_slice(&block[at..at + WIDTH]);
        address
    };
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    let addresses = Addresses {
        client: SocketAddr::new(address(0).into(), port(2 * WIDTH)),
        destination: SocketAddr::new(address(WIDTH).into(), port(2 * WIDTH + 2)),
    };
    Ok((Some(addresses), values))
}

fn decode_tls(bytes: &[u8]) -> Result<Tls, Error> {
    // Client bits, then the result of the verification in four bytes.
    let (fixed, values) = bytes.split_first_chunk::<5>().ok_or(Error::Truncated)?;
    const CLIENT_SSL: u8 = 0x01;
    if fixed[0] & CLIENT_SSL == 0 {
        return Err(Error::SslWithoutTls);
    }
    let mut tls = Tls::default();
    for_each_value(values, |kind, value| match kind {
        0x21 => set_text(&mut tls.version, kind, value),
        0x23 => set_text(&mut tls.cipher, kind, value),
        _ => Ok(()),
    })?;
    Ok(tls)
}

/// Calls `take` with each type and value; the values must fill `bytes` exactly.
fn for_each_value<'a>(
    mut bytes: &'a [u8],
    mut take: impl FnMut(u8, &'a [u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    while !bytes.is_empty() {
        let ([kind, high, low], rest) = bytes.split_first_chunk().ok_or(Error::Truncated)?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(Error::Truncated)?;
        take(*kind, value)?;
        bytes = rest;
    }
    Ok(())
}

fn set_text(place: &mut Option<String>, kind: u8, value: &[u8]) -> Result<(), Error> {
    if place.is_some() {
        return Err(Error::Twice(kind));
    }
    let text = std::str::from_utf8(value).map_err(|_| Error::NotText(kind))?;
    *place = Some(text.to_owned());
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(kind: u8, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).expect("short");
        [&[kind][..], &length.to_be_bytes(), value].concat()
    }

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short");
        [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), rest].concat()
    }

    const INET: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x20, 0xfb];

    fn tls_value() -> Vec<u8> {
        let inner =
            [value(0x21, b"TLSv1.3"), value(0x23, b"TLS_AES_128_GCM_SHA256"), value(0x22, b"cn")];
        value(0x20, &[&[1, 0, 0, 0, 0][..], &inner.concat()].concat())
    }

    /// A header as forebay sends it.
    pub(in crate::cli::demo) fn full_header() -> Vec<u8> {
        let values = [value(0x01, b"http/1.1"), value(0x02, b"shop.example"), tls_value()];
        header(0x21, 0x11, &[&INET[..], &values.concat()].concat())
    }

    #[test]
    fn everything_forebay_sends_is_read() {
        let expected = ProxyHeader {
            addresses: Some(Addresses {
                client: "192.0.2.7:4711".parse().expect("an address"),
                destination: "10.0.0.1:8443".parse().expect("an address"),
            }),
            alpn: Some("http/1.1".to_owned()),
            authority: Some("shop.example".to_owned()),
            tls: Some(Tls {
                version: Some("TLSv1.3".to_owned()),
                cipher: Some("TLS_AES_128_GCM_SHA256".to_owned()),
            }),
        };
        assert_eq!(decode(&full_header()), Ok(expected));
    }

    #[test]
    fn addresses_of_ipv6_are_read() {
        let mut block = [0; 36];
        block[15] = 1;
        block[16..18].copy_from_slice(&[0x20, 0x01]);
        block[33] = 80;
        let decoded = decode(&header(0x21, 0x21, &block)).expect("a header");
        let addresses = decoded.addresses.expect("addresses");
        assert_eq!(addresses.client.to_string(), "[::1]:80");
        assert_eq!(addresses.destination.to_string(), "[2001::]:0");
    }

    #[test]
    fn a_local_connection_has_no_addresses_and_its_values_are_skipped() {
        assert_eq!(decode(&header(0x20, 0x00, b"anything")), Ok(ProxyHeader::default()));
    }

    #[test]
    fn unknown_values_are_ignored() {
        let rest = [&INET[..], &value(0xe5, b"\xff\xff")].concat();
        assert!(decode(&header(0x21, 0x11, &rest)).is_ok());
    }

    #[test]
    fn what_is_not_a_header_is_refused_with_its_reason() {
        let with = |values: &[u8]| header(0x21, 0x11, &[&INET[..], values].concat());
        let mut signature = full_header();
        signature[3] ^= 1;
        for (bytes, error) in [
            (signature, Error::Signature),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Error::Signature),
            (header(0x31, 0x11, &INET), Error::VersionOrCommand(0x31)),
            (header(0x22, 0x11, &INET), Error::VersionOrCommand(0x22)),
            (header(0x21, 0x12, &INET), Error::Family(0x12)),
            (header(0x21, 0x31, &[0; 216]), Error::Family(0x31)),
            (header(0x21, 0x11, &INET[..11]), Error::Truncated),
            (with(&[1, 0]), Error::Truncated),
            (with(&[1, 0, 9, b'h']), Error::Truncated),
            (with(&value(0x20, &[1, 0, 0])), Error::Truncated),
            (with(&value(0x20, &[0, 0, 0, 0, 0])), Error::SslWithoutTls),
            (with(&[tls_value(), tls_value()].concat()), Error::Twice(0x20)),
            (with(&[value(2, b"a"), value(2, b"b")].concat()), Error::Twice(2)),
            (with(&value(2, b"\xff")), Error::NotText(2)),
            (header(0x21, 0x11, &[0; 5_000]), Error::TooLong(5_016)),
        ] {
            assert_eq!(decode(&bytes), Err(error), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn every_cut_of_a_header_is_refused(cut in 0_usize..full_header().len()) {
            prop_assert!(decode(&full_header()[..cut]).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(at in 12_usize..80, byte: u8, tail: Vec<u8>) {
            let mut bytes = full_header();
            bytes[at] = byte;
            bytes.extend(tail);
            let _ = decode(&bytes);
        }
    }
}
