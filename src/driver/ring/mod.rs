//! The real driver: one `io_uring` per engine, plain descriptors, one-shot operations.
//!
//! ```text
//!   user_data   operation 3 | kind 2 | generation 19 | slot 22 | buffer 18
//! ```
//!
//! `user_data` carries the whole identity of an operation, so there is no table of
//! operations: the completion itself says whose it is and which buffer comes back.
//!
//! Memory that the kernel may write (pool, buffer ring, accept addresses) is owned by
//! [`RingDriver`] and outlives the ring.

mod address;
mod doorbell;
mod pool;
mod provided;
mod setup;

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use io_uring::types::{CancelBuilder, Fd, Napi, SubmitArgs, Timespec};
use io_uring::{
    CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue,
};

pub use doorbell::Doorbell;
pub use setup::{Capabilities, SetupError};

use super::memory::Pages;
use super::scheduling;
use super::{
    BUFFER_BYTES, Buffer, Completion, Driver, Errno, LARGE_BUFFER_BYTES, Outcome,
    RECEIVE_BYTES_MAX, Readiness, Socket, Token, Wait,
};
use crate::clock::Moment;
use crate::endpoint::{Endpoint, LocalAddress};
use crate::switch::Switch;
use address::KernelAddress;
use pool::Pool;
use provided::ProvidedRing;

/// Accepts in flight per listener: a turn's worth of new connections in one wake.
pub const ACCEPTS_IN_FLIGHT: usize = 16;

/// Submissions collected before a turn must hand them to the kernel.
const SUBMISSION_ENTRIES: u32 = 1024;

/// Kernel threads that a ring may use for what would block.
const IO_THREADS_MAX: u32 = 32;

/// No buffer belongs to the operation.
const BUFFER_NONE: u32 = (1 << 18) - 1;

/// Poll first, then receive: `IORING_RECVSEND_POLL_FIRST`, Linux 5.19; the crate does
/// not export it.
const RECVSEND_POLL_FIRST: u16 = 1;

/// The most buffers that `user_data` can name.
pub const BUFFERS_MAX: usize = BUFFER_NONE as usize;

/// What a driver needs from its engine's configuration.
#[derive(Debug)]
pub struct RingSettings {
    /// Buffers in the pool.
    pub buffers: usize,
    /// Large buffers beside them.
    pub large_buffers: usize,
    /// Connections that the engine may hold: two sockets each, and so the bound on
    /// operations in flight.
    pub connections_max: usize,
    /// Listening sockets; their order is the listener index.
    pub listeners: Vec<OwnedFd>,
    /// How others wake this engine.
    pub doorbell: Arc<Doorbell>,
    /// Whether a handshake worker has the same CPU.
    pub shares_its_cpu: bool,
    /// Whether the buffers lie on huge pages.
    pub huge_pages: Switch,
    /// For how long the kernel polls the network devices of this ring's sockets before
    /// it lets the engine sleep (`IORING_REGISTER_NAPI`, Linux 6.9). Zero: not at all.
    pub napi_busy_poll: Duration,
}

impl RingSettings {
    /// Bytes that the driver takes at start for these settings.
    pub fn memory_bytes(&self) -> usize {
        self.buffers * BUFFER_BYTES
            + self.large_buffers * LARGE_BUFFER_BYTES
            + completion_entries(self.connections_max) as usize * 16
    }
}

/// Completion queue entries so that everything in flight fits: per connection one
/// receive and one send on each of two sockets, a cancel and a close for each, and the
/// accepts. The kernel clamps it to its own maximum; overflow is counted.
fn completion_entries(connections_max: usize) -> u32 {
    let entries = connections_max.saturating_mul(4).saturating_add(1024).next_power_of_two();
    u32::try_from(entries).unwrap_or(u32::MAX).clamp(4096, 65_536)
}

/// One engine's door to the kernel.
pub struct RingDriver {
    submitter: Submitter<'static>,
    /// Never dropped: their `Drop` would publish into the ring's mappings, which are gone
    /// by then, and they own nothing.
    submission: ManuallyDrop<SubmissionQueue<'static>>,
    completion: ManuallyDrop<CompletionQueue<'static>>,
    /// What the three above borrow from.
    ring: ManuallyDrop<Box<UnsafeCell<IoUring>>>,
    /// Completions taken off the ring early, to make room while submitting.
    staged: VecDeque<cqueue::Entry>,
    pool: Pool,
    provided: ProvidedRing,
    listeners: Vec<Option<OwnedFd>>,
    accept_addresses: Box<[UnsafeCell<KernelAddress>]>,
    accept_addresses_free: Vec<u32>,
    /// Addresses of connects not yet submitted; the kernel copies them at submission.
    connect_addresses: Box<[UnsafeCell<KernelAddress>]>,
    connect_addresses_used: usize,
    doorbell: Arc<Doorbell>,
    shares_its_cpu: bool,
    capabilities: Capabilities,
    polls_devices: bool,
    enter_flags: EnterFlags,
    now: Moment,
    in_flight: usize,
    /// The driver's own operations among those in flight.
    in_flight_own: usize,
    overflows: u64,
}

impl RingDriver {
    /// Builds the ring and takes the memory. Must be called on the engine's own thread,
    /// after pinning: the ring accepts submissions from this thread only, and the pool's
    /// pages come from the memory next to this CPU.
    ///
    /// # Errors
    /// [`SetupError`], which says what to change.
    pub fn new(settings: RingSettings) -> Result<Self, SetupError> {
        assert!(
            settings.buffers + settings.large_buffers <= BUFFERS_MAX,
            "configuration bounds the buffers"
        );
        let (ring, capabilities) =
            setup::build(SUBMISSION_ENTRIES, completion_entries(settings.connections_max))?;
        let pool_error = |cause| SetupError::Resources {
            what: "cannot take the memory of the buffer pool",
            cause,
            remedy: "lower `engine.buffers` or `engine.max_connections`",
        };
        let pool = Pool::new(settings.buffers, settings.large_buffers, settings.huge_pages)
            .map_err(pool_error)?;
        let ring_error = |cause| SetupError::Resources {
            what: "cannot register the buffer ring",
            cause,
            remedy: "raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity)",
        };
        let provided = ProvidedRing::new(settings.buffers).map_err(ring_error)?;
        let accepts = settings.listeners.len() * ACCEPTS_IN_FLIGHT;
        let ring = Box::new(UnsafeCell::new(ring));
        // SAFETY: the box is never moved out of and is freed only in `drop`, after the
        // three parts that borrow from it; no other reference to the ring is made.
        let parts: &'static mut IoUring = unsafe { &mut *ring.get() };
        let mut enter_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if parts.params().is_feature_no_iowait() {
            // Or an idle engine shows as waiting for a disk (Linux 6.15).
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        let (mut submitter, submission, completion) = parts.split();
        // Only a connect to a full UNIX backlog ever waits in a kernel thread: without a
        // bound each such connect would have one. Refused only before Linux 5.15.
        let _ = submitter.register_iowq_max_workers(&mut [IO_THREADS_MAX; 2]);
        // Saves a descriptor look-up per enter (Linux 5.18); harmless if refused.
        let _ = submitter.register_ring_fd();
        let polls_devices = !settings.napi_busy_poll.is_zero()
            && poll_devices(&submitter, settings.napi_busy_poll).is_ok();
        let mut driver = Self {
            submitter,
            submission: ManuallyDrop::new(submission),
            completion: ManuallyDrop::new(completion),
            staged: VecDeque::new(),
            ring: ManuallyDrop::new(ring),
            pool,
            provided,
            listeners: settings.listeners.into_iter().map(Some).collect(),
            accept_addresses: (0..accepts).map(|_| UnsafeCell::default()).collect(),
            accept_addresses_free: (0..accepts as u32).rev().collect(),
            connect_addresses: (0..SUBMISSION_ENTRIES).map(|_| UnsafeCell::default()).collect(),
            connect_addresses_used: 0,
            doorbell: settings.doorbell,
            shares_its_cpu: settings.shares_its_cpu,
            capabilities,
            polls_devices,
            enter_flags,
            now: Moment::now(),
            in_flight: 0,
            in_flight_own: 0,
            overflows: 0,
        };
        driver.provided.register(&driver.submitter).map_err(ring_error)?;
        driver.provided.replenish(&mut driver.pool);
        driver.listen_to_doorbell();
        Ok(driver)
    }

    /// What this kernel offers.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What pages the buffers got.
    pub fn buffer_pages(&self) -> Pages {
        self.pool.pages()
    }

    /// Whether the kernel polls network devices before this engine sleeps.
    pub fn polls_devices(&self) -> bool {
        self.polls_devices
    }

    /// Polls the doorbell, once and for all: each ring is a completion. The counter is
    /// never read; it has room for centuries.
    fn listen_to_doorbell(&mut self) {
        let entry = opcode::PollAdd::new(Fd(self.doorbell.descriptor()), libc::POLLIN as u32)
            .multi(true)
            .build();
        self.push_own(entry, Operation::Doorbell);
    }

    fn push_own(&mut self, entry: squeue::Entry, operation: Operation) {
        self.in_flight_own += 1;
        let token = Token { kind: 0, slot: 0, generation: 0 };
        self.push(entry, operation, token, BUFFER_NONE);
    }

    fn push(&mut self, entry: squeue::Entry, operation: Operation, token: Token, buffer: u32) {
        let entry = entry.user_data(pack(operation, token, buffer));
        self.in_flight += 1;
        // SAFETY: every pointer in an entry is into memory that this driver owns and
        // keeps until the operation completes (pool buffers by their state, accept
        // addresses by the free list) or is submitted (connect addresses).
        while unsafe { self.submission.push(&entry) }.is_err() {
            // The queue is full: hand over what is in it and go on. Completions are set
            // aside, since the kernel takes nothing more while they do not fit.
            self.enter(0, None).expect("the kernel takes submissions, or the engine cannot go on");
            self.completion.sync();
            self.staged.extend(self.completion.by_ref());
        }
    }

    /// Submits what is queued and waits for `want` completions.
    fn enter(&mut self, want: u32, timeout: Option<&Timespec>) -> io::Result<()> {
        self.submission.sync();
        let submit = self.submission.len() as u32;
        if submit == 0 && want == 0 && !self.submission.taskrun() && !self.submission.cq_overflow()
        {
            // Nothing to hand over and nothing that the kernel has for us.
            return Ok(());
        }
        let mut arguments = SubmitArgs::new();
        if let Some(timeout) = timeout {
            arguments = arguments.timespec(timeout);
        }
        let flags = self.enter_flags;
        // SAFETY: EXT_ARG says that the argument is an io_uring_getevents_arg, which
        // `SubmitArgs` wraps; it and its timespec live across the call.
        let result = unsafe { self.submitter.enter(submit, want, flags.bits(), Some(&arguments)) };
        self.submission.sync();
        self.connect_addresses_used = 0;
        match result {
            Ok(_) => Ok(()),
            // ETIME: the wait ran out. EINTR: a signal. EBUSY: completions must be reaped
            // before more can be submitted. EAGAIN: the kernel is short of memory for a
            // request; what was not submitted stays queued. None is an error of ours.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn assert_within(&self, index: u32, range: &Range<usize>) {
        let length = self.pool.length_bytes(index);
        assert!(range.start < range.end && range.end <= length, "{range:?} of {length}");
    }

    fn outcome(
        &mut self,
        operation: Operation,
        place: u32,
        result: i32,
        flags: u32,
    ) -> Option<Outcome> {
        let more = cqueue::sock_nonempty(flags);
        let outcome = match operation {
            Operation::Accept => {
                let address = self.accept_addresses[place as usize].get();
                self.accept_addresses_free.push(place);
                // SAFETY: the accept completed, so the kernel is done with the place.
                let peer = unsafe { (*address).get() };
                Outcome::Accepted(count(result).map(|descriptor| (Socket(descriptor as i32), peer)))
            }
            Operation::Connect => Outcome::Connected(count(result).map(drop)),
            Operation::Receive => {
                let mut buffer = cqueue::buffer_select(flags).map(|identifier| {
                    let index = self.provided.taken(identifier);
                    self.pool.provided_was_filled(index)
                });
                let result = count(result);
                // At the end of the stream the kernel may hand over the buffer it had
                // picked; the contract is that only bytes come with one.
                if !matches!(result, Ok(1..)) {
                    if let Some(unused) = buffer.take() {
                        self.pool.release(unused);
                    }
                    if result == Err(Errno(libc::ENOBUFS)) && self.pool.free() > 0 {
                        self.provided.grow();
                    }
                }
                Outcome::Received { result, buffer, more }
            }
            Operation::ReceiveInto => Outcome::Received {
                result: count(result),
                buffer: Some(self.pool.returned(place)),
                more,
            },
            Operation::Send => {
                Outcome::Sent { result: count(result), buffer: self.pool.returned(place) }
            }
            Operation::Doorbell => {
                if !cqueue::more(flags) {
                    self.in_flight_own -= 1;
                    self.listen_to_doorbell();
                }
                return None;
            }
            Operation::Close | Operation::Cancel => {
                self.in_flight_own -= 1;
                return None;
            }
        };
        Some(outcome)
    }
}

impl Drop for RingDriver {
    /// Ends what is in flight before the memory goes: the engine has normally done so,
    /// and only the doorbell is left.
    fn drop(&mut self) {
        // A dropped driver takes no doorbell again: its read ends with the ring.
        const SETTLE_TURNS: usize = 100;
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        self.push_own(entry, Operation::Cancel);
        for _ in 0..SETTLE_TURNS {
            if self.enter(0, None).is_err() {
                break;
            }
            self.completion.sync();
            for entry in self.completion.by_ref() {
                if !cqueue::more(entry.flags()) {
                    self.in_flight -= 1;
                }
            }
            if self.in_flight == 0 {
                break;
            }
        }
        if self.in_flight > 0 {
            // The kernel may still write into it: better a leak than a stray write.
            self.pool.leak();
            mem::forget(mem::take(&mut self.accept_addresses));
        }
        // SAFETY: called once, here; the parts that borrow from the ring hold pointers
        // into its mappings, are not used again, and their `Drop` does not run.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}

/// Has the kernel poll the devices that the ring's sockets receive from; it finds out by
/// itself which these are. Refused before Linux 6.9 and without CONFIG_NET_RX_BUSY_POLL.
fn poll_devices(submitter: &Submitter<'_>, duration: Duration) -> io::Result<()> {
    let microseconds = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    // Preferred: where interrupts are deferred (gro_flush_timeout, napi_defer_hard_irqs)
    // they stay off between two polls.
    let mut napi = Napi::new().set_busy_poll_timeout(microseconds).set_prefer_busy_poll(true);
    submitter.register_napi(&mut napi)
}

/// What an operation is, as `user_data` carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Operation {
    Accept,
    Connect,
    Receive,
    ReceiveInto,
    Send,
    Doorbell,
    Close,
    Cancel,
}

impl Operation {
    const ALL: [Self; 8] = [
        Self::Accept,
        Self::Connect,
        Self::Receive,
        Self::ReceiveInto,
        Self::Send,
        Self::Doorbell,
        Self::Close,
        Self::Cancel,
    ];
}

fn pack(operation: Operation, token: Token, buffer: u32) -> u64 {
    debug_assert!(token.kind < Token::KIND_LIMIT && buffer <= BUFFER_NONE);
    debug_assert!(token.slot < Token::SLOT_LIMIT && token.generation < Token::GENERATION_LIMIT);
    (operation as u64) << 61
        | u64::from(token.kind) << 59
        | u64::from(token.generation) << 40
        | u64::from(token.slot) << 18
        | u64::from(buffer)
}

fn unpack(user_data: u64) -> (Operation, Token, u32) {
    let token = Token {
        kind: (user_data >> 59) as u8 & (Token::KIND_LIMIT - 1),
        generation: (user_data >> 40) as u32 & (Token::GENERATION_LIMIT - 1),
        slot: (user_data >> 18) as u32 & (Token::SLOT_LIMIT - 1),
    };
    (Operation::ALL[(user_data >> 61) as usize], token, user_data as u32 & BUFFER_NONE)
}

fn poll_first(readiness: Readiness) -> u16 {
    match readiness {
        Readiness::Likely => 0,
        Readiness::Unlikely => RECVSEND_POLL_FIRST,
    }
}

/// setsockopt(2) whose failure does not matter: the connection works without.
fn set_option<T>(descriptor: i32, level: i32, name: i32, value: &T) {
    // SAFETY: pointer and length are those of a live value.
    unsafe {
        libc::setsockopt(
            descriptor,
            level,
            name,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
}

/// The kernel's result convention: a count, or a negated error number.
fn count(result: i32) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno(-result))
}

impl Driver for RingDriver {
    fn now(&self) -> Moment {
        self.now
    }

    fn unix_time(&self) -> Duration {
        // A clock before 1970 is none.
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    fn accept(&mut self, listener: usize, token: Token) {
        let Some(listener) = self.listeners[listener].as_ref() else {
            panic!("accept on a closed listener: an engine error");
        };
        let place = self
            .accept_addresses_free
            .pop()
            .expect("the engine keeps at most ACCEPTS_IN_FLIGHT accepts per listener");
        let address = self.accept_addresses[place as usize].get();
        // SAFETY: the place was on the free list, so no operation in flight uses it.
        let (storage, length) = unsafe { (*address).reset_for_accept() };
        let entry = opcode::Accept::new(Fd(listener.as_raw_fd()), storage, length)
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.push(entry, Operation::Accept, token, place);
    }

    fn limit_queue(&mut self, listener: usize, connections: u32) {
        if let Some(listener) = self.listeners[listener].as_ref() {
            let backlog = libc::c_int::try_from(connections).unwrap_or(libc::c_int::MAX);
            // SAFETY: takes no pointers; the descriptor is open. A second listen(2) only
            // changes the backlog; it cannot fail on a socket that listens.
            unsafe { libc::listen(listener.as_raw_fd(), backlog) };
        }
    }

    fn stop_listening(&mut self, listener: usize) {
        if let Some(listener) = self.listeners[listener].as_ref() {
            // SAFETY: takes no pointers; the descriptor is open. A second listen(2) only
            // changes the backlog: with 0 the kernel drops new SYNs (their clients retry,
            // by then elsewhere or refused) once the queue is not empty.
            unsafe { libc::listen(listener.as_raw_fd(), 0) };
        }
    }

    fn cancel_accepts(&mut self, listener: usize) {
        if let Some(listener) = self.listeners[listener].as_ref() {
            let criteria = CancelBuilder::fd(Fd(listener.as_raw_fd())).all();
            let entry = opcode::AsyncCancel2::new(criteria).build();
            self.push_own(entry, Operation::Cancel);
        }
    }

    fn close_listener(&mut self, listener: usize) {
        self.listeners[listener] = None;
    }

    fn connect(
        &mut self,
        endpoint: &Endpoint,
        from: Option<LocalAddress>,
        token: Token,
    ) -> Result<Socket, Errno> {
        if self.connect_addresses_used == self.connect_addresses.len()
            && let Err(error) = self.enter(0, None)
        {
            return Err(Errno(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        let place = self.connect_addresses[self.connect_addresses_used].get();
        // SAFETY: places up to `connect_addresses_used` wait for submission; this one
        // does not, and no reference to it is kept.
        let (address, length, domain) = unsafe { (*place).set(endpoint) }.map_err(Errno)?;
        // SAFETY: socket takes no pointers; the result is checked.
        let descriptor = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if descriptor < 0 {
            return Err(Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)));
        }
        if domain != libc::AF_UNIX {
            set_option(descriptor, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1_i32);
        }
        if let Some(from) = from
            && let Err(error) = address::bind(descriptor, from)
        {
            self.close(Socket(descriptor));
            return Err(error);
        }
        self.connect_addresses_used += 1;
        let entry = opcode::Connect::new(Fd(descriptor), address, length).build();
        self.push(entry, Operation::Connect, token, BUFFER_NONE);
        Ok(Socket(descriptor))
    }

    fn receive(&mut self, socket: &Socket, length_max: usize, readiness: Readiness, token: Token) {
        let length = length_max.min(RECEIVE_BYTES_MAX) as u32;
        let entry = opcode::Recv::new(Fd(socket.0), std::ptr::null_mut(), length)
            .buf_group(provided::GROUP)
            .ioprio(poll_first(readiness))
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry, Operation::Receive, token, BUFFER_NONE);
    }

    fn receive_into(
        &mut self,
        socket: &Socket,
        buffer: Buffer,
        range: Range<usize>,
        readiness: Readiness,
        token: Token,
    ) {
        let index = self.pool.lend(buffer);
        self.assert_within(index, &range);
        let address = self.pool.address(index).wrapping_add(range.start);
        let entry = opcode::Recv::new(Fd(socket.0), address, range.len() as u32)
            .ioprio(poll_first(readiness))
            .build();
        self.push(entry, Operation::ReceiveInto, token, index);
    }

    fn send(&mut self, socket: &Socket, buffer: Buffer, range: Range<usize>, token: Token) {
        let index = self.pool.lend(buffer);
        self.assert_within(index, &range);
        let address = self.pool.address(index).wrapping_add(range.start);
        let entry = opcode::Send::new(Fd(socket.0), address, range.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(entry, Operation::Send, token, index);
    }

    fn cancel(&mut self, socket: &Socket) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(socket.0)).all()).build();
        self.push_own(entry, Operation::Cancel);
    }

    fn cancel_receive(&mut self, _socket: &Socket, token: Token) {
        // Found by its user_data in a hash table; by descriptor, the kernel walks over
        // everything that waits, which with many idle connections is long.
        let user_data = pack(Operation::Receive, token, BUFFER_NONE);
        let entry = opcode::AsyncCancel::new(user_data).build();
        self.push_own(entry, Operation::Cancel);
    }

    fn shutdown_write(&mut self, socket: &Socket) {
        // SAFETY: takes no pointers; the descriptor is open while the `Socket` lives.
        // shutdown(2) itself: the io_uring operation is always sent to a worker thread.
        unsafe { libc::shutdown(socket.0, libc::SHUT_WR) };
    }

    fn close(&mut self, socket: Socket) {
        let entry = opcode::Close::new(Fd(socket.0)).build();
        self.push_own(entry, Operation::Close);
    }

    fn reset(&mut self, socket: Socket) {
        // Zero linger turns the close into a reset (socket(7)).
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        set_option(socket.0, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
        self.close(socket);
    }

    fn local_address(&self, socket: &Socket) -> Result<SocketAddr, Errno> {
        address::local_address(socket.0)
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        self.pool.take()
    }

    fn take_large_buffer(&mut self) -> Option<Buffer> {
        self.pool.take_large()
    }

    fn release(&mut self, buffer: Buffer) {
        self.pool.release(buffer);
    }

    fn buffers_free(&self) -> usize {
        self.pool.free() + self.provided.provided()
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.pool.bytes(buffer)
    }

    fn bytes_mut(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.pool.bytes_mut(buffer)
    }

    fn copy_between(&mut self, from: &Buffer, range: Range<usize>, to: &Buffer, start: usize) {
        self.pool.copy_between(from, range, to, start);
    }

    fn set_urgent(&mut self, urgent: bool) {
        if self.shares_its_cpu {
            // Refused by a sandbox, if at all, and then already at the start, which was
            // logged: everything works without.
            let _ =
                if urgent { scheduling::preempt_others() } else { scheduling::preempt_nobody() };
        }
    }

    fn prepare_sleep(&mut self) {
        self.doorbell.announce_sleep();
    }

    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.provided.replenish(&mut self.pool);
        // Tells the kernel what was taken from the queue. To it those would still be
        // completions that the engine has not seen, and it would return at once.
        self.completion.sync();
        match wait {
            Wait::Never => self.enter(0, None)?,
            Wait::AtMost(duration) => {
                let timeout = Timespec::from(duration);
                self.enter(1, Some(&timeout))?;
            }
            Wait::Forever => self.enter(1, None)?,
        }
        self.doorbell.announce_awake();
        self.completion.sync();
        self.overflows = u64::from(self.completion.overflow());
        self.now = Moment::now();
        Ok(())
    }

    fn completion(&mut self) -> Option<Completion> {
        loop {
            let entry = self.staged.pop_front().or_else(|| self.completion.next())?;
            if !cqueue::more(entry.flags()) {
                self.in_flight -= 1;
            }
            let (operation, token, place) = unpack(entry.user_data());
            if let Some(outcome) = self.outcome(operation, place, entry.result(), entry.flags()) {
                return Some(Completion { token, outcome });
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight - self.in_flight_own
    }

    fn overflows(&self) -> u64 {
        self.overflows
    }
}

#[cfg(test)]
mod tests;
