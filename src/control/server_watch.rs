//! All that takes servers out and in again, in one place for the control thread: ejections,
//! the prober, and a look at which pools have no server left.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::sync::Arc;

use super::ejections::Ejections;
use super::metrics::control_cells::ControlCells;
use super::prober::Prober;
use crate::clock::Moment;
use crate::upstream::{Backend, Pool};

/// Looks after the servers of the pools in force.
#[derive(Debug, Default)]
pub struct ServerWatch {
    pools: Vec<Arc<Pool>>,
    ejections: Ejections,
    /// `None` where nobody is to be checked.
    prober: Option<Prober>,
    /// The names of pools none of whose servers takes connections.
    out: HashSet<Arc<str>>,
}

impl ServerWatch {
    /// A watch whose checks are those of `prober`, with no pools yet.
    pub fn new(prober: Prober) -> Self {
        Self { prober: Some(prober), ..Self::default() }
    }

    /// Looks after these pools from now on.
    pub fn replace(&mut self, pools: &[Arc<Pool>], now: Moment) {
        self.pools = pools.to_vec();
        self.out.retain(|name| pools.iter().any(|pool| pool.name == *name));
        self.ejections.replace(pools, now);
        if let Some(prober) = &self.prober {
            prober.replace(pools);
        }
    }

    /// Looks at every server once; for each turn of the control thread.
    pub fn look(&mut self, cells: &ControlCells, now: Moment) {
        cells.server_ejections.add(self.ejections.look(now));
        for pool in &self.pools {
            let serves = pool.backends.iter().any(Backend::takes_connections);
            let name = &*pool.name;
            if serves && self.out.remove(name) {
                tracing::info!(pool = name, "pool has a server again");
            } else if !serves && self.out.insert(Arc::clone(&pool.name)) {
                tracing::error!(
                    pool = name,
                    "pool has no server that takes connections: its clients are turned away"
                );
            }
        }
        cells.pools_out.set(self.out.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::upstream::opinions::Wish;

    #[test]
    fn a_pool_without_a_server_that_takes_connections_is_counted_until_it_has_one() {
        let backend = |port| Backend::new(Endpoint::Inet(([127, 0, 0, 1], port).into()), 1);
        let spare = Backend { weight: 0, ..backend(2) };
        let pool = Arc::new(Pool::new("web", vec![backend(1), spare]));
        let (mut watch, cells, now) =
            (ServerWatch::default(), ControlCells::default(), Moment::default());
        watch.replace(&[Arc::clone(&pool)], now);
        let mut pools_out = |wish| {
            pool.backends[0].status.change(now, |opinions| opinions.operator = wish);
            watch.look(&cells, now);
            cells.pools_out.value()
        };
        assert_eq!(pools_out(Wish::Ready), 0);
        assert_eq!(pools_out(Wish::Drain), 1, "the other one has no weight");
        assert_eq!(pools_out(Wish::Ready), 0);
        assert_eq!(pools_out(Wish::Maintenance), 1);
        watch.replace(&[], now);
        watch.look(&cells, now);
        assert_eq!(cells.pools_out.value(), 0, "it is no pool any more");
    }
}
