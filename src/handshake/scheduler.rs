//! Which waiting task runs next, and which never will: pure, no clock, no thread.
//!
//! ```text
//!                  one bounded queue a class          turns a round
//!   admit ──▶  continuation  old ▒▒▒▒▒▒▒▒▒▒ new             8
//!              resumption    old ▒▒▒▒▒▒     new             4    ──▶ pick: run or shed
//!              ec            old ▒▒▒▒▒▒▒▒▒▒ new             2
//!              rsa           old ▒▒▒        new             1
//! ```
//!
//! * **Classes** share the workers by turns: in a round every class has as many turns
//!   as its weight, and the preferred class goes first. A class that waits is served
//!   within two rounds, so none starves; a later flight, whose key exchange is already
//!   paid for, goes before new handshakes.
//! * **Within a class** the oldest goes first, while the queue keeps up. When the
//!   oldest has waited longer than `patience`, the queue does not keep up, and oldest
//!   first would make *every* client wait until it has nearly given up. Then the newest
//!   goes first: those served are served at once, the others run when the storm is over
//!   or are shed at their deadline.
//! * **Nothing useless is run**: a task whose deadline has passed or whose client has
//!   gone is handed back as shed, before any cryptography.
//! * **A full queue** gives up the task that the present order would run last: the
//!   arriving one while the oldest goes first, the oldest one while the newest goes
//!   first. To refuse the arriving task in a storm would keep a queue full of clients
//!   about to leave and turn away the one that is still there.
//!
//! May know: cost classes, moments. Must not know: rustls, threads, metrics.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use super::{CostClass, ShedReason, Task};
use crate::clock::Moment;

const CLASSES: usize = CostClass::ALL.len();

/// What the scheduler must know of a waiting task.
pub trait Waiting {
    /// What the step will cost.
    fn class(&self) -> CostClass;
    /// When it began to wait.
    fn submitted(&self) -> Moment;
    /// When it is no longer worth doing.
    fn deadline(&self) -> Moment;
}

impl Waiting for Box<Task> {
    fn class(&self) -> CostClass {
        self.class
    }

    fn submitted(&self) -> Moment {
        self.submitted
    }

    fn deadline(&self) -> Moment {
        self.deadline
    }
}

/// Bounds and shares, in the order of [`CostClass::ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerSettings {
    /// The most tasks that may wait, by class. The memory for them is taken at start.
    pub queue_tasks_max: [usize; CLASSES],
    /// Turns in a round, by class; 0 counts as 1.
    pub weights: [u32; CLASSES],
    /// When the oldest task of a class has waited longer, the newest goes first.
    pub patience: Duration,
}

impl SchedulerSettings {
    /// Turns in a round: each class half of the one before it.
    pub const WEIGHTS: [u32; CLASSES] = [8, 4, 2, 1];

    /// Patience: a hundred elliptic-curve handshakes of one worker's time. Shorter
    /// would call a burst a storm; longer would make every client feel the storm.
    pub const PATIENCE: Duration = Duration::from_millis(10);

    /// The usual shares and patience, with room for `tasks` in every queue.
    pub const fn with_room(tasks: usize) -> Self {
        Self { queue_tasks_max: [tasks; CLASSES], weights: Self::WEIGHTS, patience: Self::PATIENCE }
    }
}

/// What to do with the task that was picked.
#[derive(Debug, PartialEq, Eq)]
pub enum Pick<T> {
    /// Run it.
    Run {
        /// The task.
        task: T,
        /// It went before older ones, because the oldest has waited too long.
        newest_first: bool,
    },
    /// Hand it back without running it.
    Shed(T, ShedReason),
}

/// The tasks that wait.
#[derive(Debug)]
pub struct Scheduler<T> {
    classes: [Class<T>; CLASSES],
    patience: Duration,
}

#[derive(Debug)]
struct Class<T> {
    /// In order of admission: the oldest at the front.
    queue: VecDeque<T>,
    tasks_max: usize,
    weight: u32,
    turns_left: u32,
}

impl<T: Waiting> Scheduler<T> {
    /// Makes an empty scheduler and takes the memory for all that may wait in it.
    pub fn new(settings: &SchedulerSettings) -> Self {
        Self {
            classes: std::array::from_fn(|index| {
                let tasks_max = settings.queue_tasks_max[index];
                let weight = settings.weights[index].max(1);
                Class {
                    queue: VecDeque::with_capacity(tasks_max),
                    tasks_max,
                    weight,
                    turns_left: weight,
                }
            }),
            patience: settings.patience,
        }
    }

    /// Takes a task in. `alive` says whether a task's client is still there.
    ///
    /// # Errors
    /// The queue of its class was full: the task that had to go for it, and why. That
    /// may be `task` itself.
    pub fn admit(
        &mut self,
        task: T,
        now: Moment,
        alive: impl Fn(&T) -> bool,
    ) -> Result<(), (T, ShedReason)> {
        let patience = self.patience;
        let class = &mut self.classes[task.class() as usize];
        if class.queue.len() < class.tasks_max {
            class.queue.push_back(task);
            return Ok(());
        }
        let Some(oldest) = class.queue.front() else {
            return Err((task, ShedReason::QueueFull));
        };
        let reason = if let Some(useless) = useless(oldest, now, &alive) {
            useless
        } else if now.since(oldest.submitted()) > patience {
            ShedReason::QueueFull
        } else {
            return Err((task, ShedReason::QueueFull));
        };
        match class.queue.pop_front() {
            Some(oldest) => {
                class.queue.push_back(task);
                Err((oldest, reason))
            }
            None => Err((task, ShedReason::QueueFull)),
        }
    }

    /// Takes out the next task: one to run, or one to hand back. `None` when nothing
    /// waits.
    pub fn pick(&mut self, now: Moment, alive: impl Fn(&T) -> bool) -> Option<Pick<T>> {
        // The oldest of every class first, so that useless tasks give back their
        // credits even while the newest are the ones that run.
        for class in &mut self.classes {
            if let Some(reason) = class.queue.front().and_then(|task| useless(task, now, &alive)) {
                return class.queue.pop_front().map(|task| Pick::Shed(task, reason));
            }
        }
        let patience = self.patience;
        let class = self.next_class()?;
        let newest_first =
            class.queue.front().is_some_and(|oldest| now.since(oldest.submitted()) > patience);
        let task = if newest_first { class.queue.pop_back() } else { class.queue.pop_front() }?;
        if let Some(reason) = useless(&task, now, &alive) {
            return Some(Pick::Shed(task, reason));
        }
        class.turns_left -= 1;
        Some(Pick::Run { task, newest_first })
    }

    /// Takes out any task, in no particular order; for the end.
    pub fn take_any(&mut self) -> Option<T> {
        self.classes.iter_mut().find_map(|class| class.queue.pop_front())
    }

    /// Tasks that wait.
    pub fn len(&self) -> usize {
        self.classes.iter().map(|class| class.queue.len()).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.queue.is_empty())
    }

    /// The first class in order of preference that waits and has a turn left; when all
    /// that wait have used theirs up, a new round begins.
    fn next_class(&mut self) -> Option<&mut Class<T>> {
        let ready = |class: &Class<T>| !class.queue.is_empty() && class.turns_left > 0;
        let index = match self.classes.iter().position(ready) {
            Some(index) => index,
            None => {
                for class in &mut self.classes {
                    class.turns_left = class.weight;
                }
                self.classes.iter().position(ready)?
            }
        };
        Some(&mut self.classes[index])
    }
}

/// Why a task is not worth running, if it is not.
fn useless<T: Waiting>(task: &T, now: Moment, alive: impl Fn(&T) -> bool) -> Option<ShedReason> {
    if !alive(task) {
        Some(ShedReason::ClientGone)
    } else if task.deadline() <= now {
        Some(ShedReason::Expired)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
