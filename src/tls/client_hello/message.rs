//! The body of the ClientHello message: fields and extensions.

use arrayvec::ArrayVec;
use rustls::AlertDescription;

use super::{
    ClientHello, CodePoints, EXTENSIONS_MAX, MESSAGE_HEADER_BYTES, ProtocolNames, is_grease,
    malformed,
};
use crate::tls::Refusal;
use crate::tls::server_name::{ServerName, ServerNameError};

/// `host_name`, the only type of server name there is (RFC 6066 section 3).
const SERVER_NAME_TYPE_HOST: u8 = 0;

/// Reads a whole handshake message of type ClientHello.
pub(super) fn parse(message: &[u8], stream_bytes: usize) -> Result<ClientHello<'_>, Refusal> {
    let mut body = Reader(&message[MESSAGE_HEADER_BYTES..]);
    let legacy_version = body.u16("truncated version")?;
    body.take(32, "truncated random")?;
    let session_id = body.vector8("truncated session ID")?;
    if session_id.len() > 32 {
        return Err(decode_error("session ID too long"));
    }
    let cipher_suites = code_points(body.vector16("truncated cipher suites")?)?;
    let compression_methods = body.vector8("truncated compression methods")?;
    if !compression_methods.contains(&0) {
        // RFC 8446 section 4.1.2; RFC 5246 section 7.4.1.2 demands it as well.
        return Err(illegal_parameter("no null compression method"));
    }
    let mut client_hello = ClientHello {
        message,
        stream_bytes,
        legacy_version,
        session_id,
        cipher_suites,
        server_name: None,
        alpn: None,
        supported_versions: None,
        groups: None,
        signature_schemes: None,
        offers_pre_shared_key: false,
        offers_session_ticket: false,
        extensions: &[],
    };
    // A TLS 1.2 client may end here (RFC 5246 section 7.4.1.2).
    if !body.is_empty() {
        let extensions = Reader(body.vector16("truncated extensions")?);
        if !body.is_empty() {
            return Err(decode_error("data behind the extensions"));
        }
        client_hello.extensions = extensions.0;
        read_extensions(extensions, &mut client_hello)?;
    }
    Ok(client_hello)
}

fn read_extensions<'a>(
    mut extensions: Reader<'a>,
    client_hello: &mut ClientHello<'a>,
) -> Result<(), Refusal> {
    let mut seen = ArrayVec::<u16, EXTENSIONS_MAX>::new();
    while !extensions.is_empty() {
        let extension = extensions.u16("truncated extension type")?;
        let content = Reader(extensions.vector16("truncated extension")?);
        // RFC 8446 section 4.2.
        if seen.contains(&extension) {
            return Err(illegal_parameter("duplicate extension"));
        }
        // RFC 8446 section 4.2.11: pre_shared_key must be the last.
        if client_hello.offers_pre_shared_key {
            return Err(illegal_parameter("pre_shared_key is not the last extension"));
        }
        if seen.try_push(extension).is_err() {
            return Err(decode_error("too many extensions"));
        }
        match extension {
            0 => client_hello.server_name = server_name(content)?,
            10 => client_hello.groups = Some(code_points(content.only_vector16()?)?),
            13 => client_hello.signature_schemes = Some(code_points(content.only_vector16()?)?),
            16 => client_hello.alpn = Some(protocol_names(content.only_vector16()?)?),
            35 => client_hello.offers_session_ticket = !content.is_empty(),
            41 => client_hello.offers_pre_shared_key = true,
            43 => client_hello.supported_versions = Some(code_points(content.only_vector8()?)?),
            _ => {}
        }
    }
    Ok(())
}

/// The types of extensions that have been read once, GREASE values left out.
pub(super) fn extensions(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let mut rest = Reader(bytes);
    let next = move || {
        let extension = rest.u16("").ok()?;
        rest.vector16("").ok()?;
        Some(extension)
    };
    std::iter::from_fn(next).filter(|extension| !is_grease(*extension))
}

/// RFC 6066 section 3, read as rustls reads it: a list of one host name, whatever comes
/// behind an entry of unknown type being unreadable and skipped.
fn server_name(content: Reader<'_>) -> Result<Option<ServerName>, Refusal> {
    let mut entries = Reader(content.only_vector16()?);
    let mut found = None;
    while !entries.is_empty() {
        if entries.u8("truncated server name")? != SERVER_NAME_TYPE_HOST {
            break;
        }
        let name = entries.vector16("truncated server name")?;
        if name.is_empty() {
            return Err(decode_error("empty server name"));
        }
        if found.replace(name).is_some() {
            return Err(decode_error("two server names"));
        }
    }
    let Some(name) = found else {
        return Err(illegal_parameter("no host name in server_name"));
    };
    match ServerName::try_from(name) {
        Ok(name) => Ok(Some(name)),
        Err(ServerNameError::Address) => Ok(None),
        Err(ServerNameError::Invalid) => Err(illegal_parameter("the server name is no DNS name")),
    }
}

/// A list of 16-bit numbers that must hold at least one.
fn code_points(list: &[u8]) -> Result<CodePoints<'_>, Refusal> {
    if list.is_empty() || !list.len().is_multiple_of(2) {
        return Err(decode_error("a list of code points is empty or has an odd length"));
    }
    Ok(CodePoints(list))
}

/// RFC 7301 section 3.1: names of 1 to 255 bytes, at least one of them.
fn protocol_names(list: &[u8]) -> Result<ProtocolNames<'_>, Refusal> {
    if list.is_empty() {
        return Err(decode_error("empty list of application protocols"));
    }
    let mut names = Reader(list);
    while !names.is_empty() {
        if names.vector8("truncated application protocol")?.is_empty() {
            return Err(decode_error("empty application protocol"));
        }
    }
    Ok(ProtocolNames(list))
}

/// The bytes not yet read of some structure.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(decode_error(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, Refusal> {
        Ok(self.take(1, what)?[0])
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, Refusal> {
        let bytes = self.take(2, what)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self, what: &'static str) -> Result<&'a [u8], Refusal> {
        let length = usize::from(self.u8(what)?);
        self.take(length, what)
    }

    fn vector16(&mut self, what: &'static str) -> Result<&'a [u8], Refusal> {
        let length = usize::from(self.u16(what)?);
        self.take(length, what)
    }

    /// A vector that must be all there is.
    fn only_vector8(mut self) -> Result<&'a [u8], Refusal> {
        let vector = self.vector8("truncated list in an extension")?;
        self.end().map(|()| vector)
    }

    /// A vector that must be all there is.
    fn only_vector16(mut self) -> Result<&'a [u8], Refusal> {
        let vector = self.vector16("truncated list in an extension")?;
        self.end().map(|()| vector)
    }

    fn end(self) -> Result<(), Refusal> {
        if self.is_empty() { Ok(()) } else { Err(decode_error("data behind a list")) }
    }
}

/// RFC 8446 section 6.2: a length or a range is wrong.
const fn decode_error(what: &'static str) -> Refusal {
    malformed(what, AlertDescription::DecodeError)
}

/// RFC 8446 section 6.2: well-formed, but inconsistent or forbidden.
const fn illegal_parameter(what: &'static str) -> Refusal {
    malformed(what, AlertDescription::IllegalParameter)
}
