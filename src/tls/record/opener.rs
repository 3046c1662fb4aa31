//! Opening records in place, and judging what is inside.

use std::ops::Range;

use super::AlertDescription;
use super::alert::{ALERT_BYTES, FATAL, WARNING};
use super::content_type::{ALERT, APPLICATION_DATA, HANDSHAKE};
use super::direction::{Direction, SequenceEnd, additional_data_tls12};
use super::handshake_type::{CLIENT_HELLO, HELLO_REQUEST, KEY_UPDATE, NEW_SESSION_TICKET};
use super::keys::{DirectionKeys, KeysError};
use super::limits::{
    CIPHERTEXT_BYTES_MAX, EMPTY_RECORDS_MAX, EXPLICIT_NONCE_BYTES, HEADER_BYTES, INNER_TYPE_BYTES,
    KEY_UPDATES_MAX, PLAINTEXT_BYTES_MAX, RENEGOTIATIONS_MAX, SESSION_TICKET_BYTES_MAX,
    SESSION_TICKETS_MAX, WARNING_ALERTS_MAX,
};
use crate::tls::Version;
use crate::tls::aead::TAG_BYTES;

/// Opens records from the client, or from a server, one after the other.
#[derive(Debug)]
pub struct Opener {
    direction: Direction,
    state: State,
    /// The peer is a server.
    is_server: bool,
    server: ServerMessages,
    /// Bytes of a TLS 1.3 KeyUpdate that came in earlier records: 0 to 4.
    key_update_bytes: u8,
    // What came since the last byte of application data. All bounded by small limits.
    empty_records: u8,
    key_updates: u8,
    warning_alerts: u8,
    /// Since the handshake.
    renegotiations: u8,
}

/// What a server may send besides: the part of a NewSessionTicket that is missing yet.
#[derive(Clone, Copy, Debug, Default)]
struct ServerMessages {
    /// Bytes of the body that have yet to come; in the middle of the header the length in
    /// it, as far as that came.
    body_left: u32,
    /// Bytes of the message's header that came: 0 to 3.
    header_bytes: u8,
    /// Tickets since the last byte of application data.
    tickets: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The peer has closed its side.
    Closed,
    /// A record was refused.
    Failed,
}

/// What the first record of the bytes was. `record_bytes` is how many of them it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The record is not complete. Nothing was changed.
    Incomplete {
        /// Bytes that the record has in all, header included; 5 while not even the
        /// header is there.
        total_bytes: usize,
    },
    /// Application data.
    Data {
        /// Where in the bytes it lies. May be empty.
        plaintext: Range<usize>,
        /// Bytes of the record.
        record_bytes: usize,
    },
    /// TLS 1.3: the peer has moved to its next keys, and so has the opener.
    KeyUpdate {
        /// Bytes of the record.
        record_bytes: usize,
        /// The peer wants the same of us: send a KeyUpdate that does not request one
        /// before the next application data (RFC 8446 section 4.6.3). One is enough,
        /// however many requests came. Does not apply once our side is closed.
        respond: bool,
    },
    /// The peer closed its side in good order. From here on every byte is ignored.
    CloseNotify {
        /// Bytes of the record.
        record_bytes: usize,
    },
    /// TLS 1.3, from a server: a session ticket that is whole in this record, the last one
    /// if there are several.
    SessionTicket {
        /// Where in the bytes the body of the NewSessionTicket lies (RFC 8446 section
        /// 4.6.1).
        body: Range<usize>,
        /// Bytes of the record.
        record_bytes: usize,
    },
    /// Nothing to act on: a warning alert, or a message that goes on in the next record.
    Ignored {
        /// Bytes of the record.
        record_bytes: usize,
    },
    /// TLS 1.2: the client wants to renegotiate. Answer with a `no_renegotiation` alert
    /// and carry on (RFC 5246 section 7.2.2).
    RenegotiationRefused {
        /// Bytes of the record.
        record_bytes: usize,
    },
}

/// Why a record ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The version field does not start with 3, so this is no TLS record.
    #[error("not a TLS record: the version field is {0}.{1}")]
    NotTls(u8, u8),
    /// Longer than a record may be, before or after decryption.
    #[error("a record of {0} bytes is longer than TLS allows")]
    RecordOverflow(usize),
    /// Not authentic.
    #[error("a record does not decrypt: it was changed on the way, or lost, or repeated")]
    BadRecordMac,
    /// A content type that has no business here.
    #[error("unexpected record of content type {0}")]
    UnexpectedContentType(u8),
    /// TLS 1.3: nothing but padding.
    #[error("a record without content type")]
    NoContentType,
    /// An alert or handshake record with nothing in it.
    #[error("an empty record of content type {0}")]
    EmptyFragment(u8),
    /// A handshake message that has no business after the handshake.
    #[error("unexpected handshake message of type {0} after the handshake")]
    UnexpectedHandshake(u8),
    /// TLS 1.2: a ClientHello that is not one record.
    #[error("a renegotiating ClientHello that is not exactly one record")]
    FragmentedClientHello,
    /// TLS 1.3: another record amid a handshake message.
    #[error("a record of content type {0} in the middle of a handshake message")]
    Interleaved(u8),
    /// TLS 1.3: something under the old keys after a KeyUpdate.
    #[error("a KeyUpdate that does not end its record")]
    KeyUpdateNotAligned,
    /// TLS 1.3: a KeyUpdate whose length is not 1.
    #[error("a KeyUpdate of the wrong length")]
    KeyUpdateMalformed,
    /// TLS 1.3: neither update_requested nor update_not_requested.
    #[error("a KeyUpdate with the request value {0}")]
    KeyUpdateRequest(u8),
    /// An alert that is not two bytes.
    #[error("an alert record of {0} bytes instead of 2")]
    AlertMalformed(usize),
    /// TLS 1.2: an alert neither warning nor fatal.
    #[error("an alert of level {0}")]
    AlertLevel(u8),
    /// More than [`EMPTY_RECORDS_MAX`].
    #[error("more than {EMPTY_RECORDS_MAX} empty records in a row")]
    TooManyEmptyRecords,
    /// More than [`KEY_UPDATES_MAX`].
    #[error("more than {KEY_UPDATES_MAX} KeyUpdates without data")]
    TooManyKeyUpdates,
    /// More than [`WARNING_ALERTS_MAX`].
    #[error("more than {WARNING_ALERTS_MAX} warning alerts without data")]
    TooManyWarningAlerts,
    /// More than [`SESSION_TICKETS_MAX`].
    #[error("more than {SESSION_TICKETS_MAX} session tickets without data")]
    TooManySessionTickets,
    /// Longer than a NewSessionTicket can be.
    #[error("a session ticket of {0} bytes")]
    SessionTicketTooLong(u32),
    /// More than [`RENEGOTIATIONS_MAX`].
    #[error("the peer insists on renegotiation")]
    TooManyRenegotiations,
    /// The peer ended the connection with a fatal alert.
    #[error("the peer sent the alert {0:?}")]
    PeerAlert(AlertDescription),
    /// All 2^64 sequence numbers are used.
    #[error("the sequence numbers of the connection are used up")]
    SequenceEnd,
    /// An earlier record was refused; nothing after it is looked at.
    #[error("an earlier record was refused")]
    AlreadyFailed,
}

impl RecordError {
    /// The alert to end the connection with; `None` if none is to be sent.
    pub const fn alert(&self) -> Option<AlertDescription> {
        Some(match self {
            Self::NotTls(..) => AlertDescription::ProtocolVersion,
            // RFC 8446 sections 5.1 and 5.2, RFC 5246 section 7.2.2.
            Self::RecordOverflow(_) => AlertDescription::RecordOverflow,
            // RFC 8446 section 5.2, RFC 5246 section 7.2.2.
            Self::BadRecordMac => AlertDescription::BadRecordMac,
            // RFC 8446 sections 5 (types), 5.1 (interleaving, alignment), 5.4 (padding,
            // empty fragments), 4.6 (post-handshake messages). The RFCs do not speak of
            // floods; BoringSSL and rustls send the same alert for them.
            Self::UnexpectedContentType(_)
            | Self::NoContentType
            | Self::EmptyFragment(_)
            | Self::UnexpectedHandshake(_)
            | Self::FragmentedClientHello
            | Self::Interleaved(_)
            | Self::KeyUpdateNotAligned
            | Self::TooManyEmptyRecords
            | Self::TooManyKeyUpdates
            | Self::TooManyWarningAlerts
            | Self::TooManySessionTickets
            | Self::TooManyRenegotiations => AlertDescription::UnexpectedMessage,
            // RFC 8446 section 6.2: decode_error for a length that is incorrect.
            Self::KeyUpdateMalformed | Self::AlertMalformed(_) | Self::SessionTicketTooLong(_) => {
                AlertDescription::DecodeError
            }
            // RFC 8446 section 4.6.3.
            Self::KeyUpdateRequest(_) | Self::AlertLevel(_) => AlertDescription::IllegalParameter,
            Self::SequenceEnd => AlertDescription::InternalError,
            Self::PeerAlert(_) | Self::AlreadyFailed => return None,
        })
    }
}

impl From<SequenceEnd> for RecordError {
    fn from(_: SequenceEnd) -> Self {
        Self::SequenceEnd
    }
}

impl Opener {
    /// An opener for the records of a client.
    ///
    /// # Errors
    /// The keys do not fit together.
    pub fn new(keys: DirectionKeys) -> Result<Self, KeysError> {
        let key_update_bytes = keys.key_update_bytes;
        let state = if keys.ended { State::Closed } else { State::Open };
        Ok(Self {
            direction: Direction::new(keys)?,
            state,
            is_server: false,
            server: ServerMessages::default(),
            key_update_bytes,
            empty_records: 0,
            key_updates: 0,
            warning_alerts: 0,
            renegotiations: 0,
        })
    }

    /// An opener for the records of a server, which may send session tickets too.
    ///
    /// # Errors
    /// The keys do not fit together.
    pub fn from_server(keys: DirectionKeys) -> Result<Self, KeysError> {
        Ok(Self { is_server: true, ..Self::new(keys)? })
    }

    /// Opens the first record in `bytes`, ciphertext that starts at a record header, in
    /// place.
    ///
    /// After [`Opened::CloseNotify`] every further call takes all bytes and says so
    /// again: "Any data received after a closure alert has been received MUST be
    /// ignored" (RFC 8446 section 6.1).
    ///
    /// # Errors
    /// The record ends the connection: send [`RecordError::alert`] and close. What
    /// `bytes` hold then means nothing. Every later call fails too.
    // Each direction has a caller: the way of a record has no calls on it in either.
    #[inline(always)]
    pub fn open(&mut self, bytes: &mut [u8]) -> Result<Opened, RecordError> {
        match self.state {
            State::Open => {}
            State::Closed => return Ok(Opened::CloseNotify { record_bytes: bytes.len() }),
            State::Failed => return Err(RecordError::AlreadyFailed),
        }
        let opened = self.open_first(bytes);
        match opened {
            Ok(Opened::CloseNotify { .. }) => self.state = State::Closed,
            Ok(_) => {}
            Err(_) => self.state = State::Failed,
        }
        opened
    }

    /// Protocol version.
    pub const fn version(&self) -> Version {
        self.direction.version()
    }

    /// The opener of a client's records as plain data, from which another process can carry
    /// on. Of the flood counters nothing is kept: they start anew.
    pub fn export(&self) -> DirectionKeys {
        DirectionKeys {
            key_update_bytes: self.key_update_bytes,
            ended: self.state != State::Open,
            ..self.direction.export()
        }
    }

    #[inline(always)]
    fn open_first(&mut self, bytes: &mut [u8]) -> Result<Opened, RecordError> {
        let Some(&header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(Opened::Incomplete { total_bytes: HEADER_BYTES });
        };
        let [content_type, major, minor, length @ ..] = header;
        // The minor version is authenticated as additional data and otherwise "MUST be
        // ignored for all purposes" (RFC 8446 section 5.1). The 3 in front of it is what
        // every version of TLS has in common: without it this is something else.
        if major != 3 {
            return Err(RecordError::NotTls(major, minor));
        }
        let expected = match self.version() {
            // The outer type is application_data always (RFC 8446 section 5.2), and on
            // any other an implementation "MUST terminate the connection with an
            // 'unexpected_message' alert" (section 5). That goes for ChangeCipherSpec
            // too, once the client's Finished is here.
            Version::Tls13 => content_type == APPLICATION_DATA,
            Version::Tls12 => matches!(content_type, ALERT | HANDSHAKE | APPLICATION_DATA),
        };
        if !expected {
            return Err(RecordError::UnexpectedContentType(content_type));
        }
        let length = usize::from(u16::from_be_bytes(length));
        if length > CIPHERTEXT_BYTES_MAX {
            return Err(RecordError::RecordOverflow(length));
        }
        let total_bytes = HEADER_BYTES + length;
        let Some(record) = bytes.get_mut(..total_bytes) else {
            return Ok(Opened::Incomplete { total_bytes });
        };
        let (content_type, content) = match self.version() {
            Version::Tls13 => self.decrypt_tls13(header, record)?,
            Version::Tls12 => self.decrypt_tls12(header, record)?,
        };
        self.interpret(content_type, content, record)
    }

    /// Decrypts a record of TLS 1.3 (RFC 8446 section 5.2) and finds type and content
    /// before the padding (section 5.4).
    #[inline(always)]
    fn decrypt_tls13(
        &mut self,
        header: [u8; HEADER_BYTES],
        record: &mut [u8],
    ) -> Result<(u8, Range<usize>), RecordError> {
        let sequence = self.direction.take_sequence_numbers(1)?;
        let nonce = self.direction.nonce(sequence);
        let (inner, tag) = record[HEADER_BYTES..]
            .split_last_chunk_mut::<TAG_BYTES>()
            .ok_or(RecordError::BadRecordMac)?;
        self.direction.open(nonce, &header, inner, tag).map_err(|_| RecordError::BadRecordMac)?;
        // Content, type and padding together: at most 2^14 + 1 (section 5.4).
        if inner.len() > PLAINTEXT_BYTES_MAX + INNER_TYPE_BYTES {
            return Err(RecordError::RecordOverflow(inner.len()));
        }
        let content_bytes =
            inner.iter().rposition(|byte| *byte != 0).ok_or(RecordError::NoContentType)?;
        Ok((inner[content_bytes], HEADER_BYTES..HEADER_BYTES + content_bytes))
    }

    /// Decrypts a record of TLS 1.2 (RFC 5246 section 6.2.3.3, RFC 5288, RFC 7905).
    #[inline]
    fn decrypt_tls12(
        &mut self,
        header: [u8; HEADER_BYTES],
        record: &mut [u8],
    ) -> Result<(u8, Range<usize>), RecordError> {
        let sequence = self.direction.take_sequence_numbers(1)?;
        let explicit_bytes = self.direction.explicit_nonce_bytes();
        let start = HEADER_BYTES + explicit_bytes;
        let plaintext_bytes =
            record.len().checked_sub(start + TAG_BYTES).ok_or(RecordError::BadRecordMac)?;
        if plaintext_bytes > PLAINTEXT_BYTES_MAX {
            return Err(RecordError::RecordOverflow(plaintext_bytes));
        }
        let (front, sealed) = record.split_at_mut(start);
        let nonce = match front.last_chunk::<EXPLICIT_NONCE_BYTES>() {
            Some(explicit) if explicit_bytes > 0 => self.direction.nonce_with_explicit(explicit),
            _ => self.direction.nonce(sequence),
        };
        let additional = additional_data_tls12(sequence, header, plaintext_bytes);
        let (text, tag) =
            sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or(RecordError::BadRecordMac)?;
        self.direction
            .open(nonce, &additional, text, tag)
            .map_err(|_| RecordError::BadRecordMac)?;
        Ok((header[0], start..start + plaintext_bytes))
    }

    #[inline(always)]
    fn interpret(
        &mut self,
        content_type: u8,
        content: Range<usize>,
        record: &[u8],
    ) -> Result<Opened, RecordError> {
        let record_bytes = record.len();
        // "If a handshake message is split over two or more records, there MUST NOT be
        // any other records between them" (RFC 8446 section 5.1).
        if self.is_mid_message() && content_type != HANDSHAKE {
            return Err(RecordError::Interleaved(content_type));
        }
        if content_type == APPLICATION_DATA {
            if content.is_empty() {
                count(&mut self.empty_records, EMPTY_RECORDS_MAX)
                    .ok_or(RecordError::TooManyEmptyRecords)?;
            } else {
                self.empty_records = 0;
                self.key_updates = 0;
                self.warning_alerts = 0;
                self.server.tickets = 0;
            }
            return Ok(Opened::Data { plaintext: content, record_bytes });
        }
        let place = content.start;
        let content = &record[content];
        match (content_type, self.version()) {
            // Only application data may be empty (RFC 8446 section 5.4, RFC 5246 section
            // 6.2.1).
            (ALERT | HANDSHAKE, _) if content.is_empty() => {
                Err(RecordError::EmptyFragment(content_type))
            }
            (ALERT, _) => self.alert(content, record_bytes),
            (HANDSHAKE, Version::Tls13) if self.is_server => {
                self.server_messages(content, place, record_bytes)
            }
            (HANDSHAKE, Version::Tls13) => self.key_update(content, record_bytes),
            (HANDSHAKE, Version::Tls12) if self.is_server => {
                self.hello_request(content, record_bytes)
            }
            (HANDSHAKE, Version::Tls12) => self.renegotiation(content, record_bytes),
            (other, _) => Err(RecordError::UnexpectedContentType(other)),
        }
    }

    /// Whether a handshake message goes on in the next record.
    fn is_mid_message(&self) -> bool {
        let in_ticket = self.server.header_bytes > 0 || self.server.body_left > 0;
        self.key_update_bytes > 0 || in_ticket
    }

    #[cold]
    fn alert(&mut self, content: &[u8], record_bytes: usize) -> Result<Opened, RecordError> {
        // An alert may be neither split nor joined with another (RFC 8446 section 5.1).
        // TLS 1.2 is not as strict, but nobody splits two bytes: BoringSSL refuses too.
        let &[level, description] = content else {
            debug_assert_ne!(content.len(), ALERT_BYTES);
            return Err(RecordError::AlertMalformed(content.len()));
        };
        let description = AlertDescription::from(description);
        if description == AlertDescription::CloseNotify {
            return Ok(Opened::CloseNotify { record_bytes });
        }
        match (self.version(), level) {
            // The level can "safely be ignored" and all but the two closure alerts are
            // errors, unknown ones included (RFC 8446 section 6).
            (Version::Tls13, _) if description == AlertDescription::UserCanceled => {}
            (Version::Tls13, _) => return Err(RecordError::PeerAlert(description)),
            // RFC 5246 section 7.2.
            (Version::Tls12, WARNING) => {}
            (Version::Tls12, FATAL) => return Err(RecordError::PeerAlert(description)),
            (Version::Tls12, other) => return Err(RecordError::AlertLevel(other)),
        }
        count(&mut self.warning_alerts, WARNING_ALERTS_MAX)
            .ok_or(RecordError::TooManyWarningAlerts)?;
        Ok(Opened::Ignored { record_bytes })
    }

    /// Takes the next bytes of a KeyUpdate, the one message that a client may send after
    /// the handshake (RFC 8446 sections 4.6 and 4.1.2): we ask for no certificate, and a
    /// NewSessionTicket comes from servers only.
    ///
    /// The message may be split over records (section 5.1). As all of it but the last
    /// byte is fixed, counting what came is all the reassembly that it takes.
    #[cold]
    fn key_update(&mut self, content: &[u8], record_bytes: usize) -> Result<Opened, RecordError> {
        let mut rest = content.iter().copied();
        while let Some(byte) = rest.next() {
            match (self.key_update_bytes, byte) {
                (0, KEY_UPDATE) | (1 | 2, 0) | (3, 1) => self.key_update_bytes += 1,
                (0, other) => return Err(RecordError::UnexpectedHandshake(other)),
                (1..=3, _) => return Err(RecordError::KeyUpdateMalformed),
                (_, request) => {
                    // "Handshake messages MUST NOT span key changes ... all messages
                    // immediately preceding a key change align with a record boundary"
                    // (section 5.1).
                    if rest.next().is_some() {
                        return Err(RecordError::KeyUpdateNotAligned);
                    }
                    let respond = match request {
                        0 => false,
                        1 => true,
                        other => return Err(RecordError::KeyUpdateRequest(other)),
                    };
                    count(&mut self.key_updates, KEY_UPDATES_MAX)
                        .ok_or(RecordError::TooManyKeyUpdates)?;
                    self.key_update_bytes = 0;
                    self.direction.roll();
                    return Ok(Opened::KeyUpdate { record_bytes, respond });
                }
            }
        }
        Ok(Opened::Ignored { record_bytes })
    }

    /// Takes the next bytes of what a server may send after the handshake of TLS 1.3: any
    /// number of NewSessionTickets, then perhaps a KeyUpdate (RFC 8446 section 4.6). We do
    /// not offer to authenticate then, so that it may ask for no certificate.
    ///
    /// A ticket that is split over records is skipped: to resume is a courtesy which is not
    /// worth a reassembly. `place` is where in the record the content begins.
    #[cold]
    fn server_messages(
        &mut self,
        content: &[u8],
        place: usize,
        record_bytes: usize,
    ) -> Result<Opened, RecordError> {
        let mut messages = self.server;
        let mut whole = None;
        let mut at = 0;
        while let Some(&next) = content.get(at) {
            if messages.header_bytes == 0 && messages.body_left > 0 {
                let skipped = (content.len() - at).min(messages.body_left as usize);
                messages.body_left -= skipped as u32;
                at += skipped;
                continue;
            }
            if messages.header_bytes == 0 {
                if self.key_update_bytes > 0 || next != NEW_SESSION_TICKET {
                    self.server = messages;
                    return self.key_update(&content[at..], record_bytes);
                }
            } else {
                messages.body_left = messages.body_left << 8 | u32::from(next);
            }
            messages.header_bytes += 1;
            at += 1;
            if messages.header_bytes == 4 {
                messages.header_bytes = 0;
                if messages.body_left > SESSION_TICKET_BYTES_MAX {
                    return Err(RecordError::SessionTicketTooLong(messages.body_left));
                }
                count(&mut messages.tickets, SESSION_TICKETS_MAX)
                    .ok_or(RecordError::TooManySessionTickets)?;
                // A header that began in an earlier record has fewer than 4 bytes here.
                let end = at + messages.body_left as usize;
                if at >= 4 && end <= content.len() {
                    whole = Some(place + at..place + end);
                }
            }
        }
        self.server = messages;
        Ok(match whole {
            Some(body) => Opened::SessionTicket { body, record_bytes },
            None => Opened::Ignored { record_bytes },
        })
    }

    /// A handshake message of a server in a TLS 1.2 session: a HelloRequest, which a client
    /// may ignore that does not wish to renegotiate (RFC 5246 section 7.4.1.1).
    #[cold]
    fn hello_request(
        &mut self,
        content: &[u8],
        record_bytes: usize,
    ) -> Result<Opened, RecordError> {
        if content != [HELLO_REQUEST, 0, 0, 0] {
            let message_type = content.first().copied().unwrap_or_default();
            return Err(RecordError::UnexpectedHandshake(message_type));
        }
        count(&mut self.renegotiations, RENEGOTIATIONS_MAX)
            .ok_or(RecordError::TooManyRenegotiations)?;
        Ok(Opened::Ignored { record_bytes })
    }

    /// A handshake message in a TLS 1.2 session: only a ClientHello has a meaning.
    ///
    /// One that is split over records is refused: to say no politely is a courtesy (RFC
    /// 5246 section 7.2.2) which is not worth a reassembly.
    #[cold]
    fn renegotiation(
        &mut self,
        content: &[u8],
        record_bytes: usize,
    ) -> Result<Opened, RecordError> {
        let (message_type, body) = match content {
            &[message_type, a, b, c, ref body @ ..] => {
                (message_type, Some((u32::from_be_bytes([0, a, b, c]), body)))
            }
            // Not empty: the caller has seen to that.
            _ => (content.first().copied().unwrap_or_default(), None),
        };
        if message_type != CLIENT_HELLO {
            return Err(RecordError::UnexpectedHandshake(message_type));
        }
        match body {
            Some((length, body)) if usize::try_from(length) == Ok(body.len()) => {}
            _ => return Err(RecordError::FragmentedClientHello),
        }
        count(&mut self.renegotiations, RENEGOTIATIONS_MAX)
            .ok_or(RecordError::TooManyRenegotiations)?;
        Ok(Opened::RenegotiationRefused { record_bytes })
    }
}

/// Counts one more; `None` if that is more than `max`.
fn count(counter: &mut u8, max: u8) -> Option<()> {
    if *counter >= max {
        return None;
    }
    *counter += 1;
    Some(())
}
