//! The loop of one thread: opens clients, begins operations when they are due, looks after
//! sockets that are ready, ends what takes too long, and counts.
//!
//! Owns its clients and everything it measures; shares nothing that is written often.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};

use crate::client::{Bytes, Client, Happening, Operation, Stage};
use crate::connection::{Connection, Hello, Scratch, Target};
use crate::failure::{Cause, Failure};
use crate::pace::Pace;
use crate::tally::Tally;
use crate::tickets::Tickets;
use crate::work::{Close, Purpose, Schedule, Work, is_interrupted};

/// Sockets looked after before operations that have become due meanwhile are begun: each
/// may take a handshake's time.
const EVENTS_MAX: usize = 32;
/// Operations begun before sockets are looked after.
const BEGUN_AT_ONCE_MAX: usize = 32;
/// Connections that are kept are opened so many at a time.
const OPENING_MAX: usize = 64;
/// A place whose connection failed stays empty for so long, so that a server that refuses
/// everything is not tried a hundred thousand times a second.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
/// The longest sleep: how late an interruption may be noticed.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// What others may see of a loop that runs.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) operations: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// What a thread measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// In each window of the schedule.
    pub(crate) windows: Vec<Tally>,
    /// While connections were prepared, while it warmed up, between windows.
    pub(crate) outside: Tally,
}

/// What became of connections that are held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verified {
    /// They stand, and if there is a request, answer it.
    pub(crate) alive: usize,
    /// What was measured outside of windows until now.
    pub(crate) tally: Tally,
}

/// Why connections could not be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// They fail.
    #[error("connections fail, the first of them with: {0}")]
    Connections(String),
    /// No session can be resumed.
    #[error("the server gives no session that could be resumed (no ticket came in {0} handshakes)")]
    NoTickets(u64),
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
    /// The kernel refuses what is needed in any case.
    #[error("cannot wait for sockets: {0}")]
    System(#[from] io::Error),
}

/// One thread's clients.
pub(crate) struct EventLoop {
    target: Target,
    work: Work,
    tickets: Option<Arc<Tickets>>,
    /// This thread's number and the number of threads: the rate is divided among them.
    number: usize,
    threads: usize,
    progress: Arc<Progress>,

    epoll: OwnedFd,
    scratch: Scratch,
    slots: Vec<Slot>,
    free: Vec<u32>,
    in_use: usize,
    /// Connections that are not yet what they were opened to be.
    opening: usize,
    /// Operations begun and not over.
    in_flight: usize,
    /// Connections on which a request can be made.
    ready: VecDeque<u32>,
    /// Clients that have more to do than one turn allowed.
    busy: VecDeque<u32>,
    deadlines: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    /// When places whose connection failed may be used again.
    paused: VecDeque<Instant>,
    unused: Vec<Hello>,
    opened: usize,
    /// An operation was due and there was no room for it.
    no_room: bool,

    pace: Pace,
    schedule: Option<Schedule>,
    tallies: Vec<Tally>,
    /// What does not belong to a window.
    outside: Tally,
    /// What happened since the loop was made, for preparing and for progress.
    established: u64,
    failures: u64,
    /// Failures since a connection last became what it was opened to be.
    failures_in_a_row: usize,
    first_failure: Option<String>,
    operations: u64,
    bytes: u64,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    client: Option<Box<Client>>,
}

impl EventLoop {
    pub(crate) fn new(
        target: Target,
        work: Work,
        tickets: Option<Arc<Tickets>>,
        number: usize,
        threads: usize,
        progress: Arc<Progress>,
    ) -> io::Result<Self> {
        Ok(Self {
            target,
            work,
            tickets,
            number,
            threads,
            progress,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            scratch: Scratch::default(),
            slots: Vec::new(),
            free: Vec::new(),
            in_use: 0,
            opening: 0,
            in_flight: 0,
            ready: VecDeque::new(),
            busy: VecDeque::new(),
            deadlines: BinaryHeap::new(),
            paused: VecDeque::new(),
            unused: Vec::new(),
            opened: 0,
            no_room: false,
            pace: Pace::Closed,
            schedule: None,
            tallies: Vec::new(),
            outside: Tally::default(),
            established: 0,
            failures: 0,
            failures_in_a_row: 0,
            first_failure: None,
            operations: 0,
            bytes: 0,
        })
    }

    /// Brings the number of connections that are kept up to `connections`; for operations
    /// that are connections, gets tickets for so many if they are to be resumed.
    ///
    /// # Errors
    /// It cannot be done. Connections that are held may fail: they are missing then.
    pub(crate) fn prepare(&mut self, connections: usize) -> Result<(), PrepareError> {
        self.work.connections = connections;
        let failures_max = self.failures + connections.max(10) as u64;
        let established_max = self.established + 2 * connections.max(10) as u64;
        loop {
            if is_interrupted() {
                return Err(PrepareError::Interrupted);
            }
            let done = match (self.work.purpose, &self.tickets) {
                (Purpose::Connection, None) => true,
                (Purpose::Connection, Some(tickets)) => {
                    if self.established >= established_max && tickets.resumptions() == 0 {
                        return Err(PrepareError::NoTickets(self.established));
                    }
                    self.in_flight == 0
                        && (tickets.resumptions() >= connections
                            || self.established >= established_max)
                }
                (Purpose::Exchange, _) => self.ready.len() >= connections,
                (Purpose::Hold, _) => {
                    let tried = self.in_use as u64 + self.failures >= connections as u64;
                    self.opening == 0 && (tried || self.takes_no_more())
                }
            };
            if done {
                return Ok(());
            }
            if self.failures >= failures_max && self.work.purpose != Purpose::Hold {
                let first = self.first_failure.clone().unwrap_or_default();
                return Err(PrepareError::Connections(first));
            }
            let now = Instant::now();
            let tickets = self.tickets.as_ref().map_or(0, |tickets| tickets.resumptions());
            if self.work.purpose == Purpose::Connection {
                while self.in_flight.saturating_add(tickets) < connections
                    && self.in_flight < OPENING_MAX
                    && self.established + (self.in_flight as u64) < established_max
                    && self.has_room(now)
                {
                    self.open(Some(Operation {
                        due: now,
                        waits_from: now,
                        claimed: false,
                        latency: None,
                    }));
                }
            }
            self.open_missing(now);
            self.turn(SLEEP_MAX)?;
        }
    }

    /// How many connections are established.
    pub(crate) fn established_now(&self) -> usize {
        self.in_use - self.opening
    }

    /// Runs the schedule to its end.
    ///
    /// # Errors
    /// Only what makes it impossible to go on.
    pub(crate) fn run(&mut self, schedule: &Schedule) -> io::Result<Measured> {
        self.pace = match self.work.rate {
            None => Pace::Closed,
            Some(rate) => Pace::open(rate, schedule.begin, self.number, self.threads),
        };
        self.tallies = vec![Tally::default(); schedule.windows.len()];
        self.schedule = Some(schedule.clone());
        let mut clocks = vec![(None, None); schedule.windows.len()];
        loop {
            let now = Instant::now();
            for (window, clock) in schedule.windows.iter().zip(&mut clocks) {
                if now >= window.start && clock.0.is_none() {
                    clock.0 = Some(thread_cpu_time());
                }
                if now >= window.end && clock.1.is_none() {
                    clock.1 = Some(thread_cpu_time());
                }
            }
            if self.is_over(schedule, now) {
                break;
            }
            self.begin_due(schedule, now);
            self.open_missing(now);
            self.publish();
            let wait = self.next_moment(schedule, now).saturating_duration_since(now);
            self.turn(wait.min(SLEEP_MAX))?;
        }
        let end = thread_cpu_time();
        for (tally, clock) in self.tallies.iter_mut().zip(clocks) {
            let begin = clock.0.unwrap_or(end);
            tally.cpu = clock.1.unwrap_or(end).saturating_sub(begin);
        }
        self.publish();
        self.schedule = None;
        let windows = std::mem::take(&mut self.tallies);
        Ok(Measured { windows, outside: self.outside.clone() })
    }

    /// Finds out which connections still stand: those that have ended show it, and if there
    /// is a request, each makes one.
    ///
    /// # Errors
    /// Only what makes it impossible to go on.
    pub(crate) fn verify(&mut self) -> io::Result<Verified> {
        if self.work.request.is_some() {
            for index in 0..self.slots.len() as u32 {
                while self.opening >= OPENING_MAX && !is_interrupted() {
                    self.turn(SLEEP_MAX)?;
                }
                let slot = &mut self.slots[index as usize];
                let Some(client) = &mut slot.client else { continue };
                let deadline = Instant::now() + self.work.timeout;
                (client.opening, client.deadline) = (true, Some(deadline));
                self.deadlines.push(Reverse((deadline, index, slot.generation)));
                self.opening += 1;
                self.request(index);
                self.advance(index);
            }
            while self.opening > 0 && !is_interrupted() {
                self.turn(SLEEP_MAX)?;
            }
        } else {
            // What the kernel has to tell comes in a few sets of events.
            for _ in 0..=self.in_use / EVENTS_MAX {
                self.turn(Duration::ZERO)?;
            }
        }
        self.publish();
        Ok(Verified { alive: self.in_use, tally: self.outside.clone() })
    }

    fn is_over(&self, schedule: &Schedule, now: Instant) -> bool {
        if is_interrupted() {
            return true;
        }
        if schedule.is_exhausted() && self.in_flight == 0 {
            return true;
        }
        if now < schedule.stop {
            return false;
        }
        // In a closed loop what is in flight belongs to no window; in an open one, or if it
        // was counted, it does, and has its time.
        let open = self.pace.is_open() || schedule.budget.is_some();
        !open
            || (self.in_flight == 0
                && !(self.pace.is_open() && self.pace.next(now) < schedule.stop))
    }

    /// Begins operations that are due, as long as there is room.
    fn begin_due(&mut self, schedule: &Schedule, mut now: Instant) {
        if now < schedule.begin {
            return;
        }
        for _ in 0..BEGUN_AT_ONCE_MAX {
            let due = self.pace.next(now);
            if due > now || due >= schedule.stop || self.work.purpose == Purpose::Hold {
                self.no_room &= due <= now;
                return;
            }
            let claims = schedule.budget.is_some() && now >= schedule.windows[0].start;
            if claims && schedule.is_exhausted() {
                return;
            }
            if self.pace.is_open() && now.duration_since(due) > self.work.timeout {
                // Its client has lost patience before there was room for it.
                self.pace.take();
                self.never_begun(due, now);
                continue;
            }
            let room = match self.work.purpose {
                Purpose::Exchange => !self.ready.is_empty(),
                Purpose::Connection | Purpose::Hold => self.has_room(now),
            };
            if !room {
                self.no_room = true;
                return;
            }
            if claims && !schedule.claim() {
                return;
            }
            let waits_from = if self.no_room { due } else { now };
            if self.pace.is_open() && !self.no_room {
                let late = now.duration_since(due);
                self.tally_at(due).lateness.record(late);
            }
            self.no_room = false;
            self.pace.take();
            let operation = Operation { due, waits_from, claimed: claims, latency: None };
            match self.work.purpose {
                Purpose::Exchange => {
                    if let Some(index) = self.ready.pop_front() {
                        self.exchange(index, operation);
                    }
                }
                Purpose::Connection | Purpose::Hold => self.open(Some(operation)),
            }
            now = Instant::now();
        }
    }

    /// Opens connections that are to be kept and are not there.
    fn open_missing(&mut self, now: Instant) {
        if self.work.purpose == Purpose::Connection {
            return;
        }
        while self.opening < OPENING_MAX && self.has_room(now) {
            // Held ones are tried once.
            let tried = self.in_use as u64 + self.failures;
            let enough = tried >= self.work.connections as u64 || self.takes_no_more();
            if self.work.purpose == Purpose::Hold && enough {
                return;
            }
            self.open(None);
        }
    }

    /// The server is full, or gone: without this the rest of a great number would be tried
    /// until each has run out of time.
    fn takes_no_more(&self) -> bool {
        self.failures_in_a_row >= OPENING_MAX
    }

    fn has_room(&mut self, now: Instant) -> bool {
        while self.paused.front().is_some_and(|until| *until <= now) {
            self.paused.pop_front();
        }
        // In an open loop clients come from outside: none of them waits for another's pause.
        let paused = if self.pace.is_open() { 0 } else { self.paused.len() };
        self.in_use + paused < self.work.connections
    }

    fn open(&mut self, operation: Option<Operation>) {
        let waits_from = operation.map_or_else(Instant::now, |operation| operation.waits_from);
        let unused = self.unused.pop();
        let opened = Connection::open(&self.target, self.opened, unused, &mut self.scratch);
        self.opened += 1;
        let connection = match opened {
            Ok(connection) => connection,
            Err(failure) => {
                self.account_failure(operation, &failure);
                return;
            }
        };
        let mut client = Box::new(Client::new(connection, operation));
        let deadline = waits_from + self.work.timeout;
        client.deadline = Some(deadline);
        client.looked_at = Some(deadline);
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        self.in_use += 1;
        self.opening += 1;
        self.in_flight += usize::from(operation.is_some());
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let generation = slot.generation;
        slot.client = Some(client);
        self.deadlines.push(Reverse((deadline, index, generation)));
        // On the loopback the connection stands already.
        self.advance(index);
        let Some(client) = &mut self.slots[index as usize].client else { return };
        client.watches_writable =
            client.stage == Stage::Connecting || client.connection.is_blocked();
        let data = epoll::EventData::new_u64(key(index, generation));
        let flags = watched(client.watches_writable);
        if let Err(error) = epoll::add(&self.epoll, &client.connection.socket, data, flags) {
            self.fail(index, &io::Error::from(error).into());
        }
    }

    /// Waits for sockets, looks after those that are ready, and ends what takes too long.
    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let wait = if self.busy.is_empty() { wait } else { Duration::ZERO };
        let timeout =
            Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let epoll::Event { data, flags, .. } = event;
            let (index, generation) = slot_of(data.u64());
            let slot = &mut self.slots[index as usize];
            let Some(client) = slot.client.as_mut().filter(|_| slot.generation == generation)
            else {
                continue;
            };
            let over = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            if flags.intersects(epoll::EventFlags::IN | over) {
                client.socket_ready(flags.intersects(over));
            }
            self.advance(index);
        }
        for _ in 0..self.busy.len() {
            let Some(index) = self.busy.pop_front() else { break };
            if let Some(client) = &mut self.slots[index as usize].client {
                client.queued = false;
                self.advance(index);
            }
        }
        self.expire();
        Ok(())
    }

    /// Takes a client as far as it comes.
    fn advance(&mut self, index: u32) {
        loop {
            let Some(client) = &mut self.slots[index as usize].client else { return };
            let mut bytes = Bytes::default();
            let result = client.advance(&mut self.scratch, &mut bytes);
            self.account_bytes(bytes);
            match result {
                Ok(Happening::Waiting) => return self.watch(index),
                Ok(Happening::Busy) => {
                    if let Some(client) = &mut self.slots[index as usize].client
                        && !client.queued
                    {
                        client.queued = true;
                        self.busy.push_back(index);
                    }
                    return;
                }
                Ok(Happening::Established) => self.established(index),
                Ok(Happening::Answered) => self.answered(index),
                Ok(Happening::Ended) => return self.ended(index),
                Err(failure) => return self.fail(index, &failure),
            }
        }
    }

    /// Has the kernel tell when a socket that is full can be written again.
    fn watch(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(client) = &mut slot.client else { return };
        // While it is being opened it is not in the set yet.
        if client.watches_writable || !client.connection.is_blocked() {
            return;
        }
        let data = epoll::EventData::new_u64(key(index, slot.generation));
        match epoll::modify(&self.epoll, &client.connection.socket, data, watched(true)) {
            Ok(()) => client.watches_writable = true,
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => self.fail(index, &io::Error::from(error).into()),
        }
    }

    /// The connection is ready for use.
    fn established(&mut self, index: u32) {
        let now = Instant::now();
        let Some(client) = &mut self.slots[index as usize].client else { return };
        self.established += 1;
        let (operation, opened) = (client.operation, client.opened);
        let session = client.connection.session();
        let negotiated = session.map(|session| (session.negotiated(), session.resumed()));
        let tally = self.tally_at(now);
        tally.handshakes += 1;
        if let Some((negotiated, resumed)) = negotiated {
            tally.resumed += u64::from(resumed);
            *tally.negotiated.entry(negotiated).or_default() += 1;
        }
        if operation.is_none() {
            let latency = now.duration_since(opened);
            tally.handshake_latencies.record(latency);
        }
        let goes_on = self.work.request.is_some() && self.work.purpose != Purpose::Exchange;
        if let Some(operation) = operation {
            let latency = now.duration_since(operation.due);
            if goes_on {
                self.tally_for(&operation, now).handshake_latencies.record(latency);
            } else if let Some(client) = &mut self.slots[index as usize].client {
                client.operation = Some(Operation { latency: Some(latency), ..operation });
            }
        }
        if self.work.greeting_bytes > 0 {
            let count = self.work.greeting_bytes;
            if !self.with(index, |client, scratch, bytes, _| client.greet(count, scratch, bytes)) {
                return;
            }
        }
        if goes_on {
            self.request(index);
        } else {
            self.used(index);
        }
    }

    /// Sends the request; false if that failed.
    fn request(&mut self, index: u32) {
        self.with(index, |client, scratch, bytes, work| match &work.request {
            Some(request) => client.request(request, scratch, bytes),
            None => Ok(()),
        });
    }

    /// Begins an operation on a connection that is ready.
    fn exchange(&mut self, index: u32, operation: Operation) {
        let slot = &mut self.slots[index as usize];
        let Some(client) = &mut slot.client else { return };
        client.operation = Some(operation);
        let deadline = operation.waits_from + self.work.timeout;
        client.deadline = Some(deadline);
        if client.looked_at.is_none_or(|looked_at| looked_at > deadline) {
            client.looked_at = Some(deadline);
            self.deadlines.push(Reverse((deadline, index, slot.generation)));
        }
        self.in_flight += 1;
        self.request(index);
        self.advance(index);
    }

    /// Does something to a client that may fail; false if the client is gone then.
    fn with(
        &mut self,
        index: u32,
        act: impl FnOnce(&mut Client, &mut Scratch, &mut Bytes, &Work) -> Result<(), Failure>,
    ) -> bool {
        let Some(client) = &mut self.slots[index as usize].client else { return false };
        let mut bytes = Bytes::default();
        let result = act(client, &mut self.scratch, &mut bytes, &self.work);
        self.account_bytes(bytes);
        match result {
            Ok(()) => true,
            Err(failure) => {
                self.fail(index, &failure);
                false
            }
        }
    }

    /// The answer is complete.
    fn answered(&mut self, index: u32) {
        let now = Instant::now();
        let Some(client) = &mut self.slots[index as usize].client else { return };
        if let Some(operation) = &mut client.operation {
            operation.latency = Some(now.duration_since(operation.due));
        }
        self.used(index);
    }

    /// What the connection was opened for, or the exchange, is done.
    fn used(&mut self, index: u32) {
        if let Some(client) = &mut self.slots[index as usize].client
            && std::mem::take(&mut client.opening)
        {
            self.opening -= 1;
            self.failures_in_a_row = 0;
        }
        match self.work.purpose {
            Purpose::Connection => match self.work.close {
                Close::Wait => {
                    self.with(index, |client, scratch, _, _| client.finish(scratch));
                }
                Close::Leave => {
                    if self.with(index, |client, scratch, _, _| client.finish(scratch)) {
                        self.succeed(index);
                        self.remove(index);
                    }
                }
                Close::Reset => {
                    self.succeed(index);
                    if let Some(client) = self.remove(index) {
                        client.connection.reset();
                    }
                }
            },
            Purpose::Exchange | Purpose::Hold => {
                self.succeed(index);
                let Some(client) = &mut self.slots[index as usize].client else { return };
                client.deadline = None;
                if client.is_over() {
                    // Another one takes its place.
                    self.tally_at(Instant::now()).reconnects += 1;
                    self.remove(index);
                } else if self.work.purpose == Purpose::Exchange {
                    self.ready.push_back(index);
                } else {
                    client.connection.rest();
                }
            }
        }
    }

    /// The server has ended the connection.
    fn ended(&mut self, index: u32) {
        let Some(client) = &self.slots[index as usize].client else { return };
        match (client.stage, self.work.purpose) {
            (Stage::Closing, _) => {
                self.succeed(index);
                self.remove(index);
            }
            (Stage::Ready, Purpose::Exchange) => {
                self.ready.retain(|ready| *ready != index);
                self.tally_at(Instant::now()).reconnects += 1;
                self.remove(index);
            }
            _ => self.fail(index, &Cause::ClosedEarly.into()),
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((moment, index, generation))) = self.deadlines.peek().copied() {
            if moment > now {
                return;
            }
            self.deadlines.pop();
            let slot = &mut self.slots[index as usize];
            let Some(client) = slot.client.as_mut().filter(|_| slot.generation == generation)
            else {
                continue;
            };
            client.looked_at = client.deadline;
            match client.deadline {
                Some(deadline) if deadline <= now => {
                    let closing = client.stage == Stage::Closing;
                    let cause = if closing { Cause::NotClosed } else { Cause::TimedOut };
                    self.fail(index, &cause.into());
                }
                Some(deadline) => self.deadlines.push(Reverse((deadline, index, generation))),
                None => {}
            }
        }
    }

    /// The client's operation, if it has one, is over and was a success.
    fn succeed(&mut self, index: u32) {
        let Some(client) = &mut self.slots[index as usize].client else { return };
        let Some(operation) = client.operation.take() else { return };
        self.in_flight -= 1;
        self.operations += 1;
        let now = Instant::now();
        let latency = operation.latency.unwrap_or_else(|| now.duration_since(operation.due));
        let tally = self.tally_for(&operation, now);
        tally.offered += 1;
        tally.operations += 1;
        tally.latencies.record(latency);
        self.tally_at(now).completed_inside += 1;
    }

    /// The client is of no more use.
    fn fail(&mut self, index: u32, failure: &Failure) {
        let Some(client) = &self.slots[index as usize].client else { return };
        if client.stage == Stage::Ready {
            self.ready.retain(|ready| *ready != index);
        }
        let Some(client) = self.remove(index) else { return };
        self.in_flight -= usize::from(client.operation.is_some());
        self.account_failure(client.operation, failure);
        if let Some(hello) = client.connection.reset() {
            self.unused.push(hello);
        }
    }

    fn account_failure(&mut self, operation: Option<Operation>, failure: &Failure) {
        self.failures += 1;
        self.failures_in_a_row += 1;
        self.first_failure.get_or_insert_with(|| failure.to_string());
        let now = Instant::now();
        self.paused.push_back(now + PAUSE_AFTER_FAILURE);
        let tally = match &operation {
            Some(operation) => self.tally_for(operation, now),
            None => self.tally_at(now),
        };
        tally.offered += u64::from(operation.is_some());
        tally.fail(failure);
        if let (Some(operation), Cause::TimedOut) = (operation, failure.cause) {
            // At least so long: without it the slowest would be missing.
            tally.latencies.record(now.duration_since(operation.due));
        }
    }

    /// There was no room for an operation until its client gave up.
    fn never_begun(&mut self, due: Instant, now: Instant) {
        self.failures += 1;
        let tally = self.tally_at(due);
        tally.offered += 1;
        tally.fail(&Cause::NotStarted.into());
        tally.latencies.record(now.duration_since(due));
    }

    fn account_bytes(&mut self, bytes: Bytes) {
        if bytes == Bytes::default() {
            return;
        }
        self.bytes += bytes.received + bytes.sent;
        let tally = self.tally_at(Instant::now());
        tally.bytes_received += bytes.received;
        tally.bytes_sent += bytes.sent;
    }

    /// Where something that happens at this moment is counted.
    fn tally_at(&mut self, moment: Instant) -> &mut Tally {
        let window = self.schedule.as_ref().and_then(|schedule| schedule.window_at(moment));
        match window {
            Some(window) => &mut self.tallies[window],
            None => &mut self.outside,
        }
    }

    /// Where an operation is counted that is over now.
    fn tally_for(&mut self, operation: &Operation, now: Instant) -> &mut Tally {
        let counted = self.schedule.as_ref().is_some_and(|schedule| schedule.budget.is_some());
        match (counted, operation.claimed) {
            (true, true) => &mut self.tallies[0],
            (true, false) => &mut self.outside,
            // An open loop's operations belong to the time when they were due, a closed
            // loop's to the time when they end.
            (false, _) if self.pace.is_open() => self.tally_at(operation.due),
            (false, _) => self.tally_at(now),
        }
    }

    fn remove(&mut self, index: u32) -> Option<Box<Client>> {
        let client = self.slots[index as usize].client.take()?;
        self.opening -= usize::from(client.opening);
        self.in_use -= 1;
        self.free.push(index);
        Some(client)
    }

    /// When there will be something to do, if no socket becomes ready before.
    fn next_moment(&self, schedule: &Schedule, now: Instant) -> Instant {
        let boundaries = schedule.windows.iter().flat_map(|window| [window.start, window.end]);
        let mut next = boundaries.filter(|boundary| *boundary > now).min();
        let mut earlier = |moment: Instant| {
            next = Some(next.map_or(moment, |next| next.min(moment)));
        };
        if let Some(Reverse((deadline, _, _))) = self.deadlines.peek() {
            earlier(*deadline);
        }
        if let Some(until) = self.paused.front() {
            earlier(*until);
        }
        if schedule.stop > now {
            earlier(schedule.stop);
        }
        let due = self.pace.next(now).max(schedule.begin);
        if self.work.purpose != Purpose::Hold && due < schedule.stop && !schedule.is_exhausted() {
            if !self.no_room {
                earlier(due);
            } else if self.pace.is_open() {
                // Until its client gives up.
                earlier(due + self.work.timeout);
            }
        }
        next.unwrap_or(now + SLEEP_MAX)
    }

    fn publish(&self) {
        self.progress.operations.store(self.operations, Ordering::Relaxed);
        self.progress.failures.store(self.failures, Ordering::Relaxed);
        self.progress.connections.store(self.in_use as u64, Ordering::Relaxed);
        self.progress.bytes.store(self.bytes, Ordering::Relaxed);
    }
}

fn watched(writable: bool) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    if writable {
        flags |= epoll::EventFlags::OUT;
    }
    flags
}

fn key(index: u32, generation: u32) -> u64 {
    u64::from(index) << 32 | u64::from(generation)
}

fn slot_of(key: u64) -> (u32, u32) {
    ((key >> 32) as u32, key as u32)
}

/// CPU time of the calling thread.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
