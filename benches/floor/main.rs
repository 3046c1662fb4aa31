//! The floor: what a TLS connection costs in a bare loop.
//!
//! One thread, no tables, no timers, no limits, no metrics, no configuration: for each
//! connection just the system calls and the cryptography that no TLS concentrator can
//! do without. What forebay costs beyond this is its own.
//!
//! ```text
//!   accept ▸ receive ClientHello ▸ rustls ▸ send flight ▸ receive Finished ▸ rustls
//!     ▸ send ticket ▸ socket, TCP_NODELAY, connect ▸ receive on both sides
//!     ▸ the client closes ▸ close both
//! ```
//!
//! * `cargo bench --bench floor` drives both loops itself and prints CPU time of the
//!   server's thread for each operation, cryptography apart.
//! * `cargo bench --bench floor -- serve --listen 127.0.0.1:9443=pair.pem --backend
//!   127.0.0.1:8080` is a server that any load can be driven against. After every half
//!   second without work it prints what the work before cost.
//!
//! Cryptography is forebay's own configuration of rustls and its record layer, whose
//! distance to the bare AEAD `benches/record_layer.rs` shows.

#![allow(unsafe_code)]

mod client;
mod epoll;
mod ring;
mod session;
mod work;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, bail};

use session::Security;
use work::Work;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How the server waits for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ring,
    Epoll,
}

/// What a loop is to do.
#[derive(Clone, Debug)]
struct Settings {
    kind: Kind,
    /// Use direct descriptors on the ring.
    direct: bool,
    /// Completions to wait for in one enter, for 50 µs at most.
    want: usize,
    backend: SocketAddr,
    slots: usize,
    cpu: Option<usize>,
    /// After so long without work, what was done is reported.
    quiet: Duration,
}

struct Listener {
    socket: TcpListener,
    security: Security,
}

/// Runs a loop on this thread until it is quiet after `stop`.
fn run(
    settings: &Settings,
    listeners: &[Listener],
    stop: &AtomicBool,
    report: &mut dyn FnMut(Work),
) -> anyhow::Result<()> {
    if let Some(id) = settings.cpu {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    match settings.kind {
        Kind::Ring => ring::run(settings, listeners, stop, report),
        Kind::Epoll => epoll::run(settings, listeners, stop, report),
    }
    .context("the loop failed")
}

/// A listening socket with the options that forebay's listeners have.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(4_096)?;
    Ok(socket.into())
}

fn main() -> anyhow::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says so; `cargo test --benches` does not: then everything is done
    // once, to see that it works.
    let measure = arguments.iter().any(|argument| argument == "--bench");
    arguments.retain(|argument| argument != "--bench");
    match arguments.split_first() {
        Some((command, rest)) if command == "serve" => serve(rest),
        Some((command, rest)) if command == "open" => client::open(rest),
        Some((other, _)) => bail!("unknown command {other:?}: there are `serve` and `open`"),
        None => client::drive(measure),
    }
}

/// `serve [--loop ring|epoll] [--direct] [--want N] [--cpu N] --backend ADDRESS
/// --listen ADDRESS[=PEM FILE]...`: without a file the listener relays as it is.
fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let mut settings = Settings {
        kind: Kind::Ring,
        direct: false,
        want: 1,
        backend: SocketAddr::from(([127, 0, 0, 1], 8_080)),
        slots: 1_024,
        cpu: None,
        quiet: Duration::from_millis(500),
    };
    let mut listeners = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{option} needs a value"));
        match option.as_str() {
            "--loop" => {
                settings.kind = match value()?.as_str() {
                    "ring" => Kind::Ring,
                    "epoll" => Kind::Epoll,
                    other => bail!("--loop is ring or epoll, not {other:?}"),
                }
            }
            "--direct" => settings.direct = true,
            "--want" => settings.want = value()?.parse().context("--want")?,
            "--cpu" => settings.cpu = Some(value()?.parse().context("--cpu")?),
            "--slots" => settings.slots = value()?.parse().context("--slots")?,
            "--backend" => settings.backend = value()?.parse().context("--backend")?,
            "--listen" => {
                let value = value()?;
                let (address, security) = match value.split_once('=') {
                    Some((address, file)) => (address, Security::from_file(Path::new(file))?),
                    None => (value.as_str(), Security::Plain),
                };
                let socket = listen(address.parse().context("--listen")?)?;
                listeners.push(Listener { socket, security });
            }
            other => bail!("unknown option {other:?}"),
        }
    }
    if listeners.is_empty() {
        bail!("--listen ADDRESS[=PEM FILE] is missing");
    }
    run(&settings, &listeners, &AtomicBool::new(false), &mut |work| println!("{work}"))
}
