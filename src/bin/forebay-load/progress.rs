//! The live line on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::event_loop::Progress;

const INTERVAL: Duration = Duration::from_millis(250);

/// The sum of what threads have published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    operations: u64,
    failures: u64,
    connections: u64,
    bytes: u64,
}

impl Totals {
    fn of(threads: &[Arc<Progress>]) -> Self {
        let sum = |field: fn(&Progress) -> &AtomicU64| {
            threads.iter().map(|thread| field(thread).load(Ordering::Relaxed)).sum()
        };
        Self {
            operations: sum(|thread| &thread.operations),
            failures: sum(|thread| &thread.failures),
            connections: sum(|thread| &thread.connections),
            bytes: sum(|thread| &thread.bytes),
        }
    }
}

/// Writes the line until it goes out of scope.
pub(crate) struct ProgressLine(Option<(Sender<()>, JoinHandle<()>)>);

impl ProgressLine {
    /// Shows what the threads do, unless standard error is no terminal or it is to be quiet.
    pub(crate) fn start(quiet: bool, threads: Vec<Arc<Progress>>) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let (stop, stopped) = channel();
        let run = move || {
            let begin = Instant::now();
            let mut before = (begin, Totals::default());
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let now = (Instant::now(), Totals::of(&threads));
                let line = line(begin.elapsed(), now.0 - before.0, before.1, now.1);
                eprint!("\r\x1b[2K{line}");
                let _ = std::io::stderr().flush();
                before = now;
            }
            eprint!("\r\x1b[2K");
        };
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(run);
        Self(thread.ok().map(|thread| (stop, thread)))
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

fn line(elapsed: Duration, interval: Duration, before: Totals, now: Totals) -> String {
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / interval.as_secs_f64();
    let mut text = format!(
        "{:5.1} s  {:.0} operations a second, {} connections",
        elapsed.as_secs_f64(),
        rate(before.operations, now.operations),
        now.connections,
    );
    let megabytes = rate(before.bytes, now.bytes) / 1e6;
    if megabytes >= 1.0 {
        text.push_str(&format!(", {megabytes:.0} MB a second"));
    }
    if now.failures > 0 {
        text.push_str(&format!(", {} failed", now.failures));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_rates_of_the_last_interval_and_failures_so_far() {
        let before = Totals { operations: 100, failures: 0, connections: 8, bytes: 0 };
        let now = Totals { operations: 200, failures: 3, connections: 9, bytes: 2_000_000 };
        assert_eq!(
            line(Duration::from_secs(2), Duration::from_millis(500), before, now),
            "  2.0 s  200 operations a second, 9 connections, 4 MB a second, 3 failed"
        );
    }
}
