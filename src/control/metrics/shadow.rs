//! What the page says of policies that are only tried: a series for each verdict and listener.
//! Names are on a page of their own, because they may be many.

use std::fmt::Error;

use prometheus_client::metrics::MetricType;

use super::{Count, Print};
use crate::control::served::ServedListener;
use crate::control::shadow_page::tried;
use crate::tls::policy::candidate::Verdict;

pub(super) fn print(print: &mut Print<'_, '_>, listeners: &[ServedListener]) -> Result<(), Error> {
    let help = "Clients served while a policy is tried on them, by what they would meet under it";
    let mut family = print.family("shadow_clients", help, MetricType::Counter)?;
    for (listener, counts) in tried(listeners) {
        for (verdict, clients) in Verdict::ALL.iter().zip(counts.sum()) {
            let labels = [("listener", listener), ("verdict", verdict.label())];
            family.count(&labels, clients)?;
        }
    }
    Ok(())
}
