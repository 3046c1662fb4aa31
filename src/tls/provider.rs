//! What a listener may negotiate, as the crypto provider that rustls wants.
//!
//! Both libraries are built in; this is the one place that chooses between them.
#![forbid(unsafe_code)]

use rustls::SupportedCipherSuite;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs, ring};

use super::CryptoLibrary;
use super::names::{CipherSuite, Group};

/// The groups a listener allows unless configured otherwise. rustls takes the *client's*
/// first among them, so this is a set, not an order.
pub fn default_groups(library: CryptoLibrary) -> &'static [Group] {
    const ALL: [Group; 4] =
        [Group::X25519_MLKEM768, Group::X25519, Group::SECP256R1, Group::SECP384R1];
    match library {
        CryptoLibrary::AwsLc => &ALL,
        CryptoLibrary::Ring => &ALL[1..],
    }
}

/// Why a choice of suites and groups cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No cipher suite was listed.
    #[error("no cipher suite is configured; leave the list out for the default ones")]
    NoCipherSuites,
    /// No group was listed.
    #[error("no key-exchange group is configured; leave the list out for the default ones")]
    NoGroups,
    /// A suite was listed twice.
    #[error("cipher suite {0} is listed twice")]
    DuplicateCipherSuite(CipherSuite),
    /// A group was listed twice.
    #[error("key-exchange group {0} is listed twice")]
    DuplicateGroup(Group),
    /// The library does not have the suite.
    #[error("{library} has no cipher suite {suite}")]
    CipherSuiteNotInLibrary {
        /// The suite that was asked for.
        suite: CipherSuite,
        /// The library that was asked.
        library: CryptoLibrary,
    },
    /// The library does not have the group.
    #[error(
        "{library} has no key-exchange group {group}; \
         use {} for it, or take it off the list",
        CryptoLibrary::AwsLc
    )]
    GroupNotInLibrary {
        /// The group that was asked for.
        group: Group,
        /// The library that was asked.
        library: CryptoLibrary,
    },
}

/// The provider of `library`, cut down to the given suites, in the server's order of
/// preference, and groups.
///
/// # Errors
/// A list is empty or names something twice or something that the library lacks.
pub fn crypto_provider(
    library: CryptoLibrary,
    cipher_suites: &[CipherSuite],
    groups: &[Group],
) -> Result<CryptoProvider, ProviderError> {
    let (available_suites, available_groups, provider) = match library {
        CryptoLibrary::AwsLc => {
            (aws_lc_rs::ALL_CIPHER_SUITES, aws_lc_rs::ALL_KX_GROUPS, aws_lc_rs::default_provider())
        }
        CryptoLibrary::Ring => {
            (ring::ALL_CIPHER_SUITES, ring::ALL_KX_GROUPS, ring::default_provider())
        }
    };
    if cipher_suites.is_empty() {
        return Err(ProviderError::NoCipherSuites);
    }
    if groups.is_empty() {
        return Err(ProviderError::NoGroups);
    }

    let mut chosen_suites: Vec<SupportedCipherSuite> = Vec::with_capacity(cipher_suites.len());
    for suite in cipher_suites.iter().copied() {
        let found = available_suites
            .iter()
            .find(|candidate| u16::from(candidate.suite()) == suite.code_point())
            .ok_or(ProviderError::CipherSuiteNotInLibrary { suite, library })?;
        if chosen_suites.contains(found) {
            return Err(ProviderError::DuplicateCipherSuite(suite));
        }
        chosen_suites.push(*found);
    }

    let mut chosen_groups: Vec<&'static dyn SupportedKxGroup> = Vec::with_capacity(groups.len());
    for group in groups.iter().copied() {
        let found = available_groups
            .iter()
            .find(|candidate| u16::from(candidate.name()) == group.code_point())
            .ok_or(ProviderError::GroupNotInLibrary { group, library })?;
        if chosen_groups.iter().any(|chosen| chosen.name() == found.name()) {
            return Err(ProviderError::DuplicateGroup(group));
        }
        chosen_groups.push(*found);
    }

    Ok(CryptoProvider { cipher_suites: chosen_suites, kx_groups: chosen_groups, ..provider })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::names::CIPHER_SUITES;
    use crate::tls::test_support::LIBRARIES;

    #[test]
    fn both_libraries_have_every_suite_in_the_order_asked_for() {
        for library in LIBRARIES {
            let provider =
                crypto_provider(library, &CipherSuite::DEFAULT_ORDER, default_groups(library))
                    .unwrap();
            let order: Vec<_> =
                provider.cipher_suites.iter().map(|suite| u16::from(suite.suite())).collect();
            assert_eq!(order, CipherSuite::DEFAULT_ORDER.map(CipherSuite::code_point));
            assert_eq!(order.len(), CIPHER_SUITES.len());
            assert_eq!(order[0], 0x1301, "TLS_AES_128_GCM_SHA256 first");
        }
    }

    #[test]
    fn the_post_quantum_group_needs_aws_lc_rs_and_the_error_says_so() {
        let error = crypto_provider(
            CryptoLibrary::Ring,
            &CipherSuite::DEFAULT_ORDER,
            &[Group::X25519, Group::X25519_MLKEM768],
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "ring has no key-exchange group X25519MLKEM768; \
             use aws-lc-rs for it, or take it off the list"
        );
    }

    #[test]
    fn a_group_or_suite_listed_twice_is_an_error() {
        let suite: CipherSuite = "TLS_AES_128_GCM_SHA256".parse().unwrap();
        let provider = |suites: &[_], groups: &[_]| {
            crypto_provider(CryptoLibrary::AwsLc, suites, groups).unwrap_err().to_string()
        };
        assert_eq!(
            provider(&[suite, suite], &[Group::X25519]),
            "cipher suite TLS_AES_128_GCM_SHA256 is listed twice"
        );
        assert_eq!(
            provider(&[suite], &[Group::SECP256R1, Group::SECP256R1]),
            "key-exchange group secp256r1 is listed twice"
        );
    }

    #[test]
    fn an_empty_list_is_an_error() {
        let suite: CipherSuite = "TLS_AES_128_GCM_SHA256".parse().unwrap();
        assert_eq!(
            crypto_provider(CryptoLibrary::AwsLc, &[], &[Group::X25519]).unwrap_err(),
            ProviderError::NoCipherSuites
        );
        assert_eq!(
            crypto_provider(CryptoLibrary::AwsLc, &[suite], &[]).unwrap_err(),
            ProviderError::NoGroups
        );
    }
}
