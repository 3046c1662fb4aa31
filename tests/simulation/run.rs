//! One simulated run: a world drawn from a seed, an engine in it, and what must hold.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use forebay::clock::Moment;
use forebay::driver::simulator::{
    Answer, Chance, ConnectionId, Fault, Faults, Random, Simulator, World,
};
use forebay::endpoint::Endpoint;
use forebay::engine::events::event_queue;
use forebay::engine::metrics::{EndReason, EngineMetrics};
use forebay::engine::snapshot::{Listener, Records, Snapshot, Timeouts};
use forebay::engine::{Command, CommandQueue, Engine, Limits, Outstanding, Progress, Ways};
use forebay::tls::certificates::{CertificateName, KeyType, LoadedCertificate};
use forebay::tls::policy::{Policy, PolicySettings};
use forebay::tls::{CryptoLibrary, tickets};
use forebay::upstream::{self, Balance, Pool, ProxyProtocol};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SerialNumber};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use crate::backend::Backend;
use crate::client::{Client, SERVER_NAME, Stranger};
use crate::conversation::{ClientEnd, Conversation, Ending, Offer, Plan, Registry, Shared};
use crate::delayed_service::{Behaviour, DelayedService};

/// Turns after which an engine must be going in circles.
const TURNS_MAX: usize = 5_000_000;

/// Peers read what is under way for at most so long after the engine is done.
const SETTLE: Duration = Duration::from_secs(600);

/// What a run came to, for the caller to compare and to sum up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub trace: u64,
    pub conversations: usize,
    pub complete: usize,
    pub bytes: usize,
}

/// Runs one seed.
///
/// # Panics
/// Anything that must hold does not.
pub fn run(seed: u64, print: bool) -> Summary {
    let mut random = Random::new(seed);
    let setting = Setting::draw(&mut random);
    let mut simulator = Simulator::new(seed, setting.buffers, setting.faults.clone());
    if print {
        eprintln!("{setting:#?}");
        simulator.world_mut().print_trace();
    }
    let registry = Registry::default();
    let world = simulator.world_mut();
    let listeners: Vec<_> = (0..setting.listeners)
        .map(|number| world.listen(SocketAddr::from((Ipv4Addr::new(203, 0, 113, 1), 443 + number))))
        .collect();
    for place in 0..setting.backends {
        serve(world, place, setting.refusals, &registry);
    }
    let configs = client_configs(setting.library);
    let conversations: Vec<_> = (0..setting.clients)
        .map(|number| {
            let listener = random.choice(&listeners);
            begin(world, number, listener, &setting, &configs, &registry, &mut random)
        })
        .collect();

    let clock = world.clock();
    let commands = CommandQueue::default();
    let metrics = Arc::new(EngineMetrics::default());
    let (events, _source) = event_queue();
    let service = DelayedService::new(
        clock.clone(),
        seed,
        setting.service,
        setting.library,
        setting.limits.credits,
    );
    let held = service.held();
    let mut engine = Engine::new(
        0,
        simulator,
        service,
        setting.limits,
        setting.snapshot(1, &mut random),
        Ways { commands: commands.clone(), metrics: Arc::clone(&metrics), events },
    );

    let mut script = setting.script(clock.now(), &mut random);
    for (moment, _) in &script {
        clock.wake_at(*moment);
    }
    let mut turns = 0;
    loop {
        while script.first().is_some_and(|(moment, _)| *moment <= clock.now()) {
            commands.send(script.remove(0).1).expect("few commands, taken every turn");
        }
        if engine.turn().expect("the simulated kernel serves the engine") == Progress::Finished {
            break;
        }
        turns += 1;
        assert!(turns < TURNS_MAX, "the engine goes in circles: {:?}", engine.outstanding());
    }

    assert_eq!(engine.outstanding(), Outstanding::default(), "given out and not got back");
    assert_eq!(held.get(), 0, "tasks left with the workers");
    engine.driver().assert_at_rest();
    engine.driver_mut().settle(SETTLE);
    let world = engine.driver().world();
    check_metrics(&metrics);
    let mut summary = Summary {
        trace: world.trace_hash(),
        conversations: conversations.len(),
        ..Summary::default()
    };
    let mut cut_short = Vec::new();
    let mut closed_by_engine = Vec::new();
    for conversation in &conversations {
        let conversation = conversation.borrow();
        check_conversation(&conversation, &setting, world);
        summary.bytes += conversation.client.heard_bytes + conversation.backend.heard_bytes;
        if conversation.client.ending == Some(Ending::Clean)
            && (conversation.client.heard_bytes < conversation.backend.said_bytes
                || !conversation.backend_ended(world))
        {
            closed_by_engine.push(conversation.plan.number);
        }
        if conversation.is_complete() {
            summary.complete += 1;
        } else if conversation.plan.is_well_behaved()
            && !(setting.strict_truncation && conversation.plan.client_end == ClientEnd::FinOnly)
            && !conversation.is_disturbed(world)
        {
            cut_short.push(conversation.plan.number);
        }
    }
    // Backends that a fault cut off before they had read whose connection it was.
    let anonymous = registry.anonymous();
    let anonymous_faults =
        anonymous.iter().filter(|id| world.faults_of(**id).iter().any(Fault::is_cut)).count();
    // The client takes close_notify for the backend's end, so it must be that; only for
    // its own reasons does the engine say it in the backend's place.
    let own_reasons = [EndReason::IdleTimeout, EndReason::HalfClosedTimeout, EndReason::Stopped];
    assert!(
        closed_by_engine.len() <= count(&metrics, &own_reasons) + anonymous_faults,
        "conversations {closed_by_engine:?}: the backend's stream is not complete, but \
         looks so to the client:{}\n{conversations:#?}",
        ended(&metrics)
    );
    let excuses = excuses(&metrics, conversations.len()) + anonymous_faults;
    assert!(
        cut_short.len() <= excuses,
        "conversations {cut_short:?} suffered no fault and are not complete; the engine ended \
         {excuses} for reasons of its own:{}\n{conversations:#?}",
        ended(&metrics)
    );
    if print {
        eprintln!("{conversations:#?}\n{summary:?}{}", ended(&metrics));
    }
    summary
}

/// What the seed makes of everything but the world's own chance.
#[derive(Clone, Debug)]
struct Setting {
    faults: Faults,
    buffers: usize,
    limits: Limits,
    service: Behaviour,
    library: CryptoLibrary,
    listeners: u16,
    backends: usize,
    /// Backends refuse, or are silent, so often.
    refusals: Chance,
    clients: u64,
    /// Clients come within this time.
    arrivals: Duration,
    timeouts: Timeouts,
    small_bytes: u32,
    strict_truncation: bool,
    proxy_protocol: ProxyProtocol,
    balance: Balance,
    reloads: usize,
    /// From the start to the command to drain.
    drain_after: Duration,
    /// From that command to the end of patience.
    drain: Duration,
    /// The process is told to stop at once instead.
    stops: bool,
}

impl Setting {
    fn draw(random: &mut Random) -> Self {
        let seconds = Duration::from_secs;
        // One run in eight has no faults at all: there everything must be complete.
        let quiet = random.below(8) == 0;
        let faults = if quiet { Faults::NONE } else { Faults::draw(random) };
        let clients = random.magnitude(1, 12) as u64;
        let hasty = !quiet && random.below(4) == 0;
        let some = |random: &mut Random, most: u16| {
            if quiet || random.below(3) > 0 {
                Chance::NEVER
            } else {
                Chance(u16::try_from(random.magnitude(1, usize::from(most))).unwrap_or(most))
            }
        };
        let arrivals = random.duration(Duration::from_micros(1), seconds(3));
        Self {
            buffers: if quiet { 64 } else { random.magnitude(3, 64) },
            limits: Limits {
                connections: if quiet { 16 } else { random.magnitude(1, 16) },
                credits: random.magnitude(1, 8),
                accepts: random.magnitude(1, 4),
                patience: seconds(1),
            },
            service: Behaviour {
                delay_max: random.duration(Duration::from_micros(10), Duration::from_millis(300)),
                refuses: some(random, 100),
                sheds: some(random, 100),
            },
            library: random.choice(&[CryptoLibrary::AwsLc, CryptoLibrary::Ring]),
            listeners: 1 + u16::from(random.below(3) == 0),
            backends: random.between(1, 3),
            refusals: some(random, 400),
            clients,
            arrivals,
            timeouts: Timeouts {
                client_hello: if hasty { seconds(1) } else { seconds(60) },
                handshake: if hasty { seconds(1) } else { seconds(60) },
                connect: seconds(if hasty { 1 } else { 5 }),
                idle: seconds(if hasty { 2 } else { 300 }),
                half_closed: seconds(if hasty { 1 } else { 120 }),
                first_data_wait: random.duration(Duration::from_millis(1), seconds(1)),
            },
            small_bytes: random.choice(&[0, 2_000, 16_384]),
            strict_truncation: random.below(2) == 0,
            proxy_protocol: random.choice(&[ProxyProtocol::V1, ProxyProtocol::V2]),
            balance: random.choice(&[Balance::RoundRobin, Balance::LeastConnections]),
            reloads: random.below(3),
            drain_after: if quiet || random.below(3) > 0 {
                arrivals + seconds(10)
            } else {
                random.duration(Duration::from_millis(1), seconds(10))
            },
            drain: if quiet || random.below(4) > 0 {
                seconds(3600)
            } else {
                random.duration(Duration::from_millis(1), seconds(10))
            },
            stops: !quiet && random.below(10) == 0,
            faults,
        }
    }

    fn snapshot(&self, generation: u64, random: &mut Random) -> Arc<Snapshot> {
        // A reload may take backends away; connections to them live on.
        let kept = random.between(1, self.backends);
        let backends = (0..kept).map(|place| upstream::Backend {
            endpoint: endpoint(place),
            name: format!("backend-{place}"),
        });
        let pool = Pool {
            name: "pool".into(),
            backends: backends.collect(),
            balance: self.balance,
            proxy_protocol: self.proxy_protocol,
        };
        let listeners = (0..self.listeners).map(|number| Listener {
            name: format!("listener-{number}").into(),
            policy: policy(self.library),
            pool: 0,
        });
        Arc::new(Snapshot {
            generation,
            listeners: listeners.collect(),
            pools: vec![Arc::new(pool)],
            timeouts: self.timeouts,
            records: Records {
                small_bytes: self.small_bytes,
                strict_truncation: self.strict_truncation,
            },
        })
    }

    /// What the control thread does when.
    fn script(&self, begin: Moment, random: &mut Random) -> Vec<(Moment, Command)> {
        let mut script: Vec<_> = (0..self.reloads)
            .map(|reload| {
                let at =
                    begin.after(random.duration(Duration::from_millis(1), Duration::from_secs(8)));
                (at, Command::Reload(self.snapshot(2 + reload as u64, random)))
            })
            .collect();
        let drain = begin.after(self.drain_after);
        let deadline = drain.after(self.drain);
        script.push(if self.stops {
            (drain, Command::Stop)
        } else {
            (drain, Command::Drain { deadline })
        });
        script.sort_by_key(|(moment, _)| *moment);
        script
    }
}

fn endpoint(place: usize) -> Endpoint {
    match place {
        0 => Endpoint::Inet(SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 8080))),
        1 => Endpoint::Unix("/run/balancer/0.sock".into()),
        _ => Endpoint::Inet(SocketAddr::from((Ipv6Addr::LOCALHOST, 8080))),
    }
}

fn serve(world: &mut World, place: usize, refusals: Chance, registry: &Registry) {
    let registry = registry.clone();
    world.serve(endpoint(place), move |connection: ConnectionId, random: &mut Random| {
        if random.happens(refusals) {
            return match random.below(3) {
                0 => Answer::Silence,
                _ => Answer::Refuse(forebay::driver::Errno(libc::ECONNREFUSED)),
            };
        }
        let backend = Box::new(Backend::new(connection, registry.clone()));
        if random.below(4) == 0 {
            let after = random.duration(Duration::from_micros(100), Duration::from_millis(800));
            Answer::AcceptAfter(after, backend)
        } else {
            Answer::Accept(backend)
        }
    });
}

fn begin(
    world: &mut World,
    number: u64,
    listener: usize,
    setting: &Setting,
    configs: &ClientConfigs,
    registry: &Registry,
    random: &mut Random,
) -> Shared {
    let plan = Plan::draw(number, random);
    let port = 50_000 + u16::try_from(number).expect("few clients");
    let address = if random.below(4) == 0 {
        SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7), port))
    } else {
        SocketAddr::from((Ipv4Addr::new(198, 51, 100, 7), port))
    };
    let config = match plan.offer {
        Offer::OnlyTls12 => Some(&configs.only_tls12),
        Offer::OnlyTls13 => Some(&configs.only_tls13),
        Offer::Both => Some(&configs.both),
        Offer::Garbage(_) => None,
    };
    let conversation = registry.add(plan, address);
    let shared = Rc::clone(&conversation);
    let after = random.duration(Duration::from_nanos(1), setting.arrivals);
    let connection = match config {
        Some(config) => {
            world.arrive(listener, address, after, Box::new(Client::new(config, shared)))
        }
        None => {
            let stranger = Stranger { conversation: shared, said_bytes: 0 };
            world.arrive(listener, address, after, Box::new(stranger))
        }
    };
    conversation.borrow_mut().client_connection = Some(connection);
    conversation
}

impl Conversation {
    fn faults<'w>(&self, world: &'w World) -> impl Iterator<Item = Fault> + use<'w> {
        [self.client_connection, self.backend_connection]
            .into_iter()
            .flatten()
            .flat_map(|id| world.faults_of(id).iter().copied())
    }

    /// Whether something befell it that no engine can make good.
    fn is_disturbed(&self, world: &World) -> bool {
        self.faults(world).any(|fault| fault.is_cut())
    }

    /// Whether the backend ended its stream in order, or seemed to.
    fn backend_ended(&self, world: &World) -> bool {
        let early = |id| world.faults_of(id).contains(&Fault::EarlyEnd);
        self.backend.ended || self.backend_connection.is_some_and(early)
    }

    /// Whether both ends heard everything and its end.
    fn is_complete(&self) -> bool {
        self.client.heard_bytes == self.plan.down_bytes
            && self.backend.heard_bytes == self.plan.up_bytes
            && self.client.ending == Some(Ending::Clean)
            && self.backend.ending == Some(Ending::Clean)
    }
}

fn check_conversation(conversation: &Conversation, setting: &Setting, world: &World) {
    let Conversation { plan, client, backend, .. } = conversation;
    let number = plan.number;
    let client_fault = |fault: Fault| {
        conversation.client_connection.is_some_and(|id| world.faults_of(id).contains(&fault))
    };

    // Order and content are checked as bytes are heard; here, that none was made up.
    assert!(backend.heard_bytes <= client.said_bytes, "conversation {number}: bytes from nowhere");
    assert!(client.heard_bytes <= backend.said_bytes, "conversation {number}: bytes from nowhere");

    // The backend takes its end of the stream for the client's: then it must be that.
    if backend.ending == Some(Ending::Clean) {
        let announced = client.ended && plan.client_end != ClientEnd::FinOnly;
        // Without strict truncation, so is a bare FIN between two records.
        let left = client.ended && plan.client_end == ClientEnd::FinOnly
            || matches!(client.ending, Some(Ending::Broken(_) | Ending::Truncated));
        let tolerated = !setting.strict_truncation && (left || client_fault(Fault::EarlyEnd));
        assert!(
            announced || tolerated,
            "conversation {number}: the client did not end its stream, but the backend was told \
             so: {conversation:#?}"
        );
        if client.ended {
            assert_eq!(
                backend.heard_bytes, client.said_bytes,
                "conversation {number}: the backend's stream is short but looks complete: \
                 {conversation:#?}"
            );
        }
        assert!(!client.damaged || client.ended, "conversation {number}: damage looks like an end");
    }

    // No client is left hanging.
    assert!(
        client.ending.is_some()
            || client_fault(Fault::StallForEver)
            || client_fault(Fault::AcceptAborted),
        "conversation {number}: the client never saw an end: {conversation:#?}"
    );
    if let Offer::Garbage(_) = plan.offer {
        assert!(!backend.established, "conversation {number}: garbage reached a backend");
    }
}

fn check_metrics(metrics: &EngineMetrics) {
    let ended: u64 = metrics.ended.iter().map(|counter| counter.value()).sum();
    assert_eq!(
        metrics.accepted.value(),
        ended,
        "every connection ends once:{}",
        self::ended(metrics)
    );
    for (name, gauge) in [
        ("connections", &metrics.connections),
        ("established", &metrics.established),
        ("handshakes_in_progress", &metrics.handshakes_in_progress),
        ("upstream_connections", &metrics.upstream_connections),
        ("buffers_in_use", &metrics.buffers_in_use),
    ] {
        assert_eq!(gauge.value(), 0, "the gauge {name} at rest");
    }
}

/// How many conversations the engine may have cut short without a fault of the world.
fn excuses(metrics: &EngineMetrics, conversations: usize) -> usize {
    let reasons = [
        EndReason::HandshakeFailed,
        EndReason::Shed,
        EndReason::NoBackend,
        EndReason::IdleTimeout,
        EndReason::HalfClosedTimeout,
        EndReason::Stopped,
        EndReason::BufferReclaimed,
    ];
    // Who came when the door was closed already, or was accepted while it closed.
    let taken = usize::try_from(metrics.accepted.value()).expect("few");
    let refused = conversations - taken.min(conversations);
    count(metrics, &reasons) + refused
}

fn count(metrics: &EngineMetrics, reasons: &[EndReason]) -> usize {
    let sum: u64 = reasons.iter().map(|reason| metrics.ended[*reason as usize].value()).sum();
    usize::try_from(sum).expect("few")
}

fn ended(metrics: &EngineMetrics) -> String {
    let mut text = String::new();
    for reason in EndReason::ALL {
        let count = metrics.ended[reason as usize].value();
        if count > 0 {
            let _ = write!(text, " {}={count}", reason.label());
        }
    }
    text
}

struct ClientConfigs {
    both: Arc<ClientConfig>,
    only_tls12: Arc<ClientConfig>,
    only_tls13: Arc<ClientConfig>,
}

/// Fresh for every run: sessions are resumed within one.
fn client_configs(library: CryptoLibrary) -> ClientConfigs {
    let provider = Arc::new(match library {
        CryptoLibrary::AwsLc => aws_lc_rs::default_provider(),
        CryptoLibrary::Ring => ring::default_provider(),
    });
    let config = |versions| {
        let provider = Arc::clone(&provider);
        let verifier = Arc::new(TrustAnybody(Arc::clone(&provider)));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.enable_early_data = false;
        Arc::new(config)
    };
    ClientConfigs {
        both: config(rustls::ALL_VERSIONS),
        only_tls12: config(&[&rustls::version::TLS12]),
        only_tls13: config(&[&rustls::version::TLS13]),
    }
}

/// The server's policy: an Ed25519 certificate, since ECDSA signatures vary in length
/// and would make two runs of one seed differ.
fn policy(library: CryptoLibrary) -> Arc<Policy> {
    static POLICIES: LazyLock<[Arc<Policy>; 2]> =
        LazyLock::new(|| [CryptoLibrary::AwsLc, CryptoLibrary::Ring].map(make_policy));
    Arc::clone(&POLICIES[usize::from(library == CryptoLibrary::Ring)])
}

fn make_policy(library: CryptoLibrary) -> Arc<Policy> {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut parameters = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
    // Of one length, too.
    parameters.serial_number = Some(SerialNumber::from(1));
    let certificate = parameters.self_signed(&key).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = match library {
        CryptoLibrary::AwsLc => aws_lc_rs::sign::any_supported_type(&key),
        CryptoLibrary::Ring => ring::sign::any_supported_type(&key),
    };
    let loaded = LoadedCertificate {
        source: "simulated".into(),
        names: vec![CertificateName::parse(SERVER_NAME).unwrap()],
        key_type: KeyType::Ed25519,
        not_after: i64::MAX,
        certified: Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer.unwrap())),
    };
    let tickets = tickets::per_process(library).unwrap();
    Arc::new(Policy::new(PolicySettings::new(library, vec![loaded], tickets)).unwrap())
}

/// Trusts any certificate, but checks the handshake's signatures.
#[derive(Debug)]
struct TrustAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
