//! An authority for clients, with what an operator gets from one: certificates with names
//! of every kind, and lists of the revoked.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::authority::{openssl, write};
use super::openssl::OpensslClient;

const P256: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// What `openssl ca` needs to write a list.
const CONFIGURATION: &str = "[ca]\ndefault_ca = this\n\
                             [this]\ndatabase = index\ncrlnumber = number\ndefault_md = sha256\n\
                             crl_extensions = extensions\n\
                             [extensions]\nauthorityKeyIdentifier = keyid\n";

/// An authority with a P-256 key, and its clients' files.
pub struct ClientAuthority {
    directory: TempDir,
}

/// A client's files.
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
    serial: String,
}

impl ClientAuthority {
    pub fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let this = Self { directory };
        let subject = format!("/CN={name}");
        let mut arguments = vec!["req", "-x509", "-days", "30", "-subj", &subject];
        arguments.extend(P256);
        arguments.extend(["-keyout", "ca.key", "-out", "ca.crt"]);
        this.openssl(&arguments);
        fs::write(this.at("ca.cnf"), CONFIGURATION).expect("write");
        fs::write(this.at("number"), "01\n").expect("write");
        this
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.at("ca.crt")
    }

    fn at(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn openssl(&self, arguments: &[&str]) {
        openssl(self.directory.path(), arguments);
    }

    /// A certificate with this common name and these names, in the words of
    /// `subjectAltName`.
    pub fn issue(&self, common_name: &str, names: &str) -> Identity {
        // Of its own for each; an even number of digits, as lists have it.
        let serial = format!("{:08X}", crc32fast::hash(common_name.as_bytes()) | 0x1000_0000);
        let file = |ending: &str| format!("{common_name}.{ending}");
        let (key, request, certificate) = (file("key"), file("csr"), file("crt"));
        let subject = format!("/CN={common_name}");
        let mut arguments = vec!["req", "-new", "-subj", &subject];
        arguments.extend(P256);
        arguments.extend(["-keyout", &key, "-out", &request]);
        self.openssl(&arguments);
        let extensions = format!("extendedKeyUsage=clientAuth\nsubjectAltName={names}\n");
        fs::write(self.at("leaf.cnf"), extensions).expect("write");
        let number = format!("0x{serial}");
        let mut arguments = vec!["x509", "-req", "-in", &request, "-days", "30"];
        arguments.extend(["-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", &number]);
        arguments.extend(["-extfile", "leaf.cnf", "-out", &certificate]);
        self.openssl(&arguments);
        Identity { certificate: self.at(&certificate), key: self.at(&key), serial }
    }

    /// Puts the list of these revoked clients at `target`, due to be replaced in a week.
    pub fn revoke(&self, target: &Path, revoked: &[&Identity]) {
        let lines: String = revoked
            .iter()
            .map(|one| format!("R\t491231235959Z\t260101000000Z\t{}\tunknown\t/CN=x\n", one.serial))
            .collect();
        fs::write(self.at("index"), lines).expect("write");
        let mut arguments = vec!["ca", "-gencrl", "-config", "ca.cnf", "-crldays", "7"];
        arguments.extend(["-cert", "ca.crt", "-keyfile", "ca.key", "-out", "list.pem"]);
        self.openssl(&arguments);
        write(target, &fs::read(self.at("list.pem")).expect("a list"));
    }
}

impl OpensslClient {
    /// Shows this certificate when it is asked for one.
    pub fn identity(self, identity: &Identity) -> Self {
        self.with_file("-cert", &identity.certificate).with_file("-key", &identity.key)
    }
}
