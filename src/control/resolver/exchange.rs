//! One question and its answer on a socket of their own, which nobody waits for.
//!
//! The kernel chooses a port at random for each, and lets in what comes from the nameserver
//! that was asked and from nobody else: the socket is connected (RFC 5452 section 9.2).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::dns::Transport;
use crate::dns::message::{DATAGRAM_BYTES_MAX, MESSAGE_BYTES_MAX};

/// A socket with a question on it.
#[derive(Debug)]
pub(super) enum Exchange {
    Datagram(UdpSocket),
    Stream(Stream),
}

/// Messages on a stream have their length in front (RFC 1035 section 4.2.2).
#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    question: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
}

/// How many datagrams are looked at in one go: others wait too.
const DATAGRAMS_MAX: usize = 16;

impl Exchange {
    /// Sends `question` to `server`, or begins to.
    pub(super) fn begin(server: SocketAddr, over: Transport, question: &[u8]) -> io::Result<Self> {
        match over {
            Transport::Udp => {
                let any = match server {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(server)?;
                socket.send(question)?;
                Ok(Self::Datagram(socket))
            }
            Transport::Tcp => {
                let socket =
                    Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_nonblocking(true)?;
                match socket.connect(&server.into()) {
                    Err(error) if !is_under_way(&error) => return Err(error),
                    _ => {}
                }
                let bytes = u16::try_from(question.len()).unwrap_or(u16::MAX).to_be_bytes();
                let question = [&bytes, question].concat();
                let socket = TcpStream::from(socket);
                Ok(Self::Stream(Stream { socket, question, sent: 0, received: Vec::new() }))
            }
        }
    }

    /// What is waited for.
    pub(super) fn interest(&self) -> PollFlags {
        match self {
            Self::Stream(stream) if stream.sent < stream.question.len() => PollFlags::OUT,
            _ => PollFlags::IN,
        }
    }

    /// Goes on as far as can be without waiting, and hands every message to `take` until it
    /// has had enough (`true`).
    ///
    /// # Errors
    /// The kernel's: no answer will come here.
    pub(super) fn go_on(&mut self, take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        match self {
            Self::Datagram(socket) => receive(socket, take),
            Self::Stream(stream) => stream.go_on(take),
        }
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Datagram(socket) => socket.as_fd(),
            Self::Stream(stream) => stream.socket.as_fd(),
        }
    }
}

fn receive(socket: &UdpSocket, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut message = [0; DATAGRAM_BYTES_MAX];
    for _ in 0..DATAGRAMS_MAX {
        match socket.recv(&mut message) {
            Ok(bytes) if take(&message[..bytes]) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Stream {
    fn go_on(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        while self.sent < self.question.len() {
            match self.socket.write(&self.question[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if is_under_way(&error) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        loop {
            if let Some(length) = self.received.first_chunk() {
                let whole = 2 + usize::from(u16::from_be_bytes(*length));
                if let Some(message) = self.received.get(2..whole) {
                    // One question, one answer: there is no other to wait for.
                    return if take(message) { Ok(()) } else { Err(ErrorKind::InvalidData.into()) };
                }
            }
            let mut piece = [0; 4_096];
            let room = (2 + MESSAGE_BYTES_MAX - self.received.len()).min(piece.len());
            match self.socket.read(&mut piece[..room]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => self.received.extend_from_slice(&piece[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Also what connect(2) says, and write(2) until that is done.
fn is_under_way(error: &io::Error) -> bool {
    let in_progress = rustix::io::Errno::INPROGRESS.raw_os_error();
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(in_progress)
}
