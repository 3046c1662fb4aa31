//! The `process_*` family that every Prometheus client library exposes: memory,
//! descriptors, CPU time, start, read from proc(5) at each scrape.

use std::fmt::Error;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

#[derive(Debug)]
pub(super) struct Process {
    started_unix_seconds: f64,
}

impl Process {
    pub(super) fn new(started: SystemTime) -> Self {
        let since_epoch = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_unix_seconds: since_epoch.as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(family)
        };
        let help = "Start time of the process since the epoch";
        gauge("process_start_time_seconds", help, self.started_unix_seconds)?;
        // What cannot be read (no /proc in a jail) is left out: a 0 would be a lie.
        if let Some(bytes) = status_bytes("VmRSS:") {
            gauge("process_resident_memory_bytes", "Resident memory", bytes as f64)?;
        }
        if let Some(bytes) = status_bytes("VmSize:") {
            gauge("process_virtual_memory_bytes", "Virtual memory", bytes as f64)?;
        }
        if let Some(count) = open_descriptors() {
            gauge("process_open_fds", "Descriptors open now", count as f64)?;
        }
        let limit = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |limit| limit as f64);
        gauge("process_max_fds", "Descriptors that may be open", limit)?;
        if let Some(seconds) = cpu_seconds() {
            let (name, help) = ("process_cpu_seconds", "CPU time, user and system");
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(family)?;
        }
        Ok(())
    }
}

/// A field of /proc/self/status (proc_pid_status(5)), where memory is in kibibytes.
fn status_bytes(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}

fn open_descriptors() -> Option<u64> {
    // From Linux 6.2 the directory's size is the number of open descriptors; before, it
    // is 0 and the entries must be counted, which is slow with a million of them.
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    // The directory itself is one of those counted.
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(count.saturating_sub(1)).ok()
}

/// `utime` and `stime` of /proc/self/stat (proc_pid_stat(5), fields 14 and 15).
fn cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the command in parentheses, may hold spaces and parentheses.
    let (_, after_command) = text.rsplit_once(')')?;
    let mut fields = after_command.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_tells_memory_descriptors_and_time() {
        assert!(status_bytes("VmRSS:").expect("resident memory") > 100_000);
        assert!(cpu_seconds().expect("CPU time") >= 0.0);
        let held: Vec<_> =
            (0..200).map(|_| fs::File::open("/proc/self/stat").expect("a file")).collect();
        // Other tests have theirs, too.
        assert!(open_descriptors().expect("descriptors") >= held.len() as u64);
    }
}
