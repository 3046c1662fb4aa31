//! `[log]`: what is written to the log.

use tracing::Level;

use super::item::Section;
use super::report::Report;

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `level = "error" | "warn" | "info" | "debug" | "trace"`, default `"info"`: lines
    /// of this severity and above are written.
    pub level: Level,
    /// `failures_per_second = 0 to 1000000`, default `10`: lines about failed handshakes
    /// that the process writes in a second. Beyond it they are only counted. `0`: none.
    pub failures_per_second: u32,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: Level::INFO, failures_per_second: 10 }
    }
}

pub(super) const KEYS: &[&str] = &["level", "failures_per_second"];

const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];

pub(super) fn read(report: &mut Report<'_>, root: &Section<'_>) -> LogSettings {
    let section = &root.section(report, "log", KEYS);
    let default = LogSettings::default();
    LogSettings {
        level: section
            .value(report, "level", default.level, |item, report| item.choice(report, &LEVELS)),
        failures_per_second: section.value(
            report,
            "failures_per_second",
            default.failures_per_second,
            |item, report| item.count(report, 0..=1_000_000),
        ),
    }
}
