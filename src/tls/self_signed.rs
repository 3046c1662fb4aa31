//! A self-signed certificate made in memory: for the demo and for tests.
#![forbid(unsafe_code)]

use std::path::Path;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::CryptoLibrary;
use super::certificates::{LoadedCertificate, Problem, Severity, assemble};

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// A name cannot stand in a certificate, or no random numbers were to be had.
    #[error("cannot make a self-signed certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The crypto library does not take it.
    #[error("cannot use the self-signed certificate: it {0}")]
    Unusable(Problem),
}

/// Makes an ECDSA P-256 key and a certificate for `names`: DNS names, wildcards, and
/// addresses. Valid from 1975 to 4096, trusted by nobody.
///
/// # Errors
/// A name is not ASCII, or the random generator failed.
pub fn self_signed(
    names: &[&str],
    library: CryptoLibrary,
) -> Result<LoadedCertificate, SelfSignedError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name.push(DnType::CommonName, "forebay self-signed");
    let certificate = parameters.self_signed(&key)?;

    let mut error = None;
    let loaded = assemble(
        Path::new("self-signed"),
        vec![certificate.der().clone()],
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        library,
        &mut |problem| {
            if problem.severity() == Severity::Error {
                error = Some(problem);
            }
        },
    );
    loaded.ok_or_else(|| {
        SelfSignedError::Unusable(error.unwrap_or(Problem::NoCertificate { has_key: true }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificates::{CertificateName, KeyType};
    use crate::tls::test_support::LIBRARIES;

    #[test]
    fn names_wildcards_and_addresses_are_all_in_it() {
        for library in LIBRARIES {
            let loaded =
                self_signed(&["localhost", "*.example.com", "127.0.0.1", "::1"], library).unwrap();
            let names: Vec<_> = loaded.names.iter().map(CertificateName::to_string).collect();
            assert_eq!(names, ["localhost", "*.example.com", "127.0.0.1", "::1"]);
            assert_eq!(loaded.key_type, KeyType::EcdsaP256);
            loaded.signing.certified().unwrap().keys_match().unwrap();
        }
    }

    #[test]
    fn a_name_that_cannot_stand_in_a_certificate_is_an_error() {
        assert!(matches!(
            self_signed(&["bücher.example"], CryptoLibrary::AwsLc),
            Err(SelfSignedError::Generate(_))
        ));
    }
}
