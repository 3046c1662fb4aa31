//! Intrusive FIFO lists over the connection table: joining and leaving are O(1) and take
//! no memory beyond the links in each connection.

use super::connection::{Links, NONE, Through};
use super::table::Table;

/// A FIFO list of connection slots.
#[derive(Debug)]
pub(super) struct List {
    through: usize,
    head: u32,
    tail: u32,
    length: u32,
}

impl List {
    pub(super) const fn new(through: Through) -> Self {
        Self { through: through as usize, head: NONE, tail: NONE, length: 0 }
    }

    /// The slot that joined first.
    pub(super) fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// How many have joined and not left.
    pub(super) fn length(&self) -> usize {
        self.length as usize
    }

    /// The slot that joined last.
    pub(super) fn last(&self) -> Option<u32> {
        (self.tail != NONE).then_some(self.tail)
    }

    /// The slot that joined after `slot`.
    pub(super) fn after(&self, table: &Table, slot: u32) -> Option<u32> {
        let next = table[slot].links[self.through].next;
        (next != NONE).then_some(next)
    }

    /// Joins at the tail. Must not be in a list through the same links.
    pub(super) fn push(&mut self, table: &mut Table, slot: u32) {
        let links = &mut table[slot].links[self.through];
        debug_assert!(!links.linked, "slot {slot} is in a list already");
        *links = Links { previous: self.tail, next: NONE, linked: true };
        if self.tail == NONE {
            self.head = slot;
        } else {
            table[self.tail].links[self.through].next = slot;
        }
        self.tail = slot;
        self.length += 1;
    }

    /// Leaves the list.
    pub(super) fn remove(&mut self, table: &mut Table, slot: u32) {
        let links = std::mem::take(&mut table[slot].links[self.through]);
        debug_assert!(links.linked, "slot {slot} is in no list");
        if links.previous == NONE {
            self.head = links.next;
        } else {
            table[links.previous].links[self.through].next = links.next;
        }
        if links.next == NONE {
            self.tail = links.previous;
        } else {
            table[links.next].links[self.through].previous = links.previous;
        }
        self.length -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_the_order_of_joining_and_any_member_can_leave() {
        let mut table = Table::new(4);
        (0..4).for_each(|_| assert!(table.insert().is_some()));
        let mut list = List::new(Through::BufferWait);
        for slot in 0..4 {
            list.push(&mut table, slot);
        }
        list.remove(&mut table, 2);
        list.remove(&mut table, 0);
        assert_eq!(list.first(), Some(1));
        assert_eq!(list.after(&table, 1), Some(3));
        assert_eq!(list.last(), Some(3));
        list.remove(&mut table, 1);
        list.remove(&mut table, 3);
        assert_eq!(list.first(), None);
        assert_eq!(list.last(), None);
    }
}
