//! Why handshakes with servers fail, in terms that a metric label and a log line can carry.
//!
//! Each reason is something else to do for the operator: another `server_name`, another
//! `ca`, a renewal at the server, another port.
//!
//! May know: rustls' errors. Must not know: tasks, threads, pools.
#![forbid(unsafe_code)]

use rustls::{CertificateError, Error, InvalidMessage};

use super::step::Stop;

/// Why a handshake with a server failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFailure {
    /// The class of the failure.
    pub reason: ServerFailureReason,
    /// The library's own words, for the log; empty if the reason says it all.
    pub detail: String,
}

/// The classes of failure of a handshake with a server, one metric label each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum ServerFailureReason {
    /// The certificate is not valid for the name that was asked for.
    WrongName,
    /// The certificate does not lead to a root that is trusted.
    UnknownIssuer,
    /// The certificate has expired, or is not valid yet.
    CertificateDates,
    /// The certificate cannot be accepted for another reason.
    InvalidCertificate,
    /// The server did not choose the application protocol that was negotiated with the
    /// client.
    NoSharedProtocol,
    /// No version, cipher suite, group or signature scheme in common.
    Incompatible,
    /// The server does not speak TLS.
    NotTls,
    /// The server sent a fatal alert (often: it wants a certificate of ours, or another).
    ServerAlert,
    /// The server closed or reset.
    Closed,
    /// The server broke the protocol.
    Protocol,
    /// The handshake was not done within `timeouts.connect`.
    Timeout,
    /// No worker took the step in time.
    Shed,
    /// Something on our side.
    Internal,
}

impl ServerFailureReason {
    /// Every reason, in `repr` order.
    pub const ALL: [Self; 13] = [
        Self::WrongName,
        Self::UnknownIssuer,
        Self::CertificateDates,
        Self::InvalidCertificate,
        Self::NoSharedProtocol,
        Self::Incompatible,
        Self::NotTls,
        Self::ServerAlert,
        Self::Closed,
        Self::Protocol,
        Self::Timeout,
        Self::Shed,
        Self::Internal,
    ];

    /// The value of the `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::WrongName => "wrong_name",
            Self::UnknownIssuer => "unknown_issuer",
            Self::CertificateDates => "certificate_dates",
            Self::InvalidCertificate => "invalid_certificate",
            Self::NoSharedProtocol => "no_shared_protocol",
            Self::Incompatible => "incompatible",
            Self::NotTls => "not_tls",
            Self::ServerAlert => "server_alert",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Shed => "shed",
            Self::Internal => "internal",
        }
    }
}

impl From<ServerFailureReason> for ServerFailure {
    /// A failure whose reason says it all.
    fn from(reason: ServerFailureReason) -> Self {
        Self { reason, detail: String::new() }
    }
}

impl ServerFailure {
    /// Something on our side.
    pub(super) fn internal(detail: impl Into<String>) -> Self {
        Self { reason: ServerFailureReason::Internal, detail: detail.into() }
    }

    /// Classes what rustls says.
    fn classify(error: &Error) -> Self {
        let reason = match error {
            Error::InvalidCertificate(error) => of_certificate(error),
            Error::NoApplicationProtocol => ServerFailureReason::NoSharedProtocol,
            Error::PeerIncompatible(_) => ServerFailureReason::Incompatible,
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => ServerFailureReason::NotTls,
            Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => {
                ServerFailureReason::NoSharedProtocol
            }
            Error::AlertReceived(_) => ServerFailureReason::ServerAlert,
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::NoCertificatesPresented
            | Error::DecryptError
            | Error::PeerSentOversizedRecord => ServerFailureReason::Protocol,
            _ => ServerFailureReason::Internal,
        };
        Self { reason, detail: error.to_string() }
    }
}

impl From<Stop> for ServerFailure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Tls { error, answered: _ } => Self::classify(&error),
            Stop::Closed => ServerFailureReason::Closed.into(),
            Stop::Internal(detail) => Self::internal(detail),
        }
    }
}

const fn of_certificate(error: &CertificateError) -> ServerFailureReason {
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ServerFailureReason::WrongName
        }
        // A bad signature: by another authority of the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ServerFailureReason::UnknownIssuer
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => ServerFailureReason::CertificateDates,
        _ => ServerFailureReason::InvalidCertificate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_in_repr_order() {
        for (index, reason) in ServerFailureReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let all = ServerFailureReason::ALL.iter();
            assert_eq!(all.filter(|other| other.label() == reason.label()).count(), 1);
        }
    }
}
