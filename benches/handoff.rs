//! What it costs to hand a handshake step to a worker and its result back, with a step
//! that does nothing.
//!
//! Run with `cargo bench --bench handoff`.
//!
//! * `queue`: push and pop of one task on the lock-free queue that is the intake and
//!   every inbox, on one thread.
//! * `scheduler`: admit and pick of one task, with others of its class waiting.
//! * `round_trip/one_by_one`: the engine submits a task and spins for its result. The
//!   worker is on its way to park when the next comes, seldom parked.
//! * `round_trip/64_at_once`: as many are submitted before any result is taken; the
//!   throughput is that of the hand-off.
//!
//! Engine and worker are pinned to the first two CPUs of the process, as they are in
//! production. On one CPU every hand-off would be two context switches instead, which is
//! what `handshake.inline` is for.

use std::hint::{black_box, spin_loop};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use forebay::clock::Moment;
use forebay::handshake::scheduler::{Pick, Scheduler, SchedulerSettings};
use forebay::handshake::workers::{EngineLink, WakeEngine, Workers, WorkersSettings};
use forebay::handshake::{HandshakeService, StepOutcome, Task};
use forebay::tls::CryptoLibrary;

const CREDITS: u32 = 64;

struct Awake;

impl WakeEngine for Awake {
    fn wake(&self) {}
}

fn task(credit: u32) -> Box<Task> {
    let mut task = Box::new(Task::new(0, credit));
    renew(&mut task);
    task
}

fn renew(task: &mut Task) {
    task.submitted = Moment::now();
    task.deadline = task.submitted.after(Duration::from_secs(3_600));
}

fn result_of(service: &mut impl HandshakeService) -> Box<Task> {
    loop {
        match service.next_result() {
            Some(task) => return task,
            None => spin_loop(),
        }
    }
}

fn queue(criterion: &mut Criterion) {
    let queue = ArrayQueue::new(CREDITS as usize);
    let mut held = Some(task(0));
    criterion.bench_function("queue/push_pop", |bencher| {
        bencher.iter(|| {
            if let Some(task) = held.take() {
                assert!(queue.push(task).is_ok(), "the queue is empty");
            }
            held = queue.pop();
        });
    });
}

fn scheduler(criterion: &mut Criterion) {
    let mut scheduler = Scheduler::new(&SchedulerSettings::with_room(CREDITS as usize));
    let now = Moment::now();
    for credit in 1..CREDITS {
        assert!(scheduler.admit(task(credit), now, |_| true).is_ok(), "there is room");
    }
    let mut held = Some(task(0));
    criterion.bench_function("scheduler/admit_pick", |bencher| {
        bencher.iter(|| {
            if let Some(task) = held.take() {
                assert!(scheduler.admit(task, now, |_| true).is_ok(), "there is room");
            }
            if let Some(Pick::Run { task, .. }) = scheduler.pick(now, |_| true) {
                held = Some(task);
            }
        });
    });
}

fn round_trip(criterion: &mut Criterion) {
    let mut cpus = core_affinity::get_core_ids().unwrap_or_default().into_iter();
    if let Some(cpu) = cpus.next() {
        core_affinity::set_for_current(cpu);
    }
    let settings = WorkersSettings {
        count: NonZeroUsize::MIN,
        cpus: cpus.next().map(|cpu| cpu.id).into_iter().collect(),
        engine_cpus: Vec::new(),
        prepare_sharing: || {},
        scheduler: SchedulerSettings::with_room(CREDITS as usize),
        library: CryptoLibrary::AwsLc,
        fingerprints: false,
    };
    let link = EngineLink { credits: CREDITS, wake: Arc::new(Awake) };
    let (workers, mut services) = Workers::start_with(&settings, vec![link], |task| {
        task.outcome = StepOutcome::NeedsInput;
        black_box(task);
    })
    .expect("a thread can be started");
    let service = &mut services[0];

    let mut group = criterion.benchmark_group("round_trip");
    let mut held = Some(task(0));
    group.bench_function("one_by_one", |bencher| {
        bencher.iter(|| {
            if let Some(mut task) = held.take() {
                renew(&mut task);
                assert!(service.submit(task).is_ok(), "there is room");
            }
            held = Some(result_of(service));
        });
    });
    let mut credits: Vec<_> = (0..CREDITS).map(task).collect();
    group.throughput(Throughput::Elements(u64::from(CREDITS)));
    group.bench_function("64_at_once", |bencher| {
        bencher.iter(|| {
            for mut task in credits.drain(..) {
                renew(&mut task);
                assert!(service.submit(task).is_ok(), "there is room");
            }
            for _ in 0..CREDITS {
                credits.push(result_of(service));
            }
        });
    });
    group.finish();
    workers.stop();
}

criterion_group!(benches, queue, scheduler, round_trip);
criterion_main!(benches);
