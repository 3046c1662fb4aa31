//! One client: its connection, and how far it is in what it does there.
//!
//! Says what has happened; what that means, and what to do next, the event loop decides.

use std::time::{Duration, Instant};

use crate::connection::{Connection, Scratch};
use crate::failure::Failure;
use crate::http::{Request, Response};

/// Receives, or chunks of a body sent, before other clients have their turn.
const STEPS_AT_ONCE_MAX: usize = 8;

/// Bytes of a body that are encrypted and sent in one go: whole records.
const BODY_CHUNK_BYTES: usize = 128 * 1_024;

static BODY: [u8; BODY_CHUNK_BYTES] = [b'x'; BODY_CHUNK_BYTES];

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The TCP connection does not stand yet.
    Connecting,
    /// The ClientHello is out.
    Handshaking,
    /// Nothing is asked and nothing owed.
    Ready,
    /// A request is out, or on its way.
    Exchanging,
    /// We have said that we are done, and wait for the server's end.
    Closing,
}

/// What has happened to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// Nothing can be done before the socket is ready.
    Waiting,
    /// There is more to do, after others had their turn.
    Busy,
    /// The connection is ready for use.
    Established,
    /// The answer is complete.
    Answered,
    /// The server has ended the connection.
    Ended,
}

/// Something that is measured, from when it was due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) due: Instant,
    /// From when on its client is waiting: when it was due, or when this program, late by
    /// its own fault, came to it.
    pub(crate) waits_from: Instant,
    /// It is one of a given number of operations.
    pub(crate) claimed: bool,
    /// Known before the operation is over if an orderly end still belongs to it.
    pub(crate) latency: Option<Duration>,
}

/// Application bytes that went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// A client.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) stage: Stage,
    pub(crate) operation: Option<Operation>,
    pub(crate) opened: Instant,
    /// When what it does now has taken too long.
    pub(crate) deadline: Option<Instant>,
    /// The earliest moment at which the event loop looks at the deadline anyway.
    pub(crate) looked_at: Option<Instant>,
    /// The event loop is told when the socket can be written.
    pub(crate) watches_writable: bool,
    /// What it was opened for is not done yet.
    pub(crate) opening: bool,
    /// It is in the queue of those that have more to do.
    pub(crate) queued: bool,
    response: Response,
    /// The answer is complete; it may be so before the request is.
    answered: bool,
    body_left: u64,
    readable: bool,
    /// The kernel has told of an end or an error: read on until it shows.
    hung_up: bool,
    ended: bool,
    stream_ended: bool,
}

impl Client {
    pub(crate) fn new(connection: Connection, operation: Option<Operation>) -> Self {
        Self {
            connection,
            stage: Stage::Connecting,
            operation,
            opened: Instant::now(),
            deadline: None,
            looked_at: None,
            watches_writable: false,
            opening: true,
            queued: false,
            response: Response::default(),
            answered: false,
            body_left: 0,
            readable: false,
            hung_up: false,
            ended: false,
            stream_ended: false,
        }
    }

    /// The kernel says that something can be received, or that the end has come.
    pub(crate) fn socket_ready(&mut self, hung_up: bool) {
        self.readable = true;
        self.hung_up |= hung_up;
    }

    /// Goes as far as the socket allows, or until something happens.
    ///
    /// # Errors
    /// Why the connection is of no more use.
    pub(crate) fn advance(
        &mut self,
        scratch: &mut Scratch,
        bytes: &mut Bytes,
    ) -> Result<Happening, Failure> {
        if self.stage == Stage::Connecting {
            if !self.connection.begin()? {
                return Ok(Happening::Waiting);
            }
            if self.connection.session().is_none() {
                self.stage = Stage::Ready;
                return Ok(Happening::Established);
            }
            self.stage = Stage::Handshaking;
        }
        let mut steps = 0;
        while self.connection.flush()? && self.body_left > 0 {
            if steps == STEPS_AT_ONCE_MAX {
                return Ok(Happening::Busy);
            }
            steps += 1;
            let count = self.body_left.min(BODY_CHUNK_BYTES as u64);
            self.connection.send(&BODY[..count as usize], scratch)?;
            self.body_left -= count;
            bytes.sent += count;
        }
        let mut steps = 0;
        while self.readable {
            if steps == STEPS_AT_ONCE_MAX {
                return Ok(Happening::Busy);
            }
            steps += 1;
            self.receive(scratch, bytes)?;
            if self.stage == Stage::Handshaking && !self.is_handshaking() {
                self.stage = Stage::Ready;
                return Ok(Happening::Established);
            }
            if self.answered {
                break;
            }
        }
        // An answer that comes before the whole request was sent does not end it, unless
        // the server has ended the connection.
        let sent = self.body_left == 0 && !self.connection.is_blocked();
        if self.answered && (sent || self.ended) {
            self.answered = false;
            self.stage = Stage::Ready;
            return Ok(Happening::Answered);
        }
        let over = if self.stage == Stage::Closing { self.stream_ended } else { self.ended };
        Ok(if over { Happening::Ended } else { Happening::Waiting })
    }

    fn receive(&mut self, scratch: &mut Scratch, bytes: &mut Bytes) -> Result<(), Failure> {
        let mut complete = Ok(false);
        let exchanging = self.stage == Stage::Exchanging && !self.answered;
        let response = &mut self.response;
        let received = self.connection.receive(scratch, |data| {
            bytes.received += data.len() as u64;
            if exchanging && complete.is_ok() {
                complete = response.feed(data);
            }
        })?;
        self.ended |= received.ended;
        self.stream_ended |= received.stream_ended;
        if received.bytes == 0 || (received.drained && !self.hung_up) {
            self.readable = false;
        }
        self.answered |= complete? || (exchanging && self.ended && self.response.end());
        Ok(())
    }

    fn is_handshaking(&self) -> bool {
        self.connection.session().is_some_and(|session| session.is_handshaking())
    }

    /// Sends a request; the answer to it comes by [`Self::advance`].
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn request(
        &mut self,
        request: &Request,
        scratch: &mut Scratch,
        bytes: &mut Bytes,
    ) -> Result<(), Failure> {
        self.stage = Stage::Exchanging;
        self.response.begin();
        self.answered = false;
        self.body_left = request.body_bytes_behind;
        self.connection.send(&request.message, scratch)?;
        bytes.sent += request.message.len() as u64;
        Ok(())
    }

    /// Sends so many bytes that no answer is expected to.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn greet(
        &mut self,
        count: u64,
        scratch: &mut Scratch,
        bytes: &mut Bytes,
    ) -> Result<(), Failure> {
        let count = count.min(BODY_CHUNK_BYTES as u64);
        self.connection.send(&BODY[..count as usize], scratch)?;
        bytes.sent += count;
        Ok(())
    }

    /// Says that this client is done; the server's end comes by [`Self::advance`].
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn finish(&mut self, scratch: &mut Scratch) -> Result<(), Failure> {
        self.stage = Stage::Closing;
        self.connection.finish(scratch)
    }

    /// Whether the server will take no further request on this connection.
    pub(crate) fn is_over(&self) -> bool {
        self.ended || self.response.last
    }
}
