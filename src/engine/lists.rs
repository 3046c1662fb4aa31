//! Intrusive FIFO lists over the connection table: timers and the wait for buffers.
//!
//! Every timeout of one class has the same duration, so a list that entries join at
//! the tail is sorted by deadline: arming, renewing and expiring are O(1), without a
//! wheel or a heap.

use std::time::Duration;

use super::table::Table;
use crate::clock::Moment;

/// No neighbour.
const NONE: u32 = u32::MAX;

/// A connection's place in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    previous: u32,
    next: u32,
    linked: bool,
}

impl Default for Links {
    fn default() -> Self {
        Self { previous: NONE, next: NONE, linked: false }
    }
}

impl Links {
    /// Whether the connection is in the list.
    pub(super) fn is_linked(&self) -> bool {
        self.linked
    }
}

/// Which of a connection's links a list runs through.
#[derive(Clone, Copy, Debug)]
pub(super) enum Through {
    /// Timers: a connection has at most one armed.
    Timer,
    /// Waiting for a pool buffer.
    BufferWait,
}

impl Through {
    /// How many link pairs a connection has.
    pub(super) const COUNT: usize = 2;
}

/// A FIFO list of connection slots.
#[derive(Debug)]
pub(super) struct List {
    through: usize,
    head: u32,
    tail: u32,
}

impl List {
    pub(super) const fn new(through: Through) -> Self {
        Self { through: through as usize, head: NONE, tail: NONE }
    }

    /// The slot that joined first.
    pub(super) fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
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
    }
}

/// The classes of timeout; a connection has at most one armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum TimerClass {
    /// The ClientHello is incomplete.
    ClientHello,
    /// The ClientHello is complete but no credit is free.
    Parked,
    /// The handshake is in progress.
    Handshake,
    /// The upstream connection is being made.
    Connect,
    /// The PROXY header waits for the first plaintext to leave with it.
    FirstData,
    /// Relaying in both directions.
    Idle,
    /// Relaying in one direction; the other has ended.
    HalfClosed,
    /// Operations were cancelled and have not all completed.
    Ending,
}

const CLASSES: usize = 8;

/// How often a renewed timer really moves in its list: once in this fraction of its
/// duration. Renewing on every record would touch two neighbours each time.
const RENEWAL_FRACTION: u32 = 64;

/// All timers of one engine.
#[derive(Debug)]
pub(super) struct Timers {
    lists: [List; CLASSES],
    durations: [Duration; CLASSES],
}

impl Timers {
    pub(super) fn new() -> Self {
        Self {
            lists: [const { List::new(Through::Timer) }; CLASSES],
            durations: [Duration::MAX; CLASSES],
        }
    }

    /// Sets a class's duration. Timers that are armed already expire by the new one.
    pub(super) fn set_duration(&mut self, class: TimerClass, duration: Duration) {
        self.durations[class as usize] = duration;
    }

    /// Arms the connection's timer, replacing the one it had.
    pub(super) fn arm(&mut self, table: &mut Table, slot: u32, class: TimerClass, now: Moment) {
        self.disarm(table, slot);
        let connection = &mut table[slot];
        connection.timer = Some(class);
        connection.timer_armed = now;
        self.lists[class as usize].push(table, slot);
    }

    /// Arms the timer of that class, or renews it if it is the one armed.
    pub(super) fn renew(&mut self, table: &mut Table, slot: u32, class: TimerClass, now: Moment) {
        let connection = &table[slot];
        if connection.timer == Some(class)
            && now.since(connection.timer_armed) * RENEWAL_FRACTION < self.durations[class as usize]
        {
            return;
        }
        self.arm(table, slot, class, now);
    }

    /// Takes the connection's timer off, if it has one.
    pub(super) fn disarm(&mut self, table: &mut Table, slot: u32) {
        if let Some(class) = table[slot].timer.take() {
            self.lists[class as usize].remove(table, slot);
        }
    }

    /// A connection whose timer has expired; its timer is off then.
    pub(super) fn expired(&mut self, table: &mut Table, now: Moment) -> Option<(u32, TimerClass)> {
        for list in &self.lists {
            let Some(slot) = list.first() else { continue };
            let Some(class) = table[slot].timer else { continue };
            if self.deadline(table[slot].timer_armed, class) <= now {
                self.disarm(table, slot);
                return Some((slot, class));
            }
        }
        None
    }

    /// When the next timer expires.
    pub(super) fn next_deadline(&self, table: &Table) -> Option<Moment> {
        self.lists
            .iter()
            .filter_map(List::first)
            .filter_map(|slot| Some(self.deadline(table[slot].timer_armed, table[slot].timer?)))
            .min()
    }

    /// The list of one class, oldest first.
    pub(super) fn list(&self, class: TimerClass) -> &List {
        &self.lists[class as usize]
    }

    /// A timer that may have been renewed without moving gets the fraction on top, so
    /// that no timeout fires early.
    fn deadline(&self, armed: Moment, class: TimerClass) -> Moment {
        let duration = self.durations[class as usize];
        match class {
            TimerClass::Idle | TimerClass::HalfClosed => {
                armed.after(duration.saturating_add(duration / RENEWAL_FRACTION))
            }
            _ => armed.after(duration),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(slots: u32) -> Table {
        let mut table = Table::new(slots as usize);
        for _ in 0..slots {
            table.insert().expect("room");
        }
        table
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_nanoseconds(seconds * 1_000_000_000)
    }

    #[test]
    fn a_list_keeps_the_order_of_joining_and_any_member_can_leave() {
        let mut table = table(4);
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

    #[test]
    fn timers_expire_in_the_order_of_their_deadlines() {
        let mut table = table(3);
        let mut timers = Timers::new();
        timers.set_duration(TimerClass::ClientHello, Duration::from_secs(5));
        timers.set_duration(TimerClass::Connect, Duration::from_secs(1));
        timers.arm(&mut table, 0, TimerClass::ClientHello, at(0));
        timers.arm(&mut table, 1, TimerClass::Connect, at(2));
        timers.arm(&mut table, 2, TimerClass::ClientHello, at(1));
        assert_eq!(timers.next_deadline(&table), Some(at(3)));
        assert_eq!(timers.expired(&mut table, at(2)), None);
        assert_eq!(timers.expired(&mut table, at(5)), Some((0, TimerClass::ClientHello)));
        assert_eq!(timers.expired(&mut table, at(5)), Some((1, TimerClass::Connect)));
        assert_eq!(timers.expired(&mut table, at(5)), None);
        assert_eq!(timers.expired(&mut table, at(6)), Some((2, TimerClass::ClientHello)));
        assert_eq!(timers.next_deadline(&table), None);
    }

    #[test]
    fn a_renewed_timer_never_fires_early() {
        let mut table = table(1);
        let mut timers = Timers::new();
        timers.set_duration(TimerClass::Idle, Duration::from_secs(64));
        timers.arm(&mut table, 0, TimerClass::Idle, at(0));
        // Half a second later: too soon to move the entry, but the promise holds.
        let renewed = Moment::from_nanoseconds(500_000_000);
        timers.renew(&mut table, 0, TimerClass::Idle, renewed);
        assert_eq!(timers.expired(&mut table, at(64)), None);
        assert_eq!(timers.expired(&mut table, at(65)), Some((0, TimerClass::Idle)));
    }

    #[test]
    fn arming_another_class_replaces_the_timer() {
        let mut table = table(1);
        let mut timers = Timers::new();
        timers.set_duration(TimerClass::ClientHello, Duration::from_secs(1));
        timers.set_duration(TimerClass::Handshake, Duration::from_secs(10));
        timers.arm(&mut table, 0, TimerClass::ClientHello, at(0));
        timers.arm(&mut table, 0, TimerClass::Handshake, at(0));
        assert_eq!(timers.expired(&mut table, at(5)), None);
        timers.disarm(&mut table, 0);
        assert_eq!(timers.next_deadline(&table), None);
    }
}
