//! The upstream connection: the next server of the pool until one answers.

use super::connection::{Phase, TimerClass};
use super::events::{Event, NoBackend};
use super::metrics::EndReason;
use super::{Engine, KIND_UPSTREAM};
use crate::driver::{Driver, Errno};
use crate::handshake::HandshakeService;
use crate::tls::record::AlertDescription;

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// Starts connecting the next server of the pool.
    pub(super) fn connect(&mut self, slot: u32) {
        let token = self.token(slot, KIND_UPSTREAM);
        loop {
            let connection = &mut self.table[slot];
            let Some(epoch) = connection.epoch.as_ref() else { return };
            let pool_index = connection.pool;
            let pool = &epoch.snapshot.pools[pool_index];
            let picked = epoch.balancers.borrow_mut()[pool_index].pick(&connection.tried);
            let Some(picked) = picked else {
                self.no_backend(slot);
                return;
            };
            connection.tried.insert(picked);
            match self.driver.connect(&pool.backends[picked].endpoint, token) {
                Ok(socket) => {
                    epoch.balancers.borrow_mut()[pool_index].opened(picked);
                    connection.upstream = Some(socket);
                    connection.backend = Some(picked);
                    connection.connect_timed_out = false;
                    connection.in_flight += 1;
                    self.metrics.upstream_connections.increment();
                    self.timers.arm(&mut self.table, slot, TimerClass::Connect, self.now);
                    return;
                }
                Err(error) => {
                    self.metrics.upstream_failed.increment();
                    epoch.balancers.borrow()[pool_index].counts(picked).failed.increment();
                    connection.connect_error = Some(error);
                }
            }
        }
    }

    pub(super) fn connect_timed_out(&mut self, slot: u32) {
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
            Ok(()) => {
                self.metrics.upstream_connected.increment();
                connection.count_of_server(|counts| counts.connected.increment());
                connection.phase = Phase::Relaying;
                self.begin_relay(slot);
            }
            Err(error) => {
                let error =
                    if connection.connect_timed_out { Errno(libc::ETIMEDOUT) } else { error };
                self.metrics.upstream_failed.increment();
                connection.count_of_server(|counts| counts.failed.increment());
                connection.connect_error = Some(error);
                self.close_upstream(slot);
                self.connect(slot);
            }
        }
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
            }));
        }
        self.fail_session(slot, AlertDescription::InternalError, EndReason::NoBackend);
    }
}
