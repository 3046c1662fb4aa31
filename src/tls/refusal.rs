//! Why a connection is refused before any asymmetric cryptography is spent on it, and
//! what the client is told.
//!
//! `client_hello` and `policy` produce these; the engine sends the alert. How they are
//! counted is for the layer above to say.
#![forbid(unsafe_code)]

use rustls::AlertDescription;

/// A connection that will not become a TLS session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The stream does not begin like a TLS handshake record.
    #[error("the first bytes are not a TLS handshake record")]
    NotTls,
    /// The stream begins with an HTTP request method.
    #[error("plain HTTP on a TLS port")]
    PlainHttp,
    /// The ClientHello breaks the protocol.
    #[error("malformed ClientHello: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
        /// The alert that the protocol prescribes for it.
        alert: AlertDescription,
    },
    /// The ClientHello, or the number of records it comes in, is beyond our bound.
    #[error("the ClientHello is too large, or in too many records")]
    TooLarge,
    /// No certificate for the name, and unknown names are rejected.
    #[error("no certificate for this server name")]
    UnknownServerName,
    /// The client offers no protocol version that the listener allows.
    #[error("no protocol version in common")]
    NoSharedVersion,
    /// The client offers no cipher suite that the listener allows and a certificate fits.
    #[error("no cipher suite in common")]
    NoSharedCipherSuite,
    /// The client offers no key-exchange group that the listener allows.
    #[error("no key-exchange group in common")]
    NoSharedGroup,
    /// The client cannot verify the signature of any certificate for the name.
    #[error("no signature scheme in common with any certificate for this name")]
    NoSharedSignatureScheme,
    /// The client must be told which signature schemes it failed to send.
    #[error("no signature_algorithms extension")]
    NoSignatureSchemes,
    /// A route says that the client is not served here.
    #[error("a route rejects this client")]
    RejectedByRoute,
    /// The client offers application protocols, none of them the listener's.
    #[error("no application protocol in common")]
    NoSharedProtocol,
}

impl Refusal {
    /// The fatal alert to send before closing; `None` means to close in silence.
    ///
    /// RFC 8446 section 6.2 lets a TLS endpoint expect an alert. A peer that does not
    /// speak TLS cannot read one: it would show the user seven bytes of garbage, and
    /// tell a scanner what it found. So such a peer gets none.
    pub const fn alert(self) -> Option<AlertDescription> {
        Some(match self {
            Self::NotTls | Self::PlainHttp => return None,
            Self::Malformed { alert, .. } => alert,
            // The field that is out of bounds is the handshake length.
            Self::TooLarge => AlertDescription::IllegalParameter,
            // RFC 6066 section 3.
            Self::UnknownServerName => AlertDescription::UnrecognisedName,
            // RFC 8446 section 4.2.1, RFC 5246 appendix E.1.
            Self::NoSharedVersion => AlertDescription::ProtocolVersion,
            // RFC 8446 section 4.1.1, RFC 5246 section 7.4.1.3.
            Self::NoSharedCipherSuite | Self::NoSharedGroup | Self::NoSharedSignatureScheme => {
                AlertDescription::HandshakeFailure
            }
            // RFC 8446 section 9.2.
            Self::NoSignatureSchemes => AlertDescription::MissingExtension,
            // RFC 8446 section 6.2.
            Self::RejectedByRoute => AlertDescription::AccessDenied,
            // RFC 7301 section 3.2.
            Self::NoSharedProtocol => AlertDescription::NoApplicationProtocol,
        })
    }

    /// The whole record that carries [`Self::alert`], in plaintext as it must be before
    /// any key exists (RFC 8446 sections 5.1 and 6).
    pub fn alert_record(self) -> Option<[u8; 7]> {
        const ALERT: u8 = 21;
        const FATAL: u8 = 2;
        self.alert()
            .map(|description| [ALERT, 0x03, 0x03, 0x00, 0x02, FATAL, u8::from(description)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_does_not_speak_tls_is_sent_nothing() {
        assert_eq!(Refusal::NotTls.alert_record(), None);
        assert_eq!(Refusal::PlainHttp.alert_record(), None);
    }

    #[test]
    fn an_unknown_name_is_told_by_a_fatal_unrecognized_name() {
        assert_eq!(Refusal::UnknownServerName.alert_record(), Some([21, 3, 3, 0, 2, 2, 112]));
    }
}
