use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::handshake::CostClass;
use crate::handshake::test_support::{
    LIBRARIES, Offer, Pair, client_config, exchange, server_config,
};

/// Unparks the thread that took it, as an engine asleep would be woken.
struct Unpark(thread::Thread);

impl WakeEngine for Unpark {
    fn wake(&self) {
        fence(Ordering::SeqCst);
        self.0.unpark();
    }
}

struct NoWake;

impl WakeEngine for NoWake {
    fn wake(&self) {}
}

fn link(credits: u32) -> EngineLink {
    EngineLink { credits, wake: Arc::new(Unpark(thread::current())) }
}

fn settings(count: usize, scheduler: SchedulerSettings) -> WorkersSettings {
    WorkersSettings {
        count: NonZeroUsize::new(count).unwrap(),
        cpus: Vec::new(),
        engine_cpus: Vec::new(),
        prepare_sharing: || {},
        scheduler,
        library: CryptoLibrary::AwsLc,
        fingerprints: false,
    }
}

fn task(credit: u32, generation: u32) -> Box<Task> {
    let mut task = Box::new(Task::new(0, credit));
    task.generation = generation;
    task.submitted = Moment::now();
    task.deadline = task.submitted.after(Duration::from_secs(600));
    task
}

/// Sleeps between looks, as an engine does; an unpark that comes first is remembered.
fn result_of(service: &mut OffloadService) -> Box<Task> {
    loop {
        if let Some(task) = service.next_result() {
            return task;
        }
        service.turn_done();
        thread::park();
    }
}

/// Takes so long that a worker gives way after it.
fn long_step(task: &mut Task) {
    let begin = Moment::now();
    while Moment::now().since(begin) < GIVE_WAY_AFTER_WITHOUT_URGENCY {
        std::hint::spin_loop();
    }
    no_step(task);
}

fn no_step(task: &mut Task) {
    task.outcome = StepOutcome::NeedsInput;
}

/// One worker that holds still inside its first step until the gate opens, so that what
/// is submitted meanwhile must wait.
fn gated(
    scheduler: SchedulerSettings,
    credits: u32,
) -> (Workers, OffloadService, mpsc::Receiver<u32>, mpsc::Sender<()>) {
    let (started_in, started) = mpsc::channel();
    let (gate, gate_out) = mpsc::channel::<()>();
    let gate_out = Arc::new(Mutex::new(gate_out));
    let step = move |task: &mut Task| {
        started_in.send(task.credit).unwrap();
        let _ = gate_out.lock().unwrap().recv();
        task.outcome = StepOutcome::NeedsInput;
    };
    let (workers, mut services) =
        Workers::start_with(&settings(1, scheduler), vec![link(credits)], step).unwrap();
    (workers, services.remove(0), started, gate)
}

#[test]
fn a_handshake_goes_through_real_workers() {
    for library in LIBRARIES {
        let offer = Offer::default();
        let settings = WorkersSettings { library, ..settings(2, SchedulerSettings::with_room(16)) };
        let (workers, mut services) = Workers::start(&settings, vec![link(4)]).unwrap();
        let service = &mut services[0];
        let server = server_config(library, &offer);
        let mut pair = Pair::new(library, &server, &Arc::new(client_config(&offer)));
        let mut established = loop {
            service.submit(pair.take_task()).unwrap();
            pair.task = result_of(service);
            pair.answer().unwrap();
            match std::mem::take(&mut pair.task.outcome) {
                StepOutcome::NeedsInput => {}
                StepOutcome::Established(established) => break established,
                other => panic!("unexpected {other:?}"),
            }
        };
        exchange(&mut pair.client, &mut established);
        let steps: u64 = workers
            .metrics()
            .iter()
            .map(|worker| worker.steps.iter().map(|cell| cell.value()).sum::<u64>())
            .sum();
        assert_eq!(steps, 2);
    }
}

#[test]
fn a_worker_on_the_cpu_of_its_engine_announces_every_result_before_it_sleeps() {
    const CREDITS: u32 = 8;
    let cpu = core_affinity::get_core_ids().unwrap()[0].id;
    let settings = WorkersSettings {
        cpus: vec![cpu],
        engine_cpus: vec![cpu],
        ..settings(1, SchedulerSettings::with_room(CREDITS as usize))
    };
    let (_workers, mut services) =
        Workers::start_with(&settings, vec![link(CREDITS)], no_step).unwrap();
    let service = &mut services[0];
    for round in 1..=200 {
        for credit in 0..CREDITS {
            service.submit(task(credit, round)).unwrap();
        }
        // Parked, not polling: a result that was not announced would never be seen.
        let mut credits: Vec<_> = (0..CREDITS).map(|_| result_of(service).credit).collect();
        credits.sort_unstable();
        assert_eq!(credits, (0..CREDITS).collect::<Vec<_>>());
    }
}

#[test]
fn a_worker_that_gave_way_goes_on_when_the_turn_of_its_engine_is_done() {
    const CREDITS: u32 = 4;
    let cpu = core_affinity::get_core_ids().unwrap()[0].id;
    let settings = WorkersSettings {
        cpus: vec![cpu],
        engine_cpus: vec![cpu],
        ..settings(1, SchedulerSettings::with_room(CREDITS as usize))
    };
    let (_workers, mut services) =
        Workers::start_with(&settings, vec![link(CREDITS)], long_step).unwrap();
    for round in 1..=20 {
        for credit in 0..CREDITS {
            services[0].submit(task(credit, round)).unwrap();
        }
        for _ in 0..CREDITS {
            result_of(&mut services[0]);
        }
    }
}

#[test]
fn a_worker_does_not_wait_for_the_turn_of_an_engine_that_has_ended() {
    let cpu = core_affinity::get_core_ids().unwrap()[0].id;
    let settings = WorkersSettings {
        cpus: vec![cpu],
        engine_cpus: vec![cpu, cpu + 1],
        ..settings(1, SchedulerSettings::with_room(8))
    };
    let (_workers, mut services) =
        Workers::start_with(&settings, vec![link(4), link(4)], long_step).unwrap();
    let mut other = services.pop().unwrap();
    let mut ends = services.pop().unwrap();
    for credit in 0..4 {
        ends.submit(task(credit, 1)).unwrap();
        other.submit(task(credit, 1)).unwrap();
    }
    drop(ends);
    for _ in 0..4 {
        result_of(&mut other);
    }
}

#[test]
fn every_task_of_every_engine_comes_back_once_and_to_its_own_engine() {
    const ENGINES: usize = 4;
    const CREDITS: u32 = 32;
    const ROUNDS: u32 = 2_000;

    let (services_in, services_out) = mpsc::channel();
    let mut threads = Vec::new();
    let mut links = Vec::new();
    for engine in 0..ENGINES {
        let (service_in, service_out) = mpsc::channel::<OffloadService>();
        let thread = thread::spawn(move || {
            let mut service = service_out.recv().unwrap();
            let mut credits: Vec<_> = (0..CREDITS).map(|credit| task(credit, 0)).collect();
            let mut expected = vec![None; CREDITS as usize];
            let (mut submitted, mut returned) = (0, 0);
            while returned < ROUNDS {
                while submitted < ROUNDS
                    && let Some(mut task) = credits.pop()
                {
                    let credit = task.credit;
                    task.generation = submitted;
                    task.slot = submitted;
                    task.submitted = Moment::now();
                    task.deadline = task.submitted.after(Duration::from_secs(600));
                    task.class = CostClass::ALL[submitted as usize % CostClass::ALL.len()];
                    expected[credit as usize] = Some(submitted);
                    service.submit(task).unwrap();
                    if submitted % 7 == 0 {
                        service.abandon(credit);
                    }
                    submitted += 1;
                }
                let task = result_of(&mut service);
                assert_eq!(task.engine, engine);
                assert_eq!(expected[task.credit as usize].take(), Some(task.slot));
                match task.outcome {
                    StepOutcome::NeedsInput => {}
                    StepOutcome::Shed(ShedReason::ClientGone) => assert_eq!(task.slot % 7, 0),
                    ref other => panic!("unexpected {other:?}"),
                }
                returned += 1;
                credits.push(task);
            }
            assert!(service.next_result().is_none());
            assert_eq!(credits.len(), CREDITS as usize);
        });
        links
            .push(EngineLink { credits: CREDITS, wake: Arc::new(Unpark(thread.thread().clone())) });
        services_in.send(service_in).unwrap();
        threads.push(thread);
    }
    let room = SchedulerSettings {
        patience: Duration::from_micros(50),
        ..SchedulerSettings::with_room(ENGINES * CREDITS as usize)
    };
    let (workers, services) = Workers::start_with(&settings(3, room), links, no_step).unwrap();
    for service in services {
        services_out.recv().unwrap().send(service).unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(workers.waiting(), 0);
    let sum = |cells: fn(&WorkerMetrics) -> u64| -> u64 {
        workers.metrics().iter().map(|worker| cells(worker)).sum()
    };
    let ran = sum(|worker| worker.steps.iter().map(|cell| cell.value()).sum());
    let gone = sum(|worker| worker.shed_client_gone.iter().map(|cell| cell.value()).sum());
    assert_eq!(ran + gone, ENGINES as u64 * u64::from(ROUNDS));
    workers.stop();
}

#[test]
fn tasks_submitted_while_the_workers_stop_come_back_too() {
    const CREDITS: u32 = 64;
    for _ in 0..50 {
        let room = SchedulerSettings::with_room(CREDITS as usize);
        let (workers, mut services) = Workers::start_with(
            &settings(2, room),
            vec![EngineLink { credits: CREDITS, wake: Arc::new(NoWake) }],
            no_step,
        )
        .unwrap();
        let mut service = services.remove(0);
        let stopped = Arc::new(AtomicBool::new(false));
        let engine = thread::spawn({
            let stopped = Arc::clone(&stopped);
            move || {
                let mut credits: Vec<_> = (0..CREDITS).map(|credit| task(credit, 1)).collect();
                let mut out = 0;
                // Goes on for a while after the workers are gone.
                while !stopped.load(Ordering::SeqCst) || out > 0 {
                    if let Some(task) = credits.pop()
                        && !stopped.load(Ordering::SeqCst)
                    {
                        service.submit(task).unwrap();
                        out += 1;
                    } else {
                        thread::yield_now();
                    }
                    while let Some(mut task) = service.next_result() {
                        task.deadline = Moment::now().after(Duration::from_secs(600));
                        credits.push(task);
                        out -= 1;
                    }
                }
                for task in credits.drain(..) {
                    service.submit(task).unwrap();
                    let task = service.next_result().expect("comes back at once");
                    assert!(matches!(task.outcome, StepOutcome::Shed(ShedReason::Stopping)));
                }
            }
        });
        thread::yield_now();
        workers.stop();
        stopped.store(true, Ordering::SeqCst);
        engine.join().unwrap();
    }
}

#[test]
fn a_task_abandoned_while_it_waits_is_never_run() {
    let (workers, mut service, started, gate) = gated(SchedulerSettings::with_room(4), 4);
    service.submit(task(0, 1)).unwrap();
    assert_eq!(started.recv().unwrap(), 0, "the worker is busy now");
    service.submit(task(1, 1)).unwrap();
    service.abandon(1);
    drop(gate);
    let mut outcomes = [result_of(&mut service), result_of(&mut service)];
    outcomes.sort_by_key(|task| task.credit);
    assert!(matches!(outcomes[0].outcome, StepOutcome::NeedsInput));
    assert!(matches!(outcomes[1].outcome, StepOutcome::Shed(ShedReason::ClientGone)));
    assert!(started.try_recv().is_err(), "no second step has begun");
    let class = CostClass::EllipticCurve as usize;
    assert_eq!(workers.metrics()[0].shed_client_gone[class].value(), 1);
}

#[test]
fn a_task_whose_deadline_passes_while_it_waits_is_never_run() {
    let (workers, mut service, started, gate) = gated(SchedulerSettings::with_room(4), 4);
    service.submit(task(0, 1)).unwrap();
    started.recv().unwrap();
    let mut late = task(1, 1);
    late.deadline = Moment::now();
    service.submit(late).unwrap();
    drop(gate);
    let mut outcomes = [result_of(&mut service), result_of(&mut service)];
    outcomes.sort_by_key(|task| task.credit);
    assert!(matches!(outcomes[1].outcome, StepOutcome::Shed(ShedReason::Expired)));
    let class = CostClass::EllipticCurve as usize;
    assert_eq!(workers.metrics()[0].shed_expired[class].value(), 1);
}

#[test]
fn a_task_that_finds_its_queue_full_comes_back_as_shed() {
    let patient =
        SchedulerSettings { patience: Duration::from_secs(600), ..SchedulerSettings::with_room(1) };
    let (workers, mut service, started, gate) = gated(patient, 4);
    service.submit(task(0, 1)).unwrap();
    started.recv().unwrap();
    for credit in 1..4 {
        service.submit(task(credit, 1)).unwrap();
    }
    drop(gate);
    let shed = (0..4)
        .map(|_| result_of(&mut service))
        .filter(|task| matches!(task.outcome, StepOutcome::Shed(ShedReason::QueueFull)))
        .count();
    assert_eq!(shed, 2, "one ran, one waited, two had no room");
    let class = CostClass::EllipticCurve as usize;
    assert_eq!(workers.metrics()[0].shed_queue_full[class].value(), 2);
}

#[test]
fn tasks_that_wait_when_the_workers_stop_come_back_as_shed() {
    let (workers, mut service, started, gate) = gated(SchedulerSettings::with_room(4), 4);
    service.submit(task(0, 1)).unwrap();
    started.recv().unwrap();
    service.submit(task(1, 1)).unwrap();
    service.submit(task(2, 1)).unwrap();
    assert_eq!(workers.waiting(), 2);
    // The worker is in a step; stopping waits for it, so the gate opens from elsewhere.
    let stopper = thread::spawn(move || workers.stop());
    while !service.shared.stopping.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    drop(gate);
    stopper.join().unwrap();
    let mut outcomes: Vec<_> = std::iter::from_fn(|| service.next_result()).collect();
    outcomes.sort_by_key(|task| task.credit);
    assert_eq!(outcomes.len(), 3);
    assert!(matches!(outcomes[0].outcome, StepOutcome::NeedsInput), "its step had begun");
    for task in &outcomes[1..] {
        assert!(matches!(task.outcome, StepOutcome::Shed(ShedReason::Stopping)));
    }
}

#[test]
fn an_engine_is_woken_for_each_result() {
    struct Count(AtomicU64);
    impl WakeEngine for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let count = Arc::new(Count(AtomicU64::new(0)));
    let wake = Arc::clone(&count);
    let (workers, mut services) = Workers::start_with(
        &settings(1, SchedulerSettings::with_room(2)),
        vec![EngineLink { credits: 2, wake }],
        no_step,
    )
    .unwrap();
    services[0].submit(task(0, 0)).unwrap();
    services[0].submit(task(1, 0)).unwrap();
    while count.0.load(Ordering::SeqCst) < 2 {
        thread::yield_now();
    }
    workers.stop();
    assert_eq!(count.0.load(Ordering::SeqCst), 2);
}

#[test]
fn threads_are_named_and_a_cpu_that_is_not_there_stops_nobody() {
    let (name_in, name_out) = mpsc::channel();
    let step = move |task: &mut Task| {
        task.outcome = StepOutcome::NeedsInput;
        name_in.send(thread::current().name().map(str::to_owned)).unwrap();
    };
    let settings =
        WorkersSettings { cpus: vec![usize::MAX], ..settings(1, SchedulerSettings::with_room(1)) };
    let (_workers, mut services) = Workers::start_with(&settings, vec![link(1)], step).unwrap();
    services[0].submit(task(0, 0)).unwrap();
    assert_eq!(name_out.recv().unwrap().as_deref(), Some("worker-0"));
}

#[test]
fn a_worker_is_pinned_even_if_the_thread_that_starts_it_may_not_run_there() {
    let Some(cpu) = core_affinity::get_core_ids().and_then(|cpus| cpus.last().copied()) else {
        return;
    };
    let (cpus_in, cpus_out) = mpsc::channel();
    let step = move |_: &mut Task| cpus_in.send(core_affinity::get_core_ids()).unwrap();
    let settings =
        WorkersSettings { cpus: vec![cpu.id], ..settings(1, SchedulerSettings::with_room(1)) };
    thread::spawn(move || {
        let first = core_affinity::get_core_ids().and_then(|cpus| cpus.first().copied());
        core_affinity::set_for_current(first.unwrap());
        let (_workers, mut services) = Workers::start_with(&settings, vec![link(1)], step).unwrap();
        services[0].submit(task(0, 0)).unwrap();
        assert_eq!(cpus_out.recv().unwrap(), Some(vec![cpu]));
    })
    .join()
    .unwrap();
}
