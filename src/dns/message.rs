//! Messages: a query out, and in what an answer to it says (RFC 1035 section 4).
//!
//! Only what a stub resolver needs of A, AAAA, SRV, CNAME and SOA records. Records of other
//! types are passed over unread, and so is the additional section. Names are compared where
//! they lie, compressed or not: nothing is allocated but what is found.
//!
//! Queries ask for recursion and have no EDNS (as glibc's have none), so that an answer over
//! UDP has at most 512 bytes; a longer one is asked for again over TCP.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest message: TCP has 16 bits for its length (RFC 1035 section 4.2.2).
pub const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

/// The longest answer over UDP to a query without EDNS (RFC 1035 section 4.2.1). Room for
/// more tells a longer one from one that fits.
pub const DATAGRAM_BYTES_MAX: usize = 4_096;

/// The longest name in a message, its lengths and the root included (RFC 1035 section 3.1).
const NAME_BYTES_MAX: usize = 255;

/// Names that one name may stand for, one after the other.
const ALIASES_MAX: usize = 8;

const HEADER_BYTES: usize = 12;
const CLASS_INTERNET: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RecordType {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses (RFC 3596).
    Aaaa = 28,
    /// Servers of a service (RFC 2782).
    Srv = 33,
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
        const RECURSION_DESIRED: u16 = 0x0100;
        let mut message = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
        for word in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        for label in name.strip_suffix('.').unwrap_or(name).split('.') {
            let bytes = u8::try_from(label.len()).ok().filter(|bytes| (1..=63).contains(bytes))?;
            message.push(bytes);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        if message.len() - HEADER_BYTES > NAME_BYTES_MAX {
            return None;
        }
        for word in [record_type as u16, CLASS_INTERNET] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        Some(Self { message, record_type })
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
    const RESPONSE: u16 = 0x8000;
    const OPERATION: u16 = 0x7800;
    const TRUNCATED: u16 = 0x0200;
    let reader = Reader { message };
    let word = |at| reader.u16(at).ok_or(NoAnswer::Unasked);
    let (id, flags) = (word(0)?, word(2)?);
    let question = &query.message[HEADER_BYTES..];
    if id.to_be_bytes() != query.message[..2]
        || flags & (RESPONSE | OPERATION) != RESPONSE
        || word(4)? != 1
        || message.get(HEADER_BYTES..HEADER_BYTES + question.len()) != Some(question)
    {
        return Err(NoAnswer::Unasked);
    }
    if flags & TRUNCATED != 0 {
        return Ok(Answer::Truncated);
    }
    let code = ResponseCode((flags & 0xf) as u8);
    let no_such_name = code == ResponseCode(3);
    if code != ResponseCode(0) && !no_such_name {
        return Ok(Answer::Refused(code));
    }
    let [answers, authorities] = [word(6)?, word(8)?];
    let read = || {
        let mut at = HEADER_BYTES + question.len();
        let answers = reader.section(&mut at, answers)?;
        if let Some(answer) = reader.found(&answers, query.record_type)? {
            return Some(answer);
        }
        let authorities = reader.section(&mut at, authorities)?;
        let ttl_seconds = authorities.iter().find_map(|record| reader.negative_ttl(record));
        Some(if no_such_name {
            Answer::NoName { ttl_seconds }
        } else {
            Answer::NoRecord { ttl_seconds }
        })
    };
    read().ok_or(NoAnswer::Malformed)
}

/// A record of any type, not looked into.
#[derive(Clone, Copy, Debug)]
struct RawRecord {
    /// Where its owner's name begins.
    owner: usize,
    record_type: u16,
    class: u16,
    ttl_seconds: u32,
    /// Where its data begin and end.
    data: usize,
    end: usize,
}

/// Reads at places of a message. `None` wherever the message ends too soon or makes no sense.
#[derive(Clone, Copy)]
struct Reader<'a> {
    message: &'a [u8],
}

impl<'a> Reader<'a> {
    fn u16(self, at: usize) -> Option<u16> {
        let bytes = self.message.get(at..)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    }

    fn u32(self, at: usize) -> Option<u32> {
        let bytes = self.message.get(at..)?.first_chunk()?;
        Some(u32::from_be_bytes(*bytes))
    }

    /// `count` records from `at` on, which is moved behind them.
    fn section(self, at: &mut usize, count: u16) -> Option<Vec<RawRecord>> {
        (0..count)
            .map(|_| {
                let owner = *at;
                let fixed = self.end_of_name(owner)?;
                let data = fixed + 10;
                let end = data + usize::from(self.u16(fixed + 8)?);
                self.message.get(data..end)?;
                *at = end;
                Some(RawRecord {
                    owner,
                    record_type: self.u16(fixed)?,
                    class: self.u16(fixed + 2)?,
                    ttl_seconds: lifetime(self.u32(fixed + 4)?),
                    data,
                    end,
                })
            })
            .collect()
    }

    /// What there is of `wanted` among `answers`, to the question at the head of the message,
    /// over aliases; `Some(None)` if nothing.
    fn found(self, answers: &[RawRecord], wanted: RecordType) -> Option<Option<Answer>> {
        let mut owner = HEADER_BYTES;
        let mut ttl_seconds = u32::MAX;
        for _ in 0..=ALIASES_MAX {
            let mut records = Vec::new();
            let mut alias = None;
            for record in answers.iter().filter(|record| record.class == CLASS_INTERNET) {
                if record.record_type != wanted as u16 && record.record_type != TYPE_CNAME {
                    continue;
                }
                if !self.same_name(record.owner, owner)? {
                    continue;
                }
                if record.record_type == TYPE_CNAME {
                    alias = Some(record);
                    continue;
                }
                ttl_seconds = ttl_seconds.min(record.ttl_seconds);
                records.extend(self.record(record, wanted)?);
            }
            if !records.is_empty() {
                return Some(Some(Answer::Records { records, ttl_seconds }));
            }
            let Some(alias) = alias else { return Some(None) };
            ttl_seconds = ttl_seconds.min(alias.ttl_seconds);
            owner = alias.data;
        }
        // A chain without an end.
        None
    }

    /// `Some(None)` for a service that is said not to exist here (RFC 2782, target ".") or
    /// whose host has no name that could be asked for.
    fn record(self, record: &RawRecord, wanted: RecordType) -> Option<Option<Record>> {
        let data = self.message.get(record.data..record.end)?;
        let address = |address: IpAddr| Some(Some(Record::Address(address)));
        match wanted {
            RecordType::A => address(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
            RecordType::Aaaa => address(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
            RecordType::Srv => {
                // So that none of it lies behind the record.
                data.get(..7)?;
                let [priority, weight, port] = [
                    self.u16(record.data)?,
                    self.u16(record.data + 2)?,
                    self.u16(record.data + 4)?,
                ];
                let target = self.host_name(record.data + 6)?;
                let service = target
                    .filter(|_| port != 0)
                    .map(|target| Record::Service(Service { priority, target, port, weight }));
                Some(service)
            }
        }
    }

    /// RFC 2308 section 5: the lesser of the record's own and its last field.
    fn negative_ttl(self, record: &RawRecord) -> Option<u32> {
        if record.record_type != TYPE_SOA || record.class != CLASS_INTERNET {
            return None;
        }
        let last = record.end.checked_sub(4).filter(|last| *last >= record.data)?;
        Some(record.ttl_seconds.min(lifetime(self.u32(last)?)))
    }

    /// The labels of the name at `at`, up to the root. An item is `None` where the name makes
    /// no sense, and nothing comes behind it.
    fn labels(self, at: usize) -> Labels<'a> {
        Labels { reader: self, at: Some(at), before: at, bytes: 0, end: None }
    }

    /// Where that stands which follows the name at `at`.
    fn end_of_name(self, at: usize) -> Option<usize> {
        let mut labels = self.labels(at);
        for label in labels.by_ref() {
            label?;
        }
        labels.end
    }

    /// Names are the same whatever the case of their letters (RFC 4343).
    fn same_name(self, one: usize, other: usize) -> Option<bool> {
        let (mut ones, mut others) = (self.labels(one), self.labels(other));
        loop {
            match (ones.next(), others.next()) {
                (None, None) => return Some(true),
                (Some(one), Some(other)) if one?.eq_ignore_ascii_case(other?) => {}
                (Some(None), _) | (_, Some(None)) => return None,
                _ => return Some(false),
            }
        }
    }

    /// The name at `at` as text; `Some(None)` if no host is called so.
    fn host_name(self, at: usize) -> Option<Option<String>> {
        let mut name = String::new();
        let mut possible = true;
        for label in self.labels(at) {
            let label = label?;
            possible &=
                label.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
            name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
            name.push('.');
        }
        Some(Some(name).filter(|name| possible && !name.is_empty()))
    }
}

/// RFC 2181 section 8: what has its first bit set is nothing.
fn lifetime(ttl_seconds: u32) -> u32 {
    if ttl_seconds > i32::MAX as u32 { 0 } else { ttl_seconds }
}

struct Labels<'a> {
    reader: Reader<'a>,
    /// Where the next label is, unless the name has ended.
    at: Option<usize>,
    /// The next pointer leads to what lies before this, so that every name ends.
    before: usize,
    bytes: usize,
    /// Behind the name where it began.
    end: Option<usize>,
}

impl<'a> Labels<'a> {
    /// The next label; empty for the root.
    fn read(&mut self, mut at: usize) -> Option<&'a [u8]> {
        const POINTER: u8 = 0b1100_0000;
        loop {
            let length = *self.reader.message.get(at)?;
            match length & POINTER {
                0 => {
                    let label = self.reader.message.get(at + 1..)?.get(..usize::from(length))?;
                    self.bytes += 1 + label.len();
                    if self.bytes > NAME_BYTES_MAX {
                        return None;
                    }
                    let next = at + 1 + label.len();
                    if label.is_empty() {
                        self.end.get_or_insert(next);
                    } else {
                        self.at = Some(next);
                    }
                    return Some(label);
                }
                POINTER => {
                    self.end.get_or_insert(at + 2);
                    at = usize::from(self.reader.u16(at)? & 0x3fff);
                    if at >= self.before {
                        return None;
                    }
                    self.before = at;
                }
                _ => return None,
            }
        }
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        match self.read(at) {
            Some([]) => None,
            label => {
                if label.is_none() {
                    self.at = None;
                }
                Some(label)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
