//! Durations as ppoll(2) takes them.

use std::time::Duration;

use rustix::event::Timespec;

/// The same as the kernel's structure; what is too long for it is the longest there is.
pub(super) fn poll_timeout(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
