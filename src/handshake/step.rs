//! One step of one handshake: the client's bytes in, our flight out. Sans-I/O.
//!
//! ```text
//!   task.input   ┌─ needed still ─┬─ next record ─┬─ … ─┐      rustls       task.output
//!                └────────────────┴───────────────┴─────┘ ─▶ (unbuffered) ─▶ one flight
//!                 a handshake message   fed one at
//!                 without its end       a time
//! ```
//!
//! **Records are fed one by one**, the next only when rustls asks for more. What a
//! client sends right behind its Finished is therefore never decrypted here: it stays
//! in the input, byte for byte, for our own record layer, whose sequence numbers start
//! where rustls' ended.
//!
//! **After an error rustls is fed nothing more**: it is asked only for the alert that it
//! has queued (its next state is to encode it, before it looks at any input).
//!
//! May know: rustls, the record layer, traffic secrets, who decides on clients, the time
//! as rustls sees it. Must not know: threads, queues.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{AlertDescription, CommonState, Error, ExtractedSecrets, HandshakeKind};

use super::{
    CostClass, Established, FailureReason, HandshakeFailure, SessionFacts, StepOutcome, Task,
    to_server,
};
use crate::tls::certificates::CertificateKind;
use crate::tls::client_auth::{Client, Entrance, Gate};
use crate::tls::client_hello::{ClientHello, Ja4};
use crate::tls::record::{
    CONTROL_RECORD_BYTES_MAX, DirectionKeys, HEADER_BYTES, KeysError, Opener, Sealer,
};
use crate::tls::secrets::{self, TrafficSecrets};
use crate::tls::server_name::ServerName;
use crate::tls::signed_with;
use crate::tls::tickets::{unix_seconds, uses};
use crate::tls::{CryptoLibrary, Refusal, Version, destination};

/// Takes the handshake of `task` as far as its input allows, and says in
/// [`Task::outcome`] what came of it. `library` will do the record cryptography.
///
/// The first step takes [`Task::config`]; the configuration's key log must be
/// [`secrets::CaptureSecrets`] and its secret extraction enabled. With
/// [`Task::to_server`] we are the client, and [`to_server`] takes the step.
pub fn step(task: &mut Task, library: CryptoLibrary) {
    if task.to_server.is_some() {
        to_server::step(task, library);
        return;
    }
    task.outcome = match advance(task) {
        Ok(Progress::NeedsInput) => StepOutcome::NeedsInput,
        Ok(Progress::Done) => match establish(task, library) {
            Ok(established) => StepOutcome::Established(Box::new(established)),
            Err(failure) => StepOutcome::Failed(failure),
        },
        Err(failure) => StepOutcome::Failed(failure),
    };
    if !matches!(task.outcome, StepOutcome::NeedsInput) {
        task.state = None;
        task.secrets = None;
        task.fed_bytes = 0;
    }
}

/// How far the handshake is, if it has not failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    NeedsInput,
    Done,
}

/// Why [`drive`] stopped before the handshake was done.
#[derive(Debug)]
pub(super) enum Stop {
    /// rustls gave up.
    Tls {
        /// Its reason.
        error: rustls::Error,
        /// Whether the version was negotiated, hence the ClientHello answered.
        answered: bool,
    },
    /// The peer sent close_notify.
    Closed,
    /// Something on our side.
    Internal(String),
}

impl From<Stop> for HandshakeFailure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Tls { error, answered } => Self::classify(&error, answered),
            Stop::Closed => Self {
                reason: FailureReason::ClientGone,
                detail: "the client sent close_notify during the handshake".into(),
            },
            Stop::Internal(detail) => Self::internal(detail),
        }
    }
}

/// What rustls' connections of either side have in common, for which it has no trait.
pub(super) trait Unbuffered {
    /// rustls' mark of the side.
    type Data;

    /// Shows rustls the bytes that have come.
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What it tells of the connection.
    fn common(&self) -> &CommonState;
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// Feeds rustls until it needs bytes that have not arrived or the handshake is done.
fn advance(task: &mut Task) -> Result<Progress, HandshakeFailure> {
    if task.state.is_none() {
        let config = task.config.take().ok_or_else(|| {
            HandshakeFailure::internal("a first step was submitted without a configuration")
        })?;
        if task.wants_fingerprint {
            let hello = ClientHello::of_one_record(&task.input);
            task.fingerprint = hello.and_then(|hello| Ja4::of(&hello));
        }
        let connection = UnbufferedServerConnection::new(config)
            .map_err(|error| HandshakeFailure::classify(&error, false))?;
        task.state = Some(Box::new(connection));
    }
    let Some(connection) = task.state.as_deref_mut() else {
        return Err(HandshakeFailure::internal("the connection was made a line above"));
    };
    destination::set(task.destination);
    let kind_before = connection.handshake_kind();
    let output_bytes_before = task.output.len();
    let mut window = Window::new(&mut task.input, task.fed_bytes);
    let result = drive(connection, &mut window, &mut task.output).map_err(HandshakeFailure::from);
    task.fed_bytes = window.finish();
    // On every way out: what stays behind would be taken for the next client's.
    task.secrets = secrets::take().or(task.secrets.take());
    task.signature_scheme = signed_with::take().or(task.signature_scheme);

    uses::resumed(connection.handshake_kind() == Some(HandshakeKind::Resumed));

    let answered = task.output.len() > output_bytes_before;
    // A HelloRetryRequest answers without a key exchange: the second ClientHello will
    // cost what the first was expected to.
    let retry = kind_before.is_none()
        && connection.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest);
    if answered && !retry {
        task.class = CostClass::Continuation;
    }

    // The engine may append nothing more, and rustls cannot go on without: an end.
    if result == Ok(Progress::NeedsInput) && task.input.len() >= Task::INPUT_BYTES_MAX {
        if connection.protocol_version().is_none() {
            task.output.extend(Refusal::TooLarge.alert_record().into_iter().flatten());
            return Err(Refusal::TooLarge.into());
        }
        return Err(HandshakeFailure {
            reason: FailureReason::Protocol,
            detail: format!("a handshake message needs over {} bytes", Task::INPUT_BYTES_MAX),
        });
    }
    result
}

/// The loop around rustls.
pub(super) fn drive<C: Unbuffered>(
    connection: &mut C,
    window: &mut Window<'_>,
    output: &mut Vec<u8>,
) -> Result<Progress, Stop> {
    let output_bytes_max = output.len() + Task::OUTPUT_BYTES_MAX;
    loop {
        if !connection.common().is_handshaking() && !connection.common().wants_write() {
            return Ok(Progress::Done);
        }
        let UnbufferedStatus { discard, state } = connection.process(window.fed());
        let blocked = match state {
            Ok(ConnectionState::EncodeTlsData(mut chunk)) => {
                encode(&mut chunk, output, output_bytes_max)?;
                false
            }
            Ok(ConnectionState::TransmitTlsData(flight)) => {
                flight.done();
                false
            }
            // With `send_half_rtt_data`, rustls would already write while it still
            // waits for the client's Finished.
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => true,
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                return Err(Stop::Closed);
            }
            Ok(state) => {
                return Err(Stop::Internal(format!(
                    "unexpected state {state:?}: early data must not be enabled"
                )));
            }
            Err(error) => {
                let answered = connection.common().protocol_version().is_some();
                encode_alert(connection, output, output_bytes_max)?;
                return Err(Stop::Tls { error, answered });
            }
        };
        window.discard(discard);
        let common = connection.common();
        if blocked && !common.wants_write() && common.is_handshaking() && !window.extend() {
            return Ok(Progress::NeedsInput);
        }
    }
}

/// Appends what rustls has to say after an error.
///
/// It is given no input: queued records are handed out before any input is looked at,
/// and the handshake messages it may still remember are not in an empty slice.
fn encode_alert<C: Unbuffered>(
    connection: &mut C,
    output: &mut Vec<u8>,
    output_bytes_max: usize,
) -> Result<(), Stop> {
    while connection.common().wants_write() {
        match connection.process(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut chunk)) => {
                encode(&mut chunk, output, output_bytes_max)?;
            }
            _ => break,
        }
    }
    Ok(())
}

/// Appends one of rustls' records.
fn encode<Data>(
    chunk: &mut EncodeTlsData<'_, Data>,
    output: &mut Vec<u8>,
    output_bytes_max: usize,
) -> Result<(), Stop> {
    // Asking with no room is how rustls tells the size.
    let required_bytes = match chunk.encode(&mut []) {
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
            required_size
        }
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return Ok(()),
    };
    let start = output.len();
    if start + required_bytes > output_bytes_max {
        return Err(Stop::Internal(format!(
            "our flight is larger than {} bytes: shorten the certificate chain",
            Task::OUTPUT_BYTES_MAX
        )));
    }
    output.resize(start + required_bytes, 0);
    match chunk.encode(&mut output[start..]) {
        Ok(written) => output.truncate(start + written),
        Err(error) => {
            output.truncate(start);
            return Err(Stop::Internal(error.to_string()));
        }
    }
    Ok(())
}

/// Turns a finished handshake into plain data.
fn establish(task: &mut Task, library: CryptoLibrary) -> Result<Established, HandshakeFailure> {
    let Some(connection) = task.state.take() else {
        return Err(HandshakeFailure::internal("a finished handshake has no connection"));
    };
    let facts =
        session_facts(&connection, task.server_name, task.signature_scheme, task.certificate)?;
    let admitted = match &task.gate {
        Some(gate) => admit(gate, &connection, &facts, task.listener),
        None => Ok(None),
    };
    let (extracted, _) = connection
        .dangerous_into_kernel_connection()
        .map_err(|error| HandshakeFailure::internal(error.to_string()))?;
    // TLS 1.2 has no KeyUpdate, hence no use for what the hook may have caught.
    let traffic_secrets = match facts.version {
        Version::Tls12 => None,
        Version::Tls13 => Some(task.secrets.take().ok_or_else(|| {
            HandshakeFailure::internal(
                "the traffic secrets were not caught: the configuration has another key log",
            )
        })?),
    };
    let (client, server) = match &traffic_secrets {
        Some(TrafficSecrets { client, server }) => {
            (Some(client.as_bytes()), Some(server.as_bytes()))
        }
        None => (None, None),
    };
    let unusable = |error: KeysError| HandshakeFailure::internal(error.to_string());
    let (receive, send) =
        directions(extracted, facts.version, library, client, server).map_err(unusable)?;
    let opener = Opener::new(receive).map_err(unusable)?;
    let mut sealer = Sealer::new(send).map_err(unusable)?;
    match admitted {
        Ok(client) => {
            let choice = task.choice.as_ref().zip(client.as_ref());
            let choice = choice.and_then(|(choice, client)| choice.of(client));
            let fingerprint = task.fingerprint.map(Box::new);
            Ok(Established { opener, sealer, facts, client, choice, fingerprint, handshake_us: 0 })
        }
        Err(error) => {
            seal_alert(&mut sealer, alert_of(&error), &mut task.output);
            Err(HandshakeFailure::classify(&error, true))
        }
    }
}

/// rustls has verified a client that began a session; one that resumes it is held against
/// the authorities, lists and rules of today, before a byte of it is opened.
fn admit(
    gate: &Gate,
    connection: &UnbufferedServerConnection,
    facts: &SessionFacts,
    listener: u16,
) -> Result<Option<Arc<Client>>, Error> {
    let entrance = Entrance { listener, server_name: facts.server_name.clone() };
    let now = Duration::from_secs(unix_seconds());
    gate.admit(connection.peer_certificates(), facts.resumed, entrance, now)
}

/// What rustls would have sent, had the handshake not been done.
fn alert_of(error: &Error) -> AlertDescription {
    match error {
        Error::InvalidCertificate(error) => error.clone().into(),
        _ => AlertDescription::CertificateRequired,
    }
}

/// Appends a fatal alert behind what rustls had to say.
pub(super) fn seal_alert(sealer: &mut Sealer, alert: AlertDescription, output: &mut Vec<u8>) {
    let start = output.len();
    output.resize(start + CONTROL_RECORD_BYTES_MAX, 0);
    // Without one the peer learns from the end of the stream.
    let sealed_bytes = sealer.alert(alert, &mut output[start..]).unwrap_or(0);
    output.truncate(start + sealed_bytes);
}

/// The keys to receive and to send with, each with the secret of its direction.
pub(super) fn directions(
    extracted: ExtractedSecrets,
    version: Version,
    library: CryptoLibrary,
    receive_secret: Option<&[u8]>,
    send_secret: Option<&[u8]>,
) -> Result<(DirectionKeys, DirectionKeys), KeysError> {
    let direction = |(sequence, keys), secret| {
        DirectionKeys::from_rustls(keys, sequence, version, library, secret)
    };
    Ok((direction(extracted.rx, receive_secret)?, direction(extracted.tx, send_secret)?))
}

pub(super) fn session_facts(
    connection: &CommonState,
    server_name: Option<ServerName>,
    signature_scheme: Option<u16>,
    certificate: Option<CertificateKind>,
) -> Result<SessionFacts, HandshakeFailure> {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => Version::Tls12,
        Some(rustls::ProtocolVersion::TLSv1_3) => Version::Tls13,
        other => {
            return Err(HandshakeFailure::internal(format!("negotiated version {other:?}")));
        }
    };
    let suite = connection
        .negotiated_cipher_suite()
        .ok_or_else(|| HandshakeFailure::internal("no cipher suite was negotiated"))?;
    Ok(SessionFacts {
        version,
        cipher_suite: u16::from(suite.suite()),
        group: connection.negotiated_key_exchange_group().map(|group| u16::from(group.name())),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        signature_scheme,
        certificate,
        alpn: connection.alpn_protocol().map(Box::from),
        server_name: server_name.map(|name| Box::from(name.as_str())),
    })
}

/// The input as rustls is shown it.
///
/// ```text
///   0 ── consumed ──── start ──── needed still ──── end ──── next record ─ … ── len
/// ```
pub(super) struct Window<'a> {
    input: &'a mut Vec<u8>,
    /// Everything before was consumed.
    start: usize,
    /// Whole records before were shown to rustls.
    end: usize,
    /// What is shown: `end`, or the end of the input when its last record is partial.
    shown: usize,
}

impl<'a> Window<'a> {
    /// `fed_bytes` at the front were shown in an earlier step and are needed still.
    pub(super) fn new(input: &'a mut Vec<u8>, fed_bytes: usize) -> Self {
        let end = fed_bytes.min(input.len());
        Self { input, start: 0, end, shown: end }
    }

    /// What rustls is to look at.
    fn fed(&mut self) -> &mut [u8] {
        &mut self.input[self.start..self.shown]
    }

    /// rustls has no use for the first `bytes` of [`Self::fed`] any more.
    fn discard(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.shown);
        self.end = self.end.max(self.start);
    }

    /// Shows one record more. `false` if nothing has arrived that was not shown.
    fn extend(&mut self) -> bool {
        let shown_before = self.shown;
        let rest = &self.input[self.end..];
        let record_bytes = match rest {
            [_, _, _, high, low, ..] => {
                HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]))
            }
            _ => usize::MAX,
        };
        if record_bytes <= rest.len() {
            self.end += record_bytes;
            self.shown = self.end;
        } else {
            // rustls cannot decrypt part of a record, but it judges the header, so a
            // wrong one is refused without waiting for a body that may never come.
            self.shown = self.input.len();
        }
        self.shown > shown_before
    }

    /// Removes what was consumed; returns how much at the front is needed still.
    pub(super) fn finish(self) -> usize {
        self.input.drain(..self.start);
        self.end - self.start
    }
}

#[cfg(test)]
mod tests;
