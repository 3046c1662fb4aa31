//! The report for people.

use std::fmt::{self, Write};

use crate::report::{LatencyReport, MixedReport, Report};

/// A name and what stands beside it.
pub(crate) struct Table {
    text: String,
}

/// The width of the first column.
const NAME_WIDTH: usize = 22;

impl Table {
    /// Everything in `report`, most important first.
    pub(crate) fn of(report: &Report) -> Self {
        let mut table = Self { text: String::new() };
        table.row(report.mode, &report.address);
        if let Some(tls) = &report.tls {
            table.row("TLS", &format!("{}, {}, {}", tls.version, tls.suite, tls.group));
            let share = tls.resumed_share * 100.0;
            let mut text = format!("{}, {share:.1} % resumed", count(tls.handshakes as f64));
            if tls.others > 0 {
                let _ = write!(text, ", {} agreed on something else", count(tls.others as f64));
            }
            table.row("handshakes", &text);
        }
        let part = &report.part;
        let seconds = part.duration_seconds;
        let operations = count(part.operations as f64);
        table.row("operations", &format!("{operations} in {seconds:.2} s"));
        let rate = count(part.rate_per_second);
        table.row(
            "rate",
            &match part.offered_rate_per_second {
                Some(offered) => format!("{rate} a second of {} offered", count(offered)),
                None => format!("{rate} a second"),
            },
        );
        if part.bytes > 0 {
            let megabytes = part.bytes as f64 / 1e6;
            let rate = megabytes / seconds.max(f64::MIN_POSITIVE);
            table.row("bytes", &format!("{megabytes:.1} MB, {rate:.1} MB a second"));
        }
        for (cause, number) in &part.failed {
            table.row("failed", &format!("{} {cause}", count(*number as f64)));
        }
        if part.reconnects > 0 {
            table.row("reconnects", &count(part.reconnects as f64));
        }
        table.latencies(&[
            ("latency", part.latency_us.as_ref()),
            ("handshake", part.handshake_latency_us.as_ref()),
            ("begun late by", report.client.lateness_us.as_ref()),
        ]);
        if let Some(mixed) = &report.mixed {
            table.mixed(mixed);
        }
        if let Some(idle) = &report.idle {
            table.row(
                "held",
                &format!(
                    "{} of {} asked for, {} established, descriptor limit {}",
                    count(idle.alive as f64),
                    count(idle.asked_for as f64),
                    count(idle.established as f64),
                    count(idle.descriptor_limit as f64),
                ),
            );
        }
        let client = &report.client;
        table.costs(
            "this program's CPU",
            client.cpu_us_per_operation,
            client.cpu_ms_per_gb,
            &format!("busiest thread {:.0} %", client.busiest_thread_share * 100.0),
        );
        if let Some(server) = &report.server {
            let user = server.user_us / (server.user_us + server.system_us).max(1.0) * 100.0;
            table.costs(
                "the server's CPU",
                server.cpu_us_per_operation,
                server.cpu_ms_per_gb,
                &format!("{:.2} CPUs busy, {user:.0} % of it in user mode", server.cpu_share),
            );
            if let Some(bytes) = server.memory_bytes_per_connection {
                table.row(
                    "the server's memory",
                    &format!("{:.1} KiB a connection", bytes / 1_024.0),
                );
            }
        }
        table
    }

    fn mixed(&mut self, mixed: &MixedReport) {
        let storm = &mixed.storm;
        self.latencies(&[
            ("quiet", mixed.quiet.latency_us.as_ref()),
            ("in the storm", storm.steady.latency_us.as_ref()),
            ("new clients", storm.handshake_latency_us.as_ref()),
            ("new clients late by", storm.storm_lateness_us.as_ref()),
        ]);
        if let Some(ratio) = mixed.ratio_p99 {
            self.row("p99, storm to quiet", &format!("{ratio:.2}"));
        }
        let offered = storm.offered.max(1) as f64;
        let share =
            |part: u64| format!("{} ({:.1} %)", count(part as f64), part as f64 / offered * 100.0);
        self.row(
            "new clients",
            &format!(
                "{} came, {} completed, {} gave up, {} refused",
                count(storm.offered as f64),
                share(storm.completed),
                share(storm.gave_up),
                share(storm.refused),
            ),
        );
        self.row(
            "goodput",
            &format!(
                "{} a second of {} offered",
                count(storm.goodput_per_second),
                count(storm.storm_rate_per_second),
            ),
        );
        if let Some(server) = &storm.steady.server {
            let each = server
                .cpu_us_per_operation
                .map_or(String::new(), |us| format!("{us:.2} µs a new client, "));
            self.row(
                "the server's CPU",
                &format!("{each}{:.2} CPUs busy in the storm", server.cpu_share),
            );
        }
    }

    fn row(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.text, "{name:NAME_WIDTH$}{value}");
    }

    fn costs(&mut self, name: &str, us: Option<f64>, ms: Option<f64>, more: &str) {
        let mut parts = Vec::new();
        if let Some(us) = us {
            parts.push(format!("{us:.2} µs an operation"));
        }
        if let Some(ms) = ms {
            parts.push(format!("{ms:.0} ms a GB"));
        }
        parts.push(more.to_owned());
        self.row(name, &parts.join(", "));
    }

    fn latencies(&mut self, rows: &[(&str, Option<&LatencyReport>)]) {
        let rows: Vec<_> = rows.iter().filter_map(|(name, row)| Some((name, (*row)?))).collect();
        if rows.is_empty() {
            return;
        }
        let columns = ["minimum", "p50", "p90", "p99", "p99.9", "maximum", "mean"];
        let head: String = columns.iter().map(|column| format!("{column:>11}")).collect();
        self.row("µs", &head);
        for (name, row) in rows {
            let values = [row.minimum, row.p50, row.p90, row.p99, row.p99_9, row.maximum, row.mean];
            let line: String = values.iter().map(|value| format!("{value:>11.1}")).collect();
            self.row(name, &line);
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// A number with its thousands apart; digits behind the point only where they matter.
fn count(value: f64) -> String {
    let digits = if value.fract() == 0.0 || value >= 100.0 { 0 } else { 1 };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |parts| parts);
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_small_ones_keep_a_digit() {
        for (value, text) in [
            (0.0, "0"),
            (7.25, "7.2"),
            (999.4, "999"),
            (1_000.0, "1,000"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(count(value), text);
        }
    }
}
