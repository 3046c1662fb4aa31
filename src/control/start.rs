//! Start: from settings to running threads, in an order that fails early and says why.
//!
//! ```text
//!   settings ─▶ CPUs, descriptors, locked memory ─▶ certificates, pools
//!            ─▶ sockets, admin address
//!            ─▶ workers ─▶ engines, each pinned before it takes its memory
//!            ─▶ all ready ─▶ admin served ─▶ supervise
//! ```

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tracing_appender::non_blocking::ErrorCounter;

use super::admin::{self, AdminError, AdminListener, AdminServer, Pages as AdminPages};
use super::capacity::Capacity;
use super::certificate_index::IndexKeeper;
use super::client_rechecks::ClientRechecks;
use super::cpus::{self, CpuNotAllowed, Placement};
use super::event_log::EventLog;
use super::lifecycle::Lifecycle;
use super::limits::{self, ConnectionLimit, MemoryNotLocked, TooFewDescriptors};
use super::listeners::{self, ListenError, Listening};
use super::metrics::{Certificates, Page, Pools, Sizes, Sources};
use super::prepare::{self, Bound, CertificateSource, Preparer};
use super::prober::Prober;
use super::reload::{self, Reloader};
use super::reload_requests::ReloadRequests;
use super::served::Served;
use super::server_watch::ServerWatch;
use super::session_keys::SessionKeys;
use super::signals::Signals;
use super::supervise::{Ended, EngineControl, Order, Renewed, RunningEngine, Supervisor};
use super::switches;
use super::watch::Watch;
use crate::clock::Moment;
use crate::config::{EngineSettings, Finding, Settings};
use crate::driver::memory::Pages;
use crate::driver::ring::{
    ACCEPTS_IN_FLIGHT, BUFFERS_MAX, Capabilities, Doorbell, RingDriver, RingSettings, SetupError,
};
use crate::driver::{BUFFER_BYTES, Token, scheduling};
use crate::engine::events::{EventSink, event_queue};
use crate::engine::metrics::EngineMetrics;
use crate::engine::snapshot::Snapshot;
use crate::engine::{Command, CommandQueue, Engine, Limits, Ways};
use crate::handshake::HandshakeService;
use crate::handshake::inline::InlineService;
use crate::handshake::scheduler::SchedulerSettings;
use crate::handshake::workers::{EngineLink, WakeEngine, Workers, WorkersSettings};

/// Whatever the configuration lets through, a driver can number.
const _: () = {
    assert!(EngineSettings::BUFFERS_MAX + EngineSettings::LARGE_BUFFERS_MAX <= BUFFERS_MAX);
    assert!(EngineSettings::CONNECTIONS_MAX <= Token::SLOT_LIMIT as usize);
};

/// Why the process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used: {} findings", .0.len())]
    Configuration(Vec<Finding>),
    /// See [`CpuNotAllowed`].
    #[error(transparent)]
    Cpu(#[from] CpuNotAllowed),
    /// See [`TooFewDescriptors`].
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// See [`MemoryNotLocked`].
    #[error(transparent)]
    Memory(#[from] MemoryNotLocked),
    /// See [`ListenError`].
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// See [`AdminError`].
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// An engine's ring cannot be had.
    #[error("engine {engine}: {source}")]
    Ring {
        /// The engine's number.
        engine: usize,
        /// What to change.
        source: SetupError,
    },
    /// An engine's thread ended before it was ready.
    #[error("engine {0} ended while starting")]
    EngineLost(usize),
    /// Threads, signal handlers or descriptors cannot be had.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// What a start begins with.
#[derive(Debug)]
pub struct Start {
    /// Checked settings.
    pub settings: Settings,
    /// Where the certificates come from.
    pub certificates: CertificateSource,
    /// The file to read again on SIGHUP; `None` refuses reloads.
    pub file: Option<PathBuf>,
    /// The log's count of dropped lines, for the metrics.
    pub log_lines_dropped: Option<ErrorCounter>,
}

/// Everything that runs, until [`Running::run`] returns.
pub struct Running {
    supervisor: Supervisor<ToEngine, Reloader>,
    signals: Signals,
    watch: Rc<RefCell<Watch>>,
    admin: Option<AdminServer>,
    /// Dropped last: engines may wait for steps until they end.
    workers: Option<Workers>,
    addresses: Vec<std::net::SocketAddr>,
}

impl Running {
    /// The addresses listened on, in the order of the settings.
    pub fn addresses(&self) -> &[std::net::SocketAddr] {
        &self.addresses
    }

    /// The admin address, if there is one.
    pub fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(AdminServer::address)
    }

    /// Runs until the process is told to end, or an engine fails.
    pub fn run(self) -> Ended {
        let Self { supervisor, mut signals, watch, admin, workers, .. } = self;
        let ended = supervisor.run(|timeout| {
            let mut requests = signals.wait(timeout)?;
            requests.certificates_changed = watch.borrow_mut().changed(Instant::now());
            Ok(requests)
        });
        drop(workers);
        drop(admin);
        tracing::info!("ended");
        ended
    }
}

/// Starts everything. On an error nothing is left running.
///
/// # Errors
/// See [`StartError`]; each says what to change.
pub fn start(start: Start) -> Result<Running, StartError> {
    let Start { settings, certificates, file, log_lines_dropped } = start;
    // First, so that a signal during the start is not lost.
    let signals = Signals::new()?;

    let placement = place(&settings)?;
    let bound = prepare::addresses(&settings);
    let limit = settle_connections(&settings, &placement, bound.len())?;
    // Before the keys are read.
    let memory_locked = limits::lock_memory(settings.engine.lock_memory)?;

    let session_keys = SessionKeys::default();
    let watch = Rc::new(RefCell::new(Watch::default()));
    if file.is_some() {
        watch.borrow_mut().set(prepare::certificate_places(&settings));
    }
    let mut preparer =
        Preparer::new(certificates, session_keys.clone()).for_engines(placement.engines.len());
    let index = settings.tls.certificate_index.as_ref();
    let index = index.map(|place| IndexKeeper::new(place.value.clone()));
    if let Some(index) = &index {
        preparer = preparer.with_index(index.read());
    }
    let (prepared, findings) = preparer.prepare(&settings, &bound, 1);
    let Some(prepared) = prepared else { return Err(StartError::Configuration(findings)) };
    let pool_maker = preparer.pools();
    pool_maker.borrow_mut().put_in_force(&settings, &prepared.snapshot);
    reload::log_findings(&findings);
    reload::keep_index(index.as_ref(), &mut preparer);
    reload::log_findings(&switches::check(&settings, &placement));

    let backlog = i32::from(settings.engine.backlog);
    let listening: Vec<Listening<'_>> = bound
        .iter()
        .map(|Bound { address, name }| Listening { name, address: *address, backlog })
        .collect();
    let listeners = listeners::listen(&listening, placement.engines.len())?;
    switches::steer(settings.engine.steer, &listeners, &placement);
    let admin_listener = match &settings.admin.address {
        Some(address) => Some(AdminListener::bind(address.value)?),
        None => None,
    };

    let capacity = Capacity::measure(
        &settings.handshake,
        settings.tls.provider,
        &prepared.snapshot,
        placement.engines.len(),
        placement.workers.len(),
    );
    let plan = Plan {
        settings: &settings,
        placement: &placement,
        limit,
        memory_locked,
        snapshot: &prepared.snapshot,
        capacity: &capacity,
    };
    let mut ways = Vec::new();
    let mut event_sources = Vec::new();
    for sockets in listeners.of_engines {
        let (events, source) = event_queue();
        event_sources.push(source);
        ways.push(Beginning {
            sockets,
            doorbell: Arc::new(Doorbell::new()?),
            commands: CommandQueue::default(),
            metrics: Arc::new(EngineMetrics::default()),
            events,
        });
    }
    let engine_metrics: Vec<_> = ways.iter().map(|way| Arc::clone(&way.metrics)).collect();
    let (workers, worker_metrics, engines) = if placement.workers.is_empty() {
        let services: Vec<_> = (0..ways.len()).map(|engine| plan.inline_service(engine)).collect();
        let metrics = services.iter().map(|service| Arc::clone(service.metrics())).collect();
        (None, metrics, plan.start_engines(ways, services)?)
    } else {
        let links = ways
            .iter()
            .map(|way| EngineLink {
                credits: plan.credits(),
                wake: Arc::new(RingsDoorbell(Arc::clone(&way.doorbell))),
            })
            .collect();
        let (workers, services) = Workers::start(&plan.workers_settings(), links)?;
        let metrics = workers.metrics().to_vec();
        (Some(workers), metrics, plan.start_engines(ways, services)?)
    };

    let lifecycle = Arc::new(Lifecycle::default());
    let certificates = Arc::new(Certificates::default());
    let pools = Arc::new(Pools::default());
    certificates.replace(prepared.certificates, prepared.revocation_lists);
    let served = Arc::new(Served::default());
    served.replace(prepared.served);
    let sources = Sources {
        sizes: plan.sizes(),
        engines: engine_metrics,
        workers: worker_metrics,
        control: Arc::default(),
        log_lines_dropped,
        certificates: Arc::clone(&certificates),
        pools: Arc::clone(&pools),
        names: pool_maker.borrow().names(),
        served: Arc::clone(&served),
    };
    let cells = Arc::clone(&sources.control);
    let mut servers = ServerWatch::new(Prober::start(Arc::clone(&cells))?);
    servers.replace(&prepared.pools, Moment::now());
    pools.replace(prepared.pools);
    let reload_requests = Arc::new(ReloadRequests::default());
    let admin = match admin_listener {
        Some(listener) => {
            let pages = AdminPages {
                lifecycle: Arc::clone(&lifecycle),
                metrics: Page::new(sources),
                served: Arc::clone(&served),
                pools: Arc::clone(&pools),
                reload_requests: Arc::clone(&reload_requests),
            };
            Some(listener.serve(pages, admin::Limits::default())?)
        }
        None => None,
    };
    for (Bound { name, .. }, address) in bound.iter().zip(&listeners.addresses) {
        tracing::info!(listener = name, %address, "listening");
    }
    let mut rechecks =
        ClientRechecks::new(preparer.admitted_clients(), Arc::clone(&prepared.snapshot));
    let failures_per_second = settings.log.failures_per_second;
    let supervisor = Supervisor {
        engines,
        lifecycle,
        cells,
        certificates,
        pools,
        servers,
        served,
        reload_requests,
        event_log: EventLog::new(event_sources, failures_per_second, Moment::now()),
        drain_times: prepared.drain_times,
        session_keys,
        recheck_clients: Box::new(move |reloaded| rechecks.look_after(reloaded)),
        renew_pools: Box::new(move || {
            let snapshot = pool_maker.borrow_mut().renewed(Moment::now())?;
            Some(Renewed { pools: snapshot.pools.clone(), snapshot })
        }),
        reload: reload::reloader(file, settings, preparer, index, bound, Rc::clone(&watch)),
    };
    if let Some(admin) = &admin {
        tracing::info!(address = %admin.address(), "admin address served");
    }
    Ok(Running { supervisor, signals, watch, admin, workers, addresses: listeners.addresses })
}

/// Chooses CPUs for the threads.
///
/// # Errors
/// A configured CPU may not be used.
pub fn place(settings: &Settings) -> Result<Placement, CpuNotAllowed> {
    let placement = cpus::place(
        &cpus::allowed(),
        cpus::Wanted {
            engines: settings.engine.engines,
            engine_cpus: &settings.engine.cpus,
            workers: settings.handshake.workers,
            worker_cpus: &settings.handshake.cpus,
            inline: settings.handshake.inline,
        },
    )?;
    if placement.shared {
        tracing::warn!(
            engines = ?placement.engines,
            workers = ?placement.workers,
            "threads share CPUs: latency suffers; lower `engines` or `workers`"
        );
    }
    Ok(placement)
}

/// Settles how many connections there can be.
fn settle_connections(
    settings: &Settings,
    placement: &Placement,
    listeners: usize,
) -> Result<ConnectionLimit, TooFewDescriptors> {
    let descriptors = limits::raise_descriptor_limit();
    let reserve = limits::Reserve { engines: placement.engines.len(), listeners };
    let limit = limits::connection_limit(settings.engine.max_connections, descriptors, reserve)?;
    limit.log();
    Ok(limit)
}

/// What is settled before the first thread starts.
struct Plan<'a> {
    settings: &'a Settings,
    placement: &'a Placement,
    limit: ConnectionLimit,
    memory_locked: bool,
    snapshot: &'a Arc<Snapshot>,
    capacity: &'a Capacity,
}

/// What an engine begins with.
struct Beginning {
    sockets: Vec<std::os::fd::OwnedFd>,
    doorbell: Arc<Doorbell>,
    commands: CommandQueue,
    metrics: Arc<EngineMetrics>,
    events: EventSink,
}

/// What an engine's thread says when it is ready.
type Ready = (usize, Result<Obtained, SetupError>);

/// What an engine got at its start.
struct Obtained {
    capabilities: Capabilities,
    memory_bytes: usize,
    buffer_pages: Pages,
    polls_devices: bool,
}

impl Plan<'_> {
    fn engines(&self) -> usize {
        self.placement.engines.len()
    }

    fn credits(&self) -> u32 {
        // More handshakes than connections cannot be.
        let credits = self.capacity.credits.min(self.limit.per_engine);
        u32::try_from(credits).unwrap_or(u32::MAX)
    }

    fn scheduler_settings(&self, engines: usize) -> SchedulerSettings {
        let handshake = &self.settings.handshake;
        SchedulerSettings {
            queue_tasks_max: handshake.queue.bounds(self.credits() as usize * engines),
            weights: SchedulerSettings::WEIGHTS,
            patience: handshake.patience,
        }
    }

    fn workers_settings(&self) -> WorkersSettings {
        WorkersSettings {
            count: NonZeroUsize::new(self.placement.workers.len()).unwrap_or(NonZeroUsize::MIN),
            cpus: self.placement.workers.clone(),
            engine_cpus: self.placement.engines.clone(),
            prepare_sharing: prefer_batches,
            scheduler: self.scheduler_settings(self.engines()),
            library: self.settings.tls.provider,
            fingerprints: self.settings.handshake.fingerprints,
        }
    }

    fn inline_service(&self, engine: usize) -> InlineService {
        let scheduler = self.scheduler_settings(1);
        InlineService::new(engine, self.credits(), &scheduler, self.settings.tls.provider)
            .counting(self.settings.handshake.fingerprints)
    }

    /// Buffers of each engine, for the connections there can really be.
    fn buffers(&self) -> usize {
        let engine = EngineSettings {
            max_connections: self.limit.connections_max,
            ..self.settings.engine.clone()
        };
        engine.buffers_per_engine(self.engines())
    }

    fn sizes(&self) -> Sizes {
        let engines = self.engines();
        Sizes {
            engines,
            workers: self.placement.workers.len(),
            connections_max: self.limit.connections_max,
            buffers: self.buffers() * engines,
            buffer_bytes: BUFFER_BYTES,
            handshakes_max: self.credits() as usize * engines,
            handshake_rates: self.capacity.rates(),
        }
    }

    /// Starts a thread for each engine and waits until all are ready. If one is not, the
    /// others are ended again.
    fn start_engines<H: HandshakeService + Send + 'static>(
        &self,
        ways: Vec<Beginning>,
        services: Vec<H>,
    ) -> Result<Vec<RunningEngine<ToEngine>>, StartError> {
        let (ready, is_ready) = sync_channel(self.engines());
        let mut controls = Vec::new();
        let mut threads = Vec::new();
        let mut failure = None;
        for (number, (way, service)) in ways.into_iter().zip(services).enumerate() {
            controls.push(ToEngine {
                commands: way.commands.clone(),
                doorbell: Arc::clone(&way.doorbell),
            });
            match self.start_engine(number, way, service, ready.clone()) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    failure = Some(StartError::System(error));
                    break;
                }
            }
        }
        drop(ready);
        let mut obtained = Vec::new();
        for (engine, outcome) in is_ready.iter() {
            match outcome {
                Ok(of_engine) => obtained.push(of_engine),
                Err(source) => failure = Some(StartError::Ring { engine, source }),
            }
        }
        if failure.is_none() && obtained.len() < threads.len() {
            let lost = threads.iter().position(JoinHandle::is_finished);
            failure = Some(StartError::EngineLost(lost.unwrap_or_default()));
        }
        if let Some(failure) = failure {
            for control in controls {
                let _ = control.send(Order::Stop);
            }
            for thread in threads {
                let _ = thread.join();
            }
            return Err(failure);
        }
        self.log_ready(&obtained);
        Ok(controls
            .into_iter()
            .zip(threads)
            .map(|(control, thread)| RunningEngine::new(control, thread))
            .collect())
    }

    /// Says what there is to work with, and what was asked for and is not there.
    fn log_ready(&self, obtained: &[Obtained]) {
        let Some(Obtained { capabilities, .. }) = obtained.first() else { return };
        let polls_devices = obtained.iter().all(|engine| engine.polls_devices);
        switches::warn_of_device_polling(self.settings.engine.napi_busy_poll, polls_devices);
        let buffer_pages: Vec<Pages> = obtained.iter().map(|engine| engine.buffer_pages).collect();
        switches::warn_of_pages(self.settings.engine.huge_pages, &buffer_pages);
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            provider = %self.settings.tls.provider,
            ring = %capabilities,
            engines = self.engines(),
            engine_cpus = cpus::list(&self.placement.engines),
            workers = self.placement.workers.len(),
            worker_cpus = cpus::list(&self.placement.workers),
            handshakes = if self.placement.workers.is_empty() { "inline" } else { "offloaded" },
            memory_bytes = obtained.iter().map(|engine| engine.memory_bytes).sum::<usize>(),
            memory_locked = self.memory_locked,
            polls_devices,
            buffer_pages = buffer_pages.iter().min().map(|pages| pages.words()),
            "engines are ready"
        );
        switches::report_unused(capabilities.receives_without_copy);
    }

    fn start_engine<H: HandshakeService + Send + 'static>(
        &self,
        number: usize,
        way: Beginning,
        service: H,
        ready: SyncSender<Ready>,
    ) -> io::Result<JoinHandle<io::Result<()>>> {
        let cpu = self.placement.engines[number];
        let shares_its_cpu = self.placement.workers.contains(&cpu);
        let snapshot = Arc::clone(self.snapshot);
        let limits = Limits {
            connections: self.limit.per_engine,
            credits: self.credits() as usize,
            accepts: ACCEPTS_IN_FLIGHT,
            engines: self.engines(),
            patience: self.settings.handshake.patience,
            step_costs: self.capacity.costs,
            backlog: self.capacity.backlog,
            queue: self.settings.engine.backlog.into(),
            queue_in_crowd: self.capacity.handshakes_of_backlog,
            spin: switches::spin(self.settings.engine.spin, self.placement, number),
        };
        let Beginning { sockets, doorbell, commands, metrics, events } = way;
        let ring_settings = RingSettings {
            buffers: self.buffers(),
            large_buffers: self.settings.engine.large_buffers,
            connections_max: self.limit.per_engine,
            listeners: sockets,
            doorbell,
            shares_its_cpu,
            huge_pages: self.settings.engine.huge_pages,
            napi_busy_poll: self.settings.engine.napi_busy_poll,
        };
        thread::Builder::new().name(format!("engine-{number}")).spawn(move || {
            // Before anything is allocated: memory comes from the node of the CPU that
            // touches it first.
            if !cpus::pin_current_thread(cpu) {
                tracing::warn!(engine = number, cpu, "cannot pin the engine to its CPU");
            }
            if shares_its_cpu {
                prefer_batches();
            }
            let memory_bytes = ring_settings.memory_bytes() + limits.memory_bytes();
            let driver = match RingDriver::new(ring_settings) {
                Ok(driver) => driver,
                Err(error) => {
                    let _ = ready.send((number, Err(error)));
                    return Ok(());
                }
            };
            let obtained = Obtained {
                capabilities: driver.capabilities().clone(),
                memory_bytes,
                buffer_pages: driver.buffer_pages(),
                polls_devices: driver.polls_devices(),
            };
            let ways = Ways { commands, metrics, events };
            let mut engine = Engine::new(number, driver, service, limits, snapshot, ways);
            let _ = ready.send((number, Ok(obtained)));
            drop(ready);
            engine.run()
        })
    }
}

/// Tells the kernel that the calling thread shares its CPU with another of ours.
fn prefer_batches() {
    if let Err(error) = scheduling::preempt_nobody() {
        // A sandbox may refuse it; it only saves switches between threads.
        tracing::debug!(%error, "cannot become a batch task");
    }
}

/// The way to a running engine.
pub struct ToEngine {
    commands: CommandQueue,
    doorbell: Arc<Doorbell>,
}

impl EngineControl for ToEngine {
    type Snapshot = Snapshot;

    fn send(&self, order: Order<Snapshot>) -> Result<(), Order<Snapshot>> {
        let command = match order {
            Order::Reload(snapshot) => Command::Reload(snapshot),
            Order::Drain { deadline } => Command::Drain { deadline },
            Order::EndRefused => Command::EndRefused,
            Order::Stop => Command::Stop,
        };
        self.commands.send(command).map_err(|command| match command {
            Command::Reload(snapshot) => Order::Reload(snapshot),
            Command::Drain { deadline } => Order::Drain { deadline },
            Command::EndRefused => Order::EndRefused,
            Command::Stop => Order::Stop,
        })?;
        self.doorbell.ring();
        Ok(())
    }
}

/// How workers wake an engine.
struct RingsDoorbell(Arc<Doorbell>);

impl WakeEngine for RingsDoorbell {
    fn wake(&self) {
        self.0.ring();
    }
}
