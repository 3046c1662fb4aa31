//! The only door to the kernel: sockets, buffers, completions and the wait for them.
//!
//! [`Driver`] is what the engine is written against. `ring` is the real one, on
//! `io_uring`; `simulator` is a deterministic world for tests. Both keep the same
//! contract, so the engine has no test-only logic. `memory` is where buffers lie.
//!
//! May know: the kernel. Must not know: TLS, routing, configuration files.
//!
//! # Contract
//!
//! * Every operation started yields **exactly one** [`Completion`] with the token it
//!   was started with, cancelled or not.
//! * A [`Buffer`] handed to an operation belongs to the driver until that completion
//!   hands it back, so safe code cannot touch memory that the kernel may write.
//! * At most one receive and one send may be in flight per socket; the engine keeps
//!   to that, both drivers assert it in debug builds where they can.
//! * A socket is given to [`Driver::close`] or [`Driver::reset`] only when no
//!   operation on it is in flight; [`Driver::cancel`] is how operations in flight are
//!   brought to an end.

pub mod memory;
pub mod ring;
pub mod scheduling;
pub mod simulator;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use crate::clock::Moment;
use crate::endpoint::{Endpoint, LocalAddress};

/// Bytes of one pool buffer: headroom, one largest record, and room to split 16 KiB of
/// plaintext into records of one TCP segment each. A whole number of cache lines.
pub const BUFFER_BYTES: usize = 17 * 1024 + 64;

/// Bytes kept free in front of received data: a PROXY protocol header or a record
/// header is written there, so that it leaves in the same send without a copy.
pub const BUFFER_HEADROOM_BYTES: usize = 704;

/// The most bytes that a receive can place behind the headroom.
pub const RECEIVE_BYTES_MAX: usize = BUFFER_BYTES - BUFFER_HEADROOM_BYTES;

/// Bytes of plaintext that one receive into a large buffer may bring: four largest
/// records.
pub const LARGE_RECEIVE_BYTES: usize = 64 * 1024;

/// Bytes of one large buffer: headroom, four largest records, and room to split them into
/// records of one TCP segment each. A whole number of pages.
pub const LARGE_BUFFER_BYTES: usize = 68 * 1024;

/// A stream socket. Not `Clone`: whoever holds it closes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Socket(pub(in crate::driver) i32);

/// One pool buffer, owned. Dropping it would leak a pool place until the driver ends:
/// give it back with [`Driver::release`] or to an operation.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a buffer must be released or handed to an operation"]
pub struct Buffer(pub(in crate::driver) u32);

/// What an operation was started for. Comes back unchanged in its completion.
///
/// Packed with the buffer index into the 64 bits of `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The engine's own mark, below [`Token::KIND_LIMIT`].
    pub kind: u8,
    /// Slot of the connection (or number of the listener), below [`Token::SLOT_LIMIT`].
    pub slot: u32,
    /// Generation of the slot, below [`Token::GENERATION_LIMIT`].
    pub generation: u32,
}

impl Token {
    /// Kinds are two bits.
    pub const KIND_LIMIT: u8 = 1 << 2;
    /// Slots are 22 bits.
    pub const SLOT_LIMIT: u32 = 1 << 22;
    /// Generations are 19 bits.
    pub const GENERATION_LIMIT: u32 = 1 << 19;
}

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl fmt::Debug for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Errno({}: {self})", self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&io::Error::from_raw_os_error(self.0), formatter)
    }
}

/// How an operation ended.
#[derive(Debug)]
pub struct Completion {
    /// The token that the operation was started with.
    pub token: Token,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an operation.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Driver::accept`]: a connected socket and its peer.
    Accepted(Result<(Socket, SocketAddr), Errno>),
    /// Of [`Driver::connect`].
    Connected(Result<(), Errno>),
    /// Of [`Driver::receive`] and [`Driver::receive_into`].
    Received {
        /// Bytes received; 0 is the end of the stream.
        result: Result<usize, Errno>,
        /// The buffer: present whenever bytes were received, and always for
        /// `receive_into`. For `receive` the bytes start at [`BUFFER_HEADROOM_BYTES`].
        buffer: Option<Buffer>,
        /// The socket is known to hold more bytes: ask again without polling first.
        more: bool,
    },
    /// Of [`Driver::send`]: bytes sent (may be fewer than asked) and the buffer.
    Sent {
        /// Bytes that the kernel took.
        result: Result<usize, Errno>,
        /// The buffer that was sent from.
        buffer: Buffer,
    },
}

/// Whether a receive should try at once or wait for readiness first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Data is probably there: try at once.
    Likely,
    /// Probably nothing there yet: poll first (saves a futile attempt).
    Unlikely,
}

/// How long [`Driver::turn`] may wait for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Submit and collect, do not sleep: local work remains.
    Never,
    /// Sleep until a completion or a wake, at most this long.
    AtMost(Duration),
    /// Sleep until a completion or a wake.
    Forever,
}

/// The kernel as an engine sees it. See the module's head for the contract.
pub trait Driver {
    /// The time of this turn; read once a turn.
    fn now(&self) -> Moment;

    /// The time since 1970 (UTC), read anew.
    fn unix_time(&self) -> Duration;

    /// Accepts one connection on the listener of that index.
    fn accept(&mut self, listener: usize, token: Token);

    /// From now on no connection is let into the listener's queue while so many are in it;
    /// who is not let in tries again later. Not after [`Driver::stop_listening`].
    fn limit_queue(&mut self, listener: usize, connections: u32);

    /// Lets no further connection into the listener's queue; those in it can still be
    /// accepted.
    fn stop_listening(&mut self, listener: usize);

    /// Asks every accept in flight on the listener to end; each still completes.
    fn cancel_accepts(&mut self, listener: usize);

    /// Closes the listener: connections that wait in its queue are refused. Only when
    /// no accept on it is in flight.
    fn close_listener(&mut self, listener: usize);

    /// Opens a socket towards `endpoint` and starts connecting it, from the address `from`
    /// unless that is for the kernel to choose. `from` is of the family of the endpoint.
    ///
    /// # Errors
    /// The socket cannot be made (descriptor limit, family not supported), or have the
    /// address (`EADDRNOTAVAIL`: it is none of this machine's; `EPERM`: a foreign one needs
    /// CAP_NET_ADMIN). With `EADDRNOTAVAIL` a connect may also complete: no port is left.
    fn connect(
        &mut self,
        endpoint: &Endpoint,
        from: Option<LocalAddress>,
        token: Token,
    ) -> Result<Socket, Errno>;

    /// Receives up to `length_max` bytes (at most [`RECEIVE_BYTES_MAX`]) into a pool
    /// buffer that is taken only when data arrives. Fails with `ENOBUFS` if the pool
    /// is empty at that moment.
    fn receive(&mut self, socket: &Socket, length_max: usize, readiness: Readiness, token: Token);

    /// Receives into `range` of an owned buffer: the rest of a partial record.
    fn receive_into(
        &mut self,
        socket: &Socket,
        buffer: Buffer,
        range: Range<usize>,
        readiness: Readiness,
        token: Token,
    );

    /// Sends `range` of an owned buffer. Completes when all of it is taken, or with
    /// fewer bytes on error or shutdown after partial progress.
    fn send(&mut self, socket: &Socket, buffer: Buffer, range: Range<usize>, token: Token);

    /// Asks every operation in flight on the socket to end; each still completes,
    /// either as it would have or with `ECANCELED`. Sends no packet: unlike a shutdown
    /// this lets a connection be reset without a clean end being seen first.
    ///
    /// Looks at every operation of the driver: for a single receive,
    /// [`Driver::cancel_receive`] is cheaper.
    fn cancel(&mut self, socket: &Socket);

    /// As [`Driver::cancel`], when a [`Driver::receive`] with `token` is all that is in
    /// flight on the socket.
    fn cancel_receive(&mut self, socket: &Socket, token: Token);

    /// No more sends: the peer reads the end of the stream. Errors do not matter to the
    /// caller (the peer may have reset already).
    fn shutdown_write(&mut self, socket: &Socket);

    /// Closes the socket in order.
    fn close(&mut self, socket: Socket);

    /// Closes the socket so that the peer sees a reset, never a clean end.
    fn reset(&mut self, socket: Socket);

    /// The address that the client connected to.
    ///
    /// # Errors
    /// The kernel's, from getsockname(2).
    fn local_address(&self, socket: &Socket) -> Result<SocketAddr, Errno>;

    /// Takes a buffer from the pool; `None` when it is empty.
    fn take_buffer(&mut self) -> Option<Buffer>;

    /// Takes a large buffer, for a stream that fills small ones; `None` when all are in
    /// use. There are few of them: who gets none goes on with small ones.
    fn take_large_buffer(&mut self) -> Option<Buffer>;

    /// Gives a buffer back to the pool.
    fn release(&mut self, buffer: Buffer);

    /// Buffers now free in the pool, not counting large ones.
    fn buffers_free(&self) -> usize;

    /// All bytes of an owned buffer: [`BUFFER_BYTES`], or [`LARGE_BUFFER_BYTES`].
    fn bytes(&self, buffer: &Buffer) -> &[u8];

    /// All bytes of an owned buffer: [`BUFFER_BYTES`], or [`LARGE_BUFFER_BYTES`].
    fn bytes_mut(&mut self, buffer: &Buffer) -> &mut [u8];

    /// Copies `range` of one owned buffer to `start` in another.
    fn copy_between(&mut self, from: &Buffer, range: Range<usize>, to: &Buffer, start: usize);

    /// Says whether established connections are being served, so that an engine that
    /// shares its CPU with a handshake worker must have it as soon as anything happens.
    /// Otherwise it may wait until the worker gives it, which takes fewer switches.
    fn set_urgent(&mut self, urgent: bool);

    /// The engine is about to look for work one last time before it sleeps: from now
    /// on whoever hands it work must wake it. [`Driver::turn`] ends that.
    fn prepare_sleep(&mut self);

    /// Submits what was started and waits for completions.
    ///
    /// # Errors
    /// Only what makes the engine unable to go on.
    fn turn(&mut self, wait: Wait) -> io::Result<()>;

    /// The next completion that has arrived.
    fn completion(&mut self) -> Option<Completion>;

    /// Operations started whose completion was not yet handed out.
    fn in_flight(&self) -> usize;

    /// Completions that did not fit the kernel's queue and took its slow path.
    fn overflows(&self) -> u64;
}
