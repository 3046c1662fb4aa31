//! The form of SPIFFE IDs.
//!
//! Source: the SPIFFE ID specification, sections 2.1 to 2.3. What it forbids, such as `..`
//! and percent-encoding, could lead an ID under a prefix that it does not belong to.

/// How every SPIFFE ID begins.
pub(super) const SCHEME: &str = "spiffe://";

/// The longest ID (section 2.3).
const ID_BYTES_MAX: usize = 2048;

/// The longest trust domain (section 2.1).
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Whether `text` is a SPIFFE ID, with or without a path.
pub(super) fn is_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(SCHEME) else { return false };
    let mut parts = rest.split('/');
    let trust_domain = parts.next().unwrap_or_default();
    let in_trust_domain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    text.len() <= ID_BYTES_MAX
        && (1..=TRUST_DOMAIN_BYTES_MAX).contains(&trust_domain.len())
        && trust_domain.bytes().all(in_trust_domain)
        && parts.all(segment)
}
