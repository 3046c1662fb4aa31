//! Connections of a balancer in front, which begin with a PROXY protocol header: from here
//! on the client is whom it names.

use super::Engine;
use super::connection::Noted;
use super::metrics::EndReason;
use crate::driver::{BUFFER_BYTES, BUFFER_HEADROOM_BYTES, Driver};
use crate::handshake::{FailureReason, HandshakeService};
use crate::proxy_protocol::decode::{Decoded, V2_RECEIVED_BYTES_MAX, decode};
use crate::proxy_protocol::passed_on::PassedOn;

/// A header that is taken fits the buffer it is received into.
const _: () = assert!(BUFFER_HEADROOM_BYTES + V2_RECEIVED_BYTES_MAX <= BUFFER_BYTES);

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// Reads the header at the start of what was received. Returns whether bytes of the
    /// client are there behind it; else the connection waits for more, or has ended.
    pub(super) fn read_proxy_header(&mut self, slot: u32) -> bool {
        let connection = &mut self.table[slot];
        let Some(buffer) = &connection.inbound.buffer else { return false };
        let cipher = connection.inbound.cipher.clone();
        let (header_bytes, addresses) = match decode(&self.driver.bytes(buffer)[cipher.clone()]) {
            Decoded::Complete(header) => {
                let wanted = connection.epoch.as_ref().map(|epoch| &epoch.passed_on);
                if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
                    let (passed_on, all) = PassedOn::of(header.values, wanted);
                    self.metrics.header_values_left_out.add(u64::from(!all));
                    if !passed_on.is_empty() {
                        connection.noted = Some(Box::new(Noted { passed_on, ..Noted::default() }));
                    }
                }
                (header.bytes, header.addresses)
            }
            Decoded::Incomplete => {
                self.receive_from_client(slot);
                return false;
            }
            Decoded::Refused(error) => {
                self.handshake_failed(slot, FailureReason::ProxyHeader, error.to_string());
                return false;
            }
        };
        connection.awaits_header = false;
        self.metrics.proxy_headers_received.increment();
        // The ClientHello may fill a buffer, so it begins where it always begins.
        let rest = cipher.start + header_bytes..cipher.end;
        connection.inbound.cipher = cipher.start..cipher.start + rest.len();
        self.driver.bytes_mut(buffer).copy_within(rest, cipher.start);
        if let Some((client, destination)) = addresses {
            connection.peer = client;
            connection.destination = Some(destination);
            match self.let_in(client.ip()) {
                Ok(source) => self.table[slot].source = source,
                Err((source, cause)) => {
                    self.count_shed(source, None, cause);
                    self.abort(slot, EndReason::Shed);
                    return false;
                }
            }
        }
        if self.table[slot].inbound.cipher.is_empty() {
            self.release_inbound(slot);
            self.receive_from_client(slot);
            return false;
        }
        true
    }
}
