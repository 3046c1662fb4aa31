//! What a request asks for (RFC 9112): bytes in, plain data out.

use crate::arguments::values;

/// The most bytes of a request's head.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1_024;
/// The most headers.
const HEADERS_MAX: usize = 64;

/// A request, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Bytes of its head.
    pub(super) head_bytes: usize,
    /// Bytes of the body behind it.
    pub(super) body_bytes: u64,
    /// Bytes that are asked for; `None`: there is no such path.
    pub(super) answer_bytes: Option<u64>,
    /// Only the head of the answer is wanted.
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
    /// The client waits to be told before it sends the body.
    pub(super) expects_continue: bool,
}

/// The status line for a request that is not served.
pub(super) type Refusal = &'static str;

/// The request at the start of `bytes`; `None` if its head is not complete.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Request>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err("431 Request Header Fields Too Large");
        }
        Err(_) => return Err("400 Bad Request"),
    };
    let method = request.method.unwrap_or_default();
    if !matches!(method, "GET" | "HEAD" | "POST" | "PUT") {
        return Err("405 Method Not Allowed");
    }
    let mut parsed = Request {
        head_bytes,
        body_bytes: 0,
        answer_bytes: answer_bytes(request.path.unwrap_or_default()),
        head_only: method == "HEAD",
        // RFC 9112 section 9.3: persistent unless said otherwise, from HTTP/1.1 on.
        keep_alive: request.version == Some(1),
        expects_continue: false,
    };
    for header in &*request.headers {
        let is = |value: &[u8]| header.value.trim_ascii().eq_ignore_ascii_case(value);
        match header.name.len() {
            6 if header.name.eq_ignore_ascii_case("expect") => {
                parsed.expects_continue = is(b"100-continue");
            }
            10 if header.name.eq_ignore_ascii_case("connection") => {
                parsed.keep_alive = !is(b"close") && (parsed.keep_alive || is(b"keep-alive"));
            }
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let text = std::str::from_utf8(header.value).map_err(|_| "400 Bad Request")?;
                parsed.body_bytes = text.trim().parse().map_err(|_| "400 Bad Request")?;
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                return Err("411 Length Required");
            }
            _ => {}
        }
    }
    Ok(Some(parsed))
}

/// `/bytes/N` and `/N`, N such as `1024`, `1k` or `100m`; `/` is empty.
fn answer_bytes(path: &str) -> Option<u64> {
    let path = path.split('?').next().unwrap_or_default();
    if path == "/" {
        return Some(0);
    }
    values::bytes(path.strip_prefix("/bytes/").or_else(|| path.strip_prefix('/'))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parsed(text: &str) -> Request {
        parse(text.as_bytes()).expect("no refusal").expect("complete")
    }

    #[test]
    fn sizes_are_asked_for_by_path() {
        for (path, bytes) in [
            ("/bytes/1024", Some(1_024)),
            ("/bytes/16k", Some(16_384)),
            ("/1k", Some(1_024)),
            ("/100m?again", Some(100 << 20)),
            ("/", Some(0)),
            ("/index.html", None),
            ("/bytes/", None),
        ] {
            assert_eq!(answer_bytes(path), bytes, "{path}");
        }
    }

    #[test]
    fn bodies_and_persistence_are_understood() {
        let post = parsed("POST /1k HTTP/1.1\r\ncontent-length: 5\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!((post.body_bytes, post.expects_continue, post.keep_alive), (5, true, true));
        assert!(!parsed("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").keep_alive);
        assert!(!parsed("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(parsed("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
        assert!(parsed("HEAD /1k HTTP/1.1\r\n\r\n").head_only);
    }

    #[test]
    fn what_is_not_served_is_refused_by_its_status() {
        let refused = |text: &str| parse(text.as_bytes()).expect_err("refused")[..3].to_owned();
        assert_eq!(refused("nonsense\r\n\r\n"), "400");
        assert_eq!(refused("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), "400");
        assert_eq!(refused("DELETE / HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(refused("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), "411");
        let long = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(refused(&long), "431");
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a"), Ok(None));
    }
}
