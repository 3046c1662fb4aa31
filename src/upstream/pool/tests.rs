use proptest::prelude::*;

use super::*;
use crate::upstream::status::{Availability, Standing};

const ENGINES: usize = 4;

/// A pool whose backends are told apart by port.
fn pool(balance: Balance, ports: impl IntoIterator<Item = u16>) -> Pool {
    let backends = ports
        .into_iter()
        .map(|port| Backend::new(Endpoint::Inet(([127, 0, 0, 1], port).into()), ENGINES))
        .collect();
    Pool { balance, ..Pool::new("web", backends) }
}

/// The pool that a reload puts in the place of `old`.
fn after(old: &Pool, ports: impl IntoIterator<Item = u16>) -> Pool {
    let mut new = pool(old.balance, ports);
    for backend in &mut new.backends {
        if let Some(kept) = old.backends.iter().find(|kept| kept.endpoint == backend.endpoint) {
            backend.status = Arc::clone(&kept.status);
        }
    }
    new
}

fn any_balance() -> impl Strategy<Value = Balance> {
    prop_oneof![Just(Balance::RoundRobin), Just(Balance::LeastConnections)]
}

fn picked(balancer: &mut Balancer) -> usize {
    let backend = balancer.pick(&Tried::NONE).expect("nothing was tried");
    balancer.opened(backend);
    backend
}

#[test]
fn round_robin_takes_each_in_turn() {
    let mut balancer = Balancer::new(&pool(Balance::RoundRobin, 1..=3), 0);
    let order: Vec<usize> = (0..6).map(|_| picked(&mut balancer)).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn engines_begin_the_rotation_apart() {
    let pool = pool(Balance::RoundRobin, 1..=3);
    let firsts: Vec<usize> =
        (0..4).map(|engine| picked(&mut Balancer::new(&pool, engine))).collect();
    assert_eq!(firsts, [0, 1, 2, 0]);
}

#[test]
fn a_dead_backend_does_not_unbalance_the_others() {
    let mut balancer = Balancer::new(&pool(Balance::RoundRobin, 1..=4), 0);
    let mut counts = [0; 4];
    for _ in 0..300 {
        let mut tried = Tried::NONE;
        let first = balancer.pick(&tried).unwrap();
        let taken = if first == 0 {
            tried.insert(0);
            balancer.pick(&tried).unwrap()
        } else {
            first
        };
        counts[taken] += 1;
    }
    assert_eq!(counts, [0, 100, 100, 100]);
}

#[test]
fn least_connections_prefers_the_backend_that_was_freed() {
    let mut balancer = Balancer::new(&pool(Balance::LeastConnections, 1..=3), 0);
    for _ in 0..9 {
        picked(&mut balancer);
    }
    balancer.closed(1);
    assert_eq!(picked(&mut balancer), 1);
}

#[test]
fn least_connections_breaks_ties_by_rotation() {
    let mut balancer = Balancer::new(&pool(Balance::LeastConnections, 1..=3), 0);
    // Every connection ends before the next one comes: counts are always equal.
    let order: Vec<usize> = (0..6)
        .map(|_| {
            let backend = picked(&mut balancer);
            balancer.closed(backend);
            backend
        })
        .collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_server_that_takes_no_connections_is_passed_over() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections] {
        let pool = pool(balance, 1..=3);
        let mut balancer = Balancer::new(&pool, 0);
        let set = |availability| {
            let standing = Standing { availability, ..Standing::INITIAL };
            pool.backends[1].status.set_standing(standing);
        };
        for out in Availability::ALL {
            set(out);
            let chosen: Vec<usize> = (0..6).map(|_| picked(&mut balancer)).collect();
            assert_eq!(chosen.contains(&1), out == Availability::Up, "{out:?}: {chosen:?}");
        }
    }
}

#[test]
fn a_pool_without_backends_yields_none() {
    let mut balancer = Balancer::new(&pool(Balance::RoundRobin, []), 3);
    assert_eq!(balancer.pick(&Tried::NONE), None);
}

#[test]
fn a_reload_keeps_the_counts_of_backends_that_stay() {
    let old = pool(Balance::LeastConnections, [1, 2, 3]);
    let new = after(&old, [9, 3, 1]);
    let mut balancer = Balancer::new(&old, 0);
    for backend in [0, 1, 1, 2, 2, 2] {
        balancer.opened(backend);
    }
    let carried = balancer.carry_over(&old, &new);
    let open: Vec<u64> = (0..3).map(|backend| carried.open(backend)).collect();
    assert_eq!(open, [0, 3, 1]);
    // A connection of before the reload ends: both know.
    balancer.closed(2);
    assert_eq!(carried.open(1), 2);
}

#[test]
fn a_reload_goes_on_with_the_rotation() {
    let old = pool(Balance::RoundRobin, [1, 2, 3]);
    let new = after(&old, [3, 2, 1, 4]);
    let mut balancer = Balancer::new(&old, 0);
    picked(&mut balancer);
    // Port 2 is next.
    let mut carried = balancer.carry_over(&old, &new);
    assert_eq!(picked(&mut carried), 1);
}

proptest! {
    #[test]
    fn every_backend_is_tried_once_before_none(
        balance in any_balance(),
        count in 1..=Pool::BACKENDS_MAX,
        rotation in 0..ENGINES,
        open in proptest::collection::vec(0_u32..5, Pool::BACKENDS_MAX),
    ) {
        let mut balancer = Balancer::new(&pool(balance, 1..=count as u16), rotation);
        for (backend, open) in open.iter().take(count).enumerate() {
            (0..*open).for_each(|_| balancer.opened(backend));
        }
        let mut tried = Tried::NONE;
        for _ in 0..count {
            let backend = balancer.pick(&tried).unwrap();
            prop_assert!(backend < count);
            prop_assert!(!tried.contains(backend));
            tried.insert(backend);
        }
        prop_assert_eq!(tried.count(), count);
        prop_assert_eq!(balancer.pick(&tried), None);
    }

    #[test]
    fn round_robin_is_even(count in 1_usize..=20, rotation in 0..ENGINES, rounds in 1_u64..10) {
        let mut balancer = Balancer::new(&pool(Balance::RoundRobin, 1..=count as u16), rotation);
        for _ in 0..rounds * count as u64 {
            picked(&mut balancer);
        }
        for backend in 0..count {
            prop_assert_eq!(balancer.open(backend), rounds);
        }
    }

    #[test]
    fn least_connections_never_exceeds_the_minimum_by_more_than_one(
        count in 1_usize..=20,
        ends in proptest::collection::vec(proptest::option::of(any::<prop::sample::Index>()), 0..200),
    ) {
        let mut balancer = Balancer::new(&pool(Balance::LeastConnections, 1..=count as u16), 0);
        let mut connections = Vec::new();
        for end in ends {
            match end {
                Some(index) if !connections.is_empty() => {
                    let backend = connections.swap_remove(index.index(connections.len()));
                    balancer.closed(backend);
                }
                _ => {
                    let backend = picked(&mut balancer);
                    connections.push(backend);
                    let least = (0..count).map(|other| balancer.open(other)).min().unwrap();
                    prop_assert!(balancer.open(backend) <= least + 1);
                }
            }
        }
    }

    #[test]
    fn a_reload_loses_no_connection_to_a_backend_that_stays(
        old_ports in proptest::collection::hash_set(1_u16..40, 1..20),
        new_ports in proptest::collection::hash_set(1_u16..40, 1..20),
        opens in proptest::collection::vec(any::<prop::sample::Index>(), 0..100),
    ) {
        let old = pool(Balance::LeastConnections, old_ports);
        let new = after(&old, new_ports);
        let mut balancer = Balancer::new(&old, 0);
        let connections: Vec<usize> =
            opens.iter().map(|index| index.index(old.backends.len())).collect();
        connections.iter().for_each(|backend| balancer.opened(*backend));

        let carried = balancer.carry_over(&old, &new);
        connections.iter().for_each(|backend| balancer.closed(*backend));
        for backend in 0..new.backends.len() {
            prop_assert_eq!(carried.open(backend), 0);
        }
    }
}
