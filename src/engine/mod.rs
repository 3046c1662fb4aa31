//! The loop of one data core: connections, relay states, timers, buffers.
//!
//! ```text
//!   turn:  commands ─▶ completions ─▶ handshake results ─▶ buffer waiters ─▶ timers
//!          ─▶ admission ─▶ one enter: submit, wait, collect
//!
//!   accept.rs         listener sockets, credits, parking, draining
//!   sources.rs        who connects, and what each source is held to
//!   pace.rs           how fast handshakes may begin, all sources together
//!   shedding.rs       what was shed, of whom, and why
//!   proxied.rs        connections that a balancer in front speaks for
//!   client_socket.rs  the client's one receive and one send
//!   handshaking.rs    ClientHello, steps on workers, the established session
//!   connecting.rs     the upstream connection, next server on failure
//!   server_queue.rs   clients that wait for a place at a server
//!   inbound.rs        client to server: open records, send on, carry the end
//!   outbound.rs       server to client: seal, send, control records, carry the end
//!   server_tls.rs     TLS with the server: its handshake
//!   server_records.rs the same: records to and from it
//!   passing.rs        streams that are passed through as they are
//!   refused.rs        sessions of clients that may not stay
//!   relay.rs          what both directions share
//!   ending.rs         every way a connection ends, and what it gives back
//! ```
//!
//! May know: the driver trait, the handshake service, the record layer, routes, upstream
//! choice, the PROXY protocol. Must not know: files, rustls handshakes, the kernel itself.
//!
//! An engine shares nothing mutable with another. It is not `Send`: it is built on the
//! thread that runs it.

pub mod events;
pub mod metrics;
pub mod shadow;
pub mod snapshot;

mod accept;
mod backlog;
mod client_socket;
mod connecting;
mod connection;
mod crowding;
mod ending;
mod handshaking;
mod inbound;
mod lists;
mod outbound;
mod pace;
mod passing;
mod proxied;
mod refused;
mod relay;
mod server_queue;
mod server_records;
mod server_tls;
mod shedding;
mod sources;
mod table;
mod timers;
mod unique_ids;

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayString;
use crossbeam::queue::ArrayQueue;

use self::backlog::Backlog;
use self::connection::{BufferWanted, Connection, Phase, Through, TimerClass};
use self::crowding::Crowding;
use self::events::EventSink;
use self::lists::List;
use self::metrics::{EndReason, EngineMetrics};
use self::pace::Pace;
use self::shedding::Shedding;
use self::snapshot::{Epoch, Snapshot};
use self::sources::Sources;
use self::table::Table;
use self::timers::Timers;
use self::unique_ids::UniqueIds;
use crate::clock::Moment;
use crate::driver::{Buffer, Completion, Driver, Errno, Outcome, Token, Wait};
use crate::handshake::{HandshakeService, StepCosts, StepOutcome, Task};
use crate::proxy_protocol::HEADER_BYTES_MAX;
use crate::switch::Spin;
use crate::tls::client_hello::CLIENT_HELLO_BYTES_MAX;
use crate::tls::server_name::SERVER_NAME_BYTES_MAX;

/// Completions handled before the engine hands in what they led to.
const COMPLETIONS_PER_TURN: usize = 256;

/// Handshake results handled per turn.
const RESULTS_PER_TURN: usize = 64;

/// Timers expired per turn.
const EXPIRIES_PER_TURN: usize = 64;

/// Whoever relayed data so lately is taken to serve established connections, which are
/// not to wait for handshakes.
const URGENT_FOR: Duration = Duration::from_millis(100);

/// Commands that may wait for an engine; the control thread sends one at a time.
const COMMANDS_WAITING_MAX: usize = 16;

/// A connection whose operations were cancelled is looked at again after this time:
/// a cancellation can miss an operation that is just then being worked on.
const ENDING_RETRY: Duration = Duration::from_millis(100);

/// With the pool dry, a send that made no progress for this long may lose its buffer.
const RECLAIM_AFTER: Duration = Duration::from_secs(1);

/// Who may lose a buffer then, those first who have had least done for them: a slow
/// ClientHello must not stop established connections.
const RECLAIMED_FROM: [TimerClass; 7] = [
    TimerClass::ClientHello,
    TimerClass::Deferred,
    TimerClass::Parked,
    TimerClass::Handshake,
    TimerClass::ServerQueue,
    TimerClass::HalfClosed,
    TimerClass::Idle,
];

/// Tokens of listening sockets, of the client's side and of the upstream side.
const KIND_LISTENER: u8 = 0;
const KIND_CLIENT: u8 = 1;
const KIND_UPSTREAM: u8 = 2;

/// What the control thread tells an engine.
#[derive(Debug)]
pub enum Command {
    /// New connections use this configuration.
    Reload(Arc<Snapshot>),
    /// Take no new connections, finish those there are, end the rest at the deadline.
    Drain {
        /// When the rest is ended.
        deadline: Moment,
    },
    /// End the sessions of clients that are refused now.
    EndRefused,
    /// End every connection now.
    Stop,
}

/// The way commands take to one engine.
#[derive(Clone, Debug)]
pub struct CommandQueue(Arc<ArrayQueue<Command>>);

impl Default for CommandQueue {
    fn default() -> Self {
        Self(Arc::new(ArrayQueue::new(COMMANDS_WAITING_MAX)))
    }
}

impl CommandQueue {
    /// Hands in a command; wake the engine afterwards.
    ///
    /// # Errors
    /// The command comes back if the engine has not taken earlier ones.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.0.push(command)
    }
}

/// An engine's ways to and from the rest of the process.
#[derive(Debug)]
pub struct Ways {
    /// What it is told.
    pub commands: CommandQueue,
    /// What it counts.
    pub metrics: Arc<EngineMetrics>,
    /// What it reports.
    pub events: EventSink,
}

/// What an engine is sized to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at one time.
    pub connections: usize,
    /// Handshakes admitted at one time.
    pub credits: usize,
    /// Accepts in flight per listening socket.
    pub accepts: usize,
    /// Engines of the process: limits that are the whole process's are divided by it.
    pub engines: usize,
    /// A parked handshake that waited longer than this lets newer ones go first.
    pub patience: Duration,
    /// What handshake steps cost the workers.
    pub step_costs: StepCosts,
    /// Time that the workers may owe this engine before it is scarce.
    pub backlog: Duration,
    /// Connections in a listener's queue.
    pub queue: u32,
    /// The same in a crowd: as many as are served in about the time of `backlog`.
    pub queue_in_crowd: u32,
    /// For how long the engine polls before it sleeps.
    pub spin: Spin,
}

impl Limits {
    /// Bytes that the engine takes at start for these limits, without the driver's.
    pub fn memory_bytes(&self) -> usize {
        self.connections * Table::SLOT_BYTES
            + self.credits * Task::MEMORY_BYTES
            + Sources::memory_bytes(self.connections)
            + Backlog::memory_bytes(self.credits)
    }
}

/// Whether the engine goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Turn again.
    Running,
    /// Drained or stopped: no connection is left and nothing is in flight.
    Finished,
}

/// One data core's engine.
#[derive(Debug)]
pub struct Engine<D: Driver, H: HandshakeService> {
    driver: D,
    handshakes: H,
    metrics: Arc<EngineMetrics>,
    events: EventSink,
    commands: CommandQueue,
    limits: Limits,
    epoch: Rc<Epoch>,
    table: Table,
    timers: Timers,
    buffer_waiters: List,
    /// Who waits for a credit for the handshake with the server.
    credit_waiters: List,
    /// Credits that are out for handshakes with servers.
    server_handshakes: usize,
    /// Boxed, since a task goes to the workers and back by pointer.
    #[allow(clippy::vec_box)]
    credits: Vec<Box<Task>>,
    listeners: accept::Listeners,
    sources: Sources,
    shedding: Shedding,
    backlog: Backlog,
    crowding: Crowding,
    pace: Pace,
    /// The names that the clients of the credits asked for, for the log.
    server_names: Box<[ArrayString<SERVER_NAME_BYTES_MAX>]>,
    buffers_total: usize,
    scratch: Box<[u8; CLIENT_HELLO_BYTES_MAX]>,
    /// Where a PROXY header is written.
    proxy_header: Box<[u8; HEADER_BYTES_MAX]>,
    unique_ids: UniqueIds,
    /// From which slot on refused clients are looked for.
    refused_from: Option<u32>,
    /// A receive found the pool empty since the last turn.
    pool_dry: bool,
    now: Moment,
    /// When there was last something to do.
    worked: Moment,
    /// Data was relayed in this turn.
    relayed: bool,
    /// The last turn in which data was relayed.
    relayed_last: Option<Moment>,
    /// What others on this CPU were told: established connections are being served.
    urgent: bool,
}

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// Takes the memory. `number` is the engine's place among the engines.
    pub fn new(
        number: usize,
        driver: D,
        handshakes: H,
        limits: Limits,
        snapshot: Arc<Snapshot>,
        ways: Ways,
    ) -> Self {
        let Ways { commands, metrics, events } = ways;
        let now = driver.now();
        let buffers_total = driver.buffers_free();
        let listeners = accept::Listeners::new(snapshot.listeners.len());
        let sources = Sources::new(limits.connections, &snapshot.limits, limits.engines);
        let mut engine = Self {
            driver,
            handshakes,
            metrics,
            events,
            commands,
            limits,
            epoch: Rc::new(Epoch::first(snapshot, number)),
            table: Table::new(limits.connections),
            timers: Timers::new(),
            buffer_waiters: List::new(Through::BufferWait),
            credit_waiters: List::new(Through::CreditWait),
            server_handshakes: 0,
            credits: (0..limits.credits as u32)
                .map(|credit| Box::new(Task::new(number, credit)))
                .collect(),
            listeners,
            sources,
            shedding: Shedding::default(),
            backlog: Backlog::new(limits.credits, limits.step_costs, limits.backlog),
            crowding: Crowding::new(limits.queue, now),
            pace: Pace::default(),
            server_names: vec![ArrayString::new(); limits.credits].into_boxed_slice(),
            buffers_total,
            scratch: Box::new([0; CLIENT_HELLO_BYTES_MAX]),
            proxy_header: Box::new([0; HEADER_BYTES_MAX]),
            unique_ids: UniqueIds::default(),
            refused_from: None,
            pool_dry: false,
            now,
            worked: now,
            relayed: false,
            relayed_last: None,
            urgent: false,
        };
        engine.set_durations();
        engine.set_client_limits();
        engine
    }

    /// Runs until drained or stopped.
    ///
    /// # Errors
    /// The driver's: the kernel no longer serves this ring.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn()? == Progress::Running {}
        Ok(())
    }

    /// One turn: everything there is to do, then one wait.
    ///
    /// # Errors
    /// The driver's: the kernel no longer serves this ring.
    pub fn turn(&mut self) -> io::Result<Progress> {
        self.now = self.driver.now();
        self.metrics.turns.increment();
        for _ in 0..COMPLETIONS_PER_TURN {
            let Some(completion) = self.driver.completion() else { break };
            self.worked = self.now;
            self.metrics.completions.increment();
            self.complete(completion);
        }
        // Whoever is told to end is judged by what has really been sent.
        while let Some(command) = self.commands.0.pop() {
            self.obey(command);
        }
        // After the records of established connections: what is started first is done
        // first, and a flight or a connect costs the kernel more than a record.
        for _ in 0..RESULTS_PER_TURN {
            let Some(task) = self.handshakes.next_result() else { break };
            self.worked = self.now;
            self.handshake_result(task);
        }
        self.end_refused();
        self.serve_buffer_waiters();
        for _ in 0..EXPIRIES_PER_TURN {
            let Some((slot, class)) = self.timers.expired(&mut self.table, self.now) else { break };
            self.expire(slot, class);
        }
        self.serve_credit_waiters();
        self.admit();
        self.report_shed();
        self.judge_urgency();
        self.publish_gauges();
        if self.listeners.finished()
            && self.outstanding() == Outstanding::default()
            && self.driver.in_flight() == 0
        {
            return Ok(Progress::Finished);
        }
        let wait = self.wait();
        self.driver.turn(wait)?;
        Ok(Progress::Running)
    }

    /// The driver, for whoever drives the engine turn by turn.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// The driver, for whoever drives the engine turn by turn.
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// Connections, credits out, timers armed and buffer waiters, for tests that want
    /// to see everything come back.
    pub fn outstanding(&self) -> Outstanding {
        Outstanding {
            connections: self.table.used(),
            credits: self.limits.credits - self.credits.len(),
            timers: usize::from(self.timers.next_deadline(&self.table).is_some()),
            buffer_waiters: usize::from(self.buffer_waiters.first().is_some()),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Reload(snapshot) => {
                self.epoch = Rc::new(self.epoch.next(snapshot));
                self.set_durations();
                self.set_client_limits();
            }
            Command::Drain { deadline } => self.drain(deadline),
            Command::EndRefused => self.look_for_refused(),
            Command::Stop => self.stop(),
        }
    }

    fn set_durations(&mut self) {
        let timeouts = self.epoch.snapshot.timeouts;
        for (class, duration) in [
            (TimerClass::ClientHello, timeouts.client_hello),
            (TimerClass::Parked, timeouts.handshake),
            (TimerClass::Deferred, timeouts.handshake),
            (TimerClass::Handshake, timeouts.handshake),
            (TimerClass::ServerQueue, timeouts.queue),
            (TimerClass::Connect, timeouts.connect),
            (TimerClass::FirstData, timeouts.first_data_wait),
            (TimerClass::Idle, timeouts.idle),
            (TimerClass::HalfClosed, timeouts.half_closed),
            (TimerClass::Ending, ENDING_RETRY),
        ] {
            self.timers.set_duration(class, duration);
        }
    }

    fn set_client_limits(&mut self) {
        let limits = &self.epoch.snapshot.limits;
        let engines = self.limits.engines;
        self.sources.set_limits(limits, engines);
        self.pace.set(limits.handshakes_per_second, engines, self.now);
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { token, outcome } = completion;
        if token.kind == KIND_LISTENER {
            if let Outcome::Accepted(result) = outcome {
                self.accepted(token.slot as usize, result);
            }
            return;
        }
        let slot = token.slot;
        let connection = &mut self.table[slot];
        // A slot is freed only when nothing of it is in flight, so this cannot be.
        assert_eq!(connection.generation, token.generation, "a completion for a freed slot");
        connection.in_flight -= 1;
        let ending = connection.phase == Phase::Ending;
        match outcome {
            Outcome::Received { result, buffer, more } if token.kind == KIND_CLIENT => {
                connection.inbound.receiving = false;
                if ending {
                    self.release(buffer);
                    self.finish_if_settled(slot);
                } else {
                    self.client_received(slot, result, buffer, more);
                }
            }
            Outcome::Received { result, buffer, more } => {
                connection.outbound.receiving = false;
                if ending {
                    self.release(buffer);
                    self.finish_if_settled(slot);
                } else {
                    self.upstream_received(slot, result, buffer, more);
                }
            }
            Outcome::Sent { result, buffer } => {
                if ending {
                    self.driver.release(buffer);
                    if token.kind == KIND_CLIENT {
                        self.ending_client_sent(slot);
                    } else {
                        self.finish_if_settled(slot);
                    }
                } else if token.kind == KIND_CLIENT {
                    self.client_sent(slot, result, buffer);
                } else {
                    self.upstream_sent(slot, result, buffer);
                }
            }
            Outcome::Connected(result) => {
                if ending {
                    self.finish_if_settled(slot);
                } else {
                    self.upstream_connected(slot, result);
                }
            }
            Outcome::Accepted(_) => unreachable!("accepts carry the listener's kind"),
        }
    }

    fn expire(&mut self, slot: u32, class: TimerClass) {
        match class {
            TimerClass::ClientHello => self.client_hello_timed_out(slot),
            TimerClass::Parked => self.parked_too_long(slot),
            TimerClass::Deferred => self.deferred_too_long(slot),
            TimerClass::Handshake => self.handshake_timed_out(slot),
            TimerClass::ServerQueue => self.waited_too_long_for_server(slot),
            TimerClass::Connect => self.connect_timed_out(slot),
            TimerClass::FirstData => self.first_data_overdue(slot),
            TimerClass::Idle => self.end_overdue(slot, EndReason::IdleTimeout),
            TimerClass::HalfClosed => self.end_overdue(slot, EndReason::HalfClosedTimeout),
            TimerClass::Ending => self.end_again(slot),
        }
    }

    /// How long the driver may wait: not at all while work is at hand, or while the engine
    /// polls for it. A polling engine looks at its inbox each turn, so nobody need wake it.
    fn wait(&mut self) -> Wait {
        if self.limits.spin.polls(self.now.since(self.worked)) {
            // Leaves the core's other thread more of it.
            std::hint::spin_loop();
            self.handshakes.turn_done();
            return Wait::Never;
        }
        self.driver.prepare_sleep();
        self.handshakes.turn_done();
        if self.handshakes.has_results()
            || !self.commands.0.is_empty()
            || self.refused_from.is_some()
        {
            return Wait::Never;
        }
        // Who waits for a buffer may have to be given another's.
        let reclaim = self.buffer_waiters.first().map(|_| self.now.after(RECLAIM_AFTER));
        let next = [
            self.timers.next_deadline(&self.table),
            self.listeners.next_deadline(),
            self.silence_deadline(),
            self.pace_deadline(),
            self.crowd_deadline(),
            self.shedding.report_due(),
            reclaim,
        ]
        .into_iter()
        .flatten()
        .min();
        match next {
            None => Wait::Forever,
            Some(deadline) if deadline <= self.now => Wait::Never,
            Some(deadline) => Wait::AtMost(deadline.since(self.now)),
        }
    }

    /// Tells those who share this engine's CPU whether it serves established connections.
    fn judge_urgency(&mut self) {
        if std::mem::take(&mut self.relayed) {
            self.relayed_last = Some(self.now);
        }
        let urgent = self.relayed_last.is_some_and(|last| self.now.since(last) < URGENT_FOR);
        if urgent != self.urgent {
            self.urgent = urgent;
            self.driver.set_urgent(urgent);
            self.handshakes.set_urgent(urgent);
        }
    }

    fn token(&self, slot: u32, kind: u8) -> Token {
        Token { kind, slot, generation: self.table[slot].generation }
    }

    fn release(&mut self, buffer: Option<Buffer>) {
        if let Some(buffer) = buffer {
            self.driver.release(buffer);
        }
    }

    /// Puts the connection in the line for a pool buffer.
    fn want_buffer(&mut self, slot: u32, want: impl FnOnce(&mut BufferWanted)) {
        let connection = &mut self.table[slot];
        want(&mut connection.wanted);
        self.pool_dry = true;
        self.metrics.buffers_exhausted.increment();
        if !connection.links[Through::BufferWait as usize].is_linked() {
            self.buffer_waiters.push(&mut self.table, slot);
        }
    }

    /// Serves those who wait for a buffer, first come first served, as far as the pool
    /// goes; a connection can use two.
    fn serve_buffer_waiters(&mut self) {
        let mut budget = self.driver.buffers_free().div_ceil(2);
        // Who is served may come to wait again: serve nobody twice.
        let mut last = self.buffer_waiters.last();
        while budget > 0
            && let Some(slot) = self.buffer_waiters.first()
            && last.is_some()
        {
            if last == Some(slot) {
                last = None;
            }
            budget -= 1;
            self.buffer_waiters.remove(&mut self.table, slot);
            let wanted = std::mem::take(&mut self.table[slot].wanted);
            if wanted.write {
                self.resume_write(slot);
            }
            if wanted.inbound && self.table[slot].awaits_client() {
                self.receive_from_client(slot);
            }
            if wanted.outbound && self.table[slot].phase != Phase::Ending {
                self.receive_from_upstream(slot);
            }
        }
        if self.buffer_waiters.first().is_none() {
            self.pool_dry = false;
        } else if self.pool_dry && self.driver.buffers_free() == 0 {
            self.reclaim_a_buffer();
        }
    }

    /// The pool is dry and somebody waits: the connection that has made no progress for
    /// longest gives its buffer up. Cannot happen with two buffers per
    /// connection, which is the default.
    fn reclaim_a_buffer(&mut self) {
        const LOOKED_AT_MAX: usize = 64;
        for class in RECLAIMED_FROM {
            let mut next = self.timers.list(class).first();
            for _ in 0..LOOKED_AT_MAX {
                let Some(slot) = next else { break };
                next = self.timers.list(class).after(&self.table, slot);
                let connection = &self.table[slot];
                if self.now.since(connection.timer_armed) < RECLAIM_AFTER {
                    break;
                }
                if connection.holds_a_buffer() {
                    self.abort(slot, EndReason::BufferReclaimed);
                    return;
                }
            }
        }
    }

    fn publish_gauges(&self) {
        let metrics = &self.metrics;
        metrics.connections.set(self.table.used() as u64);
        metrics.sources.set(self.sources.with_connections() as u64);
        metrics.backlog_us.set(self.backlog.owed().as_micros() as u64);
        metrics.crowded.set(u64::from(self.crowding.is_crowded()));
        metrics.handshakes_in_progress.set((self.limits.credits - self.credits.len()) as u64);
        metrics.buffers_in_use.set((self.buffers_total - self.driver.buffers_free()) as u64);
        let overflows = self.driver.overflows();
        metrics.completion_overflows.add(overflows - metrics.completion_overflows.value());
    }
}

/// What is left of a send that took only a part: an error or a signal cut it short, and
/// sending the rest will tell which.
fn unsent(sending: &Range<usize>, result: Result<usize, Errno>) -> Option<Range<usize>> {
    let sent = result.ok()?;
    (sent > 0 && sent < sending.len()).then(|| sending.start + sent..sending.end)
}

impl Connection {
    /// Whether a receive from the client that found no buffer is still wanted: not while
    /// a worker has the bytes before it, or once they made a session. Who comes back from
    /// there receives anyway.
    fn awaits_client(&self) -> bool {
        match self.phase {
            Phase::Handshaking => self
                .task
                .as_ref()
                .is_some_and(|task| !matches!(task.outcome, StepOutcome::Established(_))),
            phase => phase != Phase::Ending,
        }
    }

    /// Whether a pool buffer is held by this connection or by an operation of it.
    fn holds_a_buffer(&self) -> bool {
        self.inbound.buffer.is_some()
            || !self.inbound.cipher.is_empty()
            || self.outbound.buffer.is_some()
            || self.outbound.ticket.is_some()
            || self.server_tls.as_ref().is_some_and(|tls| tls.buffer.is_some())
            || self.client_write != connection::ClientWrite::None
            || self.upstream_write != connection::UpstreamWrite::None
    }
}

/// What an engine has given out and not got back; all zero at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// Slots in use.
    pub connections: usize,
    /// Credits with connections or workers.
    pub credits: usize,
    /// Whether any timer is armed (0 or 1).
    pub timers: usize,
    /// Whether anybody waits for a buffer (0 or 1).
    pub buffer_waiters: usize,
}
