//! With real files, which are changed between loads.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::tls::certificates::CertificateName;
use crate::tls::test_support::restrict;

const LIBRARY: CryptoLibrary = CryptoLibrary::AwsLc;

/// Writes chain and key for `name` to `directory/file`, beside and then renamed.
fn write(directory: &Path, file: &str, name: &str) -> PathBuf {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new([name.to_owned()])
        .and_then(|parameters| parameters.self_signed(&key))
        .expect("a certificate");
    replace(directory, file, &[certificate.pem(), key.serialize_pem()].concat())
}

fn replace(directory: &Path, file: &str, text: &str) -> PathBuf {
    let (beside, path) = (directory.join("beside"), directory.join(file));
    fs::write(&beside, text).expect("write");
    restrict(&beside);
    fs::rename(&beside, &path).expect("rename");
    path
}

/// Loads a path and puts the result in force.
fn load(store: &mut Store, path: &Path, keys_max: usize) -> (Vec<LoadedCertificate>, Vec<Finding>) {
    let mut loading = store.begin(LIBRARY, keys_max, Passphrases::default(), SystemTime::now());
    let (certificates, findings) = loading.load(path);
    let loaded = loading.finish();
    store.commit(loaded);
    (certificates, findings)
}

fn names(certificates: &[LoadedCertificate]) -> Vec<String> {
    let names = certificates.iter().flat_map(|certificate| certificate.names.iter());
    names.map(CertificateName::to_string).collect()
}

/// The leaf that clients are shown.
fn leaf(certificate: &LoadedCertificate) -> Vec<u8> {
    certificate.signing.certified().expect("readable").cert[0].to_vec()
}

#[test]
fn what_has_not_changed_is_shared_and_what_has_is_read_again() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "a.pem", "a.example");
    write(directory.path(), "b.pem", "b.example");
    let mut store = Store::default();
    let (before, findings) = load(&mut store, directory.path(), 10);
    assert_eq!(findings, []);
    write(directory.path(), "b.pem", "new.example");
    let (after, _) = load(&mut store, directory.path(), 10);
    assert_eq!(names(&after), ["a.example", "new.example"]);
    assert!(Arc::ptr_eq(&before[0].names, &after[0].names), "shared");
    assert!(!Arc::ptr_eq(&before[1].names, &after[1].names));
}

#[test]
fn a_key_that_changes_alone_is_noticed() {
    let directory = TempDir::new().unwrap();
    let path = write(directory.path(), "a.pem", "a.example");
    let text = fs::read_to_string(&path).unwrap();
    let (chain, key) = text.split_at(text.find("-----BEGIN PRIVATE").unwrap());
    replace(directory.path(), "a.pem", chain);
    replace(directory.path(), "a.key", key);
    let mut store = Store::default();
    assert_eq!(load(&mut store, &path, 10).1, []);
    replace(directory.path(), "a.key", "broken");
    let (_, findings) = load(&mut store, &path, 10);
    assert!(findings[0].path.ends_with("a.key"), "{findings:?}");
}

#[test]
fn a_file_that_turns_bad_costs_nothing_that_works() {
    let directory = TempDir::new().unwrap();
    let path = write(directory.path(), "a.pem", "a.example");
    write(directory.path(), "b.pem", "b.example");
    for place in [directory.path(), path.as_path()] {
        write(directory.path(), "a.pem", "a.example");
        let mut store = Store::default();
        let before = leaf(&load(&mut store, place, 10).0[0]);
        replace(directory.path(), "a.pem", "rubbish");
        // Twice: what is kept once is kept for good.
        for _ in 0..2 {
            let (certificates, findings) = load(&mut store, place, 10);
            assert_eq!(leaf(&certificates[0]), before);
            let [finding] = findings.as_slice() else { panic!("{findings:?}") };
            assert_eq!(finding.severity, Severity::Warning);
            assert!(finding.to_string().starts_with(&path.display().to_string()));
            assert!(finding.message().ends_with("the certificate read before stays in use"));
        }
        write(directory.path(), "a.pem", "a.example");
        let (certificates, findings) = load(&mut store, place, 10);
        assert_eq!(findings, []);
        assert_ne!(leaf(&certificates[0]), before, "mended, and in use");
    }
}

#[test]
fn a_bad_file_is_an_error_at_first_and_left_out_of_a_directory_later() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "a.pem", "a.example");
    let bad = replace(directory.path(), "bad.pem", "rubbish");
    let mut store = Store::default();
    let mut loading = store.begin(LIBRARY, 10, Passphrases::default(), SystemTime::now());
    let (_, findings) = loading.load(directory.path());
    assert_eq!(findings[0].severity, Severity::Error, "nothing is in force yet");
    fs::remove_file(&bad).unwrap();
    load(&mut store, directory.path(), 10);
    replace(directory.path(), "bad.pem", "rubbish");
    let (certificates, findings) = load(&mut store, directory.path(), 10);
    assert_eq!(names(&certificates), ["a.example"]);
    assert_eq!(findings[0].severity, Severity::Warning);
    assert!(findings[0].message().ends_with("it is left out until it is mended"));
}

#[test]
fn keys_beyond_the_bound_are_read_when_asked_for_and_the_unused_make_room() {
    let directory = TempDir::new().unwrap();
    for name in ["a", "b", "c"] {
        write(directory.path(), &format!("{name}.pem"), &format!("{name}.example"));
    }
    let mut store = Store::default();
    let (certificates, _) = load(&mut store, directory.path(), 2);
    let resident = |certificates: &[LoadedCertificate]| -> Vec<bool> {
        certificates.iter().map(|certificate| certificate.signing.is_resident()).collect()
    };
    assert_eq!(resident(&certificates), [true, true, false]);
    leaf(&certificates[0]);
    leaf(&certificates[2]);
    assert_eq!(resident(&certificates), [true, false, true], "the one that nobody used went");
    leaf(&certificates[1]);
    assert_eq!(resident(&certificates).iter().filter(|resident| **resident).count(), 2);
}

#[test]
fn a_key_that_cannot_be_read_again_is_never_let_go() {
    let directory = TempDir::new().unwrap();
    for name in ["a", "b"] {
        write(directory.path(), &format!("{name}.pem"), &format!("{name}.example"));
    }
    let mut store = Store::default();
    load(&mut store, directory.path(), 1);
    replace(directory.path(), "a.pem", "rubbish");
    let (certificates, _) = load(&mut store, directory.path(), 1);
    leaf(&certificates[1]);
    assert!(certificates[0].signing.is_resident(), "kept beyond the bound");
}

#[test]
fn a_file_for_other_names_is_not_taken_before_it_is_loaded_anew() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "a.pem", "a.example");
    let path = write(directory.path(), "b.pem", "b.example");
    let mut store = Store::default();
    let (certificates, _) = load(&mut store, directory.path(), 1);
    write(directory.path(), "b.pem", "other.example");
    assert!(certificates[1].signing.certified().is_none());
    write(directory.path(), "b.pem", "b.example");
    assert!(certificates[1].signing.certified().is_none(), "not tried again at once");
    let (certificates, _) = load(&mut store, &path, 1);
    assert!(certificates[0].signing.certified().is_some(), "loaded anew");
}

#[test]
fn many_files_are_read_by_several_threads_in_their_order() {
    let numbers: Vec<usize> = (0..10 * FILES_PER_THREAD_MIN + 1).collect();
    assert_eq!(in_parallel(&numbers, |number| *number), numbers);
}
