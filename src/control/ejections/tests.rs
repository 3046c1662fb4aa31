//! On counts and moments made up here.

use std::num::NonZeroU32;

use super::*;
use crate::endpoint::Endpoint;
use crate::upstream::opinions::Wish;
use crate::upstream::status::Availability;

const EJECTION: Ejection = Ejection {
    after: NonZeroU32::new(5).expect("above 0"),
    time: Duration::from_secs(10),
    share_max_percent: 50,
};

fn at(seconds: u64) -> Moment {
    Moment::from_nanoseconds(seconds * 1_000_000_000)
}

fn pool(servers: u16) -> Arc<Pool> {
    let backend = |port| Backend::new(Endpoint::Inet(([127, 0, 0, 1], port).into()), 1);
    let ejection = Some(EJECTION);
    Arc::new(Pool { ejection, ..Pool::new("web", (1..=servers).map(backend).collect()) })
}

fn fail(pool: &Pool, server: usize, times: u64) {
    pool.backends[server].status.of_engine(0).failed.add(times);
}

fn state(pool: &Pool, server: usize) -> Availability {
    pool.backends[server].status.standing().availability
}

fn ejections(pool: &Arc<Pool>) -> Ejections {
    let mut ejections = Ejections::default();
    ejections.replace(&[Arc::clone(pool)], at(0));
    ejections
}

#[test]
fn a_server_to_which_most_connections_fail_is_ejected_and_comes_back() {
    let pool = pool(2);
    let mut ejections = ejections(&pool);
    fail(&pool, 0, 4);
    assert_eq!(ejections.look(at(1)), 0, "too few");
    fail(&pool, 0, 1);
    assert_eq!(ejections.look(at(1)), 1);
    assert_eq!(state(&pool, 0), Availability::Ejected);
    ejections.look(at(10));
    assert_eq!(state(&pool, 0), Availability::Ejected);
    ejections.look(at(11));
    assert_eq!(state(&pool, 0), Availability::Up);
    assert_eq!(pool.backends[0].status.standing().up_since, Some(at(11)), "it begins slowly");
}

#[test]
fn who_fails_again_after_an_ejection_is_out_for_twice_as_long() {
    let pool = pool(2);
    let mut ejections = ejections(&pool);
    fail(&pool, 0, 5);
    ejections.look(at(1));
    ejections.look(at(11));
    fail(&pool, 0, 5);
    ejections.look(at(12));
    ejections.look(at(31));
    assert_eq!(state(&pool, 0), Availability::Ejected);
    ejections.look(at(32));
    assert_eq!(state(&pool, 0), Availability::Up);
}

#[test]
fn early_resets_count_as_failures() {
    let pool = pool(2);
    let mut ejections = ejections(&pool);
    let counts = pool.backends[0].status.of_engine(0);
    counts.connected.add(5);
    counts.reset_early.add(5);
    assert_eq!(ejections.look(at(1)), 1);
}

#[test]
fn a_server_that_mostly_serves_stays() {
    let pool = pool(2);
    let mut ejections = ejections(&pool);
    pool.backends[0].status.of_engine(0).connected.add(100);
    fail(&pool, 0, 50);
    assert_eq!(ejections.look(at(1)), 0);
}

#[test]
fn no_more_than_the_share_of_a_pool_is_ejected_and_never_the_last() {
    for (servers, ejected) in [(1, 0), (2, 1), (5, 2)] {
        let pool = pool(servers);
        let mut ejections = ejections(&pool);
        for server in 0..pool.backends.len() {
            fail(&pool, server, 100);
        }
        assert_eq!(ejections.look(at(1)), ejected, "of {servers}");
        assert_eq!(ejections.look(at(2)), 0, "of {servers}");
    }
}

#[test]
fn a_server_without_weight_counts_for_nothing_beside_the_last() {
    let mut pool = pool(3);
    for backend in &mut Arc::get_mut(&mut pool).expect("ours").backends[1..] {
        backend.weight = 0;
    }
    fail(&pool, 0, 100);
    assert_eq!(ejections(&pool).look(at(1)), 0);
}

#[test]
fn who_is_ejected_comes_back_at_once_when_all_others_are_out() {
    let pool = pool(2);
    let mut ejections = ejections(&pool);
    fail(&pool, 0, 5);
    ejections.look(at(1));
    assert_eq!(state(&pool, 0), Availability::Ejected);
    pool.backends[1].status.change(at(2), |opinions| opinions.check_fails = true);
    ejections.look(at(2));
    assert_eq!(state(&pool, 0), Availability::Up);
}

#[test]
fn failures_of_long_ago_are_forgotten() {
    let pool = pool(2);
    let mut ejections = ejections(&pool);
    fail(&pool, 0, 4);
    ejections.look(at(10));
    fail(&pool, 0, 4);
    assert_eq!(ejections.look(at(11)), 0);
}

#[test]
fn who_is_taken_out_by_others_is_left_to_them() {
    let pool = pool(2);
    let mut ejections = ejections(&pool);
    pool.backends[0].status.change(at(0), |opinions| opinions.operator = Wish::Maintenance);
    fail(&pool, 0, 100);
    assert_eq!(ejections.look(at(1)), 0);
    assert_eq!(state(&pool, 0), Availability::Maintenance);
}

#[test]
fn a_reload_without_ejection_lets_servers_back() {
    let pool = pool(2);
    let mut ejections = ejections(&pool);
    fail(&pool, 0, 5);
    ejections.look(at(1));
    ejections.replace(&[], at(2));
    assert_eq!(state(&pool, 0), Availability::Up);
}
