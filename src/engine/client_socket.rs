//! The client's socket: one receive and one send at a time, and who gets what they bring.

use std::ops::Range;

use super::connection::{ClientWrite, Phase};
use super::metrics::EndReason;
use super::{Engine, KIND_CLIENT, unsent};
use crate::driver::{
    BUFFER_BYTES, BUFFER_HEADROOM_BYTES, Buffer, Driver, Errno, LARGE_BUFFER_BYTES,
    RECEIVE_BYTES_MAX, Readiness,
};
use crate::handshake::{HandshakeService, Task};
use crate::tls::record::{HEADER_BYTES, PLAINTEXT_BYTES_MAX, TRAILER_BYTES_MAX};

/// Where a receive into a large buffer ends: behind four largest records, as most senders
/// of bulk make them, so that no part of a fifth one has to be moved.
pub(super) const LARGE_RECEIVE_END: usize =
    BUFFER_HEADROOM_BYTES + 4 * (PLAINTEXT_BYTES_MAX + HEADER_BYTES + TRAILER_BYTES_MAX);

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// Arms the receive from the client, whatever the phase wants to have next.
    pub(super) fn receive_from_client(&mut self, slot: u32) {
        let token = self.token(slot, KIND_CLIENT);
        let connection = &mut self.table[slot];
        let Some(client) = &connection.client else { return };
        if connection.inbound.receiving
            || connection.inbound.ended
            // Plaintext waits in the buffer or is being sent from it: what belongs behind
            // its remainder stays in the kernel until then.
            || !connection.inbound.plain.is_empty()
        {
            return;
        }
        let readiness = connection.inbound.readiness.take().unwrap_or(Readiness::Unlikely);
        connection.inbound.receiving_fresh = connection.inbound.buffer.is_none();
        match connection.inbound.buffer.take() {
            // Bytes of an incomplete ClientHello or record: go on behind them.
            Some(buffer) => {
                let end = match self.driver.bytes(&buffer).len() {
                    LARGE_BUFFER_BYTES => LARGE_RECEIVE_END,
                    _ => BUFFER_BYTES,
                };
                let free = connection.inbound.cipher.end..end;
                self.driver.receive_into(client, buffer, free, readiness, token);
            }
            None => {
                // During the handshake no more than the task has room for: what follows
                // waits in the kernel.
                let length_max = match (connection.phase, &connection.task) {
                    (Phase::Handshaking, Some(task)) => task.input_room_bytes().max(1),
                    (Phase::Handshaking, None) => Task::INPUT_BYTES_MAX,
                    _ => RECEIVE_BYTES_MAX,
                };
                self.driver.receive(client, length_max, readiness, token);
            }
        }
        connection.inbound.receiving = true;
        connection.in_flight += 1;
    }

    pub(super) fn client_received(
        &mut self,
        slot: u32,
        result: Result<usize, Errno>,
        buffer: Option<Buffer>,
        more: bool,
    ) {
        let connection = &mut self.table[slot];
        let inbound = &mut connection.inbound;
        inbound.readiness = more.then_some(Readiness::Likely);
        let phase = connection.phase;
        match result {
            Ok(0) => {
                self.keep_client_buffer(slot, buffer, 0);
                match phase {
                    Phase::ClientHello | Phase::Parked | Phase::Handshaking => {
                        self.client_left(slot);
                    }
                    _ => self.client_ended(slot),
                }
            }
            Ok(count) => {
                self.keep_client_buffer(slot, buffer, count);
                let inbound = &mut self.table[slot].inbound;
                inbound.bulk = more && inbound.cipher.end >= BUFFER_BYTES;
                match phase {
                    Phase::ClientHello => self.scan_client_hello(slot),
                    Phase::Parked => {}
                    Phase::Handshaking => self.handshake_input(slot),
                    _ => self.open_records(slot),
                }
            }
            Err(Errno(libc::ENOBUFS)) => {
                self.keep_client_buffer(slot, buffer, 0);
                self.want_buffer(slot, |wanted| wanted.inbound = true);
            }
            Err(_) => {
                self.keep_client_buffer(slot, buffer, 0);
                match phase {
                    Phase::ClientHello | Phase::Parked | Phase::Handshaking => {
                        self.client_left(slot);
                    }
                    _ => self.abort(slot, EndReason::ClientReset),
                }
            }
        }
    }

    /// Takes the buffer of a receive back and counts its new bytes.
    fn keep_client_buffer(&mut self, slot: u32, buffer: Option<Buffer>, count: usize) {
        let inbound = &mut self.table[slot].inbound;
        if let Some(buffer) = buffer {
            if inbound.cipher.is_empty() {
                inbound.cipher = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES;
            }
            inbound.cipher.end += count;
            if inbound.cipher.is_empty() {
                self.driver.release(buffer);
            } else {
                inbound.buffer = Some(buffer);
            }
        }
    }

    pub(super) fn send_to_client(
        &mut self,
        slot: u32,
        buffer: Buffer,
        range: Range<usize>,
        write: ClientWrite,
    ) {
        let range = match write {
            ClientWrite::Flight => range,
            _ => self.with_ticket_in_front(slot, &buffer, range),
        };
        let token = self.token(slot, KIND_CLIENT);
        let connection = &mut self.table[slot];
        debug_assert_eq!(connection.client_write, ClientWrite::None, "one send at a time");
        let Some(client) = &connection.client else {
            self.driver.release(buffer);
            return;
        };
        connection.outbound.sending = range.clone();
        connection.client_write = write;
        connection.in_flight += 1;
        self.driver.send(client, buffer, range, token);
    }

    /// Puts the session ticket that waits, if one does, in front of what is to be sent;
    /// returns where both are.
    fn with_ticket_in_front(
        &mut self,
        slot: u32,
        buffer: &Buffer,
        mut range: Range<usize>,
    ) -> Range<usize> {
        let outbound = &mut self.table[slot].outbound;
        let Some(ticket) = outbound.ticket.take() else { return range };
        let ticket_bytes = outbound.ticket_bytes;
        if range.start < ticket_bytes {
            // A record of a few bytes, at the start of its buffer.
            let moved = ticket_bytes..ticket_bytes + range.len();
            self.driver.bytes_mut(buffer).copy_within(range, moved.start);
            range = moved;
        }
        range.start -= ticket_bytes;
        self.driver.copy_between(&ticket, 0..ticket_bytes, buffer, range.start);
        self.driver.release(ticket);
        self.left_with_data(slot);
        range
    }

    /// Everything was sent to the client: its stream ends.
    pub(super) fn end_stream_to_client(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        connection.outbound.finished = true;
        let both = connection.inbound.finished
            && (!connection.inbound.discarding || connection.inbound.ended);
        if both {
            // Closing ends the stream too.
            self.end(slot, EndReason::Finished);
        } else {
            if let Some(client) = &connection.client {
                self.driver.shutdown_write(client);
            }
            self.arm_activity_timer(slot);
        }
    }

    /// Sends the session ticket alone.
    pub(super) fn send_ticket(&mut self, slot: u32) {
        let outbound = &mut self.table[slot].outbound;
        let Some(ticket) = outbound.ticket.take() else { return };
        let range = 0..outbound.ticket_bytes;
        self.send_to_client(slot, ticket, range, ClientWrite::Control);
    }

    pub(super) fn client_sent(&mut self, slot: u32, result: Result<usize, Errno>, buffer: Buffer) {
        let connection = &mut self.table[slot];
        let write = std::mem::take(&mut connection.client_write);
        let sending = std::mem::take(&mut connection.outbound.sending);
        if let Some(rest) = unsent(&sending, result) {
            self.send_to_client(slot, buffer, rest, write);
            return;
        }
        self.driver.release(buffer);
        if result.is_err() {
            if connection.is_established() {
                self.abort(slot, EndReason::ClientReset);
            } else {
                self.abort(slot, EndReason::HandshakeFailed);
            }
            return;
        }
        match write {
            ClientWrite::Flight if connection.phase == Phase::Handshaking => {
                if connection.task.is_some() {
                    self.continue_flight(slot);
                }
            }
            ClientWrite::CloseNotify => self.end_stream_to_client(slot),
            ClientWrite::None | ClientWrite::LastAlert => {}
            ClientWrite::Flight | ClientWrite::Control | ClientWrite::Data => {
                if write == ClientWrite::Data {
                    self.renew_activity_timer(slot);
                }
                self.flush_client(slot);
            }
        }
    }
}
