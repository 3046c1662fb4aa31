//! One step of a handshake with a server behind, in which we are the client. Sans-I/O.
//!
//! The loop around rustls is that of [`super::step`]. What differs is who begins, that the
//! server must have chosen the application protocol which the client of the connection
//! has, and that session tickets come after the handshake: of TLS 1.3 they arrive when the
//! secrets have been taken, so what rustls needs to make a session of one is kept
//! (`ToServer::keep_ticket`). TLS 1.2 sends its ticket in the handshake.
//!
//! May know: rustls, the record layer, traffic secrets. Must not know: threads, queues,
//! clocks, pools.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};

use super::step::{Progress, Window, directions, drive, seal_alert, session_facts};
use super::{Established, HandshakeFailure, ServerFailure, ServerFailureReason, StepOutcome, Task};
use crate::tls::record::{KeysError, Opener, Sealer};
use crate::tls::{CryptoLibrary, Version, secrets, signed_with};

/// A handshake with a server, beside the [`Task`] whose buffers it works in.
pub struct ToServer {
    stage: Stage,
    /// The protocol that the client of the connection negotiated: all that is offered.
    protocol: Option<Box<[u8]>>,
}

enum Stage {
    /// Nothing was said.
    Begin(Arc<ClientConfig>, ServerName<'static>),
    /// Between its steps.
    Shaking(Box<UnbufferedClientConnection>),
    /// TLS 1.3: established, and waiting for a session ticket.
    Established(Box<KernelConnection<ClientConnectionData>>),
    /// There is no more to do.
    Over,
}

impl ToServer {
    /// A handshake with a server that is to prove to be `name`. `protocol` is what the
    /// client of the connection negotiated by ALPN.
    ///
    /// The configuration's key log must be [`secrets::CaptureSecrets`] and its secret
    /// extraction enabled.
    pub fn new(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        protocol: Option<Box<[u8]>>,
    ) -> Self {
        Self { stage: Stage::Begin(config, name), protocol }
    }

    /// Whether a session ticket of the server would be of use.
    pub fn awaits_ticket(&self) -> bool {
        matches!(self.stage, Stage::Established(_))
    }

    /// Puts a session ticket away for later connections: the body of a NewSessionTicket
    /// (RFC 8446 section 4.6.1). Takes a lock, so that it is for workers.
    fn keep_ticket(&mut self, body: &[u8]) {
        if let Stage::Established(mut connection) = std::mem::replace(&mut self.stage, Stage::Over)
        {
            // A ticket that is none costs a full handshake later, nothing now.
            if let Err(error) = connection.handle_new_session_ticket(body) {
                tracing::debug!(%error, "a server's session ticket cannot be used");
            }
        }
    }
}

impl fmt::Debug for ToServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Begin(..) => "begin",
            Stage::Shaking(_) => "shaking",
            Stage::Established(_) => "established",
            Stage::Over => "over",
        };
        formatter.debug_struct("ToServer").field("stage", &stage).finish_non_exhaustive()
    }
}

/// Takes the handshake of `task` as far as its input allows, or puts away the session
/// ticket in it.
pub(super) fn step(task: &mut Task, library: CryptoLibrary) {
    let Some(mut to_server) = task.to_server.take() else { return };
    if to_server.awaits_ticket() {
        to_server.keep_ticket(&task.input);
        task.outcome = StepOutcome::TicketKept;
        return;
    }
    task.outcome = match advance(task, &mut to_server) {
        Ok(Progress::NeedsInput) => StepOutcome::NeedsInput,
        Ok(Progress::Done) => match establish(task, &mut to_server, library) {
            Ok(established) => StepOutcome::Established(Box::new(established)),
            Err(failure) => StepOutcome::ServerFailed(failure),
        },
        Err(failure) => StepOutcome::ServerFailed(failure),
    };
    if !matches!(task.outcome, StepOutcome::NeedsInput) {
        task.secrets = None;
        task.fed_bytes = 0;
    }
    task.to_server = Some(to_server);
}

fn advance(task: &mut Task, to_server: &mut ToServer) -> Result<Progress, ServerFailure> {
    let mut connection = match std::mem::replace(&mut to_server.stage, Stage::Over) {
        Stage::Begin(config, name) => {
            let protocols = to_server.protocol.iter().map(|name| name.to_vec()).collect();
            UnbufferedClientConnection::new_with_alpn(config, name, protocols)
                .map(Box::new)
                .map_err(|error| ServerFailure::internal(error.to_string()))?
        }
        Stage::Shaking(connection) => connection,
        Stage::Established(_) | Stage::Over => {
            return Err(ServerFailure::internal("a handshake that is over was continued"));
        }
    };
    let mut window = Window::new(&mut task.input, task.fed_bytes);
    let result = drive(&mut *connection, &mut window, &mut task.output);
    task.fed_bytes = window.finish();
    // On every way out: what stays behind would be taken for another connection's.
    task.secrets = secrets::take().or(task.secrets.take());
    // What we have signed with is told of clients: the next one must not get it.
    signed_with::take();
    let progress = result?;
    if progress == Progress::NeedsInput && task.input.len() >= Task::INPUT_BYTES_MAX {
        return Err(ServerFailure {
            reason: ServerFailureReason::Protocol,
            detail: format!("a handshake message needs over {} bytes", Task::INPUT_BYTES_MAX),
        });
    }
    to_server.stage = Stage::Shaking(connection);
    Ok(progress)
}

/// Turns a finished handshake into plain data, and what a ticket needs.
fn establish(
    task: &mut Task,
    to_server: &mut ToServer,
    library: CryptoLibrary,
) -> Result<Established, ServerFailure> {
    let Stage::Shaking(connection) = std::mem::replace(&mut to_server.stage, Stage::Over) else {
        return Err(ServerFailure::internal("a finished handshake has no connection"));
    };
    let ours = |failure: HandshakeFailure| ServerFailure::internal(failure.detail);
    let facts = session_facts(&connection, None, None, None).map_err(ours)?;
    let (extracted, kernel) = connection
        .dangerous_into_kernel_connection()
        .map_err(|error| ServerFailure::internal(error.to_string()))?;
    let traffic_secrets = match facts.version {
        Version::Tls12 => None,
        Version::Tls13 => {
            to_server.stage = Stage::Established(Box::new(kernel));
            Some(task.secrets.take().ok_or_else(|| {
                ServerFailure::internal(
                    "the traffic secrets were not caught: the configuration has another key log",
                )
            })?)
        }
    };
    let client = traffic_secrets.as_ref().map(|secrets| secrets.client.as_bytes());
    let server = traffic_secrets.as_ref().map(|secrets| secrets.server.as_bytes());
    let unusable = |error: KeysError| ServerFailure::internal(error.to_string());
    let (receive, send) =
        directions(extracted, facts.version, library, server, client).map_err(unusable)?;
    let opener = Opener::from_server(receive).map_err(unusable)?;
    let mut sealer = Sealer::new(send).map_err(unusable)?;
    if facts.alpn != to_server.protocol {
        // The client speaks the protocol it negotiated, whatever the server takes it for.
        seal_alert(&mut sealer, AlertDescription::NoApplicationProtocol, &mut task.output);
        let text = |name: &Option<Box<[u8]>>| match name {
            Some(name) => format!("{:?}", String::from_utf8_lossy(name)),
            None => "none".to_owned(),
        };
        let (chosen, wanted) = (text(&facts.alpn), text(&to_server.protocol));
        return Err(ServerFailure {
            reason: ServerFailureReason::NoSharedProtocol,
            detail: format!("the client negotiated {wanted}, the server chose {chosen}"),
        });
    }
    Ok(Established {
        opener,
        sealer,
        facts,
        client: None,
        choice: None,
        fingerprint: None,
        handshake_us: 0,
    })
}

#[cfg(test)]
mod tests;
