//! Which workers are parked: one bit each, and how to unpark one of them.
#![forbid(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};

/// A bit for each worker that is parked or about to park. Bits are claimed one by one,
/// so that a burst of submissions wakes as many workers, not one of them many times.
#[derive(Debug)]
pub(super) struct IdleWorkers {
    words: Box<[AtomicU64]>,
    threads: Box<[OnceLock<Thread>]>,
}

impl IdleWorkers {
    pub(super) fn new(count: usize) -> Self {
        Self {
            words: (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            threads: (0..count).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The calling thread is worker `index`. To be called once, before [`Self::raise`].
    pub(super) fn register(&self, index: usize) {
        let already = self.threads[index].set(thread::current());
        debug_assert!(already.is_ok(), "worker {index} registers once");
    }

    /// Worker `index` is about to park: from now on it may be unparked.
    pub(super) fn raise(&self, index: usize) {
        self.words[index / 64].fetch_or(1 << (index % 64), Ordering::SeqCst);
    }

    /// Worker `index` is up again, whoever woke it.
    pub(super) fn lower(&self, index: usize) {
        self.words[index / 64].fetch_and(!(1 << (index % 64)), Ordering::SeqCst);
    }

    /// Unparks worker `index`; does nothing, and makes no system call, if it is not parked.
    pub(super) fn wake(&self, index: usize) {
        let (word, bit) = (&self.words[index / 64], 1 << (index % 64));
        if word.load(Ordering::SeqCst) & bit != 0
            && word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
            && let Some(thread) = self.threads[index].get()
        {
            thread.unpark();
        }
    }

    /// Unparks one worker; does nothing, and makes no system call, if none is parked.
    pub(super) fn wake_one(&self) {
        for (word_index, word) in self.words.iter().enumerate() {
            let mut bits = word.load(Ordering::SeqCst);
            while bits != 0 {
                let bit = bits & bits.wrapping_neg();
                if word.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
                    let index = word_index * 64 + bit.trailing_zeros() as usize;
                    if let Some(thread) = self.threads[index].get() {
                        thread.unpark();
                    }
                    return;
                }
                bits = word.load(Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waking_claims_one_worker_at_a_time_lowest_first() {
        let idle = IdleWorkers::new(70);
        idle.raise(3);
        idle.raise(66);
        idle.wake_one();
        assert_eq!(idle.words[0].load(Ordering::SeqCst), 0);
        assert_eq!(idle.words[1].load(Ordering::SeqCst), 1 << 2);
        idle.wake_one();
        idle.wake_one();
        assert_eq!(idle.words[1].load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_woken_worker_returns_from_its_park() {
        let idle = IdleWorkers::new(1);
        thread::scope(|scope| {
            scope.spawn(|| {
                idle.register(0);
                idle.raise(0);
                thread::park();
            });
            while idle.words[0].load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            idle.wake_one();
        });
        assert_eq!(idle.words[0].load(Ordering::SeqCst), 0);
    }
}
