//! Which thread runs on which CPU.
//!
//! Engines take the first CPUs of those the process may use, workers the last, so
//! that handshakes never wait behind records nor records behind handshakes. The mask
//! of sched_setaffinity(2) is honoured: taskset, systemd's CPUAffinity and cpusets all
//! work.

#![forbid(unsafe_code)]

use core_affinity::CoreId;

/// How many threads and where, as configured; `None` is "auto".
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Engine threads.
    pub engines: Option<usize>,
    /// The CPUs for engines, in order; empty to choose.
    pub engine_cpus: &'a [usize],
    /// Handshake workers.
    pub workers: Option<usize>,
    /// The CPUs for workers, in order; empty to choose.
    pub worker_cpus: &'a [usize],
    /// Handshakes run on the engines, without workers.
    pub inline: bool,
}

/// A configured CPU cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{key}: CPU {cpu} is not one that the process may use ({}); correct the list, or the affinity \
     that the process is started with (taskset, CPUAffinity=, cpuset)",
    list(allowed)
)]
pub struct CpuNotAllowed {
    key: &'static str,
    cpu: usize,
    allowed: Vec<usize>,
}

/// `0-3,6`, as taskset(1) and sysfs write it.
pub fn list(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let ranges = ranges.into_iter().map(|(first, last)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    ranges.collect::<Vec<_>>().join(",")
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

impl Placement {
    /// Whether another engine or a worker has the CPU of that engine too.
    pub fn shares_its_cpu(&self, engine: usize) -> bool {
        let cpu = self.engines[engine];
        let on_it = self.engines.iter().chain(&self.workers).filter(|other| **other == cpu);
        on_it.count() > 1
    }
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

/// Gives each thread its CPU.
///
/// Configured numbers and lists stand. What is left open: of n CPUs a quarter, but at
/// least one, goes to workers, and the rest, but at least one, to engines. With one CPU
/// the engine does the handshakes itself, unless workers are asked for. More threads
/// than CPUs share them in turn.
///
/// # Errors
/// A configured CPU is not among those `allowed`.
///
/// # Panics
/// If `allowed` is empty.
pub fn place(allowed: &[usize], wanted: Wanted<'_>) -> Result<Placement, CpuNotAllowed> {
    assert!(!allowed.is_empty(), "a process runs on some CPU");
    for (key, cpus) in [("engine.cpus", wanted.engine_cpus), ("handshake.cpus", wanted.worker_cpus)]
    {
        if let Some(&cpu) = cpus.iter().find(|cpu| !allowed.contains(cpu)) {
            return Err(CpuNotAllowed { key, cpu, allowed: allowed.to_vec() });
        }
    }
    let workers_asked_for = wanted.workers.is_some() || !wanted.worker_cpus.is_empty();
    let inline = wanted.inline || (allowed.len() == 1 && !workers_asked_for);
    let listed = |cpus: &[usize]| (!cpus.is_empty()).then_some(cpus.len());

    let workers = wanted.workers.or(listed(wanted.worker_cpus)).unwrap_or(allowed.len() / 4);
    let workers = if inline { 0 } else { workers.max(1) };
    let worker_cpus = if wanted.worker_cpus.is_empty() {
        // From the end, so that engines and workers meet last.
        let free = without(allowed, wanted.engine_cpus);
        let mut last = in_turn(&free.into_iter().rev().collect::<Vec<_>>(), workers);
        last.reverse();
        last
    } else {
        in_turn(wanted.worker_cpus, workers)
    };
    let (engines, engine_cpus) = if wanted.engine_cpus.is_empty() {
        let own = without(allowed, &worker_cpus);
        // A configured number of engines may need the workers' CPUs too.
        let free = without(allowed, wanted.worker_cpus);
        let engines = wanted.engines.unwrap_or(own.len()).max(1);
        (engines, if engines <= own.len() { own } else { free })
    } else {
        let engines = wanted.engines.unwrap_or(wanted.engine_cpus.len()).max(1);
        (engines, wanted.engine_cpus.to_vec())
    };
    let engines = in_turn(&engine_cpus, engines);

    let mut all: Vec<usize> = engines.iter().chain(&worker_cpus).copied().collect();
    all.sort_unstable();
    let shared = all.windows(2).any(|pair| pair[0] == pair[1]);
    Ok(Placement { engines, workers: worker_cpus, shared })
}

/// `cpus` without `taken`; all of them if nothing would be left.
fn without(cpus: &[usize], taken: &[usize]) -> Vec<usize> {
    let left: Vec<usize> = cpus.iter().copied().filter(|cpu| !taken.contains(cpu)).collect();
    if left.is_empty() { cpus.to_vec() } else { left }
}

/// A CPU for each of `threads`, from the first on and round again.
fn in_turn(cpus: &[usize], threads: usize) -> Vec<usize> {
    cpus.iter().copied().cycle().take(threads).collect()
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

    fn placed(cpus: &[usize], wanted: Wanted<'_>) -> Placement {
        place(cpus, wanted).expect("a placement")
    }

    fn auto(cpus: &[usize]) -> Placement {
        placed(cpus, Wanted::default())
    }

    #[test]
    fn a_quarter_of_the_cpus_goes_to_workers_and_none_is_shared() {
        let cpus: Vec<usize> = (0..16).collect();
        let placement = auto(&cpus);
        assert_eq!(placement.engines, (0..12).collect::<Vec<_>>());
        assert_eq!(placement.workers, [12, 13, 14, 15]);
        assert!(!placement.shared);
        assert!((0..12).all(|engine| !placement.shares_its_cpu(engine)));
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
        let placement = placed(&[7], Wanted { workers: Some(1), ..Wanted::default() });
        assert_eq!((placement.engines, placement.workers), (vec![7], vec![7]));
        assert!(placement.shared);
    }

    #[test]
    fn inline_handshakes_leave_every_cpu_to_engines() {
        let placement = placed(&[0, 1, 2], Wanted { inline: true, ..Wanted::default() });
        assert_eq!((placement.engines, placement.workers), (vec![0, 1, 2], vec![]));
    }

    #[test]
    fn only_allowed_cpus_are_used() {
        let placement = auto(&[3, 5, 8, 13]);
        assert_eq!((placement.engines, placement.workers), (vec![3, 5, 8], vec![13]));
    }

    #[test]
    fn configured_numbers_stand_and_sharing_is_told() {
        let wanted = Wanted { engines: Some(3), workers: Some(2), ..Wanted::default() };
        let placement = placed(&[0, 1], wanted);
        assert!(placement.shared);
        assert!((0..3).all(|engine| placement.shares_its_cpu(engine)));
        assert_eq!((placement.engines, placement.workers), (vec![0, 1, 0], vec![0, 1]));
    }

    #[test]
    fn configured_cpus_stand_and_the_others_go_to_the_other_kind() {
        let engine_cpus = [4, 2];
        let wanted = Wanted { engine_cpus: &engine_cpus, ..Wanted::default() };
        let placement = placed(&[0, 1, 2, 3, 4, 5, 6, 7], wanted);
        assert_eq!((placement.engines, placement.workers), (vec![4, 2], vec![6, 7]));
        let wanted = Wanted { worker_cpus: &[0], ..Wanted::default() };
        let placement = placed(&[0, 1, 2, 3], wanted);
        assert_eq!((placement.engines, placement.workers), (vec![1, 2, 3], vec![0]));
    }

    #[test]
    fn only_an_engine_that_shares_its_cpu_is_said_to() {
        let wanted = Wanted { engine_cpus: &[0, 1], worker_cpus: &[1], ..Wanted::default() };
        let placement = placed(&[0, 1, 2], wanted);
        assert!(!placement.shares_its_cpu(0) && placement.shares_its_cpu(1));
    }

    #[test]
    fn fewer_engines_than_listed_cpus_take_the_first() {
        let wanted = Wanted { engines: Some(1), engine_cpus: &[3, 2], ..Wanted::default() };
        assert_eq!(placed(&[0, 1, 2, 3], wanted).engines, [3]);
    }

    #[test]
    fn a_cpu_that_may_not_be_used_is_an_error_that_names_it() {
        let wanted = Wanted { worker_cpus: &[9], ..Wanted::default() };
        let text = place(&[0, 1, 2, 5], wanted).expect_err("not allowed").to_string();
        assert!(text.contains("handshake.cpus: CPU 9") && text.contains("0-2,5"), "{text}");
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
