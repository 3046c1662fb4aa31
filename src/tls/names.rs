//! Names of the cipher suites and key-exchange groups that forebay can negotiate.
#![forbid(unsafe_code)]

/// The cipher suites that rustls can negotiate, by IANA code point and by OpenSSL's
/// name, which is what PROXY protocol receivers and operators' dashboards expect.
pub const CIPHER_SUITES: [(u16, &str); 9] = [
    (0x1301, "TLS_AES_128_GCM_SHA256"),
    (0x1302, "TLS_AES_256_GCM_SHA384"),
    (0x1303, "TLS_CHACHA20_POLY1305_SHA256"),
    (0xc02b, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    (0xc02c, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (0xc02f, "ECDHE-RSA-AES128-GCM-SHA256"),
    (0xc030, "ECDHE-RSA-AES256-GCM-SHA384"),
    (0xcca8, "ECDHE-RSA-CHACHA20-POLY1305"),
    (0xcca9, "ECDHE-ECDSA-CHACHA20-POLY1305"),
];

/// Key-exchange groups by IANA code point and name; the last stands for "none".
pub const GROUPS: [(u16, &str); 5] = [
    (0x11ec, "X25519MLKEM768"),
    (0x001d, "x25519"),
    (0x0017, "secp256r1"),
    (0x0018, "secp384r1"),
    (0, "none"),
];

/// OpenSSL's name of the suite with that IANA code point; `unknown` for one that
/// rustls cannot negotiate.
pub fn cipher_name(code: u16) -> &'static str {
    CIPHER_SUITES.iter().find(|(known, _)| *known == code).map_or("unknown", |(_, name)| name)
}
