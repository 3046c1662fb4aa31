//! The plaintext server behind the thing under test: HTTP/1.1, answers of any size, bodies
//! of any size thrown away, as cheap as it can be, so that it is not what is measured.
//!
//! One epoll loop a thread, each with its own listening socket. Answers up to
//! [`response::COPIED_BYTES_MAX`] are one send from memory, larger ones are sent from a
//! file in memory without a copy; bodies are discarded in the kernel.

mod connection;
mod proxy_header;
mod request;
mod response;

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use forebay::control::limits::raise_descriptor_limit;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::arguments::BackendArguments;
use crate::crew::settle;
use connection::Connection;
use response::Responses;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4_096;
/// Connections accepted before others have their turn.
const ACCEPTED_AT_ONCE_MAX: usize = 64;
/// Sockets looked after in one go.
const EVENTS_MAX: usize = 256;
/// Without a descriptor no connection is accepted for so long.
const PAUSE_WITHOUT_DESCRIPTOR: Duration = Duration::from_millis(10);
/// Descriptors that are not connections.
const DESCRIPTORS_RESERVED: u64 = 64;

/// What a thread's loop knows the listening socket by.
const LISTENER: u64 = u64::MAX;

/// Where the backend listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Inet(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let wrong = || "write ADDRESS:PORT, or unix:PATH".to_owned();
        let address = text.to_socket_addrs().map_err(|_| wrong())?.next();
        address.map(Self::Inet).ok_or_else(wrong)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// Why there is no backend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackendError {
    #[error("cannot listen on {listen}: {error}")]
    Listen {
        /// The address.
        listen: Listen,
        /// What the kernel says.
        error: io::Error,
    },
    #[error("cannot make the memory that answers are sent from: {0}")]
    Memory(io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("cannot wait for sockets: {0}")]
    Wait(io::Error),
}

/// Serves until the process is ended. Prints where it listens when it does.
pub(crate) fn run(arguments: &BackendArguments) -> Result<(), BackendError> {
    let limit = raise_descriptor_limit();
    let cpus = arguments.threads.cpus.clone().map_or_else(Vec::new, |list| list.0);
    let threads = arguments.threads.threads.unwrap_or(cpus.len().max(1));
    let listeners = listeners(&arguments.listen, threads)?;
    // With port 0 the kernel has chosen one.
    let listen = match listeners[0].local_addr().ok().and_then(|address| address.as_socket()) {
        Some(address) => Listen::Inet(address),
        None => arguments.listen.clone(),
    };
    let connections_max = limit.saturating_sub(DESCRIPTORS_RESERVED) / threads as u64;
    let mut running = Vec::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let cpu = (!cpus.is_empty()).then(|| cpus[number % cpus.len()]);
        let responses = Responses::new().map_err(BackendError::Memory)?;
        let proxy_protocol = arguments.proxy_protocol;
        let serve = move || {
            settle(cpu, false);
            let connections_max = usize::try_from(connections_max).unwrap_or(usize::MAX);
            Backend::new(listener, responses, proxy_protocol, connections_max)?.serve()
        };
        let thread = thread::Builder::new().name(format!("backend-{number}"));
        running.push(thread.spawn(serve).map_err(BackendError::Thread)?);
    }
    println!("listening on {listen}");
    for thread in running {
        if let Ok(ended) = thread.join() {
            ended.map_err(BackendError::Wait)?;
        }
    }
    Ok(())
}

fn listeners(listen: &Listen, threads: usize) -> Result<Vec<Socket>, BackendError> {
    let failed = |error| BackendError::Listen { listen: listen.clone(), error };
    let first = listener(listen).map_err(failed)?;
    let mut listeners = vec![first];
    for _ in 1..threads {
        let next = match listen {
            // A second socket file of that name cannot be: the threads share the one.
            Listen::Unix(_) => listeners[0].try_clone(),
            Listen::Inet(_) => match listeners[0].local_addr().map(|address| address.as_socket()) {
                Ok(Some(address)) => listener(&Listen::Inet(address)),
                Ok(None) => listeners[0].try_clone(),
                Err(error) => Err(error),
            },
        };
        listeners.push(next.map_err(failed)?);
    }
    Ok(listeners)
}

fn listener(listen: &Listen) -> io::Result<Socket> {
    let (domain, address) = match listen {
        Listen::Inet(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Listen::Unix(path) => {
            // One that a backend has left behind; anything else stays and is an error.
            use std::os::unix::fs::FileTypeExt;
            if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
                fs::remove_file(path)?;
            }
            (Domain::UNIX, SockAddr::unix(path)?)
        }
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    if domain != Domain::UNIX {
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        // Accepted sockets have it from the listening one.
        socket.set_tcp_nodelay(true)?;
    }
    socket.bind(&address)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// One thread's connections.
struct Backend {
    listener: Socket,
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Connections that have more to do than one turn allowed.
    busy: Vec<usize>,
    responses: Responses,
    proxy_protocol: bool,
    connections_max: usize,
    scratch: Box<[u8]>,
}

impl Backend {
    fn new(
        listener: Socket,
        responses: Responses,
        proxy_protocol: bool,
        connections_max: usize,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Level-triggered: what is left in the backlog is told of again.
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        Ok(Self {
            listener,
            epoll,
            connections: Vec::new(),
            free: Vec::new(),
            busy: Vec::new(),
            responses,
            proxy_protocol,
            connections_max,
            scratch: vec![0; connection::RECEIVE_BYTES_MAX].into_boxed_slice(),
        })
    }

    fn serve(mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            let timeout = (!self.busy.is_empty()).then_some(&at_once);
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let epoll::Event { data, flags, .. } = event;
                match data.u64() {
                    LISTENER => self.accept(),
                    index => {
                        let over = epoll::EventFlags::RDHUP
                            | epoll::EventFlags::HUP
                            | epoll::EventFlags::ERR;
                        let index = index as usize;
                        if let Some(connection) = &mut self.connections[index] {
                            connection.socket_ready(flags.intersects(over));
                        }
                        self.advance(index);
                    }
                }
            }
            for index in std::mem::take(&mut self.busy) {
                self.advance(index);
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTED_AT_ONCE_MAX {
            if self.connections.len() - self.free.len() >= self.connections_max {
                // The others wait in the backlog until one ends.
                return thread::sleep(PAUSE_WITHOUT_DESCRIPTOR);
            }
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                        return thread::sleep(PAUSE_WITHOUT_DESCRIPTOR);
                    }
                    Some(libc::ECONNABORTED) => continue,
                    _ => return,
                },
            };
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let flags = epoll::EventFlags::IN
                | epoll::EventFlags::OUT
                | epoll::EventFlags::RDHUP
                | epoll::EventFlags::ET;
            let data = epoll::EventData::new_u64(index as u64);
            if epoll::add(&self.epoll, &socket, data, flags).is_err() {
                self.free.push(index);
                continue;
            }
            self.connections[index] = Some(Connection::new(socket, self.proxy_protocol));
        }
    }

    fn advance(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        match connection.advance(&mut self.responses, &mut self.scratch) {
            Ok(connection::Turn::Waiting) => {}
            Ok(connection::Turn::Busy) => self.busy.push(index),
            // Whatever a client did wrong, it was told or has gone.
            Ok(connection::Turn::Over) | Err(_) => {
                self.connections[index] = None;
                self.free.push(index);
            }
        }
    }
}
