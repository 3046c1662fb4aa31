//! What no section can see alone.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use crate::routing::Action;

use super::Settings;
use super::finding::{Located, Place};
use super::item::Section;
use super::report::Report;

/// Checks that concern several sections.
pub(super) fn check(report: &mut Report<'_>, settings: &Settings) {
    check_addresses(report, settings);
    // With an error, a pool may be unused only because its name is misspelt.
    if !report.has_errors() {
        check_pools_used(report, settings);
        check_passed_through(report, settings);
    }
}

/// No address may be listened on twice.
fn check_addresses(report: &mut Report<'_>, settings: &Settings) {
    let listeners = settings.listeners.iter().flat_map(|listener| &listener.addresses);
    let mut seen: Vec<&Located<SocketAddr>> = Vec::new();
    for address in listeners.chain(&settings.admin.address) {
        match seen.iter().find(|other| collide(other.value, address.value)) {
            Some(other) => {
                let message = format!(
                    "{} is already taken by {} in line {}",
                    address.value, other.place.key, other.place.line
                );
                let help = "write another address or port";
                report.error(&address.place, message, Some(help.into()));
            }
            None => seen.push(address),
        }
    }
}

/// Whether two sockets would listen for the same connections: `[::]` takes IPv4 too.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let wildcards = |one: IpAddr, other: IpAddr| {
        one.is_unspecified() && other.is_unspecified() && (one.is_ipv6() || other.is_ipv6())
    };
    one.port() == other.port() && (one.ip() == other.ip() || wildcards(one.ip(), other.ip()))
}

fn check_pools_used(report: &mut Report<'_>, settings: &Settings) {
    let used: HashSet<usize> = settings.listeners.iter().map(|listener| listener.pool).collect();
    for (index, pool) in settings.pools.iter().enumerate() {
        if !used.contains(&index) {
            let message = format!("no listener uses the pool {:?}", pool.name.value);
            let help = "name it in a [[listener]], or take it out";
            report.warning(&pool.name.place, message, Some(help.into()));
        }
    }
}

/// What is passed through is the client's own TLS stream: it is not wrapped in another.
fn check_passed_through(report: &mut Report<'_>, settings: &Settings) {
    let routes = settings.listeners.iter().flat_map(|listener| &listener.routes);
    let passed: HashSet<usize> = routes
        .filter_map(|route| match route.action {
            Action::Passthrough { pool } => Some(pool),
            Action::Forward { .. } | Action::Reject => None,
        })
        .collect();
    for (index, pool) in settings.pools.iter().enumerate() {
        if let Some(tls) = pool.tls.as_ref().filter(|_| passed.contains(&index)) {
            let message = format!("clients are passed through to the pool {:?}", pool.name.value);
            let help = "their TLS ends at the server: give that route a pool without this table";
            report.error(&tls.place, message, Some(help.into()));
        }
    }
}

/// A list of CPUs must have one for each thread that is pinned.
pub(super) fn cpus_suffice(
    report: &mut Report<'_>,
    section: &Section<'_>,
    threads_key: &str,
    threads: Option<usize>,
    cpus: &[usize],
) {
    let (Some(threads), Some(item)) = (threads, section.item(report, "cpus")) else { return };
    if cpus.len() < threads {
        let message = format!("{} CPUs for {threads} {threads_key}", cpus.len());
        let help = format!("list at least {threads}, or set {threads_key} = \"auto\"");
        report.error(item.place(), message, Some(help));
    }
}

/// There must be at least one `[[name]]` and at most `most`.
pub(super) fn table_count(
    report: &mut Report<'_>,
    root: &Section<'_>,
    name: &str,
    sections: &[Section<'_>],
    most: usize,
) {
    if let Some(beyond) = sections.get(most) {
        let message = format!("{} of these tables", sections.len());
        report.error(beyond.place(), message, Some(format!("write at most {most}")));
    } else if sections.is_empty() && root.item(report, name).is_none() {
        let message = format!("there is no [[{name}]]");
        let help = format!("add a table [[{name}]]");
        report.error(&Place::default(), message, Some(help));
    }
}
