//! Sealing records in place, and the few control records that a server sends.

use std::ops::Range;

use super::AlertDescription;
use super::alert;
use super::content_type::{ALERT, APPLICATION_DATA, HANDSHAKE};
use super::direction::{Direction, SequenceEnd, additional_data_tls12, header};
use super::handshake_type::KEY_UPDATE;
use super::keys::{DirectionKeys, KeysError};
use super::limits::{
    CONTROL_RECORDS_RESERVED, EXPLICIT_NONCE_BYTES, HEADER_BYTES, INNER_TYPE_BYTES,
    PLAINTEXT_BYTES_MAX, key_update_after, records_max,
};
use crate::tls::Version;
use crate::tls::aead::{NONCE_BYTES, TAG_BYTES};

/// Seals records to the client.
#[derive(Debug)]
pub struct Sealer {
    direction: Direction,
    /// A close_notify or a fatal alert was sealed: nothing may follow it.
    closed: bool,
}

/// Why nothing was sealed. The buffer is as it was, save after [`SealError::Aead`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The buffer does not hold the range, or not the room around it.
    #[error("{front_bytes} bytes in front of the plaintext and {total_bytes} in all are needed")]
    NoRoom {
        /// Bytes needed in front of the plaintext.
        front_bytes: usize,
        /// Bytes of ciphertext that the records make.
        total_bytes: usize,
    },
    /// A close_notify or fatal alert has ended this side of the connection.
    #[error("this side of the connection is closed")]
    Closed,
    /// The key has sealed as many records as it may.
    #[error("the key has sealed as many records as it may")]
    Exhausted,
    /// KeyUpdate does not exist before TLS 1.3.
    #[error("KeyUpdate is part of TLS 1.3 only")]
    NotTls13,
    /// The library refused: not reachable with records of legal length.
    #[error("the cryptographic library refused to seal a record")]
    Aead,
}

impl From<SequenceEnd> for SealError {
    fn from(_: SequenceEnd) -> Self {
        Self::Exhausted
    }
}

impl Sealer {
    /// A sealer for the records to come.
    ///
    /// # Errors
    /// The keys do not fit together.
    pub fn new(keys: DirectionKeys) -> Result<Self, KeysError> {
        let closed = keys.ended;
        Ok(Self { direction: Direction::new(keys)?, closed })
    }

    /// Bytes that a record has in front of its plaintext: 5, or 13 for AES-GCM in TLS 1.2.
    pub const fn header_bytes(&self) -> usize {
        HEADER_BYTES + self.direction.explicit_nonce_bytes()
    }

    /// Bytes that a record has behind its plaintext: 17 in TLS 1.3, 16 in TLS 1.2.
    pub const fn trailer_bytes(&self) -> usize {
        match self.direction.version() {
            Version::Tls13 => INNER_TYPE_BYTES + TAG_BYTES,
            Version::Tls12 => TAG_BYTES,
        }
    }

    /// Bytes of ciphertext that `plaintext_bytes` become in records of at most
    /// `record_plaintext_max`. Saturates instead of overflowing.
    pub const fn sealed_bytes(&self, plaintext_bytes: usize, record_plaintext_max: usize) -> usize {
        let records = record_count(plaintext_bytes, record_limit(record_plaintext_max));
        let overhead = records.saturating_mul(self.header_bytes() + self.trailer_bytes());
        plaintext_bytes.saturating_add(overhead)
    }

    /// Seals the `plaintext` range of `buffer` as a run of application-data records of at
    /// most `record_plaintext_max` bytes each (taken as 1 to 2^14), in place, and returns
    /// where the ciphertext lies.
    ///
    /// The first record starts [`Self::header_bytes`] before the plaintext, and the whole
    /// is [`Self::sealed_bytes`] long. Later records move back to make room, each byte
    /// once; with one record nothing moves. No plaintext makes no record.
    ///
    /// # Errors
    /// No room, or this side is closed, or the key is used up: see [`SealError`].
    // Each direction has a caller.
    #[inline(always)]
    pub fn seal_run(
        &mut self,
        buffer: &mut [u8],
        plaintext: Range<usize>,
        record_plaintext_max: usize,
    ) -> Result<Range<usize>, SealError> {
        if self.closed {
            return Err(SealError::Closed);
        }
        let (front, back) = (self.header_bytes(), self.trailer_bytes());
        let record_max = record_limit(record_plaintext_max);
        let total_bytes = self.sealed_bytes(plaintext.len(), record_max);
        let no_room = SealError::NoRoom { front_bytes: front, total_bytes };
        if plaintext.start > plaintext.end || plaintext.end > buffer.len() {
            return Err(no_room);
        }
        if plaintext.is_empty() {
            return Ok(plaintext.start..plaintext.start);
        }
        let start = plaintext.start.checked_sub(front).ok_or(no_room)?;
        let sealed = start..start.checked_add(total_bytes).ok_or(no_room)?;
        let run = buffer.get_mut(sealed.clone()).ok_or(no_room)?;

        let records = record_count(plaintext.len(), record_max);
        let data_records_max = records_max(self.direction.algorithm()) - CONTROL_RECORDS_RESERVED;
        if data_records_max.saturating_sub(self.direction.sequence()) < records as u64 {
            return Err(SealError::Exhausted);
        }
        let first_sequence = self.direction.take_sequence_numbers(records as u64)?;

        // Back to front: each record's plaintext moves into space that those behind it
        // have left, and is sealed while it is in the cache.
        for record in (0..records).rev() {
            let offset = record * record_max;
            let length = record_max.min(plaintext.len() - offset);
            let source = front + offset;
            let target = source + record * (front + back);
            if target != source {
                run.copy_within(source..source + length, target);
            }
            self.seal_record(
                APPLICATION_DATA,
                first_sequence + record as u64,
                &mut run[target - front..target + length + back],
            )?;
        }
        Ok(sealed)
    }

    /// Seals an alert into the front of `out` and returns its bytes: at most
    /// [`super::CONTROL_RECORD_BYTES_MAX`].
    ///
    /// close_notify and no_renegotiation are warnings, all others fatal. After
    /// close_notify and after a fatal alert nothing more can be sealed: "Each party MUST
    /// send a close_notify alert before closing its write side" (RFC 8446 section 6.1).
    ///
    /// # Errors
    /// No room, or this side is closed already, or the key is used up to the last record.
    pub fn alert(
        &mut self,
        description: AlertDescription,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let bytes = self.seal_control(ALERT, &alert::encode(description), out)?;
        self.closed = description != AlertDescription::NoRenegotiation;
        Ok(bytes)
    }

    /// Seals a KeyUpdate into the front of `out`, moves on to the next keys, and returns
    /// its bytes: at most [`super::CONTROL_RECORD_BYTES_MAX`].
    ///
    /// `request` asks the peer to do the same. Leave it `false` in an answer (RFC 8446
    /// section 4.6.3), and when only our own key is worn.
    ///
    /// # Errors
    /// TLS 1.2, no room, or this side is closed.
    pub fn key_update(&mut self, request: bool, out: &mut [u8]) -> Result<usize, SealError> {
        if self.direction.version() != Version::Tls13 {
            return Err(SealError::NotTls13);
        }
        let message = [KEY_UPDATE, 0, 0, 1, u8::from(request)];
        let bytes = self.seal_control(HANDSHAKE, &message, out)?;
        // "Both sender and receiver MUST encrypt their KeyUpdate messages with the old
        // keys" (RFC 8446 section 4.6.3).
        self.direction.roll();
        Ok(bytes)
    }

    /// TLS 1.3: the key is worn; send a KeyUpdate before more data (RFC 8446 section 5.5).
    pub const fn key_update_due(&self) -> bool {
        matches!(self.direction.version(), Version::Tls13)
            && self.direction.sequence() >= key_update_after(self.direction.algorithm())
    }

    /// The key can seal no more data. In TLS 1.2, which has no KeyUpdate, send
    /// close_notify and end; in TLS 1.3 it means that [`Self::key_update_due`] went unheeded.
    pub const fn exhausted(&self) -> bool {
        self.direction.sequence()
            >= records_max(self.direction.algorithm()) - CONTROL_RECORDS_RESERVED
    }

    /// A close_notify or fatal alert was sealed: nothing more can be.
    pub const fn closed(&self) -> bool {
        self.closed
    }

    /// Protocol version.
    pub const fn version(&self) -> Version {
        self.direction.version()
    }

    /// The sealer as plain data, from which another process can carry on. This one must
    /// not seal any more then, or nonces are used twice.
    pub fn export(&self) -> DirectionKeys {
        DirectionKeys { ended: self.closed, ..self.direction.export() }
    }

    fn seal_control(
        &mut self,
        content_type: u8,
        content: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        if self.closed {
            return Err(SealError::Closed);
        }
        let front = self.header_bytes();
        let total_bytes = front + content.len() + self.trailer_bytes();
        let record = out
            .get_mut(..total_bytes)
            .ok_or(SealError::NoRoom { front_bytes: front, total_bytes })?;
        if self.direction.sequence() >= records_max(self.direction.algorithm()) {
            return Err(SealError::Exhausted);
        }
        let sequence = self.direction.take_sequence_numbers(1)?;
        record[front..front + content.len()].copy_from_slice(content);
        self.seal_record(content_type, sequence, record)?;
        Ok(total_bytes)
    }

    /// Seals `record`, in which the content lies between room for header and trailer.
    #[inline]
    fn seal_record(
        &self,
        content_type: u8,
        sequence: u64,
        record: &mut [u8],
    ) -> Result<(), SealError> {
        let nonce = self.direction.nonce(sequence);
        let length = record.len() - HEADER_BYTES;
        let front = self.header_bytes();
        let (head, body) = record.split_at_mut(front);
        let (text, tag) = body.split_last_chunk_mut::<TAG_BYTES>().ok_or(SealError::Aead)?;
        match self.direction.version() {
            Version::Tls13 => {
                // RFC 8446 section 5.2: the true type goes inside, the header is the
                // additional data.
                let header = header(APPLICATION_DATA, length);
                head.copy_from_slice(&header);
                *text.last_mut().ok_or(SealError::Aead)? = content_type;
                self.direction.seal(nonce, &header, text, tag)
            }
            Version::Tls12 => {
                let header = header(content_type, length);
                head[..HEADER_BYTES].copy_from_slice(&header);
                if front > HEADER_BYTES {
                    head[HEADER_BYTES..]
                        .copy_from_slice(&nonce[NONCE_BYTES - EXPLICIT_NONCE_BYTES..]);
                }
                let additional = additional_data_tls12(sequence, header, text.len());
                self.direction.seal(nonce, &additional, text, tag)
            }
        }
        .map_err(|_| SealError::Aead)
    }
}

/// A record maximum within what TLS allows.
const fn record_limit(record_plaintext_max: usize) -> usize {
    match record_plaintext_max {
        0 => 1,
        1..=PLAINTEXT_BYTES_MAX => record_plaintext_max,
        _ => PLAINTEXT_BYTES_MAX,
    }
}

/// How many records of at most `record_max` bytes it takes. Most often one, and then a
/// division would cost more than everything else that is not cryptography.
const fn record_count(plaintext_bytes: usize, record_max: usize) -> usize {
    match plaintext_bytes {
        0 => 0,
        few if few <= record_max => 1,
        many => many.div_ceil(record_max),
    }
}
