//! The nearest of the words that would have been right.

/// How alike two words must be, from 0 to 1, for one to be suggested.
const LIKENESS_MIN: f64 = 0.8;

/// The candidate nearest to `word`, if any is near. Case does not matter.
pub(super) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (likeness(&word, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

/// Jaro-Winkler, which favours a common beginning; it is hard on short words, so one
/// letter added, dropped, changed or swapped always counts as near.
fn likeness(word: &str, candidate: &str) -> f64 {
    let one_slip = candidate.len() > 1 && strsim::osa_distance(word, candidate) == 1;
    strsim::jaro_winkler(word, candidate).max(if one_slip { 0.9 } else { 0.0 })
}

/// "a", "a or b", "a, b or c".
pub(super) fn alternatives(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_finds_its_word() {
        let keys = ["address", "certificates", "default_certificate", "pool", "alpn"];
        for (slip, meant) in [
            ("adress", "address"),
            ("certificats", "certificates"),
            ("cert", "certificates"),
            ("Pool", "pool"),
            ("aplpn", "alpn"),
            ("opol", "pool"),
        ] {
            assert_eq!(nearest(slip, keys), Some(meant));
        }
    }

    #[test]
    fn an_unrelated_word_finds_nothing() {
        assert_eq!(nearest("zzz", ["address", "pool"]), None);
        assert_eq!(nearest("", ["address", "pool"]), None);
    }

    #[test]
    fn alternatives_read_as_a_sentence() {
        let words = |count| ["a", "b", "c"][..count].iter().map(ToString::to_string).collect();
        let read = |count| alternatives(&Vec::<String>::from_iter::<Vec<_>>(words(count)));
        assert_eq!([read(0), read(1), read(2), read(3)], ["", "a", "a or b", "a, b or c"]);
    }
}
