//! What both directions of a relay share: its beginning, the wait for buffers, and the
//! timer that any byte renews.

use super::Engine;
use super::connection::{Phase, TimerClass};
use crate::driver::Driver;
use crate::handshake::HandshakeService;
use crate::proxy_protocol::ProxyProtocol;

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// Both connections stand: send what is there, receive from both.
    pub(super) fn begin_relay(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let Some(epoch) = &connection.epoch else { return };
        let snapshot = &epoch.snapshot;
        let pool = &snapshot.pools[connection.pool];
        // With TLS it was sent in front of the handshake.
        connection.header_due =
            pool.proxy_protocol != ProxyProtocol::None && connection.server_tls.is_none();
        let waits = connection.awaits_first_data() && !snapshot.timeouts.first_data_wait.is_zero();
        if waits {
            self.timers.arm(&mut self.table, slot, TimerClass::FirstData, self.now);
        } else {
            self.arm_activity_timer(slot);
        }
        let connection = &self.table[slot];
        if !connection.inbound.plain.is_empty() || connection.inbound.ended {
            self.forward(slot);
        } else if connection.header_due && !waits {
            self.send_header_alone(slot);
        }
        if self.table[slot].phase == Phase::Relaying {
            self.receive_from_upstream(slot);
        }
    }

    /// What was to leave with the first data has waited long enough for it.
    pub(super) fn first_data_overdue(&mut self, slot: u32) {
        self.arm_activity_timer(slot);
        self.send_header_alone(slot);
        self.flush_client(slot);
    }

    /// Something left with data; the timer is that of activity if nothing waits any more.
    pub(super) fn left_with_data(&mut self, slot: u32) {
        let connection = &self.table[slot];
        if connection.timer == Some(TimerClass::FirstData) && !connection.awaits_first_data() {
            self.arm_activity_timer(slot);
        }
    }

    /// What waited for a buffer to write with goes on.
    pub(super) fn resume_write(&mut self, slot: u32) {
        match self.table[slot].phase {
            Phase::Handshaking => self.continue_flight(slot),
            Phase::Connecting | Phase::Relaying => {
                self.continue_server_flight(slot);
                if self.table[slot].inbound.ended || self.table[slot].header_due {
                    self.forward_or_header(slot);
                }
                self.flush_client(slot);
            }
            Phase::Free | Phase::ClientHello | Phase::Parked | Phase::Ending => {}
        }
    }

    fn forward_or_header(&mut self, slot: u32) {
        if self.table[slot].inbound.plain.is_empty() {
            self.send_header_alone(slot);
            if self.table[slot].inbound.ended {
                self.forward(slot);
            }
        } else {
            self.forward(slot);
        }
    }

    fn activity_class(&self, slot: u32) -> TimerClass {
        let connection = &self.table[slot];
        if connection.inbound.finished || connection.outbound.finished {
            TimerClass::HalfClosed
        } else {
            TimerClass::Idle
        }
    }

    pub(super) fn arm_activity_timer(&mut self, slot: u32) {
        let class = self.activity_class(slot);
        self.timers.arm(&mut self.table, slot, class, self.now);
    }

    pub(super) fn renew_activity_timer(&mut self, slot: u32) {
        // The Connect and FirstData timers are not for activity to put off.
        if matches!(self.table[slot].timer, Some(TimerClass::Idle | TimerClass::HalfClosed)) {
            let class = self.activity_class(slot);
            self.timers.renew(&mut self.table, slot, class, self.now);
        }
    }
}
