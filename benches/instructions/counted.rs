//! What is counted and what is not: two functions by whose names callgrind turns its count
//! on and off, and a driver that is not counted.
//!
//! callgrind *toggles* on entry and exit of either, so they are entered only in turn.

use std::cell::Cell;
use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use forebay::clock::Moment;
use forebay::driver::simulator::Simulator;
use forebay::driver::{Buffer, Completion, Driver, Errno, Readiness, Socket, Token, Wait};
use forebay::endpoint::{Endpoint, LocalAddress};

thread_local!(static COUNTING: Cell<bool> = const { Cell::new(false) });

/// Does work that is counted.
pub(super) fn counted<R>(work: impl FnOnce() -> R) -> R {
    COUNTING.set(true);
    let result = toggle_counted(work);
    COUNTING.set(false);
    result
}

fn uncounted<R>(work: impl FnOnce() -> R) -> R {
    if COUNTING.get() { toggle_uncounted(work) } else { work() }
}

#[inline(never)]
fn toggle_counted<R>(work: impl FnOnce() -> R) -> R {
    // A call in tail position would be a jump, and callgrind see no exit.
    black_box(work())
}

#[inline(never)]
fn toggle_uncounted<R>(work: impl FnOnce() -> R) -> R {
    black_box(work())
}

/// The simulator, which is not counted.
pub(super) struct UncountedDriver(pub(super) Simulator);

impl Driver for UncountedDriver {
    fn now(&self) -> Moment {
        uncounted(|| self.0.now())
    }

    fn unix_time(&self) -> Duration {
        uncounted(|| self.0.unix_time())
    }

    fn accept(&mut self, listener: usize, token: Token) {
        uncounted(|| self.0.accept(listener, token));
    }

    fn limit_queue(&mut self, listener: usize, connections: u32) {
        uncounted(|| self.0.limit_queue(listener, connections));
    }

    fn stop_listening(&mut self, listener: usize) {
        uncounted(|| self.0.stop_listening(listener));
    }

    fn cancel_accepts(&mut self, listener: usize) {
        uncounted(|| self.0.cancel_accepts(listener));
    }

    fn close_listener(&mut self, listener: usize) {
        uncounted(|| self.0.close_listener(listener));
    }

    fn connect(
        &mut self,
        endpoint: &Endpoint,
        from: Option<LocalAddress>,
        token: Token,
    ) -> Result<Socket, Errno> {
        uncounted(|| self.0.connect(endpoint, from, token))
    }

    fn receive(&mut self, socket: &Socket, length_max: usize, readiness: Readiness, token: Token) {
        uncounted(|| self.0.receive(socket, length_max, readiness, token));
    }

    fn receive_into(
        &mut self,
        socket: &Socket,
        buffer: Buffer,
        range: Range<usize>,
        readiness: Readiness,
        token: Token,
    ) {
        uncounted(|| self.0.receive_into(socket, buffer, range, readiness, token));
    }

    fn send(&mut self, socket: &Socket, buffer: Buffer, range: Range<usize>, token: Token) {
        uncounted(|| self.0.send(socket, buffer, range, token));
    }

    fn cancel(&mut self, socket: &Socket) {
        uncounted(|| self.0.cancel(socket));
    }

    fn cancel_receive(&mut self, socket: &Socket, token: Token) {
        uncounted(|| self.0.cancel_receive(socket, token));
    }

    fn shutdown_write(&mut self, socket: &Socket) {
        uncounted(|| self.0.shutdown_write(socket));
    }

    fn close(&mut self, socket: Socket) {
        uncounted(|| self.0.close(socket));
    }

    fn reset(&mut self, socket: Socket) {
        uncounted(|| self.0.reset(socket));
    }

    fn local_address(&self, socket: &Socket) -> Result<SocketAddr, Errno> {
        uncounted(|| self.0.local_address(socket))
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        uncounted(|| self.0.take_buffer())
    }

    fn take_large_buffer(&mut self) -> Option<Buffer> {
        uncounted(|| self.0.take_large_buffer())
    }

    fn release(&mut self, buffer: Buffer) {
        uncounted(|| self.0.release(buffer));
    }

    fn buffers_free(&self) -> usize {
        uncounted(|| self.0.buffers_free())
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        uncounted(|| self.0.bytes(buffer))
    }

    fn bytes_mut(&mut self, buffer: &Buffer) -> &mut [u8] {
        uncounted(|| self.0.bytes_mut(buffer))
    }

    fn copy_between(&mut self, from: &Buffer, range: Range<usize>, to: &Buffer, start: usize) {
        uncounted(|| self.0.copy_between(from, range, to, start));
    }

    fn set_urgent(&mut self, urgent: bool) {
        uncounted(|| self.0.set_urgent(urgent));
    }

    fn prepare_sleep(&mut self) {
        uncounted(|| self.0.prepare_sleep());
    }

    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        uncounted(|| self.0.turn(wait))
    }

    fn completion(&mut self) -> Option<Completion> {
        uncounted(|| self.0.completion())
    }

    fn in_flight(&self) -> usize {
        uncounted(|| self.0.in_flight())
    }

    fn overflows(&self) -> u64 {
        uncounted(|| self.0.overflows())
    }
}
