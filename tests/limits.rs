//! A source gets what it may have and no more, whatever it does, and another source does
//! not notice.

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use support::certificates::{Key, self_signed};
use support::configuration::configuration;
use support::echo::EchoBackend;
use support::forebay::{Forebay, PATIENCE};
use support::network::in_a_network_of_its_own;
use support::ports::{free_address, free_address_of};
use support::sockets::connect_from;
use support::tls_client::{self, TlsStream};

const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 9, 0, 1));

/// forebay with one engine in front of an echoing backend.
struct Site {
    forebay: Forebay,
    address: SocketAddr,
    echo: EchoBackend,
    directory: TempDir,
}

impl Site {
    fn start(limits: &str) -> Self {
        Self::start_on(free_address(), limits)
    }

    fn start_on(address: SocketAddr, limits: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        self_signed(directory.path(), "site.pem", Key::EcdsaP256, &["a.test"]);
        let echo = EchoBackend::start();
        let text = text(&directory, address, &echo, limits);
        let forebay = Forebay::start(directory.path(), &text);
        Self { forebay, address, echo, directory }
    }

    fn reload(&mut self, limits: &str) {
        let text = text(&self.directory, self.address, &self.echo, limits);
        self.forebay.write_configuration(&text);
        let before = self.forebay.metric("forebay_configuration_generation", &[]);
        self.forebay.signal(libc::SIGHUP);
        self.forebay.wait_until("it has reloaded", |forebay| {
            forebay.metric("forebay_configuration_generation", &[]) > before
        });
    }

    /// A connection from `source` over which something was echoed.
    fn try_from(&self, source: IpAddr) -> io::Result<TlsStream> {
        let stream = connect_from(source, self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut tls = tls_client::over(stream, Arc::new(tls_client::config()), "a.test");
        tls.write_all(b"hello")?;
        tls.flush()?;
        let mut back = [0; 5];
        tls.read_exact(&mut back)?;
        assert_eq!(&back, b"hello");
        Ok(tls)
    }

    /// The same, which must succeed.
    fn serves(&self, source: IpAddr) -> TlsStream {
        self.try_from(source).unwrap_or_else(|error| panic!("{source} is not served: {error}"))
    }

    /// A connection from `source` must be reset at once.
    fn refuses(&self, source: IpAddr) {
        match self.try_from(source) {
            Ok(_) => panic!("{source} is served"),
            Err(error) => assert!(is_reset(&error), "{source}: {error}"),
        }
    }

    /// A connection from `source` that says nothing. Who connects after it is accepted
    /// after it.
    fn silent(&self, source: IpAddr) -> TcpStream {
        connect_from(source, self.address).expect("connect")
    }

    fn shed(&self, cause: &str) -> u64 {
        let label = format!("cause=\"{cause}\"");
        self.forebay.metric("forebay_connections_shed_total", &[&label]) as u64
    }

    /// Waits until so many connections are open.
    fn wait_for_connections(&mut self, count: usize) {
        self.forebay.wait_until(&format!("{count} connections are open"), |forebay| {
            forebay.metric("forebay_connections", &[]) == count as f64
        });
    }

    /// Every connection that was accepted has ended once, and every shed one has a cause.
    fn everything_adds_up(&mut self) {
        self.wait_for_connections(0);
        let metric = |name, labels: &[&str]| self.forebay.metric(name, labels);
        assert_eq!(
            metric("forebay_connections_accepted_total", &[]),
            metric("forebay_connections_ended_total", &[])
        );
        assert_eq!(
            metric("forebay_connections_shed_total", &[]),
            metric("forebay_connections_ended_total", &["reason=\"shed\""])
        );
        assert_eq!(metric("forebay_sources", &[]), 0.0);
    }
}

fn text(directory: &TempDir, address: SocketAddr, echo: &EchoBackend, limits: &str) -> String {
    let certificate = directory.path().join("site.pem");
    let sections = format!(
        "[engine]\nengines = 1\nmax_connections = 64\n\
         [timeouts]\nclient_hello = \"10m\"\n\
         [limits]\n{limits}"
    );
    configuration(address, &[&certificate], &[&echo.address.to_string()], "", &sections)
}

/// A reset, however far the client had come when it arrived.
fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

#[test]
fn a_source_has_at_most_so_many_connections() {
    let mut site = Site::start("source_connections = 3");
    let mut open: Vec<_> = (0..3).map(|_| site.serves(ONE)).collect();
    site.refuses(ONE);
    site.refuses(ONE);
    let other = site.serves(OTHER);
    drop(open.pop());
    site.wait_for_connections(3);
    open.push(site.serves(ONE));
    assert_eq!(site.shed("source_connections"), 2);

    let line = site.forebay.wait_for_log("connections were shed");
    for part in [
        "WARN",
        "source=127.0.0.2/32",
        "cause=\"source_connections\"",
        "limit=3",
        "key=\"limits.source_connections\"",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    drop((open, other));
    site.everything_adds_up();
}

#[test]
fn a_source_has_at_most_so_many_handshakes_incomplete() {
    let mut site = Site::start("source_incomplete_handshakes = 2");
    // A session is no longer one of them.
    let established: Vec<_> = (0..4).map(|_| site.serves(ONE)).collect();
    let silent = [site.silent(ONE), site.silent(ONE)];
    site.refuses(ONE);
    let other = site.serves(OTHER);
    assert_eq!(site.shed("source_incomplete_handshakes"), 1);
    drop(silent);
    site.wait_for_connections(5);
    drop(site.serves(ONE));
    drop((established, other));
    site.everything_adds_up();
}

#[test]
fn a_source_begins_at_most_so_many_handshakes_a_second() {
    let mut site = Site::start("source_handshakes_per_second = 1");
    let begin = Instant::now();
    let mut served = 0;
    let mut refused = 0;
    while refused == 0 {
        assert!(begin.elapsed() < PATIENCE, "{served} handshakes, and none refused");
        match site.try_from(ONE) {
            Ok(_) => served += 1,
            Err(error) if is_reset(&error) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let allowed = 1 + begin.elapsed().as_secs();
    assert!((1..=allowed).contains(&served), "{served} served, {allowed} allowed");
    drop(site.serves(OTHER));
    assert_eq!(site.shed("source_handshakes_per_second"), 1);
    site.everything_adds_up();
}

#[test]
fn connections_that_begin_no_handshake_do_not_count_to_the_rate() {
    let mut site = Site::start("source_handshakes_per_second = 1");
    for _ in 0..20 {
        drop(site.silent(ONE));
    }
    drop(site.serves(ONE));
    assert_eq!(site.shed("source_handshakes_per_second"), 0);
    site.everything_adds_up();
}

#[test]
fn handshakes_beyond_the_rate_of_all_wait_and_are_served() {
    let mut site = Site::start("handshakes_per_second = 4");
    let begin = Instant::now();
    thread::scope(|scope| {
        for client in 0..12_u8 {
            let site = &site;
            scope.spawn(move || {
                site.serves(IpAddr::from([127, 0, 1, client]));
            });
        }
    });
    // Four at once, and then four a second.
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    site.everything_adds_up();
    assert_eq!(site.forebay.metric("forebay_connections_shed_total", &[]), 0.0);
}

#[test]
fn exempt_addresses_are_held_to_no_limit() {
    let mut site = Site::start(
        "source_connections = 1\nsource_handshakes_per_second = 1\n\
         exempt = [\"127.0.0.2\", \"127.9.0.0/16\"]",
    );
    let open: Vec<_> = [ONE, ELSEWHERE].map(|ip| [site.serves(ip), site.serves(ip)]).into();
    let other = site.serves(OTHER);
    site.refuses(OTHER);
    drop((open, other));
    site.everything_adds_up();
}

#[test]
fn a_source_is_as_many_addresses_as_its_prefix_has() {
    let mut site = Site::start("source_connections = 1\nipv4_prefix = 16");
    let one = site.serves(ONE);
    site.refuses(OTHER);
    let elsewhere = site.serves(ELSEWHERE);
    drop((one, elsewhere));
    site.everything_adds_up();
}

#[test]
fn an_ipv6_source_is_a_64_by_default() {
    in_a_network_of_its_own("2001:db8::/32", || {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let address = free_address_of(ip("::1"));
        let mut site = Site::start_on(address, "source_connections = 1");
        let one = site.serves(ip("2001:db8:0:1::1"));
        site.refuses(ip("2001:db8:0:1:ffff::2"));
        let other = site.serves(ip("2001:db8:0:2::1"));
        let line = site.forebay.wait_for_log("connections were shed");
        assert!(line.contains("source=2001:db8:0:1::/64"), "{line}");
        drop((one, other));
        site.everything_adds_up();
    });
}

#[test]
fn a_reload_changes_limits_for_connections_that_are_there() {
    let mut site = Site::start("source_connections = 1");
    let first = site.serves(ONE);
    site.refuses(ONE);
    site.reload("source_connections = 3");
    let more = [site.serves(ONE), site.serves(ONE)];
    site.refuses(ONE);
    site.reload("source_connections = 2");
    site.refuses(ONE);
    drop(more);
    site.wait_for_connections(1);
    let second = site.serves(ONE);
    site.refuses(ONE);
    site.reload("exempt = [\"127.0.0.2\"]");
    drop(site.serves(ONE));
    drop((first, second));
    site.everything_adds_up();
}
