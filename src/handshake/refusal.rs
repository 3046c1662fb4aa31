//! How the refusals of the tls module are counted and logged.

use super::{FailureReason, HandshakeFailure};
use crate::tls::Refusal;

impl From<Refusal> for FailureReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotTls => Self::NotTls,
            Refusal::PlainHttp => Self::PlainHttp,
            Refusal::Malformed { .. } => Self::ClientHelloMalformed,
            Refusal::TooLarge => Self::ClientHelloTooLarge,
            Refusal::UnknownServerName => Self::UnknownServerName,
            Refusal::RejectedByRoute => Self::RejectedByRoute,
            Refusal::NoSharedVersion => Self::NoSharedVersion,
            Refusal::NoSharedCipherSuite => Self::NoSharedCipherSuite,
            Refusal::NoSharedGroup => Self::NoSharedGroup,
            Refusal::NoSharedSignatureScheme | Refusal::NoSignatureSchemes => {
                Self::NoSharedSignatureScheme
            }
            Refusal::NoSharedProtocol => Self::NoSharedProtocol,
        }
    }
}

impl From<Refusal> for HandshakeFailure {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.into(), detail: refusal.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_logged_in_its_own_words() {
        let failure = HandshakeFailure::from(Refusal::PlainHttp);
        assert_eq!(failure.reason, FailureReason::PlainHttp);
        assert_eq!(failure.detail, "plain HTTP on a TLS port");
    }
}
