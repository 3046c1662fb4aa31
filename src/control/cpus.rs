//! Which thread runs on which CPU.
//!
//! Engines take the first CPUs of those the process may use, workers the last, so
//! that handshakes never wait behind records nor records behind handshakes. The mask
//! of sched_setaffinity(2) is honoured: taskset, systemd's CPUAffinity and cpusets all
//! work.

#![forbid(unsafe_code)]

use core_affinity::CoreId;

/// How many threads, as configured; `None` is "auto".
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Engine threads.
    pub engines: Option<usize>,
    /// Handshake workers.
    pub workers: Option<usize>,
    /// Handshakes run on the engines, without workers.
    pub inline: bool,
}

/// A CPU for each thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The CPU of each engine.
    pub engines: Vec<usize>,
    /// The CPU of each worker; empty when the engines do the handshakes.
    pub workers: Vec<usize>,
    /// More threads than CPUs: some share one.
    pub shared: bool,
}

/// The CPUs that this thread may run on, ascending.
pub fn allowed() -> Vec<usize> {
    let mut cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    if cpus.is_empty() {
        // sched_getaffinity(2) fails on machines with more CPUs than its set holds.
        let count = std::thread::available_parallelism().map_or(1, |count| count.get());
        cpus = (0..count).collect();
    }
    cpus
}

/// Gives each thread its CPU. Of n CPUs a quarter, but at least one, goes to workers,
/// and the rest, but at least one, to engines. With one CPU the engine does the
/// handshakes itself, unless workers are asked for.
///
/// `cpus` must not be empty.
pub fn place(cpus: &[usize], wanted: Wanted) -> Placement {
    let count = cpus.len().max(1);
    let inline = wanted.inline || (count == 1 && wanted.workers.is_none());
    let workers = if inline { 0 } else { wanted.workers.unwrap_or(count / 4).max(1) };
    let engines = wanted.engines.unwrap_or(count.saturating_sub(workers)).max(1);
    let on = |thread: usize| cpus.get(thread % count).copied().unwrap_or_default();
    Placement {
        engines: (0..engines).map(on).collect(),
        // Counted from the end, so that engines and workers meet last.
        workers: (0..workers).map(|worker| on(count - 1 - worker % count)).rev().collect(),
        shared: engines + workers > count,
    }
}

/// Keeps the current thread on one CPU. Memory that the thread touches first from then
/// on is taken next to that CPU.
///
/// Returns false if the kernel refused, which leaves the thread free to move.
#[must_use]
pub fn pin_current_thread(cpu: usize) -> bool {
    core_affinity::set_for_current(CoreId { id: cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(cpus: &[usize]) -> Placement {
        place(cpus, Wanted::default())
    }

    #[test]
    fn a_quarter_of_the_cpus_goes_to_workers_and_none_is_shared() {
        let cpus: Vec<usize> = (0..16).collect();
        let placement = auto(&cpus);
        assert_eq!(placement.engines, (0..12).collect::<Vec<_>>());
        assert_eq!(placement.workers, [12, 13, 14, 15]);
        assert!(!placement.shared);
    }

    #[test]
    fn two_cpus_are_one_engine_and_one_worker() {
        let placement = auto(&[0, 1]);
        assert_eq!((placement.engines, placement.workers), (vec![0], vec![1]));
    }

    #[test]
    fn one_cpu_does_the_handshakes_on_the_engine() {
        let placement = auto(&[7]);
        assert_eq!((placement.engines, placement.workers), (vec![7], vec![]));
        assert!(!placement.shared);
    }

    #[test]
    fn one_cpu_is_shared_if_a_worker_is_asked_for() {
        let placement = place(&[7], Wanted { workers: Some(1), ..Wanted::default() });
        assert_eq!((placement.engines, placement.workers), (vec![7], vec![7]));
        assert!(placement.shared);
    }

    #[test]
    fn inline_handshakes_leave_every_cpu_to_engines() {
        let placement = place(&[0, 1, 2], Wanted { inline: true, ..Wanted::default() });
        assert_eq!((placement.engines, placement.workers), (vec![0, 1, 2], vec![]));
    }

    #[test]
    fn only_allowed_cpus_are_used() {
        let placement = auto(&[3, 5, 8, 13]);
        assert_eq!((placement.engines, placement.workers), (vec![3, 5, 8], vec![13]));
    }

    #[test]
    fn configured_numbers_stand_and_sharing_is_told() {
        let wanted = Wanted { engines: Some(3), workers: Some(2), inline: false };
        let placement = place(&[0, 1], wanted);
        assert_eq!((placement.engines, placement.workers), (vec![0, 1, 0], vec![0, 1]));
        assert!(placement.shared);
    }

    #[test]
    fn a_pinned_thread_may_use_its_cpu_only() {
        let cpu = *allowed().last().expect("a CPU");
        let seen = std::thread::spawn(move || {
            assert!(pin_current_thread(cpu));
            allowed()
        });
        assert_eq!(seen.join().expect("the thread"), [cpu]);
    }
}
