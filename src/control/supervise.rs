//! The control thread's loop, from the last engine's start to its end: signals,
//! reloads, the event log, draining.
//!
//! ```text
//!   running ──first SIGTERM/SIGINT, or an engine failed──▶ leaving   (for `drain_notice`)
//!      │ ▲                                                   │    │
//!      └─┘ SIGHUP, POST /reload, changed certificates        ▼    │
//!                                                        draining │  second signal
//!                                                            │    │
//!                                                            ▼    ▼
//!                                                          stopping ──▶ all engines ended
//! ```
//!
//! Who is leaving says so on `/health` and goes on as before, so that balancers and
//! routers turn new clients away before it does.
//!
//! Engines are reached through [`EngineControl`] only, so the loop is tested without
//! sockets.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::client_rechecks::Rechecked;
use super::event_log::EventLog;
use super::lifecycle::{Lifecycle, Stage};
use super::metrics::control_cells::ControlCells;
use super::metrics::{Certificates, Pools, RevocationListEnd};
use super::reload_requests::{ReloadOutcome, ReloadRequests};
use super::served::{Served, ServedListener};
use super::server_watch::ServerWatch;
use super::session_keys::SessionKeys;
use super::signals::Requests;
use super::watch::Changed;
use crate::clock::Moment;
use crate::tls::certificates::LoadedCertificate;
use crate::upstream::Pool;

/// How long the steps of a drain take.
#[derive(Clone, Copy, Debug)]
pub struct DrainTimes {
    /// From saying so to taking no new connections.
    pub notice: Duration,
    /// From then on, for connections to end by themselves.
    pub limit: Duration,
}

/// How often the loop looks at events and engines when no signal wakes it.
const TICK: Duration = Duration::from_millis(100);

/// The same while draining: the end should not wait for us.
const TICK_AT_END: Duration = Duration::from_millis(10);

/// What an engine is told.
#[derive(Debug)]
pub enum Order<Snapshot> {
    /// New connections use this configuration.
    Reload(Arc<Snapshot>),
    /// Take no new connections, finish those there are, end the rest at the deadline.
    Drain {
        /// When the rest is ended.
        deadline: Moment,
    },
    /// End the sessions of clients that are refused now.
    EndRefused,
    /// End every connection now.
    Stop,
}

/// The way to one engine.
pub trait EngineControl {
    /// The configuration as engines see it.
    type Snapshot;

    /// Hands in an order and wakes the engine.
    ///
    /// # Errors
    /// The order comes back if the engine has no room for it now.
    fn send(&self, order: Order<Self::Snapshot>) -> Result<(), Order<Self::Snapshot>>;
}

/// How much is loaded anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The configuration file and all that it names.
    Everything,
    /// What has changed of the certificates of the configuration in force: somebody may be
    /// at work on the configuration file.
    Certificates(Changed),
}

/// A configuration that was loaded anew.
#[derive(Debug)]
pub struct Reloaded<Snapshot> {
    /// For the engines.
    pub snapshot: Arc<Snapshot>,
    /// For the metrics.
    pub certificates: Vec<Arc<LoadedCertificate>>,
    /// For the metrics as well.
    pub pools: Vec<Arc<Pool>>,
    /// For the metrics too.
    pub revocation_lists: Vec<RevocationListEnd>,
    /// For the page of certificates.
    pub served: Vec<ServedListener>,
    /// How long a drain takes from now on.
    pub drain_times: DrainTimes,
}

/// What loading anew came to.
#[derive(Debug)]
pub struct Attempt<Snapshot> {
    /// What was loaded; `None` if the old configuration must stay.
    pub reloaded: Option<Reloaded<Snapshot>>,
    /// Everything found wrong, a line each. They are in the log already.
    pub findings: Vec<String>,
}

/// How the process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Asked to, by signals.
    AsAsked,
    /// An engine failed; the others were drained.
    EngineFailed,
}

/// Everything the loop works with.
pub struct Supervisor<Control: EngineControl, Reload> {
    /// The running engines.
    pub engines: Vec<RunningEngine<Control>>,
    /// Loads what is asked for anew as the generation given; logs every finding itself.
    pub reload: Reload,
    /// Where the admin thread asks for reloads.
    pub reload_requests: Arc<ReloadRequests>,
    /// Where others read the stage.
    pub lifecycle: Arc<Lifecycle>,
    /// Where the metrics page reads what happened here.
    pub cells: Arc<ControlCells>,
    /// Where the metrics page reads the certificates.
    pub certificates: Arc<Certificates>,
    /// Where it reads the pools.
    pub pools: Arc<Pools>,
    /// Takes servers of the pools in force out and in again.
    pub servers: ServerWatch,
    /// Where the page of certificates reads them.
    pub served: Arc<Served>,
    /// Ticket keys, which change with time and with their files.
    pub session_keys: SessionKeys,
    /// Checks the clients that are here already, every turn; given what was put in force
    /// since the last.
    pub recheck_clients: RecheckClients<Control::Snapshot>,
    /// Tells, every turn, whether names stand for other servers now.
    pub renew_pools: RenewPools<Control::Snapshot>,
    /// Writes what engines report.
    pub event_log: EventLog,
    /// How long a drain takes.
    pub drain_times: DrainTimes,
}

/// Checks the clients of established sessions, for a while.
pub type RecheckClients<Snapshot> = Box<dyn FnMut(Option<&Arc<Snapshot>>) -> Rechecked>;

/// Makes a snapshot in which the pools are others, and nothing else.
pub type RenewPools<Snapshot> = Box<dyn FnMut() -> Option<Renewed<Snapshot>>>;

/// A configuration whose names stand for other servers now.
#[derive(Debug)]
pub struct Renewed<Snapshot> {
    /// For the engines.
    pub snapshot: Arc<Snapshot>,
    /// For the metrics.
    pub pools: Vec<Arc<Pool>>,
}

/// An engine's thread and the way to it.
pub struct RunningEngine<Control: EngineControl> {
    control: Control,
    thread: Option<JoinHandle<io::Result<()>>>,
    /// Orders that the engine had no room for; at most one of each kind.
    waiting: VecDeque<Order<Control::Snapshot>>,
}

impl<Control: EngineControl> RunningEngine<Control> {
    /// The engine on `thread`, reached by `control`.
    pub fn new(control: Control, thread: JoinHandle<io::Result<()>>) -> Self {
        Self { control, thread: Some(thread), waiting: VecDeque::new() }
    }

    fn order(&mut self, order: Order<Control::Snapshot>) {
        // A newer order of the same kind replaces one that was not taken yet.
        let kind = std::mem::discriminant(&order);
        self.waiting.retain(|waiting| std::mem::discriminant(waiting) != kind);
        self.waiting.push_back(order);
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        while let Some(order) = self.waiting.pop_front() {
            if let Err(order) = self.control.send(order) {
                self.waiting.push_front(order);
                return;
            }
        }
    }

    /// How the thread ended, told once; `None` while it runs.
    fn ended(&mut self) -> Option<Result<(), String>> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        Some(match thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it panicked".to_owned()),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Leaving { accepting_until: Moment },
    Draining,
    Stopping,
}

impl<Control, Reload> Supervisor<Control, Reload>
where
    Control: EngineControl,
    Reload: FnMut(Scope, u64) -> Attempt<Control::Snapshot>,
{
    /// Runs until every engine has ended. `wait` waits at most the time given for a
    /// signal.
    pub fn run(mut self, mut wait: impl FnMut(Duration) -> io::Result<Requests>) -> Ended {
        let mut phase = Phase::Running;
        let mut result = Ended::AsAsked;
        self.note_generation(1);
        self.cells.last_reload_succeeded.set(1);
        // Before anybody reads the metrics: an alarm would be raised by the zeros.
        self.session_keys.look_after(&self.cells);
        self.lifecycle.enter(Stage::Accepting);
        let mut clients_pending = false;
        loop {
            let tick = match phase {
                _ if clients_pending => Duration::ZERO,
                Phase::Running => TICK,
                Phase::Leaving { accepting_until } => {
                    accepting_until.since(Moment::now()).clamp(TICK_AT_END, TICK)
                }
                Phase::Draining | Phase::Stopping => TICK_AT_END,
            };
            let requests = wait(tick).unwrap_or_else(|error| {
                // poll(2) fails for want of kernel memory only.
                tracing::error!(%error, "cannot wait for signals");
                std::thread::sleep(tick);
                Requests::default()
            });
            self.event_log.drain(Moment::now());
            let dropped = self.event_log.dropped();
            self.cells.events_dropped.add(dropped - self.cells.events_dropped.value());

            self.session_keys.look_after(&self.cells);
            self.servers.look(&self.cells, Moment::now());
            clients_pending = self.recheck_clients(None);
            let asked = self.reload_requests.take();
            if requests.reload || asked {
                let outcome = self.reload(phase, Scope::Everything);
                self.reload_requests.answer(outcome);
            } else if let Some(changed) = requests.certificates_changed
                && phase == Phase::Running
            {
                self.reload(phase, Scope::Certificates(changed));
            }
            self.renew_pools();
            for _ in 0..requests.end {
                phase = self.end(phase);
            }
            if let Phase::Leaving { accepting_until } = phase
                && Moment::now() >= accepting_until
            {
                phase = self.drain();
            }
            if self.look_after_engines(phase) == Engines::OneFailed {
                result = Ended::EngineFailed;
                if phase == Phase::Running {
                    phase = self.end(phase);
                }
            }
            if self.engines.iter().all(|engine| engine.thread.is_none()) {
                self.event_log.drain(Moment::now());
                return result;
            }
        }
    }

    fn reload(&mut self, phase: Phase, scope: Scope) -> ReloadOutcome {
        let in_force = self.cells.snapshot_generation.value();
        let refused = |findings| ReloadOutcome { succeeded: false, generation: in_force, findings };
        if phase != Phase::Running {
            tracing::warn!("reload refused: the process is draining");
            return refused(vec!["the process is draining: start it anew".to_owned()]);
        }
        let generation = in_force + 1;
        let Attempt { reloaded, findings } = (self.reload)(scope, generation);
        let Some(reloaded) = reloaded else {
            self.cells.reloads_failed.increment();
            self.cells.last_reload_succeeded.set(0);
            tracing::error!("reload refused: the configuration in force stays as it is");
            return refused(findings);
        };
        for engine in &mut self.engines {
            engine.order(Order::Reload(Arc::clone(&reloaded.snapshot)));
        }
        self.servers.replace(&reloaded.pools, Moment::now());
        self.pools.replace(reloaded.pools);
        self.recheck_clients(Some(&reloaded.snapshot));
        self.certificates.replace(reloaded.certificates, reloaded.revocation_lists);
        self.served.replace(reloaded.served);
        self.drain_times = reloaded.drain_times;
        self.note_generation(generation);
        self.cells.reloads_succeeded.increment();
        self.cells.last_reload_succeeded.set(1);
        tracing::info!(generation, "reloaded: new connections use the new configuration");
        ReloadOutcome { succeeded: true, generation, findings }
    }

    /// Puts pools in force whose names stand for other servers now. The configuration is the
    /// same: this is no reload.
    fn renew_pools(&mut self) {
        let Some(Renewed { snapshot, pools }) = (self.renew_pools)() else { return };
        for engine in &mut self.engines {
            engine.order(Order::Reload(Arc::clone(&snapshot)));
        }
        self.servers.replace(&pools, Moment::now());
        self.pools.replace(pools);
    }

    /// Whether there are more to check.
    fn recheck_clients(&mut self, reloaded: Option<&Arc<Control::Snapshot>>) -> bool {
        let Rechecked { refused, pending } = (self.recheck_clients)(reloaded);
        if refused > 0 {
            for engine in &mut self.engines {
                engine.order(Order::EndRefused);
            }
            tracing::warn!(
                clients = refused,
                "clients with established sessions are refused now: their connections end"
            );
        }
        pending
    }

    fn note_generation(&self, generation: u64) {
        self.cells.snapshot_generation.set(generation);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.cells.snapshot_loaded_unix_seconds.set(now.as_secs());
    }

    /// Goes one step towards the end.
    fn end(&mut self, phase: Phase) -> Phase {
        match phase {
            Phase::Running => {
                self.lifecycle.enter(Stage::Draining);
                self.cells.draining.set(1);
                let notice = self.drain_times.notice;
                if notice.is_zero() {
                    return self.drain();
                }
                tracing::info!(
                    seconds = notice.as_secs_f64(),
                    "leaving: /health says so, and new connections are still served; \
                     a second signal stops at once"
                );
                Phase::Leaving { accepting_until: Moment::now().after(notice) }
            }
            Phase::Leaving { .. } | Phase::Draining => {
                for engine in &mut self.engines {
                    engine.order(Order::Stop);
                }
                tracing::warn!("stopping at once: open connections are cut");
                Phase::Stopping
            }
            Phase::Stopping => Phase::Stopping,
        }
    }

    /// Takes no new connections from now on.
    fn drain(&mut self) -> Phase {
        let limit = self.drain_times.limit;
        let deadline = Moment::now().after(limit);
        for engine in &mut self.engines {
            engine.order(Order::Drain { deadline });
        }
        tracing::info!(
            seconds_at_most = limit.as_secs_f64(),
            "draining: no new connections; a second signal stops at once"
        );
        Phase::Draining
    }

    /// Sends what waits and notices who has ended.
    fn look_after_engines(&mut self, phase: Phase) -> Engines {
        let mut engines = Engines::Fine;
        for (number, engine) in self.engines.iter_mut().enumerate() {
            engine.send_waiting();
            match engine.ended() {
                None => {}
                Some(Ok(())) if matches!(phase, Phase::Draining | Phase::Stopping) => {}
                Some(Ok(())) => {
                    engines = Engines::OneFailed;
                    tracing::error!(engine = number, "an engine ended unasked");
                }
                Some(Err(error)) => {
                    engines = Engines::OneFailed;
                    tracing::error!(
                        engine = number,
                        error,
                        "an engine failed: its connections are lost, the others are drained"
                    );
                }
            }
        }
        engines
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Engines {
    Fine,
    OneFailed,
}

#[cfg(test)]
mod tests;
