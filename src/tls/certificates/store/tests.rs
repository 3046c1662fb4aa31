//! With real files, which are changed between loads.

use std::time::Duration;
use std::{fs, slice};

use tempfile::TempDir;

use super::*;
use crate::tls::certificates::CertificateName;
use crate::tls::test_support::restrict;

const DAY: Duration = Duration::from_hours(24);

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
fn load(store: &mut Store, path: &Path, keys_max: usize) -> (Certificates, Vec<Finding>) {
    let mut loading = store.begin(LIBRARY, keys_max, Passphrases::default(), SystemTime::now());
    let (certificates, findings) = loading.load(path);
    let loaded = loading.finish();
    store.commit(loaded);
    (certificates, findings)
}

const ONLY_HTTP_2: &str = "alpn = [\"h2\"]";

/// How many protocols a certificate's policy lists.
fn protocols(certificate: &LoadedCertificate) -> Option<usize> {
    certificate.policy.as_ref()?.alpn.as_ref().map(Vec::len)
}

fn names(certificates: &[Arc<LoadedCertificate>]) -> Vec<String> {
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
fn a_policy_is_noticed_and_one_that_turns_bad_leaves_certificate_and_policy() {
    let directory = TempDir::new().unwrap();
    let path = write(directory.path(), "a.pem", "a.example");
    let mut store = Store::default();
    // No room in memory: what is in force can be read again all the same.
    let mut policy = || {
        let (certificates, findings) = load(&mut store, &path, 0);
        (certificates[0].policy.clone(), leaf(&certificates[0]), findings)
    };
    let (none, before, _) = policy();
    assert_eq!(none, None);
    replace(directory.path(), "a.policy", "alpn = [\"h2\"]");
    let (first, _, findings) = policy();
    assert!(first.is_some());
    assert_eq!(findings, []);
    replace(directory.path(), "a.policy", "alpn = [h2]");
    // Twice: it is said as long as it is so.
    for _ in 0..2 {
        let (kept, shown, findings) = policy();
        assert_eq!((&kept, &shown), (&first, &before));
        let [finding] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.path.ends_with("a.policy"));
        let kept = "; the certificate and the policy read before stay in use";
        assert!(finding.message().ends_with(kept), "{finding}");
    }
    fs::remove_file(directory.path().join("a.policy")).unwrap();
    let (none, _, findings) = policy();
    assert_eq!((none, findings), (None, Vec::new()));
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
    let resident = |certificates: &[Arc<LoadedCertificate>]| -> Vec<bool> {
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

/// Loads only what has changed, as an event of the kernel would name it.
fn load_changed(
    store: &mut Store,
    path: &Path,
    changed: &[PathBuf],
) -> (Certificates, Vec<Finding>) {
    let changed = changed.iter().cloned().collect();
    look(store, path, Look::Changed(&changed))
}

/// Loads for somebody who asks, where a watch has told of nothing.
fn load_asked(store: &mut Store, path: &Path) -> (Certificates, Vec<Finding>) {
    look(store, path, Look::Asked(&HashSet::new()))
}

fn look(store: &mut Store, path: &Path, look: Look<'_>) -> (Certificates, Vec<Finding>) {
    let loading = store.begin(LIBRARY, 10, Passphrases::default(), SystemTime::now());
    let mut loading = loading.look(look);
    let (certificates, findings) = loading.load(path);
    let loaded = loading.finish();
    store.commit(loaded);
    (certificates, findings)
}

#[test]
fn a_file_that_may_change_without_its_directory_knowing_is_looked_at_for_whoever_asks() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = |file: &str| directory.path().join(file);
    let linked = write(elsewhere.path(), "a.pem", "a.example");
    let named_twice = write(elsewhere.path(), "b.pem", "b.example");
    std::os::unix::fs::symlink(&linked, path("a.pem")).unwrap();
    fs::hard_link(&named_twice, path("b.pem")).unwrap();
    write(directory.path(), "c.pem", "c.example");
    let mut store = Store::default();
    load(&mut store, directory.path(), 10);
    write(elsewhere.path(), "a.pem", "a2.example");
    let other = write(elsewhere.path(), "b2.pem", "b2.example");
    fs::write(&named_twice, fs::read(other).unwrap()).unwrap();
    write(directory.path(), "c.pem", "c2.example");
    let (certificates, findings) = load_asked(&mut store, directory.path());
    assert_eq!(findings, []);
    let told_of_by_a_watch = "c.example";
    assert_eq!(names(&certificates), ["a2.example", "b2.example", told_of_by_a_watch]);
}

#[test]
fn whoever_asks_is_warned_again_of_what_still_is_wrong() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "a.pem", "a.example");
    write(directory.path(), "b.pem", "b.example");
    let mut store = Store::default();
    load(&mut store, directory.path(), 10);
    let bad =
        [replace(directory.path(), "b.pem", "bad"), replace(directory.path(), "c.pem", "bad")];
    let (_, findings) = load_changed(&mut store, directory.path(), &bad);
    assert_eq!(findings.len(), 2);
    assert_eq!(load_changed(&mut store, directory.path(), &[]).1, [], "nobody has asked");
    assert_eq!(load_asked(&mut store, directory.path()).1, findings);
    write(directory.path(), "b.pem", "b2.example");
    fs::remove_file(directory.path().join("c.pem")).unwrap();
    let (certificates, findings) = load_asked(&mut store, directory.path());
    assert_eq!(findings, []);
    assert_eq!(names(&certificates), ["a.example", "b2.example"]);
    assert!(store.doubtful.is_empty());
}

#[test]
fn whoever_asks_is_warned_of_a_certificate_that_ends_though_its_file_is_as_it_was() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "a.pem", "a.example");
    let mut store = Store::default();
    load(&mut store, directory.path(), 10);
    let (later, nothing) = (SystemTime::now() + 10_000 * 365 * DAY, HashSet::new());
    let loading = store.begin(LIBRARY, 10, Passphrases::default(), later);
    let (_, findings) = loading.look(Look::Asked(&nothing)).load(directory.path());
    assert!(matches!(findings[..], [Finding { problem: Problem::Expired(_), .. }]), "{findings:?}");
}

#[test]
fn of_many_files_only_those_that_are_said_to_have_changed_are_looked_at() {
    let directory = TempDir::new().unwrap();
    let path = |file: &str| directory.path().join(file);
    for name in ["a", "b", "d"] {
        write(directory.path(), &format!("{name}.pem"), &format!("{name}.example"));
    }
    let mut store = Store::default();
    load(&mut store, directory.path(), 10);
    write(directory.path(), "a.pem", "unsaid.example");
    write(directory.path(), "b.pem", "new.example");
    write(directory.path(), "c.crt", "c.example");
    fs::remove_file(path("d.pem")).unwrap();
    let changed = [path("b.pem"), path("c.crt"), path("d.pem"), path("e.pem")];
    let (certificates, findings) = load_changed(&mut store, directory.path(), &changed);
    assert_eq!(findings, []);
    assert_eq!(names(&certificates), ["a.example", "new.example", "c.example"]);
    let (certificates, _) = load(&mut store, directory.path(), 10);
    assert_eq!(names(&certificates), ["unsaid.example", "new.example", "c.example"]);
}

#[test]
fn a_key_that_is_said_to_have_changed_has_its_certificate_read() {
    let directory = TempDir::new().unwrap();
    let path = write(directory.path(), "a.pem", "a.example");
    for place in [directory.path(), path.as_path()] {
        let mut store = Store::default();
        let before = leaf(&load(&mut store, place, 10).0[0]);
        write(directory.path(), "a.pem", "a.example");
        let key = [directory.path().join("a.key")];
        let (certificates, _) = load_changed(&mut store, place, &key);
        assert_ne!(leaf(&certificates[0]), before);
    }
}

#[test]
fn a_policy_that_is_said_to_have_come_changed_or_gone_is_followed() {
    let directory = TempDir::new().unwrap();
    let certificate = write(directory.path(), "a.pem", "a.example");
    let policy = directory.path().join("a.policy");
    for place in [directory.path(), certificate.as_path()] {
        let mut store = Store::default();
        let before = leaf(&load(&mut store, place, 10).0[0]);
        let mut say = || {
            let (certificates, findings) =
                load_changed(&mut store, place, slice::from_ref(&policy));
            assert_eq!(findings, []);
            assert_eq!(leaf(&certificates[0]), before);
            protocols(&certificates[0])
        };
        replace(directory.path(), "a.policy", ONLY_HTTP_2);
        assert_eq!(say(), Some(1));
        replace(directory.path(), "a.policy", "alpn = []");
        assert_eq!(say(), Some(0));
        fs::remove_file(&policy).unwrap();
        assert_eq!(say(), None);
    }
}

#[test]
fn a_file_that_is_said_to_have_changed_for_the_worse_costs_nothing_that_works() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "a.pem", "a.example");
    let mut store = Store::default();
    load(&mut store, directory.path(), 10);
    let changed = [
        replace(directory.path(), "a.pem", "rubbish"),
        replace(directory.path(), "b.pem", "rubbish"),
    ];
    let (certificates, findings) = load_changed(&mut store, directory.path(), &changed);
    assert_eq!(names(&certificates), ["a.example"]);
    assert_eq!(findings.iter().map(|one| one.severity).collect::<Vec<_>>(), [Severity::Warning; 2]);
    fs::remove_file(&changed[0]).unwrap();
    let (_, findings) = load_changed(&mut store, directory.path(), &changed[..1]);
    assert_eq!(findings[0].severity, Severity::Error, "there would be no certificate left");
}

/// A store that knows what `store` knows, by way of a file.
fn by_way_of_a_file(store: &mut Store) -> Store {
    let bytes = store.index_if_outdated().expect("something to write").to_bytes();
    assert!(store.index_if_outdated().is_none(), "it is up to date now");
    Store::indexed(FileIndex::read(bytes).expect("an index"))
}

#[test]
fn what_the_index_knows_is_not_read_before_a_client_asks() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "a.pem", "a.example");
    write(directory.path(), "b.pem", "b.example");
    let mut store = Store::default();
    load(&mut store, directory.path(), 10);
    let mut later = by_way_of_a_file(&mut store);
    write(directory.path(), "b.pem", "new.example");
    let (certificates, findings) = load(&mut later, directory.path(), 10);
    assert_eq!(findings, []);
    assert_eq!(names(&certificates), ["a.example", "new.example"]);
    let resident: Vec<_> = certificates.iter().map(|one| one.signing.is_resident()).collect();
    assert_eq!(resident, [false, true], "the one that had changed was read");
    assert!(certificates[0].signing.certified().is_some());
    assert!(later.index_if_outdated().is_some(), "it says something else now");
}

#[test]
fn a_policy_that_came_changed_or_went_since_the_index_was_written_is_followed() {
    let directory = TempDir::new().unwrap();
    let files = ["kept", "new", "changed", "gone", "none"];
    for file in files {
        write(directory.path(), &format!("{file}.pem"), &format!("{file}.example"));
    }
    let set = |file: &str, text| replace(directory.path(), &format!("{file}.policy"), text);
    for file in ["kept", "changed", "gone"] {
        set(file, ONLY_HTTP_2);
    }
    let mut store = Store::default();
    load(&mut store, directory.path(), 10);
    let mut later = by_way_of_a_file(&mut store);
    set("new", ONLY_HTTP_2);
    set("changed", "alpn = []");
    fs::remove_file(directory.path().join("gone.policy")).unwrap();
    let (certificates, findings) = load(&mut later, directory.path(), 10);
    assert_eq!(findings, []);
    let of = |name: &str| {
        let named = |one: &&Arc<LoadedCertificate>| one.source.ends_with(format!("{name}.pem"));
        let found = certificates.iter().find(named).expect("loaded");
        (protocols(found), found.signing.is_resident())
    };
    assert_eq!(of("kept"), (Some(1), false), "known from the index, with its policy");
    assert_eq!(of("none"), (None, false));
    assert_eq!(of("new"), (Some(1), true));
    assert_eq!(of("changed"), (Some(0), true));
    assert_eq!(of("gone"), (None, true));
}

#[test]
fn a_policy_that_turned_bad_since_the_index_was_written_is_an_error() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "a.pem", "a.example");
    let mut store = Store::default();
    load(&mut store, directory.path(), 10);
    let mut later = by_way_of_a_file(&mut store);
    replace(directory.path(), "a.policy", "rubbish");
    let (certificates, findings) = load(&mut later, directory.path(), 10);
    assert!(certificates.is_empty(), "nobody may be shown it on other terms");
    assert_eq!(findings[0].severity, Severity::Error);
}

#[test]
fn an_index_that_says_the_same_is_not_written_again() {
    let directory = TempDir::new().unwrap();
    let path = write(directory.path(), "a.pem", "a.example");
    write(directory.path(), "b.pem", "b.example");
    let mut store = Store::default();
    load(&mut store, directory.path(), 10);
    let mut later = by_way_of_a_file(&mut store);
    load(&mut later, directory.path(), 10);
    assert!(later.index_if_outdated().is_none());
    load_changed(&mut later, directory.path(), &[]);
    assert!(later.index_if_outdated().is_none());
    fs::remove_file(path).unwrap();
    load(&mut later, directory.path(), 10);
    assert!(later.index_if_outdated().is_some(), "a file is gone");
}

#[test]
fn a_file_with_a_warning_is_read_and_warned_of_at_each_start() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let path = write(directory.path(), "a.pem", "a.example");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut store = Store::default();
    assert_eq!(load(&mut store, directory.path(), 10).1.len(), 1);
    let mut later = by_way_of_a_file(&mut store);
    assert_eq!(load(&mut later, directory.path(), 10).1.len(), 1);
}
