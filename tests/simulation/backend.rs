//! A backend: reads the PROXY protocol header to know whom it talks to, shakes hands if it
//! has TLS, then says and hears what the conversation's plan has for it.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use forebay::driver::simulator::{ConnectionId, Line, Next, Peer};

use crate::conversation::{Doze, Ending, Registry, Shared};
use crate::tls_backend::TlsBackend;

pub(crate) struct Backend {
    connection: ConnectionId,
    registry: Registry,
    header: Vec<u8>,
    /// Whom the header names.
    client: Option<SocketAddr>,
    tls: Option<TlsBackend>,
    /// Whose it is, once a byte of it could come.
    conversation: Option<Shared>,
    doze: Doze,
}

impl Backend {
    pub(crate) fn new(
        connection: ConnectionId,
        registry: Registry,
        tls: Option<TlsBackend>,
    ) -> Self {
        registry.accept(connection);
        Self {
            connection,
            registry,
            header: Vec::new(),
            client: None,
            tls,
            conversation: None,
            doze: Doze::default(),
        }
    }

    /// Reads until would-block; how the stream ended, if it did.
    fn hear(&mut self, line: &mut Line<'_>) -> Option<Ending> {
        const ROUNDS: usize = 16;
        let mut chunk = [0; 16 * 1024];
        for _ in 0..ROUNDS {
            match line.read(&mut chunk) {
                Ok(0) if self.tls.is_some() => return Some(Ending::Truncated),
                Ok(0) => return Some(Ending::Clean),
                Ok(count) => {
                    if let Some(ending) = self.take(&chunk[..count]) {
                        return Some(ending);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => return Some(Ending::Reset),
            }
        }
        None
    }

    /// Takes the header off, and TLS; how the stream ended, if it did.
    fn take(&mut self, bytes: &[u8]) -> Option<Ending> {
        if self.client.is_some() {
            return self.take_behind_header(bytes);
        }
        self.header.extend_from_slice(bytes);
        let (client, length) = parse_header(&self.header)?;
        self.client = Some(client);
        let rest = self.header.split_off(length);
        self.take_behind_header(&rest)
    }

    fn take_behind_header(&mut self, bytes: &[u8]) -> Option<Ending> {
        let Some(mut tls) = self.tls.take() else {
            self.identify();
            self.heard(bytes);
            return None;
        };
        let mut words = Vec::new();
        let ending = tls.open(bytes, |heard| words.extend_from_slice(heard));
        if !tls.is_handshaking() {
            self.identify();
        }
        self.tls = Some(tls);
        if !words.is_empty() {
            self.heard(&words);
        }
        ending
    }

    /// From here on the client's own bytes may come.
    fn identify(&mut self) {
        let (None, Some(client)) = (&self.conversation, self.client) else { return };
        let conversation = self.registry.identify(self.connection, client);
        {
            let mut conversation = conversation.borrow_mut();
            assert!(
                conversation.backend_connection.is_none(),
                "conversation {} reached two backends",
                conversation.plan.number
            );
            conversation.backend_connection = Some(self.connection);
            conversation.backend.established = true;
            conversation.over_tls = self.tls.is_some();
        }
        self.conversation = Some(conversation);
    }

    fn heard(&mut self, bytes: &[u8]) {
        let Some(conversation) = &self.conversation else {
            panic!("data before the handshake is done")
        };
        let mut conversation = conversation.borrow_mut();
        let up = conversation.plan.up();
        up.check(conversation.backend.heard_bytes, bytes);
        conversation.backend.heard_bytes += bytes.len();
    }

    fn say(conversation: &Shared, tls: &mut Option<TlsBackend>, line: &mut Line<'_>) {
        let mut conversation = conversation.borrow_mut();
        let conversation = &mut *conversation;
        let (plan, backend) = (&conversation.plan, &mut conversation.backend);
        while !backend.ended && !backend.cut_off {
            match tls.as_mut().map(|tls| tls.flush(line)) {
                None | Some(Ok(true)) => {}
                Some(Ok(false)) => return,
                Some(Err(_)) => return backend.cut_off = true,
            }
            if backend.said_bytes == plan.down_bytes {
                let other_ended = backend.ending.is_some();
                if !plan.backend.may_end(backend.heard_bytes, plan.up_bytes, other_ended) {
                    return;
                }
                if tls.as_mut().is_none_or(TlsBackend::end) {
                    line.shutdown_write();
                    backend.ended = true;
                }
                continue;
            }
            if !plan.backend.may_start(backend.heard_bytes, plan.up_bytes) {
                return;
            }
            let most = plan.backend.chunk_max.min(plan.down_bytes - backend.said_bytes);
            let count = line.random().magnitude(1, most);
            let words = plan.down().bytes(backend.said_bytes, count);
            if let Some(tls) = tls {
                backend.said_bytes += tls.say(&words);
                continue;
            }
            match line.write(&words) {
                Ok(count) => backend.said_bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => backend.cut_off = true,
            }
        }
    }
}

impl Peer for Backend {
    fn step(&mut self, line: &mut Line<'_>) -> Next {
        if let Some(conversation) = &self.conversation {
            let dozes = conversation.borrow().plan.backend.dozes;
            if let Some(rest) = self.doze.rest(dozes, line) {
                return Next::WaitAtMost(rest);
            }
        }
        let heard_all = self
            .conversation
            .as_ref()
            .is_some_and(|conversation| conversation.borrow().backend.ending.is_some());
        let ending = if heard_all { None } else { self.hear(line) };
        let Some(conversation) = &self.conversation else {
            // As far as it goes; an alert too.
            let broken = self.tls.as_mut().is_some_and(|tls| tls.flush(line).is_err());
            // Nobody has said who the client is: this connection came to nothing.
            return if ending.is_some() || broken { Next::Close } else { Next::Wait };
        };
        if let Some(ending) = ending {
            conversation.borrow_mut().backend.ending = Some(ending);
        }
        if matches!(conversation.borrow().backend.ending, Some(Ending::Reset | Ending::Broken(_))) {
            return Next::Close;
        }
        Self::say(conversation, &mut self.tls, line);
        let backend = &conversation.borrow().backend;
        if backend.ending.is_some() && (backend.ended || backend.cut_off) {
            Next::Close
        } else {
            Next::Wait
        }
    }
}

/// The client's address and the header's length, once all of it is there: the reader
/// of the specification's section 2, for either version.
fn parse_header(bytes: &[u8]) -> Option<(SocketAddr, usize)> {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if bytes.starts_with(b"P") {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&bytes[..end]).expect("version 1 is text");
        let fields: Vec<_> = line.split(' ').collect();
        let ["PROXY", "TCP4" | "TCP6", source, _, port, _] = fields[..] else {
            panic!("not a PROXY line: {line:?}")
        };
        let address = SocketAddr::new(source.parse().unwrap(), port.parse().unwrap());
        return Some((address, end + 2));
    }
    let known = bytes.len().min(SIGNATURE.len());
    assert_eq!(bytes[..known], SIGNATURE[..known], "not a PROXY header");
    let length = 16 + usize::from(u16::from_be_bytes(bytes.get(14..16)?.try_into().unwrap()));
    let header = bytes.get(..length)?;
    assert_eq!(header[12], 0x21, "version 2, command PROXY");
    let source: SocketAddr = match header[13] {
        0x11 => {
            let address: [u8; 4] = header[16..20].try_into().unwrap();
            (address, u16::from_be_bytes([header[24], header[25]])).into()
        }
        0x21 => {
            let address: [u8; 16] = header[16..32].try_into().unwrap();
            (address, u16::from_be_bytes([header[48], header[49]])).into()
        }
        other => panic!("family {other:#x}"),
    };
    Some((source, length))
}
