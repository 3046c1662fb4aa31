//! Clients that shake hands, have one byte echoed, and leave: any number at once on one
//! thread, at a rate that does not depend on how they fare.
//!
//! What makes the rate cheap: a client whose ClientHello was never answered is used
//! again, so that key pairs are made for handshakes only and not for attempts. Sockets
//! are closed by a reset, which leaves no port waiting.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Socket, Type};

use crate::support::tls_client;

/// Clients opened in one go, before those who wait are looked after again.
const OPENED_AT_ONCE_MAX: usize = 64;

/// How clients come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// From one to the next; `None`: as soon as there is room.
    pub(crate) interval: Option<Duration>,
    /// Clients at once.
    pub(crate) in_flight_max: usize,
    /// Clients in all.
    pub(crate) connections_max: usize,
    /// No more clients after this time.
    pub(crate) duration: Duration,
    /// Clients that came before this time are not counted.
    pub(crate) warm_up: Duration,
    /// How long a client waits for its byte, from the moment when it was due to come.
    pub(crate) patience: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            interval: None,
            in_flight_max: 16_000,
            connections_max: usize::MAX,
            duration: Duration::MAX,
            warm_up: Duration::ZERO,
            patience: Duration::from_secs(1),
        }
    }
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Clients that came.
    pub(crate) offered: u64,
    /// Got their byte back.
    pub(crate) completed: u64,
    /// Were closed or reset.
    pub(crate) refused: u64,
    /// Ran out of patience.
    pub(crate) given_up: u64,
    /// Were due, but there was no room for them.
    pub(crate) no_room: u64,
    /// The most that the last of them was late.
    pub(crate) late: Duration,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.offered += other.offered;
        self.completed += other.completed;
        self.refused += other.refused;
        self.given_up += other.given_up;
        self.no_room += other.no_room;
        self.late = self.late.max(other.late);
    }
}

pub(crate) struct Clients {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Clients whose patience ends, the earliest first, with the slot's generation.
    deadlines: VecDeque<(Instant, usize, u32)>,
    /// Clients nobody has answered yet.
    // Boxed, since a hello moves into its connection and back by pointer.
    #[allow(clippy::vec_box)]
    unused: Vec<Box<Hello>>,
    in_flight: usize,
    tally: Tally,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    client: Option<Client>,
}

struct Client {
    stream: TcpStream,
    hello: Box<Hello>,
    sent: bool,
    answered: bool,
    byte_sent: bool,
    counts: bool,
}

/// A TLS client that has said one thing.
struct Hello {
    tls: ClientConnection,
    record: Vec<u8>,
}

enum End {
    Completed,
    Refused,
    GivenUp,
}

impl Clients {
    /// Clients of `address`: TLS 1.3, X25519, AES-128-GCM, no resumption.
    pub(crate) fn new(address: SocketAddr, name: &str) -> Self {
        let mut config = tls_client::config_with(CryptoProvider {
            kx_groups: vec![kx_group::X25519],
            cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
            ..default_provider()
        });
        config.resumption = Resumption::disabled();
        Self {
            address,
            config: Arc::new(config),
            name: ServerName::try_from(name.to_owned()).expect("a name"),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll"),
            slots: Vec::new(),
            free: Vec::new(),
            deadlines: VecDeque::new(),
            unused: Vec::new(),
            in_flight: 0,
            tally: Tally::default(),
        }
    }

    /// Lets clients come until the load says enough and the last has left.
    pub(crate) fn run(&mut self, load: &Load) -> Tally {
        self.tally = Tally::default();
        let begin = Instant::now();
        let mut events = Vec::with_capacity(1_024);
        let mut came = 0;
        let mut due = Duration::ZERO;
        loop {
            let mut elapsed = begin.elapsed();
            let coming = due < load.duration && came < load.connections_max;
            if !coming && self.in_flight == 0 {
                return self.tally;
            }
            let mut opened = 0;
            while due <= elapsed && due < load.duration && came < load.connections_max {
                let room = self.in_flight < load.in_flight_max;
                if opened == OPENED_AT_ONCE_MAX || (!room && load.interval.is_none()) {
                    break;
                }
                let counts = due >= load.warm_up;
                if room {
                    let late = load.interval.map_or(Duration::ZERO, |_| elapsed - due);
                    self.tally.late = self.tally.late.max(late);
                    self.open(counts, begin + due + load.patience);
                } else {
                    self.tally.no_room += u64::from(counts);
                }
                opened += 1;
                came += 1;
                due = load.interval.map_or(elapsed, |interval| due + interval);
                elapsed = begin.elapsed();
            }
            self.expire();
            let mut wait = self.deadlines.front().map_or(Duration::from_millis(10), |front| {
                front.0.saturating_duration_since(Instant::now())
            });
            if coming && (load.interval.is_some() || self.in_flight < load.in_flight_max) {
                wait = wait.min(due.saturating_sub(begin.elapsed()));
            }
            self.wait(&mut events, wait);
        }
    }

    fn open(&mut self, counts: bool, deadline: Instant) {
        self.tally.offered += u64::from(counts);
        let hello = self.unused.pop().unwrap_or_else(|| self.make_hello());
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("socket");
        socket.set_linger(Some(Duration::ZERO)).expect("linger");
        // On the loopback the connection stands when this returns, but it does not say so.
        let _ = socket.connect(&self.address.into());
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.generation += 1;
        let key = (index as u64) << 32 | u64::from(slot.generation);
        let stream = TcpStream::from(socket);
        let wanted = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(key), wanted).expect("epoll");
        slot.client =
            Some(Client { stream, hello, sent: false, answered: false, byte_sent: false, counts });
        self.deadlines.push_back((deadline, index, slot.generation));
        self.in_flight += 1;
        self.advance(index);
    }

    fn make_hello(&self) -> Box<Hello> {
        let config = Arc::clone(&self.config);
        let mut tls = ClientConnection::new(config, self.name.clone()).expect("client");
        let mut record = Vec::new();
        tls.write_tls(&mut record).expect("a ClientHello");
        Box::new(Hello { tls, record })
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>, wait: Duration) {
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("epoll: {error}"),
        }
        for event in events.drain(..) {
            let epoll::Event { data, .. } = event;
            let key = data.u64();
            let index = (key >> 32) as usize;
            if self.slots[index].generation == key as u32 {
                self.advance(index);
            }
        }
    }

    /// Takes a client as far as it comes.
    fn advance(&mut self, index: usize) {
        let Some(client) = &mut self.slots[index].client else { return };
        match client.advance() {
            Ok(None) => {}
            Ok(Some(end)) => self.close(index, end),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.close(index, End::Refused),
        }
    }

    fn close(&mut self, index: usize, end: End) {
        let Some(client) = self.slots[index].client.take() else { return };
        if client.counts {
            match end {
                End::Completed => self.tally.completed += 1,
                End::Refused => self.tally.refused += 1,
                End::GivenUp => self.tally.given_up += 1,
            }
        }
        if !client.answered {
            self.unused.push(client.hello);
        }
        self.free.push(index);
        self.in_flight -= 1;
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(&(deadline, index, generation)) = self.deadlines.front() {
            let slot = &self.slots[index];
            let over = slot.generation != generation || slot.client.is_none();
            if !over && deadline > now {
                return;
            }
            self.deadlines.pop_front();
            if !over {
                self.close(index, End::GivenUp);
            }
        }
    }
}

impl Client {
    fn advance(&mut self) -> std::io::Result<Option<End>> {
        if !self.sent {
            match self.stream.write(&self.hello.record) {
                Ok(count) => assert_eq!(count, self.hello.record.len(), "an empty socket has room"),
                // Not connected yet.
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(None),
                Err(error) => return Err(error),
            }
            self.sent = true;
        }
        loop {
            let tls = &mut self.hello.tls;
            if tls.read_tls(&mut self.stream)? == 0 {
                return Ok(Some(End::Refused));
            }
            self.answered = true;
            if tls.process_new_packets().is_err() {
                return Ok(Some(End::Refused));
            }
            if !tls.is_handshaking() && !self.byte_sent {
                tls.writer().write_all(b"!")?;
                self.byte_sent = true;
            }
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
            if matches!(tls.reader().read(&mut [0]), Ok(1)) {
                return Ok(Some(End::Completed));
            }
        }
    }
}
