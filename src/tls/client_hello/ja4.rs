//! JA4: a fingerprint of the TLS library that a client is made with.
//!
//! ```text
//!   t13d1516h2_8daaf6152771_e5627efa2ab1
//!   └──── a ──┘ └─── b ───┘ └─── c ───┘
//!   a  TCP, version, server name or not, suites, extensions, first application protocol
//!   b  hash of the cipher suites, sorted
//!   c  hash of the extensions, sorted, and of the signature schemes in their order
//! ```
//!
//! Source: FoxIO, `technical_details/JA4.md` (the TLS client fingerprint only, which is
//! free to use; BSD 3-Clause). GREASE values (RFC 8701) count nowhere.
//!
//! No allocation, so that an engine can route by it.
#![forbid(unsafe_code)]

use std::fmt::{self, Write as _};
use std::str::FromStr;

use arrayvec::{ArrayString, ArrayVec};
use aws_lc_rs::digest::{Context, SHA256};

use super::{ClientHello, CodePoints, ProtocolNames};

/// Bytes of a fingerprint in its text form.
pub const JA4_BYTES: usize = "t13d1516h2_8daaf6152771_e5627efa2ab1".len();

/// The most cipher suites that a fingerprint is made of: IANA knows about 370. A client
/// that offers more is none that a fingerprint could tell from others, and gets none.
const CIPHER_SUITES_MAX: usize = 512;

/// What a hash is when there is nothing to hash.
const NOTHING: &str = "000000000000";

/// Hexadecimal digits that are kept of a hash.
const HASH_DIGITS: usize = NOTHING.len();

/// Extensions that part *a* has told already.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// A fingerprint in its text form, in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ja4(ArrayString<JA4_BYTES>);

impl Ja4 {
    /// The fingerprint of the client that sent `hello`; `None` for one that offers more
    /// than 512 cipher suites.
    pub fn of(hello: &ClientHello<'_>) -> Option<Self> {
        let mut suites = ArrayVec::<u16, CIPHER_SUITES_MAX>::new();
        for suite in hello.cipher_suites.iter() {
            suites.try_push(suite).ok()?;
        }
        let mut extensions: ArrayVec<u16, { super::EXTENSIONS_MAX }> = hello.extensions().collect();

        let mut text = ArrayString::new();
        let name = if extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
        let (suite_count, extension_count) = (suites.len().min(99), extensions.len().min(99));
        let [first, last] = protocol(hello.alpn);
        write!(text, "t{}{name}{suite_count:02}{extension_count:02}{first}{last}_", version(hello))
            .ok()?;

        suites.sort_unstable();
        let hash = (!suites.is_empty()).then(|| hash_of(suites.iter().copied(), None));
        text.try_push_str(hash.as_deref().unwrap_or(NOTHING)).ok()?;
        text.try_push('_').ok()?;

        extensions.retain(|extension| !matches!(*extension, SERVER_NAME | ALPN));
        extensions.sort_unstable();
        let schemes = hello.signature_schemes;
        let hash = (!extensions.is_empty()).then(|| hash_of(extensions.iter().copied(), schemes));
        text.try_push_str(hash.as_deref().unwrap_or(NOTHING)).ok()?;
        Some(Self(text))
    }

    /// The fingerprint as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text that is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JA4 fingerprint")]
pub struct NotAFingerprint;

impl FromStr for Ja4 {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let parts: Vec<&str> = text.split('_').collect();
        let [shape, suites, extensions] = parts[..] else { return Err(NotAFingerprint) };
        let is_hash = |part: &str| {
            part.len() == HASH_DIGITS
                && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_shape =
            shape.starts_with('t') && shape.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_shape || !is_hash(suites) || !is_hash(extensions) {
            return Err(NotAFingerprint);
        }
        // Of another length it does not fit, or is none.
        let text = ArrayString::from(text).map_err(|_| NotAFingerprint)?;
        if text.is_full() { Ok(Self(text)) } else { Err(NotAFingerprint) }
    }
}

impl fmt::Display for Ja4 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Ja4 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The newest version offered, in two characters.
fn version(hello: &ClientHello<'_>) -> &'static str {
    let offered = hello.supported_versions.and_then(|versions| versions.iter().max());
    match offered.unwrap_or(hello.legacy_version) {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// The first and the last character of the first application protocol, or of its
/// hexadecimal form if either is neither letter nor digit.
fn protocol(alpn: Option<ProtocolNames<'_>>) -> [char; 2] {
    let first_name = alpn.and_then(|names| names.iter().next());
    let Some(&[first, ..]) = first_name else { return ['0', '0'] };
    let last = first_name.and_then(|name| name.last()).copied().unwrap_or(first);
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        [first.into(), last.into()]
    } else {
        [hexadecimal_digit(first >> 4), hexadecimal_digit(last & 0xf)]
    }
}

fn hexadecimal_digit(value: u8) -> char {
    char::from_digit(value.into(), 16).unwrap_or('0')
}

/// The front of SHA-256 over the numbers in hexadecimal, with commas in between; those of
/// `tail` follow behind an underscore, if there are any.
fn hash_of(
    numbers: impl Iterator<Item = u16>,
    tail: Option<CodePoints<'_>>,
) -> ArrayString<HASH_DIGITS> {
    let mut context = Context::new(&SHA256);
    update(&mut context, numbers, "");
    if let Some(tail) = tail {
        update(&mut context, tail.iter(), "_");
    }
    let mut text = ArrayString::new();
    for byte in &context.finish().as_ref()[..HASH_DIGITS / 2] {
        text.push(hexadecimal_digit(byte >> 4));
        text.push(hexadecimal_digit(byte & 0xf));
    }
    text
}

fn update(context: &mut Context, numbers: impl Iterator<Item = u16>, before: &str) {
    let mut separator = before.as_bytes();
    for number in numbers {
        context.update(separator);
        let digits =
            [12, 8, 4, 0].map(|shift| hexadecimal_digit((number >> shift) as u8 & 0xf) as u8);
        context.update(&digits);
        separator = b",";
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tls::client_hello::{CLIENT_HELLO_BYTES_MAX, Scan, scan};

    /// A ClientHello with these parts and nothing else.
    #[derive(Clone, Default)]
    struct Parts {
        legacy_version: u16,
        suites: Vec<u16>,
        /// Type and content, in order.
        extensions: Vec<(u16, Vec<u8>)>,
    }

    fn list16(numbers: &[u16]) -> Vec<u8> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()
    }

    fn list8(numbers: &[u16]) -> Vec<u8> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        [&[bytes.len() as u8][..], &bytes].concat()
    }

    fn alpn(names: &[&[u8]]) -> Vec<u8> {
        let bytes: Vec<u8> =
            names.iter().flat_map(|name| [&[name.len() as u8][..], name].concat()).collect();
        [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()
    }

    fn server_name(name: &str) -> Vec<u8> {
        let length = name.len() as u16;
        let mut content = (length + 3).to_be_bytes().to_vec();
        content.push(0);
        content.extend(length.to_be_bytes());
        content.extend(name.as_bytes());
        content
    }

    impl Parts {
        fn record(&self) -> Vec<u8> {
            let mut body = self.legacy_version.to_be_bytes().to_vec();
            body.extend([7; 32]);
            body.push(0);
            body.extend(list16(&self.suites));
            body.extend([1, 0]);
            let mut extensions = Vec::new();
            for (kind, content) in &self.extensions {
                extensions.extend(kind.to_be_bytes());
                extensions.extend((content.len() as u16).to_be_bytes());
                extensions.extend(content);
            }
            body.extend((extensions.len() as u16).to_be_bytes());
            body.extend(extensions);
            let mut record = vec![22, 3, 1];
            record.extend((body.len() as u16 + 4).to_be_bytes());
            record.push(1);
            record.extend(&(body.len() as u32).to_be_bytes()[1..]);
            record.extend(body);
            record
        }

        fn ja4(&self) -> Option<Ja4> {
            let record = self.record();
            let mut scratch = Box::new([0; CLIENT_HELLO_BYTES_MAX]);
            match scan(&record, &mut scratch) {
                Scan::Complete(hello) => Ja4::of(&hello),
                other => panic!("{other:?}"),
            }
        }

        fn text(&self) -> String {
            self.ja4().expect("a fingerprint").to_string()
        }
    }

    /// The client of the specification's example, with GREASE where browsers put it.
    fn published() -> Parts {
        let suites = [
            0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
            0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
        ];
        let schemes = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
        let order: [u16; 18] = [
            0x7a7a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023,
            0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0xcaca, 0x0015,
        ];
        let content = |kind: u16| match kind {
            0x0000 => server_name("example.org"),
            0x000a => list16(&[0x3a3a, 0x001d, 0x0017]),
            0x000d => list16(&schemes),
            0x0010 => alpn(&[b"h2", b"http/1.1"]),
            0x002b => list8(&[0x9a9a, 0x0304, 0x0303]),
            _ => Vec::new(),
        };
        Parts {
            legacy_version: 0x0303,
            suites: suites.to_vec(),
            extensions: order.into_iter().map(|kind| (kind, content(kind))).collect(),
        }
    }

    #[test]
    fn the_published_example_comes_out_as_published() {
        assert_eq!(published().text(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    }

    #[test]
    fn without_signature_schemes_the_extensions_alone_are_hashed_as_published() {
        let mut parts = published();
        for (kind, content) in &mut parts.extensions {
            // The type stays in the list, its content is what is left out.
            if *kind == 0x000d {
                *content = list16(&[0x0a0a]);
            }
        }
        assert_eq!(parts.text(), "t13d1516h2_8daaf6152771_6d807ffa2a79");
    }

    #[test]
    fn a_client_of_tls_1_2_without_extensions_has_no_third_part() {
        let parts = Parts { legacy_version: 0x0303, suites: vec![0xc02f], extensions: Vec::new() };
        let text = parts.text();
        assert!(text.starts_with("t12i010000_"), "{text}");
        assert!(text.ends_with("_000000000000"), "{text}");
    }

    #[test]
    fn nothing_but_grease_is_nothing() {
        let parts = Parts { legacy_version: 0x0303, suites: vec![0x0a0a], ..Parts::default() };
        assert_eq!(parts.text(), "t12i000000_000000000000_000000000000");
    }

    #[test]
    fn protocols_that_are_no_text_are_shown_in_hexadecimal_as_published() {
        for (name, shown) in [
            (&b"\xab"[..], "ab"),
            (b"\xab\xcd", "ad"),
            (b"0\xab", "3b"),
            (b"01\xab\xcd", "3d"),
            (b"0\xab\xcd1", "01"),
            (b"h", "hh"),
            (b"http/1.1", "h1"),
        ] {
            let parts = Parts {
                legacy_version: 0x0303,
                suites: vec![0x1301],
                extensions: vec![(0x0010, alpn(&[name]))],
            };
            let text = parts.text();
            assert_eq!(&text[8..10], shown, "{name:?} in {text}");
        }
    }

    #[test]
    fn a_fingerprint_is_read_back_and_other_text_is_none() {
        let published = "t13d1516h2_8daaf6152771_e5627efa2ab1";
        assert_eq!(published.parse::<Ja4>().expect("a fingerprint").as_str(), published);
        for text in [
            "",
            "t13d1516h2",
            "t13d1516h2_8daaf6152771",
            "t13d1516h_8daaf6152771_e5627efa2ab1",
            "t13d1516h2_8daaf6152771_E5627EFA2AB1",
            "q13d1516h2_8daaf6152771_e5627efa2ab1",
            "t13d1516h2x_8daaf6152771_e5627efa2ab1",
        ] {
            assert!(text.parse::<Ja4>().is_err(), "{text}");
        }
    }

    #[test]
    fn counts_above_99_are_shown_as_99_and_absurd_ones_have_no_fingerprint() {
        let suites = |count: u16| Parts {
            legacy_version: 0x0303,
            suites: (0..count).map(|number| 0x0100 + number).collect(),
            extensions: Vec::new(),
        };
        assert_eq!(&suites(120).text()[..6], "t12i99");
        assert_eq!(suites(CIPHER_SUITES_MAX as u16 + 200).ja4(), None);
    }

    proptest! {
        #[test]
        fn the_order_of_suites_and_extensions_does_not_matter(seed in any::<u64>()) {
            let mut shuffled = published();
            let mut state = seed | 1;
            let mut next = |bound: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % bound as u64) as usize
            };
            for index in (1..shuffled.suites.len()).rev() {
                let other = next(index + 1);
                shuffled.suites.swap(index, other);
            }
            for index in (1..shuffled.extensions.len()).rev() {
                let other = next(index + 1);
                shuffled.extensions.swap(index, other);
            }
            prop_assert_eq!(shuffled.text(), published().text());
        }
    }
}
