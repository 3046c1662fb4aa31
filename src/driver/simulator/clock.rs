//! Simulated time, shared with whatever must act on it besides the simulator.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use crate::clock::Moment;

/// A handle on the simulated clock. Clones show the same time.
///
/// Whoever has work for the engine at a later moment (a simulated handshake worker)
/// asks here for the engine to be woken then, as a real one rings its eventfd.
#[derive(Clone, Debug)]
pub struct Clock(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    now: Cell<Moment>,
    wakes: RefCell<BinaryHeap<Reverse<Moment>>>,
}

impl Clock {
    pub(super) fn new() -> Self {
        // Not at 0, so that "a moment earlier" exists.
        let now = Cell::new(Moment::from_nanoseconds(1_000_000_000));
        Self(Rc::new(Shared { now, wakes: RefCell::default() }))
    }

    /// The simulated time.
    pub fn now(&self) -> Moment {
        self.0.now.get()
    }

    /// Makes a turn that waits at `moment` return then.
    pub fn wake_at(&self, moment: Moment) {
        self.0.wakes.borrow_mut().push(Reverse(moment));
    }

    pub(super) fn next_wake(&self) -> Option<Moment> {
        self.0.wakes.borrow().peek().map(|Reverse(moment)| *moment)
    }

    /// Forgets the wakes that are due; whether there was one.
    pub(super) fn take_due_wakes(&self) -> bool {
        let mut wakes = self.0.wakes.borrow_mut();
        let before = wakes.len();
        while wakes.peek().is_some_and(|Reverse(moment)| *moment <= self.now()) {
            wakes.pop();
        }
        wakes.len() < before
    }

    pub(super) fn set(&self, moment: Moment) {
        assert!(moment >= self.now(), "the simulated clock is monotonic");
        self.0.now.set(moment);
    }
}
