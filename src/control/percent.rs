//! Values in the query of a request: percent-encoding (RFC 3986 section 2.1).
#![forbid(unsafe_code)]

/// `text` with everything escaped that is not unreserved (section 2.3).
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// What was escaped as `text`; `None` if an escape is broken, or it is no UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut decoded = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        decoded.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_number)?);
        decoded.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(decoded).ok()
}

/// The value of `key` in the query `query`, as it is written there.
pub fn value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["%", "%4", "%4g", "%+4", "%ff"] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode("a%20b+c").as_deref(), Some("a b+c"));
    }

    #[test]
    fn a_value_is_that_of_its_key() {
        assert_eq!(value("a=1&b=2=3&a=4", "b"), Some("2=3"));
        assert_eq!(value("a=1", "b"), None);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text in ".*") {
            let encoded = encode(&text);
            prop_assert!(!encoded.contains(['&', '=', '?', '#', ' ']));
            prop_assert_eq!(decode(&encoded), Some(text));
        }
    }
}
