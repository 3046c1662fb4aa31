//! The metrics page: what engines and workers count, the process, the certificates,
//! in the OpenMetrics 1.0 text format and, for readers that do not ask for it, in the
//! older Prometheus text format 0.0.4.
//!
//! Names begin with `forebay_`, except for the `process_*` family, which has the
//! names that every Prometheus client library gives it. Base units (seconds, bytes),
//! counters end in `_total`. Every series is present from the start, with one
//! exception: `forebay_handshakes_total` has a cell for each suite, group and
//! resumption (90 an engine), and those that are zero are left out.
//!
//! Reads cells that others write; writes nothing but its own page.

#![forbid(unsafe_code)]

pub mod control_cells;
mod fingerprints;
mod names;
mod pools;
mod process;
mod shadow;
mod tables;

use std::collections::BTreeSet;
use std::fmt::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::ErrorCounter;

use super::build;
use super::resolver::Names;
use super::served::Served;
use crate::engine::metrics::{CIPHER_SUITES, EndReason, EngineMetrics, GROUPS, ShedCause};
use crate::handshake::metrics::WorkerMetrics;
use crate::handshake::{CostClass, FailureReason, ServerFailureReason};
use crate::metrics::{HISTOGRAM_BUCKETS, Histogram};
use crate::tls::certificates::LoadedCertificate;
use crate::tls::tickets::uses::Refused;
use control_cells::ControlCells;
pub use pools::Pools;

/// The form of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, as Prometheus asks for it.
    OpenMetrics,
    /// Prometheus text format 0.0.4, which everything else reads.
    PrometheusText,
}

impl Format {
    /// The form that a client asks for by its `Accept` header.
    pub fn accepted(accept: &str) -> Self {
        if accept.to_ascii_lowercase().contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::PrometheusText
        }
    }

    /// The media type of the form.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::PrometheusText => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Certificates whose expiry is shown, the soonest first: a machine may hold 100,000,
/// and the ones that end next are those to act on.
pub const CERTIFICATES_SHOWN_MAX: usize = 100;

/// When a certificate ends.
#[derive(Debug)]
struct CertificateExpiry {
    /// `notAfter`, in seconds since 1970-01-01 UTC.
    not_after_unix_seconds: i64,
    /// The first name it is good for.
    name: String,
    /// Where it came from: the file, or what stands for it.
    source: String,
    /// The end of its OCSP staple (`nextUpdate`), in seconds since 1970-01-01 UTC, if it
    /// has one.
    staple_ends_unix_seconds: Option<i64>,
}

/// When a list of revoked certificates should have been replaced by the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RevocationListEnd {
    /// `nextUpdate`, in seconds since 1970-01-01 UTC.
    pub next_update_unix_seconds: i64,
    /// Whose list it is.
    pub issuer: String,
    /// The file.
    pub source: String,
}

/// Numbers that are settled at start.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    /// Engine threads.
    pub engines: usize,
    /// Handshake worker threads; 0 when the engines do the handshakes themselves.
    pub workers: usize,
    /// Connections that the whole process takes at most.
    pub connections_max: usize,
    /// Pool buffers of all engines together.
    pub buffers: usize,
    /// Bytes of one pool buffer.
    pub buffer_bytes: usize,
    /// Handshakes that may be in progress at once in the whole process.
    pub handshakes_max: usize,
    /// Full handshakes a second that one worker was measured to do, by kind of key.
    pub handshake_rates: Vec<(String, f64)>,
}

/// Everything that the page shows.
#[derive(Debug)]
pub struct Sources {
    /// The cells of each engine, by its number.
    pub engines: Vec<Arc<EngineMetrics>>,
    /// The cells of each worker, by its number.
    pub workers: Vec<Arc<WorkerMetrics>>,
    /// What the control thread counts.
    pub control: Arc<ControlCells>,
    /// Settled at start.
    pub sizes: Sizes,
    /// Lines that the log dropped, if there is a log.
    pub log_lines_dropped: Option<ErrorCounter>,
    /// Certificates in use; the control thread replaces them on reload.
    pub certificates: Arc<Certificates>,
    /// Pools in use; likewise.
    pub pools: Arc<Pools>,
    /// What names stand for.
    pub names: Arc<Names>,
    /// Listeners in use, for the policies that are only tried; likewise.
    pub served: Arc<Served>,
}

/// The certificates of the configuration in force, the soonest to end first, and their
/// staples.
#[derive(Debug, Default)]
pub struct Certificates(Mutex<Soonest>);

#[derive(Debug, Default)]
struct Soonest {
    shown: Vec<CertificateExpiry>,
    count: usize,
    /// With staples, the soonest to end first.
    stapled: Vec<CertificateExpiry>,
    staples: usize,
    /// The soonest to be replaced first.
    revocation_lists: Vec<RevocationListEnd>,
}

impl Certificates {
    /// Replaces all of them. Two listeners may show the same one.
    pub fn replace(
        &self,
        mut all: Vec<Arc<LoadedCertificate>>,
        mut revocation_lists: Vec<RevocationListEnd>,
    ) {
        all.sort_unstable_by_key(|one| (one.not_after, Arc::as_ptr(one)));
        all.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let mut stapled: Vec<_> = all.iter().filter(|one| one.staple_ends.is_some()).collect();
        stapled.sort_by_key(|one| one.staple_ends);
        // Of two lists of one issuer in a file, the one that ends first counts.
        revocation_lists.sort();
        let mut seen = BTreeSet::new();
        revocation_lists.retain(|one| seen.insert((one.issuer.clone(), one.source.clone())));
        revocation_lists.truncate(CERTIFICATES_SHOWN_MAX);
        let soonest = Soonest {
            count: all.len(),
            staples: stapled.len(),
            shown: shown(all.iter()),
            stapled: shown(stapled.into_iter()),
            revocation_lists,
        };
        *self.lock() = soonest;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Soonest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first ones. Two series with the same labels would make the whole page invalid, so of
/// those only the first is shown.
fn shown<'a>(all: impl Iterator<Item = &'a Arc<LoadedCertificate>>) -> Vec<CertificateExpiry> {
    let mut seen = BTreeSet::new();
    all.map(|one| CertificateExpiry::of(one))
        .filter(|one| seen.insert((one.name.clone(), one.source.clone())))
        .take(CERTIFICATES_SHOWN_MAX)
        .collect()
}

impl CertificateExpiry {
    fn of(certificate: &LoadedCertificate) -> Self {
        Self {
            not_after_unix_seconds: certificate.not_after,
            name: certificate.names.first().map(ToString::to_string).unwrap_or_default(),
            source: certificate.source.display().to_string(),
            staple_ends_unix_seconds: certificate.staple_ends,
        }
    }
}

/// The page, ready to be printed again and again.
#[derive(Debug)]
pub struct Page {
    registry: Registry,
}

impl Page {
    /// A page of these sources; the process counts as started now.
    pub fn new(sources: Sources) -> Self {
        let started = Started { wall: SystemTime::now(), monotonic: Instant::now() };
        let mut registry = Registry::default();
        registry
            .sub_registry_with_prefix("forebay")
            .register_collector(Box::new(Forebay { sources, started }));
        registry.register_collector(Box::new(process::Process::new(started.wall)));
        Self { registry }
    }

    /// The page as it stands now.
    pub fn print(&self, format: Format) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a String does not fail, and no collector makes errors");
        match format {
            Format::OpenMetrics => text,
            Format::PrometheusText => prometheus_text(&text),
        }
    }
}

/// The two formats differ in one thing that we use: OpenMetrics names a counter's
/// family without `_total`, the older format with it. The end mark goes too.
fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1_024);
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '));
        match (help, lines.peek()) {
            (_, None) => {}
            (Some((name, help)), Some(kind)) if kind.ends_with(" counter") => {
                let family = format!("# HELP {name}_total {help}\n# TYPE {name}_total counter\n");
                text.push_str(&family);
                lines.next();
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[derive(Clone, Copy, Debug)]
struct Started {
    wall: SystemTime,
    monotonic: Instant,
}

#[derive(Debug)]
struct Forebay {
    sources: Sources,
    started: Started,
}

impl Collector for Forebay {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut print = Print(&mut encoder);
        self.about_the_process(&mut print)?;
        self.about_the_configuration(&mut print)?;
        self.about_engines(&mut print)?;
        self.sources.pools.print(&mut print)?;
        names::print(&self.sources.names, &mut print)?;
        shadow::print(&mut print, &self.sources.served.listeners())?;
        self.about_handshakes(&mut print)?;
        self.about_workers(&mut print)?;
        let counted = self.sources.workers.iter().flat_map(|worker| worker.fingerprints.read());
        fingerprints::print(&mut print, counted)
    }
}

impl Forebay {
    fn about_the_process(&self, print: &mut Print<'_, '_>) -> Result<(), Error> {
        let build = [
            ("version", build::VERSION),
            ("rustls", build::dependency("rustls")),
            ("aws_lc_rs", build::dependency("aws-lc-rs")),
            ("ring", build::dependency("ring")),
        ];
        // A gauge and not OpenMetrics' "info", which the older format does not know.
        let mut family = print.family("build_info", "The build that runs", MetricType::Gauge)?;
        ConstGauge::new(1_u64).encode(family.encode_family(&build)?)?;
        let uptime = self.started.monotonic.elapsed().as_secs_f64();
        print.gauge("uptime_seconds", "Time since the process started", uptime)?;
        if let Some(dropped) = &self.sources.log_lines_dropped {
            let dropped = u64::try_from(dropped.dropped_lines()).unwrap_or(u64::MAX);
            let help = "Log lines dropped because the reader of standard error was behind";
            print.counter("log_lines_dropped", help, dropped)?;
        }
        let control = &self.sources.control;
        for (name, help, cell) in tables::CONTROL_COUNTERS {
            print.counter(name, help, cell(control).value())?;
        }
        for (name, help, cell) in tables::CONTROL_GAUGES {
            print.gauge(name, help, cell(control).value())?;
        }
        Ok(())
    }

    fn about_the_configuration(&self, print: &mut Print<'_, '_>) -> Result<(), Error> {
        let sizes = &self.sources.sizes;
        let buffers_bytes = sizes.buffers.saturating_mul(sizes.buffer_bytes);
        for (name, help, value) in [
            ("engines", "Engine threads", sizes.engines),
            ("workers", "Handshake worker threads", sizes.workers),
            ("connections_max", "Connections taken at most", sizes.connections_max),
            ("handshakes_in_progress_max", "Handshakes in progress at most", sizes.handshakes_max),
            ("buffers", "Pool buffers of all engines", sizes.buffers),
            ("buffers_bytes", "Memory of all pool buffers", buffers_bytes),
        ] {
            print.gauge(name, help, value as u64)?;
        }
        let help = "Full handshakes a second of one worker, measured at start, by kind of key";
        let mut family = print.family("handshake_capacity_per_second", help, MetricType::Gauge)?;
        for (key, per_second) in &sizes.handshake_rates {
            let labels = [("key", key.as_str())];
            ConstGauge::new(*per_second).encode(family.encode_family(&labels)?)?;
        }
        let certificates = self.sources.certificates.lock();
        let help = "Certificates of the configuration in force";
        print.gauge("certificates", help, certificates.count as u64)?;
        let help = "When a certificate ends; the 100 that end soonest";
        let ends = certificates
            .shown
            .iter()
            .map(|one| (&*one.name, &*one.source, one.not_after_unix_seconds));
        print.ends("certificate_expiry_timestamp_seconds", help, ends)?;
        let help = "OCSP staples beside the certificates, those whose time is over included";
        print.gauge("ocsp_staples", help, certificates.staples as u64)?;
        let help = "When an OCSP staple ends and is no longer sent; the 100 that end soonest";
        let stapled = certificates.stapled.iter();
        let ends = stapled
            .filter_map(|one| Some((&*one.name, &*one.source, one.staple_ends_unix_seconds?)));
        print.ends("ocsp_staple_expiry_timestamp_seconds", help, ends)?;
        let help = "When a list of revoked clients should be replaced by the next; the 100 \
                    that end soonest";
        let lists = certificates.revocation_lists.iter();
        let ends = lists.map(|one| (&*one.issuer, &*one.source, one.next_update_unix_seconds));
        print.ends("client_revocation_list_next_update_timestamp_seconds", help, ends)
    }

    fn about_engines(&self, print: &mut Print<'_, '_>) -> Result<(), Error> {
        let engines = &self.sources.engines;
        for (name, help, cell) in tables::ENGINE_COUNTERS {
            let mut family = print.family(name, help, MetricType::Counter)?;
            for (number, engine) in engines.iter().enumerate() {
                family.count(&[("engine", number.to_string().as_str())], cell(engine).value())?;
            }
        }
        for (name, help, cell) in tables::ENGINE_GAUGES {
            let mut family = print.family(name, help, MetricType::Gauge)?;
            for (number, engine) in engines.iter().enumerate() {
                let labels = [("engine", number.to_string())];
                ConstGauge::new(cell(engine).value()).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Time of their own that handshake workers owe the engine";
        let mut family = print.family("handshake_backlog_seconds", help, MetricType::Gauge)?;
        for (number, engine) in engines.iter().enumerate() {
            let labels = [("engine", number.to_string())];
            let seconds = engine.backlog_us.value() as f64 / 1e6;
            ConstGauge::new(seconds).encode(family.encode_family(&labels)?)?;
        }
        let help = "Connections that ended, by reason";
        let mut family = print.family("connections_ended", help, MetricType::Counter)?;
        for (number, engine) in engines.iter().enumerate() {
            let number = number.to_string();
            for (reason, cell) in EndReason::ALL.iter().zip(&engine.ended) {
                let labels = [("engine", number.as_str()), ("reason", reason.label())];
                family.count(&labels, cell.value())?;
            }
        }
        let help = "Connections shed, by cause";
        let mut family = print.family("connections_shed", help, MetricType::Counter)?;
        for (number, engine) in engines.iter().enumerate() {
            let number = number.to_string();
            for (cause, cell) in ShedCause::ALL.iter().zip(&engine.shed) {
                let labels = [("engine", number.as_str()), ("cause", cause.label())];
                family.count(&labels, cell.value())?;
            }
        }
        let help = "Plaintext relayed, by direction";
        let mut family = print.family("relayed_bytes", help, MetricType::Counter)?;
        for (number, engine) in engines.iter().enumerate() {
            let number = number.to_string();
            for (direction, cell) in [
                ("from_clients", &engine.bytes_from_clients),
                ("to_clients", &engine.bytes_to_clients),
            ] {
                let labels = [("engine", number.as_str()), ("direction", direction)];
                family.count(&labels, cell.value())?;
            }
        }
        Ok(())
    }

    fn about_handshakes(&self, print: &mut Print<'_, '_>) -> Result<(), Error> {
        let engines = &self.sources.engines;
        let help = "Handshakes completed; combinations that never occurred are left out";
        let mut family = print.family("handshakes", help, MetricType::Counter)?;
        for (number, engine) in engines.iter().enumerate() {
            let number = number.to_string();
            for ((code, cipher), groups) in CIPHER_SUITES.iter().zip(&engine.handshakes) {
                // RFC 8446 appendix B.4: TLS 1.3 suites, and only those, begin with 0x13.
                let version = if code >> 8 == 0x13 { "TLSv1.3" } else { "TLSv1.2" };
                for ((_, group), cells) in GROUPS.iter().zip(groups) {
                    for (resumed, cell) in ["false", "true"].into_iter().zip(cells) {
                        if cell.value() == 0 {
                            continue;
                        }
                        let labels = [
                            ("engine", number.as_str()),
                            ("version", version),
                            ("cipher", cipher),
                            ("group", group),
                            ("resumed", resumed),
                        ];
                        family.count(&labels, cell.value())?;
                    }
                }
            }
        }
        let help = "Handshakes that failed, by reason";
        let mut family = print.family("handshake_failures", help, MetricType::Counter)?;
        for (number, engine) in engines.iter().enumerate() {
            let number = number.to_string();
            for (reason, cell) in FailureReason::ALL.iter().zip(&engine.failures) {
                let labels = [("engine", number.as_str()), ("reason", reason.label())];
                family.count(&labels, cell.value())?;
            }
        }
        let help = "Handshakes with servers that succeeded";
        let mut family = print.family("server_handshakes", help, MetricType::Counter)?;
        for (number, engine) in engines.iter().enumerate() {
            let number = number.to_string();
            for (resumed, cell) in ["false", "true"].into_iter().zip(&engine.server_handshakes) {
                let labels = [("engine", number.as_str()), ("resumed", resumed)];
                family.count(&labels, cell.value())?;
            }
        }
        let help = "Handshakes with servers that failed, by reason";
        let mut family = print.family("server_handshake_failures", help, MetricType::Counter)?;
        for (number, engine) in engines.iter().enumerate() {
            let number = number.to_string();
            let cells = engine.server_handshake_failures.iter();
            for (reason, cell) in ServerFailureReason::ALL.iter().zip(cells) {
                let labels = [("engine", number.as_str()), ("reason", reason.label())];
                family.count(&labels, cell.value())?;
            }
        }
        let help = "Handshake steps refused before any asymmetric cryptography, by cost class";
        let mut family = print.family("handshakes_shed", help, MetricType::Counter)?;
        for (number, engine) in engines.iter().enumerate() {
            let number = number.to_string();
            for (class, cell) in CostClass::ALL.iter().zip(&engine.shed_queue_full) {
                let labels = [
                    ("engine", number.as_str()),
                    ("class", class.label()),
                    ("cause", "queue_full"),
                ];
                family.count(&labels, cell.value())?;
            }
        }
        for (number, worker) in self.sources.workers.iter().enumerate() {
            let number = number.to_string();
            for (cause, cells) in [
                ("queue_full", &worker.shed_queue_full),
                ("expired", &worker.shed_expired),
                ("client_gone", &worker.shed_client_gone),
            ] {
                for (class, cell) in CostClass::ALL.iter().zip(cells) {
                    let labels =
                        [("worker", number.as_str()), ("class", class.label()), ("cause", cause)];
                    family.count(&labels, cell.value())?;
                }
            }
        }
        let name = "handshake_duration_seconds";
        let help = "From accept to the established session";
        let cells = engines.iter().map(|engine| &engine.handshake_time);
        print.histograms(name, help, "engine", cells)
    }

    fn about_workers(&self, print: &mut Print<'_, '_>) -> Result<(), Error> {
        let workers = &self.sources.workers;
        let help = "Handshake steps run, by cost class";
        let mut family = print.family("handshake_steps", help, MetricType::Counter)?;
        for (number, worker) in workers.iter().enumerate() {
            let number = number.to_string();
            for (class, cell) in CostClass::ALL.iter().zip(&worker.steps) {
                let labels = [("worker", number.as_str()), ("class", class.label())];
                family.count(&labels, cell.value())?;
            }
        }
        for (name, help, cell) in tables::WORKER_COUNTERS {
            let mut family = print.family(name, help, MetricType::Counter)?;
            for (number, worker) in workers.iter().enumerate() {
                family.count(&[("worker", number.to_string().as_str())], cell(worker).value())?;
            }
        }
        let help = "Session tickets that resumed no session, by cause";
        let mut family = print.family("session_tickets_refused", help, MetricType::Counter)?;
        for (number, worker) in workers.iter().enumerate() {
            let number = number.to_string();
            for (cause, cell) in Refused::ALL.iter().zip(&worker.tickets_refused) {
                let labels = [("worker", number.as_str()), ("cause", cause.label())];
                family.count(&labels, cell.value())?;
            }
        }
        let name = "handshake_queue_wait_seconds";
        let help = "From handing a step in to its start";
        let cells = workers.iter().map(|worker| &worker.queue_wait);
        print.histograms(name, help, "worker", cells)?;
        let name = "handshake_step_seconds";
        let help = "Time that a step took";
        let cells = workers.iter().map(|worker| &worker.step_time);
        print.histograms(name, help, "worker", cells)
    }
}

/// The few shapes that our families have.
struct Print<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Print<'_, '_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        metric_type: MetricType,
    ) -> Result<MetricEncoder<'s>, Error> {
        self.0.encode_descriptor(name, help, None, metric_type)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        ConstCounter::new(value).encode(self.family(name, help, MetricType::Counter)?)
    }

    fn gauge<N>(&mut self, name: &str, help: &str, value: N) -> Result<(), Error>
    where
        ConstGauge<N>: EncodeMetric,
    {
        ConstGauge::new(value).encode(self.family(name, help, MetricType::Gauge)?)
    }

    /// Times, in seconds since 1970, by name and source of what ends then.
    fn ends<'c>(
        &mut self,
        name: &str,
        help: &str,
        ends: impl Iterator<Item = (&'c str, &'c str, i64)>,
    ) -> Result<(), Error> {
        let mut family = self.family(name, help, MetricType::Gauge)?;
        for (name, source, unix_seconds) in ends {
            let labels = [("name", name), ("source", source)];
            ConstGauge::new(unix_seconds).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histograms<'h>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        histograms: impl Iterator<Item = &'h Histogram>,
    ) -> Result<(), Error> {
        let mut family = self.family(name, help, MetricType::Histogram)?;
        for (number, histogram) in histograms.enumerate() {
            let counts = histogram.counts();
            let buckets: [(f64, u64); HISTOGRAM_BUCKETS] =
                std::array::from_fn(|index| (Histogram::upper_bound_seconds(index), counts[index]));
            // The count is summed from the same reads as the buckets, so the two agree
            // even while the writer goes on.
            let count = counts.iter().sum();
            let labels = [(label, number.to_string())];
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                histogram.sum_seconds(),
                count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

trait Count {
    fn count<L: EncodeLabelSet>(&mut self, labels: &L, value: u64) -> Result<(), Error>;
}

impl Count for MetricEncoder<'_> {
    fn count<L: EncodeLabelSet>(&mut self, labels: &L, value: u64) -> Result<(), Error> {
        ConstCounter::new(value).encode(self.encode_family(labels)?)
    }
}

#[cfg(test)]
mod tests;
