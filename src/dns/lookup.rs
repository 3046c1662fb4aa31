//! One name asked for to the end: every nameserver, every type of record, every domain of the
//! search list, until there is an outcome.
//!
//! ```text
//!   for each candidate name      "app" with search a.example: app.a.example, app
//!     for each type              A, AAAA
//!       for each try             server 0, 1, 2, 0, 1, 2; over TCP if it is truncated
//! ```
//!
//! One question is on its way at a time. A nameserver that fails is passed over for the next;
//! when all have failed, the lookup has: it does not go on to the next candidate, so that a
//! failure never gives the address of another machine.

use std::net::IpAddr;
use std::time::Duration;

use super::book::Wanted;
use super::message::{self, Answer, NoAnswer, Query, Record, RecordType, ResponseCode, Service};
use super::resolv_conf::ResolvConf;
use crate::random::SplitMix64;

/// Which addresses of hosts are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    #[default]
    Both,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl Families {
    fn types(self) -> &'static [RecordType] {
        match self {
            Self::Both => &[RecordType::A, RecordType::Aaaa],
            Self::Ipv4 => &[RecordType::A],
            Self::Ipv6 => &[RecordType::Aaaa],
        }
    }

    /// Whether `address` is one of those.
    pub fn contain(self, address: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
        }
    }
}

/// How questions reach a nameserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// A connection for one question.
    Tcp,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// None came in time.
    #[error("no nameserver answers in time")]
    Timeout,
    /// The network says that nobody is there.
    #[error("no nameserver can be reached")]
    Unreachable,
    /// The nameserver will not or cannot tell.
    #[error("the nameserver answers {0}")]
    Refused(ResponseCode),
    /// Its answer makes no sense.
    #[error("the nameserver's answer cannot be read")]
    Malformed,
    /// The question could not be sent.
    #[error("the system gives no socket or no random number for the question")]
    System,
}

/// How names are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Whom, how often and in which domains.
    pub conf: ResolvConf,
    /// Which addresses.
    pub families: Families,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send [`Lookup::query`], and wait for as long as [`ResolvConf::timeout`].
    Ask {
        /// Whom: the place in [`ResolvConf::nameservers`].
        server: usize,
        /// How.
        over: Transport,
    },
    /// It is over.
    Done(Outcome),
}

/// What is known at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is something.
    Found {
        /// What.
        found: Found,
        /// How long it holds.
        ttl: Duration,
        /// What could not be found out beside it, and why.
        missing: Option<(RecordType, Failure)>,
    },
    /// There is nothing.
    Absent {
        /// The name exists, without such records.
        exists: bool,
        /// How long this holds, if anybody said so.
        ttl: Option<Duration>,
    },
    /// Nobody knows.
    Failed(RecordType, Failure),
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A host's addresses.
    Addresses(Vec<IpAddr>),
    /// A service's servers.
    Services(Vec<Service>),
}

/// A lookup under way.
#[derive(Debug)]
pub struct Lookup {
    /// Those still to be tried; the last is next.
    candidates: Vec<String>,
    candidate: String,
    types: &'static [RecordType],
    /// The place in `types` of what is being asked for.
    at_type: usize,
    servers: usize,
    tries_max: usize,
    tries: usize,
    first_over: Transport,
    over: Transport,
    query: Option<Query>,
    records: Vec<Record>,
    ttl_seconds: u32,
    exists: bool,
    negative_ttl_seconds: Option<u32>,
    /// Numbers of questions (RFC 5452 section 9.2): nobody else knows the seed, and it is of
    /// this lookup only.
    random: SplitMix64,
}

impl Lookup {
    /// Begins to ask for `wanted`. `seed` must be unpredictable.
    pub fn begin(wanted: &Wanted, manner: &Manner, seed: u64) -> (Self, Step) {
        let Manner { conf, families } = manner;
        let (name, types): (_, &[_]) = match wanted {
            Wanted::Host(name) => (name, families.types()),
            Wanted::Service(name) => (name, &[RecordType::Srv]),
        };
        let mut candidates = candidates(name, conf);
        candidates.reverse();
        let first_over = if conf.tcp_only { Transport::Tcp } else { Transport::Udp };
        let servers = conf.nameservers.len();
        let mut lookup = Self {
            candidates,
            candidate: String::new(),
            types,
            at_type: 0,
            servers,
            tries_max: servers * conf.attempts as usize,
            tries: 0,
            first_over,
            over: first_over,
            query: None,
            records: Vec::new(),
            ttl_seconds: u32::MAX,
            exists: false,
            negative_ttl_seconds: None,
            random: SplitMix64::new(seed),
        };
        let step = lookup.next_candidate();
        (lookup, step)
    }

    /// The message to send; empty when it is over.
    pub fn query(&self) -> &[u8] {
        self.query.as_ref().map_or(&[], Query::message)
    }

    /// Takes a message that came from the nameserver that was asked. `None`: it is not the
    /// answer, which may still come.
    pub fn take(&mut self, message: &[u8]) -> Option<Step> {
        let answer = message::read_answer(self.query.as_ref()?, message);
        Some(match answer {
            Err(NoAnswer::Unasked) => return None,
            Err(NoAnswer::Malformed) => self.fail(Failure::Malformed),
            Ok(Answer::Refused(code)) => self.fail(Failure::Refused(code)),
            Ok(Answer::Truncated) if self.over == Transport::Udp => {
                self.over = Transport::Tcp;
                Step::Ask { server: self.server(), over: self.over }
            }
            Ok(Answer::Truncated) => self.fail(Failure::Malformed),
            Ok(Answer::Records { records, ttl_seconds }) => {
                self.records.extend(records);
                self.ttl_seconds = self.ttl_seconds.min(ttl_seconds);
                self.next_type()
            }
            Ok(Answer::NoRecord { ttl_seconds }) => {
                self.exists = true;
                self.note_negative_ttl(ttl_seconds);
                self.next_type()
            }
            Ok(Answer::NoName { ttl_seconds }) => {
                self.note_negative_ttl(ttl_seconds);
                // Of a name that does not exist there is no other type either. Some
                // nameservers say so of a type that they do not know, too.
                if self.records.is_empty() && self.at_type == 0 {
                    self.next_candidate()
                } else {
                    self.next_type()
                }
            }
        })
    }

    /// The nameserver did not answer, or not well: goes on to the next, if there is one.
    pub fn fail(&mut self, failure: Failure) -> Step {
        self.tries += 1;
        self.over = self.first_over;
        if self.tries < self.tries_max {
            return self.ask();
        }
        let failed = self.types[self.at_type.min(self.types.len() - 1)];
        if self.records.is_empty() {
            self.done(Outcome::Failed(failed, failure))
        } else {
            self.found(Some((failed, failure)))
        }
    }

    fn server(&self) -> usize {
        self.tries % self.servers.max(1)
    }

    fn ask(&mut self) -> Step {
        let id = self.random.bits() as u16;
        self.query = Query::new(id, &self.candidate, self.types[self.at_type]);
        match &self.query {
            Some(_) => Step::Ask { server: self.server(), over: self.over },
            // A domain of the search list made it too long.
            None => self.next_candidate(),
        }
    }

    fn next_type(&mut self) -> Step {
        self.at_type += 1;
        if self.at_type < self.types.len() {
            return self.begin_question();
        }
        if self.records.is_empty() { self.next_candidate() } else { self.found(None) }
    }

    fn next_candidate(&mut self) -> Step {
        match self.candidates.pop() {
            Some(candidate) => {
                self.candidate = candidate;
                self.at_type = 0;
                self.begin_question()
            }
            None => {
                let ttl = self.negative_ttl_seconds.map(|ttl| Duration::from_secs(ttl.into()));
                self.done(Outcome::Absent { exists: self.exists, ttl })
            }
        }
    }

    fn begin_question(&mut self) -> Step {
        self.tries = 0;
        self.over = self.first_over;
        self.ask()
    }

    fn note_negative_ttl(&mut self, ttl_seconds: Option<u32>) {
        let known = self.negative_ttl_seconds.into_iter().chain(ttl_seconds);
        self.negative_ttl_seconds = known.min();
    }

    fn found(&mut self, missing: Option<(RecordType, Failure)>) -> Step {
        let records = std::mem::take(&mut self.records);
        let found = if self.types == [RecordType::Srv] {
            let service = |record| match record {
                Record::Service(service) => Some(service),
                Record::Address(_) => None,
            };
            Found::Services(records.into_iter().filter_map(service).collect())
        } else {
            let address = |record| match record {
                Record::Address(address) => Some(address),
                Record::Service(_) => None,
            };
            Found::Addresses(records.into_iter().filter_map(address).collect())
        };
        let ttl = Duration::from_secs(self.ttl_seconds.into());
        self.done(Outcome::Found { found, ttl, missing })
    }

    fn done(&mut self, outcome: Outcome) -> Step {
        self.query = None;
        Step::Done(outcome)
    }
}

/// The names to ask for, in turn, as resolv.conf(5) has it.
fn candidates(name: &str, conf: &ResolvConf) -> Vec<String> {
    if name.ends_with('.') {
        return vec![name.to_owned()];
    }
    let in_domains = conf.search.iter().map(|domain| format!("{name}.{domain}"));
    let mut candidates: Vec<String> = in_domains.collect();
    let dots = name.bytes().filter(|byte| *byte == b'.').count();
    let place = if dots >= conf.ndots { 0 } else { candidates.len() };
    candidates.insert(place, name.to_owned());
    candidates
}

#[cfg(test)]
mod tests;
