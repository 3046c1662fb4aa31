//! Messages: a query out, and in what an answer to it says (RFC 1035 section 4).
//!
//! Only what a stub resolver needs of A, AAAA, SRV, CNAME and SOA records, on the messages,
//! names and records of the `domain` crate. Records of other types are passed over unread,
//! and so is the additional section.
//!
//! Queries ask for recursion and have no EDNS (as glibc's have none), so that an answer over
//! UDP has at most 512 bytes; a longer one is asked for again over TCP.

use std::fmt;
use std::net::IpAddr;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::message::RecordSection;
use domain::base::name::Label;
use domain::base::{Message, MessageBuilder, Name, ParsedName, ParsedRecord, Ttl};
use domain::rdata::{A, Aaaa, Cname, Soa, Srv};

/// The longest message: TCP has 16 bits for its length (RFC 1035 section 4.2.2).
pub const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

/// The longest answer over UDP to a query without EDNS (RFC 1035 section 4.2.1). Room for
/// more tells a longer one from one that fits.
pub const DATAGRAM_BYTES_MAX: usize = 4_096;

/// Names that one name may stand for, one after the other.
const ALIASES_MAX: usize = 8;

const HEADER_BYTES: usize = 12;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses (RFC 3596).
    Aaaa,
    /// Servers of a service (RFC 2782).
    Srv,
}

impl From<RecordType> for Rtype {
    fn from(record_type: RecordType) -> Self {
        match record_type {
            RecordType::A => Self::A,
            RecordType::Aaaa => Self::AAAA,
            RecordType::Srv => Self::SRV,
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        })
    }
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// The lowest is to be tried first.
    pub priority: u16,
    /// Its host name, in lower case and with the dot of the root.
    pub target: String,
    /// Where it listens.
    pub port: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
}

/// One piece of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Of an A or AAAA record.
    Address(IpAddr),
    /// Of an SRV record.
    Service(Service),
}

/// A question on its way.
#[derive(Clone, Debug)]
pub struct Query {
    message: Vec<u8>,
    record_type: RecordType,
}

impl Query {
    /// Asks for the `record_type` records of `name`. `None` if that is no name: a label of 0
    /// or more than 63 bytes, or more than 255 bytes in all.
    pub fn new(id: u16, name: &str, record_type: RecordType) -> Option<Self> {
        let name = Name::vec_from_str(name).ok().filter(|name| !name.is_root())?;
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(id);
        builder.header_mut().set_rd(true);
        let mut question = builder.question();
        question.push((name, Rtype::from(record_type))).ok()?;
        Some(Self { message: question.finish(), record_type })
    }

    /// The message, as UDP carries it.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// What it asks for.
    pub fn record_type(&self) -> RecordType {
        self.record_type
    }
}

/// What a nameserver says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There are such records, at least one.
    Records {
        /// In the order of the message.
        records: Vec<Record>,
        /// How long this holds: the least of all records and aliases on the way.
        ttl_seconds: u32,
    },
    /// The name exists, and has no such record.
    NoRecord {
        /// How long this holds, if the nameserver says so (RFC 2308 section 5).
        ttl_seconds: Option<u32>,
    },
    /// There is no such name (NXDOMAIN).
    NoName {
        /// As above.
        ttl_seconds: Option<u32>,
    },
    /// It does not fit: ask over TCP.
    Truncated,
    /// The nameserver does not answer the question; its reason (RFC 1035 section 4.1.1).
    Refused(ResponseCode),
}

/// Why a nameserver does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseCode(pub u8);

impl fmt::Display for ResponseCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => formatter.write_str("FORMERR"),
            2 => formatter.write_str("SERVFAIL"),
            4 => formatter.write_str("NOTIMP"),
            5 => formatter.write_str("REFUSED"),
            code => write!(formatter, "response code {code}"),
        }
    }
}

/// Why a message is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It is about something else: late, or forged. The answer may still come.
    Unasked,
    /// It answers the question and cannot be read.
    Malformed,
}

/// Reads the answer to `query`: the same number, and the question repeated to the letter
/// (RFC 5452 section 9.1).
///
/// # Errors
/// See [`NoAnswer`].
pub fn read_answer(query: &Query, message: &[u8]) -> Result<Answer, NoAnswer> {
    let message = Message::from_slice(message).map_err(|_| NoAnswer::Unasked)?;
    let header = message.header();
    let asked = &query.message[HEADER_BYTES..];
    if header.id().to_be_bytes() != query.message[..2]
        || !header.qr()
        || header.opcode() != Opcode::QUERY
        || message.header_counts().qdcount() != 1
        || !message.as_slice()[HEADER_BYTES..].starts_with(asked)
    {
        return Err(NoAnswer::Unasked);
    }
    if header.tc() {
        return Ok(Answer::Truncated);
    }
    let no_such_name = header.rcode() == Rcode::NXDOMAIN;
    if header.rcode() != Rcode::NOERROR && !no_such_name {
        return Ok(Answer::Refused(ResponseCode(header.rcode().to_int())));
    }
    let read = || {
        let answers = records(message.answer().ok()?)?;
        let name = message.first_question()?.into_qname();
        if let Some(answer) = found(name, &answers, query.record_type)? {
            return Some(answer);
        }
        let authorities = records(message.authority().ok()?)?;
        let ttl_seconds = authorities.iter().find_map(negative_ttl);
        Some(if no_such_name {
            Answer::NoName { ttl_seconds }
        } else {
            Answer::NoRecord { ttl_seconds }
        })
    };
    read().ok_or(NoAnswer::Malformed)
}

/// The records of a section that belong to the Internet, not looked into. `None` if one makes
/// no sense.
fn records<'a>(section: RecordSection<'a, [u8]>) -> Option<Vec<ParsedRecord<'a, [u8]>>> {
    let records: Result<Vec<_>, _> = section.collect();
    let mut records = records.ok()?;
    records.retain(|record| record.class() == Class::IN);
    Some(records)
}

/// What there is of `wanted` for a name among `answers`, over aliases; `Some(None)` if
/// nothing. `None` if what there is makes no sense.
fn found<'a>(
    mut owner: ParsedName<&'a [u8]>,
    answers: &[ParsedRecord<'a, [u8]>],
    wanted: RecordType,
) -> Option<Option<Answer>> {
    let mut ttl_seconds = u32::MAX;
    for _ in 0..=ALIASES_MAX {
        let mut records = Vec::new();
        let mut alias = None;
        // Names are the same whatever the case of their letters (RFC 4343).
        for record in answers.iter().filter(|record| record.owner() == owner) {
            if record.rtype() == Rtype::CNAME {
                alias = Some(record);
            } else if record.rtype() == wanted.into() {
                ttl_seconds = ttl_seconds.min(lifetime(record.ttl()));
                records.extend(content(record, wanted)?);
            }
        }
        if !records.is_empty() {
            return Some(Some(Answer::Records { records, ttl_seconds }));
        }
        let Some(alias) = alias else { return Some(None) };
        ttl_seconds = ttl_seconds.min(lifetime(alias.ttl()));
        owner = alias.to_record::<Cname<_>>().ok()??.into_data().into_cname();
    }
    // A chain without an end.
    None
}

/// `Some(None)` for a service that is said not to exist here (RFC 2782, target ".") or whose
/// host has no name that could be asked for. `None` if the data make no sense.
fn content(record: &ParsedRecord<'_, [u8]>, wanted: RecordType) -> Option<Option<Record>> {
    let address = |address: IpAddr| Some(Some(Record::Address(address)));
    match wanted {
        RecordType::A => address(record.to_record::<A>().ok()??.data().addr().into()),
        RecordType::Aaaa => address(record.to_record::<Aaaa>().ok()??.data().addr().into()),
        RecordType::Srv => {
            let record = record.to_record::<Srv<_>>().ok()??;
            let service = record.data();
            let (priority, weight, port) = (service.priority(), service.weight(), service.port());
            let target = host_name(service.target()).filter(|_| port != 0);
            Some(target.map(|target| Record::Service(Service { priority, target, port, weight })))
        }
    }
}

/// RFC 2308 section 5: the lesser of the record's own and its last field.
fn negative_ttl(record: &ParsedRecord<'_, [u8]>) -> Option<u32> {
    let start = record.to_record::<Soa<ParsedName<&[u8]>>>().ok()??;
    Some(lifetime(start.ttl()).min(lifetime(start.data().minimum())))
}

/// A name as text; `None` if no host is called so.
fn host_name(name: &ParsedName<&[u8]>) -> Option<String> {
    let mut text = String::new();
    for label in name.iter().filter(|label| !label.is_root()).map(Label::as_slice) {
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)) {
            return None;
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        text.push('.');
    }
    Some(text).filter(|text| !text.is_empty())
}

/// In seconds. RFC 2181 section 8: what has its first bit set is nothing.
fn lifetime(ttl: Ttl) -> u32 {
    Some(ttl.as_secs()).filter(|seconds| *seconds <= i32::MAX as u32).unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests;
