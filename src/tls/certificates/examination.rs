//! What an operator wants to know of a chain, whoever serves it: what it is for, whether
//! clients can follow it to somebody they trust, and what in it will soon be refused.
//!
//! Loading judges what forebay can serve; this judges what clients will take.

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::Oid;
use x509_parser::public_key::PublicKey;

use super::identity::{self, DAY_SECONDS};
use super::signature::{self, Verdict};
use super::{CertificateName, CryptoLibrary};

/// Keys of RSA below this are refused by clients (CA/Browser Forum Baseline Requirements
/// section 6.1.5).
const RSA_BITS_MIN: usize = 2_048;

/// Signature algorithms that clients refuse: with MD5 and SHA-1.
const WEAK_SIGNATURES: [(&str, &str); 4] = [
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
    ("1.2.840.10040.4.3", "SHA-1"),
];

/// Certificates of authorities that are trusted.
#[derive(Debug)]
pub struct Roots(Vec<CertificateDer<'static>>);

impl Roots {
    /// Trusts these.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        Self(certificates)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is one of them, or one of them has signed it.
    fn vouch_for(&self, certificate: &X509Certificate<'_>, library: CryptoLibrary) -> bool {
        self.0.iter().any(|der| {
            if der.as_ref() == certificate.as_raw() {
                return true;
            }
            let Ok((_, root)) = x509_parser::parse_x509_certificate(der) else { return false };
            root.subject().as_raw() == certificate.issuer().as_raw()
                // A root of an algorithm that we cannot verify is believed by its name.
                && signature::has_signed(&root, certificate, library) != Verdict::Bad
        })
    }
}

/// What a chain was judged by.
#[derive(Clone, Copy, Debug)]
pub struct Standard<'a> {
    /// Who is trusted; `None`: where the chain ends is not judged.
    pub roots: Option<&'a Roots>,
    /// Seconds since the UNIX epoch.
    pub now: i64,
    /// Certificates that end within so many days are a flaw.
    pub days: i64,
}

/// What was found out about a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// Names that the first certificate is for.
    pub names: Vec<CertificateName>,
    /// The kind of its key.
    pub key: String,
    /// Its issuer's name.
    pub issuer: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// The end of its validity, in seconds since the UNIX epoch.
    pub not_after: i64,
    /// Everything wrong.
    pub flaws: Vec<Flaw>,
}

impl Examination {
    /// Whether the certificate is for `name`: an exact name before a wildcard of one label.
    pub fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.covers(name))
    }
}

impl CertificateName {
    /// Whether this stands for `name`, a DNS name, `*.` and one, or an address.
    pub fn covers(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        match self {
            Self::Exact(own) => **own == *name,
            Self::Wildcard(suffix) => name
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == &**suffix),
            Self::Address(own) => name.parse() == Ok(*own),
        }
    }
}

/// Something wrong with a chain, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Nothing to examine.
    #[error("there is no certificate")]
    Empty,
    /// Not X.509.
    #[error("certificate number {position} is not valid X.509 ({detail}): fetch the chain again")]
    Broken {
        /// Place in the chain, from 1.
        position: usize,
        /// The parser's words.
        detail: String,
    },
    /// Past its time.
    #[error("{what} expired on {date}: renew it")]
    Expired {
        /// Which certificate.
        what: String,
        /// The day.
        date: String,
    },
    /// Close to the end of its time.
    #[error("{what} expires in {days} days, on {date}: renew it")]
    Expiring {
        /// Which certificate.
        what: String,
        /// Whole days left.
        days: i64,
        /// The day.
        date: String,
    },
    /// Before its time.
    #[error("{what} is not valid before {date}: is the clock right?")]
    NotYetValid {
        /// Which certificate.
        what: String,
        /// The day.
        date: String,
    },
    /// A hash that clients do not take in signatures.
    #[error("{what} is signed with {hash}, which clients refuse: have it issued again")]
    WeakSignature {
        /// Which certificate.
        what: String,
        /// The hash.
        hash: &'static str,
    },
    /// A key that is too small.
    #[error(
        "{what} has an RSA key of {bits} bits, which clients refuse: make one of 2048, or ECDSA"
    )]
    ShortKey {
        /// Which certificate.
        what: String,
        /// Its modulus.
        bits: usize,
    },
    /// Names only where nobody looks.
    #[error("has no subjectAltName: today's clients refuse it; have it issued again with one")]
    NoAlternativeName,
    /// The next one in the chain is not the issuer's, but a later one is.
    #[error(
        "the chain is out of order: the issuer of certificate number {position} is not the next; \
         put each certificate's issuer behind it"
    )]
    OutOfOrder {
        /// Place in the chain, from 1.
        position: usize,
    },
    /// A certificate that nothing before it needs.
    #[error(
        "certificate number {position} ({subject}) has not issued the one before it: \
         take it out of the chain"
    )]
    Unrelated {
        /// Place in the chain, from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
    /// The right name and the wrong key.
    #[error(
        "certificate number {position} ({subject}) has the name of the issuer before it, but has \
         not signed it: fetch the chain that belongs to the certificate"
    )]
    WrongIssuer {
        /// Place in the chain, from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
    /// Nobody trusted at the end.
    #[error(
        "the chain is incomplete: {issuer} is not trusted here; append the issuer's \
         certificate, or name your own authority's by --roots"
    )]
    Incomplete {
        /// The issuer at the end.
        issuer: String,
    },
    /// Trusted by nobody.
    #[error(
        "the chain ends in a self-signed certificate ({subject}) that is not trusted here; \
         have it issued by an authority, or name your own authority's by --roots"
    )]
    SelfSigned {
        /// Its subject.
        subject: String,
    },
}

/// Looks at a chain as a server sends it, leaf first.
pub fn examine(
    chain: &[CertificateDer<'_>],
    library: CryptoLibrary,
    standard: Standard<'_>,
) -> Examination {
    let mut flaws = Vec::new();
    let mut parsed = Vec::new();
    for (index, der) in chain.iter().enumerate() {
        match x509_parser::parse_x509_certificate(der) {
            Ok((_, certificate)) => parsed.push(certificate),
            Err(error) => {
                flaws.push(Flaw::Broken { position: index + 1, detail: error.to_string() });
                break;
            }
        }
    }
    let Some(leaf) = parsed.first() else {
        if flaws.is_empty() {
            flaws.push(Flaw::Empty);
        }
        let nothing = String::new;
        return Examination {
            names: Vec::new(),
            key: nothing(),
            issuer: nothing(),
            serial: nothing(),
            not_after: 0,
            flaws,
        };
    };
    for (index, certificate) in parsed.iter().enumerate() {
        check_one(certificate, index, standard, &mut flaws);
    }
    if !matches!(leaf.subject_alternative_name(), Ok(Some(_))) {
        flaws.push(Flaw::NoAlternativeName);
    }
    check_links(&parsed, library, standard.roots, &mut flaws);
    Examination {
        names: identity::names(leaf, &mut |_| {}),
        key: identity::key_kind(leaf.public_key(), library)
            .map_or_else(|what| what, |(kind, _)| kind.to_string()),
        issuer: leaf.issuer().to_string(),
        serial: hexadecimal(leaf.raw_serial()),
        not_after: leaf.validity().not_after.timestamp(),
        flaws,
    }
}

/// The issuer of the leaf among certificates in any order: of the one that has issued none
/// of the others.
pub fn leaf_issuer(certificates: &[CertificateDer<'_>]) -> Option<String> {
    let parsed: Vec<X509Certificate<'_>> = certificates
        .iter()
        .filter_map(|der| x509_parser::parse_x509_certificate(der).ok())
        .map(|(_, certificate)| certificate)
        .collect();
    let has_issued = |one: &X509Certificate<'_>| {
        parsed.iter().any(|other| {
            other.as_raw() != one.as_raw() && other.issuer().as_raw() == one.subject().as_raw()
        })
    };
    let leaf = parsed.iter().find(|one| !has_issued(one)).or(parsed.first())?;
    Some(leaf.issuer().to_string())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

/// What is wrong with a certificate by itself.
fn check_one(
    certificate: &X509Certificate<'_>,
    index: usize,
    standard: Standard<'_>,
    flaws: &mut Vec<Flaw>,
) {
    let what = || match index {
        0 => "the certificate".to_owned(),
        _ => format!("certificate number {} ({})", index + 1, certificate.subject()),
    };
    let validity = certificate.validity();
    let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let left = to.saturating_sub(standard.now);
    if from > standard.now {
        flaws.push(Flaw::NotYetValid { what: what(), date: identity::date(from) });
    }
    if left < 0 {
        flaws.push(Flaw::Expired { what: what(), date: identity::date(to) });
    } else if left < standard.days.saturating_mul(DAY_SECONDS) {
        let date = identity::date(to);
        flaws.push(Flaw::Expiring { what: what(), days: left / DAY_SECONDS, date });
    }
    // Who trusts a root does not look at its signature.
    if !is_self_signed(certificate) || index == 0 {
        let algorithm: &Oid<'_> = &certificate.signature_algorithm.algorithm;
        let name = algorithm.to_id_string();
        if let Some((_, hash)) = WEAK_SIGNATURES.iter().find(|(weak, _)| *weak == name) {
            flaws.push(Flaw::WeakSignature { what: what(), hash });
        }
    }
    if let Ok(PublicKey::RSA(key)) = certificate.public_key().parsed() {
        let leading_zeros = key.modulus.iter().take_while(|byte| **byte == 0).count();
        let bits = (key.modulus.len() - leading_zeros) * 8;
        if bits < RSA_BITS_MIN {
            flaws.push(Flaw::ShortKey { what: what(), bits });
        }
    }
}

/// Whether each certificate was issued by the next, and the last by somebody trusted.
fn check_links(
    chain: &[X509Certificate<'_>],
    library: CryptoLibrary,
    roots: Option<&Roots>,
    flaws: &mut Vec<Flaw>,
) {
    let names_next = |one: &X509Certificate<'_>, next: &X509Certificate<'_>| {
        next.subject().as_raw() == one.issuer().as_raw()
    };
    let mut last = &chain[0];
    for (index, next) in chain.iter().enumerate().skip(1) {
        if names_next(last, next) {
            if signature::has_signed(next, last, library) == Verdict::Bad {
                let subject = next.subject().to_string();
                flaws.push(Flaw::WrongIssuer { position: index + 1, subject });
            }
            last = next;
        } else if chain[index..].iter().any(|later| names_next(last, later)) {
            flaws.push(Flaw::OutOfOrder { position: index });
            return;
        } else {
            let subject = next.subject().to_string();
            flaws.push(Flaw::Unrelated { position: index + 1, subject });
        }
    }
    let Some(roots) = roots else { return };
    if roots.vouch_for(last, library) {
        return;
    }
    flaws.push(if is_self_signed(last) {
        Flaw::SelfSigned { subject: last.subject().to_string() }
    } else {
        Flaw::Incomplete { issuer: last.issuer().to_string() }
    });
}

#[cfg(test)]
mod tests;
