//! An engine in a simulated world where nothing goes wrong and nothing is left to chance.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use forebay::clock::Moment;
use forebay::driver::simulator::{Answer, Clock, ConnectionId, Faults, Random, Simulator};
use forebay::endpoint::Endpoint;
use forebay::engine::events::event_queue;
use forebay::engine::metrics::EngineMetrics;
use forebay::engine::snapshot::{ClientLimits, Listener, Records, Snapshot, Timeouts};
use forebay::engine::{Command, CommandQueue, Engine, Limits, Progress, Ways};
use forebay::handshake::StepCosts;
use forebay::handshake::inline::InlineService;
use forebay::handshake::scheduler::SchedulerSettings;
use forebay::routing::{Action, Conditions, NamePatterns, Route, Routes};
use forebay::switch::Spin;
use forebay::tls::certificates::LoadedCertificate;
use forebay::tls::policy::{Policy, PolicySettings};
use forebay::tls::self_signed::self_signed;
use forebay::tls::to_servers::{NameSource, ToServers, ToServersSettings};
use forebay::tls::{Version, tickets, unverified};
use forebay::upstream::{Backend as Server, HashBy, Pool};
use ipnet::Ipv4Net;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};

use super::LIBRARY;
use super::counted::{UncountedDriver, counted};
use super::peers::{self, Backend, Client, TlsBackend};

pub(super) const SERVER_NAME: &str = "www.example.com";

const CREDITS: u32 = 16;
const CONNECTIONS: usize = 64;
const BUFFERS: usize = 128;
const LONG: Duration = Duration::from_secs(3_600);

/// What a client and its backend say: so often, so much each time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conversation {
    pub(super) rounds: usize,
    pub(super) up_bytes: usize,
    pub(super) down_bytes: usize,
}

/// Which way a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// No routes, one server.
    Plain,
    /// Past nine routes to the pool of the tenth: ten servers, of which one is the client's.
    RoutedToMaglev,
    /// No routes, one server, which TLS is spoken with, and which is verified.
    ToTlsServer,
}

type ClockReader = Box<dyn Fn() -> Moment>;

/// The engine, its world, and who is in it.
pub(super) struct Scene {
    engine: Engine<UncountedDriver, InlineService<ClockReader>>,
    listener: usize,
    commands: CommandQueue,
    progress: Rc<peers::Progress>,
    conversation: Rc<Cell<Conversation>>,
    config: Arc<ClientConfig>,
    connected: usize,
}

impl Scene {
    /// A world whose clients go that way and resume their sessions, or never do.
    pub(super) fn new(way: Way, resume: bool) -> Self {
        let mut simulator = Simulator::new(1, BUFFERS, Faults::NONE);
        let world = simulator.world_mut();
        let listener = world.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 443)));
        let conversation = Rc::<Cell<Conversation>>::default();
        let progress = Rc::<peers::Progress>::default();
        let identity = (way == Way::ToTlsServer).then(certificate);
        let server_config = identity.as_ref().map(|identity| server_config(identity, resume));
        for backend in servers() {
            let (spoken, progress) = (Rc::clone(&conversation), Rc::clone(&progress));
            let config = server_config.clone();
            world.serve(backend.endpoint, move |_: ConnectionId, _: &mut Random| {
                Answer::Accept(match &config {
                    Some(config) => {
                        Box::new(TlsBackend::new(config, spoken.get(), Rc::clone(&progress)))
                    }
                    None => Box::new(Backend::new(spoken.get())),
                })
            });
        }
        let clock = world.clock();
        let commands = CommandQueue::default();
        let (events, _source) = event_queue();
        let mut config = client_config();
        if !resume {
            config.resumption = Resumption::disabled();
        }
        let ways =
            Ways { commands: commands.clone(), metrics: Arc::<EngineMetrics>::default(), events };
        let engine = Engine::new(
            0,
            UncountedDriver(simulator),
            service(clock),
            limits(),
            Arc::new(snapshot(way, identity)),
            ways,
        );
        Self {
            engine,
            listener,
            commands,
            progress,
            conversation,
            config: Arc::new(config),
            connected: 0,
        }
    }

    /// Lets a client come.
    pub(super) fn connect(&mut self, conversation: Conversation) {
        self.conversation.set(conversation);
        self.connected += 1;
        let port = 50_000 + u16::try_from(self.connected).expect("few clients");
        let client = Client::new(&self.config, conversation, Rc::clone(&self.progress));
        let world = self.engine.driver_mut().0.world_mut();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        world.arrive(self.listener, address, Duration::from_micros(1), Box::new(client));
    }

    /// Runs until every client is done. A turn is counted if `counts` says so, told
    /// whether a client has its session and talks.
    pub(super) fn run(&mut self, counts: impl Fn(bool) -> bool) {
        /// Longer than all of it takes. The engine sleeps for ever after its last close,
        /// and is woken then.
        const OVER: Duration = Duration::from_secs(60);
        let clock = self.engine.driver().0.world().clock();
        clock.wake_at(clock.now().after(OVER));
        while self.progress.finished.get() < self.connected {
            self.turn(counts(self.progress.talks.get()));
        }
    }

    /// Servers that resumed theirs with the engine.
    pub(super) fn resumed_by_server(&self) -> usize {
        self.progress.resumed_by_server.get()
    }

    fn turn(&mut self, is_counted: bool) -> Progress {
        let engine = &mut self.engine;
        let result = if is_counted { counted(|| engine.turn()) } else { engine.turn() };
        result.expect("the simulated kernel serves the engine")
    }

    /// Clients that resumed their session.
    pub(super) fn resumed(&self) -> usize {
        self.progress.resumed.get()
    }

    /// Drains the engine.
    pub(super) fn finish(mut self) {
        let deadline = Moment::default().after(LONG);
        self.commands.send(Command::Drain { deadline }).expect("room for a command");
        while self.turn(false) != Progress::Finished {}
        self.engine.driver().0.assert_at_rest();
    }
}

/// What a listener does by default.
pub(super) fn policy() -> Policy {
    let tickets = tickets::per_process(LIBRARY).expect("tickets");
    Policy::new(PolicySettings::new(LIBRARY, vec![certificate()], tickets)).expect("a policy")
}

fn certificate() -> LoadedCertificate {
    self_signed(&[SERVER_NAME], LIBRARY).expect("a certificate")
}

/// A server that shows that certificate.
fn server_config(identity: &LoadedCertificate, resume: bool) -> Arc<ServerConfig> {
    let certified = identity.signing.certified().expect("it is in memory");
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has suites of TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.send_tls13_tickets = usize::from(resume);
    Arc::new(config)
}

/// TLS with that server: the same on every machine, as with clients.
fn to_servers(identity: &LoadedCertificate) -> ToServers {
    let certified = identity.signing.certified().expect("it is in memory");
    ToServers::new(ToServersSettings {
        library: LIBRARY,
        minimum_version: Version::Tls13,
        cipher_suites: vec!["TLS_AES_128_GCM_SHA256".parse().expect("a suite")],
        groups: vec!["x25519".parse().expect("a group")],
        roots: Some(certified.cert.clone()),
        certificate: None,
        name: NameSource::Server,
        hosts: vec![SERVER_NAME.try_into().ok()],
    })
    .expect("what it needs is there")
}

/// TLS 1.3, X25519, AES-128-GCM: the same on every machine.
pub(super) fn client_config() -> ClientConfig {
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519];
    provider.cipher_suites =
        vec![rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let verifier = unverified::any_certificate(&provider);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has a suite of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.cert_decompressors = Vec::new();
    config
}

fn service(clock: Clock) -> InlineService<ClockReader> {
    let settings = SchedulerSettings::with_room(CREDITS as usize);
    let clock: ClockReader = Box::new(move || clock.now());
    InlineService::with_clock(0, CREDITS, &settings, LIBRARY, clock)
}

fn limits() -> Limits {
    Limits {
        connections: CONNECTIONS,
        credits: CREDITS as usize,
        accepts: 16,
        engines: 1,
        patience: LONG,
        step_costs: StepCosts::TYPICAL,
        backlog: LONG,
        queue: 1_024,
        queue_in_crowd: 64,
        spin: Spin::Off,
    }
}

fn servers() -> Vec<Server> {
    let endpoint = |port| Endpoint::Inet(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    (80..90).map(|port| Server::new(endpoint(port), 1)).collect()
}

/// Ten routes as sites have them, the last of which takes the client to the second pool.
fn routes() -> Routes {
    let route = |conditions, action| Route { name: "route".into(), conditions, action };
    let mut routes: Vec<Route> = (0..9)
        .map(|number| {
            let names = NamePatterns {
                exact: [format!("site-{number}.example.net").into()].into(),
                one_label: [format!("site-{number}.example.net").into()].into(),
                none: false,
            };
            let conditions = match number % 3 {
                0 | 1 => Conditions { server_names: Some(names), ..Conditions::default() },
                _ => Conditions {
                    sources: Some(vec![
                        Ipv4Net::new_assert(Ipv4Addr::new(10, number, 0, 0), 16).into(),
                    ]),
                    ..Conditions::default()
                },
            };
            route(conditions, Action::Reject)
        })
        .collect();
    let names = NamePatterns { exact: [SERVER_NAME.into()].into(), ..NamePatterns::default() };
    let conditions = Conditions { server_names: Some(names), ..Conditions::default() };
    routes.push(route(conditions, Action::Forward { pool: 1 }));
    Routes::new(routes)
}

fn snapshot(way: Way, identity: Option<LoadedCertificate>) -> Snapshot {
    let mut first = Pool::new("first", servers().drain(..1).collect());
    first.tls = identity.map(|identity| Arc::new(to_servers(&identity)));
    let servers = servers();
    let balance = Pool::maglev(HashBy::Source, &servers);
    let pools = vec![first, Pool { balance, ..Pool::new("maglev", servers) }];
    let routes = if way == Way::RoutedToMaglev { routes() } else { Routes::default() };
    Snapshot {
        generation: 1,
        listeners: [Listener {
            name: "main".into(),
            policy: Arc::new(policy()),
            shadow: None,
            pool: 0,
            routes,
            header_senders: Vec::new(),
        }]
        .into(),
        pools: pools.into_iter().map(Arc::new).collect(),
        timeouts: Timeouts {
            client_hello: LONG,
            handshake: LONG,
            queue: LONG,
            connect: LONG,
            idle: LONG,
            half_closed: LONG,
            first_data_wait: Duration::from_millis(40),
        },
        records: Records { small_bytes: 16 << 10, strict_truncation: false },
        limits: ClientLimits::NONE,
    }
}
