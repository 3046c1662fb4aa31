//! The whole engine on the real ring: a rustls client on one side, a plain TCP server
//! on the other.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use super::events::event_queue;
use super::snapshot::{ClientLimits, Listener, Records, Snapshot, Timeouts};
use super::*;
use crate::driver::ring::{ACCEPTS_IN_FLIGHT, Doorbell, RingDriver, RingSettings};
use crate::endpoint::Endpoint;
use crate::handshake::inline::InlineService;
use crate::handshake::scheduler::SchedulerSettings;
use crate::proxy_protocol::ProxyProtocol;
use crate::routing::Routes;
use crate::switch::{Spin, Switch};
use crate::tls::CryptoLibrary;
use crate::tls::policy::{Policy, PolicySettings};
use crate::tls::test_support::Client;
use crate::tls::{self_signed, tickets};
use crate::upstream::{Backend, Pool};

struct Running {
    address: SocketAddr,
    commands: CommandQueue,
    doorbell: Arc<Doorbell>,
    metrics: Arc<EngineMetrics>,
    thread: Option<thread::JoinHandle<Outstanding>>,
}

impl Running {
    fn stop(mut self) -> (Outstanding, Arc<EngineMetrics>) {
        self.commands.send(Command::Stop).expect("room");
        self.doorbell.ring();
        let outstanding = self.thread.take().expect("running").join().expect("engine");
        (outstanding, Arc::clone(&self.metrics))
    }
}

fn start(backend: Endpoint, proxy_protocol: ProxyProtocol) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    // Accepted sockets inherit it, as from the listeners that a start makes.
    socket2::SockRef::from(&listener).set_tcp_nodelay(true).expect("nodelay");
    let address = listener.local_addr().expect("address");
    let commands = CommandQueue::default();
    let doorbell = Arc::new(Doorbell::new().expect("eventfd"));
    let metrics = Arc::new(EngineMetrics::default());
    let thread = thread::spawn({
        let (commands, doorbell) = (commands.clone(), Arc::clone(&doorbell));
        let metrics = Arc::clone(&metrics);
        move || {
            let library = CryptoLibrary::AwsLc;
            let driver = RingDriver::new(RingSettings {
                buffers: 64,
                large_buffers: 4,
                connections_max: 32,
                listeners: vec![listener.into()],
                doorbell,
                huge_pages: Switch::Off,
                napi_busy_poll: Duration::ZERO,
                shares_its_cpu: false,
            })
            .expect("ring");
            let service = InlineService::new(0, 8, &SchedulerSettings::with_room(8), library);
            let limits = Limits {
                connections: 32,
                credits: 8,
                accepts: ACCEPTS_IN_FLIGHT,
                engines: 1,
                patience: Duration::from_millis(100),
                step_costs: StepCosts::TYPICAL,
                backlog: Duration::from_secs(1),
                queue: 1_024,
                queue_in_crowd: 64,
                spin: Spin::Off,
            };
            let (events, _source) = event_queue();
            let snapshot = Arc::new(snapshot(backend, proxy_protocol));
            let mut engine = Engine::new(
                0,
                driver,
                service,
                limits,
                snapshot,
                Ways { commands, metrics, events },
            );
            engine.run().expect("engine");
            engine.outstanding()
        }
    });
    Running { address, commands, doorbell, metrics, thread: Some(thread) }
}

fn snapshot(backend: Endpoint, proxy_protocol: ProxyProtocol) -> Snapshot {
    let library = CryptoLibrary::AwsLc;
    let certificate = self_signed::self_signed(&["localhost"], library).expect("certificate");
    let tickets = tickets::per_process(library).expect("tickets");
    let policy = Policy::new(PolicySettings::new(library, vec![certificate], tickets));
    Snapshot {
        generation: 1,
        listeners: [Listener {
            name: "main".into(),
            policy: Arc::new(policy.expect("policy")),
            shadow: None,
            pool: 0,
            routes: Routes::default(),
            header_senders: Vec::new(),
        }]
        .into(),
        pools: vec![Arc::new(Pool {
            proxy_protocol,
            ..Pool::new("pool", vec![Backend::new(backend, 1)])
        })],
        timeouts: Timeouts {
            client_hello: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            queue: Duration::from_secs(3),
            connect: Duration::from_secs(3),
            idle: Duration::from_secs(60),
            half_closed: Duration::from_secs(10),
            first_data_wait: Duration::from_millis(50),
        },
        records: Records { small_bytes: 16 << 10, strict_truncation: false },
        limits: ClientLimits::NONE,
    }
}

fn client(address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
    let mut client = Client::new(CryptoLibrary::AwsLc);
    client.server_name = "localhost";
    let connection = client.connection();
    StreamOwned::new(connection, TcpStream::connect(address).expect("connect"))
}

#[test]
fn a_request_and_its_response_pass_through() {
    let backend = TcpListener::bind("127.0.0.1:0").expect("bind");
    let backend_address = backend.local_addr().expect("address");
    let running = start(Endpoint::Inet(backend_address), ProxyProtocol::V1);
    let server = thread::spawn(move || {
        let (mut stream, _) = backend.accept().expect("accept");
        let mut request = vec![0; 1024];
        let count = stream.read(&mut request).expect("read");
        let mut rest = Vec::new();
        stream.write_all(b"hello, client").expect("write");
        stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
        stream.read_to_end(&mut rest).expect("end");
        assert!(rest.is_empty());
        String::from_utf8(request[..count].to_vec()).expect("text")
    });
    let mut stream = client(running.address);
    let local = stream.sock.local_addr().expect("address");
    stream.write_all(b"hello, server").expect("write");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a clean end");
    assert_eq!(response, "hello, client");
    stream.conn.send_close_notify();
    stream.flush().expect("flush");
    drop(stream);
    let request = server.join().expect("server");
    let header = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nhello, server",
        local.port(),
        running.address.port()
    );
    assert_eq!(request, header, "header and first plaintext in one send");
    let (outstanding, metrics) = running.stop();
    assert_eq!(outstanding, Outstanding::default());
    assert_eq!(metrics.ended[EndReason::Finished as usize].value(), 1);
}

#[test]
fn megabytes_echo_back_byte_for_byte() {
    let backend = TcpListener::bind("127.0.0.1:0").expect("bind");
    let backend_address = backend.local_addr().expect("address");
    let running = start(Endpoint::Inet(backend_address), ProxyProtocol::None);
    thread::spawn(move || {
        let (mut stream, _) = backend.accept().expect("accept");
        let mut write = stream.try_clone().expect("clone");
        std::io::copy(&mut stream, &mut write).expect("copy");
        write.shutdown(std::net::Shutdown::Write).expect("shutdown");
    });
    let data: Vec<u8> =
        (0..8_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut stream = client(running.address);
    let mut echoed = vec![0; data.len()];
    let mut received = 0;
    for part in data.chunks(100_000) {
        stream.write_all(part).expect("write");
        stream.read_exact(&mut echoed[received..received + part.len()]).expect("read");
        received += part.len();
    }
    assert!(echoed == data, "the echo differs");
    drop(stream);
    let (outstanding, metrics) = running.stop();
    assert_eq!(outstanding, Outstanding::default());
    assert_eq!(metrics.bytes_from_clients.value(), data.len() as u64);
    assert_eq!(metrics.bytes_to_clients.value(), data.len() as u64);
}
