//! The connection table: every connection's state, taken at start, addressed by slot.

use std::ops::{Index, IndexMut};

use super::connection::Connection;
use crate::driver::Token;

/// A fixed number of places for connections.
///
/// A slot's generation advances when it is freed, so a token of an earlier connection
/// can be told from one of the present.
#[derive(Debug)]
pub(super) struct Table {
    connections: Box<[Connection]>,
    /// Last freed, first used: its lines are still in the cache.
    free: Vec<u32>,
}

impl Table {
    /// Takes the memory of `capacity` connections.
    pub(super) fn new(capacity: usize) -> Self {
        let slots = u32::try_from(capacity).unwrap_or(u32::MAX).min(Token::SLOT_LIMIT);
        Self {
            connections: (0..slots).map(|_| Connection::default()).collect(),
            free: (0..slots).rev().collect(),
        }
    }

    /// Takes a free slot; its connection is in its default state.
    pub(super) fn insert(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Frees a slot and returns it to the default state under a new generation.
    pub(super) fn remove(&mut self, slot: u32) {
        let connection = &mut self[slot];
        let generation = (connection.generation + 1) % Token::GENERATION_LIMIT;
        *connection = Connection { generation, ..Connection::default() };
        self.free.push(slot);
    }

    /// Slots free now.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Slots in use now.
    pub(super) fn used(&self) -> usize {
        self.connections.len() - self.free.len()
    }

    /// All slots there are, free or not.
    pub(super) fn slots(&self) -> std::ops::Range<u32> {
        0..self.connections.len() as u32
    }

    /// Bytes that one slot takes.
    pub(super) const SLOT_BYTES: usize = size_of::<Connection>() + size_of::<u32>();
}

impl Index<u32> for Table {
    type Output = Connection;

    fn index(&self, slot: u32) -> &Connection {
        &self.connections[slot as usize]
    }
}

impl IndexMut<u32> for Table {
    fn index_mut(&mut self, slot: u32) -> &mut Connection {
        &mut self.connections[slot as usize]
    }
}
