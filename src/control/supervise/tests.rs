//! With engines that are threads obeying orders, and signals from a script.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use super::*;
use crate::engine::events::{Event, EventSink, HandshakeFailed, event_queue};
use crate::handshake::FailureReason;

struct Orders(SyncSender<Order<u64>>);

impl EngineControl for Orders {
    type Snapshot = u64;

    fn send(&self, order: Order<u64>) -> Result<(), Order<u64>> {
        match self.0.try_send(order) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(order)) => Err(order),
            // The engine has ended: nobody is left to obey.
            Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }
}

type Engine = RunningEngine<Orders>;

fn engine(
    room: usize,
    body: impl FnOnce(Receiver<Order<u64>>) -> io::Result<()> + Send + 'static,
) -> Engine {
    let (sender, receiver) = sync_channel(room);
    RunningEngine::new(Orders(sender), thread::spawn(move || body(receiver)))
}

/// Ends when told to drain, and hands over what it was told.
fn obedient(told: SyncSender<String>) -> Engine {
    engine(4, move |orders| {
        for order in orders {
            let end = !matches!(order, Order::Reload(_) | Order::EndRefused);
            let text = match order {
                Order::Reload(snapshot) => format!("reload {snapshot}"),
                Order::Drain { .. } => "drain".to_owned(),
                Order::EndRefused => "end refused".to_owned(),
                Order::Stop => "stop".to_owned(),
            };
            told.send(text).expect("the test listens");
            if end {
                return Ok(());
            }
        }
        Ok(())
    })
}

struct Fixture {
    lifecycle: Arc<Lifecycle>,
    cells: Arc<ControlCells>,
    sink: EventSink,
    reload_requests: Arc<ReloadRequests>,
    event_log: Option<EventLog>,
}

impl Fixture {
    fn new() -> Self {
        let (sink, source) = event_queue();
        Self {
            lifecycle: Arc::default(),
            cells: Arc::default(),
            sink,
            reload_requests: Arc::default(),
            event_log: Some(EventLog::new(vec![source], 10, Moment::now())),
        }
    }

    fn supervisor(
        &mut self,
        engines: Vec<Engine>,
        mut reload: impl FnMut(Scope, u64) -> Option<Reloaded<u64>>,
    ) -> Supervisor<Orders, impl FnMut(Scope, u64) -> Attempt<u64>> {
        Supervisor {
            engines,
            reload: move |scope, generation| Attempt {
                reloaded: reload(scope, generation),
                findings: vec![format!("found in {generation}")],
            },
            reload_requests: Arc::clone(&self.reload_requests),
            served: Arc::default(),
            lifecycle: Arc::clone(&self.lifecycle),
            cells: Arc::clone(&self.cells),
            certificates: Arc::default(),
            pools: Arc::default(),
            servers: ServerWatch::default(),
            session_keys: SessionKeys::default(),
            recheck_clients: Box::new(|_| Rechecked::default()),
            renew_pools: Box::new(|| None),
            event_log: self.event_log.take().expect("one supervisor for each fixture"),
            drain_times: AT_ONCE,
        }
    }
}

const AT_ONCE: DrainTimes = DrainTimes { notice: Duration::ZERO, limit: Duration::from_secs(5) };

fn no_reload(_: Scope, _: u64) -> Option<Reloaded<u64>> {
    None
}

fn load(_: Scope, generation: u64) -> Option<Reloaded<u64>> {
    Some(Reloaded {
        snapshot: Arc::new(generation),
        certificates: vec![],
        pools: vec![],
        revocation_lists: vec![],
        served: vec![],
        drain_times: AT_ONCE,
    })
}

const END: Requests = Requests { end: 1, reload: false, certificates_changed: None };
const RELOAD: Requests = Requests { end: 0, reload: true, certificates_changed: None };

/// Signals that arrive one at each look, then none.
fn script(requests: &[Requests]) -> impl FnMut(Duration) -> io::Result<Requests> + use<> {
    let mut requests: VecDeque<Requests> = requests.iter().cloned().collect();
    move |timeout| {
        Ok(requests.pop_front().unwrap_or_else(|| {
            thread::sleep(timeout);
            Requests::default()
        }))
    }
}

#[test]
fn the_first_signal_drains_every_engine_and_the_end_is_as_asked() {
    let mut fixture = Fixture::new();
    let (told, heard) = sync_channel(16);
    let engines = vec![obedient(told.clone()), obedient(told)];
    let ended = fixture.supervisor(engines, no_reload).run(script(&[END]));
    assert_eq!(ended, Ended::AsAsked);
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["drain", "drain"]);
    assert_eq!(fixture.lifecycle.stage(), Stage::Draining);
    assert_eq!(fixture.cells.draining.value(), 1);
}

#[test]
fn with_notice_the_engines_are_told_to_drain_after_everybody_else() {
    let mut fixture = Fixture::new();
    let (told, heard) = sync_channel(16);
    let (lifecycle, cells) = (Arc::clone(&fixture.lifecycle), Arc::clone(&fixture.cells));
    let mut supervisor = fixture.supervisor(vec![obedient(told)], load);
    supervisor.drain_times.notice = Duration::from_millis(300);
    let mut looks = 0;
    let ended = supervisor.run(|timeout| {
        looks += 1;
        match looks {
            1 => return Ok(END),
            // Too late for this one.
            2 => return Ok(RELOAD),
            3 => {
                assert_eq!(lifecycle.stage(), Stage::Draining);
                assert_eq!(cells.draining.value(), 1);
                assert!(heard.try_recv().is_err(), "nobody has told the engine yet");
            }
            _ => {}
        }
        thread::sleep(timeout);
        Ok(Requests::default())
    });
    assert_eq!(ended, Ended::AsAsked);
    assert!(looks > 3, "ended before the notice was over");
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["drain"]);
    assert_eq!(fixture.cells.reloads_succeeded.value(), 0);
}

#[test]
fn a_second_signal_ends_the_notice_too() {
    let mut fixture = Fixture::new();
    let (told, heard) = sync_channel(16);
    let mut supervisor = fixture.supervisor(vec![obedient(told)], no_reload);
    supervisor.drain_times.notice = Duration::from_secs(3600);
    assert_eq!(supervisor.run(script(&[END, END])), Ended::AsAsked);
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["stop"]);
}

#[test]
fn the_second_signal_stops_an_engine_that_still_drains() {
    let mut fixture = Fixture::new();
    let patient = engine(4, |orders| {
        let stop = orders.iter().any(|order| matches!(order, Order::Stop));
        assert!(stop, "told to stop before the way was closed");
        Ok(())
    });
    let ended = fixture.supervisor(vec![patient], no_reload).run(script(&[END, END]));
    assert_eq!(ended, Ended::AsAsked);
}

#[test]
fn the_process_accepts_from_the_start_of_the_loop() {
    let mut fixture = Fixture::new();
    let lifecycle = Arc::clone(&fixture.lifecycle);
    let (told, _heard) = sync_channel(16);
    let supervisor = fixture.supervisor(vec![obedient(told)], no_reload);
    let mut script = script(&[END]);
    supervisor.run(move |timeout| {
        if lifecycle.stage() != Stage::Draining {
            assert_eq!(lifecycle.stage(), Stage::Accepting);
        }
        script(timeout)
    });
}

#[test]
fn a_reload_reaches_every_engine_and_counts_a_generation() {
    let mut fixture = Fixture::new();
    let (told, heard) = sync_channel(16);
    let engines = vec![obedient(told)];
    fixture.supervisor(engines, load).run(script(&[RELOAD, RELOAD, END]));
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["reload 2", "reload 3", "drain"]);
    let cells = &fixture.cells;
    assert_eq!(cells.snapshot_generation.value(), 3);
    assert_eq!(cells.reloads_succeeded.value(), 2);
    assert_eq!(cells.last_reload_succeeded.value(), 1);
}

#[test]
fn a_reload_that_is_refused_changes_nothing_and_is_counted() {
    let mut fixture = Fixture::new();
    let (told, heard) = sync_channel(16);
    let engines = vec![obedient(told)];
    fixture.supervisor(engines, no_reload).run(script(&[RELOAD, END]));
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["drain"]);
    let cells = &fixture.cells;
    assert_eq!(cells.snapshot_generation.value(), 1);
    assert_eq!(cells.reloads_failed.value(), 1);
    assert_eq!(cells.last_reload_succeeded.value(), 0);
}

#[test]
fn who_asked_for_a_reload_is_told_what_became_of_it() {
    type Load = fn(Scope, u64) -> Option<Reloaded<u64>>;
    for (reload, succeeded, generation) in [(load as Load, true, 2), (no_reload as Load, false, 1)]
    {
        let mut fixture = Fixture::new();
        let number = fixture.reload_requests.ask().expect("nobody else asks");
        let (told, _heard) = sync_channel(16);
        fixture.supervisor(vec![obedient(told)], reload).run(script(&[Requests::default(), END]));
        let findings = vec!["found in 2".to_owned()];
        let outcome = ReloadOutcome { succeeded, generation, findings };
        assert_eq!(fixture.reload_requests.outcome(number), Some(outcome));
    }
}

#[test]
fn a_reload_while_draining_is_not_even_tried() {
    let mut fixture = Fixture::new();
    let released = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&released);
    let engine = engine(4, move |orders| {
        assert!(matches!(orders.recv(), Ok(Order::Drain { .. })));
        while !waits.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        Ok(())
    });
    let supervisor = fixture.supervisor(vec![engine], |_, _| panic!("no reload while draining"));
    let mut script = script(&[END, RELOAD]);
    let mut looks = 0;
    supervisor.run(move |timeout| {
        looks += 1;
        if looks > 3 {
            released.store(true, Ordering::Relaxed);
        }
        script(timeout)
    });
}

#[test]
fn an_engine_that_fails_makes_the_others_drain_and_the_end_a_failure() {
    let mut fixture = Fixture::new();
    let (told, heard) = sync_channel(16);
    let failing = engine(4, |_| Err(io::Error::other("no ring")));
    let engines = vec![failing, obedient(told)];
    let ended = fixture.supervisor(engines, no_reload).run(script(&[]));
    assert_eq!(ended, Ended::EngineFailed);
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["drain"]);
}

#[test]
fn an_engine_that_ends_unasked_is_a_failure() {
    let mut fixture = Fixture::new();
    let ended = fixture.supervisor(vec![engine(4, |_| Ok(()))], no_reload).run(script(&[]));
    assert_eq!(ended, Ended::EngineFailed);
}

#[test]
fn orders_that_find_no_room_are_sent_later_and_the_newest_of_a_kind_counts() {
    let mut fixture = Fixture::new();
    let (told, heard) = sync_channel(16);
    let may_read = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&may_read);
    let busy = engine(1, move |orders| {
        while !waits.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        for order in orders {
            match order {
                Order::Reload(snapshot) => told.send(*snapshot).expect("the test listens"),
                _ => return Ok(()),
            }
        }
        Ok(())
    });
    let supervisor = fixture.supervisor(vec![busy], load);
    let mut script = script(&[RELOAD, RELOAD, RELOAD, Requests::default(), END]);
    let mut looks = 0;
    supervisor.run(move |timeout| {
        looks += 1;
        if looks == 4 {
            may_read.store(true, Ordering::Relaxed);
        }
        script(timeout)
    });
    assert_eq!(heard.iter().collect::<Vec<_>>(), [2, 4], "3 was replaced before it was sent");
}

#[test]
fn events_of_engines_are_logged_to_the_last() {
    let mut fixture = Fixture::new();
    fixture.sink.report(Event::HandshakeFailed(HandshakeFailed {
        peer: "192.0.2.7:4711".parse().expect("an address"),
        listener: Arc::from("main"),
        server_name: None,
        fingerprint: None,
        reason: FailureReason::NotTls,
        detail: String::new(),
    }));
    let (told, _heard) = sync_channel(16);
    let text = crate::control::logging::captured(|| {
        fixture.supervisor(vec![obedient(told)], no_reload).run(script(&[END]));
    });
    assert!(text.contains("reason=\"not_tls\""), "{text}");
    assert!(text.contains("draining"), "{text}");
}

#[test]
fn changed_certificates_are_loaded_without_the_rest_and_not_while_draining() {
    let what = Changed::Files([PathBuf::from("a.pem")].into());
    let changed = Requests { certificates_changed: Some(what.clone()), ..Requests::default() };
    let mut fixture = Fixture::new();
    let (told, heard) = sync_channel(16);
    let mut scopes = Vec::new();
    let engines = vec![obedient(told)];
    fixture
        .supervisor(engines, |scope, generation| {
            scopes.push(scope.clone());
            load(scope, generation)
        })
        .run(script(&[changed.clone(), RELOAD, END, changed]));
    assert_eq!(scopes, [Scope::Certificates(what), Scope::Everything]);
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["reload 2", "reload 3", "drain"]);
}
