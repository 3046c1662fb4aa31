//! What the clients of a thread are to do, and when.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use signal_hook::flag;

use crate::http::Request;
use crate::tally::Window;

/// What one operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A connection: opened, used once if there is a request, and ended.
    Connection,
    /// A request on a connection that stays.
    Exchange,
    /// None: connections are opened and kept.
    Hold,
}

/// How a client that is done leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Close {
    /// Say close_notify and wait for the server's end: the connection is complete on both
    /// sides, and session tickets have come
    #[default]
    Wait,
    /// Say close_notify and close at once
    Leave,
    /// Reset the connection: leaves no port waiting on either side
    Reset,
}

/// What clients do.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) purpose: Purpose,
    /// Clients at once; connections that are kept.
    pub(crate) connections: usize,
    /// What an exchange is; for connections and held ones: what each begins with.
    pub(crate) request: Option<Request>,
    /// Bytes that each connection begins with.
    pub(crate) greeting_bytes: u64,
    pub(crate) close: Close,
    /// From when an operation is due until its client gives up.
    pub(crate) timeout: Duration,
    /// Operations a second of all threads; `None` in a closed loop.
    pub(crate) rate: Option<f64>,
}

/// When to begin, what to measure, when to end. The same for all threads.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) begin: Instant,
    pub(crate) windows: Vec<Window>,
    /// No operation is begun from then on.
    pub(crate) stop: Instant,
    /// Operations that are still to be begun in the first window; `None`: as many as fit.
    pub(crate) budget: Option<Arc<AtomicI64>>,
}

impl Schedule {
    /// Takes one operation from the budget; true if there was one.
    pub(crate) fn claim(&self) -> bool {
        self.budget.as_ref().is_none_or(|budget| budget.fetch_sub(1, Ordering::Relaxed) > 0)
    }

    /// Whether a budget there is has been used up.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.load(Ordering::Relaxed) <= 0)
    }

    /// The window that the moment lies in.
    pub(crate) fn window_at(&self, moment: Instant) -> Option<usize> {
        self.windows.iter().position(|window| window.contains(moment))
    }
}

/// Set when the user wants the run to end: what was measured until then is reported.
static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Lets Ctrl-C end a run early; a second one ends the program at once.
///
/// # Errors
/// The kernel takes no handler.
pub(crate) fn handle_interrupts() -> io::Result<()> {
    flag::register_conditional_default(libc::SIGINT, Arc::clone(&INTERRUPTED))?;
    flag::register(libc::SIGINT, Arc::clone(&INTERRUPTED))?;
    Ok(())
}

pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
