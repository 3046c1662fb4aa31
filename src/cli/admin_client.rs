//! Asks the admin address of the process that runs: one request, one answer, both bounded.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::config;

/// Longer than the longest page.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which process is meant.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The configuration file of the process, which names its admin address
    #[arg(short, long, value_name = "FILE", required_unless_present = "admin")]
    pub(super) config: Option<PathBuf>,
    /// The admin address of the process, if it is not the one in the file
    #[arg(long, value_name = "ADDRESS")]
    pub(super) admin: Option<SocketAddr>,
}

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminClientError {
    #[error("{0}: has no admin.address: set it, or send SIGHUP")]
    NoAddress(String),
    #[error("{0}: cannot be read; name the process by --admin ADDRESS")]
    Unreadable(String),
    #[error("nobody answers at the admin address {address}: {source}; does forebay run?")]
    NotReached { address: SocketAddr, source: io::Error },
    #[error("the admin address {address} gave no whole answer: {source}; look at forebay's log")]
    NoAnswer { address: SocketAddr, source: io::Error },
    #[error("at {0} something answers that is not forebay")]
    NotForebay(SocketAddr),
}

impl Which {
    /// The address to ask. The file may have errors elsewhere.
    pub(super) fn address(&self) -> Result<SocketAddr, AdminClientError> {
        if let Some(address) = self.admin {
            return Ok(reachable(address));
        }
        let file: &Path = self.config.as_deref().unwrap_or(Path::new(""));
        let (settings, _) = config::load_in_part(file);
        let name = || file.display().to_string();
        let settings = settings.ok_or_else(|| AdminClientError::Unreadable(name()))?;
        let address = settings.admin.address.ok_or_else(|| AdminClientError::NoAddress(name()))?;
        Ok(reachable(address.value))
    }
}

/// Who listens on every address is reached over loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

/// The status and body of the answer to a request without a body, within `timeout`.
pub(super) fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    timeout: Duration,
) -> Result<(u16, Vec<u8>), AdminClientError> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
        .map_err(|source| AdminClientError::NotReached { address, source })?;
    let bytes = exchange(&mut stream, method, target, timeout)
        .map_err(|source| AdminClientError::NoAnswer { address, source })?;
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    match (response.parse(&bytes), response.code) {
        (Ok(httparse::Status::Complete(head_bytes)), Some(status)) => {
            Ok((status, bytes[head_bytes..].to_vec()))
        }
        _ if bytes.is_empty() => {
            Err(AdminClientError::NoAnswer { address, source: io::ErrorKind::UnexpectedEof.into() })
        }
        _ => Err(AdminClientError::NotForebay(address)),
    }
}

/// Everything on a list that is answered in pages: `target` is what to ask for from an offset
/// on, `split` takes a page apart into its items and the next offset.
pub(super) fn all_pages<Page: DeserializeOwned, Item>(
    address: SocketAddr,
    timeout: Duration,
    target: impl Fn(usize) -> String,
    split: impl Fn(Page) -> (Vec<Item>, Option<usize>),
) -> Result<Vec<Item>, AdminClientError> {
    let mut all = Vec::new();
    let mut offset = Some(0);
    while let Some(at) = offset {
        let (_, body) = request(address, "GET", &target(at), timeout)?;
        let page =
            serde_json::from_slice(&body).map_err(|_| AdminClientError::NotForebay(address))?;
        let (items, next) = split(page);
        all.extend(items);
        // Only ever forward, whatever is answered.
        offset = next.filter(|next| *next > at);
    }
    Ok(all)
}

fn exchange(
    stream: &mut TcpStream,
    method: &str,
    target: &str,
    timeout: Duration,
) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + timeout;
    stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if answer.len() as u64 > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}
