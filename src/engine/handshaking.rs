//! From the first byte to the established session.
//!
//! ```text
//!   ClientHello in a pool buffer ── scan ── route ── admit ── credit? ──▶ task to a worker
//!                                             └─▶ passing.rs, or refused
//!        flight to the client ◀── result ──┘             no ──▶ parked
//!        more input ──▶ task to a worker … established ──▶ connecting.rs
//! ```

use super::Engine;
use super::backlog::NameCell;
use super::connection::{ClientWrite, Phase, TimerClass};
use super::events::{Event, HandshakeFailed};
use super::metrics::{EndReason, ShedCause};
use super::sources::Source;
use crate::driver::{BUFFER_BYTES, BUFFER_HEADROOM_BYTES, Driver};
use crate::handshake::{
    CostClass, FailureReason, HandshakeFailure, HandshakeService, ShedReason, StepOutcome, Task,
};
use crate::routing::Action;
use crate::tls::client_hello::{self, ClientHello, Ja4, Scan};
use crate::tls::policy::KeyKind;
use crate::tls::record::{HEADER_BYTES_MAX, RecordSizer, SMALL_STEP_IDLE_DEFAULT};
use crate::tls::server_name::ServerName;
use crate::tls::{Refusal, Version};

/// A larger ticket would not fit in front of the first data, and leaves at once.
const TICKET_BYTES_MAX: usize = BUFFER_HEADROOM_BYTES - HEADER_BYTES_MAX;

/// What the log says of a client that is refused, beside where it comes from.
#[derive(Debug, Default)]
struct Who {
    server_name: Option<Box<str>>,
    fingerprint: Option<Ja4>,
}

impl Who {
    fn of(hello: &ClientHello<'_>, wants_fingerprint: bool) -> Self {
        Self {
            server_name: hello.server_name.as_ref().map(|name| Box::from(name.as_str())),
            fingerprint: if wants_fingerprint { Ja4::of(hello) } else { None },
        }
    }
}

impl<D: Driver, H: HandshakeService> Engine<D, H> {
    pub(super) fn scan_client_hello(&mut self, slot: u32) {
        if self.table[slot].awaits_header && !self.read_proxy_header(slot) {
            return;
        }
        let connection = &self.table[slot];
        let Some(buffer) = &connection.inbound.buffer else { return };
        let received = &self.driver.bytes(buffer)[connection.inbound.cipher.clone()];
        match client_hello::scan(received, &mut self.scratch) {
            Scan::Incomplete if connection.inbound.cipher.end == BUFFER_BYTES => {
                self.refuse(slot, Refusal::TooLarge, Who::default());
            }
            Scan::Refused(refusal) => self.refuse(slot, refusal, Who::default()),
            Scan::Incomplete => self.receive_from_client(slot),
            Scan::Complete(hello) => {
                let (source, name) = (connection.source, hello.server_name);
                if let Err(cause) = self.sources.begin_handshake(source, self.now) {
                    self.shed(slot, cause);
                    return;
                }
                let Some(epoch) = connection.epoch.as_ref() else { return };
                let listener = &epoch.snapshot.listeners[usize::from(connection.listener)];
                // Who asks for no name may know us by address.
                let by_address =
                    hello.server_name.is_none() && listener.policy.chooses_by_address();
                let destination = match by_address {
                    true => connection.destination(&self.driver),
                    false => None,
                };
                let address = destination.map(|at| at.ip());
                match listener.way_of(connection.peer.ip(), address, &hello) {
                    Action::Forward { pool } => {
                        let connection = &mut self.table[slot];
                        connection.pool = pool;
                        // Kept for the handshake, and for the PROXY header.
                        connection.destination = connection.destination.or(destination);
                    }
                    Action::Passthrough { pool } => {
                        let wanted = epoch.snapshot.pools[pool].header.wants_fingerprint();
                        if let Some(fingerprint) = wanted.then(|| Ja4::of(&hello)).flatten() {
                            let noted = self.table[slot].noted.get_or_insert_default();
                            noted.fingerprint = Some(fingerprint);
                        }
                        self.pass_through(slot, name, pool);
                        return;
                    }
                    Action::Reject => {
                        let who = Who::of(&hello, self.handshakes.wants_fingerprints());
                        self.refuse(slot, Refusal::RejectedByRoute, who);
                        return;
                    }
                }
                let text = name.as_ref().map(ServerName::as_str);
                match self.backlog.limits(source, text, &self.sources) {
                    None => {
                        if self.backlog.is_scarce() && self.sources.owed(source).0.is_zero() {
                            self.crowding.came_within_share(self.now);
                        }
                        self.park(slot, TimerClass::Parked);
                    }
                    Some(_) if self.may_defer() => self.park(slot, TimerClass::Deferred),
                    Some(cause) => self.shed_named(slot, name, cause),
                }
            }
        }
    }

    /// Where everybody passes; whoever may begin at once is not kept.
    fn park(&mut self, slot: u32, class: TimerClass) {
        self.table[slot].phase = Phase::Parked;
        self.timers.arm(&mut self.table, slot, class, self.now);
        if class == TimerClass::Parked
            && self.may_begin_a_handshake()
            && self.is_alone_in_the_park(slot)
        {
            self.timers.disarm(&mut self.table, slot);
            self.begin_handshake(slot);
        }
    }

    /// Others had their share for as long as a handshake may take.
    pub(super) fn deferred_too_long(&mut self, slot: u32) {
        let connection = &self.table[slot];
        let Some(buffer) = &connection.inbound.buffer else { return };
        let received = &self.driver.bytes(buffer)[connection.inbound.cipher.clone()];
        let name = match client_hello::scan(received, &mut self.scratch) {
            Scan::Complete(hello) => hello.server_name,
            Scan::Incomplete | Scan::Refused(_) => None,
        };
        let text = name.as_ref().map(ServerName::as_str);
        let cause = self.backlog.limits(connection.source, text, &self.sources);
        self.shed_named(slot, name, cause.unwrap_or(ShedCause::SourceShare));
    }

    fn is_alone_in_the_park(&self, slot: u32) -> bool {
        self.timers.list(TimerClass::Parked).first() == Some(slot)
    }

    /// Hands the ClientHello to the workers. Only when one may begin.
    pub(super) fn begin_handshake(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let Some(buffer) = connection.inbound.buffer.take() else { return };
        let Some(epoch) = connection.epoch.as_ref() else { return };
        let listener = &epoch.snapshot.listeners[usize::from(connection.listener)];
        let destination = connection.destination.map(|at| at.ip());
        let received = &self.driver.bytes(&buffer)[connection.inbound.cipher.clone()];
        let admission = match client_hello::scan(received, &mut self.scratch) {
            Scan::Complete(hello) => match listener.policy.admit(&hello, destination) {
                Ok(admission) => Ok((admission, hello)),
                Err(refusal) => {
                    Err((refusal, Who::of(&hello, self.handshakes.wants_fingerprints())))
                }
            },
            Scan::Refused(refusal) => Err((refusal, Who::default())),
            // Parked connections were complete when they were parked.
            Scan::Incomplete => Err((Refusal::TooLarge, Who::default())),
        };
        match admission {
            Err((refusal, who)) => {
                connection.inbound.buffer = Some(buffer);
                self.refuse(slot, refusal, who);
            }
            Ok((admission, hello)) => {
                let mut task = self.credits.pop().expect("callers check that a credit is free");
                self.pace.count(self.now);
                task.slot = slot;
                task.generation = connection.generation;
                task.deadline = self.now.after(epoch.snapshot.timeouts.handshake);
                task.class = match (admission.symmetric_only, admission.key) {
                    (true, _) => CostClass::Resumption,
                    (false, KeyKind::EllipticCurve) => CostClass::EllipticCurve,
                    (false, KeyKind::Rsa) => CostClass::Rsa,
                };
                task.config = Some(admission.config);
                task.gate = admission.gate.cloned();
                task.choice = listener.choice_of(connection.peer.ip(), destination, &hello);
                task.verdict = listener.verdict_on(&hello, destination);
                task.certificate = Some(admission.certificate);
                let wants = |pool: usize| epoch.snapshot.pools[pool].header.wants_fingerprint();
                task.wants_fingerprint = self.handshakes.wants_fingerprints()
                    || wants(connection.pool)
                    || task.choice.as_ref().is_some_and(|choice| choice.numbers().any(wants));
                task.listener = connection.listener;
                hello.append_as_one_record(&mut task.input);
                task.input.extend_from_slice(&received[hello.stream_bytes..]);
                let name = &mut self.server_names[task.credit as usize];
                name.clear();
                if let Some(server_name) = &hello.server_name {
                    name.push_str(server_name.as_str());
                }
                task.server_name = hello.server_name;
                task.destination = destination;
                connection.phase = Phase::Handshaking;
                connection.inbound.cipher = 0..0;
                connection.task = Some(task);
                self.driver.release(buffer);
                self.timers.arm(&mut self.table, slot, TimerClass::Handshake, self.now);
                self.submit(slot);
                // While the worker computes, the next receive tells whether the client
                // is still there.
                if self.table[slot].phase == Phase::Handshaking {
                    self.receive_from_client(slot);
                }
            }
        }
    }

    /// Sends the alert if there is one, then closes.
    fn refuse(&mut self, slot: u32, refusal: Refusal, who: Who) {
        self.report_failure(slot, refusal.into(), who, refusal.to_string());
        self.release_inbound(slot);
        match (refusal.alert_record(), self.driver.take_buffer()) {
            (Some(alert), Some(buffer)) => {
                self.driver.bytes_mut(&buffer)[..alert.len()].copy_from_slice(&alert);
                self.send_to_client(slot, buffer, 0..alert.len(), ClientWrite::LastAlert);
                self.await_last_alert(slot, EndReason::HandshakeFailed);
            }
            (_, buffer) => {
                self.release(buffer);
                self.end(slot, EndReason::HandshakeFailed);
            }
        }
    }

    fn submit(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let Some(task) = connection.task.take() else { return };
        connection.flight_sent_bytes = 0;
        connection.at_worker = Some(task.credit);
        let name = self.server_names[task.credit as usize].as_str();
        let name = self.backlog.cell_of((!name.is_empty()).then_some(name));
        let (costs, source) = (task.class, connection.source);
        if let Err(task) = self.hand_to_workers(task, costs, source, name) {
            let connection = &mut self.table[slot];
            connection.at_worker = None;
            connection.task = Some(task);
            self.shed(slot, ShedCause::QueueFull);
        }
    }

    /// Hands a step to the workers, at the expense of a source and a name: one with a client, or
    /// with the server that it goes to.
    pub(super) fn hand_to_workers(
        &mut self,
        mut task: Box<Task>,
        costs: CostClass,
        source: Source,
        name: NameCell,
    ) -> Result<(), Box<Task>> {
        task.submitted = self.now;
        task.outcome = StepOutcome::Pending;
        let (class, credit) = (task.class, task.credit);
        self.backlog.charge(credit, costs, source, name, &mut self.sources);
        self.handshakes.submit(task).inspect_err(|_| {
            self.backlog.settle(credit, &mut self.sources);
            self.metrics.shed_queue_full[class as usize].increment();
        })
    }

    /// Bytes came from the client during the handshake.
    pub(super) fn handshake_input(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let Some(task) = connection.task.as_mut() else {
            // At a worker: the bytes wait in their buffer until it is back.
            return;
        };
        let Some(buffer) = connection.inbound.buffer.take() else { return };
        let received = &self.driver.bytes(&buffer)[connection.inbound.cipher.clone()];
        let fits = received.len() <= task.input_room_bytes();
        if fits {
            task.input.extend_from_slice(received);
        }
        connection.inbound.cipher = 0..0;
        self.driver.release(buffer);
        if !fits {
            self.handshake_failed(slot, FailureReason::Protocol, "flight too large".to_owned());
        } else if self.flight_is_sent(slot) {
            self.submit_if_ready(slot);
        }
    }

    /// Submits the next step if a whole record is there, else receives more.
    fn submit_if_ready(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let Some(task) = connection.task.as_ref() else { return };
        if task.holds_a_new_record() {
            self.submit(slot);
        } else {
            self.receive_from_client(slot);
        }
    }

    fn flight_is_sent(&self, slot: u32) -> bool {
        let connection = &self.table[slot];
        connection
            .task
            .as_ref()
            .is_some_and(|task| connection.flight_sent_bytes >= task.output.len())
    }

    /// A worker is done with a step.
    pub(super) fn handshake_result(&mut self, mut task: Box<Task>) {
        let slot = task.slot;
        self.backlog.settle(task.credit, &mut self.sources);
        if task.to_server.is_some() || matches!(task.outcome, StepOutcome::TicketKept) {
            self.server_step_done(task);
            return;
        }
        let connection = &mut self.table[slot];
        if connection.generation != task.generation || connection.at_worker != Some(task.credit) {
            // The connection ended while the worker had the task.
            task.reset();
            self.credits.push(task);
            return;
        }
        connection.at_worker = None;
        connection.flight_sent_bytes = 0;
        let shed = match &task.outcome {
            StepOutcome::Shed(reason) => Some(*reason),
            _ => None,
        };
        connection.task = Some(task);
        match shed {
            Some(ShedReason::ClientGone) => {
                self.handshake_failed(slot, FailureReason::ClientGone, String::new());
            }
            Some(reason @ (ShedReason::QueueFull | ShedReason::Expired | ShedReason::Stopping)) => {
                self.shed(slot, reason.into());
            }
            None => self.continue_flight(slot),
        }
    }

    /// Hands the next part of the flight to the kernel; after the last part goes on as
    /// the step's outcome says, without waiting for the send.
    pub(super) fn continue_flight(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let Some(task) = connection.task.as_mut() else { return };
        let flight = &task.output[connection.flight_sent_bytes..];
        if !flight.is_empty() && !self.keep_ticket(slot) {
            let connection = &mut self.table[slot];
            let Some(task) = connection.task.as_mut() else { return };
            let flight = &task.output[connection.flight_sent_bytes..];
            if connection.client_write != ClientWrite::None {
                // The client has answered the last flight before its send was reported:
                // that report comes back here.
                return;
            }
            let Some(buffer) = self.driver.take_buffer() else {
                self.want_buffer(slot, |wanted| wanted.write = true);
                return;
            };
            let part = flight.len().min(BUFFER_BYTES);
            self.driver.bytes_mut(&buffer)[..part].copy_from_slice(&flight[..part]);
            connection.flight_sent_bytes += part;
            let last = connection.flight_sent_bytes == task.output.len();
            let failed = matches!(task.outcome, StepOutcome::Failed(_));
            let write = if last && failed { ClientWrite::LastAlert } else { ClientWrite::Flight };
            self.send_to_client(slot, buffer, 0..part, write);
            if !last {
                return;
            }
        }
        let Some(task) = self.table[slot].task.as_mut() else { return };
        match std::mem::take(&mut task.outcome) {
            StepOutcome::Established(session) => {
                task.outcome = StepOutcome::Established(session);
                self.establish(slot);
            }
            StepOutcome::Failed(HandshakeFailure { reason, detail }) => {
                self.report_failure(slot, reason, Who::default(), detail);
                if self.table[slot].client_write == ClientWrite::LastAlert {
                    self.await_last_alert(slot, EndReason::HandshakeFailed);
                } else {
                    self.end(slot, EndReason::HandshakeFailed);
                }
            }
            StepOutcome::NeedsInput
            | StepOutcome::Pending
            | StepOutcome::Shed(_)
            | StepOutcome::ServerFailed(_)
            | StepOutcome::TicketKept => {
                task.output.clear();
                self.table[slot].flight_sent_bytes = 0;
                if self.table[slot].inbound.buffer.is_some() {
                    self.handshake_input(slot);
                } else {
                    self.submit_if_ready(slot);
                }
            }
        }
    }

    /// Keeps what the last step wants to say for the first data, if nobody waits for it: a
    /// send and a packet less for each connection. In TLS 1.3 it is a session ticket
    /// (RFC 8446 section 4.6.1); in TLS 1.2 the client's own first data waits for it.
    fn keep_ticket(&mut self, slot: u32) -> bool {
        let connection = &mut self.table[slot];
        let (Some(task), Some(epoch)) = (connection.task.as_mut(), &connection.epoch) else {
            return false;
        };
        let StepOutcome::Established(session) = &task.outcome else { return false };
        if session.facts.version != Version::Tls13
            || connection.flight_sent_bytes > 0
            || task.output.len() > TICKET_BYTES_MAX
            || epoch.snapshot.timeouts.first_data_wait.is_zero()
        {
            return false;
        }
        let Some(buffer) = self.driver.take_buffer() else { return false };
        self.driver.bytes_mut(&buffer)[..task.output.len()].copy_from_slice(&task.output);
        connection.outbound.ticket = Some(buffer);
        connection.outbound.ticket_bytes = task.output.len();
        task.output.clear();
        true
    }

    /// The session stands: ciphertext left over goes into a pool buffer, the credit goes
    /// back, the upstream connection begins.
    fn establish(&mut self, slot: u32) {
        let connection = &mut self.table[slot];
        let Some(task) = connection.task.as_mut() else { return };
        if !task.input.is_empty() {
            let Some(buffer) = self.driver.take_buffer() else {
                self.want_buffer(slot, |wanted| wanted.write = true);
                return;
            };
            let end = BUFFER_HEADROOM_BYTES + task.input.len();
            self.driver.bytes_mut(&buffer)[BUFFER_HEADROOM_BYTES..end].copy_from_slice(&task.input);
            debug_assert!(connection.inbound.buffer.is_none(), "no receive during the last step");
            connection.inbound.buffer = Some(buffer);
            connection.inbound.cipher = BUFFER_HEADROOM_BYTES..end;
        }
        let Some(mut task) = connection.task.take() else { return };
        if let StepOutcome::Established(session) = std::mem::take(&mut task.outcome) {
            connection.session = Some(session);
        }
        let verdict = task.verdict;
        task.reset();
        self.credits.push(task);
        let (Some(session), Some(epoch)) = (&mut connection.session, &connection.epoch) else {
            return;
        };
        let took = self.now.since(connection.accepted);
        if let Some(verdict) = verdict {
            let listener = &epoch.snapshot.listeners[usize::from(connection.listener)];
            let name = session.facts.server_name.as_deref();
            listener.count_verdict(epoch.engine, name, verdict);
        }
        let records = epoch.snapshot.records;
        connection.sizer = RecordSizer::new(SMALL_STEP_IDLE_DEFAULT, records.small_bytes);
        connection.phase = Phase::Connecting;
        connection.header_due = true;
        if let Some(counter) = self.metrics.handshake(&session.facts) {
            counter.increment();
        }
        session.handshake_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if let Some(pool) = session.choice {
            connection.pool = pool;
        }
        if session.client.is_some() {
            let resumed = usize::from(session.facts.resumed);
            self.metrics.client_certificates[resumed].increment();
        }
        self.sources.complete_handshake(connection.source);
        self.metrics.handshake_time.record(took);
        self.metrics.established.increment();
        // Whoever looked through the table may not have seen this one.
        self.end_if_refused(slot);
        if self.table[slot].phase == Phase::Ending {
            return;
        }
        self.begin_connecting(slot);
        if matches!(self.table[slot].phase, Phase::Connecting) {
            if self.table[slot].inbound.buffer.is_some() {
                self.open_records(slot);
            } else {
                self.receive_from_client(slot);
            }
        }
    }

    /// The client closed or reset before the session stood.
    pub(super) fn client_left(&mut self, slot: u32) {
        let connection = &self.table[slot];
        if connection.phase == Phase::ClientHello && connection.inbound.cipher.is_empty() {
            // A health check or a spare connection of a browser: not a failure.
            self.end(slot, EndReason::Finished);
        } else {
            self.handshake_failed(slot, FailureReason::ClientGone, String::new());
        }
    }

    pub(super) fn client_hello_timed_out(&mut self, slot: u32) {
        if self.table[slot].inbound.cipher.is_empty() && !self.table[slot].inbound.receiving {
            // Waits for a buffer: our fault, not the client's, but the outcome is one.
            self.shed(slot, ShedCause::NoBuffer);
        } else {
            self.handshake_failed(slot, FailureReason::ClientHelloTimeout, String::new());
        }
    }

    pub(super) fn handshake_timed_out(&mut self, slot: u32) {
        self.handshake_failed(slot, FailureReason::Timeout, String::new());
    }

    /// Counts and reports a failed handshake.
    fn report_failure(&mut self, slot: u32, reason: FailureReason, who: Who, detail: String) {
        self.metrics.failures[reason as usize].increment();
        let connection = &self.table[slot];
        let Some(epoch) = &connection.epoch else { return };
        let credit = connection.at_worker.or(connection.task.as_ref().map(|task| task.credit));
        let Who { server_name, fingerprint } = who;
        let of_task = connection.task.as_ref().and_then(|task| task.fingerprint);
        let server_name = server_name.or_else(|| {
            let name = self.server_names[credit? as usize].as_str();
            (!name.is_empty()).then(|| Box::from(name))
        });
        self.events.report(Event::HandshakeFailed(HandshakeFailed {
            peer: connection.peer,
            listener: epoch.snapshot.listeners[usize::from(connection.listener)].name.clone(),
            server_name,
            fingerprint: fingerprint.or(of_task),
            reason,
            detail,
        }));
    }

    pub(super) fn handshake_failed(&mut self, slot: u32, reason: FailureReason, detail: String) {
        self.report_failure(slot, reason, Who::default(), detail);
        self.end(slot, EndReason::HandshakeFailed);
    }

    /// Closes a connection on which nothing has been spent: by a reset, which costs
    /// neither side anything more.
    pub(super) fn shed(&mut self, slot: u32, cause: ShedCause) {
        self.shed_named(slot, None, cause);
    }

    fn shed_named(&mut self, slot: u32, name: Option<ServerName>, cause: ShedCause) {
        self.count_shed(self.table[slot].source, name, cause);
        self.abort(slot, EndReason::Shed);
    }
}
