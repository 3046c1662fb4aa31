//! What the page says of host names and services: how lookups end, and some series for each
//! of the first names. Nothing where no pool has a name.

use std::fmt::Error;
use std::time::SystemTime;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Count, Print};
use crate::clock::Moment;
use crate::control::resolver::{Names, RESULTS};
use crate::dns::Condition;

/// Names that have series of their own, in the order of the alphabet.
const NAMES_SHOWN_MAX: usize = 1_024;

struct Shown {
    name: String,
    condition: Condition,
    servers: usize,
    last_answer: Option<Moment>,
}

pub(super) fn print(names: &Names, print: &mut Print<'_, '_>) -> Result<(), Error> {
    let mut family =
        print.family("name_lookups", "Lookups of names, by how they ended", MetricType::Counter)?;
    for (result, count) in RESULTS.iter().zip(&names.results) {
        family.count(&[("result", *result)], count.value())?;
    }
    // The page is written when the resolver may go on.
    let shown: Vec<Shown> = names.read(|book| {
        let shown = book.iter().take(NAMES_SHOWN_MAX);
        shown
            .map(|(name, condition, servers, last_answer)| Shown {
                name: name.to_string(),
                condition,
                servers,
                last_answer,
            })
            .collect()
    });
    let help = "Servers that a name stands for; the first 1,024 names";
    let mut family = print.family("name_servers", help, MetricType::Gauge)?;
    for Shown { name, servers, .. } in &shown {
        let labels = [("name", name.as_str())];
        ConstGauge::new(*servers as u64).encode(family.encode_family(&labels)?)?;
    }
    let help = "1 while the servers of a name are those of its last lookup, 0 while older ones \
                are held; the first 1,024 names";
    let mut family = print.family("name_current", help, MetricType::Gauge)?;
    for Shown { name, condition, .. } in &shown {
        let labels = [("name", name.as_str())];
        let current = u64::from(*condition == Condition::Current);
        ConstGauge::new(current).encode(family.encode_family(&labels)?)?;
    }
    let help = "When a nameserver or the hosts file last answered for a name; 0 if never; the \
                first 1,024 names";
    let mut family = print.family("name_answered_timestamp_seconds", help, MetricType::Gauge)?;
    for Shown { name, last_answer, .. } in &shown {
        let labels = [("name", name.as_str())];
        let at = last_answer.map_or(0, unix_seconds);
        ConstGauge::new(at).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn unix_seconds(moment: Moment) -> u64 {
    let at = SystemTime::now().checked_sub(Moment::now().since(moment));
    let since_epoch = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    since_epoch.unwrap_or_default().as_secs()
}
