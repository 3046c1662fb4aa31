//! One client's TLS, sans-I/O: bytes of the socket in, bytes for the socket and
//! plaintext out.
//!
//! rustls' unbuffered interface, so that ciphertext is received into memory of the thread
//! and an idle connection keeps none.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{ClientConfig, Error, HandshakeKind};

use crate::outgoing::Outgoing;

/// The most that a record adds to its plaintext: header, type, and tag or explicit nonce
/// and tag (RFC 8446 section 5.2, RFC 5288 section 3).
const RECORD_OVERHEAD_BYTES_MAX: usize = 5 + 8 + 16 + 1;
/// The most plaintext in a record (RFC 8446 section 5.1).
const RECORD_PLAINTEXT_BYTES_MAX: usize = 16 * 1_024;

/// A client's side of a TLS connection.
pub(crate) struct Session(Box<UnbufferedClientConnection>);

/// What became of received bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Processed {
    /// Bytes that need not be kept: all but the beginning of a record.
    pub(crate) consumed: usize,
    /// The server said close_notify.
    pub(crate) ended: bool,
}

/// What was agreed on, by code points; 0 where there is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Negotiated {
    pub(crate) version: u16,
    pub(crate) suite: u16,
    pub(crate) group: u16,
}

impl Session {
    /// A session whose ClientHello is appended to `outgoing`.
    pub(crate) fn new(
        config: &Arc<ClientConfig>,
        name: &ServerName<'static>,
        outgoing: &mut Outgoing,
    ) -> Result<Self, Error> {
        let connection = UnbufferedClientConnection::new(Arc::clone(config), name.clone())?;
        let mut session = Self(Box::new(connection));
        session.process(&mut [], outgoing, |_| ())?;
        Ok(session)
    }

    /// Takes received bytes, which are decrypted where they are; appends answers to
    /// `outgoing` and shows every piece of plaintext to `data`.
    ///
    /// # Errors
    /// The server's fault, or an alert of it. `outgoing` holds the alert to tell it.
    pub(crate) fn process(
        &mut self,
        incoming: &mut [u8],
        outgoing: &mut Outgoing,
        mut data: impl FnMut(&[u8]),
    ) -> Result<Processed, Error> {
        let mut processed = Processed::default();
        loop {
            let rest = &mut incoming[processed.consumed..];
            let UnbufferedStatus { discard, state, .. } = self.0.process_tls_records(rest);
            let more = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        data(record?.payload);
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    append(outgoing, 512, |room| message.encode(room).map_err(encode_shortage));
                    true
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => {
                    transmit.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    processed.ended = true;
                    true
                }
                Ok(_) => false,
                Err(error) => {
                    let rest = &mut incoming[processed.consumed + discard..];
                    self.encode_alert(rest, outgoing);
                    return Err(error);
                }
            };
            processed.consumed += discard;
            if !more {
                return Ok(processed);
            }
        }
    }

    /// After an error rustls has an alert ready.
    fn encode_alert(&mut self, rest: &mut [u8], outgoing: &mut Outgoing) {
        if let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut message)), .. } =
            self.0.process_tls_records(rest)
        {
            append(outgoing, 64, |room| message.encode(room).map_err(encode_shortage));
        }
    }

    /// Appends `data` as records to `outgoing`. `kept` is what [`Self::process`] did not
    /// consume, of which rustls may know more than that it is there. False before the
    /// handshake is complete or when the keys are used up.
    pub(crate) fn encrypt(
        &mut self,
        data: &[u8],
        kept: &mut [u8],
        outgoing: &mut Outgoing,
    ) -> bool {
        let records = data.len().div_ceil(RECORD_PLAINTEXT_BYTES_MAX);
        let room = data.len() + records * RECORD_OVERHEAD_BYTES_MAX;
        self.write(kept, outgoing, room, |traffic, room| traffic.encrypt(data, room))
    }

    /// Appends close_notify to `outgoing`; `kept` as in [`Self::encrypt`].
    pub(crate) fn close(&mut self, kept: &mut [u8], outgoing: &mut Outgoing) -> bool {
        self.write(kept, outgoing, 64, |traffic, room| traffic.queue_close_notify(room))
    }

    fn write(
        &mut self,
        kept: &mut [u8],
        outgoing: &mut Outgoing,
        room: usize,
        mut write: impl FnMut(&mut WriteTraffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> bool {
        loop {
            match self.0.process_tls_records(kept).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return append(outgoing, room, |room| {
                        write(&mut traffic, room).map_err(|error| match error {
                            EncryptError::InsufficientSize(shortage) => Some(shortage),
                            EncryptError::EncryptExhausted => None,
                        })
                    });
                }
                // An answer to a key update, say.
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    append(outgoing, 64, |room| message.encode(room).map_err(encode_shortage));
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                _ => return false,
            }
        }
    }

    /// Whether application data cannot be sent yet.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Whether the handshake resumed an earlier session; meaningful when it is complete.
    pub(crate) fn resumed(&self) -> bool {
        self.0.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// What was agreed on; meaningful when the handshake is complete.
    pub(crate) fn negotiated(&self) -> Negotiated {
        Negotiated {
            version: self.0.protocol_version().map_or(0, u16::from),
            suite: self.0.negotiated_cipher_suite().map_or(0, |suite| suite.suite().into()),
            group: self.0.negotiated_key_exchange_group().map_or(0, |group| group.name().into()),
        }
    }
}

type WriteTraffic<'a> = rustls::unbuffered::WriteTraffic<'a, rustls::client::ClientConnectionData>;

fn encode_shortage(error: EncodeError) -> Option<InsufficientSizeError> {
    match error {
        EncodeError::InsufficientSize(shortage) => Some(shortage),
        EncodeError::AlreadyEncoded => None,
    }
}

/// Lets `write` write behind what is in `outgoing`: into `room` bytes, or as many as it
/// then says it needs. False if it cannot write at all.
fn append(
    outgoing: &mut Outgoing,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> bool {
    loop {
        match write(outgoing.room(room)) {
            Ok(written) => {
                outgoing.fill(written);
                return true;
            }
            Err(Some(shortage)) if shortage.required_size > room => room = shortage.required_size,
            Err(_) => return false,
        }
    }
}
