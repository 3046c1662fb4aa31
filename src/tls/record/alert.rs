//! Alerts as bytes (RFC 8446 section 6, RFC 5246 section 7.2).

use super::AlertDescription;
use super::content_type::ALERT;

/// Bytes of an alert.
pub(super) const ALERT_BYTES: usize = 2;

/// Level of an alert that does not end the connection.
pub(super) const WARNING: u8 = 1;

/// Level of an alert that ends the connection.
pub(super) const FATAL: u8 = 2;

/// The record version to answer a ClientHello with when none is negotiated yet: 3.3, as
/// RFC 8446 section 5.1 wants it in every record but a first ClientHello.
pub const LEGACY_RECORD_VERSION: u16 = 0x0303;

/// The alert with the level that goes with it.
///
/// Closure is a warning, as is the refusal to renegotiate; everything else that we send
/// is an error alert and therefore fatal (RFC 8446 section 6.2, RFC 5246 section 7.2.2).
pub(super) fn encode(description: AlertDescription) -> [u8; ALERT_BYTES] {
    let level = match description {
        AlertDescription::CloseNotify | AlertDescription::NoRenegotiation => WARNING,
        _ => FATAL,
    };
    [level, u8::from(description)]
}

/// A whole alert record in plaintext, for failing before any keys exist.
pub fn plaintext_alert(record_version: u16, description: AlertDescription) -> [u8; 7] {
    let [major, minor] = record_version.to_be_bytes();
    let [level, description] = encode(description);
    [ALERT, major, minor, 0, ALERT_BYTES as u8, level, description]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plaintext_alert_is_fatal_unless_it_closes() {
        assert_eq!(
            plaintext_alert(LEGACY_RECORD_VERSION, AlertDescription::UnrecognisedName),
            [21, 3, 3, 0, 2, 2, 112]
        );
        assert_eq!(plaintext_alert(0x0301, AlertDescription::CloseNotify), [21, 3, 1, 0, 2, 1, 0]);
    }
}
