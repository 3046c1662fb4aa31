//! What names stand for, as far as is known, and when each is to be asked for again.
//!
//! ```text
//!   wanted ─▶ untried ── found ──▶ current ◀── found ── failing, absent
//!                │                    │                      ▲
//!                └─ no answer, or nothing there ─────────────┘   what was found last holds
//! ```
//!
//! What was found last holds until something else is found: a nameserver that fails, or says
//! that the name is gone, takes no server away. Only an answer with records does, of those
//! that it leaves out.
//!
//! The hosts of a service are names of their own here, for as long as it names them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::lookup::{Failure, Families, Found, Outcome};
use super::message::{RecordType, Service};
use crate::clock::Moment;
use crate::random::SplitMix64;

/// Names that are asked for at most, those that services name included; further ones of
/// services are left out. A configuration may have half as many.
pub const NAMES_MAX: usize = 65_536;

/// Addresses of a host, and servers of a service, that are kept: the least ones, so that all
/// who ask keep the same.
pub const SERVERS_MAX: usize = 128;

/// The most weight that a server of a service is given; where records have more, all are
/// scaled down.
pub const WEIGHT_MAX: u16 = 256;

/// After so long a lookup that failed is made again, twice as long each time.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// And this is the longest time between two.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How soon what does not exist is asked for again, if nobody says how long that holds.
const ABSENT: Duration = Duration::from_secs(5);

/// A name that somebody wants to know the servers of, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// A host: its addresses.
    Host(String),
    /// A service: its hosts and their addresses, by SRV records.
    Service(String),
}

impl fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => formatter.write_str(name),
            Self::Service(name) => write!(formatter, "srv:{name}"),
        }
    }
}

/// How what is known of a name came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nobody has been asked yet.
    #[default]
    Untried,
    /// It is the last answer.
    Current,
    /// The last answer was that the name does not exist, or has no such records.
    Absent {
        /// It exists.
        exists: bool,
    },
    /// There was no answer.
    Failing(RecordType, Failure),
}

impl Condition {
    /// The value of the `state` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Untried => "untried",
            Self::Current => "current",
            Self::Absent { .. } => "absent",
            Self::Failing(..) => "failing",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untried => formatter.write_str("no nameserver has answered yet"),
            Self::Current => formatter.write_str("it is known"),
            Self::Absent { exists: true } => formatter.write_str("it has no such records"),
            Self::Absent { exists: false } => formatter.write_str("there is no such name"),
            Self::Failing(record_type, failure) => write!(formatter, "{failure} ({record_type})"),
        }
    }
}

/// A server that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedServer {
    /// The host's name.
    pub host: String,
    /// Its address.
    pub address: IpAddr,
    /// Where it listens, if the name says so.
    pub port: Option<u16>,
    /// Its weight, if the name says so: 1 to [`WEIGHT_MAX`].
    pub weight: Option<u16>,
    /// Others are to be tried first.
    pub backup: bool,
}

/// What an outcome has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The name stands for others now.
    Servers {
        /// Those it did not stand for before.
        added: Vec<String>,
        /// Those it does not stand for any more.
        removed: Vec<String>,
    },
    /// Its condition, to this from another.
    Condition(Condition),
}

/// How long answers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// At least, whatever their TTL.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    lifetimes: Lifetimes,
    families: Families,
    roots: BTreeSet<Wanted>,
    entries: BTreeMap<Wanted, Entry>,
    /// Those that nobody is asking for just now.
    due: BTreeSet<(Moment, Wanted)>,
    /// Times that servers have changed.
    changes: u64,
    random: SplitMix64,
}

#[derive(Debug, Default)]
struct Entry {
    addresses: Vec<IpAddr>,
    services: Vec<Service>,
    condition: Condition,
    /// Lookups without an answer since the last with one.
    failures: u32,
    /// When it is due, unless somebody is asking.
    due: Option<Moment>,
    last_answer: Option<Moment>,
}

impl Book {
    /// A book of nothing. `seed` sets the jitter.
    pub fn new(lifetimes: Lifetimes, families: Families, seed: u64) -> Self {
        Self {
            lifetimes,
            families,
            roots: BTreeSet::new(),
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            changes: 0,
            random: SplitMix64::new(seed),
        }
    }

    /// From now on `names` are wanted and no others, and answers hold for `lifetimes`. What
    /// is known stays known; other `families` have every name asked for at once.
    pub fn want(
        &mut self,
        names: BTreeSet<Wanted>,
        lifetimes: Lifetimes,
        families: Families,
        now: Moment,
    ) {
        self.lifetimes = lifetimes;
        self.roots = names;
        if self.families != families {
            self.families = families;
            for (wanted, entry) in &mut self.entries {
                if let Some(due) = entry.due.replace(now) {
                    self.due.remove(&(due, wanted.clone()));
                }
                self.due.insert((now, wanted.clone()));
            }
        }
        self.follow_services(now);
    }

    /// Wants the hosts that services name, and nothing that nobody names any more.
    fn follow_services(&mut self, now: Moment) {
        let mut wanted = self.roots.clone();
        let services = self.roots.iter().filter_map(|root| self.entries.get(root));
        for service in services.flat_map(|entry| &entry.services) {
            if wanted.len() < NAMES_MAX {
                wanted.insert(Wanted::Host(service.target.clone()));
            }
        }
        let due = &mut self.due;
        self.entries.retain(|name, entry| {
            let stays = wanted.contains(name);
            if let Some(moment) = entry.due.filter(|_| !stays) {
                due.remove(&(moment, name.clone()));
            }
            stays
        });
        for name in wanted {
            self.entries.entry(name.clone()).or_insert_with(|| {
                due.insert((now, name));
                Entry { due: Some(now), ..Entry::default() }
            });
        }
    }

    /// A name that is to be asked for now. Its outcome must come to [`Self::learned`].
    pub fn next(&mut self, now: Moment) -> Option<Wanted> {
        if self.next_due()? > now {
            return None;
        }
        let (_, wanted) = self.due.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&wanted) {
            entry.due = None;
        }
        Some(wanted)
    }

    /// When the next name is due.
    pub fn next_due(&self) -> Option<Moment> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes what came of asking for `wanted`.
    pub fn learned(&mut self, wanted: &Wanted, outcome: Outcome, now: Moment) -> Vec<Change> {
        let Lifetimes { min, max } = self.lifetimes;
        let Some(entry) = self.entries.get_mut(wanted) else { return Vec::new() };
        let mut changes = Vec::new();
        let (condition, wait) = match outcome {
            Outcome::Found { found, ttl, missing } => {
                entry.last_answer = Some(now);
                changes.extend(entry.hold(found, missing.map(|(record_type, _)| record_type)));
                match missing {
                    None => (Condition::Current, ttl.clamp(min, max)),
                    Some((record_type, failure)) => {
                        (Condition::Failing(record_type, failure), retry(entry.failures).max(min))
                    }
                }
            }
            Outcome::Absent { exists, ttl } => {
                entry.last_answer = Some(now);
                (Condition::Absent { exists }, ttl.unwrap_or(ABSENT).min(RETRY_MAX).max(min))
            }
            Outcome::Failed(record_type, failure) => {
                (Condition::Failing(record_type, failure), retry(entry.failures).max(min))
            }
        };
        let failing = matches!(condition, Condition::Failing(..));
        entry.failures = if failing { entry.failures.saturating_add(1) } else { 0 };
        // That a new name is resolved is told by its servers.
        let as_expected = (entry.condition, condition) == (Condition::Untried, Condition::Current);
        if entry.condition.label() != condition.label() && !as_expected {
            changes.push(Change::Condition(condition));
        }
        entry.condition = condition;
        // Never before it has ended: a nameserver that keeps answers would give the rest of
        // the same one. Later by chance, so that nodes and names do not ask all at once.
        let tenth = u64::try_from(wait.as_nanos() / 10).unwrap_or(u64::MAX);
        let wait = wait + Duration::from_nanos(self.random.below(tenth));
        let due = now.after(wait);
        if let Some(before) = entry.due.replace(due) {
            self.due.remove(&(before, wanted.clone()));
        }
        self.due.insert((due, wanted.clone()));
        if changes.iter().any(|change| matches!(change, Change::Servers { .. })) {
            self.changes += 1;
            if matches!(wanted, Wanted::Service(_)) {
                self.follow_services(now);
            }
        }
        changes
    }

    /// How often the servers of any name have changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether every one of `names` has been asked for once, and the hosts of each service.
    pub fn are_tried<'a>(&self, names: impl IntoIterator<Item = &'a Wanted>) -> bool {
        names.into_iter().all(|name| {
            let Some(entry) = self.entries.get(name) else { return true };
            let hosts = entry.services.iter().map(|service| &service.target);
            entry.condition != Condition::Untried
                && hosts.map(|host| Wanted::Host(host.clone())).all(|host| {
                    let host = self.entries.get(&host);
                    host.is_none_or(|host| host.condition != Condition::Untried)
                })
        })
    }

    /// The servers of `name` as far as they are known.
    pub fn servers(&self, name: &Wanted) -> Vec<NamedServer> {
        let Some(entry) = self.entries.get(name) else { return Vec::new() };
        match name {
            Wanted::Host(host) => entry
                .addresses
                .iter()
                .map(|address| NamedServer {
                    host: host.clone(),
                    address: *address,
                    port: None,
                    weight: None,
                    backup: false,
                })
                .collect(),
            Wanted::Service(_) => self.servers_of_service(&entry.services),
        }
    }

    /// RFC 2782: the lowest priority goes first; of the others all are backups.
    fn servers_of_service(&self, services: &[Service]) -> Vec<NamedServer> {
        let first = services.iter().map(|service| service.priority).min();
        let heaviest = services.iter().map(|service| service.weight).max().unwrap_or(0);
        let mut servers = Vec::new();
        for service in services {
            let host = self.entries.get(&Wanted::Host(service.target.clone()));
            let addresses = host.into_iter().flat_map(|host| &host.addresses);
            servers.extend(addresses.map(|address| NamedServer {
                host: service.target.trim_end_matches('.').to_owned(),
                address: *address,
                port: Some(service.port),
                weight: Some(scaled(service.weight, heaviest)),
                backup: Some(service.priority) != first,
            }));
        }
        servers
    }

    /// Why no more is known of `name`: its condition, or that of the first host of a service
    /// that nothing is known of.
    pub fn condition(&self, name: &Wanted) -> Condition {
        let Some(entry) = self.entries.get(name) else { return Condition::Untried };
        let mut hosts = entry.services.iter().filter_map(|service| {
            let host = self.entries.get(&Wanted::Host(service.target.clone()))?;
            host.addresses.is_empty().then_some(host.condition)
        });
        match entry.condition {
            Condition::Current => hosts.next().unwrap_or(Condition::Current),
            condition => condition,
        }
    }

    /// Every name with its condition, the number of what it stands for, and when an answer
    /// came last.
    pub fn iter(&self) -> impl Iterator<Item = (&Wanted, Condition, usize, Option<Moment>)> {
        self.entries.iter().map(|(name, entry)| {
            let count = entry.addresses.len() + entry.services.len();
            (name, entry.condition, count, entry.last_answer)
        })
    }
}

impl Entry {
    /// Holds what was found in the place of what was; of the addresses of type `missing`,
    /// nothing is known anew.
    fn hold(&mut self, found: Found, missing: Option<RecordType>) -> Option<Change> {
        match found {
            Found::Addresses(mut found) => {
                let kept = self.addresses.iter().filter(|address| match missing {
                    Some(RecordType::A) => address.is_ipv4(),
                    Some(RecordType::Aaaa) => address.is_ipv6(),
                    _ => false,
                });
                found.extend(kept);
                replace(&mut self.addresses, found, ToString::to_string)
            }
            Found::Services(found) => replace(&mut self.services, found, |service| {
                let Service { priority, target, port, weight } = service;
                format!("{target}:{port} (priority {priority}, weight {weight})")
            }),
        }
    }
}

/// Puts the first of `found` in the place of `held`, in order and none twice.
fn replace<T: Ord>(
    held: &mut Vec<T>,
    mut found: Vec<T>,
    text: impl Fn(&T) -> String,
) -> Option<Change> {
    found.sort_unstable();
    found.dedup();
    found.truncate(SERVERS_MAX);
    let added = found.iter().filter(|one| !held.contains(one)).map(&text).collect();
    let removed = held.iter().filter(|one| !found.contains(one)).map(&text).collect();
    let changed = *held != found;
    *held = found;
    changed.then_some(Change::Servers { added, removed })
}

fn retry(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.min(10)).min(RETRY_MAX)
}

/// A weight of 0 is a small one (RFC 2782): as small as there is here.
fn scaled(weight: u16, heaviest: u16) -> u16 {
    let weight = if heaviest > WEIGHT_MAX {
        (u32::from(weight) * u32::from(WEIGHT_MAX) / u32::from(heaviest)) as u16
    } else {
        weight
    };
    weight.max(1)
}

#[cfg(test)]
mod tests;
