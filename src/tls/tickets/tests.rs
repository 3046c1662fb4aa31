//! The expected values of the derivation were computed apart from this code, from the
//! definitions in the module heads: nodes of all versions must agree on them.

use proptest::prelude::*;

use super::key_set::KeySet;
use super::secret::EpochMaterial;
use super::secret_file::{Form, SECRETS_MAX, SecretFile, SecretFileError};
use super::uses::Refused;
use super::*;
use crate::tls::test_support::LIBRARIES;

const TIMING: Timing = Timing { epoch_seconds: 43_200, overlap_seconds: 43_200 };
/// The beginning of epoch 40,000.
const BEGIN: u64 = 40_000 * 43_200;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes 0 to 31, as a file has them.
fn value() -> String {
    hex(&std::array::from_fn::<u8, 32, _>(|index| index as u8))
}

fn secrets(lines: &str) -> Vec<Secret> {
    SecretFile::parse(format!("{}\n{lines}", secret_file::HEADER).as_bytes()).unwrap().secrets
}

fn fixed() -> Secret {
    secrets(&format!("secret 0 {}", value())).remove(0)
}

fn ratchet(epoch: u64) -> Secret {
    secrets(&format!("ratchet 0 {} 43200 {epoch} 876b8ef4", value())).remove(0)
}

fn domain() -> DomainId {
    DomainId::of_names(["b.example", "a.example"])
}

fn keys(secrets: &[&Secret], now: u64) -> KeySet {
    KeySet::new(CryptoLibrary::AwsLc, secrets, &domain(), TIMING, now).unwrap()
}

fn opened(keys: &KeySet, ticket: &[u8], now: u64) -> Result<Vec<u8>, Refused> {
    keys.open(ticket, now).map(|opened| opened.state)
}

// ── Derivation ──────────────────────────────────────────────────────────────────────

#[test]
fn a_domain_is_the_digest_that_every_version_computes() {
    let of = |id: DomainId| hex(id.as_bytes());
    assert_eq!(of(domain()), "d629c332c372970dc14df4bad53639fae4a48fb3651bb58eb2d29ca610505d03");
    assert_eq!(
        of(DomainId::named("a.example")),
        "62d96474061980fe9b75f792133aa50c3970bc0524d3b84b1d9ebee48cc4b765"
    );
}

#[test]
fn order_and_repetition_of_names_do_not_matter_but_their_limits_do() {
    let of = |names: &[&str]| DomainId::of_names(names.iter().copied());
    assert_eq!(of(&["a", "b", "a"]), of(&["b", "a"]));
    assert_ne!(of(&["ab"]), of(&["a", "b"]));
    assert_ne!(of(&["a"]), of(&["a", "b"]));
    assert_ne!(of(&["a"]), DomainId::named("a"));
}

#[test]
fn keys_are_those_that_every_version_derives() {
    let material = |secret: &Secret| {
        let EpochMaterial { name, key } = secret.material(TIMING, 40_000, &domain()).unwrap();
        (hex(&name), hex(key.as_slice()))
    };
    assert_eq!(fixed().id(), 0x876b_8ef4);
    assert_eq!(
        material(&fixed()),
        (
            "768f964ee53a3a6c".to_owned(),
            "8c55941fc4bef69edb34319e0edd87b0a0b0fad31f71ef3bbbb5652a8df5b093".to_owned()
        )
    );
    let three_epochs_on = (
        "c521a3eac0c604ed".to_owned(),
        "c2d6b8762ec87cca47f6291e485cd782d397f0982cfb9814cd77a0eff3094735".to_owned(),
    );
    assert_eq!(material(&ratchet(39_997)), three_epochs_on);
    let mut walked = ratchet(39_997);
    assert_eq!(walked.forget_before(40_000), Ok(true));
    assert_eq!(
        hex(walked.value()),
        "a6c5701cf71b8f96df13f323cef40c56d614301fd1c756f623821f8478abde6c"
    );
    assert_eq!(material(&walked), three_epochs_on);
}

#[test]
fn a_ticket_of_another_version_of_forebay_opens() {
    let ticket = "876b8ef4d629c332768f964ee53a3a6c\
                  070707070707070707070707070707070707070707070707\
                  9096927827df19d278ed5132d52f8e2f40e0505af3265979c049e8891cd411";
    let ticket: Vec<u8> = (0..ticket.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&ticket[at..at + 2], 16).unwrap())
        .collect();
    for library in LIBRARIES {
        let keys = KeySet::new(library, &[&fixed()], &domain(), TIMING, BEGIN).unwrap();
        assert_eq!(opened(&keys, &ticket, BEGIN), Ok(b"session".to_vec()));
    }
}

// ── Epochs ──────────────────────────────────────────────────────────────────────────

#[test]
fn nodes_with_either_library_open_each_others_tickets() {
    for (one, other) in [LIBRARIES, [LIBRARIES[1], LIBRARIES[0]]].map(|[a, b]| (a, b)) {
        let of = |library| KeySet::new(library, &[&fixed()], &domain(), TIMING, BEGIN).unwrap();
        let ticket = of(one).seal(b"session", BEGIN).unwrap();
        assert_eq!(opened(&of(other), &ticket, BEGIN), Ok(b"session".to_vec()));
    }
}

#[test]
fn the_key_of_the_next_epoch_opens_and_the_ticket_counts_as_ahead() {
    let ahead = BEGIN + 43_200;
    let ticket = keys(&[&fixed()], ahead).seal(b"session", ahead).unwrap();
    let found = keys(&[&fixed()], BEGIN).open(&ticket, BEGIN).unwrap();
    assert!(found.ahead);
    let found = keys(&[&fixed()], ahead).open(&ticket, ahead).unwrap();
    assert!(!found.ahead);
}

#[test]
fn the_key_of_an_epoch_that_is_over_and_overlapped_does_not_open() {
    let ticket = keys(&[&fixed()], BEGIN).seal(b"session", BEGIN).unwrap();
    let at = |now| opened(&keys(&[&fixed()], now), &ticket, now);
    assert!(at(BEGIN + 43_200).is_ok());
    assert_eq!(at(BEGIN + 43_201), Err(Refused::Expired));
    assert_eq!(at(BEGIN + 2 * 43_200), Err(Refused::UnknownEpoch));
}

#[test]
fn a_clock_far_behind_does_not_open() {
    let ahead = BEGIN + 2 * 43_200;
    let ticket = keys(&[&fixed()], ahead).seal(b"session", ahead).unwrap();
    assert_eq!(opened(&keys(&[&fixed()], BEGIN), &ticket, BEGIN), Err(Refused::UnknownEpoch));
}

#[test]
fn the_clock_may_be_at_the_beginning_or_the_end_of_time() {
    for now in [0, 1, u64::MAX] {
        let keys = keys(&[&fixed()], now);
        let ticket = keys.seal(b"session", now).unwrap();
        assert_eq!(opened(&keys, &ticket, now), Ok(b"session".to_vec()));
    }
}

proptest! {
    /// Skew and age are as far as they may be, and the ticket opens all the same.
    #[test]
    fn a_ticket_opens_during_its_life_on_nodes_whose_clocks_differ_by_less_than_an_epoch(
        issued in 43_200_u64..1 << 40,
        overlap in 1_u64..=43_200,
        age in 0_u64..=43_200,
        behind in 0_u64..43_200,
    ) {
        let timing = Timing { overlap_seconds: overlap, ..TIMING };
        let at = |now| {
            KeySet::new(CryptoLibrary::AwsLc, &[&fixed()], &domain(), timing, now).unwrap()
        };
        let ticket = at(issued).seal(b"session", issued).unwrap();
        let now = issued + age.min(overlap);
        prop_assert_eq!(opened(&at(now), &ticket, now), Ok(b"session".to_vec()));
        let now = issued - behind;
        prop_assert_eq!(opened(&at(now), &ticket, now), Ok(b"session".to_vec()));
        let now = issued + overlap + 1;
        prop_assert!(opened(&at(now), &ticket, now).is_err());
    }

    #[test]
    fn whatever_is_offered_is_refused_without_a_panic(
        ticket in proptest::collection::vec(any::<u8>(), 0..300),
        begin in any::<bool>(),
    ) {
        let keys = keys(&[&fixed()], BEGIN);
        let mut ticket = ticket;
        if begin {
            let ours = keys.seal(b"", BEGIN).unwrap();
            let named = ticket.len().min(16);
            ticket[..named].copy_from_slice(&ours[..named]);
        }
        prop_assert!(opened(&keys, &ticket, BEGIN).is_err());
    }

    #[test]
    fn whatever_a_file_holds_is_read_or_refused_without_a_panic(
        text in "(forebay ticket secrets 1)?(\n(secret|ratchet|#)? ?[0-9a-f ]{0,80}){0,4}",
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = SecretFile::parse(text.as_bytes());
        let _ = SecretFile::parse(&bytes);
    }
}

// ── Tickets ─────────────────────────────────────────────────────────────────────────

#[test]
fn a_changed_a_cut_or_an_overlong_ticket_does_not_open() {
    for library in LIBRARIES {
        let keys = KeySet::new(library, &[&fixed()], &domain(), TIMING, BEGIN).unwrap();
        let ticket = keys.seal(b"session", BEGIN).unwrap();
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert!(opened(&keys, &changed, BEGIN).is_err(), "byte {index}");
            assert!(opened(&keys, &ticket[..index], BEGIN).is_err(), "cut at {index}");
        }
        let long = [&ticket[..], &[0; TICKET_BYTES_MAX]].concat();
        assert_eq!(opened(&keys, &long, BEGIN), Err(Refused::Malformed));
        assert_eq!(keys.seal(&[0; TICKET_BYTES_MAX], BEGIN), None);
    }
}

#[test]
fn a_refusal_has_its_cause() {
    let keys = keys(&[&fixed()], BEGIN);
    let ticket = |secret: &Secret, domain: &DomainId, now| {
        let keys = KeySet::new(CryptoLibrary::AwsLc, &[secret], domain, TIMING, now).unwrap();
        keys.seal(b"session", now).unwrap()
    };
    let other = Secret::random(CryptoLibrary::AwsLc).unwrap();
    let mut bad = ticket(&fixed(), &domain(), BEGIN);
    *bad.last_mut().unwrap() ^= 1;
    for (ticket, cause) in [
        (ticket(&other, &domain(), BEGIN), Refused::UnknownSecret),
        (ticket(&fixed(), &DomainId::named("x"), BEGIN), Refused::OtherDomain),
        (ticket(&fixed(), &domain(), BEGIN - 3 * 43_200), Refused::UnknownEpoch),
        (bad, Refused::BadSeal),
        (vec![0; 40], Refused::Malformed),
    ] {
        assert_eq!(opened(&keys, &ticket, BEGIN), Err(cause));
    }
}

#[test]
fn no_two_tickets_are_sealed_alike() {
    let keys = keys(&[&fixed()], BEGIN);
    let [one, other] = [(); 2].map(|()| keys.seal(b"session", BEGIN).unwrap());
    assert_eq!(one[..16], other[..16], "the name of the key");
    assert_ne!(one[16..40], other[16..40], "the salt");
}

#[test]
fn a_ring_tells_what_became_of_a_ticket() {
    let ring = KeyRing::new(CryptoLibrary::AwsLc);
    assert_eq!(ring.encrypt(b"session"), None, "no keys yet");
    let now = unix_seconds();
    ring.put_in_force(keys(&[&fixed()], now));
    uses::take();
    let ticket = ring.encrypt(b"session").unwrap();
    assert!(ring.decrypt(&ticket).is_some() && ring.decrypt(&ticket).is_some());
    assert_eq!(ring.decrypt(b"short"), None);
    uses::resumed(true);
    let told = uses::take();
    assert_eq!((told.offered(), told.opened), (3, 1));
    assert_eq!(told.refused[Refused::Policy as usize], 1, "one of two is enough");
    assert_eq!(told.refused[Refused::Malformed as usize], 1);
    assert_eq!(uses::take().offered(), 0);
}

// ── Secrets ─────────────────────────────────────────────────────────────────────────

#[test]
fn what_is_left_of_a_ratchet_opens_no_older_ticket() {
    let original = ratchet(40_000);
    let ticket = keys(&[&original], BEGIN).seal(b"session", BEGIN).unwrap();
    let mut left = ratchet(40_000);
    left.forget_before(40_005).unwrap();
    let written = SecretFile::print([&left]);
    let stolen = SecretFile::parse(written.as_bytes()).unwrap().secrets.remove(0);
    // Whoever has it can set the clock.
    assert_eq!(opened(&keys(&[&stolen], BEGIN), &ticket, BEGIN), Err(Refused::UnknownEpoch));
    assert!(opened(&keys(&[&original], BEGIN), &ticket, BEGIN).is_ok());
    let later = BEGIN + 5 * 43_200;
    let ticket = keys(&[&original], later).seal(b"session", later).unwrap();
    assert!(opened(&keys(&[&stolen], later), &ticket, later).is_ok(), "the same chain");
}

#[test]
fn a_ratchet_ahead_of_the_clock_seals_what_others_open() {
    let mut ahead = ratchet(40_000);
    ahead.forget_before(40_001).unwrap();
    let ticket = keys(&[&ahead], BEGIN).seal(b"session", BEGIN).unwrap();
    let right = ratchet(40_000);
    assert!(opened(&keys(&[&right], BEGIN), &ticket, BEGIN).is_ok());
}

#[test]
fn a_ratchet_is_not_walked_for_ever() {
    let mut secret = ratchet(0);
    let too_far = Err(EpochTooFar { id: 0x876b_8ef4 });
    assert_eq!(secret.forget_before(RATCHET_STEPS_MAX + 1), too_far);
    assert_eq!(secret.kind(), SecretKind::Ratchet { epoch_seconds: 43_200, epoch: 0 });
}

#[test]
fn the_newest_secret_whose_time_has_come_seals_and_all_open() {
    let file = secrets(&format!(
        "secret 2000 {}\nsecret 1000 {}\nsecret 0 {}",
        value(),
        "11".repeat(32),
        "22".repeat(32)
    ));
    let all: Vec<&Secret> = file.iter().collect();
    assert_eq!(
        [999, 1_000, 1_999, 2_000].map(|now| sealing(&all, now)),
        [Some(2), Some(1), Some(1), Some(0)]
    );
    for secret in &file {
        let ticket = keys(&[secret], 1_000).seal(b"session", 1_000).unwrap();
        assert!(opened(&keys(&all, 1_000), &ticket, 1_000).is_ok());
    }
    assert_eq!(sealing(&all[..2], 0), Some(1), "before any has begun, the first to begin");
    assert_eq!(sealing(&[], 0), None);
}

#[test]
fn a_file_reads_back_as_it_was_printed() {
    let lines = format!("secret 7 {}\nratchet 0 {} 60 5 0000abcd", value(), "ab".repeat(32));
    let before = secrets(&lines);
    let text = SecretFile::print(&before);
    assert!(text.ends_with(&format!("{lines}\n")));
    let after = SecretFile::parse(text.as_bytes()).unwrap();
    assert_eq!(format!("{before:?}"), format!("{:?}", after.secrets));
}

#[test]
fn key_files_of_haproxy_and_nginx_are_read() {
    let line = |byte: &str| byte.repeat(16);
    // 48 bytes are 64 digits of base64.
    let text = ["AAAA", "BBBB", "CCCC", "DDDD"].map(line).join("\n");
    let file = SecretFile::parse(text.as_bytes()).unwrap();
    assert_eq!((file.form, file.secrets.len()), (Form::Haproxy, 3));
    let all: Vec<&Secret> = file.secrets.iter().collect();
    assert_eq!(sealing(&all, BEGIN), Some(1), "the last but one");

    let file = SecretFile::parse(&[9; 48]).unwrap();
    assert_eq!((file.form, file.secrets.len()), (Form::Nginx, 1));
    assert_eq!(
        hex(file.secrets[0].value()),
        "d9094070291c58615cb0269d7772f4f0e6a5fcd7812c98093cd20f25ea474f52"
    );
    assert_eq!(SecretFile::parse(&[9; 80]).unwrap().form, Form::Nginx);
}

#[test]
fn a_wrong_file_is_told_the_line_and_what_is_wrong_with_it() {
    let parse = |text: &str| SecretFile::parse(text.as_bytes()).unwrap_err();
    let ours = |lines: &str| parse(&format!("{}\n{lines}", secret_file::HEADER));
    let good = format!("secret 0 {}\n", value());
    assert_eq!(ours("# nothing\n"), SecretFileError::Empty);
    assert_eq!(ours(&format!("{good}secret 0 00")), SecretFileError::BadSecret { line: 3 });
    assert_eq!(
        ours(&format!("secret 0 {}", "zz".repeat(32))),
        SecretFileError::BadSecret { line: 2 }
    );
    assert_eq!(
        ours(&format!("secret now {}", value())),
        SecretFileError::BadNumber { line: 2, field: "SEALS-FROM" }
    );
    assert_eq!(ours("key 0 1"), SecretFileError::UnknownLine { line: 2 });
    let line = SECRETS_MAX + 2;
    assert_eq!(ours(&good.repeat(SECRETS_MAX + 1)), SecretFileError::TooMany { line });
    assert_eq!(parse("hello, world"), SecretFileError::UnknownForm);
    assert_eq!(parse(""), SecretFileError::Empty);
    assert_eq!(parse("AAAA\nAAAA"), SecretFileError::BadKeyLength { line: 1, bytes: 3 });
    assert_eq!(parse(&"A".repeat(64)), SecretFileError::TooFewKeys { keys: 1 });
    assert_eq!(parse(&"#".repeat(1 << 20)), SecretFileError::TooLarge);
}

#[test]
fn a_secret_is_not_printed() {
    let printed = format!("{:?} {:?}", fixed(), keys(&[&fixed()], BEGIN));
    assert!(!printed.contains("000102") && printed.contains("876b8ef4"), "{printed}");
}
