//! The targets of `fuzz/`, on the committed corpus and on mutations of it with a fixed seed:
//! no bytes make forebay panic. What libFuzzer finds beyond goes into the corpus.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use forebay::fuzz::TARGETS;
use support::random::Random;

/// Mutations of each file: a second or two for each target.
const MUTATIONS: usize = 4_000;

fn fuzz_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The files of a target, by name so that every run is the same.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = fuzz_directory().join("corpus").join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

/// A few small changes: a bit, a byte, a piece cut out, doubled, or taken from elsewhere.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let length = bytes.len() as u64;
        if length == 0 {
            bytes.push(random.next() as u8);
            continue;
        }
        let place = random.below(length) as usize;
        let end = place + random.size(length - place as u64) as usize;
        match random.below(6) {
            0 => bytes[place] ^= 1 << random.below(8),
            1 => bytes[place] = random.next() as u8,
            // Lengths of DER are at the extremes of a byte.
            2 => bytes[place] = [0x00, 0x7f, 0x80, 0x84, 0xff][random.below(5) as usize],
            3 => drop(bytes.drain(place..end)),
            4 => {
                let piece = bytes[place..end].to_vec();
                bytes.splice(place..place, piece);
            }
            _ => bytes.truncate(place),
        }
    }
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    for (target, _) in TARGETS {
        let program = fuzz_directory().join("fuzz_targets").join(format!("{target}.rs"));
        let text = fs::read_to_string(&program).expect("a program");
        assert!(text.contains(&format!("forebay::fuzz::{target}(")), "{}", program.display());
        let manifest = fs::read_to_string(fuzz_directory().join("Cargo.toml")).expect("manifest");
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        assert!(corpus(target).len() >= 3, "{target}");
    }
}

#[test]
fn no_mutation_of_the_corpus_makes_a_target_panic() {
    for (target, feed) in TARGETS {
        for (path, bytes) in corpus(target) {
            feed(&bytes);
            let mut random = Random::new(u64::from(crc32fast::hash(&bytes)));
            for mutation in 0..MUTATIONS {
                let mut mutated = bytes.clone();
                mutate(&mut mutated, &mut random);
                let outcome = std::panic::catch_unwind(|| feed(&mutated));
                assert!(outcome.is_ok(), "{target}: mutation {mutation} of {}", path.display());
            }
        }
    }
}
