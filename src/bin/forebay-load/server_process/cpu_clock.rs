//! The CPU clock of another process: user and system time of all its threads, running or
//! ended, in nanoseconds.
//!
//! `/proc/PID/schedstat` has only the first thread's, `/proc/PID/task/*/schedstat` none of
//! those that have ended, `/proc/PID/stat` whole clock ticks. The clock of
//! clock_getcpuclockid(3) is what the kernel sums for the whole thread group
//! (`thread_group_cputime` in kernel/sched/cputime.c, by way of
//! kernel/time/posix-cpu-timers.c); anybody may read it.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::Duration;

/// CPU time that the process has used; `None` if there is none of that number.
pub(super) fn read(pid: u32) -> Option<Duration> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut clock = MaybeUninit::<libc::clockid_t>::uninit();
    // SAFETY: writes a clockid_t through the pointer, which is valid for that, or fails.
    if unsafe { libc::clock_getcpuclockid(pid, clock.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call above succeeded, so it has written the value.
    let clock = unsafe { clock.assume_init() };
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: writes a timespec through the pointer, which is valid for that, or fails.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call above succeeded, so it has written the value.
    let time = unsafe { time.assume_init() };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
}
