//! With messages written by hand.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;

/// A pointer to the name of the question.
pub(crate) const QUESTION: &[u8] = &[0xc0, 12];

pub(crate) const RESPONSE: u16 = 0x8180;
pub(crate) const TRUNCATED: u16 = 0x8380;
pub(crate) const SERVER_FAILURE: u16 = 0x8182;
pub(crate) const NO_NAME: u16 = 0x8183;

/// A name without compression.
pub(crate) fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut name: Vec<u8> =
        labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    name.push(0);
    name
}

pub(crate) fn record(owner: &[u8], record_type: u16, ttl_seconds: u32, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend(record_type.to_be_bytes());
    record.extend(1_u16.to_be_bytes());
    record.extend(ttl_seconds.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

pub(crate) fn soa(ttl_seconds: u32, minimum: u32) -> Vec<u8> {
    let data = [name("ns"), name("admin"), vec![0; 16], minimum.to_be_bytes().to_vec()].concat();
    record(QUESTION, 6, ttl_seconds, &data)
}

fn srv(priority: u16, weight: u16, port: u16, target: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    [priority, weight, port].iter().for_each(|word| data.extend(word.to_be_bytes()));
    data.extend(target);
    record(QUESTION, 33, 60, &data)
}

/// The answer to `question`, a whole query.
pub(crate) fn answer(
    question: &[u8],
    flags: u16,
    answers: &[Vec<u8>],
    authorities: &[Vec<u8>],
) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[6..8].copy_from_slice(&(answers.len() as u16).to_be_bytes());
    message[8..10].copy_from_slice(&(authorities.len() as u16).to_be_bytes());
    answers.iter().chain(authorities).for_each(|record| message.extend(record));
    message
}

fn query(record_type: RecordType) -> Query {
    Query::new(0x1234, "app.Example", record_type).expect("a query")
}

fn read(record_type: RecordType, answers: &[Vec<u8>]) -> Result<Answer, NoAnswer> {
    let query = query(record_type);
    read_answer(&query, &answer(query.message(), RESPONSE, answers, &[]))
}

fn addresses(addresses: &[&str], ttl_seconds: u32) -> Result<Answer, NoAnswer> {
    let record = |address: &&str| Record::Address(address.parse().expect("an address"));
    Ok(Answer::Records { records: addresses.iter().map(record).collect(), ttl_seconds })
}

#[test]
fn a_query_is_written_as_the_rfc_has_it() {
    let expected =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03app\x07Example\x00\x00\x1c\x00\x01";
    assert_eq!(query(RecordType::Aaaa).message(), expected);
    let with_root = Query::new(0x1234, "app.Example.", RecordType::Aaaa).expect("a query");
    assert_eq!(with_root.message(), expected);
}

#[test]
fn what_is_no_name_is_not_asked_for() {
    let label = "a".repeat(63);
    let longest = [&label[..], &label, &label, &label[..61]].join(".");
    assert!(Query::new(0, &longest, RecordType::A).is_some());
    for wrong in ["", ".", "a..b", &"a".repeat(64), &format!("{longest}a")] {
        assert!(Query::new(0, wrong, RecordType::A).is_none(), "{wrong}");
    }
}

#[test]
fn every_address_of_the_name_is_found_and_the_least_ttl_holds() {
    let answers = [
        record(QUESTION, 1, 300, &[10, 0, 0, 1]),
        record(&name("APP.example"), 1, 60, &[10, 0, 0, 2]),
        record(&name("other.example"), 1, 1, &[10, 0, 0, 3]),
        record(QUESTION, 16, 1, b"\x04text"),
    ];
    assert_eq!(read(RecordType::A, &answers), addresses(&["10.0.0.1", "10.0.0.2"], 60));
    let one = Ipv6Addr::LOCALHOST.octets();
    let answers = [record(QUESTION, 28, 0x8000_0000, &one)];
    assert_eq!(read(RecordType::Aaaa, &answers), addresses(&["::1"], 0));
}

#[test]
fn aliases_are_followed_in_whatever_order_they_come() {
    let answers = [
        record(&name("c.example"), 1, 300, &[10, 0, 0, 1]),
        record(&name("b.example"), 5, 20, &name("c.example")),
        record(QUESTION, 5, 30, &name("b.example")),
    ];
    assert_eq!(read(RecordType::A, &answers), addresses(&["10.0.0.1"], 20));
}

#[test]
fn a_chain_of_aliases_has_a_bound() {
    let alias = |number: u8| {
        let owner = if number == 0 { QUESTION.to_vec() } else { name(&format!("a{number}")) };
        record(&owner, 5, 30, &name(&format!("a{}", number + 1)))
    };
    let chain = |length: u8| {
        let mut answers: Vec<_> = (0..length).map(alias).collect();
        answers.push(record(&name(&format!("a{length}")), 1, 30, &[10, 0, 0, 1]));
        read(RecordType::A, &answers)
    };
    assert_eq!(chain(ALIASES_MAX as u8), addresses(&["10.0.0.1"], 30));
    assert_eq!(chain(ALIASES_MAX as u8 + 1), Err(NoAnswer::Malformed));
    let circle = [record(QUESTION, 5, 30, QUESTION)];
    assert_eq!(read(RecordType::A, &circle), Err(NoAnswer::Malformed));
}

#[test]
fn servers_of_a_service_are_found_unless_they_are_none() {
    let target = [&b"\x01A"[..], QUESTION].concat();
    let answers = [
        srv(1, 20, 8080, &target),
        srv(2, 0, 0, &target),
        srv(0, 0, 80, &[0]),
        srv(0, 0, 80, &name("a b.example")),
    ];
    let expected = Service { priority: 1, target: "a.app.example.".into(), port: 8080, weight: 20 };
    let expected = Answer::Records { records: vec![Record::Service(expected)], ttl_seconds: 60 };
    assert_eq!(read(RecordType::Srv, &answers), Ok(expected));
    let none = [srv(0, 0, 0, &[0])];
    assert_eq!(read(RecordType::Srv, &none), Ok(Answer::NoRecord { ttl_seconds: None }));
}

#[test]
fn what_is_not_there_holds_as_long_as_the_zone_says() {
    let query = query(RecordType::A);
    let read =
        |flags, authority| read_answer(&query, &answer(query.message(), flags, &[], &[authority]));
    assert_eq!(read(NO_NAME, soa(90, 30)), Ok(Answer::NoName { ttl_seconds: Some(30) }));
    assert_eq!(read(RESPONSE, soa(9, 30)), Ok(Answer::NoRecord { ttl_seconds: Some(9) }));
    let other = record(QUESTION, 2, 60, &name("ns.example"));
    assert_eq!(read(NO_NAME, other), Ok(Answer::NoName { ttl_seconds: None }));
}

#[test]
fn only_the_answer_to_the_question_is_one() {
    let query = query(RecordType::A);
    let good = answer(query.message(), RESPONSE, &[record(QUESTION, 1, 1, &[10, 0, 0, 1])], &[]);
    assert_eq!(read_answer(&query, &good), addresses(&["10.0.0.1"], 1));
    // Another number, no answer, no question, another name, the same in other letters,
    // another type.
    for place in [0, 2, 5, 13, 17, 26] {
        let mut other = good.clone();
        other[place] ^= if place == 17 { 0x20 } else { 0x80 };
        assert_eq!(read_answer(&query, &other), Err(NoAnswer::Unasked), "{place}");
    }
    assert_eq!(read_answer(&query, &[]), Err(NoAnswer::Unasked));
}

#[test]
fn truncated_and_refused_answers_are_told_apart() {
    let query = query(RecordType::A);
    let read = |flags| read_answer(&query, &answer(query.message(), flags, &[], &[]));
    assert_eq!(read(TRUNCATED), Ok(Answer::Truncated));
    assert_eq!(read(SERVER_FAILURE), Ok(Answer::Refused(ResponseCode(2))));
    assert_eq!(ResponseCode(2).to_string(), "SERVFAIL");
}

#[test]
fn answers_that_make_no_sense_are_malformed() {
    let forward = [0xc0, 200];
    let reserved = [0x80, 0];
    for answers in [
        vec![record(QUESTION, 1, 1, &[10, 0, 0])],
        vec![record(QUESTION, 28, 1, &[10, 0, 0, 1])],
        vec![record(&forward, 1, 1, &[10, 0, 0, 1])],
        vec![record(&reserved, 1, 1, &[10, 0, 0, 1])],
        vec![record(QUESTION, 33, 1, &[0, 0, 0, 0, 0, 80])],
        vec![record(&vec![1; 300], 1, 1, &[10, 0, 0, 1])],
    ] {
        let wanted = [RecordType::A, RecordType::Aaaa, RecordType::Srv];
        let outcomes = wanted.map(|record_type| read(record_type, &answers));
        assert!(outcomes.contains(&Err(NoAnswer::Malformed)), "{answers:?}: {outcomes:?}");
    }
    let query = query(RecordType::A);
    let good = answer(query.message(), RESPONSE, &[record(QUESTION, 1, 1, &[10, 0, 0, 1])], &[]);
    for end in query.message().len()..good.len() {
        assert_eq!(read_answer(&query, &good[..end]), Err(NoAnswer::Malformed), "{end}");
    }
}

proptest! {
    #[test]
    fn addresses_that_are_written_are_read(
        written in proptest::collection::btree_set(any::<[u8; 4]>(), 1..50),
        ttls in proptest::collection::vec(0_u32..=i32::MAX as u32, 50),
    ) {
        let answers: Vec<_> = written
            .iter()
            .zip(&ttls)
            .map(|(address, ttl)| record(QUESTION, 1, *ttl, address))
            .collect();
        let least = *ttls[..answers.len()].iter().min().expect("one");
        let records = written.iter().map(|address| Record::Address(IpAddr::from(*address)));
        let expected = Answer::Records { records: records.collect(), ttl_seconds: least };
        prop_assert_eq!(read(RecordType::A, &answers), Ok(expected));
    }

    #[test]
    fn no_bytes_behind_the_question_make_it_panic(
        counts in any::<[u8; 8]>(),
        rest in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        for record_type in [RecordType::A, RecordType::Aaaa, RecordType::Srv] {
            let query = query(record_type);
            let mut message = answer(query.message(), RESPONSE, &[], &[]);
            message[6..12].copy_from_slice(&counts[..6]);
            message.extend(&rest);
            let _ = read_answer(&query, &message);
        }
    }
}
