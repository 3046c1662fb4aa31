//! What the kernel's scheduler is told of an engine and a handshake worker that share a
//! CPU: neither takes it from the other when it wakes.
//!
//! An engine is woken by every packet. If it preempted the worker each time, two switches
//! of threads, some microseconds, would be paid for work of one; left to wait for the
//! step at hand, it finds all that came meanwhile and does it in one turn. The worker
//! offers the CPU between steps, so that the wait is bounded by that, not by the
//! scheduler's time slice.

use std::io;
use std::mem;

/// `struct sched_attr` of sched_setattr(2), its first version.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// The calling thread preempts nobody when it wakes (`SCHED_BATCH`, sched(7)). It keeps its
/// niceness.
///
/// # Errors
/// The kernel's; nothing has changed then, and everything works, with more switches.
pub fn preempt_nobody() -> io::Result<()> {
    // SAFETY: getpriority takes no pointers. Zero is the calling thread (Linux).
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attributes = Attributes {
        size: mem::size_of::<Attributes>() as u32,
        policy: libc::SCHED_BATCH as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime_ns: 0,
        deadline_ns: 0,
        period_ns: 0,
    };
    // SAFETY: the structure has the size that it names and lives across the call; zero is
    // the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anybody_may_become_a_batch_task() {
        std::thread::spawn(|| {
            preempt_nobody().expect("no privilege is needed");
            // SAFETY: takes no pointers; zero is the calling thread.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_BATCH);
        })
        .join()
        .expect("no panic");
    }
}
