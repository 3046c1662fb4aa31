//! How long a PROXY protocol header is, version 1 or 2, if there is one. What it says is of
//! no interest here. Source: HAProxy's `doc/proxy-protocol.txt`, section 2.

/// Begins a header of version 2.
const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Begins a line of version 1.
const SIGNATURE_V1: &[u8; 6] = b"PROXY ";
/// Signature, version and command, family, length.
const FIXED_BYTES_V2: usize = 16;
/// The longest line, with its end.
const LINE_BYTES_MAX: usize = 107;

/// What the beginning of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// It cannot be told yet.
    Incomplete,
    /// A header of so many bytes, or none at all.
    Header(usize),
    /// It begins like a header and is none.
    Malformed,
}

/// Looks at the first bytes of a stream.
pub(super) fn examine(bytes: &[u8]) -> Beginning {
    let begins = |signature: &[u8]| {
        let common = bytes.len().min(signature.len());
        bytes[..common] == signature[..common]
    };
    if begins(SIGNATURE_V2) {
        let Some(fixed) = bytes.first_chunk::<FIXED_BYTES_V2>() else {
            return Beginning::Incomplete;
        };
        let length = FIXED_BYTES_V2 + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
        let version = fixed[12] >> 4;
        return match (version, bytes.len() >= length) {
            (2, true) => Beginning::Header(length),
            (2, false) => Beginning::Incomplete,
            _ => Beginning::Malformed,
        };
    }
    if begins(SIGNATURE_V1) {
        let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
        return match line.windows(2).position(|pair| pair == b"\r\n") {
            Some(end) => Beginning::Header(end + 2),
            None if bytes.len() < LINE_BYTES_MAX => Beginning::Incomplete,
            None => Beginning::Malformed,
        };
    }
    Beginning::Header(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every beginning of `header` is incomplete, and with more behind it is found whole.
    fn assert_found(header: &[u8]) {
        for length in 0..header.len() {
            assert_eq!(examine(&header[..length]), Beginning::Incomplete, "{length}");
        }
        let stream = [header, b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(examine(&stream), Beginning::Header(header.len()));
    }

    #[test]
    fn headers_of_both_versions_are_found() {
        assert_found(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n");
        assert_found(b"PROXY UNKNOWN\r\n");
        let v2 = [&SIGNATURE_V2[..], &[0x21, 0x11, 0, 12], &[7; 12]].concat();
        assert_found(&v2);
        assert_found(&[&SIGNATURE_V2[..], &[0x20, 0, 0, 0]].concat());
    }

    #[test]
    fn a_stream_without_header_is_taken_as_it_is() {
        assert_eq!(examine(b"GET / HTTP/1.1"), Beginning::Header(0));
        // A request method that begins like one.
        assert_eq!(examine(b"PROPFIND / HTTP/1.1"), Beginning::Header(0));
        assert_eq!(examine(b"P"), Beginning::Incomplete);
    }

    #[test]
    fn what_only_begins_like_a_header_is_refused() {
        assert_eq!(examine(&[&SIGNATURE_V2[..], &[0x11; 4]].concat()), Beginning::Malformed);
        assert_eq!(examine(&[&b"PROXY "[..], &[b'x'; 200]].concat()), Beginning::Malformed);
    }
}
