//! TLS with the server behind, as its client: the handshake, once TCP stands.
//!
//! ```text
//!   connected ── credit? ──▶ task to a worker ──▶ PROXY header + flight to the server
//!                  │ no            ▲                       │
//!                waits          receive ◀── more input ────┤
//!                                                established ──▶ server_records.rs
//!                                                  failed ─────▶ the next server
//! ```
//!
//! Its steps run in the class *continuation*: the client's handshake has been paid for, and
//! would be for nothing. Its credit is one of the clients', and nobody who holds one waits
//! for another. A credit that comes free goes to a connection that waits here before it
//! goes to a new client; servers that are slow to answer hold half of the credits at most,
//! so that clients of other pools go on. A step is counted against its client as what it
//! costs: the key exchange of both sides, like a client's first.
//!
//! What the engine calls here and in `server_records.rs` is kept out of line: in its loop it
//! would cost those connections that have no TLS behind.
//!
//! The timer is that of connecting, for connection and handshake together. There is one
//! operation on the server's socket at a time.

use std::ops::Range;

use super::Engine;
use super::connection::{Phase, Through, UpstreamWrite};
use super::events::{Event, ServerHandshakeFailed};
use crate::driver::{BUFFER_BYTES, BUFFER_HEADROOM_BYTES, Buffer, Driver, Errno};
use crate::handshake::{
    CostClass, Established, HandshakeService, ServerFailure, ServerFailureReason, StepOutcome,
    Task, ToServer,
};
use crate::proxy_protocol::ProxyProtocol;

/// One connection's TLS with its server.
#[derive(Debug, Default)]
pub(super) struct ServerTls {
    /// The credit, while no worker has it.
    pub task: Option<Box<Task>>,
    /// The credit's number, while a worker has it.
    pub at_worker: Option<u32>,
    /// Bytes of the task's flight already handed to the kernel.
    pub flight_sent_bytes: usize,
    /// The session, once it stands.
    pub session: Option<Box<Established>>,
    /// What a session ticket needs, until one or the first data comes.
    pub awaits_ticket: Option<Box<ToServer>>,
    /// The buffer of `cipher`, while it is not with an operation, and not
    /// `outbound.buffer`.
    pub buffer: Option<Buffer>,
    /// Ciphertext from the server that is not opened yet.
    pub cipher: Range<usize>,
    /// Bytes that the record at the start of `cipher` needs in all.
    pub record_bytes: usize,
    /// The server wants a KeyUpdate before the next data.
    pub key_update_due: bool,
    /// The client ended its stream without close_notify: neither does the server get one.
    pub client_cut_short: bool,
    /// Why the last server's handshake failed.
    pub failure: Option<ServerFailureReason>,
}

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    /// The server is connected, and is to be spoken TLS with.
    #[inline(never)]
    pub(super) fn begin_server_handshake(&mut self, slot: u32) {
        self.credit_waiters.push(&mut self.table, slot);
        self.serve_credit_waiters();
    }

    /// Whether a free credit is for the handshake with a server before it is for a client.
    pub(super) fn credit_is_for_a_server(&self) -> bool {
        self.credit_waiters.first().is_some()
            && self.server_handshakes < self.limits.credits.div_ceil(2)
    }

    /// Gives free credits to those who wait for one here, first come first served.
    pub(super) fn serve_credit_waiters(&mut self) {
        if self.credit_waiters.first().is_some() {
            self.give_credits_to_waiters();
        }
    }

    #[inline(never)]
    fn give_credits_to_waiters(&mut self) {
        while self.credit_is_for_a_server()
            && let Some(slot) = self.credit_waiters.first()
            && let Some(task) = self.credits.pop()
        {
            self.credit_waiters.remove(&mut self.table, slot);
            self.server_handshakes += 1;
            self.take_first_server_step(slot, task);
        }
    }

    fn take_first_server_step(&mut self, slot: u32, mut task: Box<Task>) {
        let connection = &mut self.table[slot];
        let begun = connection.epoch.as_ref().and_then(|epoch| {
            let pool = &epoch.snapshot.pools[connection.pool];
            let facts = &connection.session.as_ref()?.facts;
            let to_servers = pool.tls.as_ref()?;
            let (config, name) =
                to_servers.begin(connection.backend?, facts.server_name.as_deref())?;
            task.deadline = connection.timer_armed.after(epoch.snapshot.timeouts.connect);
            connection.header_due = pool.proxy_protocol != ProxyProtocol::None;
            Some(ToServer::new(config, name, facts.alpn.clone()))
        });
        let Some(to_server) = begun else {
            self.give_server_credit_back(task);
            let detail = "there is no name to ask the server for".to_owned();
            let reason = ServerFailureReason::Internal;
            self.server_handshake_failed(slot, ServerFailure { reason, detail });
            return;
        };
        task.slot = slot;
        task.generation = connection.generation;
        task.class = CostClass::Continuation;
        task.to_server = Some(Box::new(to_server));
        if let Some(tls) = &mut connection.server_tls {
            tls.task = Some(task);
        }
        self.submit_server_step(slot);
    }

    fn submit_server_step(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let Some(tls) = &mut connection.server_tls else { return };
        let Some(task) = tls.task.take() else { return };
        tls.flight_sent_bytes = 0;
        tls.at_worker = Some(task.credit);
        if let Err(task) = self.submit_for_server(slot, task) {
            if let Some(tls) = &mut self.table[slot].server_tls {
                tls.at_worker = None;
                tls.task = Some(task);
            }
            self.server_handshake_failed(slot, ServerFailureReason::Shed.into());
        }
    }

    /// Hands a task to the workers, at the expense of the connection's source and name.
    fn submit_for_server(&mut self, slot: u32, task: Box<Task>) -> Result<(), Box<Task>> {
        let connection = &self.table[slot];
        let name =
            connection.session.as_ref().and_then(|session| session.facts.server_name.as_deref());
        // Each of the two steps has half a key exchange, or the checks of a certificate.
        let costs = match task.to_server.as_ref().is_some_and(|to_server| to_server.awaits_ticket())
        {
            true => CostClass::Continuation,
            false => CostClass::EllipticCurve,
        };
        let (source, name) = (connection.source, self.backlog.cell_of(name));
        self.hand_to_workers(task, costs, source, name)
    }

    /// Has a worker put a session ticket away; nobody waits for it.
    pub(super) fn keep_server_ticket(&mut self, slot: u32, mut task: Box<Task>) {
        self.server_handshakes += 1;
        let connection = &self.table[slot];
        task.slot = slot;
        task.generation = connection.generation;
        task.class = CostClass::Continuation;
        if let Some(epoch) = &connection.epoch {
            task.deadline = self.now.after(epoch.snapshot.timeouts.connect);
        }
        if let Err(task) = self.submit_for_server(slot, task) {
            self.give_server_credit_back(task);
        }
    }

    fn give_server_credit_back(&mut self, mut task: Box<Task>) {
        task.reset();
        self.credits.push(task);
        self.server_handshakes -= 1;
    }

    /// A worker is done with a step towards a server, or with its ticket.
    #[inline(never)]
    pub(super) fn server_step_done(&mut self, task: Box<Task>) {
        let slot = task.slot;
        let connection = &mut self.table[slot];
        let current = connection.generation == task.generation;
        let tls = connection.server_tls.as_mut().filter(|_| current);
        let Some(tls) = tls.filter(|tls| tls.at_worker == Some(task.credit)) else {
            // A ticket, or the connection has ended or has another server since.
            self.give_server_credit_back(task);
            return;
        };
        tls.at_worker = None;
        let shed = matches!(task.outcome, StepOutcome::Shed(_));
        tls.task = Some(task);
        if shed {
            self.server_handshake_failed(slot, ServerFailureReason::Shed.into());
        } else {
            self.continue_server_flight(slot);
        }
    }

    /// Sends the next part of the flight, the PROXY header in front of all; when it is sent,
    /// goes on as the step's outcome says.
    #[inline(never)]
    pub(super) fn continue_server_flight(&mut self, slot: u32) {
        let connection = &self.table[slot];
        let Some(tls) = &connection.server_tls else { return };
        let Some(task) = &tls.task else { return };
        if connection.upstream_operations() > 0 {
            // Its completion comes back here.
            return;
        }
        if tls.flight_sent_bytes < task.output.len() {
            self.send_server_flight(slot);
            return;
        }
        let connection = &mut self.table[slot];
        let timed_out = connection.connect_timed_out;
        let Some(tls) = &mut connection.server_tls else { return };
        let Some(task) = &mut tls.task else { return };
        task.output.clear();
        tls.flight_sent_bytes = 0;
        match std::mem::take(&mut task.outcome) {
            StepOutcome::Established(session) => self.server_session_stands(slot, session),
            StepOutcome::ServerFailed(failure) => self.server_handshake_failed(slot, failure),
            // Its cancellation came when a send had just succeeded.
            _ if timed_out => self.server_left(slot),
            _ if task.holds_a_new_record() => self.submit_server_step(slot),
            _ => self.receive_from_upstream(slot),
        }
    }

    fn send_server_flight(&mut self, slot: u32) {
        let Some(buffer) = self.driver.take_buffer() else {
            self.want_buffer(slot, |wanted| wanted.write = true);
            return;
        };
        let header_bytes = match self.table[slot].header_due {
            true => self.write_proxy_header(slot),
            false => 0,
        };
        let connection = &mut self.table[slot];
        connection.header_due = false;
        let Some(tls) = &mut connection.server_tls else { return };
        let Some(task) = &tls.task else { return };
        let flight = &task.output[tls.flight_sent_bytes..];
        let part = flight.len().min(BUFFER_BYTES - header_bytes);
        let bytes = self.driver.bytes_mut(&buffer);
        bytes[..header_bytes].copy_from_slice(&self.proxy_header[..header_bytes]);
        bytes[header_bytes..header_bytes + part].copy_from_slice(&flight[..part]);
        tls.flight_sent_bytes += part;
        self.send_to_upstream(slot, buffer, 0..header_bytes + part, UpstreamWrite::Flight);
    }

    /// A part of the flight was sent, or could not be.
    #[inline(never)]
    pub(super) fn server_flight_sent(&mut self, slot: u32, result: Result<usize, Errno>) {
        match result {
            Ok(_) => self.continue_server_flight(slot),
            Err(_) => self.server_left(slot),
        }
    }

    /// Bytes came from the server during the handshake, or its end.
    #[inline(never)]
    pub(super) fn server_flight_received(
        &mut self,
        slot: u32,
        result: Result<usize, Errno>,
        buffer: Option<Buffer>,
    ) {
        let Some(tls) = &mut self.table[slot].server_tls else {
            self.release(buffer);
            return;
        };
        if let (Ok(count @ 1..), Some(buffer), Some(task)) = (result, &buffer, &mut tls.task) {
            let received = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES + count;
            task.input.extend_from_slice(&self.driver.bytes(buffer)[received]);
        }
        self.release(buffer);
        match result {
            Ok(1..) => self.continue_server_flight(slot),
            Err(Errno(libc::ENOBUFS)) => self.want_buffer(slot, |wanted| wanted.outbound = true),
            Ok(_) | Err(_) => self.server_left(slot),
        }
    }

    /// The server, or our patience, ended the connection in the middle of the handshake.
    fn server_left(&mut self, slot: u32) {
        let reason = match self.table[slot].connect_timed_out {
            true => ServerFailureReason::Timeout,
            false => ServerFailureReason::Closed,
        };
        self.server_handshake_failed(slot, reason.into());
    }

    /// The time for connection and handshake is over. `false` if an operation has to end
    /// first.
    #[inline(never)]
    pub(super) fn server_handshake_timed_out(&mut self, slot: u32) -> bool {
        let connection = &self.table[slot];
        if connection.server_tls.is_none() || connection.upstream_operations() > 0 {
            return false;
        }
        self.server_handshake_failed(slot, ServerFailureReason::Timeout.into());
        true
    }

    /// Reports why there is no session with this server, and goes on to the next one. The
    /// client has lost nothing but time: no byte of it was sent.
    fn server_handshake_failed(&mut self, slot: u32, failure: ServerFailure) {
        let reason = failure.reason;
        self.metrics.upstream_failed.increment();
        self.let_go_of_server(slot);
        self.report_server_failure(slot, failure, true);
        let connection = &mut self.table[slot];
        if !matches!(reason, ServerFailureReason::Shed | ServerFailureReason::Internal) {
            // Not for what is no fault of the server's.
            connection.count_of_server(|counts| counts.failed.increment());
        }
        connection.connect_error = None;
        if let Some(tls) = &mut connection.server_tls {
            tls.failure = Some(reason);
        }
        self.close_upstream(slot);
        self.connect(slot);
    }

    /// Counts why there is no session with the server, and has it logged.
    pub(super) fn report_server_failure(
        &mut self,
        slot: u32,
        failure: ServerFailure,
        next_is_tried: bool,
    ) {
        let ServerFailure { reason, detail } = failure;
        self.metrics.server_handshake_failures[reason as usize].increment();
        let connection = &self.table[slot];
        if let (Some(epoch), Some(backend)) = (&connection.epoch, connection.backend) {
            let pool = &epoch.snapshot.pools[connection.pool];
            self.events.report(Event::ServerHandshakeFailed(ServerHandshakeFailed {
                pool: pool.name.clone(),
                backend: pool.backends[backend].name.clone(),
                reason,
                detail,
                next_is_tried,
            }));
        }
    }

    /// Gives back everything that the handshake or the session with the server holds.
    #[inline(never)]
    pub(super) fn let_go_of_server(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let Some(tls) = &mut connection.server_tls else { return };
        tls.session = None;
        tls.awaits_ticket = None;
        let (task, at_worker, buffer) = (tls.task.take(), tls.at_worker.take(), tls.buffer.take());
        if connection.links[Through::CreditWait as usize].is_linked() {
            self.credit_waiters.remove(&mut self.table, slot);
        }
        if let Some(credit) = at_worker {
            self.handshakes.abandon(credit);
        }
        if let Some(task) = task {
            self.give_server_credit_back(task);
        }
        self.release(buffer);
    }

    /// The session stands: what the server has sent behind its Finished goes into a pool
    /// buffer, the credit goes back, the relay begins.
    fn server_session_stands(&mut self, slot: u32, session: Box<Established>) {
        let connection = &mut self.table[slot];
        let Some(tls) = &mut connection.server_tls else { return };
        let Some(mut task) = tls.task.take() else { return };
        if !task.input.is_empty() {
            let Some(buffer) = self.driver.take_buffer() else {
                task.outcome = StepOutcome::Established(session);
                tls.task = Some(task);
                self.want_buffer(slot, |wanted| wanted.write = true);
                return;
            };
            tls.cipher = BUFFER_HEADROOM_BYTES..BUFFER_HEADROOM_BYTES + task.input.len();
            self.driver.bytes_mut(&buffer)[tls.cipher.clone()].copy_from_slice(&task.input);
            tls.buffer = Some(buffer);
        }
        tls.awaits_ticket = task.to_server.take().filter(|to_server| to_server.awaits_ticket());
        self.metrics.server_handshakes[usize::from(session.facts.resumed)].increment();
        tls.session = Some(session);
        self.give_server_credit_back(task);
        self.server_stands(slot);
        if self.table[slot].phase == Phase::Relaying {
            self.open_server_records(slot);
        }
    }
}
