//! Clients that wait for a place at a server: every server of their pool has as many
//! connections as it may have.
//!
//! ```text
//!   chosen: all full ──▶ queue of the pool, oldest first ──a connection to the pool ends──▶ chosen anew
//!             │ queue full                  │ `timeouts.queue` over
//!             └────────▶ shed ◀─────────────┘
//! ```
//!
//! A client that comes while others wait goes behind them. The queue is bounded, and so is
//! the time in it; who is shed gets the alert internal_error.

use std::rc::Rc;

use super::Engine;
use super::connection::{Through, TimerClass};
use super::events::Whose;
use super::metrics::{EndReason, ShedCause};
use crate::driver::Driver;
use crate::handshake::HandshakeService;
use crate::tls::record::AlertDescription;
use crate::upstream::Choice;

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// The session stands: connects the first server, or waits behind others for one.
    pub(super) fn begin_connecting(&mut self, slot: u32) {
        let connection = &self.table[slot];
        let Some(epoch) = connection.epoch.as_ref() else { return };
        if epoch.queues[connection.pool].borrow().first().is_none() {
            self.connect(slot);
            return;
        }
        self.wait_for_place(slot);
        // Servers that came back since have places too.
        self.serve_server_queue(slot);
    }

    /// Every server is full: the client waits, or is shed.
    pub(super) fn wait_for_place(&mut self, slot: u32) {
        let connection = &self.table[slot];
        let Some(epoch) = connection.epoch.as_ref() else { return };
        let queue = Rc::clone(&epoch.queues[connection.pool]);
        if queue.borrow().length() >= epoch.queue_max(connection.pool, self.limits.engines) {
            self.shed_for_servers(slot, ShedCause::ServerQueueFull);
            return;
        }
        queue.borrow_mut().push(&mut self.table, slot);
        self.metrics.server_queued.increment();
        self.metrics.server_queue.increment();
        self.timers.arm(&mut self.table, slot, TimerClass::ServerQueue, self.now);
    }

    /// There may be places at the servers of this connection's pool: whoever waits for one
    /// takes it, first come first served.
    pub(super) fn serve_server_queue(&mut self, slot: u32) {
        let connection = &self.table[slot];
        let Some(epoch) = connection.epoch.as_ref() else { return };
        let queue = Rc::clone(&epoch.queues[connection.pool]);
        // Each turn takes one out, and who is back for want of a place has tried one server
        // more.
        loop {
            let Some(first) = queue.borrow().first() else { return };
            let choice = self.choose_server(first);
            if choice == Choice::AllFull {
                return;
            }
            self.leave_server_queue(first);
            self.timers.disarm(&mut self.table, first);
            self.go_to(first, choice);
        }
    }

    /// Takes the connection out of its queue, if it is in one.
    pub(super) fn leave_server_queue(&mut self, slot: u32) {
        let connection = &self.table[slot];
        if !connection.links[Through::ServerQueue as usize].is_linked() {
            return;
        }
        let Some(epoch) = connection.epoch.as_ref() else { return };
        let queue = Rc::clone(&epoch.queues[connection.pool]);
        queue.borrow_mut().remove(&mut self.table, slot);
        self.metrics.server_queue.decrement();
    }

    /// No place came up in time.
    pub(super) fn waited_too_long_for_server(&mut self, slot: u32) {
        self.leave_server_queue(slot);
        // A server may have come back, which ends no connection and so nobody noticed.
        match self.choose_server(slot) {
            Choice::AllFull => self.shed_for_servers(slot, ShedCause::ServerQueueTimeout),
            choice => self.go_to(slot, choice),
        }
    }

    fn shed_for_servers(&mut self, slot: u32, cause: ShedCause) {
        let connection = &self.table[slot];
        let Some(epoch) = connection.epoch.as_ref() else { return };
        let whose = Whose::pool(&epoch.snapshot.pools[connection.pool].name);
        self.count_shed_of(whose, cause);
        self.fail_session(slot, AlertDescription::InternalError, EndReason::Shed);
    }
}
