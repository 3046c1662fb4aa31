//! The frame of every structure here: one DER SEQUENCE.

/// The bytes behind the tag and length of a SEQUENCE. Length octets of the long form
/// follow the first of them (X.690 section 8.1.3). The length itself is not checked.
pub(super) fn sequence_content(der: &[u8]) -> Option<&[u8]> {
    match der {
        [0x30, length @ 0x81..=0x84, rest @ ..] => rest.get(usize::from(length & 0x7f)..),
        [0x30, _, rest @ ..] => Some(rest),
        _ => None,
    }
}
