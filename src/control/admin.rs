//! The admin address: `/metrics`, `/health`, `/ready`, `/certificates`, `/shadow`, `/servers`,
//! and for who is on this machine `POST /reload` and `POST /servers`, over HTTP/1.1.
//!
//! One thread, one poll(2) loop, everything bounded: connections, bytes of a request,
//! time for each phase. A client can cost the others nothing: when the table is full
//! the connection that was accepted first is dropped for the newest, so a load
//! balancer's check is answered however many slow clients there are, and the metrics
//! are printed at most ten times a second. Each connection carries one request.
//!
//! It is our own loop because the small HTTP servers for blocking sockets start a
//! thread for each connection without bound and read requests without limit or
//! timeout. The request itself is parsed by `httparse`.
//!
//! A reload is done by the control thread. Whoever asked for it waits, and is looked after
//! now and then.
//!
//! May know: the pages, the lifecycle, what is known of servers. Must not know: engines.

#![forbid(unsafe_code)]

mod answer;
mod connection;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::lifecycle::Lifecycle;
use super::metrics::{Page, Pools};
use super::poll_timeout::poll_timeout;
use super::reload_requests::ReloadRequests;
use super::served::Served;
use answer::Answers;
use connection::Connection;

/// What the admin server allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once; a further one takes the place of the oldest.
    pub connections_max: usize,
    /// From accept to the end of the request's head.
    pub request_timeout: Duration,
    /// From then to the last byte of the response.
    pub response_timeout: Duration,
    /// How long who asked for a reload waits for its end.
    pub reload_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 32,
            request_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
            reload_timeout: Duration::from_secs(300),
        }
    }
}

/// How long accepting pauses after it failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked whether a reload is done.
const RELOAD_LOOK: Duration = Duration::from_millis(20);

/// What is shown and done here.
#[derive(Debug)]
pub struct Pages {
    /// The stage, for `/health` and `/ready`.
    pub lifecycle: Arc<Lifecycle>,
    /// `/metrics`.
    pub metrics: Page,
    /// `/certificates` and `/shadow`.
    pub served: Arc<Served>,
    /// `/servers`.
    pub pools: Arc<Pools>,
    /// `POST /reload`.
    pub reload_requests: Arc<ReloadRequests>,
}

/// Why the admin address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("admin address {address}: cannot listen: {source}{}", advice(source))]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The thread or its descriptors cannot be had.
    #[error("admin server: cannot start: {0}")]
    Start(#[source] io::Error),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process has it: stop that one or choose another",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// The admin address, taken but not served yet: connections wait.
#[derive(Debug)]
pub struct AdminListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminListener {
    /// Takes the address.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind().map_err(|source| AdminError::Listen { address, source })
    }

    /// The address taken, with the port that the kernel chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves it on a thread of its own.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had.
    pub fn serve(self, pages: Pages, limits: Limits) -> Result<AdminServer, AdminError> {
        let (stop, stopped) = UnixStream::pair().map_err(AdminError::Start)?;
        let address = self.address;
        let serving = Serving {
            listener: self.listener,
            stopped,
            limits,
            answers: Answers::new(pages),
            connections: Vec::with_capacity(limits.connections_max),
            accept_again: None,
        };
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || serving.run())
            .map_err(AdminError::Start)?;
        Ok(AdminServer { address, stop: Some(stop), thread: Some(thread) })
    }
}

/// The running admin server; dropping it ends it.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// The address served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        // The loop sees the end of its stop pipe.
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread panicked");
        }
    }
}

/// The loop's own state.
struct Serving {
    listener: TcpListener,
    stopped: UnixStream,
    limits: Limits,
    answers: Answers,
    /// The oldest first.
    connections: Vec<Connection>,
    /// Set while accepting pauses.
    accept_again: Option<Instant>,
}

impl Serving {
    fn run(mut self) {
        loop {
            match self.turn() {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    // poll(2) fails for want of kernel memory only: try again later.
                    tracing::error!(%error, "admin server: cannot wait for clients");
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Waits once and serves whoever is ready; true when told to stop.
    fn turn(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        self.connections.retain(|connection| connection.deadline() > now);
        if self.accept_again.is_some_and(|again| again <= now) {
            self.accept_again = None;
        }
        let deadlines = self.connections.iter().map(Connection::deadline);
        let waits = self.connections.iter().any(Connection::waits).then(|| now + RELOAD_LOOK);
        let next = deadlines.chain(self.accept_again).chain(waits).min();
        let timeout = next.map(|next| poll_timeout(next - now));

        let readable = PollFlags::IN;
        let accepting = if self.accept_again.is_none() { readable } else { PollFlags::empty() };
        let mut descriptors = Vec::with_capacity(2 + self.connections.len());
        descriptors.push(PollFd::from_borrowed_fd(self.stopped.as_fd(), readable));
        descriptors.push(PollFd::from_borrowed_fd(self.listener.as_fd(), accepting));
        for connection in &self.connections {
            descriptors.push(PollFd::from_borrowed_fd(connection.as_fd(), connection.interest()));
        }
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> =
            descriptors.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();

        if ready[0] {
            return Ok(true);
        }
        let mut place = 2;
        self.connections.retain_mut(|connection| {
            let is_ready = ready[place];
            place += 1;
            if connection.waits() && is_ready {
                // Nothing is waited for on the socket, so this is its end.
                return false;
            }
            !(is_ready || connection.waits()) || connection.go_on(&mut self.answers, &self.limits)
        });
        if ready[1] {
            self.accept();
        }
        Ok(false)
    }

    fn accept(&mut self) {
        // At most a table full in one turn, so that a flood cannot keep us here.
        for _ in 0..self.limits.connections_max {
            let (stream, peer) = match self.listener.accept() {
                Ok((stream, peer)) => (stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    tracing::warn!(%error, "admin server: cannot accept");
                    self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.connections.len() == self.limits.connections_max {
                self.connections.remove(0);
            }
            self.connections.push(Connection::new(stream, peer, self.limits.request_timeout));
        }
    }
}

#[cfg(test)]
mod tests;
