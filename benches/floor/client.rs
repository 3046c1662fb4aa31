//! The floor's own clients and backend: enough to drive it without another program.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use forebay::tls::CryptoLibrary;
use forebay::tls::self_signed::self_signed;
use forebay::tls::unverified;
use rustls::client::Resumption;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::session::Security;
use super::{Kind, Listener, Settings, listen, run};

/// Connections that are open at any time.
const CLIENTS: usize = 32;

/// What the clients do.
#[derive(Clone, Copy)]
enum Load {
    /// Open, shake hands, close.
    Connections { resume: bool },
    /// Send so many bytes, wait for their echo, on connections that stay.
    Echo { bytes: usize },
}

/// Drives every kind of loop and prints a line for each kind of load; with `measure`
/// for long enough to mean something.
pub(super) fn drive(measure: bool) -> anyhow::Result<()> {
    let security =
        Security::from_certificates(vec![self_signed(&["localhost"], CryptoLibrary::AwsLc)?])?;
    let many = if measure { 1 } else { 0 };
    for (kind, direct) in [(Kind::Ring, true), (Kind::Ring, false), (Kind::Epoll, false)] {
        for (name, security, load, count) in [
            ("full EC", &security, Load::Connections { resume: false }, 8 + many * 400),
            ("resumed", &security, Load::Connections { resume: true }, 8 + many * 400),
            ("plain", &Security::Plain, Load::Connections { resume: false }, 8 + many * 400),
            ("1 KiB echo", &security, Load::Echo { bytes: 1_024 }, 8 + many * 2_000),
            ("1 KiB echo, plain", &Security::Plain, Load::Echo { bytes: 1_024 }, 8 + many * 2_000),
            ("1 MB echo", &security, Load::Echo { bytes: 1_000_000 }, 1 + many * 8),
            ("1 MB echo, plain", &Security::Plain, Load::Echo { bytes: 1_000_000 }, 1 + many * 8),
        ] {
            let work = round(kind, direct, security.clone(), load, count)
                .with_context(|| format!("{kind:?} {name}"))?;
            let how = if direct { ", direct descriptors" } else { "" };
            println!("{kind:?}{how}: {name}: {work}");
        }
    }
    Ok(())
}

/// `open ADDRESS [--seconds N] [--resume] [--post-quantum] [--plain]`: keeps 32 connections
/// to any server in the making, and prints how many came to be.
pub(super) fn open(arguments: &[String]) -> anyhow::Result<()> {
    let (mut address, mut seconds, mut resume) = (None, 4, false);
    let (mut group, mut plain) = (kx_group::X25519, false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => {
                seconds = arguments.next().context("--seconds needs a value")?.parse()?;
            }
            "--resume" => resume = true,
            "--post-quantum" => group = kx_group::X25519MLKEM768,
            "--plain" => plain = true,
            other => address = Some(other.parse().context("an address was expected")?),
        }
    }
    let address: SocketAddr = address.context("the server's address is missing")?;
    let tls = (!plain).then(|| Arc::new(config(group, resume)));
    let end = Instant::now() + Duration::from_secs(seconds);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let tls = tls.clone();
            thread::spawn(move || -> anyhow::Result<u64> {
                let mut count = 0;
                while Instant::now() < end {
                    client(address, tls.as_ref(), Load::Connections { resume }, 1)?;
                    count += 1;
                }
                Ok(count)
            })
        })
        .collect();
    let mut total = 0;
    for client in clients {
        total += client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    println!("{total}");
    Ok(())
}

/// One server, one load of `count` operations for each client.
fn round(
    kind: Kind,
    direct: bool,
    security: Security,
    load: Load,
    count: usize,
) -> anyhow::Result<String> {
    let backend = TcpListener::bind("127.0.0.1:0")?;
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = listen(loopback)?;
    let address = socket.local_addr()?;
    let tls = match &security {
        Security::Tls(_) => Some(Arc::new(config(
            kx_group::X25519,
            matches!(load, Load::Connections { resume: true }),
        ))),
        Security::Plain => None,
    };
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let settings = Settings {
        kind,
        direct,
        want: 1,
        backend: backend.local_addr()?,
        slots: 256,
        cpu: cpus.first().map(|cpu| cpu.id),
        quiet: Duration::from_millis(200),
    };
    let stop = Arc::new(AtomicBool::new(false));
    thread::spawn(move || echo(&backend));
    let server = thread::spawn({
        let (settings, stop) = (settings, Arc::clone(&stop));
        move || {
            let listeners = [Listener { socket, security }];
            let mut reports = Vec::new();
            run(&settings, &listeners, &stop, &mut |work| reports.push(work.to_string()))?;
            anyhow::Ok(reports.join("; and "))
        }
    });
    let others = cpus.last().copied();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let tls = tls.clone();
            thread::spawn(move || {
                others.map(core_affinity::set_for_current);
                client(address, tls.as_ref(), load, count)
            })
        })
        .collect();
    for client in clients {
        client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    stop.store(true, Ordering::Relaxed);
    server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
}

fn client(
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    load: Load,
    count: usize,
) -> anyhow::Result<()> {
    let connect = || -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    match (load, tls) {
        (Load::Connections { .. }, None) => (0..count).try_for_each(|_| connect().map(drop)),
        (Load::Connections { resume }, Some(config)) => (0..count).try_for_each(|_| {
            let mut stream = secure(config, connect()?)?;
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock)?;
            }
            if resume && stream.conn.tls13_tickets_received() == 0 {
                // The ticket for the next one comes behind the handshake.
                stream.conn.complete_io(&mut stream.sock)?;
            }
            Ok(())
        }),
        (Load::Echo { bytes }, None) => echoes(connect()?, bytes, count),
        (Load::Echo { bytes }, Some(config)) => echoes(secure(config, connect()?)?, bytes, count),
    }
}

fn secure(
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost")?;
    Ok(StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, stream))
}

fn echoes(
    mut stream: impl std::io::Read + std::io::Write,
    bytes: usize,
    count: usize,
) -> anyhow::Result<()> {
    let question: Vec<u8> = (0..bytes).map(|index| (index * 7) as u8).collect();
    let mut answer = vec![0; bytes];
    for _ in 0..count {
        // What is on its way in both directions fits the buffers of the sockets.
        for (question, answer) in question.chunks(50_000).zip(answer.chunks_mut(50_000)) {
            stream.write_all(question)?;
            stream.read_exact(answer)?;
        }
        anyhow::ensure!(question == answer, "the echo differs");
    }
    Ok(())
}

/// Sends back what comes: a thread for each connection, on the CPU of the clients.
fn echo(listener: &TcpListener) {
    let cpu = core_affinity::get_core_ids().unwrap_or_default().last().copied();
    while let Ok((mut stream, _)) = listener.accept() {
        thread::spawn(move || {
            cpu.map(core_affinity::set_for_current);
            let _ = stream.set_nodelay(true);
            let mut buffer = vec![0; 64 << 10];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        });
    }
}

/// The first flight of a client, for which a listener's configuration is looked up.
pub(super) fn first_flight() -> anyhow::Result<Vec<u8>> {
    let name = ServerName::try_from("localhost")?;
    let mut client = ClientConnection::new(Arc::new(config(kx_group::X25519, false)), name)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}

/// A client that trusts everybody and offers one group alone, so that the key exchange is
/// the same everywhere.
fn config(group: &'static dyn SupportedKxGroup, resume: bool) -> ClientConfig {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![group];
    let verifier = unverified::any_certificate(&provider);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.cert_decompressors = Vec::new();
    config.resumption =
        if resume { Resumption::in_memory_sessions(64) } else { Resumption::disabled() };
    config
}
