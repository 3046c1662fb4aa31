//! With nameservers that are functions.

use super::super::message::tests::{
    NO_NAME, QUESTION, RESPONSE, SERVER_FAILURE, TRUNCATED, answer, record, soa,
};
use super::*;

fn manner(nameservers: usize, search: &[&str]) -> Manner {
    let server = |number| std::net::SocketAddr::from(([10, 0, 0, number as u8], 53));
    let conf = ResolvConf {
        nameservers: (0..nameservers).map(server).collect(),
        search: search.iter().map(|domain| (*domain).to_owned()).collect(),
        ..ResolvConf::default()
    };
    Manner { conf, families: Families::Both }
}

/// The name and the type of a question.
fn question(query: &[u8]) -> (String, u16) {
    let mut at = 12;
    let mut name = String::new();
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        name.push_str(std::str::from_utf8(&query[at + 1..end]).expect("text"));
        name.push('.');
        at = end;
    }
    (name, u16::from_be_bytes([query[at + 1], query[at + 2]]))
}

/// What a nameserver does with a question.
type Reply = Result<Vec<u8>, Failure>;

/// Asks for `wanted` to the end; also returns who was asked for what.
fn run(
    wanted: &Wanted,
    manner: &Manner,
    mut nameserver: impl FnMut(usize, Transport, &[u8]) -> Reply,
) -> (Outcome, Vec<String>) {
    let (mut lookup, mut step) = Lookup::begin(wanted, manner, 7);
    let mut asked = Vec::new();
    loop {
        let (server, over) = match step {
            Step::Ask { server, over } => (server, over),
            Step::Done(outcome) => return (outcome, asked),
        };
        let query = lookup.query().to_vec();
        let (name, record_type) = question(&query);
        asked.push(format!("{server} {over:?} {name} {record_type}"));
        step = match nameserver(server, over, &query) {
            Ok(message) => lookup.take(&message).expect("an answer to the question"),
            Err(failure) => lookup.fail(failure),
        };
    }
}

fn host(name: &str) -> Wanted {
    Wanted::Host(name.to_owned())
}

fn address(query: &[u8], last: u8) -> Reply {
    Ok(answer(query, RESPONSE, &[record(QUESTION, 1, 60, &[10, 0, 0, last])], &[]))
}

fn nothing(query: &[u8]) -> Reply {
    Ok(answer(query, RESPONSE, &[], &[soa(60, 20)]))
}

fn no_name(query: &[u8]) -> Reply {
    Ok(answer(query, NO_NAME, &[], &[soa(60, 30)]))
}

fn found(addresses: &[&str], missing: Option<(RecordType, Failure)>) -> Outcome {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address"));
    let ttl = Duration::from_secs(60);
    Outcome::Found { found: Found::Addresses(addresses.collect()), ttl, missing }
}

#[test]
fn both_kinds_of_addresses_are_asked_for_and_one_may_be_missing() {
    let only_ipv4 = |_, _, query: &[u8]| match question(query).1 {
        1 => address(query, 1),
        _ => nothing(query),
    };
    let (outcome, asked) = run(&host("app.example"), &manner(1, &[]), only_ipv4);
    assert_eq!(outcome, found(&["10.0.0.1"], None));
    assert_eq!(asked, ["0 Udp app.example. 1", "0 Udp app.example. 28"]);
    let ipv4 = Manner { families: Families::Ipv4, ..manner(1, &[]) };
    assert_eq!(run(&host("app.example"), &ipv4, only_ipv4).1, ["0 Udp app.example. 1"]);
}

#[test]
fn a_nameserver_that_fails_is_passed_over_for_the_next() {
    let (outcome, asked) =
        run(&host("app.example."), &manner(2, &[]), |server, _, query| match server {
            0 if question(query).1 == 1 => Err(Failure::Timeout),
            0 => Ok(answer(query, SERVER_FAILURE, &[], &[])),
            _ if question(query).1 == 1 => address(query, 1),
            _ => nothing(query),
        });
    assert_eq!(outcome, found(&["10.0.0.1"], None));
    let expected = ["0 Udp app.example. 1", "1 Udp app.example. 1"];
    assert_eq!(asked[..2], expected);
    assert_eq!(asked.len(), 4);
}

#[test]
fn every_nameserver_is_asked_as_often_as_is_said_and_no_more() {
    let (outcome, asked) =
        run(&host("app.example."), &manner(2, &["other.example"]), |_, _, _| Err(Failure::Timeout));
    assert_eq!(outcome, Outcome::Failed(RecordType::A, Failure::Timeout));
    let servers: Vec<&str> = asked.iter().map(|asked| &asked[..1]).collect();
    assert_eq!(servers, ["0", "1", "0", "1"]);
}

#[test]
fn an_answer_that_does_not_fit_is_asked_for_over_tcp() {
    let (outcome, asked) = run(&host("app."), &manner(1, &[]), |_, over, query| match over {
        Transport::Udp if question(query).1 == 1 => Ok(answer(query, TRUNCATED, &[], &[])),
        Transport::Udp => nothing(query),
        Transport::Tcp => address(query, 1),
    });
    assert_eq!(outcome, found(&["10.0.0.1"], None));
    assert_eq!(asked, ["0 Udp app. 1", "0 Tcp app. 1", "0 Udp app. 28"]);
}

#[test]
fn what_does_not_fit_over_tcp_either_is_a_failure() {
    let (outcome, asked) =
        run(&host("app."), &manner(1, &[]), |_, _, query| Ok(answer(query, TRUNCATED, &[], &[])));
    assert_eq!(outcome, Outcome::Failed(RecordType::A, Failure::Malformed));
    assert_eq!(asked.len(), 4, "both attempts, over both: {asked:?}");
}

#[test]
fn a_short_name_is_looked_for_in_the_search_list_first() {
    let manner = manner(1, &["a.example", "b.example"]);
    let nameserver = |_, _, query: &[u8]| match question(query) {
        (name, 1) if name == "app.b.example." => address(query, 1),
        (name, _) if name == "app.b.example." => nothing(query),
        _ => no_name(query),
    };
    let (outcome, asked) = run(&host("app"), &manner, nameserver);
    assert_eq!(outcome, found(&["10.0.0.1"], None));
    let expected = ["0 Udp app.a.example. 1", "0 Udp app.b.example. 1", "0 Udp app.b.example. 28"];
    assert_eq!(asked, expected);
    let (outcome, asked) = run(&host("x.y"), &manner, nameserver);
    let ttl = Some(Duration::from_secs(30));
    assert_eq!(outcome, Outcome::Absent { exists: false, ttl });
    let expected = ["0 Udp x.y. 1", "0 Udp x.y.a.example. 1", "0 Udp x.y.b.example. 1"];
    assert_eq!(asked, expected, "it has a dot: first as it is");
}

#[test]
fn a_failure_never_leads_to_the_name_of_another_domain() {
    let manner = manner(1, &["a.example", "b.example"]);
    let (outcome, _) = run(&host("app"), &manner, |_, _, query| match question(query).0.as_str() {
        "app.a.example." => Err(Failure::Unreachable),
        _ => address(query, 1),
    });
    assert_eq!(outcome, Outcome::Failed(RecordType::A, Failure::Unreachable));
}

#[test]
fn addresses_of_one_kind_are_good_without_those_of_the_other() {
    let (outcome, _) = run(&host("app."), &manner(1, &[]), |_, _, query| match question(query).1 {
        1 => address(query, 1),
        _ => Err(Failure::Timeout),
    });
    assert_eq!(outcome, found(&["10.0.0.1"], Some((RecordType::Aaaa, Failure::Timeout))));
}

#[test]
fn a_name_without_addresses_exists() {
    let (outcome, _) = run(&host("app."), &manner(1, &[]), |_, _, query| nothing(query));
    let ttl = Some(Duration::from_secs(20));
    assert_eq!(outcome, Outcome::Absent { exists: true, ttl });
}

#[test]
fn a_message_about_something_else_is_passed_over() {
    let (mut lookup, _) = Lookup::begin(&host("app."), &manner(1, &[]), 7);
    let mut forged = address(lookup.query(), 9).expect("an answer");
    forged[0] ^= 1;
    assert_eq!(lookup.take(&forged), None);
    let good = address(lookup.query(), 1).expect("an answer");
    assert!(lookup.take(&good).is_some());
}

#[test]
fn a_domain_that_makes_the_name_too_long_is_passed_over() {
    let label = "a".repeat(60);
    let domain = [&label[..], &label, &label, &label].join(".");
    let manner = manner(1, &[&domain]);
    let (outcome, asked) = run(&host("application"), &manner, |_, _, query| no_name(query));
    assert!(matches!(outcome, Outcome::Absent { exists: false, .. }));
    assert_eq!(asked, ["0 Udp application. 1"]);
}
