//! What a process holds, from proc_pid_status(5) and proc_pid_fd(5).

use std::fs;

/// Resident memory.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes * 1_024
}

/// Descriptors open, each as what it refers to, sorted.
pub fn descriptors(pid: u32) -> Vec<String> {
    let mut descriptors: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("fd")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.display().to_string())
        .collect();
    descriptors.sort();
    descriptors
}
