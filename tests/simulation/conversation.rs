//! One client's conversation with a backend: what is to be said, and what each end saw.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use forebay::clock::Moment;
use forebay::driver::simulator::{Chance, ConnectionId, Line, Random};

use crate::setting::{Focus, Setting};

/// What the two ends of one conversation are to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    /// Bytes that the client says.
    pub(crate) up_bytes: usize,
    /// Bytes that the backend says.
    pub(crate) down_bytes: usize,
    pub(crate) client: Manners,
    pub(crate) backend: Manners,
    pub(crate) client_end: ClientEnd,
    pub(crate) offer: Offer,
    /// The client changes its keys now and then.
    pub(crate) key_updates: Chance,
    /// The client damages its ciphertext once it has sent so many bytes of it.
    pub(crate) damage_at: Option<usize>,
}

/// How one end behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    /// The most that it says in one go.
    pub(crate) chunk_max: usize,
    pub(crate) starts: Starts,
    pub(crate) ends: Ends,
    /// How often it does something else first.
    pub(crate) dozes: Chance,
}

/// When an end begins to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Starts {
    AtOnce,
    AfterFirstByte,
    AfterAllBytes,
}

/// When an end that has said everything ends its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    WhenSaid,
    WhenHeard,
    AfterTheOther,
}

/// How a client ends its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientEnd {
    CloseNotify,
    CloseNotifyAndFin,
    FinOnly,
}

/// What a client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    Both,
    OnlyTls12,
    OnlyTls13,
    /// Not TLS at all: these bytes.
    Garbage(&'static [u8]),
}

/// How the other end's stream ended, as seen from this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In order: close_notify for a client, the end of the stream for a backend.
    Clean,
    /// The end of the stream came without close_notify.
    Truncated,
    Reset,
    /// A client found the records unacceptable, or was sent a fatal alert.
    Broken(String),
}

/// What one end did and saw.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// A client's handshake is done; a backend has read its header.
    pub(crate) established: bool,
    pub(crate) said_bytes: usize,
    pub(crate) heard_bytes: usize,
    /// Everything was said and the end of it has left: close_notify or FIN.
    pub(crate) ended: bool,
    /// It could not say more: the connection took nothing any longer.
    pub(crate) cut_off: bool,
    /// Ciphertext was damaged.
    pub(crate) damaged: bool,
    /// Its ciphertext so far ends in the middle of a record.
    pub(crate) mid_record: bool,
    pub(crate) ending: Option<Ending>,
}

/// A conversation and what became of it.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) plan: Plan,
    pub(crate) client_connection: Option<ConnectionId>,
    pub(crate) backend_connection: Option<ConnectionId>,
    pub(crate) client: Facts,
    pub(crate) backend: Facts,
    /// The backend is spoken TLS with.
    pub(crate) over_tls: bool,
}

pub(crate) type Shared = Rc<RefCell<Conversation>>;

/// Finds a conversation by the client's address, as a backend must.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    by_client: Rc<RefCell<HashMap<SocketAddr, Shared>>>,
    /// Connections to backends of which no header has said whose they are.
    anonymous: Rc<RefCell<BTreeSet<ConnectionId>>>,
}

impl Registry {
    pub(crate) fn accept(&self, connection: ConnectionId) {
        self.anonymous.borrow_mut().insert(connection);
    }

    pub(crate) fn identify(&self, connection: ConnectionId, client: SocketAddr) -> Shared {
        self.anonymous.borrow_mut().remove(&connection);
        let found = self.by_client.borrow().get(&client).cloned();
        found.unwrap_or_else(|| panic!("a PROXY header names {client}, who is no client"))
    }

    pub(crate) fn anonymous(&self) -> Vec<ConnectionId> {
        self.anonymous.borrow().iter().copied().collect()
    }

    pub(crate) fn add(&self, plan: Plan, client_address: SocketAddr) -> Shared {
        let conversation = Rc::new(RefCell::new(Conversation {
            plan,
            client_connection: None,
            backend_connection: None,
            client: Facts::default(),
            backend: Facts::default(),
            over_tls: false,
        }));
        let other = self.by_client.borrow_mut().insert(client_address, Rc::clone(&conversation));
        assert!(other.is_none(), "two clients at {client_address}");
        conversation
    }
}

impl Plan {
    pub(crate) fn draw(number: u64, setting: &Setting, random: &mut Random) -> Self {
        let bytes_max = setting.bytes_max;
        let size = |random: &mut Random| {
            if random.below(8) == 0 { 0 } else { random.magnitude(1, bytes_max) }
        };
        let (up_bytes, down_bytes) = (size(random), size(random));
        let manners = |random: &mut Random| Manners {
            chunk_max: random.magnitude(1, 40_000).max(bytes_max / 500),
            starts: Starts::AtOnce,
            ends: random.choice(&[Ends::WhenSaid, Ends::WhenHeard]),
            dozes: random.choice(&[Chance::NEVER, Chance::NEVER, Chance(50), Chance(500)]),
        };
        let (mut client, mut backend) = (manners(random), manners(random));
        // Only one of them may wait for the other, or both would for ever.
        match random.below(4) {
            0 => client.ends = Ends::AfterTheOther,
            1 => backend.ends = Ends::AfterTheOther,
            _ => {}
        }
        if up_bytes > 0 {
            backend.starts =
                random.choice(&[Starts::AtOnce, Starts::AfterFirstByte, Starts::AfterAllBytes]);
        }
        let offer = match random.below(20) {
            0 => Offer::Garbage(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n"),
            1 => Offer::Garbage(b"\x16\x03\x01\x00\x05nonsense that is no ClientHello"),
            // It would sit on a buffer for as long as the timeout lets it.
            2 if setting.focus != Focus::Scarcity => {
                Offer::Garbage(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a part of one")
            }
            3 => Offer::Garbage(b""),
            4..8 => Offer::Both,
            8..14 => Offer::OnlyTls12,
            _ => Offer::OnlyTls13,
        };
        Self {
            number,
            up_bytes,
            down_bytes,
            client,
            backend,
            client_end: random.choice(&[
                ClientEnd::CloseNotify,
                ClientEnd::CloseNotify,
                ClientEnd::CloseNotifyAndFin,
                ClientEnd::CloseNotifyAndFin,
                ClientEnd::FinOnly,
            ]),
            offer,
            key_updates: random.choice(&[Chance::NEVER, Chance::NEVER, Chance(20)]),
            damage_at: (random.below(15) == 0).then(|| random.magnitude(1, 100_000)),
        }
    }

    pub(crate) fn up(&self) -> Stream {
        Stream { seed: self.number << 1 }
    }

    pub(crate) fn down(&self) -> Stream {
        Stream { seed: self.number << 1 | 1 }
    }

    /// A whole conversation that nothing disturbs is heard to the end by both.
    pub(crate) fn is_well_behaved(&self) -> bool {
        !matches!(self.offer, Offer::Garbage(_)) && self.damage_at.is_none()
    }
}

impl Manners {
    pub(crate) fn may_start(&self, heard_bytes: usize, all_bytes: usize) -> bool {
        match self.starts {
            Starts::AtOnce => true,
            Starts::AfterFirstByte => heard_bytes > 0,
            Starts::AfterAllBytes => heard_bytes == all_bytes,
        }
    }

    pub(crate) fn may_end(&self, heard_bytes: usize, all_bytes: usize, other_ended: bool) -> bool {
        match self.ends {
            Ends::WhenSaid => true,
            Ends::WhenHeard => heard_bytes == all_bytes,
            Ends::AfterTheOther => other_ended,
        }
    }
}

/// Bytes that are known by their place alone, different for every direction of every
/// conversation: a byte that is lost, doubled, moved or somebody else's is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    seed: u64,
}

impl Stream {
    const BLOCK: usize = 8;

    pub(crate) fn bytes(self, from: usize, count: usize) -> Vec<u8> {
        let first = from / Self::BLOCK;
        let last = (from + count).div_ceil(Self::BLOCK);
        let blocks = (first..last)
            .flat_map(|block| Random::new(self.seed << 32 ^ block as u64).bits().to_le_bytes());
        blocks.skip(from - first * Self::BLOCK).take(count).collect()
    }

    /// # Panics
    /// `heard` is not what stands at `from`.
    pub(crate) fn check(self, from: usize, heard: &[u8]) {
        let expected = self.bytes(from, heard.len());
        if let Some(place) = heard.iter().zip(&expected).position(|(is, should)| is != should) {
            panic!(
                "stream {} of conversation {}: byte {} is wrong (heard in a run of {} from {from})",
                if self.seed & 1 == 0 { "up" } else { "down" },
                self.seed >> 1,
                from + place,
                heard.len(),
            );
        }
    }
}

/// An end that sometimes does something else.
#[derive(Debug, Default)]
pub(crate) struct Doze {
    until: Option<Moment>,
}

impl Doze {
    /// How much longer it is away.
    pub(crate) fn rest(&mut self, chance: Chance, line: &mut Line<'_>) -> Option<Duration> {
        let now = line.now();
        if let Some(until) = self.until.take() {
            if now < until {
                self.until = Some(until);
                return Some(until.since(now));
            }
            // Back, and it does something first.
            return None;
        }
        if !line.random().happens(chance) {
            return None;
        }
        let rest = line.random().duration(Duration::from_micros(10), Duration::from_millis(200));
        self.until = Some(now.after(rest));
        Some(rest)
    }
}
