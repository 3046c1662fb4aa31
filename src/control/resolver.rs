//! The resolver's thread: it asks nameservers for the names that are wanted, all the time.
//!
//! ```text
//!   control ── want ──▶ Book ◀── learned ── resolver ── one socket each ──▶ nameservers
//!      ▲                 │  behind a mutex     │
//!      └── changes() ────┘                     └ files of the system
//! ```
//!
//! It begins when a name is wanted for the first time. The mutex is held for moments: by this
//! thread, the control thread and whoever reads the metrics; no engine knows of it.
//!
//! May know: settings of the resolver, sockets, files. Must not know: pools, snapshots.

#![forbid(unsafe_code)]

mod exchange;
mod files;

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::poll_timeout::poll_timeout;
use crate::clock::Moment;
use crate::config::ResolverSettings;
use crate::dns::book::{Book, Change};
use crate::dns::lookup::{Found, Manner};
use crate::dns::message::RecordType;
use crate::dns::{Condition, Failure, Lookup, NamedServer, Outcome, Step, Wanted};
use crate::metrics::Counter;
use exchange::Exchange;
use files::Files;

/// Names that are asked for at once: each has a socket.
const LOOKUPS_MAX: usize = 32;

/// How long a start or a reload waits for names that were never asked for: three nameservers
/// that do not answer, twice each for five seconds, as resolv.conf(5) has it.
const FIRST_ANSWERS_MAX: Duration = Duration::from_secs(30);

/// How soon a name of the hosts file is looked up again.
const HOSTS_TTL: Duration = Duration::from_secs(5);

/// Servers that a line of the log names.
const SERVERS_LOGGED_MAX: usize = 8;

/// What came of lookups, by the value of the `result` label.
pub const RESULTS: [&str; 7] =
    ["found", "absent", "timeout", "unreachable", "refused", "malformed", "system"];

/// What is known of names, for everybody who asks.
#[derive(Debug)]
pub struct Names {
    state: Mutex<State>,
    tried: Condvar,
    /// [`Book::changes`], to be read without the mutex.
    changes: AtomicU64,
    /// Lookups by their result, as [`RESULTS`] has them. One writer: the resolver's thread.
    pub results: [Counter; RESULTS.len()],
}

#[derive(Debug)]
struct State {
    book: Book,
    settings: Arc<ResolverSettings>,
}

impl Default for Names {
    fn default() -> Self {
        let settings = Arc::new(ResolverSettings::default());
        let jitter = seed().unwrap_or_default();
        let book = Book::new(settings.lifetimes, settings.families, jitter);
        Self {
            state: Mutex::new(State { book, settings }),
            tried: Condvar::new(),
            changes: AtomicU64::new(0),
            results: Default::default(),
        }
    }
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that is another one when the servers of any name are others.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Does something with all that is known, while nothing is learned.
    pub fn read<T>(&self, with: impl FnOnce(&Book) -> T) -> T {
        with(&self.lock().book)
    }

    /// The servers of `name`, or why none is known.
    ///
    /// # Errors
    /// Its condition.
    pub fn servers(&self, name: &Wanted) -> Result<Vec<NamedServer>, Condition> {
        self.read(|book| {
            let servers = book.servers(name);
            if servers.is_empty() { Err(book.condition(name)) } else { Ok(servers) }
        })
    }
}

/// The way to the thread, which ends with it.
#[derive(Debug, Default)]
pub struct Resolver {
    names: Arc<Names>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    doorbell: UnixStream,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// What it knows.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// From now on `wanted` is asked for, in the manner of `settings`, and nothing else.
    ///
    /// # Errors
    /// There is no thread to be had for it.
    pub fn want(
        &mut self,
        wanted: BTreeSet<Wanted>,
        settings: &ResolverSettings,
    ) -> io::Result<()> {
        if wanted.is_empty() && self.running.is_none() {
            return Ok(());
        }
        let mut state = self.names.lock();
        if *state.settings != *settings {
            state.settings = Arc::new(settings.clone());
        }
        let State { book, settings } = &mut *state;
        book.want(wanted, settings.lifetimes, settings.families, Moment::now());
        drop(state);
        let running = match &mut self.running {
            Some(running) => running,
            None => self.running.insert(Running::start(Arc::clone(&self.names))?),
        };
        running.ring();
        Ok(())
    }

    /// Waits until each of `wanted` has been asked for once, but not for ever.
    pub fn wait_for(&self, wanted: &BTreeSet<Wanted>) {
        let deadline = Instant::now() + FIRST_ANSWERS_MAX;
        let mut state = self.names.lock();
        while !state.book.are_tried(wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.names.tried.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Running {
    fn start(names: Arc<Names>) -> io::Result<Self> {
        let (doorbell, bell) = UnixStream::pair()?;
        doorbell.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        let thread = thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || Asker::new(names, bell, ends).run())?;
        Ok(Self { doorbell, end, thread: Some(thread) })
    }

    fn ring(&mut self) {
        // Full is as good as rung.
        let _ = self.doorbell.write(&[0]);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        self.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Asker {
    names: Arc<Names>,
    bell: UnixStream,
    end: Arc<AtomicBool>,
    files: Files,
    asking: Vec<Asking>,
}

/// A name that is being asked for.
struct Asking {
    wanted: Wanted,
    lookup: Lookup,
    manner: Arc<Manner>,
    exchange: Exchange,
    deadline: Moment,
}

/// What is left of it after a step.
enum Asked {
    Waiting(Asking),
    Done(Wanted, Outcome),
}

impl Asker {
    fn new(names: Arc<Names>, bell: UnixStream, end: Arc<AtomicBool>) -> Self {
        let settings = Arc::clone(&names.lock().settings);
        let files = Files::read(settings, Moment::now());
        Self { names, bell, end, files, asking: Vec::new() }
    }

    fn run(mut self) {
        while !self.end.load(Ordering::Acquire) {
            let now = Moment::now();
            self.begin_lookups(now);
            let wait = self.next_event().map(|event| event.since(now));
            let ready = self.wait(wait);
            self.go_on(&ready);
        }
    }

    /// Begins with the names that are due, as many as may be.
    fn begin_lookups(&mut self, now: Moment) {
        let settings = Arc::clone(&self.names.lock().settings);
        self.files.renew(&settings, now);
        while self.asking.len() < LOOKUPS_MAX {
            let Some(wanted) = self.names.lock().book.next(now) else { return };
            if let Some(outcome) = self.in_hosts(&wanted) {
                self.learn(&wanted, outcome);
                continue;
            }
            match Asking::begin(wanted, self.files.manner(), now) {
                Asked::Waiting(asking) => self.asking.push(asking),
                Asked::Done(wanted, outcome) => self.learn(&wanted, outcome),
            }
        }
    }

    fn in_hosts(&self, wanted: &Wanted) -> Option<Outcome> {
        let Wanted::Host(name) = wanted else { return None };
        let families = self.files.manner().families;
        let mut addresses: Vec<IpAddr> = self.files.hosts().addresses(name)?;
        addresses.retain(|address| families.contain(*address));
        let found = Found::Addresses(addresses);
        Some(match &found {
            Found::Addresses(addresses) if addresses.is_empty() => {
                Outcome::Absent { exists: true, ttl: Some(HOSTS_TTL) }
            }
            _ => Outcome::Found { found, ttl: HOSTS_TTL, missing: None },
        })
    }

    fn next_event(&self) -> Option<Moment> {
        let answers = self.asking.iter().map(|asking| asking.deadline);
        let due =
            if self.asking.len() < LOOKUPS_MAX { self.names.lock().book.next_due() } else { None };
        answers.chain(due).min()
    }

    /// Waits for sockets, at most so long; says which of the names that are being asked for
    /// have something to read.
    fn wait(&mut self, most: Option<Duration>) -> HashSet<usize> {
        let timeout = most.map(poll_timeout);
        let bell = PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN);
        let sockets = self.asking.iter().map(|asking| {
            PollFd::from_borrowed_fd(asking.exchange.as_fd(), asking.exchange.interest())
        });
        let mut descriptors: Vec<_> = std::iter::once(bell).chain(sockets).collect();
        if let Err(error) = poll(&mut descriptors, timeout.as_ref())
            && error != rustix::io::Errno::INTR
        {
            // poll(2) fails for want of kernel memory only.
            tracing::error!(%error, "the resolver cannot wait for answers");
            thread::sleep(Duration::from_secs(1));
        }
        let is_ready =
            |(place, socket): (usize, &PollFd<'_>)| (!socket.revents().is_empty()).then_some(place);
        let ready = descriptors[1..].iter().enumerate().filter_map(is_ready).collect();
        drop(descriptors);
        let mut rung = [0; 64];
        while matches!(self.bell.read(&mut rung), Ok(1..)) {}
        ready
    }

    /// Takes what has arrived, and gives up on what has not.
    fn go_on(&mut self, ready: &HashSet<usize>) {
        let now = Moment::now();
        for (place, asking) in std::mem::take(&mut self.asking).into_iter().enumerate() {
            match asking.go_on(ready.contains(&place), now) {
                Asked::Waiting(asking) => self.asking.push(asking),
                Asked::Done(wanted, outcome) => self.learn(&wanted, outcome),
            }
        }
    }

    fn learn(&self, wanted: &Wanted, outcome: Outcome) {
        self.names.results[result_of(&outcome)].increment();
        let mut state = self.names.lock();
        let changes = state.book.learned(wanted, outcome, Moment::now());
        let servers = state.book.servers(wanted).len();
        self.names.changes.store(state.book.changes(), Ordering::Release);
        drop(state);
        self.names.tried.notify_all();
        for change in changes {
            log(wanted, servers, change);
        }
    }
}

impl Asking {
    fn begin(wanted: Wanted, manner: &Arc<Manner>, now: Moment) -> Asked {
        let Some(seed) = seed() else {
            let outcome = Outcome::Failed(RecordType::A, Failure::System);
            return Asked::Done(wanted, outcome);
        };
        let (lookup, step) = Lookup::begin(&wanted, manner, seed);
        Self::ask(wanted, lookup, Arc::clone(manner), step, now)
    }

    /// Does what `step` says, and the next if that fails at once.
    fn ask(
        wanted: Wanted,
        mut lookup: Lookup,
        manner: Arc<Manner>,
        mut step: Step,
        now: Moment,
    ) -> Asked {
        loop {
            let (server, over) = match step {
                Step::Ask { server, over } => (manner.conf.nameservers[server], over),
                Step::Done(outcome) => return Asked::Done(wanted, outcome),
            };
            match Exchange::begin(server, over, lookup.query()) {
                Ok(exchange) => {
                    let deadline = now.after(manner.conf.timeout);
                    return Asked::Waiting(Self { wanted, lookup, manner, exchange, deadline });
                }
                Err(error) => step = lookup.fail(failure_of(&error)),
            }
        }
    }

    fn go_on(mut self, ready: bool, now: Moment) -> Asked {
        let mut next = None;
        if ready {
            let Self { exchange, lookup, .. } = &mut self;
            let taken = exchange.go_on(|message| {
                next = lookup.take(message);
                next.is_some()
            });
            if let Err(error) = taken {
                next = Some(self.lookup.fail(failure_of(&error)));
            }
        }
        if next.is_none() && now >= self.deadline {
            next = Some(self.lookup.fail(Failure::Timeout));
        }
        match next {
            None => Asked::Waiting(self),
            Some(step) => Self::ask(self.wanted, self.lookup, self.manner, step, now),
        }
    }
}

fn failure_of(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::InvalidData => Failure::Malformed,
        _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)) => {
            Failure::System
        }
        _ => Failure::Unreachable,
    }
}

/// The place in [`RESULTS`].
fn result_of(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Found { .. } => 0,
        Outcome::Absent { .. } => 1,
        Outcome::Failed(_, Failure::Timeout) => 2,
        Outcome::Failed(_, Failure::Unreachable) => 3,
        Outcome::Failed(_, Failure::Refused(_)) => 4,
        Outcome::Failed(_, Failure::Malformed) => 5,
        Outcome::Failed(_, Failure::System) => 6,
    }
}

/// 64 bits that nobody can guess.
fn seed() -> Option<u64> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

fn log(name: &Wanted, servers: usize, change: Change) {
    match change {
        Change::Servers { added, removed } => {
            let (added, removed) = (list(&added), list(&removed));
            tracing::info!(%name, servers, added, removed, "the name stands for other servers");
        }
        Change::Condition(Condition::Current) => {
            tracing::info!(%name, servers, "the name is resolved");
        }
        Change::Condition(why) => {
            tracing::warn!(%name, %why, servers, "the name is not resolved: its servers stay");
        }
    }
}

fn list(servers: &[String]) -> String {
    let more = servers.len().saturating_sub(SERVERS_LOGGED_MAX);
    let shown = servers[..servers.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
