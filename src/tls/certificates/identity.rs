//! A chain and a key become one identity: they are checked against each other, and the
//! certificate is read for names, dates and the kind of its key.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::{aws_lc_rs, ring};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521,
    OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{CertificateName, CertificateSignature, KeyType, LoadedCertificate, Problem, Signing};
use crate::tls::CryptoLibrary;
use crate::tls::signed_with::NotingKey;

/// Two weeks: time enough to renew by hand after automation failed.
const EXPIRES_SOON_SECONDS: i64 = 14 * DAY_SECONDS;
pub(super) const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Checks the chain and the key, and reports everything wrong with them; `None` after
/// an error.
pub(crate) fn assemble(
    source: &Path,
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    library: CryptoLibrary,
    report: &mut dyn FnMut(Problem),
) -> Option<LoadedCertificate> {
    let parsed = parse_all(&certificates).map_err(&mut *report).ok()?;
    let first = parsed.first()?;
    let key = match load_key(key, library) {
        Ok(key) => key,
        Err(detail) => {
            // The certificate knows better than the library what is wrong with the key.
            report(match key_type(first.public_key(), library) {
                Ok(_) => Problem::UnusableKey(detail),
                Err(what) => Problem::UnsupportedKey { what, library },
            });
            return None;
        }
    };
    let Some(leaf_position) = find_leaf(&parsed, key.as_ref()) else {
        let certificate = key_type(first.public_key(), library);
        report(match certificate {
            Ok(certificate) => Problem::KeyMismatch {
                key: describe_key(key.as_ref()),
                certificate: certificate.to_string(),
            },
            Err(what) => Problem::UnsupportedKey { what, library },
        });
        return None;
    };
    let leaf = &parsed[leaf_position];
    let (key_type, key_bits) = match key_kind(leaf.public_key(), library) {
        Ok(kind) => kind,
        Err(what) => {
            report(Problem::UnsupportedKey { what, library });
            return None;
        }
    };

    let names = names(leaf, report);
    let validity = leaf.validity();
    let order = chain_order(&parsed, leaf_position, report);
    let chain = order.into_iter().map(|position| certificates[position].clone()).collect();
    Some(LoadedCertificate {
        source: source.into(),
        names: names.into(),
        key_type,
        key_bits,
        signature: CertificateSignature::of(&leaf.signature_algorithm.algorithm),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        staple_ends: None,
        policy: None,
        signing: Signing::in_memory(Arc::new(CertifiedKey::new(chain, key))),
    })
}

/// The largest RSA modulus that the library signs with, in bits.
pub(super) const fn rsa_bits_max(library: CryptoLibrary) -> usize {
    match library {
        CryptoLibrary::AwsLc => 8_192,
        CryptoLibrary::Ring => 4_096,
    }
}

fn parse_all<'a>(
    certificates: &'a [CertificateDer<'static>],
) -> Result<Vec<X509Certificate<'a>>, Problem> {
    certificates
        .iter()
        .enumerate()
        .map(|(index, der)| {
            let broken =
                |detail: String| Problem::BrokenCertificate { position: index + 1, detail };
            match x509_parser::parse_x509_certificate(der) {
                Ok(([], certificate)) => Ok(certificate),
                Ok(_) => Err(broken("data behind the certificate".to_owned())),
                Err(error) => Err(broken(error.to_string())),
            }
        })
        .collect()
}

fn load_key(
    key: PrivateKeyDer<'static>,
    library: CryptoLibrary,
) -> Result<Arc<dyn SigningKey>, String> {
    let provider = match library {
        CryptoLibrary::AwsLc => aws_lc_rs::default_provider(),
        CryptoLibrary::Ring => ring::default_provider(),
    };
    let key = provider.key_provider.load_private_key(key).map_err(|error| match error {
        rustls::Error::General(detail) => detail,
        error => error.to_string(),
    })?;
    Ok(Arc::new(NotingKey::new(key)))
}

/// The certificate whose public key is that of `key`.
fn find_leaf(certificates: &[X509Certificate<'_>], key: &dyn SigningKey) -> Option<usize> {
    let public_key = key.public_key()?;
    certificates.iter().position(|certificate| certificate.public_key().raw == public_key.as_ref())
}

/// The kind of a public key, or, of one that `library` cannot sign for, its name.
fn key_type(key: &SubjectPublicKeyInfo<'_>, library: CryptoLibrary) -> Result<KeyType, String> {
    key_kind(key, library).map(|(key_type, _)| key_type)
}

/// The kind of a public key and its size in bits; else as [`key_type`].
pub(super) fn key_kind(
    key: &SubjectPublicKeyInfo<'_>,
    library: CryptoLibrary,
) -> Result<(KeyType, u16), String> {
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        let bits = match key.parsed() {
            Ok(PublicKey::RSA(key)) => {
                let leading_zeros = key.modulus.iter().take_while(|byte| **byte == 0).count();
                (key.modulus.len() - leading_zeros) * 8
            }
            _ => return Err("a broken RSA key".to_owned()),
        };
        return match bits {
            bits if (2_048..=rsa_bits_max(library)).contains(&bits) => {
                Ok((KeyType::Rsa, u16::try_from(bits).unwrap_or(u16::MAX)))
            }
            bits => Err(format!("an RSA key of {bits} bits")),
        };
    }
    if *algorithm == OID_SIG_ED25519 {
        return Ok((KeyType::Ed25519, 256));
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 => Ok((KeyType::EcdsaP256, 256)),
            Some(curve) if curve == OID_NIST_EC_P384 => Ok((KeyType::EcdsaP384, 384)),
            Some(curve) if curve == OID_NIST_EC_P521 => match library {
                CryptoLibrary::AwsLc => Ok((KeyType::EcdsaP521, 521)),
                CryptoLibrary::Ring => Err("an ECDSA P-521 key".to_owned()),
            },
            Some(curve) => Err(format!("an EC key on the curve {curve}")),
            None => Err("an EC key with explicit curve parameters".to_owned()),
        };
    }
    Err(format!("a key of the algorithm {algorithm}"))
}

fn describe_key(key: &dyn SigningKey) -> String {
    let spki = key.public_key();
    let parsed = spki.as_ref().and_then(|spki| {
        use x509_parser::prelude::FromDer;
        SubjectPublicKeyInfo::from_der(spki.as_ref()).ok()
    });
    match parsed.map(|(_, spki)| key_type(&spki, CryptoLibrary::AwsLc)) {
        Some(Ok(key_type)) => key_type.to_string(),
        Some(Err(what)) => what,
        None => format!("{:?}", key.algorithm()),
    }
}

/// Reports what is wrong at `now` with a validity, given in seconds since the UNIX epoch.
pub(super) fn check_dates(
    not_before: i64,
    not_after: i64,
    now: SystemTime,
    report: &mut dyn FnMut(Problem),
) {
    let now = unix_seconds(now);
    let left = not_after.saturating_sub(now);
    if not_before > now {
        report(Problem::NotYetValid(date(not_before)));
    }
    if left < 0 {
        report(Problem::Expired(date(not_after)));
    } else if left < EXPIRES_SOON_SECONDS {
        report(Problem::ExpiresSoon { days: left / DAY_SECONDS, date: date(not_after) });
    }
}

/// Seconds since the UNIX epoch; 0 before it.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The day of a time, in UTC: `2027-01-31`.
pub fn date(unix_seconds: i64) -> String {
    ASN1Time::from_timestamp(unix_seconds)
        .map_or_else(|_| unix_seconds.to_string(), |time| time.to_datetime().date().to_string())
}

/// A time to the minute, in UTC: `2027-01-31 09:05`.
pub fn minute(unix_seconds: i64) -> String {
    ASN1Time::from_timestamp(unix_seconds).map_or_else(
        |_| unix_seconds.to_string(),
        |time| {
            let time = time.to_datetime();
            format!("{} {:02}:{:02}", time.date(), time.hour(), time.minute())
        },
    )
}

/// Seconds since the UNIX epoch, now.
pub fn unix_now() -> i64 {
    unix_seconds(SystemTime::now())
}

/// The names that clients will check (RFC 6125 section 6.4, RFC 9525 section 2).
pub(super) fn names(
    leaf: &X509Certificate<'_>,
    report: &mut dyn FnMut(Problem),
) -> Vec<CertificateName> {
    let mut names = Vec::new();
    match leaf.subject_alternative_name() {
        Ok(Some(extension)) => {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::DNSName(text) => match CertificateName::parse(text) {
                        Some(name @ (CertificateName::Exact(_) | CertificateName::Wildcard(_))) => {
                            names.push(name);
                        }
                        _ => report(Problem::UnusableName((*text).to_owned())),
                    },
                    GeneralName::IPAddress(bytes) => {
                        names.extend(address(bytes).map(CertificateName::Address));
                    }
                    // Mail addresses, URIs and the like are not asked for in TLS.
                    _ => {}
                }
            }
        }
        // A broken extension names nothing that a client would accept either.
        Ok(None) | Err(_) => {
            let common_names = leaf.subject().iter_common_name();
            for text in common_names.filter_map(|attribute| attribute.as_str().ok()) {
                if let Some(name) = CertificateName::parse(text) {
                    report(Problem::CommonNameOnly(text.to_owned()));
                    names.push(name);
                }
            }
        }
    }
    if names.is_empty() {
        report(Problem::NoNames);
    }
    names
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    let address = <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)?;
    Some(address.to_canonical())
}

/// Leaf first, then issuer after issuer as TLS 1.2 demands (RFC 5246 section 7.4.2),
/// then what is left over: a second path to a root may still help some client.
fn chain_order(
    certificates: &[X509Certificate<'_>],
    leaf: usize,
    report: &mut dyn FnMut(Problem),
) -> Vec<usize> {
    let mut order = vec![leaf];
    let mut left: Vec<usize> = (0..certificates.len()).filter(|index| *index != leaf).collect();
    let mut last = leaf;
    while let Some(place) = left.iter().position(|candidate| {
        certificates[*candidate].subject().as_raw() == certificates[last].issuer().as_raw()
    }) {
        last = left.remove(place);
        order.push(last);
    }
    for index in left {
        report(Problem::UnlinkedCertificate {
            position: index + 1,
            subject: certificates[index].subject().to_string(),
        });
        order.push(index);
    }
    order
}
