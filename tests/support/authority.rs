//! A certificate authority by the openssl command, with the files that an operator gets
//! from one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use tempfile::TempDir;

use super::ocsp;

const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// An authority with a P-256 key.
pub struct Authority {
    directory: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let this = Self { directory };
        let mut arguments = vec!["req", "-x509", "-days", "30", "-subj", "/CN=test authority"];
        arguments.extend(P256);
        arguments.extend(["-keyout", "ca.key", "-out", "ca.crt"]);
        this.openssl(&arguments);
        this
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.at("ca.crt")
    }

    fn at(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Runs `openssl` where the authority has its files.
    pub fn openssl(&self, arguments: &[&str]) {
        openssl(self.directory.path(), arguments);
    }

    /// Makes `target` with certificate, the authority's certificate and key.
    pub fn issue(&self, target: &Path, names: &[&str]) {
        self.sign(target, names);
        let mut pem = fs::read(self.at("leaf.crt")).expect("certificate");
        pem.extend(fs::read(self.certificate()).expect("certificate"));
        pem.extend(fs::read(self.at("leaf.key")).expect("key"));
        write(target, &pem);
    }

    /// Makes `leaf.crt` and `leaf.key`.
    fn sign(&self, target: &Path, names: &[&str]) {
        let mut arguments = vec!["req", "-new", "-subj", "/CN=forebay test"];
        arguments.extend(P256);
        arguments.extend(["-keyout", "leaf.key", "-out", "leaf.csr"]);
        self.openssl(&arguments);
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let extensions = format!("subjectAltName={}\n", names.join(","));
        fs::write(self.at("extensions"), extensions).expect("write");
        // Of its own for each: what is said of one is not said of another.
        let serial = format!("0x{:x}", crc(target));
        let mut arguments = vec!["x509", "-req", "-in", "leaf.csr", "-days", "30"];
        arguments.extend(["-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", &serial]);
        arguments.extend(["-extfile", "extensions", "-out", "leaf.crt"]);
        self.openssl(&arguments);
    }

    /// What the authority says of the certificate in `leaf`: good until `ends`.
    pub fn ocsp_response(&self, leaf: &Path, ends: SystemTime) -> Vec<u8> {
        ocsp::response(leaf, &self.certificate(), &self.at("ca.key"), ends)
    }

    /// The same for a week from now, made by `openssl ocsp`.
    pub fn ocsp_response_by_openssl(&self, leaf: &Path) -> Vec<u8> {
        let serial = format!("{:x}", crc(leaf)).to_uppercase();
        let serial = if serial.len() % 2 == 1 { format!("0{serial}") } else { serial };
        fs::write(self.at("index"), format!("V\t491231235959Z\t\t{serial}\tunknown\t/CN=x\n"))
            .expect("write");
        let leaf = leaf.to_str().expect("text");
        let mut arguments = vec!["ocsp", "-index", "index", "-CA", "ca.crt", "-issuer", "ca.crt"];
        arguments.extend(["-cert", leaf, "-ndays", "7", "-respout", "response"]);
        arguments.extend(["-rsigner", "ca.crt", "-rkey", "ca.key"]);
        self.openssl(&arguments);
        fs::read(self.at("response")).expect("a response")
    }
}

fn crc(path: &Path) -> u32 {
    crc32fast::hash(path.as_os_str().as_encoded_bytes()) | 1
}

/// Runs `openssl` in `directory`.
pub fn openssl(directory: &Path, arguments: &[&str]) {
    let output =
        Command::new("openssl").args(arguments).current_dir(directory).output().expect("openssl");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {errors}");
}

/// Writes a file that only its owner can read: beside, then renamed.
pub fn write(path: &Path, content: &[u8]) {
    let beside = path.with_extension("beside");
    fs::write(&beside, content).expect("write");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("permissions");
    fs::rename(beside, path).expect("rename");
}
