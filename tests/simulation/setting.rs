//! What a seed makes of everything but the world's own chance.

use std::sync::Arc;
use std::time::Duration;

use forebay::clock::Moment;
use forebay::driver::simulator::{Chance, Faults, PeerFaults, Random};
use forebay::engine::snapshot::{ClientLimits, Listener, Records, Snapshot, Timeouts};
use forebay::engine::{Command, Limits};
use forebay::handshake::StepCosts;
use forebay::proxy_protocol::ProxyProtocol;
use forebay::routing::Routes;
use forebay::switch::Spin;
use forebay::tls::CryptoLibrary;
use forebay::upstream::Pool;

use crate::delayed_service::Behaviour;
use crate::run::BALANCERS;
use crate::servers::{Incident, Servers};
use crate::tls;

/// What a run is about. With everything likely in every run, faults hide one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Focus {
    /// Whatever the seed has.
    Anything,
    /// No faults: everything must be complete.
    Calm,
    /// Connections are reset in the middle of much data.
    Resets,
    /// Streams end early and in every order.
    Ends,
    /// Hardly any buffers for many connections.
    Scarcity,
    /// Completions and cancellations are late.
    Lateness,
    /// Short timeouts, and peers that stall.
    Haste,
    /// Servers die and come back; nothing else goes wrong.
    Servers,
}

#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) focus: Focus,
    /// The servers are spoken TLS with.
    pub(crate) tls_to_servers: bool,
    pub(crate) faults: Faults,
    pub(crate) buffers: usize,
    pub(crate) limits: Limits,
    pub(crate) client_limits: ClientLimits,
    pub(crate) service: Behaviour,
    pub(crate) library: CryptoLibrary,
    pub(crate) listeners: u16,
    pub(crate) servers: Servers,
    /// Backends refuse, or are silent, so often.
    pub(crate) refusals: Chance,
    pub(crate) clients: u64,
    /// The most that a client or a backend says.
    pub(crate) bytes_max: usize,
    /// Clients come within this time.
    pub(crate) arrivals: Duration,
    pub(crate) timeouts: Timeouts,
    pub(crate) small_bytes: u32,
    pub(crate) strict_truncation: bool,
    pub(crate) proxy_protocol: ProxyProtocol,
    pub(crate) reloads: usize,
    /// From the start to the command to drain.
    pub(crate) drain_after: Duration,
    /// From that command to the end of patience.
    pub(crate) drain: Duration,
    /// The process is told to stop at once instead.
    pub(crate) stops: bool,
}

impl Setting {
    /// Patience for a drain that nobody has to use up.
    const LONG_DRAIN: Duration = Duration::from_secs(3600);

    pub(crate) fn draw(random: &mut Random) -> Self {
        let seconds = Duration::from_secs;
        let focus = random.choice(&[
            Focus::Anything,
            Focus::Anything,
            Focus::Calm,
            Focus::Resets,
            Focus::Ends,
            Focus::Scarcity,
            Focus::Lateness,
            Focus::Haste,
            Focus::Servers,
        ]);
        let is = |other| focus == other;
        let anything = is(Focus::Anything) || is(Focus::Haste);
        let hasty = is(Focus::Haste);
        let sometimes = |random: &mut Random, most: usize| {
            if !anything || random.below(3) > 0 {
                Chance::NEVER
            } else {
                Chance(u16::try_from(random.magnitude(1, most)).expect("below 1000"))
            }
        };
        let arrivals = random.duration(Duration::from_micros(1), seconds(3));
        let scarce = is(Focus::Scarcity);
        Self {
            faults: faults(focus, random),
            buffers: match focus {
                Focus::Scarcity => random.between(3, 8),
                Focus::Anything => random.magnitude(3, 64),
                _ => 64,
            },
            limits: Limits {
                connections: if anything { random.magnitude(1, 16) } else { 16 },
                credits: random.magnitude(1, 8),
                accepts: random.magnitude(1, 4),
                engines: 1,
                patience: seconds(1),
                step_costs: StepCosts::TYPICAL,
                backlog: random.choice(&[
                    StepCosts::TYPICAL.continuation,
                    3 * StepCosts::TYPICAL.elliptic_curve,
                    seconds(1),
                ]),
                queue: 1_024,
                queue_in_crowd: 64,
                spin: random.choice(&[
                    Spin::Off,
                    Spin::For(Duration::from_micros(1)),
                    Spin::For(Duration::from_micros(100)),
                ]),
            },
            client_limits: client_limits(anything, random),
            service: Behaviour {
                delay_max: random.duration(Duration::from_micros(10), Duration::from_millis(300)),
                refuses: sometimes(random, 100),
                sheds: sometimes(random, 100),
            },
            library: random.choice(&[CryptoLibrary::AwsLc, CryptoLibrary::Ring]),
            listeners: 1 + u16::from(random.below(3) == 0),
            servers: Servers::draw(is(Focus::Anything) || is(Focus::Servers), arrivals, random),
            refusals: sometimes(random, 400),
            clients: random.magnitude(if scarce { 6 } else { 1 }, 12) as u64,
            bytes_max: match focus {
                Focus::Resets | Focus::Scarcity => 400_000,
                _ => random.choice(&[1, 2_000, 60_000, 400_000]),
            },
            arrivals,
            timeouts: Timeouts {
                client_hello: seconds(if hasty { 1 } else { 600 }),
                handshake: seconds(if hasty { 1 } else { 600 }),
                queue: seconds(if hasty { 1 } else { 60 }),
                connect: seconds(if hasty { 1 } else { 5 }),
                idle: seconds(if hasty { 2 } else { 300 }),
                half_closed: seconds(if hasty { 1 } else { 120 }),
                first_data_wait: random.duration(Duration::from_millis(1), seconds(1)),
            },
            small_bytes: random.choice(&[0, 2_000, 16_384]),
            strict_truncation: random.below(2) == 0,
            proxy_protocol: random.choice(&[ProxyProtocol::V1, ProxyProtocol::V2]),
            reloads: random.below(3),
            drain_after: if !anything || random.below(3) > 0 {
                arrivals + seconds(10)
            } else {
                random.duration(Duration::from_millis(1), seconds(10))
            },
            drain: if !anything || random.below(4) > 0 {
                Self::LONG_DRAIN
            } else {
                random.duration(Duration::from_millis(1), seconds(10))
            },
            stops: anything && random.below(10) == 0,
            tls_to_servers: random.below(3) == 0,
            focus,
        }
    }

    /// Nothing but its own timers ends a connection: no deadline, no command.
    pub(crate) fn is_patient(&self) -> bool {
        self.drain == Self::LONG_DRAIN && !self.stops
    }

    /// No connection has to wait for another that does not go on: the timeouts are long,
    /// and there are buffers for all, or nobody sits on them.
    pub(crate) fn is_roomy(&self) -> bool {
        let enough = self.buffers >= 2 * self.limits.connections;
        self.focus != Focus::Haste && (enough || self.focus == Focus::Scarcity)
    }

    /// A connect may fail, or may take long.
    pub(crate) fn connects_fail(&self) -> bool {
        let faults = &self.faults;
        [
            faults.connect_failed,
            faults.connect_refused,
            faults.connect_unanswered,
            faults.clock_jump,
            self.refusals,
        ]
        .iter()
        .any(|chance| *chance != Chance::NEVER)
            || self.tls_to_servers
            || !self.servers.incidents.is_empty()
    }

    /// A client that is given up for want of a server could not have had any.
    pub(crate) fn may_have_no_server(&self) -> bool {
        let one_is_steady = self.servers.one_is_steady && self.refusals == Chance::NEVER;
        let faults = &self.faults;
        let connects_fail = [
            faults.connect_failed,
            faults.connect_refused,
            faults.connect_unanswered,
            faults.clock_jump,
        ];
        // What befalls a connection befalls the handshake on it too.
        let handshakes_fail = self.tls_to_servers && self.focus != Focus::Calm;
        handshakes_fail
            || !one_is_steady
            || connects_fail.iter().any(|chance| *chance != Chance::NEVER)
    }

    pub(crate) fn snapshot(&self, generation: u64, random: &mut Random) -> Arc<Snapshot> {
        // A reload may take backends away; connections to them live on.
        let kept = random.between(1, self.servers.backends.len());
        let tls = self.tls_to_servers.then(|| tls::to_servers(self.library, kept));
        let pool = Pool { proxy_protocol: self.proxy_protocol, tls, ..self.servers.pool(kept) };
        let listeners = (0..self.listeners).map(|number| Listener {
            name: format!("listener-{number}").into(),
            policy: tls::policy(self.library),
            shadow: None,
            pool: 0,
            routes: Routes::default(),
            header_senders: vec![BALANCERS.into()],
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
            limits: self.client_limits.clone(),
        })
    }

    /// What the control thread does when.
    pub(crate) fn script(&self, begin: Moment, random: &mut Random) -> Vec<(Moment, Step)> {
        let mut script: Vec<_> = (0..self.reloads)
            .map(|reload| {
                let after = random.duration(Duration::from_millis(1), Duration::from_secs(8));
                let snapshot = self.snapshot(2 + reload as u64, random);
                (begin.after(after), Step::Tell(Command::Reload(snapshot)))
            })
            .collect();
        let drain = begin.after(self.drain_after);
        let deadline = drain.after(self.drain);
        let end = if self.stops { Command::Stop } else { Command::Drain { deadline } };
        script.push((drain, Step::Tell(end)));
        let incidents = self.servers.incidents.iter();
        script.extend(incidents.map(|(after, place, incident)| {
            (begin.after(*after), Step::Befall(*place, *incident))
        }));
        script.sort_by_key(|(moment, _)| *moment);
        script
    }
}

/// What happens at a time of its own.
#[derive(Debug)]
pub(crate) enum Step {
    /// The engine is told this.
    Tell(Command),
    /// This befalls the server at this place.
    Befall(usize, Incident),
}

/// Limits that some of the clients run into, in some runs.
fn client_limits(drawn: bool, random: &mut Random) -> ClientLimits {
    let mut limit = |most| {
        let limit = random.magnitude(1, most);
        (drawn && random.below(3) == 0).then(|| u32::try_from(limit).expect("small"))
    };
    ClientLimits {
        source_connections: limit(12),
        source_incomplete_handshakes: limit(12),
        source_handshakes_per_second: limit(20),
        handshakes_per_second: limit(20),
        ..ClientLimits::NONE
    }
}

fn faults(focus: Focus, random: &mut Random) -> Faults {
    let mut faults = Faults::draw(random);
    let none = PeerFaults::default();
    match focus {
        Focus::Anything => {}
        Focus::Calm | Focus::Servers => faults = Faults::NONE,
        Focus::Resets => {
            faults.clients = PeerFaults { reset: Chance(100), ..none };
            faults.backends = PeerFaults { reset: Chance(700), ..none };
        }
        Focus::Ends => {
            faults.clients = PeerFaults { early_end: Chance(200), ..none };
            faults.backends = PeerFaults { early_end: Chance(300), ..none };
        }
        Focus::Scarcity => {
            (faults.clients, faults.backends) = (none, none);
            faults.no_buffers = random.choice(&[Chance::NEVER, Chance(300)]);
        }
        Focus::Lateness => {
            (faults.clients, faults.backends) = (none, none);
            faults.delay = Chance(500);
            faults.delay_max =
                random.duration(Duration::from_micros(200), Duration::from_millis(20));
            faults.cancel_missed = Chance(300);
        }
        Focus::Haste => {
            let stalling = PeerFaults { stall: Chance(300), stall_for_ever: Chance(200), ..none };
            (faults.clients, faults.backends) = (stalling, stalling);
        }
    }
    faults
}
