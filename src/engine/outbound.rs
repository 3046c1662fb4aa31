//! Upstream server to client: plaintext is sealed where it lies and sent from there;
//! control records and the end of the stream take their turn.
//!
//! ```text
//!   client ◀─send── [cipher] ◀─seal in place── [plain] ◀─receive─ upstream server
//! ```
//!
//! One thing at a time, receive or send: a client that does not read is not received
//! for, and holds one buffer at most.

use super::connection::{ClientWrite, ControlDue, Phase, TimerClass};
use super::metrics::EndReason;
use super::{Engine, KIND_UPSTREAM};
use crate::driver::{
    BUFFER_BYTES, BUFFER_HEADROOM_BYTES, Buffer, Driver, Errno, LARGE_BUFFER_BYTES,
    LARGE_RECEIVE_BYTES, Readiness,
};
use crate::handshake::HandshakeService;
use crate::tls::record::{
    AlertDescription, HEADER_BYTES_MAX, PLAINTEXT_BYTES_MAX, SEGMENT_PLAINTEXT_BYTES,
    TRAILER_BYTES_MAX,
};

/// A full receive from upstream can be split into the smallest records in its buffer.
const _: () = {
    assert!(room_for_smallest_records(PLAINTEXT_BYTES_MAX) <= BUFFER_BYTES);
    assert!(room_for_smallest_records(LARGE_RECEIVE_BYTES) <= LARGE_BUFFER_BYTES);
};

const fn room_for_smallest_records(plain_bytes: usize) -> usize {
    let records = plain_bytes.div_ceil(SEGMENT_PLAINTEXT_BYTES);
    let grown = plain_bytes + records * (HEADER_BYTES_MAX + TRAILER_BYTES_MAX);
    BUFFER_HEADROOM_BYTES - HEADER_BYTES_MAX + grown
}

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    pub(super) fn receive_from_upstream(&mut self, slot: u32) {
        if self.table[slot].server_tls.is_some() {
            self.receive_from_tls_server(slot);
            return;
        }
        let token = self.token(slot, KIND_UPSTREAM);
        let connection = &mut self.table[slot];
        let Some(upstream) = &connection.upstream else { return };
        let outbound = &mut connection.outbound;
        if outbound.receiving || outbound.ended || outbound.buffer.is_some() {
            return;
        }
        let readiness = outbound.readiness.take().unwrap_or(Readiness::Unlikely);
        outbound.receiving = true;
        connection.in_flight += 1;
        // Only when bytes are known to be there: nobody waits with a large buffer.
        if outbound.bulk
            && readiness == Readiness::Likely
            && let Some(buffer) = self.driver.take_large_buffer()
        {
            let range = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES + LARGE_RECEIVE_BYTES;
            outbound.receiving_fresh = false;
            self.driver.receive_into(upstream, buffer, range, readiness, token);
        } else {
            outbound.receiving_fresh = true;
            self.driver.receive(upstream, PLAINTEXT_BYTES_MAX, readiness, token);
        }
    }

    pub(super) fn upstream_received(
        &mut self,
        slot: u32,
        result: Result<usize, Errno>,
        buffer: Option<Buffer>,
        more: bool,
    ) {
        let connection = &mut self.table[slot];
        let outbound = &mut connection.outbound;
        outbound.readiness = more.then_some(Readiness::Likely);
        if connection.server_tls.is_some() {
            match connection.phase {
                Phase::Connecting => self.server_flight_received(slot, result, buffer),
                _ => self.server_records_received(slot, result, buffer, more),
            }
            return;
        }
        match (result, buffer) {
            (Ok(count @ 1..), Some(buffer)) => {
                outbound.bulk = more && count >= PLAINTEXT_BYTES_MAX;
                outbound.plain = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES + count;
                outbound.buffer = Some(buffer);
                outbound.answered = true;
                self.metrics.bytes_to_clients.add(count as u64);
                self.renew_activity_timer(slot);
                self.flush_client(slot);
            }
            (Ok(_), buffer) => {
                self.release(buffer);
                let connection = &self.table[slot];
                if connection.outbound.broken || connection.inbound.cut_short {
                    self.upstream_reset(slot);
                    return;
                }
                self.table[slot].outbound.ended = true;
                self.flush_client(slot);
            }
            (Err(Errno(libc::ENOBUFS)), buffer) => {
                self.release(buffer);
                self.want_buffer(slot, |wanted| wanted.outbound = true);
            }
            (Err(_), buffer) => {
                self.release(buffer);
                self.upstream_reset(slot);
            }
        }
    }

    /// The upstream server cut its stream off: so is the client's.
    pub(super) fn upstream_reset(&mut self, slot: u32) {
        self.table[slot].count_if_early();
        self.abort(slot, EndReason::UpstreamReset);
    }

    /// Writes to the client what is due, in this order: control records, data, the end.
    /// Does nothing while a send is in flight; its completion comes back here.
    pub(super) fn flush_client(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        if connection.client_write != ClientWrite::None || connection.phase == Phase::Ending {
            return;
        }
        if connection.passed_through {
            self.flush_as_it_is(slot);
            return;
        }
        if connection.session.is_none() {
            return;
        }
        if connection.session.as_ref().is_some_and(|session| session.sealer.closed()) {
            // close_notify was the last that the client may hear from us, also in answer
            // to its KeyUpdate (RFC 8446 section 6.1).
            connection.control_due = ControlDue::default();
        }
        if connection.control_due.any() {
            self.send_control(slot);
        } else if connection.outbound.buffer.is_some() {
            self.seal_and_send(slot);
        } else if connection.outbound.ended {
            if !connection.outbound.finished {
                self.send_close_notify(slot);
            }
        } else if connection.phase == Phase::Relaying {
            let overdue = connection.timer != Some(TimerClass::FirstData);
            // A client that has ended its stream needs no ticket; should it still be sent
            // something, the ticket must go before that, since its record is numbered.
            if connection.outbound.ticket.is_some() && overdue && !connection.inbound.ended {
                self.send_ticket(slot);
            }
            self.receive_from_upstream(slot);
        }
    }

    fn seal_and_send(&mut self, slot: u32) {
        if self.table[slot].server_tls.is_some() && !self.part_from_remainder(slot) {
            return;
        }
        let connection = &mut self.table[slot];
        let Some(session) = connection.session.as_mut() else { return };
        let Some(buffer) = connection.outbound.buffer.take() else { return };
        let plain = std::mem::take(&mut connection.outbound.plain);
        let record_bytes_max = connection.sizer.next(self.now, plain.len());
        let records = plain.len().div_ceil(record_bytes_max);
        match session.sealer.seal_run(self.driver.bytes_mut(&buffer), plain, record_bytes_max) {
            Ok(cipher) => {
                self.metrics.records_sealed.add(records as u64);
                self.relayed = true;
                connection.control_due.key_update |= session.sealer.key_update_due();
                self.send_to_client(slot, buffer, cipher, ClientWrite::Data);
            }
            Err(_) => {
                // TLS 1.2 has no KeyUpdate: the key is used up.
                self.driver.release(buffer);
                self.abort(slot, EndReason::KeyLimit);
            }
        }
    }

    fn send_control(&mut self, slot: u32) {
        let Some(buffer) = self.driver.take_buffer() else {
            self.want_buffer(slot, |wanted| wanted.write = true);
            return;
        };
        let connection = &mut self.table[slot];
        let due = std::mem::take(&mut connection.control_due);
        let Some(session) = connection.session.as_mut() else {
            self.driver.release(buffer);
            return;
        };
        let out = self.driver.bytes_mut(&buffer);
        let mut length = 0;
        let mut written = Ok(0);
        if due.no_renegotiation {
            written = session.sealer.alert(AlertDescription::NoRenegotiation, out);
            length += written.unwrap_or(0);
        }
        if due.key_update && written.is_ok() {
            written = session.sealer.key_update(false, &mut out[length..]);
            length += written.unwrap_or(0);
        }
        if written.is_ok() && length > 0 {
            self.send_to_client(slot, buffer, 0..length, ClientWrite::Control);
        } else {
            self.driver.release(buffer);
            self.abort(slot, EndReason::KeyLimit);
        }
    }

    fn send_close_notify(&mut self, slot: u32) {
        let Some(buffer) = self.driver.take_buffer() else {
            self.want_buffer(slot, |wanted| wanted.write = true);
            return;
        };
        match self.write_alert(slot, &buffer, AlertDescription::CloseNotify) {
            Some(length) => {
                self.send_to_client(slot, buffer, 0..length, ClientWrite::CloseNotify);
            }
            None => {
                self.driver.release(buffer);
                self.abort(slot, EndReason::KeyLimit);
            }
        }
    }

    /// Seals an alert into the buffer; `None` if the key is used up.
    pub(super) fn write_alert(
        &mut self,
        slot: u32,
        buffer: &Buffer,
        alert: AlertDescription,
    ) -> Option<usize> {
        let session = self.table[slot].session.as_mut()?;
        let out = self.driver.bytes_mut(buffer);
        session.sealer.alert(alert, out).ok()
    }
}
