//! Ends the sessions of clients that may not stay: the control thread has found out whom,
//! and said that there are some.
//!
//! The table is looked through a part each turn, so that nobody waits for it.

use super::Engine;
use super::connection::Phase;
use super::metrics::EndReason;
use crate::driver::Driver;
use crate::handshake::HandshakeService;
use crate::tls::record::AlertDescription;

/// Slots looked at in a turn.
const SLOTS_PER_TURN: u32 = 4_096;

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// Begins to look, from the first slot on.
    pub(super) fn look_for_refused(&mut self) {
        self.refused_from = Some(0);
    }

    /// Looks on, if there is something to look for.
    pub(super) fn end_refused(&mut self) {
        let Some(from) = self.refused_from else { return };
        let end = self.table.slots().end.min(from + SLOTS_PER_TURN);
        for slot in from..end {
            self.end_if_refused(slot);
        }
        self.refused_from = (end < self.table.slots().end).then_some(end);
    }

    /// Ends the connection if its client may not stay.
    pub(super) fn end_if_refused(&mut self, slot: u32) {
        let connection = &self.table[slot];
        let client = connection.session.as_ref().and_then(|session| session.client.as_ref());
        if connection.phase != Phase::Ending && client.is_some_and(|client| client.is_refused()) {
            self.fail_session(slot, AlertDescription::AccessDenied, EndReason::ClientRefused);
        }
    }
}
