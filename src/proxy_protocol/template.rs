//! Values of an operator's own making: text with placeholders for what is known of a client.
#![forbid(unsafe_code)]

use std::io::Write;

use super::encode::Header;
use crate::tls::client_hello::JA4_BYTES;
use crate::tls::names;

/// Text with placeholders: `"ja4={ja4}"`. Two braces stand for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Placeholder(Placeholder),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    /// The client's JA4 fingerprint.
    Ja4,
    /// `full` or `resumed`.
    Session,
    /// The key-exchange group.
    Group,
    /// How long the handshake took.
    HandshakeSeconds,
    /// The name of this machine.
    Node,
}

const PLACEHOLDERS: [(&str, Placeholder); 5] = [
    ("ja4", Placeholder::Ja4),
    ("session", Placeholder::Session),
    ("group", Placeholder::Group),
    ("handshake_seconds", Placeholder::HandshakeSeconds),
    ("node", Placeholder::Node),
];

/// Why text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder that nothing stands behind.
    #[error("there is no placeholder {{{0}}}")]
    Unknown(String),
    /// A brace without its partner.
    #[error("a brace is not closed, or not opened: write two of them for one in the value")]
    Unbalanced,
    /// No text at all.
    #[error("the value would be empty")]
    Empty,
    /// It could become longer than a value may be.
    #[error("the value can have {0} bytes, and at most {max} are sent", max = Template::BYTES_MAX)]
    TooLong(usize),
}

impl Template {
    /// The longest value that a template can make, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// Linux' names of machines have 64 bytes (`__NEW_UTS_LEN` in linux/utsname.h).
    pub const NODE_BYTES_MAX: usize = 64;

    /// The placeholders, for whoever has written another.
    pub fn placeholders() -> impl Iterator<Item = &'static str> {
        PLACEHOLDERS.iter().map(|(name, _)| *name)
    }

    /// Reads a template.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(place) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(place);
            literal.push_str(before);
            if let Some(behind) = from_brace.strip_prefix("{{") {
                literal.push('{');
                rest = behind;
            } else if let Some(behind) = from_brace.strip_prefix("}}") {
                literal.push('}');
                rest = behind;
            } else {
                let inside = from_brace.strip_prefix('{').ok_or(TemplateError::Unbalanced)?;
                let (name, behind) = inside.split_once('}').ok_or(TemplateError::Unbalanced)?;
                let known = PLACEHOLDERS.iter().find(|(known, _)| *known == name);
                let (_, placeholder) =
                    known.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
                flush(&mut literal, &mut parts);
                parts.push(Part::Placeholder(*placeholder));
                rest = behind;
            }
        }
        literal.push_str(rest);
        flush(&mut literal, &mut parts);
        let template = Self(parts);
        match template.bytes_max() {
            0 => Err(TemplateError::Empty),
            bytes if bytes > Self::BYTES_MAX => Err(TemplateError::TooLong(bytes)),
            _ => Ok(template),
        }
    }

    fn bytes_max(&self) -> usize {
        let of_part = |part: &Part| match part {
            Part::Text(text) => text.len(),
            Part::Placeholder(Placeholder::Ja4) => JA4_BYTES,
            Part::Placeholder(Placeholder::Session) => "resumed".len(),
            Part::Placeholder(Placeholder::Group) => names::longest(&names::GROUPS),
            Part::Placeholder(Placeholder::HandshakeSeconds) => "4294.967295".len(),
            Part::Placeholder(Placeholder::Node) => Self::NODE_BYTES_MAX,
        };
        self.0.iter().map(of_part).sum()
    }

    /// Whether the client's fingerprint is in it.
    pub fn wants_fingerprint(&self) -> bool {
        self.0.contains(&Part::Placeholder(Placeholder::Ja4))
    }

    /// Writes the value to the start of `out`; its length. What is not known of the client
    /// is left empty. `None`: `out` is too short.
    pub(super) fn write(&self, header: &Header<'_>, node: &str, out: &mut [u8]) -> Option<usize> {
        let room = out.len();
        let mut rest = out;
        for part in &self.0 {
            let session = header.session;
            let text = match part {
                Part::Text(text) => text,
                Part::Placeholder(Placeholder::Ja4) => {
                    header.fingerprint.map_or("", |fingerprint| fingerprint.as_str())
                }
                Part::Placeholder(Placeholder::Session) => match session {
                    Some(session) if session.resumed => "resumed",
                    Some(_) => "full",
                    None => "",
                },
                Part::Placeholder(Placeholder::Group) => session
                    .and_then(|session| session.group)
                    .and_then(names::group_name)
                    .unwrap_or_default(),
                Part::Placeholder(Placeholder::Node) => node,
                Part::Placeholder(Placeholder::HandshakeSeconds) => {
                    if let Some(us) = header.handshake_us {
                        write!(rest, "{}.{:06}", us / 1_000_000, us % 1_000_000).ok()?;
                    }
                    ""
                }
            };
            rest.write_all(text.as_bytes()).ok()?;
        }
        Some(room - rest.len())
    }
}

fn flush(literal: &mut String, parts: &mut Vec<Part>) {
    if !literal.is_empty() {
        parts.push(Part::Text(std::mem::take(literal).into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy_protocol::encode::tests::{facts, header};

    fn made(text: &str, header: &Header<'_>) -> String {
        let mut out = [0; Template::BYTES_MAX];
        let template = Template::parse(text).expect("a template");
        let length = template.write(header, "node-7", &mut out).expect("room");
        String::from_utf8(out[..length].to_vec()).expect("text")
    }

    #[test]
    fn placeholders_become_what_is_known_of_the_client() {
        let fingerprint = "t13d1516h2_8daaf6152771_e5627efa2ab1".parse().expect("a fingerprint");
        let session = facts(None, None);
        let header = Header {
            session: Some(&session),
            fingerprint: Some(&fingerprint),
            handshake_us: Some(1_000_250),
            ..header("192.0.2.1:1", "192.0.2.2:2")
        };
        assert_eq!(
            made("{ja4} {session} {group} {handshake_seconds} {{{node}}}", &header),
            "t13d1516h2_8daaf6152771_e5627efa2ab1 full x25519 1.000250 {node-7}"
        );
    }

    #[test]
    fn what_is_not_known_is_empty() {
        let header = header("192.0.2.1:1", "192.0.2.2:2");
        assert_eq!(made("a{ja4}b{session}c{group}d{handshake_seconds}e", &header), "abcde");
    }

    #[test]
    fn a_placeholder_that_nothing_stands_behind_is_named() {
        assert_eq!(Template::parse("{ja3}"), Err(TemplateError::Unknown("ja3".to_owned())));
        for text in ["{ja4", "ja4}", "{", "}", "{{}"] {
            assert_eq!(Template::parse(text), Err(TemplateError::Unbalanced), "{text}");
        }
    }

    #[test]
    fn a_template_that_could_say_too_much_or_says_nothing_is_none() {
        assert_eq!(Template::parse(""), Err(TemplateError::Empty));
        assert!(Template::parse(&"x".repeat(256)).is_ok());
        assert_eq!(Template::parse(&"x".repeat(257)), Err(TemplateError::TooLong(257)));
        let nodes = "{node}{node}{node}{node}{session}";
        assert_eq!(Template::parse(nodes), Err(TemplateError::TooLong(263)));
    }
}
