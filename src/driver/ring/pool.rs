//! The buffer memory of one engine: one mapping, taken at start, carved into buffers.
//!
//! ```text
//!   mapping   | large 0 | … | buffer 0 | buffer 1 | …     68 KiB and 17 KiB each
//!   a buffer  | headroom 704 | received bytes …      |
//!   state     Free ─▶ Owned ─▶ Kernel ─▶ Owned ─▶ Free
//!             Free ─▶ Provided (in the kernel's buffer ring) ─▶ Owned
//! ```
//!
//! Every buffer, and what a receive places behind the headroom, begins on a cache line:
//! no line belongs to two buffers, and the kernel copies into whole lines. Large buffers
//! lie in front, so that they begin on a page as well: where their length is moved in
//! one go, it touches no page more than it must.
//!
//! The state table is what makes the safe interface sound: bytes can be looked at only
//! while a buffer is `Owned`, whatever handle the caller holds.

use std::io;
use std::ops::Range;
use std::slice;

use super::super::memory::{Mapping, Pages};
use super::super::{BUFFER_BYTES, BUFFER_HEADROOM_BYTES, Buffer, LARGE_BUFFER_BYTES};
use crate::switch::Switch;

/// Of all processors that run forebay.
const CACHE_LINE_BYTES: usize = 64;

/// The smallest there are.
const PAGE_BYTES: usize = 4096;

/// What the module's head says of cache lines and pages.
const _: () = {
    assert!(BUFFER_BYTES.is_multiple_of(CACHE_LINE_BYTES));
    assert!(BUFFER_HEADROOM_BYTES.is_multiple_of(CACHE_LINE_BYTES));
    assert!(LARGE_BUFFER_BYTES.is_multiple_of(PAGE_BYTES));
};

/// Who may touch a buffer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Nobody: on the free list.
    Free,
    /// The kernel, for whichever receive gets data next.
    Provided,
    /// The kernel, for one operation in flight.
    Kernel,
    /// The engine.
    Owned,
}

/// All buffers of one engine.
#[derive(Debug)]
pub(super) struct Pool {
    mapping: Mapping,
    /// By the buffer's number: small ones, then large ones.
    states: Box<[State]>,
    /// Number of small buffers.
    small: u32,
    /// Where they begin in the mapping.
    small_offset_bytes: usize,
    /// Last released, first taken: that buffer's lines are still in the cache.
    free: Vec<u32>,
    free_large: Vec<u32>,
}

impl Pool {
    /// Maps and touches the memory of `small` and `large` buffers, on `huge` pages.
    pub(super) fn new(small: usize, large: usize, huge: Switch) -> io::Result<Self> {
        let too_much = || io::Error::from(io::ErrorKind::OutOfMemory);
        let small_offset_bytes = large.checked_mul(LARGE_BUFFER_BYTES).ok_or_else(too_much)?;
        let length_bytes = small
            .checked_mul(BUFFER_BYTES)
            .and_then(|bytes| bytes.checked_add(small_offset_bytes))
            .ok_or_else(too_much)?;
        let count = small + large;
        let end = u32::try_from(count).map_err(|_| too_much())?;
        let small = u32::try_from(small).map_err(|_| too_much())?;
        Ok(Self {
            mapping: Mapping::with_pages(length_bytes, huge)?,
            states: vec![State::Free; count].into_boxed_slice(),
            small,
            small_offset_bytes,
            // Reversed, so that the lowest buffers are the ones used on a quiet machine.
            free: (0..small).rev().collect(),
            free_large: (small..end).rev().collect(),
        })
    }

    /// A free buffer for the engine.
    pub(super) fn take(&mut self) -> Option<Buffer> {
        let index = self.free.pop()?;
        self.change(index, State::Free, State::Owned);
        Some(Buffer(index))
    }

    /// A free large buffer for the engine.
    pub(super) fn take_large(&mut self) -> Option<Buffer> {
        let index = self.free_large.pop()?;
        self.change(index, State::Free, State::Owned);
        Some(Buffer(index))
    }

    /// Back to its free list.
    pub(super) fn release(&mut self, buffer: Buffer) {
        self.change(buffer.0, State::Owned, State::Free);
        let list = if buffer.0 < self.small { &mut self.free } else { &mut self.free_large };
        list.push(buffer.0);
    }

    /// A free buffer for the kernel's buffer ring.
    pub(super) fn provide(&mut self) -> Option<u32> {
        let index = self.free.pop()?;
        self.change(index, State::Free, State::Provided);
        Some(index)
    }

    /// The kernel filled a provided buffer: it is the engine's now.
    pub(super) fn provided_was_filled(&mut self, index: u32) -> Buffer {
        self.change(index, State::Provided, State::Owned);
        Buffer(index)
    }

    /// The engine gives a buffer to one operation.
    pub(super) fn lend(&mut self, buffer: Buffer) -> u32 {
        self.change(buffer.0, State::Owned, State::Kernel);
        buffer.0
    }

    /// That operation completed.
    pub(super) fn returned(&mut self, index: u32) -> Buffer {
        self.change(index, State::Kernel, State::Owned);
        Buffer(index)
    }

    /// What pages the memory is on.
    pub(super) fn pages(&self) -> Pages {
        self.mapping.pages()
    }

    /// Small buffers on the free list.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Where a buffer begins, for the kernel.
    pub(super) fn address(&self, index: u32) -> *mut u8 {
        assert!((index as usize) < self.states.len(), "buffer {index} is not of this pool");
        let offset_bytes = if index < self.small {
            self.small_offset_bytes + index as usize * BUFFER_BYTES
        } else {
            (index - self.small) as usize * LARGE_BUFFER_BYTES
        };
        // SAFETY: the index was checked against the number of buffers, and the mapping
        // is as long as all large and all small ones, so the offset stays inside it.
        unsafe { self.mapping.start().add(offset_bytes) }
    }

    /// How long a buffer is.
    pub(super) fn length_bytes(&self, index: u32) -> usize {
        if index < self.small { BUFFER_BYTES } else { LARGE_BUFFER_BYTES }
    }

    /// The bytes of an owned buffer.
    pub(super) fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.assert_owned(buffer);
        // SAFETY: `address` checks the index; the state says that neither the kernel nor
        // the free list has the buffer, so nobody writes it while `self` is borrowed.
        unsafe { slice::from_raw_parts(self.address(buffer.0), self.length_bytes(buffer.0)) }
    }

    /// The bytes of an owned buffer.
    pub(super) fn bytes_mut(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.assert_owned(buffer);
        // SAFETY: as in `bytes`; `&mut self` makes this the only slice of the pool.
        unsafe { slice::from_raw_parts_mut(self.address(buffer.0), self.length_bytes(buffer.0)) }
    }

    /// Copies `range` of one owned buffer to `start` in another.
    pub(super) fn copy_between(
        &mut self,
        from: &Buffer,
        range: Range<usize>,
        to: &Buffer,
        start: usize,
    ) {
        assert_ne!(from.0, to.0, "two handles of one buffer");
        self.assert_owned(from);
        self.assert_owned(to);
        // SAFETY: both are the engine's, they are not the same and so do not overlap, and
        // `&mut self` means that no other slice of the pool is borrowed.
        let (source, target) = unsafe {
            (
                slice::from_raw_parts(self.address(from.0), self.length_bytes(from.0)),
                slice::from_raw_parts_mut(self.address(to.0), self.length_bytes(to.0)),
            )
        };
        target[start..start + range.len()].copy_from_slice(&source[range]);
    }

    fn assert_owned(&self, buffer: &Buffer) {
        let state = self.states[buffer.0 as usize];
        assert!(state == State::Owned, "buffer {} is {state:?}, not the engine's", buffer.0);
    }

    fn change(&mut self, index: u32, from: State, to: State) {
        let state = &mut self.states[index as usize];
        assert!(*state == from, "buffer {index} is {state:?}, expected {from:?}");
        *state = to;
    }

    /// Gives the mapping up without unmapping it: the kernel may still write into it.
    pub(super) fn leak(&mut self) {
        self.mapping.leak();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_buffer_is_the_next_one_taken() {
        let mut pool = Pool::new(4, 0, Switch::Off).expect("mmap");
        let first = pool.take().expect("free");
        let _second = pool.take().expect("free");
        let index = first.0;
        pool.release(first);
        assert_eq!(pool.take().expect("free").0, index);
    }

    #[test]
    fn large_buffers_have_a_list_of_their_own_and_overlap_no_other() {
        let mut pool = Pool::new(2, 2, Switch::Off).expect("mmap");
        let large: Vec<_> = std::iter::from_fn(|| pool.take_large()).collect();
        let small: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((large.len(), small.len()), (2, 2));
        for (mark, buffer) in (1..).zip(small.iter().chain(&large)) {
            pool.bytes_mut(buffer).fill(mark);
        }
        for (mark, buffer) in (1..).zip(small.iter().chain(&large)) {
            assert!(pool.bytes(buffer).iter().all(|byte| *byte == mark));
        }
        assert_eq!(pool.bytes(&large[0]).len(), LARGE_BUFFER_BYTES);
        for buffer in large {
            pool.release(buffer);
        }
        assert!(pool.take().is_none(), "a large buffer is not handed out as a small one");
        assert!(pool.take_large().is_some());
    }

    #[test]
    fn every_buffer_begins_on_a_cache_line_and_every_large_one_on_a_page() {
        let pool = Pool::new(3, 2, Switch::Off).expect("mmap");
        for index in 0..5 {
            let unit = if index < 3 { CACHE_LINE_BYTES } else { PAGE_BYTES };
            assert_eq!(pool.address(index) as usize % unit, 0, "buffer {index}");
        }
    }

    #[test]
    fn an_empty_pool_hands_out_nothing() {
        let mut pool = Pool::new(1, 0, Switch::Off).expect("mmap");
        let _only = pool.take().expect("free");
        assert!(pool.take().is_none());
    }

    #[test]
    #[should_panic(expected = "not the engine's")]
    fn bytes_that_the_kernel_holds_cannot_be_looked_at() {
        let mut pool = Pool::new(1, 0, Switch::Off).expect("mmap");
        let buffer = pool.take().expect("free");
        let alias = Buffer(buffer.0);
        pool.lend(buffer);
        pool.bytes(&alias);
    }
}
