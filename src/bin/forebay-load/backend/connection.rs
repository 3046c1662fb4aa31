//! One connection of the backend: requests in, answers out, one at a time.

use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;

use socket2::Socket;

use super::proxy_header::{Beginning, examine};
use super::request::{self, Refusal, Request};
use super::response::{COPIED_BYTES_MAX, Responses, head};
use crate::outgoing::Outgoing;

/// Bytes that one receive may bring.
pub(super) const RECEIVE_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of a body that one call may throw away.
const DISCARDED_BYTES_MAX: usize = 1 << 20;
/// Receives and sends before others have their turn.
const STEPS_AT_ONCE_MAX: usize = 16;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The socket is not ready for more.
    Waiting,
    /// There is more to do.
    Busy,
    /// The connection can be closed.
    Over,
}

/// A connection.
pub(super) struct Connection {
    socket: Socket,
    /// A PROXY header may come first.
    header_expected: bool,
    /// Bytes received and not used: part of a head, or requests behind the one served.
    unread: Vec<u8>,
    /// The request whose body is coming.
    current: Option<Request>,
    body_left: u64,
    outgoing: Outgoing,
    answer_left: u64,
    readable: bool,
    hung_up: bool,
    ended: bool,
    close_after_answer: bool,
}

impl Connection {
    pub(super) fn new(socket: Socket, proxy_protocol: bool) -> Self {
        Self {
            socket,
            header_expected: proxy_protocol,
            unread: Vec::new(),
            current: None,
            body_left: 0,
            outgoing: Outgoing::default(),
            answer_left: 0,
            readable: false,
            hung_up: false,
            ended: false,
            close_after_answer: false,
        }
    }

    /// The kernel says that something can be received or sent, or that the end has come.
    pub(super) fn socket_ready(&mut self, hung_up: bool) {
        self.readable = true;
        self.hung_up |= hung_up;
    }

    /// Goes as far as the socket allows.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn advance(
        &mut self,
        responses: &mut Responses,
        scratch: &mut [u8],
    ) -> io::Result<Turn> {
        for _ in 0..STEPS_AT_ONCE_MAX {
            if !self.send(responses)? {
                return Ok(Turn::Waiting);
            }
            if self.answer_left > 0 {
                continue;
            }
            if self.close_after_answer {
                return Ok(Turn::Over);
            }
            if self.current.is_some() && self.body_left == 0 {
                self.answer(responses);
            } else if self.use_unread() {
                // Something was found in it.
            } else if self.ended {
                return Ok(Turn::Over);
            } else if !self.readable {
                return Ok(Turn::Waiting);
            } else if self.body_left > 0 {
                self.discard()?;
            } else {
                self.receive(scratch)?;
            }
        }
        Ok(Turn::Busy)
    }

    /// Sends a piece of what is to be sent; false if the socket takes no more for now.
    fn send(&mut self, responses: &Responses) -> io::Result<bool> {
        if !self.outgoing.write_to(&self.socket)? {
            return Ok(false);
        }
        if self.answer_left > 0 {
            match responses.send_body(&self.socket, self.answer_left) {
                Ok(count) => self.answer_left -= count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Makes what it can of what was received; false if it needs more.
    fn use_unread(&mut self) -> bool {
        if self.unread.is_empty() || self.current.is_some() {
            return false;
        }
        let bytes = std::mem::take(&mut self.unread);
        let used = self.use_bytes(&bytes);
        self.unread = bytes;
        self.unread.drain(..used);
        used > 0 || self.close_after_answer
    }

    /// Uses a header or a head at the start of `bytes`, and what is there of a body; how
    /// many bytes that was.
    fn use_bytes(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        if self.header_expected {
            match examine(bytes) {
                Beginning::Incomplete => return 0,
                Beginning::Header(length) => {
                    self.header_expected = false;
                    used = length;
                }
                Beginning::Malformed => {
                    self.refuse("400 Bad Request");
                    return 0;
                }
            }
        }
        match request::parse(&bytes[used..]) {
            Ok(None) => used,
            Ok(Some(request)) => {
                used += request.head_bytes;
                let here = (bytes.len() - used)
                    .min(usize::try_from(request.body_bytes).unwrap_or(usize::MAX));
                used += here;
                self.body_left = request.body_bytes - here as u64;
                if request.expects_continue && self.body_left > 0 {
                    self.outgoing.append(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                self.current = Some(request);
                used
            }
            Err(refusal) => {
                self.refuse(refusal);
                used
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.outgoing.append(head(refusal, 0, false).as_bytes());
        self.close_after_answer = true;
    }

    /// The request is complete: begins to answer it.
    fn answer(&mut self, responses: &mut Responses) {
        let Some(request) = self.current.take() else { return };
        self.close_after_answer = !request.keep_alive;
        let Some(bytes) = request.answer_bytes else {
            let head = head("404 Not Found", 0, request.keep_alive);
            return self.outgoing.append(head.as_bytes());
        };
        if bytes <= COPIED_BYTES_MAX && request.keep_alive && !request.head_only {
            return self.outgoing.append(responses.whole(bytes));
        }
        self.outgoing.append(head("200 OK", bytes, request.keep_alive).as_bytes());
        self.answer_left = if request.head_only { 0 } else { bytes };
    }

    fn receive(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        let Some(count) = received((&self.socket).read(scratch))? else {
            self.readable = false;
            return Ok(());
        };
        self.note_received(count, scratch.len());
        if self.unread.is_empty() {
            // Nearly always a request is whole, and nothing is behind it.
            let used = self.use_bytes(&scratch[..count]);
            self.unread.extend_from_slice(&scratch[used..count]);
        } else {
            self.unread.extend_from_slice(&scratch[..count]);
        }
        Ok(())
    }

    /// Throws bytes of a body away where they are: with MSG_TRUNC the kernel copies nothing
    /// (tcp(7)). UNIX sockets know no such thing, and fill the memory.
    fn discard(&mut self) -> io::Result<()> {
        thread_local! {
            static MEMORY: std::cell::RefCell<Vec<MaybeUninit<u8>>> =
                std::cell::RefCell::new(vec![MaybeUninit::uninit(); DISCARDED_BYTES_MAX]);
        }
        let length = self.body_left.min(DISCARDED_BYTES_MAX as u64) as usize;
        let result = MEMORY.with_borrow_mut(|memory| {
            self.socket.recv_with_flags(&mut memory[..length], libc::MSG_TRUNC)
        });
        let Some(count) = received(result)? else {
            self.readable = false;
            return Ok(());
        };
        self.note_received(count, length);
        self.body_left -= count as u64;
        Ok(())
    }

    fn note_received(&mut self, count: usize, room: usize) {
        self.ended |= count == 0;
        if count == 0 || (count < room && !self.hung_up) {
            self.readable = false;
        }
    }
}

/// What a receive brought; `None` if nothing is there.
fn received(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => Ok(None),
        Err(error) => Err(error),
    }
}
