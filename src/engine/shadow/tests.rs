use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::thread;

use proptest::prelude::*;

use super::*;

fn sums(counts: impl Iterator<Item = [u64; Verdict::ALL.len()]>) -> [u64; Verdict::ALL.len()] {
    counts.fold([0; Verdict::ALL.len()], |sums, counts| {
        std::array::from_fn(|verdict| sums[verdict] + counts[verdict])
    })
}

#[test]
fn clients_are_counted_by_name_and_verdict() {
    let counts = ShadowCounts::new(16, 2);
    for (engine, asked, verdict) in [
        (0, Asked::Served("a.test"), Verdict::Served),
        (1, Asked::Served("a.test"), Verdict::Group),
        (1, Asked::Served("a.test"), Verdict::Group),
        (1, Asked::Served("b.test"), Verdict::Version),
        (0, Asked::Nothing, Verdict::Version),
        (1, Asked::Unserved, Verdict::Certificate),
    ] {
        counts.count(engine, asked, verdict);
    }
    let of = |pairs: &[(Verdict, u64)]| {
        let mut clients = [0; Verdict::ALL.len()];
        pairs.iter().for_each(|(verdict, count)| clients[*verdict as usize] = *count);
        clients
    };
    let known = |clients| NameCounts { clients, missed_max: 0, is_partial: false };
    let a = known(of(&[(Verdict::Served, 1), (Verdict::Group, 2)]));
    let b = known(of(&[(Verdict::Version, 1)]));
    assert_eq!(counts.names(), [("a.test".to_owned(), a), ("b.test".to_owned(), b)].into());
    assert_eq!(counts.no_name(), of(&[(Verdict::Version, 1)]));
    assert_eq!(counts.other(), of(&[(Verdict::Certificate, 1)]));
    assert_eq!(refused(&counts.sum()), 5);
}

#[test]
fn a_name_of_the_greatest_length_keeps_all_of_it() {
    let name = "a".repeat(SERVER_NAME_BYTES_MAX);
    let counts = ShadowCounts::new(16, 1);
    counts.count(0, Asked::Served(&name), Verdict::Served);
    assert_eq!(counts.names().into_keys().collect::<Vec<_>>(), [name]);
}

#[test]
fn a_name_whose_clients_would_be_served_gives_way_to_one_whose_would_not() {
    let counts = ShadowCounts::new(16, 1);
    for number in 0..ROWS {
        counts.count(0, Asked::Served(&format!("{number}.test")), Verdict::Served);
    }
    counts.count(0, Asked::Served("late.test"), Verdict::Served);
    assert!(!counts.names().contains_key("late.test"));
    counts.count(0, Asked::Served("late.test"), Verdict::Version);
    let late = &counts.names()["late.test"];
    assert_eq!((late.refused(), late.missed_max, late.is_partial), (1, 0, true));
    assert_eq!(counts.other()[Verdict::Served as usize], 2, "the one that gave way, and late.test");
}

#[test]
fn room_is_rounded_up_to_whole_sets() {
    for (names, expected) in [(1, 16), (16, 16), (17, 32), (1_000, 1_024), (65_536, 65_536)] {
        assert_eq!(ShadowCounts::new(names, 1).names_max(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn sums_are_exact_and_what_a_row_does_not_know_is_within_its_bound(
        clients in proptest::collection::vec((0_usize..2, 0_usize..40, 0_usize..6), 0..800),
    ) {
        let counts = ShadowCounts::new(16, 2);
        let mut truth: HashMap<String, [u64; Verdict::ALL.len()]> = HashMap::new();
        let mut by_engine = [[0_u64; 40]; 2];
        for (engine, name, verdict) in clients {
            // Some names are asked for far more often than others.
            let name = name * name / 40;
            let verdict = Verdict::ALL[verdict];
            let text = format!("{name}.test");
            counts.count(engine, Asked::Served(&text), verdict);
            truth.entry(text).or_default()[verdict as usize] += 1;
            by_engine[engine][name] += u64::from(verdict != Verdict::Served);
        }
        let names = counts.names();
        prop_assert!(names.len() <= 2 * counts.names_max());
        let rows = sums(names.values().map(|known| known.clients));
        prop_assert_eq!(sums([rows, counts.other()].into_iter()), counts.sum());
        prop_assert_eq!(sums(truth.values().copied()), counts.sum());
        for (name, known) in &names {
            let really = refused(&truth[name]);
            prop_assert!((known.refused()..=known.refused() + known.missed_max).contains(&really));
            prop_assert!(known.is_partial || known.clients == truth[name]);
        }
        for refused in by_engine {
            let all: u64 = refused.iter().sum();
            for (name, refused) in refused.iter().enumerate() {
                // Whoever has more of them than an even share is never overlooked.
                let has_row = names.contains_key(&format!("{name}.test"));
                prop_assert!(has_row || *refused <= all / ROWS as u64);
            }
        }
    }
}

#[test]
fn a_reader_never_sees_the_name_of_one_row_with_part_of_another() {
    let counts = ShadowCounts::new(16, 1);
    let names: Vec<String> = (0..64_u8)
        .map(|number| {
            format!(
                "{}.test",
                char::from(b'0' + number % 64).to_string().repeat(usize::from(number) + 1)
            )
        })
        .collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..20_000 {
                counts.count(0, Asked::Served(&names[turn * 7 % 64]), Verdict::Group);
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            for name in counts.names().into_keys() {
                assert!(names.contains(&name), "{name:?}");
            }
        }
    });
}
