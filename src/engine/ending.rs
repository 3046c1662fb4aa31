//! Every way a connection ends, and the return of what it held.
//!
//! A connection ends at once for everyone else; its slot is freed when the last of its
//! operations has completed, since their buffers are the kernel's until then.

use super::connection::{ClientWrite, Fate, Phase, Through, TimerClass, UpstreamWrite};
use super::metrics::EndReason;
use super::{Engine, KIND_CLIENT, KIND_UPSTREAM};
use crate::driver::Driver;
use crate::handshake::HandshakeService;
use crate::tls::record::AlertDescription;

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// Ends the connection in order: both sockets are closed.
    pub(super) fn end(&mut self, slot: u32, reason: EndReason) {
        self.finish(slot, reason, Fate::Close, Fate::Close);
    }

    /// Ends the connection so that neither side can take it for complete.
    pub(super) fn abort(&mut self, slot: u32, reason: EndReason) {
        self.finish(slot, reason, Fate::Reset, Fate::Reset);
    }

    /// Tells the client why by an alert, if its send side is free, and cuts the server
    /// off by a reset: what it has is not the whole stream.
    pub(super) fn fail_session(&mut self, slot: u32, alert: AlertDescription, reason: EndReason) {
        if self.table[slot].client_write == ClientWrite::None
            && let Some(buffer) = self.driver.take_buffer()
        {
            match self.write_alert(slot, &buffer, alert) {
                Some(length) => {
                    self.send_to_client(slot, buffer, 0..length, ClientWrite::LastAlert);
                    self.await_last_alert(slot, reason);
                    return;
                }
                None => self.driver.release(buffer),
            }
        }
        self.abort(slot, reason);
    }

    /// Tells the server why by an alert, if its send side is free, and cuts the client off
    /// by a reset: what it has is not the whole stream.
    pub(super) fn fail_server_session(&mut self, slot: u32, alert: AlertDescription) {
        self.table[slot].count_if_early();
        if self.table[slot].upstream_write == UpstreamWrite::None
            && let Some(buffer) = self.driver.take_buffer()
        {
            match self.write_server_alert(slot, &buffer, alert) {
                Some(length) => {
                    self.send_to_upstream(slot, buffer, 0..length, UpstreamWrite::LastAlert);
                    self.finish(slot, EndReason::UpstreamReset, Fate::Reset, Fate::Close);
                    return;
                }
                None => self.driver.release(buffer),
            }
        }
        self.abort(slot, EndReason::UpstreamReset);
    }

    /// Ends a connection that is not at fault but out of time. The client gets no
    /// close_notify, since nobody said that its stream is complete: what a send has left
    /// unfinished is cut by a reset, otherwise its socket is closed in order.
    pub(super) fn end_overdue(&mut self, slot: u32, reason: EndReason) {
        let connection = &self.table[slot];
        if !connection.is_established() {
            self.abort(slot, reason);
            return;
        }
        let idle = connection.client_write == ClientWrite::None;
        let client = if idle { Fate::Close } else { Fate::Reset };
        let complete = connection.inbound.finished && !connection.inbound.discarding;
        let upstream = if complete { Fate::Close } else { Fate::Reset };
        self.finish(slot, reason, client, upstream);
    }

    /// The last alert is on its way: everything else ends now, the client's socket is
    /// closed in order once the alert is out.
    pub(super) fn await_last_alert(&mut self, slot: u32, reason: EndReason) {
        self.finish(slot, reason, Fate::Close, Fate::Reset);
    }

    fn finish(&mut self, slot: u32, reason: EndReason, client_fate: Fate, upstream_fate: Fate) {
        let connection = &mut self.table[slot];
        if matches!(connection.phase, Phase::Ending | Phase::Free) {
            return;
        }
        connection.phase = Phase::Ending;
        connection.end_reason = Some(reason);
        connection.client_fate = client_fate;
        connection.upstream_fate = upstream_fate;
        if let Some(credit) = connection.at_worker.take() {
            self.handshakes.abandon(credit);
        }
        if let Some(mut task) = connection.task.take() {
            task.reset();
            self.credits.push(task);
        }
        self.let_go_of_server(slot);
        let connection = &self.table[slot];
        if connection.links[Through::BufferWait as usize].is_linked() {
            self.buffer_waiters.remove(&mut self.table, slot);
        }
        self.leave_server_queue(slot);
        self.release_inbound(slot);
        let outbound = &mut self.table[slot].outbound;
        for buffer in [outbound.buffer.take(), outbound.ticket.take()] {
            self.release(buffer);
        }
        self.cancel_operations(slot);
        self.timers.arm(&mut self.table, slot, TimerClass::Ending, self.now);
        self.finish_if_settled(slot);
    }

    /// Asks the operations in flight to end, but for a last alert to either side: that one
    /// has until the retry.
    fn cancel_operations(&mut self, slot: u32) {
        let (to_client, to_upstream) =
            (self.token(slot, KIND_CLIENT), self.token(slot, KIND_UPSTREAM));
        let connection = &self.table[slot];
        if let Some(client) = &connection.client {
            match (connection.client_write, connection.inbound.receiving) {
                (ClientWrite::LastAlert, _) | (ClientWrite::None, false) => {}
                (ClientWrite::None, true) if connection.inbound.receiving_fresh => {
                    self.driver.cancel_receive(client, to_client);
                }
                _ => self.driver.cancel(client),
            }
        }
        if let Some(upstream) = &connection.upstream {
            let outbound = &connection.outbound;
            match connection.upstream_operations() {
                0 => {}
                // Nothing is received meanwhile: the alert answers what was.
                _ if connection.upstream_write == UpstreamWrite::LastAlert => {}
                1 if outbound.receiving && outbound.receiving_fresh => {
                    self.driver.cancel_receive(upstream, to_upstream);
                }
                _ => self.driver.cancel(upstream),
            }
        }
    }

    /// Asks everything in flight to end, in the way that finds it for certain.
    fn cancel_all_operations(&mut self, slot: u32) {
        let connection = &self.table[slot];
        for socket in [&connection.client, &connection.upstream].into_iter().flatten() {
            self.driver.cancel(socket);
        }
    }

    /// A send to the client completed while the connection was ending.
    pub(super) fn ending_client_sent(&mut self, slot: u32) {
        if std::mem::take(&mut self.table[slot].client_write) == ClientWrite::LastAlert {
            self.cancel_operations(slot);
        }
        self.finish_if_settled(slot);
    }

    /// A cancellation missed, or the client does not take its last alert: try again.
    pub(super) fn end_again(&mut self, slot: u32) {
        self.cancel_all_operations(slot);
        self.timers.arm(&mut self.table, slot, TimerClass::Ending, self.now);
    }

    /// Frees an ending connection's slot once nothing of it is in flight.
    pub(super) fn finish_if_settled(&mut self, slot: u32) {
        if self.table[slot].in_flight > 0 {
            return;
        }
        self.timers.disarm(&mut self.table, slot);
        let fate = self.table[slot].upstream_fate;
        self.close_upstream_with(slot, fate);
        let connection = &mut self.table[slot];
        if let Some(client) = connection.client.take() {
            match connection.client_fate {
                Fate::Close => self.driver.close(client),
                Fate::Reset => self.driver.reset(client),
            }
        }
        let complete = connection.is_established();
        if complete {
            self.metrics.established.decrement();
        }
        self.sources.leave(connection.source, complete);
        if let Some(reason) = connection.end_reason {
            self.metrics.ended[reason as usize].increment();
        }
        self.table.remove(slot);
    }

    /// Closes the socket of an upstream connection that did not come to be.
    pub(super) fn close_upstream(&mut self, slot: u32) {
        self.close_upstream_with(slot, Fate::Close);
    }

    fn close_upstream_with(&mut self, slot: u32, fate: Fate) {
        let connection = &mut self.table[slot];
        let Some(upstream) = connection.upstream.take() else { return };
        match fate {
            Fate::Close => self.driver.close(upstream),
            Fate::Reset => self.driver.reset(upstream),
        }
        self.metrics.upstream_connections.decrement();
        if let (Some(backend), Some(epoch)) = (connection.backend.take(), &connection.epoch) {
            epoch.balancers.borrow_mut()[connection.pool].closed(backend);
            self.serve_server_queue(slot);
        }
    }

    /// Gives the inbound buffer back, with whatever is in it.
    pub(super) fn release_inbound(&mut self, slot: u32) {
        let inbound = &mut self.table[slot].inbound;
        inbound.cipher = 0..0;
        let buffer = inbound.buffer.take();
        self.release(buffer);
    }
}
