//! What a server may send after the handshake, and a client may not.

use super::content_type::{APPLICATION_DATA, HANDSHAKE};
use super::*;

/// A NewSessionTicket whose body has `length` bytes.
fn ticket(length: usize) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(length).unwrap().to_be_bytes();
    let mut message = vec![4, high, middle, low];
    message.resize(4 + length, 7);
    message
}

fn open(peer: &mut Peer, opener: &mut Opener, content: &[u8]) -> Result<Opened, RecordError> {
    opener.open(&mut peer.record(HANDSHAKE, content))
}

#[test]
fn a_ticket_that_is_whole_in_its_record_is_handed_out() {
    let (mut peer, mut opener) = Peer::server(Version::Tls13);
    let mut record = peer.record(HANDSHAKE, &ticket(40));
    let all = record.len();
    let Ok(Opened::SessionTicket { body, record_bytes }) = opener.open(&mut record) else {
        panic!("a ticket was expected")
    };
    assert_eq!((record_bytes, &record[body]), (all, &[7; 40][..]));
}

#[test]
fn of_several_tickets_in_a_record_the_last_one_is_handed_out() {
    let (mut peer, mut opener) = Peer::server(Version::Tls13);
    let mut record = peer.record(HANDSHAKE, &[ticket(40), ticket(9)].concat());
    let Ok(Opened::SessionTicket { body, .. }) = opener.open(&mut record) else {
        panic!("a ticket was expected")
    };
    assert_eq!(body.len(), 9);
}

#[test]
fn a_ticket_split_anywhere_is_skipped_and_what_follows_is_opened() {
    let message = ticket(6);
    for split in 1..message.len() {
        let (mut peer, mut opener) = Peer::server(Version::Tls13);
        let (front, back) = message.split_at(split);
        for part in [front, back] {
            let opened = open(&mut peer, &mut opener, part);
            assert!(matches!(opened, Ok(Opened::Ignored { .. })), "{split}: {opened:?}");
        }
        let mut record = peer.record(APPLICATION_DATA, b"data");
        assert_eq!(open_data(&mut opener, &mut record), b"data");
    }
}

#[test]
fn data_amid_a_split_ticket_is_refused() {
    for split in [2, 4, 7] {
        let (mut peer, mut opener) = Peer::server(Version::Tls13);
        open(&mut peer, &mut opener, &ticket(6)[..split]).unwrap();
        let opened = opener.open(&mut peer.record(APPLICATION_DATA, b"between"));
        assert_eq!(opened, Err(RecordError::Interleaved(APPLICATION_DATA)));
    }
}

#[test]
fn a_key_update_may_follow_a_ticket_in_its_record() {
    let (mut peer, mut opener) = Peer::server(Version::Tls13);
    let content = [ticket(6), vec![24, 0, 0, 1, 1]].concat();
    let opened = open(&mut peer, &mut opener, &content);
    assert!(matches!(opened, Ok(Opened::KeyUpdate { respond: true, .. })), "{opened:?}");
}

#[test]
fn a_key_update_split_over_records_is_put_together_from_servers_too() {
    let (mut peer, mut opener) = Peer::server(Version::Tls13);
    open(&mut peer, &mut opener, &[24, 0, 0]).unwrap();
    let opened = open(&mut peer, &mut opener, &[1, 0]);
    assert!(matches!(opened, Ok(Opened::KeyUpdate { respond: false, .. })), "{opened:?}");
}

#[test]
fn a_flood_of_tickets_ends_the_connection_unless_data_comes_between() {
    let (mut peer, mut opener) = Peer::server(Version::Tls13);
    for _ in 0..3 {
        for _ in 0..SESSION_TICKETS_MAX {
            open(&mut peer, &mut opener, &ticket(1)).unwrap();
        }
        opener.open(&mut peer.record(APPLICATION_DATA, b"data")).unwrap();
    }
    for _ in 0..SESSION_TICKETS_MAX {
        open(&mut peer, &mut opener, &ticket(1)).unwrap();
    }
    let opened = open(&mut peer, &mut opener, &ticket(1));
    assert_eq!(opened, Err(RecordError::TooManySessionTickets));
}

#[test]
fn a_ticket_longer_than_any_is_refused_by_its_header() {
    let (mut peer, mut opener) = Peer::server(Version::Tls13);
    let opened = open(&mut peer, &mut opener, &[4, 255, 255, 255]);
    assert_eq!(opened, Err(RecordError::SessionTicketTooLong(0x00ff_ffff)));
}

#[test]
fn a_server_may_not_ask_for_a_certificate_after_the_handshake() {
    let (mut peer, mut opener) = Peer::server(Version::Tls13);
    let opened = open(&mut peer, &mut opener, &[13, 0, 0, 1, 0]);
    assert_eq!(opened, Err(RecordError::UnexpectedHandshake(13)));
}

#[test]
fn a_client_may_not_send_a_ticket() {
    let (mut peer, mut opener) = Peer::tls13();
    let opened = open(&mut peer, &mut opener, &ticket(6));
    assert_eq!(opened, Err(RecordError::UnexpectedHandshake(4)));
}

#[test]
fn a_hello_request_of_tls12_is_ignored_once_and_from_servers_only() {
    let (mut peer, mut opener) = Peer::server(Version::Tls12);
    let opened = open(&mut peer, &mut opener, &[0, 0, 0, 0]);
    assert!(matches!(opened, Ok(Opened::Ignored { .. })), "{opened:?}");
    let opened = open(&mut peer, &mut opener, &[0, 0, 0, 0]);
    assert_eq!(opened, Err(RecordError::TooManyRenegotiations));

    let (mut peer, mut opener) = Peer::tls12();
    let opened = open(&mut peer, &mut opener, &[0, 0, 0, 0]);
    assert_eq!(opened, Err(RecordError::UnexpectedHandshake(0)));
}
