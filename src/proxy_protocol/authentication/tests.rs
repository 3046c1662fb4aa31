use proptest::prelude::*;

use super::*;
use crate::proxy_protocol::sum_without;

/// Of `docs/PROXY_AUTHENTICATION.md`, computed with another implementation of HMAC-SHA256.
const PLAIN: &str = "0d0a0d0a000d0a515549540a2111004bc0000207c6336409d43101bb02000c73686f702e\
                     6578616d706c65e7002d0193a66f6a0000018bcfe568003987f177f3977c693693e46b7b\
                     9884832b8a4e3e881a0911bdc47dc9796f64bb";
const WITH_SUM: &str = "0d0a0d0a000d0a515549540a21110052c0000207c6336409d43101bb02000c73686f702e\
                        6578616d706c650300044ae9282ae7002d0193a66f6a0000018bcfe56800922b081df88a\
                        25047214a2da45e52d292fe9d83a02f59e687398c67633128608";
const WRITTEN: Duration = Duration::from_millis(1_700_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = vec![0; text.len() / 2];
    digits::hexadecimal(text, &mut bytes).expect("hexadecimal");
    bytes
}

/// The key of the vectors: 0, 1, ... 31.
fn key() -> AuthenticationKey {
    AuthenticationKey::new(&std::array::from_fn(|index| index as u8))
}

fn other_key() -> AuthenticationKey {
    AuthenticationKey::new(&[7; KEY_BYTES])
}

fn verified(header: &[u8], now: Duration) -> Result<Verified<'_>, VerifyError> {
    verify(header, &[other_key(), key()], now, MINUTE)
}

#[test]
fn the_published_headers_are_genuine() {
    for vector in [PLAIN, WITH_SUM] {
        let header = bytes(vector);
        let verified = verified(&header, WRITTEN + Duration::from_secs(2)).expect("genuine");
        assert_eq!(verified.key_id, 0x93a6_6f6a);
        assert_eq!(verified.age, Duration::from_secs(2));
        let (client, destination) = verified.header.addresses.expect("addresses");
        assert_eq!(client.to_string(), "192.0.2.7:54321");
        assert_eq!(destination.to_string(), "198.51.100.9:443");
    }
}

#[test]
fn what_is_written_is_what_is_published() {
    for (vector, sum_place) in [(PLAIN, None), (WITH_SUM, Some(16 + 12 + 15 + TLV_BYTES))] {
        let expected = bytes(vector);
        let mut header = expected.clone();
        let length = expected.len() - TLV_BYTES - VALUE_BYTES;
        header[length..].fill(0xff);
        if let Some(place) = sum_place {
            header[place..place + 4].fill(0);
        }
        assert_eq!(key().append(&mut header, length, WRITTEN), Ok(expected.len()));
        if let Some(place) = sum_place {
            let sum = sum_without(&header, place);
            header[place..place + 4].copy_from_slice(&sum.to_be_bytes());
        }
        assert_eq!(header, expected);
    }
}

#[test]
fn no_byte_of_a_genuine_header_can_be_another_one() {
    let genuine = bytes(PLAIN);
    for index in 0..genuine.len() {
        for bit in 0..8 {
            let mut altered = genuine.clone();
            altered[index] ^= 1 << bit;
            assert!(verified(&altered, WRITTEN).is_err(), "byte {index}, bit {bit}");
        }
    }
}

#[test]
fn a_value_put_in_or_taken_out_is_noticed() {
    let genuine = bytes(PLAIN);
    let with_length = |mut header: Vec<u8>| {
        let behind = (header.len() - V2_FIXED_BYTES) as u16;
        header[V2_FIXED_BYTES - 2..V2_FIXED_BYTES].copy_from_slice(&behind.to_be_bytes());
        header
    };
    let more = with_length([&genuine[..], &[0x04, 0, 0]].concat());
    assert_eq!(verified(&more, WRITTEN), Err(VerifyError::WrongCode));
    let less = with_length([&genuine[..28], &genuine[43..]].concat());
    assert_eq!(verified(&less, WRITTEN), Err(VerifyError::WrongCode));
    let twice = with_length([&genuine[..], &genuine[43..]].concat());
    assert_eq!(verified(&twice, WRITTEN), Err(VerifyError::Repeated));
}

#[test]
fn headers_without_authentication_are_not_believed() {
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.9 1 2\r\n";
    assert_eq!(verified(line, WRITTEN), Err(VerifyError::Missing));
    let mut local = bytes(PLAIN);
    local[12] = 0x20;
    assert_eq!(verified(&local, WRITTEN), Err(VerifyError::Missing));
    assert_eq!(verified(&bytes(PLAIN)[..90], WRITTEN), Err(VerifyError::Incomplete));
    let other = VerifyError::Header(HeaderError::NotAHeader);
    assert_eq!(verified(b"GET / HTTP/1.1\r\n", WRITTEN), Err(other));
}

#[test]
fn another_version_is_told_from_a_forgery() {
    let mut header = bytes(PLAIN);
    header[43 + TLV_BYTES] = 2;
    assert_eq!(verified(&header, WRITTEN), Err(VerifyError::UnknownVersion));
}

#[test]
fn a_key_that_is_not_given_is_named() {
    let header = bytes(PLAIN);
    let outcome = verify(&header, &[other_key()], WRITTEN, MINUTE);
    assert_eq!(outcome, Err(VerifyError::UnknownKey(0x93a6_6f6a)));
}

#[test]
fn the_age_is_bounded_in_both_directions_and_its_bound_is_allowed() {
    let header = bytes(PLAIN);
    let millisecond = Duration::from_millis(1);
    assert_eq!(verified(&header, WRITTEN + MINUTE).map(|it| it.age), Ok(MINUTE));
    assert_eq!(verified(&header, WRITTEN - MINUTE).map(|it| it.age), Ok(Duration::ZERO));
    for (now, ahead) in
        [(WRITTEN + MINUTE + millisecond, false), (WRITTEN - MINUTE - millisecond, true)]
    {
        let late = VerifyError::NotNow { distance_ms: 60_001, ahead, age_max_ms: 60_000 };
        assert_eq!(verified(&header, now), Err(late));
    }
}

#[test]
fn a_header_without_room_for_the_value_stays_as_it_was() {
    let mut header = bytes(PLAIN);
    header.truncate(43 + TLV_BYTES + VALUE_BYTES - 1);
    let before = header.clone();
    assert_eq!(key().append(&mut header, 43, WRITTEN), Err(HeaderTooLarge));
    assert_eq!(header, before);
}

#[test]
fn a_file_of_keys_gives_them_in_its_order() {
    let digits = |byte: u8| format!("{byte:02x}").repeat(KEY_BYTES);
    let content = format!("# newest first\n\n  {}\r\n{}", digits(7), digits(0xAB).to_uppercase());
    let keys = parse_keys(content.as_bytes()).expect("keys");
    let ids: Vec<_> = keys.iter().map(AuthenticationKey::id).collect();
    assert_eq!(ids, [other_key().id(), AuthenticationKey::new(&[0xab; KEY_BYTES]).id()]);
}

#[test]
fn what_is_wrong_with_a_file_of_keys_is_said_with_its_line() {
    let error = |content: &[u8]| parse_keys(content).expect_err("wrong");
    assert_eq!(error(b"# none\n"), KeyFileError::Empty);
    assert_eq!(error(b"\n0123\n"), KeyFileError::NotAKey(2));
    assert_eq!(error(&[0xff; 64]), KeyFileError::NotAKey(1));
    let line = format!("{}\n", "0".repeat(2 * KEY_BYTES));
    assert_eq!(error(line.repeat(KEYS_MAX + 1).as_bytes()), KeyFileError::TooMany(KEYS_MAX + 1));
}

#[test]
fn a_key_is_printed_by_its_number_alone() {
    assert_eq!(format!("{:?}", key()), "AuthenticationKey(93a66f6a)");
}

proptest! {
    /// Whatever values a header has, it is genuine once authenticated, and says the same.
    #[test]
    fn any_header_verifies_once_it_is_authenticated(
        values in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
        seconds in 0_u64..10_000_000_000,
    ) {
        // These two have a meaning of their own.
        let values: Vec<_> = values
            .into_iter()
            .filter(|(kind, _)| ![TYPE_AUTHENTICATION, TYPE_CRC32C].contains(kind))
            .collect();
        let mut header = bytes(PLAIN)[..28].to_vec();
        for (kind, value) in &values {
            header.push(*kind);
            header.extend((value.len() as u16).to_be_bytes());
            header.extend(value);
        }
        let (length, now) = (header.len(), Duration::from_secs(seconds));
        header.resize(length + TLV_BYTES + VALUE_BYTES, 0xff);
        let whole = key().append(&mut header, length, now).expect("room");
        header.extend(b"the client's");
        let verified = verify(&header, &[key()], now, Duration::ZERO).expect("genuine");
        prop_assert_eq!(verified.header.bytes, whole);
        let read: Vec<_> = verified
            .header
            .values
            .iter()
            .filter(|(kind, _)| *kind != TYPE_AUTHENTICATION)
            .map(|(kind, value)| (kind, value.to_vec()))
            .collect();
        prop_assert_eq!(read, values);
    }

    /// No bytes make the verifier panic, nor believe them.
    #[test]
    fn no_bytes_are_believed_without_the_key(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let header = [&bytes(PLAIN)[..14], &tail[..]].concat();
        prop_assert!(verify(&header, &[key()], WRITTEN, Duration::MAX).is_err());
    }
}
