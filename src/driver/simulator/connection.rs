//! One simulated connection: two byte pipes and what each end's kernel knows.
//!
//! ```text
//!   engine ──send──▶ to_peer   (bounded) ──read──▶ peer
//!   engine ◀─receive─ to_engine (bounded) ◀─write── peer
//! ```
//!
//! The engine's end behaves as Linux TCP does, including what is easily overlooked:
//! an error is reported **once**, to whichever of receive and send asks first, and
//! after that a receive returns 0 as if the stream had ended (`tcp_recvmsg_locked`,
//! `tcp_sendmsg_locked`, `sk_stream_error`, `tcp_reset` in Linux 6.1).

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::SocketAddr;

use super::faults::Fault;
use super::peer::Peer;
use super::random::Random;
use super::{OperationId, errno};
use crate::clock::Moment;
use crate::driver::Errno;

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Pipe {
    bytes: VecDeque<u8>,
    capacity: usize,
    finished: bool,
}

impl Pipe {
    pub(super) fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a socket buffer has room");
        Self { bytes: VecDeque::new(), capacity, finished: false }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn room(&self) -> usize {
        self.capacity - self.bytes.len()
    }

    /// Whether the writer has ended the stream; bytes may still be there.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether the reader has reached the end of the stream.
    pub(super) fn is_at_end(&self) -> bool {
        self.finished && self.bytes.is_empty()
    }

    pub(super) fn read(&mut self, into: &mut [u8]) {
        self.bytes.read_exact(into).expect("no more is read than is there");
    }

    pub(super) fn write(&mut self, from: &[u8]) {
        assert!(from.len() <= self.room() && !self.finished, "the pipe takes it");
        self.bytes.extend(from);
    }

    /// Ends the stream; whether that is new.
    fn finish(&mut self) -> bool {
        !std::mem::replace(&mut self.finished, true)
    }

    /// A reset overtook what had not arrived yet: some of the tail, and with it the end.
    fn lose_tail(&mut self, random: &mut Random) {
        if self.bytes.is_empty() && !self.finished || random.below(2) == 0 {
            return;
        }
        self.finished = false;
        self.bytes.truncate(random.below(self.bytes.len() + 1));
    }
}

/// What state the engine's end is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In a listener's backlog: the peer may use it, the engine does not know it yet.
    Backlog,
    /// The engine's connect is not answered yet.
    Connecting,
    /// The engine has its socket. Includes connections that were reset since.
    Open,
    /// The engine's connect failed; the socket is only good for closing.
    Failed,
    /// The engine has closed it.
    Closed,
}

/// The engine's socket.
#[derive(Debug)]
pub(super) struct EngineEnd {
    pub(super) stage: Stage,
    /// Reported once (`sk_err`).
    error: Option<Errno>,
    /// The error was reported: no later completion arrives before this.
    pub(super) error_told: Option<Moment>,
    pub(super) receive_shut: bool,
    pub(super) send_shut: bool,
    pub(super) local_address: Result<SocketAddr, Errno>,
    /// Operations whose completion was not handed out, by class.
    pub(super) connect: Option<OperationId>,
    pub(super) receive: Option<OperationId>,
    pub(super) send: Option<OperationId>,
    /// When operations are next tried.
    pub(super) due: Option<Moment>,
}

impl EngineEnd {
    pub(super) fn set_error(&mut self, error: Errno) {
        self.error = Some(error);
    }

    pub(super) fn take_error(&mut self) -> Option<Errno> {
        let error = self.error.take();
        if error.is_some() {
            self.error_told = Some(Moment::default());
        }
        error
    }

    pub(super) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    pub(super) fn operations(&self) -> impl Iterator<Item = OperationId> {
        [self.connect, self.receive, self.send].into_iter().flatten()
    }
}

/// The peer's socket and program.
pub(super) struct PeerEnd {
    /// `None` before a connect is answered, after the peer has gone, and during its step.
    pub(super) program: Option<Box<dyn Peer>>,
    /// The peer has closed its socket, or there never was one.
    pub(super) gone: bool,
    pub(super) error: Option<io::ErrorKind>,
    pub(super) address: SocketAddr,
    /// Not stepped before; `None` is for ever.
    pub(super) stalled_until: Option<Moment>,
    /// When it is next stepped.
    pub(super) due: Option<Moment>,
}

impl std::fmt::Debug for PeerEnd {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PeerEnd")
            .field("gone", &self.gone)
            .field("error", &self.error)
            .field("address", &self.address)
            .field("stalled_until", &self.stalled_until)
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

/// A fault that waits for its moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    /// Not before so many bytes went either way...
    pub(super) after_bytes: u64,
    /// ...and not before this.
    pub(super) not_before: Moment,
    pub(super) fault: Fault,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) to_engine: Pipe,
    pub(super) to_peer: Pipe,
    pub(super) engine: EngineEnd,
    pub(super) peer: PeerEnd,
    pub(super) planned: Vec<Planned>,
    pub(super) suffered: Vec<Fault>,
    /// The engine got it from a listener.
    pub(super) accepted: bool,
    /// Bytes that went either way.
    pub(super) bytes: u64,
}

impl Connection {
    pub(super) fn new(stage: Stage, local: SocketAddr, peer: SocketAddr, capacity: usize) -> Self {
        Self {
            to_engine: Pipe::new(capacity),
            to_peer: Pipe::new(capacity),
            engine: EngineEnd {
                stage,
                error: None,
                error_told: None,
                receive_shut: false,
                send_shut: false,
                local_address: Ok(local),
                connect: None,
                receive: None,
                send: None,
                due: None,
            },
            peer: PeerEnd {
                program: None,
                gone: false,
                error: None,
                address: peer,
                stalled_until: Some(Moment::default()),
                due: None,
            },
            planned: Vec::new(),
            suffered: Vec::new(),
            accepted: false,
            bytes: 0,
        }
    }

    /// What a receive ends with now if there are no bytes; `None` if it has to wait.
    pub(super) fn receive_ends(&mut self) -> Option<Result<usize, Errno>> {
        if self.to_engine.is_finished() {
            return Some(Ok(0));
        }
        if let Some(error) = self.engine.take_error() {
            return Some(Err(error));
        }
        self.engine.receive_shut.then_some(Ok(0))
    }

    /// What a send fails with now; `None` if it can go on.
    pub(super) fn send_fails(&mut self) -> Option<Errno> {
        if let Some(error) = self.engine.take_error() {
            return Some(error);
        }
        self.engine.send_shut.then_some(errno(libc::EPIPE))
    }

    /// Whether a poll reports an end or an error (`POLLRDHUP | POLLHUP | POLLERR`).
    pub(super) fn is_hung_up(&self) -> bool {
        self.to_engine.is_finished() || self.engine.error.is_some() || self.engine.receive_shut
    }

    /// shutdown(2) of the write side; nothing to a socket that is not connected.
    pub(super) fn engine_shuts_down(&mut self) {
        if self.engine.stage != Stage::Open {
            return;
        }
        self.engine.send_shut = true;
        if self.peer.error.is_none() {
            self.to_peer.finish();
        }
    }

    /// close(2): in order unless bytes from the peer are left unread.
    pub(super) fn engine_closes(&mut self, random: &mut Random) {
        if self.to_engine.len() > 0 {
            return self.engine_resets(random);
        }
        self.engine.stage = Stage::Closed;
        if self.peer.error.is_none() {
            self.to_peer.finish();
        }
    }

    /// close(2) with `SO_LINGER` of 0.
    pub(super) fn engine_resets(&mut self, random: &mut Random) {
        self.engine.stage = Stage::Closed;
        if self.peer.error.is_none() {
            self.peer.error = Some(io::ErrorKind::ConnectionReset);
            self.to_peer.lose_tail(random);
        }
    }

    /// The peer ends its stream; whether that is new.
    pub(super) fn peer_finishes(&mut self) -> bool {
        self.peer.error.is_none() && self.to_engine.finish()
    }

    /// The peer closes its socket; a reset if it left bytes unread.
    pub(super) fn peer_closes(&mut self, random: &mut Random) {
        if self.to_peer.len() > 0 {
            self.peer_resets(errno(libc::ECONNRESET), random);
        } else {
            self.peer_finishes();
        }
        self.peer.gone = true;
        self.peer.program = None;
    }

    /// The connection is reset under the peer, or the network gives up with `error`.
    pub(super) fn peer_is_cut_off(&mut self, error: Errno, random: &mut Random) {
        self.peer_resets(error, random);
        self.to_peer.lose_tail(random);
    }

    /// The peer resets; what it has not read is gone, and it knows that.
    pub(super) fn peer_resets(&mut self, error: Errno, random: &mut Random) {
        if self.peer.error.is_some() {
            return;
        }
        self.peer.error = Some(io::ErrorKind::ConnectionReset);
        let finished = self.to_engine.is_finished();
        if !finished {
            self.to_engine.lose_tail(random);
        }
        // tcp_reset: in CLOSE_WAIT, so after the peer's end of stream, it is EPIPE.
        self.engine.error = Some(if finished { errno(libc::EPIPE) } else { error });
        self.engine.receive_shut = true;
        self.engine.send_shut = true;
    }
}
