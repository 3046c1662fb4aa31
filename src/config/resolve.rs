//! Pools of the settings, with the servers that names stand for in the place of the names.

use std::collections::HashSet;
use std::net::SocketAddr;

use crate::dns::{Condition, NamedServer, Wanted};
use crate::endpoint::Endpoint;
use crate::upstream::{Backend, Balance, Pool};

use super::finding::{Finding, Place};
use super::pool::{BackendAddress, BackendSettings, BalanceSetting, PoolSettings};
use super::{Located, Settings};

/// The pools of `settings`, in that order, for a process of `engines` engines. `look_up`
/// tells what a name stands for, or why that is not known.
///
/// Every address of a name becomes a backend; addresses that several names share are
/// taken once. Of more than [`Pool::BACKENDS_MAX`], the first ones are.
///
/// The findings are warnings about names that stand for nothing and pools that have too
/// many servers, and an error for each pool that has none.
pub fn resolve(
    settings: &Settings,
    engines: usize,
    mut look_up: impl FnMut(&Wanted) -> Result<Vec<NamedServer>, Condition>,
) -> (Vec<Pool>, Vec<Finding>) {
    let mut findings = Vec::new();
    let pools = settings
        .pools
        .iter()
        .map(|pool| resolve_pool(settings, pool, engines, &mut look_up, &mut findings))
        .collect();
    (pools, findings)
}

fn resolve_pool(
    settings: &Settings,
    pool: &PoolSettings,
    engines: usize,
    look_up: &mut impl FnMut(&Wanted) -> Result<Vec<NamedServer>, Condition>,
    findings: &mut Vec<Finding>,
) -> Pool {
    let mut seen = HashSet::new();
    let mut backends = Vec::new();
    let mut unknown = Vec::new();
    for Located { value, place } in &pool.backends {
        let resolved = match backends_of(value, engines, look_up) {
            Ok(resolved) => resolved,
            Err(why) => {
                unknown.push((place, &value.address, why));
                continue;
            }
        };
        let new = resolved.into_iter().filter(|backend| seen.insert(backend.endpoint.clone()));
        backends.extend(new);
    }
    let alone = backends.is_empty();
    findings.extend(
        unknown
            .into_iter()
            .map(|(place, address, why)| unresolved(settings, place, address, &why, alone)),
    );
    if backends.len() > Pool::BACKENDS_MAX {
        let most = Pool::BACKENDS_MAX;
        let message = format!("the names stand for {} backends", backends.len());
        let help = format!("a pool has at most {most}: the others are left out");
        findings.push(settings.warning(&pool.name.place, message).with_help(help));
        backends.truncate(most);
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
        source: pool.source.as_ref().map(|source| source.value).unwrap_or_default(),
        check: pool.check.clone(),
        proxy_protocol: pool.proxy_protocol,
        header: pool.header.contents(),
        ..Pool::new(&pool.name.value, backends)
    }
}

/// What one line of the settings stands for.
fn backends_of(
    settings: &BackendSettings,
    engines: usize,
    look_up: &mut impl FnMut(&Wanted) -> Result<Vec<NamedServer>, Condition>,
) -> Result<Vec<Backend>, Condition> {
    let backend = |endpoint| Backend {
        weight: settings.weight,
        backup: settings.backup,
        connections_max: settings.connections_max,
        host: settings.address.host(),
        ..Backend::new(endpoint, engines)
    };
    let (wanted, port) = match &settings.address {
        BackendAddress::Endpoint(endpoint) => return Ok(vec![backend(endpoint.clone())]),
        BackendAddress::Named { wanted, port } => (wanted, *port),
    };
    let servers = look_up(wanted)?;
    let backends = servers.into_iter().filter_map(|server| {
        let port = server.port.or(port)?;
        Some(Backend {
            name: format!("{}:{port} ({})", server.host, server.address),
            weight: server.weight.unwrap_or(settings.weight),
            backup: settings.backup || server.backup,
            ..backend(Endpoint::Inet(SocketAddr::new(server.address, port)))
        })
    });
    Ok(backends.collect())
}

fn unresolved(
    settings: &Settings,
    place: &Place,
    address: &BackendAddress,
    why: &Condition,
    alone: bool,
) -> Finding {
    if alone {
        let message = format!("{address} cannot be resolved, and its pool has no other: {why}");
        let help = "check the name and [resolver], or write an IP address";
        settings.error(place, message).with_help(help)
    } else {
        let message = format!("{address} cannot be resolved: {why}");
        let help = "its pool does without it until it can";
        settings.warning(place, message).with_help(help)
    }
}
