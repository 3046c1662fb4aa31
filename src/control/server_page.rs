//! The servers of the pools in force, as a page for the admin address, and what the operator
//! wants of one.
//!
//! May know: pools, statuses. Must not know: HTTP, who decides what of a server.

#![forbid(unsafe_code)]

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::served::{PAGE_MAX, next_offset};
use crate::clock::Moment;
use crate::upstream::opinions::Wish;
use crate::upstream::{Backend, Pool};

/// One page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServersPage {
    /// Servers of all pools.
    pub total: usize,
    /// The place of the first one here among them.
    pub offset: usize,
    /// The offset of the next page; `None` after the last.
    pub next_offset: Option<usize>,
    /// By pool, in the order of the configuration.
    pub servers: Vec<ShownServer>,
}

/// What is known of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownServer {
    /// The pool's name.
    pub pool: String,
    /// What people call it.
    pub server: String,
    /// Whether it is given connections, as metrics say it.
    pub state: String,
    /// What the operator wants: `ready`, `drain` or `maintenance`.
    pub operator: String,
    /// What its agent wants, in the same words.
    pub agent: String,
    /// Its checks fail, or its agent says that it does.
    pub fails: bool,
    /// Too many connections to it have failed of late.
    pub ejected: bool,
    /// It stands in for others only.
    pub backup: bool,
    /// The configured weight.
    pub weight: u16,
    /// Hundredths of it that it has by its agent.
    pub weight_percent: u16,
    /// Connections open or being opened.
    pub connections: u64,
    /// Connections that it may have, by its agent or else the configuration.
    pub connections_max: Option<u32>,
    /// Why the last check that it failed was not passed.
    pub last_check_failure: Option<String>,
    /// Why its agent was not heard when that last was so.
    pub last_agent_failure: Option<String>,
}

/// The name is that of none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchServer {
    /// There is no such pool.
    #[error("there is no pool {0:?}")]
    Pool(String),
    /// The pool has no such server.
    #[error("the pool {pool:?} has no server {server:?}; `forebay servers list` shows the names")]
    Server {
        /// The pool.
        pool: String,
        /// The name asked for.
        server: String,
    },
}

/// `limit` servers from the one at `offset` on.
pub fn page(pools: &[Arc<Pool>], offset: usize, limit: usize) -> ServersPage {
    let total = pools.iter().map(|pool| pool.backends.len()).sum();
    let all = pools.iter().flat_map(|pool| pool.backends.iter().map(move |one| (pool, one)));
    let shown = all.skip(offset).take(limit.min(PAGE_MAX));
    let servers: Vec<_> = shown.map(|(pool, backend)| show(pool, backend)).collect();
    ServersPage { total, offset, next_offset: next_offset(offset, servers.len(), total), servers }
}

/// Has the operator's wish for the server `server` of the pool `pool` be `wish`, until the
/// process ends.
///
/// # Errors
/// There is none of that name.
pub fn wish(
    pools: &[Arc<Pool>],
    pool: &str,
    server: &str,
    wish: Wish,
    now: Moment,
) -> Result<ShownServer, NoSuchServer> {
    let of_pool = pools.iter().find(|one| &*one.name == pool);
    let of_pool = of_pool.ok_or_else(|| NoSuchServer::Pool(pool.to_owned()))?;
    let is_meant = |one: &&Backend| one.name == server || one.endpoint.to_string() == server;
    let backend = of_pool
        .backends
        .iter()
        .find(is_meant)
        .ok_or_else(|| NoSuchServer::Server { pool: pool.to_owned(), server: server.to_owned() })?;
    let (_, after) = backend.status.change(now, |opinions| opinions.operator = wish);
    let state = after.availability.label();
    tracing::info!(pool, server, wish = wish.label(), state, "operator's wish for the server");
    Ok(show(of_pool, backend))
}

fn show(pool: &Pool, backend: &Backend) -> ShownServer {
    let (standing, opinions) = (backend.status.standing(), backend.status.opinions());
    let remarks = backend.status.remarks().clone();
    ShownServer {
        pool: pool.name.to_string(),
        server: backend.name.clone(),
        state: standing.availability.label().to_owned(),
        operator: opinions.operator.label().to_owned(),
        agent: opinions.agent.wish.label().to_owned(),
        fails: opinions.check_fails || opinions.agent.fails,
        ejected: opinions.ejected,
        backup: backend.backup,
        weight: backend.weight,
        weight_percent: standing.weight_percent,
        connections: backend.status.open(),
        connections_max: standing.connections_max.or(backend.connections_max),
        last_check_failure: remarks.check_failure,
        last_agent_failure: remarks.agent_failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    fn pools() -> Vec<Arc<Pool>> {
        let backend = |port| Backend::new(Endpoint::Inet(([127, 0, 0, 1], port).into()), 1);
        let named = Backend { name: "app:3 (127.0.0.1)".to_owned(), ..backend(3) };
        vec![
            Arc::new(Pool::new("one", vec![backend(1), backend(2)])),
            Arc::new(Pool::new("two", vec![named])),
        ]
    }

    #[test]
    fn pages_follow_each_other_over_all_pools_to_the_end() {
        let pools = pools();
        let first = page(&pools, 0, 2);
        assert_eq!((first.total, first.next_offset), (3, Some(2)));
        let last = page(&pools, 2, 2);
        assert_eq!((last.servers.len(), last.next_offset), (1, None));
        assert_eq!(last.servers[0].server, "app:3 (127.0.0.1)");
        assert_eq!(page(&pools, 9, 2).servers, []);
    }

    #[test]
    fn a_server_is_meant_by_its_name_or_its_address() {
        let pools = pools();
        let now = Moment::default();
        for name in ["app:3 (127.0.0.1)", "127.0.0.1:3"] {
            for (wanted, state) in
                [(Wish::Drain, "drain"), (Wish::Maintenance, "maintenance"), (Wish::Ready, "up")]
            {
                let shown = wish(&pools, "two", name, wanted, now).expect("there is one");
                assert_eq!((&*shown.state, &*shown.operator), (state, wanted.label()));
            }
        }
        let nobody = |pool, server| wish(&pools, pool, server, Wish::Drain, now).unwrap_err();
        assert_eq!(nobody("three", "").to_string(), "there is no pool \"three\"");
        let error = nobody("one", "127.0.0.1:3").to_string();
        assert!(error.starts_with("the pool \"one\" has no server \"127.0.0.1:3\""), "{error}");
    }
}
