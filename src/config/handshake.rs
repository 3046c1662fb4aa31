//! `[handshake]`: the workers that do the cryptography of handshakes, and what they
//! refuse.

use std::time::Duration;

use super::engine::EngineSettings;
use super::item::Section;
use super::report::Report;

/// `[handshake]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeSettings {
    /// `workers = "auto" | 1 to 256`, default `"auto"` (`None`): threads that run
    /// handshake steps, each on a CPU of its own. `"auto"` is one for each of `cpus`, or,
    /// without those, chosen at start from the CPUs that the process may use.
    pub workers: Option<usize>,
    /// `cpus = [numbers and "ranges"]`, default empty: the CPUs that workers are pinned
    /// to, in order; at least as many as `workers`. Empty: chosen at start.
    pub cpus: Vec<usize>,
    /// `inline = true | false`, default `false`: run the steps on the engines' threads
    /// and start no workers. For hosts with one CPU, and for comparison: a handshake then
    /// delays whatever its engine relays.
    pub inline: bool,
    /// `credits = "auto" | 1 to 65536`, default `"auto"` (`None`): handshakes in progress
    /// on each engine. At the limit the engine stops accepting until one ends, so that
    /// further clients wait in the kernel. Each holds the buffers of its handshake, taken
    /// at start. `"auto"`: as many as the workers do in a quarter of a second, 1024 to
    /// 4096.
    pub credits: Option<usize>,
    /// `calibrate = true | false`, default `true`: measure at start what handshakes cost
    /// on this machine, for `credits` and for what counts towards `queue_time`; some
    /// hundredths of a second for each kind of key. Otherwise typical costs are assumed.
    pub calibrate: bool,
    /// `queue_time = "1ms" to "10s"`, default `"100ms"`: work that may wait for each
    /// worker, in its time. Beyond it sources and server names that have less than their
    /// fair share of the workers go first, up to twice the time, and others wait.
    pub queue_time: Duration,
    /// `queue = { continuation, resumption, ec, rsa }`: how many steps of a class may
    /// wait for a worker.
    pub queue: QueueSettings,
    /// `fingerprints = true | false`, default `false`: make the JA4 fingerprint of every
    /// client, count the most frequent ones and name it where a handshake fails. Costs two
    /// SHA-256 of the ClientHello's lists for each handshake, on its worker; of clients that
    /// are refused before, on the engine.
    pub fingerprints: bool,
    /// `patience = "1ms" to "1m"`, default `"500ms"`: when the oldest waiting step has
    /// waited longer, the newest goes first: its client is the likeliest to be there
    /// still. More than `queue_time` allows it comes to only if workers get less of their
    /// CPUs than they should.
    pub patience: Duration,
}

/// `[handshake] queue`: bounds by cost class, each 1 to 1048576. A step that finds its
/// class full is shed: its client is closed before any cryptography is spent on it.
///
/// Absent (`None`): as many as all engines have credits, which no burst can exceed; for
/// `rsa` three quarters of that, since an RSA signature costs several of the others, so
/// that a storm of them leaves credits to everyone else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// `continuation`: later flights of handshakes that have cost their key exchange.
    pub continuation: Option<usize>,
    /// `resumption`: resumed TLS 1.2 sessions, symmetric cryptography only.
    pub resumption: Option<usize>,
    /// `ec`: elliptic-curve signatures, and TLS 1.3 resumptions with a key exchange.
    pub ec: Option<usize>,
    /// `rsa`: RSA signatures.
    pub rsa: Option<usize>,
}

impl QueueSettings {
    /// The bounds for `credits` credits in the whole process, in the order
    /// continuation, resumption, elliptic curve, RSA.
    pub fn bounds(&self, credits: usize) -> [usize; 4] {
        [
            self.continuation.unwrap_or(credits),
            self.resumption.unwrap_or(credits),
            self.ec.unwrap_or(credits),
            self.rsa.unwrap_or((credits * 3).div_ceil(4)),
        ]
    }
}

impl Default for HandshakeSettings {
    fn default() -> Self {
        Self {
            workers: None,
            cpus: Vec::new(),
            inline: false,
            credits: None,
            calibrate: true,
            queue_time: Duration::from_millis(100),
            queue: QueueSettings::default(),
            fingerprints: false,
            patience: Duration::from_millis(500),
        }
    }
}

pub(super) const KEYS: &[&str] = &[
    "workers",
    "cpus",
    "inline",
    "credits",
    "calibrate",
    "queue_time",
    "queue",
    "fingerprints",
    "patience",
];
pub(super) const QUEUE_KEYS: &[&str] = &["continuation", "resumption", "ec", "rsa"];

pub(super) fn read(
    report: &mut Report<'_>,
    root: &Section<'_>,
    engine: &EngineSettings,
) -> HandshakeSettings {
    let section = &root.section(report, "handshake", KEYS);
    let default = HandshakeSettings::default();
    let settings = HandshakeSettings {
        workers: section
            .optional(report, "workers", |item, report| item.auto_or_count(report, 1..=256)),
        cpus: section.value(report, "cpus", default.cpus, |item, report| item.cpus(report)),
        inline: section
            .value(report, "inline", default.inline, |item, report| item.boolean(report)),
        credits: section
            .optional(report, "credits", |item, report| item.auto_or_count(report, 1..=65_536)),
        calibrate: section
            .value(report, "calibrate", default.calibrate, |item, report| item.boolean(report)),
        queue_time: section.value(report, "queue_time", default.queue_time, |item, report| {
            item.duration(report, Duration::from_millis(1)..=Duration::from_secs(10))
        }),
        queue: read_queue(report, section),
        fingerprints: section.value(
            report,
            "fingerprints",
            default.fingerprints,
            |item, report| item.boolean(report),
        ),
        patience: section.value(report, "patience", default.patience, |item, report| {
            item.duration(report, Duration::from_millis(1)..=Duration::from_secs(60))
        }),
    };
    super::check::cpus_suffice(report, section, "workers", settings.workers, &settings.cpus);
    check_threads(report, section, &settings, engine);
    settings
}

/// Warns of what a careful operator would not have meant.
fn check_threads(
    report: &mut Report<'_>,
    section: &Section<'_>,
    settings: &HandshakeSettings,
    engine: &EngineSettings,
) {
    if settings.inline {
        for key in ["workers", "cpus"] {
            if let Some(item) = section.item(report, key) {
                let help = "take one of the two out".into();
                let message = "has no effect with inline = true".into();
                report.warning(item.place(), message, Some(help));
            }
        }
        return;
    }
    let shared = settings.cpus.iter().filter(|cpu| engine.cpus.contains(cpu));
    let shared: Vec<String> = shared.map(ToString::to_string).collect();
    if let (false, Some(item)) = (shared.is_empty(), section.item(report, "cpus")) {
        let message = format!("engines are pinned to the same CPUs ({})", shared.join(", "));
        let help = "give handshakes CPUs of their own, or they delay what engines relay";
        report.warning(item.place(), message, Some(help.into()));
    }
}

fn read_queue(report: &mut Report<'_>, handshake: &Section<'_>) -> QueueSettings {
    let section = handshake.section(report, "queue", QUEUE_KEYS);
    let mut bound =
        |key| section.optional(report, key, |item, report| item.count(report, 1..=1 << 20));
    QueueSettings {
        continuation: bound("continuation"),
        resumption: bound("resumption"),
        ec: bound("ec"),
        rsa: bound("rsa"),
    }
}
