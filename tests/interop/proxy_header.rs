//! What the PROXY header says, and what it leaves with, as a server sees it that looks at
//! its very first read.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use tempfile::TempDir;

use crate::support::certificates::{Key, self_signed};
use crate::support::forebay::{Forebay, PATIENCE};
use crate::support::ports::free_address;
use crate::support::proxy_header::{ProxyHeader, parse};
use crate::support::tls_client::{self, TlsStream};
use crate::{site, with_each_provider};

with_each_provider!(the_header_names_what_was_negotiated_for_every_suite);

pub(super) const NAME: &str = "shop.example";

/// A listening socket of either kind.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What it accepts.
pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Waits for a connection.
    pub(super) fn accept(&self) -> Connection {
        let begin = Instant::now();
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().map(|(one, _)| Connection::Tcp(one)),
                Self::Unix(listener) => listener.accept().map(|(one, _)| Connection::Unix(one)),
            };
            match accepted {
                Ok(connection) => {
                    connection.wait_for_reads();
                    return connection;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(begin.elapsed() < PATIENCE, "nobody connects");
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("accept: {error}"),
            }
        }
    }
}

impl Connection {
    fn wait_for_reads(&self) {
        match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(false).expect("blocking");
                stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            }
            Self::Unix(stream) => {
                stream.set_nonblocking(false).expect("blocking");
                stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            }
        }
    }

    /// What one read returns.
    pub(super) fn read_once(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 64 * 1024];
        let count = match self {
            Self::Tcp(stream) => stream.read(&mut bytes),
            Self::Unix(stream) => stream.read(&mut bytes),
        };
        bytes.truncate(count.expect("read"));
        bytes
    }

    /// How many segments with data have come: more than one cannot have been one send of
    /// so few bytes. `None` where there are no segments.
    fn segments(&self) -> Option<u32> {
        /// `tcpi_data_segs_in` in `struct tcp_info` (linux/tcp.h, from Linux 4.6).
        const OFFSET: usize = 152;
        let Self::Tcp(stream) = self else { return None };
        let mut info = [0_u8; OFFSET + 4];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `info`, which has as many.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        assert_eq!((result, length as usize), (0, info.len()), "{}", io::Error::last_os_error());
        let [.., a, b, c, d] = info;
        Some(u32::from_ne_bytes([a, b, c, d]))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
        .expect("write");
    }
}

/// A forebay in front of a listening socket of this test.
pub(super) struct Stage {
    pub(super) listener: Listener,
    pub(super) address: SocketAddr,
    pub(super) forebay: Forebay,
    _directory: TempDir,
}

impl Stage {
    /// `more` stands behind the pool's own keys.
    pub(super) fn new(transport: &str, proxy_protocol: &str, more: &str) -> Self {
        Self::with_keys(transport, proxy_protocol, "", more)
    }

    /// The same with keys of the listener.
    pub(super) fn with_keys(transport: &str, proxy_protocol: &str, keys: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let ecdsa = self_signed(directory.path(), "ecdsa.pem", Key::EcdsaP256, &[NAME]);
        let rsa = self_signed(directory.path(), "rsa.pem", Key::Rsa2048, &[NAME]);
        let (listener, endpoint) = match transport {
            "tcp" => {
                let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
                listener.set_nonblocking(true).expect("non-blocking");
                let address = listener.local_addr().expect("address");
                (Listener::Tcp(listener), address.to_string())
            }
            "unix" => {
                let path = directory.path().join("server.sock");
                let listener = UnixListener::bind(&path).expect("bind");
                listener.set_nonblocking(true).expect("non-blocking");
                (Listener::Unix(listener), format!("unix:{}", path.display()))
            }
            _ => panic!("{transport} is not a transport"),
        };
        let address = free_address();
        let text = [
            site::SMALL.to_owned(),
            site::listener(
                address,
                &[&ecdsa, &rsa],
                "server",
                &format!("alpn = [\"chat\", \"mail\"]\n{keys}"),
            ),
            site::pool("server", &endpoint, proxy_protocol),
            more.to_owned(),
        ]
        .concat();
        let forebay = Forebay::start(directory.path(), &text);
        Self { listener, address, forebay, _directory: directory }
    }

    pub(super) fn connect(&self, mut config: ClientConfig) -> TlsStream {
        config.alpn_protocols = vec![b"mail".to_vec()];
        tls_client::connect(Arc::new(config), self.address, NAME)
    }

    /// The header that a client's connection must have, apart from what TLS negotiated.
    pub(super) fn header(&self, client: &TlsStream, length: usize) -> ProxyHeader {
        ProxyHeader {
            source: Some(client.sock.local_addr().expect("address")),
            destination: Some(self.address),
            length,
            ..ProxyHeader::default()
        }
    }
}

/// The longest there is: the client's data is there long before.
pub(super) const WAITS_FOR_DATA: &str = "[timeouts]\nfirst_data_wait = \"1s\"\n";

/// Every transport with every version of the PROXY protocol.
fn every_way(mut test: impl FnMut(&str, &str)) {
    for transport in ["tcp", "unix"] {
        for proxy_protocol in ["v1", "v2"] {
            test(transport, proxy_protocol);
        }
    }
}

#[test]
fn header_and_first_data_are_one_read_when_the_client_speaks_first() {
    every_way(|transport, proxy_protocol| {
        let stage = Stage::new(transport, proxy_protocol, WAITS_FOR_DATA);
        let mut client = stage.connect(tls_client::config());
        client.write_all(b"hello, server").expect("write");
        let mut server = stage.listener.accept();
        let first = server.read_once();
        let header = parse(&first);
        let text = String::from_utf8_lossy(&first[header.length..]).into_owned();
        assert_eq!(text, "hello, server", "{transport} {proxy_protocol}");
        // This read may have come late enough to find two sends.
        assert!(server.segments().is_none_or(|count| count == 1), "{:?}", server.segments());
        assert_eq!(header.source, stage.header(&client, 0).source);
        assert_eq!(header.destination, stage.header(&client, 0).destination);
    });
}

#[test]
fn the_header_waits_a_moment_for_a_client_that_speaks_after_the_server_is_connected() {
    for proxy_protocol in ["v1", "v2"] {
        let stage = Stage::new("tcp", proxy_protocol, WAITS_FOR_DATA);
        loop {
            let begin = Instant::now();
            let mut client = stage.connect(tls_client::config());
            client.flush().expect("handshake");
            let mut server = stage.listener.accept();
            client.write_all(b"hello, server").expect("write");
            if begin.elapsed() > Duration::from_millis(500) {
                // Nobody let this test run: the header may have waited long enough.
                continue;
            }
            let first = server.read_once();
            assert_eq!(&first[parse(&first).length..], b"hello, server", "{proxy_protocol}");
            assert_eq!(server.segments(), Some(1), "{proxy_protocol}");
            break;
        }
    }
}

#[test]
fn the_header_comes_alone_when_the_server_speaks_first() {
    every_way(|transport, proxy_protocol| {
        let stage = Stage::new(transport, proxy_protocol, "");
        let mut client = stage.connect(tls_client::config());
        // Completes the handshake; this client has nothing to say yet.
        client.flush().expect("handshake");
        let mut server = stage.listener.accept();
        let first = server.read_once();
        assert_eq!(parse(&first).length, first.len(), "{transport} {proxy_protocol}: the header");
        server.write(b"220 ready");
        let mut greeting = [0; 9];
        client.read_exact(&mut greeting).expect("read");
        assert_eq!(&greeting, b"220 ready");
        client.write_all(b"EHLO").expect("write");
        assert_eq!(server.read_once(), b"EHLO");
    });
}

#[test]
fn a_client_that_ends_at_once_is_announced_all_the_same() {
    every_way(|transport, proxy_protocol| {
        let stage = Stage::new(transport, proxy_protocol, WAITS_FOR_DATA);
        let mut client = stage.connect(tls_client::config());
        client.flush().expect("handshake");
        client.conn.send_close_notify();
        client.flush().expect("close_notify");
        let mut server = stage.listener.accept();
        let first = server.read_once();
        assert_eq!(parse(&first).length, first.len(), "{transport} {proxy_protocol}");
        assert_eq!(server.read_once(), b"", "the end");
    });
}

#[test]
fn without_the_proxy_protocol_the_first_read_is_the_clients_data() {
    for transport in ["tcp", "unix"] {
        let stage = Stage::new(transport, "none", WAITS_FOR_DATA);
        let mut client = stage.connect(tls_client::config());
        client.write_all(b"hello, server").expect("write");
        assert_eq!(stage.listener.accept().read_once(), b"hello, server");
    }
}

fn the_header_names_what_was_negotiated_for_every_suite(provider: &str) {
    let stage = Stage::new("tcp", "v2", &(site::provider(provider) + WAITS_FOR_DATA));
    assert_eq!(ALL_CIPHER_SUITES.len(), 9);
    for suite in ALL_CIPHER_SUITES {
        let mut client = stage.connect(tls_client::config_for(*suite));
        client.write_all(b"hello").expect("write");
        let first = stage.listener.accept().read_once();
        let header = parse(&first);
        let (version, cipher) = openssl_names(suite.suite());
        let expected = ProxyHeader {
            alpn: Some("mail".to_owned()),
            authority: Some(NAME.to_owned()),
            tls_version: Some(version.to_owned()),
            cipher: Some(cipher.to_owned()),
            ..stage.header(&client, first.len() - "hello".len())
        };
        assert_eq!(header, expected);
    }
}

/// Version and suite as OpenSSL calls them, which is what the specification demands.
fn openssl_names(suite: rustls::CipherSuite) -> (&'static str, &'static str) {
    use rustls::CipherSuite as Suite;
    match suite {
        Suite::TLS13_AES_128_GCM_SHA256 => ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
        Suite::TLS13_AES_256_GCM_SHA384 => ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        Suite::TLS13_CHACHA20_POLY1305_SHA256 => ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => {
            ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")
        }
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => {
            ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")
        }
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            ("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305")
        }
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256"),
        Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => ("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384"),
        Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            ("TLSv1.2", "ECDHE-RSA-CHACHA20-POLY1305")
        }
        other => panic!("{other:?} is not one of ours"),
    }
}
