//! `[engine]`: the data cores and the memory they take at start.

use super::item::Section;
use super::report::Report;

/// `[engine]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// `engines = "auto" | 1 to 256`, default `"auto"` (`None`): threads that accept and
    /// relay, each with a ring, a listening socket and a CPU of its own. `"auto"` is one
    /// for each of `cpus`, or, without those, as many of the CPUs that the process may
    /// use as the handshake workers leave.
    pub engines: Option<usize>,
    /// `cpus = [numbers and "ranges"]`, default empty: the CPUs that engines are pinned
    /// to, in order; at least as many as `engines`. Empty: chosen at start.
    pub cpus: Vec<usize>,
    /// `max_connections = 1 to 4194304`, default `8192`: client connections of the whole
    /// process, divided evenly among engines. At the limit further clients wait in the
    /// listen backlog. Each costs two descriptors and its share of memory, all of it
    /// taken at start.
    pub max_connections: usize,
    /// `buffers = "auto" | 16 to 262143`, default `"auto"` (`None`): buffers of 17 KiB
    /// for each engine. `"auto"` is two for each connection, one per direction, so that
    /// no stalled peer can cost another one its buffer; fewer save memory where most
    /// connections are idle, since an idle one holds none.
    pub buffers: Option<usize>,
    /// `backlog = 1 to 65535`, default `4096`: connections that wait in the kernel to be
    /// accepted, for each engine and address. The kernel caps it at
    /// `net.core.somaxconn`.
    pub backlog: u16,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            engines: None,
            cpus: Vec::new(),
            max_connections: 8192,
            buffers: None,
            backlog: 4096,
        }
    }
}

impl EngineSettings {
    /// The most engines that can be asked for.
    pub const ENGINES_MAX: usize = 256;
    /// The most connections that can be asked for: slot numbers have 22 bits.
    pub const CONNECTIONS_MAX: usize = 1 << 22;
    /// The most buffers of one engine: buffer numbers have 18 bits, and one of them
    /// stands for "none".
    pub const BUFFERS_MAX: usize = (1 << 18) - 1;

    /// Connections of each of `engines` engines.
    pub fn connections_per_engine(&self, engines: usize) -> usize {
        self.max_connections.div_ceil(engines.max(1))
    }

    /// Buffers of each of `engines` engines, at most [`Self::BUFFERS_MAX`]: beyond half
    /// as many connections on one engine, `"auto"` is no longer two for each.
    pub fn buffers_per_engine(&self, engines: usize) -> usize {
        let two_each = 2 * self.connections_per_engine(engines);
        self.buffers.unwrap_or(two_each.clamp(16, Self::BUFFERS_MAX))
    }
}

pub(super) const KEYS: &[&str] = &["engines", "cpus", "max_connections", "buffers", "backlog"];

pub(super) fn read(report: &mut Report<'_>, root: &Section<'_>) -> EngineSettings {
    let section = &root.section(report, "engine", KEYS);
    type Settings = EngineSettings;
    let default = Settings::default();
    let settings = Settings {
        engines: section.optional(report, "engines", |item, report| {
            item.auto_or_count(report, 1..=Settings::ENGINES_MAX)
        }),
        cpus: section.value(report, "cpus", default.cpus, |item, report| item.cpus(report)),
        max_connections: section.value(
            report,
            "max_connections",
            default.max_connections,
            |item, report| item.count(report, 1..=Settings::CONNECTIONS_MAX),
        ),
        buffers: section.optional(report, "buffers", |item, report| {
            item.auto_or_count(report, 16..=Settings::BUFFERS_MAX)
        }),
        backlog: section.value(report, "backlog", default.backlog, |item, report| {
            item.count(report, 1..=u16::MAX)
        }),
    };
    super::check::cpus_suffice(report, section, "engines", settings.engines, &settings.cpus);
    settings
}
