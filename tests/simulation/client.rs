//! A client: rustls as anybody would use it, on a simulated line.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use forebay::driver::simulator::{Line, Next, Peer};
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

use crate::conversation::{ClientEnd, Conversation, Doze, Ending, Offer, Shared};

/// The name that the server's certificate is for.
pub(crate) const SERVER_NAME: &str = "www.example.com";

pub(crate) struct Client {
    tls: ClientConnection,
    conversation: Shared,
    doze: Doze,
    /// close_notify is among what is to be written, or nothing of the kind will follow.
    end_queued: bool,
    records: Records,
    key_updates: usize,
}

/// rustls gives up on a peer that sends more than 32, answers included.
const KEY_UPDATES_MAX: usize = 20;

impl Client {
    pub(crate) fn new(config: &Arc<ClientConfig>, conversation: Shared) -> Self {
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self {
            tls,
            conversation,
            doze: Doze::default(),
            end_queued: false,
            records: Records::default(),
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
                let conversation = &mut *self.conversation.borrow_mut();
                let mut wire = Wire { conversation, line, records: &mut self.records };
                match self.tls.write_tls(&mut wire) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    Err(_) => return conversation.client.cut_off = true,
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

/// Where in the stream of records the next byte of ciphertext stands.
#[derive(Debug, Default)]
struct Records {
    sent_bytes: usize,
    /// The header of the record under way, as far as it was sent.
    header: Vec<u8>,
    /// Bytes of its body that are still to come.
    body_bytes: usize,
}

impl Records {
    /// Takes note of bytes that were sent; whether they end in the middle of a record.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        self.sent_bytes += bytes.len();
        while !bytes.is_empty() {
            if self.body_bytes > 0 {
                let count = self.body_bytes.min(bytes.len());
                self.body_bytes -= count;
                bytes = &bytes[count..];
                continue;
            }
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            if let [_, _, _, high, low] = self.header[..] {
                self.body_bytes = usize::from(u16::from_be_bytes([high, low]));
                self.header.clear();
            }
        }
        self.body_bytes > 0 || !self.header.is_empty()
    }
}

/// The way of the ciphertext to the line: follows its records, and flips a bit of it at
/// the place that the plan names.
struct Wire<'a, 'l> {
    conversation: &'a mut Conversation,
    line: &'a mut Line<'l>,
    records: &'a mut Records,
}

impl Write for Wire<'_, '_> {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        let Conversation { plan, client, .. } = self.conversation;
        let range = self.records.sent_bytes..self.records.sent_bytes + from.len();
        let written = match plan.damage_at {
            Some(place) if range.contains(&place) && client.established => {
                let place = place - range.start;
                let mut damaged = from.to_vec();
                damaged[place] ^= 0x10;
                let written = self.line.write(&damaged)?;
                client.damaged |= place < written;
                written
            }
            _ => self.line.write(from)?,
        };
        client.mid_record = self.records.follow(&from[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A client that does not speak TLS.
pub(crate) struct Stranger {
    pub(crate) conversation: Shared,
    pub(crate) said_bytes: usize,
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

/// A client that comes by way of a balancer, which first says by the PROXY protocol for
/// whom it speaks.
pub(crate) struct Proxied {
    header: Vec<u8>,
    said_bytes: usize,
    client: Box<dyn Peer>,
}

impl Proxied {
    /// The balancer speaks for `address`, in a line of version 1 or in version 2.
    pub(crate) fn new(address: SocketAddr, in_text: bool, client: Box<dyn Peer>) -> Self {
        let (ip, port) = (address.ip(), address.port());
        let header = match (ip, in_text) {
            (IpAddr::V4(ip), true) => {
                format!("PROXY TCP4 {ip} 203.0.113.9 {port} 443\r\n").into_bytes()
            }
            (IpAddr::V6(ip), true) => {
                format!("PROXY TCP6 {ip} 2001:db8::9 {port} 443\r\n").into_bytes()
            }
            (IpAddr::V4(ip), false) => {
                binary_header(0x11, &[&ip.octets()[..], &[203, 0, 113, 9]], port)
            }
            (IpAddr::V6(ip), false) => binary_header(0x21, &[&ip.octets()[..], &[9; 16]], port),
        };
        Self { header, said_bytes: 0, client }
    }
}

/// The specification's section 2.2, with a value that means nothing (NOOP).
fn binary_header(family: u8, addresses: &[&[u8]], port: u16) -> Vec<u8> {
    let ports = [port.to_be_bytes(), 443_u16.to_be_bytes()].concat();
    let block = [&addresses.concat()[..], &ports, &[0x04, 0, 2, 0, 0]].concat();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    header.push(family);
    header.extend(u16::try_from(block.len()).expect("short").to_be_bytes());
    header.extend(block);
    header
}

impl Peer for Proxied {
    fn step(&mut self, line: &mut Line<'_>) -> Next {
        while self.said_bytes < self.header.len() {
            let rest = &self.header[self.said_bytes..];
            let count = line.random().magnitude(1, rest.len());
            match line.write(&rest[..count]) {
                Ok(count) => self.said_bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
                // The client finds out as it reads.
                Err(_) => break,
            }
        }
        self.client.step(line)
    }
}
