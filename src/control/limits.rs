//! What the process may have: descriptors (RLIMIT_NOFILE), and with them connections,
//! and memory that is not swapped (RLIMIT_MEMLOCK).
//!
//! Each proxied connection is two descriptors. The soft limit is raised to the hard
//! one at start; if that is still too low for the configured number of connections,
//! the number is lowered, and the log says so before the first client is refused.

#![forbid(unsafe_code)]

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::driver::memory;
use crate::switch::Switch;

/// Descriptors for everything that is not a proxied connection and not counted in
/// [`Reserve`]: standard streams, the log, signals, the admin address, checks of servers,
/// questions to nameservers, files read at reload.
const DESCRIPTORS_OF_CONTROL: u64 = 128;

/// Descriptors that each engine has beside its listeners: the ring, its doorbell, and
/// connections that it accepts in one go just to refuse them.
const DESCRIPTORS_PER_ENGINE: u64 = 32;

/// Why the process cannot hold a useful number of connections.
#[derive(Debug, thiserror::Error)]
#[error(
    "RLIMIT_NOFILE is {limit}, and {reserved} descriptors are needed before the first connection: \
     raise it (systemd: LimitNOFILE=1048576; shell: ulimit -n; container: --ulimit nofile=…)"
)]
pub struct TooFewDescriptors {
    /// The limit in force.
    pub limit: u64,
    /// What is needed beside connections.
    pub reserved: u64,
}

/// What takes descriptors beside connections.
#[derive(Clone, Copy, Debug)]
pub struct Reserve {
    /// Engine threads.
    pub engines: usize,
    /// Listening addresses; each engine has a socket for each.
    pub listeners: usize,
}

impl Reserve {
    fn descriptors(self) -> u64 {
        let (engines, listeners) = (self.engines as u64, self.listeners as u64);
        DESCRIPTORS_OF_CONTROL + engines * (DESCRIPTORS_PER_ENGINE + listeners)
    }

    /// The limit on descriptors that lets `connections` be open beside this.
    pub fn descriptors_for(self, connections: usize) -> u64 {
        // Rounded up to an equal share of each engine, as `connection_limit` does.
        let per_engine = connections.div_ceil(self.engines.max(1));
        self.descriptors() + 2 * (per_engine * self.engines.max(1)) as u64
    }
}

/// How many connections there can be, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// Connections of the whole process; the same share for each engine.
    pub connections_max: usize,
    /// Connections of each engine.
    pub per_engine: usize,
    /// What was configured, if it had to be lowered.
    pub lowered_from: Option<usize>,
    /// The descriptor limit in force.
    pub descriptors: u64,
}

/// Raises the soft limit on descriptors as far as the process may, and returns what is
/// in force then.
pub fn raise_descriptor_limit() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let soft = before.current.unwrap_or(u64::MAX);
    // "Unlimited" still ends at fs.nr_open (proc_sys_fs(5)).
    let hard = before.maximum.unwrap_or(u64::MAX).min(descriptors_per_process_max());
    if hard > soft {
        let raised = Rlimit { current: Some(hard), maximum: before.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            let error = io::Error::from(error);
            tracing::warn!(%error, soft, hard, "cannot raise the soft limit of RLIMIT_NOFILE");
            return soft;
        }
        return hard;
    }
    soft
}

fn descriptors_per_process_max() -> u64 {
    let text = fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    // The kernel's default where /proc is missing.
    text.trim().parse().unwrap_or(1_048_576)
}

/// Settles the number of connections: what is configured, or what the descriptors
/// allow if that is less.
///
/// # Errors
/// The limit does not leave one connection for each engine.
pub fn connection_limit(
    configured: usize,
    descriptors: u64,
    reserve: Reserve,
) -> Result<ConnectionLimit, TooFewDescriptors> {
    let reserved = reserve.descriptors();
    let engines = reserve.engines.max(1);
    let possible = descriptors.saturating_sub(reserved) / 2;
    let possible = usize::try_from(possible).unwrap_or(usize::MAX);
    if possible < engines {
        return Err(TooFewDescriptors { limit: descriptors, reserved });
    }
    // The configured number is rounded up to an equal share, what is possible down.
    let per_engine = configured.div_ceil(engines).clamp(1, possible / engines);
    let lowered_from = (configured > possible).then_some(configured);
    Ok(ConnectionLimit {
        connections_max: per_engine * engines,
        per_engine,
        lowered_from,
        descriptors,
    })
}

impl ConnectionLimit {
    /// Says in the log what the limit is and where it comes from.
    pub fn log(&self) {
        let Self { connections_max, per_engine, lowered_from, descriptors } = *self;
        if let Some(configured) = lowered_from {
            tracing::warn!(
                connections_max,
                configured,
                rlimit_nofile = descriptors,
                "RLIMIT_NOFILE allows fewer connections than configured: lowered; raise it \
                 (systemd: LimitNOFILE=) or lower `max_connections`"
            );
        } else {
            tracing::info!(
                connections_max,
                per_engine,
                rlimit_nofile = descriptors,
                "connection limit settled"
            );
        }
    }
}

/// Memory was to be locked and cannot be.
#[derive(Debug, thiserror::Error)]
#[error(
    "engine.lock_memory = \"on\", and memory cannot be locked: {source} (RLIMIT_MEMLOCK is \
     {limit}); let it be unlimited (systemd: LimitMEMLOCK=infinity; shell: ulimit -l unlimited; \
     container: --ulimit memlock=-1) or give CAP_IPC_LOCK, or write \"auto\""
)]
pub struct MemoryNotLocked {
    source: io::Error,
    limit: String,
}

/// Keeps all memory out of swap, as `wanted`. Returns whether it is.
///
/// # Errors
/// It was asked for and cannot be had.
pub fn lock_memory(wanted: Switch) -> Result<bool, MemoryNotLocked> {
    if wanted == Switch::Off {
        return Ok(false);
    }
    let limit = raise_locked_memory_limit();
    match memory::lock_all(limit) {
        Ok(()) => Ok(true),
        Err(_) if wanted == Switch::Auto => Ok(false),
        Err(source) => {
            let limit = limit.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
            Err(MemoryNotLocked { source, limit })
        }
    }
}

/// Raises the soft limit as far as the process may; what is in force then, in bytes.
fn raise_locked_memory_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Memlock);
    let raised = Rlimit { current: maximum, maximum };
    if current != maximum && setrlimit(Resource::Memlock, raised).is_ok() {
        return maximum;
    }
    current
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVE: Reserve = Reserve { engines: 4, listeners: 2 };

    #[test]
    fn the_configured_number_stands_when_descriptors_allow() {
        let limit = connection_limit(100_000, 1_048_576, RESERVE).expect("enough");
        assert_eq!(limit.connections_max, 100_000);
        assert_eq!(limit.per_engine, 25_000);
        assert_eq!(limit.lowered_from, None);
    }

    #[test]
    fn each_connection_takes_two_descriptors_of_what_the_reserve_leaves() {
        let limit = connection_limit(100_000, 20_000, RESERVE).expect("enough");
        let reserved = 128 + 4 * (32 + 2);
        assert_eq!(limit.connections_max as u64, (20_000 - reserved) / 2 / 4 * 4);
        assert_eq!(limit.lowered_from, Some(100_000));
    }

    #[test]
    fn every_engine_has_the_same_share() {
        let limit = connection_limit(10, 1_048_576, RESERVE).expect("enough");
        assert_eq!((limit.per_engine, limit.connections_max), (3, 12), "rounded up");
        let limit = connection_limit(100, 290, RESERVE).expect("enough");
        assert_eq!((limit.per_engine, limit.connections_max), (3, 12), "13 are possible");
    }

    #[test]
    fn too_few_descriptors_are_an_error_that_says_what_to_raise() {
        let error = connection_limit(1_000, 256, RESERVE).expect_err("too few");
        let text = error.to_string();
        assert!(text.contains("RLIMIT_NOFILE is 256"), "{text}");
        assert!(text.contains("LimitNOFILE"), "{text}");
    }

    #[test]
    fn raising_never_lowers_and_reaches_what_is_allowed() {
        let before = getrlimit(Resource::Nofile);
        let limit = raise_descriptor_limit();
        assert!(limit >= before.current.unwrap_or(0));
        assert_eq!(getrlimit(Resource::Nofile).current, Some(limit));
        assert_eq!(raise_descriptor_limit(), limit, "again changes nothing");
    }
}
