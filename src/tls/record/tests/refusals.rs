//! What a peer must not send, and the alert that it gets.

use super::content_type::{ALERT, APPLICATION_DATA, HANDSHAKE};
use super::*;

const CHANGE_CIPHER_SPEC: u8 = 20;
const CLIENT_HELLO: [u8; 6] = [1, 0, 0, 2, 3, 3];

#[track_caller]
fn refused(opener: &mut Opener, mut bytes: Vec<u8>, error: RecordError, alert: AlertDescription) {
    assert_eq!(error.alert(), Some(alert));
    assert_eq!(opener.open(&mut bytes), Err(error));
    assert_eq!(opener.open(&mut bytes), Err(RecordError::AlreadyFailed));
    assert_eq!(RecordError::AlreadyFailed.alert(), None);
}

#[track_caller]
fn unexpected(opener: &mut Opener, bytes: Vec<u8>, error: RecordError) {
    refused(opener, bytes, error, AlertDescription::UnexpectedMessage);
}

#[test]
fn bytes_that_are_not_tls_are_refused_by_their_header() {
    for (_, mut opener) in [Peer::tls12(), Peer::tls13()] {
        let error = RecordError::NotTls(2, 3);
        refused(&mut opener, vec![23, 2, 3, 0, 1], error, AlertDescription::ProtocolVersion);
    }
}

#[test]
fn a_record_too_long_is_refused_by_its_header() {
    for (_, mut opener) in [Peer::tls12(), Peer::tls13()] {
        let error = RecordError::RecordOverflow(16_641);
        refused(&mut opener, vec![23, 3, 3, 0x41, 1], error, AlertDescription::RecordOverflow);
    }
}

#[test]
fn the_longest_record_is_asked_for_in_full() {
    for (_, mut opener) in [Peer::tls12(), Peer::tls13()] {
        assert_eq!(
            opener.open(&mut [23, 3, 3, 0x41, 0]),
            Ok(Opened::Incomplete { total_bytes: RECORD_BYTES_MAX })
        );
    }
}

#[test]
fn a_plaintext_too_long_is_refused() {
    let (mut peer, mut opener) = Peer::tls12();
    let record = peer.record(APPLICATION_DATA, &[0; 16_385]);
    let error = RecordError::RecordOverflow(16_385);
    refused(&mut opener, record, error, AlertDescription::RecordOverflow);

    let (mut peer, mut opener) = Peer::tls13();
    let record = peer.record(APPLICATION_DATA, &[1; 16_385]);
    let error = RecordError::RecordOverflow(16_386);
    refused(&mut opener, record, error, AlertDescription::RecordOverflow);
}

#[test]
fn padding_counts_towards_the_length() {
    let (mut peer, mut opener) = Peer::tls13();
    let record = peer.record_tls13(APPLICATION_DATA, &[1; 16_383], 2);
    let error = RecordError::RecordOverflow(16_386);
    refused(&mut opener, record, error, AlertDescription::RecordOverflow);
}

#[test]
fn a_full_record_is_opened() {
    for (mut peer, mut opener) in [Peer::tls12(), Peer::tls13()] {
        let mut record = peer.record(APPLICATION_DATA, &[1; 16_384]);
        assert_eq!(open_data(&mut opener, &mut record), [1; 16_384]);
    }
}

#[test]
fn padding_is_stripped() {
    let (mut peer, mut opener) = Peer::tls13();
    let mut record = peer.record_tls13(APPLICATION_DATA, &[1, 2, 0, 0], 300);
    assert_eq!(open_data(&mut opener, &mut record), [1, 2, 0, 0]);
}

#[test]
fn a_record_shorter_than_its_tag_is_refused() {
    for (version, algorithm, library) in every_suite() {
        for length in 0..16 {
            let (_, mut opener) = test_pair(version, algorithm, library);
            let mut record = vec![23, 3, 3, 0, length];
            record.resize(5 + usize::from(length), 9);
            let error = RecordError::BadRecordMac;
            refused(&mut opener, record, error, AlertDescription::BadRecordMac);
        }
    }
}

#[test]
fn a_repeated_record_is_refused() {
    for (mut peer, mut opener) in [Peer::tls12(), Peer::tls13()] {
        let record = peer.record(APPLICATION_DATA, b"once");
        assert_eq!(open_data(&mut opener, &mut record.clone()), b"once");
        refused(&mut opener, record, RecordError::BadRecordMac, AlertDescription::BadRecordMac);
    }
}

#[test]
fn an_outer_type_other_than_data_is_refused_in_tls13() {
    for outer in [0, CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, 24, 255] {
        let (_, mut opener) = Peer::tls13();
        unexpected(
            &mut opener,
            vec![outer, 3, 3, 0, 1, 1],
            RecordError::UnexpectedContentType(outer),
        );
    }
}

#[test]
fn change_cipher_spec_and_unknown_types_are_refused_in_tls12() {
    for outer in [0, CHANGE_CIPHER_SPEC, 24, 255] {
        let (mut peer, mut opener) = Peer::tls12();
        let record = peer.record(outer, &[1]);
        unexpected(&mut opener, record, RecordError::UnexpectedContentType(outer));
    }
}

#[test]
fn an_inner_type_that_means_nothing_is_refused() {
    for inner in [1, CHANGE_CIPHER_SPEC, 24, 255] {
        let (mut peer, mut opener) = Peer::tls13();
        let record = peer.record(inner, &[1]);
        unexpected(&mut opener, record, RecordError::UnexpectedContentType(inner));
    }
}

#[test]
fn a_record_of_padding_only_is_refused() {
    for bytes in [0, 1, 100] {
        let (mut peer, mut opener) = Peer::tls13();
        let record = peer.sealed(APPLICATION_DATA, vec![0; bytes]);
        unexpected(&mut opener, record, RecordError::NoContentType);
    }
}

#[test]
fn empty_alerts_and_handshake_records_are_refused() {
    for content_type in [ALERT, HANDSHAKE] {
        for (mut peer, mut opener) in [Peer::tls12(), Peer::tls13()] {
            let record = peer.record(content_type, &[]);
            unexpected(&mut opener, record, RecordError::EmptyFragment(content_type));
        }
    }
}

#[test]
fn handshake_messages_that_only_others_may_send_are_refused_in_tls13() {
    // hello_request, client_hello, server_hello, new_session_ticket, end_of_early_data,
    // encrypted_extensions, certificate, certificate_request, certificate_verify,
    // finished, message_hash.
    for message in [0, 1, 2, 4, 5, 8, 11, 13, 15, 20, 254] {
        let (mut peer, mut opener) = Peer::tls13();
        let record = peer.record(HANDSHAKE, &[message, 0, 0, 0]);
        unexpected(&mut opener, record, RecordError::UnexpectedHandshake(message));
    }
}

#[test]
fn handshake_messages_other_than_client_hello_are_refused_in_tls12() {
    for message in [0, 2, 4, 11, 16, 20, 24] {
        let (mut peer, mut opener) = Peer::tls12();
        let record = peer.record(HANDSHAKE, &[message, 0, 0, 0]);
        unexpected(&mut opener, record, RecordError::UnexpectedHandshake(message));
    }
}

#[test]
fn renegotiation_is_refused_once_and_then_ends_the_connection() {
    let (mut peer, mut opener) = Peer::tls12();
    let mut record = peer.record(HANDSHAKE, &CLIENT_HELLO);
    let record_bytes = record.len();
    assert_eq!(opener.open(&mut record), Ok(Opened::RenegotiationRefused { record_bytes }));
    let mut data = peer.record(APPLICATION_DATA, b"carried on");
    assert_eq!(open_data(&mut opener, &mut data), b"carried on");
    let record = peer.record(HANDSHAKE, &CLIENT_HELLO);
    unexpected(&mut opener, record, RecordError::TooManyRenegotiations);
}

#[test]
fn a_split_or_followed_client_hello_is_refused() {
    let too_long = [&CLIENT_HELLO[..], &[0]].concat();
    for content in [&CLIENT_HELLO[..1], &CLIENT_HELLO[..5], &too_long] {
        let (mut peer, mut opener) = Peer::tls12();
        let record = peer.record(HANDSHAKE, content);
        unexpected(&mut opener, record, RecordError::FragmentedClientHello);
    }
}

#[test]
fn anything_behind_a_key_update_in_its_record_is_refused() {
    let (mut peer, mut opener) = Peer::tls13();
    let record = peer.record(HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]);
    unexpected(&mut opener, record, RecordError::KeyUpdateNotAligned);
}

#[test]
fn a_key_update_split_over_records_is_put_together() {
    let (mut peer, mut opener) = Peer::tls13();
    for byte in [24, 0, 0, 1] {
        let mut record = peer.record(HANDSHAKE, &[byte]);
        let record_bytes = record.len();
        assert_eq!(opener.open(&mut record), Ok(Opened::Ignored { record_bytes }));
    }
    let mut record = peer.record(HANDSHAKE, &[1]);
    let record_bytes = record.len();
    assert_eq!(opener.open(&mut record), Ok(Opened::KeyUpdate { record_bytes, respond: true }));
}

#[test]
fn data_amid_a_split_key_update_is_refused() {
    let (mut peer, mut opener) = Peer::tls13();
    opener.open(&mut peer.record(HANDSHAKE, &[24, 0])).unwrap();
    let record = peer.record(APPLICATION_DATA, b"between");
    unexpected(&mut opener, record, RecordError::Interleaved(APPLICATION_DATA));
}

#[test]
fn a_malformed_key_update_is_refused() {
    for content in [[24, 1, 0, 1, 0], [24, 0, 1, 1, 0], [24, 0, 0, 2, 0], [24, 0, 0, 0, 0]] {
        let (mut peer, mut opener) = Peer::tls13();
        let record = peer.record(HANDSHAKE, &content);
        let error = RecordError::KeyUpdateMalformed;
        refused(&mut opener, record, error, AlertDescription::DecodeError);
    }
    let (mut peer, mut opener) = Peer::tls13();
    let record = peer.record(HANDSHAKE, &[24, 0, 0, 1, 2]);
    let error = RecordError::KeyUpdateRequest(2);
    refused(&mut opener, record, error, AlertDescription::IllegalParameter);
}

#[test]
fn records_under_the_old_keys_are_refused_after_a_key_update() {
    let (mut peer, mut opener) = Peer::tls13();
    let record_bytes = peer.record(HANDSHAKE, &[24, 0, 0, 1, 0]).len();
    peer.sequence = 0;
    assert_eq!(
        opener.open(&mut peer.record(HANDSHAKE, &[24, 0, 0, 1, 0])),
        Ok(Opened::KeyUpdate { record_bytes, respond: false })
    );
    let record = peer.record(APPLICATION_DATA, b"late");
    refused(&mut opener, record, RecordError::BadRecordMac, AlertDescription::BadRecordMac);
}

#[test]
fn an_alert_that_is_not_two_bytes_is_refused() {
    for content in [&[1][..], &[1, 0, 1, 0]] {
        for (mut peer, mut opener) in [Peer::tls12(), Peer::tls13()] {
            let record = peer.record(ALERT, content);
            let error = RecordError::AlertMalformed(content.len());
            refused(&mut opener, record, error, AlertDescription::DecodeError);
        }
    }
}

#[test]
fn an_alert_of_unknown_level_is_refused_in_tls12() {
    let (mut peer, mut opener) = Peer::tls12();
    let record = peer.record(ALERT, &[3, 90]);
    let error = RecordError::AlertLevel(3);
    refused(&mut opener, record, error, AlertDescription::IllegalParameter);
}

#[test]
fn every_error_alert_ends_a_tls13_connection_whatever_its_level() {
    for level in [0, 1, 2, 255] {
        let (mut peer, mut opener) = Peer::tls13();
        let error = opener.open(&mut peer.record(ALERT, &[level, 40])).unwrap_err();
        assert_eq!(error, RecordError::PeerAlert(AlertDescription::HandshakeFailure));
        assert_eq!(error.alert(), None);
    }
}

#[test]
fn an_unknown_alert_ends_a_tls13_connection() {
    let (mut peer, mut opener) = Peer::tls13();
    let error = opener.open(&mut peer.record(ALERT, &[1, 200])).unwrap_err();
    assert_eq!(error, RecordError::PeerAlert(AlertDescription::Unknown(200)));
}

#[test]
fn a_fatal_alert_ends_a_tls12_connection_and_a_warning_does_not() {
    let (mut peer, mut opener) = Peer::tls12();
    let mut record = peer.record(ALERT, &[1, 100]);
    let record_bytes = record.len();
    assert_eq!(opener.open(&mut record), Ok(Opened::Ignored { record_bytes }));
    let error = opener.open(&mut peer.record(ALERT, &[2, 20])).unwrap_err();
    assert_eq!(error, RecordError::PeerAlert(AlertDescription::BadRecordMac));
}

#[test]
fn after_close_notify_everything_is_ignored() {
    for (mut peer, mut opener) in [Peer::tls12(), Peer::tls13()] {
        let mut record = peer.record(ALERT, &[1, 0]);
        let record_bytes = record.len();
        assert_eq!(opener.open(&mut record), Ok(Opened::CloseNotify { record_bytes }));
        assert_eq!(opener.open(&mut [0; 9]), Ok(Opened::CloseNotify { record_bytes: 9 }));
    }
}

#[test]
fn a_flood_of_empty_records_ends_the_connection() {
    for (mut peer, mut opener) in [Peer::tls12(), Peer::tls13()] {
        // Data in between starts the count anew.
        for _ in 0..2 {
            for _ in 0..EMPTY_RECORDS_MAX {
                let mut record = peer.record(APPLICATION_DATA, &[]);
                assert!(open_data(&mut opener, &mut record).is_empty());
            }
            open_data(&mut opener, &mut peer.record(APPLICATION_DATA, b"data"));
        }
        for _ in 0..EMPTY_RECORDS_MAX {
            open_data(&mut opener, &mut peer.record(APPLICATION_DATA, &[]));
        }
        let record = peer.record(APPLICATION_DATA, &[]);
        unexpected(&mut opener, record, RecordError::TooManyEmptyRecords);
    }
}

#[test]
fn a_flood_of_warning_alerts_ends_the_connection() {
    for (mut peer, mut opener) in [Peer::tls12(), Peer::tls13()] {
        for _ in 0..2 {
            for _ in 0..WARNING_ALERTS_MAX {
                let mut record = peer.record(ALERT, &[1, 90]);
                let record_bytes = record.len();
                assert_eq!(opener.open(&mut record), Ok(Opened::Ignored { record_bytes }));
            }
            open_data(&mut opener, &mut peer.record(APPLICATION_DATA, b"data"));
        }
        for _ in 0..WARNING_ALERTS_MAX {
            opener.open(&mut peer.record(ALERT, &[1, 90])).unwrap();
        }
        let record = peer.record(ALERT, &[1, 90]);
        unexpected(&mut opener, record, RecordError::TooManyWarningAlerts);
    }
}

#[test]
fn a_flood_of_key_updates_ends_the_connection() {
    for library in LIBRARIES {
        let (mut sealer, mut opener) = test_pair(Version::Tls13, Algorithm::Aes256Gcm, library);
        let mut control = [0; CONTROL_RECORD_BYTES_MAX];
        for round in 0..2 {
            for _ in 0..KEY_UPDATES_MAX {
                let bytes = sealer.key_update(true, &mut control).unwrap();
                assert_eq!(
                    opener.open(&mut control[..bytes]),
                    Ok(Opened::KeyUpdate { record_bytes: bytes, respond: true })
                );
            }
            if round == 0 {
                open_data(&mut opener, &mut seal(&mut sealer, b"data", 16_384));
            }
        }
        let bytes = sealer.key_update(true, &mut control).unwrap();
        unexpected(&mut opener, control[..bytes].to_vec(), RecordError::TooManyKeyUpdates);
    }
}

#[test]
fn an_incomplete_record_changes_nothing() {
    for (mut peer, mut opener) in [Peer::tls12(), Peer::tls13()] {
        let mut record = peer.record(APPLICATION_DATA, b"piece by piece");
        let total_bytes = record.len();
        for bytes in 0..5 {
            assert_eq!(
                opener.open(&mut record[..bytes]),
                Ok(Opened::Incomplete { total_bytes: 5 })
            );
        }
        for bytes in 5..total_bytes {
            assert_eq!(opener.open(&mut record[..bytes]), Ok(Opened::Incomplete { total_bytes }));
        }
        assert_eq!(open_data(&mut opener, &mut record), b"piece by piece");
    }
}
