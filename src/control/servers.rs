//! The servers of all pools that the process knows: who keeps their status over reloads.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::endpoint::Endpoint;
use crate::upstream::Pool;
use crate::upstream::status::ServerStatus;

/// The status of every server, by the pool's name and where the server listens: who comes
/// back after a reload took it out is known as long as a connection of before lives.
#[derive(Debug, Default)]
pub struct KnownServers {
    known: HashMap<(Arc<str>, Endpoint), Weak<ServerStatus>>,
}

impl KnownServers {
    /// Gives servers that are known the status they have; the others begin with their own.
    pub fn recognise(&self, pools: &mut [Pool]) {
        for pool in pools {
            for backend in &mut pool.backends {
                let key = (Arc::clone(&pool.name), backend.endpoint.clone());
                if let Some(status) = self.known.get(&key).and_then(Weak::upgrade) {
                    backend.status = status;
                }
            }
        }
    }

    /// Knows the servers of `pools`, which are in force now, and forgets those that nobody
    /// uses any more.
    pub fn remember(&mut self, pools: &[Arc<Pool>]) {
        self.known.retain(|_, status| status.strong_count() > 0);
        for pool in pools {
            for backend in &pool.backends {
                let key = (Arc::clone(&pool.name), backend.endpoint.clone());
                self.known.insert(key, Arc::downgrade(&backend.status));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Backend;

    fn pool(name: &str, ports: impl IntoIterator<Item = u16>) -> Pool {
        let backends = ports
            .into_iter()
            .map(|port| Backend::new(Endpoint::Inet(([127, 0, 0, 1], port).into()), 1));
        Pool::new(name, backends.collect())
    }

    #[test]
    fn a_server_keeps_its_status_while_anybody_uses_it() {
        let mut known = KnownServers::default();
        let first = vec![Arc::new(pool("web", [1, 2]))];
        known.remember(&first);
        // Port 2 is taken out, but an old connection still goes there.
        known.remember(&[Arc::new(pool("web", [1]))]);

        let mut third = [pool("web", [2]), pool("other", [2])];
        known.recognise(&mut third);
        assert!(Arc::ptr_eq(&third[0].backends[0].status, &first[0].backends[1].status));
        let of_other_pool = &third[1].backends[0].status;
        assert!(!Arc::ptr_eq(of_other_pool, &first[0].backends[1].status));
    }

    #[test]
    fn a_server_that_nobody_uses_is_forgotten() {
        let mut known = KnownServers::default();
        known.remember(&[Arc::new(pool("web", [1]))]);
        known.remember(&[]);
        assert!(known.known.is_empty());
    }
}
