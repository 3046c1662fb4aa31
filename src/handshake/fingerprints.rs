//! Who comes most often, by JA4 fingerprint: counts of the most frequent ones in memory that
//! is bounded, however many there are.
//!
//! ```text
//!   worker ── count ─▶ 64 places, each with a fingerprint and its count ◀── read ── metrics
//! ```
//!
//! Space-saving (Metwally, Agrawal and El Abbadi, 2005): who has no place takes that of the
//! rarest, count and all, and remembers how much of it may be another's. So a count is never
//! too small, and nobody with more than a 64th of all handshakes is missing.
//!
//! One thread writes, any may read: a place whose fingerprint changes meanwhile is read
//! again (a sequence lock, without a lock).
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::metrics::Counter;
use crate::tls::client_hello::{JA4_BYTES, Ja4};

/// Fingerprints that are counted at a time.
pub const PLACES: usize = 64;

/// How often a place that changes is read again before it is passed over.
const READS_MAX: usize = 16;

const WORDS: usize = JA4_BYTES.div_ceil(8);

/// The counts of one worker.
#[derive(Debug)]
pub struct Fingerprints([Place; PLACES]);

#[derive(Debug, Default)]
struct Place {
    /// Odd while the rest is being changed.
    version: AtomicU64,
    fingerprint: [AtomicU64; WORDS],
    handshakes: Counter,
    uncertain: Counter,
}

/// What was counted of one fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The fingerprint.
    pub fingerprint: Ja4,
    /// Handshakes of its clients, and perhaps of others.
    pub handshakes: u64,
    /// How many of them may be others'.
    pub uncertain: u64,
}

impl Default for Fingerprints {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Place::default()))
    }
}

impl Fingerprints {
    /// Counts a client. One thread only.
    pub fn count(&self, fingerprint: &Ja4) {
        let words = words(fingerprint);
        if let Some(place) = self.0.iter().find(|place| place.holds(&words)) {
            place.handshakes.increment();
        } else if let Some(rarest) = self.0.iter().min_by_key(|place| place.handshakes.value()) {
            rarest.take(&words);
        }
    }

    /// What was counted so far, in no order.
    pub fn read(&self) -> impl Iterator<Item = Counted> {
        self.0.iter().filter_map(Place::read)
    }
}

impl Place {
    fn holds(&self, words: &[u64; WORDS]) -> bool {
        self.fingerprint.iter().zip(words).all(|(own, word)| own.load(Ordering::Relaxed) == *word)
    }

    /// Goes over to another fingerprint.
    fn take(&self, words: &[u64; WORDS]) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Whoever sees any of what follows sees the odd version too.
        fence(Ordering::Release);
        for (own, word) in self.fingerprint.iter().zip(words) {
            own.store(*word, Ordering::Relaxed);
        }
        let before = self.handshakes.value();
        self.uncertain.add(before.wrapping_sub(self.uncertain.value()));
        self.handshakes.increment();
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    fn read(&self) -> Option<Counted> {
        for _ in 0..READS_MAX {
            let version = self.version.load(Ordering::Acquire);
            let words =
                std::array::from_fn(|place| self.fingerprint[place].load(Ordering::Relaxed));
            let (handshakes, uncertain) = (self.handshakes.value(), self.uncertain.value());
            fence(Ordering::Acquire);
            if version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version {
                let fingerprint = fingerprint(&words)?;
                return Some(Counted { fingerprint, handshakes, uncertain });
            }
        }
        None
    }
}

fn words(fingerprint: &Ja4) -> [u64; WORDS] {
    let mut bytes = [0; WORDS * 8];
    bytes[..JA4_BYTES].copy_from_slice(fingerprint.as_str().as_bytes());
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

/// `None` of a place that nobody has taken.
fn fingerprint(words: &[u64; WORDS]) -> Option<Ja4> {
    let bytes = words.map(u64::to_le_bytes);
    std::str::from_utf8(&bytes.as_flattened()[..JA4_BYTES]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn numbered(number: u64) -> Ja4 {
        format!("t13d1516h2_{number:012x}_{number:012x}").parse().expect("a fingerprint")
    }

    #[test]
    fn few_are_counted_exactly() {
        let counts = Fingerprints::default();
        for number in 0..PLACES as u64 {
            (0..=number).for_each(|_| counts.count(&numbered(number)));
        }
        let mut read: Vec<_> = counts.read().collect();
        read.sort_by_key(|counted| counted.handshakes);
        for (number, counted) in read.iter().enumerate() {
            assert_eq!(counted.fingerprint, numbered(number as u64));
            assert_eq!((counted.handshakes, counted.uncertain), (number as u64 + 1, 0));
        }
        assert_eq!(read.len(), PLACES);
    }

    proptest! {
        #[test]
        fn of_many_no_count_is_too_small_and_none_of_the_frequent_is_missing(
            comers in prop::collection::vec(
                prop_oneof![3 => 0..4_u64, 2 => 4..1_000_u64], 0..3_000,
            ),
        ) {
            let counts = Fingerprints::default();
            let mut truth = HashMap::<u64, u64>::new();
            for number in &comers {
                counts.count(&numbered(*number));
                *truth.entry(*number).or_default() += 1;
            }
            let read: Vec<_> = counts.read().collect();
            let of = |number: u64| {
                let wanted = numbered(number);
                read.iter().find(move |counted| counted.fingerprint == wanted)
            };
            for (number, times) in truth {
                match of(number) {
                    Some(Counted { handshakes, uncertain, .. }) => {
                        prop_assert!(times <= *handshakes && handshakes - uncertain <= times);
                    }
                    None => prop_assert!(times <= (comers.len() / PLACES) as u64),
                }
            }
        }
    }

    #[test]
    fn who_reads_while_places_change_never_reads_half_of_each() {
        let counts = Arc::new(Fingerprints::default());
        let writer = thread::spawn({
            let counts = Arc::clone(&counts);
            move || (0..200_000).for_each(|number| counts.count(&numbered(number)))
        });
        while !writer.is_finished() {
            for counted in counts.read() {
                let text = counted.fingerprint.as_str();
                assert_eq!(text[11..23], text[24..], "{text}");
                assert!(counted.uncertain < counted.handshakes, "{counted:?}");
            }
        }
        writer.join().expect("the writer");
    }
}
