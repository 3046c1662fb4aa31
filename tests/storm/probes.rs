//! How long a KiB takes there and back on connections that are established.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::support::tls_client::{self, TlsStream};

const PROBES: u64 = 8;

/// From one KiB to the next on one connection.
const INTERVAL: Duration = Duration::from_millis(5);

pub(crate) struct Probes(Vec<TlsStream>);

impl Probes {
    /// Connects all of them.
    pub(crate) fn connect(address: SocketAddr, name: &str) -> Self {
        let connect = |_| {
            let mut tls = tls_client::connect(Arc::new(tls_client::config()), address, name);
            round_trip(&mut tls);
            tls
        };
        Self((0..PROBES).map(connect).collect())
    }

    /// Sends on all of them while `what` runs; round trips in nanoseconds.
    pub(crate) fn during<T>(&mut self, what: impl FnOnce() -> T) -> (Histogram<u64>, T) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let over = &over;
            let threads: Vec<_> = self
                .0
                .iter_mut()
                .enumerate()
                .map(|(number, tls)| {
                    scope.spawn(move || {
                        thread::sleep(INTERVAL * number as u32 / PROBES as u32);
                        probe(tls, over)
                    })
                })
                .collect();
            let result = what();
            over.store(true, Ordering::Relaxed);
            let mut all = empty();
            for thread in threads {
                all.add(thread.join().expect("the probe got through")).expect("same bounds");
            }
            (all, result)
        })
    }
}

fn probe(tls: &mut TlsStream, over: &AtomicBool) -> Histogram<u64> {
    let mut times = empty();
    while !over.load(Ordering::Relaxed) {
        let time = round_trip(tls);
        // Those that were not sent because this one was late would have been late too.
        times
            .record_correct(time.as_nanos() as u64, INTERVAL.as_nanos() as u64)
            .expect("within the bounds");
        thread::sleep(INTERVAL.saturating_sub(time));
    }
    times
}

fn round_trip(tls: &mut TlsStream) -> Duration {
    let text = [b'?'; 1_024];
    let begin = Instant::now();
    tls.write_all(&text).expect("sent");
    tls.flush().expect("sent");
    let mut back = [0; 1_024];
    tls.read_exact(&mut back).expect("echoed");
    assert_eq!(back, text);
    begin.elapsed()
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("bounds")
}
