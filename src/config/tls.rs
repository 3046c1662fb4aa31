//! `[tls]`: the cryptographic library, and what is negotiated.

use crate::tls::names::{CIPHER_SUITES, GROUPS};
use crate::tls::{CryptoLibrary, Version};

use super::item::{Item, Section};
use super::report::Report;
use super::suggest;

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
    pub small_records_bytes: usize,
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
    /// `cipher_suites = [OpenSSL names]`, default all, here as IANA code points: what is
    /// offered, in order of preference; the server's order decides. By default AES-128
    /// comes first, because a handshake with a SHA-384 suite takes a third more CPU.
    pub cipher_suites: Vec<u16>,
    /// `groups = [names]`, default `["X25519MLKEM768", "x25519", "secp256r1",
    /// "secp384r1"]` (without the first for ring), here as IANA code points:
    /// key-exchange groups in order of preference.
    pub groups: Vec<u16>,
}

/// The order of preference without configuration.
const CIPHER_SUITES_DEFAULT: [u16; 9] =
    [0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8];
const GROUPS_DEFAULT: [u16; 4] = [X25519MLKEM768, 0x001d, 0x0017, 0x0018];
const X25519MLKEM768: u16 = 0x11ec;

impl TlsPolicy {
    /// The policy without configuration.
    pub fn new(provider: CryptoLibrary) -> Self {
        let available = |group: &u16| match provider {
            CryptoLibrary::AwsLc => true,
            CryptoLibrary::Ring => *group != X25519MLKEM768,
        };
        Self {
            minimum_version: Version::Tls12,
            cipher_suites: CIPHER_SUITES_DEFAULT.to_vec(),
            groups: GROUPS_DEFAULT.into_iter().filter(available).collect(),
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
    "strict_truncation",
];

const PROVIDERS: [(&str, CryptoLibrary); 2] =
    [("aws-lc-rs", CryptoLibrary::AwsLc), ("ring", CryptoLibrary::Ring)];
const VERSIONS: [(&str, Version); 2] = [("1.2", Version::Tls12), ("1.3", Version::Tls13)];

pub(super) fn read(report: &mut Report<'_>, root: &Section<'_>) -> TlsSettings {
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
                usize::try_from(bytes).ok()
            },
        ),
        strict_truncation: section.value(
            report,
            "strict_truncation",
            default.strict_truncation,
            |item, report| item.boolean(report),
        ),
    }
}

/// The policy keys of `section`, on top of `base`.
pub(super) fn read_policy(
    report: &mut Report<'_>,
    section: &Section<'_>,
    provider: CryptoLibrary,
    base: &TlsPolicy,
) -> TlsPolicy {
    let minimum_version =
        section.value(report, "minimum_version", base.minimum_version, |item, report| {
            item.choice(report, &VERSIONS)
        });
    let cipher_suites =
        section.value(report, "cipher_suites", base.cipher_suites.clone(), |item, report| {
            let suites = read_names(report, item, "cipher suite", cipher_suite)?;
            check_suites(report, item, &suites, minimum_version);
            Some(suites)
        });
    let groups = section.value(report, "groups", base.groups.clone(), |item, report| {
        read_names(report, item, "group", |name| group(name, provider))
    });
    TlsPolicy { minimum_version, cipher_suites, groups }
}

/// A list of names, each of which `look_up` turns into a code point or a message with
/// help.
fn read_names(
    report: &mut Report<'_>,
    item: &Item<'_>,
    what: &str,
    look_up: impl Fn(&str) -> Result<u16, (String, String)>,
) -> Option<Vec<u16>> {
    let elements = item.elements(report)?;
    if elements.is_empty() {
        let help = "take the key out for the default".into();
        report.error(item.place(), format!("no {what} is listed"), Some(help));
        return None;
    }
    let mut codes = Vec::new();
    let mut complete = true;
    for element in elements {
        let Some(name) = element.text(report) else {
            complete = false;
            continue;
        };
        match look_up(name) {
            Ok(code) if codes.contains(&code) => {
                let help = "its first place counts: take this one out".into();
                report.error(element.place(), format!("{name:?} is listed twice"), Some(help));
            }
            Ok(code) => codes.push(code),
            Err((message, help)) => {
                complete = false;
                report.error(element.place(), message, Some(help));
            }
        }
    }
    complete.then_some(codes)
}

fn cipher_suite(name: &str) -> Result<u16, (String, String)> {
    let names = CIPHER_SUITES.map(|(_, name)| name);
    if let Some((code, _)) = CIPHER_SUITES.iter().find(|(_, known)| *known == name) {
        return Ok(*code);
    }
    let help = match suggest::nearest(&openssl_spelling(name), names) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("the cipher suites are {}", names.join(", ")),
    };
    Err((format!("unknown cipher suite {name:?}"), help))
}

/// The IANA name of a TLS 1.2 suite in OpenSSL's manner, for the suggestion:
/// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` becomes `ECDHE-RSA-AES128-GCM-SHA256`.
fn openssl_spelling(name: &str) -> String {
    match name.strip_prefix("TLS_").and_then(|rest| rest.split_once("_WITH_")) {
        Some((exchange, cipher)) => {
            let cipher = cipher.replace("AES_", "AES").replace("POLY1305_SHA256", "POLY1305");
            format!("{exchange}-{cipher}").replace('_', "-")
        }
        None => name.into(),
    }
}

/// Names are accepted in any case, and by NIST's name for the curve.
fn group(name: &str, provider: CryptoLibrary) -> Result<u16, (String, String)> {
    let known = &GROUPS[..GROUPS.len() - 1];
    let names: Vec<&str> = known.iter().map(|(_, name)| *name).collect();
    let formal = match name.to_ascii_lowercase().as_str() {
        "p-256" => "secp256r1",
        "p-384" => "secp384r1",
        _ => name,
    };
    match known.iter().find(|(_, known)| known.eq_ignore_ascii_case(formal)) {
        Some((X25519MLKEM768, _)) if provider == CryptoLibrary::Ring => Err((
            format!("{name:?} is not available with provider = \"ring\""),
            "take it out, or set provider = \"aws-lc-rs\"".into(),
        )),
        Some((code, _)) => Ok(*code),
        None => {
            let help = match suggest::nearest(formal, names.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("the groups are {}", names.join(", ")),
            };
            Err((format!("unknown group {name:?}"), help))
        }
    }
}

fn check_suites(report: &mut Report<'_>, item: &Item<'_>, suites: &[u16], minimum: Version) {
    let of_tls13 = |code: &u16| *code >> 8 == 0x13;
    if !suites.iter().any(of_tls13) {
        report.error(
            item.place(),
            "no TLS 1.3 cipher suite is listed".into(),
            Some(
                "add \"TLS_AES_128_GCM_SHA256\": a client that offers TLS 1.3 gets TLS 1.3".into(),
            ),
        );
    } else if minimum == Version::Tls12 && suites.iter().all(of_tls13) {
        report.warning(
            item.place(),
            "no TLS 1.2 cipher suite is listed, so TLS 1.2 clients are refused".into(),
            Some("add one, or set minimum_version = \"1.3\"".into()),
        );
    }
}
