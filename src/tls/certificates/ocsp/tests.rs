//! With responses that openssl makes.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::tls::certificates::test_files::{P256, concatenate};
use crate::tls::certificates::{Finding, Passphrases, load};
use crate::tls::test_support::{LIBRARIES, openssl, openssl_certificate, restrict};

const AWS: CryptoLibrary = CryptoLibrary::AwsLc;
const DAY: Duration = Duration::from_secs(86_400);

/// An authority, `leaf.pem` with chain and key signed by it, and the authority's list of
/// what it has signed.
struct Authority {
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let at = directory.path();
        openssl_certificate(at, "ca", P256, "DNS:ca.example");
        let this = Self { directory };
        this.issue("leaf", "subjectAltName=DNS:leaf.example\n");
        concatenate(this.directory.path(), &["leaf.crt", "ca.crt", "leaf.key"], "leaf.pem");
        fs::remove_file(this.directory.path().join("leaf.key")).unwrap();
        this
    }

    fn issue(&self, name: &str, extensions: &str) {
        let at = self.directory.path();
        let request = format!("req -new -newkey {P256} -nodes -keyout {name}.key -out {name}.csr");
        openssl(at, &format!("{request} -subj /CN={name}"));
        fs::write(at.join("extensions"), extensions).unwrap();
        openssl(
            at,
            &format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -set_serial 0x{SERIAL} \
                 -days 365 -extfile extensions -out {name}.crt"
            ),
        );
        restrict(&at.join(format!("{name}.key")));
    }

    /// Puts `leaf.ocsp` in place: valid for a week, with `state` of the leaf's serial number,
    /// signed by `signer`.
    fn staple(&self, state: &str, signer: &str, more: &str) {
        let at = self.directory.path();
        fs::write(at.join("index"), format!("{state}\t{SERIAL}\tunknown\t/CN=leaf\n")).unwrap();
        openssl(
            at,
            &format!(
                "ocsp -index index -CA ca.crt -issuer ca.crt {more} -cert leaf.crt -ndays 7 \
                 -rsigner {signer}.crt -rkey {signer}.key -respout leaf.ocsp"
            ),
        );
    }

    fn load(&self, library: CryptoLibrary, now: SystemTime) -> (LoadedCertificate, Vec<Finding>) {
        let path = self.directory.path().join("leaf.pem");
        let (mut loaded, findings) = load(&[path], library, &Passphrases::default(), now);
        (loaded.pop().unwrap(), findings)
    }

    /// Why the file is not sent.
    fn problem(&self) -> StapleProblem {
        let (certificate, findings) = self.load(AWS, SystemTime::now());
        assert_eq!(stapled(&certificate), None);
        assert_eq!(certificate.staple_ends, None);
        match findings.as_slice() {
            [Finding { problem: Problem::UnusableStaple(problem), path, .. }] => {
                assert_eq!(*path, self.directory.path().join("leaf.ocsp"));
                problem.clone()
            }
            other => panic!("{other:#?}"),
        }
    }
}

const SERIAL: &str = "7A01";
const VALID: &str = "V\t491231235959Z\t";
const REVOKED: &str = "R\t491231235959Z\t250101000000Z";

fn stapled(certificate: &LoadedCertificate) -> Option<Vec<u8>> {
    certificate.signing.certified().unwrap().ocsp.clone()
}

#[test]
fn a_good_response_of_the_issuer_is_stapled_with_either_library() {
    let authority = Authority::new();
    for more in ["", "-rmd sha384", "-resp_key_id", "-sha256"] {
        authority.staple(VALID, "ca", more);
        for library in LIBRARIES {
            let (certificate, findings) = authority.load(library, SystemTime::now());
            assert_eq!(findings, [], "{more} {library}");
            let file = fs::read(authority.directory.path().join("leaf.ocsp")).unwrap();
            assert_eq!(stapled(&certificate), Some(file));
            let days =
                (certificate.staple_ends.unwrap() - unix_seconds(SystemTime::now())) / 86_400;
            assert!((6..=7).contains(&days), "{days}");
        }
    }
}

#[test]
fn a_responder_that_the_issuer_appointed_may_sign_and_no_other() {
    let authority = Authority::new();
    authority.issue("responder", "extendedKeyUsage=OCSPSigning\n");
    authority.staple(VALID, "responder", "");
    assert!(stapled(&authority.load(AWS, SystemTime::now()).0).is_some());
    authority.issue("other", "extendedKeyUsage=serverAuth\n");
    authority.staple(VALID, "other", "");
    assert_eq!(authority.problem(), StapleProblem::NotSignedByIssuer);
    // The appointed one's certificate is missing.
    authority.staple(VALID, "responder", "-resp_no_certs");
    assert_eq!(authority.problem(), StapleProblem::NotSignedByIssuer);
    // Appointed by somebody else.
    let stranger = Authority::new();
    stranger.issue("responder", "extendedKeyUsage=OCSPSigning\n");
    for file in ["responder.crt", "responder.key"] {
        let to = authority.directory.path().join(file);
        fs::copy(stranger.directory.path().join(file), to).unwrap();
    }
    authority.staple(VALID, "responder", "");
    assert_eq!(authority.problem(), StapleProblem::NotSignedByIssuer);
}

#[test]
fn a_response_whose_bytes_were_changed_is_not_sent() {
    let authority = Authority::new();
    authority.staple(VALID, "ca", "");
    let path = authority.directory.path().join("leaf.ocsp");
    let good = fs::read(&path).unwrap();
    let mut refused = 0;
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1;
        fs::write(&path, bad).unwrap();
        let (certificate, _) = authority.load(AWS, SystemTime::now());
        refused += usize::from(stapled(&certificate).is_none());
    }
    // Behind the signature are certificates that nobody needs here.
    let needed = good.len() - fs::read(authority.directory.path().join("ca.crt")).unwrap().len();
    assert!(refused >= needed, "{refused} of {}", good.len());
}

#[test]
fn what_the_issuer_says_against_the_certificate_is_not_sent_but_told() {
    let authority = Authority::new();
    authority.staple(REVOKED, "ca", "");
    assert_eq!(authority.problem(), StapleProblem::Revoked);
    // Not in the list.
    let at = authority.directory.path();
    fs::write(at.join("index"), "").unwrap();
    openssl(
        at,
        "ocsp -index index -CA ca.crt -issuer ca.crt -cert leaf.crt -ndays 7 -rsigner ca.crt \
         -rkey ca.key -respout leaf.ocsp",
    );
    assert_eq!(authority.problem(), StapleProblem::Unknown);
}

#[test]
fn the_response_of_another_certificate_is_foreign() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    stranger.staple(VALID, "ca", "");
    let from = stranger.directory.path().join("leaf.ocsp");
    fs::copy(from, authority.directory.path().join("leaf.ocsp")).unwrap();
    assert_eq!(authority.problem(), StapleProblem::Foreign);
}

#[test]
fn a_response_without_an_end_or_without_sense_is_not_sent() {
    let authority = Authority::new();
    let path = authority.directory.path().join("leaf.ocsp");
    fs::write(&path, "rubbish").unwrap();
    assert_eq!(authority.problem(), StapleProblem::NotAResponse);
    // OCSPResponse with tryLater alone.
    fs::write(&path, [0x30, 3, 0x0a, 1, 3]).unwrap();
    assert_eq!(authority.problem(), StapleProblem::Refused("tryLater"));
    fs::write(&path, vec![0; FILE_BYTES_MAX as usize + 1]).unwrap();
    assert_eq!(authority.problem(), StapleProblem::NotAResponseFile);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(authority.problem(), StapleProblem::NotAResponseFile);
}

#[test]
fn without_the_issuers_certificate_nothing_can_be_checked() {
    let authority = Authority::new();
    authority.staple(VALID, "ca", "");
    let pem = fs::read_to_string(authority.directory.path().join("leaf.pem")).unwrap();
    let sections: Vec<&str> = pem.split_inclusive("-----END CERTIFICATE-----\n").collect();
    let alone = [sections[0], sections[2]].concat();
    fs::write(authority.directory.path().join("leaf.pem"), alone).unwrap();
    assert_eq!(authority.problem(), StapleProblem::NoIssuer);
}

#[test]
fn a_response_whose_time_is_over_is_a_finding_at_every_load() {
    let authority = Authority::new();
    authority.staple(VALID, "ca", "");
    let (_, findings) = authority.load(AWS, SystemTime::now() + 8 * DAY);
    let [finding] = findings.as_slice() else { panic!("{findings:#?}") };
    assert!(finding.message().contains("its time was over at"), "{finding}");
}

#[test]
fn a_certificate_that_demands_a_staple_and_has_none_is_a_finding() {
    let authority = Authority::new();
    authority.issue("leaf", "subjectAltName=DNS:leaf.example\ntlsfeature=status_request\n");
    concatenate(authority.directory.path(), &["leaf.crt", "ca.crt", "leaf.key"], "leaf.pem");
    let (_, findings) = authority.load(AWS, SystemTime::now());
    let [finding] = findings.as_slice() else { panic!("{findings:#?}") };
    assert!(finding.message().starts_with("demands an OCSP staple"), "{finding}");
    authority.staple(VALID, "ca", "");
    assert_eq!(authority.load(AWS, SystemTime::now()).1, []);
}
