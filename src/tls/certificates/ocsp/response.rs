//! The frame of an OCSP response (RFC 6960 section 4.2.1), as far as a staple is judged.
//!
//! x509-parser has everything that stands inside but the response itself, and the crates
//! that have it bring a second DER library.

use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::time::ASN1Time;

/// Answers read of one file, more than any responder puts in; those behind are not looked
/// at.
const SINGLES_MAX: usize = 64;

/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// `BasicOCSPResponse`.
#[derive(Debug)]
pub(super) struct BasicResponse<'a> {
    /// `tbsResponseData`, tag and length included: what is signed.
    pub(super) signed: &'a [u8],
    pub(super) responder: Responder<'a>,
    pub(super) singles: Vec<SingleResponse<'a>>,
    /// The content of the signature's `AlgorithmIdentifier`.
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
    /// Certificates that came along, in DER.
    pub(super) certificates: Vec<&'a [u8]>,
}

/// `ResponderID`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Responder<'a> {
    /// Its name, in DER.
    Name(&'a [u8]),
    /// The SHA-1 hash of its public key.
    KeyHash(&'a [u8]),
}

/// `SingleResponse`.
#[derive(Debug)]
pub(super) struct SingleResponse<'a> {
    /// The object identifier of the hash, its content.
    pub(super) hash: &'a [u8],
    pub(super) issuer_name_hash: &'a [u8],
    pub(super) issuer_key_hash: &'a [u8],
    pub(super) serial: &'a [u8],
    pub(super) status: Status,
    /// Seconds since the UNIX epoch.
    pub(super) this_update: i64,
    pub(super) next_update: Option<i64>,
}

/// `CertStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Good,
    Revoked,
    Unknown,
}

/// Why there is no response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is not DER, or not an `OCSPResponse`.
    Malformed,
    /// The responder refused with this `OCSPResponseStatus`.
    Refused(u8),
}

/// Elements of a SEQUENCE, one after the other.
#[derive(Clone, Copy)]
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn of(any: &Any<'a>) -> Self {
        Self(any.data)
    }

    /// The next element and its bytes, tag and length included.
    fn next(&mut self) -> Option<(Any<'a>, &'a [u8])> {
        let (rest, any) = Any::from_der(self.0).ok()?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some((any, whole))
    }

    fn next_with(&mut self, tag: Tag) -> Option<(Any<'a>, &'a [u8])> {
        let (any, whole) = self.next()?;
        (any.class() == Class::Universal && any.tag() == tag).then_some((any, whole))
    }

    /// The next element if it carries the context-specific tag `number`.
    fn tagged(&mut self, number: u32) -> Option<Any<'a>> {
        let mut ahead = *self;
        let (any, _) = ahead.next()?;
        let matches = any.class() == Class::ContextSpecific && any.tag() == Tag(number);
        matches.then(|| {
            *self = ahead;
            any
        })
    }
}

/// Reads a whole file.
pub(super) fn parse(der: &[u8]) -> Result<BasicResponse<'_>, Unreadable> {
    let bytes = response_bytes(der)?;
    basic(bytes).ok_or(Unreadable::Malformed)
}

/// The `BasicOCSPResponse` in an `OCSPResponse`.
fn response_bytes(der: &[u8]) -> Result<&[u8], Unreadable> {
    let mut file = Elements(der);
    let (outer, _) = file.next_with(Tag::Sequence).ok_or(Unreadable::Malformed)?;
    let mut outer = Elements::of(&outer);
    let (status, _) = outer.next_with(Tag::Enumerated).ok_or(Unreadable::Malformed)?;
    match (status.data, file.0) {
        ([0], []) => {}
        ([status], []) => return Err(Unreadable::Refused(*status)),
        _ => return Err(Unreadable::Malformed),
    }
    let mut of_type = || {
        let (bytes, _) = Elements::of(&outer.tagged(0)?).next_with(Tag::Sequence)?;
        let mut bytes = Elements::of(&bytes);
        let (kind, _) = bytes.next_with(Tag::Oid)?;
        let (response, _) = bytes.next_with(Tag::OctetString)?;
        (kind.data == BASIC).then_some(response.data)
    };
    of_type().ok_or(Unreadable::Malformed)
}

fn basic(bytes: &[u8]) -> Option<BasicResponse<'_>> {
    let (outer, _) = Elements(bytes).next_with(Tag::Sequence)?;
    let mut outer = Elements::of(&outer);
    let (data, signed) = outer.next_with(Tag::Sequence)?;
    let (algorithm, _) = outer.next_with(Tag::Sequence)?;
    let (signature, _) = outer.next_with(Tag::BitString)?;
    let mut certificates = Vec::new();
    if let Some(tagged) = outer.tagged(0) {
        let (sequence, _) = Elements::of(&tagged).next_with(Tag::Sequence)?;
        let mut sequence = Elements::of(&sequence);
        while let Some((_, whole)) = sequence.next() {
            certificates.push(whole);
        }
    }

    let mut data = Elements::of(&data);
    // The version, which has one value, is left out by everybody.
    let _ = data.tagged(0);
    let responder = match data.tagged(1) {
        Some(name) => Responder::Name(name.data),
        None => {
            let hash = data.tagged(2)?;
            Responder::KeyHash(Elements::of(&hash).next_with(Tag::OctetString)?.0.data)
        }
    };
    data.next_with(Tag::GeneralizedTime)?;
    let (list, _) = data.next_with(Tag::Sequence)?;
    let mut list = Elements::of(&list);
    let mut singles = Vec::new();
    while !list.0.is_empty() && singles.len() < SINGLES_MAX {
        let (element, _) = list.next_with(Tag::Sequence)?;
        singles.push(single(&element)?);
    }
    // The first octet of a BIT STRING counts unused bits: none here.
    let signature = signature.data.strip_prefix(&[0])?;
    Some(BasicResponse {
        signed,
        responder,
        singles,
        algorithm: algorithm.data,
        signature,
        certificates,
    })
}

fn single<'a>(element: &Any<'a>) -> Option<SingleResponse<'a>> {
    let mut element = Elements::of(element);
    let (id, _) = element.next_with(Tag::Sequence)?;
    let mut id = Elements::of(&id);
    let (algorithm, _) = id.next_with(Tag::Sequence)?;
    let (hash, _) = Elements::of(&algorithm).next_with(Tag::Oid)?;
    let (issuer_name_hash, _) = id.next_with(Tag::OctetString)?;
    let (issuer_key_hash, _) = id.next_with(Tag::OctetString)?;
    let (serial, _) = id.next_with(Tag::Integer)?;
    let (status, _) = element.next()?;
    let status = match (status.class(), status.tag()) {
        (Class::ContextSpecific, Tag(0)) => Status::Good,
        (Class::ContextSpecific, Tag(1)) => Status::Revoked,
        (Class::ContextSpecific, Tag(2)) => Status::Unknown,
        _ => return None,
    };
    let (_, this_update) = element.next_with(Tag::GeneralizedTime)?;
    let next_update = match element.tagged(0) {
        Some(tagged) => Some(time(tagged.data)?),
        None => None,
    };
    Some(SingleResponse {
        hash: hash.data,
        issuer_name_hash: issuer_name_hash.data,
        issuer_key_hash: issuer_key_hash.data,
        serial: serial.data,
        status,
        this_update: time(this_update)?,
        next_update,
    })
}

/// A `GeneralizedTime`, in seconds since the UNIX epoch.
fn time(der: &[u8]) -> Option<i64> {
    Some(ASN1Time::from_der(der).ok()?.1.timestamp())
}
