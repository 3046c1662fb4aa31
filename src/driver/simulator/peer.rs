//! The far ends of connections: programs that the test writes against a [`Line`].

use std::io::{self, Read, Write};
use std::time::Duration;

use super::connection::Connection;
use super::random::{Chance, Random};
use crate::clock::Moment;

/// A client or a backend: a program on the far end of one connection.
///
/// It is stepped when there may be something to do: at its start, when bytes, the end
/// of the stream or a reset have arrived, when there is room to write again, when its
/// timer is due, and again after every step that moved bytes or shut down.
pub trait Peer {
    /// Does what can be done now and says what to do next. Must not loop for ever.
    fn step(&mut self, line: &mut Line<'_>) -> Next;
}

impl<F: FnMut(&mut Line<'_>) -> Next> Peer for F {
    fn step(&mut self, line: &mut Line<'_>) -> Next {
        self(line)
    }
}

/// What a peer does after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Waits until something happens on the line.
    Wait,
    /// The same, but for no longer than this.
    WaitAtMost(Duration),
    /// Closes its socket and is gone. As with a kernel, bytes that arrived unread, or
    /// arrive later, turn this into a reset.
    Close,
    /// Resets the connection and is gone.
    Reset,
}

/// A peer's end of a connection: a non-blocking socket.
///
/// [`Read`] gives 0 at the end of the stream; both directions give
/// [`io::ErrorKind::WouldBlock`] while nothing can be moved, and
/// [`io::ErrorKind::ConnectionReset`] once the connection is no more.
#[derive(Debug)]
pub struct Line<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) random: &'a mut Random,
    pub(super) short_transfer: Chance,
    pub(super) now: Moment,
    pub(super) bytes_read: usize,
    pub(super) bytes_written: usize,
    pub(super) shut_down: bool,
}

impl Line<'_> {
    /// The simulated time.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// The run's chance, for peers that vary what they do.
    pub fn random(&mut self) -> &mut Random {
        self.random
    }

    /// Writes no more: the other end reads the end of the stream.
    pub fn shutdown_write(&mut self) {
        self.shut_down |= self.connection.peer_finishes();
    }

    /// Whether the connection is no more, so that neither direction will move again.
    pub fn is_reset(&self) -> bool {
        self.connection.peer.error.is_some()
    }

    fn portion(&mut self, possible: usize) -> usize {
        if self.random.happens(self.short_transfer) {
            self.random.magnitude(1, possible)
        } else {
            possible
        }
    }
}

impl Read for Line<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let present = self.connection.to_peer.len().min(into.len());
        if present > 0 {
            let count = self.portion(present);
            self.connection.to_peer.read(&mut into[..count]);
            self.bytes_read += count;
            return Ok(count);
        }
        if into.is_empty() || self.connection.to_peer.is_at_end() {
            return Ok(0);
        }
        Err(self.connection.peer.error.unwrap_or(io::ErrorKind::WouldBlock).into())
    }
}

impl Write for Line<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        if let Some(error) = self.connection.peer.error {
            return Err(error.into());
        }
        if self.connection.to_engine.is_finished() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if from.is_empty() {
            return Ok(0);
        }
        if self.connection.engine.is_closed() {
            // The first write to a closed far end is taken; its answer is a reset.
            self.connection.peer.error = Some(io::ErrorKind::ConnectionReset);
            self.bytes_written += from.len();
            return Ok(from.len());
        }
        let room = self.connection.to_engine.room().min(from.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.portion(room);
        self.connection.to_engine.write(&from[..count]);
        self.bytes_written += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
