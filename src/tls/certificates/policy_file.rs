//! What a certificate's own clients are held to: `NAME.policy` beside `NAME.pem`, a small
//! TOML file.
//!
//! ```toml
//! minimum_version = "1.3"   # instead of the listener's
//! alpn = ["h2"]             # instead of the listener's; [] is no negotiation
//! ```
//!
//! Every key may be left out. A file that cannot be understood is an error and not
//! ignored: it was written to forbid something.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::Problem;
use crate::tls::Version;

/// Two keys and room for comments.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// As many as a listener may have.
const PROTOCOLS_MAX: usize = 16;

/// Every key there is.
const KEYS: [&str; 2] = ["alpn", "minimum_version"];

/// What a certificate has in place of its listener's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificatePolicy {
    /// The oldest version in which it is shown.
    pub minimum_version: Option<Version>,
    /// Application protocols, in order of preference; an empty list is no negotiation.
    pub alpn: Option<Vec<Vec<u8>>>,
}

impl fmt::Display for CertificatePolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(version) = self.minimum_version {
            write!(formatter, "{version} or newer")?;
            separator = ", ";
        }
        if let Some(protocols) = &self.alpn {
            let names: Vec<_> = protocols.iter().map(|name| name.escape_ascii()).collect();
            write!(formatter, "{separator}protocols [")?;
            for (place, name) in names.iter().enumerate() {
                write!(formatter, "{}{name}", if place > 0 { ", " } else { "" })?;
            }
            formatter.write_str("]")?;
        }
        Ok(())
    }
}

/// A policy file that is not followed: everything that is wrong with it was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// One thing that is wrong with a policy file. The file's path goes in front.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFileProblem {
    /// The kernel's answer.
    #[error("cannot be read as policy of the certificate beside it: {0}")]
    Unreadable(String),
    /// Far larger than any policy, or a directory.
    #[error("is not a policy file of at most {FILE_BYTES_MAX} bytes")]
    NotAPolicyFile,
    /// A byte that no text has.
    #[error("line {line}: is not UTF-8 text")]
    NotText {
        /// From 1.
        line: usize,
    },
    /// The syntax is broken.
    #[error("line {line}: not TOML: {detail}")]
    NotToml {
        /// From 1.
        line: usize,
        /// The parser's words.
        detail: String,
    },
    /// A key that means nothing here.
    #[error("line {line}: {key}: unknown key; a policy file has {keys}", keys = KEYS.join(" and "))]
    UnknownKey {
        /// From 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// A value that means nothing here.
    #[error("line {line}: {key}: {detail}")]
    BadValue {
        /// From 1.
        line: usize,
        /// The key.
        key: &'static str,
        /// What is wrong, and what to write.
        detail: String,
    },
}

/// Where the policy of the certificate at `path` lies.
pub(crate) fn path_of(path: &Path) -> PathBuf {
    path.with_extension("policy")
}

/// The policy that lies beside the certificate at `path`, if any.
pub(super) fn read(
    path: &Path,
    report: &mut dyn FnMut(&Path, Problem),
) -> Result<Option<Arc<CertificatePolicy>>, Refused> {
    let path = path_of(path);
    let policy = match read_bytes(&path) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => parse(&bytes),
        Err(problem) => Err(vec![problem]),
    };
    policy.map(|policy| Some(Arc::new(policy))).map_err(|problems| {
        for problem in problems {
            report(&path, Problem::UnusablePolicy(problem));
        }
        Refused
    })
}

fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, PolicyFileProblem> {
    let unreadable = |error: io::Error| PolicyFileProblem::Unreadable(error.to_string());
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    // Opening a FIFO would wait for its writer.
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(PolicyFileProblem::NotAPolicyFile);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Some(bytes))
}

/// Reads a policy, or says everything that is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Result<CertificatePolicy, Vec<PolicyFileProblem>> {
    let line_of =
        |offset: usize| 1 + bytes.iter().take(offset).filter(|byte| **byte == b'\n').count();
    let text = std::str::from_utf8(bytes)
        .map_err(|error| vec![PolicyFileProblem::NotText { line: line_of(error.valid_up_to()) }])?;
    let table = DeTable::parse(text).map_err(|error| {
        let line = line_of(error.span().map_or(0, |span| span.start));
        vec![PolicyFileProblem::NotToml { line, detail: error.message().to_owned() }]
    })?;
    let mut policy = CertificatePolicy::default();
    let mut problems = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_of(value.span().start);
        let mut bad =
            |key, detail| problems.push(PolicyFileProblem::BadValue { line, key, detail });
        match key.get_ref().as_ref() {
            "minimum_version" => match minimum_version(value.get_ref()) {
                Ok(version) => policy.minimum_version = Some(version),
                Err(detail) => bad("minimum_version", detail),
            },
            "alpn" => match protocols(value.get_ref()) {
                Ok(protocols) => policy.alpn = Some(protocols),
                Err(detail) => bad("alpn", detail),
            },
            unknown => {
                let (line, key) = (line_of(key.span().start), unknown.to_owned());
                problems.push(PolicyFileProblem::UnknownKey { line, key });
            }
        }
    }
    if problems.is_empty() { Ok(policy) } else { Err(problems) }
}

fn minimum_version(value: &DeValue<'_>) -> Result<Version, String> {
    match value.as_str() {
        Some("1.2") => Ok(Version::Tls12),
        Some("1.3") => Ok(Version::Tls13),
        _ => Err("write \"1.2\" or \"1.3\", in quotes".to_owned()),
    }
}

fn protocols(value: &DeValue<'_>) -> Result<Vec<Vec<u8>>, String> {
    let wanted = || "write a list of names in quotes, such as [\"h2\", \"http/1.1\"]".to_owned();
    let elements = value.as_array().ok_or_else(wanted)?;
    if elements.len() > PROTOCOLS_MAX {
        return Err(format!("{} protocols; write at most {PROTOCOLS_MAX}", elements.len()));
    }
    let mut protocols = Vec::with_capacity(elements.len());
    for element in elements.iter() {
        let name = element.get_ref().as_str().ok_or_else(wanted)?.as_bytes();
        // RFC 7301 section 3.1.
        if !(1..=255).contains(&name.len()) {
            return Err(format!("a protocol name of {} bytes; it has 1 to 255", name.len()));
        }
        if protocols.iter().any(|other| other == name) {
            let name = String::from_utf8_lossy(name);
            return Err(format!("{name:?} is listed twice; its first place counts"));
        }
        protocols.push(name.to_vec());
    }
    Ok(protocols)
}

#[cfg(test)]
mod tests;
