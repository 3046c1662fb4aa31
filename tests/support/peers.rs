//! Many non-blocking sockets on one thread, by poll(2).

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A socket and what it is there for.
pub trait Peer {
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// What it waits for; empty if for time alone.
    fn interest(&self) -> PollFlags;

    /// When it goes on even if nothing happens.
    fn wakes_at(&self) -> Option<Instant>;

    /// Does what can be done without waiting; `scratch` is for whoever needs room.
    fn go_on(&mut self, scratch: &mut [u8]);
}

/// Room for [`Peer::go_on`].
pub fn scratch() -> Vec<u8> {
    vec![0; 256 * 1024]
}

/// Waits at most `patience` for any of `peers`, or for `other` to become readable, and
/// lets those go on that can. Tells whether `other` is readable.
pub fn turn<P: Peer>(
    peers: &mut [P],
    other: Option<BorrowedFd<'_>>,
    patience: Duration,
    scratch: &mut [u8],
) -> bool {
    let now = Instant::now();
    let next = peers.iter().filter_map(Peer::wakes_at).min();
    let wait = next.map_or(patience, |next| patience.min(next.saturating_duration_since(now)));
    let mut descriptors: Vec<PollFd<'_>> = peers
        .iter()
        .map(|peer| PollFd::from_borrowed_fd(peer.descriptor(), peer.interest()))
        .collect();
    if let Some(other) = &other {
        descriptors.push(PollFd::from_borrowed_fd(other.as_fd(), PollFlags::IN));
    }
    let timeout = Timespec {
        tv_sec: wait.as_secs() as i64,
        // Rounded up: a pause is over when poll returns.
        tv_nsec: i64::from(wait.subsec_nanos().min(998_999_999)) + 1_000_000,
    };
    match poll(&mut descriptors, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => panic!("poll: {error}"),
    }
    let mut ready: Vec<bool> =
        descriptors.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();
    drop(descriptors);
    let other_is_ready = other.is_some() && ready.pop() == Some(true);
    let now = Instant::now();
    for (peer, is_ready) in peers.iter_mut().zip(ready) {
        if is_ready || peer.wakes_at().is_some_and(|at| at <= now) {
            peer.go_on(scratch);
        }
    }
    other_is_ready
}
