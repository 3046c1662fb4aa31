//! `[tls]`: the cryptographic library, and what is negotiated.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::tls::certificate_compression::Compression;
use crate::tls::names::{CipherSuite, Group, UnknownName};
use crate::tls::provider::default_groups;
use crate::tls::{CryptoLibrary, Version};

use super::finding::Located;
use super::item::{Item, Section};
use super::report::Report;

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// `provider = "aws-lc-rs" | "ring"`, default `"aws-lc-rs"`: which library does the
    /// cryptography. aws-lc-rs needs less CPU for a handshake and has the post-quantum
    /// group X25519MLKEM768; ring has neither.
    pub provider: CryptoLibrary,
    /// `minimum_version`, `cipher_suites` and `groups`, for listeners that do not say
    /// otherwise.
    pub policy: TlsPolicy,
    /// `small_records = "0B" to "1MiB"`, default `"16KiB"`, here in bytes: at the start
    /// and after a pause, so many bytes go to the client in records that fit one TCP
    /// segment, which it can decrypt as they come; then records grow to 16 KiB, which
    /// cost less CPU. `"0B"`: large records from the start.
    pub small_records_bytes: u32,
    /// `keys_in_memory = 1 to 1000000`, default 10000: of how many certificates chain and
    /// key are kept in memory, about 6 KiB each, of all listeners together. Of the others
    /// they are read from their files when a client asks for the name, and take the place
    /// of those that nobody asked for lately.
    pub keys_in_memory: usize,
    /// `key_passphrase_file = "path"`, default absent: a file of passphrases, one a line,
    /// each of which is tried on private keys that are encrypted (PKCS#8, PBES2 with AES).
    /// Readable by its owner only. Relative to the configuration file; a change is noticed
    /// as one of the certificates is. Opening a key costs what its encryption asks for, on
    /// a handshake worker where the key is not in memory.
    pub key_passphrase_file: Option<Located<PathBuf>>,
    /// `certificate_index = "path"`, default absent: a file in which forebay writes down what
    /// is in the certificates' files, so that the next start reads those only that have
    /// changed since: worth it from some thousand certificates on. Made anew whenever it is
    /// missing or of no use; forebay must be allowed to write in its directory. Holds no
    /// secrets. Relative to the configuration file; taken from the start to the end of the
    /// process.
    pub certificate_index: Option<Located<PathBuf>>,
    /// `certificate_compression = ["brotli", "zlib"]`, default empty, which is off: ways to
    /// compress the certificate message of TLS 1.3 (RFC 8879), in order of preference, for
    /// clients that offer one: a smaller flight for a look-up in a cache of 16 MiB.
    pub certificate_compression: Vec<Compression>,
    /// `strict_truncation = true | false`, default `false`: what a client means that ends
    /// the TCP stream without a close_notify alert. `false`: that it has finished sending,
    /// as many clients do; it is counted. `true`: that the stream was cut by someone
    /// else; the backend's connection is reset.
    pub strict_truncation: bool,
}

/// What may be negotiated with a client. In `[tls]` it holds for every listener; each
/// `[[listener]]` may write any of the three keys anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPolicy {
    /// `minimum_version = "1.2" | "1.3"`, default `"1.2"`: older clients are refused.
    pub minimum_version: Version,
    /// `cipher_suites = [names]`, OpenSSL's or IANA's, default all: what is offered, in
    /// order of preference; the server's order decides. By default AES-128 comes first,
    /// because a handshake with a SHA-384 suite takes a third more CPU.
    pub cipher_suites: Vec<CipherSuite>,
    /// `groups = [names]`, default `["X25519MLKEM768", "x25519", "secp256r1",
    /// "secp384r1"]` (without the first for ring): key-exchange groups that may be used;
    /// among them the client's order decides.
    pub groups: Vec<Group>,
}

impl TlsPolicy {
    /// The policy without configuration.
    pub fn new(provider: CryptoLibrary) -> Self {
        Self {
            minimum_version: Version::Tls12,
            cipher_suites: CipherSuite::DEFAULT_ORDER.to_vec(),
            groups: default_groups(provider).to_vec(),
        }
    }
}

impl Default for TlsSettings {
    fn default() -> Self {
        let provider = CryptoLibrary::default();
        Self {
            provider,
            policy: TlsPolicy::new(provider),
            small_records_bytes: 16 * 1024,
            keys_in_memory: 10_000,
            key_passphrase_file: None,
            certificate_index: None,
            certificate_compression: Vec::new(),
            strict_truncation: false,
        }
    }
}

pub(super) const KEYS: &[&str] = &[
    "provider",
    "minimum_version",
    "cipher_suites",
    "groups",
    "small_records",
    "keys_in_memory",
    "key_passphrase_file",
    "certificate_index",
    "certificate_compression",
    "strict_truncation",
];

const PROVIDERS: [(&str, CryptoLibrary); 2] =
    [("aws-lc-rs", CryptoLibrary::AwsLc), ("ring", CryptoLibrary::Ring)];
const COMPRESSIONS: [(&str, Compression); 2] =
    [("brotli", Compression::Brotli), ("zlib", Compression::Zlib)];
const VERSIONS: [(&str, Version); 2] = [("1.2", Version::Tls12), ("1.3", Version::Tls13)];

pub(super) fn read(report: &mut Report<'_>, root: &Section<'_>, directory: &Path) -> TlsSettings {
    let section = &root.section(report, "tls", KEYS);
    let default = TlsSettings::default();
    let provider = section.value(report, "provider", default.provider, |item, report| {
        item.choice(report, &PROVIDERS)
    });
    TlsSettings {
        provider,
        policy: read_policy(report, section, provider, &TlsPolicy::new(provider)),
        small_records_bytes: section.value(
            report,
            "small_records",
            default.small_records_bytes,
            |item, report| {
                let bytes = item.size(report, 0..=1 << 20)?;
                u32::try_from(bytes).ok()
            },
        ),
        keys_in_memory: section.value(
            report,
            "keys_in_memory",
            default.keys_in_memory,
            |item, report| item.count(report, 1..=1_000_000),
        ),
        key_passphrase_file: section.optional(report, "key_passphrase_file", |item, report| {
            item.path(report, directory).map(|path| item.locate(path))
        }),
        certificate_index: section.optional(report, "certificate_index", |item, report| {
            item.path(report, directory).map(|path| item.locate(path))
        }),
        certificate_compression: section.value(
            report,
            "certificate_compression",
            default.certificate_compression,
            read_compression,
        ),
        strict_truncation: section.value(
            report,
            "strict_truncation",
            default.strict_truncation,
            |item, report| item.boolean(report),
        ),
    }
}

fn read_compression(item: &Item<'_>, report: &mut Report<'_>) -> Option<Vec<Compression>> {
    let mut chosen = Vec::new();
    for element in item.elements(report)? {
        let Some(compression) = element.choice(report, &COMPRESSIONS) else { continue };
        if chosen.contains(&compression) {
            let help = "take one of the two out".into();
            report.error(element.place(), "it is listed twice".into(), Some(help));
        } else {
            chosen.push(compression);
        }
    }
    Some(chosen)
}

/// The policy keys of `section`, on top of `base`.
pub(super) fn read_policy(
    report: &mut Report<'_>,
    section: &Section<'_>,
    provider: CryptoLibrary,
    base: &TlsPolicy,
) -> TlsPolicy {
    let policy = TlsPolicy {
        minimum_version: section.value(
            report,
            "minimum_version",
            base.minimum_version,
            |item, report| item.choice(report, &VERSIONS),
        ),
        cipher_suites: section.value(
            report,
            "cipher_suites",
            base.cipher_suites.clone(),
            |item, report| read_names(report, item, |_, _, _| {}),
        ),
        groups: section.value(report, "groups", base.groups.clone(), |item, report| {
            read_names(report, item, |report, element, group: Group| {
                if !default_groups(provider).contains(&group) {
                    let message =
                        format!("{group} is not available with provider = \"{provider}\"");
                    let help = "take it out, or set provider = \"aws-lc-rs\"";
                    report.error(element.place(), message, Some(help.into()));
                }
            })
        }),
    };
    let written =
        ["cipher_suites", "minimum_version"].into_iter().find_map(|key| section.item(report, key));
    if let Some(item) = written {
        check_versions(report, &item, &policy);
    }
    policy
}

/// A list of names, each at most once; `check` says what else is wrong with one.
pub(super) fn read_names<T>(
    report: &mut Report<'_>,
    item: &Item<'_>,
    check: impl Fn(&mut Report<'_>, &Item<'_>, T),
) -> Option<Vec<T>>
where
    T: FromStr<Err = UnknownName> + Copy + PartialEq,
{
    let elements = item.elements(report)?;
    if elements.is_empty() {
        let help = "take the key out for the default".into();
        report.error(item.place(), "the list is empty".into(), Some(help));
        return None;
    }
    let mut values = Vec::new();
    let mut complete = true;
    for element in elements {
        let Some(name) = element.text(report) else {
            complete = false;
            continue;
        };
        match name.parse::<T>() {
            Ok(value) if values.contains(&value) => {
                let help = "take one of the two out".into();
                report.error(element.place(), format!("{name:?} is listed twice"), Some(help));
            }
            Ok(value) => {
                check(report, &element, value);
                values.push(value);
            }
            Err(unknown) => {
                complete = false;
                report.error(element.place(), unknown.to_string(), None);
            }
        }
    }
    // A list with holes would only mislead the checks to come.
    complete.then_some(values)
}

/// Every version that is allowed should have a suite.
fn check_versions(report: &mut Report<'_>, item: &Item<'_>, policy: &TlsPolicy) {
    let of_tls13 = |suite: &CipherSuite| suite.code_point() >> 8 == 0x13;
    if !policy.cipher_suites.iter().any(of_tls13) {
        let help = "add \"TLS_AES_128_GCM_SHA256\"".into();
        if policy.minimum_version == Version::Tls13 {
            let message = "no TLS 1.3 cipher suite is listed, and older versions are refused";
            report.error(item.place(), message.into(), Some(help));
        } else {
            let message = "no TLS 1.3 cipher suite is listed, so that version is not offered";
            report.warning(item.place(), message.into(), Some(help));
        }
    } else if policy.minimum_version == Version::Tls12 && policy.cipher_suites.iter().all(of_tls13)
    {
        let message = "no TLS 1.2 cipher suite is listed, so that version is not offered";
        let help = "add one, or set minimum_version = \"1.3\"".into();
        report.warning(item.place(), message.into(), Some(help));
    }
}
