use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6};

use proptest::prelude::*;

use super::*;

mod contents;

pub(in crate::proxy_protocol) fn facts(
    alpn: Option<&[u8]>,
    server_name: Option<&str>,
) -> SessionFacts {
    SessionFacts {
        version: Version::Tls13,
        cipher_suite: 0x1301,
        group: Some(0x001d),
        resumed: false,
        signature_scheme: Some(0x0403),
        certificate: Some(CertificateKind {
            key_type: KeyType::Rsa,
            key_bits: 2_048,
            signature: CertificateSignature::RsaSha256,
        }),
        alpn: alpn.map(Into::into),
        server_name: server_name.map(Into::into),
    }
}

/// A header that says nothing but the addresses.
pub(in crate::proxy_protocol) fn header(source: &str, destination: &str) -> Header<'static> {
    Header::new(source.parse().unwrap(), destination.parse().unwrap())
}

fn encoded(version: ProxyProtocol, source: &str, destination: &str) -> Vec<u8> {
    let header = Header { session: Some(&facts(None, None)), ..header(source, destination) };
    encoded_header(version, &header)
}

fn encoded_header(version: ProxyProtocol, header: &Header<'_>) -> Vec<u8> {
    encoded_with(version, &Contents::default(), header).0
}

/// The header, and whether the client's certificate was left out.
fn encoded_with(
    version: ProxyProtocol,
    contents: &Contents,
    header: &Header<'_>,
) -> (Vec<u8>, bool) {
    let mut out = [0xee; HEADER_BYTES_MAX];
    let encoded = encode(version, contents, header, &mut out).expect("the room is the maximum");
    (out[..encoded.bytes].to_vec(), encoded.certificate_left_out)
}

fn v1(source: &str, destination: &str) -> String {
    String::from_utf8(encoded(ProxyProtocol::V1, source, destination)).unwrap()
}

#[test]
fn none_writes_nothing() {
    assert!(encoded(ProxyProtocol::None, "192.0.2.1:1", "192.0.2.2:2").is_empty());
}

#[test]
fn version_1_over_ipv4_is_the_line_of_the_specification() {
    assert_eq!(
        v1("255.255.255.255:65535", "255.255.255.255:65535"),
        "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"
    );
    assert_eq!(
        v1("192.168.0.1:56324", "192.168.0.11:443"),
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    );
}

#[test]
fn version_1_over_ipv6_at_its_longest_keeps_to_the_bound() {
    let line = v1(
        "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
        "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
    );
    assert_eq!(
        line,
        "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
         ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
    );
    assert_eq!(line.len(), V1_BYTES_MAX);
}

#[test]
fn version_1_writes_mapped_addresses_as_ipv4() {
    assert_eq!(
        v1("[::ffff:192.0.2.1]:1000", "[::ffff:198.51.100.7]:443"),
        "PROXY TCP4 192.0.2.1 198.51.100.7 1000 443\r\n"
    );
}

#[test]
fn version_1_of_mixed_families_is_ipv6_in_hexadecimal_only() {
    assert_eq!(
        v1("192.0.2.1:1000", "[2001:db8::1]:443"),
        "PROXY TCP6 ::ffff:c000:201 2001:db8::1 1000 443\r\n"
    );
}

/// The bytes are written by hand from section 2.2 of the specification.
#[test]
fn version_2_over_ipv4_has_the_bytes_of_the_specification() {
    let header = Header {
        server_name: Some("a.example"),
        session: Some(&facts(Some(b"h2"), Some("a.example"))),
        ..header("192.0.2.1:4660", "198.51.100.7:443")
    };
    let mut expected = Vec::new();
    expected.extend(*b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a");
    expected.extend([0x21, 0x11]); // version 2 PROXY; TCP over IPv4
    expected.extend([0x00, 72]); // 12 addresses + 5 ALPN + 12 AUTHORITY + 43 SSL
    expected.extend([192, 0, 2, 1, 198, 51, 100, 7, 0x12, 0x34, 0x01, 0xbb]);
    expected.extend(*b"\x01\x00\x02h2");
    expected.extend(*b"\x02\x00\x09a.example");
    expected.extend(*b"\x20\x00\x28"); // 5 fixed + 10 VERSION + 25 CIPHER
    expected.extend([0x01, 0, 0, 0, 0]); // PP2_CLIENT_SSL, verify 0
    expected.extend(*b"\x21\x00\x07TLSv1.3");
    expected.extend(*b"\x23\x00\x16TLS_AES_128_GCM_SHA256");
    assert_eq!(encoded_header(ProxyProtocol::V2, &header), expected);
}

#[test]
fn version_2_over_ipv6_carries_both_addresses_in_full() {
    let bytes = encoded(ProxyProtocol::V2, "[2001:db8::1]:1", "[2001:db8::2]:443");
    assert_eq!(bytes[12..14], [0x21, 0x21]);
    assert_eq!(bytes[16..32], *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
    assert_eq!(bytes[32..48], *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02");
    assert_eq!(bytes[48..52], [0, 1, 0x01, 0xbb]);
}

#[test]
fn version_2_of_mixed_families_is_ipv6_with_a_mapped_address() {
    let bytes = encoded(ProxyProtocol::V2, "[2001:db8::1]:1", "192.0.2.9:443");
    assert_eq!(bytes[13], 0x21);
    assert_eq!(bytes[32..48], *b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x09");
}

#[test]
fn version_2_gives_tls_1_2_suites_their_openssl_names() {
    let session =
        SessionFacts { version: Version::Tls12, cipher_suite: 0xc02f, ..facts(None, None) };
    let header = Header {
        server_name: session.server_name.as_deref(),
        session: Some(&session),
        ..header("192.0.2.1:1", "192.0.2.2:2")
    };
    let decoded = decode_v2(&encoded_header(ProxyProtocol::V2, &header));
    assert_eq!(decoded.version, "TLSv1.2");
    assert_eq!(decoded.cipher, "ECDHE-RSA-AES128-GCM-SHA256");
}

/// The value of PP2_TYPE_SSL for a client with this common name.
fn ssl_value(common_name: Option<&str>, resumed: bool) -> Vec<u8> {
    let header = Header {
        session: Some(&SessionFacts { resumed, ..facts(None, None) }),
        certificate: Some(CertificateFacts { common_name, der: b"" }),
        ..header("192.0.2.1:1", "192.0.2.2:2")
    };
    encoded_header(ProxyProtocol::V2, &header)[28 + TLV_BYTES..].to_vec()
}

#[test]
fn version_2_says_whether_the_certificate_was_shown_now_and_whose_it_is() {
    // PP2_CLIENT_SSL, PP2_CLIENT_CERT_CONN and PP2_CLIENT_CERT_SESS; verified.
    let now = ssl_value(Some("app"), false);
    assert_eq!(now[..5], [0x07, 0, 0, 0, 0]);
    assert_eq!(now[15..21], *b"\x22\x00\x03app");
    let before = ssl_value(None, true);
    assert_eq!(before[..5], [0x05, 0, 0, 0, 0]);
    assert_eq!(before[15], SUBTYPE_SSL_CIPHER);
}

#[test]
fn a_common_name_longer_than_its_bound_is_left_out() {
    let value = ssl_value(Some(&"c".repeat(COMMON_NAME_BYTES_MAX + 1)), false);
    assert_eq!((value[0], value[15]), (0x07, SUBTYPE_SSL_CIPHER));
}

#[test]
fn a_name_longer_than_dns_allows_is_refused() {
    let header = Header {
        server_name: Some(&"n".repeat(AUTHORITY_BYTES_MAX + 1)),
        session: Some(&facts(None, None)),
        ..header("192.0.2.1:1", "192.0.2.2:2")
    };
    let mut out = [0; 2 * HEADER_BYTES_MAX];
    let contents = Contents::default();
    assert_eq!(encode(ProxyProtocol::V2, &contents, &header, &mut out), Err(HeaderTooLarge));
}

/// What a receiver understands of a version 2 header; written from the specification
/// and sharing nothing with the encoder.
#[derive(Debug, Default, PartialEq)]
struct Decoded {
    addresses: Vec<u8>,
    ipv6: bool,
    alpn: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    client: u8,
    verify: [u8; 4],
    version: String,
    cipher: String,
}

fn decode_v2(bytes: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    assert_eq!(&bytes[..13], b"\r\n\r\n\0\r\nQUIT\n\x21");
    decoded.ipv6 = match bytes[13] {
        0x11 => false,
        0x21 => true,
        family => panic!("family {family:#x}"),
    };
    let body = &bytes[16..];
    assert_eq!(usize::from(bytes[14]) * 256 + usize::from(bytes[15]), body.len());
    let (addresses, tlvs) = body.split_at(if decoded.ipv6 { 36 } else { 12 });
    decoded.addresses = addresses.to_vec();
    for (kind, value) in split_tlvs(tlvs) {
        match kind {
            0x01 => decoded.alpn = Some(value.to_vec()),
            0x02 => decoded.authority = Some(value.to_vec()),
            0x20 => {
                decoded.client = value[0];
                decoded.verify = value[1..5].try_into().unwrap();
                for (kind, value) in split_tlvs(&value[5..]) {
                    let value = String::from_utf8(value.to_vec()).unwrap();
                    match kind {
                        0x21 => decoded.version = value,
                        0x23 => decoded.cipher = value,
                        _ => panic!("subtype {kind:#x}"),
                    }
                }
            }
            _ => panic!("type {kind:#x}"),
        }
    }
    decoded
}

fn split_tlvs(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let (value, after) = rest.split_at(usize::from(*high) * 256 + usize::from(*low));
        found.push((*kind, value));
        bytes = after;
    }
    assert!(bytes.is_empty(), "bytes after the last value");
    found
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>())
            .prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port).into()),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddrV6::new(
            ip.into(),
            port,
            7,
            3
        )
        .into()),
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| {
            SocketAddrV6::new(Ipv4Addr::from(ip).to_ipv6_mapped(), port, 0, 0).into()
        }),
    ]
}

fn any_session() -> impl Strategy<Value = SessionFacts> {
    (
        prop_oneof![Just(Version::Tls12), Just(Version::Tls13)],
        proptest::sample::select(names::CIPHER_SUITES.map(|(code, _)| code).to_vec()),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=255)),
        proptest::option::of("[a-z0-9.-]{1,253}"),
    )
        .prop_map(|(version, cipher_suite, alpn, server_name)| SessionFacts {
            version,
            cipher_suite,
            group: None,
            resumed: true,
            signature_scheme: None,
            certificate: None,
            alpn: alpn.map(Into::into),
            server_name: server_name.map(Into::into),
        })
}

proptest! {
    #[test]
    fn a_receiver_reads_back_what_version_2_was_given(
        source in any_address(),
        destination in any_address(),
        session in any_session(),
    ) {
        let bytes = encoded_header(
            ProxyProtocol::V2,
            &Header {
                server_name: session.server_name.as_deref(),
                session: Some(&session),
                ..Header::new(source, destination)
            },
        );
        let decoded = decode_v2(&bytes);
        let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
        let expected: Vec<u8> = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
            (from, to) => [into_v6(from).octets(), into_v6(to).octets()].concat(),
        };
        prop_assert_eq!(decoded.ipv6, expected.len() == 32);
        let (ips, ports) = decoded.addresses.split_at(expected.len());
        prop_assert_eq!(ips, &expected[..]);
        prop_assert_eq!(&ports[..2], &source.port().to_be_bytes()[..]);
        prop_assert_eq!(&ports[2..], &destination.port().to_be_bytes()[..]);
        prop_assert_eq!(decoded.alpn.as_deref(), session.alpn.as_deref());
        prop_assert_eq!(
            decoded.authority.as_deref(),
            session.server_name.as_deref().map(str::as_bytes)
        );
        prop_assert_eq!((decoded.client, decoded.verify), (1, [0; 4]));
        prop_assert_eq!(decoded.version, session.version.to_string());
        prop_assert_eq!(decoded.cipher, names::cipher_suite_name(session.cipher_suite).unwrap_or("unknown"));
    }

    #[test]
    fn a_receiver_reads_back_what_version_1_was_given(
        source in any_address(),
        destination in any_address(),
    ) {
        let session = facts(None, None);
        let line = encoded_header(
            ProxyProtocol::V1,
            &Header {
                server_name: session.server_name.as_deref(),
                session: Some(&session),
                ..Header::new(source, destination)
            },
        );
        let line = String::from_utf8(line).unwrap();
        prop_assert!(line.len() <= V1_BYTES_MAX);
        let words: Vec<&str> = line.strip_suffix("\r\n").unwrap().split(' ').collect();
        prop_assert_eq!(words.len(), 6);
        prop_assert_eq!(words[0], "PROXY");
        prop_assert!(words[1] == "TCP4" || words[1] == "TCP6");
        prop_assert_eq!(words[1] == "TCP6", words[2].contains(':'));
        prop_assert_eq!(words[1] == "TCP6", words[3].contains(':'));
        let parsed = |word: &str| word.parse::<IpAddr>().unwrap().to_canonical();
        prop_assert_eq!(parsed(words[2]), source.ip().to_canonical());
        prop_assert_eq!(parsed(words[3]), destination.ip().to_canonical());
        prop_assert_eq!(words[4].parse::<u16>().unwrap(), source.port());
        prop_assert_eq!(words[5].parse::<u16>().unwrap(), destination.port());
    }

    #[test]
    fn a_short_buffer_is_an_error_and_never_a_panic(
        room in 0..HEADER_BYTES_MAX,
        source in any_address(),
        destination in any_address(),
        session in any_session(),
    ) {
        let header =
            Header {
                server_name: session.server_name.as_deref(),
                session: Some(&session),
                ..Header::new(source, destination)
            };
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let full = encoded_header(version, &header);
            let mut out = vec![0; room];
            let result = encode(version, &Contents::default(), &header, &mut out);
            if room >= full.len() {
                prop_assert_eq!(result.map(|encoded| encoded.bytes), Ok(full.len()));
                prop_assert_eq!(&out[..full.len()], &full[..]);
            } else {
                prop_assert_eq!(result, Err(HeaderTooLarge));
            }
        }
    }
}
