//! The far ends: a client and a backend that hold to a conversation, and nothing else.

use std::cell::Cell;
use std::io::{ErrorKind, Read as _, Write as _};
use std::rc::Rc;
use std::sync::Arc;

use forebay::driver::simulator::{Line, Next, Peer};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use super::scene::{Conversation, SERVER_NAME};

/// How far the conversations are.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// A client has its session and begins to talk.
    pub(super) talks: Cell<bool>,
    pub(super) finished: Cell<usize>,
    pub(super) resumed: Cell<usize>,
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
pub(super) struct Backend {
    conversation: Conversation,
    heard_bytes: usize,
    owed_bytes: usize,
}

impl Backend {
    pub(super) fn new(conversation: Conversation) -> Self {
        Self { conversation, heard_bytes: 0, owed_bytes: 0 }
    }
}

impl Peer for Backend {
    fn step(&mut self, line: &mut Line<'_>) -> Next {
        let mut chunk = [0x5a; 64 << 10];
        loop {
            match line.read(&mut chunk) {
                Ok(0) => return Next::Close,
                Ok(count) => self.heard_bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        if self.heard_bytes >= self.conversation.up_bytes {
            self.heard_bytes -= self.conversation.up_bytes;
            self.owed_bytes += self.conversation.down_bytes;
        }
        while self.owed_bytes > 0 {
            let count = chunk.len().min(self.owed_bytes);
            match line.write(&chunk[..count]) {
                Ok(count) => self.owed_bytes -= count,
                Err(_) => break,
            }
        }
        Next::Wait
    }
}
