//! Log lines about what was shed: of whom most, why, and which key decides.
//!
//! Engines report once a second; here that is summed up and told every ten seconds, so
//! that a flood from many sources is a handful of lines. What is first after a quiet time
//! is told at once.

#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;
use tracing::warn;

use crate::clock::Moment;
use crate::engine::events::{Shed, Whose};
use crate::engine::metrics::ShedCause;
use crate::tls::server_name::ServerName;

/// From one telling to the next.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Lines in one telling; the rest is one line more.
const LINES: usize = 5;

/// Sources and causes summed up one by one between two tellings.
const SUMS_MAX: usize = 1_024;

/// Sums up what engines report as shed.
#[derive(Debug, Default)]
pub struct ShedLog {
    sums: HashMap<(Whose, ShedCause), Sum>,
    /// Beyond [`SUMS_MAX`].
    others: u64,
    told: Option<Moment>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    limit: Option<u32>,
}

impl ShedLog {
    /// Adds what an engine reports.
    pub fn add(&mut self, shed: Shed) {
        let Shed { whose, cause, count, limit } = shed;
        let key = (whose, cause);
        if self.sums.len() >= SUMS_MAX && !self.sums.contains_key(&key) {
            self.others += count;
            return;
        }
        let sum = self.sums.entry(key).or_default();
        sum.count += count;
        sum.limit = limit;
    }

    /// Writes the lines that are due.
    pub fn tell(&mut self, now: Moment) {
        let due = self.told.is_none_or(|told| now.since(told) >= TOLD_EVERY);
        if self.sums.is_empty() || !due {
            return;
        }
        self.told = Some(now);
        let mut sums: Vec<_> = self.sums.drain().collect();
        // Equal counts in an order of their own, so that the log does not depend on chance.
        sums.sort_by_cached_key(|((whose, cause), sum)| {
            (Reverse(sum.count), *cause, source(whose), name(whose).map(str::to_owned))
        });
        for ((whose, cause), Sum { count, limit }) in sums.iter().take(LINES) {
            warn!(
                source = source(whose).map(tracing::field::display),
                server_name = server_name(whose),
                pool = pool(whose),
                cause = cause.label(),
                count,
                limit,
                key = cause.key(),
                "connections were shed"
            );
        }
        let rest = sums.iter().skip(LINES);
        let others = rest.map(|(_, sum)| sum.count).sum::<u64>() + std::mem::take(&mut self.others);
        if others > 0 {
            warn!(count = others, "connections of further sources were shed");
        }
    }
}

fn source(whose: &Whose) -> Option<IpNet> {
    match whose {
        Whose::Source(source) => Some(*source),
        Whose::Anybody | Whose::ServerName(_) | Whose::Pool(_) => None,
    }
}

/// Empty for clients that name no server.
fn server_name(whose: &Whose) -> Option<&str> {
    match whose {
        Whose::ServerName(name) => Some(name.as_ref().map_or("", ServerName::as_str)),
        Whose::Anybody | Whose::Source(_) | Whose::Pool(_) => None,
    }
}

fn pool(whose: &Whose) -> Option<&str> {
    match whose {
        Whose::Pool(name) => Some(name.as_str()),
        Whose::Anybody | Whose::Source(_) | Whose::ServerName(_) => None,
    }
}

fn name(whose: &Whose) -> Option<&str> {
    server_name(whose).or(pool(whose))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::logging::captured;

    fn at_seconds(seconds: u64) -> Moment {
        Moment::from_nanoseconds(seconds * 1_000_000_000)
    }

    fn shed(source: &str, count: u64) -> Shed {
        Shed {
            whose: Whose::Source(source.parse().expect("a prefix")),
            cause: ShedCause::SourceConnections,
            count,
            limit: Some(100),
        }
    }

    #[test]
    fn a_line_names_the_source_the_cause_the_limit_and_the_key() {
        let mut log = ShedLog::default();
        log.add(shed("2001:db8::/64", 7));
        let text = captured(|| log.tell(at_seconds(0)));
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in [
            "WARN",
            "connections were shed",
            "source=2001:db8::/64",
            "cause=\"source_connections\"",
            "count=7",
            "limit=100",
            "key=\"limits.source_connections\"",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn what_is_nobodys_fault_names_no_source() {
        let mut log = ShedLog::default();
        log.add(Shed { whose: Whose::Anybody, cause: ShedCause::NoCredit, count: 3, limit: None });
        let text = captured(|| log.tell(at_seconds(0)));
        assert!(!text.contains("source=") && !text.contains("limit="), "{text}");
        assert!(text.contains("key=\"handshake.credits\""), "{text}");
    }

    #[test]
    fn a_name_that_had_its_share_is_named() {
        let mut log = ShedLog::default();
        let name = ServerName::try_from("flooded.example").ok();
        let (cause, limit) = (ShedCause::NameShare, None);
        log.add(Shed { whose: Whose::ServerName(name), cause, count: 3, limit });
        let text = captured(|| log.tell(at_seconds(0)));
        assert!(text.contains("server_name=\"flooded.example\""), "{text}");
        assert!(!text.contains("source="), "{text}");
        assert!(text.contains("key=\"handshake.queue_time\""), "{text}");
    }

    #[test]
    fn a_pool_whose_servers_are_full_is_named() {
        let mut log = ShedLog::default();
        let (cause, limit) = (ShedCause::ServerQueueTimeout, None);
        log.add(Shed { whose: Whose::pool("web"), cause, count: 3, limit });
        let text = captured(|| log.tell(at_seconds(0)));
        assert!(text.contains("pool=\"web\""), "{text}");
        assert!(text.contains("key=\"timeouts.queue\""), "{text}");
    }

    #[test]
    fn the_reports_of_engines_are_summed_up_and_told_every_ten_seconds() {
        let mut log = ShedLog::default();
        log.add(shed("192.0.2.1/32", 1));
        assert_ne!(captured(|| log.tell(at_seconds(0))), "", "the first at once");
        for second in 1..10 {
            log.add(shed("192.0.2.1/32", 10));
            assert_eq!(captured(|| log.tell(at_seconds(second))), "");
        }
        let text = captured(|| log.tell(at_seconds(10)));
        assert!(text.contains("count=90"), "{text}");
        assert_eq!(captured(|| log.tell(at_seconds(30))), "", "told once");
    }

    #[test]
    fn of_many_sources_those_that_had_most_are_named() {
        let mut log = ShedLog::default();
        for number in 0..2_000_u32 {
            log.add(shed(&format!("10.0.{}.{}/32", number / 250, number % 250), 1));
        }
        log.add(shed("10.0.0.7/32", 50));
        let text = captured(|| log.tell(at_seconds(0)));
        assert_eq!(text.lines().count(), LINES + 1, "{text}");
        let first = text.lines().next().expect("a line");
        assert!(first.contains("source=10.0.0.7/32") && first.contains("count=51"), "{first}");
        let last = text.lines().last().expect("a line");
        let others = 2_000 + 50 - 51 - (LINES as u64 - 1);
        assert!(last.contains(&format!("count={others}")), "{last}");
    }
}
