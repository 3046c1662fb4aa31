//! The simulated buffer pool: knows who holds each buffer and fails loudly on misuse.

use std::collections::VecDeque;
use std::ops::Range;

use crate::driver::{BUFFER_BYTES, Buffer, LARGE_BUFFER_BYTES};

/// What a free buffer is filled with, so that whoever relays stale bytes relays these.
const POISON: u8 = 0xdb;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    Engine,
    Operation,
}

#[derive(Debug)]
pub(super) struct Pool {
    memory: Vec<Vec<u8>>,
    holders: Vec<Holder>,
    free: VecDeque<u32>,
    free_large: VecDeque<u32>,
}

impl Pool {
    pub(super) fn new(buffers: usize, large_buffers: usize) -> Self {
        let count = u32::try_from(buffers).expect("a simulated pool is small");
        let end = u32::try_from(buffers + large_buffers).expect("a simulated pool is small");
        let mut memory = vec![vec![POISON; BUFFER_BYTES]; buffers];
        memory.resize(buffers + large_buffers, vec![POISON; LARGE_BUFFER_BYTES]);
        Self {
            memory,
            holders: vec![Holder::Nobody; buffers + large_buffers],
            free: (0..count).collect(),
            free_large: (count..end).collect(),
        }
    }

    pub(super) fn take(&mut self) -> Option<Buffer> {
        let index = self.free.pop_front()?;
        self.holders[index as usize] = Holder::Engine;
        Some(Buffer(index))
    }

    pub(super) fn take_large(&mut self) -> Option<Buffer> {
        let index = self.free_large.pop_front()?;
        self.holders[index as usize] = Holder::Engine;
        Some(Buffer(index))
    }

    /// How long the buffer is, whoever has it.
    pub(super) fn length_bytes(&self, buffer: &Buffer) -> usize {
        self.memory[buffer.0 as usize].len()
    }

    /// Takes a buffer for data that has arrived; it reaches the engine with a completion.
    pub(super) fn take_for_operation(&mut self) -> Option<Buffer> {
        let buffer = self.take()?;
        self.lend(&buffer);
        Some(buffer)
    }

    pub(super) fn release(&mut self, buffer: &Buffer) {
        let index = self.index(buffer, Holder::Engine, "released");
        self.memory[index].fill(POISON);
        self.holders[index] = Holder::Nobody;
        // Last in, first out in the kernel's ring or not is none of the engine's business;
        // the longest wait finds the most stale use.
        if self.memory[index].len() == BUFFER_BYTES {
            self.free.push_back(buffer.0);
        } else {
            self.free_large.push_back(buffer.0);
        }
    }

    pub(super) fn lend(&mut self, buffer: &Buffer) {
        let index = self.index(buffer, Holder::Engine, "given to an operation");
        self.holders[index] = Holder::Operation;
    }

    pub(super) fn hand_back(&mut self, buffer: &Buffer) {
        let index = self.index(buffer, Holder::Operation, "handed back by an operation");
        self.holders[index] = Holder::Engine;
    }

    pub(super) fn of_engine(&self, buffer: &Buffer) -> &[u8] {
        &self.memory[self.index(buffer, Holder::Engine, "read")]
    }

    pub(super) fn of_engine_mut(&mut self, buffer: &Buffer) -> &mut [u8] {
        let index = self.index(buffer, Holder::Engine, "written");
        &mut self.memory[index]
    }

    pub(super) fn copy_between(
        &mut self,
        from: &Buffer,
        range: Range<usize>,
        to: &Buffer,
        start: usize,
    ) {
        let bytes = self.of_engine(from)[range].to_vec();
        self.of_engine_mut(to)[start..start + bytes.len()].copy_from_slice(&bytes);
    }

    pub(super) fn of_operation_mut(&mut self, buffer: &Buffer) -> &mut [u8] {
        let index = self.index(buffer, Holder::Operation, "used by an operation");
        &mut self.memory[index]
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Panics unless every buffer is free.
    pub(super) fn assert_at_rest(&self) {
        let held = |holder| self.holders.iter().filter(|held| **held == holder).count();
        let (engine, operations) = (held(Holder::Engine), held(Holder::Operation));
        assert!(
            engine + operations == 0,
            "buffers leaked: {engine} taken by the engine and never released, \
             {operations} in operations"
        );
    }

    fn index(&self, buffer: &Buffer, expected: Holder, verb: &str) -> usize {
        let index = buffer.0 as usize;
        let holder = self.holders.get(index).copied();
        assert!(
            holder == Some(expected),
            "buffer {index} is {verb} while its holder is {holder:?}, not {expected:?}"
        );
        index
    }
}
