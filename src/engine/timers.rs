//! Timeouts: a FIFO list for each class.
//!
//! Every timeout of one class has the same duration, so a list that entries join at
//! the tail is sorted by deadline: arming, renewing and expiring are O(1), without a
//! wheel or a heap.

use std::time::Duration;

use super::connection::{Through, TimerClass};
use super::lists::List;
use super::table::Table;
use crate::clock::Moment;

const CLASSES: usize = 10;

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
