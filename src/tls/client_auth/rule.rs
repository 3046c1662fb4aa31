//! Rules: which of the clients with a valid certificate may come in.
//!
//! | Rule | Who |
//! |---|---|
//! | `dns:app.example`, `dns:*.example` | has this DNS name, or one with any one label in front |
//! | `uri:spiffe://domain/path`, `uri:spiffe://domain/path/*` | has this SPIFFE ID, or one below the path |
//! | `uri:urn:device:7` | has this URI, byte for byte |
//! | `email:ops@corp.example`, `email:@corp.example` | has this mail address, or any at the host |
//! | `cn:app` | has this common name, byte for byte, and no other |
//! | `spki:sha256/BASE64`, `spki:HEX` | has this public key |
//!
//! In doubt no rule holds: a wildcard in the client's certificate stands for no client, a
//! certificate with two URIs is no SPIFFE identity, one with two common names has none.

use std::fmt;
use std::str::FromStr;

use super::ClientCertificate;
use super::spiffe;
use crate::tls::certificates::CertificateName;
use crate::tls::digits;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A DNS name of the subject alternative names, in lower case.
    Dns(Box<str>),
    /// What follows the first label of a DNS name, in lower case.
    DnsBelow(Box<str>),
    /// A URI that is no SPIFFE ID (RFC 5280 section 4.2.1.6).
    Uri(Box<str>),
    /// A SPIFFE ID.
    Spiffe(Box<str>),
    /// A SPIFFE ID that begins with this, which ends with a slash.
    SpiffeBelow(Box<str>),
    /// A mail address.
    Email {
        /// What stands before the `@`, in its own case.
        local: Box<str>,
        /// What stands behind, in lower case.
        host: Box<str>,
    },
    /// Any mail address at this host, in lower case.
    EmailHost(Box<str>),
    /// The common name.
    CommonName(Box<str>),
    /// SHA-256 of the SubjectPublicKeyInfo.
    Key([u8; 32]),
}

/// Why a text is no rule, or one that would never hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It does not say what it is about.
    #[error("{0:?} does not say what must match: begin it with dns:, uri:, email:, cn: or spki:")]
    NoKind(String),
    /// Nothing follows the kind.
    #[error("{0:?} says nothing behind the colon, and would hold for nobody")]
    Empty(String),
    /// An address, which has a form of its own in certificates.
    #[error("{0:?} is an address: rules take DNS names, such as dns:app.example")]
    Address(String),
    /// Not a DNS name.
    #[error("{0:?} is no DNS name: write dns:app.example, or dns:*.example for any one label")]
    NotDns(String),
    /// Not a URI.
    #[error("{0:?} is no URI: write a scheme too, such as uri:spiffe://domain/path")]
    NotUri(String),
    /// Not a SPIFFE ID.
    #[error(
        "{0:?} is no SPIFFE ID: it is spiffe://, a trust domain in lower case, and segments of \
         letters, digits, dots, hyphens and underscores; only the last may be *"
    )]
    NotSpiffe(String),
    /// Only SPIFFE IDs have a hierarchy that can be relied on.
    #[error("{0:?} has a *, which only SPIFFE IDs may end with: write each URI in full")]
    UriWildcard(String),
    /// Not a mail address.
    #[error("{0:?} is no mail address: write email:name@host, or email:@host for any at the host")]
    NotEmail(String),
    /// Not a digest.
    #[error(
        "{0:?} is no SHA-256 digest: write spki:sha256/ and 44 characters of base64, or spki: and \
         64 hexadecimal digits"
    )]
    NotDigest(String),
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let no_kind = || RuleError::NoKind(text.to_owned());
        let (kind, value) = text.split_once(':').ok_or_else(no_kind)?;
        let parse = match kind {
            "dns" => parse_dns,
            "uri" => parse_uri,
            "email" => parse_email,
            "cn" => |name: &str| Ok(Self::CommonName(name.into())),
            "spki" => parse_key,
            _ => return Err(no_kind()),
        };
        if value.is_empty() { Err(RuleError::Empty(text.to_owned())) } else { parse(value) }
    }
}

fn parse_dns(text: &str) -> Result<Rule, RuleError> {
    match CertificateName::parse(text) {
        Some(CertificateName::Exact(name)) => Ok(Rule::Dns(name)),
        Some(CertificateName::Wildcard(suffix)) => Ok(Rule::DnsBelow(suffix)),
        Some(CertificateName::Address(_)) => Err(RuleError::Address(text.to_owned())),
        None => Err(RuleError::NotDns(text.to_owned())),
    }
}

fn parse_uri(text: &str) -> Result<Rule, RuleError> {
    // Schemes are of any case (RFC 3986 section 3.1), SPIFFE's is not.
    let is_spiffe = text
        .get(..spiffe::SCHEME.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(spiffe::SCHEME));
    if is_spiffe {
        return match text.strip_suffix("/*") {
            Some(parent) if spiffe::is_id(parent) => {
                Ok(Rule::SpiffeBelow(format!("{parent}/").into()))
            }
            None if spiffe::is_id(text) => Ok(Rule::Spiffe(text.into())),
            _ => Err(RuleError::NotSpiffe(text.to_owned())),
        };
    }
    if text.contains('*') {
        return Err(RuleError::UriWildcard(text.to_owned()));
    }
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    match text.split_once(':') {
        Some((scheme, rest))
            if is_scheme(scheme)
                && !rest.is_empty()
                && rest.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Ok(Rule::Uri(text.into()))
        }
        _ => Err(RuleError::NotUri(text.to_owned())),
    }
}

fn parse_email(text: &str) -> Result<Rule, RuleError> {
    let not_email = || RuleError::NotEmail(text.to_owned());
    let (local, host) = text.rsplit_once('@').ok_or_else(not_email)?;
    let Some(CertificateName::Exact(host)) = CertificateName::parse(host) else {
        return Err(not_email());
    };
    // The names of certificates are ASCII (RFC 5280 section 4.2.1.6).
    match local {
        "" => Ok(Rule::EmailHost(host)),
        _ if local.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*') => {
            Ok(Rule::Email { local: local.into(), host })
        }
        _ => Err(not_email()),
    }
}

fn parse_key(text: &str) -> Result<Rule, RuleError> {
    let mut digest = [0; 32];
    let read = match text.strip_prefix("sha256/") {
        Some(text) => digits::base64(text)
            .filter(|bytes| bytes.len() == digest.len())
            .map(|bytes| digest.copy_from_slice(&bytes)),
        None => digits::hexadecimal(text, &mut digest),
    };
    read.map(|()| Rule::Key(digest)).ok_or_else(|| RuleError::NotDigest(text.to_owned()))
}

impl fmt::Display for Rule {
    /// As it is written in a configuration; keys in hexadecimal digits.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(formatter, "dns:{name}"),
            Self::DnsBelow(suffix) => write!(formatter, "dns:*.{suffix}"),
            Self::Uri(uri) | Self::Spiffe(uri) => write!(formatter, "uri:{uri}"),
            Self::SpiffeBelow(prefix) => write!(formatter, "uri:{prefix}*"),
            Self::Email { local, host } => write!(formatter, "email:{local}@{host}"),
            Self::EmailHost(host) => write!(formatter, "email:@{host}"),
            Self::CommonName(name) => write!(formatter, "cn:{name}"),
            Self::Key(digest) => {
                formatter.write_str("spki:")?;
                digest.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }
    }
}

impl Rule {
    /// Whether the rule holds for the client.
    pub fn holds(&self, client: &ClientCertificate<'_>) -> bool {
        match self {
            Self::Dns(name) => exact_dns_names(client).any(|theirs| theirs == *name),
            Self::DnsBelow(suffix) => exact_dns_names(client)
                .any(|theirs| theirs.split_once('.').is_some_and(|(_, below)| below == &**suffix)),
            Self::Uri(uri) => client.uris().any(|theirs| theirs == &**uri),
            Self::Spiffe(id) => spiffe_id(client) == Some(id),
            Self::SpiffeBelow(prefix) => {
                spiffe_id(client).is_some_and(|id| id.starts_with(&**prefix))
            }
            // RFC 5280 section 7.5: the local part as it is, the host in any case.
            Self::Email { local, host } => addresses(client)
                .any(|(name, at)| name == &**local && at.eq_ignore_ascii_case(host)),
            Self::EmailHost(host) => addresses(client).any(|(_, at)| at.eq_ignore_ascii_case(host)),
            Self::CommonName(name) => client.common_name() == Some(name),
            Self::Key(digest) => client.key_digest() == digest,
        }
    }
}

/// The DNS names of the client that stand for one host, in lower case.
fn exact_dns_names(client: &ClientCertificate<'_>) -> impl Iterator<Item = Box<str>> {
    client.dns_names().filter_map(|name| match CertificateName::parse(name) {
        Some(CertificateName::Exact(name)) => Some(name),
        _ => None,
    })
}

/// The client's SPIFFE ID: its only URI (X509-SVID specification, section 2).
fn spiffe_id<'a>(client: &'a ClientCertificate<'_>) -> Option<&'a str> {
    let mut uris = client.uris();
    match (uris.next(), uris.next()) {
        (Some(uri), None) if spiffe::is_id(uri) => Some(uri),
        _ => None,
    }
}

/// The client's mail addresses: what stands before and behind the last `@`.
fn addresses<'a>(client: &'a ClientCertificate<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    client
        .emails()
        .filter_map(|address| address.rsplit_once('@'))
        .filter(|(name, _)| !name.is_empty())
}

/// The rules of a listener or a name: a client for which any one holds may come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Box<[Rule]>);

impl Rules {
    /// The most rules of a list: each new session is held against all in turn.
    pub const COUNT_MAX: usize = 1024;

    /// These rules; none: every client with a valid certificate may come in.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules.into())
    }

    /// The rules, in order.
    pub fn as_slice(&self) -> &[Rule] {
        &self.0
    }

    /// Whether the client may come in.
    pub fn allow(&self, client: &ClientCertificate<'_>) -> bool {
        self.0.is_empty() || self.0.iter().any(|rule| rule.holds(client))
    }
}
