//! One simulated run: a world drawn from a seed, an engine in it, and what must hold.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use forebay::driver::Errno;
use forebay::driver::simulator::{Answer, Chance, ConnectionId, Peer, Random, Simulator, World};
use forebay::endpoint::Endpoint;
use forebay::engine::events::event_queue;
use forebay::engine::metrics::EngineMetrics;
use forebay::engine::{CommandQueue, Engine, Outstanding, Progress, Ways};
use ipnet::Ipv4Net;
use rustls::ServerConfig;

use crate::backend::Backend;
use crate::client::{Client, Proxied, Stranger};
use crate::conversation::{Offer, Plan, Registry, Shared};
use crate::delayed_service::DelayedService;
use crate::servers::{Condition, Conditions};
use crate::setting::{Setting, Step};
use crate::tls::{ClientConfigs, client_configs, server_config};
use crate::tls_backend::TlsBackend;
use crate::verdict;

/// Turns after which an engine must be going in circles.
const TURNS_MAX: usize = 5_000_000;

/// Peers read what is under way for at most so long after the engine is done.
const SETTLE: Duration = Duration::from_secs(600);

/// What a run came to, for the caller to compare and to sum up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) trace: u64,
    pub(crate) conversations: usize,
    pub(crate) complete: usize,
    pub(crate) bytes: usize,
}

/// Runs one seed.
///
/// # Panics
/// Anything that must hold does not.
pub(crate) fn run(seed: u64, print: bool) -> Summary {
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
    let conditions = setting.servers.conditions();
    let tls = setting.tls_to_servers.then(|| server_config(setting.library));
    for place in 0..setting.servers.backends.len() {
        serve(world, place, setting.refusals, tls.as_ref(), &conditions, &registry);
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
            match script.remove(0).1 {
                Step::Tell(command) => {
                    commands.send(command).expect("few commands, taken every turn");
                }
                Step::Befall(place, incident) => {
                    setting.servers.suffer(place, incident, &conditions, clock.now());
                }
            }
        }
        if engine.turn().expect("the simulated kernel serves the engine") == Progress::Finished {
            break;
        }
        setting.servers.assert_within_limits();
        turns += 1;
        assert!(turns < TURNS_MAX, "the engine goes in circles: {:?}", engine.outstanding());
    }

    assert_eq!(engine.outstanding(), Outstanding::default(), "given out and not got back");
    assert_eq!(held.get(), 0, "tasks left with the workers");
    engine.driver().assert_at_rest();
    setting.servers.assert_at_rest();
    engine.driver_mut().settle(SETTLE);
    let world = engine.driver().world();
    if print {
        eprintln!("{conversations:#?}\n{}", verdict::ended(&metrics));
    }
    let complete = verdict::check(&conversations, &registry, &setting, &metrics, world);
    let heard = |conversation: &Shared| {
        let conversation = conversation.borrow();
        conversation.client.heard_bytes + conversation.backend.heard_bytes
    };
    Summary {
        trace: world.trace_hash(),
        conversations: conversations.len(),
        complete,
        bytes: conversations.iter().map(heard).sum(),
    }
}

/// Where balancers in front come from, which speak for clients.
pub(crate) const BALANCERS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24);

/// Where backends listen.
pub(crate) fn endpoint(place: usize) -> Endpoint {
    match place {
        0 => Endpoint::Inet(SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 8080))),
        1 => Endpoint::Unix("/run/balancer/0.sock".into()),
        _ => Endpoint::Inet(SocketAddr::from((Ipv6Addr::LOCALHOST, 8080 + place as u16))),
    }
}

fn serve(
    world: &mut World,
    place: usize,
    refusals: Chance,
    tls: Option<&Arc<ServerConfig>>,
    conditions: &Conditions,
    registry: &Registry,
) {
    let (registry, conditions) = (registry.clone(), Rc::clone(conditions));
    let tls = tls.cloned();
    world.serve(endpoint(place), move |connection: ConnectionId, random: &mut Random| {
        match conditions[place].get() {
            Condition::Well => {}
            Condition::Dead => return Answer::Refuse(Errno(libc::ECONNREFUSED)),
            Condition::Silent => return Answer::Silence,
        }
        if random.happens(refusals) {
            return match random.below(3) {
                0 => Answer::Silence,
                _ => Answer::Refuse(Errno(libc::ECONNREFUSED)),
            };
        }
        let backend =
            Box::new(Backend::new(connection, registry.clone(), tls.as_ref().map(TlsBackend::new)));
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
    let plan = Plan::draw(number, setting, random);
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
    let mut peer: Box<dyn Peer> = match config {
        Some(config) => Box::new(Client::new(config, shared)),
        None => Box::new(Stranger { conversation: shared, said_bytes: 0 }),
    };
    let mut comes_from = address;
    if random.below(4) == 0 {
        peer = Box::new(Proxied::new(address, random.below(2) == 0, peer));
        comes_from = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 9), port));
    }
    let connection = world.arrive(listener, comes_from, after, peer);
    conversation.borrow_mut().client_connection = Some(connection);
    conversation
}
