//! What the kernel's scheduler is told of threads that share a CPU.
//!
//! An engine is woken by every packet. If it preempted the handshake worker on its CPU each
//! time, two switches of threads, some microseconds, would be paid for work of one; left to
//! wait for the step at hand, it finds all that came meanwhile and does it in one turn. The
//! worker offers the CPU between steps, so that the wait is bounded by that, not by the
//! scheduler's time slice. While the engine serves established connections, which must not
//! wait for a step, it preempts all the same, at that price.

use std::io;
use std::mem;
use std::time::Duration;

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

/// Shorter than the time slice of others, so that the kernel lets the thread preempt them;
/// 0.1 ms is the least that the kernel takes.
const SHORT_SLICE: Duration = Duration::from_micros(100);

/// The calling thread preempts nobody when it wakes (`SCHED_BATCH`, sched(7)). It keeps its
/// niceness.
///
/// # Errors
/// The kernel's; nothing has changed then, and everything works, with more switches.
pub fn preempt_nobody() -> io::Result<()> {
    set(libc::SCHED_BATCH, Duration::ZERO)
}

/// The calling thread preempts when it wakes, as far as its share of the CPU goes
/// (`SCHED_OTHER` with a short slice, which counts from Linux 6.12 on). It keeps its
/// niceness.
///
/// # Errors
/// The kernel's; nothing has changed then.
pub fn preempt_others() -> io::Result<()> {
    set(libc::SCHED_OTHER, SHORT_SLICE)
}

/// The calling thread runs when nobody else wants its CPU (`SCHED_IDLE`, sched(7)).
///
/// # Errors
/// The kernel's; nothing has changed then.
pub fn give_way_to_all() -> io::Result<()> {
    set(libc::SCHED_IDLE, Duration::ZERO)
}

/// A slice of zero is the kernel's own.
fn set(policy: libc::c_int, slice: Duration) -> io::Result<()> {
    // SAFETY: getpriority takes no pointers. Zero is the calling thread (Linux).
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attributes = Attributes {
        size: mem::size_of::<Attributes>() as u32,
        policy: policy as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime_ns: slice.as_nanos() as u64,
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
    fn anybody_may_become_a_batch_task_and_an_ordinary_one_again() {
        std::thread::spawn(|| {
            preempt_nobody().expect("no privilege is needed");
            // SAFETY: takes no pointers; zero is the calling thread.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_BATCH);
            preempt_others().expect("no privilege is needed");
            // SAFETY: as above.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_OTHER);
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn anybody_may_become_an_idle_task() {
        std::thread::spawn(|| {
            give_way_to_all().expect("no privilege is needed");
            // SAFETY: takes no pointers; zero is the calling thread.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_IDLE);
        })
        .join()
        .expect("no panic");
    }
}
