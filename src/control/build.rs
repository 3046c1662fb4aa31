//! What this build is made of.

#![forbid(unsafe_code)]

/// The version of forebay.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of a dependency that was built in; "unknown" if it is not one.
///
/// Read from the lock file of the build: the libraries do not all tell it themselves.
pub fn dependency(name: &str) -> &'static str {
    const LOCK: &str = include_str!("../../Cargo.lock");
    let mut lines = LOCK.lines();
    let quoted = |line: &'static str, key: &str| line.strip_prefix(key)?.strip_suffix('"');
    lines
        .by_ref()
        .find(|line| quoted(line, "name = \"") == Some(name))
        .and_then(|_| quoted(lines.next()?, "version = \""))
        .unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_have_their_versions() {
        for name in ["aws-lc-rs", "ring", "rustls"] {
            assert!(dependency(name).starts_with(|first: char| first.is_ascii_digit()), "{name}");
        }
        assert_eq!(dependency("no-such-crate"), "unknown");
    }
}
