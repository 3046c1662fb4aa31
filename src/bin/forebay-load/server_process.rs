//! What the server under load costs: CPU time and memory of its processes, from proc(5).
//!
//! A server is the processes named and all their descendants, with all their threads.
//! Nothing that ends is lost: the CPU clock of a process holds the time of its threads
//! that have ended, and a parent's own count that of its children that have.

mod cpu_clock;

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// Why a server cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerProcessError {
    /// There is no such process.
    #[error("--server-pid {0}: no such process")]
    NotThere(u32),
    /// It has ended meanwhile.
    #[error("the server's process {0} ended during the run")]
    Ended(u32),
    /// Its memory may not be read.
    #[error("/proc/{pid}/smaps_rollup: {error}; run as the server's user or as root")]
    Memory {
        /// The process.
        pid: u32,
        /// What the kernel says.
        error: std::io::Error,
    },
}

/// The server: its first processes.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    roots: Vec<u32>,
}

/// CPU time so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// User and system, from the scheduler's clock.
    pub(crate) total: Duration,
    /// User, in clock ticks: fine enough for a share.
    user_ticks: u64,
    /// System, in clock ticks.
    system_ticks: u64,
}

/// CPU time between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuSpent {
    pub(crate) total: Duration,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl CpuTime {
    pub(crate) fn since(self, earlier: Self) -> CpuSpent {
        let total = self.total.saturating_sub(earlier.total);
        let user = self.user_ticks.saturating_sub(earlier.user_ticks);
        let system = self.system_ticks.saturating_sub(earlier.system_ticks);
        let share = if user + system == 0 { 0.0 } else { user as f64 / (user + system) as f64 };
        let user = total.mul_f64(share);
        CpuSpent { total, user, system: total - user }
    }
}

impl Server {
    /// # Errors
    /// A process does not exist.
    pub(crate) fn new(roots: &[u32]) -> Result<Self, ServerProcessError> {
        let server = Self { roots: roots.to_vec() };
        let processes = processes();
        match roots.iter().find(|root| !processes.contains_key(root)) {
            Some(root) => Err(ServerProcessError::NotThere(*root)),
            None => Ok(server),
        }
    }

    /// CPU time of everything up to now.
    ///
    /// # Errors
    /// One of the first processes is gone.
    pub(crate) fn cpu_time(&self) -> Result<CpuTime, ServerProcessError> {
        let processes = processes();
        let mut sum = CpuTime::default();
        for pid in self.family(&processes)? {
            let stat = &processes[&pid];
            // One that ends right now is counted by its parent from then on.
            let Some(own) = cpu_clock::read(pid) else { continue };
            sum.total += own + ticks(stat.children_user + stat.children_system);
            sum.user_ticks += stat.user + stat.children_user;
            sum.system_ticks += stat.system + stat.children_system;
        }
        Ok(sum)
    }

    /// Memory in bytes, with what several processes share divided among them (PSS).
    ///
    /// # Errors
    /// One of the first processes is gone, or its memory may not be read.
    pub(crate) fn memory_bytes(&self) -> Result<u64, ServerProcessError> {
        let mut sum = 0;
        for pid in self.family(&processes())? {
            match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
                Ok(text) => sum += pss_bytes(&text),
                Err(_) if !self.roots.contains(&pid) => {}
                Err(error) => return Err(ServerProcessError::Memory { pid, error }),
            }
        }
        Ok(sum)
    }

    fn family(&self, processes: &HashMap<u32, Stat>) -> Result<Vec<u32>, ServerProcessError> {
        let alive = |pid: &u32| processes.get(pid).is_some_and(|stat| !stat.ended);
        if let Some(gone) = self.roots.iter().find(|root| !alive(root)) {
            return Err(ServerProcessError::Ended(*gone));
        }
        let parents = processes.iter().map(|(pid, stat)| (*pid, stat.parent)).collect();
        Ok(descendants(&self.roots, &parents))
    }
}

/// The roots and everything below them, each once.
fn descendants(roots: &[u32], parents: &HashMap<u32, u32>) -> Vec<u32> {
    let belongs = |pid: u32| {
        let mut pid = pid;
        // No chain of parents is longer than there are processes.
        for _ in 0..=parents.len() {
            if roots.contains(&pid) {
                return true;
            }
            match parents.get(&pid) {
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    let mut found: Vec<u32> = parents.keys().copied().filter(|pid| belongs(*pid)).collect();
    found.sort_unstable();
    found
}

/// What is wanted of /proc/PID/stat (proc_pid_stat(5)); times in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    ended: bool,
    parent: u32,
    user: u64,
    system: u64,
    /// Of children that have ended and were waited for, and theirs.
    children_user: u64,
    children_system: u64,
}

fn processes() -> HashMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse_stat(&text)?))
        })
        .collect()
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field, the command in parentheses, may hold spaces and parentheses.
    let (_, after_command) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after_command.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse().ok();
    Some(Stat {
        ended: matches!(*fields.first()?, "Z" | "X"),
        parent: u32::try_from(number(4)?).ok()?,
        user: number(14)?,
        system: number(15)?,
        children_user: number(16)?,
        children_system: number(17)?,
    })
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn pss_bytes(smaps_rollup: &str) -> u64 {
    let line = smaps_rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kibibytes =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::Instant;

    fn burn(duration: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < duration {
            std::hint::spin_loop();
        }
    }

    fn this_process() -> Server {
        Server::new(&[std::process::id()]).expect("this process")
    }

    #[test]
    fn time_of_threads_that_have_ended_is_not_lost() {
        let server = this_process();
        let before = server.cpu_time().expect("times");
        let own = thread::spawn(|| {
            burn(Duration::from_millis(60));
            rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)
        });
        let own = own.join().expect("ended");
        let spent = server.cpu_time().expect("times").since(before).total;
        let own = Duration::new(own.tv_sec as u64, own.tv_nsec as u32);
        // Other tests run meanwhile, so there may be more.
        assert!(spent >= own.mul_f64(0.99), "{spent:?} of {own:?}");
    }

    #[test]
    fn time_of_children_counts_while_they_run_and_when_they_have_ended() {
        let server = this_process();
        let before = server.cpu_time().expect("times");
        let mut child = Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; read end"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let mut of_child = Duration::ZERO;
        let begin = Instant::now();
        while of_child < Duration::from_millis(50) && begin.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(10));
            of_child = cpu_clock::read(child.id()).expect("it runs");
        }
        let while_running = server.cpu_time().expect("times").since(before).total;
        assert!(while_running >= of_child, "{while_running:?} {of_child:?}");
        drop(child.stdin.take());
        child.wait().expect("waited");
        let after = server.cpu_time().expect("times").since(before).total;
        // Children that have ended are counted in whole ticks.
        assert!(after + ticks(2) >= of_child, "{after:?} {of_child:?}");
    }

    #[test]
    fn memory_is_more_when_more_is_used() {
        let server = this_process();
        let before = server.memory_bytes().expect("memory");
        let held = vec![1_u8; 64 << 20];
        let after = server.memory_bytes().expect("memory");
        assert!(after > before + (48 << 20), "{before} {after}");
        drop(held);
    }

    #[test]
    fn descendants_are_found_at_any_depth_and_strangers_are_not() {
        let parents = HashMap::from([(10, 1), (11, 10), (12, 11), (20, 1), (1, 0)]);
        assert_eq!(descendants(&[10], &parents), [10, 11, 12]);
        assert_eq!(descendants(&[11, 20], &parents), [11, 12, 20]);
        let circle = HashMap::from([(5, 6), (6, 5)]);
        assert!(descendants(&[7], &circle).is_empty());
    }

    #[test]
    fn a_command_may_have_any_name() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 11 12 13 14 20 0 1 0 5 1 1";
        let stat = parse_stat(text).expect("understood");
        assert_eq!((stat.parent, stat.ended), (7, false));
        assert_eq!((stat.user, stat.system), (11, 12));
        assert_eq!((stat.children_user, stat.children_system), (13, 14));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error_that_names_it() {
        let error = Server::new(&[u32::MAX]).expect_err("no such process");
        assert!(error.to_string().contains(&u32::MAX.to_string()), "{error}");
    }

    #[test]
    fn user_and_system_add_up_to_the_total() {
        let earlier = CpuTime { total: Duration::from_secs(1), user_ticks: 50, system_ticks: 50 };
        let later = CpuTime { total: Duration::from_secs(2), user_ticks: 75, system_ticks: 125 };
        let spent = later.since(earlier);
        assert_eq!(spent.user, Duration::from_millis(250));
        assert_eq!(spent.user + spent.system, spent.total);
    }
}
