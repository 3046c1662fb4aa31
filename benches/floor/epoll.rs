//! The loop on epoll, edge-triggered: one registration for each socket, and a receive
//! only for what was announced.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use forebay::handshake::{StepOutcome, Task};

use super::session::{BUFFER_BYTES, BULK_RECORDS, Pieces, RECORD_PLAINTEXT_BYTES, Security};
use super::session::{Session, Shaken};
use super::work::Work;
use super::{Listener, Settings};

/// Events taken in one turn.
const EVENTS: usize = 256;
/// Connections accepted for one event of a listener, so that the others are not kept
/// waiting; the listener is level-triggered.
const ACCEPTS: usize = 16;

const CLIENT: u64 = 0;
const SERVER: u64 = 1;
const LISTENER: u64 = 2;

struct Connection {
    client: RawFd,
    server: RawFd,
    session: Session,
    task: Option<Box<Task>>,
    inbound: Vec<u8>,
    held: usize,
    taken: usize,
    pieces: Pieces,
    outbound: Vec<u8>,
    /// Ciphertext in `outbound` that the client has not taken.
    unsent: std::ops::Range<usize>,
    connected: bool,
    client_ended: bool,
    server_ended: bool,
    /// An event said that there is more to receive.
    client_readable: bool,
    server_readable: bool,
    bulk: bool,
}

impl Connection {
    fn new() -> Self {
        Self {
            client: -1,
            server: -1,
            session: Session::Plain,
            task: None,
            inbound: vec![0; BUFFER_BYTES],
            held: 0,
            taken: 0,
            pieces: Pieces::new(),
            outbound: vec![0; BUFFER_BYTES],
            unsent: 0..0,
            connected: false,
            client_ended: false,
            server_ended: false,
            client_readable: false,
            server_readable: false,
            bulk: false,
        }
    }
}

/// Runs the loop until it is quiet after `stop`; gives every report to `report`.
pub(super) fn run(
    settings: &Settings,
    listeners: &[Listener],
    stop: &AtomicBool,
    report: &mut dyn FnMut(Work),
) -> io::Result<()> {
    let mut epoll_loop = Loop {
        // SAFETY: takes no pointers.
        epoll: check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?,
        settings,
        listeners,
        connections: (0..settings.slots).map(|_| Connection::new()).collect(),
        free: (0..settings.slots).rev().collect(),
        tasks: Vec::new(),
        work: Work::default(),
    };
    for (index, listener) in listeners.iter().enumerate() {
        listener.socket.set_nonblocking(true)?;
        let data = (index as u64) << 2 | LISTENER;
        epoll_loop.register(listener.socket.as_raw_fd(), libc::EPOLLIN as u32, data)?;
    }
    epoll_loop.run(stop, report)
}

struct Loop<'a> {
    epoll: RawFd,
    settings: &'a Settings,
    listeners: &'a [Listener],
    connections: Box<[Connection]>,
    free: Vec<usize>,
    // Boxes: a task goes in and out of its connection.
    #[allow(clippy::vec_box)]
    tasks: Vec<Box<Task>>,
    work: Work,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_length(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

impl Drop for Loop<'_> {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this loop's own.
        unsafe { libc::close(self.epoll) };
    }
}

impl Loop<'_> {
    fn register(&self, descriptor: RawFd, events: u32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: data };
        // SAFETY: the event is alive across the call.
        check(unsafe {
            libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_ADD, descriptor, &raw mut event)
        })?;
        Ok(())
    }

    fn run(&mut self, stop: &AtomicBool, report: &mut dyn FnMut(Work)) -> io::Result<()> {
        let mut worked = false;
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            self.work.enters += 1;
            // SAFETY: the array has room for that many events.
            let count = unsafe {
                libc::epoll_wait(
                    self.epoll,
                    events.as_mut_ptr(),
                    EVENTS as i32,
                    self.settings.quiet.as_millis() as i32,
                )
            };
            if count == 0 {
                if mem::take(&mut worked) {
                    report(mem::take(&mut self.work));
                }
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            for event in events.iter().take(usize::try_from(count).unwrap_or(0)) {
                worked = true;
                let (flags, data) = (event.events, event.u64);
                let place = (data >> 2) as usize;
                match data & 3 {
                    LISTENER => self.accept(place)?,
                    side => self.ready(place, side, flags),
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        for _ in 0..ACCEPTS {
            let Some(slot) = self.free.pop() else { return Ok(()) };
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let listening = self.listeners[listener].socket.as_raw_fd();
            // The peer's address is asked for: a PROXY header needs it.
            // SAFETY: all-zero is a valid sockaddr_storage; it and its length are alive.
            let descriptor = unsafe {
                let mut peer: libc::sockaddr_storage = mem::zeroed();
                let mut length = size_of_val(&peer) as libc::socklen_t;
                libc::accept4(listening, (&raw mut peer).cast(), &raw mut length, flags)
            };
            if descriptor < 0 {
                self.free.push(slot);
                return Ok(());
            }
            self.work.accepted += 1;
            let connection = &mut self.connections[slot];
            connection.client = descriptor;
            let security = &self.listeners[listener].security;
            match security {
                Security::Plain => connection.session = Session::Plain,
                Security::Tls(config) => {
                    let mut task = self.tasks.pop().unwrap_or_else(|| Box::new(Task::new(0, 0)));
                    task.config = Some(config.clone());
                    connection.task = Some(task);
                }
            }
            let plain = matches!(security, Security::Plain);
            self.watch(descriptor, slot, CLIENT)?;
            if plain {
                self.connect(slot);
            }
        }
        Ok(())
    }

    fn watch(&self, descriptor: RawFd, slot: usize, side: u64) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        self.register(descriptor, events as u32, (slot as u64) << 2 | side)
    }

    fn ready(&mut self, slot: usize, side: u64, flags: u32) {
        // An event of a connection that ended in this same turn finds an empty slot, or
        // the next connection, for which it is one receive in vain.
        let readable = flags
            & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32
            != 0;
        let writable = flags & libc::EPOLLOUT as u32 != 0;
        let connection = &mut self.connections[slot];
        if side == CLIENT && connection.client >= 0 {
            connection.client_readable |= readable;
            if writable && !connection.unsent.is_empty() {
                self.flush_down(slot);
                self.relay_from_server(slot);
            }
            self.relay_from_client(slot);
        } else if side == SERVER && connection.server >= 0 {
            if flags & libc::EPOLLERR as u32 != 0 {
                self.end(slot);
                return;
            }
            connection.server_readable |= readable;
            if writable {
                connection.connected = true;
                self.relay_up(slot);
                self.relay_from_client(slot);
            }
            self.relay_from_server(slot);
        }
    }

    /// Receives from the client while there may be something and the last is sent on.
    fn relay_from_client(&mut self, slot: usize) {
        loop {
            let connection = &mut self.connections[slot];
            // Nothing more is received while the server has not taken the last.
            let held_back = connection.taken > 0 || connection.held > 0 && !connection.connected;
            if connection.client < 0 || !connection.client_readable || held_back {
                return;
            }
            let room = &mut connection.inbound[connection.held..];
            let length = match receive(connection.client, room) {
                Ok(length @ 1..) => length,
                Ok(_) => {
                    connection.client_readable = false;
                    connection.client_ended = true;
                    self.end(slot);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.client_readable = false;
                    return;
                }
                Err(_) => {
                    self.end(slot);
                    return;
                }
            };
            if length < room.len() {
                connection.client_readable = false;
            }
            if connection.task.is_some() {
                self.shake(slot, length);
            } else {
                connection.held += length;
                self.relay_up(slot);
            }
        }
    }

    fn shake(&mut self, slot: usize, length: usize) {
        let connection = &mut self.connections[slot];
        let Some(mut task) = connection.task.take() else { return };
        let received = &connection.inbound[..length];
        let shaken = Session::shake(&mut task, received, &mut self.work.crypto);
        if !task.output.is_empty() {
            // A flight fits into an empty socket buffer.
            let sent = send(connection.client, &task.output);
            if !sent.is_ok_and(|sent| sent == task.output.len()) {
                self.end(slot);
                return;
            }
        }
        match shaken {
            Shaken::Failed => self.end(slot),
            Shaken::NeedsInput => {
                task.output.clear();
                connection.task = Some(task);
            }
            Shaken::Established => {
                self.work.established += 1;
                if let StepOutcome::Established(established) = mem::take(&mut task.outcome) {
                    connection.session = Session::Open(established);
                }
                connection.held = task.input.len();
                connection.inbound[..task.input.len()].copy_from_slice(&task.input);
                task.reset();
                self.tasks.push(task);
                self.connect(slot);
            }
        }
    }

    fn connect(&mut self, slot: usize) {
        let SocketAddr::V4(address) = self.settings.backend else {
            panic!("the floor is measured over IPv4");
        };
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: every pointer is to a live value of the length given; an all-zero
        // sockaddr_in is valid.
        let descriptor = unsafe {
            let descriptor = libc::socket(libc::AF_INET, kind, 0);
            let one: libc::c_int = 1;
            let length = size_of_val(&one) as libc::socklen_t;
            let value = (&raw const one).cast();
            libc::setsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_NODELAY, value, length);
            let mut raw: libc::sockaddr_in = mem::zeroed();
            raw.sin_family = libc::AF_INET as libc::sa_family_t;
            raw.sin_port = address.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
            let length = size_of_val(&raw) as libc::socklen_t;
            libc::connect(descriptor, (&raw const raw).cast(), length);
            descriptor
        };
        assert!(descriptor >= 0, "no descriptors: {}", io::Error::last_os_error());
        self.connections[slot].server = descriptor;
        if self.watch(descriptor, slot, SERVER).is_err() {
            self.end(slot);
        }
    }

    /// Opens what came from the client and sends it on, as far as the server takes it.
    fn relay_up(&mut self, slot: usize) {
        loop {
            let connection = &mut self.connections[slot];
            if connection.server < 0 || !connection.connected {
                return;
            }
            if connection.taken == 0 {
                let bytes = &mut connection.inbound[..connection.held];
                let (pieces, taken, ended) = connection.session.open(bytes, &mut self.work.crypto);
                connection.client_ended |= ended;
                connection.taken = taken;
                connection.pieces = pieces;
                let length: usize = connection.pieces.iter().map(ExactSizeIterator::len).sum();
                self.work.up_sends += u64::from(length > 0);
                self.work.up_bytes += length as u64;
                if taken == 0 {
                    return;
                }
            }
            connection.pieces.retain(|piece| piece.start < piece.end);
            if connection.pieces.is_empty() {
                let taken = mem::take(&mut connection.taken);
                connection.inbound.copy_within(taken..connection.held, 0);
                connection.held -= taken;
                if connection.client_ended {
                    self.end(slot);
                    return;
                }
                if connection.held == 0 {
                    return;
                }
                continue;
            }
            match send_pieces(connection.server, &connection.inbound, &mut connection.pieces) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.end(slot);
                    return;
                }
            }
        }
    }

    fn relay_from_server(&mut self, slot: usize) {
        loop {
            let connection = &mut self.connections[slot];
            if connection.server < 0 || !connection.server_readable || !connection.unsent.is_empty()
            {
                return;
            }
            let records = if connection.bulk { BULK_RECORDS } else { 1 };
            let places = connection.session.plaintext_places(records);
            let room: usize = places.iter().map(ExactSizeIterator::len).sum();
            let length = match receive_pieces(connection.server, &mut connection.outbound, &places)
            {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.server_readable = false;
                    return;
                }
                Err(_) => {
                    self.end(slot);
                    return;
                }
            };
            if length < room {
                connection.server_readable = false;
            }
            connection.bulk = length >= RECORD_PLAINTEXT_BYTES;
            if length == 0 {
                connection.server_ended = true;
                let notified = connection.session.close_notify(&mut connection.outbound);
                connection.unsent = 0..notified;
            } else {
                self.work.down_sends += 1;
                self.work.down_bytes += length as u64;
                let sealed = connection.session.seal(
                    &mut connection.outbound,
                    length,
                    &mut self.work.crypto,
                );
                connection.unsent = 0..sealed;
            }
            self.flush_down(slot);
        }
    }

    fn flush_down(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        while !connection.unsent.is_empty() {
            let unsent = connection.unsent.clone();
            match send(connection.client, &connection.outbound[unsent]) {
                Ok(sent) => connection.unsent.start += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.end(slot);
                    return;
                }
            }
        }
        if connection.server_ended {
            self.end(slot);
        }
    }

    fn end(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if connection.client < 0 {
            return;
        }
        // Closing takes them out of the epoll set.
        for descriptor in [connection.client, connection.server] {
            if descriptor >= 0 {
                // SAFETY: the descriptor is this connection's, and is forgotten below.
                unsafe { libc::close(descriptor) };
            }
        }
        connection.client = -1;
        connection.server = -1;
        connection.session = Session::Plain;
        connection.held = 0;
        connection.taken = 0;
        connection.pieces.clear();
        connection.unsent = 0..0;
        connection.connected = false;
        connection.client_ended = false;
        connection.server_ended = false;
        connection.client_readable = false;
        connection.server_readable = false;
        connection.bulk = false;
        if let Some(mut task) = connection.task.take() {
            task.reset();
            self.tasks.push(task);
        }
        self.free.push(slot);
    }
}

fn receive(descriptor: RawFd, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of the slice.
    check_length(unsafe { libc::recv(descriptor, room.as_mut_ptr().cast(), room.len(), 0) })
}

fn send(descriptor: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length are those of the slice.
    check_length(unsafe { libc::send(descriptor, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Receives into ranges of a buffer.
fn receive_pieces(
    descriptor: RawFd,
    buffer: &mut [u8],
    places: &[std::ops::Range<usize>],
) -> io::Result<usize> {
    if let [place] = places {
        return receive(descriptor, &mut buffer[place.clone()]);
    }
    let vectors: arrayvec::ArrayVec<_, BULK_RECORDS> = places
        .iter()
        .map(|place| libc::iovec {
            iov_base: buffer[place.clone()].as_mut_ptr().cast(),
            iov_len: place.len(),
        })
        .collect();
    // SAFETY: every vector is a range of the buffer, which is borrowed mutably.
    check_length(unsafe { libc::readv(descriptor, vectors.as_ptr(), vectors.len() as i32) })
}

/// Sends ranges of a buffer; those that were sent are taken off.
fn send_pieces(descriptor: RawFd, buffer: &[u8], pieces: &mut Pieces) -> io::Result<()> {
    let mut sent = if let [piece] = pieces.as_slice() {
        send(descriptor, &buffer[piece.clone()])?
    } else {
        let mut vectors: arrayvec::ArrayVec<_, 16> = pieces
            .iter()
            .map(|piece| libc::iovec {
                iov_base: buffer[piece.clone()].as_ptr().cast_mut().cast(),
                iov_len: piece.len(),
            })
            .collect();
        // SAFETY: an all-zero msghdr is valid; the vectors are ranges of the buffer, and
        // sendmsg only reads them.
        check_length(unsafe {
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_iov = vectors.as_mut_ptr();
            message.msg_iovlen = vectors.len();
            libc::sendmsg(descriptor, &raw const message, libc::MSG_NOSIGNAL)
        })?
    };
    for piece in pieces {
        let taken = sent.min(piece.len());
        piece.start += taken;
        sent -= taken;
    }
    Ok(())
}
