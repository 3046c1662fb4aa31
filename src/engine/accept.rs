//! New connections: how many are let in, who waits for a credit, and how the door is
//! closed.
//!
//! A connection is accepted only while credits are free and nobody is parked: what the
//! workers cannot digest stays in the kernel's queue, where it costs nothing.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::connection::{Phase, TimerClass};
use super::events::{Event, Shed, Whose};
use super::metrics::{EndReason, ShedCause};
use super::sources::Source;
use super::{Engine, KIND_LISTENER, Limits};
use crate::clock::Moment;
use crate::driver::{Driver, Errno, Readiness, Socket, Token};
use crate::handshake::{FailureReason, HandshakeService};
use crate::tls::server_name::ServerName;

/// One in so many connections, and buffers, may belong to clients that are deferred.
const DEFERRED_OF: usize = 2;

/// After an accept failed for want of descriptors or memory, try again this much later.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A draining listener is closed when no connection came for this long: what waits in
/// the kernel's queue is served first.
const DRAIN_QUIET: Duration = Duration::from_millis(50);

/// At the latest it is closed after this: whoever keeps coming, a health check too, must
/// not keep it open until the drain's deadline cuts everybody.
const DRAIN_ACCEPTS_FOR: Duration = Duration::from_secs(1);

/// With every credit taken, a client that has been silent in the middle of its handshake
/// for this long gives its credit up: or a few silent clients could keep all others out
/// for as long as the handshake timeout.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// Handshakes looked at, and at most ended, in one turn for their silence.
const SILENT_LOOKED_AT_MAX: usize = 64;

/// The listening sockets' state.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<ListenerState>,
    /// No accepts before this moment.
    paused_until: Option<Moment>,
    draining: Option<Draining>,
}

#[derive(Debug)]
struct ListenerState {
    accepts_in_flight: usize,
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Draining {
    deadline: Moment,
    /// Since when no connection came while accepts were in flight.
    quiet_since: Moment,
    /// When they are cancelled though connections still come.
    closes_by: Moment,
    /// Accepts were cancelled: nothing new is let in.
    cancelled: bool,
    /// The deadline has passed and everything was told to end.
    expired: bool,
}

impl Draining {
    /// When listeners are closed, should nobody come until then.
    fn closing(&self) -> Moment {
        self.quiet_since.after(DRAIN_QUIET).min(self.closes_by)
    }
}

impl Listeners {
    pub(super) fn new(count: usize) -> Self {
        let sockets =
            (0..count).map(|_| ListenerState { accepts_in_flight: 0, closed: false }).collect();
        Self { sockets, paused_until: None, draining: None }
    }

    /// Drained: every listener is closed.
    pub(super) fn finished(&self) -> bool {
        self.draining.is_some() && self.sockets.iter().all(|listener| listener.closed)
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        let draining = self.draining.map(|draining| {
            [
                (!draining.expired).then_some(draining.deadline),
                (!draining.cancelled).then_some(draining.closing()),
            ]
        });
        [self.paused_until].into_iter().chain(draining.into_iter().flatten()).flatten().min()
    }
}

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// Gives free credits to parked connections, then arms accepts as far as credits,
    /// slots and drain allow.
    pub(super) fn admit(&mut self) {
        if self.credits.is_empty() {
            self.reclaim_silent_credits();
        }
        while self.may_begin_a_handshake()
            && let Some(slot) = self.next_to_begin()
        {
            self.timers.disarm(&mut self.table, slot);
            self.begin_handshake(slot);
        }
        self.continue_drain();
        self.judge_crowd();
        if self.listeners.paused_until.is_some_and(|until| self.now < until) {
            return;
        }
        self.listeners.paused_until = None;
        if self.listeners.draining.is_some_and(|draining| draining.cancelled)
            || self.credits.is_empty()
            || self.backlog.is_full()
            || !self.crowding.may_accept(self.now)
            || self.timers.list(TimerClass::Parked).first().is_some()
        {
            return;
        }
        let in_flight: usize =
            self.listeners.sockets.iter().map(|listener| listener.accepts_in_flight).sum();
        let mut room = self.table.free().saturating_sub(in_flight);
        // Of a crowd one in each turn, so that established connections are served between.
        let accepts = if self.crowding.is_crowded() { 1 } else { self.limits.accepts };
        for index in 0..self.listeners.sockets.len() {
            while room > 0 && self.listeners.sockets[index].accepts_in_flight < accepts {
                let token = Token { kind: KIND_LISTENER, slot: index as u32, generation: 0 };
                self.driver.accept(index, token);
                self.listeners.sockets[index].accepts_in_flight += 1;
                room -= 1;
            }
        }
    }

    /// Makes the listeners' queues short in a crowd, and long again after it.
    fn judge_crowd(&mut self) {
        let changed = self.crowding.judge(self.backlog.is_full(), self.now);
        if let Some(is_crowded) = changed
            && self.listeners.draining.is_none()
        {
            let Limits { queue, queue_in_crowd, .. } = self.limits;
            let queue = if is_crowded { queue_in_crowd.min(queue) } else { queue };
            for index in 0..self.listeners.sockets.len() {
                self.driver.limit_queue(index, queue);
            }
        }
    }

    /// When the crowd is to be judged again; it no longer matters when nobody is accepted.
    pub(super) fn crowd_deadline(&self) -> Option<Moment> {
        let cancelled = self.listeners.draining.is_some_and(|draining| draining.cancelled);
        if cancelled { None } else { self.crowding.next_judgement(self.now) }
    }

    /// Whether a credit is free, the workers are not owed too much, and the rate of all
    /// handshakes allows one more.
    pub(super) fn may_begin_a_handshake(&self) -> bool {
        !self.credits.is_empty()
            && !self.credit_is_for_a_server()
            && !self.backlog.is_full()
            && self.pace.allows(self.now)
    }

    /// When the rate of all handshakes lets the next one begin.
    pub(super) fn pace_deadline(&self) -> Option<Moment> {
        let waiting = self.next_to_begin().is_some();
        if waiting && !self.credits.is_empty() { self.pace.next() } else { None }
    }

    /// Who was parked for as long as a handshake may take.
    pub(super) fn parked_too_long(&mut self, slot: u32) {
        let paced = !self.credits.is_empty() && !self.pace.allows(self.now);
        let cause = if paced { ShedCause::HandshakesPerSecond } else { ShedCause::NoCredit };
        self.shed(slot, cause);
    }

    /// Whether as many are deferred as may be: they hold slots and buffers that those
    /// within their share need.
    pub(super) fn may_defer(&self) -> bool {
        let room = self.limits.connections.min(self.buffers_total) / DEFERRED_OF;
        self.timers.list(TimerClass::Deferred).length() < room
    }

    /// Counts a connection that is shed, which asked for `name` as far as that is known.
    /// What is not the fault of its source is not counted to it.
    pub(super) fn count_shed(
        &mut self,
        source: Source,
        name: Option<ServerName>,
        cause: ShedCause,
    ) {
        if matches!(cause, ShedCause::SourceShare | ShedCause::NameShare) {
            self.crowding.refused(self.now);
        }
        let whose = match cause {
            ShedCause::SourceConnections
            | ShedCause::SourceIncompleteHandshakes
            | ShedCause::SourceHandshakesPerSecond
            | ShedCause::SourceShare => {
                self.sources.prefix(source).map_or(Whose::Anybody, Whose::Source)
            }
            ShedCause::NameShare => Whose::ServerName(name),
            _ => Whose::Anybody,
        };
        self.count_shed_of(whose, cause);
    }

    /// Counts a connection that is shed, of whom it is known.
    pub(super) fn count_shed_of(&mut self, whose: Whose, cause: ShedCause) {
        self.metrics.shed[cause as usize].increment();
        self.shedding.count(whose, cause, self.now);
    }

    /// Tells what was shed, once a second.
    pub(super) fn report_shed(&mut self) {
        for (whose, cause, count) in self.shedding.report(self.now) {
            let limits = &self.epoch.snapshot.limits;
            let limit = match cause {
                ShedCause::SourceConnections => limits.source_connections,
                ShedCause::SourceIncompleteHandshakes => limits.source_incomplete_handshakes,
                ShedCause::SourceHandshakesPerSecond => limits.source_handshakes_per_second,
                ShedCause::HandshakesPerSecond => limits.handshakes_per_second,
                _ => None,
            };
            self.events.report_surely(Event::Shed(Shed { whose, cause, count, limit }));
        }
    }

    /// Ends the handshakes whose clients have been silent for longest.
    fn reclaim_silent_credits(&mut self) {
        let mut next = self.timers.list(TimerClass::Handshake).first();
        for _ in 0..SILENT_LOOKED_AT_MAX {
            let Some(slot) = next else { break };
            next = self.timers.list(TimerClass::Handshake).after(&self.table, slot);
            let connection = &self.table[slot];
            if self.now.since(connection.timer_armed) < SILENCE_MAX {
                break;
            }
            // A credit that a worker has is in use.
            if connection.awaits_client() {
                self.handshake_failed(slot, FailureReason::Silent, String::new());
            }
        }
    }

    /// When silent handshakes are next to be looked for; only while no credit is free.
    pub(super) fn silence_deadline(&self) -> Option<Moment> {
        let oldest = self.timers.list(TimerClass::Handshake).first();
        let slot = oldest.filter(|_| self.credits.is_empty())?;
        let deadline = self.table[slot].timer_armed.after(SILENCE_MAX);
        // What a worker has had for longer is looked at again after a while.
        Some(if deadline <= self.now { self.now.after(ACCEPT_RETRY) } else { deadline })
    }

    /// Who begins next: of the parked, then, while time is not scarce, of the deferred.
    fn next_to_begin(&self) -> Option<u32> {
        self.next_of(TimerClass::Parked).or_else(|| {
            let deferred = (!self.backlog.is_scarce()).then_some(TimerClass::Deferred);
            deferred.and_then(|class| self.next_of(class))
        })
    }

    /// The oldest of a class, or the newest once the oldest has waited so long that its
    /// client is likely to give up anyway.
    fn next_of(&self, class: TimerClass) -> Option<u32> {
        let waiting = self.timers.list(class);
        let oldest = waiting.first()?;
        if self.now.since(self.table[oldest].timer_armed) > self.limits.patience {
            waiting.last()
        } else {
            Some(oldest)
        }
    }

    pub(super) fn accepted(&mut self, index: usize, result: Result<(Socket, SocketAddr), Errno>) {
        self.listeners.sockets[index].accepts_in_flight -= 1;
        let (socket, peer) = match result {
            Ok(connection) => connection,
            Err(Errno(libc::ECANCELED)) => return,
            Err(Errno(libc::ECONNABORTED | libc::EINTR | libc::EPROTO | libc::EAGAIN)) => {
                // The client left between its SYN and our accept.
                return;
            }
            Err(_) => {
                self.metrics.accept_failures.increment();
                self.listeners.paused_until = Some(self.now.after(ACCEPT_RETRY));
                return;
            }
        };
        if let Some(draining) = &mut self.listeners.draining {
            if draining.expired {
                self.driver.reset(socket);
                return;
            }
            draining.quiet_since = self.now;
        }
        self.metrics.accepted.increment();
        let awaits_header = self.epoch.snapshot.listeners[index].expects_header_from(peer.ip());
        // Who is held to limits is the client, and who that is stands in the header.
        let let_in = if awaits_header { Ok(Source::EXEMPT) } else { self.let_in(peer.ip()) };
        let source = match let_in {
            Ok(source) => source,
            Err((source, cause)) => {
                self.count_shed(source, None, cause);
                self.metrics.ended[EndReason::Shed as usize].increment();
                self.driver.reset(socket);
                return;
            }
        };
        let Some(slot) = self.table.insert() else {
            // Accepts in flight are bounded by the free slots; being here is an error of
            // ours, and the client is told at once.
            self.sources.leave(source, false);
            self.driver.reset(socket);
            return;
        };
        let connection = &mut self.table[slot];
        connection.phase = Phase::ClientHello;
        connection.client = Some(socket);
        connection.awaits_header = awaits_header;
        connection.peer = peer;
        connection.listener = index as u16;
        connection.source = source;
        connection.accepted = self.now;
        connection.epoch = Some(Rc::clone(&self.epoch));
        connection.inbound.readiness = Some(Readiness::Likely);
        self.timers.arm(&mut self.table, slot, TimerClass::ClientHello, self.now);
        self.receive_from_client(slot);
    }

    /// Counts a new connection to its source, unless it is to be refused. Here a refusal
    /// costs least: nothing was read yet.
    pub(super) fn let_in(&mut self, address: IpAddr) -> Result<Source, (Source, ShedCause)> {
        let source = self.sources.enter(address, self.now)?;
        if !self.may_defer() && self.backlog.limits_source(source, &self.sources) {
            self.sources.leave(source, false);
            return Err((source, ShedCause::SourceShare));
        }
        Ok(source)
    }

    /// Begins to drain: what waits in the kernel's queues is still served.
    pub(super) fn drain(&mut self, deadline: Moment) {
        if self.listeners.draining.is_none() {
            for index in 0..self.listeners.sockets.len() {
                self.driver.stop_listening(index);
            }
            self.listeners.draining = Some(Draining {
                deadline,
                quiet_since: self.now,
                closes_by: self.now.after(DRAIN_ACCEPTS_FOR),
                cancelled: false,
                expired: false,
            });
        }
    }

    /// Ends every connection now, and takes no new ones.
    pub(super) fn stop(&mut self) {
        self.drain(self.now);
        if let Some(draining) = &mut self.listeners.draining {
            draining.deadline = self.now;
        }
        self.continue_drain();
    }

    fn continue_drain(&mut self) {
        let Some(mut draining) = self.listeners.draining else { return };
        let over = self.now >= draining.deadline;
        if !draining.cancelled && (over || self.now >= draining.closing()) {
            for (index, listener) in self.listeners.sockets.iter().enumerate() {
                if listener.accepts_in_flight > 0 {
                    self.driver.cancel_accepts(index);
                }
            }
            draining.cancelled = true;
        }
        if draining.cancelled {
            for (index, listener) in self.listeners.sockets.iter_mut().enumerate() {
                if !listener.closed && listener.accepts_in_flight == 0 {
                    self.driver.close_listener(index);
                    listener.closed = true;
                }
            }
        }
        let end = over && !draining.expired;
        draining.expired |= over;
        self.listeners.draining = Some(draining);
        if end {
            self.end_all();
        }
    }

    fn end_all(&mut self) {
        for slot in self.table.slots() {
            if !matches!(self.table[slot].phase, Phase::Free | Phase::Ending) {
                self.end_overdue(slot, EndReason::Stopped);
            }
        }
    }
}
