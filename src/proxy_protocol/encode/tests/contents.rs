//! What headers say of what a pool asks for.

use std::sync::Arc;

use super::*;
use crate::proxy_protocol::authentication::{AuthenticationKey, KEY_BYTES, verify};
use crate::proxy_protocol::contents::{CustomValue, TypeSet, ValueSet};
use crate::proxy_protocol::decode::{self, HeaderError, Received};

/// The values of `Value::Ssl` begin behind its bits and the result.
const SSL_VALUES: usize = SSL_FIXED_BYTES;

fn asked_for(values: &[Value]) -> Contents {
    let all = values.iter().fold(ValueSet::NONE, |all, value| all.with(*value));
    Contents { values: all, ..Contents::default() }
}

/// What our own receiver makes of a header, all of which it must be.
fn received(bytes: &[u8]) -> Received<'_> {
    match decode::decode(bytes) {
        decode::Decoded::Complete(header) if header.bytes == bytes.len() => header,
        other => panic!("{other:?}"),
    }
}

fn value<'a>(values: impl IntoIterator<Item = (u8, &'a [u8])>, kind: u8) -> Option<&'a [u8]> {
    let mut found = values.into_iter().filter(|(other, _)| *other == kind).map(|(_, value)| value);
    let first = found.next();
    assert_eq!(found.next(), None, "type {kind:#x} is there twice");
    first
}

fn text(values: &[(u8, &[u8])], kind: u8) -> Option<String> {
    let value = value(values.iter().copied(), kind)?;
    Some(String::from_utf8(value.to_vec()).expect("text"))
}

#[test]
fn every_value_of_the_session_is_told_under_the_name_of_the_specification() {
    let session = facts(Some(b"h2"), None);
    let header = Header {
        server_name: Some("shop.example"),
        session: Some(&session),
        certificate: Some(CertificateFacts { common_name: Some("app"), der: b"certificate" }),
        unique_id: Some(b"0123"),
        ..header("192.0.2.1:1", "192.0.2.2:2")
    };
    let contents = Contents {
        network_namespace: "blue".into(),
        ..asked_for(&Value::ALL.map(|(_, value)| value))
    };
    let (bytes, left_out) = encoded_with(ProxyProtocol::V2, &contents, &header);
    assert!(!left_out);
    let values: Vec<_> = received(&bytes).values.iter().collect();
    assert_eq!(text(&values, 0x01).as_deref(), Some("h2"));
    assert_eq!(text(&values, 0x02).as_deref(), Some("shop.example"));
    assert_eq!(text(&values, 0x05).as_deref(), Some("0123"));
    assert_eq!(text(&values, 0x30).as_deref(), Some("blue"));
    let ssl = value(values, 0x20).expect("TLS");
    let inside = split_tlvs(&ssl[SSL_VALUES..]);
    assert_eq!(text(&inside, 0x21).as_deref(), Some("TLSv1.3"));
    assert_eq!(text(&inside, 0x22).as_deref(), Some("app"));
    assert_eq!(text(&inside, 0x23).as_deref(), Some("TLS_AES_128_GCM_SHA256"));
    assert_eq!(text(&inside, 0x24).as_deref(), Some("RSA-SHA256"));
    assert_eq!(text(&inside, 0x25).as_deref(), Some("RSA2048"));
    assert_eq!(text(&inside, 0x26).as_deref(), Some("x25519"));
    assert_eq!(text(&inside, 0x27).as_deref(), Some("ecdsa_secp256r1_sha256"));
    assert_eq!(text(&inside, 0x28).as_deref(), Some("certificate"));
}

#[test]
fn keys_are_named_as_haproxy_names_them() {
    for (key_type, key_bits, name) in [
        (KeyType::Rsa, 8_192, "RSA8192"),
        (KeyType::EcdsaP256, 256, "EC256"),
        (KeyType::EcdsaP384, 384, "EC384"),
        (KeyType::EcdsaP521, 521, "EC521"),
        (KeyType::Ed25519, 256, "ED25519"),
    ] {
        let kind = CertificateKind { key_type, key_bits, signature: CertificateSignature::Other };
        assert_eq!(key_name(kind).expect("room").as_str(), name);
    }
}

#[test]
fn nothing_but_the_addresses_is_told_where_nothing_is_asked_for() {
    let session = facts(Some(b"h2"), None);
    let header = Header {
        server_name: Some("shop.example"),
        session: Some(&session),
        unique_id: Some(b"0123"),
        ..header("192.0.2.1:1", "192.0.2.2:2")
    };
    let (bytes, _) = encoded_with(ProxyProtocol::V2, &asked_for(&[]), &header);
    assert_eq!(bytes.len(), 28);
}

#[test]
fn what_is_inside_of_the_value_for_tls_brings_that_value() {
    let session = facts(None, None);
    let header = Header { session: Some(&session), ..header("192.0.2.1:1", "192.0.2.2:2") };
    let (bytes, _) = encoded_with(ProxyProtocol::V2, &asked_for(&[Value::SslGroup]), &header);
    let ssl = value(received(&bytes).values.iter(), 0x20).expect("TLS");
    let kinds: Vec<_> = split_tlvs(&ssl[SSL_VALUES..]).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [0x21, 0x26]);
}

#[test]
fn a_certificate_without_room_is_left_out_and_nothing_else_is() {
    let session = facts(None, None);
    let longest = |der| Header {
        session: Some(&session),
        certificate: Some(CertificateFacts { common_name: Some("app"), der }),
        ..header("192.0.2.1:1", "192.0.2.2:2")
    };
    let contents = asked_for(&[Value::SslCn, Value::SslClientCert, Value::Crc32c]);
    let der = [0x30; HEADER_BYTES_MAX];
    let room = (0..der.len())
        .rev()
        .find(|length| !encoded_with(ProxyProtocol::V2, &contents, &longest(&der[..*length])).1)
        .expect("a certificate that fits");
    assert!(room > 3_500, "{room}");
    let (bytes, _) = encoded_with(ProxyProtocol::V2, &contents, &longest(&der[..room]));
    assert!(bytes.len() <= HEADER_BYTES_MAX);
    let ssl = value(received(&bytes).values.iter(), 0x20).expect("TLS").to_vec();
    assert_eq!(value(split_tlvs(&ssl[SSL_VALUES..]), 0x28).map(<[u8]>::len), Some(room));

    let (bytes, left_out) = encoded_with(ProxyProtocol::V2, &contents, &longest(&der[..=room]));
    assert!(left_out);
    let ssl = value(received(&bytes).values.iter(), 0x20).expect("TLS").to_vec();
    let inside = split_tlvs(&ssl[SSL_VALUES..]);
    assert_eq!(value(inside.iter().copied(), 0x28), None);
    assert_eq!((ssl[0], text(&inside, 0x22).as_deref()), (0x07, Some("app")));
}

#[test]
fn the_name_of_a_connection_is_that_of_the_balancer_in_front_if_it_is_to_go_on() {
    let from_balancer = b"\x05\x00\x06theirs\x30\x00\x03red\xea\x00\x02id\xeb\x00\x01x";
    let header = Header {
        unique_id: Some(b"ours"),
        passed_on: decode::Values::stored(from_balancer),
        ..header("192.0.2.1:1", "192.0.2.2:2")
    };
    let named = asked_for(&[Value::UniqueId, Value::Netns]);
    let named = Contents { network_namespace: "blue".into(), ..named };
    let (bytes, _) = encoded_with(ProxyProtocol::V2, &named, &header);
    let values: Vec<_> = received(&bytes).values.iter().collect();
    assert_eq!(values, [(0x05, &b"ours"[..]), (0x30, b"blue")]);

    let mut passed_on = TypeSet::default();
    [0x05, 0x30, 0xea].into_iter().for_each(|kind| passed_on.insert(kind));
    let passing = Contents { passed_on, ..named };
    let (bytes, _) = encoded_with(ProxyProtocol::V2, &passing, &header);
    let values: Vec<_> = received(&bytes).values.iter().collect();
    assert_eq!(values, [(0x05, &b"theirs"[..]), (0x30, b"red"), (0xea, b"id")]);
}

fn any_contents() -> impl Strategy<Value = Contents> {
    let customs = proptest::collection::vec(
        prop_oneof![Just("{session}"), Just("{group}-{node}"), Just("text"), Just("{ja4}")],
        0..=Contents::CUSTOM_MAX,
    );
    let values = proptest::collection::vec(
        proptest::sample::select(Value::ALL.map(|(_, value)| value).to_vec()),
        0..13,
    );
    let sealed = proptest::option::of(any::<[u8; KEY_BYTES]>());
    (values, 1..=Contents::ALIGNMENT_MAX, customs, any::<bool>(), sealed).prop_map(
        |(values, alignment, customs, passes_on, key)| {
            let mut passed_on = TypeSet::default();
            if passes_on {
                passed_on.insert(0xf0);
            }
            Contents {
                alignment,
                custom: (0xe8..)
                    .zip(customs)
                    .map(|(kind, text)| CustomValue {
                        kind,
                        template: Template::parse(text).expect("a template"),
                    })
                    .collect(),
                passed_on,
                network_namespace: "blue".into(),
                node: "node".into(),
                key: key.map(|bytes| Arc::new(AuthenticationKey::new(&bytes))),
                ..asked_for(&values)
            }
        },
    )
}

/// The values that are expected, in any order, without those of `Value::Ssl`, the filling,
/// the sum and the authentication.
fn expected(contents: &Contents, header: &Header<'_>) -> Vec<(u8, Vec<u8>)> {
    let has = |value| contents.values.contains(value);
    let mut expected = Vec::new();
    let session = header.session.expect("a session");
    if let Some(alpn) = session.alpn.as_ref().filter(|_| has(Value::Alpn)) {
        expected.push((0x01, alpn.to_vec()));
    }
    if let Some(name) = header.server_name.filter(|_| has(Value::Authority)) {
        expected.push((0x02, name.as_bytes().to_vec()));
    }
    if has(Value::UniqueId) {
        expected.push((0x05, b"id".to_vec()));
    }
    if has(Value::Netns) {
        expected.push((0x30, b"blue".to_vec()));
    }
    for custom in &contents.custom {
        let mut value = [0; Template::BYTES_MAX];
        let length = custom.template.write(header, "node", &mut value).expect("room");
        if length > 0 {
            expected.push((custom.kind, value[..length].to_vec()));
        }
    }
    if contents.passed_on.contains(0xf0) {
        expected.push((0xf0, b"of the balancer".to_vec()));
    }
    expected.sort();
    expected
}

proptest! {
    #[test]
    fn a_receiver_reads_back_whatever_a_pool_asks_for(
        source in any_address(),
        destination in any_address(),
        session in any_session(),
        contents in any_contents(),
        flipped in any::<prop::sample::Index>(),
    ) {
        let now = Duration::from_millis(1_800_000_000_000);
        let header = Header {
            server_name: session.server_name.as_deref(),
            session: Some(&session),
            certificate: Some(CertificateFacts { common_name: Some("app"), der: &[7; 700] }),
            unique_id: Some(b"id"),
            passed_on: decode::Values::stored(b"\xf0\x00\x0fof the balancer\xf1\x00\x00"),
            now,
            ..Header::new(source, destination)
        };
        let (mut bytes, left_out) = encoded_with(ProxyProtocol::V2, &contents, &header);
        prop_assert!(!left_out);
        prop_assert_eq!(bytes.len() % contents.alignment, 0);
        let decoded = received(&bytes);
        let (from, to) = decoded.addresses.expect("addresses");
        prop_assert_eq!(from.ip().to_canonical(), source.ip().to_canonical());
        prop_assert_eq!(to.ip().to_canonical(), destination.ip().to_canonical());
        prop_assert_eq!((from.port(), to.port()), (source.port(), destination.port()));
        let mut told: Vec<_> = decoded
            .values
            .iter()
            .filter(|(kind, _)| !matches!(kind, 0x03 | 0x04 | 0x20 | 0xe7))
            .map(|(kind, value)| (kind, value.to_vec()))
            .collect();
        told.sort();
        prop_assert_eq!(told, expected(&contents, &header));
        let ssl = value(decoded.values.iter(), 0x20);
        prop_assert_eq!(ssl.is_some(), contents.values.contains(Value::Ssl));
        if let Some(key) = &contents.key {
            let keys = std::slice::from_ref(&**key);
            prop_assert!(verify(&bytes, keys, now, Duration::ZERO).is_ok());
        }
        // The sum is right, as it was read, and a sum.
        let sum = value(decoded.values.iter(), 0x03);
        prop_assert_eq!(sum.is_some(), contents.values.contains(Value::Crc32c));
        if sum.is_some() {
            // In an address: elsewhere it could become another value.
            bytes[16 + flipped.index(12)] ^= 1;
            let altered = decode::decode(&bytes);
            prop_assert_eq!(altered, decode::Decoded::Refused(HeaderError::Checksum));
        }
    }
}
