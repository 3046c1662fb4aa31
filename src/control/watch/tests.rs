//! In real directories, with a clock of the test's.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

/// A watch on a directory and on one file in another.
fn watched() -> (Watch, TempDir, TempDir) {
    let (whole, single) = (TempDir::new().expect("directory"), TempDir::new().expect("directory"));
    let mut watch = Watch::default();
    let file = single.path().join("site.pem");
    watch.set([whole.path(), file.as_path()].into_iter());
    (watch, whole, single)
}

/// The change that is told of once it has been quiet.
fn change(watch: &mut Watch) -> Option<Changed> {
    let now = Instant::now();
    watch.changed(now).or_else(|| watch.changed(now + QUIET))
}

fn told(watch: &mut Watch) -> bool {
    change(watch).is_some()
}

#[test]
fn what_has_changed_is_told_by_the_names_that_places_have() {
    let (mut watch, whole, single) = watched();
    fs::write(whole.path().join("a.pem"), "x").expect("write");
    fs::write(single.path().join("site.ocsp"), "x").expect("write");
    fs::write(whole.path().join("README"), "x").expect("write");
    let files = [whole.path().join("a.pem"), single.path().join("site.ocsp")];
    assert_eq!(change(&mut watch), Some(Changed::Files(files.into())));
    fs::write(whole.path().join("..data"), "x").expect("write");
    fs::write(whole.path().join("a.pem"), "x").expect("write");
    assert_eq!(change(&mut watch), Some(Changed::Anything), "a volume was switched");
}

fn told_of(files: impl Into<HashSet<PathBuf>>) -> Told {
    Told { changed: Changed::Files(files.into()), is_all: true }
}

#[test]
fn whoever_reads_now_is_told_what_has_changed_without_a_wait() {
    let (mut watch, whole, single) = watched();
    let site = single.path().join("site.pem");
    assert!(watch.is_on([whole.path(), site.as_path()].into_iter()));
    assert!(!watch.is_on([whole.path()].into_iter()));
    let now = Instant::now();
    assert_eq!(watch.take(now), told_of([]));
    let file = whole.path().join("a.pem");
    fs::write(&file, "x").expect("write");
    assert_eq!(watch.take(now), told_of([file]));
    assert!(!told(&mut watch), "told already");
}

#[test]
fn what_was_put_back_is_told_of_again() {
    let (mut watch, whole, _single) = watched();
    let file = whole.path().join("a.pem");
    watch.put_back([file.clone()].into(), Instant::now());
    assert_eq!(change(&mut watch), Some(Changed::Files([file].into())));
}

#[test]
fn a_directory_that_was_exchanged_further_up_may_have_anything_in_it() {
    let root = TempDir::new().expect("directory");
    let releases = ["1", "2"].map(|release| root.path().join(release));
    for release in &releases {
        fs::create_dir_all(release.join("served")).expect("directory");
    }
    let current = root.path().join("current");
    let place = current.join("served");
    std::os::unix::fs::symlink(&releases[0], &current).expect("link");
    let mut watch = Watch::default();
    watch.set([place.as_path()].into_iter());
    fs::remove_file(&current).expect("remove");
    std::os::unix::fs::symlink(&releases[1], &current).expect("link");
    let anything = Told { changed: Changed::Anything, is_all: false };
    assert_eq!(watch.take(Instant::now()), anything);
    fs::write(place.join("a.pem"), "x").expect("write");
    let told = watch.take(Instant::now());
    assert_eq!(told, told_of([place.join("a.pem")]), "watched in its place");
}

#[test]
fn of_a_file_system_that_may_change_unseen_nobody_is_told_all() {
    let mut watch = Watch::default();
    watch.set([Path::new("/proc/self/net")].into_iter());
    assert_eq!(watch.take(Instant::now()), Told { is_all: false, ..told_of([]) });
}

#[test]
fn a_file_that_may_be_read_now_is_a_change() {
    let (mut watch, whole, _single) = watched();
    let file = whole.path().join("a.pem");
    fs::write(&file, "x").expect("write");
    assert!(told(&mut watch));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
    assert_eq!(change(&mut watch), Some(Changed::Files([file].into())));
}

#[test]
fn more_files_than_are_kept_are_anything() {
    let files = |numbers: std::ops::Range<usize>| {
        Changed::Files(numbers.map(|number| PathBuf::from(number.to_string())).collect())
    };
    assert_eq!(files(0..2).and(files(1..3)), files(0..3));
    assert_eq!(files(0..FILES_MAX).and(files(0..1)), files(0..FILES_MAX));
    assert_eq!(files(0..FILES_MAX).and(files(FILES_MAX..FILES_MAX + 1)), Changed::Anything);
}

#[test]
fn a_certificate_or_what_lies_beside_that_is_written_renamed_or_removed_is_a_change() {
    let (mut watch, whole, single) = watched();
    assert!(!told(&mut watch), "nothing has happened");
    fs::write(whole.path().join("new.pem"), "x").expect("write");
    assert!(told(&mut watch));
    fs::rename(whole.path().join("new.pem"), whole.path().join("old.crt")).expect("rename");
    assert!(told(&mut watch));
    fs::remove_file(whole.path().join("old.crt")).expect("remove");
    assert!(told(&mut watch));
    for beside in ["site.key", "site.ocsp", "site.policy"] {
        for directory in [&whole, &single] {
            fs::write(directory.path().join(beside), "x").expect("write");
            assert!(told(&mut watch), "{beside}");
        }
    }
    assert!(!told(&mut watch), "told once");
}

#[test]
fn other_files_are_no_change() {
    let (mut watch, whole, single) = watched();
    fs::write(whole.path().join("README"), "x").expect("write");
    fs::write(single.path().join("other.pem"), "x").expect("write");
    assert!(!told(&mut watch));
}

#[test]
fn a_change_is_told_of_when_it_has_been_quiet_or_has_gone_on_for_long() {
    let (mut watch, whole, _single) = watched();
    let begin = Instant::now();
    let step = QUIET / 2;
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        fs::write(whole.path().join("busy.pem"), "x").expect("write");
        assert_eq!(watch.changed(begin + waited), None, "after {waited:?}");
        waited += step;
    }
    assert!(watch.changed(begin + waited).is_some());
}

#[test]
fn a_directory_that_was_replaced_is_watched_again() {
    let (mut watch, whole, _single) = watched();
    let path = whole.path();
    fs::rename(path, path.with_extension("old")).expect("rename");
    fs::create_dir(path).expect("directory");
    assert!(told(&mut watch), "the replacement itself is a change");
    fs::write(path.join("new.pem"), "x").expect("write");
    assert!(told(&mut watch));
    fs::remove_dir_all(path.with_extension("old")).expect("remove");
}
