//! `[engine]`: the data cores and the memory they take at start.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::item::Section;
use super::report::Report;
use crate::switch::{Spin, Switch};

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
    /// `buffers = "auto" | 16 to 258047`, default `"auto"` (`None`): buffers of 17 KiB
    /// for each engine. `"auto"` is two for each connection, one per direction, so that
    /// no stalled peer can cost another one its buffer; fewer save memory where most
    /// connections are idle, since an idle one holds none.
    pub buffers: Option<usize>,
    /// `large_buffers = 0 to 4096`, default `32`: buffers of 68 KiB for each engine, lent
    /// for one receive and one send at a time to streams that fill the others: a quarter
    /// of the system calls for bulk. Who finds none goes on with the others.
    pub large_buffers: usize,
    /// `backlog = 1 to 65535`, default `4096`: connections that wait in the kernel to be
    /// accepted, for each engine and address. The kernel caps it at
    /// `net.core.somaxconn`.
    pub backlog: u16,
    /// `huge_pages = "auto" | "on" | "off"`, default `"auto"`: pages of 2 MiB for the
    /// buffers, which saves misses of the processor's address cache (TLB). `"auto"` asks
    /// the kernel for transparent ones; `"on"` takes those that were reserved for it
    /// (`vm.nr_hugepages`), and does as `"auto"` with a warning if they do not suffice.
    pub huge_pages: Switch,
    /// `lock_memory = "auto" | "on" | "off"`, default `"auto"`: keep all memory, keys
    /// included, out of swap (mlockall(2)). Needs RLIMIT_MEMLOCK to be unlimited, or
    /// CAP_IPC_LOCK; without, `"auto"` goes on and `"on"` does not start.
    pub lock_memory: Switch,
    /// `spin = "off" | "always" | "1us" to "10ms"`, default `"off"`: for how long after
    /// its last work an engine polls its ring before it sleeps. Saves the wake-up, some
    /// microseconds of each answer on a quiet engine, for a busy CPU. An engine whose CPU
    /// others share does not poll.
    pub spin: Spin,
    /// `napi_busy_poll = "off" | "1us" to "10ms"`, default `"off"` (zero): for how long
    /// the kernel polls the network devices before it lets an engine sleep, instead of
    /// waiting for their interrupts (Linux 6.9). For devices whose queues serve one
    /// engine each.
    pub napi_busy_poll: Duration,
    /// `steer = "hash" | "cpu"`, default `"hash"`: which engine gets a connection: by a
    /// hash of its addresses, or the one on the CPU that received its SYN; by hash where
    /// that CPU has no engine. `"cpu"` is for machines whose network queues interrupt the
    /// engines' CPUs evenly.
    pub steer: Steer,
}

/// Which engine gets a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steer {
    /// By a hash of its addresses.
    #[default]
    Hash,
    /// The engine on the CPU that received its SYN.
    Cpu,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            engines: None,
            cpus: Vec::new(),
            max_connections: 8192,
            buffers: None,
            large_buffers: 32,
            backlog: 4096,
            huge_pages: Switch::Auto,
            lock_memory: Switch::Auto,
            spin: Spin::Off,
            napi_busy_poll: Duration::ZERO,
            steer: Steer::Hash,
        }
    }
}

impl EngineSettings {
    /// The most engines that can be asked for.
    pub const ENGINES_MAX: usize = 256;
    /// The most connections that can be asked for: slot numbers have 22 bits.
    pub const CONNECTIONS_MAX: usize = 1 << 22;
    /// The most buffers of one engine: buffer numbers have 18 bits, one of them stands
    /// for "none", and large ones are numbered behind the others.
    pub const BUFFERS_MAX: usize = (1 << 18) - 1 - Self::LARGE_BUFFERS_MAX;

    /// The most large buffers of one engine.
    pub const LARGE_BUFFERS_MAX: usize = 4096;

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

pub(super) const KEYS: &[&str] = &[
    "engines",
    "cpus",
    "max_connections",
    "buffers",
    "large_buffers",
    "backlog",
    "huge_pages",
    "lock_memory",
    "spin",
    "napi_busy_poll",
    "steer",
];

/// The shortest and the longest time to poll for, if not for ever. The longest is the
/// kernel's own for polling network devices.
const POLLING: RangeInclusive<Duration> = Duration::from_micros(1)..=Duration::from_millis(10);

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
        large_buffers: section.value(
            report,
            "large_buffers",
            default.large_buffers,
            |item, report| item.count(report, 0..=Settings::LARGE_BUFFERS_MAX),
        ),
        backlog: section.value(report, "backlog", default.backlog, |item, report| {
            item.count(report, 1..=u16::MAX)
        }),
        huge_pages: section.value(report, "huge_pages", default.huge_pages, |item, report| {
            item.choice(report, &Switch::WORDS)
        }),
        lock_memory: section.value(report, "lock_memory", default.lock_memory, |item, report| {
            item.choice(report, &Switch::WORDS)
        }),
        spin: section.value(report, "spin", default.spin, |item, report| {
            let words = [("off", Spin::Off), ("always", Spin::Always)];
            item.choice_or_duration(report, &words, POLLING, Spin::For)
        }),
        napi_busy_poll: section.value(
            report,
            "napi_busy_poll",
            default.napi_busy_poll,
            |item, report| {
                let off = [("off", Duration::ZERO)];
                item.choice_or_duration(report, &off, POLLING, |duration| duration)
            },
        ),
        steer: section.value(report, "steer", default.steer, |item, report| {
            item.choice(report, &[("hash", Steer::Hash), ("cpu", Steer::Cpu)])
        }),
    };
    super::check::cpus_suffice(report, section, "engines", settings.engines, &settings.cpus);
    if let (Spin::Always, Some(item)) = (settings.spin, section.item(report, "napi_busy_poll"))
        && !settings.napi_busy_poll.is_zero()
    {
        let message = "has no effect with spin = \"always\": the kernel polls devices only \
                       before an engine sleeps";
        let help = "take one of the two out";
        report.warning(item.place(), message.into(), Some(help.into()));
    }
    settings
}
