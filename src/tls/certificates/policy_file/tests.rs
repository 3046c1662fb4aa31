//! What is understood, and what is said of the rest.

use std::fs;
use std::time::SystemTime;

use tempfile::TempDir;

use super::*;
use crate::tls::CryptoLibrary;
use crate::tls::certificates::{self, Passphrases, Severity};
use crate::tls::test_support::openssl_certificate;

/// Everything that is wrong with `text`, as it is printed.
fn problems(text: &str) -> Vec<String> {
    let problems = parse(text.as_bytes()).err().unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn every_key_may_be_there_and_none_must() {
    assert_eq!(parse(b""), Ok(CertificatePolicy::default()));
    let text = "# for nobody old\nminimum_version = \"1.3\"\nalpn = [\"h2\", \"http/1.1\"]\n";
    let policy = parse(text.as_bytes()).unwrap();
    assert_eq!(policy.minimum_version, Some(Version::Tls13));
    assert_eq!(policy.alpn, Some(vec![b"h2".to_vec(), b"http/1.1".to_vec()]));
    assert_eq!(policy.to_string(), "TLSv1.3 or newer, protocols [h2, http/1.1]");
    assert_eq!(parse(b"alpn = []").unwrap().alpn, Some(Vec::new()), "no negotiation");
}

#[test]
fn everything_that_is_wrong_is_said_with_its_line_and_key() {
    let version = "write \"1.2\" or \"1.3\", in quotes";
    let list = "write a list of names in quotes, such as [\"h2\", \"http/1.1\"]";
    for (text, expected) in [
        ("minimum_version = 1.3", vec![format!("line 1: minimum_version: {version}")]),
        ("\n\nminimum_version = \"1.1\"", vec![format!("line 3: minimum_version: {version}")]),
        ("alpn = \"h2\"", vec![format!("line 1: alpn: {list}")]),
        ("alpn = [\"h2\",\n 2]", vec![format!("line 1: alpn: {list}")]),
        (
            "alpn = [\"\"]\nminimum_versoin = \"1.3\"\n",
            vec![
                "line 1: alpn: a protocol name of 0 bytes; it has 1 to 255".to_owned(),
                "line 2: minimum_versoin: unknown key; a policy file has alpn and minimum_version"
                    .to_owned(),
            ],
        ),
        (
            "alpn = [\"h2\", \"h2\"]",
            vec!["line 1: alpn: \"h2\" is listed twice; its first place counts".to_owned()],
        ),
    ] {
        assert_eq!(problems(text), expected, "{text}");
    }
    let many: Vec<String> = (0..17).map(|number| number.to_string()).collect();
    assert_eq!(
        problems(&format!("alpn = {many:?}")),
        ["line 1: alpn: 17 protocols; write at most 16"]
    );
    assert!(problems("alpn = [\n").concat().contains(": not TOML: "));
    let not_text = parse(b"alpn = []\n# \xff\n").unwrap_err();
    assert_eq!(not_text[0].to_string(), "line 2: is not UTF-8 text");
}

#[test]
fn a_certificate_has_the_policy_beside_it_and_is_not_served_with_a_bad_one() {
    let directory = TempDir::new().unwrap();
    openssl_certificate(directory.path(), "a", "ed25519", "DNS:a.example");
    let paths = [directory.path().join("a.crt")];
    let load = || {
        let library = CryptoLibrary::AwsLc;
        certificates::load(&paths, library, &Passphrases::default(), SystemTime::now())
    };
    assert_eq!(load().0[0].policy, None);

    let file = directory.path().join("a.policy");
    fs::write(&file, "minimum_version = \"1.3\"").unwrap();
    let policy = load().0[0].policy.clone().expect("a policy");
    assert_eq!(policy.minimum_version, Some(Version::Tls13));

    fs::write(&file, "minimum_version = 3").unwrap();
    let (loaded, findings) = load();
    assert!(loaded.is_empty());
    assert_eq!((findings[0].severity, &findings[0].path), (Severity::Error, &file));

    let too_large = "is not a policy file of at most 16384 bytes";
    fs::write(&file, "#".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
    assert_eq!(load().1[0].message(), too_large);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(load().1[0].message(), too_large);
}
