//! Turn by turn, against sockets of the test's own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::*;
use crate::upstream::source_address::SourceAddress;
use crate::upstream::status::{Availability, Standing};

/// How many turns anything may take: each waits for an interval at most, or for a timeout.
const TURNS_MAX: usize = 2_000;

const CHECK: Check = Check {
    interval: Duration::from_millis(10),
    timeout: Duration::from_secs(60),
    rise: 2,
    fall: 3,
    jitter_percent: 10,
    port: None,
    script: Script { send: Vec::new(), expect: Expect::Nothing },
    agent_port: None,
};

struct Fixture {
    probing: Probing,
    /// What the control thread would hold.
    wake: UnixStream,
}

fn fixture() -> Fixture {
    let (wake, woken) = UnixStream::pair().expect("a pair");
    woken.set_nonblocking(true).expect("non-blocking");
    let probing = Probing {
        woken,
        orders: Arc::default(),
        cells: Arc::default(),
        node: "node".to_owned(),
        watches: Vec::new(),
        due: BinaryHeap::new(),
        probes: Vec::new(),
        paused_until: None,
    };
    Fixture { probing, wake }
}

impl Fixture {
    fn watch(pools: &[&Arc<Pool>]) -> Self {
        let mut fixture = fixture();
        fixture.replace(pools);
        fixture
    }

    fn replace(&mut self, pools: &[&Arc<Pool>]) {
        let pools: Vec<_> = pools.iter().map(|pool| Arc::clone(pool)).collect();
        self.probing.replace(&pools, Moment::now());
    }

    fn turn_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        for _ in 0..TURNS_MAX {
            if condition() {
                return;
            }
            assert!(!self.probing.turn().expect("a turn"), "nobody tells it to stop");
        }
        panic!("{what} does not happen");
    }
}

fn pool(addresses: &[SocketAddr], check: Check) -> Arc<Pool> {
    let backend = |address: &SocketAddr| Backend::new(Endpoint::Inet(*address), 1);
    let backends = addresses.iter().map(backend).collect();
    Arc::new(Pool { check: Some(Arc::new(check)), ..Pool::new("web", backends) })
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    (listener, address)
}

fn status(pool: &Pool) -> &ServerStatus {
    &pool.backends[0].status
}

fn state(pool: &Pool) -> Availability {
    status(pool).standing().availability
}

fn is(pool: &Pool, expected: Availability) -> impl Fn() -> bool {
    move || state(pool) == expected
}

#[test]
fn a_check_comes_from_the_address_that_clients_are_sent_from() {
    let (listener, address) = listen();
    listener.set_nonblocking(true).expect("non-blocking");
    let ours = Ipv4Addr::new(127, 0, 0, 2);
    let mut pool = pool(&[address], CHECK);
    Arc::get_mut(&mut pool).expect("one owner").source =
        SourceAddress::Own { ipv4: Some(ours), ipv6: None };
    let mut came_from = None;
    Fixture::watch(&[&pool]).turn_until("a check comes", || {
        came_from = listener.accept().ok().map(|(_, peer)| peer.ip());
        came_from.is_some()
    });
    assert_eq!(came_from, Some(ours.into()));
}

#[test]
fn a_server_that_nobody_listens_for_is_out_after_its_failures_and_back_after_its_successes() {
    let (listener, address) = listen();
    let pool = pool(&[address], CHECK);
    let mut fixture = Fixture::watch(&[&pool]);
    let passed = || status(&pool).checks().passed.value();
    fixture.turn_until("two checks pass", || passed() >= 2);
    assert_eq!(status(&pool).standing(), Standing::INITIAL, "it was never out");

    drop(listener);
    fixture.turn_until("it is out", || state(&pool) == Availability::Down);
    assert!(status(&pool).checks().failed.value() >= 3);
    assert_eq!(status(&pool).checks().taken_out.value(), 1);
    let cause = status(&pool).remarks().check_failure.clone().expect("a cause");
    assert!(cause.starts_with("cannot connect: Connection refused"), "{cause}");

    let before = passed();
    let _listener = TcpListener::bind(address).expect("bind");
    fixture.turn_until("it is back", || state(&pool) == Availability::Up);
    assert_eq!(passed() - before, 2);
    assert!(status(&pool).standing().up_since.is_some(), "it begins slowly");
}

#[test]
fn a_server_that_takes_the_connection_and_says_nothing_fails_at_the_timeout() {
    let (_listener, address) = listen();
    let script = Script { send: b"PING".to_vec(), expect: Expect::Start(b"PONG".to_vec()) };
    let check = Check { script, timeout: Duration::from_millis(20), ..CHECK };
    let pool = pool(&[address], check);
    let mut fixture = Fixture::watch(&[&pool]);
    fixture.turn_until("it is out", || state(&pool) == Availability::Down);
    let cause = status(&pool).remarks().check_failure.clone();
    assert_eq!(cause.as_deref(), Some("no answer within the timeout"));
}

#[test]
fn a_unix_socket_that_is_not_there_fails() {
    let directory = tempfile::tempdir().expect("directory");
    let backend = Backend::new(Endpoint::Unix(directory.path().join("server.sock")), 1);
    let pool = Pool { check: Some(Arc::new(CHECK)), ..Pool::new("web", vec![backend]) };
    let pool = Arc::new(pool);
    let mut fixture = Fixture::watch(&[&pool]);
    fixture.turn_until("it is out", || state(&pool) == Availability::Down);
    let cause = status(&pool).remarks().check_failure.clone().expect("a cause");
    assert!(cause.starts_with("cannot connect: No such file"), "{cause}");
}

/// Lets an agent say `line` to whoever asks it until `condition` holds.
fn agent_says(
    fixture: &mut Fixture,
    agent: &TcpListener,
    line: &str,
    condition: impl Fn() -> bool,
) {
    agent.set_nonblocking(true).expect("non-blocking");
    fixture.turn_until(line, || {
        if let Ok((mut asking, _)) = agent.accept() {
            asking.write_all(line.as_bytes()).expect("write");
        }
        condition()
    });
}

#[test]
fn an_agent_takes_its_server_out_and_in_and_changes_its_weight() {
    let (_listener, address) = listen();
    let (agent, agent_address) = listen();
    let pool = pool(&[address], Check { agent_port: Some(agent_address.port()), ..CHECK });
    let mut fixture = Fixture::watch(&[&pool]);
    let standing = || status(&pool).standing();
    let is = |expected| is(&pool, expected);
    agent_says(&mut fixture, &agent, "down # backup\n", is(Availability::Down));
    agent_says(&mut fixture, &agent, "up drain\n", is(Availability::Drain));
    agent_says(&mut fixture, &agent, "maint\n", is(Availability::Maintenance));
    agent_says(&mut fixture, &agent, "ready 40% maxconn:9\n", is(Availability::Up));
    assert_eq!((standing().weight_percent, standing().connections_max), (40, Some(9)));
}

#[test]
fn an_agent_that_is_not_heard_has_not_changed_its_mind() {
    let (_listener, address) = listen();
    let (agent, agent_address) = listen();
    let pool = pool(&[address], Check { agent_port: Some(agent_address.port()), ..CHECK });
    let mut fixture = Fixture::watch(&[&pool]);
    let is = |expected| is(&pool, expected);
    agent_says(&mut fixture, &agent, "drain\n", is(Availability::Drain));
    let failed = || status(&pool).checks().agent_failed.value();
    agent_says(&mut fixture, &agent, "HTTP/1.1 200 OK\n", || failed() >= 1);
    drop(agent);
    let before = failed();
    fixture.turn_until("it is asked again", || failed() >= before + 2);
    assert_eq!(state(&pool), Availability::Drain);
    let cause = status(&pool).remarks().agent_failure.clone().expect("a cause");
    assert!(cause.starts_with("cannot connect"), "{cause}");
}

#[test]
fn who_is_in_maintenance_is_not_checked() {
    let (listener, address) = listen();
    drop(listener);
    let pool = pool(&[address], CHECK);
    let now = Moment::now();
    status(&pool).change(now, |opinions| opinions.operator = Wish::Maintenance);
    let mut fixture = Fixture::watch(&[&pool]);
    for _ in 0..10 {
        fixture.probing.turn().expect("a turn");
    }
    assert_eq!(status(&pool).checks().failed.value(), 0);
    status(&pool).change(now, |opinions| opinions.operator = Wish::Ready);
    fixture.turn_until("it is out", || state(&pool) == Availability::Down);
}

#[test]
fn what_is_known_survives_a_reload_and_whoever_is_not_checked_any_more_is_taken_for_good() {
    let (listener, address) = listen();
    drop(listener);
    let pool = pool(&[address], CHECK);
    let mut fixture = Fixture::watch(&[&pool]);
    fixture.turn_until("it is out", || state(&pool) == Availability::Down);

    let slower = Check { rise: 5, ..CHECK };
    let reloaded = Arc::new(Pool { check: Some(Arc::new(slower)), ..(*pool).clone() });
    fixture.replace(&[&reloaded]);
    assert_eq!(state(&pool), Availability::Down);
    let _listener = TcpListener::bind(address).expect("bind");
    let passed = || status(&pool).checks().passed.value();
    fixture.turn_until("it is back", || state(&pool) == Availability::Up);
    assert_eq!(passed(), 5, "by the new rule");

    drop(_listener);
    fixture.turn_until("it is out again", || state(&pool) == Availability::Down);
    let unchecked = Arc::new(Pool { check: None, ..(*pool).clone() });
    fixture.replace(&[&unchecked]);
    assert_eq!(state(&pool), Availability::Up);
}

#[test]
fn no_more_checks_than_the_bound_run_at_once_and_the_others_follow() {
    let (_listener, address) = listen();
    // More than fit into the backlog or not: none of them is answered.
    let script = Script { send: Vec::new(), expect: Expect::Line };
    let pools: Vec<_> = (0..PROBES_MAX + 10)
        .map(|_| pool(&[address], Check { script: script.clone(), ..CHECK }))
        .collect();
    let mut fixture = Fixture::watch(&pools.iter().collect::<Vec<_>>());
    let all_due = Moment::now().after(CHECK.interval);
    fixture.probing.begin_due(all_due);
    assert_eq!(fixture.probing.probes.len(), PROBES_MAX);
    fixture.probing.end_late(all_due.after(CHECK.timeout));
    let failed = || pools.iter().filter(|pool| status(pool).checks().failed.value() > 0).count();
    assert_eq!(failed(), PROBES_MAX);
    fixture.probing.begin_due(all_due.after(Duration::from_secs(2)));
    let waiting = |probe: &Probe| status(&pools[probe.watch]).checks().failed.value() == 0;
    assert_eq!(fixture.probing.probes.iter().filter(|probe| waiting(probe)).count(), 10);
    assert!(fixture.probing.cells.checks_late.value() >= 10, "they are counted as late");
}

#[test]
fn it_ends_when_the_way_to_it_is_dropped() {
    let Fixture { mut probing, wake } = fixture();
    drop(wake);
    assert!(probing.turn().expect("a turn"));
}
