//! Fixed pieces of work to be counted in instructions, which no noise of a machine moves.
//!
//! The engine runs on the simulator's driver, with handshakes inline. Counted are the
//! engine, the handshake and the record layer with their cryptography; not the driver, the
//! peers or the setting up. `scripts/instructions` runs each work under callgrind and
//! compares with `baseline.json`.
//!
//! * `cargo bench --bench instructions -- list` names the works.
//! * `cargo bench --bench instructions -- run NAME` does one.
//! * Without arguments each is done once, so that a test run sees them work.

mod counted;
mod peers;
mod scene;

use std::hint::black_box;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::Arc;

use forebay::handshake::SessionFacts;
use forebay::proxy_protocol::authentication::{AuthenticationKey, KEY_BYTES};
use forebay::proxy_protocol::{Contents, HEADER_BYTES_MAX, Header, ProxyProtocol, encode};
use forebay::tls::client_hello::{CLIENT_HELLO_BYTES_MAX, ClientHello, Ja4, Scan, scan};
use forebay::tls::{CryptoLibrary, Version};
use rustls::ClientConnection;

use counted::counted;
use scene::{Conversation, Scene, Way, client_config, policy};

/// A piece of work: its name, and how it is done.
type Work = (&'static str, fn());

const WORKS: &[Work] = &[
    ("connection-full", || connections(Way::Plain, 1..=16, false)),
    ("connection-full-ten-routes-maglev", || connections(Way::RoutedToMaglev, 1..=16, false)),
    ("connection-resumed", || connections(Way::Plain, 1..=32, true)),
    ("relay-upload-16KiB", || relay(Way::Plain, UPLOAD)),
    ("relay-download-16KiB", || relay(Way::Plain, DOWNLOAD)),
    ("request-1KiB", || relay(Way::Plain, REQUESTS_OF_1_KIB)),
    ("connection-full-tls-server", || connections(Way::ToTlsServer, 1..=16, false)),
    ("connection-resumed-tls-server", || connections(Way::ToTlsServer, 1..=32, true)),
    ("request-1KiB-tls-server", || relay(Way::ToTlsServer, REQUESTS_OF_1_KIB)),
    ("client-hello", client_hello),
    ("fingerprint", fingerprint),
    ("proxy-header", || proxy_header(&Contents::default())),
    ("proxy-header-signed", || proxy_header(&signed())),
];

const UPLOAD: Conversation = Conversation { rounds: 1, up_bytes: 4 << 20, down_bytes: 1 };
const DOWNLOAD: Conversation = Conversation { rounds: 1, up_bytes: 1, down_bytes: 4 << 20 };
const REQUESTS_OF_1_KIB: Conversation =
    Conversation { rounds: 1_000, up_bytes: 1_024, down_bytes: 1_024 };

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => WORKS.iter().for_each(|(_, work)| work()),
        ["list"] => WORKS.iter().for_each(|(name, _)| println!("{name}")),
        ["run", wanted] => match WORKS.iter().find(|(name, _)| *name == wanted) {
            Some((_, work)) => work(),
            None => {
                eprintln!("no work is called {wanted}: see `list`");
                return ExitCode::from(2);
            }
        },
        _ => {
            eprintln!("usage: [list | run NAME]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// From accept to close, with one request on each connection. The first one, which fills
/// what is filled once, is not counted.
fn connections(way: Way, numbers: RangeInclusive<u16>, resumed: bool) {
    let mut scene = Scene::new(way, resumed);
    let talk = Conversation { rounds: 1, up_bytes: 64, down_bytes: 64 };
    scene.connect(talk);
    scene.run(|_| false);
    for _ in numbers {
        scene.connect(talk);
        scene.run(|_| true);
    }
    assert_eq!(scene.resumed() > 0, resumed, "as it was meant");
    assert_eq!(scene.resumed_by_server() > 0, resumed && way == Way::ToTlsServer, "the same");
    scene.finish();
}

/// One connection that stands already; what is said on it is counted.
fn relay(way: Way, conversation: Conversation) {
    let mut scene = Scene::new(way, false);
    scene.connect(conversation);
    scene.run(|talks| talks);
    scene.finish();
}

/// What the engine does with a ClientHello that lies in a buffer.
fn client_hello() {
    /// Names are found by hashes with a random key, in one map sooner than in another.
    const POLICIES: usize = 20;
    const TIMES: usize = 50;
    let name = scene::SERVER_NAME.try_into().expect("a DNS name");
    let mut client = ClientConnection::new(Arc::new(client_config()), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory takes all");
    let policies: Vec<_> = std::iter::repeat_with(policy).take(POLICIES).collect();
    let mut scratch = Box::new([0; CLIENT_HELLO_BYTES_MAX]);
    counted(|| {
        for policy in policies.iter().flat_map(|policy| [policy; TIMES]) {
            let Scan::Complete(hello) = scan(black_box(&hello), &mut scratch) else {
                panic!("a client's first flight is a ClientHello")
            };
            assert!(black_box(policy.admit(&hello, None)).is_ok());
        }
    });
}

/// What a worker does for a pool that is told of the client's fingerprint.
fn fingerprint() {
    const TIMES: usize = 1_000;
    let name = scene::SERVER_NAME.try_into().expect("a DNS name");
    let mut client = ClientConnection::new(Arc::new(client_config()), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory takes all");
    counted(|| {
        for _ in 0..TIMES {
            let hello = ClientHello::of_one_record(black_box(&hello)).expect("a ClientHello");
            assert!(black_box(Ja4::of(&hello)).is_some());
        }
    });
}

/// The usual contents, signed.
fn signed() -> Contents {
    let key = Arc::new(AuthenticationKey::new(&[7; KEY_BYTES]));
    Contents { key: Some(key), ..Contents::default() }
}

fn proxy_header(contents: &Contents) {
    const TIMES: usize = 1_000;
    let session = SessionFacts {
        version: Version::Tls13,
        cipher_suite: 0x1301,
        group: Some(0x11ec),
        resumed: false,
        signature_scheme: Some(0x0403),
        certificate: None,
        alpn: Some((*b"h2").into()),
        server_name: Some(scene::SERVER_NAME.into()),
    };
    let address = |text: &str| text.parse().expect("a literal address");
    let header = Header {
        server_name: session.server_name.as_deref(),
        session: Some(&session),
        ..Header::new(address("192.0.2.33:51324"), address("198.51.100.7:443"))
    };
    let mut out = [0; HEADER_BYTES_MAX];
    counted(|| {
        for _ in 0..TIMES {
            let header =
                encode(ProxyProtocol::V2, contents, black_box(&header), black_box(&mut out));
            assert!(black_box(header).is_ok());
        }
    });
}

/// The library whose instructions are counted.
const LIBRARY: CryptoLibrary = CryptoLibrary::AwsLc;
