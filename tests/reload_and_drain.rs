//! Reload and drain lose not one byte of any connection, and do what they say.

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, HandshakeKind};
use tempfile::TempDir;

use support::bystander::Bystander;
use support::certificates::{Key, self_signed};
use support::configuration::configuration;
use support::echo::EchoBackend;
use support::exchange::End;
use support::exchange_server::ExchangeServer;
use support::forebay::{Forebay, PATIENCE};
use support::load::Load;
use support::ports::free_address;
use support::scene::read_to_end;
use support::tls_client::{self, TlsStream, shown};

/// Exchanges that are open while something happens to them.
const AT_ONCE: usize = 40;

/// A running forebay with two listeners: one for exchanges, one that echoes.
struct Service {
    forebay: Forebay,
    exchanges: SocketAddr,
    echoes: SocketAddr,
    servers: [Arc<ExchangeServer>; 2],
    echo: EchoBackend,
    certificate: PathBuf,
    directory: TempDir,
}

impl Service {
    fn start(rest: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let certificate = self_signed(directory.path(), "first.pem", Key::EcdsaP256, &["a.test"]);
        let (exchanges, echoes) = (free_address(), free_address());
        let servers = [Arc::new(ExchangeServer::tcp()), Arc::new(ExchangeServer::tcp())];
        let echo = EchoBackend::start();
        let text = text([exchanges, echoes], &certificate, &servers[0], &echo, rest);
        let forebay = Forebay::start(directory.path(), &text);
        Self { forebay, exchanges, echoes, servers, echo, certificate, directory }
    }

    fn make_certificate(&self, file: &str, name: &str) -> PathBuf {
        self_signed(self.directory.path(), file, Key::EcdsaP256, &[name])
    }

    /// Writes a configuration with this certificate and this server.
    fn configure(&self, certificate: &Path, server: usize, rest: &str) {
        let addresses = [self.exchanges, self.echoes];
        let text = text(addresses, certificate, &self.servers[server], &self.echo, rest);
        self.forebay.write_configuration(&text);
    }

    /// Sends SIGHUP and waits until it has been dealt with, in whichever way.
    fn reload(&mut self) {
        let [succeeded, failed] = self.reloads();
        self.forebay.signal(libc::SIGHUP);
        self.forebay.wait_until("the reload is over", |forebay| {
            reloads(forebay).iter().sum::<u64>() > succeeded + failed
        });
    }

    /// How many have succeeded and failed.
    fn reloads(&self) -> [u64; 2] {
        reloads(&self.forebay)
    }

    /// A connection that echoes.
    fn client(&self, config: &Arc<ClientConfig>) -> TlsStream {
        let mut client = tls_client::connect(Arc::clone(config), self.echoes, "a.test");
        client.sock.set_read_timeout(Some(PATIENCE)).expect("timeout");
        still_echoes(&mut client);
        client
    }

    /// Waits until new clients are shown the certificate in `file`.
    fn wait_until_shown(&mut self, file: &Path) {
        let certificate = CertificateDer::from_pem_file(file).expect("a certificate");
        let (address, config) = (self.echoes, Arc::new(tls_client::config()));
        self.forebay.wait_until("new clients see the certificate", |_| {
            let mut client = tls_client::connect(Arc::clone(&config), address, "a.test");
            client.conn.complete_io(&mut client.sock).expect("handshake");
            shown(&client) == certificate
        });
    }
}

fn reloads(forebay: &Forebay) -> [u64; 2] {
    ["forebay_reloads_succeeded_total", "forebay_reloads_failed_total"]
        .map(|name| forebay.metric(name, &[]) as u64)
}

const TWO_ENGINES: &str = "[engine]\nengines = 2\nmax_connections = 512\n";

fn text(
    [exchanges, echoes]: [SocketAddr; 2],
    certificate: &Path,
    server: &ExchangeServer,
    echo: &EchoBackend,
    rest: &str,
) -> String {
    let pool = "proxy_protocol = \"v2\"";
    format!(
        "{}\n\
         [[listener]]\n\
         name = \"echo\"\n\
         address = \"{echoes}\"\n\
         certificates = [{certificate:?}]\n\
         pool = \"echo\"\n\
         [[pool]]\n\
         name = \"echo\"\n\
         backends = [\"{}\"]\n\
         {TWO_ENGINES}",
        configuration(exchanges, &[certificate], &[&server.address], pool, rest),
        echo.address
    )
}

fn still_echoes(client: &mut TlsStream) {
    client.write_all(b"still here").expect("write");
    let mut back = [0; 10];
    client.read_exact(&mut back).expect("read");
    assert_eq!(&back, b"still here");
}

#[test]
fn reloads_under_load_lose_no_byte() {
    const RELOADS: usize = 10;
    let mut service = Service::start("");
    let certificates = [service.certificate.clone(), service.make_certificate("b.pem", "b.test")];
    let bystander = Bystander::start(service.echoes);
    let load = Load::start(service.exchanges, &service.servers, AT_ONCE);
    load.goes_on(AT_ONCE as u64);
    for reload in 1..=RELOADS {
        let served = service.servers.each_ref().map(|server| server.served());
        service.configure(&certificates[reload % 2], reload % 2, "");
        service.reload();
        load.goes_on(2 * AT_ONCE as u64);
        bystander.goes_on();
        // The pool's other server has taken over.
        let now = service.servers[reload % 2].served();
        assert!(now > served[reload % 2], "nobody came to the new server");
    }
    assert_eq!(service.reloads(), [RELOADS as u64, 0]);
    assert_eq!(
        service.forebay.metric("forebay_configuration_generation", &[]) as usize,
        1 + RELOADS
    );
    load.finish();
}

#[test]
fn new_connections_see_a_new_certificate_and_old_ones_go_on() {
    let mut service = Service::start("");
    let config = Arc::new(tls_client::config());
    let mut old = service.client(&config);
    let first = service.certificate.clone();
    assert_eq!(shown(&old), CertificateDer::from_pem_file(&first).expect("a certificate"));

    let second = service.make_certificate("second.pem", "a.test");
    service.configure(&second, 0, "");
    service.reload();
    service.wait_until_shown(&second);
    still_echoes(&mut old);

    // Renewed in place, as most do it.
    service.make_certificate("second.pem", "a.test");
    service.reload();
    service.wait_until_shown(&second);
    still_echoes(&mut old);
    assert_eq!(service.reloads(), [2, 0]);
}

#[test]
fn a_ticket_outlives_a_reload_of_the_same_names_and_no_other() {
    let mut service = Service::start("");
    let config = Arc::new(tls_client::config());
    let kind = |client: &TlsStream| client.conn.handshake_kind().expect("done");
    assert_eq!(kind(&service.client(&config)), HandshakeKind::Full);
    assert_eq!(kind(&service.client(&config)), HandshakeKind::Resumed);

    service.reload();
    assert_eq!(kind(&service.client(&config)), HandshakeKind::Resumed);

    let renewed = service.make_certificate("renewed.pem", "a.test");
    service.configure(&renewed, 0, "");
    service.reload();
    service.wait_until_shown(&renewed);
    assert_eq!(kind(&service.client(&config)), HandshakeKind::Resumed);

    let other = service.make_certificate("other.pem", "b.test");
    service.configure(&other, 0, "");
    service.reload();
    service.wait_until_shown(&other);
    assert_ne!(kind(&service.client(&config)), HandshakeKind::Resumed);
}

#[test]
fn a_bad_file_changes_nothing_and_says_where_it_is_bad() {
    let mut service = Service::start("");
    let config = Arc::new(tls_client::config());
    let mut old = service.client(&config);
    let good = fs::read_to_string(&service.forebay.configuration_file).expect("read");
    let file = service.forebay.configuration_file.clone();
    let unusable = service.directory.path().join("unusable.pem");
    fs::write(&unusable, "no certificate").expect("write");
    let first = service.certificate.display().to_string();

    let line_of = |text: &str, key: &str| {
        1 + text.lines().position(|line| line.starts_with(key)).expect("the key is there")
    };
    let bad = [
        // An unknown key, with a reason to guess which was meant.
        (good.replacen("backends", "backend", 1), "backend", "backends"),
        // A pool that is not there.
        (good.replacen("pool = \"servers\"", "pool = \"server\"", 1), "pool", "server"),
        // A certificate that is none.
        (good.replacen(&first, &unusable.display().to_string(), 1), "certificates", "unusable.pem"),
        // Not TOML at all.
        (good.replacen("[engine]", "[engine", 1), "[engine", "forebay.toml"),
    ];
    for (number, (text, key, says)) in (1..).zip(bad) {
        fs::write(&file, &text).expect("write");
        service.reload();
        assert_eq!(service.reloads(), [0, number]);
        assert_eq!(service.forebay.metric("forebay_last_reload_succeeded", &[]) as u64, 0);
        let place = format!("forebay.toml:{}:", line_of(&text, key));
        service.forebay.wait_until("the log names the place and the reason", |forebay| {
            forebay
                .log()
                .iter()
                .any(|line| line.contains("ERROR") && line.contains(&place) && line.contains(says))
        });
        still_echoes(&mut old);
        let new = service.client(&config);
        assert_eq!(shown(&new), shown(&old));
    }

    fs::write(&file, &good).expect("write");
    service.reload();
    assert_eq!(service.reloads(), [1, 4]);
    assert_eq!(service.forebay.metric("forebay_last_reload_succeeded", &[]) as u64, 1);
    still_echoes(&mut old);
}

/// Waits until nobody listens any more, however often it is asked.
fn wait_until_refused(forebay: &mut Forebay, address: SocketAddr) {
    forebay.wait_until("connections are refused", |_| {
        TcpStream::connect(address)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    });
}

#[test]
fn a_drain_under_load_finishes_everything_and_ends_with_success() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut service = Service::start("[timeouts]\ndrain = \"10m\"\n");
        let bystander = Bystander::start(service.echoes);
        let load = Load::start(service.exchanges, &service.servers, AT_ONCE);
        load.goes_on(2 * AT_ONCE as u64);

        load.expect_refusal();
        service.forebay.signal(signal);
        service.forebay.wait_for_log("draining");
        assert_eq!(service.forebay.status("/ready"), Some(503));
        assert_eq!(service.forebay.metric("forebay_draining", &[]) as u64, 1);
        load.finish();
        wait_until_refused(&mut service.forebay, service.echoes);
        wait_until_refused(&mut service.forebay, service.exchanges);
        bystander.goes_on();

        drop(bystander);
        assert!(service.forebay.wait_for_exit().success());
    }
}

#[test]
fn while_notice_is_given_new_clients_are_served_and_health_says_draining() {
    let mut service = Service::start("[timeouts]\ndrain = \"10m\"\ndrain_notice = \"2s\"\n");
    let config = Arc::new(tls_client::config());
    service.forebay.signal(libc::SIGTERM);
    service.forebay.wait_for_log("leaving");
    assert_eq!(service.forebay.status("/health"), Some(503));
    let mut late = service.client(&config);

    service.forebay.wait_for_log("draining: no new connections");
    wait_until_refused(&mut service.forebay, service.echoes);
    still_echoes(&mut late);
    drop(late);
    assert!(service.forebay.wait_for_exit().success());
}

#[test]
fn a_reload_while_draining_is_refused() {
    let mut service = Service::start("[timeouts]\ndrain = \"10m\"\n");
    let mut client = service.client(&Arc::new(tls_client::config()));
    service.forebay.signal(libc::SIGTERM);
    service.forebay.wait_for_log("draining");
    service.forebay.signal(libc::SIGHUP);
    service.forebay.wait_for_log("reload refused");
    still_echoes(&mut client);
    drop(client);
    assert!(service.forebay.wait_for_exit().success());
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut service = Service::start("[timeouts]\ndrain = \"10m\"\n");
    let mut client = service.client(&Arc::new(tls_client::config()));
    service.forebay.signal(libc::SIGTERM);
    service.forebay.wait_for_log("draining");
    still_echoes(&mut client);
    service.forebay.signal(libc::SIGTERM);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Truncated));
    assert!(service.forebay.wait_for_exit().success());
}

#[test]
fn the_drain_deadline_ends_the_rest_and_is_still_a_success() {
    let mut service = Service::start("[timeouts]\ndrain = \"1s\"\n");
    let config = Arc::new(tls_client::config());
    let mut quiet = service.client(&config);
    // This one does not read what comes back, so its buffers are full both ways.
    let mut stuck = service.client(&config);
    stuck.sock.set_nonblocking(true).expect("nonblocking");
    while stuck.write_all(&[7; 16_384]).is_ok() {}
    service.forebay.signal(libc::SIGTERM);
    assert_eq!(read_to_end(&mut quiet), (Vec::new(), End::Truncated));
    assert!(service.forebay.wait_for_exit().success());
}
