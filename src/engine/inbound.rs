//! Client to upstream server: records are opened where they lie and sent on from there.
//!
//! ```text
//!   client ─receive─▶ [cipher] ─open in place─▶ [plain] ─send─▶ upstream server
//! ```
//!
//! One thing at a time, receive or send: a server that does not read is not received
//! for, and holds one buffer at most.

use std::ops::Range;
use std::time::Duration;

use super::connection::{Phase, UpstreamWrite};
use super::metrics::EndReason;
use super::server_records::append_opened;
use super::{Engine, KIND_UPSTREAM, unsent};
use crate::driver::{
    BUFFER_BYTES, BUFFER_HEADROOM_BYTES, Buffer, Driver, Errno, LARGE_BUFFER_BYTES, Readiness,
};
use crate::handshake::HandshakeService;
use crate::proxy_protocol::decode::Values;
use crate::proxy_protocol::{self, CertificateFacts, Header};
use crate::tls::record::{Opened, RecordError};

/// A PROXY header that does not fit the headroom has a buffer of its own.
const _: () = assert!(proxy_protocol::HEADER_BYTES_MAX <= BUFFER_BYTES);

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// Opens every whole record in the buffer, then sends the plaintext on.
    pub(super) fn open_records(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let inbound = &mut connection.inbound;
        if inbound.discarding {
            self.release_inbound(slot);
            self.receive_from_client(slot);
            return;
        }
        let Some(session) = connection.session.as_mut() else {
            self.take_as_it_is(slot);
            return;
        };
        let Some(buffer) = inbound.buffer.take() else { return };
        let bytes = self.driver.bytes_mut(&buffer);
        let mut records = 0;
        let failure = loop {
            let start = inbound.cipher.start;
            match session.opener.open(&mut bytes[inbound.cipher.clone()]) {
                Ok(Opened::Incomplete { total_bytes }) => {
                    inbound.record_bytes = total_bytes;
                    break None;
                }
                Ok(Opened::Data { plaintext, record_bytes }) => {
                    records += 1;
                    inbound.cipher.start += record_bytes;
                    let opened = start + plaintext.start..start + plaintext.end;
                    inbound.plain = append_opened(bytes, inbound.plain.clone(), opened);
                }
                Ok(Opened::KeyUpdate { record_bytes, respond }) => {
                    inbound.cipher.start += record_bytes;
                    connection.control_due.key_update |= respond;
                }
                Ok(Opened::RenegotiationRefused { record_bytes }) => {
                    inbound.cipher.start += record_bytes;
                    connection.control_due.no_renegotiation = true;
                }
                // Session tickets come from servers only.
                Ok(
                    Opened::Ignored { record_bytes } | Opened::SessionTicket { record_bytes, .. },
                ) => {
                    inbound.cipher.start += record_bytes;
                }
                Ok(Opened::CloseNotify { record_bytes: _ }) => {
                    // What follows is to be ignored (RFC 8446 section 6.1).
                    inbound.cipher = 0..0;
                    inbound.ended = true;
                    break None;
                }
                Err(error) => break Some(error),
            }
        };
        self.metrics.records_opened.add(records);
        self.relayed |= records > 0;
        self.metrics.bytes_from_clients.add(inbound.plain.len() as u64);
        if let Some(error) = failure {
            self.driver.release(buffer);
            self.client_broke_protocol(slot, &error);
            return;
        }
        inbound.buffer = Some(buffer);
        self.renew_activity_timer(slot);
        if self.table[slot].control_due.any() {
            self.flush_client(slot);
        }
        self.forward(slot);
    }

    /// Sends opened plaintext on, or carries the client's end, or receives more.
    pub(super) fn forward(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        if connection.phase == Phase::Ending {
            return;
        }
        let inbound = &mut connection.inbound;
        if inbound.plain.is_empty() {
            if inbound.ended {
                self.carry_client_end(slot);
            } else {
                self.receive_more_ciphertext(slot);
            }
            return;
        }
        if connection.phase != Phase::Relaying || connection.upstream_write != UpstreamWrite::None {
            return;
        }
        let Some(buffer) = inbound.buffer.take() else { return };
        let mut range = inbound.plain.clone();
        if connection.header_due {
            let length = self.write_proxy_header(slot);
            if length > BUFFER_HEADROOM_BYTES {
                // It goes ahead, and this data when it is sent.
                self.table[slot].inbound.buffer = Some(buffer);
                self.send_written_header(slot, length);
                return;
            }
            // The plaintext lies behind the headroom, so the header fits before it.
            range.start -= length;
            self.driver.bytes_mut(&buffer)[range.start..][..length]
                .copy_from_slice(&self.proxy_header[..length]);
            self.table[slot].header_due = false;
            self.left_with_data(slot);
        }
        if self.table[slot].server_tls.is_some() {
            match self.seal_to_server(slot, &buffer, range) {
                Some(sealed) => range = sealed,
                None => {
                    // TLS 1.2 has no KeyUpdate: the key is used up.
                    self.driver.release(buffer);
                    self.abort(slot, EndReason::KeyLimit);
                    return;
                }
            }
        }
        self.send_to_upstream(slot, buffer, range, UpstreamWrite::Data);
    }

    pub(super) fn send_to_upstream(
        &mut self,
        slot: u32,
        buffer: Buffer,
        range: Range<usize>,
        write: UpstreamWrite,
    ) {
        let token = self.token(slot, KIND_UPSTREAM);
        let connection = &mut self.table[slot];
        let Some(upstream) = &connection.upstream else {
            self.driver.release(buffer);
            return;
        };
        connection.inbound.sending = range.clone();
        connection.upstream_write = write;
        connection.in_flight += 1;
        self.driver.send(upstream, buffer, range, token);
    }

    /// Whether the header can leave alone now.
    fn header_can_leave_alone(&self, slot: u32) -> bool {
        let connection = &self.table[slot];
        connection.header_due
            && connection.phase == Phase::Relaying
            && connection.upstream_write == UpstreamWrite::None
    }

    /// Sends the header, if it is due, without plaintext.
    pub(super) fn send_header_alone(&mut self, slot: u32) {
        if self.header_can_leave_alone(slot) {
            let length = self.write_proxy_header(slot);
            self.send_written_header(slot, length);
        }
    }

    /// Sends what [`Self::write_proxy_header`] has just written. Without a buffer it is
    /// written anew when there is one.
    fn send_written_header(&mut self, slot: u32, length: usize) {
        let Some(buffer) = self.driver.take_buffer() else {
            self.want_buffer(slot, |wanted| wanted.write = true);
            return;
        };
        self.driver.bytes_mut(&buffer)[..length].copy_from_slice(&self.proxy_header[..length]);
        self.table[slot].header_due = false;
        self.left_with_data(slot);
        self.send_to_upstream(slot, buffer, 0..length, UpstreamWrite::Header);
    }

    /// Writes the PROXY header to `self.proxy_header`; returns its length.
    pub(super) fn write_proxy_header(&mut self, slot: u32) -> usize {
        let connection = &self.table[slot];
        let Some(epoch) = &connection.epoch else { return 0 };
        let pool = &epoch.snapshot.pools[connection.pool];
        // Bytes of a socket that was reset go nowhere, so the peer's own address does as
        // well as any.
        let destination = connection.destination(&self.driver).unwrap_or(connection.peer);
        let session = connection.session.as_ref();
        let certificate =
            session.and_then(|session| session.client.as_ref()).map(|client| CertificateFacts {
                common_name: client.common_name(),
                der: client.chain().first().map_or(&[][..], AsRef::as_ref),
            });
        let server_name =
            session.map_or(&connection.passed_name, |session| &session.facts.server_name);
        let noted = connection.noted.as_ref();
        let unique_id = self.unique_ids.next(epoch.engine, &pool.header);
        let header = Header {
            source: connection.peer,
            destination,
            server_name: server_name.as_deref(),
            session: session.map(|session| &session.facts),
            certificate,
            unique_id: unique_id.as_ref().map(<[u8; 32]>::as_slice),
            passed_on: noted.map_or(Values::default(), |noted| noted.passed_on.values()),
            fingerprint: session
                .and_then(|session| session.fingerprint.as_deref())
                .or_else(|| noted?.fingerprint.as_ref()),
            handshake_us: session.map(|session| session.handshake_us),
            now: pool.header.key.as_ref().map_or(Duration::ZERO, |_| self.driver.unix_time()),
        };
        let out = &mut self.proxy_header[..];
        let encoded = proxy_protocol::encode(pool.proxy_protocol, &pool.header, &header, out)
            .expect("HEADER_BYTES_MAX is what the largest header takes");
        self.metrics.header_certificates_left_out.add(u64::from(encoded.certificate_left_out));
        encoded.bytes
    }

    pub(super) fn upstream_sent(
        &mut self,
        slot: u32,
        result: Result<usize, Errno>,
        buffer: Buffer,
    ) {
        let connection = &mut self.table[slot];
        let write = std::mem::take(&mut connection.upstream_write);
        let sending = std::mem::take(&mut connection.inbound.sending);
        if let Some(rest) = unsent(&sending, result) {
            connection.inbound.cut_short = true;
            self.send_to_upstream(slot, buffer, rest, write);
            return;
        }
        let cut_short = std::mem::take(&mut connection.inbound.cut_short);
        if write == UpstreamWrite::Flight {
            self.driver.release(buffer);
            self.server_flight_sent(slot, result);
            return;
        }
        if matches!(write, UpstreamWrite::Header | UpstreamWrite::CloseNotify) {
            self.driver.release(buffer);
        } else {
            connection.inbound.plain = 0..0;
            connection.inbound.buffer = Some(buffer);
        }
        match result {
            Ok(_) => {
                self.renew_activity_timer(slot);
                self.forward(slot);
            }
            Err(error) => {
                // The server takes no more. What it still has to say goes to the client.
                // The kernel reports a reset only once: if this send was told, the
                // receive finds what looks like the end of the stream
                // (tcp_recvmsg_locked in Linux). EPIPE alone means that the server had
                // ended its stream before; but when a send was cut short, that was told
                // the error, and the next one finds EPIPE whatever it was (io_send).
                connection.outbound.broken = cut_short || error != Errno(libc::EPIPE);
                self.discard_from_client(slot);
            }
        }
    }

    /// The upstream server takes no more: what the client sends is thrown away until it
    /// ends or the half-closed timeout passes.
    fn discard_from_client(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        connection.inbound.discarding = true;
        connection.inbound.finished = true;
        connection.inbound.plain = 0..0;
        self.release_inbound(slot);
        self.arm_activity_timer(slot);
        let connection = &self.table[slot];
        if connection.outbound.finished && connection.inbound.ended {
            self.end(slot, EndReason::Finished);
        } else {
            self.receive_from_client(slot);
        }
    }

    /// Receives behind the partial record in the buffer, or into a fresh buffer.
    fn receive_more_ciphertext(&mut self, slot: u32) {
        let inbound = &mut self.table[slot].inbound;
        // Only when bytes are known to be there: nobody waits with a large buffer.
        let bulk = inbound.bulk && inbound.readiness == Some(Readiness::Likely);
        if inbound.cipher.is_empty() {
            self.release_inbound(slot);
            if bulk && let Some(large) = self.driver.take_large_buffer() {
                let inbound = &mut self.table[slot].inbound;
                inbound.cipher = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES;
                inbound.buffer = Some(large);
            }
        } else if let Some(buffer) = inbound.buffer.take() {
            let large = self.driver.bytes(&buffer).len() == LARGE_BUFFER_BYTES;
            let other = match (large, bulk) {
                (false, true) => self.driver.take_large_buffer(),
                (true, false) => self.driver.take_buffer(),
                _ => None,
            };
            self.move_partial_record(slot, buffer, other);
        }
        self.receive_from_client(slot);
    }

    /// Moves part of a record to the front of another buffer, or of its own if the rest
    /// would not fit behind it.
    fn move_partial_record(&mut self, slot: u32, buffer: Buffer, other: Option<Buffer>) {
        let inbound = &mut self.table[slot].inbound;
        let from = inbound.cipher.clone();
        let to = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES + from.len();
        let buffer = match other {
            Some(other) => {
                self.driver.copy_between(&buffer, from, &other, to.start);
                self.driver.release(buffer);
                inbound.cipher = to;
                other
            }
            None => {
                let bytes = self.driver.bytes_mut(&buffer);
                if bytes.len() == LARGE_BUFFER_BYTES
                    || from.start + inbound.record_bytes > BUFFER_BYTES
                {
                    bytes.copy_within(from, to.start);
                    inbound.cipher = to;
                }
                buffer
            }
        };
        inbound.buffer = Some(buffer);
    }

    /// The client's TCP stream ended after the handshake.
    pub(super) fn client_ended(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let Some(epoch) = &connection.epoch else { return };
        if connection.inbound.discarding {
            connection.inbound.ended = true;
            if connection.outbound.finished {
                self.end(slot, EndReason::Finished);
            }
            return;
        }
        if connection.passed_through {
            // Whether the stream is complete is between the client and the server.
            connection.inbound.ended = true;
            self.forward(slot);
            return;
        }
        self.metrics.truncations.increment();
        let mid_record = !connection.inbound.cipher.is_empty();
        if mid_record || epoch.snapshot.records.strict_truncation {
            // Part of the stream is missing for certain, or must be assumed to be.
            self.abort(slot, EndReason::ClientReset);
            return;
        }
        connection.inbound.ended = true;
        if let Some(tls) = &mut connection.server_tls {
            tls.client_cut_short = true;
        }
        self.forward(slot);
    }

    /// All of the client's data was sent on: pass its end on too.
    fn carry_client_end(&mut self, slot: u32) {
        self.release_inbound(slot);
        let connection = &mut self.table[slot];
        if connection.phase != Phase::Relaying
            || connection.inbound.finished
            || connection.upstream_write != UpstreamWrite::None
        {
            return;
        }
        if connection.header_due {
            // The server learns of the client even if it had nothing to say.
            self.send_header_alone(slot);
            return;
        }
        if self.server_close_notify_due(slot) {
            self.send_server_close_notify(slot);
            return;
        }
        let connection = &mut self.table[slot];
        connection.inbound.finished = true;
        if let Some(upstream) = &connection.upstream {
            self.driver.shutdown_write(upstream);
        }
        self.arm_activity_timer(slot);
        if self.table[slot].outbound.finished {
            self.end(slot, EndReason::Finished);
        }
    }

    /// The client's records are not acceptable: tell it why, cut the server off.
    fn client_broke_protocol(&mut self, slot: u32, error: &RecordError) {
        match error.alert() {
            Some(alert) => self.fail_session(slot, alert, EndReason::ClientProtocol),
            None => self.abort(slot, EndReason::ClientReset),
        }
    }
}
