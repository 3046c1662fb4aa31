//! What an agent of HAProxy's kind says of its server: one line of words, apart by spaces,
//! tabs or commas (HAProxy's Configuration Manual, `agent-check`).
//!
//! | word | meaning |
//! |---|---|
//! | `up` | takes `down` back |
//! | `down`, `fail`, `stopped` | no new connections; a reason may follow behind `#` |
//! | `ready` | takes `drain` and `maint` back |
//! | `drain`, `maint` | no new connections |
//! | `75%` | so many hundredths of the configured weight |
//! | `maxconn:30` | so many connections; 0 is the configured limit again |
//!
//! What a line does not mention stays as the agent said last. Sans-I/O.
#![forbid(unsafe_code)]

use super::opinions::{AgentOpinion, Wish};
use super::status::Standing;

/// The line has a word that is none of an agent's; nothing of it counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent said {0:?}, which is no word of an agent")]
pub struct UnknownWord(String);

/// What the agent's opinion is after `answer`, whose first line counts.
///
/// # Errors
/// See [`UnknownWord`].
pub fn understand(answer: &[u8], before: AgentOpinion) -> Result<AgentOpinion, UnknownWord> {
    let end = answer.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(answer.len());
    let line = String::from_utf8_lossy(&answer[..end]);
    let words = line.split_once('#').map_or(&*line, |(words, _reason)| words);
    let mut opinion = before;
    for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let known = take(&mut opinion, word);
        known.ok_or_else(|| UnknownWord(word.chars().take(32).collect()))?;
    }
    Ok(opinion)
}

fn take(opinion: &mut AgentOpinion, word: &str) -> Option<()> {
    if let Some(percent) = word.strip_suffix('%') {
        // A weight beyond what we can give is a wish for as much as there is.
        let percent = u16::try_from(percent.parse::<u64>().ok()?).unwrap_or(u16::MAX);
        opinion.weight_percent = percent.min(Standing::WEIGHT_PERCENT_MAX);
        return Some(());
    }
    if let Some(limit) = word.strip_prefix("maxconn:") {
        let limit = u32::try_from(limit.parse::<u64>().ok()?).unwrap_or(u32::MAX);
        opinion.connections_max = (limit > 0).then_some(limit.min(Standing::CONNECTIONS_MAX));
        return Some(());
    }
    match word.to_ascii_lowercase().as_str() {
        "up" => opinion.fails = false,
        "down" | "fail" | "stopped" => opinion.fails = true,
        "ready" => opinion.wish = Wish::Ready,
        "drain" => opinion.wish = Wish::Drain,
        "maint" => opinion.wish = Wish::Maintenance,
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(lines: &[&str]) -> AgentOpinion {
        lines.iter().fold(AgentOpinion::default(), |before, line| {
            understand(line.as_bytes(), before).unwrap_or_else(|error| panic!("{error}"))
        })
    }

    #[test]
    fn each_word_does_what_it_means() {
        let initial = AgentOpinion::default();
        for word in ["down\n", "fail\r\n", "stopped # for lunch\n", "DOWN\n"] {
            assert_eq!(after(&[word]), AgentOpinion { fails: true, ..initial }, "{word:?}");
            assert_eq!(after(&[word, "up\n"]), initial);
        }
        for (word, wish) in [("drain\n", Wish::Drain), ("maint\n", Wish::Maintenance)] {
            assert_eq!(after(&[word]), AgentOpinion { wish, ..initial });
            assert_eq!(after(&[word, "ready\n"]), initial);
        }
        assert_eq!(after(&["75%\n"]).weight_percent, 75);
        assert_eq!(after(&["100000000%\n"]).weight_percent, Standing::WEIGHT_PERCENT_MAX);
        assert_eq!(after(&["maxconn:30\n"]).connections_max, Some(30));
        assert_eq!(after(&["maxconn:30\n", "maxconn:0\n"]).connections_max, None);
    }

    #[test]
    fn what_a_line_does_not_mention_stays() {
        let opinion = after(&["drain 50%\n", "up,maxconn:7\t60%\n"]);
        let expected = AgentOpinion {
            wish: Wish::Drain,
            fails: false,
            weight_percent: 60,
            connections_max: Some(7),
        };
        assert_eq!(opinion, expected);
    }

    #[test]
    fn a_line_with_an_unknown_word_counts_for_nothing() {
        let before = AgentOpinion::default();
        for line in ["down please\n", "-5%\n", "%\n", "maxconn:\n", "HTTP/1.1 200 OK\r\n"] {
            assert!(understand(line.as_bytes(), before).is_err(), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_an_agent_says_is_out_of_bounds(answer: Vec<u8>) {
            if let Ok(opinion) = understand(&answer, AgentOpinion::default()) {
                prop_assert!(opinion.weight_percent <= Standing::WEIGHT_PERCENT_MAX);
                prop_assert!(opinion.connections_max <= Some(Standing::CONNECTIONS_MAX));
            }
        }
    }
}
