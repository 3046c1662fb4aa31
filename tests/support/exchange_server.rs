//! The server's side of exchanges, behind forebay: plain sockets, all on one thread.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use socket2::Socket;

use super::exchange::{Close, End, HEAD_BYTES, Outcome, Plan, Receiving, Sending};
use super::forebay::PATIENCE;
use super::peers::{Peer, scratch, turn};
use super::sockets;

/// A running server; ends when it goes out of scope.
pub struct ExchangeServer {
    /// As it is written in a configuration.
    pub address: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    outcomes: Mutex<HashMap<u64, Outcome>>,
}

impl ExchangeServer {
    /// Listens on a free TCP port.
    pub fn tcp() -> Self {
        let (listener, address) = sockets::listen_tcp(4_096);
        Self::start(listener, address.to_string())
    }

    /// Listens on a UNIX socket.
    pub fn unix(path: &Path) -> Self {
        Self::start(sockets::listen_unix(path), format!("unix:{}", path.display()))
    }

    fn start(listener: Socket, address: String) -> Self {
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let thread = thread::spawn(move || serve(&listener, &serving));
        Self { address, shared, thread: Some(thread) }
    }

    /// What was seen of an exchange so far, if it is over.
    pub fn outcome(&self, number: u64) -> Option<Outcome> {
        self.shared.outcomes.lock().expect("outcomes").get(&number).cloned()
    }

    /// Exchanges that are over.
    pub fn served(&self) -> usize {
        self.shared.outcomes.lock().expect("outcomes").len()
    }

    /// What was seen of an exchange, as soon as it is over; `None` if it never is.
    pub fn wait_for_outcome(&self, plan: &Plan) -> Option<Outcome> {
        // Of one that the client reset there may never be anything to see.
        let certain = plan.close != Close::ClientResets;
        let begin = Instant::now();
        while begin.elapsed() < if certain { PATIENCE } else { Duration::ZERO } {
            if let Some(outcome) = self.outcome(plan.number) {
                return Some(outcome);
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.outcome(plan.number)
    }
}

impl Drop for ExchangeServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the exchange server panicked");
        }
    }
}

fn serve(listener: &Socket, shared: &Shared) {
    listener.set_nonblocking(true).expect("nonblocking");
    let mut peers: Vec<ServerPeer> = Vec::new();
    let mut scratch = scratch();
    while !shared.stop.load(Ordering::Relaxed) {
        let patience = Duration::from_millis(50);
        if turn(&mut peers, Some(listener.as_fd()), patience, &mut scratch) {
            while let Ok((socket, _)) = listener.accept() {
                socket.set_nonblocking(true).expect("nonblocking");
                peers.push(ServerPeer::new(socket));
            }
        }
        peers.retain(|peer| {
            let Some(end) = peer.end() else { return true };
            if let Some(exchange) = &peer.exchange {
                let outcome = Outcome {
                    received_bytes: exchange.receiving.bytes,
                    intact: exchange.receiving.intact,
                    end,
                };
                let number = exchange.plan.number;
                shared.outcomes.lock().expect("outcomes").insert(number, outcome);
            }
            false
        });
    }
}

/// One connection.
struct ServerPeer {
    socket: Socket,
    /// What comes before the exchange: a PROXY header if there is one, and the plan.
    head: Vec<u8>,
    exchange: Option<Exchange>,
    received_end: Option<End>,
    sent_end: bool,
}

struct Exchange {
    plan: Plan,
    sending: Sending,
    receiving: Receiving,
}

impl ServerPeer {
    fn new(socket: Socket) -> Self {
        Self { socket, head: Vec::new(), exchange: None, received_end: None, sent_end: false }
    }

    fn end(&self) -> Option<End> {
        match &self.received_end {
            Some(End::Orderly) if !self.sent_end => None,
            end => end.clone(),
        }
    }

    fn cut(&mut self, error: impl ToString) {
        self.received_end = Some(End::Cut(error.to_string()));
    }

    fn read(&mut self, scratch: &mut [u8]) {
        for _ in 0..4 {
            if self.received_end.is_some() {
                return;
            }
            match self.socket.read(scratch) {
                Ok(0) => self.received_end = Some(End::Orderly),
                Ok(count) => self.take(&scratch[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => self.cut(error),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if let Some(exchange) = &mut self.exchange {
            exchange.receiving.take(bytes);
            return;
        }
        self.head.extend_from_slice(bytes);
        let proxy_header_bytes = proxy_header_bytes(&self.head);
        let Some(rest) = self.head.get(proxy_header_bytes..) else { return };
        let Some((head, rest)) = rest.split_first_chunk::<HEAD_BYTES>() else { return };
        let plan = Plan::decode(head);
        let mut receiving = plan.expected_upload();
        receiving.take(rest);
        self.exchange = Some(Exchange { plan, sending: plan.download(), receiving });
    }

    fn write(&mut self) {
        let Some(exchange) = &mut self.exchange else {
            // The client has ended before it said what it wants.
            if self.received_end.is_some() {
                self.sent_end = true;
            }
            return;
        };
        let resets = exchange.plan.close == Close::ServerResets;
        while !(resets && exchange.sending.half_is_sent()) {
            let Some(piece) = exchange.sending.next() else { break };
            match self.socket.write(piece) {
                Ok(count) => exchange.sending.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.cut(error),
            }
        }
        if resets && exchange.sending.half_is_sent() {
            sockets::reset_on_close(&self.socket);
            self.cut("reset by the server itself");
            return;
        }
        let may_end = match exchange.plan.close {
            Close::ClientFirst | Close::WithoutCloseNotify => self.received_end.is_some(),
            _ => true,
        };
        if exchange.sending.is_done() && may_end && !self.sent_end {
            self.sent_end = true;
            if let Err(error) = self.socket.shutdown(Shutdown::Write) {
                self.cut(error);
            }
        }
    }
}

/// The length of the PROXY protocol v2 header (HAProxy's proxy-protocol.txt section
/// 2.2) that `received` begins with; 0 if it does not.
fn proxy_header_bytes(received: &[u8]) -> usize {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if !received.starts_with(SIGNATURE) || received.len() < 16 {
        return 0;
    }
    16 + usize::from(u16::from_be_bytes([received[14], received[15]]))
}

impl Peer for ServerPeer {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        if self.received_end.is_none() {
            interest |= PollFlags::IN;
        }
        let writes = |exchange: &Exchange| {
            !exchange.sending.is_done() && exchange.sending.paused_until.is_none()
        };
        if self.exchange.as_ref().is_some_and(writes) {
            interest |= PollFlags::OUT;
        }
        interest
    }

    fn wakes_at(&self) -> Option<Instant> {
        self.exchange.as_ref()?.sending.paused_until
    }

    fn go_on(&mut self, scratch: &mut [u8]) {
        self.read(scratch);
        if !matches!(self.received_end, Some(End::Cut(_))) {
            self.write();
        }
    }
}
