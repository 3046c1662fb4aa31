//! The world around the engine: the network, the listeners, the far ends, and time.
//!
//! Every event waits in one queue, ordered by moment and then by when it was scheduled,
//! so that nothing depends on anything but the seed and what the engine does.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::clock::Clock;
use super::connection::{Connection, Planned, Stage};
use super::faults::{Fault, Faults, PeerFaults};
use super::operations::OperationId;
use super::peer::{Line, Next, Peer};
use super::random::Random;
use super::trace::Trace;
use super::{TURN_COST_MAX, errno};
use crate::clock::Moment;
use crate::driver::{Errno, Socket};
use crate::endpoint::{Endpoint, LocalAddress};

/// Connections that wait in a listener for an accept; more are kept outside.
const BACKLOG_MAX: usize = 64;

/// When a client whose SYN found the backlog full tries again (tcp(7)).
const SYN_RETRY: Duration = Duration::from_secs(1);

/// When a connect that nobody answers fails (six SYN retries, tcp(7)).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);

/// Bounds of the time that a segment or a completion takes when it is not late.
const LATENCY: (Duration, Duration) = (Duration::from_nanos(200), Duration::from_micros(50));

/// The longest stall that ends.
const STALL_MAX: Duration = Duration::from_secs(20);

/// Names one connection, from client or to backend. Never used again in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u32);

impl ConnectionId {
    /// Its number, as the trace prints it.
    pub fn number(self) -> u64 {
        u64::from(self.0)
    }

    pub(super) fn socket(self) -> Socket {
        Socket(i32::try_from(self.0).expect("a run has fewer connections than that"))
    }

    pub(super) fn of(socket: &Socket) -> Self {
        Self(u32::try_from(socket.0).expect("the simulator's descriptors are not negative"))
    }
}

/// What listens on an endpoint that the engine may connect to.
pub trait Backend {
    /// Answers one connection attempt.
    fn answer(&mut self, connection: ConnectionId, random: &mut Random) -> Answer;
}

impl<F: FnMut(ConnectionId, &mut Random) -> Answer> Backend for F {
    fn answer(&mut self, connection: ConnectionId, random: &mut Random) -> Answer {
        self(connection, random)
    }
}

/// A backend's answer to a connection attempt.
pub enum Answer {
    /// It accepts.
    Accept(Box<dyn Peer>),
    /// It accepts after this time.
    AcceptAfter(Duration, Box<dyn Peer>),
    /// It refuses, or the network does, with this error.
    Refuse(Errno),
    /// Nothing ever comes back.
    Silence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// Try the engine's operations on a connection.
    EngineReady(ConnectionId),
    /// Step the program on the far end.
    PeerReady(ConnectionId),
    /// A client's SYN reaches its listener.
    Arrive(ConnectionId, usize),
    /// Match a listener's backlog with its accepts.
    AcceptReady(usize),
    /// A connect is answered: with success or with this error number.
    Answered(ConnectionId, Result<(), i32>),
    /// See whether a planned fault is due.
    FaultDue(ConnectionId),
    /// A cancellation reaches its operation.
    Cancel(OperationId),
    /// A completion reaches the engine.
    Deliver(OperationId),
}

#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    backlog: VecDeque<ConnectionId>,
    accepts: VecDeque<OperationId>,
    /// Accepts whose completion was not handed out.
    in_flight: usize,
    open: bool,
}

/// The network, the far ends and time.
pub struct World {
    clock: Clock,
    random: Random,
    faults: Faults,
    trace: Trace,
    events: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    scheduled: u64,
    connections: Vec<Connection>,
    listeners: Vec<Listener>,
    backends: Vec<(Endpoint, Box<dyn Backend>)>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("World")
            .field("now", &self.now())
            .field("faults", &self.faults)
            .field("connections", &self.connections)
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

/// What a test does with the world.
impl World {
    /// Opens a listener for the engine to accept on; its index.
    pub fn listen(&mut self, address: SocketAddr) -> usize {
        let (backlog, accepts) = (VecDeque::new(), VecDeque::new());
        self.listeners.push(Listener { address, backlog, accepts, in_flight: 0, open: true });
        self.listeners.len() - 1
    }

    /// Makes a backend that the engine can connect to. Without one, it is refused.
    pub fn serve(&mut self, endpoint: Endpoint, backend: impl Backend + 'static) {
        self.backends.retain(|(other, _)| *other != endpoint);
        self.backends.push((endpoint, Box::new(backend)));
    }

    /// Lets a client connect to a listener after some time.
    pub fn arrive(
        &mut self,
        listener: usize,
        client: SocketAddr,
        after: Duration,
        program: Box<dyn Peer>,
    ) -> ConnectionId {
        let local = self.listeners[listener].address;
        let id = self.add_connection(Stage::Backlog, local, client);
        if self.random.happens(self.faults.no_local_address) {
            self.connection_mut(id).engine.local_address = Err(errno(libc::ENOBUFS));
            self.suffers(id, Fault::NoLocalAddress);
        }
        self.connection_mut(id).peer.program = Some(program);
        self.schedule(after, Event::Arrive(id, listener));
        let clients = self.faults.clients;
        self.plan_faults(id, clients, after);
        id
    }

    /// The faults that befell a connection so far.
    pub fn faults_of(&self, id: ConnectionId) -> &[Fault] {
        &self.connection(id).suffered
    }

    /// Whether an accept of the engine got this client.
    pub fn was_accepted(&self, id: ConnectionId) -> bool {
        self.connection(id).accepted
    }

    /// The simulated time.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// A handle on the simulated clock.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The run's chance, for what the test varies.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Prints every further event to standard error.
    pub fn print_trace(&mut self) {
        self.trace.print();
    }

    /// Adds an event of the test's own to the trace.
    pub fn note(&mut self, what: &'static str, whom: u64, value: i64) {
        self.trace.note(self.clock.now(), what, whom, value);
    }

    /// A hash of everything that happened: equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }
}

/// Time and events.
impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            clock: Clock::new(),
            random: Random::new(seed),
            faults,
            trace: Trace::new(),
            events: BinaryHeap::new(),
            scheduled: 0,
            connections: Vec::new(),
            listeners: Vec::new(),
            backends: Vec::new(),
        }
    }

    pub(super) fn next_event(&self) -> Option<Moment> {
        self.events.peek().map(|Reverse((moment, ..))| *moment)
    }

    pub(super) fn advance_to(&self, moment: Moment) {
        // Events may be behind a clock that has jumped.
        self.clock.set(moment.max(self.now()));
    }

    pub(super) fn take_due_event(&mut self) -> Option<Event> {
        while self.next_event().is_some_and(|moment| moment <= self.now()) {
            let Some(Reverse((moment, _, event))) = self.events.pop() else { break };
            // A connection end that was scheduled anew, earlier, has left a stale event.
            let due = match event {
                Event::EngineReady(id) => &mut self.connection_mut(id).engine.due,
                Event::PeerReady(id) => &mut self.connection_mut(id).peer.due,
                _ => return Some(event),
            };
            if due.take_if(|due| *due == moment).is_some() {
                return Some(event);
            }
        }
        None
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::PeerReady(id) => self.step_peer(id),
            Event::Arrive(id, listener) => self.client_arrives(id, listener),
            Event::Answered(id, result) => self.connect_answered(id, result),
            Event::FaultDue(id) => self.bring_faults(id),
            Event::EngineReady(_)
            | Event::AcceptReady(_)
            | Event::Cancel(_)
            | Event::Deliver(_) => unreachable!("{event:?} is the simulator's"),
        }
    }

    /// What one turn of the engine takes, with the clock's jumps.
    pub(super) fn turn_cost(&mut self) -> Duration {
        let cost = self.random.duration(Duration::from_nanos(100), TURN_COST_MAX);
        if !self.random.happens(self.faults.clock_jump) {
            return cost;
        }
        let jump = self.random.duration(Duration::from_micros(10), self.faults.clock_jump_max);
        self.note("clock jump", 0, i64::try_from(jump.as_micros()).unwrap_or(i64::MAX));
        cost + jump
    }

    pub(super) fn wakes_for_nothing(&mut self) -> bool {
        self.random.happens(self.faults.spurious_wake)
    }

    /// Whether a turn goes on for a moment to gather more than one completion.
    pub(super) fn gathers(&mut self) -> bool {
        self.random.below(2) == 0
    }

    /// Lets a completion arrive. They overtake one another, except one that has used up
    /// the connection's error: whoever sees the end that follows was told of the error
    /// before. (A ring with `DEFER_TASKRUN` posts all completions in order.)
    pub(super) fn deliver(&mut self, id: ConnectionId, operation: OperationId) {
        let mut at = self.now().after(self.latency());
        if let Some(told) = &mut self.connection_mut(id).engine.error_told {
            at = at.max(*told);
            *told = at;
        }
        self.schedule(at.since(self.now()), Event::Deliver(operation));
    }

    pub(super) fn schedule_soon(&mut self, event: Event) {
        let latency = self.latency();
        self.schedule(latency, event);
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        let at = self.now().after(after);
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn schedule_engine(&mut self, id: ConnectionId) {
        let at = self.now().after(self.latency());
        let due = &mut self.connection_mut(id).engine.due;
        if due.is_none_or(|due| at < due) {
            *due = Some(at);
            self.schedule(at.since(self.now()), Event::EngineReady(id));
        }
    }

    fn schedule_peer(&mut self, id: ConnectionId, after: Duration) {
        let at = self.now().after(after);
        let due = &mut self.connection_mut(id).peer.due;
        if due.is_none_or(|due| at < due) {
            *due = Some(at);
            self.schedule(after, Event::PeerReady(id));
        }
    }

    fn schedule_peer_soon(&mut self, id: ConnectionId) {
        let latency = self.latency();
        self.schedule_peer(id, latency);
    }

    fn latency(&mut self) -> Duration {
        if self.random.happens(self.faults.delay) {
            self.random.duration(LATENCY.1, self.faults.delay_max)
        } else {
            self.random.duration(LATENCY.0, LATENCY.1)
        }
    }
}

/// Connections as the engine's operations see them.
impl World {
    pub(super) fn connection(&self, id: ConnectionId) -> &Connection {
        &self.connections[id.0 as usize]
    }

    pub(super) fn connection_mut(&mut self, id: ConnectionId) -> &mut Connection {
        &mut self.connections[id.0 as usize]
    }

    pub(super) fn open_sockets(&self) -> impl Iterator<Item = (ConnectionId, Stage)> {
        self.connections.iter().zip(0..).filter_map(|(connection, number)| {
            let stage = connection.engine.stage;
            let open = !matches!(stage, Stage::Closed | Stage::Backlog);
            open.then_some((ConnectionId(number), stage))
        })
    }

    /// The engine has done something on a connection: try its operations soon.
    pub(super) fn engine_acts(&mut self, id: ConnectionId) {
        self.schedule_engine(id);
    }

    pub(super) fn wants_accept(&mut self, listener: usize, operation: OperationId) {
        self.listeners[listener].accepts.push_back(operation);
        self.listeners[listener].in_flight += 1;
        self.schedule_soon(Event::AcceptReady(listener));
    }

    /// The listener takes no more clients into its backlog.
    pub(super) fn stop_listening(&mut self, listener: usize) {
        self.note("stop listening", listener as u64, 0);
        self.listeners[listener].open = false;
    }

    /// Who waits in the backlog is reset.
    pub(super) fn close_listener(&mut self, listener: usize) {
        let in_flight = self.listeners[listener].in_flight;
        assert!(in_flight == 0, "listener {listener} is closed with {in_flight} accepts in flight");
        self.stop_listening(listener);
        for id in std::mem::take(&mut self.listeners[listener].backlog) {
            self.engine_closes(id, true);
        }
    }

    /// Sends a cancellation to the operations of a connection.
    pub(super) fn cancel_operations(&mut self, id: ConnectionId) {
        self.note("cancel", id.number(), 0);
        for operation in self.connection(id).engine.operations().collect::<Vec<_>>() {
            if !self.random.happens(self.faults.cancel_missed) {
                self.schedule_soon(Event::Cancel(operation));
            }
        }
    }

    /// Sends a cancellation to every accept of a listener.
    pub(super) fn cancel_accepts(&mut self, listener: usize) {
        for operation in self.listeners[listener].accepts.clone() {
            self.schedule_soon(Event::Cancel(operation));
        }
    }

    pub(super) fn accept_handed_out(&mut self, listener: usize) {
        self.listeners[listener].in_flight -= 1;
    }

    pub(super) fn forget_accept(&mut self, listener: usize, operation: OperationId) {
        self.listeners[listener].accepts.retain(|other| *other != operation);
    }

    /// The next accept that can end, and how.
    #[expect(clippy::type_complexity, reason = "the result is that of Outcome::Accepted")]
    pub(super) fn match_accept(
        &mut self,
        listener: usize,
    ) -> Option<(OperationId, Result<(Socket, SocketAddr), Errno>)> {
        let place = &mut self.listeners[listener];
        let id = *place.backlog.front()?;
        let operation = place.accepts.pop_front()?;
        if self.random.happens(self.faults.accept_failed) {
            let number = self.random.choice(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM]);
            self.note("accept fails", id.number(), i64::from(number));
            return Some((operation, Err(errno(number))));
        }
        self.listeners[listener].backlog.pop_front();
        if self.random.happens(self.faults.accept_aborted) {
            self.suffers(id, Fault::AcceptAborted);
            self.engine_closes(id, true);
            return Some((operation, Err(errno(libc::ECONNABORTED))));
        }
        self.note("accept", id.number(), 0);
        let connection = self.connection_mut(id);
        connection.engine.stage = Stage::Open;
        connection.accepted = true;
        Some((operation, Ok((id.socket(), connection.peer.address))))
    }

    /// Opens a socket of the engine and starts connecting it.
    pub(super) fn open(
        &mut self,
        endpoint: &Endpoint,
        from: Option<LocalAddress>,
    ) -> Result<ConnectionId, Errno> {
        if self.random.happens(self.faults.connect_failed) {
            let number = self.random.choice(&[libc::EMFILE, libc::ENOBUFS, libc::EADDRNOTAVAIL]);
            self.note("connect fails", 0, i64::from(number));
            return Err(errno(number));
        }
        let unix = matches!(endpoint, Endpoint::Unix(_));
        let remote = match endpoint {
            Endpoint::Inet(address) => *address,
            Endpoint::Unix(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        };
        let number = u16::try_from(self.connections.len() % 30_000).unwrap_or(0);
        let chosen = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let address = from.map_or(chosen, |from| from.address);
        let local = SocketAddr::new(address, 32_768 + number);
        let id = self.add_connection(Stage::Connecting, local, remote);
        if unix {
            self.connection_mut(id).engine.local_address = Err(errno(libc::EAFNOSUPPORT));
        }
        let backend = self.backends.iter_mut().find(|(other, _)| other == endpoint);
        let answer = if self.random.happens(self.faults.connect_refused) {
            let number =
                self.random.choice(&[libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ECONNRESET]);
            self.suffers(id, Fault::ConnectFailed(errno(number)));
            Answer::Refuse(errno(number))
        } else if self.random.happens(self.faults.connect_unanswered) {
            self.suffers(id, Fault::ConnectUnanswered);
            Answer::Silence
        } else if let Some((_, backend)) = backend {
            backend.answer(id, &mut self.random)
        } else {
            Answer::Refuse(errno(if unix { libc::ENOENT } else { libc::ECONNREFUSED }))
        };
        let latency = self.latency();
        match answer {
            Answer::Accept(program) => {
                self.connection_mut(id).peer.program = Some(program);
                self.schedule(latency, Event::Answered(id, Ok(())));
            }
            Answer::AcceptAfter(after, program) => {
                self.connection_mut(id).peer.program = Some(program);
                self.schedule(latency + after, Event::Answered(id, Ok(())));
            }
            Answer::Refuse(error) => {
                self.schedule(latency, Event::Answered(id, Err(error.0)));
            }
            Answer::Silence => {
                self.schedule(CONNECT_TIMEOUT, Event::Answered(id, Err(libc::ETIMEDOUT)));
            }
        }
        Ok(id)
    }

    /// How a connect ends now; `None` if it has to wait.
    pub(super) fn connect_result(&mut self, id: ConnectionId) -> Option<Result<(), Errno>> {
        let connection = &mut self.connections[id.0 as usize];
        match connection.engine.stage {
            Stage::Connecting => None,
            Stage::Failed => {
                Some(Err(connection.engine.take_error().unwrap_or(errno(libc::ECONNREFUSED))))
            }
            Stage::Open => Some(Ok(())),
            Stage::Backlog | Stage::Closed => {
                unreachable!("a connect in flight keeps its socket")
            }
        }
    }

    /// How many bytes a receive of at most `length_max` gets now.
    pub(super) fn receivable(&mut self, id: ConnectionId, length_max: usize) -> usize {
        let available = self.connection(id).to_engine.len().min(length_max);
        if available > 0 && self.random.happens(self.faults.short_transfer) {
            self.random.magnitude(1, available)
        } else {
            available
        }
    }

    /// Fills `into`; whether the engine is told that there is more.
    pub(super) fn engine_receives(&mut self, id: ConnectionId, into: &mut [u8]) -> bool {
        let connection = self.connection_mut(id);
        connection.to_engine.read(into);
        let more = connection.to_engine.len() > 0 || connection.to_engine.is_finished();
        self.moved(id, "receive", into.len());
        self.schedule_peer_soon(id);
        // Not to know is always allowed.
        more && self.random.below(4) > 0
    }

    /// Takes bytes to send as there is room; how many.
    pub(super) fn engine_sends(&mut self, id: ConnectionId, from: &[u8]) -> usize {
        let short = self.random.happens(self.faults.short_transfer);
        let connection = &mut self.connections[id.0 as usize];
        if connection.peer.gone || connection.peer.error.is_some() {
            // Nobody is there any more: the first bytes are taken, the answer is a reset.
            connection.peer_resets(errno(libc::ECONNRESET), &mut self.random);
            self.note("send to nobody", id.number(), 0);
            self.schedule_engine(id);
            return from.len();
        }
        let room = connection.to_peer.room().min(from.len());
        if room == 0 {
            return 0;
        }
        let count = if short { self.random.magnitude(1, room) } else { room };
        connection.to_peer.write(&from[..count]);
        self.moved(id, "send", count);
        self.schedule_peer_soon(id);
        count
    }

    /// A send is not done: it is tried again when there is room.
    pub(super) fn engine_awaits_room(&mut self, id: ConnectionId) {
        // Without room the peer's next read brings it on, or a reset.
        if self.connection(id).to_peer.room() > 0 {
            self.schedule_engine(id);
        }
    }

    pub(super) fn engine_shuts_down(&mut self, id: ConnectionId) {
        self.note("shutdown", id.number(), 0);
        self.connection_mut(id).engine_shuts_down();
        self.schedule_engine(id);
        self.schedule_peer_soon(id);
    }

    pub(super) fn engine_closes(&mut self, id: ConnectionId, reset: bool) {
        let connection = &mut self.connections[id.0 as usize];
        assert!(connection.engine.stage != Stage::Closed, "{id:?} is closed twice");
        if matches!(connection.engine.stage, Stage::Connecting | Stage::Failed) {
            // Nobody has accepted it; nobody will.
            connection.peer.gone = true;
            connection.peer.program = None;
        }
        if reset {
            connection.engine_resets(&mut self.random);
        } else {
            connection.engine_closes(&mut self.random);
        }
        self.note("close", id.number(), i64::from(reset));
        self.schedule_peer_soon(id);
    }

    pub(super) fn lacks_buffers(&mut self) -> bool {
        self.random.happens(self.faults.no_buffers)
    }

    pub(super) fn cancels_late(&mut self) -> bool {
        self.random.happens(self.faults.cancel_late)
    }

    fn moved(&mut self, id: ConnectionId, what: &'static str, bytes: usize) {
        self.note(what, id.number(), i64::try_from(bytes).unwrap_or(i64::MAX));
        self.connection_mut(id).bytes += bytes as u64;
        if !self.connection(id).planned.is_empty() {
            self.schedule(Duration::ZERO, Event::FaultDue(id));
        }
    }
}

/// The far ends and what befalls them.
impl World {
    fn add_connection(
        &mut self,
        stage: Stage,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> ConnectionId {
        let (least, most) = self.faults.socket_buffer_bytes;
        let capacity = self.random.magnitude(least, most);
        let number = u32::try_from(self.connections.len()).expect("a run is not that long");
        self.connections.push(Connection::new(stage, local, peer, capacity));
        ConnectionId(number)
    }

    fn client_arrives(&mut self, id: ConnectionId, listener: usize) {
        let place = &mut self.listeners[listener];
        if !place.open {
            let connection = self.connection_mut(id);
            connection.engine.stage = Stage::Closed;
            connection.peer.error = Some(io::ErrorKind::ConnectionRefused);
        } else if place.backlog.len() >= BACKLOG_MAX {
            return self.schedule(SYN_RETRY, Event::Arrive(id, listener));
        } else {
            place.backlog.push_back(id);
            self.schedule_soon(Event::AcceptReady(listener));
        }
        self.note("arrive", id.number(), 0);
        self.schedule_peer_soon(id);
    }

    fn connect_answered(&mut self, id: ConnectionId, result: Result<(), i32>) {
        let connection = self.connection_mut(id);
        if connection.engine.stage != Stage::Connecting {
            return;
        }
        match result {
            Ok(()) => {
                connection.engine.stage = Stage::Open;
                self.note("connected", id.number(), 0);
                self.schedule_peer_soon(id);
                let backends = self.faults.backends;
                self.plan_faults(id, backends, Duration::ZERO);
            }
            Err(number) => {
                connection.engine.stage = Stage::Failed;
                connection.engine.set_error(errno(number));
                connection.peer.gone = true;
                self.note("refused", id.number(), i64::from(number));
            }
        }
        self.schedule_engine(id);
    }

    fn step_peer(&mut self, id: ConnectionId) {
        let now = self.now();
        match self.connection(id).peer.stalled_until {
            None => return,
            Some(until) if until > now => return self.schedule_peer(id, until.since(now)),
            Some(_) => {}
        }
        let Some(mut program) = self.connection_mut(id).peer.program.take() else { return };
        let mut line = Line {
            connection: &mut self.connections[id.0 as usize],
            random: &mut self.random,
            short_transfer: self.faults.short_transfer,
            now,
            bytes_read: 0,
            bytes_written: 0,
            shut_down: false,
        };
        let next = program.step(&mut line);
        let Line { bytes_read, bytes_written, shut_down, .. } = line;
        self.connection_mut(id).peer.program = Some(program);
        self.note("peer reads", id.number(), i64::try_from(bytes_read).unwrap_or(i64::MAX));
        if shut_down {
            self.note("peer ends", id.number(), 0);
        }
        if bytes_read > 0 || bytes_written > 0 || shut_down {
            self.moved(id, "peer writes", bytes_written);
            self.schedule_engine(id);
            self.schedule_peer_soon(id);
        }
        match next {
            Next::Wait => {}
            Next::WaitAtMost(duration) => self.schedule_peer(id, duration),
            Next::Close | Next::Reset => {
                self.note("peer goes", id.number(), i64::from(next == Next::Reset));
                let connection = &mut self.connections[id.0 as usize];
                if next == Next::Reset {
                    connection.peer_resets(errno(libc::ECONNRESET), &mut self.random);
                }
                connection.peer_closes(&mut self.random);
                self.schedule_engine(id);
            }
        }
    }

    fn plan_faults(&mut self, id: ConnectionId, faults: PeerFaults, after: Duration) {
        let reset = errno(self.random.choice(&[
            libc::ECONNRESET,
            libc::ECONNRESET,
            libc::ETIMEDOUT,
            libc::EHOSTUNREACH,
        ]));
        let stall = self.random.duration(Duration::from_millis(1), STALL_MAX);
        let possible = [
            (faults.reset, Fault::Reset(reset)),
            (faults.early_end, Fault::EarlyEnd),
            (faults.stall, Fault::Stall(stall)),
            (faults.stall_for_ever, Fault::StallForEver),
        ];
        for (chance, fault) in possible {
            if !self.random.happens(chance) {
                continue;
            }
            // Either at a point of the conversation or at a moment.
            let (bytes, delay) = if self.random.below(2) == 0 {
                (self.random.magnitude(1, 400_000) as u64, Duration::ZERO)
            } else {
                (0, self.random.duration(Duration::from_nanos(100), Duration::from_secs(2)))
            };
            let not_before = self.now().after(after + delay);
            self.connection_mut(id).planned.push(Planned { after_bytes: bytes, not_before, fault });
            self.schedule(after + delay, Event::FaultDue(id));
        }
    }

    fn bring_faults(&mut self, id: ConnectionId) {
        let now = self.now();
        let connection = &mut self.connections[id.0 as usize];
        let bytes = connection.bytes;
        let due: Vec<_> = connection
            .planned
            .extract_if(.., |plan| plan.after_bytes <= bytes && plan.not_before <= now)
            .collect();
        for Planned { fault, .. } in due {
            let connection = &mut self.connections[id.0 as usize];
            if connection.peer.gone || connection.peer.error.is_some() {
                return;
            }
            match fault {
                Fault::Reset(error) => connection.peer_is_cut_off(error, &mut self.random),
                Fault::EarlyEnd => {
                    if !connection.peer_finishes() {
                        continue;
                    }
                }
                Fault::Stall(duration) => {
                    if let Some(until) = &mut connection.peer.stalled_until {
                        *until = now.after(duration);
                    }
                }
                Fault::StallForEver => connection.peer.stalled_until = None,
                Fault::AcceptAborted
                | Fault::NoLocalAddress
                | Fault::ConnectFailed(_)
                | Fault::ConnectUnanswered => unreachable!("{fault:?} is not planned"),
            }
            self.suffers(id, fault);
            self.schedule_engine(id);
            self.schedule_peer_soon(id);
        }
    }

    fn suffers(&mut self, id: ConnectionId, fault: Fault) {
        let (what, value) = match fault {
            Fault::Reset(error) => ("FAULT reset", error.0),
            Fault::EarlyEnd => ("FAULT early end", 0),
            Fault::Stall(_) => ("FAULT stall", 0),
            Fault::StallForEver => ("FAULT stall for ever", 0),
            Fault::AcceptAborted => ("FAULT accept aborted", 0),
            Fault::NoLocalAddress => ("FAULT no local address", 0),
            Fault::ConnectFailed(error) => ("FAULT connect failed", error.0),
            Fault::ConnectUnanswered => ("FAULT unanswered", 0),
        };
        self.note(what, id.number(), i64::from(value));
        self.connection_mut(id).suffered.push(fault);
    }
}
