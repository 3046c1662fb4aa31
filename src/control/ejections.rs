//! Passive ejection: takes servers out to which too many connections have failed of late,
//! and lets them back after a while.
//!
//! ```text
//!   counts of all engines ─ a window at a time ─▶ failures ≥ `after`, and most of the attempts
//!                                                    │ as far as the pool's share allows
//!                                                    ▼
//!        up ◀── its time is over ── ejected, for `time`, twice as long each time in a row
//! ```
//!
//! An ejection is a guess: should all others be out, those that are ejected come back at
//! once. One look for each turn of the control thread. May know: pools, statuses, moments given
//! to it. Must not know: engines, sockets, clocks.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::upstream::pool::Ejection;
use crate::upstream::{Backend, Pool, ServerStatus};

/// How far back failures count.
const WINDOW: Duration = Duration::from_secs(10);

/// The time of an ejection is doubled so often at most: 64 times the first.
const DOUBLINGS_MAX: u32 = 6;

/// The servers of the pools in force that may be ejected.
#[derive(Debug, Default)]
pub struct Ejections {
    pools: Vec<(Arc<Pool>, Ejection)>,
    /// By the address of the status, which the record keeps alive.
    records: HashMap<usize, Record>,
}

/// What is remembered of one server.
#[derive(Debug)]
struct Record {
    status: Arc<ServerStatus>,
    window_start: Moment,
    at_window_start: Seen,
    ejected_until: Option<Moment>,
    /// Ejections in a row.
    ejections: u32,
}

/// Sums over all engines.
#[derive(Clone, Copy, Debug)]
struct Seen {
    attempts: u64,
    failures: u64,
}

impl Seen {
    fn of(status: &ServerStatus) -> Self {
        let mut seen = Self { attempts: 0, failures: 0 };
        for counts in status.of_engines() {
            let failed = counts.failed.value();
            seen.attempts += counts.connected.value() + failed;
            seen.failures += failed + counts.reset_early.value();
        }
        seen
    }

    const fn since(self, earlier: Self) -> Self {
        Self {
            attempts: self.attempts.saturating_sub(earlier.attempts),
            failures: self.failures.saturating_sub(earlier.failures),
        }
    }

    const fn mostly_fails(self) -> bool {
        self.failures.saturating_mul(2) > self.attempts
    }
}

impl Ejections {
    /// Looks after these pools from now on. Servers that are in them still are remembered;
    /// those that can be ejected no longer are let back.
    pub fn replace(&mut self, pools: &[Arc<Pool>], now: Moment) {
        let with_ejection = |pool: &Arc<Pool>| Some((Arc::clone(pool), pool.ejection?));
        self.pools = pools.iter().filter_map(with_ejection).collect();
        let mut before = std::mem::take(&mut self.records);
        for backend in self.pools.iter().flat_map(|(pool, _)| &pool.backends) {
            let key = key(&backend.status);
            let record = before.remove(&key).unwrap_or_else(|| Record::new(&backend.status, now));
            self.records.insert(key, record);
        }
        for record in before.into_values().filter(|record| record.ejected_until.is_some()) {
            record.status.change(now, |opinions| opinions.ejected = false);
        }
    }

    /// Looks at every server once. How many were ejected.
    pub fn look(&mut self, now: Moment) -> u64 {
        let mut ejected = 0;
        for (pool, ejection) in &self.pools {
            ejected += look_at_pool(pool, *ejection, &mut self.records, now);
        }
        ejected
    }
}

fn look_at_pool(
    pool: &Pool,
    ejection: Ejection,
    records: &mut HashMap<usize, Record>,
    now: Moment,
) -> u64 {
    let mut taking = pool.backends.iter().filter(|backend| backend.takes_connections()).count();
    let is_out = |backend: &&Backend| backend.status.opinions().ejected;
    let mut out = pool.backends.iter().filter(is_out).count();
    let out_max = pool.backends.len() * usize::from(ejection.share_max_percent) / 100;
    let mut ejected = 0;
    for backend in &pool.backends {
        let Some(record) = records.get_mut(&key(&backend.status)) else { continue };
        let (pool, server) = (&*pool.name, &*backend.name);
        if let Some(until) = record.ejected_until {
            if now >= until || taking == 0 {
                record.let_back(now);
                out -= 1;
                tracing::info!(pool, server, "server no longer ejected: on trial");
            }
            continue;
        }
        let others_are_left = out < out_max && taking > 1;
        if others_are_left && backend.takes_connections() && record.is_failing(ejection) {
            let (seen, time) = record.eject(ejection, now);
            out += 1;
            taking -= 1;
            ejected += 1;
            tracing::warn!(
                pool,
                server,
                failures = seen.failures,
                attempts = seen.attempts,
                seconds = time.as_secs_f64(),
                "server ejected: most connections to it fail"
            );
        } else if now >= record.window_start.after(WINDOW) {
            record.end_window(now);
        }
    }
    ejected
}

impl Record {
    fn new(status: &Arc<ServerStatus>, now: Moment) -> Self {
        Self {
            status: Arc::clone(status),
            window_start: now,
            at_window_start: Seen::of(status),
            ejected_until: None,
            ejections: 0,
        }
    }

    fn seen(&self) -> Seen {
        Seen::of(&self.status).since(self.at_window_start)
    }

    fn is_failing(&self, ejection: Ejection) -> bool {
        let seen = self.seen();
        seen.failures >= u64::from(ejection.after.get()) && seen.mostly_fails()
    }

    /// What it is ejected for, and for how long.
    fn eject(&mut self, ejection: Ejection, now: Moment) -> (Seen, Duration) {
        let time = ejection.time * (1 << self.ejections.min(DOUBLINGS_MAX));
        self.ejected_until = Some(now.after(time));
        self.ejections = self.ejections.saturating_add(1);
        self.status.change(now, |opinions| opinions.ejected = true);
        (self.seen(), time)
    }

    fn let_back(&mut self, now: Moment) {
        self.ejected_until = None;
        self.status.change(now, |opinions| opinions.ejected = false);
        self.begin_window(now);
    }

    /// A window in which it served makes the next ejection a first one.
    fn end_window(&mut self, now: Moment) {
        let seen = self.seen();
        if seen.attempts > 0 && !seen.mostly_fails() {
            self.ejections = 0;
        }
        self.begin_window(now);
    }

    fn begin_window(&mut self, now: Moment) {
        self.window_start = now;
        self.at_window_start = Seen::of(&self.status);
    }
}

fn key(status: &Arc<ServerStatus>) -> usize {
    Arc::as_ptr(status).addr()
}

#[cfg(test)]
mod tests;
