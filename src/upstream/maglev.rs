//! Maglev: the same client goes to the same server, whichever engine or node it comes to.
//!
//! ```text
//!   client ─hash─▶ entry ─▶ server        entries  0 1 2 3 4 5 6 7 …  65,536
//!                    │                    server   b a a c b c a b …
//!                    └─ out, full or tried: the entry behind it, and so on
//! ```
//!
//! The table is that of Eisenbud and others, "Maglev: A Fast and Reliable Software Network
//! Load Balancer", NSDI 2016, section 3.4. Every server takes entries in an order of its
//! own, in turns, so that servers have equal shares, and a server that comes or goes moves
//! few clients of others. A server of a smaller weight misses turns.
//!
//! All nodes with the same servers have the same table, in whatever order their files list
//! the servers, since everything in it is settled:
//!
//! * A server is known by its endpoint as it is written in the log: `10.0.0.1:80`,
//!   `[2001:db8::1]:80`, `unix:/run/app.sock`.
//! * Hashes are SipHash-2-4 (Aumasson and Bernstein 2012) with the keys (0, purpose):
//!   purpose 0 gives a server's first entry, modulo the size; purpose 1 its step, modulo
//!   the size less one, plus one; purpose 2 hashes clients.
//! * A client is hashed by the 4 or 16 bytes of its address (an IPv4 address in IPv6 is
//!   the IPv4 address), or by the bytes of the name that it asks for, in lower case; who
//!   asks for no name, by the address.
//! * Servers take turns in the order of their names.
//!
//! The keys are no secret: who chooses its own address or name can choose its server.
//!
//! Sans-I/O. May know: endpoints by their text. Must not know: what became of servers.
#![forbid(unsafe_code)]

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// Entries of a table: a prime, so that every step visits all of them. It does not follow
/// the number of servers, because another size moves every client. With the most servers
/// that a pool can have, each has 512 entries, and shares differ by about a hundredth; a
/// byte each, so that a table is 64 KiB.
pub const ENTRIES: usize = 65_537;

/// The most servers that a table can have.
pub const SERVERS_MAX: usize = FREE as usize;

/// No server yet.
const FREE: u8 = u8::MAX;

const PURPOSE_FIRST: u64 = 0;
const PURPOSE_STEP: u64 = 1;
const PURPOSE_CLIENT: u64 = 2;

/// What a client is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashBy {
    /// Its address.
    #[default]
    Source,
    /// The name that it asks for.
    ServerName,
}

/// Who is to be balanced.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Where it comes from.
    pub source: IpAddr,
    /// The name that it asks for, in lower case.
    pub server_name: Option<&'a str>,
}

/// A server, as far as it matters to the tables.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its endpoint, as it is written.
    pub name: String,
    /// Its share of the clients.
    pub weight: u16,
    /// It stands in for the others.
    pub backup: bool,
}

/// The tables of a pool: one of the servers, one of those that stand in for them.
pub struct Maglev {
    hash: HashBy,
    regular: Table,
    backup: Table,
}

impl Maglev {
    /// The tables of these servers, which are to be found by `hash`. Takes some
    /// milliseconds.
    ///
    /// # Panics
    /// If they are more than [`SERVERS_MAX`].
    pub fn new(hash: HashBy, servers: &[Server]) -> Self {
        assert!(servers.len() <= SERVERS_MAX, "an entry is a byte");
        let table = |backup| {
            let places = servers.iter().zip(0..);
            Table::new(places.filter(|(server, _)| server.backup == backup).collect())
        };
        Self { hash, regular: table(false), backup: table(true) }
    }

    /// What clients are found by.
    pub fn hash(&self) -> HashBy {
        self.hash
    }

    /// The hash of a client.
    pub fn of(&self, client: &Client<'_>) -> u64 {
        match (self.hash, client.server_name) {
            (HashBy::ServerName, Some(name)) => siphash(PURPOSE_CLIENT, name.as_bytes()),
            (HashBy::Source, _) | (HashBy::ServerName, None) => {
                match client.source.to_canonical() {
                    IpAddr::V4(address) => siphash(PURPOSE_CLIENT, &address.octets()),
                    IpAddr::V6(address) => siphash(PURPOSE_CLIENT, &address.octets()),
                }
            }
        }
    }

    /// The servers, or those that stand in for them, in the order in which a client of this
    /// hash would have them: each as often as it has entries.
    pub fn order(&self, hash: u64, backup: bool) -> impl Iterator<Item = usize> {
        let table = if backup { &self.backup } else { &self.regular };
        table.from(hash)
    }
}

impl fmt::Debug for Maglev {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Maglev").field("hash", &self.hash).finish_non_exhaustive()
    }
}

fn siphash(purpose: u64, bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(0, purpose);
    hasher.write(bytes);
    hasher.finish()
}

/// Which server each entry belongs to; empty without servers.
struct Table(Box<[u8]>);

/// A server that takes entries.
struct Member {
    place: u8,
    next: usize,
    step: usize,
    weight: u32,
    /// Weight that it has saved up; a turn costs the largest weight.
    credit: u32,
}

impl Table {
    /// The table of these servers and their places.
    fn new(mut servers: Vec<(&Server, u8)>) -> Self {
        servers.retain(|(server, _)| server.weight > 0);
        servers.sort_by_key(|(server, _)| server.name.as_str());
        let most = servers.iter().map(|(server, _)| u32::from(server.weight)).max();
        let Some(turn) = most else { return Self(Box::default()) };
        let member = |(server, place): (&Server, u8)| {
            let below = |purpose, limit: usize| {
                (siphash(purpose, server.name.as_bytes()) % limit as u64) as usize
            };
            Member {
                place,
                next: below(PURPOSE_FIRST, ENTRIES),
                step: below(PURPOSE_STEP, ENTRIES - 1) + 1,
                weight: server.weight.into(),
                credit: 0,
            }
        };
        let mut members: Vec<Member> = servers.into_iter().map(member).collect();
        let mut entries = vec![FREE; ENTRIES].into_boxed_slice();
        let mut free = ENTRIES;
        loop {
            for member in &mut members {
                member.credit += member.weight;
                if member.credit < turn {
                    continue;
                }
                member.credit -= turn;
                // The step and the size have no common divisor, so it comes to every entry.
                while entries[member.next] != FREE {
                    member.next = (member.next + member.step) % ENTRIES;
                }
                entries[member.next] = member.place;
                free -= 1;
                if free == 0 {
                    return Self(entries);
                }
            }
        }
    }

    fn from(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = (hash % ENTRIES as u64) as usize;
        let first = first.min(self.0.len());
        self.0[first..].iter().chain(&self.0[..first]).map(|place| usize::from(*place))
    }
}

#[cfg(test)]
mod tests;
