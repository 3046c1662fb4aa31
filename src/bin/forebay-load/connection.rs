//! One non-blocking connection to the server, with or without TLS.
//!
//! Moves bytes; knows nothing of what they mean, of measuring, or of other connections.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};

use crate::failure::Failure;
use crate::outgoing::Outgoing;
use crate::session::Session;

/// Bytes that one receive may bring. A power of two larger than a socket buffer usually
/// is, so that one call empties it.
pub(crate) const RECEIVE_BYTES_MAX: usize = 256 * 1_024;

/// Where connections go and what they say first.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Local addresses to connect from, in turn; empty to let the kernel choose.
    pub(crate) sources: Vec<IpAddr>,
    /// The name asked for and, if checked, expected in the certificate.
    pub(crate) name: ServerName<'static>,
    /// `None`: TCP without TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A TLS client that has said its ClientHello and got no answer: it may as well say it to
/// another connection.
pub(crate) struct Hello {
    session: Session,
    record: Vec<u8>,
}

/// What one call of [`Connection::receive`] brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes off the socket.
    pub(crate) bytes: usize,
    /// Nothing more was there just then.
    pub(crate) drained: bool,
    /// The server has ended its direction, by close_notify or by the end of the stream.
    pub(crate) ended: bool,
    /// The server has ended the stream itself.
    pub(crate) stream_ended: bool,
}

/// Memory that the connections of a thread share.
pub(crate) struct Scratch {
    incoming: Box<[u8]>,
    outgoing: Outgoing,
}

impl Default for Scratch {
    fn default() -> Self {
        // Behind what is kept of a record there is still room for a full receive.
        let bytes = RECEIVE_BYTES_MAX + 32 * 1_024;
        Self { incoming: vec![0; bytes].into_boxed_slice(), outgoing: Outgoing::default() }
    }
}

/// A connection.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    session: Option<Session>,
    /// The ClientHello, until the socket takes it.
    hello: Option<Vec<u8>>,
    /// Something was received.
    answered: bool,
    /// What the socket did not take yet.
    unsent: Outgoing,
    /// The beginning of a record.
    partial: Vec<u8>,
}

impl Connection {
    /// Begins to connect, from the source of that number. The ClientHello of `unused` is
    /// used if there is one.
    pub(crate) fn open(
        target: &Target,
        number: usize,
        unused: Option<Hello>,
        scratch: &mut Scratch,
    ) -> Result<Self, Failure> {
        let domain = Domain::for_address(target.address);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        // Small requests must not wait for the acknowledgement of earlier ones.
        socket.set_tcp_nodelay(true)?;
        if !target.sources.is_empty() {
            let source = target.sources[number % target.sources.len()];
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&target.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let (session, hello) = match (unused, &target.tls) {
            (Some(Hello { session, record }), _) => (Some(session), Some(record)),
            (None, Some(config)) => {
                scratch.outgoing.clear();
                let session = Session::new(config, &target.name, &mut scratch.outgoing)?;
                (Some(session), Some(scratch.outgoing.pending().to_vec()))
            }
            (None, None) => (None, None),
        };
        Ok(Self {
            socket: socket.into(),
            session,
            hello,
            answered: false,
            unsent: Outgoing::default(),
            partial: Vec::new(),
        })
    }

    /// Sends the ClientHello, or without TLS finds out whether the connection stands.
    /// False while it does not.
    ///
    /// # Errors
    /// Why it never will.
    pub(crate) fn begin(&mut self) -> Result<bool, Failure> {
        let Some(hello) = &self.hello else {
            if let Some(error) = self.socket.take_error()? {
                return Err(error.into());
            }
            return match self.socket.peer_addr() {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
                Err(error) => Err(error.into()),
            };
        };
        match io::Write::write(&mut self.socket, hello) {
            Ok(count) => {
                if count < hello.len() {
                    self.unsent.append(&hello[count..]);
                }
                Ok(true)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Receives once; shows every piece of plaintext to `data`. Answers of the handshake
    /// are sent.
    ///
    /// # Errors
    /// The socket's, or what is wrong with the server's TLS, which is told to it.
    pub(crate) fn receive(
        &mut self,
        scratch: &mut Scratch,
        mut data: impl FnMut(&[u8]),
    ) -> Result<Received, Failure> {
        let kept = self.partial.len();
        scratch.incoming[..kept].copy_from_slice(&self.partial);
        let room = &mut scratch.incoming[kept..kept + RECEIVE_BYTES_MAX];
        let count = loop {
            match self.socket.read(room) {
                Ok(0) => {
                    let end = Received { drained: true, ended: true, stream_ended: true, bytes: 0 };
                    return Ok(end);
                }
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Received { drained: true, ..Received::default() });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        };
        self.answered = true;
        let drained = count < RECEIVE_BYTES_MAX;
        let Some(session) = &mut self.session else {
            data(&room[..count]);
            return Ok(Received { bytes: count, drained, ..Received::default() });
        };
        let incoming = &mut scratch.incoming[..kept + count];
        scratch.outgoing.clear();
        let processed = session.process(incoming, &mut scratch.outgoing, data);
        let processed = match processed {
            Ok(processed) => processed,
            Err(error) => {
                // The alert, if the socket takes it at once: the connection ends anyway.
                let _ = self.transmit(&mut scratch.outgoing);
                return Err(error.into());
            }
        };
        self.partial.clear();
        self.partial.extend_from_slice(&incoming[processed.consumed..]);
        self.transmit(&mut scratch.outgoing)?;
        Ok(Received { bytes: count, drained, ended: processed.ended, stream_ended: false })
    }

    /// Sends `data`, encrypted if there is TLS. What the socket does not take is kept: see
    /// [`Self::flush`].
    pub(crate) fn send(&mut self, data: &[u8], scratch: &mut Scratch) -> Result<(), Failure> {
        scratch.outgoing.clear();
        match &mut self.session {
            Some(session) => {
                if !session.encrypt(data, &mut self.partial, &mut scratch.outgoing) {
                    return Err(rustls::Error::EncryptError.into());
                }
            }
            None => scratch.outgoing.append(data),
        }
        self.transmit(&mut scratch.outgoing)?;
        Ok(())
    }

    /// Says that nothing more will be sent: close_notify, or without TLS the end of the
    /// stream. (With TLS the server is left to end the stream, so that the wait for late
    /// packets is not on this side, where ports are scarce.)
    pub(crate) fn finish(&mut self, scratch: &mut Scratch) -> Result<(), Failure> {
        match &mut self.session {
            Some(session) => {
                scratch.outgoing.clear();
                session.close(&mut self.partial, &mut scratch.outgoing);
                self.transmit(&mut scratch.outgoing)?;
            }
            None => self.socket.shutdown(std::net::Shutdown::Write)?,
        }
        Ok(())
    }

    fn transmit(&mut self, outgoing: &mut Outgoing) -> Result<(), Failure> {
        if self.unsent.is_empty() {
            outgoing.write_to(&self.socket)?;
        }
        if !outgoing.is_empty() {
            self.unsent.append(outgoing.pending());
        }
        Ok(())
    }

    /// Sends what was kept. True when nothing is left.
    pub(crate) fn flush(&mut self) -> Result<bool, Failure> {
        Ok(self.unsent.is_empty() || self.unsent.write_to(&self.socket)?)
    }

    /// Whether something waits for the socket to take it.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The TLS session, if there is TLS.
    pub(crate) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Gives back memory that an idle connection does not need.
    pub(crate) fn rest(&mut self) {
        self.hello = None;
        self.unsent.shrink();
        self.partial.shrink_to_fit();
    }

    /// Closes it by a reset, which leaves no port waiting on either side. The ClientHello
    /// comes back if nobody answered it.
    pub(crate) fn reset(self) -> Option<Hello> {
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        match (self.answered, self.session, self.hello) {
            (false, Some(session), Some(record)) => Some(Hello { session, record }),
            _ => None,
        }
    }
}
