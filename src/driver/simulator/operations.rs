//! The operations of the engine: from start over their outcome to their completion.

use std::ops::Range;

use super::connection::Stage;
use super::world::{ConnectionId, Event};
use super::{Simulator, errno};
use crate::driver::{
    BUFFER_HEADROOM_BYTES, Buffer, Completion, Errno, Outcome, Readiness, Socket, Token,
};

/// Names one started operation; numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct OperationId(u64);

/// A started operation whose outcome is not decided.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) token: Token,
    place: Place,
    work: Work,
}

/// What an operation was started on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Listener(usize),
    Connection(ConnectionId),
}

#[derive(Debug)]
pub(super) enum Work {
    Accept,
    Connect,
    Receive { length_max: usize, readiness: Readiness },
    ReceiveInto { buffer: Buffer, range: Range<usize> },
    Send { buffer: Buffer, range: Range<usize>, sent: usize },
}

/// An operation whose outcome is decided but not handed out.
#[derive(Debug)]
pub(super) struct Resolved {
    completion: Completion,
    place: Place,
}

/// What trying an operation came to.
enum Attempt {
    Waits(Work),
    Ends(Outcome),
}

impl Simulator {
    pub(super) fn start(&mut self, place: Place, token: Token, work: Work) -> OperationId {
        assert!(
            token.kind < Token::KIND_LIMIT
                && token.slot < Token::SLOT_LIMIT
                && token.generation < Token::GENERATION_LIMIT,
            "beyond the limits of a token: {token:?}"
        );
        let id = OperationId(self.next_operation);
        self.next_operation += 1;
        self.world.note("start", u64::from(token.slot), i64::from(token.kind));
        if let Place::Connection(connection) = place {
            self.world.engine_acts(connection);
        }
        self.pending.insert(id, Operation { token, place, work });
        id
    }

    pub(super) fn start_receive(&mut self, socket: &Socket, token: Token, work: Work) {
        let id = self.open_connection(socket, "receive");
        assert!(
            self.world.connection(id).engine.receive.is_none(),
            "a second receive in flight on {id:?}: {token:?}"
        );
        let operation = self.start(Place::Connection(id), token, work);
        self.world.connection_mut(id).engine.receive = Some(operation);
    }

    /// The connection of a socket on which an operation other than connect may start.
    pub(super) fn open_connection(&self, socket: &Socket, verb: &str) -> ConnectionId {
        let id = ConnectionId::of(socket);
        let stage = self.world.connection(id).engine.stage;
        assert!(stage == Stage::Open, "a {verb} is started on {id:?}, which is {stage:?}");
        id
    }

    /// The connection of a socket that is about to go.
    pub(super) fn idle_connection(&self, socket: &Socket, verb: &str) -> ConnectionId {
        let id = ConnectionId::of(socket);
        let in_flight = self.world.connection(id).engine.operations().count();
        assert!(in_flight == 0, "{id:?} is {verb} with {in_flight} operations in flight on it");
        id
    }

    /// Tries everything that is pending on a connection.
    pub(super) fn progress(&mut self, id: ConnectionId) {
        let operations: Vec<_> = self.world.connection(id).engine.operations().collect();
        for operation in operations {
            self.attempt(operation, false);
        }
    }

    /// Matches the backlog of a listener with the accepts in flight on it.
    pub(super) fn progress_accepts(&mut self, listener: usize) {
        while let Some((operation, result)) = self.world.match_accept(listener) {
            let Some(Operation { token, place, .. }) = self.pending.remove(&operation) else {
                unreachable!("an accept that waits is pending")
            };
            self.resolve(operation, token, place, Outcome::Accepted(result));
        }
    }

    /// A cancellation reaches its operation.
    pub(super) fn progress_cancel(&mut self, id: OperationId) {
        if self.world.cancels_late() {
            if let Some(&Operation { place: Place::Listener(listener), .. }) = self.pending.get(&id)
            {
                self.progress_accepts(listener);
            }
            self.attempt(id, true);
        }
        let Some(Operation { token, place, work }) = self.pending.remove(&id) else { return };
        let cancelled = errno(libc::ECANCELED);
        let outcome = match work {
            Work::Accept => {
                if let Place::Listener(listener) = place {
                    self.world.forget_accept(listener, id);
                }
                Outcome::Accepted(Err(cancelled))
            }
            Work::Connect => {
                if let Place::Connection(connection) = place {
                    self.world.connection_mut(connection).engine.stage = Stage::Failed;
                }
                Outcome::Connected(Err(cancelled))
            }
            Work::Receive { .. } => {
                Outcome::Received { result: Err(cancelled), buffer: None, more: false }
            }
            Work::ReceiveInto { buffer, .. } => {
                Outcome::Received { result: Err(cancelled), buffer: Some(buffer), more: false }
            }
            Work::Send { buffer, sent, .. } => {
                Outcome::Sent { result: if sent > 0 { Ok(sent) } else { Err(cancelled) }, buffer }
            }
        };
        self.resolve(id, token, place, outcome);
    }

    pub(super) fn hand_out(&mut self, id: OperationId) -> Completion {
        let Some(Resolved { completion, place }) = self.resolved.remove(&id) else {
            unreachable!("what arrives was resolved")
        };
        match place {
            Place::Listener(listener) => self.world.accept_handed_out(listener),
            Place::Connection(connection) => {
                let engine = &mut self.world.connection_mut(connection).engine;
                for place in [&mut engine.connect, &mut engine.receive, &mut engine.send] {
                    place.take_if(|operation| *operation == id);
                }
            }
        }
        match &completion.outcome {
            Outcome::Received { buffer: Some(buffer), .. } | Outcome::Sent { buffer, .. } => {
                self.pool.hand_back(buffer);
            }
            _ => {}
        }
        let value = match &completion.outcome {
            Outcome::Accepted(result) => value(result.as_ref().map(|_| 0)),
            Outcome::Connected(result) => value(result.as_ref().map(|()| 0)),
            Outcome::Received { result, .. } | Outcome::Sent { result, .. } => {
                value(result.as_ref().copied())
            }
        };
        self.world.note("complete", u64::from(completion.token.slot), value);
        completion
    }

    /// Tries one operation; `cancelled` says that it is the last time.
    fn attempt(&mut self, id: OperationId, cancelled: bool) {
        let Some(Operation { token, place, work }) = self.pending.remove(&id) else { return };
        let attempt = match (work, place) {
            (Work::Connect, Place::Connection(connection)) => self.try_connect(connection),
            (Work::Receive { length_max, readiness }, Place::Connection(connection)) => {
                self.try_receive(connection, length_max, readiness)
            }
            (Work::ReceiveInto { buffer, range }, Place::Connection(connection)) => {
                self.try_receive_into(connection, buffer, range)
            }
            (Work::Send { buffer, range, sent }, Place::Connection(connection)) => {
                self.try_send(connection, buffer, range, sent, cancelled)
            }
            // Accepts are matched with the backlog instead.
            (work, _) => Attempt::Waits(work),
        };
        match attempt {
            Attempt::Waits(work) => {
                self.pending.insert(id, Operation { token, place, work });
            }
            Attempt::Ends(outcome) => self.resolve(id, token, place, outcome),
        }
    }

    fn resolve(&mut self, id: OperationId, token: Token, place: Place, outcome: Outcome) {
        let completion = Completion { token, outcome };
        self.resolved.insert(id, Resolved { completion, place });
        match place {
            Place::Listener(_) => self.world.schedule_soon(Event::Deliver(id)),
            Place::Connection(connection) => self.world.deliver(connection, id),
        }
    }

    fn try_connect(&mut self, id: ConnectionId) -> Attempt {
        match self.world.connect_result(id) {
            Some(result) => Attempt::Ends(Outcome::Connected(result)),
            None => Attempt::Waits(Work::Connect),
        }
    }

    fn try_receive(
        &mut self,
        id: ConnectionId,
        length_max: usize,
        readiness: Readiness,
    ) -> Attempt {
        let ends = |result, buffer, more| Attempt::Ends(Outcome::Received { result, buffer, more });
        let connection = self.world.connection(id);
        let ready = connection.to_engine.len() > 0 || connection.is_hung_up();
        // The kernel selects the buffer before it looks at the socket, at once or, when it
        // was asked to poll first, when there is something.
        let selects = ready || (readiness == Readiness::Likely && self.pool.free() == 0);
        if selects && (self.pool.free() == 0 || self.world.lacks_buffers()) {
            self.world.note("no buffer", id.number(), 0);
            return ends(Err(errno(libc::ENOBUFS)), None, false);
        }
        let available = self.world.receivable(id, length_max);
        if available > 0 {
            let buffer = self.pool.take_for_operation().expect("the pool is not empty");
            let range = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES + available;
            let into = &mut self.pool.of_operation_mut(&buffer)[range];
            let more = self.world.engine_receives(id, into);
            return ends(Ok(available), Some(buffer), more);
        }
        match self.world.connection_mut(id).receive_ends() {
            None => Attempt::Waits(Work::Receive { length_max, readiness }),
            Some(result) => {
                self.world.note("end", id.number(), value(result.as_ref().copied()));
                ends(result, None, false)
            }
        }
    }

    fn try_receive_into(
        &mut self,
        id: ConnectionId,
        buffer: Buffer,
        range: Range<usize>,
    ) -> Attempt {
        let available = self.world.receivable(id, range.len());
        if available > 0 {
            let range = range.start..range.start + available;
            let into = &mut self.pool.of_operation_mut(&buffer)[range];
            let more = self.world.engine_receives(id, into);
            let buffer = Some(buffer);
            return Attempt::Ends(Outcome::Received { result: Ok(available), buffer, more });
        }
        match self.world.connection_mut(id).receive_ends() {
            None => Attempt::Waits(Work::ReceiveInto { buffer, range }),
            Some(result) => {
                self.world.note("end", id.number(), value(result.as_ref().copied()));
                let buffer = Some(buffer);
                Attempt::Ends(Outcome::Received { result, buffer, more: false })
            }
        }
    }

    fn try_send(
        &mut self,
        id: ConnectionId,
        buffer: Buffer,
        range: Range<usize>,
        sent: usize,
        cancelled: bool,
    ) -> Attempt {
        if let Some(error) = self.world.connection_mut(id).send_fails() {
            // A send that had made progress reports that, and the error is gone:
            // MSG_WAITALL's later attempt has consumed it (io_send in Linux 6.1).
            self.world.note("send fails", id.number(), -i64::from(error.0));
            let result = if sent > 0 { Ok(sent) } else { Err(error) };
            return Attempt::Ends(Outcome::Sent { result, buffer });
        }
        let from = &self.pool.of_operation_mut(&buffer)[range.start + sent..range.end];
        let sent = sent + self.world.engine_sends(id, from);
        if sent == range.len() {
            return Attempt::Ends(Outcome::Sent { result: Ok(sent), buffer });
        }
        if !cancelled {
            self.world.engine_awaits_room(id);
        }
        Attempt::Waits(Work::Send { buffer, range, sent })
    }
}

/// A result as one number for the trace.
fn value(result: Result<usize, &Errno>) -> i64 {
    result
        .map_or_else(|error| -i64::from(error.0), |count| i64::try_from(count).unwrap_or(i64::MAX))
}
