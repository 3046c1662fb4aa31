//! Streams that are passed through as they are: TLS ends at the server behind.
//!
//! The relay is that of every connection, without a record layer: what is received is what
//! is sent, and the end of a stream is the end of the TCP stream.

use super::Engine;
use super::connection::{ClientWrite, Phase};
use crate::driver::Driver;
use crate::handshake::HandshakeService;
use crate::tls::server_name::ServerName;

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// The client, whose ClientHello is in the buffer, goes to `pool` with it.
    pub(super) fn pass_through(&mut self, slot: u32, name: Option<ServerName>, pool: usize) {
        let connection = &mut self.table[slot];
        connection.passed_through = true;
        connection.passed_name = name.map(|name| name.as_str().into());
        connection.pool = pool;
        connection.phase = Phase::Connecting;
        self.sources.complete_handshake(connection.source);
        self.metrics.passed_through.increment();
        self.metrics.established.increment();
        self.take_as_it_is(slot);
        self.begin_connecting(slot);
    }

    /// Sends on what was received from the client.
    pub(super) fn take_as_it_is(&mut self, slot: u32) {
        let inbound = &mut self.table[slot].inbound;
        inbound.plain = std::mem::take(&mut inbound.cipher);
        self.metrics.bytes_from_clients.add(inbound.plain.len() as u64);
        self.relayed = true;
        self.renew_activity_timer(slot);
        self.forward(slot);
    }

    /// Writes to the client what the server said, then the end of it.
    pub(super) fn flush_as_it_is(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let outbound = &mut connection.outbound;
        if let Some(buffer) = outbound.buffer.take() {
            let plain = std::mem::take(&mut outbound.plain);
            self.relayed = true;
            self.send_to_client(slot, buffer, plain, ClientWrite::Data);
        } else if outbound.ended {
            if !outbound.finished {
                self.end_stream_to_client(slot);
            }
        } else if connection.phase == Phase::Relaying {
            self.receive_from_upstream(slot);
        }
    }
}
