//! The threads that run handshake steps for all engines.
//!
//! ```text
//!   engine 0 ─┐                  ┌──────── workers only ────────┐
//!   engine 1 ─┼─▶ intake ──▶ Mutex<Scheduler> ──▶ worker: step ─┼─▶ inbox of its engine
//!   engine n ─┘  lock-free       └──────────────────────────────┘     lock-free, then wake
//! ```
//!
//! * **An engine never waits**: it pushes to the intake and pops from its inbox, both
//!   lock-free. The lock around the scheduler is taken by workers only, for moving the
//!   intake over and one pick.
//! * **No queue can overflow**: an engine has as many tasks as credits, the intake has
//!   room for the credits of all engines, an inbox for those of its own.
//! * **No system call while all are busy**: an engine unparks a worker only if one is
//!   parked; a worker calls [`WakeEngine::wake`], which enters the kernel only if the
//!   engine sleeps.
//! * **A worker that shares an engine's CPU gives way** to it after a bounded time of
//!   work: the scheduler's time slice, some milliseconds, is what established connections
//!   would otherwise wait for. Until then it keeps its results to itself: woken for each
//!   of them, the engine would take the CPU from the worker and give it back for every
//!   single step. The time is short while the engine serves established connections, and
//!   longer while there is nothing but handshakes. To give way is to sleep until the engine's turn is done
//!   ([`HandshakeService::turn_done`]), and not sched_yield(2), which since Linux 6.18
//!   gives the rest of the time slice to every process on that CPU.
//! * **No worker sleeps while a task waits**: a worker raises its idle bit, *then* looks
//!   at both queues once more, *then* parks. Whoever adds a task, or leaves one behind
//!   after a pick, does so and *then* looks at the idle bits. With sequentially
//!   consistent fences between, one of the two sees the other. A worker that gives way
//!   raises its bit, *then* announces results, *then* parks, whatever waits; its engine
//!   says that it is about to sleep, *then* looks at the bit. Either the announcement
//!   wakes the engine, for another turn, or the engine sees the bit.
//!
//! May know: threads, clocks, the step. Must not know: sockets, how an engine sleeps.
#![forbid(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use core_affinity::CoreId;
use crossbeam::queue::ArrayQueue;

use super::metrics::WorkerMetrics;
use super::scheduler::{Pick, Scheduler, SchedulerSettings};
use super::step::step;
use super::{HandshakeService, ShedReason, StepOutcome, Task};
use crate::clock::Moment;
use crate::tls::CryptoLibrary;
use idle::IdleWorkers;

mod idle;

/// The most tasks that one worker moves from the intake in one go, which bounds how
/// long the others wait for the lock. What it leaves, the next pick moves.
const INTAKE_BATCH_MAX: usize = 256;

/// A worker on an engine's CPU offers it the CPU when it has worked for so long: a few
/// elliptic-curve steps or one of RSA. Oftener would take from the engine what it saves
/// by doing many things in one turn.
const GIVE_WAY_AFTER: Duration = Duration::from_micros(200);

/// The same while the engine serves no established connection: only other handshakes wait
/// then, and they are better served by fewer switches between threads.
const GIVE_WAY_AFTER_WITHOUT_URGENCY: Duration = Duration::from_millis(1);

/// Wakes an engine that may be asleep; the driver knows how.
///
/// `wake` is called after every result was put into the engine's inbox, so it must cost
/// next to nothing while the engine is awake. To lose no wake-up, the engine says that
/// it is about to sleep, *then* checks [`HandshakeService::has_results`], then sleeps;
/// `wake` begins with a sequentially consistent fence or read-modify-write.
pub trait WakeEngine: Send + Sync {
    /// Makes the engine look at its inbox soon.
    fn wake(&self);
}

/// How many workers, where, and how they choose.
#[derive(Clone, Debug)]
pub struct WorkersSettings {
    /// Number of threads.
    pub count: NonZeroUsize,
    /// CPUs to pin them to: worker *i* to the *i*-th, wrapping round. Empty: not pinned.
    pub cpus: Vec<usize>,
    /// The CPU of each engine, in their order: a worker on one of them gives way to its
    /// engine. Empty: no engine shares a CPU with a worker.
    pub engine_cpus: Vec<usize>,
    /// What a worker on an engine's CPU does first, on its own thread: tell the kernel's
    /// scheduler that it shares.
    pub prepare_sharing: fn(),
    /// Bounds and shares of the queues.
    pub scheduler: SchedulerSettings,
    /// Which library does the record cryptography of what is established.
    pub library: CryptoLibrary,
    /// Make and count the fingerprint of every client.
    pub fingerprints: bool,
}

impl WorkersSettings {
    /// The CPU of a worker; `None`: not pinned.
    fn cpu(&self, worker: usize) -> Option<usize> {
        self.cpus.get(worker % self.cpus.len().max(1)).copied()
    }

    fn share_a_cpu(&self, engine: usize, worker: usize) -> bool {
        let cpu = self.cpu(worker);
        cpu.is_some() && self.engine_cpus.get(engine).copied() == cpu
    }
}

/// What the workers must know of an engine.
pub struct EngineLink {
    /// How many credits it has; their numbers are below this.
    pub credits: u32,
    /// How to wake it.
    pub wake: Arc<dyn WakeEngine>,
}

/// The running workers. Dropping it stops them.
#[derive(Debug)]
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    metrics: Vec<Arc<WorkerMetrics>>,
}

impl Workers {
    /// Starts the threads and makes one service for every engine, in their order.
    ///
    /// # Errors
    /// A thread cannot be started; those that were are stopped again.
    pub fn start(
        settings: &WorkersSettings,
        engines: Vec<EngineLink>,
    ) -> io::Result<(Self, Vec<OffloadService>)> {
        let library = settings.library;
        Self::start_with(settings, engines, move |task| step(task, library))
    }

    /// As [`Self::start`], with another step: what the hand-off itself costs is measured
    /// with one that does nothing.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        settings: &WorkersSettings,
        engines: Vec<EngineLink>,
        step: impl Fn(&mut Task) + Clone + Send + 'static,
    ) -> io::Result<(Self, Vec<OffloadService>)> {
        let shared = Arc::new(Shared::new(settings, engines));
        let services = (0..shared.engines.len())
            .map(|engine| OffloadService {
                engine,
                neighbours: (0..settings.count.get())
                    .filter(|&worker| settings.share_a_cpu(engine, worker))
                    .collect(),
                shared: Arc::clone(&shared),
            })
            .collect();
        let mut workers = Self { shared, threads: Vec::new(), metrics: Vec::new() };
        for index in 0..settings.count.get() {
            let metrics = Arc::new(WorkerMetrics::default());
            let cpu = settings.cpu(index);
            let neighbours: Vec<usize> = (0..workers.shared.engines.len())
                .filter(|&engine| settings.share_a_cpu(engine, index))
                .collect();
            let prepare_sharing = settings.prepare_sharing;
            let worker = Worker {
                index,
                neighbours: neighbours.into_boxed_slice(),
                unannounced: false,
                shared: Arc::clone(&workers.shared),
                metrics: Arc::clone(&metrics),
                shed: Vec::with_capacity(2 * INTAKE_BATCH_MAX),
                step: step.clone(),
            };
            let thread =
                thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                    pin(cpu);
                    if !worker.neighbours.is_empty() {
                        prepare_sharing();
                    }
                    worker.run();
                })?;
            workers.threads.push(thread);
            workers.metrics.push(metrics);
        }
        Ok((workers, services))
    }

    /// The cells of every worker, in their order.
    pub fn metrics(&self) -> &[Arc<WorkerMetrics>] {
        &self.metrics
    }

    /// Tasks that wait now, in the intake or in the scheduler.
    pub fn waiting(&self) -> usize {
        self.shared.intake.len() + self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Ends the threads, each after the step it is in. Every task that still waits goes
    /// back to its engine as shed, and so does every task submitted from now on.
    pub fn stop(mut self) {
        self.stop_and_join();
    }

    fn stop_and_join(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for thread in &self.threads {
            thread.thread().unpark();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a handshake worker panicked");
            }
        }
        self.shared.return_all();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}

/// One engine's end of the workers.
#[derive(Debug)]
pub struct OffloadService {
    engine: usize,
    /// The workers on the same CPU.
    neighbours: Box<[usize]>,
    shared: Arc<Shared>,
}

impl OffloadService {
    fn link(&self) -> &Engine {
        &self.shared.engines[self.engine]
    }
}

impl HandshakeService for OffloadService {
    fn submit(&mut self, mut task: Box<Task>) -> Result<(), Box<Task>> {
        let Some(live) = self.link().live.get(task.credit as usize) else {
            debug_assert!(false, "credit {} is not of engine {}", task.credit, self.engine);
            return Err(task);
        };
        live.store(task.generation, Ordering::Relaxed);
        task.engine = self.engine;
        task.outcome = StepOutcome::Pending;
        self.shared.intake.push(task)?;
        self.shared.wake_worker();
        // The workers may have emptied the intake for the last time just before.
        if self.shared.stopping.load(Ordering::SeqCst) {
            self.shared.return_all();
        }
        Ok(())
    }

    fn next_result(&mut self) -> Option<Box<Task>> {
        self.link().inbox.pop()
    }

    fn wants_fingerprints(&self) -> bool {
        self.shared.fingerprints
    }

    fn abandon(&mut self, credit: u32) {
        if let Some(live) = self.link().live.get(credit as usize) {
            // Only this engine writes the cell, and any other number is "gone".
            live.store(live.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    fn has_results(&self) -> bool {
        !self.link().inbox.is_empty()
    }

    fn set_urgent(&mut self, urgent: bool) {
        self.link().urgent.store(urgent, Ordering::Relaxed);
    }

    fn turn_done(&mut self) {
        if !self.neighbours.is_empty() && self.shared.has_work() {
            for &worker in &self.neighbours {
                self.shared.idle.wake(worker);
            }
        }
    }
}

impl Drop for OffloadService {
    /// There will be no turn that a worker could wait for.
    fn drop(&mut self) {
        self.link().ended.store(true, Ordering::SeqCst);
        for &worker in &self.neighbours {
            self.shared.idle.wake(worker);
        }
    }
}

/// What engines and workers share.
struct Shared {
    /// Tasks on their way in; room for every credit there is.
    intake: ArrayQueue<Box<Task>>,
    /// Tasks that wait; locked by workers only.
    scheduler: Mutex<Scheduler<Box<Task>>>,
    /// How many are in the scheduler; written under its lock.
    waiting: AtomicUsize,
    idle: IdleWorkers,
    stopping: AtomicBool,
    engines: Box<[Engine]>,
    /// As in [`WorkersSettings`].
    fingerprints: bool,
}

/// Where results of one engine go, and which of its clients are still there.
struct Engine {
    inbox: ArrayQueue<Box<Task>>,
    /// By credit: the generation of the slot that the credit serves.
    live: Box<[AtomicU32]>,
    wake: Arc<dyn WakeEngine>,
    /// Serves established connections.
    urgent: AtomicBool,
    /// Has no further turns.
    ended: AtomicBool,
}

impl Shared {
    fn new(settings: &WorkersSettings, engines: Vec<EngineLink>) -> Self {
        let engines: Box<[Engine]> = engines
            .into_iter()
            .map(|link| Engine {
                // The queue cannot be made without room; an engine without credits
                // has nothing to put in it.
                inbox: ArrayQueue::new((link.credits as usize).max(1)),
                live: (0..link.credits).map(|_| AtomicU32::new(0)).collect(),
                wake: link.wake,
                urgent: AtomicBool::new(false),
                ended: AtomicBool::new(false),
            })
            .collect();
        let credits: usize = engines.iter().map(|engine| engine.live.len()).sum();
        Self {
            intake: ArrayQueue::new(credits.max(1)),
            scheduler: Mutex::new(Scheduler::new(&settings.scheduler)),
            waiting: AtomicUsize::new(0),
            idle: IdleWorkers::new(settings.count.get()),
            stopping: AtomicBool::new(false),
            engines,
            fingerprints: settings.fingerprints,
        }
    }

    /// Whether the client of `task` is still there, as far as its engine has said.
    fn alive(&self, task: &Task) -> bool {
        self.engines
            .get(task.engine)
            .and_then(|engine| engine.live.get(task.credit as usize))
            .is_some_and(|live| live.load(Ordering::Relaxed) == task.generation)
    }

    /// Puts a result into the inbox of its engine, and wakes it.
    fn deliver(&self, task: Box<Task>) {
        let engine = task.engine;
        self.put(task);
        self.announce(engine);
    }

    /// Puts a result into the inbox of its engine, which must be told.
    fn put(&self, task: Box<Task>) {
        let Some(engine) = self.engines.get(task.engine) else {
            debug_assert!(false, "submitting sets the engine, so there is one");
            return;
        };
        let pushed = engine.inbox.push(task);
        debug_assert!(pushed.is_ok(), "an inbox has room for every credit of its engine");
    }

    /// Makes an engine look at its inbox.
    fn announce(&self, engine: usize) {
        if let Some(engine) = self.engines.get(engine) {
            engine.wake.wake();
        }
    }

    fn deliver_shed(&self, mut task: Box<Task>, reason: ShedReason) {
        task.outcome = StepOutcome::Shed(reason);
        self.deliver(task);
    }

    /// Wakes a worker if one sleeps. To be called *after* a task was made visible.
    fn wake_worker(&self) {
        fence(Ordering::SeqCst);
        self.idle.wake_one();
    }

    fn lock(&self) -> MutexGuard<'_, Scheduler<Box<Task>>> {
        // Nothing in the lock's scope can leave the scheduler half changed.
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker has reason to stay up.
    fn has_work(&self) -> bool {
        !self.intake.is_empty()
            || self.waiting.load(Ordering::SeqCst) > 0
            || self.stopping.load(Ordering::SeqCst)
    }

    /// Sends every waiting task home.
    fn return_all(&self) {
        while let Some(task) = self.intake.pop() {
            self.deliver_shed(task, ShedReason::Stopping);
        }
        // Only the last submissions meet this lock, and only for an empty scheduler.
        loop {
            let task = self.lock().take_any();
            match task {
                Some(task) => self.deliver_shed(task, ShedReason::Stopping),
                None => break,
            }
        }
        self.waiting.store(0, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("engines", &self.engines.len())
            .field("intake", &self.intake.len())
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

struct Worker<S> {
    index: usize,
    /// The engines on the same CPU.
    neighbours: Box<[usize]>,
    /// Results were put into their inboxes and they were not told.
    unannounced: bool,
    shared: Arc<Shared>,
    metrics: Arc<WorkerMetrics>,
    /// Shed tasks between the lock and their inboxes; empty outside of `take`.
    shed: Vec<(Box<Task>, ShedReason)>,
    step: S,
}

impl<S: Fn(&mut Task)> Worker<S> {
    fn run(mut self) {
        self.shared.idle.register(self.index);
        let mut since = Moment::now();
        while !self.shared.stopping.load(Ordering::SeqCst) {
            match self.take() {
                Some(task) => {
                    let now = self.work(task);
                    if now.since(since) >= self.give_way_after() {
                        self.give_way();
                        since = Moment::now();
                    }
                }
                None => {
                    self.announce();
                    self.sleep();
                    since = Moment::now();
                }
            }
        }
        self.announce();
        self.shared.return_all();
    }

    /// Moves the intake over and picks a task to run; delivers what was shed on the way.
    fn take(&mut self) -> Option<Box<Task>> {
        let shared = &*self.shared;
        let now = Moment::now();
        let mut taken = None;
        let mut scheduler = shared.lock();
        for _ in 0..INTAKE_BATCH_MAX {
            let Some(task) = shared.intake.pop() else { break };
            if let Err(victim) = scheduler.admit(task, now, |task| shared.alive(task)) {
                self.shed.push(victim);
            }
        }
        while self.shed.len() < 2 * INTAKE_BATCH_MAX {
            match scheduler.pick(now, |task| shared.alive(task)) {
                Some(Pick::Run { task, newest_first }) => {
                    if newest_first {
                        self.metrics.newest_first.increment();
                    }
                    taken = Some(task);
                    break;
                }
                Some(Pick::Shed(task, reason)) => self.shed.push((task, reason)),
                None => break,
            }
        }
        let left = scheduler.len();
        shared.waiting.store(left, Ordering::SeqCst);
        drop(scheduler);

        if taken.is_some() && (left > 0 || !shared.intake.is_empty()) {
            shared.wake_worker();
        }
        for (task, reason) in self.shed.drain(..) {
            self.metrics.shed(task.class, reason);
            shared.deliver_shed(task, reason);
        }
        taken
    }

    /// Runs a step and delivers its result; returns when it was done.
    fn work(&mut self, mut task: Box<Task>) -> Moment {
        let started = Moment::now();
        let class = task.class;
        let first = task.config.is_some();
        (self.step)(&mut task);
        task.queue_wait = started.since(task.submitted);
        let done = Moment::now();
        task.work = done.since(started);
        self.metrics.ran(class, task.queue_wait, task.work);
        if first && self.shared.fingerprints {
            self.metrics.met(&task);
        }
        if self.neighbours.contains(&task.engine) {
            self.shared.put(task);
            self.unannounced = true;
        } else {
            self.shared.deliver(task);
        }
        done
    }

    /// How long to work before the engines on this CPU are let; for ever if there are none.
    fn give_way_after(&self) -> Duration {
        let urgent = |&engine: &usize| self.shared.engines[engine].urgent.load(Ordering::Relaxed);
        match &*self.neighbours {
            [] => Duration::MAX,
            neighbours if neighbours.iter().any(urgent) => GIVE_WAY_AFTER,
            _ => GIVE_WAY_AFTER_WITHOUT_URGENCY,
        }
    }

    /// Tells the engines on this CPU of the results that they were not told of.
    fn announce(&mut self) {
        if std::mem::take(&mut self.unannounced) {
            for &engine in &self.neighbours {
                self.shared.announce(engine);
            }
        }
    }

    /// Lets an engine on this CPU have the turn that it was told to make, and sleeps until
    /// that is done or somebody else wakes this worker.
    fn give_way(&mut self) {
        if !self.unannounced {
            return;
        }
        self.shared.idle.raise(self.index);
        self.announce();
        let neighbours = self.neighbours.iter().map(|&engine| &self.shared.engines[engine]);
        let may_wait = neighbours.clone().any(|engine| !engine.ended.load(Ordering::SeqCst));
        if may_wait && !self.shared.stopping.load(Ordering::SeqCst) {
            thread::park();
        }
        self.shared.idle.lower(self.index);
    }

    fn sleep(&self) {
        self.shared.idle.raise(self.index);
        fence(Ordering::SeqCst);
        if !self.shared.has_work() {
            thread::park();
        }
        self.shared.idle.lower(self.index);
    }
}

/// CPUs that a `cpu_set_t` has room for (sched_setaffinity(2)); `core_affinity` would
/// index beyond it.
const CPU_SET_BITS: usize = 1_024;

/// Pins the calling thread. A CPU that is not there is worth a warning, not the process:
/// the configuration was checked, but CPUs can go off line.
///
/// The kernel is asked, not `core_affinity::get_core_ids`, which knows only the CPUs that
/// the thread starting this one was itself allowed to run on.
fn pin(cpu: Option<usize>) {
    let Some(id) = cpu else { return };
    if id >= CPU_SET_BITS || !core_affinity::set_for_current(CoreId { id }) {
        let thread = thread::current();
        tracing::warn!(
            cpu = id,
            "cannot pin {}: the CPU does not exist or is not allowed to this process",
            thread.name().unwrap_or("a worker")
        );
    }
}

#[cfg(test)]
mod tests;
