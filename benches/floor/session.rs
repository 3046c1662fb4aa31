//! The cryptography of one connection: rustls until the handshake is done, then the
//! record layer. Sans-I/O, shared by both loops.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use arrayvec::ArrayVec;
use forebay::handshake::step::step;
use forebay::handshake::{Established, StepOutcome, Task};
use forebay::tls::certificates::{self, LoadedCertificate, Passphrases};
use forebay::tls::client_hello::{CLIENT_HELLO_BYTES_MAX, Scan, scan};
use forebay::tls::policy::{Policy, PolicySettings};
use forebay::tls::record::{AlertDescription, HEADER_BYTES, Opened, TRAILER_BYTES_MAX};
use forebay::tls::{CryptoLibrary, tickets};
use rustls::ServerConfig;

use super::client;
use super::work::Crypto;

/// Plaintext of a full record.
pub(super) const RECORD_PLAINTEXT_BYTES: usize = 16_384;

/// A full record on the wire, TLS 1.3.
pub(super) const RECORD_STRIDE_BYTES: usize = HEADER_BYTES + RECORD_PLAINTEXT_BYTES + 17;

/// Records moved by one receive and one send of a bulk stream.
pub(super) const BULK_RECORDS: usize = 4;

/// A buffer of one direction: a bulk piece, and a record that lacks its end.
pub(super) const BUFFER_BYTES: usize = (BULK_RECORDS + 1) * RECORD_STRIDE_BYTES + TRAILER_BYTES_MAX;

/// Ranges of plaintext in a buffer that was opened in place.
///
/// Records beyond these wait for the next send.
pub(super) type Pieces = ArrayVec<Range<usize>, 16>;

/// How a listener treats its clients.
#[derive(Clone)]
pub(super) enum Security {
    /// TLS as a listener of forebay's does it by default.
    Tls(Arc<ServerConfig>),
    /// Bytes are passed on as they are.
    Plain,
}

impl Security {
    /// TLS with the certificate and key of a PEM file.
    pub(super) fn from_file(path: &Path) -> anyhow::Result<Self> {
        let (certificates, findings) = certificates::load(
            &[path.to_owned()],
            CryptoLibrary::AwsLc,
            &Passphrases::default(),
            SystemTime::now(),
        );
        if certificates.is_empty() {
            let findings: Vec<_> = findings.iter().map(|finding| finding.message()).collect();
            bail!("{}: {}", path.display(), findings.join("; "));
        }
        Self::from_certificates(certificates)
    }

    /// TLS with these certificates and every default of a listener.
    pub(super) fn from_certificates(certificates: Vec<LoadedCertificate>) -> anyhow::Result<Self> {
        let library = CryptoLibrary::AwsLc;
        let tickets = tickets::per_process(library)?;
        let policy = Policy::new(PolicySettings::new(library, certificates, tickets))?;
        // The engine would ask the policy for every ClientHello; the floor asks once.
        let hello = client::first_flight()?;
        let mut scratch = Box::new([0; CLIENT_HELLO_BYTES_MAX]);
        let Scan::Complete(hello) = scan(&hello, &mut scratch) else {
            bail!("a client's first flight is no ClientHello");
        };
        let admission = policy.admit(&hello, None).ok().context("the policy refuses the client")?;
        Ok(Self::Tls(admission.config))
    }
}

/// One connection's cryptography.
pub(super) enum Session {
    /// None: the handshake is not done, or the listener relays as it is.
    Plain,
    Open(Box<Established>),
}

/// What the bytes of a client led to.
pub(super) enum Shaken {
    NeedsInput,
    Established,
    Failed,
}

impl Session {
    /// Goes on with the handshake. The flight is in the task that comes back with it.
    pub(super) fn shake(task: &mut Task, received: &[u8], crypto: &mut Crypto) -> Shaken {
        task.input.extend_from_slice(received);
        let clock = if task.state.is_none() { &mut crypto.hello } else { &mut crypto.finished };
        clock.time(|| step(task, CryptoLibrary::AwsLc));
        match task.outcome {
            StepOutcome::NeedsInput => Shaken::NeedsInput,
            StepOutcome::Established(_) => Shaken::Established,
            _ => Shaken::Failed,
        }
    }

    /// Opens every whole record of `bytes` in place. Says where the plaintext lies, how
    /// many bytes were taken, and whether the client has ended its side.
    pub(super) fn open(&mut self, bytes: &mut [u8], crypto: &mut Crypto) -> (Pieces, usize, bool) {
        let mut pieces = Pieces::new();
        let established = match self {
            Self::Open(established) => established,
            Self::Plain => {
                pieces.push(0..bytes.len());
                return (pieces, bytes.len(), false);
            }
        };
        let mut start = 0;
        while start < bytes.len() && !pieces.is_full() {
            let opened = crypto.open.time(|| established.opener.open(&mut bytes[start..]));
            match opened {
                Ok(Opened::Data { plaintext, record_bytes }) => {
                    pieces.push(start + plaintext.start..start + plaintext.end);
                    start += record_bytes;
                }
                Ok(Opened::Incomplete { .. }) => break,
                Ok(Opened::KeyUpdate { record_bytes, .. } | Opened::Ignored { record_bytes }) => {
                    start += record_bytes;
                }
                _ => return (pieces, bytes.len(), true),
            }
        }
        (pieces, start, false)
    }

    /// Seals `received` bytes of plaintext which were received at [`plaintext_places`],
    /// in place; the ciphertext is one run from the buffer's start.
    pub(super) fn seal(
        &mut self,
        buffer: &mut [u8],
        received: usize,
        crypto: &mut Crypto,
    ) -> usize {
        let established = match self {
            Self::Open(established) => established,
            Self::Plain => return received,
        };
        let (mut left, mut start) = (received, 0);
        while left > 0 {
            let length = left.min(RECORD_PLAINTEXT_BYTES);
            let plaintext = start + HEADER_BYTES..start + HEADER_BYTES + length;
            let sealer = &mut established.sealer;
            let sealed = crypto
                .seal
                .time(|| sealer.seal_run(buffer, plaintext, RECORD_PLAINTEXT_BYTES))
                .expect("the stride has room for header and trailer");
            start = sealed.end;
            left -= length;
        }
        start
    }

    /// Writes a close_notify to the start of the buffer; returns its length.
    pub(super) fn close_notify(&mut self, buffer: &mut [u8]) -> usize {
        match self {
            Self::Open(established) => {
                established.sealer.alert(AlertDescription::CloseNotify, buffer).unwrap_or(0)
            }
            Self::Plain => 0,
        }
    }

    /// Where plaintext is to be received, so that each record can be sealed in place.
    pub(super) fn plaintext_places(&self, records: usize) -> ArrayVec<Range<usize>, BULK_RECORDS> {
        if matches!(self, Self::Plain) {
            return std::iter::once(0..records * RECORD_PLAINTEXT_BYTES).collect();
        }
        (0..records)
            .map(|record| {
                let start = record * RECORD_STRIDE_BYTES + HEADER_BYTES;
                start..start + RECORD_PLAINTEXT_BYTES
            })
            .collect()
    }
}
