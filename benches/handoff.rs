//! What it costs to hand a handshake step to a worker and its result back, with a step
//! that does nothing.
//!
//! Run with `cargo bench --bench handoff`.
//!
//! * `queue`: push and pop of one task on the lock-free queue that is the intake and
//!   every inbox, on one thread.
//! * `scheduler`: admit and pick of one task, with others of its class waiting.
//! * `round_trip/parked`: one task at a time, so each finds its worker parked; the
//!   engine spins for the result.
//! * `round_trip/busy`: 64 tasks in flight, time for each.

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
    task.submitted = Moment::now();
    task.deadline = task.submitted.after(Duration::from_secs(3_600));
    task
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
    let settings = WorkersSettings {
        count: NonZeroUsize::MIN,
        cpus: Vec::new(),
        scheduler: SchedulerSettings::with_room(CREDITS as usize),
        library: CryptoLibrary::AwsLc,
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
    group.bench_function("parked", |bencher| {
        bencher.iter(|| {
            if let Some(task) = held.take() {
                assert!(service.submit(task).is_ok(), "there is room");
            }
            held = Some(result_of(service));
        });
    });
    let mut credits: Vec<_> = (0..CREDITS).map(task).collect();
    group.throughput(Throughput::Elements(u64::from(CREDITS)));
    group.bench_function("busy", |bencher| {
        bencher.iter(|| {
            for task in credits.drain(..) {
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
