//! With a clock that is set by hand.

use proptest::prelude::*;

use super::*;

const LIFETIMES: Lifetimes =
    Lifetimes { min: Duration::from_secs(5), max: Duration::from_secs(100) };

fn at(seconds: u64) -> Moment {
    Moment::from_nanoseconds(0).after(Duration::from_secs(seconds))
}

fn host(name: &str) -> Wanted {
    Wanted::Host(name.to_owned())
}

fn book(names: &[Wanted]) -> Book {
    let mut book = Book::new(LIFETIMES, Families::Both, 1);
    book.want(names.iter().cloned().collect(), LIFETIMES, Families::Both, at(0));
    book
}

fn addresses(addresses: &[&str], ttl_seconds: u64) -> Outcome {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address"));
    let ttl = Duration::from_secs(ttl_seconds);
    Outcome::Found { found: Found::Addresses(addresses.collect()), ttl, missing: None }
}

fn service(priority: u16, weight: u16, target: &str) -> Service {
    Service { priority, target: target.to_owned(), port: 80, weight }
}

fn services(services: Vec<Service>) -> Outcome {
    let ttl = Duration::from_secs(60);
    Outcome::Found { found: Found::Services(services), ttl, missing: None }
}

fn shown(book: &Book, name: &Wanted) -> Vec<String> {
    book.servers(name).iter().map(|server| server.address.to_string()).collect()
}

/// When the only name of the book is due, in seconds.
fn due(book: &Book) -> f64 {
    book.next_due().expect("one is due").since(at(0)).as_secs_f64()
}

#[test]
fn a_new_name_is_asked_for_at_once_and_by_one_at_a_time() {
    let mut book = book(&[host("a")]);
    assert!(!book.are_tried(&[host("a")]));
    assert_eq!(book.next(at(0)), Some(host("a")));
    assert_eq!((book.next(at(9)), book.next_due()), (None, None));
    book.learned(&host("a"), addresses(&["10.0.0.1"], 60), at(1));
    assert!(book.are_tried(&[host("a")]));
    assert_eq!(book.next(at(60)), None, "the answer holds");
    assert_eq!(book.next(at(68)), Some(host("a")));
}

#[test]
fn an_answer_holds_for_its_ttl_within_bounds_and_by_chance_a_tenth_longer() {
    for (ttl, least, most) in [(0, 5.0, 5.5), (60, 60.0, 66.0), (4_000, 100.0, 110.0)] {
        let mut book = book(&[host("a")]);
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            book.learned(&host("a"), addresses(&["10.0.0.1"], ttl), at(0));
            assert!((least..=most).contains(&due(&book)), "{ttl}: {}", due(&book));
            seen.insert(book.next_due());
        }
        assert!(seen.len() > 10, "not always the same");
    }
}

#[test]
fn the_order_of_an_answer_changes_nothing() {
    let mut book = book(&[host("a")]);
    let first = book.learned(&host("a"), addresses(&["10.0.0.2", "10.0.0.1"], 60), at(0));
    let added = vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
    assert_eq!(first, [Change::Servers { added, removed: Vec::new() }]);
    let second =
        book.learned(&host("a"), addresses(&["10.0.0.1", "10.0.0.2", "10.0.0.1"], 60), at(1));
    assert_eq!((second, book.changes()), (Vec::new(), 1));
}

#[test]
fn an_answer_takes_away_what_it_leaves_out() {
    let mut book = book(&[host("a")]);
    book.learned(&host("a"), addresses(&["10.0.0.1", "10.0.0.2"], 60), at(0));
    let changes = book.learned(&host("a"), addresses(&["10.0.0.2", "10.0.0.3"], 60), at(1));
    let (added, removed) = (vec!["10.0.0.3".to_owned()], vec!["10.0.0.1".to_owned()]);
    assert_eq!(changes, [Change::Servers { added, removed }]);
    assert_eq!(shown(&book, &host("a")), ["10.0.0.2", "10.0.0.3"]);
}

#[test]
fn what_was_found_stays_whoever_fails_or_says_that_it_is_gone() {
    let mut book = book(&[host("a")]);
    book.learned(&host("a"), addresses(&["10.0.0.1"], 60), at(0));
    let failed = Condition::Failing(RecordType::A, Failure::Timeout);
    let outcome = Outcome::Failed(RecordType::A, Failure::Timeout);
    assert_eq!(book.learned(&host("a"), outcome.clone(), at(1)), [Change::Condition(failed)]);
    assert_eq!(book.learned(&host("a"), outcome, at(2)), [], "told once");
    let absent = Condition::Absent { exists: false };
    let gone = Outcome::Absent { exists: false, ttl: None };
    assert_eq!(book.learned(&host("a"), gone, at(3)), [Change::Condition(absent)]);
    assert_eq!(shown(&book, &host("a")), ["10.0.0.1"]);
    let again = book.learned(&host("a"), addresses(&["10.0.0.1"], 60), at(4));
    assert_eq!(again, [Change::Condition(Condition::Current)]);
    assert_eq!(book.changes(), 1);
}

#[test]
fn who_fails_is_asked_again_less_and_less_often() {
    let mut book = book(&[host("a")]);
    let mut waits = Vec::new();
    for _ in 0..8 {
        book.learned(&host("a"), Outcome::Failed(RecordType::A, Failure::Timeout), at(0));
        waits.push(due(&book).round() as u64);
    }
    assert!(waits[0] < 6 && waits[5] >= 30 && waits[..6].is_sorted(), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 33), "{waits:?}");
}

#[test]
fn addresses_of_the_kind_that_nobody_told_stay() {
    let mut book = book(&[host("a")]);
    book.learned(&host("a"), addresses(&["10.0.0.1", "::1"], 60), at(0));
    let partly = Outcome::Found {
        found: Found::Addresses(vec!["10.0.0.2".parse().expect("an address")]),
        ttl: Duration::from_secs(60),
        missing: Some((RecordType::Aaaa, Failure::Timeout)),
    };
    book.learned(&host("a"), partly, at(1));
    assert_eq!(shown(&book, &host("a")), ["10.0.0.2", "::1"]);
    assert_eq!(book.condition(&host("a")).label(), "failing");
    book.learned(&host("a"), addresses(&["10.0.0.2"], 60), at(2));
    assert_eq!(shown(&book, &host("a")), ["10.0.0.2"]);
}

#[test]
fn hosts_of_a_service_are_asked_for_as_long_as_it_names_them() {
    let name = Wanted::Service("_app._tcp".to_owned());
    let mut book = book(std::slice::from_ref(&name));
    assert_eq!(book.next(at(0)), Some(name.clone()));
    book.learned(&name, services(vec![service(1, 1, "a."), service(1, 1, "b.")]), at(0));
    assert!(!book.are_tried([&name]), "its hosts are not known yet");
    assert_eq!((book.next(at(0)), book.next(at(0))), (Some(host("a.")), Some(host("b."))));
    book.learned(&host("a."), addresses(&["10.0.0.1"], 60), at(0));
    book.learned(&host("b."), Outcome::Absent { exists: false, ttl: None }, at(0));
    assert!(book.are_tried([&name]));
    assert_eq!(shown(&book, &name), ["10.0.0.1"]);
    book.learned(&name, services(vec![service(1, 1, "b.")]), at(1));
    assert!(book.iter().all(|(entry, ..)| *entry != host("a.")));
    assert_eq!(shown(&book, &name), [""; 0]);
    assert_eq!(book.condition(&name), Condition::Absent { exists: false }, "that of its host");
}

#[test]
fn records_of_a_service_give_ports_weights_and_backups() {
    let name = Wanted::Service("_app._tcp".to_owned());
    let mut book = book(std::slice::from_ref(&name));
    let records = vec![
        service(10, 1_000, "a."),
        service(10, 500, "b."),
        service(10, 0, "c."),
        service(20, 1, "d."),
    ];
    book.learned(&name, services(records), at(0));
    for (last, target) in ["a.", "b.", "c.", "d."].iter().enumerate() {
        book.learned(&host(target), addresses(&[&format!("10.0.0.{last}")], 60), at(0));
    }
    let of: Vec<_> = book
        .servers(&name)
        .into_iter()
        .map(|server| (server.host, server.port, server.weight, server.backup))
        .collect();
    let expected = [("c", 1, false), ("b", 128, false), ("a", 256, false), ("d", 1, true)]
        .map(|(host, weight, backup)| (host.to_owned(), Some(80), Some(weight), backup));
    let sorted = |mut servers: Vec<_>| {
        servers.sort();
        servers
    };
    assert_eq!(sorted(of), sorted(expected.to_vec()));
}

#[test]
fn who_is_not_wanted_any_more_is_forgotten_and_who_is_still_stays_known() {
    let mut book = book(&[host("a"), host("b")]);
    book.learned(&host("a"), addresses(&["10.0.0.1"], 60), at(0));
    assert_eq!(book.next(at(0)), Some(host("b")));
    book.want([host("a"), host("c")].into(), LIFETIMES, Families::Both, at(1));
    book.learned(&host("b"), addresses(&["10.0.0.2"], 60), at(1));
    assert_eq!(shown(&book, &host("a")), ["10.0.0.1"]);
    assert_eq!(shown(&book, &host("b")), [""; 0]);
    assert_eq!((book.next(at(1)), book.next(at(1))), (Some(host("c")), None));
}

#[test]
fn other_families_have_every_name_asked_for_anew() {
    let mut book = book(&[host("a")]);
    book.learned(&host("a"), addresses(&["10.0.0.1"], 60), at(0));
    book.want([host("a")].into(), LIFETIMES, Families::Ipv6, at(1));
    assert_eq!(book.next(at(1)), Some(host("a")));
}

#[test]
fn of_too_many_addresses_all_keep_the_same() {
    let mut book = book(&[host("a")]);
    let all: Vec<String> = (0..=255).map(|last| format!("10.0.0.{last}")).collect();
    let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
    book.learned(&host("a"), addresses(&all, 60), at(0));
    let before = shown(&book, &host("a"));
    assert_eq!(before.len(), SERVERS_MAX);
    all.reverse();
    assert_eq!(book.learned(&host("a"), addresses(&all, 60), at(1)), []);
}

proptest! {
    /// Whatever comes, every name is either being asked for or due, and a name that has ever
    /// had servers has some.
    #[test]
    fn no_name_is_lost_and_none_loses_all_its_servers(
        events in proptest::collection::vec((0_usize..3, 0_u8..4, any::<u8>()), 1..100),
    ) {
        let names = ["a", "b", "c"].map(host);
        let mut book = book(&names);
        let mut asking = BTreeSet::new();
        let mut ever = BTreeSet::new();
        for (step, (place, kind, last)) in events.into_iter().enumerate() {
            let now = at(step as u64 * 20);
            while let Some(name) = book.next(now) {
                prop_assert!(asking.insert(name), "asked for twice at once");
            }
            let name = &names[place];
            if asking.remove(name) {
                let outcome = match kind {
                    0 => Outcome::Failed(RecordType::A, Failure::Timeout),
                    1 => Outcome::Absent { exists: last % 2 == 0, ttl: None },
                    _ => {
                        ever.insert(name.clone());
                        addresses(&[&format!("10.0.0.{last}")], u64::from(last))
                    }
                };
                book.learned(name, outcome, now);
            }
            for name in &names {
                let is_due = book.due.iter().any(|(_, due)| due == name);
                prop_assert!(is_due != asking.contains(name));
                prop_assert_eq!(book.servers(name).is_empty(), !ever.contains(name));
            }
        }
    }
}
