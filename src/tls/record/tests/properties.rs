//! What holds for all inputs.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn suite() -> impl Strategy<Value = (Version, Algorithm, CryptoLibrary)> {
    let suites: Vec<_> = every_suite().collect();
    proptest::sample::select(suites)
}

/// Bytes that get past the header often enough to matter.
fn record_like() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..200);
    (0..30_u8, 2..5_u8, any::<u8>(), body, any::<bool>(), any::<u16>()).prop_map(
        |(content_type, major, minor, body, honest, length)| {
            let length = if honest { body.len() as u16 } else { length };
            let [high, low] = length.to_be_bytes();
            [&[content_type, major, minor, high, low][..], &body].concat()
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_make_the_opener_panic_or_yield_data(
        suite in suite(),
        mut bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100),
            record_like(),
        ],
    ) {
        let (_, mut opener) = test_pair(suite.0, suite.1, suite.2);
        match opener.open(&mut bytes) {
            Err(_) => {}
            Ok(Opened::Incomplete { total_bytes }) => {
                prop_assert!(total_bytes > bytes.len());
                prop_assert!(total_bytes <= RECORD_BYTES_MAX);
            }
            Ok(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn a_changed_record_is_never_opened(
        suite in suite(),
        data in proptest::collection::vec(any::<u8>(), 1..300),
        place in any::<Index>(),
        change in 1..=255_u8,
    ) {
        let (mut sealer, mut opener) = test_pair(suite.0, suite.1, suite.2);
        let mut record = seal(&mut sealer, &data, 16_384);
        let place = place.index(record.len());
        record[place] ^= change;
        match opener.open(&mut record) {
            Err(_) => {}
            // Only a greater length makes the opener wait for more.
            Ok(Opened::Incomplete { total_bytes }) => {
                prop_assert!(place == 3 || place == 4);
                prop_assert!(total_bytes > record.len());
            }
            Ok(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn whatever_a_peer_authenticates_does_not_make_the_opener_panic(
        version in proptest::sample::select(VERSIONS.to_vec()),
        records in proptest::collection::vec(
            (18..26_u8, proptest::collection::vec(0..30_u8, 0..12), 0..4_usize), 1..8),
        is_server in any::<bool>(),
    ) {
        let (mut peer, mut opener) =
            if is_server { Peer::server(version) } else { Peer::new(version, Algorithm::Aes128Gcm) };
        for (content_type, content, padding) in records {
            let mut record = match version {
                Version::Tls12 => peer.record(content_type, &content),
                Version::Tls13 => peer.record_tls13(content_type, &content, padding),
            };
            let all = record.len();
            match opener.open(&mut record) {
                Err(_) => return Ok(()),
                Ok(Opened::Data { plaintext, record_bytes }) => {
                    prop_assert_eq!(record_bytes, all);
                    prop_assert_eq!(&record[plaintext], &content[..]);
                }
                Ok(Opened::Incomplete { .. }) => prop_assert!(false, "complete, but not seen so"),
                Ok(
                    Opened::KeyUpdate { record_bytes, .. }
                    | Opened::CloseNotify { record_bytes }
                    | Opened::SessionTicket { record_bytes, .. }
                    | Opened::Ignored { record_bytes }
                    | Opened::RenegotiationRefused { record_bytes },
                ) => prop_assert_eq!(record_bytes, all),
            }
        }
    }

    #[test]
    fn what_is_sealed_opens_again_whatever_its_size_record_maximum_and_place(
        suite in suite(),
        data in proptest::collection::vec(any::<u8>(), 0..40_000),
        record_plaintext_max in prop_oneof![Just(0), 1..50_usize, 1_000..20_000_usize],
        front_spare in 0..40_usize,
        back_spare in 0..40_usize,
    ) {
        // Short records of much data are slow to test and show nothing new.
        let data = &data[..data.len().min(record_plaintext_max.max(1) * 50)];
        let (mut sealer, mut opener) = test_pair(suite.0, suite.1, suite.2);
        let sealed_bytes = sealer.sealed_bytes(data.len(), record_plaintext_max);
        let start = front_spare + sealer.header_bytes();
        let mut buffer = vec![0xee; front_spare + sealed_bytes.max(sealer.header_bytes()) + back_spare];
        buffer[start..start + data.len()].copy_from_slice(data);

        let sealed =
            sealer.seal_run(&mut buffer, start..start + data.len(), record_plaintext_max).unwrap();
        prop_assert_eq!(sealed.len(), sealed_bytes);
        prop_assert!(buffer[..front_spare].iter().all(|byte| *byte == 0xee));
        prop_assert!(buffer[buffer.len() - back_spare..].iter().all(|byte| *byte == 0xee));

        let mut rest = &mut buffer[sealed];
        let mut opened = Vec::new();
        while !rest.is_empty() {
            let Opened::Data { plaintext, record_bytes } = opener.open(rest).unwrap() else {
                panic!("only data was sealed");
            };
            prop_assert!(plaintext.len() <= record_plaintext_max.clamp(1, PLAINTEXT_BYTES_MAX));
            opened.extend_from_slice(&rest[plaintext]);
            rest = &mut rest[record_bytes..];
        }
        prop_assert_eq!(opened, data);
    }

    #[test]
    fn the_room_for_a_run_never_overflows(suite in suite(), bytes: usize, max: usize) {
        let (sealer, _) = test_pair(suite.0, suite.1, suite.2);
        prop_assert!(sealer.sealed_bytes(bytes, max) >= bytes);
    }
}
