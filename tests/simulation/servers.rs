//! The servers of the pool: what they may have, and how they die and come back, noticed
//! late or not at all by whoever looks after them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use forebay::clock::Moment;
use forebay::driver::simulator::Random;
use forebay::upstream::status::{Availability, Standing};
use forebay::upstream::{Backend, Balance, HashBy, Pool};

use crate::run::endpoint;

/// How a server answers who connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It accepts.
    #[default]
    Well,
    /// It is dead: the kernel refuses for it.
    Dead,
    /// Its machine is gone: nothing comes back.
    Silent,
}

/// How each server answers now, by its place.
pub(crate) type Conditions = Rc<Vec<Cell<Condition>>>;

/// Something that happens to a server, so long after the start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Incident {
    /// It answers otherwise from now on.
    Becomes(Condition),
    /// Somebody notices and says so.
    Noticed(Availability),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Algorithm {
    RoundRobin,
    LeastConnections,
    RandomTwo,
    Maglev(HashBy),
}

#[derive(Clone, Debug)]
pub(crate) struct Servers {
    pub(crate) backends: Vec<Backend>,
    /// How many connections the agent of each server lets it have.
    pub(crate) agent_limits: Vec<Option<u32>>,
    pub(crate) incidents: Vec<(Duration, usize, Incident)>,
    pub(crate) algorithm: Algorithm,
    pub(crate) queue_max: u32,
    pub(crate) slow_start: Duration,
    /// Nothing ever happens to the first one.
    pub(crate) one_is_steady: bool,
}

impl Servers {
    /// Servers to which something happens within `within`, if they are `troubled`.
    pub(crate) fn draw(troubled: bool, within: Duration, random: &mut Random) -> Self {
        let count = random.between(1, 5);
        let one_is_steady = !troubled || random.below(3) > 0;
        let backends: Vec<_> = (0..count)
            .map(|place| Backend {
                weight: random.choice(&[1, 1, 1, 2, 7]),
                backup: troubled && random.below(5) == 0,
                connections_max: (troubled && random.below(4) == 0)
                    .then(|| random.between(1, 3) as u32),
                ..Backend::new(endpoint(place), 1)
            })
            .collect();
        // From the start and always the same: to lower one closes nothing.
        let agent_limits: Vec<_> = (0..count)
            .map(|_| (troubled && random.below(4) == 0).then(|| random.between(1, 3) as u32))
            .collect();
        for (backend, connections_max) in backends.iter().zip(&agent_limits) {
            let connections_max = *connections_max;
            backend.status.set_standing(Standing { connections_max, ..Standing::INITIAL });
        }
        let mut incidents = Vec::new();
        for place in usize::from(one_is_steady)..count {
            for _ in 0..if troubled { random.below(4) } else { 0 } {
                let after = random.duration(Duration::from_micros(1), within);
                let condition =
                    random.choice(&[Condition::Well, Condition::Dead, Condition::Silent]);
                incidents.push((after, place, Incident::Becomes(condition)));
                if random.below(2) == 0 {
                    let late = random.duration(Duration::from_micros(1), within);
                    let standing = match condition {
                        Condition::Well => Availability::Up,
                        _ => random.choice(&[Availability::Down, Availability::Ejected]),
                    };
                    incidents.push((after + late, place, Incident::Noticed(standing)));
                }
            }
        }
        Self {
            backends,
            agent_limits,
            incidents,
            algorithm: random.choice(&[
                Algorithm::RoundRobin,
                Algorithm::LeastConnections,
                Algorithm::RandomTwo,
                Algorithm::Maglev(HashBy::Source),
                Algorithm::Maglev(HashBy::ServerName),
            ]),
            queue_max: random.choice(&[0, 1, 3, 100]),
            slow_start: random.choice(&[Duration::ZERO, Duration::from_secs(1)]),
            one_is_steady,
        }
    }

    /// The pool of the first `kept` of them.
    pub(crate) fn pool(&self, kept: usize) -> Pool {
        let backends = self.backends[..kept].to_vec();
        let balance = match self.algorithm {
            Algorithm::RoundRobin => Balance::RoundRobin,
            Algorithm::LeastConnections => Balance::LeastConnections,
            Algorithm::RandomTwo => Balance::RandomTwo,
            Algorithm::Maglev(hash) => Pool::maglev(hash, &backends),
        };
        Pool {
            balance,
            queue_max: self.queue_max,
            slow_start: self.slow_start,
            ..Pool::new("pool", backends)
        }
    }

    pub(crate) fn conditions(&self) -> Conditions {
        Rc::new(self.backends.iter().map(|_| Cell::default()).collect())
    }

    /// Lets it happen.
    pub(crate) fn suffer(
        &self,
        place: usize,
        incident: Incident,
        conditions: &Conditions,
        now: Moment,
    ) {
        match incident {
            Incident::Becomes(condition) => conditions[place].set(condition),
            Incident::Noticed(availability) => {
                let up_since = (availability == Availability::Up).then_some(now);
                let connections_max = self.agent_limits[place];
                let standing =
                    Standing { availability, up_since, connections_max, ..Standing::INITIAL };
                self.backends[place].status.set_standing(standing);
            }
        }
    }

    /// No server has more connections than it may have: what its agent says comes first.
    pub(crate) fn assert_within_limits(&self) {
        for (backend, of_agent) in self.backends.iter().zip(&self.agent_limits) {
            let (open, most) = (backend.status.open(), of_agent.or(backend.connections_max));
            assert!(
                most.is_none_or(|most| open <= most.into()),
                "{} has {open} connections of {most:?}",
                backend.name
            );
        }
    }

    /// Every connection was given back.
    pub(crate) fn assert_at_rest(&self) {
        for backend in &self.backends {
            assert_eq!(backend.status.open(), 0, "connections to {} at rest", backend.name);
        }
    }
}
