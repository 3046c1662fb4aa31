//! The name a client asks for, as plain data of fixed size.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Deref;

use arrayvec::ArrayString;
use rustls_pki_types as pki_types;

/// The longest DNS name in text form without its trailing dot: 255 octets on the wire
/// (RFC 1035 section 2.3.4) less the first length octet and the root label.
pub const SERVER_NAME_BYTES_MAX: usize = 253;

/// A DNS host name, in lower case, without a trailing dot (RFC 6066 section 3).
///
/// Fixed in size so that reading one from a ClientHello allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerName(ArrayString<SERVER_NAME_BYTES_MAX>);

impl ServerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Why bytes are not a [`ServerName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerNameError {
    /// An address is not a name (RFC 6066 section 3 forbids it in server_name).
    #[error("an IP address is not a DNS name")]
    Address,
    /// Neither a name nor an address.
    #[error("not a DNS name")]
    Invalid,
}

impl TryFrom<&[u8]> for ServerName {
    type Error = ServerNameError;

    /// The rules are rustls' own, so that both read every ClientHello alike: letters,
    /// digits, hyphens, underscores; one trailing dot is taken off.
    fn try_from(bytes: &[u8]) -> Result<Self, ServerNameError> {
        match pki_types::ServerName::try_from(bytes) {
            Ok(pki_types::ServerName::DnsName(name)) => {
                let mut text =
                    ArrayString::from(name.as_ref()).map_err(|_| ServerNameError::Invalid)?;
                text.make_ascii_lowercase();
                Ok(Self(text))
            }
            Ok(pki_types::ServerName::IpAddress(_)) => Err(ServerNameError::Address),
            _ => Err(ServerNameError::Invalid),
        }
    }
}

impl TryFrom<&str> for ServerName {
    type Error = ServerNameError;

    fn try_from(text: &str) -> Result<Self, ServerNameError> {
        Self::try_from(text.as_bytes())
    }
}

impl Deref for ServerName {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self)
    }
}

impl fmt::Debug for ServerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lower_case_and_has_no_trailing_dot() {
        assert_eq!(ServerName::try_from("WWW.Example.COM.").unwrap().as_str(), "www.example.com");
    }

    #[test]
    fn an_address_is_told_from_nonsense() {
        assert_eq!(ServerName::try_from("192.0.2.1"), Err(ServerNameError::Address));
        assert_eq!(ServerName::try_from("2001:db8::1"), Err(ServerNameError::Address));
        for nonsense in ["", ".", "a..b", "-a.example", "a b", "*.example", "ex\0ample"] {
            assert_eq!(ServerName::try_from(nonsense), Err(ServerNameError::Invalid));
        }
        assert_eq!(ServerName::try_from(&b"\xff\xfe"[..]), Err(ServerNameError::Invalid));
    }

    #[test]
    fn the_longest_name_fits_and_a_longer_one_is_refused() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), SERVER_NAME_BYTES_MAX);
        assert_eq!(ServerName::try_from(longest.as_str()).unwrap().as_str(), longest);
        assert!(ServerName::try_from(format!("{longest}a").as_str()).is_err());
    }
}
