//! Host names into addresses: the one step of configuration that asks the network.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::endpoint::Endpoint;
use crate::upstream::{Backend, Balance, Pool};

use super::finding::Finding;
use super::pool::{BackendAddress, BalanceSetting, PoolSettings};
use super::{Located, Settings};

/// Resolves the backends of every pool by the system's resolver, which may block for
/// its timeout. The pools come in the order of [`Settings::pools`].
///
/// The servers are those of a process of `engines` engines.
///
/// Every address of a name becomes a backend; addresses that several names share are
/// taken once.
///
/// # Errors
/// One finding for each name that does not resolve, and for each pool that ends up with
/// more than [`Pool::BACKENDS_MAX`] backends.
pub fn resolve(settings: &Settings, engines: usize) -> Result<Vec<Pool>, Vec<Finding>> {
    resolve_with(settings, engines, |host, port| Ok((host, port).to_socket_addrs()?.collect()))
}

/// [`resolve`] with a resolver of the caller's choice.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with(
    settings: &Settings,
    engines: usize,
    mut look_up: impl FnMut(&str, u16) -> io::Result<Vec<SocketAddr>>,
) -> Result<Vec<Pool>, Vec<Finding>> {
    let mut findings = Vec::new();
    let pools = settings
        .pools
        .iter()
        .map(|pool| resolve_pool(settings, pool, engines, &mut look_up, &mut findings))
        .collect();
    if findings.is_empty() { Ok(pools) } else { Err(findings) }
}

fn resolve_pool(
    settings: &Settings,
    pool: &PoolSettings,
    engines: usize,
    look_up: &mut impl FnMut(&str, u16) -> io::Result<Vec<SocketAddr>>,
    findings: &mut Vec<Finding>,
) -> Pool {
    let mut seen = HashSet::new();
    let mut backends = Vec::new();
    for Located { value, place } in &pool.backends {
        let resolved = match &value.address {
            BackendAddress::Endpoint(endpoint) => {
                let host = value.address.host();
                vec![Backend { host, ..Backend::new(endpoint.clone(), engines) }]
            }
            BackendAddress::Host { host, port } => match look_up(host, *port) {
                Ok(addresses) if addresses.is_empty() => {
                    findings.push(settings.error(place, format!("{host} has no address")));
                    continue;
                }
                Ok(addresses) => addresses
                    .into_iter()
                    .map(|address| Backend {
                        name: format!("{host}:{port} ({})", address.ip()),
                        host: value.address.host(),
                        ..Backend::new(Endpoint::Inet(address), engines)
                    })
                    .collect(),
                Err(error) => {
                    let message = format!("{host} cannot be resolved: {error}");
                    let help = "check the name and the resolver, or write an IP address";
                    findings.push(settings.error(place, message).with_help(help));
                    continue;
                }
            },
        };
        let new = resolved.into_iter().filter(|backend| seen.insert(backend.endpoint.clone()));
        backends.extend(new.map(|backend| Backend {
            weight: value.weight,
            backup: value.backup,
            connections_max: value.connections_max,
            ..backend
        }));
    }
    if backends.len() > Pool::BACKENDS_MAX {
        let message = format!("the names stand for {} backends", backends.len());
        let help = format!("a pool has at most {}: write fewer", Pool::BACKENDS_MAX);
        findings.push(settings.error(&pool.name.place, message).with_help(help));
        backends.truncate(Pool::BACKENDS_MAX);
    }
    let balance = match pool.balance {
        BalanceSetting::RoundRobin => Balance::RoundRobin,
        BalanceSetting::LeastConnections => Balance::LeastConnections,
        BalanceSetting::RandomTwo => Balance::RandomTwo,
        BalanceSetting::Maglev(hash) => Pool::maglev(hash, &backends),
    };
    Pool {
        balance,
        queue_max: pool.queue_max,
        slow_start: pool.slow_start,
        ejection: pool.ejection,
        proxy_protocol: pool.proxy_protocol,
        ..Pool::new(&pool.name.value, backends)
    }
}
