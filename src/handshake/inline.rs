//! Handshake steps on the engine's own thread: for hosts with one core, and to measure
//! what offloading is worth.
//!
//! The rules are those of the workers, by the same scheduler: bounded queues, deadline
//! and liveness checked before the step, newest first under overload. A step runs when
//! the engine asks for a result, one for each time it asks, so the engine decides how
//! many it can afford in a turn and what it has already received of clients that left
//! counts before any cryptography.
//!
//! May know: the scheduler, the step. Must not know: sockets, threads.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::Arc;

use super::metrics::WorkerMetrics;
use super::scheduler::{Pick, Scheduler, SchedulerSettings};
use super::step::step;
use super::{HandshakeService, ShedReason, StepOutcome, Task};
use crate::clock::Moment;
use crate::tls::CryptoLibrary;

/// Runs the steps of one engine when it asks for results.
///
/// `clock` reads the time: [`Moment::now`], or the simulator's.
#[derive(Debug)]
pub struct InlineService<C = fn() -> Moment> {
    engine: usize,
    scheduler: Scheduler<Box<Task>>,
    /// Tasks that a full queue gave up, on their way back; at most the credits.
    shed: VecDeque<Box<Task>>,
    /// By credit: the generation of the slot that the credit serves.
    live: Box<[u32]>,
    library: CryptoLibrary,
    metrics: Arc<WorkerMetrics>,
    fingerprints: bool,
    clock: C,
}

impl InlineService {
    /// Makes the service of the engine number `engine`, which has `credits` credits.
    pub fn new(
        engine: usize,
        credits: u32,
        settings: &SchedulerSettings,
        library: CryptoLibrary,
    ) -> Self {
        Self::with_clock(engine, credits, settings, library, Moment::now)
    }
}

impl<C: Fn() -> Moment> InlineService<C> {
    /// As [`InlineService::new`], on another clock than the system's.
    pub fn with_clock(
        engine: usize,
        credits: u32,
        settings: &SchedulerSettings,
        library: CryptoLibrary,
        clock: C,
    ) -> Self {
        Self {
            engine,
            scheduler: Scheduler::new(settings),
            shed: VecDeque::with_capacity(credits as usize),
            live: vec![0; credits as usize].into_boxed_slice(),
            library,
            metrics: Arc::new(WorkerMetrics::default()),
            fingerprints: false,
            clock,
        }
    }

    /// Counts clients by their fingerprints, if `fingerprints` says so.
    #[must_use]
    pub fn counting(self, fingerprints: bool) -> Self {
        Self { fingerprints, ..self }
    }

    /// The cells of this service; the engine's thread writes them.
    pub fn metrics(&self) -> &Arc<WorkerMetrics> {
        &self.metrics
    }

    fn as_shed(&self, mut task: Box<Task>, reason: ShedReason) -> Box<Task> {
        self.metrics.shed(task.class, reason);
        task.outcome = StepOutcome::Shed(reason);
        task
    }
}

/// Whether the client of `task` is still there, as far as its engine has said.
fn alive(live: &[u32], task: &Task) -> bool {
    live.get(task.credit as usize) == Some(&task.generation)
}

impl<C: Fn() -> Moment> HandshakeService for InlineService<C> {
    fn submit(&mut self, mut task: Box<Task>) -> Result<(), Box<Task>> {
        let Some(live) = self.live.get_mut(task.credit as usize) else {
            debug_assert!(false, "credit {} is not of engine {}", task.credit, self.engine);
            return Err(task);
        };
        *live = task.generation;
        task.engine = self.engine;
        task.outcome = StepOutcome::Pending;
        let now = (self.clock)();
        if let Err((victim, reason)) =
            self.scheduler.admit(task, now, |task| alive(&self.live, task))
        {
            let victim = self.as_shed(victim, reason);
            self.shed.push_back(victim);
        }
        Ok(())
    }

    fn next_result(&mut self) -> Option<Box<Task>> {
        if let Some(task) = self.shed.pop_front() {
            return Some(task);
        }
        let started = (self.clock)();
        match self.scheduler.pick(started, |task| alive(&self.live, task))? {
            Pick::Shed(task, reason) => Some(self.as_shed(task, reason)),
            Pick::Run { mut task, newest_first } => {
                if newest_first {
                    self.metrics.newest_first.increment();
                }
                let class = task.class;
                let first = task.config.is_some();
                step(&mut task, self.library);
                if first && self.fingerprints {
                    self.metrics.met(&task);
                }
                task.queue_wait = started.since(task.submitted);
                task.work = (self.clock)().since(started);
                self.metrics.ran(class, task.queue_wait, task.work);
                Some(task)
            }
        }
    }

    fn wants_fingerprints(&self) -> bool {
        self.fingerprints
    }

    fn abandon(&mut self, credit: u32) {
        if let Some(live) = self.live.get_mut(credit as usize) {
            *live = live.wrapping_add(1);
        }
    }

    fn turn_done(&mut self) {
        // Nobody waits for this engine's CPU.
    }

    fn set_urgent(&mut self, _urgent: bool) {
        // One step for each turn already.
    }

    fn has_results(&self) -> bool {
        !self.shed.is_empty() || !self.scheduler.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::handshake::CostClass;
    use crate::handshake::test_support::{
        LIBRARIES, Offer, Pair, client_config, exchange, server_config,
    };

    fn service(credits: u32, clock: impl Fn() -> Moment) -> impl HandshakeService {
        let settings = SchedulerSettings::with_room(credits as usize);
        InlineService::with_clock(2, credits, &settings, CryptoLibrary::AwsLc, clock)
    }

    fn task(credit: u32) -> Box<Task> {
        let mut task = Box::new(Task::new(2, credit));
        task.generation = 9;
        task.deadline = Moment::from_nanoseconds(1_000);
        task
    }

    #[test]
    fn a_handshake_is_done_on_the_callers_thread() {
        for library in LIBRARIES {
            let offer = Offer::default();
            let room = SchedulerSettings::with_room(1);
            let mut service = InlineService::new(0, 1, &room, library);
            let server = server_config(library, &offer);
            let mut pair = Pair::new(library, &server, &Arc::new(client_config(&offer)));
            let mut established = loop {
                service.submit(pair.take_task()).unwrap();
                assert!(service.has_results());
                pair.task = service.next_result().unwrap();
                assert!(!service.has_results());
                pair.answer().unwrap();
                match std::mem::take(&mut pair.task.outcome) {
                    StepOutcome::NeedsInput => {}
                    StepOutcome::Established(established) => break established,
                    other => panic!("unexpected {other:?}"),
                }
            };
            exchange(&mut pair.client, &mut established);
            let steps: u64 = service.metrics().steps.iter().map(|cell| cell.value()).sum();
            assert_eq!(steps, 2);
        }
    }

    #[test]
    fn an_abandoned_task_comes_back_without_its_step() {
        let mut service = service(2, || Moment::from_nanoseconds(1));
        service.submit(task(0)).unwrap();
        service.submit(task(1)).unwrap();
        service.abandon(0);
        let gone = service.next_result().unwrap();
        assert_eq!(gone.credit, 0);
        assert!(matches!(gone.outcome, StepOutcome::Shed(ShedReason::ClientGone)));
        let ran = service.next_result().unwrap();
        assert!(!matches!(ran.outcome, StepOutcome::Shed(_)));
        assert!(service.next_result().is_none());
    }

    #[test]
    fn an_expired_task_comes_back_without_its_step() {
        let now = Cell::new(Moment::from_nanoseconds(1));
        let mut service = service(1, || now.get());
        service.submit(task(0)).unwrap();
        now.set(Moment::from_nanoseconds(1_000));
        let expired = service.next_result().unwrap();
        assert!(matches!(expired.outcome, StepOutcome::Shed(ShedReason::Expired)));
    }

    #[test]
    fn a_task_that_finds_its_queue_full_comes_back_as_shed() {
        let room = SchedulerSettings::with_room(1);
        let clock = || Moment::from_nanoseconds(1);
        let mut service = InlineService::with_clock(2, 2, &room, CryptoLibrary::AwsLc, clock);
        service.submit(task(0)).unwrap();
        service.submit(task(1)).unwrap();
        let shed = service.next_result().unwrap();
        assert_eq!(shed.credit, 1);
        assert!(matches!(shed.outcome, StepOutcome::Shed(ShedReason::QueueFull)));
        let class = CostClass::EllipticCurve as usize;
        assert_eq!(service.metrics().shed_queue_full[class].value(), 1);
        assert_eq!(service.next_result().unwrap().credit, 0);
        assert!(!service.has_results());
    }
}
