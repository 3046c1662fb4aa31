//! Handshake workers without threads: real steps, whose results come back late, out of
//! order, shed, or not at all accepted, as the seed has it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use forebay::clock::Moment;
use forebay::driver::simulator::{Chance, Clock, Random};
use forebay::handshake::step::step;
use forebay::handshake::{HandshakeService, ShedReason, StepOutcome, Task};
use forebay::tls::CryptoLibrary;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// The most that a step takes, queue and all.
    pub(crate) delay_max: Duration,
    /// A task is not taken.
    pub(crate) refuses: Chance,
    /// A task comes back without its step.
    pub(crate) sheds: Chance,
}

pub(crate) struct DelayedService {
    clock: Clock,
    random: Random,
    behaviour: Behaviour,
    library: CryptoLibrary,
    waiting: Vec<(Moment, Box<Task>)>,
    /// By credit: the generation of the slot that the credit serves.
    live: Vec<u32>,
    /// Tasks that it holds, for the test to see.
    held: Rc<Cell<usize>>,
}

impl DelayedService {
    pub(crate) fn new(
        clock: Clock,
        seed: u64,
        behaviour: Behaviour,
        library: CryptoLibrary,
        credits: usize,
    ) -> Self {
        Self {
            clock,
            random: Random::new(seed ^ 0x5e41),
            behaviour,
            library,
            waiting: Vec::new(),
            live: vec![0; credits],
            held: Rc::default(),
        }
    }

    pub(crate) fn held(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.held)
    }
}

impl HandshakeService for DelayedService {
    fn submit(&mut self, task: Box<Task>) -> Result<(), Box<Task>> {
        if self.random.happens(self.behaviour.refuses) {
            return Err(task);
        }
        let delay = self.random.duration(Duration::from_micros(1), self.behaviour.delay_max);
        let ready = self.clock.now().after(delay);
        self.clock.wake_at(ready);
        self.live[task.credit as usize] = task.generation;
        self.waiting.push((ready, task));
        self.held.set(self.waiting.len());
        Ok(())
    }

    fn next_result(&mut self) -> Option<Box<Task>> {
        let now = self.clock.now();
        let place = self.waiting.iter().position(|(ready, _)| *ready <= now)?;
        let (_, mut task) = self.waiting.swap_remove(place);
        self.held.set(self.waiting.len());
        // Whether the abandonment was seen in time is a race.
        let gone = self.live[task.credit as usize] != task.generation;
        if gone && self.random.below(2) == 0 {
            task.outcome = StepOutcome::Shed(ShedReason::ClientGone);
        } else if task.deadline <= now {
            task.outcome = StepOutcome::Shed(ShedReason::Expired);
        } else if self.random.happens(self.behaviour.sheds) {
            task.outcome = StepOutcome::Shed(ShedReason::QueueFull);
        } else {
            step(&mut task, self.library);
        }
        Some(task)
    }

    fn abandon(&mut self, credit: u32) {
        let live = &mut self.live[credit as usize];
        *live = live.wrapping_add(1);
    }

    fn set_urgent(&mut self, _urgent: bool) {}

    fn turn_done(&mut self) {}

    fn has_results(&self) -> bool {
        let now = self.clock.now();
        self.waiting.iter().any(|(ready, _)| *ready <= now)
    }
}
