//! Active checks: one thread that connects to servers and asks their agents.
//!
//! ```text
//!   control ── pools, at start and reload ──▶ prober ── opinions ──▶ ServerStatus ──▶ engines
//!                                               │ ▲
//!                              connect, talk    ▼ │   one poll(2) loop
//!                                      servers, their agents
//! ```
//!
//! Bounded: [`PROBES_MAX`] checks run at once, each for its timeout at most; those that are
//! due beyond that wait their turn, the oldest first, and are counted if they are a second
//! late. What this machine is to blame for (no descriptor, no local port) says nothing of a
//! server. Who is in maintenance is not checked.
//!
//! A server is taken for good until its checks have failed, so that a start refuses nobody.
//! What is known survives a reload; whoever is not checked any more is taken for good again.
//!
//! May know: pools, statuses, sockets of its own. Must not know: engines.
#![forbid(unsafe_code)]

mod probe;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, Read, Write};
use std::mem;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::metrics::control_cells::ControlCells;
use super::poll_timeout::poll_timeout;
use crate::clock::Moment;
use crate::endpoint::Endpoint;
use crate::proxy_protocol::ProxyProtocol;
use crate::upstream::agent;
use crate::upstream::exchange::{Exchange, Expect, Failure, Script};
use crate::upstream::health::{Check, Health, Rhythm, Transition};
use crate::upstream::opinions::{AgentOpinion, Wish};
use crate::upstream::{Backend, Pool, ServerStatus};
use probe::{NotStarted, Probe};

/// Checks that run at once: a descriptor each, of those that `limits` keeps back.
pub const PROBES_MAX: usize = 32;

/// A check that begins so long after its time is counted as late.
const LATE: Duration = Duration::from_secs(1);

/// How long checks pause when this machine has no descriptor or port for one.
const PAUSE: Duration = Duration::from_secs(1);

/// The way to the prober's thread; dropping it ends the thread.
#[derive(Debug)]
pub struct Prober {
    orders: Arc<Mutex<Option<Vec<Arc<Pool>>>>>,
    wake: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Starts it, with nothing to check yet.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had.
    pub fn start(cells: Arc<ControlCells>) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let orders = Arc::new(Mutex::new(None));
        let probing = Probing {
            woken,
            orders: Arc::clone(&orders),
            cells,
            node: node_name(),
            watches: Vec::new(),
            due: BinaryHeap::new(),
            probes: Vec::with_capacity(PROBES_MAX),
            paused_until: None,
        };
        let thread =
            thread::Builder::new().name("prober".to_owned()).spawn(move || probing.run())?;
        Ok(Self { orders, wake: Some(wake), thread: Some(thread) })
    }

    /// Checks the servers of these pools from now on.
    pub fn replace(&self, pools: &[Arc<Pool>]) {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(pools.to_vec());
        if let Some(mut wake) = self.wake.as_ref() {
            // With no room for a byte, there are bytes that wake it.
            let _ = wake.write(&[0]);
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // The thread sees the end of the stream.
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the prober panicked");
        }
    }
}

/// What tells this node from the others of a tier.
fn node_name() -> String {
    // Without /proc, nodes may check in step.
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}

/// The thread's own state.
struct Probing {
    woken: UnixStream,
    orders: Arc<Mutex<Option<Vec<Arc<Pool>>>>>,
    cells: Arc<ControlCells>,
    node: String,
    watches: Vec<Watch>,
    /// When each watch that is not being probed is to be, by its place.
    due: BinaryHeap<Reverse<(Moment, usize)>>,
    probes: Vec<Probe>,
    /// This machine was short of something.
    paused_until: Option<Moment>,
}

/// What of a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Server,
    Agent,
}

/// One thing that is asked again and again.
struct Watch {
    subject: Subject,
    pool: Arc<str>,
    server: String,
    address: Endpoint,
    proxy: ProxyProtocol,
    /// Where the connections come from; `None` leaves it to the kernel.
    source: Option<IpAddr>,
    script: Script,
    check: Arc<Check>,
    status: Arc<ServerStatus>,
    rhythm: Rhythm,
    health: Health,
}

impl Probing {
    fn run(mut self) {
        loop {
            match self.turn() {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    // poll(2) fails for want of kernel memory only: try again later.
                    tracing::error!(%error, "prober: cannot wait for servers");
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Begins what is due, waits once, and goes on with whatever is ready; true when told
    /// to stop.
    fn turn(&mut self) -> io::Result<bool> {
        let now = Moment::now();
        self.end_late(now);
        self.begin_due(now);
        let next = self.next_moment();
        let timeout = next.map(|next| poll_timeout(next.since(now)));
        let mut descriptors = Vec::with_capacity(1 + self.probes.len());
        descriptors.push(PollFd::from_borrowed_fd(self.woken.as_fd(), PollFlags::IN));
        descriptors.extend(self.probes.iter().map(Probe::poll_fd));
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> =
            descriptors.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();

        // From the last to the first, so that one that ends moves none that is to be seen yet.
        for place in (0..self.probes.len()).rev().filter(|place| ready[place + 1]) {
            if let Some(result) = self.probes[place].go_on() {
                self.finish(place, result, Moment::now());
            }
        }
        if !ready[0] {
            return Ok(false);
        }
        if let Ok(0) = (&self.woken).read(&mut [0; 64]) {
            return Ok(true);
        }
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pools) = orders {
            self.replace(&pools, Moment::now());
        }
        Ok(false)
    }

    fn next_moment(&self) -> Option<Moment> {
        let due = self.due.peek().map(|Reverse((due, _))| *due);
        let may_begin = self.probes.len() < PROBES_MAX;
        let begin = due.filter(|_| may_begin).map(|due| due.max(self.paused_until.unwrap_or(due)));
        self.probes.iter().map(|probe| probe.deadline).chain(begin).min()
    }

    fn end_late(&mut self, now: Moment) {
        for place in (0..self.probes.len()).rev() {
            if now >= self.probes[place].deadline {
                let failure = self.probes[place].timed_out();
                self.finish(place, Err(failure), now);
            }
        }
    }

    fn begin_due(&mut self, now: Moment) {
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        while self.probes.len() < PROBES_MAX
            && let Some(Reverse((due, place))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            let watch = &mut self.watches[place];
            if !watch.is_wanted() {
                self.due.push(Reverse((watch.rhythm.next(now, now, &watch.check), place)));
                continue;
            }
            if now.since(due) > LATE {
                self.cells.checks_late.increment();
            }
            let exchange = Exchange::new(watch.proxy, &watch.script);
            let deadline = now.after(watch.check.timeout);
            match Probe::start(place, &watch.address, watch.source, exchange, now, deadline) {
                Ok(probe) => {
                    self.probes.push(probe);
                    self.paused_until = None;
                }
                Err(NotStarted::Server(error)) => {
                    watch.take(Err(Failure::Connect(error)), &[], now);
                    self.due.push(Reverse((watch.rhythm.next(now, now, &watch.check), place)));
                }
                Err(NotStarted::Ourselves(error)) => {
                    if self.paused_until.is_none() {
                        tracing::warn!(%error, "servers cannot be checked: what is known stays");
                    }
                    self.paused_until = Some(now.after(PAUSE));
                    self.due.push(Reverse((due, place)));
                    return;
                }
            }
        }
    }

    fn finish(&mut self, place: usize, result: Result<(), Failure>, now: Moment) {
        let probe = self.probes.swap_remove(place);
        let watch = &mut self.watches[probe.watch];
        watch.take(result, probe.answer(), now);
        let next = watch.rhythm.next(probe.began, now, &watch.check);
        self.due.push(Reverse((next, probe.watch)));
    }

    /// Watches the servers of `pools` from now on. Checks under way begin anew.
    fn replace(&mut self, pools: &[Arc<Pool>], now: Moment) {
        self.probes.clear();
        let key = |watch: &Watch| (Arc::as_ptr(&watch.status).addr(), watch.subject);
        let before = mem::take(&mut self.watches);
        let mut before: HashMap<_, _> = before.into_iter().map(|one| (key(&one), one)).collect();
        let watched = pools.iter().flat_map(|pool| watches_of(pool, &self.node));
        self.watches = watched
            .map(|watch| match before.remove(&key(&watch)) {
                Some(known) => Watch { health: known.health, rhythm: known.rhythm, ..watch },
                None => watch,
            })
            .collect();
        for watch in before.into_values() {
            watch.forget(now);
        }
        let place_due = |(place, watch): (usize, &mut Watch)| {
            Reverse((watch.rhythm.first(now, &watch.check), place))
        };
        self.due = self.watches.iter_mut().enumerate().map(place_due).collect();
    }
}

fn watches_of<'a>(pool: &'a Pool, node: &'a str) -> impl Iterator<Item = Watch> {
    let of_server = move |check: &'a Arc<Check>, backend: &'a Backend| {
        let watch = move |subject, address: Endpoint, proxy, script| Watch {
            subject,
            pool: Arc::clone(&pool.name),
            server: backend.name.clone(),
            rhythm: Rhythm::new(node, (&pool.name, &address, subject)),
            source: match &address {
                Endpoint::Inet(address) => pool.source.own_towards(address),
                Endpoint::Unix(_) => None,
            },
            address,
            proxy,
            script,
            check: Arc::clone(check),
            status: Arc::clone(&backend.status),
            health: Health::default(),
        };
        let at = |port: Option<u16>| match (&backend.endpoint, port) {
            (Endpoint::Inet(address), Some(port)) => Endpoint::Inet((address.ip(), port).into()),
            (endpoint, _) => endpoint.clone(),
        };
        let line = Script { send: Vec::new(), expect: Expect::Line };
        let agent = check.agent_port.filter(|_| matches!(backend.endpoint, Endpoint::Inet(_)));
        let script = check.script.clone();
        // A port of its own is not the one that clients' connections go to.
        let own_port = check.port.filter(|_| matches!(backend.endpoint, Endpoint::Inet(_)));
        let proxy = own_port.map_or(pool.proxy_protocol, |_| ProxyProtocol::None);
        [watch(Subject::Server, at(own_port), proxy, script)].into_iter().chain(
            agent.map(|port| watch(Subject::Agent, at(Some(port)), ProxyProtocol::None, line)),
        )
    };
    pool.check
        .iter()
        .flat_map(move |check| pool.backends.iter().flat_map(move |one| of_server(check, one)))
}

impl Watch {
    /// Whether it is to be asked now.
    fn is_wanted(&self) -> bool {
        let opinions = self.status.opinions();
        let wish = match self.subject {
            Subject::Server => opinions.operator.max(opinions.agent.wish),
            // Only the agent can take back what it said.
            Subject::Agent => opinions.operator,
        };
        wish < Wish::Maintenance
    }

    /// Takes in what came of a check.
    fn take(&mut self, result: Result<(), Failure>, answer: &[u8], now: Moment) {
        match self.subject {
            Subject::Server => self.take_check(result, now),
            Subject::Agent => {
                let before = self.status.opinions().agent;
                let said = result.map_err(|failure| failure.to_string()).and_then(|()| {
                    agent::understand(answer, before).map_err(|error| error.to_string())
                });
                self.take_agent(said, before, now);
            }
        }
    }

    fn take_check(&mut self, result: Result<(), Failure>, now: Moment) {
        let counts = self.status.checks();
        let transition = self.health.note(result.is_ok(), &self.check);
        let (pool, server) = (&*self.pool, &*self.server);
        match &result {
            Ok(()) => counts.passed.increment(),
            Err(failure) => {
                counts.failed.increment();
                self.status.remarks().check_failure = Some(failure.to_string());
            }
        }
        match (transition, result) {
            (Some(Transition::Fails), Err(cause)) => {
                counts.taken_out.increment();
                let (_, after) = self.status.change(now, |opinions| opinions.check_fails = true);
                let state = after.availability.label();
                tracing::warn!(pool, server, %cause, state, "server fails its checks");
            }
            (Some(_), _) => {
                let (_, after) = self.status.change(now, |opinions| opinions.check_fails = false);
                let state = after.availability.label();
                tracing::info!(pool, server, state, "server passes its checks again");
            }
            (None, _) => {}
        }
    }

    /// An agent that is not heard has not changed its mind.
    fn take_agent(&self, said: Result<AgentOpinion, String>, before: AgentOpinion, now: Moment) {
        let (pool, server) = (&*self.pool, &*self.server);
        match said {
            Ok(opinion) if opinion == before => {}
            Ok(opinion) => {
                let (_, after) = self.status.change(now, |opinions| opinions.agent = opinion);
                let AgentOpinion { weight_percent, connections_max, .. } = opinion;
                let state = after.availability.label();
                if (opinion.wish, opinion.fails) == (before.wish, before.fails) {
                    tracing::debug!(
                        pool,
                        server,
                        weight_percent,
                        ?connections_max,
                        "agent changes what the server gets"
                    );
                } else {
                    tracing::info!(
                        pool,
                        server,
                        state,
                        weight_percent,
                        "agent changes the server's state"
                    );
                }
            }
            Err(cause) => {
                self.status.checks().agent_failed.increment();
                tracing::debug!(pool, server, cause, "agent not heard: what it said stays");
                self.status.remarks().agent_failure = Some(cause);
            }
        }
    }

    /// Nobody looks any more: takes back what was said.
    fn forget(&self, now: Moment) {
        match self.subject {
            Subject::Server => self.status.change(now, |opinions| opinions.check_fails = false),
            Subject::Agent => {
                self.status.change(now, |opinions| opinions.agent = AgentOpinion::default())
            }
        };
    }
}

#[cfg(test)]
mod tests;
