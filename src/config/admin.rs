//! `[admin]`: the HTTP address for metrics.

use std::net::SocketAddr;

use super::finding::Located;
use super::item::Section;
use super::report::Report;
use super::values;

/// `[admin]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminSettings {
    /// `address = "IP:port"`, default absent, which is off: where metrics are served, in
    /// Prometheus' text format, without authentication. `"127.0.0.1:9440"` is the usual
    /// value; on another address a firewall decides who may read.
    pub address: Option<Located<SocketAddr>>,
}

pub(super) const KEYS: &[&str] = &["address"];

pub(super) fn read(report: &mut Report<'_>, root: &Section<'_>) -> AdminSettings {
    let section = &root.section(report, "admin", KEYS);
    let address = section.optional(report, "address", |item, report| {
        let text = item.text(report)?;
        let address = item.understood(report, values::listen_address(text))?;
        Some(item.locate(address))
    });
    AdminSettings { address }
}
