//! The socket of one check.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::clock::Moment;
use crate::endpoint::Endpoint;
use crate::upstream::exchange::{Exchange, Failure, Step};

/// A check under way.
pub(super) struct Probe {
    /// The place of whose it is.
    pub(super) watch: usize,
    pub(super) began: Moment,
    pub(super) deadline: Moment,
    socket: Socket,
    connected: bool,
    exchange: Exchange,
}

/// Why a check did not begin.
pub(super) enum NotStarted {
    /// The server refused at once, as UNIX sockets do.
    Server(io::Error),
    /// This machine is short of something.
    Ourselves(io::Error),
}

impl Probe {
    pub(super) fn start(
        watch: usize,
        address: &Endpoint,
        source: Option<IpAddr>,
        exchange: Exchange,
        began: Moment,
        deadline: Moment,
    ) -> Result<Self, NotStarted> {
        let socket =
            connect(address, source).map_err(|error| match Errno::from_io_error(&error) {
                Some(
                    Errno::MFILE
                    | Errno::NFILE
                    | Errno::NOBUFS
                    | Errno::NOMEM
                    | Errno::ADDRNOTAVAIL,
                ) => NotStarted::Ourselves(error),
                _ => NotStarted::Server(error),
            })?;
        Ok(Self { watch, began, deadline, socket, connected: false, exchange })
    }

    /// What it waits for.
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        let receives = self.connected && matches!(self.exchange.step(), Step::Receive(_));
        let interest = if receives { PollFlags::IN } else { PollFlags::OUT };
        PollFd::from_borrowed_fd(self.socket.as_fd(), interest)
    }

    /// Goes on until it would have to wait; how it went, if it is over.
    pub(super) fn go_on(&mut self) -> Option<Result<(), Failure>> {
        if !self.connected {
            match self.socket.take_error() {
                Ok(None) => self.connected = true,
                Ok(Some(error)) | Err(error) => return Some(Err(Failure::Connect(error))),
            }
        }
        let mut bytes = [0; 1_024];
        loop {
            let went = match self.exchange.step() {
                Step::Done => return Some(Ok(())),
                Step::Send(rest) => self.socket.write(rest).map(|count| {
                    self.exchange.sent(count);
                    Ok(())
                }),
                Step::Receive(most) => {
                    let room = most.min(bytes.len());
                    let received = self.socket.read(&mut bytes[..room]);
                    received.map(|count| self.exchange.received(&bytes[..count]))
                }
            };
            match went {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => return Some(Err(failure)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(Failure::Broken(error))),
            }
        }
    }

    /// Why it failed, at its deadline.
    pub(super) fn timed_out(&self) -> Failure {
        if self.connected { Failure::AnswerTimedOut } else { Failure::ConnectTimedOut }
    }

    /// What was received.
    pub(super) fn answer(&self) -> &[u8] {
        self.exchange.answer()
    }
}

/// Begins to connect, from `source` if that is said.
fn connect(address: &Endpoint, source: Option<IpAddr>) -> io::Result<Socket> {
    let (domain, address) = match address {
        Endpoint::Inet(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Endpoint::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address) {
        Ok(()) => Ok(socket),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}
