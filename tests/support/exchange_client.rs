//! The client's side of exchanges: rustls over a non-blocking socket.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::exchange::{Close, End, HEAD_BYTES, Outcome, Plan, Receiving, Sending};
use super::peers::{Peer, scratch, turn};
use super::sockets;

/// One connection with one exchange.
#[derive(Debug)]
pub struct ExchangeClient {
    pub plan: Plan,
    stream: TcpStream,
    tls: ClientConnection,
    /// Nothing is sent beyond the handshake.
    held: bool,
    head: [u8; HEAD_BYTES],
    head_written: usize,
    sending: Sending,
    receiving: Receiving,
    /// The end of our own stream is written or on its way.
    ended: bool,
    outcome: Option<End>,
}

impl ExchangeClient {
    /// Connects; everything else happens when it is driven.
    pub fn connect(
        config: &Arc<ClientConfig>,
        address: SocketAddr,
        plan: Plan,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let name = ServerName::try_from("exchange.test").expect("a name");
        let mut tls = ClientConnection::new(Arc::clone(config), name).expect("client");
        tls.set_buffer_limit(Some(256 * 1024));
        Ok(Self {
            plan,
            stream,
            tls,
            held: false,
            head: plan.encode(),
            head_written: 0,
            sending: plan.upload(),
            receiving: plan.expected_download(),
            ended: false,
            outcome: None,
        })
    }

    /// Does the handshake only, until [`Self::release`].
    #[must_use]
    pub fn held(mut self) -> Self {
        self.held = true;
        self
    }

    pub fn release(&mut self) {
        self.held = false;
        self.write();
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// What was seen, once it is over.
    pub fn outcome(&self) -> Option<Outcome> {
        let end = self.outcome.as_ref()?;
        // Our own end must be out too.
        if *end == End::Orderly && (!self.ended || self.tls.wants_write()) {
            return None;
        }
        Some(Outcome {
            received_bytes: self.receiving.bytes,
            intact: self.receiving.intact,
            end: end.clone(),
        })
    }

    /// Drives this one alone to its end.
    pub fn finish(self, patience: Duration) -> Outcome {
        let begin = Instant::now();
        let mut scratch = scratch();
        let mut alone = [self];
        loop {
            if let Some(outcome) = alone[0].outcome() {
                return outcome;
            }
            assert!(begin.elapsed() < patience, "no end of {:?}", alone[0].plan);
            turn(&mut alone, None, Duration::from_millis(100), &mut scratch);
        }
    }

    fn end(&mut self, end: End) {
        self.outcome.get_or_insert(end);
    }

    fn cut(&mut self, error: impl ToString) {
        self.end(End::Cut(error.to_string()));
    }

    fn read(&mut self, scratch: &mut [u8]) {
        let (ciphertext, plaintext) = scratch.split_at_mut(128 * 1024);
        // Not for ever: others want their turn.
        for _ in 0..4 {
            if self.outcome.is_some() {
                return;
            }
            match self.stream.read(ciphertext) {
                Ok(count) => self.open(&ciphertext[..count], plaintext),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => self.cut(error),
            }
        }
    }

    /// Opens what came; nothing is the end of the TCP stream.
    fn open(&mut self, mut ciphertext: &[u8], plaintext: &mut [u8]) {
        let end_of_stream = ciphertext.is_empty();
        loop {
            let taken = match self.tls.read_tls(&mut ciphertext) {
                Ok(taken) => taken,
                Err(error) => return self.cut(error),
            };
            if let Err(error) = self.tls.process_new_packets() {
                return self.cut(error);
            }
            loop {
                match self.tls.reader().read(plaintext) {
                    Ok(0) => {
                        self.end(End::Orderly);
                        break;
                    }
                    Ok(count) => self.receiving.take(&plaintext[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => {
                        self.end(End::Truncated);
                        break;
                    }
                }
            }
            if ciphertext.is_empty() || taken == 0 {
                break;
            }
        }
        if end_of_stream && self.outcome.is_none() {
            self.end(End::Truncated);
        }
    }

    fn write(&mut self) {
        loop {
            self.fill();
            if !self.tls.wants_write() {
                break;
            }
            match self.tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.cut(error),
            }
        }
        let sends = !self.held && !self.ended && !self.tls.is_handshaking();
        if sends && self.plan.close == Close::ClientResets && self.sending.half_is_sent() {
            sockets::reset_on_close(&self.stream);
            self.ended = true;
            self.cut("reset by the client itself");
        } else if sends && self.plan.close == Close::WithoutCloseNotify && self.sending.is_done() {
            self.ended = true;
            if let Err(error) = self.stream.shutdown(Shutdown::Write) {
                self.cut(error);
            }
        }
    }

    /// Seals what there is to send, as far as the library buffers it.
    fn fill(&mut self) {
        if self.held || self.ended || self.tls.is_handshaking() {
            return;
        }
        while self.head_written < HEAD_BYTES {
            let rest = &self.head[self.head_written..];
            let count = self.tls.writer().write(rest).expect("buffers");
            if count == 0 {
                return;
            }
            self.head_written += count;
        }
        while let Some(piece) = self.sending.next() {
            if self.plan.close == Close::ClientResets && self.sending.half_is_sent() {
                return;
            }
            let count = self.tls.writer().write(piece).expect("buffers");
            if count == 0 {
                return;
            }
            self.sending.advance(count);
        }
        let may_end = match self.plan.close {
            Close::EachWhenDone | Close::ClientFirst | Close::ServerResets => true,
            Close::ServerFirst => self.outcome.is_some(),
            Close::WithoutCloseNotify | Close::ClientResets => false,
        };
        if self.sending.is_done() && may_end {
            self.tls.send_close_notify();
            self.ended = true;
        }
    }
}

impl Peer for ExchangeClient {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        if self.outcome.is_none() {
            interest |= PollFlags::IN;
        }
        if self.tls.wants_write() {
            interest |= PollFlags::OUT;
        }
        interest
    }

    fn wakes_at(&self) -> Option<Instant> {
        self.sending.paused_until
    }

    fn go_on(&mut self, scratch: &mut [u8]) {
        self.read(scratch);
        if !matches!(self.outcome, Some(End::Cut(_) | End::Truncated)) {
            self.write();
        }
    }
}
