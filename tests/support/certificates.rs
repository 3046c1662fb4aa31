//! Certificates made by the openssl command, as an operator makes them.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The key types that forebay serves, in the words of `openssl genpkey`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    EcdsaP256,
    EcdsaP384,
    Rsa2048,
    Rsa4096,
    Ed25519,
}

impl Key {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::EcdsaP256 => &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::EcdsaP384 => &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
            Self::Rsa2048 => &["rsa:2048"],
            Self::Rsa4096 => &["rsa:4096"],
            Self::Ed25519 => &["ed25519"],
        }
    }
}

/// Makes `directory/file` with a self-signed certificate for `names`, addresses among
/// them, and its key.
pub fn self_signed(directory: &Path, file: &str, key: Key, names: &[&str]) -> PathBuf {
    let path = directory.join(file);
    let (certificate, key_file) =
        (path.with_extension("crt-part"), path.with_extension("key-part"));
    let general_name = |name: &&str| match name.parse::<IpAddr>() {
        Ok(address) => format!("IP:{address}"),
        Err(_) => format!("DNS:{name}"),
    };
    let names: Vec<String> = names.iter().map(general_name).collect();
    let output = Command::new("openssl")
        .args(["req", "-x509", "-days", "30", "-nodes", "-subj", "/CN=forebay test"])
        .args(["-addext", &format!("subjectAltName={}", names.join(","))])
        .arg("-newkey")
        .args(key.arguments())
        .arg("-keyout")
        .arg(&key_file)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    let mut pem = fs::read(&certificate).expect("certificate");
    pem.extend(fs::read(&key_file).expect("key"));
    fs::remove_file(certificate).expect("remove");
    fs::remove_file(key_file).expect("remove");
    fs::write(&path, pem).expect("write");
    // forebay warns of keys that everybody can read.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
    path
}
