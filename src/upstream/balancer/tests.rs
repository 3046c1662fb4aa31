use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::endpoint::Endpoint;
use crate::upstream::status::Availability;
use crate::upstream::{Backend, HashBy};

const ENGINES: usize = 4;
const NOW: Moment = Moment::from_nanoseconds(0);

fn backends(ports: impl IntoIterator<Item = u16>) -> Vec<Backend> {
    let backend = |port| Backend::new(Endpoint::Inet(([127, 0, 0, 1], port).into()), ENGINES);
    ports.into_iter().map(backend).collect()
}

/// A pool whose backends are told apart by port.
fn pool(balance: Balance, ports: impl IntoIterator<Item = u16>) -> Pool {
    Pool { balance, ..Pool::new("web", backends(ports)) }
}

fn weighted(balance: Balance, weights: &[u16]) -> Pool {
    let mut pool = pool(balance, 1..=weights.len() as u16);
    for (backend, weight) in pool.backends.iter_mut().zip(weights) {
        backend.weight = *weight;
    }
    if let Balance::Maglev(_) = pool.balance {
        pool.balance = Pool::maglev(HashBy::Source, &pool.backends);
    }
    pool
}

fn maglev(ports: impl IntoIterator<Item = u16>) -> Balance {
    Pool::maglev(HashBy::Source, &backends(ports))
}

/// The pool that a reload puts in the place of `old`.
fn after(old: &Pool, ports: impl IntoIterator<Item = u16>) -> Pool {
    let mut new = pool(old.balance.clone(), ports);
    for backend in &mut new.backends {
        if let Some(kept) = old.backends.iter().find(|kept| kept.endpoint == backend.endpoint) {
            backend.status = Arc::clone(&kept.status);
        }
    }
    new
}

fn set(pool: &Pool, place: usize, standing: Standing) {
    pool.backends[place].status.set_standing(standing);
}

fn down(pool: &Pool, place: usize) {
    set(pool, place, Standing { availability: Availability::Down, ..Standing::INITIAL });
}

/// Of this many servers.
fn any_balance(count: usize) -> impl Strategy<Value = Balance> {
    prop_oneof![
        Just(Balance::RoundRobin),
        Just(Balance::LeastConnections),
        Just(Balance::RandomTwo),
        Just(maglev(1..=count as u16)),
    ]
}

fn client(number: u32) -> Client<'static> {
    Client { source: IpAddr::from(number.to_be_bytes()), server_name: None }
}

fn choice_at(balancer: &mut Balancer, tried: &Tried, now: Moment) -> Choice {
    balancer.pick(tried, &client(7), now)
}

fn choice(balancer: &mut Balancer, tried: &Tried) -> Choice {
    choice_at(balancer, tried, NOW)
}

fn picked_for(balancer: &mut Balancer, number: u32) -> usize {
    match balancer.pick(&Tried::NONE, &client(number), NOW) {
        Choice::Server(place) => place,
        other => panic!("{other:?}"),
    }
}

fn picked(balancer: &mut Balancer) -> usize {
    let backend = picked_for(balancer, 7);
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
    let firsts: Vec<Vec<usize>> = (0..4)
        .map(|engine| {
            let mut balancer = Balancer::new(&pool, engine);
            (0..3).map(|_| picked(&mut balancer)).collect()
        })
        .collect();
    assert_eq!(firsts, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
}

#[test]
fn turns_of_a_heavy_server_lie_apart() {
    // The example of nginx (ngx_http_upstream_round_robin.c).
    let mut balancer = Balancer::new(&weighted(Balance::RoundRobin, &[5, 1, 1]), 0);
    let order: Vec<usize> = (0..7).map(|_| picked(&mut balancer)).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn a_dead_backend_does_not_unbalance_the_others() {
    let mut balancer = Balancer::new(&pool(Balance::RoundRobin, 1..=4), 0);
    let mut counts = [0_i32; 4];
    for _ in 0..300 {
        let mut tried = Tried::NONE;
        let mut taken = picked(&mut balancer);
        if taken == 0 {
            tried.insert(0);
            let Choice::Server(other) = choice(&mut balancer, &tried) else { panic!("another") };
            taken = other;
        }
        counts[taken] += 1;
    }
    assert_eq!(counts[0], 0);
    assert!(counts[1..].iter().all(|count| (count - 100).abs() <= 1), "{counts:?}");
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
fn open_connections_are_in_proportion_to_weights() {
    let mut balancer = Balancer::new(&weighted(Balance::LeastConnections, &[1, 2, 5]), 0);
    for _ in 0..80 {
        picked(&mut balancer);
    }
    assert_eq!([0, 1, 2].map(|place| balancer.open(place)), [10, 20, 50]);
}

#[test]
fn the_better_of_two_keeps_open_connections_nearly_even() {
    let mut balancer = Balancer::new(&pool(Balance::RandomTwo, 1..=10), 0);
    for _ in 0..10_000 {
        picked(&mut balancer);
    }
    let open: Vec<u64> = (0..10).map(|place| balancer.open(place)).collect();
    // By chance alone the extremes of ten would lie some 3 × √1,000 ≈ 100 apart.
    assert!(open.iter().all(|open| (995..=1_005).contains(open)), "{open:?}");
}

#[test]
fn the_better_of_two_goes_by_weight_too() {
    let mut balancer = Balancer::new(&weighted(Balance::RandomTwo, &[1, 3]), 0);
    for _ in 0..4_000 {
        picked(&mut balancer);
    }
    assert!((990..=1_010).contains(&balancer.open(0)), "{}", balancer.open(0));
}

#[test]
fn a_client_keeps_its_server_on_every_engine() {
    let pool = pool(maglev(1..=5), 1..=5);
    let mut balancers: Vec<_> = (0..ENGINES).map(|engine| Balancer::new(&pool, engine)).collect();
    for number in 0..200 {
        let first = picked_for(&mut balancers[0], number);
        balancers[0].opened(first);
        for balancer in &mut balancers {
            assert_eq!(picked_for(balancer, number), first);
        }
    }
}

#[test]
fn clients_of_a_server_that_is_out_spread_over_the_others_and_come_back() {
    let pool = pool(maglev(1..=4), 1..=4);
    let mut balancer = Balancer::new(&pool, 0);
    let of_all = |balancer: &mut Balancer| -> Vec<usize> {
        (0..4_000).map(|number| picked_for(balancer, number)).collect()
    };
    let before = of_all(&mut balancer);
    down(&pool, 2);
    let during = of_all(&mut balancer);
    let mut taken_over = [0; 4];
    for (before, during) in before.iter().zip(&during) {
        if *before == 2 {
            taken_over[*during] += 1;
        } else {
            assert_eq!(before, during, "nobody else moves");
        }
    }
    assert_eq!(taken_over[2], 0);
    let others = [taken_over[0], taken_over[1], taken_over[3]];
    assert!(others.iter().all(|count| (200..500).contains(count)), "{taken_over:?}");
    set(&pool, 2, Standing::INITIAL);
    assert_eq!(of_all(&mut balancer), before);
}

#[test]
fn a_backup_gets_connections_only_while_no_other_takes_any() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::RandomTwo] {
        let mut pool = pool(balance, 1..=3);
        pool.backends[2].backup = true;
        let mut balancer = Balancer::new(&pool, 0);
        assert!((0..20).all(|_| picked(&mut balancer) != 2));
        down(&pool, 0);
        assert!((0..20).all(|_| picked(&mut balancer) == 1));
        down(&pool, 1);
        assert!((0..20).all(|_| picked(&mut balancer) == 2));
        set(&pool, 0, Standing::INITIAL);
        assert!((0..20).all(|_| picked(&mut balancer) == 0));
    }
}

#[test]
fn a_backup_of_maglev_is_found_by_the_same_hash() {
    let mut backends = backends(1..=3);
    (backends[1].backup, backends[2].backup) = (true, true);
    let balance = Pool::maglev(HashBy::Source, &backends);
    let pool = Pool { balance, ..Pool::new("web", backends) };
    let mut balancer = Balancer::new(&pool, 0);
    assert!((0..100).all(|number| picked_for(&mut balancer, number) == 0));
    down(&pool, 0);
    let mut of = |number| picked_for(&mut balancer, number);
    let chosen: Vec<usize> = (0..100).map(&mut of).collect();
    assert!(chosen.contains(&1) && chosen.contains(&2) && !chosen.contains(&0));
    assert_eq!((0..100).map(&mut of).collect::<Vec<_>>(), chosen);
}

#[test]
fn servers_that_failed_make_way_for_backups() {
    let mut pool = pool(Balance::RoundRobin, 1..=2);
    pool.backends[1].backup = true;
    let mut balancer = Balancer::new(&pool, 0);
    let mut tried = Tried::NONE;
    tried.insert(0);
    assert_eq!(choice(&mut balancer, &tried), Choice::Server(1));
}

#[test]
fn a_weight_of_zero_takes_no_connections() {
    for balance in
        [Balance::RoundRobin, Balance::LeastConnections, Balance::RandomTwo, maglev(1..=3)]
    {
        let mut balancer = Balancer::new(&weighted(balance, &[1, 0, 1]), 0);
        assert!((0..100).all(|number| picked_for(&mut balancer, number) != 1));
    }
}

#[test]
fn a_server_that_takes_no_connections_is_passed_over() {
    for balance in
        [Balance::RoundRobin, Balance::LeastConnections, Balance::RandomTwo, maglev(1..=3)]
    {
        let pool = pool(balance, 1..=3);
        let mut balancer = Balancer::new(&pool, 0);
        for availability in Availability::ALL {
            set(&pool, 1, Standing { availability, ..Standing::INITIAL });
            let chosen: Vec<usize> =
                (0..60).map(|number| picked_for(&mut balancer, number)).collect();
            assert_eq!(chosen.contains(&1), availability == Availability::Up, "{chosen:?}");
        }
    }
}

#[test]
fn an_agent_changes_the_weight() {
    let pool = pool(Balance::RoundRobin, 1..=2);
    let mut balancer = Balancer::new(&pool, 0);
    set(&pool, 1, Standing { weight_percent: 25, ..Standing::INITIAL });
    for _ in 0..100 {
        picked(&mut balancer);
    }
    assert_eq!([balancer.open(0), balancer.open(1)], [80, 20]);
    // What it was owed before does not starve it or anybody now.
    set(&pool, 1, Standing { weight_percent: 1_000, ..Standing::INITIAL });
    let order: Vec<usize> = (0..22).map(|_| picked(&mut balancer)).collect();
    assert_eq!(order.iter().filter(|place| **place == 0).count(), 2, "{order:?}");
}

#[test]
fn an_agent_changes_the_limit_and_takes_it_back() {
    let pool = pool(Balance::RoundRobin, 1..=1);
    let mut balancer = Balancer::new(&pool, 0);
    let connections_max = Some(2 * ENGINES as u32);
    set(&pool, 0, Standing { connections_max, ..Standing::INITIAL });
    assert_eq!([picked(&mut balancer), picked(&mut balancer)], [0, 0]);
    assert_eq!(choice(&mut balancer, &Tried::NONE), Choice::AllFull);
    set(&pool, 0, Standing::INITIAL);
    assert_eq!(picked(&mut balancer), 0);
}

#[test]
fn a_full_server_is_passed_over_and_full_servers_make_clients_wait_rather_than_take_a_backup() {
    for balance in
        [Balance::RoundRobin, Balance::LeastConnections, Balance::RandomTwo, maglev(1..=3)]
    {
        let mut pool = pool(balance, 1..=3);
        pool.backends[2].backup = true;
        if let Balance::Maglev(_) = pool.balance {
            pool.balance = Pool::maglev(HashBy::Source, &pool.backends);
        }
        for backend in &mut pool.backends[..2] {
            backend.connections_max = Some(2 * ENGINES as u32);
        }
        let mut balancer = Balancer::new(&pool, 1);
        for _ in 0..4 {
            assert_ne!(picked(&mut balancer), 2);
        }
        assert_eq!([0, 1].map(|place| balancer.open(place)), [2, 2]);
        assert_eq!(choice(&mut balancer, &Tried::NONE), Choice::AllFull);
        balancer.closed(1);
        assert_eq!(choice(&mut balancer, &Tried::NONE), Choice::Server(1));
        balancer.opened(1);
        // With one failed and the other full, there is still a place to wait for.
        let mut tried = Tried::NONE;
        tried.insert(0);
        assert_eq!(choice(&mut balancer, &tried), Choice::AllFull);
        tried.insert(1);
        assert_eq!(choice(&mut balancer, &tried), Choice::Server(2));
    }
}

#[test]
fn a_server_that_came_back_gets_its_weight_little_by_little() {
    let mut pool = pool(Balance::RoundRobin, 1..=2);
    pool.slow_start = Duration::from_secs(100);
    let mut balancer = Balancer::new(&pool, 0);
    let seconds = |seconds: u64| Moment::from_nanoseconds(seconds * 1_000_000_000);
    set(&pool, 1, Standing { up_since: Some(seconds(1_000)), ..Standing::INITIAL });
    let mut share = |at: u64| {
        let mut choose = || choice_at(&mut balancer, &Tried::NONE, seconds(at));
        (0..202).filter(|_| choose() == Choice::Server(1)).count()
    };
    assert_eq!(share(1_000), 2, "a hundredth next to the whole");
    assert!((65..=69).contains(&share(1_050)), "a half next to the whole");
    assert_eq!(share(1_100), 101);
    assert_eq!(share(5_000), 101);
}

#[test]
fn a_server_that_came_back_gets_its_clients_little_by_little_and_keeps_them() {
    let mut pool = pool(maglev(1..=2), 1..=2);
    pool.slow_start = Duration::from_secs(100);
    let mut balancer = Balancer::new(&pool, 0);
    let seconds = |seconds: u64| Moment::from_nanoseconds(seconds * 1_000_000_000);
    let mut of_second = |at: u64| -> Vec<u32> {
        let is_second = |number: &u32| {
            balancer.pick(&Tried::NONE, &client(*number), seconds(at)) == Choice::Server(1)
        };
        (0..2_000).filter(is_second).collect()
    };
    let all = of_second(0);
    set(&pool, 1, Standing { up_since: Some(seconds(1_000)), ..Standing::INITIAL });
    let mut before = Vec::new();
    for (at, share) in [(1_010, 0.1), (1_050, 0.5), (1_080, 0.8), (1_100, 1.0)] {
        let now = of_second(at);
        let part = now.len() as f64 / all.len() as f64;
        assert!((part - share).abs() < 0.05, "{part} of its clients after {at}");
        assert!(before.iter().all(|client| now.contains(client)), "none goes back");
        before = now;
    }
    assert_eq!(before, all);
}

#[test]
fn a_server_alone_in_its_slow_start_takes_every_client() {
    let mut pool = pool(maglev(1..=2), 1..=2);
    pool.slow_start = Duration::from_secs(100);
    down(&pool, 0);
    set(&pool, 1, Standing { up_since: Some(NOW), ..Standing::INITIAL });
    let mut balancer = Balancer::new(&pool, 0);
    assert!((0..200).all(|number| picked_for(&mut balancer, number) == 1));
}

#[test]
fn a_pool_without_backends_yields_nobody() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::RandomTwo, maglev([])]
    {
        let mut balancer = Balancer::new(&pool(balance, []), 3);
        assert_eq!(choice(&mut balancer, &Tried::NONE), Choice::Nobody);
    }
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
    let new = after(&old, [3, 2, 1]);
    let mut balancer = Balancer::new(&old, 0);
    picked(&mut balancer);
    // Ports 2 and 3 are next.
    let mut carried = balancer.carry_over(&old, &new);
    assert_eq!([picked(&mut carried), picked(&mut carried), picked(&mut carried)], [1, 0, 2]);
}

#[test]
fn the_parts_of_a_limit_come_to_the_limit_and_are_never_nothing() {
    for (limit, engines) in [(0, 3), (1, 1), (7, 3), (9, 3), (1_000_000, 7)] {
        let parts: Vec<u32> = (0..engines).map(|engine| share_of(limit, engine, engines)).collect();
        assert_eq!(parts.iter().sum::<u32>(), limit, "{parts:?}");
        assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
    }
    assert_eq!([0, 1, 2].map(|engine| share_of(2, engine, 3)), [1, 1, 1]);
}

proptest! {
    #[test]
    fn every_backend_is_tried_once_before_none(
        (count, balance) in
            (1..=Pool::BACKENDS_MAX).prop_flat_map(|count| (Just(count), any_balance(count))),
        engine in 0..ENGINES,
        open in proptest::collection::vec(0_u32..5, Pool::BACKENDS_MAX),
    ) {
        let mut balancer = Balancer::new(&pool(balance, 1..=count as u16), engine);
        for (backend, open) in open.iter().take(count).enumerate() {
            (0..*open).for_each(|_| balancer.opened(backend));
        }
        let mut tried = Tried::NONE;
        for _ in 0..count {
            let Choice::Server(backend) = choice(&mut balancer, &tried) else {
                return Err(TestCaseError::fail("a server is left"));
            };
            prop_assert!(backend < count);
            prop_assert!(!tried.contains(backend));
            tried.insert(backend);
        }
        prop_assert_eq!(tried.count(), count);
        prop_assert_eq!(choice(&mut balancer, &tried), Choice::Nobody);
    }

    #[test]
    fn round_robin_is_in_exact_proportion(
        weights in proptest::collection::vec(0_u16..10, 1..20),
        engine in 0..ENGINES,
        rounds in 1_u64..5,
    ) {
        let sum = weights.iter().map(|weight| u64::from(*weight)).sum::<u64>();
        prop_assume!(sum > 0);
        let mut balancer = Balancer::new(&weighted(Balance::RoundRobin, &weights), engine);
        for _ in 0..rounds * sum {
            picked(&mut balancer);
        }
        for (backend, weight) in weights.iter().enumerate() {
            prop_assert_eq!(balancer.open(backend), rounds * u64::from(*weight));
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
    fn no_choice_exceeds_a_limit(
        (count, balance) in (1_usize..=8).prop_flat_map(|count| (Just(count), any_balance(count))),
        limits in proptest::collection::vec(proptest::option::of(1_u32..20), 8),
        engine in 0..ENGINES,
    ) {
        let mut pool = pool(balance, 1..=count as u16);
        for (backend, limit) in pool.backends.iter_mut().zip(&limits) {
            backend.connections_max = *limit;
        }
        let mut balancer = Balancer::new(&pool, engine);
        for number in 0..100 {
            match balancer.pick(&Tried::NONE, &client(number), NOW) {
                Choice::Server(place) => balancer.opened(place),
                Choice::AllFull => break,
                Choice::Nobody => prop_assert!(false, "all are up"),
            }
        }
        for (place, limit) in limits.iter().enumerate().take(count) {
            if let Some(limit) = limit {
                prop_assert!(balancer.open(place) <= share_of(*limit, engine, ENGINES).into());
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
