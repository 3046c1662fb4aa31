//! What a pool can ask a version 2 header to say, beside the addresses and what it says by
//! default.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use forebay::proxy_protocol::authentication::{VerifyError, parse_keys, verify};
use forebay::tls::client_hello::{CLIENT_HELLO_BYTES_MAX, Ja4, Scan, scan};
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256,
};
use rustls::{ClientConfig, ClientConnection, NamedGroup};

use crate::proxy_header::{NAME, Stage, WAITS_FOR_DATA};
use crate::support::certificates::{Key, self_signed};
use crate::support::forebay::{Forebay, PATIENCE};
use crate::support::haproxy::Haproxy;
use crate::support::network::in_a_network_of_its_own;
use crate::support::nginx::Nginx;
use crate::support::ports::free_address;
use crate::support::program::run;
use crate::support::proxy_header::{ProxyHeader, parse};
use crate::support::seen::Seen;
use crate::support::sockets::connect_from;
use crate::support::tls_client::{self, TlsStream};
use crate::support::varnish::{FUNCTIONS, NOTHING, Varnish};
use crate::{site, with_each_provider};

with_each_provider!(
    a_header_of_everything_leaves_with_the_first_data,
    a_resumed_session_has_signed_nothing_and_says_so,
);

const SIG_ALG: u8 = 0x24;
const KEY_ALG: u8 = 0x25;
const GROUP: u8 = 0x26;
const SIG_SCHEME: u8 = 0x27;
const UNIQUE_ID: u8 = 0x05;
const CRC32C: u8 = 0x03;

const EVERYTHING: &str = "proxy_tlvs = [\"alpn\", \"authority\", \"crc32c\", \"unique_id\", \
                          \"ssl\", \"ssl_cn\", \"ssl_cipher\", \"ssl_sig_alg\", \
                          \"ssl_key_alg\", \"ssl_group\", \"ssl_sig_scheme\"]\n\
                          proxy_align = 8\n\
                          proxy_custom_tlvs = [{ type = 0xE0, value = \"{session}\" }]\n";

/// The header of a client that says hello, and the client.
fn header_of(stage: &Stage, config: &Arc<ClientConfig>) -> (ProxyHeader, TlsStream) {
    let mut client = stage.connect(ClientConfig::clone(config));
    client.write_all(b"hello").expect("write");
    let mut server = stage.listener.accept();
    let first = server.read_once();
    let header = parse(&first);
    assert_eq!(&first[header.length..], b"hello", "in one send");
    // So that the client has the ticket by which it comes again.
    server.write(b"you are welcome");
    std::io::Read::read_exact(&mut client, &mut [0; 15]).expect("an answer");
    (header, client)
}

fn a_header_of_everything_leaves_with_the_first_data(provider: &str) {
    let stage = Stage::new(
        "tcp",
        "v2",
        &(EVERYTHING.to_owned() + WAITS_FOR_DATA + &site::provider(provider)),
    );
    let mut names = Vec::new();
    for (suite, key, signed_with, scheme) in [
        (TLS13_AES_128_GCM_SHA256, "EC256", "ecdsa-with-SHA256", "ecdsa_secp256r1_sha256"),
        (TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "RSA2048", "RSA-SHA256", "rsa_pss_rsae_"),
    ] {
        let (header, client) = header_of(&stage, &Arc::new(tls_client::config_for(suite)));
        assert_eq!(header.length % 8, 0);
        assert_eq!(header.alpn.as_deref(), Some("mail"));
        assert_eq!(header.authority.as_deref(), Some(NAME));
        assert!(header.cipher.is_some() && header.tls_version.is_some());
        assert_eq!(header.text(KEY_ALG).as_deref(), Some(key));
        assert_eq!(header.text(SIG_ALG).as_deref(), Some(signed_with));
        assert_eq!(header.text(GROUP).as_deref(), Some(group_of(&client)));
        let told = header.text(SIG_SCHEME).expect("what was signed with");
        assert!(told.starts_with(scheme), "{told}");
        assert_eq!(header.text(0xe0).as_deref(), Some("full"));
        assert!(header.others.iter().any(|(kind, value)| *kind == CRC32C && value.len() == 4));
        names.push(header.text(UNIQUE_ID).expect("a name"));
    }
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| name.len() == 32), "{names:?}");
    assert_eq!(names[0][..20], names[1][..20], "of one process and engine");
}

/// The group that the client has agreed on, as OpenSSL calls it.
fn group_of(client: &TlsStream) -> &'static str {
    match client.conn.negotiated_key_exchange_group().expect("a group").name() {
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::X25519 => "x25519",
        NamedGroup::secp256r1 => "secp256r1",
        other => panic!("{other:?}"),
    }
}

fn a_resumed_session_has_signed_nothing_and_says_so(provider: &str) {
    let stage = Stage::new(
        "tcp",
        "v2",
        &(EVERYTHING.to_owned() + WAITS_FOR_DATA + &site::provider(provider)),
    );
    for suite in [TLS13_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256] {
        let config = Arc::new(tls_client::config_for(suite));
        let (full, first) = header_of(&stage, &config);
        drop(first);
        let (resumed, _) = header_of(&stage, &config);
        assert_eq!(resumed.text(0xe0).as_deref(), Some("resumed"));
        assert_eq!(resumed.text(SIG_SCHEME), None);
        assert_eq!(resumed.text(KEY_ALG), full.text(KEY_ALG), "that it saw when it began");
    }
}

#[test]
fn every_receiver_takes_a_header_of_everything_and_knows_what_it_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let certificate = self_signed(directory.path(), "site.pem", Key::EcdsaP256, &[NAME]);
    let keys = directory.path().join("proxy.keys");
    write_keys(&keys, &"11".repeat(32));
    let mut haproxy = Haproxy::start(directory.path());
    let mut nginx = Nginx::start(directory.path());
    let mut varnish = Varnish::start(directory.path());
    let endpoints = [haproxy.endpoints(), nginx.http1_endpoints(), varnish.endpoints()];
    let addresses = [(); 3].map(|()| free_address());
    let mut text = site::SMALL.to_owned();
    for (index, ([endpoint, _], address)) in endpoints.iter().zip(addresses).enumerate() {
        let pool = format!("pool-{index}");
        let alpn = "alpn = [\"http/1.1\"]";
        text += &site::listener(address, &[&certificate], &pool, alpn);
        text += &site::pool(&pool, endpoint, "v2");
        text += &format!("{EVERYTHING}proxy_key_file = {keys:?}\n");
    }
    let _forebay = Forebay::start(directory.path(), &text);
    let ask = |address| {
        let mut config = tls_client::config();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut client = tls_client::connect(Arc::new(config), address, NAME);
        tls_client::exchange(&mut client, &site::request("/all", NAME));
        Seen {
            client: client.sock.local_addr().expect("an address"),
            connected_to: address,
            name: NAME.to_owned(),
            http: "HTTP/1.1".to_owned(),
        }
    };
    let [by_haproxy, by_nginx, by_varnish] = addresses.map(ask);
    assert_eq!(haproxy.seen("/all"), by_haproxy);
    assert_eq!(nginx.seen("/all"), by_nginx);
    assert_eq!(varnish.seen("/all"), by_varnish);
    assert_eq!(haproxy.unique_id("/all").len(), 32);
    let cipher = "TLS_AES_128_GCM_SHA256";
    assert_eq!(
        varnish.knows("/all", &FUNCTIONS),
        ["http/1.1", NAME, "TLSv1.3", cipher, NOTHING, "ecdsa-with-SHA256", "EC256"]
    );
}

#[test]
fn a_pool_that_asks_for_nothing_is_told_the_addresses() {
    let stage = Stage::new("tcp", "v2", &("proxy_tlvs = []\n".to_owned() + WAITS_FOR_DATA));
    let (header, client) = header_of(&stage, &Arc::new(tls_client::config()));
    assert_eq!(header, stage.header(&client, 28));
}

#[test]
fn values_of_ones_own_are_made_of_what_is_known_of_the_client() {
    let custom = "proxy_custom_tlvs = [\n\
                  { type = 0xE0, value = \"{ja4}\" },\n\
                  { type = 0xE1, value = \"{group}/{session} on {node}\" },\n\
                  { type = 0xF7, value = \"{handshake_seconds}\" },\n\
                  ]\n";
    let stage = Stage::new("tcp", "v2", &(custom.to_owned() + WAITS_FOR_DATA));
    let config = Arc::new(tls_client::config());
    // Before it has a ticket, which it would show.
    let fingerprint = fingerprint_of(&config, &[b"mail"]);
    let (header, client) = header_of(&stage, &config);
    assert_eq!(header.text(0xe0), Some(fingerprint));
    let node = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let expected = format!("{}/full on {}", group_of(&client), node.trim_end());
    assert_eq!(header.text(0xe1).as_deref(), Some(expected.as_str()));
    let seconds: f64 = header.text(0xf7).expect("a time").parse().expect("seconds");
    assert!(seconds > 0.0 && seconds < PATIENCE.as_secs_f64(), "{seconds}");
}

/// What a client with this configuration, and these application protocols, is known by.
pub(super) fn fingerprint_of(config: &Arc<ClientConfig>, protocols: &[&[u8]]) -> String {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = NAME.try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a ClientHello");
    let mut scratch = Box::new([0; CLIENT_HELLO_BYTES_MAX]);
    match scan(&hello, &mut scratch) {
        Scan::Complete(hello) => Ja4::of(&hello).expect("a fingerprint").to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_is_passed_through_has_its_fingerprint_told_too() {
    let stage = Stage::with_keys(
        "tcp",
        "v2",
        &format!(
            "[[listener.route]]\nsni = \"{NAME}\"\naction = \"passthrough\"\npool = \"server\""
        ),
        &("proxy_custom_tlvs = [{ type = 0xE0, value = \"{ja4}{session}\" }]\n".to_owned()
            + WAITS_FOR_DATA),
    );
    let config = Arc::new(tls_client::config());
    let mut client = stage.connect(ClientConfig::clone(&config));
    let mut hello = Vec::new();
    client.conn.write_tls(&mut hello).expect("a ClientHello");
    client.sock.write_all(&hello).expect("sent");
    let first = stage.listener.accept().read_once();
    let header = parse(&first);
    assert_eq!(&first[header.length..], hello);
    assert_eq!(header.text(0xe0), Some(fingerprint_of(&config, &[b"mail"])));
}

const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));

/// What an AWS network balancer tells of a VPC endpoint, what it might call the connection,
/// and a value that nobody asks for.
const OF_BALANCER: &[u8] = b"\xea\x00\x0c\x01vpce-012345\x05\x00\x04name\xe1\x00\x01x";

/// A header for 192.0.2.7:54321 on 198.51.100.9:443, with these values.
fn balancers_header(values: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend((12 + values.len() as u16).to_be_bytes());
    header.extend(b"\xc0\x00\x02\x07\xc6\x33\x64\x09\xd4\x31\x01\xbb");
    header.extend(values);
    header
}

/// The header that a server is sent for a client of this balancer.
fn header_behind(stage: &Stage, values: &[u8]) -> ProxyHeader {
    let mut stream = connect_from(BALANCER, stage.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(&balancers_header(values)).expect("sent");
    let mut config = tls_client::config();
    config.alpn_protocols = vec![b"mail".to_vec()];
    let mut client = tls_client::over(stream, Arc::new(config), NAME);
    client.write_all(b"hello").expect("write");
    parse(&stage.listener.accept().read_once())
}

#[test]
fn what_a_balancer_in_front_knows_goes_on_to_the_server() {
    let stage = Stage::with_keys(
        "tcp",
        "v2",
        &format!("accept_proxy_from = [\"{BALANCER}\"]"),
        &("proxy_tlvs = [\"unique_id\"]\nproxy_pass_tlvs = [0xEA, \"unique_id\"]\n".to_owned()
            + WAITS_FOR_DATA),
    );
    let header = header_behind(&stage, OF_BALANCER);
    assert_eq!(header.source, Some("192.0.2.7:54321".parse().expect("an address")));
    let expected: [(u8, Vec<u8>); 2] =
        [(0xea, b"\x01vpce-012345".to_vec()), (UNIQUE_ID, b"name".to_vec())];
    assert_eq!(header.others, expected);

    // Of a balancer that names no connection, ours has our name.
    let header = header_behind(&stage, b"");
    assert_eq!(header.text(UNIQUE_ID).map(|name| name.len()), Some(32));

    let too_much = [b"\xea\x02\x00".as_slice(), &[0; 512]].concat();
    assert_eq!(header_behind(&stage, &too_much).text(0xea), None);
    let left_out = stage.forebay.metric("forebay_proxy_header_values_left_out_total", &[]);
    assert_eq!(left_out, 1.0);
}

fn write_keys(file: &Path, keys: &str) {
    // In one step, as an operator does, or half of it could be read.
    let beside = file.with_extension("new");
    fs::write(&beside, keys).expect("written");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::rename(&beside, file).expect("renamed");
}

#[test]
fn headers_are_signed_with_the_first_key_and_with_another_when_the_file_changes() {
    let keys = ["11".repeat(32), "22".repeat(32), "33".repeat(32)];
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("proxy.keys");
    write_keys(&file, &format!("{}\n{}\n", keys[0], keys[1]));
    let mut stage = Stage::new(
        "tcp",
        "v2",
        &(EVERYTHING.to_owned() + &format!("proxy_key_file = {file:?}\n") + WAITS_FOR_DATA),
    );
    let config = Arc::new(tls_client::config());
    let signed = |stage: &Stage| {
        let mut client = stage.connect(ClientConfig::clone(&config));
        client.write_all(b"hello").expect("write");
        stage.listener.accept().read_once()
    };
    let is_by = |header: &[u8], key: &str| {
        let keys = parse_keys(key.as_bytes()).expect("a key");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        verify(header, &keys, now, Duration::from_secs(60)).map(|verified| verified.age)
    };
    let header = signed(&stage);
    assert!(is_by(&header, &keys[0]).is_ok());
    assert!(matches!(is_by(&header, &keys[1]), Err(VerifyError::UnknownKey(_))));

    // By the command too, and no longer once a byte of an address is another.
    let captured = directory.path().join("captured");
    let ask = |header: &[u8]| {
        fs::write(&captured, header).expect("written");
        let mut verifier = Command::new(env!("CARGO_BIN_EXE_forebay"));
        verifier.arg("proxy-verify").arg("--keys").arg(&file).arg(&captured);
        run(verifier, "")
    };
    ask(&header).assert_success(&["genuine: key"]);
    // Without the sum, which would be found first: it protects from accidents only.
    let stage_without_sum =
        Stage::new("tcp", "v2", &(format!("proxy_key_file = {file:?}\n") + WAITS_FOR_DATA));
    let mut forged = signed(&stage_without_sum);
    ask(&forged).assert_success(&[]);
    forged[16] ^= 1;
    ask(&forged).assert_failure(&["altered or forged"]);

    write_keys(&file, &format!("{}\n{}\n", keys[2], keys[0]));
    let begin = Instant::now();
    while is_by(&signed(&stage), &keys[2]).is_err() {
        assert!(begin.elapsed() < PATIENCE, "the new key is not used");
    }
    // What is no key changes nothing, and is said.
    write_keys(&file, "no key at all\n");
    stage.forebay.wait_for_log("line 1: a key has 64 hexadecimal digits");
    assert!(is_by(&signed(&stage), &keys[2]).is_ok());
}

#[test]
fn the_network_namespace_is_told_by_its_name() {
    in_a_network_of_its_own("192.0.2.0/24", || {
        // SAFETY: takes nothing, returns the thread's number.
        let thread = unsafe { libc::gettid() };
        let name = format!("forebay-test-{thread}");
        let ip = |arguments: &[&str]| {
            let status = Command::new("ip").args(arguments).status().expect("ip runs");
            assert!(status.success(), "ip {arguments:?}");
        };
        ip(&["netns", "attach", &name, &thread.to_string()]);
        let told = std::panic::catch_unwind(|| {
            let stage = Stage::new(
                "tcp",
                "v2",
                &("proxy_tlvs = [\"netns\"]\n".to_owned() + WAITS_FOR_DATA),
            );
            header_of(&stage, &Arc::new(tls_client::config())).0.text(0x30)
        });
        ip(&["netns", "delete", &name]);
        assert_eq!(told.expect("a header"), Some(name));
    });
}
