//! The buffer memory of one engine: one mapping, taken at start, carved into buffers.
//!
//! ```text
//!   mapping   | buffer 0 | buffer 1 | … | large 0 | …     17 KiB and 68 KiB each
//!   a buffer  | headroom 704 | received bytes …      |
//!   state     Free ─▶ Owned ─▶ Kernel ─▶ Owned ─▶ Free
//!             Free ─▶ Provided (in the kernel's buffer ring) ─▶ Owned
//! ```
//!
//! The state table is what makes the safe interface sound: bytes can be looked at only
//! while a buffer is `Owned`, whatever handle the caller holds.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;

use super::super::{BUFFER_BYTES, Buffer, LARGE_BUFFER_BYTES};

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
    /// Small buffers, then large ones.
    states: Box<[State]>,
    /// Number of small buffers.
    small: u32,
    /// Last released, first taken: that buffer's lines are still in the cache.
    free: Vec<u32>,
    free_large: Vec<u32>,
}

impl Pool {
    /// Maps and touches the memory of `small` and `large` buffers.
    pub(super) fn new(small: usize, large: usize) -> io::Result<Self> {
        let too_much = || io::Error::from(io::ErrorKind::OutOfMemory);
        let length_bytes = small
            .checked_mul(BUFFER_BYTES)
            .and_then(|bytes| bytes.checked_add(large.checked_mul(LARGE_BUFFER_BYTES)?))
            .ok_or_else(too_much)?;
        let count = small + large;
        let end = u32::try_from(count).map_err(|_| too_much())?;
        let small = u32::try_from(small).map_err(|_| too_much())?;
        Ok(Self {
            mapping: Mapping::new(length_bytes)?,
            states: vec![State::Free; count].into_boxed_slice(),
            small,
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

    /// Small buffers on the free list.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Where a buffer begins, for the kernel.
    pub(super) fn address(&self, index: u32) -> *mut u8 {
        assert!((index as usize) < self.states.len(), "buffer {index} is not of this pool");
        let small = index.min(self.small) as usize;
        let large = index as usize - small;
        // SAFETY: the index was checked against the number of buffers, and the mapping
        // is as long as all small and all large ones, so the offset stays inside it.
        unsafe {
            self.mapping.start.as_ptr().add(small * BUFFER_BYTES + large * LARGE_BUFFER_BYTES)
        }
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
        self.mapping.length_bytes = 0;
    }
}

/// An anonymous private mapping, touched at creation so that it is really there.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    length_bytes: usize,
}

impl Mapping {
    /// Maps `length_bytes` of zeroed memory.
    pub(super) fn new(length_bytes: usize) -> io::Result<Self> {
        if length_bytes == 0 {
            return Ok(Self { start: NonNull::dangling(), length_bytes });
        }
        // SAFETY: an anonymous private mapping at an address of the kernel's choice
        // touches no memory that exists; the result is checked before use.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(address.cast())
            .ok_or_else(|| io::Error::other("mmap returned the null page"))?;
        Ok(Self { start, length_bytes })
    }

    /// Where the mapping begins; page-aligned.
    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length_bytes > 0 {
            // SAFETY: start and length are those of a mapping made in `new`, and nothing
            // borrows from a `Mapping` beyond its life.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.length_bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_buffer_is_the_next_one_taken() {
        let mut pool = Pool::new(4, 0).expect("mmap");
        let first = pool.take().expect("free");
        let _second = pool.take().expect("free");
        let index = first.0;
        pool.release(first);
        assert_eq!(pool.take().expect("free").0, index);
    }

    #[test]
    fn large_buffers_have_a_list_of_their_own_and_overlap_no_other() {
        let mut pool = Pool::new(2, 2).expect("mmap");
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
    fn an_empty_pool_hands_out_nothing() {
        let mut pool = Pool::new(1, 0).expect("mmap");
        let _only = pool.take().expect("free");
        assert!(pool.take().is_none());
    }

    #[test]
    #[should_panic(expected = "not the engine's")]
    fn bytes_that_the_kernel_holds_cannot_be_looked_at() {
        let mut pool = Pool::new(1, 0).expect("mmap");
        let buffer = pool.take().expect("free");
        let alias = Buffer(buffer.0);
        pool.lend(buffer);
        pool.bytes(&alias);
    }
}
