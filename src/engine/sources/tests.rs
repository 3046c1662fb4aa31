use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const LIMITS: ClientLimits = ClientLimits::NONE;

fn sources(limits: &ClientLimits) -> Sources {
    Sources::new(64, limits, 1)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn at(seconds: u64) -> Moment {
    Moment::from_nanoseconds(seconds * 1_000_000_000)
}

fn cause(result: Result<Source, (Source, ShedCause)>) -> Option<ShedCause> {
    result.err().map(|(_, cause)| cause)
}

#[test]
fn a_source_may_have_so_many_connections_and_others_are_not_concerned() {
    let mut sources = sources(&ClientLimits { source_connections: Some(2), ..LIMITS });
    let first = sources.enter(ip("192.0.2.1"), at(0)).expect("the first");
    sources.enter(ip("192.0.2.1"), at(0)).expect("the second");
    let refused = sources.enter(ip("192.0.2.1"), at(0));
    assert_eq!(cause(refused), Some(ShedCause::SourceConnections));
    assert!(sources.enter(ip("192.0.2.2"), at(0)).is_ok());
    sources.leave(first, false);
    assert!(sources.enter(ip("192.0.2.1"), at(0)).is_ok(), "one has left");
}

#[test]
fn a_session_is_no_longer_an_incomplete_handshake_but_still_a_connection() {
    let limits = ClientLimits {
        source_incomplete_handshakes: Some(1),
        source_connections: Some(3),
        ..LIMITS
    };
    let mut sources = sources(&limits);
    let address = ip("192.0.2.1");
    for _ in 0..3 {
        let source = sources.enter(address, at(0)).expect("none is incomplete");
        let second = sources.enter(address, at(0));
        assert!(second.is_err(), "one is incomplete");
        sources.complete_handshake(source);
    }
    assert_eq!(cause(sources.enter(address, at(0))), Some(ShedCause::SourceConnections));
}

#[test]
fn a_source_may_begin_so_many_handshakes_a_second() {
    let mut sources = sources(&ClientLimits { source_handshakes_per_second: Some(2), ..LIMITS });
    let address = ip("192.0.2.1");
    let open: Vec<_> = (0..3).map(|_| sources.enter(address, at(0)).expect("entered")).collect();
    assert!(sources.begin_handshake(open[0], at(0)).is_ok());
    assert!(sources.begin_handshake(open[1], at(0)).is_ok());
    let third = sources.begin_handshake(open[2], at(0));
    assert_eq!(third, Err(ShedCause::SourceHandshakesPerSecond));
    let door = sources.enter(address, at(0));
    assert_eq!(cause(door), Some(ShedCause::SourceHandshakesPerSecond), "refused at the door");
    assert!(sources.enter(address, at(1)).is_ok(), "a second later");
}

#[test]
fn a_rate_is_remembered_when_the_last_connection_has_left() {
    let mut sources = sources(&ClientLimits { source_handshakes_per_second: Some(1), ..LIMITS });
    let source = sources.enter(ip("192.0.2.1"), at(0)).expect("entered");
    sources.begin_handshake(source, at(0)).expect("the first");
    sources.leave(source, false);
    assert_eq!(sources.with_connections(), 0);
    assert!(sources.enter(ip("192.0.2.1"), at(0)).is_err());
}

#[test]
fn a_source_is_a_prefix_of_addresses() {
    let limits = ClientLimits { source_connections: Some(1), ipv4_prefix: 24, ..LIMITS };
    let mut sources = sources(&limits);
    for (address, enters) in [
        ("192.0.2.1", true),
        ("192.0.2.200", false),
        ("192.0.3.1", true),
        ("::ffff:192.0.3.2", false),
        ("2001:db8::1", true),
        ("2001:db8::ffff:1", false),
        ("2001:db8:0:1::1", true),
    ] {
        assert_eq!(sources.enter(ip(address), at(0)).is_ok(), enters, "{address}");
    }
}

#[test]
fn exempt_addresses_are_held_to_nothing() {
    let limits = ClientLimits {
        source_connections: Some(1),
        exempt: ["10.0.0.0/8".parse().expect("a prefix")].into(),
        ..LIMITS
    };
    let mut sources = sources(&limits);
    for _ in 0..3 {
        let source = sources.enter(ip("::ffff:10.1.2.3"), at(0)).expect("exempt");
        assert_eq!(source, Source::EXEMPT);
        assert_eq!(sources.prefix(source), None);
        sources.begin_handshake(source, at(0)).expect("exempt");
        sources.complete_handshake(source);
        sources.leave(source, true);
    }
    assert!(sources.enter(ip("11.0.0.1"), at(0)).is_ok());
    assert!(sources.enter(ip("11.0.0.1"), at(0)).is_err());
}

#[test]
fn other_limits_hold_for_connections_that_are_there() {
    let mut sources = sources(&LIMITS);
    let address = ip("192.0.2.1");
    let open: Vec<_> = (0..5).map(|_| sources.enter(address, at(0)).expect("entered")).collect();
    sources.set_limits(&ClientLimits { source_connections: Some(3), ..LIMITS }, 1);
    assert!(sources.enter(address, at(0)).is_err());
    for source in &open[..3] {
        sources.leave(*source, false);
    }
    assert!(sources.enter(address, at(0)).is_ok());
    sources.set_limits(&LIMITS, 1);
    assert!(sources.enter(address, at(0)).is_ok());
}

#[test]
fn a_shorter_prefix_counts_anew_and_loses_no_connection() {
    let mut sources = sources(&ClientLimits { source_connections: Some(1), ..LIMITS });
    let before = sources.enter(ip("192.0.2.1"), at(0)).expect("entered");
    let limits = ClientLimits { source_connections: Some(1), ipv4_prefix: 8, ..LIMITS };
    sources.set_limits(&limits, 1);
    let after = sources.enter(ip("192.0.2.1"), at(0)).expect("another source");
    assert_ne!(before, after);
    sources.leave(before, false);
    sources.leave(after, false);
    assert_eq!(sources.with_connections(), 0);
}

#[test]
fn a_share_leaves_room_for_chance_and_is_never_nothing() {
    assert_eq!(share(100, 1), 100);
    assert_eq!(share(100, 4), 35);
    assert_eq!(share(1_000, 4), 282);
    assert_eq!(share(1, 8), 1);
    assert_eq!(share(2, 8), 2);
    assert_eq!(share(1 << 22, 256), 16_384 + 256);
}

#[test]
fn the_rates_of_all_engines_make_the_rate() {
    let rate = rate(10, 4);
    let mut bucket = Bucket::full(rate, at(0));
    while bucket.take(rate, at(0)) {}
    // Two and a half a second each: 25 in ten seconds.
    let mut given = 0;
    for milliseconds in 0..=10_000 {
        given += u32::from(bucket.take(rate, Moment::from_nanoseconds(milliseconds * 1_000_000)));
    }
    assert_eq!(given, 25);
}

#[test]
fn more_sources_than_entries_push_out_the_oldest_without_connections() {
    let limits = ClientLimits { source_handshakes_per_second: Some(1), ..LIMITS };
    let mut sources = Sources::new(1, &limits, 1);
    let address = |number: usize| IpAddr::from((number as u32 + 1).to_be_bytes());
    let uses_up = |sources: &mut Sources, number: usize| {
        let source = sources.enter(address(number), at(0)).expect("entered");
        sources.begin_handshake(source, at(0)).expect("its first");
        source
    };
    let stays = uses_up(&mut sources, 0);
    let entries = Sources::entries(1);
    for number in 1..entries {
        let source = uses_up(&mut sources, number);
        sources.leave(source, false);
    }
    assert!(sources.enter(address(1), at(0)).is_err(), "all are remembered");
    let source = uses_up(&mut sources, entries);
    sources.leave(source, false);
    // The first tried again just now, so the second is the one that was forgotten.
    assert!(sources.enter(address(1), at(0)).is_err());
    let forgotten = sources.enter(address(2), at(0)).expect("forgotten");
    sources.leave(forgotten, false);
    assert_eq!(sources.prefix(stays), Some(IpNet::from(address(0))), "it has a connection");
    sources.leave(stays, false);
}

/// What a table must do, by a map.
#[derive(Default)]
struct Model(HashMap<IpAddr, (u32, u32)>);

proptest! {
    #[test]
    fn the_table_counts_as_a_map_does(
        steps in proptest::collection::vec((0_u8..4, 0_u8..12, any::<prop::sample::Index>()), 1..600),
    ) {
        const CONNECTIONS: usize = 24;
        let limits = ClientLimits {
            source_connections: Some(7),
            source_incomplete_handshakes: Some(4),
            ..LIMITS
        };
        let mut sources = Sources::new(CONNECTIONS, &limits, 1);
        let mut model = Model::default();
        let mut open: Vec<(IpAddr, Source, bool)> = Vec::new();
        for (step, host, index) in steps {
            let address = IpAddr::from([192, 0, 2, host]);
            match step {
                0 | 1 if open.len() < CONNECTIONS => {
                    let (connections, incomplete) = model.0.entry(address).or_default();
                    let result = sources.enter(address, at(0));
                    prop_assert_eq!(result.is_ok(), *connections < 7 && *incomplete < 4);
                    if let Ok(source) = result {
                        (*connections, *incomplete) = (*connections + 1, *incomplete + 1);
                        prop_assert_eq!(sources.prefix(source), Some(IpNet::from(address)));
                        open.push((address, source, false));
                    }
                }
                2 if !open.is_empty() => {
                    let place = index.index(open.len());
                    let (address, source, complete) = &mut open[place];
                    if !*complete {
                        *complete = true;
                        sources.complete_handshake(*source);
                        model.0.entry(*address).or_default().1 -= 1;
                    }
                }
                3 if !open.is_empty() => {
                    let (address, source, complete) = open.swap_remove(index.index(open.len()));
                    sources.leave(source, complete);
                    let (connections, incomplete) = model.0.entry(address).or_default();
                    *connections -= 1;
                    *incomplete -= u32::from(!complete);
                }
                _ => {}
            }
            let with_connections = model.0.values().filter(|(connections, _)| *connections > 0);
            prop_assert_eq!(sources.with_connections(), with_connections.count());
        }
    }
}
