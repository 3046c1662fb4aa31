//! Records to and from the server behind, where TLS is spoken with it: one record layer
//! hands over to the other, in the same buffer.
//!
//! ```text
//!   client ─▶ [cipher] ─ open ─▶ [plain] ─ seal ─▶ [cipher] ─▶ server
//!   client ◀─ [cipher] ◀─ seal ─ [plain] ◀─ open ─ [cipher] ◀─ server
//! ```
//!
//! * **The ends are kept apart.** The server gets close_notify if the client sent one, and
//!   the bare end of the stream if the client did. A server that ends without close_notify
//!   has been cut off: the client is reset.
//! * Part of a record behind plaintext moves to a buffer of its own before that is sealed,
//!   since sealed records are longer than what they are made of.

use std::ops::Range;

use super::client_socket::LARGE_RECEIVE_END;
use super::connection::UpstreamWrite;
use super::metrics::EndReason;
use super::{Engine, KIND_UPSTREAM};
use crate::driver::{BUFFER_HEADROOM_BYTES, Buffer, Driver, Errno, LARGE_BUFFER_BYTES, Readiness};
use crate::handshake::{HandshakeService, ServerFailure, ServerFailureReason};
use crate::tls::record::{
    AlertDescription, CONTROL_RECORD_BYTES_MAX, HEADER_BYTES_MAX, Opened, PLAINTEXT_BYTES_MAX,
    RecordError, TRAILER_BYTES_MAX,
};

/// What one receive takes unless a record needs more: a largest record without padding. So
/// the plaintext of what is received together is never more than one record can hold, and
/// can be sealed in the smallest records where it lies.
const RECEIVE_BYTES: usize = HEADER_BYTES_MAX + PLAINTEXT_BYTES_MAX + TRAILER_BYTES_MAX;

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// Receives what the phase wants from a server that TLS is spoken with: behind part of a
    /// record, or into a buffer from the pool.
    #[inline(never)]
    pub(super) fn receive_from_tls_server(&mut self, slot: u32) {
        let token = self.token(slot, KIND_UPSTREAM);
        let connection = &mut self.table[slot];
        let (Some(upstream), Some(tls)) = (&connection.upstream, &mut connection.server_tls) else {
            return;
        };
        let outbound = &mut connection.outbound;
        if outbound.receiving || outbound.ended || outbound.buffer.is_some() {
            return;
        }
        let bytes = match (&tls.session, &tls.task) {
            (Some(_), _) => RECEIVE_BYTES,
            // Who waited for a buffer may by now be sending to another server.
            (None, Some(task))
                if task.output.is_empty() && connection.upstream_write == UpstreamWrite::None =>
            {
                task.input_room_bytes().max(1)
            }
            (None, _) => return,
        };
        let readiness = outbound.readiness.take().unwrap_or(Readiness::Unlikely);
        let likely = readiness == Readiness::Likely;
        let mut buffer = tls.buffer.take();
        // Only when bytes are known to be there: nobody waits with a large buffer.
        if buffer.is_none() && outbound.bulk && likely {
            buffer = self.driver.take_large_buffer();
            tls.cipher = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES;
        }
        outbound.receiving = true;
        outbound.receiving_fresh = buffer.is_none();
        connection.in_flight += 1;
        let Some(buffer) = buffer else {
            self.driver.receive(upstream, bytes, readiness, token);
            return;
        };
        let length = tls.cipher.len();
        let content = self.driver.bytes_mut(&buffer);
        let end = match content.len() {
            LARGE_BUFFER_BYTES => LARGE_RECEIVE_END,
            _ => BUFFER_HEADROOM_BYTES + tls.record_bytes.max(bytes),
        };
        if tls.cipher.start > BUFFER_HEADROOM_BYTES {
            // The room behind is counted on.
            content.copy_within(tls.cipher.clone(), BUFFER_HEADROOM_BYTES);
            tls.cipher = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES + length;
        }
        self.driver.receive_into(upstream, buffer, tls.cipher.end..end, readiness, token);
    }

    /// Records came from the server, or the end of the TCP stream.
    #[inline(never)]
    pub(super) fn server_records_received(
        &mut self,
        slot: u32,
        result: Result<usize, Errno>,
        buffer: Option<Buffer>,
        more: bool,
    ) {
        let connection = &mut self.table[slot];
        let Some(tls) = &mut connection.server_tls else {
            self.release(buffer);
            return;
        };
        if tls.cipher.is_empty() {
            tls.cipher = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES;
        }
        match (result, buffer) {
            (Ok(count @ 1..), Some(buffer)) => {
                tls.cipher.end += count;
                tls.buffer = Some(buffer);
                connection.outbound.bulk = more && tls.cipher.len() >= PLAINTEXT_BYTES_MAX;
                self.open_server_records(slot);
            }
            (Err(Errno(libc::ENOBUFS)), buffer) => {
                if tls.cipher.is_empty() {
                    self.release(buffer);
                } else {
                    tls.buffer = buffer;
                }
                self.want_buffer(slot, |wanted| wanted.outbound = true);
            }
            (Ok(_), buffer) => {
                // Nobody has said that the stream is complete (RFC 8446 section 6.1).
                self.metrics.server_truncations.increment();
                self.release(buffer);
                self.upstream_reset(slot);
            }
            (Err(_), buffer) => {
                self.release(buffer);
                self.upstream_reset(slot);
            }
        }
    }

    /// Opens every whole record of the server in the buffer, and writes to the client.
    pub(super) fn open_server_records(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let Some(tls) = &mut connection.server_tls else { return };
        let Some(session) = &mut tls.session else { return };
        let Some(buffer) = tls.buffer.take() else { return };
        let bytes = self.driver.bytes_mut(&buffer);
        let mut plain = 0..0;
        let mut records = 0;
        let mut ticket = None;
        let failure = loop {
            let start = tls.cipher.start;
            match session.opener.open(&mut bytes[tls.cipher.clone()]) {
                Ok(Opened::Incomplete { total_bytes }) => {
                    tls.record_bytes = total_bytes;
                    break None;
                }
                Ok(Opened::Data { plaintext, record_bytes }) => {
                    records += 1;
                    tls.cipher.start += record_bytes;
                    tls.awaits_ticket = None;
                    let opened = start + plaintext.start..start + plaintext.end;
                    plain = append_opened(bytes, plain, opened);
                }
                Ok(Opened::SessionTicket { body, record_bytes }) => {
                    tls.cipher.start += record_bytes;
                    // Without a free credit the next handshake is a full one.
                    if let Some(awaits_ticket) = tls.awaits_ticket.take()
                        && let Some(mut task) = self.credits.pop()
                    {
                        task.input.extend_from_slice(&bytes[start + body.start..start + body.end]);
                        task.to_server = Some(awaits_ticket);
                        ticket = Some(task);
                    }
                }
                Ok(Opened::KeyUpdate { record_bytes, respond }) => {
                    tls.cipher.start += record_bytes;
                    tls.key_update_due |= respond;
                }
                Ok(
                    Opened::Ignored { record_bytes }
                    | Opened::RenegotiationRefused { record_bytes },
                ) => tls.cipher.start += record_bytes,
                Ok(Opened::CloseNotify { record_bytes: _ }) => {
                    tls.cipher = 0..0;
                    connection.outbound.ended = true;
                    break None;
                }
                Err(error) => break Some(error),
            }
        };
        self.metrics.records_opened.add(records);
        self.metrics.bytes_to_clients.add(plain.len() as u64);
        let mut buffer = Some(buffer);
        if !plain.is_empty() {
            connection.outbound.plain = plain;
            connection.outbound.buffer = buffer.take();
            connection.outbound.answered = true;
        } else if !tls.cipher.is_empty() {
            tls.buffer = buffer.take();
        }
        self.release(buffer);
        if let Some(task) = ticket {
            self.keep_server_ticket(slot, task);
        }
        if let Some(error) = failure {
            match error.alert() {
                Some(alert) => self.fail_server_session(slot, alert),
                None => self.server_sent_alert(slot, &error),
            }
            return;
        }
        self.renew_activity_timer(slot);
        self.flush_client(slot);
    }

    /// The server ended the session by a fatal alert.
    fn server_sent_alert(&mut self, slot: u32, error: &RecordError) {
        let connection = &self.table[slot];
        if !connection.outbound.answered {
            // A server of TLS 1.3 judges our certificate, or that there is none, when the
            // session stands for us (RFC 8446 section 4.4.2.4).
            let failure = ServerFailure {
                reason: ServerFailureReason::ServerAlert,
                detail: error.to_string(),
            };
            self.report_server_failure(slot, failure, false);
        }
        self.upstream_reset(slot);
    }

    /// Moves part of a record away from behind the plaintext that is to be sealed. `false`
    /// if it waits for a buffer.
    #[inline(never)]
    pub(super) fn part_from_remainder(&mut self, slot: u32) -> bool {
        let connection = &mut self.table[slot];
        let (Some(tls), Some(buffer)) = (&mut connection.server_tls, &connection.outbound.buffer)
        else {
            return true;
        };
        if tls.cipher.is_empty() || tls.buffer.is_some() {
            return true;
        }
        let likely = connection.outbound.readiness == Some(Readiness::Likely);
        let large = (connection.outbound.bulk && likely).then(|| self.driver.take_large_buffer());
        let Some(other) = large.flatten().or_else(|| self.driver.take_buffer()) else {
            self.want_buffer(slot, |wanted| wanted.write = true);
            return false;
        };
        let length = tls.cipher.len();
        self.driver.copy_between(buffer, tls.cipher.clone(), &other, BUFFER_HEADROOM_BYTES);
        tls.cipher = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES + length;
        tls.buffer = Some(other);
        true
    }

    /// Seals what the client sent for the server, in place; returns where the records are.
    /// `None` if the key is used up.
    #[inline(never)]
    pub(super) fn seal_to_server(
        &mut self,
        slot: u32,
        buffer: &Buffer,
        mut plain: Range<usize>,
    ) -> Option<Range<usize>> {
        let connection = &mut self.table[slot];
        let tls = connection.server_tls.as_mut()?;
        let sealer = &mut tls.session.as_mut()?.sealer;
        let mut control = [0; CONTROL_RECORD_BYTES_MAX];
        let mut control_bytes = 0;
        if sealer.key_update_due() || std::mem::take(&mut tls.key_update_due) {
            control_bytes = sealer.key_update(false, &mut control).ok()?;
        }
        let bytes = self.driver.bytes_mut(buffer);
        let sealed_bytes = sealer.sealed_bytes(plain.len(), PLAINTEXT_BYTES_MAX);
        let behind = sealed_bytes - plain.len() - sealer.header_bytes();
        let cipher = &connection.inbound.cipher;
        let free = if cipher.is_empty() { bytes.len() } else { cipher.start } - plain.end;
        if behind > free {
            // The client's records left a little less behind than the server's need.
            let moved = plain.start - (behind - free);
            bytes.copy_within(plain.clone(), moved);
            plain = moved..moved + plain.len();
        }
        let records = plain.len().div_ceil(PLAINTEXT_BYTES_MAX);
        let mut sealed = sealer.seal_run(bytes, plain, PLAINTEXT_BYTES_MAX).ok()?;
        sealed.start -= control_bytes;
        bytes[sealed.start..][..control_bytes].copy_from_slice(&control[..control_bytes]);
        self.metrics.records_sealed.add(records as u64);
        Some(sealed)
    }

    /// Whether the server has yet to be told by close_notify that the client has finished.
    pub(super) fn server_close_notify_due(&self, slot: u32) -> bool {
        let tls = self.table[slot].server_tls.as_ref().filter(|tls| !tls.client_cut_short);
        tls.and_then(|tls| tls.session.as_ref()).is_some_and(|session| !session.sealer.closed())
    }

    /// Tells the server that the client has finished.
    #[inline(never)]
    pub(super) fn send_server_close_notify(&mut self, slot: u32) {
        let Some(buffer) = self.driver.take_buffer() else {
            self.want_buffer(slot, |wanted| wanted.write = true);
            return;
        };
        match self.write_server_alert(slot, &buffer, AlertDescription::CloseNotify) {
            Some(length) => {
                self.send_to_upstream(slot, buffer, 0..length, UpstreamWrite::CloseNotify);
            }
            None => {
                self.driver.release(buffer);
                self.abort(slot, EndReason::KeyLimit);
            }
        }
    }

    /// Seals an alert to the server into the buffer; `None` if the key is used up.
    pub(super) fn write_server_alert(
        &mut self,
        slot: u32,
        buffer: &Buffer,
        alert: AlertDescription,
    ) -> Option<usize> {
        let session = self.table[slot].server_tls.as_mut()?.session.as_mut()?;
        let out = self.driver.bytes_mut(buffer);
        session.sealer.alert(alert, out).ok()
    }
}

/// Joins plaintext that was opened to that before it, closing the gap that header and tag
/// left, so that one send takes all; returns where both are.
pub(super) fn append_opened(
    bytes: &mut [u8],
    plain: Range<usize>,
    opened: Range<usize>,
) -> Range<usize> {
    if plain.is_empty() {
        return opened;
    }
    let length = opened.len();
    bytes.copy_within(opened, plain.end);
    plain.start..plain.end + length
}
