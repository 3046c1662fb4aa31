//! Whether a key has signed something: certificates and OCSP responses, by the algorithms
//! that rustls' provider has.

use rustls::crypto::{aws_lc_rs, ring};
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::CryptoLibrary;

/// What became of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The key has made it.
    Good,
    /// It has not.
    Bad,
    /// The algorithm is one that the library does not verify, such as any with SHA-1.
    UnknownAlgorithm,
}

/// Whether `key` has signed `message`. `algorithm` is the content of the signature's
/// `AlgorithmIdentifier`.
pub(super) fn verify(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &[u8],
    message: &[u8],
    signature: &[u8],
    library: CryptoLibrary,
) -> Verdict {
    let all = match library {
        CryptoLibrary::AwsLc => aws_lc_rs::default_provider(),
        CryptoLibrary::Ring => ring::default_provider(),
    }
    .signature_verification_algorithms
    .all;
    let Some(key_algorithm) = first_element_content(key.raw) else { return Verdict::Bad };
    let mut verdict = Verdict::UnknownAlgorithm;
    for candidate in all {
        if candidate.signature_alg_id().as_ref() != algorithm
            || candidate.public_key_alg_id().as_ref() != key_algorithm
        {
            continue;
        }
        verdict = Verdict::Bad;
        if candidate.verify_signature(&key.subject_public_key.data, message, signature).is_ok() {
            return Verdict::Good;
        }
    }
    verdict
}

/// Whether the holder of `issuer` has signed `certificate`; the names are not compared.
pub(super) fn has_signed(
    issuer: &X509Certificate<'_>,
    certificate: &X509Certificate<'_>,
    library: CryptoLibrary,
) -> Verdict {
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue }
    let algorithm = Any::from_der(certificate.as_raw()).ok().and_then(|(_, outer)| {
        let (rest, _) = Any::from_der(outer.data).ok()?;
        Some(Any::from_der(rest).ok()?.1.data)
    });
    let Some(algorithm) = algorithm else { return Verdict::Bad };
    let message = certificate.tbs_certificate.as_ref();
    let signature = &certificate.signature_value.data;
    verify(issuer.public_key(), algorithm, message, signature, library)
}

/// The content of the first element of a SEQUENCE.
fn first_element_content(sequence: &[u8]) -> Option<&[u8]> {
    let (_, sequence) = Any::from_der(sequence).ok()?;
    Some(Any::from_der(sequence.data).ok()?.1.data)
}
