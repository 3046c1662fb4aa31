//! The kernel's buffer ring: the few buffers from which it serves receives that were
//! started without one (`IORING_REGISTER_PBUF_RING`, Linux 5.19).
//!
//! The ring is kept short on purpose. The kernel takes its entries first in, first
//! out, so every buffer in it is touched in turn: a long ring would walk through more
//! memory than the cache holds. It grows when receives find it empty.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::super::memory::Mapping;
use super::super::{BUFFER_HEADROOM_BYTES, RECEIVE_BYTES_MAX};
use super::pool::Pool;

/// The one buffer group.
pub(super) const GROUP: u16 = 0;

/// Entries that the ring has room for: as many receives as one turn could complete
/// without the engine running in between.
const ENTRIES: u16 = 1024;

/// Entries kept in it to begin with.
const TARGET_INITIAL: usize = 32;

pub(super) struct ProvidedRing {
    entries: Mapping,
    tail: u16,
    /// Which pool buffer stands behind each buffer identifier that is in the ring.
    buffers: Box<[u32]>,
    /// Identifiers not in the ring. They do not follow ring positions: completions may
    /// come in another order than the kernel took the entries.
    identifiers: Vec<u16>,
    target: usize,
    target_max: usize,
}

impl ProvidedRing {
    /// Makes the ring's memory; [`Self::register`] makes it known. It never takes more
    /// than half of a pool of `pool_buffers`: the rest is for sends.
    pub(super) fn new(pool_buffers: usize) -> io::Result<Self> {
        let target_max = (pool_buffers / 2).clamp(1, usize::from(ENTRIES));
        Ok(Self {
            entries: Mapping::new(usize::from(ENTRIES) * size_of::<BufRingEntry>())?,
            tail: 0,
            buffers: vec![0; usize::from(ENTRIES)].into_boxed_slice(),
            identifiers: (0..ENTRIES).rev().collect(),
            target: TARGET_INITIAL.min(target_max),
            target_max,
        })
    }

    /// Makes the ring known to the kernel.
    pub(super) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        // SAFETY: the mapping is page-aligned, as long as ENTRIES entries, and lives
        // until after the io_uring is closed (see the field order of `RingDriver`).
        unsafe {
            submitter.register_buf_ring_with_flags(self.entries.start() as u64, ENTRIES, GROUP, 0)
        }
    }

    /// Tops the ring up from the pool.
    pub(super) fn replenish(&mut self, pool: &mut Pool) {
        let before = self.tail;
        while self.provided() < self.target {
            let Some(index) = pool.provide() else { break };
            let Some(identifier) = self.identifiers.pop() else { break };
            self.buffers[usize::from(identifier)] = index;
            let position = usize::from(self.tail & (ENTRIES - 1));
            // SAFETY: the position is below ENTRIES, the length of the mapping in
            // entries, and the kernel reads an entry only once the tail has passed it.
            let entry = unsafe { &mut *self.entries.start().cast::<BufRingEntry>().add(position) };
            entry.set_addr(pool.address(index) as u64 + BUFFER_HEADROOM_BYTES as u64);
            entry.set_len(RECEIVE_BYTES_MAX as u32);
            entry.set_bid(identifier);
            self.tail = self.tail.wrapping_add(1);
        }
        if self.tail != before {
            // SAFETY: the tail lives in the first entry's reserved field, two-byte
            // aligned, inside the mapping; the kernel only reads it, we only store it,
            // and Release orders the entries above before it.
            unsafe {
                let tail = BufRingEntry::tail(self.entries.start().cast::<BufRingEntry>());
                AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
            }
        }
    }

    /// The kernel used the entry of that identifier: the pool buffer behind it.
    pub(super) fn taken(&mut self, identifier: u16) -> u32 {
        self.identifiers.push(identifier);
        self.buffers[usize::from(identifier)]
    }

    /// A receive found the ring empty although the pool was not: keep more in it.
    pub(super) fn grow(&mut self) {
        self.target = (self.target * 2).min(self.target_max);
    }

    /// Buffers in the ring now.
    pub(super) fn provided(&self) -> usize {
        usize::from(ENTRIES) - self.identifiers.len()
    }
}
