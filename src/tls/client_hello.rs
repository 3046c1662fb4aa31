//! The ClientHello, read by the engine before any worker sees the connection.
//!
//! ```text
//!   bytes received ──▶ records ──▶ one handshake message ──▶ facts
//!                      (here)      (in place, or in `scratch`   (message.rs)
//!                                   when it spans records)
//! ```
//!
//! Sans-I/O, no allocation, bounded in bytes and in records. It borrows everything but
//! the server name, which it must lower-case. It is at least as strict as rustls in all
//! that it reads, and leaves the rest of the checking to rustls.
#![forbid(unsafe_code)]

mod ja4;
mod message;
#[cfg(test)]
mod tests;

use rustls::AlertDescription;

pub use ja4::{JA4_BYTES, Ja4};

use crate::tls::Refusal;
use crate::tls::server_name::ServerName;

/// The largest ClientHello taken, with its four header bytes: what one record can
/// carry (RFC 8446 section 5.1).
///
/// Browsers send 0.5 KiB, 1.8 KiB with a post-quantum key share, about twice that with
/// an encrypted inner ClientHello; a ticket that holds a client's certificate chain adds
/// some KiB. A ClientHello that fits one record can be handed on as one record, however
/// it came; see [`ClientHello::append_as_one_record`].
pub const CLIENT_HELLO_BYTES_MAX: usize = RECORD_BYTES_MAX;

/// The most records that a ClientHello may come in. Enough for a post-quantum one in
/// fragments of one byte, as test tools send it; real clients use one or two.
pub const CLIENT_HELLO_RECORDS_MAX: usize = 2_048;

/// The most bytes that [`scan`] can ask for before it is complete or refused: what a
/// receive buffer must hold.
pub const CLIENT_HELLO_STREAM_BYTES_MAX: usize =
    CLIENT_HELLO_BYTES_MAX + CLIENT_HELLO_RECORDS_MAX * RECORD_HEADER_BYTES;

const RECORD_HEADER_BYTES: usize = 5;
const RECORD_BYTES_MAX: usize = 1 << 14;
const MESSAGE_HEADER_BYTES: usize = 4;

/// What the bytes received so far amount to.
// Returned by value, once a receive: boxing it would be the allocation it avoids.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Scan<'a> {
    /// So far so good: bring more bytes.
    Incomplete,
    /// A whole ClientHello.
    Complete(ClientHello<'a>),
    /// Not one that we take. Bytes to come would not change it.
    Refused(Refusal),
}

/// The facts of a ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).
#[derive(Clone, Debug)]
pub struct ClientHello<'a> {
    /// The handshake message, header included.
    message: &'a [u8],
    /// Bytes of the stream that it took up, record headers included.
    pub stream_bytes: usize,
    /// The version field; TLS 1.3 clients say TLS 1.2 (0x0303) here.
    pub legacy_version: u16,
    /// Up to 32 bytes; under TLS 1.3 of no meaning.
    pub session_id: &'a [u8],
    /// Cipher suites in the client's order.
    pub cipher_suites: CodePoints<'a>,
    /// The name asked for. An IP address in its place counts as none, as in rustls.
    pub server_name: Option<ServerName>,
    /// Application protocols in the client's order (RFC 7301).
    pub alpn: Option<ProtocolNames<'a>>,
    /// The versions offered by extension; without it `legacy_version` counts.
    pub supported_versions: Option<CodePoints<'a>>,
    /// Key-exchange groups in the client's order.
    pub groups: Option<CodePoints<'a>>,
    /// Signature schemes in the client's order.
    pub signature_schemes: Option<CodePoints<'a>>,
    /// A TLS 1.3 pre-shared key is offered: very likely a resumption.
    pub offers_pre_shared_key: bool,
    /// A TLS 1.2 session ticket is offered (not merely asked for; RFC 5077 section 3.2).
    pub offers_session_ticket: bool,
    /// The extensions as they came, found well-formed.
    extensions: &'a [u8],
}

impl<'a> ClientHello<'a> {
    /// Whether the client takes TLS 1.3 (RFC 8446 section 4.2.1).
    pub fn offers_tls13(&self) -> bool {
        self.supported_versions.is_some_and(|versions| versions.contains(0x0304))
    }

    /// Whether the client takes TLS 1.2.
    pub fn offers_tls12(&self) -> bool {
        match self.supported_versions {
            Some(versions) => versions.contains(0x0303),
            None => self.legacy_version >= 0x0303,
        }
    }

    /// The types of the extensions in the client's order, GREASE values (RFC 8701) left
    /// out.
    pub fn extensions(&self) -> impl Iterator<Item = u16> + use<'a> {
        message::extensions(self.extensions)
    }

    /// The handshake message, header included.
    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Reads what [`Self::append_as_one_record`] has written at the start of `bytes`.
    pub fn of_one_record(bytes: &'a [u8]) -> Option<Self> {
        let message_bytes = read_record_header(bytes, true).ok()??;
        let stream_bytes = RECORD_HEADER_BYTES + message_bytes;
        let message = bytes.get(RECORD_HEADER_BYTES..stream_bytes)?;
        // Its own length has been checked, and fills the record.
        message::parse(message, stream_bytes).ok()
    }

    /// Appends the ClientHello to `output` as a single record, however many it came in.
    ///
    /// Record boundaries are no part of the transcript that the handshake signs
    /// (RFC 8446 section 4.4.1), so whoever parses it next need not pay for a
    /// client's one-byte fragments. Bytes of the stream from
    /// [`Self::stream_bytes`] on follow it unchanged.
    pub fn append_as_one_record(&self, output: &mut Vec<u8>) {
        let length = self.message.len() as u16; // At most 2^14, by `scan`.
        output.extend_from_slice(&[HANDSHAKE, 0x03, 0x01]);
        output.extend_from_slice(&length.to_be_bytes());
        output.extend_from_slice(self.message);
    }
}

/// A list of 16-bit code points, GREASE values (RFC 8701) left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePoints<'a>(&'a [u8]);

impl<'a> CodePoints<'a> {
    /// The code points in the client's order.
    pub fn iter(self) -> impl Iterator<Item = u16> + 'a {
        self.0
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .filter(|code_point| !is_grease(*code_point))
    }

    /// Whether `code_point` is among them.
    pub fn contains(self, code_point: u16) -> bool {
        self.iter().any(|candidate| candidate == code_point)
    }
}

/// The protocol names of an ALPN extension, GREASE values (RFC 8701) left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolNames<'a>(&'a [u8]);

impl<'a> ProtocolNames<'a> {
    /// The names in the client's order.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (length, names) = rest.split_first()?;
            let (name, names) = names.split_at_checked(usize::from(*length))?;
            rest = names;
            Some(name)
        })
        .filter(|name| !matches!(name, [high, low] if is_grease(u16::from_be_bytes([*high, *low]))))
    }
}

/// Looks for a ClientHello at the start of `received`: all the bytes of the connection
/// so far.
///
/// Called again with more bytes after [`Scan::Incomplete`]; it starts over each time,
/// which the bounds keep cheap. What is no TLS is refused at its first byte. `scratch`
/// is written only when the message spans several records.
pub fn scan<'a>(received: &'a [u8], scratch: &'a mut [u8; CLIENT_HELLO_BYTES_MAX]) -> Scan<'a> {
    let assembled = match assemble(received, scratch) {
        Ok(Some(assembled)) => assembled,
        Ok(None) => return Scan::Incomplete,
        Err(refusal) => return Scan::Refused(refusal),
    };
    let message = match assembled.place {
        Place::Received => {
            &received[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + assembled.message_bytes]
        }
        Place::Scratch => &scratch[..assembled.message_bytes],
    };
    match message::parse(message, assembled.stream_bytes) {
        Ok(client_hello) => Scan::Complete(client_hello),
        Err(refusal) => Scan::Refused(refusal),
    }
}

/// The most extensions a ClientHello may have. IANA knows about 60, browsers send 20;
/// the bound keeps the search for duplicates cheap.
const EXTENSIONS_MAX: usize = 64;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

struct Assembled {
    place: Place,
    message_bytes: usize,
    stream_bytes: usize,
}

enum Place {
    /// In the first record, right behind its header.
    Received,
    /// Put together in the scratch buffer.
    Scratch,
}

/// Takes the record layer off (RFC 8446 section 5.1); `None` when bytes are missing.
fn assemble(
    received: &[u8],
    scratch: &mut [u8; CLIENT_HELLO_BYTES_MAX],
) -> Result<Option<Assembled>, Refusal> {
    // How much of the message the records before this one held; once there is any, it
    // is in `scratch`.
    let mut filled = 0;
    let mut offset = 0;
    for _ in 0..CLIENT_HELLO_RECORDS_MAX {
        let Some(fragment_bytes) = read_record_header(&received[offset..], offset == 0)? else {
            return Ok(None);
        };
        let start = offset + RECORD_HEADER_BYTES;
        let end = start + fragment_bytes;
        let available = &received[start..end.min(received.len())];

        let so_far = if filled == 0 {
            available
        } else {
            // What does not fit is beyond any message, and refused by one of the checks
            // below: by then at least the header is there.
            let fits = available.len().min(scratch.len() - filled);
            scratch[filled..filled + fits].copy_from_slice(&available[..fits]);
            &scratch[..filled + fits]
        };
        if let Some(message_bytes) = read_message_header(so_far)? {
            // Nothing may follow a ClientHello before the server has spoken, least of
            // all in its own record (RFC 8446 section 5.1: key changes and records).
            if filled + fragment_bytes > message_bytes {
                return Err(malformed(
                    "more handshake data behind it in its record",
                    AlertDescription::UnexpectedMessage,
                ));
            }
            if so_far.len() == message_bytes {
                let place = if filled == 0 { Place::Received } else { Place::Scratch };
                return Ok(Some(Assembled { place, message_bytes, stream_bytes: end }));
            }
        }
        if available.len() < fragment_bytes {
            return Ok(None);
        }
        if filled == 0 {
            scratch[..fragment_bytes].copy_from_slice(available);
        }
        filled += fragment_bytes;
        offset = end;
    }
    Err(Refusal::TooLarge)
}

/// Checks as much of a record header as there is; its length when it is whole.
fn read_record_header(bytes: &[u8], first: bool) -> Result<Option<usize>, Refusal> {
    if let Some(content_type) = bytes.first()
        && *content_type != HANDSHAKE
    {
        return Err(match first {
            true if looks_like_http(bytes) => Refusal::PlainHttp,
            true => Refusal::NotTls,
            // RFC 8446 section 5.1: other records must not come in between.
            false => malformed(
                "another record in between its fragments",
                AlertDescription::UnexpectedMessage,
            ),
        });
    }
    if let Some(major) = bytes.get(1)
        && *major != 3
    {
        return Err(match first {
            true => Refusal::NotTls,
            false => malformed("unknown record version", AlertDescription::DecodeError),
        });
    }
    let [_, _, _, high, low, ..] = *bytes else { return Ok(None) };
    match usize::from(u16::from_be_bytes([high, low])) {
        0 => Err(malformed("empty handshake record", AlertDescription::DecodeError)),
        length if length > RECORD_BYTES_MAX => {
            Err(malformed("record too long", AlertDescription::RecordOverflow))
        }
        length => Ok(Some(length)),
    }
}

/// Checks as much of the handshake header as there is; the length of the whole message
/// when the header is whole.
fn read_message_header(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    if let Some(message_type) = bytes.first()
        && *message_type != CLIENT_HELLO
    {
        return Err(malformed(
            "the first handshake message is another one",
            AlertDescription::UnexpectedMessage,
        ));
    }
    let [_, high, middle, low, ..] = *bytes else { return Ok(None) };
    let body_bytes = u32::from_be_bytes([0, high, middle, low]) as usize;
    match MESSAGE_HEADER_BYTES + body_bytes {
        message_bytes if message_bytes > CLIENT_HELLO_BYTES_MAX => Err(Refusal::TooLarge),
        message_bytes => Ok(Some(message_bytes)),
    }
}

/// Whether the bytes, as far as they go, begin a request of HTTP/1 or the preface of
/// HTTP/2 (RFC 9110 section 9, RFC 9113 section 3.4).
fn looks_like_http(bytes: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 10] = [
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"CONNECT ",
        b"TRACE ",
        b"PATCH ",
        b"PRI * HTTP/2",
    ];
    BEGINNINGS.iter().any(|beginning| {
        let length = beginning.len().min(bytes.len());
        bytes[..length] == beginning[..length]
    })
}

/// RFC 8701: both bytes equal, both ending in 0xa.
const fn is_grease(code_point: u16) -> bool {
    code_point & 0x0f0f == 0x0a0a && code_point >> 8 == code_point & 0xff
}

const fn malformed(what: &'static str, alert: AlertDescription) -> Refusal {
    Refusal::Malformed { what, alert }
}
