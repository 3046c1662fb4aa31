//! The loop on io_uring: the fewest and cheapest operations that were found.
//!
//! ```text
//!   a slot   2·slot      client ─┐ direct descriptors: they are never in the process's
//!            2·slot + 1  server ─┘ table, and no look-up takes a reference
//! ```
//!
//! With `direct` off, the operations are those of forebay's driver: ordinary
//! descriptors, socket(2) and setsockopt(2) as system calls.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay::handshake::{StepOutcome, Task};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use super::session::{
    BUFFER_BYTES, BULK_RECORDS, Pieces, RECORD_PLAINTEXT_BYTES, Security, Session, Shaken,
};
use super::work::Work;
use super::{Listener, Settings};

/// Accepts in flight on each listener.
const ACCEPTS: usize = 16;
const ENTRIES: u32 = 4_096;
/// Poll first, then receive: `IORING_RECVSEND_POLL_FIRST`.
const POLL_FIRST: u16 = 1;
const IOVECS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Operation {
    Accept,
    ClientReceive,
    FlightSend,
    ClientSend,
    Connect,
    ServerReceive,
    ServerSend,
    /// Close, cancel, socket, option: reported only if they fail.
    Silent,
}

const OPERATIONS: [Operation; 8] = [
    Operation::Accept,
    Operation::ClientReceive,
    Operation::FlightSend,
    Operation::ClientSend,
    Operation::Connect,
    Operation::ServerReceive,
    Operation::ServerSend,
    Operation::Silent,
];

/// One slot: a connection and everything the kernel may hold a pointer to.
struct Connection {
    listener: usize,
    client: RawFd,
    server: RawFd,
    session: Session,
    task: Option<Box<Task>>,
    inbound: Vec<u8>,
    /// Ciphertext in `inbound`: `taken` bytes opened and under way, `held` in all.
    held: usize,
    taken: usize,
    pieces: Pieces,
    outbound: Vec<u8>,
    in_flight: u32,
    connected: bool,
    /// The client ended its side: close when what came before is sent.
    client_ended: bool,
    server_ended: bool,
    ending: bool,
    server_receiving: bool,
    client_receiving: bool,
    /// The last receive from the server was full: receive several records at once.
    bulk: bool,
    peer: libc::sockaddr_storage,
    peer_length: libc::socklen_t,
    send_vectors: Vec<libc::iovec>,
    send_message: libc::msghdr,
    receive_vectors: Vec<libc::iovec>,
    receive_message: libc::msghdr,
}

impl Connection {
    fn new() -> Self {
        // SAFETY: all-zero is a valid value of these C structures.
        let (peer, send_message, receive_message) = unsafe { mem::zeroed() };
        Self {
            listener: 0,
            client: -1,
            server: -1,
            session: Session::Plain,
            task: None,
            inbound: vec![0; BUFFER_BYTES],
            held: 0,
            taken: 0,
            pieces: Pieces::new(),
            outbound: vec![0; BUFFER_BYTES],
            in_flight: 0,
            connected: false,
            client_ended: false,
            server_ended: false,
            ending: false,
            server_receiving: false,
            client_receiving: false,
            bulk: false,
            peer,
            peer_length: 0,
            send_vectors: Vec::with_capacity(IOVECS),
            send_message,
            receive_vectors: Vec::with_capacity(IOVECS),
            receive_message,
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
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_no_sqarray()
        .setup_cqsize(ENTRIES * 4)
        .setup_clamp()
        .build(ENTRIES)?;
    if settings.direct {
        ring.submitter().register_files_sparse(settings.slots as u32 * 2)?;
    }
    let mut ring_loop = Loop {
        ring,
        settings,
        listeners,
        connections: (0..settings.slots).map(|_| Connection::new()).collect(),
        free: (0..settings.slots).rev().collect(),
        accepts: vec![0; listeners.len()],
        tasks: Vec::new(),
        work: Work::default(),
        backend: settings.backend.into(),
        one: 1,
    };
    ring_loop.ring.submitter().register_ring_fd()?;
    ring_loop.run(stop, report)
}

struct Loop<'a> {
    ring: IoUring,
    settings: &'a Settings,
    listeners: &'a [Listener],
    connections: Box<[Connection]>,
    free: Vec<usize>,
    accepts: Vec<usize>,
    // Boxes: what the kernel sends from must not move.
    #[allow(clippy::vec_box)]
    tasks: Vec<Box<Task>>,
    work: Work,
    backend: BackendAddress,
    /// The value of TCP_NODELAY; the kernel reads it when it submits.
    one: libc::c_int,
}

/// The server's address as the kernel wants it.
struct BackendAddress(libc::sockaddr_in);

impl From<SocketAddr> for BackendAddress {
    fn from(address: SocketAddr) -> Self {
        let SocketAddr::V4(address) = address else {
            panic!("the floor is measured over IPv4");
        };
        // SAFETY: all-zero is a valid sockaddr_in.
        let mut raw: libc::sockaddr_in = unsafe { mem::zeroed() };
        raw.sin_family = libc::AF_INET as libc::sa_family_t;
        raw.sin_port = address.port().to_be();
        raw.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
        Self(raw)
    }
}

/// Builds an entry for a socket, whichever kind of descriptor it has.
macro_rules! on_socket {
    ($direct:expr, $descriptor:expr, |$socket:ident| $entry:expr) => {
        if $direct {
            let $socket = Fixed($descriptor as u32);
            $entry
        } else {
            let $socket = Fd($descriptor);
            $entry
        }
    };
}

impl Loop<'_> {
    fn run(&mut self, stop: &AtomicBool, report: &mut dyn FnMut(Work)) -> io::Result<()> {
        let mut worked = false;
        loop {
            self.accept_more();
            let quiet = Timespec::from(self.settings.quiet);
            let mut arguments = SubmitArgs::new().timespec(&quiet);
            let want = self.settings.want;
            if want > 1 {
                arguments = arguments.min_wait_usec(MIN_WAIT.as_micros() as u32);
            }
            self.work.enters += 1;
            match self.ring.submitter().submit_with_args(want, &arguments) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::ETIME) => {
                        if mem::take(&mut worked) {
                            report(mem::take(&mut self.work));
                        }
                        if stop.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                    }
                    Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                    _ => return Err(error),
                },
            }
            loop {
                let Some(entry) = self.ring.completion().next() else { break };
                let operation = OPERATIONS[(entry.user_data() & 7) as usize];
                worked |= operation != Operation::Silent;
                self.complete(operation, (entry.user_data() >> 3) as usize, entry.result());
            }
        }
    }

    fn push(&mut self, entry: squeue::Entry, operation: Operation, slot: usize) {
        let mut entry = entry.user_data((slot as u64) << 3 | operation as u64);
        if operation == Operation::Silent {
            entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        } else {
            self.connections[slot].in_flight += 1;
        }
        // SAFETY: what the entry points to is in the slot's connection or in `self`,
        // neither of which moves or goes while the ring is there, and a slot is used
        // again only when nothing of it is in flight.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.work.enters += 1;
            self.ring.submit().expect("the kernel takes submissions");
        }
    }

    fn accept_more(&mut self) {
        for listener in 0..self.listeners.len() {
            while self.accepts[listener] < ACCEPTS
                && let Some(slot) = self.free.pop()
            {
                self.accepts[listener] += 1;
                let descriptor = Fd(self.listeners[listener].socket.as_raw_fd());
                let connection = &mut self.connections[slot];
                connection.listener = listener;
                connection.peer_length = size_of_val(&connection.peer) as libc::socklen_t;
                let entry = opcode::Accept::new(
                    descriptor,
                    (&raw mut connection.peer).cast(),
                    &raw mut connection.peer_length,
                );
                let entry = if self.settings.direct {
                    let place = DestinationSlot::try_from_slot_target(slot as u32 * 2);
                    entry.file_index(Some(place.expect("slots are few")))
                } else {
                    entry.flags(libc::SOCK_CLOEXEC)
                };
                self.push(entry.build(), Operation::Accept, slot);
            }
        }
    }

    fn complete(&mut self, operation: Operation, slot: usize, result: i32) {
        if operation == Operation::Silent {
            return;
        }
        let connection = &mut self.connections[slot];
        connection.in_flight -= 1;
        match operation {
            Operation::ClientReceive => connection.client_receiving = false,
            Operation::ServerReceive => connection.server_receiving = false,
            _ => {}
        }
        if connection.ending {
            if operation == Operation::FlightSend {
                self.give_back_task(slot);
            }
            self.end_if_settled(slot);
            return;
        }
        match operation {
            Operation::Accept => self.accepted(slot, result),
            Operation::ClientReceive if result <= 0 => self.client_ended(slot),
            Operation::ClientReceive => self.client_received(slot, result as usize),
            Operation::FlightSend => {
                if result < 0 {
                    self.end(slot);
                } else {
                    self.flight_sent(slot);
                }
            }
            Operation::Connect if result < 0 => self.end(slot),
            Operation::Connect => self.server_connected(slot),
            Operation::ServerReceive if result <= 0 => self.server_ended(slot),
            Operation::ServerReceive => self.server_received(slot, result as usize),
            Operation::ServerSend if result < 0 => self.end(slot),
            Operation::ServerSend => self.server_sent(slot),
            Operation::ClientSend if result < 0 => self.end(slot),
            Operation::ClientSend => self.client_sent(slot),
            Operation::Silent => {}
        }
    }

    fn accepted(&mut self, slot: usize, result: i32) {
        let listener = self.connections[slot].listener;
        self.accepts[listener] -= 1;
        if result < 0 {
            self.free.push(slot);
            return;
        }
        self.work.accepted += 1;
        let connection = &mut self.connections[slot];
        connection.client = if self.settings.direct { slot as RawFd * 2 } else { result };
        match &self.listeners[listener].security {
            Security::Plain => {
                connection.session = Session::Plain;
                self.connect(slot);
            }
            Security::Tls(config) => {
                let mut task = self.tasks.pop().unwrap_or_else(|| Box::new(Task::new(0, 0)));
                task.config = Some(config.clone());
                connection.task = Some(task);
            }
        }
        self.receive_from_client(slot, 0);
    }

    fn receive_from_client(&mut self, slot: usize, priority: u16) {
        let connection = &mut self.connections[slot];
        connection.client_receiving = true;
        let room = &mut connection.inbound[connection.held..];
        let (start, length) = (room.as_mut_ptr(), room.len() as u32);
        let entry = on_socket!(self.settings.direct, connection.client, |socket| {
            opcode::Recv::new(socket, start, length).ioprio(priority).build()
        });
        self.push(entry, Operation::ClientReceive, slot);
    }

    fn client_received(&mut self, slot: usize, length: usize) {
        let connection = &mut self.connections[slot];
        let Some(task) = connection.task.as_mut() else {
            connection.held += length;
            self.relay_up(slot);
            return;
        };
        if !matches!(task.outcome, StepOutcome::Pending | StepOutcome::NeedsInput) {
            // The ticket is not reported sent yet, and the client speaks already.
            connection.held += length;
            return;
        }
        let shaken = Session::shake(task, &connection.inbound[..length], &mut self.work.crypto);
        let (start, bytes) = (task.output.as_ptr(), task.output.len() as u32);
        match shaken {
            Shaken::Failed => {
                self.end(slot);
                return;
            }
            Shaken::NeedsInput => {}
            Shaken::Established => {
                self.work.established += 1;
                if let StepOutcome::Established(established) = mem::take(&mut task.outcome) {
                    connection.session = Session::Open(established);
                }
                connection.held = task.input.len();
                connection.inbound[..task.input.len()].copy_from_slice(&task.input);
            }
        }
        if bytes > 0 {
            let entry = on_socket!(self.settings.direct, self.connections[slot].client, |socket| {
                opcode::Send::new(socket, start, bytes)
                    .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                    .build()
            });
            self.push(entry, Operation::FlightSend, slot);
        }
        if matches!(shaken, Shaken::Established) {
            if bytes == 0 {
                self.give_back_task(slot);
            }
            self.connect(slot);
        }
        if self.connections[slot].held == 0 {
            self.receive_from_client(slot, POLL_FIRST);
        }
    }

    fn flight_sent(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if let Some(task) = connection.task.as_mut() {
            task.output.clear();
        }
        if matches!(connection.session, Session::Open(_)) {
            self.give_back_task(slot);
            if self.connections[slot].held > 0 {
                self.relay_up(slot);
            }
        }
    }

    fn give_back_task(&mut self, slot: usize) {
        if let Some(mut task) = self.connections[slot].task.take() {
            task.reset();
            self.tasks.push(task);
        }
    }

    fn connect(&mut self, slot: usize) {
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_NODELAY);
        let length = size_of_val(&self.one) as libc::socklen_t;
        let value: *const libc::c_int = &raw const self.one;
        if self.settings.direct {
            // Submitted in this order and none of them waits, so they need no links.
            let place = slot as u32 * 2 + 1;
            self.connections[slot].server = place as RawFd;
            let destination = DestinationSlot::try_from_slot_target(place);
            let entry = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0)
                .file_index(Some(destination.expect("slots are few")))
                .build();
            self.push(entry, Operation::Silent, slot);
            let entry = opcode::SetSockOpt::new(
                Fixed(place),
                level as u32,
                name as u32,
                value.cast(),
                length,
            )
            .build();
            self.push(entry, Operation::Silent, slot);
        } else {
            // SAFETY: socket takes no pointers; the option's value is alive.
            let descriptor = unsafe {
                let descriptor =
                    libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
                libc::setsockopt(descriptor, level, name, value.cast(), length);
                descriptor
            };
            assert!(descriptor >= 0, "no descriptors: {}", io::Error::last_os_error());
            self.connections[slot].server = descriptor;
        }
        let address: *const libc::sockaddr_in = &raw const self.backend.0;
        let entry = on_socket!(self.settings.direct, self.connections[slot].server, |socket| {
            let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            opcode::Connect::new(socket, address.cast(), length).build()
        });
        self.push(entry, Operation::Connect, slot);
    }

    fn server_connected(&mut self, slot: usize) {
        self.connections[slot].connected = true;
        self.receive_from_server(slot);
        if self.connections[slot].held > 0 {
            self.relay_up(slot);
        }
    }

    fn relay_up(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if !connection.connected || connection.task.is_some() || connection.taken > 0 {
            return;
        }
        let bytes = &mut connection.inbound[..connection.held];
        let (pieces, taken, ended) = connection.session.open(bytes, &mut self.work.crypto);
        connection.client_ended |= ended;
        connection.taken = taken;
        let length: usize = pieces.iter().map(ExactSizeIterator::len).sum();
        if length == 0 {
            connection.held -= mem::take(&mut connection.taken).min(connection.held);
            if connection.client_ended {
                self.client_ended(slot);
            } else if !connection.client_receiving {
                self.receive_from_client(slot, POLL_FIRST);
            }
            return;
        }
        connection.pieces = pieces;
        self.work.up_sends += 1;
        self.work.up_bytes += length as u64;
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let start = connection.inbound.as_ptr();
        let entry = if let [piece] = connection.pieces.as_slice() {
            let (start, length) = (start.wrapping_add(piece.start), piece.len() as u32);
            on_socket!(self.settings.direct, connection.server, |socket| {
                opcode::Send::new(socket, start, length).flags(flags).build()
            })
        } else {
            connection.send_vectors.clear();
            connection.send_vectors.extend(connection.pieces.iter().map(|piece| libc::iovec {
                iov_base: start.wrapping_add(piece.start).cast_mut().cast(),
                iov_len: piece.len(),
            }));
            connection.send_message.msg_iov = connection.send_vectors.as_mut_ptr();
            connection.send_message.msg_iovlen = connection.send_vectors.len();
            let message: *const libc::msghdr = &raw const connection.send_message;
            on_socket!(self.settings.direct, connection.server, |socket| {
                opcode::SendMsg::new(socket, message).flags(flags as u32).build()
            })
        };
        self.push(entry, Operation::ServerSend, slot);
    }

    fn server_sent(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let taken = mem::take(&mut connection.taken);
        connection.inbound.copy_within(taken..connection.held, 0);
        connection.held -= taken;
        if connection.held > 0 {
            self.relay_up(slot);
        } else if connection.client_ended {
            self.client_ended(slot);
        } else {
            self.receive_from_client(slot, POLL_FIRST);
        }
    }

    fn receive_from_server(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.server_receiving = true;
        let records = if connection.bulk { BULK_RECORDS } else { 1 };
        let places = connection.session.plaintext_places(records);
        let start = connection.outbound.as_mut_ptr();
        let entry = if let [place] = places.as_slice() {
            let (start, length) = (start.wrapping_add(place.start), place.len() as u32);
            on_socket!(self.settings.direct, connection.server, |socket| {
                opcode::Recv::new(socket, start, length).ioprio(POLL_FIRST).build()
            })
        } else {
            connection.receive_vectors.clear();
            connection.receive_vectors.extend(places.iter().map(|place| libc::iovec {
                iov_base: start.wrapping_add(place.start).cast(),
                iov_len: place.len(),
            }));
            connection.receive_message.msg_iov = connection.receive_vectors.as_mut_ptr();
            connection.receive_message.msg_iovlen = connection.receive_vectors.len();
            let message: *mut libc::msghdr = &raw mut connection.receive_message;
            on_socket!(self.settings.direct, connection.server, |socket| {
                opcode::RecvMsg::new(socket, message).ioprio(POLL_FIRST).build()
            })
        };
        self.push(entry, Operation::ServerReceive, slot);
    }

    fn server_received(&mut self, slot: usize, length: usize) {
        let connection = &mut self.connections[slot];
        connection.bulk = length >= RECORD_PLAINTEXT_BYTES;
        self.work.down_sends += 1;
        self.work.down_bytes += length as u64;
        let sealed =
            connection.session.seal(&mut connection.outbound, length, &mut self.work.crypto);
        self.send_to_client(slot, sealed);
    }

    fn send_to_client(&mut self, slot: usize, length: usize) {
        let connection = &self.connections[slot];
        let start = connection.outbound.as_ptr();
        let entry = on_socket!(self.settings.direct, connection.client, |socket| {
            opcode::Send::new(socket, start, length as u32)
                .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                .build()
        });
        self.push(entry, Operation::ClientSend, slot);
    }

    fn client_sent(&mut self, slot: usize) {
        if self.connections[slot].server_ended {
            self.end(slot);
        } else {
            self.receive_from_server(slot);
        }
    }

    /// The client's side is over, and what it sent before is sent on.
    fn client_ended(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.client_ended = true;
        if connection.taken == 0 {
            self.end(slot);
        }
    }

    fn server_ended(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.server_ended = true;
        match connection.session.close_notify(&mut connection.outbound) {
            0 => self.end(slot),
            length => self.send_to_client(slot, length),
        }
    }

    /// Closes both sockets; the slot is free when nothing of it is in flight any more.
    fn end(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.ending = true;
        let (client, server) = (connection.client, connection.server);
        let waits = [
            (connection.client_receiving, client),
            (connection.server_receiving || !connection.connected && server >= 0, server),
        ];
        let direct = self.settings.direct;
        for (_, descriptor) in waits.into_iter().filter(|(waits, _)| *waits) {
            let criteria = on_socket!(direct, descriptor, |socket| CancelBuilder::fd(socket));
            let entry = opcode::AsyncCancel2::new(criteria).build();
            self.push(entry, Operation::Silent, slot);
        }
        for descriptor in [client, server].into_iter().filter(|descriptor| *descriptor >= 0) {
            let entry = on_socket!(direct, descriptor, |socket| opcode::Close::new(socket).build());
            self.push(entry, Operation::Silent, slot);
        }
        self.end_if_settled(slot);
    }

    fn end_if_settled(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if connection.in_flight > 0 {
            return;
        }
        connection.client = -1;
        connection.server = -1;
        connection.session = Session::Plain;
        connection.held = 0;
        connection.taken = 0;
        connection.connected = false;
        connection.client_ended = false;
        connection.server_ended = false;
        connection.ending = false;
        connection.bulk = false;
        self.give_back_task(slot);
        self.free.push(slot);
    }
}

/// With `want` above 1: how long the kernel may wait for that many.
const MIN_WAIT: Duration = Duration::from_micros(50);
