//! A client: rustls as anybody would use it, on a simulated line.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use forebay::driver::simulator::{Line, Next, Peer};
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

use crate::conversation::{ClientEnd, Doze, Ending, Offer, Shared};

/// The name that the server's certificate is for.
pub const SERVER_NAME: &str = "www.example.com";

pub struct Client {
    tls: ClientConnection,
    conversation: Shared,
    doze: Doze,
    /// close_notify is among what is to be written, or nothing of the kind will follow.
    end_queued: bool,
    ciphertext_bytes: usize,
    key_updates: usize,
}

/// rustls gives up on a peer that sends more than 32, answers included.
const KEY_UPDATES_MAX: usize = 20;

impl Client {
    pub fn new(config: &Arc<ClientConfig>, conversation: Shared) -> Self {
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self {
            tls,
            conversation,
            doze: Doze::default(),
            end_queued: false,
            ciphertext_bytes: 0,
            key_updates: 0,
        }
    }

    fn ended(&self) -> bool {
        self.conversation.borrow().client.ending.is_some()
    }

    fn end_seen(&self, ending: Ending) {
        self.conversation.borrow_mut().client.ending.get_or_insert(ending);
    }

    fn hear(&mut self, line: &mut Line<'_>) {
        const ROUNDS: usize = 16;
        for _ in 0..ROUNDS {
            let at_end = match self.tls.read_tls(line) {
                Ok(count) => count == 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.end_seen(Ending::Reset),
            };
            if let Err(error) = self.tls.process_new_packets() {
                self.end_seen(Ending::Broken(error.to_string()));
                // The alert, as far as it goes.
                let _ = self.tls.write_tls(line);
                return;
            }
            self.take_plaintext();
            if at_end {
                return self.end_seen(Ending::Truncated);
            }
        }
    }

    fn take_plaintext(&mut self) {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.tls.reader().read(&mut chunk) {
                Ok(0) => return self.end_seen(Ending::Clean),
                Ok(count) => {
                    let mut conversation = self.conversation.borrow_mut();
                    let down = conversation.plan.down();
                    down.check(conversation.client.heard_bytes, &chunk[..count]);
                    conversation.client.heard_bytes += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.end_seen(Ending::Truncated),
            }
        }
    }

    fn say(&mut self, line: &mut Line<'_>) {
        loop {
            while self.tls.wants_write() {
                let mut damager = Damager { client: &self.conversation, line, sent: 0 };
                damager.sent = self.ciphertext_bytes;
                let result = self.tls.write_tls(&mut damager);
                self.ciphertext_bytes = damager.sent;
                match result {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    Err(_) => return self.conversation.borrow_mut().client.cut_off = true,
                }
            }
            if self.tls.is_handshaking() {
                return;
            }
            let mut conversation = self.conversation.borrow_mut();
            let conversation = &mut *conversation;
            let (plan, client) = (&conversation.plan, &mut conversation.client);
            client.established = true;
            if self.end_queued {
                if !client.ended {
                    client.ended = true;
                    if plan.client_end != ClientEnd::CloseNotify {
                        line.shutdown_write();
                    }
                }
                return;
            }
            if client.said_bytes < plan.up_bytes {
                if !plan.client.may_start(client.heard_bytes, plan.down_bytes) {
                    return;
                }
                if self.tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3)
                    && self.key_updates < KEY_UPDATES_MAX
                    && line.random().happens(plan.key_updates)
                {
                    self.key_updates += 1;
                    self.tls.refresh_traffic_keys().unwrap();
                }
                let most = plan.client.chunk_max.min(plan.up_bytes - client.said_bytes);
                let count = line.random().magnitude(1, most);
                let words = plan.up().bytes(client.said_bytes, count);
                client.said_bytes += self.tls.writer().write(&words).unwrap();
            } else {
                let other_ended = client.ending.is_some();
                if !plan.client.may_end(client.heard_bytes, plan.down_bytes, other_ended) {
                    return;
                }
                if plan.client_end != ClientEnd::FinOnly {
                    self.tls.send_close_notify();
                }
                self.end_queued = true;
            }
        }
    }
}

impl Peer for Client {
    fn step(&mut self, line: &mut Line<'_>) -> Next {
        let dozes = self.conversation.borrow().plan.client.dozes;
        if let Some(rest) = self.doze.rest(dozes, line) {
            return Next::WaitAtMost(rest);
        }
        if !self.ended() {
            self.hear(line);
        }
        let ending = self.conversation.borrow().client.ending.clone();
        if !matches!(ending, None | Some(Ending::Clean)) {
            return Next::Close;
        }
        self.say(line);
        let conversation = self.conversation.borrow();
        let done = conversation.client.ended || conversation.client.cut_off;
        if ending.is_some() && done { Next::Close } else { Next::Wait }
    }
}

/// Flips a bit of the ciphertext at the place that the plan names.
struct Damager<'a, 'l> {
    client: &'a Shared,
    line: &'a mut Line<'l>,
    sent: usize,
}

impl Write for Damager<'_, '_> {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        let mut conversation = self.client.borrow_mut();
        let damage_at = conversation.plan.damage_at;
        let range = self.sent..self.sent + from.len();
        let written = match damage_at {
            Some(place) if range.contains(&place) && conversation.client.established => {
                let mut damaged = from.to_vec();
                damaged[place - self.sent] ^= 0x10;
                let written = self.line.write(&damaged)?;
                conversation.client.damaged |= place - self.sent < written;
                written
            }
            _ => self.line.write(from)?,
        };
        self.sent += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A client that does not speak TLS.
pub struct Stranger {
    pub conversation: Shared,
    pub said_bytes: usize,
}

impl Peer for Stranger {
    fn step(&mut self, line: &mut Line<'_>) -> Next {
        let mut conversation = self.conversation.borrow_mut();
        let Offer::Garbage(garbage) = conversation.plan.offer else {
            panic!("a stranger speaks no TLS")
        };
        while self.said_bytes < garbage.len() {
            match line.write(&garbage[self.said_bytes..]) {
                Ok(count) => self.said_bytes += count,
                Err(_) => break,
            }
        }
        if garbage.is_empty() {
            line.shutdown_write();
        }
        let mut chunk = [0; 1000];
        loop {
            match line.read(&mut chunk) {
                Ok(0) => conversation.client.ending = Some(Ending::Truncated),
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
                Err(_) => conversation.client.ending = Some(Ending::Reset),
            }
            return Next::Close;
        }
    }
}
