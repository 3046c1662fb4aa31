//! What a run has found, as plain data: the JSON object, and what the table is made of.
//!
//! Names and units here are what scripts read: they may be added to, not changed.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay::tls::names;
use serde::Serialize;

use crate::crew::WindowResult;
use crate::failure::Cause;
use crate::server_process::CpuSpent;
use crate::session::Negotiated;
use crate::tally::{Latencies, Tally};

/// Bytes of a GB, which transfers are counted in.
const GIGABYTE: f64 = 1e9;

/// One run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) mode: &'static str,
    pub(crate) address: String,
    pub(crate) connections: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<TlsReport>,
    #[serde(flatten)]
    pub(crate) part: Part,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<IdleReport>,
    #[serde(flatten)]
    pub(crate) mixed: Option<MixedReport>,
    pub(crate) client: ClientReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<ServerReport>,
    /// What the reader should know before he believes the figures.
    pub(crate) warnings: Vec<String>,
}

/// What was measured in one window.
#[derive(Debug, Serialize)]
pub(crate) struct Part {
    /// Operations that succeeded.
    pub(crate) operations: u64,
    /// Operations that were due or begun, in a closed loop those that ended.
    pub(crate) offered: u64,
    /// Operations a second that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offered_rate_per_second: Option<f64>,
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) duration_seconds: f64,
    /// Operations that succeeded while the window lasted, by its length.
    pub(crate) rate_per_second: f64,
    /// Application bytes, both ways.
    pub(crate) bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<LatencyReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handshake_latency_us: Option<LatencyReport>,
    /// Connections opened again because the server had ended them between requests.
    pub(crate) reconnects: u64,
}

/// Connections that were held.
#[derive(Debug, Serialize)]
pub(crate) struct IdleReport {
    pub(crate) asked_for: usize,
    /// Descriptors that this program may have open.
    pub(crate) descriptor_limit: u64,
    pub(crate) established: usize,
    /// Stood at the end, and answered if there was a request.
    pub(crate) alive: usize,
}

/// Requests alone, and beside a storm.
#[derive(Debug, Serialize)]
pub(crate) struct MixedReport {
    pub(crate) quiet: PhaseReport,
    pub(crate) storm: StormReport,
    /// 99th percentile of the requests in the storm by that before it.
    pub(crate) ratio_p99: Option<f64>,
}

/// The requests in one phase.
#[derive(Debug, Serialize)]
pub(crate) struct PhaseReport {
    /// Requests that succeeded.
    pub(crate) requests: u64,
    /// Requests that failed, by cause.
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) duration_seconds: f64,
    pub(crate) rate_per_second: f64,
    pub(crate) latency_us: Option<LatencyReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<ServerReport>,
}

/// The requests in the storm, and the storm.
#[derive(Debug, Serialize)]
pub(crate) struct StormReport {
    #[serde(flatten)]
    pub(crate) steady: PhaseReport,
    pub(crate) storm_rate_per_second: f64,
    /// New clients that were due.
    pub(crate) offered: u64,
    /// Of these, were served while they waited.
    pub(crate) completed: u64,
    /// Of these, ran out of patience.
    pub(crate) gave_up: u64,
    /// Of these, were turned away.
    pub(crate) refused: u64,
    /// Those that were not served, by cause.
    pub(crate) storm_failed: BTreeMap<String, u64>,
    pub(crate) goodput_per_second: f64,
    /// From when a client was due; those that gave up count with the time they waited.
    pub(crate) handshake_latency_us: Option<LatencyReport>,
    /// How late this program was with new clients for which it had room.
    pub(crate) storm_lateness_us: Option<LatencyReport>,
    pub(crate) storm_tls: Option<TlsReport>,
}

/// What handshakes agreed on: what most of them did.
#[derive(Debug, Serialize)]
pub(crate) struct TlsReport {
    pub(crate) version: String,
    pub(crate) suite: String,
    pub(crate) group: String,
    /// Handshakes in the window, or while connections were prepared if there was none.
    pub(crate) handshakes: u64,
    pub(crate) resumed_share: f64,
    /// Handshakes that agreed on something else.
    pub(crate) others: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct LatencyReport {
    pub(crate) minimum: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) maximum: f64,
    pub(crate) mean: f64,
}

/// What this program cost itself.
#[derive(Debug, Serialize)]
pub(crate) struct ClientReport {
    pub(crate) threads: usize,
    pub(crate) cpu_us_per_operation: Option<f64>,
    pub(crate) cpu_ms_per_gb: Option<f64>,
    /// How much of a CPU the busiest thread used.
    pub(crate) busiest_thread_share: f64,
    /// How late operations were begun although there was room (open loop only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lateness_us: Option<LatencyReport>,
}

/// What the server cost.
#[derive(Debug, Serialize)]
pub(crate) struct ServerReport {
    pub(crate) cpu_us_per_operation: Option<f64>,
    pub(crate) cpu_ms_per_gb: Option<f64>,
    /// How many CPUs it kept busy.
    pub(crate) cpu_share: f64,
    pub(crate) memory_bytes_per_connection: Option<f64>,
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
}

impl Part {
    pub(crate) fn new(tally: &Tally, duration: Duration, rate: Option<f64>) -> Self {
        Self {
            operations: tally.operations,
            offered: tally.offered,
            offered_rate_per_second: rate,
            failed: failed(tally),
            duration_seconds: rounded(duration.as_secs_f64()),
            rate_per_second: rounded(per(tally.completed_inside as f64, duration.as_secs_f64())),
            bytes: tally.bytes_received + tally.bytes_sent,
            latency_us: LatencyReport::new(&tally.latencies),
            handshake_latency_us: LatencyReport::new(&tally.handshake_latencies),
            reconnects: tally.reconnects,
        }
    }
}

impl PhaseReport {
    pub(crate) fn new(tally: &Tally, duration: Duration, server: Option<ServerReport>) -> Self {
        let part = Part::new(tally, duration, None);
        Self {
            requests: part.operations,
            failed: part.failed,
            duration_seconds: part.duration_seconds,
            rate_per_second: part.rate_per_second,
            latency_us: part.latency_us,
            server,
        }
    }
}

pub(crate) fn failed(tally: &Tally) -> BTreeMap<String, u64> {
    let of = |(cause, failures): (&Cause, &crate::tally::Failures)| {
        (cause.name().into_owned(), failures.count)
    };
    tally.failed.iter().map(of).collect()
}

impl LatencyReport {
    /// `None` if nothing was recorded.
    pub(crate) fn new(latencies: &Latencies) -> Option<Self> {
        let histogram = &latencies.0;
        let us = |nanoseconds: u64| rounded(nanoseconds as f64 / 1e3);
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            minimum: us(histogram.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            maximum: us(histogram.max()),
            mean: rounded(histogram.mean() / 1e3),
        })
    }
}

impl TlsReport {
    /// `None` if there was no handshake.
    pub(crate) fn new(tally: &Tally) -> Option<Self> {
        let (negotiated, count) = tally.negotiated.iter().max_by_key(|(_, count)| **count)?;
        let Negotiated { version, suite, group } = *negotiated;
        let version = match version {
            0x0303 => "1.2".to_owned(),
            0x0304 => "1.3".to_owned(),
            other => format!("{other:#06x}"),
        };
        let named = |name: Option<&str>, code: u16| {
            name.map_or_else(|| format!("{code:#06x}"), ToOwned::to_owned)
        };
        Some(Self {
            version,
            suite: named(names::cipher_suite_name(suite), suite),
            // A TLS 1.2 resumption exchanges no key.
            group: if group == 0 { "none".into() } else { named(names::group_name(group), group) },
            handshakes: tally.handshakes,
            resumed_share: rounded(per(tally.resumed as f64, tally.handshakes as f64)),
            others: tally.handshakes - count,
        })
    }
}

impl ClientReport {
    pub(crate) fn new(result: &WindowResult, duration: Duration, threads: usize) -> Self {
        let tally = &result.tally;
        let (us_per_operation, ms_per_gb) = costs(tally.cpu, tally);
        Self {
            threads,
            cpu_us_per_operation: us_per_operation,
            cpu_ms_per_gb: ms_per_gb,
            busiest_thread_share: rounded(per(
                result.busiest_cpu.as_secs_f64(),
                duration.as_secs_f64(),
            )),
            lateness_us: LatencyReport::new(&tally.lateness),
        }
    }
}

impl ServerReport {
    pub(crate) fn new(spent: CpuSpent, tally: &Tally, duration: Duration) -> Self {
        let (us_per_operation, ms_per_gb) = costs(spent.total, tally);
        let us = |duration: Duration| rounded(duration.as_secs_f64() * 1e6);
        Self {
            cpu_us_per_operation: us_per_operation,
            cpu_ms_per_gb: ms_per_gb,
            cpu_share: rounded(per(spent.total.as_secs_f64(), duration.as_secs_f64())),
            memory_bytes_per_connection: None,
            user_us: us(spent.user),
            system_us: us(spent.system),
        }
    }
}

/// CPU time per operation in µs and per GB in ms; `None` where there was neither.
fn costs(cpu: Duration, tally: &Tally) -> (Option<f64>, Option<f64>) {
    let (operations, bytes) = (tally.completed_inside, tally.bytes_received + tally.bytes_sent);
    let us = cpu.as_secs_f64() * 1e6;
    let per_operation = (operations > 0).then(|| rounded(us / operations as f64));
    let per_gigabyte = (bytes > 0).then(|| rounded(us / 1e3 / (bytes as f64 / GIGABYTE)));
    (per_operation, per_gigabyte)
}

/// To three digits behind the point: more would be noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn per(value: f64, count: f64) -> f64 {
    if count > 0.0 { value / count } else { 0.0 }
}
