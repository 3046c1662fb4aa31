//! The upstream connection: the next server of the pool until one answers.

use super::connection::{Phase, TimerClass};
use super::events::{Event, NoBackend};
use super::metrics::EndReason;
use super::{Engine, KIND_UPSTREAM};
use crate::driver::{Driver, Errno};
use crate::handshake::HandshakeService;
use crate::tls::record::AlertDescription;
use crate::upstream::Choice;

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// Starts connecting the next server of the pool.
    pub(super) fn connect(&mut self, slot: u32) {
        let choice = self.choose_server(slot);
        self.go_to(slot, choice);
    }

    /// Which server is next for the connection.
    pub(super) fn choose_server(&self, slot: u32) -> Choice {
        let connection = &self.table[slot];
        let Some(epoch) = connection.epoch.as_ref() else { return Choice::Nobody };
        let balancer = &mut epoch.balancers.borrow_mut()[connection.pool];
        balancer.pick(&connection.tried, &connection.as_client(), self.now)
    }

    /// Starts connecting the server that was chosen, or the next one that can be.
    pub(super) fn go_to(&mut self, slot: u32, mut choice: Choice) {
        loop {
            match choice {
                Choice::Server(server) if self.start_connecting(slot, server) => return,
                Choice::Server(_) => choice = self.choose_server(slot),
                Choice::AllFull => return self.wait_for_place(slot),
                Choice::Nobody => return self.no_backend(slot),
            }
        }
    }

    fn start_connecting(&mut self, slot: u32, server: usize) -> bool {
        let token = self.token(slot, KIND_UPSTREAM);
        let connection = &mut self.table[slot];
        let Some(epoch) = connection.epoch.as_ref() else { return false };
        let pool = connection.pool;
        let of_pool = &epoch.snapshot.pools[pool];
        let endpoint = &of_pool.backends[server].endpoint;
        connection.tried.insert(server);
        let Ok(from) = of_pool.source.towards(endpoint, connection.peer.ip()) else {
            connection.connect_error = Some(Errno(libc::EAFNOSUPPORT));
            return false;
        };
        if of_pool.tls.is_some() && connection.server_tls.is_none() {
            connection.server_tls = Some(Box::default());
        }
        match self.driver.connect(endpoint, from, token) {
            Ok(socket) => {
                epoch.balancers.borrow_mut()[pool].opened(server);
                connection.upstream = Some(socket);
                connection.backend = Some(server);
                connection.connect_timed_out = false;
                connection.in_flight += 1;
                self.metrics.upstream_connections.increment();
            }
            Err(error) => {
                if !is_ours(error) {
                    epoch.balancers.borrow()[pool].counts(server).failed.increment();
                }
                self.metrics.upstream_failed.increment();
                connection.connect_error = Some(error);
                return false;
            }
        }
        self.timers.arm(&mut self.table, slot, TimerClass::Connect, self.now);
        true
    }

    pub(super) fn connect_timed_out(&mut self, slot: u32) {
        if self.server_handshake_timed_out(slot) {
            return;
        }
        let connection = &mut self.table[slot];
        connection.connect_timed_out = true;
        if let Some(upstream) = &connection.upstream {
            self.driver.cancel(upstream);
        }
        // Should the cancellation miss, it is tried again.
        self.timers.arm(&mut self.table, slot, TimerClass::Connect, self.now);
    }

    pub(super) fn upstream_connected(&mut self, slot: u32, result: Result<(), Errno>) {
        let connection = &mut self.table[slot];
        match result {
            Ok(()) if connection.server_tls.is_some() => self.begin_server_handshake(slot),
            Ok(()) => self.server_stands(slot),
            Err(error) => {
                let error =
                    if connection.connect_timed_out { Errno(libc::ETIMEDOUT) } else { error };
                self.metrics.upstream_failed.increment();
                if !is_ours(error) {
                    connection.count_of_server(|counts| counts.failed.increment());
                }
                connection.connect_error = Some(error);
                self.close_upstream(slot);
                self.connect(slot);
            }
        }
    }

    /// The way to the server is open, for as long as the connection lasts.
    pub(super) fn server_stands(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        self.metrics.upstream_connected.increment();
        connection.count_of_server(|counts| counts.connected.increment());
        connection.phase = Phase::Relaying;
        self.begin_relay(slot);
    }

    fn no_backend(&mut self, slot: u32) {
        let connection = &self.table[slot];
        if let Some(epoch) = &connection.epoch {
            let listener = &epoch.snapshot.listeners[usize::from(connection.listener)];
            self.events.report(Event::NoBackend(NoBackend {
                peer: connection.peer,
                listener: listener.name.clone(),
                pool: epoch.snapshot.pools[connection.pool].name.clone(),
                attempts: connection.tried.count(),
                last_error: connection.connect_error,
                last_failure: connection.server_tls.as_ref().and_then(|tls| tls.failure),
            }));
        }
        self.fail_session(slot, AlertDescription::InternalError, EndReason::NoBackend);
    }
}

/// Whether a connection failed because of the address that it was to come from: the server has
/// no part in that, and is not to be taken for one that fails.
fn is_ours(error: Errno) -> bool {
    matches!(error.0, libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EPERM)
}
