//! OCSP staples: what the issuer says of a certificate, sent with it so that clients need
//! not ask (RFC 6960, RFC 6066 section 8). From `NAME.ocsp` beside `NAME.pem`, in DER.
//!
//! A staple is sent only if a client would take it: it is about this certificate, the
//! issuer or somebody that the issuer appointed has signed it, it says "good", and its time
//! is not over. Without a staple clients go on as if there were no OCSP; with a wrong one
//! many refuse.

mod response;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

use super::signature::{self, Verdict};
use super::{CryptoLibrary, LoadedCertificate, Problem, Signing, unix_seconds};
use response::{BasicResponse, Responder, SingleResponse, Status, Unreadable};

/// A response with its responder's certificate has 2 KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Clocks of responders may be ahead of ours by so much.
const CLOCK_SKEW_SECONDS: i64 = 300;

/// The content of the object identifiers of SHA-1 (1.3.14.3.2.26) and SHA-256
/// (2.16.840.1.101.3.4.2.1).
const SHA1_OID: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA256_OID: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

/// The extension id-pe-tlsfeature (1.3.6.1.5.5.7.1.24) with the feature status_request (5),
/// as RFC 7633 section 4 encodes it: object identifier, then OCTET STRING with a SEQUENCE of
/// one INTEGER. Clients insist on a staple.
const DEMANDED: &[u8] = &[
    0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x18, 0x04, 0x05, 0x30, 0x03, 0x02, 0x01,
    0x05,
];

/// A response that may be sent.
struct Staple {
    /// `OCSPResponse`.
    der: Vec<u8>,
    /// The end of its time (`nextUpdate`), in seconds since the UNIX epoch.
    ends: i64,
}

/// Where the staple of the certificate at `path` lies.
pub(super) fn path_of(path: &Path) -> PathBuf {
    path.with_extension("ocsp")
}

/// Gives the certificate, which was just read from `path`, the staple that lies beside it.
pub(super) fn attach(
    certificate: LoadedCertificate,
    path: &Path,
    library: CryptoLibrary,
    report: &mut dyn FnMut(&Path, Problem),
) -> LoadedCertificate {
    let Some(certified) = certificate.signing.certified() else { return certificate };
    let Some(leaf_der) = certified.cert.first() else { return certificate };
    let staple_path = path_of(path);
    let now = unix_seconds(SystemTime::now());
    let read = match read_bytes(&staple_path) {
        Ok(Some(der)) => match check_in_chain(&der, &certified.cert, library, now) {
            Ok(ends) => Ok(Staple { der, ends }),
            Err(problem) => Err(problem),
        },
        Ok(None) => {
            if leaf_der.windows(DEMANDED.len()).any(|bytes| bytes == DEMANDED) {
                report(path, Problem::NoStaple { expected: staple_path });
            }
            return certificate;
        }
        Err(problem) => Err(problem),
    };
    match read {
        Err(problem) => {
            report(&staple_path, Problem::UnusableStaple(problem));
            certificate
        }
        Ok(Staple { ends, .. }) if ends <= now => {
            LoadedCertificate { staple_ends: Some(ends), ..certificate }
        }
        Ok(Staple { der, ends }) => {
            let stapled = CertifiedKey { ocsp: Some(der), ..CertifiedKey::clone(&certified) };
            let signing = Signing::in_memory(Arc::new(stapled));
            LoadedCertificate { staple_ends: Some(ends), signing, ..certificate }
        }
    }
}

/// Why a file is not sent as staple. The file's path goes in front.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StapleProblem {
    /// The kernel's answer.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Far larger than any response, or a directory.
    #[error("it is not a file of at most {FILE_BYTES_MAX} bytes")]
    NotAResponseFile,
    /// Not DER, or something else.
    #[error(
        "it is not an OCSP response in DER form; fetch it: \
         openssl ocsp -issuer ISSUER.pem -cert CERTIFICATE.pem -url URL -respout FILE"
    )]
    NotAResponse,
    /// The responder had none to give.
    #[error("the responder refused ({0}); fetch it again")]
    Refused(&'static str),
    /// No issuer to check it against.
    #[error(
        "the certificate's file does not have the issuer's certificate to check it with; \
         append the chain"
    )]
    NoIssuer,
    /// The response of another certificate, as after a renewal.
    #[error("it is about another certificate; fetch one for this certificate")]
    Foreign,
    /// The issuer has withdrawn the certificate.
    #[error("it says that the certificate is REVOKED: replace the certificate")]
    Revoked,
    /// The issuer does not know the certificate.
    #[error("the responder does not know the certificate; ask the issuer")]
    Unknown,
    /// Signed by nobody that the issuer appointed.
    #[error(
        "neither the issuer nor a responder that the issuer appointed has signed it; \
         fetch it from the address in the certificate: openssl x509 -noout -ocsp_uri"
    )]
    NotSignedByIssuer,
    /// The signature cannot be checked.
    #[error("its signature is of a kind that is not supported, such as with SHA-1")]
    UnknownAlgorithm,
    /// There is no time until which it could be sent.
    #[error("it does not say until when it is valid (nextUpdate)")]
    Endless,
    /// Its time has not come.
    #[error("it is valid from {0} only: is the clock right?")]
    NotYetValid(String),
}

/// The content of the file at `path`; `None` if there is none.
fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, StapleProblem> {
    let unreadable = |error: io::Error| StapleProblem::Unreadable(error.to_string());
    let metadata = match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(unreadable)?,
    };
    // Opening a FIFO would wait for its writer.
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(StapleProblem::NotAResponseFile);
    }
    let mut der = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut der));
    read.map_err(unreadable)?;
    Ok(Some(der))
}

/// As [`check`], for the first certificate of a chain in its order.
pub(super) fn check_in_chain(
    der: &[u8],
    chain: &[CertificateDer<'_>],
    library: CryptoLibrary,
    now: i64,
) -> Result<i64, StapleProblem> {
    let mut parsed = chain.iter().map_while(|der| {
        x509_parser::parse_x509_certificate(der).ok().map(|(_, certificate)| certificate)
    });
    let leaf = parsed.next().ok_or(StapleProblem::NoIssuer)?;
    // A self-signed certificate is its own issuer.
    let issuer = parsed
        .next()
        .filter(|next| next.subject().as_raw() == leaf.issuer().as_raw())
        .or_else(|| (leaf.subject().as_raw() == leaf.issuer().as_raw()).then(|| leaf.clone()))
        .ok_or(StapleProblem::NoIssuer)?;
    check(der, &leaf, &issuer, library, now)
}

/// Whether `der` may be sent with `leaf`, and until when. That its time is over is not
/// judged here: it is a matter of each moment.
fn check(
    der: &[u8],
    leaf: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    library: CryptoLibrary,
    now: i64,
) -> Result<i64, StapleProblem> {
    let response = response::parse(der).map_err(|unreadable| match unreadable {
        Unreadable::Malformed => StapleProblem::NotAResponse,
        Unreadable::Refused(status) => StapleProblem::Refused(refusal(status)),
    })?;
    let single = response
        .singles
        .iter()
        .find(|single| is_about(single, leaf, issuer))
        .ok_or(StapleProblem::Foreign)?;
    match verify(&response, issuer, library, now) {
        Verdict::Good => {}
        Verdict::Bad => return Err(StapleProblem::NotSignedByIssuer),
        Verdict::UnknownAlgorithm => return Err(StapleProblem::UnknownAlgorithm),
    }
    match single.status {
        Status::Good => {}
        Status::Revoked => return Err(StapleProblem::Revoked),
        Status::Unknown => return Err(StapleProblem::Unknown),
    }
    if single.this_update > now.saturating_add(CLOCK_SKEW_SECONDS) {
        return Err(StapleProblem::NotYetValid(time_text(single.this_update)));
    }
    single.next_update.ok_or(StapleProblem::Endless)
}

/// RFC 6960 section 4.2.1.
const fn refusal(status: u8) -> &'static str {
    match status {
        1 => "malformedRequest",
        2 => "internalError",
        3 => "tryLater",
        5 => "sigRequired",
        6 => "unauthorized",
        _ => "an unknown status",
    }
}

/// Whether a response names this certificate: issuer's name and key, and serial number.
fn is_about(
    single: &SingleResponse<'_>,
    leaf: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> bool {
    let algorithm: &'static Algorithm = match single.hash {
        SHA1_OID => &SHA1_FOR_LEGACY_USE_ONLY,
        SHA256_OID => &SHA256,
        _ => return false,
    };
    single.serial == leaf.raw_serial()
        && digest(algorithm, leaf.issuer().as_raw()).as_ref() == single.issuer_name_hash
        && digest(algorithm, &issuer.public_key().subject_public_key.data).as_ref()
            == single.issuer_key_hash
}

/// Whether the response's signature is the issuer's, or that of a responder whose
/// certificate came along (RFC 6960 section 4.2.2.2).
fn verify(
    response: &BasicResponse<'_>,
    issuer: &X509Certificate<'_>,
    library: CryptoLibrary,
    now: i64,
) -> Verdict {
    let signed_by = |signer: &X509Certificate<'_>| {
        let BasicResponse { signed, algorithm, signature, .. } = response;
        signature::verify(signer.public_key(), algorithm, signed, signature, library)
    };
    if response.responder.is(issuer) {
        return signed_by(issuer);
    }
    for der in &response.certificates {
        let Ok((_, responder)) = x509_parser::parse_x509_certificate(der) else { continue };
        if response.responder.is(&responder) {
            return match appointed(&responder, issuer, library, now) {
                Verdict::Good => signed_by(&responder),
                other => other,
            };
        }
    }
    Verdict::Bad
}

/// Whether the issuer has made `responder` answer for it.
fn appointed(
    responder: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    library: CryptoLibrary,
    now: i64,
) -> Verdict {
    let for_ocsp = matches!(
        responder.extended_key_usage(),
        Ok(Some(usage)) if usage.value.ocsp_signing
    );
    let validity = responder.validity();
    let in_time = (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now);
    if !for_ocsp || !in_time || responder.issuer().as_raw() != issuer.subject().as_raw() {
        return Verdict::Bad;
    }
    signature::has_signed(issuer, responder, library)
}

impl Responder<'_> {
    fn is(&self, certificate: &X509Certificate<'_>) -> bool {
        match self {
            Self::Name(name) => *name == certificate.subject().as_raw(),
            Self::KeyHash(hash) => {
                let key = &certificate.public_key().subject_public_key.data;
                digest(&SHA1_FOR_LEGACY_USE_ONLY, key).as_ref() == *hash
            }
        }
    }
}

/// A time as a person reads it, in UTC.
pub(super) fn time_text(unix_seconds: i64) -> String {
    ASN1Time::from_timestamp(unix_seconds)
        .map_or_else(|_| unix_seconds.to_string(), |time| time.to_string())
}
