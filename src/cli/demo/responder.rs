//! The demo's backend: HTTP/1.1 in plaintext behind the PROXY protocol, on a UNIX
//! socket in a directory that only this user may enter.
//!
//! A stand-in for a real web server: blocking sockets, one thread a connection. What
//! it takes is bounded all the same: connections (further ones wait in the backlog),
//! bytes of a head and of a body, and time.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::page::{self, Seen};
use super::proxy_header::{self, FIXED_BYTES, ProxyHeader, ProxyHeaderError};

/// What the responder allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections served at once.
    pub(super) connections_max: usize,
    /// For the PROXY header, and for each request from the end of the one before.
    pub(super) request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 128, request_timeout: Duration::from_secs(15) }
    }
}

/// The most bytes of a request's head; beyond, the answer is 431.
const HEAD_BYTES_MAX: usize = 16 * 1_024;
/// The most headers; beyond, the answer is 431.
const HEADERS_MAX: usize = 100;
/// The most bytes of a request's body; beyond, the answer is 413.
const BODY_BYTES_MAX: u64 = 1 << 30;
/// Enough for this code; the default of 2 MiB would be address space for nothing.
const STACK_BYTES: usize = 256 * 1_024;

/// The running backend. Dropping it closes its connections, ends its threads and
/// removes its socket.
#[derive(Debug)]
pub(super) struct Responder {
    directory: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    open: Mutex<Open>,
    one_less: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    stopping: bool,
    /// Each connection that is served, by its number.
    connections: BTreeMap<u64, UnixStream>,
}

impl Responder {
    /// Listens on a new socket below `parent` and serves it.
    pub(super) fn start(parent: &Path, limits: Limits) -> io::Result<Self> {
        let directory = private_directory(parent)?;
        let shared = Arc::new(Shared { limits, open: Mutex::default(), one_less: Condvar::new() });
        let mut responder = Self { directory, shared, accepting: None };
        let listener = UnixListener::bind(responder.path())?;
        let shared = Arc::clone(&responder.shared);
        let thread = thread::Builder::new().name("demo-backend".to_owned());
        responder.accepting = Some(thread.spawn(move || accept_all(&listener, &shared))?);
        Ok(responder)
    }

    /// The socket.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join("backend.sock")
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        {
            let mut open = self.shared.lock();
            open.stopping = true;
            for stream in open.connections.values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.shared.one_less.notify_all();
        // Wakes the accept, if it waits there.
        let _ = UnixStream::connect(self.path());
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let mut open = self.shared.lock();
        while !open.connections.is_empty() {
            open = self.shared.one_less.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory that only this user may enter; another's file or link of that name is
/// an error, because nothing existing is taken.
fn private_directory(parent: &Path) -> io::Result<PathBuf> {
    let process = std::process::id();
    for attempt in 0..100 {
        let directory = parent.join(format!("forebay-demo-{process}-{attempt}"));
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("{} is full of forebay-demo-* directories: remove them", parent.display()),
    ))
}

fn accept_all(listener: &UnixListener, shared: &Arc<Shared>) {
    for number in 0.. {
        {
            let mut open = shared.lock();
            while open.connections.len() >= shared.limits.connections_max && !open.stopping {
                open = shared.one_less.wait(open).unwrap_or_else(PoisonError::into_inner);
            }
            if open.stopping {
                return;
            }
        }
        let Ok(stream) = accept_one(listener, shared, number) else {
            // Out of descriptors: there will be some when a connection ends.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let Some(stream) = stream else { return };
        let of_thread = Arc::clone(shared);
        let spawned = thread::Builder::new()
            .name("demo-request".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // Whatever the client did wrong, the answer says so or it has gone.
                let _ = Connection::new(stream, of_thread.limits).serve();
                forget(&of_thread, number);
            });
        if spawned.is_err() {
            forget(shared, number);
        }
    }
}

/// The next connection, known by its number; `None` when stopping.
fn accept_one(
    listener: &UnixListener,
    shared: &Shared,
    number: u64,
) -> io::Result<Option<UnixStream>> {
    let (stream, _) = listener.accept()?;
    let known = stream.try_clone()?;
    let mut open = shared.lock();
    if open.stopping {
        return Ok(None);
    }
    open.connections.insert(number, known);
    Ok(Some(stream))
}

fn forget(shared: &Shared, number: u64) {
    if let Some(stream) = shared.lock().connections.remove(&number) {
        // The clone would keep it open.
        let _ = stream.shutdown(Shutdown::Both);
    }
    shared.one_less.notify_all();
}

/// Why a connection is not served to its client's end.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Proxy(#[from] ProxyHeaderError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

struct Connection {
    stream: UnixStream,
    timeout: Duration,
    deadline: Instant,
    /// Bytes read and not used yet.
    unread: Vec<u8>,
}

/// What matters of a request's head.
struct Head {
    bytes: usize,
    method: String,
    target: String,
    wants_json: bool,
    expects_continue: bool,
    keep_alive: bool,
    body_bytes: u64,
}

/// Why a request is refused: status line and one sentence.
type Refusal = (&'static str, &'static str);

impl Connection {
    fn new(stream: UnixStream, limits: Limits) -> Self {
        let timeout = limits.request_timeout;
        Self { stream, timeout, deadline: Instant::now() + timeout, unread: Vec::new() }
    }

    fn serve(&mut self) -> Result<(), ServeError> {
        let proxy = self.read_proxy_header()?;
        for number_on_connection in 1.. {
            self.deadline = Instant::now() + self.timeout;
            let head = match self.read_head()? {
                None => return Ok(()),
                Some(Ok(head)) => head,
                Some(Err((status, reason))) => {
                    self.respond(status, "text/plain", &format!("{reason}\n"), true, false)?;
                    return Ok(self.linger()?);
                }
            };
            self.unread.drain(..head.bytes);
            if head.expects_continue && head.body_bytes > self.unread.len() as u64 {
                self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            self.discard_body(head.body_bytes)?;
            let seen = Seen {
                proxy: &proxy,
                method: &head.method,
                target: &head.target,
                body_bytes: head.body_bytes,
                number_on_connection,
            };
            let (content_type, page) = if head.wants_json {
                ("application/json", page::json(&seen))
            } else {
                ("text/plain; charset=utf-8", page::text(&seen))
            };
            let with_body = head.method != "HEAD";
            self.respond("200 OK", content_type, &page, with_body, head.keep_alive)?;
            if !head.keep_alive {
                return Ok(self.linger()?);
            }
        }
        Ok(())
    }

    fn read_proxy_header(&mut self) -> Result<ProxyHeader, ServeError> {
        let mut expected = FIXED_BYTES;
        loop {
            if let Some(fixed) = self.unread.first_chunk::<FIXED_BYTES>() {
                expected = proxy_header::header_bytes(fixed)?;
            }
            if self.unread.len() >= expected {
                let header = proxy_header::decode(&self.unread[..expected])?;
                self.unread.drain(..expected);
                return Ok(header);
            }
            if self.read_more()? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// The next head; `None` if the client ended the connection before one began.
    fn read_head(&mut self) -> io::Result<Option<Result<Head, Refusal>>> {
        loop {
            if let Some(result) = parse_head(&self.unread) {
                return Ok(Some(result));
            }
            if self.unread.len() > HEAD_BYTES_MAX {
                return Ok(Some(Err(TOO_LARGE)));
            }
            if self.read_more()? == 0 {
                if self.unread.is_empty() {
                    return Ok(None);
                }
                return Ok(Some(Err(("400 Bad Request", "the request ends in its head"))));
            }
        }
    }

    fn discard_body(&mut self, body_bytes: u64) -> io::Result<()> {
        let mut rest = body_bytes;
        loop {
            let here = self.unread.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            self.unread.drain(..here);
            rest -= here as u64;
            if rest == 0 {
                return Ok(());
            }
            // A body may take its time as long as it moves.
            self.deadline = Instant::now() + self.timeout;
            if self.read_more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn respond(
        &mut self,
        status: &str,
        content_type: &str,
        page: &str,
        with_body: bool,
        keep_alive: bool,
    ) -> io::Result<()> {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut response = format!(
            "HTTP/1.1 {status}\r\n\
             Content-Type: {content_type}\r\n\
             Content-Length: {}\r\n\
             Connection: {connection}\r\n\r\n",
            page.len()
        );
        if with_body {
            response.push_str(page);
        }
        self.stream.set_write_timeout(Some(self.timeout))?;
        self.stream.write_all(response.as_bytes())
    }

    /// Reads away what the client still sends, so that closing does not reset the
    /// connection before the answer is read.
    fn linger(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.deadline = Instant::now() + Duration::from_secs(2).min(self.timeout);
        self.unread.clear();
        while self.read_more()? > 0 {
            self.unread.clear();
        }
        Ok(())
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut bytes = [0; 8 * 1_024];
        let count = self.stream.read(&mut bytes)?;
        self.unread.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

const TOO_LARGE: Refusal =
    ("431 Request Header Fields Too Large", "the request's head is larger than taken here");

/// The head at the start of `bytes`; `None` if it is not complete.
fn parse_head(bytes: &[u8]) -> Option<Result<Head, Refusal>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(length)) if length > HEAD_BYTES_MAX => Some(Err(TOO_LARGE)),
        Ok(httparse::Status::Complete(length)) => Some(understand(&request, length)),
        Err(httparse::Error::TooManyHeaders) => Some(Err(TOO_LARGE)),
        Err(_) => Some(Err(("400 Bad Request", "this is not an HTTP/1.1 request"))),
    }
}

fn understand(request: &httparse::Request<'_, '_>, bytes: usize) -> Result<Head, Refusal> {
    let mut head = Head {
        bytes,
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        wants_json: false,
        expects_continue: false,
        // RFC 9112 section 9.3: persistent unless said otherwise, from HTTP/1.1 on.
        keep_alive: request.version == Some(1),
        body_bytes: 0,
    };
    let mut content_length = None;
    for header in &*request.headers {
        let value = String::from_utf8_lossy(header.value).to_ascii_lowercase();
        match header.name.to_ascii_lowercase().as_str() {
            "accept" => head.wants_json = value.contains("application/json"),
            "connection" => match value.trim() {
                "close" => head.keep_alive = false,
                "keep-alive" => head.keep_alive = true,
                _ => {}
            },
            "expect" => head.expects_continue = value.trim() == "100-continue",
            "content-length" => {
                // RFC 9112 section 6.3: anything ambiguous here is an attack.
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let length: u64 = match value.parse() {
                    Ok(length) if digits => length,
                    _ => return Err(("400 Bad Request", "Content-Length is not a number")),
                };
                if content_length.is_some_and(|earlier| earlier != length) {
                    return Err(("400 Bad Request", "Content-Length contradicts itself"));
                }
                content_length = Some(length);
            }
            "transfer-encoding" => {
                return Err(("411 Length Required", "send the body with a Content-Length"));
            }
            _ => {}
        }
    }
    head.body_bytes = content_length.unwrap_or(0);
    if head.body_bytes > BODY_BYTES_MAX {
        return Err(("413 Content Too Large", "the body is larger than taken here"));
    }
    Ok(head)
}

#[cfg(test)]
mod tests;
