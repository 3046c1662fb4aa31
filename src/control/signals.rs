//! Signals as something the control thread can wait for.
//!
//! SIGTERM and SIGINT ask for an end: the first means drain, the second means stop at
//! once. SIGHUP asks for a reload. SIGPIPE is ignored by the Rust runtime before
//! `main` begins, so a write to a closed socket is an error and not an end.
//!
//! Each request is a byte in a socket pair that the handler writes (the self-pipe
//! technique): nothing but `send(2)` runs in signal context, and two signals that
//! arrive together still count as two.

#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::poll_timeout::poll_timeout;
use super::watch::Changed;

/// What has been asked for since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// How many SIGTERM and SIGINT arrived.
    pub end: usize,
    /// Whether a SIGHUP arrived; several are as good as one.
    pub reload: bool,
    /// What certificate files have changed. Signals do not tell; [`super::watch`] does.
    pub certificates_changed: Option<Changed>,
}

/// The signal handlers of this process, in place until dropped.
#[derive(Debug)]
pub struct Signals {
    end: UnixStream,
    reload: UnixStream,
    registered: Vec<SigId>,
}

impl Signals {
    /// Puts the handlers in place.
    ///
    /// # Errors
    /// The kernel's, when it has no descriptor left for the socket pairs.
    pub fn new() -> io::Result<Self> {
        let (end, end_writer) = UnixStream::pair()?;
        let (reload, reload_writer) = UnixStream::pair()?;
        end.set_nonblocking(true)?;
        reload.set_nonblocking(true)?;
        let mut signals = Self { end, reload, registered: Vec::new() };
        for (signal, writer) in
            [(SIGTERM, end_writer.try_clone()?), (SIGINT, end_writer), (SIGHUP, reload_writer)]
        {
            signals.registered.push(signal_hook::low_level::pipe::register(signal, writer)?);
        }
        Ok(signals)
    }

    /// Waits at most `timeout` for a signal and says what arrived.
    ///
    /// # Errors
    /// The kernel's, from poll(2) or read(2).
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Requests> {
        let timeout = poll_timeout(timeout);
        let mut descriptors = [
            PollFd::from_borrowed_fd(self.end.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.reload.as_fd(), PollFlags::IN),
        ];
        match poll(&mut descriptors, Some(&timeout)) {
            // A handler ran in this thread: its byte is there, so look at once.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Requests {
            end: take_all(&mut self.end)?,
            reload: take_all(&mut self.reload)? > 0,
            certificates_changed: None,
        })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

fn take_all(stream: &mut UnixStream) -> io::Result<usize> {
    let mut bytes = [0; 64];
    let mut total = 0;
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(total),
            Ok(count) => total += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(total),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    /// Signals belong to the whole process, so these tests take turns.
    static TURN: Mutex<()> = Mutex::new(());

    fn raise(signal: i32) {
        signal_hook::low_level::raise(signal).expect("a signal to ourselves");
    }

    #[test]
    fn two_requests_to_end_count_as_two_however_close_they_are() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut signals = Signals::new().expect("handlers");
        raise(SIGTERM);
        raise(SIGINT);
        let requests = signals.wait(Duration::from_secs(5)).expect("a look");
        assert_eq!(requests, Requests { end: 2, ..Requests::default() });
    }

    #[test]
    fn hangups_ask_for_one_reload() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut signals = Signals::new().expect("handlers");
        raise(SIGHUP);
        raise(SIGHUP);
        let requests = signals.wait(Duration::from_secs(5)).expect("a look");
        assert_eq!(requests, Requests { reload: true, ..Requests::default() });
        let requests = signals.wait(Duration::ZERO).expect("a look");
        assert_eq!(requests, Requests::default(), "told once");
    }

    #[test]
    fn no_signal_is_no_request() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut signals = Signals::new().expect("handlers");
        assert_eq!(signals.wait(Duration::ZERO).expect("a look"), Requests::default());
    }

    #[test]
    fn a_write_to_a_closed_peer_is_an_error_and_not_an_end() {
        use std::io::Write as _;
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        let error = ours.write_all(b"x").expect_err("the peer is gone");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
