//! How other threads wake an engine that sleeps in the kernel, at no cost while it is
//! awake.
//!
//! ```text
//!   engine                              another thread
//!   asleep = true                       push work
//!   fence                               fence
//!   look for work once more             asleep and asleep.swap(false)? ─ yes ─▶ write eventfd
//!   sleep in io_uring_enter
//! ```
//!
//! Either the engine sees the work or the other thread sees it asleep. While the engine
//! is awake both sides only read, so that an engine that polls its ring in place of
//! sleeping and the threads that serve it do not take the cache line from one another.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// One engine's doorbell; shared by the engine and all who hand it work.
#[derive(Debug)]
pub struct Doorbell {
    eventfd: OwnedFd,
    asleep: AtomicBool,
}

impl Doorbell {
    /// Makes an eventfd(2).
    ///
    /// # Errors
    /// The kernel's, usually the descriptor limit.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the result is checked.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let eventfd = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { eventfd, asleep: AtomicBool::new(false) })
    }

    /// Wakes the engine if it sleeps or is about to. Call after handing it work.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            let one = 1_u64;
            // SAFETY: writes eight bytes from a live local to a descriptor we own. It
            // cannot block: nobody reads the counter, but a wake each nanosecond would
            // take centuries to fill it.
            unsafe { libc::write(self.eventfd.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }

    /// The engine announces that it will sleep; it looks for work once more afterwards.
    pub(super) fn announce_sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The engine is awake.
    pub(super) fn announce_awake(&self) {
        if self.asleep.load(Ordering::Relaxed) {
            self.asleep.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}
