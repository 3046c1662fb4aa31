//! What the page says of pools and their servers: a handful of series for each pool, and
//! some for each of the first servers.

use std::fmt::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Count, Print};
use crate::metrics::Counter;
use crate::upstream::status::{Availability, CheckCounts, ServerCounts};
use crate::upstream::{Backend, Pool};

/// Servers that have series of their own, in the order of the file: a configuration may
/// have 32,768. The rest is in the sums of the engines.
pub(super) const SERVERS_SHOWN_MAX: usize = 1_024;

/// The pools of the configuration in force; the control thread replaces them on reload.
#[derive(Debug, Default)]
pub struct Pools(Mutex<Vec<Arc<Pool>>>);

impl Pools {
    /// Replaces all of them.
    pub fn replace(&self, all: Vec<Arc<Pool>>) {
        *self.lock() = all;
    }

    /// All of them, in the order of the configuration.
    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Pool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn print(&self, print: &mut Print<'_, '_>) -> Result<(), Error> {
        let pools = self.lock();
        let help = "Servers of a pool, by whether they are given new connections";
        let mut family = print.family("pool_servers", help, MetricType::Gauge)?;
        for pool in pools.iter() {
            for state in Availability::ALL {
                let stands = |backend: &&Backend| backend.status.standing().availability == state;
                let count = pool.backends.iter().filter(stands).count() as u64;
                let labels = [("pool", &*pool.name), ("state", state.label())];
                ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Connections to a server, open or being opened; the first 1,024 servers";
        let mut family = print.family("server_connections", help, MetricType::Gauge)?;
        for (pool, backend) in shown(&pools) {
            let labels = [("pool", &*pool.name), ("server", backend.name.as_str())];
            let open = ConstGauge::new(backend.status.open());
            open.encode(family.encode_family(&labels)?)?;
        }
        for (name, help, cell) in COUNTERS {
            let mut family = print.family(name, help, MetricType::Counter)?;
            for (pool, backend) in shown(&pools) {
                let labels = [("pool", &*pool.name), ("server", backend.name.as_str())];
                let engines = backend.status.of_engines().iter();
                family.count(&labels, engines.map(|counts| cell(counts).value()).sum())?;
            }
        }
        for (name, help, cell) in CHECK_COUNTERS {
            let mut family = print.family(name, help, MetricType::Counter)?;
            for (pool, backend) in shown(&pools).filter(|(pool, _)| pool.check.is_some()) {
                let labels = [("pool", &*pool.name), ("server", backend.name.as_str())];
                family.count(&labels, cell(backend.status.checks()).value())?;
            }
        }
        Ok(())
    }
}

/// One family of counters: name, help, cell.
type Family = (&'static str, &'static str, fn(&ServerCounts) -> &Counter);

const COUNTERS: &[Family] = &[
    ("server_connected", "Connections made to a server; the first 1,024 servers", |counts| {
        &counts.connected
    }),
    (
        "server_connect_failures",
        "Attempts to connect to a server that failed; the first 1,024 servers",
        |counts| &counts.failed,
    ),
    (
        "server_early_resets",
        "Connections that a server reset before its first byte; the first 1,024 servers",
        |counts| &counts.reset_early,
    ),
];

/// The same of what the prober counts: for pools that are checked.
type CheckFamily = (&'static str, &'static str, fn(&CheckCounts) -> &Counter);

const CHECK_COUNTERS: &[CheckFamily] = &[
    ("server_checks_passed", "Checks that a server passed; the first 1,024 servers", |counts| {
        &counts.passed
    }),
    ("server_checks_failed", "Checks that a server failed; the first 1,024 servers", |counts| {
        &counts.failed
    }),
    (
        "server_checks_taken_out",
        "Times that failed checks took a server out; the first 1,024 servers",
        |counts| &counts.taken_out,
    ),
    (
        "server_agent_failures",
        "Questions that a server's agent did not answer in words of an agent; the first 1,024 \
         servers",
        |counts| &counts.agent_failed,
    ),
];

/// The servers that have series of their own.
fn shown(pools: &[Arc<Pool>]) -> impl Iterator<Item = (&Pool, &Backend)> {
    pools
        .iter()
        .flat_map(|pool| pool.backends.iter().map(move |backend| (&**pool, backend)))
        .take(SERVERS_SHOWN_MAX)
}
