//! One connection to the admin address: read a request's head, write the answer, let
//! the client take it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::Limits;
use super::answer::{Answer, Answers, Response, refuse};

/// The most bytes of a request's head; beyond, the answer is 431.
pub(super) const REQUEST_BYTES_MAX: usize = 8 * 1_024;

/// The most headers of a request; beyond, the answer is 431.
const HEADERS_MAX: usize = 64;

/// How long we wait for the client to close after the answer, and how much of what it
/// still sends we read away. Closing a socket with unread bytes resets the connection,
/// and the reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 * 1_024;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// Whether the client is on this machine.
    local: bool,
    deadline: Instant,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Request {
        head: Vec<u8>,
    },
    /// For the end of the reload with this number.
    Reload {
        number: u64,
    },
    Response {
        response: Response,
        sent_bytes: usize,
    },
    Linger {
        read_bytes: usize,
    },
}

/// What one attempt came to.
enum Progress {
    /// The socket has no more for now.
    Blocked,
    /// This phase is done.
    Next(Phase),
    /// The connection is done, well or not.
    Over,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, request_timeout: Duration) -> Self {
        let phase = Phase::Request { head: Vec::new() };
        let local = peer.ip().to_canonical().is_loopback();
        Self { stream, local, deadline: Instant::now() + request_timeout, phase }
    }

    /// When this phase must be over.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What it waits for on its socket.
    pub(super) fn interest(&self) -> PollFlags {
        match self.phase {
            Phase::Request { .. } | Phase::Linger { .. } => PollFlags::IN,
            Phase::Response { .. } => PollFlags::OUT,
            Phase::Reload { .. } => PollFlags::empty(),
        }
    }

    /// Whether it waits for something else than its socket.
    pub(super) fn waits(&self) -> bool {
        matches!(self.phase, Phase::Reload { .. })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Goes as far as the socket allows; false when the connection is over.
    pub(super) fn go_on(&mut self, answers: &mut Answers, limits: &Limits) -> bool {
        loop {
            let progress = match &mut self.phase {
                Phase::Request { head } => {
                    read_request(&mut self.stream, head, self.local, answers)
                }
                Phase::Reload { number } => Ok(match answers.reloaded(*number) {
                    Some(response) => Progress::Next(Phase::Response { response, sent_bytes: 0 }),
                    None => Progress::Blocked,
                }),
                Phase::Response { response, sent_bytes } => {
                    write_response(&mut self.stream, response, sent_bytes)
                }
                Phase::Linger { read_bytes } => read_away(&mut self.stream, read_bytes),
            };
            match progress {
                Ok(Progress::Blocked) => return true,
                Ok(Progress::Next(phase)) => {
                    let timeout = match phase {
                        Phase::Response { .. } => limits.response_timeout,
                        Phase::Reload { .. } => limits.reload_timeout,
                        _ => LINGER,
                    };
                    self.deadline = Instant::now() + timeout;
                    self.phase = phase;
                }
                Ok(Progress::Over) => return false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

fn read_request(
    stream: &mut TcpStream,
    head: &mut Vec<u8>,
    local: bool,
    answers: &mut Answers,
) -> io::Result<Progress> {
    let mut bytes = [0; 1_024];
    let room = (REQUEST_BYTES_MAX + 1 - head.len()).min(bytes.len());
    let count = stream.read(&mut bytes[..room])?;
    if count == 0 {
        return Ok(Progress::Over);
    }
    head.extend_from_slice(&bytes[..count]);
    Ok(match respond(head, local, answers) {
        None => Progress::Blocked,
        Some(Answer::Now(response)) => Progress::Next(Phase::Response { response, sent_bytes: 0 }),
        Some(Answer::AfterReload(number)) => Progress::Next(Phase::Reload { number }),
    })
}

/// The answer to what has been read so far; `None` if the head is not complete.
fn respond(head: &[u8], local: bool, answers: &mut Answers) -> Option<Answer> {
    let refuse = |status, reason| Some(Answer::Now(refuse(status, reason)));
    let too_large =
        || refuse("431 Request Header Fields Too Large", "the request's head is too large\n");
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {
            let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
            let accept = request.headers.iter().find(|one| one.name.eq_ignore_ascii_case("accept"));
            let accept = accept.map(|header| String::from_utf8_lossy(header.value));
            Some(answers.answer(method, target, accept.as_deref().unwrap_or_default(), local))
        }
        Ok(httparse::Status::Partial) if head.len() <= REQUEST_BYTES_MAX => None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => too_large(),
        Err(_) => refuse("400 Bad Request", "this is not an HTTP/1.1 request\n"),
    }
}

fn write_response(
    stream: &mut TcpStream,
    response: &Response,
    sent_bytes: &mut usize,
) -> io::Result<Progress> {
    loop {
        let rest = match sent_bytes.checked_sub(response.head.len()) {
            None => &response.head[*sent_bytes..],
            Some(of_body) => &response.body[of_body..],
        };
        if rest.is_empty() {
            stream.shutdown(Shutdown::Write)?;
            return Ok(Progress::Next(Phase::Linger { read_bytes: 0 }));
        }
        match stream.write(rest)? {
            0 => return Ok(Progress::Over),
            count => *sent_bytes += count,
        }
    }
}

fn read_away(stream: &mut TcpStream, read_bytes: &mut usize) -> io::Result<Progress> {
    let mut bytes = [0; 4_096];
    match stream.read(&mut bytes)? {
        0 => Ok(Progress::Over),
        count => {
            *read_bytes += count;
            if *read_bytes > LINGER_BYTES_MAX { Ok(Progress::Over) } else { Ok(Progress::Blocked) }
        }
    }
}
