//! What a loop has done and what it cost.

use std::fmt;
use std::time::Duration;

/// Calls of one kind of cryptography. Every [`SAMPLE`]th is timed: reading the thread's
/// CPU clock is a system call of its own.
#[derive(Debug, Default)]
pub(super) struct Clock {
    calls: u64,
    timed: u64,
    spent: Duration,
}

const SAMPLE: u64 = 8;

impl Clock {
    pub(super) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        self.calls += 1;
        if self.calls % SAMPLE != 1 {
            return work();
        }
        let begin = thread_cpu();
        let result = work();
        // The clock's own cost is in the difference once.
        self.spent += thread_cpu().saturating_sub(begin).saturating_sub(clock_cost());
        self.timed += 1;
        result
    }

    fn total(&self) -> Duration {
        if self.timed == 0 {
            return Duration::ZERO;
        }
        self.spent.mul_f64(self.calls as f64 / self.timed as f64)
    }
}

/// CPU time of cryptography, by what it was for.
#[derive(Debug, Default)]
pub(super) struct Crypto {
    /// The step that answers the ClientHello: key exchange and signature.
    pub(super) hello: Clock,
    /// The step that takes the client's Finished, makes a ticket and the keys.
    pub(super) finished: Clock,
    pub(super) open: Clock,
    pub(super) seal: Clock,
}

impl Crypto {
    pub(super) fn total(&self) -> Duration {
        self.hello.total() + self.finished.total() + self.open.total() + self.seal.total()
    }
}

/// What a loop has done since it last reported.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) accepted: u64,
    pub(super) established: u64,
    /// Sends to the server, and bytes in them.
    pub(super) up_sends: u64,
    pub(super) up_bytes: u64,
    /// Sends to the client of what the server has sent.
    pub(super) down_sends: u64,
    pub(super) down_bytes: u64,
    /// Calls that entered the kernel to wait or to submit.
    pub(super) enters: u64,
    pub(super) crypto: Crypto,
    began: Duration,
    began_usage: (Duration, Duration),
}

impl Default for Work {
    fn default() -> Self {
        Self {
            accepted: 0,
            established: 0,
            up_sends: 0,
            up_bytes: 0,
            down_sends: 0,
            down_bytes: 0,
            enters: 0,
            crypto: Crypto::default(),
            began: thread_cpu(),
            began_usage: thread_usage(),
        }
    }
}

/// What [`Work`] cost this thread.
#[derive(Debug)]
pub(super) struct Cost {
    pub(super) total: Duration,
    pub(super) crypto: Duration,
    pub(super) user: Duration,
    pub(super) system: Duration,
}

impl Work {
    pub(super) fn cost(&self) -> Cost {
        let (user, system) = thread_usage();
        Cost {
            total: thread_cpu() - self.began,
            crypto: self.crypto.total(),
            user: user - self.began_usage.0,
            system: system - self.began_usage.1,
        }
    }
}

impl fmt::Display for Work {
    /// One line: what was done, what it cost, and that for each operation of the kind
    /// that there was most of.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { total, crypto, user, system } = self.cost();
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        write!(
            formatter,
            "{} connections ({} handshakes), {} sends up ({:.0} MB), {} down ({:.0} MB), \
             {} enters; CPU {:.1} ms: crypto {:.1}, the rest {:.1} (user {:.1}, system {:.1})",
            self.accepted,
            self.established,
            self.up_sends,
            self.up_bytes as f64 / 1e6,
            self.down_sends,
            self.down_bytes as f64 / 1e6,
            self.enters,
            ms(total),
            ms(crypto),
            ms(total.saturating_sub(crypto)),
            ms(user),
            ms(system),
        )?;
        let bytes = self.up_bytes + self.down_bytes;
        let (what, count) = if bytes > 100_000 * self.down_sends.max(1) / 4 {
            ("ms/GB", bytes as f64 / 1e6)
        } else if self.down_sends > 4 * self.accepted {
            ("µs per request", self.down_sends as f64)
        } else {
            ("µs per connection", self.accepted.max(1) as f64)
        };
        let each = |duration: Duration| duration.as_secs_f64() * 1e6 / count;
        write!(
            formatter,
            "; {:.2} {what}: crypto {:.2}, the rest {:.2}",
            each(total),
            each(crypto),
            each(total.saturating_sub(crypto)),
        )
    }
}

/// CPU time of this thread, user and system.
#[allow(unsafe_code)]
pub(super) fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which the call fills in.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// User and system time of this thread, split by the kernel's tick.
#[allow(unsafe_code)]
fn thread_usage() -> (Duration, Duration) {
    // SAFETY: an all-zero rusage is a valid one, and the call fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    (time(usage.ru_utime), time(usage.ru_stime))
}

/// What one reading of the thread's CPU clock costs, found out once.
fn clock_cost() -> Duration {
    use std::sync::OnceLock;
    static COST: OnceLock<Duration> = OnceLock::new();
    *COST.get_or_init(|| {
        const READINGS: u32 = 1_000;
        let begin = thread_cpu();
        for _ in 1..READINGS {
            thread_cpu();
        }
        (thread_cpu() - begin) / READINGS
    })
}
