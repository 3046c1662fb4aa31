//! Why handshakes fail, in terms that a metric label and a log line can carry.
//!
//! rustls' errors are classed here, and what the ClientHello parser refuses. Whose
//! fault it was must come out right: an operator is woken by [`FailureReason::Internal`],
//! never by what a client sent.
//!
//! May know: rustls' errors, the tls module's refusals. Must not know: tasks, threads.
#![forbid(unsafe_code)]

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Why a handshake failed, in terms that a metric label and a log line can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeFailure {
    /// The class of the failure.
    pub reason: FailureReason,
    /// The library's own words, for the log.
    pub detail: String,
}

/// The classes of handshake failure, one metric label each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum FailureReason {
    /// No PROXY protocol header came from a peer that is to send one.
    ProxyHeader,
    /// The first byte was not that of a TLS handshake record.
    NotTls,
    /// The client spoke HTTP without TLS.
    PlainHttp,
    /// The ClientHello does not parse.
    ClientHelloMalformed,
    /// The ClientHello is larger than we take.
    ClientHelloTooLarge,
    /// No certificate for the name, and unknown names are rejected.
    UnknownServerName,
    /// A route rejects the client.
    RejectedByRoute,
    /// No protocol version in common.
    NoSharedVersion,
    /// No cipher suite in common.
    NoSharedCipherSuite,
    /// No key-exchange group in common.
    NoSharedGroup,
    /// No signature scheme in common with any certificate.
    NoSharedSignatureScheme,
    /// No application protocol in common (RFC 7301 section 3.2).
    NoSharedProtocol,
    /// The client showed no certificate, and must.
    ClientCertificateMissing,
    /// The client's certificate is broken, not for clients, or not the client's.
    ClientCertificateInvalid,
    /// The client's certificate does not lead to one of the authorities.
    ClientCertificateUntrusted,
    /// A certificate of the client's chain is past its end, or not valid yet.
    ClientCertificateExpired,
    /// A certificate of the client's chain is revoked.
    ClientCertificateRevoked,
    /// Whether the client's chain is revoked cannot be told: no list of its issuer, or one
    /// past its next update.
    ClientRevocationUnknown,
    /// No rule lets the client in.
    ClientNotAllowed,
    /// A record is too large or does not decrypt, or the client's Finished does not verify
    /// (rustls has one error for both).
    BadRecord,
    /// The client broke the handshake protocol.
    Protocol,
    /// The client sent a fatal alert (often: it does not trust the certificate).
    ClientAlert,
    /// The client closed or reset before the handshake was done.
    ClientGone,
    /// The ClientHello did not arrive in time.
    ClientHelloTimeout,
    /// The handshake was not done in time.
    Timeout,
    /// The client was silent in mid-handshake while every credit was taken.
    Silent,
    /// Something on our side: never the client's fault.
    Internal,
}

impl FailureReason {
    /// Every reason, in `repr` order.
    pub const ALL: [Self; 27] = [
        Self::ProxyHeader,
        Self::NotTls,
        Self::PlainHttp,
        Self::ClientHelloMalformed,
        Self::ClientHelloTooLarge,
        Self::UnknownServerName,
        Self::RejectedByRoute,
        Self::NoSharedVersion,
        Self::NoSharedCipherSuite,
        Self::NoSharedGroup,
        Self::NoSharedSignatureScheme,
        Self::NoSharedProtocol,
        Self::ClientCertificateMissing,
        Self::ClientCertificateInvalid,
        Self::ClientCertificateUntrusted,
        Self::ClientCertificateExpired,
        Self::ClientCertificateRevoked,
        Self::ClientRevocationUnknown,
        Self::ClientNotAllowed,
        Self::BadRecord,
        Self::Protocol,
        Self::ClientAlert,
        Self::ClientGone,
        Self::ClientHelloTimeout,
        Self::Timeout,
        Self::Silent,
        Self::Internal,
    ];

    /// The value of the `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ProxyHeader => "proxy_header",
            Self::NotTls => "not_tls",
            Self::PlainHttp => "plain_http",
            Self::ClientHelloMalformed => "client_hello_malformed",
            Self::ClientHelloTooLarge => "client_hello_too_large",
            Self::UnknownServerName => "unknown_server_name",
            Self::RejectedByRoute => "rejected_by_route",
            Self::NoSharedVersion => "no_shared_version",
            Self::NoSharedCipherSuite => "no_shared_cipher_suite",
            Self::NoSharedGroup => "no_shared_group",
            Self::NoSharedSignatureScheme => "no_shared_signature_scheme",
            Self::NoSharedProtocol => "no_shared_protocol",
            Self::ClientCertificateMissing => "client_certificate_missing",
            Self::ClientCertificateInvalid => "client_certificate_invalid",
            Self::ClientCertificateUntrusted => "client_certificate_untrusted",
            Self::ClientCertificateExpired => "client_certificate_expired",
            Self::ClientCertificateRevoked => "client_certificate_revoked",
            Self::ClientRevocationUnknown => "client_revocation_unknown",
            Self::ClientNotAllowed => "client_not_allowed",
            Self::BadRecord => "bad_record",
            Self::Protocol => "protocol",
            Self::ClientAlert => "client_alert",
            Self::ClientGone => "client_gone",
            Self::ClientHelloTimeout => "client_hello_timeout",
            Self::Timeout => "timeout",
            Self::Silent => "silent",
            Self::Internal => "internal",
        }
    }
}

impl HandshakeFailure {
    /// Something on our side.
    pub(super) fn internal(detail: impl Into<String>) -> Self {
        Self { reason: FailureReason::Internal, detail: detail.into() }
    }

    /// Classes what rustls says. `answered` says whether the server has sent anything:
    /// before that, only the ClientHello can be at fault.
    pub(super) fn classify(error: &Error, answered: bool) -> Self {
        let reason = match error {
            Error::InvalidMessage(message) if !answered => malformed_hello(*message),
            Error::PeerIncompatible(what) => incompatible(what),
            Error::NoApplicationProtocol => FailureReason::NoSharedProtocol,
            Error::DecryptError | Error::PeerSentOversizedRecord => FailureReason::BadRecord,
            // Not a failure of trust: a client that changed its mind.
            Error::AlertReceived(
                AlertDescription::CloseNotify | AlertDescription::UserCanceled,
            ) => FailureReason::ClientGone,
            Error::AlertReceived(_) => FailureReason::ClientAlert,
            Error::NoCertificatesPresented => FailureReason::ClientCertificateMissing,
            Error::InvalidCertificate(error) => certificate(error),
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::InvalidEncryptedClientHello(_) => FailureReason::Protocol,
            Error::General(words) => general(words),
            _ => FailureReason::Internal,
        };
        Self { reason, detail: error.to_string() }
    }
}

const fn malformed_hello(message: InvalidMessage) -> FailureReason {
    match message {
        InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion => {
            FailureReason::NotTls
        }
        InvalidMessage::MessageTooLarge | InvalidMessage::HandshakePayloadTooLarge => {
            FailureReason::ClientHelloTooLarge
        }
        _ => FailureReason::ClientHelloMalformed,
    }
}

const fn incompatible(what: &PeerIncompatible) -> FailureReason {
    match what {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::SupportedVersionsExtensionRequired => FailureReason::NoSharedVersion,
        PeerIncompatible::NoCipherSuitesInCommon => FailureReason::NoSharedCipherSuite,
        PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::NoEcPointFormatsInCommon
        | PeerIncompatible::EcPointsExtensionRequired
        | PeerIncompatible::UncompressedEcPointsRequired => FailureReason::NoSharedGroup,
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            FailureReason::NoSharedSignatureScheme
        }
        _ => FailureReason::Protocol,
    }
}

const fn certificate(error: &CertificateError) -> FailureReason {
    match error {
        CertificateError::UnknownIssuer => FailureReason::ClientCertificateUntrusted,
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => FailureReason::ClientCertificateExpired,
        CertificateError::Revoked => FailureReason::ClientCertificateRevoked,
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => {
            FailureReason::ClientRevocationUnknown
        }
        CertificateError::ApplicationVerificationFailure => FailureReason::ClientNotAllowed,
        _ => FailureReason::ClientCertificateInvalid,
    }
}

/// rustls has no error of its own for these two, only words (`server/hs.rs` and
/// `server/tls12.rs` of 0.23.46); a test holds it to the first of them.
fn general(words: &str) -> FailureReason {
    match words {
        // The certificate resolver found none: unknown names are refused before the
        // step, so what is left is that the client can verify none of them.
        "no server certificate chain resolved" | "incompatible signing key" => {
            FailureReason::NoSharedSignatureScheme
        }
        _ => FailureReason::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_in_repr_order() {
        for (index, reason) in FailureReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let same = FailureReason::ALL.iter().filter(|other| other.label() == reason.label());
            assert_eq!(same.count(), 1, "{}", reason.label());
        }
    }

    #[test]
    fn a_message_that_does_not_parse_is_the_hello_only_before_the_answer() {
        let error = Error::InvalidMessage(InvalidMessage::MissingData("ClientHello"));
        assert_eq!(
            HandshakeFailure::classify(&error, false).reason,
            FailureReason::ClientHelloMalformed
        );
        assert_eq!(HandshakeFailure::classify(&error, true).reason, FailureReason::Protocol);
    }

    #[test]
    fn a_client_that_takes_its_leave_has_not_failed_to_trust_us() {
        let error = Error::AlertReceived(AlertDescription::CloseNotify);
        assert_eq!(HandshakeFailure::classify(&error, true).reason, FailureReason::ClientGone);
        let error = Error::AlertReceived(AlertDescription::UnknownCA);
        assert_eq!(HandshakeFailure::classify(&error, true).reason, FailureReason::ClientAlert);
    }

    #[test]
    fn what_we_lack_ourselves_is_internal() {
        for error in [
            Error::FailedToGetRandomBytes,
            Error::FailedToGetCurrentTime,
            Error::General("signing failed".into()),
        ] {
            assert_eq!(HandshakeFailure::classify(&error, true).reason, FailureReason::Internal);
        }
    }
}
