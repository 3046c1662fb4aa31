//! What the page says of policies that are only tried: a series for each verdict and listener,
//! and for the names with the most clients that would fail. All names are on a page of their
//! own, because they may be many.

use std::fmt::Error;

use prometheus_client::metrics::MetricType;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Count, Print};
use crate::control::served::ServedListener;
use crate::control::shadow_page::{ByCause, ShadowPage, tried};
use crate::tls::policy::candidate::Verdict;

/// Names of one listener that have series of their own.
const NAMES_SHOWN_MAX: usize = 20;

pub(super) fn print(print: &mut Print<'_, '_>, listeners: &[ServedListener]) -> Result<(), Error> {
    let help = "Clients served while a policy is tried on them, by what they would meet under it";
    let mut family = print.family("shadow_clients", help, MetricType::Counter)?;
    for (listener, counts) in tried(listeners) {
        for (verdict, clients) in Verdict::ALL.iter().zip(counts.sum()) {
            let labels = [("listener", listener), ("verdict", verdict.label())];
            family.count(&labels, clients)?;
        }
    }
    // They fall when a name loses its place, so they are no counters.
    let help = "Clients that would fail under the policy that is tried, by the name that they \
                asked for; the 20 names with the most";
    let mut family = print.family("shadow_name_refusals", help, MetricType::Gauge)?;
    for of_listener in ShadowPage::new(listeners, NAMES_SHOWN_MAX).listeners {
        let listener = of_listener.listener.as_str();
        for of_name in &of_listener.names {
            let ByCause { version, cipher_suite, certificate, signature_scheme, group } =
                of_name.clients.by_cause;
            for (verdict, clients) in [
                (Verdict::Version, version),
                (Verdict::CipherSuite, cipher_suite),
                (Verdict::Certificate, certificate),
                (Verdict::SignatureScheme, signature_scheme),
                (Verdict::Group, group),
            ] {
                if clients == 0 {
                    continue;
                }
                let name = of_name.name.as_str();
                let labels = [("listener", listener), ("name", name), ("cause", verdict.label())];
                ConstGauge::new(clients).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    Ok(())
}
