//! `[resolver]`: whom to ask what the names of backends stand for, and how often.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::dns::book::Lifetimes;
use crate::dns::lookup::Families;
use crate::dns::resolv_conf::NAMESERVERS_MAX;

use super::item::Section;
use super::report::Report;
use super::values;

/// `[resolver]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverSettings {
    /// `nameservers = ["192.0.2.53", "[2001:db8::53]:5353"]`, 1 to 3, default those of
    /// `resolv_conf`: who is asked, the first one first. They must ask others for us
    /// (recursion).
    pub nameservers: Option<Vec<SocketAddr>>,
    /// `timeout = duration`, `"100ms"` to `"30s"`, default that of `resolv_conf`, else
    /// `"5s"`: how long the answer of a nameserver is waited for.
    pub timeout: Option<Duration>,
    /// `attempts = N`, 1 to 5, default that of `resolv_conf`, else 2: how often each
    /// nameserver is asked before the name counts as failing.
    pub attempts: Option<u32>,
    /// `families = "both" | "ipv4" | "ipv6"`, default `"both"`: which addresses of a host
    /// become servers.
    pub families: Families,
    /// `ttl_min = duration`, `"1s"` to `"1h"`, default `"1s"`, and `ttl_max = duration`,
    /// `"1s"` to `"7d"`, default `"1h"`: an answer holds for its TTL, but at least and at
    /// most so long.
    pub lifetimes: Lifetimes,
    /// `resolv_conf = "path"`, default `"/etc/resolv.conf"`: nameservers, search list and
    /// options of the system. Read again when it has changed; need not exist.
    pub resolv_conf: PathBuf,
    /// `hosts = "path"`, default `"/etc/hosts"`: names that need no nameserver. Read again
    /// when it has changed; need not exist.
    pub hosts: PathBuf,
}

impl Default for ResolverSettings {
    fn default() -> Self {
        Self {
            nameservers: None,
            timeout: None,
            attempts: None,
            families: Families::Both,
            lifetimes: Lifetimes { min: Duration::from_secs(1), max: Duration::from_secs(3_600) },
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
        }
    }
}

pub(super) const KEYS: &[&str] = &[
    "nameservers",
    "timeout",
    "attempts",
    "families",
    "ttl_min",
    "ttl_max",
    "resolv_conf",
    "hosts",
];

const FAMILIES: [(&str, Families); 3] =
    [("both", Families::Both), ("ipv4", Families::Ipv4), ("ipv6", Families::Ipv6)];

pub(super) fn read(
    report: &mut Report<'_>,
    root: &Section<'_>,
    directory: &Path,
) -> ResolverSettings {
    let section = &root.section(report, "resolver", KEYS);
    let default = ResolverSettings::default();
    let seconds = Duration::from_secs;
    let lifetimes = Lifetimes {
        min: section.value(report, "ttl_min", default.lifetimes.min, |item, report| {
            item.duration(report, seconds(1)..=seconds(3_600))
        }),
        max: section.value(report, "ttl_max", default.lifetimes.max, |item, report| {
            item.duration(report, seconds(1)..=seconds(7 * 86_400))
        }),
    };
    if lifetimes.min > lifetimes.max {
        let at_fault = section.item(report, "ttl_max").or_else(|| section.item(report, "ttl_min"));
        if let Some(item) = at_fault {
            let (min, max) =
                (values::duration_text(lifetimes.min), values::duration_text(lifetimes.max));
            let message = format!("ttl_min is \"{min}\" and ttl_max \"{max}\"");
            report.error(item.place(), message, Some("write a ttl_max above ttl_min".into()));
        }
    }
    let path = |report: &mut Report<'_>, key, default| {
        section.value(report, key, default, |item, report| item.path(report, directory))
    };
    ResolverSettings {
        nameservers: read_nameservers(report, section),
        timeout: section.optional(report, "timeout", |item, report| {
            item.duration(report, Duration::from_millis(100)..=seconds(30))
        }),
        attempts: section.optional(report, "attempts", |item, report| item.count(report, 1..=5)),
        families: section.value(report, "families", default.families, |item, report| {
            item.choice(report, &FAMILIES)
        }),
        lifetimes,
        resolv_conf: path(report, "resolv_conf", default.resolv_conf),
        hosts: path(report, "hosts", default.hosts),
    }
}

fn read_nameservers(report: &mut Report<'_>, section: &Section<'_>) -> Option<Vec<SocketAddr>> {
    let item = section.item(report, "nameservers")?;
    let elements = item.elements(report)?;
    if !(1..=NAMESERVERS_MAX).contains(&elements.len()) {
        let message = format!("{} nameservers", elements.len());
        report.error(item.place(), message, Some(format!("write 1 to {NAMESERVERS_MAX}")));
        return None;
    }
    let read = |element: &super::item::Item<'_>| {
        let text = element.text(report)?;
        element.understood(report, values::nameserver(text))
    };
    Some(elements.iter().filter_map(read).collect())
}
