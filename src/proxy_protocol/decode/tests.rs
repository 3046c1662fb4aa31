use proptest::prelude::*;

use super::*;

fn complete(bytes: &[u8]) -> Received<'_> {
    match decode(bytes) {
        Decoded::Complete(received) => received,
        other => panic!("{other:?}"),
    }
}

fn refused(bytes: &[u8]) -> String {
    match decode(bytes) {
        Decoded::Refused(error) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A version 2 header.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    header.extend([0x20 | command, family]);
    header.extend((block.len() as u16).to_be_bytes());
    header.extend(block);
    header
}

const INET: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 9, 0xd4, 0x31, 0x01, 0xbb];

#[test]
fn a_line_of_either_family_gives_the_addresses() {
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.9 54321 443\r\nmore";
    let received = complete(line);
    let expected = (address("192.0.2.7:54321"), address("198.51.100.9:443"));
    assert_eq!(received.addresses, Some(expected));
    assert_eq!(&line[received.bytes..], b"more");

    let received = complete(b"PROXY TCP6 2001:db8::7 2001:db8::9 1 65535\r\n");
    let expected = (address("[2001:db8::7]:1"), address("[2001:db8::9]:65535"));
    assert_eq!(received.addresses, Some(expected));
}

#[test]
fn an_unknown_family_leaves_the_addresses_of_the_connection() {
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 some thing 65536\r\n"] {
        let received = complete(line.as_bytes());
        assert_eq!((received.addresses, received.bytes), (None, line.len()));
    }
}

#[test]
fn lines_that_are_not_exactly_as_specified_are_refused() {
    for line in [
        "PROXY TCP5 192.0.2.7 198.51.100.9 1 2\r\n",
        "PROXY tcp4 192.0.2.7 198.51.100.9 1 2\r\n",
        "PROXY TCP4 192.0.2.7  198.51.100.9 1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 1\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 1 2 3\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 1 2 \r\n",
        "PROXY TCP4 192.0.2.07 198.51.100.9 1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 01 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 +1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 65536 2\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::9 1 2\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.9 1 2\r\n",
        "PROXY TCP4 \u{e4}.0.2.7 198.51.100.9 1 2\r\n",
        "PROXY \r\n",
    ] {
        assert!(refused(line.as_bytes()).contains("version 1"), "{line:?}");
    }
}

#[test]
fn a_line_without_end_is_waited_for_up_to_107_bytes() {
    let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
    assert_eq!(decode(&endless[..V1_LINE_BYTES_MAX - 1]), Decoded::Incomplete);
    assert!(refused(&endless[..V1_LINE_BYTES_MAX]).contains("107"));
    // The end must lie within as well.
    let mut late = endless[..V1_LINE_BYTES_MAX - 1].to_vec();
    late.extend(b"\r\n");
    assert!(refused(&late).contains("107"));
}

#[test]
fn a_binary_header_gives_addresses_and_values() {
    let values = [&[0x05, 0, 3][..], b"abc", &[0xea, 0, 2, 1, 9]].concat();
    let mut bytes = binary(1, 0x11, &[&INET[..], &values].concat());
    bytes.extend(b"more");
    let received = complete(&bytes);
    let expected = (address("192.0.2.7:54321"), address("198.51.100.9:443"));
    assert_eq!(received.addresses, Some(expected));
    let values: Vec<_> = received.values.iter().collect();
    assert_eq!(values, [(0x05, &b"abc"[..]), (0xea, &[1, 9][..])]);
    assert_eq!(&bytes[received.bytes..], b"more");
}

#[test]
fn a_binary_header_of_ipv6_gives_the_addresses() {
    let mut block = Vec::new();
    for text in ["2001:db8::7", "2001:db8::9"] {
        block.extend(text.parse::<Ipv6Addr>().expect("an address").octets());
    }
    block.extend([0xd4, 0x31, 0x01, 0xbb]);
    let bytes = binary(1, 0x21, &block);
    let expected = (address("[2001:db8::7]:54321"), address("[2001:db8::9]:443"));
    assert_eq!(complete(&bytes).addresses, Some(expected));
}

#[test]
fn a_health_check_speaks_for_itself_whatever_its_block_holds() {
    for (family, block) in [(0x00, &b""[..]), (0x11, &INET), (0x77, b"anything")] {
        let bytes = binary(0, family, block);
        let received = complete(&bytes);
        assert_eq!((received.addresses, received.bytes), (None, bytes.len()));
        assert_eq!(received.values.iter().count(), 0);
    }
}

#[test]
fn a_sender_that_does_not_know_leaves_the_addresses_of_the_connection() {
    assert_eq!(complete(&binary(1, 0x00, b"")).addresses, None);
    assert_eq!(complete(&binary(1, 0x31, &[0; 216])).addresses, None);
}

#[test]
fn binary_headers_that_are_not_as_specified_are_refused() {
    let mut other_version = binary(1, 0x11, &INET);
    other_version[12] = 0x31;
    let long = [&INET[..], &[0x04, 0xff, 0xff]].concat();
    for bytes in [
        other_version,
        binary(2, 0x11, &INET),
        binary(1, 0x11, &INET[..11]),
        binary(1, 0x21, &INET),
        binary(1, 0x31, &INET),
        binary(1, 0x12, &INET),
        binary(1, 0x41, &INET),
        binary(1, 0x10, &INET),
        binary(1, 0x11, &long),
        binary(1, 0x11, &[&INET[..], &[0x04, 0]].concat()),
        binary(1, 0x11, &[&INET[..], &[TYPE_CRC32C, 0, 2, 1, 1]].concat()),
    ] {
        assert!(refused(&bytes).contains("version 2"), "{bytes:?}");
    }
}

#[test]
fn a_header_longer_than_is_taken_is_refused_before_it_is_there() {
    let mut bytes = binary(1, 0x11, &INET);
    bytes[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    assert!(refused(&bytes[..16]).contains("65551"));
}

#[test]
fn a_checksum_is_checked_if_it_is_there() {
    let block = [&INET[..], &[TYPE_CRC32C, 0, 4, 0, 0, 0, 0, 0x05, 0, 1, 7]].concat();
    let mut bytes = binary(1, 0x11, &block);
    let place = V2_FIXED_BYTES + V2_INET_BYTES + TLV_BYTES;
    let sum = crate::proxy_protocol::sum_without(&bytes, place);
    bytes[place..place + 4].copy_from_slice(&sum.to_be_bytes());
    assert!(complete(&bytes).addresses.is_some());
    // All but its own type, with another of which there is no checksum.
    for byte in (V2_FIXED_BYTES..bytes.len()).filter(|byte| *byte != place - TLV_BYTES) {
        let mut altered = bytes.clone();
        altered[byte] ^= 0x10;
        assert!(!matches!(decode(&altered), Decoded::Complete(_)), "byte {byte}");
    }
    let twice = [&block[..], &[TYPE_CRC32C, 0, 4, 0, 0, 0, 0]].concat();
    assert!(refused(&binary(1, 0x11, &twice)).contains("two checksums"));
}

#[test]
fn what_begins_with_something_else_is_refused_at_its_first_byte() {
    for bytes in [&[22][..], b"G", b"PROXX", b"\r\n\r\n\0\r\nQUIX", b"proxy "] {
        assert_eq!(decode(bytes), Decoded::Refused(HeaderError::NotAHeader), "{bytes:?}");
    }
    assert_eq!(decode(b""), Decoded::Incomplete);
    assert_eq!(decode(b"PRO"), Decoded::Incomplete);
    assert_eq!(decode(b"\r\n"), Decoded::Incomplete);
}

fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let value = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)).prop_filter_map(
        "checksums are made elsewhere",
        |(kind, value)| {
            (kind != TYPE_CRC32C).then(|| [&[kind, 0, value.len() as u8][..], &value].concat())
        },
    );
    let values = prop::collection::vec(value, 0..6).prop_map(|values| values.concat());
    let block = (any::<[u8; 12]>(), values)
        .prop_map(|(addresses, values)| binary(1, 0x11, &[&addresses[..], &values].concat()));
    let line = (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<u16>(), any::<u16>()).prop_map(
        |(from, to, source, destination)| {
            let (from, to) = (Ipv4Addr::from(from), Ipv4Addr::from(to));
            format!("PROXY TCP4 {from} {to} {source} {destination}\r\n").into_bytes()
        },
    );
    prop_oneof![block, line]
}

proptest! {
    #[test]
    fn any_bytes_are_answered_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode(&bytes);
        let _ = decode(&[&V2_SIGNATURE[..], &bytes].concat());
        let _ = decode(&[V1_PREFIX, &bytes].concat());
    }

    #[test]
    fn every_beginning_of_a_header_is_incomplete_and_more_behind_changes_nothing(
        header in any_header(),
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        for length in 0..header.len() {
            prop_assert_eq!(decode(&header[..length]), Decoded::Incomplete);
        }
        let whole = complete(&header);
        prop_assert_eq!(whole.bytes, header.len());
        let followed = [header.clone(), behind].concat();
        prop_assert_eq!(complete(&followed), whole);
    }
}
