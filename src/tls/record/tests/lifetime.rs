//! From the first sequence number of a key to its last, and from one process to the next.

use super::*;

#[test]
fn an_exported_connection_carries_on_where_it_was() {
    for (version, algorithm, library) in every_suite() {
        let (mut sealer, mut opener) = test_pair(version, algorithm, library);
        open_all(&mut opener, &mut seal(&mut sealer, b"before", 3));
        if version == Version::Tls13 {
            let mut control = [0; CONTROL_RECORD_BYTES_MAX];
            let bytes = sealer.key_update(false, &mut control).unwrap();
            opener.open(&mut control[..bytes]).unwrap();
        }
        open_all(&mut opener, &mut seal(&mut sealer, b"after", 2));

        let mut sealer = Sealer::new(sealer.export()).unwrap();
        let mut opener = Opener::new(opener.export()).unwrap();
        let mut sealed = seal(&mut sealer, b"handed over", 4);
        assert_eq!(open_all(&mut opener, &mut sealed), b"handed over");
        if version == Version::Tls13 {
            let mut control = [0; CONTROL_RECORD_BYTES_MAX];
            let bytes = sealer.key_update(false, &mut control).unwrap();
            opener.open(&mut control[..bytes]).unwrap();
            let mut sealed = seal(&mut sealer, b"and updated", 4);
            assert_eq!(open_all(&mut opener, &mut sealed), b"and updated");
        }
    }
}

#[test]
fn a_connection_can_change_its_library_when_handed_over() {
    for (version, algorithm, library) in every_suite() {
        let (mut sealer, opener) = test_pair(version, algorithm, library);
        let other = match library {
            CryptoLibrary::AwsLc => CryptoLibrary::Ring,
            CryptoLibrary::Ring => CryptoLibrary::AwsLc,
        };
        let keys = DirectionKeys { library: other, ..opener.export() };
        let mut opener = Opener::new(keys).unwrap();
        assert_eq!(open_all(&mut opener, &mut seal(&mut sealer, b"moved", 2)), b"moved");
    }
}

#[test]
fn half_a_key_update_survives_the_hand_over() {
    let (mut peer, mut opener) = Peer::tls13();
    opener.open(&mut peer.record(content_type::HANDSHAKE, &[24, 0, 0])).unwrap();
    let mut opener = Opener::new(opener.export()).unwrap();
    let mut record = peer.record(content_type::HANDSHAKE, &[1, 0]);
    let record_bytes = record.len();
    assert_eq!(opener.open(&mut record), Ok(Opened::KeyUpdate { record_bytes, respond: false }));
}

#[test]
fn a_closed_side_stays_closed_when_handed_over() {
    let (mut sealer, mut opener) =
        test_pair(Version::Tls13, Algorithm::Aes128Gcm, CryptoLibrary::AwsLc);
    let mut control = [0; CONTROL_RECORD_BYTES_MAX];
    let bytes = sealer.alert(AlertDescription::CloseNotify, &mut control).unwrap();
    opener.open(&mut control[..bytes]).unwrap();
    let sealer = Sealer::new(sealer.export()).unwrap();
    let mut opener = Opener::new(opener.export()).unwrap();
    assert!(sealer.closed());
    assert_eq!(opener.open(&mut [0; 7]), Ok(Opened::CloseNotify { record_bytes: 7 }));
}

#[test]
fn nothing_is_sealed_after_close_notify_or_a_fatal_alert() {
    for description in [AlertDescription::CloseNotify, AlertDescription::BadRecordMac] {
        for (version, algorithm, library) in every_suite() {
            let (mut sealer, _) = test_pair(version, algorithm, library);
            let mut buffer = [0; 100];
            sealer.alert(description, &mut buffer).unwrap();
            assert!(sealer.closed());
            assert_eq!(sealer.seal_run(&mut buffer, 20..30, 10), Err(SealError::Closed));
            assert_eq!(sealer.alert(description, &mut buffer), Err(SealError::Closed));
        }
    }
}

#[test]
fn refusing_renegotiation_closes_nothing() {
    let (mut sealer, mut opener) =
        test_pair(Version::Tls12, Algorithm::Aes128Gcm, CryptoLibrary::AwsLc);
    let mut buffer = [0; CONTROL_RECORD_BYTES_MAX];
    let bytes = sealer.alert(AlertDescription::NoRenegotiation, &mut buffer).unwrap();
    assert_eq!(bytes, CONTROL_RECORD_BYTES_MAX);
    assert_eq!(opener.open(&mut buffer[..bytes]), Ok(Opened::Ignored { record_bytes: bytes }));
    assert_eq!(open_all(&mut opener, &mut seal(&mut sealer, b"on", 2)), b"on");
}

#[test]
fn a_tls13_sealer_asks_for_a_key_update_in_good_time() {
    let keys =
        |sequence| test_keys(Version::Tls13, Algorithm::Aes256Gcm, CryptoLibrary::AwsLc, sequence);
    let mut sealer = Sealer::new(keys(KEY_UPDATE_AFTER_RECORDS - 1)).unwrap();
    assert!(!sealer.key_update_due());
    seal(&mut sealer, b"x", 1);
    assert!(sealer.key_update_due());
    assert!(!sealer.exhausted());
    sealer.key_update(false, &mut [0; CONTROL_RECORD_BYTES_MAX]).unwrap();
    assert!(!sealer.key_update_due());
}

#[test]
fn an_aes_gcm_key_seals_no_data_past_its_limit_but_still_says_goodbye() {
    let last = AES_GCM_RECORDS_MAX - CONTROL_RECORDS_RESERVED - 1;
    for version in VERSIONS {
        let keys = test_keys(version, Algorithm::Aes128Gcm, CryptoLibrary::AwsLc, last);
        let mut sealer = Sealer::new(keys).unwrap();
        assert!(!sealer.exhausted());
        let mut buffer = [0; 100];
        // Two records are one too many, and refused before anything is touched.
        assert_eq!(sealer.seal_run(&mut buffer, 20..22, 1), Err(SealError::Exhausted));
        assert_eq!(buffer, [0; 100]);
        sealer.seal_run(&mut buffer, 20..22, 2).unwrap();
        assert!(sealer.exhausted());
        assert_eq!(sealer.seal_run(&mut buffer, 20..22, 2), Err(SealError::Exhausted));
        sealer.alert(AlertDescription::CloseNotify, &mut buffer).unwrap();
    }
}

#[test]
fn even_alerts_stop_at_the_last_record_of_a_key() {
    let keys =
        test_keys(Version::Tls12, Algorithm::Aes128Gcm, CryptoLibrary::Ring, AES_GCM_RECORDS_MAX);
    let mut sealer = Sealer::new(keys).unwrap();
    assert_eq!(
        sealer.alert(AlertDescription::CloseNotify, &mut [0; 100]),
        Err(SealError::Exhausted)
    );
}

#[test]
fn a_sequence_number_never_wraps() {
    for library in LIBRARIES {
        let keys = || test_keys(Version::Tls13, Algorithm::Chacha20Poly1305, library, u64::MAX);
        let mut sealer = Sealer::new(keys()).unwrap();
        assert!(sealer.exhausted());
        assert_eq!(sealer.seal_run(&mut [0; 100], 20..21, 1), Err(SealError::Exhausted));
        let mut opener = Opener::new(keys()).unwrap();
        let mut record = [[23, 3, 3, 0, 17].as_slice(), &[0; 17]].concat();
        assert_eq!(opener.open(&mut record), Err(RecordError::SequenceEnd));
    }
}

#[test]
fn key_update_does_not_exist_in_tls12() {
    let (mut sealer, _) = test_pair(Version::Tls12, Algorithm::Aes128Gcm, CryptoLibrary::AwsLc);
    assert_eq!(sealer.key_update(false, &mut [0; 100]), Err(SealError::NotTls13));
    assert!(!sealer.key_update_due());
}

#[test]
fn keys_that_do_not_fit_together_are_refused() {
    let keys = || test_keys(Version::Tls13, Algorithm::Aes256Gcm, CryptoLibrary::AwsLc, 0);
    let refusal = |keys: DirectionKeys| Opener::new(keys).unwrap_err();
    assert_eq!(
        refusal(DirectionKeys { traffic_secret: None, ..keys() }),
        KeysError::TrafficSecretMissing
    );
    assert_eq!(
        refusal(DirectionKeys { traffic_secret: TrafficSecret::copy_of(&[0; 32]), ..keys() }),
        KeysError::TrafficSecretLength { expected_bytes: 48, actual_bytes: 32 }
    );
    assert_eq!(
        refusal(DirectionKeys { iv: IvBytes::copy_of(&[0; 4]).unwrap(), ..keys() }),
        KeysError::IvLength(4)
    );
    assert_eq!(
        refusal(DirectionKeys { key_update_bytes: 5, ..keys() }),
        KeysError::KeyUpdateBytes(5)
    );
    assert_eq!(
        refusal(DirectionKeys { key: KeyBytes::copy_of(&[0; 16]).unwrap(), ..keys() }).to_string(),
        "Aes256Gcm takes a key of 32 bytes, not 16"
    );
}

#[test]
fn without_room_nothing_is_touched_and_the_error_says_how_much_is_needed() {
    for (version, algorithm, library) in every_suite() {
        let (mut sealer, mut opener) = test_pair(version, algorithm, library);
        let (front, back) = (sealer.header_bytes(), sealer.trailer_bytes());
        let total_bytes = front + 10 + back;
        let no_room = Err(SealError::NoRoom { front_bytes: front, total_bytes });
        let mut buffer = vec![7; total_bytes];
        assert_eq!(sealer.seal_run(&mut buffer, front - 1..front + 9, 10), no_room);
        assert_eq!(sealer.seal_run(&mut buffer, front + 1..front + 11, 10), no_room);
        assert_eq!(sealer.seal_run(&mut buffer, total_bytes..total_bytes + 10, 10), no_room);
        assert_eq!(buffer, vec![7; total_bytes]);
        let sealed = sealer.seal_run(&mut buffer, front..front + 10, 10).unwrap();
        assert_eq!(sealed, 0..total_bytes);
        assert_eq!(open_data(&mut opener, &mut buffer), [7; 10]);
    }
}

#[test]
fn no_plaintext_makes_no_record() {
    let (mut sealer, mut opener) =
        test_pair(Version::Tls13, Algorithm::Aes128Gcm, CryptoLibrary::AwsLc);
    assert_eq!(sealer.seal_run(&mut [], 0..0, 100), Ok(0..0));
    assert_eq!(open_all(&mut opener, &mut seal(&mut sealer, b"first", 100)), b"first");
}

#[test]
fn a_direction_costs_a_connection_about_a_hundred_bytes_beside_the_expanded_key() {
    assert!(size_of::<Opener>() <= 112, "{}", size_of::<Opener>());
    assert!(size_of::<Sealer>() <= 104, "{}", size_of::<Sealer>());
}
