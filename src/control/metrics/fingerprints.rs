//! What the page says of clients' fingerprints: the most frequent ones.

use std::collections::HashMap;
use std::fmt::Error;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Print;
use crate::handshake::fingerprints::Counted;
use crate::tls::client_hello::Ja4;

/// Fingerprints that have series of their own.
pub(super) const FINGERPRINTS_SHOWN_MAX: usize = 20;

/// Prints those that all workers together have counted most.
pub(super) fn print(
    print: &mut Print<'_, '_>,
    counted: impl Iterator<Item = Counted>,
) -> Result<(), Error> {
    let shown = most_frequent(counted);
    // They fall when a fingerprint loses its place, so they are no counters.
    type Field = fn(&Counted) -> u64;
    let families: [(&str, &str, Field); 2] = [
        (
            "client_fingerprint_handshakes",
            "Handshakes begun by clients of a JA4 fingerprint; the 20 most frequent",
            |one| one.handshakes,
        ),
        (
            "client_fingerprint_handshakes_uncertain",
            "How many of these may be others', which came before",
            |one| one.uncertain,
        ),
    ];
    for (name, help, field) in families {
        let mut family = print.family(name, help, MetricType::Gauge)?;
        for one in &shown {
            let labels = [("ja4", one.fingerprint.as_str())];
            ConstGauge::new(field(one)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn most_frequent(counted: impl Iterator<Item = Counted>) -> Vec<Counted> {
    let mut sums = HashMap::<Ja4, Counted>::new();
    for one in counted {
        let new = || Counted { fingerprint: one.fingerprint, handshakes: 0, uncertain: 0 };
        let sum = sums.entry(one.fingerprint).or_insert_with(new);
        sum.handshakes += one.handshakes;
        sum.uncertain += one.uncertain;
    }
    let mut all: Vec<_> = sums.into_values().collect();
    // By name where two are as frequent, so that a page is like the one before.
    all.sort_by(|one, other| {
        let names = one.fingerprint.as_str().cmp(other.fingerprint.as_str());
        other.handshakes.cmp(&one.handshakes).then(names)
    });
    all.truncate(FINGERPRINTS_SHOWN_MAX);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_summed_and_the_most_frequent_come_first() {
        let counted = |number: u64, handshakes, uncertain| Counted {
            fingerprint: format!("t13d1516h2_{number:012x}_000000000000").parse().expect("one"),
            handshakes,
            uncertain,
        };
        let of_workers = [counted(1, 5, 1), counted(2, 6, 0), counted(1, 3, 1)];
        let others = (3..100).map(|number| counted(number, 1, 0));
        let shown = most_frequent(of_workers.into_iter().chain(others));
        assert_eq!(shown[..2], [counted(1, 8, 2), counted(2, 6, 0)]);
        assert_eq!(shown.len(), FINGERPRINTS_SHOWN_MAX);
        assert_eq!(shown[2], counted(3, 1, 0));
    }
}
