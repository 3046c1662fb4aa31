use std::sync::OnceLock;

use proptest::prelude::*;
use rustls::server::{Acceptor, UnbufferedServerConnection};

use super::*;
use crate::tls::policy::{Policy, PolicySettings};
use crate::tls::self_signed::self_signed;
use crate::tls::test_support::{
    Client, LIBRARIES, ONLY_TLS12, ONLY_TLS13, connect, first_flight, shake,
};
use crate::tls::{CryptoLibrary, tickets};

/// What is left of a scan once the bytes are gone: comparable, owned.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Incomplete,
    Complete(Facts),
    Refused(Refusal),
}

#[derive(Clone, Debug, PartialEq)]
struct Facts {
    message: Vec<u8>,
    server_name: Option<String>,
    suites: Vec<u16>,
    groups: Vec<u16>,
    schemes: Vec<u16>,
    alpn: Vec<Vec<u8>>,
    offers: [bool; 4],
}

fn outcome(received: &[u8]) -> (Outcome, usize) {
    let mut scratch = [0; CLIENT_HELLO_BYTES_MAX];
    match scan(received, &mut scratch) {
        Scan::Incomplete => (Outcome::Incomplete, 0),
        Scan::Refused(refusal) => (Outcome::Refused(refusal), 0),
        Scan::Complete(hello) => {
            let list = |points: Option<CodePoints<'_>>| {
                points.map_or_else(Vec::new, |points| points.iter().collect())
            };
            let facts = Facts {
                message: hello.message().to_vec(),
                server_name: hello.server_name.map(|name| name.to_string()),
                suites: hello.cipher_suites.iter().collect(),
                groups: list(hello.groups),
                schemes: list(hello.signature_schemes),
                alpn: hello
                    .alpn
                    .map_or_else(Vec::new, |names| names.iter().map(<[u8]>::to_vec).collect()),
                offers: [
                    hello.offers_tls12(),
                    hello.offers_tls13(),
                    hello.offers_pre_shared_key,
                    hello.offers_session_ticket,
                ],
            };
            (Outcome::Complete(facts), hello.stream_bytes)
        }
    }
}

fn facts(received: &[u8]) -> Facts {
    match outcome(received) {
        (Outcome::Complete(facts), _) => facts,
        (other, _) => panic!("{other:?}"),
    }
}

fn refusal(received: &[u8]) -> Refusal {
    match outcome(received) {
        (Outcome::Refused(refusal), _) => refusal,
        (other, _) => panic!("{other:?}"),
    }
}

fn refused_with(received: &[u8]) -> AlertDescription {
    refusal(received).alert().unwrap()
}

/// First flights of real clients: both libraries, both versions, with and without name
/// and protocols, and resumptions.
fn real_hellos() -> &'static [Vec<u8>] {
    static HELLOS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    HELLOS.get_or_init(|| {
        let mut hellos = Vec::new();
        for library in LIBRARIES {
            let certificate = self_signed(&["www.example.com"], library).unwrap();
            let tickets = tickets::per_process(library).unwrap();
            let policy =
                Policy::new(PolicySettings::new(library, vec![certificate], tickets)).unwrap();
            for versions in [ONLY_TLS12, ONLY_TLS13, rustls::ALL_VERSIONS] {
                let client = Client { versions, ..Client::new(library) };
                hellos.push(client.hello());
                let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                hellos.push(Client { alpn, ..client.clone() }.hello());
                hellos.push(Client { server_name: "192.0.2.1", ..client.clone() }.hello());

                let config = client.config();
                let mut first = connect(&config, client.server_name);
                let stream = first_flight(&mut first);
                let mut scratch = [0; CLIENT_HELLO_BYTES_MAX];
                let Scan::Complete(hello) = scan(&stream, &mut scratch) else { panic!() };
                let admission = policy.admit(&hello, None).unwrap();
                shake(&mut first, admission.config, stream).unwrap();
                let mut second = connect(&config, client.server_name);
                hellos.push(first_flight(&mut second));
            }
        }
        hellos
    })
}

/// The same handshake bytes in records of the given sizes, repeated as needed.
fn fragmented(stream: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut message = &stream[RECORD_HEADER_BYTES..];
    let mut records = Vec::new();
    for size in sizes.iter().cycle() {
        let (fragment, rest) = message.split_at((*size).min(message.len()));
        records.extend([HANDSHAKE, 3, 1]);
        records.extend((fragment.len() as u16).to_be_bytes());
        records.extend(fragment);
        message = rest;
        if message.is_empty() {
            return records;
        }
    }
    unreachable!("sizes is not empty");
}

/// A ClientHello with the given extensions, otherwise plain.
fn hello_with(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (number, content) in extensions {
        block.extend(number.to_be_bytes());
        block.extend((content.len() as u16).to_be_bytes());
        block.extend(*content);
    }
    let mut body = vec![3, 3];
    body.extend([0x55; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend((block.len() as u16).to_be_bytes());
    body.extend(block);
    record(&body)
}

/// `body` as a ClientHello in one record.
fn record(body: &[u8]) -> Vec<u8> {
    let mut stream = vec![HANDSHAKE, 3, 1];
    stream.extend((body.len() as u16 + 4).to_be_bytes());
    stream.extend([CLIENT_HELLO, 0]);
    stream.extend((body.len() as u16).to_be_bytes());
    stream.extend(body);
    stream
}

fn server_name_extension(names: &[&[u8]]) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        list.push(0);
        list.extend((name.len() as u16).to_be_bytes());
        list.extend(*name);
    }
    let mut extension = (list.len() as u16).to_be_bytes().to_vec();
    extension.extend(list);
    extension
}

#[test]
fn the_facts_of_a_real_client_are_read() {
    let client = Client {
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        server_name: "WWW.Example.com",
        ..Client::new(CryptoLibrary::AwsLc)
    };
    let facts = facts(&client.hello());
    assert_eq!(facts.server_name.as_deref(), Some("www.example.com"));
    assert_eq!(facts.alpn, client.alpn);
    assert_eq!(facts.groups, [0x11ec, 0x001d, 0x0017, 0x0018]);
    assert!(facts.suites.starts_with(&[0x1301, 0x1302, 0x1303]));
    assert!(facts.schemes.contains(&0x0403));
    assert_eq!(facts.offers, [true, true, false, false]);
}

#[test]
fn a_client_of_each_version_is_told_apart() {
    for library in LIBRARIES {
        let offers = |versions| {
            let facts = facts(&Client { versions, ..Client::new(library) }.hello());
            (facts.offers[0], facts.offers[1])
        };
        assert_eq!(offers(ONLY_TLS12), (true, false));
        assert_eq!(offers(ONLY_TLS13), (false, true));
    }
}

#[test]
fn a_resumption_is_recognised_in_both_versions() {
    let offers: Vec<_> = real_hellos().iter().map(|hello| facts(hello).offers).collect();
    // Four clients for each choice of versions; the last of them resumes.
    for (index, [_, tls13, pre_shared_key, session_ticket]) in offers.into_iter().enumerate() {
        let resumes = index % 4 == 3;
        assert_eq!(pre_shared_key, resumes && tls13, "client {index}");
        assert_eq!(session_ticket, resumes && !tls13, "client {index}");
    }
}

#[test]
fn an_address_for_a_name_counts_as_none() {
    let extension = server_name_extension(&[b"192.0.2.1"]);
    assert_eq!(facts(&hello_with(&[(0, &extension)])).server_name, None);
}

#[test]
fn a_name_that_is_none_is_an_illegal_parameter() {
    for name in [&b"*.example.com"[..], b"a..b", b"exa mple", b"\xff"] {
        let extension = server_name_extension(&[name]);
        let alert = refused_with(&hello_with(&[(0, &extension)]));
        assert_eq!(alert, AlertDescription::IllegalParameter);
    }
}

#[test]
fn two_names_are_a_decode_error_as_in_rustls() {
    let extension = server_name_extension(&[b"a.example", b"b.example"]);
    let alert = refused_with(&hello_with(&[(0, &extension)]));
    assert_eq!(alert, AlertDescription::DecodeError);
}

#[test]
fn every_truncation_is_incomplete_and_more_bytes_change_nothing() {
    for hello in real_hellos() {
        for length in 0..hello.len() {
            assert_eq!(outcome(&hello[..length]).0, Outcome::Incomplete, "{length} bytes");
        }
        let whole = outcome(hello);
        assert_eq!(whole.1, hello.len());
        let mut more = hello.clone();
        more.extend(b"\x17\x03\x03\x00\x05early");
        assert_eq!(outcome(&more), whole);
    }
}

#[test]
fn every_fragment_size_gives_the_same_facts() {
    for hello in real_hellos() {
        let expected = facts(hello);
        for size in [1, 2, 3, 4, 5, 100, 511, 1_000] {
            let stream = fragmented(hello, &[size]);
            let (outcome, stream_bytes) = outcome(&stream);
            assert_eq!(outcome, Outcome::Complete(expected.clone()), "fragments of {size}");
            assert_eq!(stream_bytes, stream.len());
        }
    }
}

#[test]
fn a_truncated_fragmented_hello_is_incomplete() {
    let stream = fragmented(&real_hellos()[0], &[3]);
    for length in 0..stream.len() {
        assert_eq!(outcome(&stream[..length]).0, Outcome::Incomplete, "{length} bytes");
    }
}

#[test]
fn a_fragmented_hello_goes_on_as_one_record_that_rustls_takes() {
    for library in LIBRARIES {
        let certificate = self_signed(&["www.example.com"], library).unwrap();
        let tickets = tickets::per_process(library).unwrap();
        let policy = Policy::new(PolicySettings::new(library, vec![certificate], tickets)).unwrap();
        let stream = fragmented(&Client::new(library).hello(), &[1]);
        let mut scratch = [0; CLIENT_HELLO_BYTES_MAX];
        let Scan::Complete(hello) = scan(&stream, &mut scratch) else { panic!("incomplete") };
        let mut record = Vec::new();
        hello.append_as_one_record(&mut record);
        assert_eq!(record.len(), hello.message().len() + RECORD_HEADER_BYTES);

        let config = policy.admit(&hello, None).unwrap().config;
        let mut server = UnbufferedServerConnection::new(config).unwrap();
        let status = server.process_tls_records(&mut record);
        assert!(matches!(status.state, Ok(rustls::unbuffered::ConnectionState::EncodeTlsData(_))));
    }
}

#[test]
fn what_is_no_tls_is_known_by_its_first_byte() {
    for byte in (0..=255_u8).filter(|byte| *byte != HANDSHAKE) {
        assert!(matches!(refusal(&[byte]), Refusal::NotTls | Refusal::PlainHttp));
    }
    assert_eq!(refusal(b"\x16\x02"), Refusal::NotTls);
    assert_eq!(refusal(b"SSH-2.0-OpenSSH_9.6\r\n"), Refusal::NotTls);
    assert_eq!(refusal(b"\x80\x2e\x01\x00\x02"), Refusal::NotTls);
}

#[test]
fn plain_http_is_told_apart_by_as_much_of_the_method_as_there_is() {
    for request in
        [&b"G"[..], b"GET / HTTP/1.1\r\n", b"POS", b"HEAD ", b"CONNECT a:443", b"PRI * HTTP/2.0"]
    {
        assert_eq!(refusal(request), Refusal::PlainHttp);
        assert_eq!(refusal(request).alert(), None);
    }
    assert_eq!(refusal(b"GETX"), Refusal::NotTls);
}

#[test]
fn a_record_that_is_too_long_is_a_record_overflow() {
    assert_eq!(refused_with(b"\x16\x03\x01\x40\x01"), AlertDescription::RecordOverflow);
}

#[test]
fn an_empty_record_is_refused() {
    assert_eq!(refused_with(b"\x16\x03\x01\x00\x00"), AlertDescription::DecodeError);
}

#[test]
fn another_handshake_message_is_unexpected() {
    assert_eq!(refused_with(b"\x16\x03\x01\x00\x04\x02"), AlertDescription::UnexpectedMessage);
}

#[test]
fn another_record_between_the_fragments_is_unexpected() {
    let mut stream = fragmented(&real_hellos()[0], &[10])[..30].to_vec();
    stream.extend([21, 3, 3]);
    assert_eq!(refused_with(&stream), AlertDescription::UnexpectedMessage);
}

#[test]
fn a_second_message_in_the_same_record_is_unexpected() {
    let mut stream = real_hellos()[0].clone();
    stream.push(1);
    let length = stream.len() as u16 - 5;
    stream[3..5].copy_from_slice(&length.to_be_bytes());
    assert_eq!(refused_with(&stream), AlertDescription::UnexpectedMessage);
    assert_eq!(
        refused_with(&fragmented(&stream, &[length as usize - 5, 6])),
        AlertDescription::UnexpectedMessage
    );
}

#[test]
fn a_hello_beyond_the_bound_is_refused_by_its_header() {
    let header = |bytes: usize| {
        let [.., high, middle, low] = bytes.to_be_bytes();
        [22, 3, 1, 0x40, 0, 1, high, middle, low]
    };
    let largest = CLIENT_HELLO_BYTES_MAX - MESSAGE_HEADER_BYTES;
    assert_eq!(outcome(&header(largest)).0, Outcome::Incomplete);
    assert_eq!(refusal(&header(largest + 1)), Refusal::TooLarge);
    assert_eq!(refusal(&header(0xff_ffff)), Refusal::TooLarge);
}

#[test]
fn a_hello_of_the_largest_size_is_taken_whole_and_in_fragments() {
    let empty = hello_with(&[(0x9999, &[])]).len();
    let padding = vec![0; CLIENT_HELLO_BYTES_MAX + RECORD_HEADER_BYTES - empty];
    let hello = hello_with(&[(0x9999, &padding)]);
    assert_eq!(hello.len(), CLIENT_HELLO_BYTES_MAX + RECORD_HEADER_BYTES);
    let expected = facts(&hello);
    assert_eq!(facts(&fragmented(&hello, &[1, 16_000])), expected);
    assert_eq!(facts(&fragmented(&hello, &[8])), expected);
}

#[test]
fn a_long_second_fragment_behind_a_short_first_is_refused_without_overrun() {
    let mut stream = vec![22, 3, 1, 0, 3, 1, 0, 0];
    stream.extend([22, 3, 1, 0x40, 0]);
    stream.extend(vec![0; RECORD_BYTES_MAX]);
    assert_eq!(refused_with(&stream), AlertDescription::UnexpectedMessage);
}

#[test]
fn more_records_than_the_bound_are_refused() {
    let hello = hello_with(&[(0x9999, &[0; 4_096])]);
    let stream = fragmented(&hello, &[1]);
    assert_eq!(refusal(&stream), Refusal::TooLarge);
    assert_eq!(
        outcome(&stream[..CLIENT_HELLO_RECORDS_MAX * 6 - 1]).0,
        Outcome::Incomplete,
        "up to the last record that may come"
    );
}

#[test]
fn a_duplicate_extension_is_an_illegal_parameter_whatever_it_is() {
    let hello = hello_with(&[(0x9999, &[]), (23, &[]), (0x9999, &[])]);
    assert_eq!(refused_with(&hello), AlertDescription::IllegalParameter);
}

#[test]
fn an_extension_behind_pre_shared_key_is_an_illegal_parameter() {
    let hello = hello_with(&[(41, &[1]), (23, &[])]);
    assert_eq!(refused_with(&hello), AlertDescription::IllegalParameter);
}

#[test]
fn more_extensions_than_the_bound_are_refused() {
    let extensions: Vec<(u16, &[u8])> = (1_000..1_065).map(|number| (number, &[][..])).collect();
    assert_eq!(facts(&hello_with(&extensions[..64])).server_name, None);
    assert_eq!(refused_with(&hello_with(&extensions)), AlertDescription::DecodeError);
}

#[test]
fn lists_that_are_empty_odd_or_cut_are_decode_errors() {
    for (number, content) in [
        (10, &[0, 0][..]),
        (10, &[0, 3, 0, 29, 0]),
        (10, &[0, 4, 0, 29]),
        (13, &[0, 2, 4, 3, 9]),
        (16, &[0, 0]),
        (16, &[0, 1, 0]),
        (16, &[0, 3, 3, b'h', b'2']),
        (43, &[0]),
        (43, &[3, 3, 4, 3]),
        (0, &[]),
        (0, &[0, 3, 0, 0, 0]),
    ] {
        let alert = refused_with(&hello_with(&[(number, content)]));
        assert_eq!(alert, AlertDescription::DecodeError, "extension {number}: {content:?}");
    }
}

#[test]
fn a_client_without_null_compression_is_refused() {
    let mut body = vec![3, 3];
    body.extend([0; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 1]);
    assert_eq!(refused_with(&record(&body)), AlertDescription::IllegalParameter);
}

#[test]
fn a_hello_without_extensions_is_a_tls12_one() {
    let mut body = vec![3, 3];
    body.extend([0; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    let facts = facts(&record(&body));
    assert_eq!(facts.offers, [true, false, false, false]);
    assert_eq!(facts.suites, [0xc02f]);
}

#[test]
fn grease_is_left_out_everywhere() {
    let hello = hello_with(&[
        (0x0a0a, &[]),
        (10, &[0, 4, 0xfa, 0xfa, 0, 29]),
        (13, &[0, 4, 0x1a, 0x1a, 4, 3]),
        (16, &[0, 6, 2, 0x2a, 0x2a, 2, b'h', b'2']),
        (43, &[4, 0xda, 0xda, 3, 4]),
        (0x3a3a, &[0]),
    ]);
    let facts = facts(&hello);
    assert_eq!((facts.groups, facts.schemes), (vec![29], vec![0x0403]));
    assert_eq!(facts.alpn, [b"h2"]);
    assert!(facts.offers[1]);
}

/// What rustls makes of the same bytes: a name if it gets to choose a certificate.
fn rustls_reads(stream: &[u8]) -> Result<Option<Option<String>>, rustls::Error> {
    let mut acceptor = Acceptor::default();
    let mut rest = stream;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).unwrap();
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return Ok(Some(accepted.client_hello().server_name().map(str::to_owned)));
            }
            Err((error, _)) => return Err(error),
        }
    }
    Ok(None)
}

/// Whatever the bytes: no panic, and rustls, where it is more patient, is not more
/// lenient: what we refuse or lack it refuses or lacks, and both read the same name.
fn agrees_with_rustls(stream: &[u8]) -> Result<(), TestCaseError> {
    match (outcome(stream).0, rustls_reads(stream)) {
        (Outcome::Complete(facts), Ok(Some(name))) => prop_assert_eq!(facts.server_name, name),
        // We do not read every extension, so rustls may find more to refuse.
        (Outcome::Complete(_), Err(_)) => {}
        (Outcome::Incomplete, Ok(None)) => {}
        (Outcome::Refused(_), Err(_)) => {}
        // We refuse by the first bytes what rustls refuses later.
        (Outcome::Refused(_), Ok(None)) => {}
        // Bounds that are ours alone.
        (Outcome::Refused(Refusal::TooLarge), Ok(Some(_))) => {}
        (ours, theirs) => prop_assert!(false, "{ours:?} but {theirs:?}"),
    }
    Ok(())
}

#[test]
fn every_single_changed_byte_is_read_as_rustls_reads_it() {
    for hello in real_hellos().iter().filter(|hello| hello.len() < 600) {
        for position in 0..hello.len() {
            for change in [1_u8, 0x80, 0xff] {
                let mut changed = hello.clone();
                changed[position] ^= change;
                agrees_with_rustls(&changed).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_mutation_of_a_real_hello_is_read_as_rustls_reads_it(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut hello = which.get(real_hellos()).clone();
        for (position, byte, how) in changes {
            let position = position.index(hello.len());
            match how {
                0 => hello[position] = byte,
                1 => hello.insert(position, byte),
                _ => drop(hello.remove(position)),
            }
        }
        if let Some(cut) = cut {
            hello.truncate(cut.index(hello.len()));
        }
        agrees_with_rustls(&hello)?;
    }

    #[test]
    fn any_fragmentation_gives_the_same_facts(
        which in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(1..400_usize, 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let hello = which.get(real_hellos());
        let stream = fragmented(hello, &sizes);
        prop_assert_eq!(outcome(&stream).0, Outcome::Complete(facts(hello)));
        prop_assert_eq!(outcome(&stream[..cut.index(stream.len())]).0, Outcome::Incomplete);
    }

    #[test]
    fn any_bytes_at_all_are_read_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        outcome(&bytes);
        let mut hello = vec![HANDSHAKE, 3, 1, 0, bytes.len() as u8 + 4, CLIENT_HELLO, 0, 0,
            bytes.len() as u8];
        hello.extend(&bytes);
        agrees_with_rustls(&hello)?;
    }
}
