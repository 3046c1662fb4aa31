//! A receiver of the PROXY protocol, written from HAProxy's `doc/proxy-protocol.txt`
//! without a look at the sender.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A header as the receiver understands it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    pub source: Option<SocketAddr>,
    pub destination: Option<SocketAddr>,
    pub alpn: Option<String>,
    pub authority: Option<String>,
    pub tls_version: Option<String>,
    pub cipher: Option<String>,
    /// The client's bits beside that it speaks TLS: a certificate on this connection (2), in
    /// this session (4).
    pub certificate_bits: u8,
    pub common_name: Option<String>,
    /// Type and value of all others, in order, those inside of PP2_TYPE_SSL among them.
    pub others: Vec<(u8, Vec<u8>)>,
    /// Bytes of the header; what follows is the stream.
    pub length: usize,
}

impl ProxyHeader {
    /// The text of the one value of this type among the others.
    pub fn text(&self, kind: u8) -> Option<String> {
        let mut values = self.others.iter().filter(|(other, _)| *other == kind);
        let (_, value) = values.next()?;
        assert!(values.next().is_none(), "type {kind:#x} is there twice");
        Some(String::from_utf8(value.clone()).expect("text"))
    }
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the header at the start of `bytes`. Fails the test if it is not whole.
pub fn parse(bytes: &[u8]) -> ProxyHeader {
    if bytes.starts_with(SIGNATURE) { parse_v2(bytes) } else { parse_v1(bytes) }
}

fn parse_v1(bytes: &[u8]) -> ProxyHeader {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a line that ends");
    let line = std::str::from_utf8(&bytes[..end]).expect("ASCII");
    let words: Vec<&str> = line.split(' ').collect();
    let ["PROXY", "TCP4" | "TCP6", from, to, from_port, to_port] = words[..] else {
        panic!("{line:?} is no header");
    };
    let address = |ip: &str, port: &str| {
        SocketAddr::new(ip.parse().expect("an address"), port.parse().expect("a port"))
    };
    ProxyHeader {
        source: Some(address(from, from_port)),
        destination: Some(address(to, to_port)),
        length: end + 2,
        ..ProxyHeader::default()
    }
}

fn parse_v2(bytes: &[u8]) -> ProxyHeader {
    assert_eq!(bytes[12], 0x21, "version 2, PROXY");
    let length = 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let body = &bytes[16..length];
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let (source, destination, values) = match bytes[13] {
        0x11 => {
            let ip = |at: usize| {
                IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&body[at..at + 4]).expect("4")))
            };
            ((ip(0), port(8)), (ip(4), port(10)), &body[12..])
        }
        0x21 => {
            let ip = |at: usize| {
                IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&body[at..at + 16]).expect("16")))
            };
            ((ip(0), port(32)), (ip(16), port(34)), &body[36..])
        }
        family => panic!("address family {family:#x}"),
    };
    let mut header = ProxyHeader {
        source: Some(source.into()),
        destination: Some(destination.into()),
        length,
        ..ProxyHeader::default()
    };
    read_values(&mut header, values);
    header
}

fn read_values(header: &mut ProxyHeader, mut bytes: &[u8]) {
    while let [kind, high, low, rest @ ..] = bytes {
        let (value, after) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        let text = || Some(String::from_utf8_lossy(value).into_owned());
        match kind {
            0x01 => header.alpn = text(),
            0x02 => header.authority = text(),
            0x20 => {
                assert_eq!(value[1..5], [0; 4], "verified, or no certificate");
                header.certificate_bits = value[0] & !1;
                read_values(header, &value[5..]);
            }
            0x22 => header.common_name = text(),
            0x21 => header.tls_version = text(),
            0x23 => header.cipher = text(),
            _ => header.others.push((*kind, value.to_vec())),
        }
        bytes = after;
    }
    assert!(bytes.is_empty(), "bytes behind the last value");
}
