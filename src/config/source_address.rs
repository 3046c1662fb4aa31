//! `bind` and `transparent` of a pool: where connections to its backends come from.

use std::net::IpAddr;

use crate::endpoint::Endpoint;
use crate::upstream::SourceAddress;

use super::finding::Located;
use super::item::{Item, Section};
use super::pool::{BackendAddress, PoolSettings};
use super::report::Report;

pub(super) fn read(report: &mut Report<'_>, pool: &Section<'_>) -> Option<Located<SourceAddress>> {
    let bind = pool.item(report, "bind");
    let own = bind.as_ref().and_then(|item| Some(item.locate(read_addresses(report, item)?)));
    let transparent = pool.item(report, "transparent");
    let transparent = transparent.filter(|item| item.boolean(report) == Some(true));
    let Some(transparent) = transparent else { return own };
    if let Some(bind) = bind {
        let message = "the connections cannot come from the client's address too".into();
        report.error(bind.place(), message, Some("take bind or transparent out".into()));
    }
    Some(transparent.locate(SourceAddress::Client))
}

fn read_addresses(report: &mut Report<'_>, item: &Item<'_>) -> Option<SourceAddress> {
    let (mut ipv4, mut ipv6) = (None, None);
    for element in item.one_or_more(report)? {
        let text = element.text(report)?;
        let twice = match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) if usable(address.into()) => ipv4.replace(address).is_some(),
            Ok(IpAddr::V6(address)) if usable(address.into()) => ipv6.replace(address).is_some(),
            _ => {
                let message = format!("{text:?} is no address that a connection can come from");
                let help = "write one of this machine's, without a port, such as \"10.0.0.5\"";
                report.error(element.place(), message, Some(help.into()));
                return None;
            }
        };
        if twice {
            let message = "a second address of the same family".into();
            let help = "write at most one IPv4 and one IPv6 address";
            report.error(element.place(), message, Some(help.into()));
            return None;
        }
    }
    Some(SourceAddress::Own { ipv4, ipv6 })
}

fn usable(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

/// Says so where it has no effect.
pub(super) fn check(report: &mut Report<'_>, pool: &PoolSettings) {
    let Some(source) = &pool.source else { return };
    let mut addresses = pool.backends.iter().map(|backend| &backend.value.address);
    if addresses.all(|address| matches!(address, BackendAddress::Endpoint(Endpoint::Unix(_)))) {
        let message = "has no effect: UNIX sockets have no addresses".into();
        report.warning(&source.place, message, Some("take it out".into()));
    }
}
