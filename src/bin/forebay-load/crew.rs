//! The threads that make the load, each with an event loop of its own, on its CPU.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use forebay::control::cpus::pin_current_thread;
use forebay::driver::scheduling;
use rustls::ClientConfig;

use crate::connection::Target;
use crate::event_loop::{EventLoop, Measured, PrepareError, Progress, Verified};
use crate::tally::Tally;
use crate::tickets::Tickets;
use crate::tls;
use crate::work::{Schedule, Work};

/// Where threads run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placement {
    /// How many threads.
    pub(crate) threads: usize,
    /// The CPU of each thread, in turn; empty to leave it to the kernel.
    pub(crate) cpus: Vec<usize>,
    /// Run only when nobody else wants the CPU.
    pub(crate) gives_way: bool,
}

/// What all threads of a crew do.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) target: Target,
    pub(crate) config: Option<ClientConfig>,
    pub(crate) resume: bool,
    pub(crate) work: Work,
}

/// Threads that wait for orders.
pub(crate) struct Crew {
    members: Vec<Member>,
    connections: usize,
}

struct Member {
    orders: Sender<Order>,
    prepared: Receiver<Result<usize, PrepareError>>,
    verified: Receiver<io::Result<Verified>>,
    results: Receiver<io::Result<Measured>>,
    progress: Arc<Progress>,
}

enum Order {
    Prepare(usize),
    Run(Schedule),
    Verify,
}

/// A crew cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrewError {
    #[error("cannot start a thread: {0}")]
    Start(io::Error),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("cannot wait for sockets: {0}")]
    Run(io::Error),
    #[error("a thread of the load generator has ended unexpectedly")]
    ThreadEnded,
}

impl Crew {
    /// Starts the threads; each has its share of the connections.
    pub(crate) fn start(task: &Task, placement: &Placement) -> Result<Self, CrewError> {
        let threads = placement.threads.clamp(1, task.work.connections.max(1));
        let members = (0..threads)
            .map(|number| Member::start(task, placement, number, threads))
            .collect::<Result<_, _>>()?;
        Ok(Self { members, connections: task.work.connections })
    }

    /// Brings connections up to `connections`, or gets as many tickets; returns how many
    /// connections are established then.
    pub(crate) fn prepare(&self, connections: usize) -> Result<usize, CrewError> {
        for (number, member) in self.members.iter().enumerate() {
            let share = share(connections, number, self.members.len());
            member.orders.send(Order::Prepare(share)).map_err(|_| CrewError::ThreadEnded)?;
        }
        let mut established = 0;
        for member in &self.members {
            established += member.prepared.recv().map_err(|_| CrewError::ThreadEnded)??;
        }
        Ok(established)
    }

    pub(crate) fn threads(&self) -> usize {
        self.members.len()
    }

    /// Brings all the connections up.
    pub(crate) fn prepare_all(&self) -> Result<usize, CrewError> {
        self.prepare(self.connections)
    }

    /// Lets the threads run a schedule; [`Self::results`] waits for them.
    pub(crate) fn run(&self, schedule: &Schedule) -> Result<(), CrewError> {
        for member in &self.members {
            let order = Order::Run(schedule.clone());
            member.orders.send(order).map_err(|_| CrewError::ThreadEnded)?;
        }
        Ok(())
    }

    /// Waits for the end of the schedule; the sum of what the threads measured.
    pub(crate) fn results(&self) -> Result<CrewResult, CrewError> {
        let mut sum = CrewResult::default();
        for member in &self.members {
            let measured = member.results.recv().map_err(|_| CrewError::ThreadEnded)?;
            let measured = measured.map_err(CrewError::Run)?;
            sum.windows.resize_with(measured.windows.len(), WindowResult::default);
            for (window, tally) in sum.windows.iter_mut().zip(&measured.windows) {
                window.busiest_cpu = window.busiest_cpu.max(tally.cpu);
                window.tally.add(tally);
            }
            sum.outside.add(&measured.outside);
        }
        Ok(sum)
    }

    /// Finds out how many connections that are held still stand.
    pub(crate) fn verify(&self) -> Result<Verified, CrewError> {
        for member in &self.members {
            member.orders.send(Order::Verify).map_err(|_| CrewError::ThreadEnded)?;
        }
        let mut sum = Verified::default();
        for member in &self.members {
            let verified = member.verified.recv().map_err(|_| CrewError::ThreadEnded)?;
            let verified = verified.map_err(CrewError::Run)?;
            sum.alive += verified.alive;
            sum.tally.add(&verified.tally);
        }
        Ok(sum)
    }

    /// Where each thread publishes what it does.
    pub(crate) fn progress(&self) -> Vec<Arc<Progress>> {
        self.members.iter().map(|member| Arc::clone(&member.progress)).collect()
    }
}

/// What a crew measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrewResult {
    /// In each window of the schedule.
    pub(crate) windows: Vec<WindowResult>,
    /// While connections were prepared, while it warmed up, between windows.
    pub(crate) outside: Tally,
}

/// What a crew measured in one window.
#[derive(Clone, Debug, Default)]
pub(crate) struct WindowResult {
    pub(crate) tally: Tally,
    /// CPU time of the thread that used most.
    pub(crate) busiest_cpu: Duration,
}

impl Member {
    fn start(
        task: &Task,
        placement: &Placement,
        number: usize,
        threads: usize,
    ) -> Result<Self, CrewError> {
        let progress = Arc::new(Progress::default());
        let (orders, receive_orders) = channel();
        let (send_prepared, prepared) = channel();
        let (send_results, results) = channel();
        let (send_verified, verified) = channel();
        let tickets = task.resume.then(|| Arc::new(Tickets::default()));
        let config = task.config.as_ref().map(|config| tls::of_thread(config, tickets.as_ref()));
        let target = Target { tls: config, ..task.target.clone() };
        let mut work = task.work.clone();
        work.connections = share(work.connections, number, threads);
        let mut event_loop =
            EventLoop::new(target, work, tickets, number, threads, Arc::clone(&progress))
                .map_err(CrewError::Start)?;
        let cpu =
            (!placement.cpus.is_empty()).then(|| placement.cpus[number % placement.cpus.len()]);
        let gives_way = placement.gives_way;
        let run = move || {
            settle(cpu, gives_way);
            for order in receive_orders {
                let sent = match order {
                    Order::Prepare(connections) => {
                        let result = event_loop.prepare(connections);
                        let result = result.map(|()| event_loop.established_now());
                        send_prepared.send(result).is_ok()
                    }
                    Order::Run(schedule) => send_results.send(event_loop.run(&schedule)).is_ok(),
                    Order::Verify => send_verified.send(event_loop.verify()).is_ok(),
                };
                if !sent {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name(format!("load-{number}"));
        thread.spawn(run).map_err(CrewError::Start)?;
        Ok(Self { orders, prepared, verified, results, progress })
    }
}

/// Gives the calling thread its CPU and its place among others.
pub(crate) fn settle(cpu: Option<usize>, gives_way: bool) {
    if let Some(cpu) = cpu {
        // Checked when the command line was read.
        let _ = pin_current_thread(cpu);
    }
    if gives_way {
        // A sandbox may refuse it: what others see of this thread is reported with the rest.
        let _ = scheduling::give_way_to_all();
    }
    // Due times are kept to the microsecond and not to the 50 that are the default.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// The share of thread `number` of `threads` in `total`.
fn share(total: usize, number: usize, threads: usize) -> usize {
    total / threads + usize::from(number < total % threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_differ_by_one_at_most() {
        for (total, threads) in [(10, 3), (3, 3), (2, 3), (0, 2), (100, 7)] {
            let shares: Vec<_> = (0..threads).map(|number| share(total, number, threads)).collect();
            assert_eq!(shares.iter().sum::<usize>(), total);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
