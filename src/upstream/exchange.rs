//! What a check says to a server and hears from it, once connected.
//!
//! ```text
//!   PROXY header, `send` ─▶ all sent ── nothing expected ──────────────▶ passed
//!                              └─ received so far ─ is it what is expected? ─▶ passed, failed
//! ```
//!
//! Sans-I/O. May know: the PROXY protocol's versions. Must not know: sockets, clocks.
#![forbid(unsafe_code)]

use std::io;

use crate::proxy_protocol::ProxyProtocol;

/// The longest that is sent, and that may be expected.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Of what a server answers, so much is looked at.
pub const ANSWER_BYTES_MAX: usize = 4_096;

/// What a check says, and hopes to hear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Sent once connected, behind the PROXY header; at most [`TEXT_BYTES_MAX`].
    pub send: Vec<u8>,
    /// What makes the answer a good one.
    pub expect: Expect,
}

/// What makes an answer a good one. Texts are 1 to [`TEXT_BYTES_MAX`] bytes long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// None is waited for: connected is enough.
    #[default]
    Nothing,
    /// It begins with this.
    Start(Vec<u8>),
    /// Its first [`ANSWER_BYTES_MAX`] bytes have this somewhere.
    Anywhere(Vec<u8>),
    /// Its first line, whatever it says.
    Line,
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The time was over before there was a connection.
    #[error("no connection within the timeout")]
    ConnectTimedOut,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// The time was over before the answer was there.
    #[error("no answer within the timeout")]
    AnswerTimedOut,
    /// The server ended the stream before it had said what was expected.
    #[error("the answer ended too soon, with {0:?}")]
    EndedEarly(String),
    /// It said something else.
    #[error("the answer was {0:?}")]
    Unexpected(String),
}

/// One check's talk.
#[derive(Debug)]
pub struct Exchange {
    to_send: Vec<u8>,
    sent_bytes: usize,
    expect: Expect,
    received: Vec<u8>,
}

/// What the exchange needs next.
#[derive(Debug)]
pub enum Step<'a> {
    /// These bytes are to be sent.
    Send(&'a [u8]),
    /// So many bytes at most are to be received.
    Receive(usize),
    /// It is over, and went well.
    Done,
}

impl Exchange {
    /// With a server that expects `proxy` in front of everything.
    pub fn new(proxy: ProxyProtocol, script: &Script) -> Self {
        let to_send = [own_header(proxy), &script.send].concat();
        Self { to_send, sent_bytes: 0, expect: script.expect.clone(), received: Vec::new() }
    }

    /// What is next.
    pub fn step(&self) -> Step<'_> {
        match &self.to_send[self.sent_bytes..] {
            [] if self.is_good() => Step::Done,
            [] => Step::Receive(ANSWER_BYTES_MAX - self.received.len()),
            rest => Step::Send(rest),
        }
    }

    /// So many bytes were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes;
    }

    /// These bytes were received; none is the end of the stream.
    ///
    /// # Errors
    /// They are not what is expected, or there are too many.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.received.extend_from_slice(bytes);
        if self.is_good() {
            return Ok(());
        }
        if bytes.is_empty() {
            return Err(Failure::EndedEarly(self.excerpt()));
        }
        let hopeless = match &self.expect {
            Expect::Start(start) => !start.starts_with(&self.received),
            Expect::Nothing | Expect::Anywhere(_) | Expect::Line => false,
        };
        if hopeless || self.received.len() >= ANSWER_BYTES_MAX {
            return Err(Failure::Unexpected(self.excerpt()));
        }
        Ok(())
    }

    /// What was received.
    pub fn answer(&self) -> &[u8] {
        &self.received
    }

    fn is_good(&self) -> bool {
        match &self.expect {
            Expect::Nothing => true,
            Expect::Start(start) => self.received.starts_with(start),
            Expect::Anywhere(text) => {
                self.received.windows(text.len()).any(|window| window == text)
            }
            Expect::Line => self.received.iter().any(|byte| matches!(byte, b'\r' | b'\n')),
        }
    }

    /// The beginning of the answer, for people.
    fn excerpt(&self) -> String {
        const CHARACTERS_MAX: usize = 80;
        String::from_utf8_lossy(&self.received).chars().take(CHARACTERS_MAX).collect()
    }
}

/// The header of a connection that is nobody's but our own (specification of the PROXY
/// protocol, sections 2.1 and 2.2): it is for exactly this, checks of a server's health.
fn own_header(proxy: ProxyProtocol) -> &'static [u8] {
    match proxy {
        ProxyProtocol::None => b"",
        ProxyProtocol::V1 => b"PROXY UNKNOWN\r\n",
        // Version 2, LOCAL; no address; no bytes of it.
        ProxyProtocol::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy_protocol::decode::{Decoded, decode};

    fn script(send: &str, expect: Expect) -> Script {
        Script { send: send.into(), expect }
    }

    /// Sends everything, then hears `pieces`.
    fn talk(script: &Script, pieces: &[&[u8]]) -> Result<bool, Failure> {
        let mut exchange = Exchange::new(ProxyProtocol::None, script);
        exchange.sent(script.send.len());
        for piece in pieces {
            exchange.received(piece)?;
        }
        Ok(matches!(exchange.step(), Step::Done))
    }

    #[test]
    fn a_connection_is_enough_where_nothing_is_said() {
        let script = Script::default();
        let exchange = Exchange::new(ProxyProtocol::None, &script);
        assert!(matches!(exchange.step(), Step::Done));
    }

    #[test]
    fn the_header_comes_first_and_bytes_that_were_sent_are_not_sent_again() {
        let script = script("PING", Expect::Nothing);
        let mut exchange = Exchange::new(ProxyProtocol::V1, &script);
        assert!(matches!(exchange.step(), Step::Send(b"PROXY UNKNOWN\r\nPING")));
        exchange.sent(17);
        assert!(matches!(exchange.step(), Step::Send(b"NG")));
        exchange.sent(2);
        assert!(matches!(exchange.step(), Step::Done));
    }

    #[test]
    fn receivers_take_the_header_for_one_of_nobody() {
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let header = own_header(version);
            let Decoded::Complete(received) = decode(header) else { panic!("{version:?}") };
            assert_eq!((received.bytes, received.addresses), (header.len(), None));
        }
    }

    #[test]
    fn an_answer_must_begin_as_expected() {
        let script = script("", Expect::Start(b"HTTP/1.1 2".to_vec()));
        assert!(talk(&script, &[b"HTTP/1.1 204 No Content"]).unwrap());
        assert!(!talk(&script, &[b"HTTP/1.", b"1 "]).unwrap(), "not complete");
        let failure = talk(&script, &[b"HTTP/1.", b"1 503 Service Unavailable"]).unwrap_err();
        assert_eq!(failure.to_string(), "the answer was \"HTTP/1.1 503 Service Unavailable\"");
        let failure = talk(&script, &[b"HTTP", b""]).unwrap_err();
        assert_eq!(failure.to_string(), "the answer ended too soon, with \"HTTP\"");
    }

    #[test]
    fn what_is_expected_anywhere_is_looked_for_in_a_bounded_answer() {
        let script = script("", Expect::Anywhere(b"ready".to_vec()));
        assert!(talk(&script, &[b"status: re", b"ady\r\n"]).unwrap());
        let long = vec![b'x'; ANSWER_BYTES_MAX];
        assert!(matches!(talk(&script, &[&long]), Err(Failure::Unexpected(_))));
    }

    #[test]
    fn a_line_ends_at_either_of_its_ends() {
        let script = script("", Expect::Line);
        assert!(talk(&script, &[b"up", b"\n"]).unwrap());
        assert!(talk(&script, &[b"up\r"]).unwrap());
        assert!(matches!(talk(&script, &[b"up", b""]), Err(Failure::EndedEarly(_))));
    }

    proptest! {
        #[test]
        fn an_answer_is_judged_alike_however_it_arrives(
            answer in prop::collection::vec(prop::sample::select(&b"ok\r\n"[..]), 0..12),
            cuts in prop::collection::vec(1_usize..4, 12),
            expect in prop::sample::select(vec![
                Expect::Start(b"ok".to_vec()), Expect::Anywhere(b"kk".to_vec()), Expect::Line,
            ]),
        ) {
            let script = Script { send: Vec::new(), expect };
            let verdict = |pieces: &[&[u8]]| {
                let mut exchange = Exchange::new(ProxyProtocol::None, &script);
                for piece in pieces.iter().chain([&&b""[..]]) {
                    if matches!(exchange.step(), Step::Done) {
                        return true;
                    }
                    if exchange.received(piece).is_err() {
                        return false;
                    }
                }
                matches!(exchange.step(), Step::Done)
            };
            let mut pieces = Vec::new();
            let mut rest = &answer[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                if !piece.is_empty() {
                    pieces.push(piece);
                }
                rest = after;
            }
            let whole: &[&[u8]] = if answer.is_empty() { &[] } else { &[&answer] };
            prop_assert_eq!(verdict(&pieces), verdict(whole));
        }
    }
}
