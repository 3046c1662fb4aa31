//! A deterministic world for tests: the second implementation of [`Driver`].
//!
//! No kernel, no threads, no wall clock: time, the network, the far ends and every fault
//! follow from one seed, so a failure found once is found again by its seed.
//!
//! ```text
//!               ┌──────────────── Simulator ────────────────┐
//!   engine ────▶│ operations, buffers ◀──▶ World:           │
//!   (Driver)    │ (`operations`, `pool`)   connections,     │◀──▶ Peer programs
//!               │                          listeners,       │     (clients, backends)
//!               │                          events, faults   │
//!               └───────────────────────────────────────────┘
//! ```
//!
//! Misuse of the contract (two receives on a socket, a close with operations in flight, a
//! buffer released twice) is a bug of the engine and panics with words that name it. What
//! the contract allows, however unlikely, is what the engine gets.
//!
//! May know: the driver contract. Must not know: TLS, the engine, what peers say.
#![forbid(unsafe_code)]

mod clock;
mod connection;
mod faults;
mod operations;
mod peer;
mod pool;
mod random;
mod trace;
mod world;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

pub use self::clock::Clock;
pub use self::faults::{Fault, Faults, PeerFaults};
pub use self::peer::{Line, Next, Peer};
pub use self::random::{Chance, Random};
pub use self::world::{Answer, Backend, ConnectionId, World};

use self::operations::{Operation, OperationId, Place, Resolved, Work};
use self::pool::Pool;
use self::world::Event;
use super::{Buffer, Completion, Driver, Errno, RECEIVE_BYTES_MAX, Readiness, Socket, Token, Wait};
use crate::clock::Moment;
use crate::endpoint::{Endpoint, LocalAddress};

/// The most that the engine's own work takes in one turn.
const TURN_COST_MAX: Duration = Duration::from_micros(20);

/// Completions that arrive this close together may reach the engine in one turn.
const BATCH_WINDOW: Duration = Duration::from_micros(50);

/// Large buffers of a simulated pool: fewer than there are streams that would use one.
const LARGE_BUFFERS: usize = 2;

/// Events without a completion after which peers must be keeping themselves busy.
const EVENTS_PER_TURN_MAX: usize = 10_000_000;

/// The driver of a simulated machine, and the world around it.
#[derive(Debug)]
pub struct Simulator {
    pool: Pool,
    world: World,
    /// Started, outcome not decided.
    pending: BTreeMap<OperationId, Operation>,
    /// Outcome decided, not yet at the engine.
    resolved: BTreeMap<OperationId, Resolved>,
    /// Those of `resolved` that the engine may take now, in order of arrival.
    arrived: VecDeque<OperationId>,
    next_operation: u64,
}

impl Simulator {
    /// A world that follows from `seed`, with a pool of so many buffers.
    pub fn new(seed: u64, buffers: usize, faults: Faults) -> Self {
        Self {
            pool: Pool::new(buffers, LARGE_BUFFERS),
            world: World::new(seed, faults),
            pending: BTreeMap::new(),
            resolved: BTreeMap::new(),
            arrived: VecDeque::new(),
            next_operation: 0,
        }
    }

    /// The world around the engine.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The world around the engine, to add clients and backends to.
    pub fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }

    /// Lets the world go on without the engine until nothing more happens in it, at
    /// most for `limit` of simulated time: peers read what is still under way.
    pub fn settle(&mut self, limit: Duration) {
        let limit = self.world.now().after(limit);
        while let Some(moment) = self.world.next_event().filter(|moment| *moment <= limit) {
            self.world.advance_to(moment);
            self.run_due_events();
        }
    }

    /// Checks that the engine has given everything back.
    ///
    /// # Panics
    /// A buffer is not free, a socket is open or an operation is in flight.
    pub fn assert_at_rest(&self) {
        let operations: Vec<_> = self.pending.values().map(|operation| operation.token).collect();
        assert!(
            self.in_flight() == 0,
            "{} operations in flight; not yet decided: {operations:?}",
            self.in_flight()
        );
        let open: Vec<_> = self.world.open_sockets().collect();
        assert!(open.is_empty(), "sockets never closed: {open:?}");
        self.pool.assert_at_rest();
    }

    fn assert_within(&self, buffer: &Buffer, range: &Range<usize>) {
        let length = self.pool.length_bytes(buffer);
        assert!(
            range.start < range.end && range.end <= length,
            "{range:?} is not a part of a buffer of {length} bytes"
        );
    }

    fn run_due_events(&mut self) -> usize {
        let mut events = 0;
        while let Some(event) = self.world.take_due_event() {
            events += 1;
            match event {
                Event::EngineReady(connection) => self.progress(connection),
                Event::AcceptReady(listener) => self.progress_accepts(listener),
                Event::Cancel(operation) => self.progress_cancel(operation),
                Event::Deliver(operation) => self.arrived.push_back(operation),
                other => self.world.happen(other),
            }
        }
        events
    }

    /// Sleeps as a turn does: until something arrives or `limit` passes.
    fn sleep(&mut self, limit: Option<Moment>) -> io::Result<()> {
        let mut events = 0;
        loop {
            let next = self.world.next_event().into_iter().chain(self.world.clock().next_wake());
            match (next.min(), limit) {
                (Some(next), limit) if limit.is_none_or(|limit| next <= limit) => {
                    self.world.advance_to(next);
                    events += self.run_due_events();
                    let woken = self.world.clock().take_due_wakes();
                    if woken || !self.arrived.is_empty() {
                        return Ok(());
                    }
                }
                (_, Some(limit)) => {
                    self.world.advance_to(limit);
                    return Ok(());
                }
                (_, None) => {
                    return Err(io::Error::other(format!(
                        "the engine sleeps for ever and nothing can wake it; in flight: {:?}",
                        self.pending.values().collect::<Vec<_>>()
                    )));
                }
            }
            assert!(events < EVENTS_PER_TURN_MAX, "peers keep each other busy without the engine");
        }
    }
}

impl Driver for Simulator {
    fn now(&self) -> Moment {
        self.world.now()
    }

    fn unix_time(&self) -> Duration {
        // The world began a while after 1970.
        const BEGINNING: Duration = Duration::from_secs(1_800_000_000);
        BEGINNING + Duration::from_nanos(self.world.now().as_nanoseconds())
    }

    fn accept(&mut self, listener: usize, token: Token) {
        let operation = self.start(Place::Listener(listener), token, Work::Accept);
        self.world.wants_accept(listener, operation);
    }

    fn limit_queue(&mut self, _listener: usize, _connections: u32) {
        // Whoever is not let in tries again later: for the engine, a later arrival.
    }

    fn stop_listening(&mut self, listener: usize) {
        self.world.stop_listening(listener);
    }

    fn cancel_accepts(&mut self, listener: usize) {
        self.world.cancel_accepts(listener);
    }

    fn close_listener(&mut self, listener: usize) {
        self.world.close_listener(listener);
    }

    fn connect(
        &mut self,
        endpoint: &Endpoint,
        from: Option<LocalAddress>,
        token: Token,
    ) -> Result<Socket, Errno> {
        let connection = self.world.open(endpoint, from)?;
        let operation = self.start(Place::Connection(connection), token, Work::Connect);
        self.world.connection_mut(connection).engine.connect = Some(operation);
        Ok(connection.socket())
    }

    fn receive(&mut self, socket: &Socket, length_max: usize, readiness: Readiness, token: Token) {
        assert!(
            (1..=RECEIVE_BYTES_MAX).contains(&length_max),
            "a receive of at most {length_max} bytes: a buffer takes 1 to {RECEIVE_BYTES_MAX}"
        );
        self.start_receive(socket, token, Work::Receive { length_max, readiness });
    }

    fn receive_into(
        &mut self,
        socket: &Socket,
        buffer: Buffer,
        range: Range<usize>,
        _readiness: Readiness,
        token: Token,
    ) {
        self.assert_within(&buffer, &range);
        self.pool.lend(&buffer);
        self.start_receive(socket, token, Work::ReceiveInto { buffer, range });
    }

    fn send(&mut self, socket: &Socket, buffer: Buffer, range: Range<usize>, token: Token) {
        self.assert_within(&buffer, &range);
        let id = self.open_connection(socket, "send");
        assert!(
            self.world.connection(id).engine.send.is_none(),
            "a second send in flight on {id:?}: {token:?}"
        );
        self.pool.lend(&buffer);
        let operation =
            self.start(Place::Connection(id), token, Work::Send { buffer, range, sent: 0 });
        self.world.connection_mut(id).engine.send = Some(operation);
    }

    fn cancel(&mut self, socket: &Socket) {
        self.world.cancel_operations(ConnectionId::of(socket));
    }

    fn cancel_receive(&mut self, socket: &Socket, _token: Token) {
        self.cancel(socket);
    }

    fn shutdown_write(&mut self, socket: &Socket) {
        self.world.engine_shuts_down(ConnectionId::of(socket));
    }

    fn close(&mut self, socket: Socket) {
        let id = self.idle_connection(&socket, "closed");
        self.world.engine_closes(id, false);
    }

    fn reset(&mut self, socket: Socket) {
        let id = self.idle_connection(&socket, "reset");
        self.world.engine_closes(id, true);
    }

    fn local_address(&self, socket: &Socket) -> Result<SocketAddr, Errno> {
        self.world.connection(ConnectionId::of(socket)).engine.local_address
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        self.pool.take()
    }

    fn take_large_buffer(&mut self) -> Option<Buffer> {
        self.pool.take_large()
    }

    fn release(&mut self, buffer: Buffer) {
        self.pool.release(&buffer);
    }

    fn buffers_free(&self) -> usize {
        self.pool.free()
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.pool.of_engine(buffer)
    }

    fn bytes_mut(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.pool.of_engine_mut(buffer)
    }

    fn copy_between(&mut self, from: &Buffer, range: Range<usize>, to: &Buffer, start: usize) {
        self.pool.copy_between(from, range, to, start);
    }

    fn set_urgent(&mut self, _urgent: bool) {
        // Turns cost what they cost here, whoever has the CPU.
    }

    fn prepare_sleep(&mut self) {
        // Whoever hands work to this engine does it by the clock: no wake can be missed.
    }

    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        let entered = self.world.now();
        let cost = self.world.turn_cost();
        self.world.advance_to(entered.after(cost));
        self.run_due_events();
        let woken = self.world.clock().take_due_wakes();
        let limit = match wait {
            _ if woken || !self.arrived.is_empty() => return Ok(()),
            Wait::Never => return Ok(()),
            Wait::AtMost(duration) => Some(self.world.now().max(entered.after(duration))),
            Wait::Forever => None,
        };
        if self.world.wakes_for_nothing() {
            return Ok(());
        }
        self.sleep(limit)?;
        if !self.arrived.is_empty() && self.world.gathers() {
            let until = self.world.now().after(BATCH_WINDOW);
            self.settle(until.since(self.world.now()));
        }
        Ok(())
    }

    fn completion(&mut self) -> Option<Completion> {
        let operation = self.arrived.pop_front()?;
        Some(self.hand_out(operation))
    }

    fn in_flight(&self) -> usize {
        self.pending.len() + self.resolved.len()
    }

    fn overflows(&self) -> u64 {
        0
    }
}

const fn errno(number: i32) -> Errno {
    Errno(number)
}
