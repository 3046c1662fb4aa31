use super::*;
use crate::tls::CryptoLibrary;
use crate::tls::client_hello::{CLIENT_HELLO_BYTES_MAX, Scan, scan};
use crate::tls::test_support::{Client as TestClient, ONLY_TLS12};

const ONE: usize = 1;
const FROM: &str = "192.0.2.7";

fn test_client() -> TestClient {
    TestClient::new(CryptoLibrary::AwsLc)
}

/// Where a client goes that comes from `source`, to a listener that would choose the newest
/// version and `protocol`.
fn place(routes: &Routes, client: &TestClient, source: &str, protocol: &str) -> Option<usize> {
    let bytes = client.hello();
    let mut scratch = Box::new([0; CLIENT_HELLO_BYTES_MAX]);
    let Scan::Complete(hello) = scan(&bytes, &mut scratch) else { panic!("a ClientHello") };
    let protocol = (!protocol.is_empty()).then_some(protocol.as_bytes());
    let source = source.parse().expect("an address");
    let version = newest_offered(&hello);
    routes.find(&Client { source, hello: &hello, version, protocol })
}

fn route(action: Action, conditions: Conditions) -> Route {
    Route { name: "a route".into(), conditions, action }
}

fn forward(conditions: Conditions) -> Route {
    route(Action::Forward { pool: ONE }, conditions)
}

fn names(patterns: &[&str]) -> Conditions {
    let mut found = NamePatterns::default();
    for pattern in patterns {
        match pattern.strip_prefix("*.") {
            Some(suffix) => drop(found.one_label.insert(suffix.into())),
            None if pattern.is_empty() => found.none = true,
            None => drop(found.exact.insert((*pattern).into())),
        }
    }
    Conditions { server_names: Some(found), ..Conditions::default() }
}

fn sources(prefixes: &[&str]) -> Conditions {
    let parse = |prefix: &&str| prefix.parse().expect("a prefix");
    Conditions { sources: Some(prefixes.iter().map(parse).collect()), ..Conditions::default() }
}

#[test]
fn without_routes_the_listener_decides() {
    assert_eq!(place(&Routes::default(), &test_client(), FROM, ""), None);
}

#[test]
fn names_are_matched_as_they_are_and_by_one_label() {
    let routes = Routes::new(vec![
        forward(names(&["api.example.com"])),
        forward(names(&["*.example.com"])),
        forward(names(&[""])),
    ]);
    for (name, expected) in [
        ("api.example.com", Some(0)),
        ("www.example.com", Some(1)),
        ("a.www.example.com", None),
        ("example.com", None),
        ("192.0.2.1", Some(2)),
    ] {
        let client = TestClient { server_name: name, ..test_client() };
        assert_eq!(place(&routes, &client, FROM, ""), expected, "{name}");
    }
}

#[test]
fn the_first_route_whose_conditions_all_hold_decides() {
    let narrow =
        Conditions { sources: sources(&["10.0.0.0/8"]).sources, ..names(&["*.example.com"]) };
    let routes = Routes::new(vec![forward(narrow), forward(names(&["*.example.com"]))]);
    assert_eq!(place(&routes, &test_client(), "10.1.2.3", ""), Some(0));
    assert_eq!(place(&routes, &test_client(), FROM, ""), Some(1));
}

#[test]
fn a_source_is_told_in_either_form_of_its_address() {
    let routes = Routes::new(vec![forward(sources(&["192.0.2.0/24", "2001:db8::/32"]))]);
    for (source, expected) in [
        ("192.0.2.7", Some(0)),
        ("::ffff:192.0.2.7", Some(0)),
        ("2001:db8::1", Some(0)),
        ("198.51.100.1", None),
    ] {
        assert_eq!(place(&routes, &test_client(), source, ""), expected, "{source}");
    }
}

#[test]
fn a_protocol_is_the_one_chosen_here_and_any_that_is_offered_there() {
    let h2 = || Conditions { protocols: Some(vec![b"h2"[..].into()]), ..Conditions::default() };
    let client = TestClient { alpn: vec![b"http/1.1".to_vec(), b"h2".to_vec()], ..test_client() };
    let here = Routes::new(vec![forward(h2())]);
    assert_eq!(place(&here, &client, FROM, "http/1.1"), None);
    assert_eq!(place(&here, &client, FROM, "h2"), Some(0));
    let there = Routes::new(vec![route(Action::Passthrough { pool: ONE }, h2())]);
    assert_eq!(place(&there, &client, FROM, "http/1.1"), Some(0));
    assert_eq!(place(&there, &test_client(), FROM, ""), None);
}

#[test]
fn versions_and_fingerprints_tell_clients_apart() {
    let old = TestClient { versions: ONLY_TLS12, ..test_client() };
    let versions = Some(vec![Version::Tls12]);
    let routes = Routes::new(vec![forward(Conditions { versions, ..Conditions::default() })]);
    assert_eq!(place(&routes, &old, FROM, ""), Some(0));
    assert_eq!(place(&routes, &test_client(), FROM, ""), None);

    let bytes = old.hello();
    let mut scratch = Box::new([0; CLIENT_HELLO_BYTES_MAX]);
    let Scan::Complete(hello) = scan(&bytes, &mut scratch) else { panic!("a ClientHello") };
    let fingerprints = Some(HashSet::from([Ja4::of(&hello).expect("a fingerprint")]));
    let routes = Routes::new(vec![forward(Conditions { fingerprints, ..Conditions::default() })]);
    assert_eq!(place(&routes, &old, FROM, ""), Some(0));
    assert_eq!(place(&routes, &test_client(), FROM, ""), None);
}

#[test]
fn a_route_behind_one_that_takes_all_of_its_clients_is_found() {
    let versions = |versions: &[Version]| Conditions {
        versions: Some(versions.to_vec()),
        ..Conditions::default()
    };
    let both = versions(&[Version::Tls12, Version::Tls13]);
    for (earlier, later, is_behind) in [
        (Conditions::default(), names(&["a.example"]), true),
        (names(&["*.example"]), names(&["a.example", "b.example"]), true),
        (names(&["*.example"]), names(&["*.example"]), true),
        (names(&["a.example"]), names(&["*.example"]), false),
        (names(&["*.example"]), names(&["a.example", ""]), false),
        (names(&["*.example"]), Conditions::default(), false),
        (sources(&["10.0.0.0/8"]), sources(&["10.1.0.0/16", "10.2.3.4/32"]), true),
        (sources(&["10.1.0.0/16"]), sources(&["10.0.0.0/8"]), false),
        (both.clone(), versions(&[Version::Tls12]), true),
        (versions(&[Version::Tls12]), both, false),
    ] {
        let expected = if is_behind { vec![(1, 0)] } else { Vec::new() };
        let routes = [forward(earlier), forward(later)];
        assert_eq!(unreachable(&routes), expected, "{routes:?}");
    }
}

#[test]
fn what_a_version_means_differs_between_actions_so_that_neither_hides_the_other() {
    let versions = || Conditions { versions: Some(vec![Version::Tls13]), ..Conditions::default() };
    let routes = [forward(versions()), route(Action::Passthrough { pool: ONE }, versions())];
    assert_eq!(unreachable(&routes), Vec::new());
    let all = [forward(Conditions::default()), route(Action::Reject, versions())];
    assert_eq!(unreachable(&all), vec![(1, 0)]);
}
