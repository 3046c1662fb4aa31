//! Cipher suites, key-exchange groups and signature schemes by code point and by name.
//!
//! Names go both ways: configuration writes them (IANA's or OpenSSL's spelling),
//! PROXY protocol headers, metrics and logs read them (OpenSSL's spelling). Knows
//! nothing of the libraries that implement them.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

/// The cipher suites that forebay can negotiate, by IANA code point and by OpenSSL's
/// name, which is what PROXY protocol receivers and operators' dashboards expect.
pub const CIPHER_SUITES: [(u16, &str); 9] = [
    (0x1301, "TLS_AES_128_GCM_SHA256"),
    (0x1302, "TLS_AES_256_GCM_SHA384"),
    (0x1303, "TLS_CHACHA20_POLY1305_SHA256"),
    (0xc02b, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    (0xc02c, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (0xc02f, "ECDHE-RSA-AES128-GCM-SHA256"),
    (0xc030, "ECDHE-RSA-AES256-GCM-SHA384"),
    (0xcca8, "ECDHE-RSA-CHACHA20-POLY1305"),
    (0xcca9, "ECDHE-ECDSA-CHACHA20-POLY1305"),
];

/// IANA's names of the suites above that OpenSSL spells in its own way.
const CIPHER_SUITE_ALIASES: [(u16, &str); 6] = [
    (0xc02b, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    (0xc02c, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    (0xc02f, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    (0xc030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    (0xcca8, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    (0xcca9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
];

/// Key-exchange groups by IANA code point and name; the last stands for "none".
pub const GROUPS: [(u16, &str); 5] = [
    (0x11ec, "X25519MLKEM768"),
    (0x001d, "x25519"),
    (0x0017, "secp256r1"),
    (0x0018, "secp384r1"),
    (0, "none"),
];

/// Signature schemes by IANA code point and name (RFC 8446 section 4.2.3), those that
/// forebay can sign with.
pub const SIGNATURE_SCHEMES: [(u16, &str); 10] = [
    (0x0401, "rsa_pkcs1_sha256"),
    (0x0501, "rsa_pkcs1_sha384"),
    (0x0601, "rsa_pkcs1_sha512"),
    (0x0403, "ecdsa_secp256r1_sha256"),
    (0x0503, "ecdsa_secp384r1_sha384"),
    (0x0603, "ecdsa_secp521r1_sha512"),
    (0x0804, "rsa_pss_rsae_sha256"),
    (0x0805, "rsa_pss_rsae_sha384"),
    (0x0806, "rsa_pss_rsae_sha512"),
    (0x0807, "ed25519"),
];

/// What else people call the groups above.
const GROUP_ALIASES: [(u16, &str); 4] =
    [(0x0017, "P-256"), (0x0017, "prime256v1"), (0x0018, "P-384"), (0x001d, "curve25519")];

/// A cipher suite that forebay can negotiate.
///
/// Parses IANA's name (`TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`) and OpenSSL's
/// (`ECDHE-RSA-AES128-GCM-SHA256`) in any case; prints OpenSSL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CipherSuite(u16);

impl CipherSuite {
    /// Server preference unless configured otherwise.
    ///
    /// AES-128 first: its SHA-256 transcript has hardware support on every server CPU
    /// of the last years, SHA-384 has not, which takes a quarter off a full TLS 1.3
    /// handshake. ECDSA before RSA under TLS 1.2 for the same reason: cheaper.
    pub const DEFAULT_ORDER: [Self; 9] = [
        Self(0x1301),
        Self(0x1302),
        Self(0x1303),
        Self(0xc02b),
        Self(0xc02f),
        Self(0xc02c),
        Self(0xc030),
        Self(0xcca9),
        Self(0xcca8),
    ];

    /// The IANA code point.
    pub const fn code_point(self) -> u16 {
        self.0
    }
}

/// A key-exchange group that forebay can negotiate.
///
/// Parses IANA's name and the usual others (`P-256`, `prime256v1`) in any case;
/// prints IANA's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group(u16);

impl Group {
    /// Hybrid of X25519 and ML-KEM-768: safe against a later quantum computer.
    pub const X25519_MLKEM768: Self = Self(0x11ec);
    /// X25519 (RFC 7748).
    pub const X25519: Self = Self(0x001d);
    /// NIST P-256.
    pub const SECP256R1: Self = Self(0x0017);
    /// NIST P-384.
    pub const SECP384R1: Self = Self(0x0018);

    /// The IANA code point.
    pub const fn code_point(self) -> u16 {
        self.0
    }
}

/// A signature scheme that forebay can sign with.
///
/// Parses IANA's name in any case; prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SignatureScheme(u16);

impl SignatureScheme {
    /// The IANA code point.
    pub const fn code_point(self) -> u16 {
        self.0
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        SIGNATURE_SCHEMES.into_iter().map(|(code, _)| Self(code))
    }

    /// Whether it is one of RSA keys.
    pub const fn is_rsa(self) -> bool {
        matches!(self.0, 0x0401 | 0x0501 | 0x0601 | 0x0804 | 0x0805 | 0x0806)
    }
}

/// OpenSSL's name of a cipher suite; `None` for one that forebay cannot negotiate.
pub fn cipher_suite_name(code_point: u16) -> Option<&'static str> {
    CIPHER_SUITES.iter().find(|(code, _)| *code == code_point).map(|(_, name)| *name)
}

/// IANA's name of a key-exchange group; `None` for one that forebay cannot negotiate.
pub fn group_name(code_point: u16) -> Option<&'static str> {
    named_groups().find(|(code, _)| *code == code_point).map(|(_, name)| name)
}

/// IANA's name of a signature scheme; `None` for one that forebay does not sign with.
pub fn signature_scheme_name(code_point: u16) -> Option<&'static str> {
    SIGNATURE_SCHEMES.iter().find(|(code, _)| *code == code_point).map(|(_, name)| *name)
}

/// The longest name of a table, in bytes.
pub const fn longest(table: &[(u16, &str)]) -> usize {
    let mut longest = 0;
    let mut index = 0;
    while index < table.len() {
        if table[index].1.len() > longest {
            longest = table[index].1.len();
        }
        index += 1;
    }
    longest
}

/// A name that stands for nothing we have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} \"{name}\"; {advice}")]
pub struct UnknownName {
    kind: &'static str,
    name: String,
    advice: String,
}

impl UnknownName {
    fn new(kind: &'static str, name: &str, known: &[(u16, &'static str)]) -> Self {
        let folded = name.to_ascii_lowercase();
        let nearest = known
            .iter()
            .map(|(_, candidate)| {
                (strsim::jaro_winkler(&folded, &candidate.to_ascii_lowercase()), *candidate)
            })
            .max_by(|(left, _), (right, _)| left.total_cmp(right));
        let advice = match nearest {
            // Below this the nearest name is a guess that misleads.
            Some((similarity, candidate)) if similarity > 0.8 => {
                format!("did you mean \"{candidate}\"?")
            }
            _ => {
                let names: Vec<_> = known.iter().map(|(_, name)| *name).collect();
                format!("known are {}", names.join(", "))
            }
        };
        Self { kind, name: name.to_owned(), advice }
    }
}

impl FromStr for CipherSuite {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        find(name, CIPHER_SUITES.iter().chain(&CIPHER_SUITE_ALIASES)).map(Self).ok_or_else(|| {
            // Someone who writes IANA's spelling is shown IANA's spelling.
            let known: Vec<_> = CIPHER_SUITES.into_iter().chain(CIPHER_SUITE_ALIASES).collect();
            UnknownName::new("cipher suite", name, &known)
        })
    }
}

impl FromStr for Group {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let known: Vec<_> = named_groups().collect();
        find(name, known.iter().chain(&GROUP_ALIASES))
            .map(Self)
            .ok_or_else(|| UnknownName::new("key-exchange group", name, &known))
    }
}

impl FromStr for SignatureScheme {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        find(name, SIGNATURE_SCHEMES.iter())
            .map(Self)
            .ok_or_else(|| UnknownName::new("signature scheme", name, &SIGNATURE_SCHEMES))
    }
}

impl fmt::Display for CipherSuite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(cipher_suite_name(self.0).unwrap_or("unknown"))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(group_name(self.0).unwrap_or("unknown"))
    }
}

impl fmt::Display for SignatureScheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(signature_scheme_name(self.0).unwrap_or("unknown"))
    }
}

/// The groups without the entry that stands for "none".
fn named_groups() -> impl Iterator<Item = (u16, &'static str)> {
    GROUPS.into_iter().filter(|(code, _)| *code != 0)
}

fn find<'a>(name: &str, mut known: impl Iterator<Item = &'a (u16, &'static str)>) -> Option<u16> {
    known.find(|(_, candidate)| candidate.eq_ignore_ascii_case(name)).map(|(code, _)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_parses_by_both_of_its_names_in_any_case() {
        for (code, name) in CIPHER_SUITES.into_iter().chain(CIPHER_SUITE_ALIASES) {
            assert_eq!(name.parse(), Ok(CipherSuite(code)));
            assert_eq!(name.to_ascii_lowercase().parse(), Ok(CipherSuite(code)));
        }
    }

    #[test]
    fn every_group_parses_by_all_of_its_names() {
        for (code, name) in named_groups().chain(GROUP_ALIASES) {
            assert_eq!(name.parse(), Ok(Group(code)));
        }
        assert_eq!("p-256".parse(), Ok(Group::SECP256R1));
    }

    #[test]
    fn every_signature_scheme_parses_by_its_name_and_says_whether_it_is_of_rsa() {
        for (code, name) in SIGNATURE_SCHEMES {
            let scheme = SignatureScheme(code);
            assert_eq!(name.to_ascii_uppercase().parse(), Ok(scheme));
            assert_eq!(scheme.to_string(), name);
            assert_eq!(scheme.is_rsa(), name.starts_with("rsa_"));
        }
    }

    #[test]
    fn the_default_order_holds_every_suite_once() {
        for (code, _) in CIPHER_SUITES {
            let times = CipherSuite::DEFAULT_ORDER.iter().filter(|suite| suite.0 == code).count();
            assert_eq!(times, 1, "{code:#06x}");
        }
    }

    #[test]
    fn a_misspelt_suite_is_answered_with_the_nearest() {
        let error = "ECDHE-RSA-AES128-GCM-SHA265".parse::<CipherSuite>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown cipher suite \"ECDHE-RSA-AES128-GCM-SHA265\"; \
             did you mean \"ECDHE-RSA-AES128-GCM-SHA256\"?"
        );
    }

    #[test]
    fn a_misspelt_iana_name_is_answered_in_the_same_spelling() {
        let error = "TLS_ECDHE_RSA_WITH_AES128_GCM_SHA256".parse::<CipherSuite>().unwrap_err();
        assert!(
            error.to_string().ends_with("did you mean \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"?")
        );
    }

    #[test]
    fn a_name_like_nothing_is_answered_with_the_list() {
        let error = "ffdhe2048".parse::<Group>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown key-exchange group \"ffdhe2048\"; \
             known are X25519MLKEM768, x25519, secp256r1, secp384r1"
        );
    }

    #[test]
    fn none_is_not_a_group_that_can_be_configured() {
        assert!("none".parse::<Group>().is_err());
        assert_eq!(group_name(0), None);
    }

    #[test]
    fn suites_and_groups_print_the_names_that_dashboards_know() {
        assert_eq!(CipherSuite(0xcca8).to_string(), "ECDHE-RSA-CHACHA20-POLY1305");
        assert_eq!(Group::SECP256R1.to_string(), "secp256r1");
    }
}
