//! As much HTTP/1.1 as a load needs: requests of a given size, and where an answer ends
//! (RFC 9112).

use crate::failure::{Cause, Failure};

/// The most bytes of an answer's head, or of a chunk's line, that are taken.
const HEAD_BYTES_MAX: usize = 64 * 1_024;
/// Bodies up to this size are sent together with their head.
const BODY_IN_MESSAGE_BYTES_MAX: u64 = 64 * 1_024;
/// The most headers that are taken.
const HEADERS_MAX: usize = 128;

/// A request that is sent again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Request line, headers, blank line, and the body if it is small.
    pub(crate) message: Vec<u8>,
    /// Bytes of body that are still to follow.
    pub(crate) body_bytes_behind: u64,
}

impl Request {
    /// A GET, or with a body a POST.
    pub(crate) fn new(path: &str, host: &str, headers: &[String], body_bytes: Option<u64>) -> Self {
        let method = if body_bytes.is_some() { "POST" } else { "GET" };
        let mut message = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for header in headers {
            message.push_str(header);
            message.push_str("\r\n");
        }
        if let Some(bytes) = body_bytes {
            message.push_str(&format!("Content-Length: {bytes}\r\n"));
        }
        message.push_str("\r\n");
        let mut message = message.into_bytes();
        let mut behind = body_bytes.unwrap_or(0);
        if behind <= BODY_IN_MESSAGE_BYTES_MAX {
            message.resize(message.len() + behind as usize, b'x');
            behind = 0;
        }
        Self { message, body_bytes_behind: behind }
    }
}

/// Where in an answer a connection is.
#[derive(Debug, Default)]
pub(crate) struct Response {
    state: State,
    /// The beginning of a head or of a chunk's line that came in parts.
    partial: Vec<u8>,
    /// The server will end the connection after this answer.
    pub(crate) last: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Body {
        left: u64,
    },
    /// The body ends with the connection.
    UntilEnd,
    ChunkLine,
    /// A chunk's data and the line end behind it.
    Chunk {
        left: u64,
    },
    Trailers,
    Complete,
}

impl Response {
    /// Ready for the next answer.
    pub(crate) fn begin(&mut self) {
        (self.state, self.last) = (State::Head, false);
        self.partial.clear();
    }

    /// Takes what was received. True when the answer is complete.
    ///
    /// # Errors
    /// It is no HTTP answer, is an error status, or more came than the answer.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, Failure> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Head => self.head(bytes)?,
                State::Body { left } => {
                    let (rest, left) = skip(bytes, left);
                    self.state = if left == 0 { State::Complete } else { State::Body { left } };
                    rest
                }
                State::UntilEnd => &[],
                State::ChunkLine => self.chunk_line(bytes)?,
                State::Chunk { left } => {
                    let (rest, left) = skip(bytes, left);
                    self.state = if left == 0 { State::ChunkLine } else { State::Chunk { left } };
                    rest
                }
                State::Trailers => self.trailer(bytes)?,
                State::Complete => {
                    return Err(Failure::new(Cause::Http, "bytes behind the answer's end"));
                }
            };
        }
        Ok(self.state == State::Complete)
    }

    /// The stream ended. True if that completes the answer.
    pub(crate) fn end(&self) -> bool {
        self.state == State::UntilEnd
    }

    fn head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Failure> {
        if self.partial.is_empty() {
            // Nearly always the head is whole.
            if let Some((length, head)) = parse_head(bytes)? {
                self.understood(head)?;
                return Ok(&bytes[length..]);
            }
            self.partial.extend_from_slice(bytes);
            return Ok(&[]);
        }
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        let Some((length, head)) = parse_head(&self.partial)? else {
            return if self.partial.len() > HEAD_BYTES_MAX {
                Err(Failure::new(Cause::Http, "the answer's head is too large"))
            } else {
                Ok(&[])
            };
        };
        self.partial.clear();
        self.understood(head)?;
        Ok(&bytes[length - before..])
    }

    fn understood(&mut self, head: Head) -> Result<(), Failure> {
        if head.status >= 400 {
            return Err(Cause::Status(head.status).into());
        }
        self.last = head.close;
        self.state = match (head.status, head.body) {
            // An interim answer: the real one follows.
            (100..=199, _) => State::Head,
            (204 | 304, _) | (_, Body::Length(0)) => State::Complete,
            (_, Body::Length(left)) => State::Body { left },
            (_, Body::Chunked) => State::ChunkLine,
            (_, Body::UntilEnd) => State::UntilEnd,
        };
        Ok(())
    }

    fn chunk_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Failure> {
        let Some((line, rest)) = self.line(bytes)? else { return Ok(&[]) };
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or_else(|| Failure::new(Cause::Http, "a chunk's size is not a number"))?;
        self.state = match size {
            0 => State::Trailers,
            size => State::Chunk { left: size.saturating_add(2) },
        };
        Ok(rest)
    }

    fn trailer<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Failure> {
        let Some((line, rest)) = self.line(bytes)? else { return Ok(&[]) };
        if line.is_empty() {
            self.state = State::Complete;
        }
        Ok(rest)
    }

    /// The next line, without its end, and what is behind it.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Line<'a>>, Failure> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.partial.extend_from_slice(bytes);
            return if self.partial.len() > HEAD_BYTES_MAX {
                Err(Failure::new(Cause::Http, "a line of the answer is too long"))
            } else {
                Ok(None)
            };
        };
        let mut line = std::mem::take(&mut self.partial);
        line.extend_from_slice(&bytes[..end]);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some((line, &bytes[end + 1..])))
    }
}

/// A line and what is behind it.
type Line<'a> = (Vec<u8>, &'a [u8]);

/// `bytes` without the first `left`, and how many are then left.
fn skip(bytes: &[u8], left: u64) -> (&[u8], u64) {
    let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (&bytes[here..], left - here as u64)
}

struct Head {
    status: u16,
    close: bool,
    body: Body,
}

enum Body {
    Length(u64),
    Chunked,
    UntilEnd,
}

/// The head at the start of `bytes` and its length; `None` if it is not complete.
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Head)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => {
            return Err(Failure::new(Cause::Http, format!("not an HTTP/1.1 answer: {error}")));
        }
    };
    let status = response.code.unwrap_or(0);
    // RFC 9112 section 9.3: persistent unless said otherwise, from HTTP/1.1 on.
    let mut head = Head { status, close: response.version == Some(0), body: Body::UntilEnd };
    for header in response.headers {
        let named = |name: &str| header.name.eq_ignore_ascii_case(name);
        if named("content-length") && !matches!(head.body, Body::Chunked) {
            let length = std::str::from_utf8(header.value).ok().and_then(|text| text.parse().ok());
            head.body = Body::Length(
                length
                    .ok_or_else(|| Failure::new(Cause::Http, "Content-Length is not a number"))?,
            );
        } else if named("transfer-encoding") && has_token(header.value, b"chunked") {
            head.body = Body::Chunked;
        } else if named("connection") {
            head.close = has_token(header.value, b"close")
                || (head.close && !has_token(header.value, b"keep-alive"));
        }
    }
    head.close |= matches!(head.body, Body::UntilEnd);
    Ok(Some((length, head)))
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `answer` in pieces of every size; the result must not depend on it.
    fn fed(answer: &[u8]) -> Result<(bool, bool), Cause> {
        let mut results = Vec::new();
        for size in 1..=answer.len() {
            let mut response = Response::default();
            let mut result = Ok(false);
            for piece in answer.chunks(size) {
                result = response.feed(piece).map_err(|failure| failure.cause);
                if result.is_err() {
                    break;
                }
            }
            results.push(result.map(|complete| (complete, response.last)));
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
        results.remove(0)
    }

    #[test]
    fn a_body_of_known_length_ends_there() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(fed(answer), Ok((true, false)));
        assert_eq!(fed(&answer[..answer.len() - 1]), Ok((false, false)));
        assert_eq!(fed(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), Ok((true, false)));
        assert_eq!(
            fed(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
            Ok((true, false))
        );
    }

    #[test]
    fn chunks_end_with_the_empty_one_and_its_trailers() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n\
                       5\r\nhello\r\n1a;name=value\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nA: b\r\n\r\n";
        assert_eq!(fed(answer), Ok((true, false)));
        assert_eq!(fed(&answer[..answer.len() - 2]), Ok((false, false)));
        let wrong = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n";
        assert_eq!(fed(wrong), Err(Cause::Http));
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let mut response = Response::default();
        assert!(!response.feed(b"HTTP/1.1 200 OK\r\n\r\nsome").expect("understood"));
        assert!(response.end() && response.last);
        response.begin();
        assert!(!response.end(), "no answer has begun");
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(fed(answer), Ok((true, false)));
    }

    #[test]
    fn whether_the_server_will_close_is_noticed() {
        let head = |version: &str, connection: &str| {
            fed(format!("HTTP/{version} 200 OK\r\n{connection}Content-Length: 0\r\n\r\n")
                .as_bytes())
        };
        assert_eq!(head("1.1", "Connection: close\r\n"), Ok((true, true)));
        assert_eq!(head("1.1", "Connection: Upgrade, Close\r\n"), Ok((true, true)));
        assert_eq!(head("1.0", ""), Ok((true, true)));
        assert_eq!(head("1.0", "Connection: keep-alive\r\n"), Ok((true, false)));
    }

    #[test]
    fn what_is_no_good_answer_is_a_failure_of_its_kind() {
        assert_eq!(fed(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), Err(Cause::Status(503)));
        assert_eq!(fed(b"SSH-2.0-OpenSSH_9.2\r\n"), Err(Cause::Http));
        assert_eq!(fed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy"), Err(Cause::Http));
        assert_eq!(fed(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nxy"), Err(Cause::Http));
    }

    #[test]
    fn requests_say_what_they_carry() {
        let get = Request::new("/1k", "a.example", &["X-A: b".to_owned()], None);
        assert_eq!(get.message, b"GET /1k HTTP/1.1\r\nHost: a.example\r\nX-A: b\r\n\r\n");
        let small = Request::new("/", "a.example", &[], Some(3));
        assert!(small.message.starts_with(b"POST / ") && small.body_bytes_behind == 0);
        assert!(small.message.ends_with(b"Content-Length: 3\r\n\r\nxxx"));
        let large = Request::new("/", "a.example", &[], Some(1 << 20));
        assert!(large.message.ends_with(b"\r\n\r\n") && large.body_bytes_behind == 1 << 20);
    }
}
