//! One exchange over one connection: how much goes each way, in what portions, and who
//! ends it how. The client tells the server in its first bytes, so both know what to
//! send and what must arrive.

use std::time::{Duration, Instant};

use super::payload;
use super::random::Random;

/// How an exchange comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Each side ends its stream as soon as it has sent everything.
    EachWhenDone,
    /// The client ends its stream when it has seen the end of the server's.
    ServerFirst,
    /// The server ends its stream when it has seen the end of the client's.
    ClientFirst,
    /// The client ends its TCP stream without close_notify, the server then its own.
    WithoutCloseNotify,
    /// The client resets the connection when it has sent half.
    ClientResets,
    /// The server resets the connection when it has sent half.
    ServerResets,
}

impl Close {
    const ALL: [Self; 6] = [
        Self::EachWhenDone,
        Self::ServerFirst,
        Self::ClientFirst,
        Self::WithoutCloseNotify,
        Self::ClientResets,
        Self::ServerResets,
    ];
}

/// What is exchanged over one connection.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Tells exchanges apart, and chooses what is sent.
    pub number: u64,
    /// Bytes from the client to the server.
    pub upload_bytes: u64,
    /// Bytes from the server to the client.
    pub download_bytes: u64,
    /// The longest write.
    pub write_bytes_max: u64,
    /// Each side pauses once in so many writes; 0: never.
    pub pause_every: u64,
    /// The longest pause.
    pub pause_milliseconds_max: u64,
    pub close: Close,
}

impl Plan {
    /// Both ways at once and without pause.
    pub fn bulk(number: u64, bytes: u64) -> Self {
        Self {
            number,
            upload_bytes: bytes,
            download_bytes: bytes,
            write_bytes_max: payload::PIECE_BYTES_MAX as u64,
            pause_every: 0,
            pause_milliseconds_max: 0,
            close: Close::EachWhenDone,
        }
    }

    /// Random in everything, with at most `bytes_max` each way; the number is the seed.
    pub fn random(number: u64, bytes_max: u64) -> Self {
        let mut random = Random::new(number ^ 0xA5A5);
        let close = match random.below(16) {
            0 => Close::ClientResets,
            1 => Close::ServerResets,
            2 => Close::WithoutCloseNotify,
            3..=5 => Close::ServerFirst,
            6..=8 => Close::ClientFirst,
            _ => Close::EachWhenDone,
        };
        Self {
            number,
            upload_bytes: random.size(bytes_max),
            download_bytes: random.size(bytes_max),
            write_bytes_max: 1 + random.size(40_000).max(64),
            pause_every: random.below(8),
            pause_milliseconds_max: 1 + random.below(40),
            close,
        }
    }

    /// The same without an end that loses bytes.
    #[must_use]
    pub fn kept_whole(mut self) -> Self {
        if matches!(self.close, Close::ClientResets | Close::ServerResets) {
            self.close = Close::EachWhenDone;
        }
        self
    }

    fn download_seed(&self) -> u64 {
        self.number * 2
    }

    fn upload_seed(&self) -> u64 {
        self.number * 2 + 1
    }

    /// What the server sends.
    pub fn download(&self) -> Sending {
        Sending::new(self, self.download_seed(), self.download_bytes)
    }

    /// What the client sends.
    pub fn upload(&self) -> Sending {
        Sending::new(self, self.upload_seed(), self.upload_bytes)
    }

    /// What the client shall receive.
    pub fn expected_download(&self) -> Receiving {
        Receiving::new(self.download_seed())
    }

    /// What the server shall receive.
    pub fn expected_upload(&self) -> Receiving {
        Receiving::new(self.upload_seed())
    }

    /// What went wrong, judged by what both sides saw.
    pub fn judge(&self, client: &Outcome, server: Option<&Outcome>) -> Result<(), String> {
        let fail = |what: &str| Err(format!("{what}: {self:?}\n{client:?}\n{server:?}"));
        let server = match server {
            Some(server) => server,
            // The reset may overtake everything before it.
            None if self.close == Close::ClientResets => return Ok(()),
            None => return fail("the server saw nothing of it"),
        };
        if !client.intact || !server.intact {
            return fail("bytes are wrong");
        }
        match self.close {
            Close::ClientResets if server.end == End::Orderly => {
                fail("the server takes a cut upload for complete")
            }
            Close::ServerResets if client.end == End::Orderly => {
                fail("the client takes a cut download for complete")
            }
            Close::ClientResets | Close::ServerResets => Ok(()),
            _ if client.end != End::Orderly => fail("the client saw no orderly end"),
            _ if server.end != End::Orderly => fail("the server saw no orderly end"),
            _ if client.received_bytes != self.download_bytes => fail("the download is short"),
            _ if server.received_bytes != self.upload_bytes => fail("the upload is short"),
            _ => Ok(()),
        }
    }
}

/// The head of every upload.
pub const HEAD_BYTES: usize = 64;
const MAGIC: u64 = u64::from_be_bytes(*b"exchange");

impl Plan {
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let close = Close::ALL.iter().position(|close| *close == self.close).expect("all");
        let fields = [
            MAGIC,
            self.number,
            self.upload_bytes,
            self.download_bytes,
            self.write_bytes_max,
            self.pause_every,
            self.pause_milliseconds_max,
            close as u64,
        ];
        let mut head = [0; HEAD_BYTES];
        for (place, field) in head.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        head
    }

    pub fn decode(head: &[u8; HEAD_BYTES]) -> Self {
        let field = |index: usize| {
            u64::from_be_bytes(head[index * 8..][..8].try_into().expect("eight bytes"))
        };
        assert_eq!(field(0), MAGIC, "the upload begins with something else");
        Self {
            number: field(1),
            upload_bytes: field(2),
            download_bytes: field(3),
            write_bytes_max: field(4),
            pause_every: field(5),
            pause_milliseconds_max: field(6),
            close: Close::ALL[field(7) as usize],
        }
    }
}

/// Pauses of one side, so that an exchange ends even if it writes byte by byte.
const PAUSES_MAX: u32 = 30;

/// One side's stream on its way out.
#[derive(Debug)]
pub struct Sending {
    seed: u64,
    sent_bytes: u64,
    total_bytes: u64,
    write_bytes_max: u64,
    pause_every: u64,
    pause_milliseconds_max: u64,
    random: Random,
    /// The current portion's bytes that are left.
    portion_bytes: u64,
    pauses_left: u32,
    pub paused_until: Option<Instant>,
}

impl Sending {
    fn new(plan: &Plan, seed: u64, total_bytes: u64) -> Self {
        Self {
            seed,
            sent_bytes: 0,
            total_bytes,
            write_bytes_max: plan.write_bytes_max,
            pause_every: plan.pause_every,
            pause_milliseconds_max: plan.pause_milliseconds_max,
            random: Random::new(seed),
            portion_bytes: 0,
            pauses_left: PAUSES_MAX,
            paused_until: None,
        }
    }

    pub fn is_done(&self) -> bool {
        self.sent_bytes == self.total_bytes
    }

    pub fn half_is_sent(&self) -> bool {
        self.sent_bytes >= self.total_bytes / 2
    }

    /// What to write next; `None` if everything is sent or it pauses.
    pub fn next(&mut self) -> Option<&'static [u8]> {
        if self.is_done() {
            return None;
        }
        if let Some(until) = self.paused_until {
            if Instant::now() < until {
                return None;
            }
            self.paused_until = None;
        }
        if self.portion_bytes == 0 {
            let most = self.write_bytes_max.min(self.total_bytes - self.sent_bytes);
            self.portion_bytes =
                if self.pause_every == 0 { most } else { 1 + self.random.below(most) };
        }
        let length = self.portion_bytes.min(payload::PIECE_BYTES_MAX as u64) as usize;
        Some(&payload::piece(self.seed, self.sent_bytes)[..length])
    }

    /// So much of it was written.
    pub fn advance(&mut self, count: usize) {
        self.sent_bytes += count as u64;
        self.portion_bytes -= count as u64;
        if self.portion_bytes == 0
            && self.pause_every > 0
            && self.pauses_left > 0
            && self.random.below(self.pause_every) == 0
        {
            self.pauses_left -= 1;
            let milliseconds = self.random.below(self.pause_milliseconds_max + 1);
            self.paused_until = Some(Instant::now() + Duration::from_millis(milliseconds));
        }
    }
}

/// The other side's stream as it comes in.
#[derive(Debug)]
pub struct Receiving {
    seed: u64,
    pub bytes: u64,
    pub intact: bool,
}

impl Receiving {
    fn new(seed: u64) -> Self {
        Self { seed, bytes: 0, intact: true }
    }

    pub fn take(&mut self, data: &[u8]) {
        self.intact &= payload::matches(self.seed, self.bytes, data);
        self.bytes += data.len() as u64;
    }
}

/// How a stream ended, as its receiver saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By close_notify, or by FIN where there is no TLS.
    Orderly,
    /// By FIN without close_notify.
    Truncated,
    /// By an error or an alert, or by the receiver's own reset.
    Cut(String),
}

/// What one side saw of an exchange.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub received_bytes: u64,
    /// Whether each byte was the one that belongs in its place.
    pub intact: bool,
    pub end: End,
}
