//! An innocent connection that exchanges all the while, to show that others' troubles
//! are not its own.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::forebay::PATIENCE;
use super::{payload, tls_client};

/// A running connection to an echo server.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    /// Connects to `address`, behind which an echo server must be.
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicU64::new(0));
        let thread = thread::spawn({
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            move || exchange(address, &stop, &rounds)
        });
        let bystander = Self { stop, rounds, thread: Some(thread) };
        bystander.goes_on();
        bystander
    }

    /// Waits until more was exchanged than before.
    pub fn goes_on(&self) {
        let begin = Instant::now();
        let before = self.rounds.load(Ordering::Relaxed);
        while self.rounds.load(Ordering::Relaxed) < before + 2 {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!ended, "the bystander's connection failed");
            assert!(begin.elapsed() < PATIENCE, "the bystander's connection stalls");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Bystander {
    /// Ends the connection in order.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the bystander's connection failed");
        }
    }
}

fn exchange(address: SocketAddr, stop: &AtomicBool, rounds: &AtomicU64) {
    const BYTES: usize = 3_000;
    let mut stream = tls_client::connect(Arc::new(tls_client::config()), address, "bystander.test");
    stream.sock.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut position = 0;
    while !stop.load(Ordering::Relaxed) {
        let sent = &payload::piece(1, position)[..BYTES];
        let mut back = [0; BYTES];
        stream.write_all(sent).expect("write");
        stream.read_exact(&mut back).expect("read");
        assert_eq!(sent, back, "another's bytes");
        position += BYTES as u64;
        rounds.fetch_add(1, Ordering::Relaxed);
        // Not busy enough to slow the others down.
        thread::sleep(Duration::from_millis(5));
    }
    stream.conn.send_close_notify();
    stream.flush().expect("flush");
    assert_eq!(stream.read(&mut [0]).expect("close_notify"), 0);
}
