//! `[limits]`: what one source of connections, and all of them together, may ask for.

use ipnet::IpNet;

use super::item::Section;
use super::report::Report;

/// `[limits]`
///
/// A *source* is every client address with the same prefix. What is beyond a limit of a
/// source is reset before anything is spent on it. All limits are off by default: behind
/// a balancer or a carrier's address translation one address is many people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// `source_connections = "off" | 1 to 4194304`, default `"off"` (`None`):
    /// connections that a source may have open, in any state.
    pub source_connections: Option<u32>,
    /// `source_incomplete_handshakes = "off" | 1 to 4194304`, default `"off"` (`None`):
    /// connections of a source without a session yet, from accept on.
    pub source_incomplete_handshakes: Option<u32>,
    /// `source_handshakes_per_second = "off" | 1 to 1000000`, default `"off"` (`None`):
    /// handshakes that a source may begin in a second on average; after a quiet time as
    /// many at once.
    pub source_handshakes_per_second: Option<u32>,
    /// `handshakes_per_second = "off" | 1 to 1000000`, default `"off"` (`None`):
    /// handshakes begun in a second, all sources together; after a quiet time as many at
    /// once. Beyond it clients wait, as they do for a credit.
    pub handshakes_per_second: Option<u32>,
    /// `ipv4_prefix = 1 to 32`, default `32`: bits of an IPv4 address that make a source.
    pub ipv4_prefix: u8,
    /// `ipv6_prefix = 1 to 128`, default `64`: bits of an IPv6 address that make a
    /// source; a customer usually has at least a /64 to choose addresses from.
    pub ipv6_prefix: u8,
    /// `exempt = [addresses and prefixes]`, default empty, at most 64: clients there are
    /// held to no limit of a source. For health checks, and for balancers and address
    /// translators that stand for many clients.
    pub exempt: Vec<IpNet>,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            source_connections: None,
            source_incomplete_handshakes: None,
            source_handshakes_per_second: None,
            handshakes_per_second: None,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            exempt: Vec::new(),
        }
    }
}

impl LimitSettings {
    /// The most connections of a source that can be asked for: as many as there can be.
    pub const CONNECTIONS_MAX: u32 = 1 << 22;
    /// The most handshakes a second that can be asked for.
    pub const PER_SECOND_MAX: u32 = 1_000_000;
    /// The most exempt prefixes: every accept looks at each.
    pub const EXEMPT_MAX: usize = 64;
}

pub(super) const KEYS: &[&str] = &[
    "source_connections",
    "source_incomplete_handshakes",
    "source_handshakes_per_second",
    "handshakes_per_second",
    "ipv4_prefix",
    "ipv6_prefix",
    "exempt",
];

pub(super) fn read(report: &mut Report<'_>, root: &Section<'_>) -> LimitSettings {
    let section = &root.section(report, "limits", KEYS);
    let default = LimitSettings::default();
    let mut limit = |key, most| {
        section.optional(report, key, |item, report| item.off_or_count(report, 1..=most))
    };
    let settings = LimitSettings {
        source_connections: limit("source_connections", LimitSettings::CONNECTIONS_MAX),
        source_incomplete_handshakes: limit(
            "source_incomplete_handshakes",
            LimitSettings::CONNECTIONS_MAX,
        ),
        source_handshakes_per_second: limit(
            "source_handshakes_per_second",
            LimitSettings::PER_SECOND_MAX,
        ),
        handshakes_per_second: limit("handshakes_per_second", LimitSettings::PER_SECOND_MAX),
        ipv4_prefix: section.value(report, "ipv4_prefix", default.ipv4_prefix, |item, report| {
            item.count(report, 1..=32)
        }),
        ipv6_prefix: section.value(report, "ipv6_prefix", default.ipv6_prefix, |item, report| {
            item.count(report, 1..=128)
        }),
        exempt: section.value(report, "exempt", default.exempt, |item, report| {
            item.prefixes(report, LimitSettings::EXEMPT_MAX)
        }),
    };
    check_order(report, section, &settings);
    settings
}

/// Warns of a limit that another one makes meaningless.
fn check_order(report: &mut Report<'_>, section: &Section<'_>, settings: &LimitSettings) {
    let LimitSettings { source_connections, source_incomplete_handshakes, .. } = settings;
    if let (Some(connections), Some(incomplete)) =
        (source_connections, source_incomplete_handshakes)
        && incomplete >= connections
        && let Some(item) = section.item(report, "source_incomplete_handshakes")
    {
        let message = format!("has no effect beside source_connections = {connections}");
        report.warning(item.place(), message, Some("write a lower one".into()));
    }
}
