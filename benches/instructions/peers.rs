//! The far ends: a client and a backend that hold to a conversation, and nothing else.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::rc::Rc;
use std::sync::Arc;

use forebay::driver::simulator::{Line, Next, Peer};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};

use super::scene::{Conversation, SERVER_NAME};

/// How far the conversations are.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// A client has its session and begins to talk.
    pub(super) talks: Cell<bool>,
    pub(super) finished: Cell<usize>,
    pub(super) resumed: Cell<usize>,
    pub(super) resumed_by_server: Cell<usize>,
}

pub(super) struct Client {
    tls: ClientConnection,
    conversation: Conversation,
    progress: Rc<Progress>,
    rounds: usize,
    said_bytes: usize,
    heard_bytes: usize,
    ended: bool,
}

impl Client {
    pub(super) fn new(
        config: &Arc<ClientConfig>,
        conversation: Conversation,
        progress: Rc<Progress>,
    ) -> Self {
        let name = SERVER_NAME.try_into().expect("a DNS name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
        Self { tls, conversation, progress, rounds: 0, said_bytes: 0, heard_bytes: 0, ended: false }
    }

    fn hear(&mut self, line: &mut Line<'_>) -> bool {
        loop {
            match self.tls.read_tls(line) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{error}"),
            }
            self.tls.process_new_packets().expect("the engine speaks TLS");
            let mut chunk = [0; 16 << 10];
            while let Ok(count @ 1..) = self.tls.reader().read(&mut chunk) {
                self.heard_bytes += count;
            }
        }
    }

    /// Queues what is to be said now, a record's worth at a time.
    fn say(&mut self) {
        const CHUNK: [u8; 16 << 10] = [0x5a; 16 << 10];
        let Conversation { rounds, up_bytes, down_bytes } = self.conversation;
        if self.heard_bytes == down_bytes {
            (self.said_bytes, self.heard_bytes) = (0, 0);
            self.rounds += 1;
        }
        if self.rounds < rounds {
            let count = CHUNK.len().min(up_bytes - self.said_bytes);
            self.said_bytes += self.tls.writer().write(&CHUNK[..count]).expect("there is room");
        } else if !self.ended {
            self.ended = true;
            self.tls.send_close_notify();
        }
    }
}

impl Peer for Client {
    fn step(&mut self, line: &mut Line<'_>) -> Next {
        if self.hear(line) {
            assert!(self.ended, "the engine ended too early");
            self.progress.finished.update(|count| count + 1);
            return Next::Close;
        }
        if !self.tls.is_handshaking() {
            if !self.progress.talks.replace(true) {
                // The next step is in a turn that is counted.
                return Next::WaitAtMost(std::time::Duration::from_micros(100));
            }
            if self.tls.handshake_kind() == Some(HandshakeKind::Resumed) && self.said_bytes == 0 {
                self.progress.resumed.update(|count| count + 1);
            }
            if !self.tls.wants_write() {
                self.say();
            }
        }
        while self.tls.wants_write() && self.tls.write_tls(line).is_ok() {}
        if self.ended && !self.tls.wants_write() {
            line.shutdown_write();
        }
        Next::Wait
    }
}

/// Answers each request when all of it is there.
#[derive(Default)]
struct Answers {
    conversation: Conversation,
    heard_bytes: usize,
    owed_bytes: usize,
}

impl Answers {
    fn to(conversation: Conversation) -> Self {
        Self { conversation, ..Self::default() }
    }

    fn hear(&mut self, count: usize) {
        self.heard_bytes += count;
        if self.heard_bytes >= self.conversation.up_bytes {
            self.heard_bytes -= self.conversation.up_bytes;
            self.owed_bytes += self.conversation.down_bytes;
        }
    }

    /// Says what is owed, as far as it is taken.
    fn say(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) {
        static CHUNK: [u8; 64 << 10] = [0x5a; 64 << 10];
        while self.owed_bytes > 0 {
            match write(&CHUNK[..CHUNK.len().min(self.owed_bytes)]) {
                Ok(count @ 1..) => self.owed_bytes -= count,
                Ok(0) | Err(_) => break,
            }
        }
    }
}

/// Answers in plaintext.
pub(super) struct Backend(Answers);

impl Backend {
    pub(super) fn new(conversation: Conversation) -> Self {
        Self(Answers::to(conversation))
    }
}

impl Peer for Backend {
    fn step(&mut self, line: &mut Line<'_>) -> Next {
        let mut chunk = [0; 64 << 10];
        let mut count = 0;
        loop {
            match line.read(&mut chunk) {
                Ok(0) => return Next::Close,
                Ok(more) => count += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.0.hear(count);
        self.0.say(|bytes| line.write(bytes));
        Next::Wait
    }
}

/// Answers in TLS.
pub(super) struct TlsBackend {
    tls: ServerConnection,
    answers: Answers,
    progress: Rc<Progress>,
}

impl TlsBackend {
    pub(super) fn new(
        config: &Arc<ServerConfig>,
        conversation: Conversation,
        progress: Rc<Progress>,
    ) -> Self {
        let tls = ServerConnection::new(Arc::clone(config)).expect("a server");
        Self { tls, answers: Answers::to(conversation), progress }
    }

    /// Takes in what has come; whether that was all.
    fn hear(&mut self, line: &mut Line<'_>) -> bool {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.tls.read_tls(line) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{error}"),
            }
            self.tls.process_new_packets().expect("the engine speaks TLS");
            while let Ok(count @ 1..) = self.tls.reader().read(&mut chunk) {
                self.answers.hear(count);
            }
        }
    }
}

impl Peer for TlsBackend {
    fn step(&mut self, line: &mut Line<'_>) -> Next {
        let shook = self.tls.is_handshaking();
        let ended = self.hear(line);
        let stands = shook && !self.tls.is_handshaking();
        if stands && self.tls.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.progress.resumed_by_server.update(|count| count + 1);
        }
        self.answers.say(|bytes| self.tls.writer().write(bytes));
        if ended {
            self.tls.send_close_notify();
        }
        while self.tls.wants_write() && self.tls.write_tls(line).is_ok() {}
        if ended { Next::Close } else { Next::Wait }
    }
}
