use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::client_auth::ClientAuthMode;
use super::*;
use crate::dns::message::RecordType;
use crate::dns::{Condition, Failure, NamedServer, Wanted};
use crate::proxy_protocol::ProxyProtocol;
use crate::proxy_protocol::contents::Value;
use crate::routing::Action;
use crate::switch::{Spin, Switch};
use crate::tls::certificate_compression::Compression;
use crate::tls::names::Group;
use crate::tls::policy::UnknownServerName;
use crate::tls::to_servers::NameSource;
use crate::tls::{CryptoLibrary, Version};
use crate::upstream::exchange::{Expect, Script};
use crate::upstream::health::Check;
use crate::upstream::pool::Ejection;
use crate::upstream::{HashBy, Pool, SourceAddress};

const EXAMPLE: &str = include_str!("../../docs/examples/forebay.toml");

/// The least that is complete.
const MINIMAL: &str = r#"
[[listener]]
address = "0.0.0.0:443"
certificates = ["site.pem"]
pool = "web"
[[pool]]
name = "web"
backends = ["10.0.0.1:8080"]
"#;

fn parsed(text: &str) -> (Option<Settings>, Vec<Finding>) {
    parse(text, Path::new("/etc/forebay/forebay.toml"))
}

fn settings(text: &str) -> Settings {
    let (settings, findings) = parsed(text);
    assert_eq!(findings, [], "{}", lines(&findings));
    settings.expect("there are no findings")
}

fn lines(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// What `text` in front of the minimal file is told, without the file's directory.
fn told(text: &str) -> String {
    told_exactly(&format!("{text}\n{MINIMAL}"))
}

fn told_exactly(text: &str) -> String {
    let (settings, findings) = parsed(text);
    assert_eq!(settings.is_none(), findings.iter().any(Finding::is_error));
    lines(&findings).replace("/etc/forebay/forebay.toml:", "")
}

/// A file with one listener that has `keys`, and one pool "web".
fn listener(keys: &str) -> String {
    let pool = "[[pool]]\nname = \"web\"\nbackends = [\"10.0.0.1:80\"]";
    told_exactly(&format!("{pool}\n[[listener]]\n{keys}"))
}

/// A file with one pool that has `keys`.
fn pool(keys: &str) -> String {
    let listener = "[[listener]]\naddress = \":443\"\ncertificates = [\"a\"]\npool = \"web\"";
    told_exactly(&format!("{listener}\n[[pool]]\nname = \"web\"\n{keys}"))
}

const LISTENER: &str = "address = \":443\"\ncertificates = [\"a.pem\"]\npool = \"web\"\n";

// ── What a right file says ──────────────────────────────────────────────────────────

#[test]
fn the_minimal_file_gets_every_default() {
    let settings = settings(MINIMAL);
    assert_eq!(settings.file, Path::new("/etc/forebay/forebay.toml"));
    assert_eq!(settings.engine, EngineSettings::default());
    assert_eq!(settings.handshake, HandshakeSettings::default());
    assert_eq!(settings.limits, LimitSettings::default());
    assert_eq!(settings.timeouts, TimeoutSettings::default());
    assert_eq!(settings.tls, TlsSettings::default());
    assert_eq!(settings.log, LogSettings::default());
    assert_eq!(settings.admin, AdminSettings::default());
    let [listener] = &settings.listeners[..] else { panic!("one listener") };
    assert_eq!(listener.name, "0.0.0.0:443");
    assert_eq!(listener.unknown_sni, UnknownServerName::Default);
    assert_eq!(listener.default_certificate, None);
    assert!(listener.alpn.is_empty());
    assert_eq!(listener.policy, settings.tls.policy);
    let [pool] = &settings.pools[..] else { panic!("one pool") };
    assert_eq!(
        (pool.balance, pool.proxy_protocol),
        (BalanceSetting::RoundRobin, ProxyProtocol::None)
    );
    assert_eq!((pool.queue_max, pool.slow_start), (1_000, Duration::ZERO));
    assert_eq!(pool.ejection, None);
    assert_eq!(pool.check, None);
}

#[test]
fn values_keep_the_place_they_were_written_at() {
    let settings = settings(MINIMAL);
    let certificate = &settings.listeners[0].certificates[0];
    assert_eq!(certificate.value, Path::new("/etc/forebay/site.pem"));
    let finding = settings
        .error(&certificate.place, "the key does not match")
        .with_help("put the right key behind the chain");
    assert_eq!(
        finding.to_string(),
        "/etc/forebay/forebay.toml:4:17: error: listener[0].certificates[0]: \
         the key does not match; put the right key behind the chain"
    );
}

#[test]
fn every_key_reaches_its_setting() {
    let settings = settings(
        r#"
        [engine]
        engines = 2
        cpus = [0, "2-3"]
        max_connections = 1_000
        buffers = 64
        large_buffers = 8
        backlog = 100
        huge_pages = "on"
        lock_memory = "off"
        spin = "50us"
        napi_busy_poll = "1ms"
        steer = "cpu"
        [handshake]
        workers = 1
        cpus = [1]
        credits = 32
        patience = "50ms"
        queue = { continuation = 1, resumption = 2, ec = 3, rsa = 4 }
        [limits]
        source_connections = 100
        source_incomplete_handshakes = 20
        source_handshakes_per_second = 30
        handshakes_per_second = 4_000
        ipv4_prefix = 24
        ipv6_prefix = 56
        exempt = ["10.0.0.0/8", "2001:db8::7"]
        [timeouts]
        client_hello = "1s"
        handshake = "2s"
        connect = "500ms"
        queue = "700ms"
        idle = "1h"
        half_closed = "3s"
        drain = "2m"
        drain_notice = "7s"
        first_data_wait = "0ms"
        [tls]
        provider = "ring"
        minimum_version = "1.3"
        cipher_suites = ["TLS_CHACHA20_POLY1305_SHA256"]
        groups = ["P-256", "X25519"]
        small_records = "64KiB"
        keys_in_memory = 500
        key_passphrase_file = "passphrases"
        certificate_index = "certificates.index"
        certificate_compression = ["zlib", "brotli"]
        strict_truncation = true
        [log]
        level = "debug"
        failures_per_second = 0
        [admin]
        address = "[::1]:9440"
        [[listener]]
        name = "one"
        address = ["0.0.0.0:443", "[2001:db8::1]:443"]
        certificates = "a.pem"
        default_certificate = "/b.pem"
        unknown_sni = "reject"
        alpn = ["h2"]
        pool = "second"
        minimum_version = "1.2"
        cipher_suites = ["TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"]
        [[listener]]
        address = ":8443"
        certificates = ["a.pem"]
        pool = "first"
        [[pool]]
        name = "first"
        backends = ["unix:run/app.sock"]
        [[pool]]
        name = "second"
        backends = [
          { address = "[2001:db8::2]:80", weight = 10, backup = true, connections_max = 500 },
          "app.example:8080",
        ]
        balance = "maglev"
        hash = "sni"
        connections_max = 200
        queue_max = 50
        slow_start = "30s"
        eject_after = 20
        eject_time = "1m"
        eject_share_max = 30
        proxy_protocol = "v1"
        [pool.check]
        interval = "500ms"
        timeout = "1s"
        rise = 4
        fall = 5
        jitter = 0
        port = 81
        send = 'PING\x00\r\n'
        expect = "PO\\x4eG"
        expect_at = "anywhere"
        agent_port = 90
        "#,
    );
    let Settings { engine, handshake, limits, timeouts, tls, log, admin, .. } = &settings;
    assert_eq!(
        *engine,
        EngineSettings {
            engines: Some(2),
            cpus: vec![0, 2, 3],
            max_connections: 1_000,
            buffers: Some(64),
            large_buffers: 8,
            backlog: 100,
            huge_pages: Switch::On,
            lock_memory: Switch::Off,
            spin: Spin::For(Duration::from_micros(50)),
            napi_busy_poll: Duration::from_millis(1),
            steer: engine::Steer::Cpu,
        }
    );
    assert_eq!(handshake.workers, Some(1));
    assert_eq!(handshake.cpus, [1]);
    assert_eq!((handshake.credits, handshake.patience), (Some(32), Duration::from_millis(50)));
    assert_eq!(handshake.queue.bounds(1_000), [1, 2, 3, 4]);
    assert_eq!(
        *limits,
        LimitSettings {
            source_connections: Some(100),
            source_incomplete_handshakes: Some(20),
            source_handshakes_per_second: Some(30),
            handshakes_per_second: Some(4_000),
            ipv4_prefix: 24,
            ipv6_prefix: 56,
            exempt: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::7/128".parse().unwrap()],
        }
    );
    let seconds = Duration::from_secs;
    assert_eq!(
        *timeouts,
        TimeoutSettings {
            client_hello: seconds(1),
            handshake: seconds(2),
            connect: Duration::from_millis(500),
            queue: Duration::from_millis(700),
            idle: seconds(3_600),
            half_closed: seconds(3),
            drain: seconds(120),
            drain_notice: seconds(7),
            first_data_wait: Duration::ZERO,
        }
    );
    let policy = TlsPolicy {
        minimum_version: Version::Tls13,
        cipher_suites: vec!["TLS_CHACHA20_POLY1305_SHA256".parse().unwrap()],
        groups: vec![Group::SECP256R1, Group::X25519],
    };
    assert_eq!(
        *tls,
        TlsSettings {
            provider: CryptoLibrary::Ring,
            policy: policy.clone(),
            small_records_bytes: 65_536,
            keys_in_memory: 500,
            key_passphrase_file: tls.key_passphrase_file.clone(),
            certificate_index: tls.certificate_index.clone(),
            certificate_compression: vec![Compression::Zlib, Compression::Brotli],
            strict_truncation: true
        }
    );
    let passphrases = tls.key_passphrase_file.as_ref().unwrap();
    assert_eq!(passphrases.value, Path::new("/etc/forebay/passphrases"));
    let index = tls.certificate_index.as_ref().unwrap();
    assert_eq!(index.value, Path::new("/etc/forebay/certificates.index"));
    assert_eq!((log.level, log.failures_per_second), (tracing::Level::DEBUG, 0));
    assert_eq!(admin.address.as_ref().unwrap().value, "[::1]:9440".parse().unwrap());

    let [one, other] = &settings.listeners[..] else { panic!("two listeners") };
    assert_eq!(one.name, "one");
    let addresses: Vec<String> = one.addresses.iter().map(|at| at.value.to_string()).collect();
    assert_eq!(addresses, ["0.0.0.0:443", "[2001:db8::1]:443"]);
    assert_eq!(one.certificates[0].value, Path::new("/etc/forebay/a.pem"));
    assert_eq!(one.default_certificate.as_ref().unwrap().value, Path::new("/b.pem"));
    assert_eq!(one.unknown_sni, UnknownServerName::Reject);
    assert_eq!(one.alpn, ["h2"]);
    assert_eq!(one.pool, 1);
    assert_eq!(one.policy.minimum_version, Version::Tls12);
    let suites: Vec<u16> =
        one.policy.cipher_suites.iter().map(|suite| suite.code_point()).collect();
    assert_eq!(suites, [0x1301, 0xc02f]);
    assert_eq!(one.policy.groups, policy.groups, "not overridden");
    assert_eq!((other.name.as_str(), other.pool), (":8443", 0));
    assert_eq!(other.policy, policy);

    let second = &settings.pools[1];
    assert_eq!(second.balance, BalanceSetting::Maglev(HashBy::ServerName));
    assert_eq!((second.queue_max, second.slow_start), (50, seconds(30)));
    let after = 20.try_into().unwrap();
    let ejection = Ejection { after, time: seconds(60), share_max_percent: 30 };
    assert_eq!(second.ejection, Some(ejection));
    let expected = Check {
        interval: Duration::from_millis(500),
        timeout: seconds(1),
        rise: 4,
        fall: 5,
        jitter_percent: 0,
        port: Some(81),
        script: Script { send: b"PING\0\r\n".to_vec(), expect: Expect::Anywhere(b"PONG".to_vec()) },
        agent_port: Some(90),
    };
    assert_eq!(second.check.as_deref(), Some(&expected));
    assert_eq!(second.proxy_protocol, ProxyProtocol::V1);
    let host =
        BackendAddress::Named { wanted: Wanted::Host("app.example".into()), port: Some(8080) };
    let first = &second.backends[0].value;
    assert_eq!((first.weight, first.backup, first.connections_max), (10, true, Some(500)));
    let of_pool = BackendSettings { connections_max: Some(200), ..BackendSettings::new(host) };
    assert_eq!(second.backends[1].value, of_pool);
}

#[test]
fn ring_has_no_post_quantum_group_by_default() {
    let settings = settings(&format!("[tls]\nprovider = \"ring\"\n{MINIMAL}"));
    let groups = [Group::X25519, Group::SECP256R1, Group::SECP384R1];
    assert_eq!(settings.tls.policy.groups, groups);
    assert_eq!(settings.listeners[0].policy.groups, groups);
}

#[test]
fn connections_and_buffers_are_divided_among_engines() {
    let engine = EngineSettings { max_connections: 1_000, ..EngineSettings::default() };
    assert_eq!(engine.connections_per_engine(3), 334);
    assert_eq!(engine.buffers_per_engine(3), 668);
    let engine = EngineSettings { max_connections: 1 << 22, ..engine };
    assert_eq!(engine.buffers_per_engine(1), EngineSettings::BUFFERS_MAX);
    let engine = EngineSettings { buffers: Some(16), ..engine };
    assert_eq!(engine.buffers_per_engine(1), 16);
}

#[test]
fn queues_are_bounded_by_the_credits_unless_written() {
    assert_eq!(QueueSettings::default().bounds(256), [256, 256, 256, 192]);
    assert_eq!(QueueSettings::default().bounds(1), [1, 1, 1, 1]);
}

// ── The example file ────────────────────────────────────────────────────────────────

#[test]
fn the_example_file_parses_without_findings() {
    settings(EXAMPLE);
}

/// The example's commented keys, put in force.
fn example_with_defaults_written_out() -> String {
    let uncomment = |line: &'static str| match line.strip_prefix('#') {
        Some(rest)
            if rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') =>
        {
            rest
        }
        _ => line,
    };
    EXAMPLE.lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_default_is_what_the_example_says() {
    let (as_is, mut written_out) =
        (settings(EXAMPLE), settings(&example_with_defaults_written_out()));
    // Written out, it is the default for one engine with so many credits.
    let credits = 1_024;
    assert_eq!(written_out.handshake.queue.bounds(credits), as_is.handshake.queue.bounds(credits));
    written_out.handshake.queue = QueueSettings::default();
    assert_eq!(as_is.engine, written_out.engine);
    assert_eq!(as_is.handshake, written_out.handshake);
    assert_eq!(as_is.limits, written_out.limits);
    assert_eq!(as_is.timeouts, written_out.timeouts);
    // The default is no file.
    written_out.tls.key_passphrase_file = None;
    written_out.tls.certificate_index = None;
    assert_eq!(as_is.tls, written_out.tls);
    assert_eq!(as_is.session.epoch, written_out.session.epoch);
    assert_eq!(as_is.session.overlap, written_out.session.overlap);
    assert_eq!(as_is.log, written_out.log);
    assert_eq!(as_is.listeners[0].unknown_sni, written_out.listeners[0].unknown_sni);
    let tried = written_out.listeners[0].shadow.as_ref().unwrap();
    let default = settings(&shadow("no_rsa = true"));
    assert_eq!(tried.value.names, default.listeners[0].shadow.as_ref().unwrap().value.names);
    let (pool, written_out) = (&as_is.pools[0], &written_out.pools[0]);
    assert_eq!(pool.balance, written_out.balance);
    assert_eq!(pool.queue_max, written_out.queue_max);
    assert_eq!(pool.slow_start, written_out.slow_start);
    // The default is no checks; what they would be then is written out.
    let check = written_out.check.as_deref().unwrap().clone();
    let script = check.script.clone();
    assert!(matches!(script.expect, Expect::Start(_)) && script.send.ends_with(b"\r\n\r\n"));
    let (port, agent_port) = (check.port, check.agent_port);
    assert_eq!(check, Check { port, agent_port, script, ..Check::default() });
    // The default is no ejection; what it would be then is written out.
    let only_switched_on = settings(&EXAMPLE.replace("#eject_after", "eject_after"));
    assert_eq!(only_switched_on.pools[0].ejection, written_out.ejection);
    assert_eq!(pool.header.values.value, written_out.header.values.value);
    assert_eq!(written_out.header.contents().alignment, 1);
}

#[test]
fn the_example_shows_every_key() {
    let text = example_with_defaults_written_out();
    let document = DeTable::parse(&text).unwrap();
    for (table, keys) in TABLES {
        let value = document.get_ref().get(table).unwrap().get_ref();
        let shown = value.as_table().or_else(|| value.get(0)?.get_ref().as_table()).unwrap();
        for key in keys {
            let inherited = table == "listener" && tls::KEYS.contains(key);
            assert!(inherited || shown.contains_key(*key), "{table}.{key} is not shown");
        }
    }
    let first = |table| document.get_ref().get(table).unwrap().get_ref().get(0).unwrap().get_ref();
    let check = first("pool").get("check").unwrap();
    for key in pool_check::KEYS {
        assert!(check.get_ref().get(*key).is_some(), "pool.check.{key} is not shown");
    }
    let listener = first("listener");
    let route = listener.get("route").and_then(|routes| routes.get_ref().get(0)).unwrap();
    for key in route::KEYS {
        assert!(route.get_ref().get(*key).is_some(), "listener.route.{key} is not shown");
    }
    let clients = listener.get("client_auth").unwrap();
    for key in client_auth::KEYS {
        assert!(clients.get_ref().get(*key).is_some(), "listener.client_auth.{key} is not shown");
    }
    let named = listener.get("client_auth_for").and_then(|named| named.get_ref().get(0)).unwrap();
    let tried = listener.get("shadow").unwrap();
    for key in shadow::KEYS {
        assert!(tried.get_ref().get(*key).is_some(), "listener.shadow.{key} is not shown");
    }
    for key in client_auth::NAMED_KEYS {
        let shown = named.get_ref().get(*key).is_some();
        assert!(shown, "listener.client_auth_for.{key} is not shown");
    }
    let pool = document.get_ref().get("pool").unwrap().get_ref().get(0).unwrap();
    let tls = pool.get_ref().get("tls").unwrap().get_ref();
    for key in ["verify", "ca", "server_name", "certificate"] {
        assert!(tls.get(key).is_some(), "pool.tls.{key} is not shown");
    }
}

// ── TLS towards servers ─────────────────────────────────────────────────────────────

fn pool_tls(text: &str) -> String {
    format!("{MINIMAL}\n[pool.tls]\n{text}\n")
}

#[test]
fn a_pool_speaks_tls_if_it_has_the_table() {
    assert_eq!(settings(MINIMAL).pools[0].tls, None);
    let tls = settings(&pool_tls("")).pools[0].tls.clone().unwrap();
    assert!(tls.verify);
    assert_eq!((tls.ca, tls.certificate, tls.name), (None, None, NameSource::Server));
    let tls = settings(&pool_tls(
        "ca = \"ca.pem\"\nserver_name = \"app.test\"\ncertificate = \"/own.pem\"\n\
         minimum_version = \"1.3\"",
    ));
    let tls = tls.pools[0].tls.clone().unwrap();
    assert_eq!(tls.ca.unwrap().value, Path::new("/etc/forebay/ca.pem"));
    assert_eq!(tls.certificate.unwrap().value, Path::new("/own.pem"));
    assert_eq!(tls.name, NameSource::Fixed("app.test".try_into().unwrap()));
    assert_eq!(tls.policy.minimum_version, Version::Tls13);
}

#[test]
fn tls_towards_servers_that_cannot_be_meant_is_refused() {
    for (text, wanted) in [
        ("verify = \"none\"", "dangerously_accept_anyone"),
        ("verify = \"dangerously_accept_anyone\"\nca = \"a\"", "nothing is verified"),
        ("server_name = \"a b\"", "is not a name that a server can have"),
        ("server_name = \"a.test\"\nserver_name_from = \"client\"", "says it already"),
        ("sni = \"a.test\"", "unknown key"),
    ] {
        let findings = parse(&pool_tls(text), Path::new("/etc/forebay/forebay.toml")).1;
        let told: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
        assert!(told.contains(wanted), "{text}: {told}");
    }
    let text = MINIMAL.replace("10.0.0.1:8080", "unix:/run/app.sock");
    let told = told_exactly(&format!("{text}\n[pool.tls]\n"));
    assert!(told.contains("write server_name ="), "{told}");
}

#[test]
fn not_to_verify_servers_is_warned_of() {
    let text = pool_tls("verify = \"dangerously_accept_anyone\"");
    let (settings, findings) = parse(&text, Path::new("/etc/forebay/forebay.toml"));
    assert!(settings.is_some() && findings.len() == 1, "{findings:?}");
    assert!(findings[0].to_string().contains("whoever comes between"), "{findings:?}");
}

#[test]
fn what_is_passed_through_is_not_wrapped_in_tls_again() {
    let route = "[[listener.route]]\nsni = \"a.test\"\naction = \"passthrough\"\npool = \"web\"";
    let told = told_exactly(&format!("{MINIMAL}\n[pool.tls]\n{route}\n"));
    assert!(told.contains("a pool without this table"), "{told}");
}

// ── Where connections to backends come from ─────────────────────────────────────────

fn source(keys: &str) -> Option<SourceAddress> {
    let settings = settings(&format!("{MINIMAL}\n{keys}"));
    settings.pools[0].source.as_ref().map(|source| source.value)
}

#[test]
fn connections_come_from_an_address_of_each_family_or_from_the_client() {
    let (ipv4, ipv6) = ("10.0.0.5".parse().ok(), "2001:db8::5".parse().ok());
    assert_eq!(source(""), None);
    let own = SourceAddress::Own { ipv4, ipv6: None };
    assert_eq!(source("bind = \"10.0.0.5\""), Some(own));
    let own = SourceAddress::Own { ipv4, ipv6 };
    assert_eq!(source("bind = [\"2001:db8::5\", \"10.0.0.5\"]"), Some(own));
    assert_eq!(source("transparent = false"), None);
    assert_eq!(source("transparent = true"), Some(SourceAddress::Client));
}

#[test]
fn a_source_that_cannot_be_is_told() {
    for (keys, expected) in [
        ("bind = \"10.0.0.5:80\"", "\"10.0.0.5:80\" is no address that a connection can come from"),
        ("bind = \"0.0.0.0\"", "\"0.0.0.0\" is no address that a connection can come from"),
        ("bind = [\"10.0.0.5\", \"10.0.0.6\"]", "a second address of the same family"),
        (
            "bind = \"10.0.0.5\"\ntransparent = true",
            "pool[0].bind: the connections cannot come from the client's address too",
        ),
    ] {
        let told = told_exactly(&format!("{MINIMAL}\n{keys}"));
        assert!(told.contains("error: ") && told.contains(expected), "{told}");
    }
    let unix = MINIMAL.replace("10.0.0.1:8080", "unix:/run/web.sock");
    let told = told_exactly(&format!("{unix}\ntransparent = true"));
    assert!(told.contains("warning: pool[0].transparent: has no effect"), "{told}");
}

// ── Policies that are only tried ────────────────────────────────────────────────────

fn shadow(text: &str) -> String {
    format!("{MINIMAL}\n[listener.shadow]\n{text}\n")
}

#[test]
fn what_a_trial_does_not_say_is_as_the_listener_has_it() {
    let groups = "groups = [\"x25519\"]";
    let text = shadow("minimum_version = \"1.3\"")
        .replace("[[listener]]", &format!("[[listener]]\n{groups}"));
    let settings = settings(&text);
    let listener = &settings.listeners[0];
    let tried = &listener.shadow.as_ref().unwrap().value;
    assert_eq!(tried.terms.minimum_version, Version::Tls13);
    assert_eq!(tried.terms.groups, [Group::X25519]);
    assert_eq!(tried.terms.cipher_suites, listener.policy.cipher_suites);
    assert_eq!((&tried.terms.signature_schemes, tried.names), (&None, 1_024));
}

#[test]
fn a_trial_without_rsa_or_older_groups_leaves_what_is_neither() {
    let settings = settings(&shadow("no_rsa = true\nrequire_pq = true"));
    let tried = &settings.listeners[0].shadow.as_ref().unwrap().value.terms;
    assert_eq!(tried.groups, [Group::X25519_MLKEM768]);
    let schemes = tried.signature_schemes.as_ref().unwrap();
    assert!(schemes.iter().all(|scheme| !scheme.is_rsa()));
    assert_eq!(schemes.len(), 4);
}

#[test]
fn a_trial_that_leaves_nothing_says_what_to_add() {
    for (text, expected) in [
        (
            "groups = [\"x25519\"]\nrequire_pq = true",
            "listener[0].shadow.require_pq: no post-quantum group is left; \
             add \"X25519MLKEM768\" to `groups`, with provider = \"aws-lc-rs\"",
        ),
        (
            "signature_schemes = [\"rsa_pss_rsae_sha256\"]\nno_rsa = true",
            "listener[0].shadow.no_rsa: no signature scheme is left; \
             add \"ecdsa_secp256r1_sha256\" to `signature_schemes`",
        ),
        (
            "signature_schemes = [\"ecdsa_secp256r1_sha265\"]",
            "listener[0].shadow.signature_schemes[0]: \
             unknown signature scheme \"ecdsa_secp256r1_sha265\"; \
             did you mean \"ecdsa_secp256r1_sha256\"?",
        ),
        (
            "names = 8",
            "listener[0].shadow.names: 8 is out of range; write a whole number from 16 to 65536",
        ),
    ] {
        let told = told_exactly(&shadow(text));
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn a_trial_that_could_fail_nobody_is_probably_not_as_meant() {
    for text in ["", "names = 64", "minimum_version = \"1.2\"", "require_pq = false"] {
        let told = told_exactly(&shadow(text));
        assert!(
            told.contains("warning: listener[0].shadow: no client could fail"),
            "{text}: {told}"
        );
    }
    for text in ["no_rsa = true", "require_pq = true", "groups = [\"x25519\"]"] {
        assert_eq!(told_exactly(&shadow(text)), "");
    }
}

// ── Headers of the PROXY protocol ───────────────────────────────────────────────────

/// Keys of a pool that sends headers of version 2.
const HEADER: &str = "backends = [\"10.0.0.1:80\"]\nproxy_protocol = \"v2\"\n";

#[test]
fn what_a_header_says_is_read_with_all_of_its_keys() {
    let settings = settings(&format!(
        "{MINIMAL}proxy_protocol = \"v2\"\n\
         proxy_tlvs = [\"crc32c\", \"ssl_group\"]\nproxy_align = 8\n\
         proxy_custom_tlvs = [{{ type = 0xE0, value = \"{{ja4}}\" }}]\n\
         proxy_pass_tlvs = [\"unique_id\", 0xEA]\nproxy_key_file = \"proxy.keys\"",
    ));
    let header = &settings.pools[0].header;
    let values = Value::ALL.map(|(name, value)| (name, header.values.value.contains(value)));
    let told: Vec<_> = values.iter().filter(|(_, told)| *told).map(|(name, _)| *name).collect();
    assert_eq!(told, ["crc32c", "ssl", "ssl_group"]);
    let contents = header.contents();
    assert_eq!(contents.alignment, 8);
    assert_eq!(contents.custom[0].kind, 0xe0);
    assert!(contents.wants_fingerprint());
    let passed_on = |kind| contents.passed_on.contains(kind);
    assert!(passed_on(0x05) && passed_on(0xea) && !passed_on(0x30));
    assert!(header.key_file.as_ref().unwrap().value.ends_with("proxy.keys"));
}

#[test]
fn mistakes_in_what_a_header_says_are_named_with_their_key() {
    for (keys, parts) in [
        ("proxy_tlvs = [\"ssl_cipher\", \"ssl_grup\"]", ["proxy_tlvs[1]", "\"ssl_group\"?"]),
        ("proxy_align = 65", ["proxy_align", "from 1 to 64"]),
        (
            "proxy_custom_tlvs = [{ type = 0xE0, value = \"{ja3}\" }]",
            ["proxy_custom_tlvs[0].value", "did you mean {ja4}?"],
        ),
        (
            "proxy_custom_tlvs = [{ type = 0xE0, value = \"{x}\" }]",
            ["no placeholder {x}", "{handshake_seconds}"],
        ),
        (
            "proxy_custom_tlvs = [{ type = 0x20, value = \"a\" }]",
            ["proxy_custom_tlvs[0].type", "0xE0 to 0xF7"],
        ),
        ("proxy_custom_tlvs = [{ type = 0xE7, value = \"a\" }]", ["0xE7", "signatures"]),
        (
            "proxy_custom_tlvs = [{ type = 0xE0, value = \"a\" }, { type = 224, value = \"b\" }]",
            ["proxy_custom_tlvs[1].type", "listed twice"],
        ),
        ("proxy_pass_tlvs = [0x20]", ["proxy_pass_tlvs[0]", "knows better"]),
        (
            "proxy_custom_tlvs = [{ type = 0xE0, value = \"a\" }]\nproxy_pass_tlvs = [0xE0]",
            ["proxy_pass_tlvs[0]", "is one of proxy_custom_tlvs"],
        ),
    ] {
        let told = pool(&format!("{HEADER}{keys}"));
        assert_eq!(told.matches("error").count(), 1, "{keys}: {told}");
        for part in parts {
            assert!(told.contains(part), "{keys}: {part} in {told}");
        }
    }
}

#[test]
fn what_version_1_cannot_say_is_not_passed_over_in_silence() {
    let told = pool(&format!("{HEADER}proxy_align = 8").replacen("\"v2\"", "\"v1\"", 1));
    assert!(told.contains("pool[0].proxy_align") && told.contains("warning"), "{told}");
    assert!(told.contains("without proxy_protocol = \"v2\""), "{told}");
}

// ── Routes ──────────────────────────────────────────────────────────────────────────

fn routes(text: &str) -> String {
    format!("{MINIMAL}\n[[listener.route]]\n{text}\n")
}

#[test]
fn a_route_is_read_with_all_of_its_conditions() {
    let text = "sni = [\"a.example\", \"*.b.example\", \"\"]\nalpn = [\"h2\"]\n\
                source = [\"192.0.2.0/24\", \"2001:db8::1\"]\nversion = [\"1.2\", \"1.3\"]\n\
                ja4 = \"t13d1516h2_8daaf6152771_e5627efa2ab1\"\n\
                action = \"passthrough\"\npool = \"web\"";
    let settings = settings(&routes(text));
    let route = &settings.listeners[0].routes[0];
    assert_eq!(&*route.name, "route 1");
    assert_eq!(route.action, Action::Passthrough { pool: 0 });
    let conditions = &route.conditions;
    let names = conditions.server_names.as_ref().unwrap();
    assert!(
        names.none && names.exact.contains("a.example") && names.one_label.contains("b.example")
    );
    assert_eq!(conditions.versions, Some(vec![Version::Tls12, Version::Tls13]));
    assert_eq!(conditions.sources.as_ref().unwrap().len(), 2);
    assert_eq!(conditions.protocols.as_ref().unwrap()[0][..], *b"h2");
    assert_eq!(conditions.fingerprints.as_ref().unwrap().len(), 1);
}

#[test]
fn a_route_that_means_nobody_or_leads_nowhere_is_refused() {
    for (text, wanted) in [
        ("sni = []\npool = \"web\"", "an empty list means nobody"),
        ("sni = \"192.0.2.1\"\npool = \"web\"", "is not a server name"),
        ("alpn = []\npool = \"web\"", "an empty list means nobody"),
        ("version = \"1.1\"\npool = \"web\"", "\"1.1\""),
        ("ja4 = \"x\"\npool = \"web\"", "is not a JA4 fingerprint"),
        ("source = [\"a\"]\npool = \"web\"", "\"a\""),
        ("action = \"reject\"\npool = \"web\"", "a client that is rejected has no pool"),
        ("action = \"passthrough\"", "write pool ="),
        ("pool = \"wbe\"", "did you mean \"web\"?"),
        ("snii = \"a.example\"\npool = \"web\"", "did you mean `sni`?"),
        ("client_certificate = [\"cn:a\"]\npool = \"web\"", "is asked for a certificate"),
    ] {
        let told = told_exactly(&routes(text));
        assert!(told.contains(wanted), "{text}: {told}");
    }
}

// ── Client certificates ─────────────────────────────────────────────────────────────

fn clients(text: &str) -> String {
    format!("{MINIMAL}\n{text}\n")
}

#[test]
fn names_take_what_they_do_not_say_about_clients_from_the_listener() {
    let text = "[listener.client_auth]\nmode = \"optional\"\nca = \"ca.pem\"\n\
                crl_scope = \"client\"\nallow = [\"cn:app\"]\n\
                [[listener.client_auth_for]]\nsni = \"*.b.example\"\nmode = \"required\"\n\
                [[listener.client_auth_for]]\nsni = [\"a.example\"]\nca = \"/other.pem\"";
    let settings = settings(&clients(text));
    let listener = &settings.listeners[0];
    let common = &listener.client_auth;
    assert_eq!(common.mode, ClientAuthMode::Optional);
    assert_eq!(common.authorities[0].value, Path::new("/etc/forebay/ca.pem"));
    assert!(common.revocation.end_entity_only && !common.revocation.unknown_is_good);
    let [required, other] = &listener.client_auth_for[..] else { panic!("two") };
    let expected = ClientAuthSettings { mode: ClientAuthMode::Required, ..common.clone() };
    assert_eq!(required.settings, expected);
    assert_eq!(other.settings.authorities[0].value, Path::new("/other.pem"));
    assert_eq!(other.settings.rules, common.rules);
}

#[test]
fn a_route_by_certificate_only_forwards_and_stands_behind_those_that_do_not() {
    let text = |routes: &str| {
        clients(&format!("[listener.client_auth]\nmode = \"optional\"\nca = \"x\"\n{routes}"))
    };
    let by_certificate = "[[listener.route]]\nclient_certificate = [\"cn:a\"]\npool = \"web\"\n";
    let read = settings(&text(by_certificate));
    assert!(read.listeners[0].routes[0].conditions.certificates.is_some());
    let reject = "[[listener.route]]\nsni = \"b.example\"\naction = \"reject\"\n";
    settings(&text(&format!("{reject}{by_certificate}")));
    let told = told_exactly(&text(&format!("{by_certificate}{reject}")));
    assert!(told.contains("put it before all routes with client_certificate"), "{told}");
    let rejects = "[[listener.route]]\nclient_certificate = [\"cn:a\"]\naction = \"reject\"";
    let told = told_exactly(&text(rejects));
    assert!(told.contains("known only when TLS has ended here"), "{told}");
}

#[test]
fn clients_that_nobody_vouches_for_or_no_rule_can_mean_are_refused_as_settings() {
    for (text, wanted) in [
        ("[listener.client_auth]\nmode = \"required\"", "write ca ="),
        ("[listener.client_auth]\nmode = \"requird\"\nca = \"x\"", "did you mean \"required\"?"),
        ("[listener.client_auth]\nca = []", "write 1 to 64"),
        ("[listener.client_auth]\nca = \"x\"\nallow = []", "would let nobody in"),
        ("[listener.client_auth]\nca = \"x\"\nallow = [\"app\"]", "begin it with dns:"),
        ("[listener.client_auth]\nca = \"x\"\nallow = [\"cn:a\", \"cn:a\"]", "listed twice"),
        ("[listener.client_auth]\nca = \"x\"\ncrl_scope = \"all\"", "expected \"chain\""),
        ("[[listener.client_auth_for]]\nmode = \"none\"", "write sni ="),
        ("[[listener.client_auth_for]]\nsni = \"192.0.2.1\"", "is not a server name"),
        ("[[listener.client_auth_for]]\nsni = [\"a.example\", \"A.example\"]", "listed twice"),
        ("[[listener.client_auth_for]]\nsni = \"a.example\"\nmode = \"required\"", "write ca ="),
    ] {
        let told = told_exactly(&clients(text));
        assert!(told.contains(wanted) && told.contains("client_auth"), "{text}: {told}");
    }
}

#[test]
fn ticket_secrets_are_one_file_or_several_relative_to_the_configuration() {
    let read = |text: &str| settings(&format!("{MINIMAL}\n[session]\n{text}")).session;
    let paths = |text: &str| -> Vec<PathBuf> {
        read(text).secrets.into_iter().map(|path| path.value).collect()
    };
    assert_eq!(paths("secrets = \"a\""), [Path::new("/etc/forebay/a")]);
    assert_eq!(paths("secrets = [\"a\", \"/b\"]"), [Path::new("/etc/forebay/a"), Path::new("/b")]);
    let overlap = read("epoch = \"1h\"").overlap;
    assert_eq!(overlap, Duration::from_secs(3_600), "as long as the epoch");
}

#[test]
fn tickets_do_not_outlive_the_next_epoch_or_seven_days() {
    for (text, wanted) in [
        ("epoch = \"8d\"", "from \"1s\" to \"7d\""),
        ("epoch = \"1h\"\noverlap = \"2h\"", "from \"1s\" to \"1h\""),
        ("epoch = \"1500ms\"", "not a whole number of seconds"),
        ("secrets = []", "0 files are listed"),
    ] {
        let told = told_exactly(&format!("{MINIMAL}\n[session]\n{text}"));
        assert!(told.contains(wanted) && told.contains("session."), "{text}: {told}");
    }
}

// ── What a wrong file is told ───────────────────────────────────────────────────────

#[test]
fn an_unknown_key_is_told_the_nearest() {
    assert_eq!(
        listener(&format!("{LISTENER}certificats = []")),
        "8:1: error: listener[0].certificats: unknown key; did you mean `certificates`?"
    );
    assert_eq!(
        told("[timeouts]\nclienthello = \"5s\""),
        "2:1: error: timeouts.clienthello: unknown key; did you mean `client_hello`?"
    );
    assert_eq!(
        told("handshake.queue.ras = 5"),
        "1:17: error: handshake.queue.ras: unknown key; did you mean `rsa`?"
    );
}

#[test]
fn a_key_in_the_wrong_table_is_told_the_right_one() {
    assert_eq!(
        told("[engine]\nidle = \"5m\""),
        "2:1: error: engine.idle: unknown key; it belongs in [timeouts]"
    );
    assert_eq!(
        told("address = \":443\""),
        "1:1: error: address: unknown key; it belongs in [admin] or [[listener]]"
    );
}

#[test]
fn a_key_like_no_other_is_told_all_keys() {
    assert_eq!(
        told("[log]\nzzz = 1"),
        "2:1: error: log.zzz: unknown key; the keys here are level, failures_per_second"
    );
}

#[test]
fn an_unknown_table_is_told_the_nearest() {
    assert_eq!(told("[engin]"), "1:2: error: engin: unknown table; did you mean [engine]?");
    assert_eq!(
        told("[[listeners]]"),
        "1:3: error: listeners: unknown table; did you mean [[listener]]?"
    );
    assert_eq!(
        told("[zzz]"),
        "1:2: error: zzz: unknown table; the tables are [engine], [handshake], [limits], \
         [timeouts], [tls], [session], [log], [admin], [resolver], [[listener]] or [[pool]]"
    );
}

#[test]
fn a_single_table_where_a_list_belongs_is_told_the_brackets() {
    assert_eq!(
        told_exactly(&MINIMAL.replace("[[pool]]", "[pool]")),
        "5:8: error: listener[0].pool: there is no pool \"web\"; \
         add a [[pool]] with name = \"web\"\n\
         6:1: error: pool: expected a list of tables, found a table; \
         write the table as [[pool]], once for each pool"
    );
}

#[test]
fn a_value_where_a_table_belongs_is_told_the_keys() {
    assert_eq!(
        told("log = 3"),
        "1:7: error: log: expected a table, found the number 3; \
         write a table with the keys level, failures_per_second"
    );
}

#[test]
fn a_value_of_the_wrong_type_is_told_what_was_expected() {
    assert_eq!(
        told("tls.strict_truncation = \"yes\""),
        "1:25: error: tls.strict_truncation: expected true or false, found \"yes\""
    );
    assert_eq!(
        told("engine.backlog = \"many\""),
        "1:18: error: engine.backlog: expected a whole number from 1 to 65535, found \"many\""
    );
    assert_eq!(
        told("engine.engines = \"all\""),
        "1:18: error: engine.engines: expected \"auto\" or a whole number from 1 to 256, \
         found \"all\""
    );
    assert_eq!(
        told("engine.cpus = 3"),
        "1:15: error: engine.cpus: expected a list, found the number 3; \
         write the values in square brackets: [a, b]"
    );
    assert_eq!(
        listener(&format!("{LISTENER}name = 2024-05-01")),
        "8:8: error: listener[0].name: expected text in quotes, found a date or time"
    );
    assert_eq!(
        listener(&format!("{LISTENER}alpn = [1.5]")),
        "8:9: error: listener[0].alpn[0]: expected text in quotes, found the number 1.5"
    );
}

#[test]
fn a_long_value_is_cut_in_the_message() {
    let message = told(&format!("tls.strict_truncation = \"{}\"", "é".repeat(500)));
    assert!(message.ends_with(&format!("found \"{}…\"", "é".repeat(40))), "{message}");
}

#[test]
fn a_number_out_of_range_is_told_the_range() {
    assert_eq!(
        told("engine.max_connections = 0"),
        "1:26: error: engine.max_connections: 0 is out of range; \
         write a whole number from 1 to 4194304"
    );
    assert_eq!(
        told("engine.backlog = -1"),
        "1:18: error: engine.backlog: -1 is out of range; write a whole number from 1 to 65535"
    );
    assert_eq!(
        told("handshake.workers = 99999999999999999999999"),
        "1:21: error: handshake.workers: 99999999999999999999999 is out of range; \
         write a whole number from 1 to 256"
    );
}

#[test]
fn a_duration_without_unit_is_told_to_write_one() {
    assert_eq!(
        told("timeouts.connect = 3"),
        "1:20: error: timeouts.connect: expected a duration such as \"5s\", found the number 3; \
         write the unit: \"3ms\" or \"3s\""
    );
    assert_eq!(
        told("timeouts.connect = \"3\""),
        "1:20: error: timeouts.connect: \"3\" has no unit; \
         write one of us, ms, s, m, h, d after the number, such as \"5s\""
    );
    assert_eq!(
        told("timeouts.connect = \"3 sec\""),
        "1:20: error: timeouts.connect: \"3 sec\" has an unknown unit; \
         the units are us, ms, s, m, h, d, as in \"5s\""
    );
    assert_eq!(
        told("timeouts.connect = \"soon\""),
        "1:20: error: timeouts.connect: \"soon\" is not a duration; \
         write a whole number and a unit, such as \"5s\""
    );
}

#[test]
fn a_duration_out_of_range_is_told_the_range() {
    assert_eq!(
        told("timeouts.idle = \"8d\""),
        "1:17: error: timeouts.idle: \"8d\" is out of range; \
         write a duration from \"10ms\" to \"7d\""
    );
    assert_eq!(
        told("timeouts.idle = \"99999999999999999d\""),
        "1:17: error: timeouts.idle: \"99999999999999999d\" is too large; \
         write a smaller duration, such as \"5s\""
    );
}

#[test]
fn a_size_is_told_the_same() {
    assert_eq!(
        told("tls.small_records = 16384"),
        "1:21: error: tls.small_records: expected a size such as \"16KiB\", \
         found the number 16384; write the unit: \"16384B\" or \"16384KiB\""
    );
    assert_eq!(
        told("tls.small_records = \"16kb\""),
        "1:21: error: tls.small_records: \"16kb\" has an unknown unit; \
         the units are B, KiB, MiB, GiB, as in \"16KiB\""
    );
    assert_eq!(
        told("tls.small_records = \"2MiB\""),
        "1:21: error: tls.small_records: \"2MiB\" is out of range; \
         write a size from \"0B\" to \"1MiB\""
    );
}

#[test]
fn a_word_that_is_no_choice_is_told_the_choices() {
    assert_eq!(
        pool("backends = [\"10.0.0.1:80\"]\nproxy_protocol = \"2\""),
        "8:18: error: pool[0].proxy_protocol: expected \"none\", \"v1\" or \"v2\", found \"2\"; \
         did you mean \"v2\"?"
    );
    assert_eq!(
        pool("backends = [\"10.0.0.1:80\"]\nbalance = \"leastconn\""),
        "8:11: error: pool[0].balance: expected \"round_robin\", \"least_connections\", \
         \"random_two\" or \"maglev\", found \"leastconn\"; did you mean \"least_connections\"?"
    );
    assert_eq!(
        told("tls.minimum_version = 1.2"),
        "1:23: error: tls.minimum_version: expected \"1.2\" or \"1.3\", found the number 1.2"
    );
}

#[test]
fn a_word_or_a_duration_is_told_both() {
    assert_eq!(settings(&format!("engine.spin = \"always\"\n{MINIMAL}")).engine.spin, Spin::Always);
    assert_eq!(
        told("engine.spin = \"allways\""),
        "1:15: error: engine.spin: expected \"off\", \"always\" or \
         a duration from \"1us\" to \"10ms\", found \"allways\"; did you mean \"always\"?"
    );
    assert_eq!(
        told("engine.spin = 50"),
        "1:15: error: engine.spin: expected \"off\", \"always\" or \
         a duration from \"1us\" to \"10ms\", found the number 50"
    );
    assert_eq!(
        told("engine.spin = \"1s\""),
        "1:15: error: engine.spin: \"1s\" is out of range; \
         write a duration from \"1us\" to \"10ms\""
    );
}

#[test]
fn a_listen_address_is_told_its_mistake() {
    let told = |address: &str| {
        listener(&format!("address = \"{address}\"\ncertificates = [\"a\"]\npool = \"web\""))
    };
    assert_eq!(
        told("0.0.0.0"),
        "5:11: error: listener[0].address: \"0.0.0.0\" is not an address to listen on; \
         write the port too: \"0.0.0.0:443\""
    );
    assert_eq!(
        told("::1"),
        "5:11: error: listener[0].address: \"::1\" is not an address to listen on; \
         write the port too: \"[::1]:443\""
    );
    assert_eq!(
        told("localhost:443"),
        "5:11: error: listener[0].address: \"localhost:443\" is not an address to listen on; \
         write an IP address and a port, such as \"192.0.2.1:443\" or \"[2001:db8::1]:443\", \
         or \":443\" for every address"
    );
    assert_eq!(
        told(":0"),
        "5:11: error: listener[0].address: \":0\" has port 0; \
         every engine listens on the same port: write it, such as \":443\""
    );
}

#[test]
fn a_backend_in_a_table_is_told_its_mistake() {
    let told = |backend: &str| pool(&format!("backends = [{backend}]"));
    assert_eq!(
        told("{ addres = \"10.0.0.1:80\" }"),
        "7:13: error: pool[0].backends[0].address: missing key; \
         write { address = \"10.0.0.1:8080\" }\n\
         7:15: error: pool[0].backends[0].addres: unknown key; did you mean `address`?"
    );
    assert_eq!(
        told("{ address = \"10.0.0.1\", weight = 257 }"),
        "7:25: error: pool[0].backends[0].address: \"10.0.0.1\" has no port; \
         write \"10.0.0.1:8080\""
    );
    assert_eq!(
        told("{ address = \"10.0.0.1:80\", weight = 257, connections_max = 0 }"),
        "7:49: error: pool[0].backends[0].weight: 257 is out of range; \
         write a whole number from 0 to 256\n\
         7:72: error: pool[0].backends[0].connections_max: 0 is out of range; \
         write a whole number from 1 to 1000000"
    );
    assert_eq!(
        told("{ address = \"10.0.0.1:80\", weight = 0 }"),
        "7:12: error: pool[0].backends: no backend has a weight above 0: nobody would be served; \
         give one of them a weight"
    );
    assert_eq!(
        told("{ address = \"10.0.0.1:80\" }, \"10.0.0.1:80\""),
        "7:42: error: pool[0].backends[1]: \"10.0.0.1:80\" is listed twice; \
         take one of the two out"
    );
}

#[test]
fn a_key_of_a_pool_that_has_no_effect_is_told() {
    let told = |key: &str| told(&MINIMAL.replace("[[pool]]", &format!("[[pool]]\n{key}")));
    assert!(told("hash = \"sni\"").contains("pool[0].hash: has no effect without balance"));
    assert!(told("queue_max = 5").contains("pool[0].queue_max: has no effect: no backend"));
    assert!(told("eject_time = \"5s\"").contains("pool[0].eject_time: has no effect without"));
}

#[test]
fn a_check_is_told_its_mistakes() {
    let told = |keys: &str| told_exactly(&format!("{MINIMAL}[pool.check]\n{keys}"));
    assert_eq!(told(""), "");
    assert_eq!(
        told("send = 'a\\q'"),
        "10:8: error: pool[0].check.send: \"a\\\\q\" has a \\ that stands for nothing; \
         write \\r, \\n, \\t, \\0, \\x7f, or \\\\ for itself, in '' or with each \\ doubled in \"\""
    );
    assert_eq!(
        told("expect = \"\""),
        "10:10: error: pool[0].check.expect: is empty; \
         write what the answer must be, or take the key out"
    );
    assert_eq!(
        told("expect_at = \"anywhere\""),
        "10:13: warning: pool[0].check.expect_at: has no effect without expect; write expect too"
    );
    let tls = "[pool.tls]\nverify = \"dangerously_accept_anyone\"";
    assert!(!told(&format!("port = 81\nsend = \"PING\"\n{tls}")).contains("pool[0].check"));
    let clear = told(&format!("send = \"PING\"\n{tls}"));
    let expected = "10:8: error: pool[0].check.send: checks speak in clear, and these servers are \
                    spoken TLS; write port for one that is not, or take the key out";
    assert!(clear.contains(expected), "{clear}");
    let long = "x".repeat(1_025);
    assert_eq!(
        told(&format!("send = \"{long}\"")),
        "10:8: error: pool[0].check.send: has 1025 bytes; write at most 1024 bytes"
    );
}

#[test]
fn a_backend_is_told_its_mistake() {
    let told = |backend: &str| pool(&format!("backends = [\"{backend}\"]"));
    assert_eq!(
        told("/run/app.sock"),
        "7:13: error: pool[0].backends[0]: \"/run/app.sock\" is not a backend; \
         for a UNIX socket write \"unix:/run/app.sock\""
    );
    assert_eq!(
        told("http://app:80/"),
        "7:13: error: pool[0].backends[0]: \"http://app:80/\" is not a backend: \
         it is reached over plain TCP, not http; write \"app:80\" with its port"
    );
    assert_eq!(
        told("10.0.0.1"),
        "7:13: error: pool[0].backends[0]: \"10.0.0.1\" has no port; write \"10.0.0.1:8080\""
    );
    assert_eq!(
        told("app.example"),
        "7:13: error: pool[0].backends[0]: \"app.example\" has no port; \
         write \"app.example:8080\""
    );
    assert_eq!(
        told("app:99999"),
        "7:13: error: pool[0].backends[0]: \"app:99999\" has no valid port; \
         write a port from 1 to 65535: \"app:8080\""
    );
    assert_eq!(
        told("10.0.0.256:80"),
        "7:13: error: pool[0].backends[0]: \"10.0.0.256:80\" is not a backend; \
         write \"10.0.0.1:8080\", \"[2001:db8::1]:8080\", \"host.example:8080\", \
         \"srv:_app._tcp.example\" or \"unix:/run/app.sock\""
    );
    assert_eq!(
        told("unix:@app"),
        "7:13: error: pool[0].backends[0]: \"unix:@app\" is an abstract socket, \
         which is not supported; write the path of a socket file, such as \
         \"unix:/run/app.sock\""
    );
    let path = format!("/{}", "p".repeat(107));
    assert_eq!(
        told(&format!("unix:{path}")),
        format!(
            "7:13: error: pool[0].backends[0]: the path {path} has 108 bytes; \
             the kernel takes at most 107 bytes: move the socket to a shorter path"
        )
    );
}

#[test]
fn a_pool_needs_backends_and_not_too_many() {
    assert_eq!(
        pool("backends = []"),
        "7:12: error: pool[0].backends: no backend is listed; \
         a pool has 1 to 128, such as [\"10.0.0.1:8080\"]"
    );
    assert_eq!(
        pool(""),
        "5:1: error: pool[0].backends: missing key; write backends = [\"10.0.0.1:8080\"]"
    );
    let many: Vec<String> =
        (1..=Pool::BACKENDS_MAX + 1).map(|port| format!("\"10.0.0.1:{port}\"")).collect();
    assert_eq!(
        pool(&format!("backends = [{}]", many.join(","))),
        "7:12: error: pool[0].backends: 129 backends are listed; \
         a pool has 1 to 128, such as [\"10.0.0.1:8080\"]"
    );
}

#[test]
fn a_listener_is_told_each_missing_key() {
    assert_eq!(
        listener(""),
        "4:1: error: listener[0].address: missing key; write address = \":443\"\n\
         4:1: error: listener[0].certificates: missing key; \
         write certificates = [\"site.pem\"] or a directory of PEM files\n\
         4:1: error: listener[0].pool: missing key; write pool = \"name\" of a [[pool]]"
    );
    assert_eq!(
        listener("address = \":443\"\ncertificates = []\npool = \"web\""),
        "6:16: error: listener[0].certificates: no certificate is listed; \
         write the path of a PEM file, or of a directory of such"
    );
}

#[test]
fn an_unknown_pool_is_told_the_nearest() {
    let keys = "address = \":443\"\ncertificates = [\"a\"]\n";
    let only_listener = |pool: &str| {
        let told = listener(&format!("{keys}pool = \"{pool}\""));
        told.lines().last().unwrap().to_owned()
    };
    assert_eq!(
        only_listener("wbe"),
        "7:8: error: listener[0].pool: there is no pool \"wbe\"; did you mean \"web\"?"
    );
    assert_eq!(
        only_listener("zzz"),
        "7:8: error: listener[0].pool: there is no pool \"zzz\"; the pools are \"web\""
    );
}

#[test]
fn an_empty_file_is_told_what_it_needs() {
    assert_eq!(
        lines(&parsed("").1).replace("/etc/forebay/", ""),
        "forebay.toml: error: there is no [[pool]]; add a table [[pool]]\n\
         forebay.toml: error: there is no [[listener]]; add a table [[listener]]"
    );
}

#[test]
fn no_address_is_listened_on_twice() {
    let told = |first: &str, second: &str| {
        told_exactly(&format!(
            "{MINIMAL}[[listener]]\nname=\"b\"\naddress = \"{second}\"\ncertificates = [\"a\"]\n\
             pool = \"web\"\n"
        )
        .replace("0.0.0.0:443", first))
    };
    assert_eq!(
        told("0.0.0.0:443", "0.0.0.0:443"),
        "11:11: error: listener[1].address: 0.0.0.0:443 is already taken by \
         listener[0].address in line 3; write another address or port"
    );
    assert_eq!(
        told("0.0.0.0:443", ":443"),
        "11:11: error: listener[1].address: [::]:443 is already taken by \
         listener[0].address in line 3; write another address or port"
    );
    assert_eq!(told("192.0.2.1:443", ":443"), "", "the more specific one is chosen");
    assert_eq!(told("0.0.0.0:443", "0.0.0.0:444"), "");
    assert_eq!(
        told_exactly(&format!("admin.address = \"0.0.0.0:443\"\n{MINIMAL}")),
        "1:17: error: admin.address: 0.0.0.0:443 is already taken by \
         listener[0].address in line 4; write another address or port"
    );
}

#[test]
fn no_name_is_given_twice() {
    let text = MINIMAL.replace("[[listener]]", "[[listener]]\nname = \"a\"");
    let again = "[[listener]]\nname = \"a\"\naddress = \":1\"\ncertificates = [\"a\"]\npool = \"web\"\n\
                 [[pool]]\nname = \"web\"\nbackends = [\"unix:/a\"]";
    assert_eq!(
        told_exactly(&format!("{text}{again}")),
        "11:8: error: listener[1].name: another listener is already called \"a\"; \
         give each a name of its own\n\
         16:8: error: pool[1].name: another pool is already called \"web\"; \
         give each a name of its own"
    );
    assert_eq!(
        pool("backends = [\"unix:/a\"]\nname = \"\""),
        "8:1: error: not TOML: duplicate key"
    );
}

#[test]
fn a_name_must_fit_a_log_line() {
    assert_eq!(
        listener(&format!("{LISTENER}name = \"a\\nb\"")),
        "8:8: error: listener[0].name: \"a\\nb\" cannot be a name; \
         write 1 to 64 characters without line breaks"
    );
}

#[test]
fn a_value_listed_twice_is_reported() {
    assert_eq!(
        pool("backends = [\"10.0.0.1:80\", \"10.0.0.1:80\"]"),
        "7:28: error: pool[0].backends[1]: \"10.0.0.1:80\" is listed twice; \
         take one of the two out"
    );
    assert_eq!(
        listener(&format!("{LISTENER}alpn = [\"h2\", \"h2\", \"\"]")),
        "8:15: error: listener[0].alpn[1]: \"h2\" is listed twice; \
         its first place counts: take this one out\n\
         8:21: error: listener[0].alpn[2]: a protocol name of 0 bytes; \
         a name has 1 to 255 bytes, such as \"h2\" or \"http/1.1\""
    );
    assert_eq!(
        told("engine.cpus = [1, \"0-1\"]"),
        "1:19: error: engine.cpus[1]: CPU 1 is listed twice; name each CPU once"
    );
    assert_eq!(
        told("tls.groups = [\"x25519\", \"X25519\"]"),
        "1:25: error: tls.groups[1]: \"X25519\" is listed twice; \
         take one of the two out"
    );
}

#[test]
fn an_unknown_cipher_suite_is_told_the_nearest() {
    assert_eq!(
        told("tls.cipher_suites = [\"TLS_AES_128_GCM_SHA256\", \"ECDHE-RSA-AES128-GCM-SHA25\"]"),
        "1:48: error: tls.cipher_suites[1]: unknown cipher suite \"ECDHE-RSA-AES128-GCM-SHA25\"; \
         did you mean \"ECDHE-RSA-AES128-GCM-SHA256\"?"
    );
}

#[test]
fn a_version_without_cipher_suites_is_reported() {
    assert_eq!(
        told("tls.cipher_suites = []"),
        "1:21: error: tls.cipher_suites: the list is empty; take the key out for the default"
    );
    assert_eq!(
        told("tls.cipher_suites = [\"ECDHE-RSA-AES128-GCM-SHA256\"]"),
        "1:21: warning: tls.cipher_suites: no TLS 1.3 cipher suite is listed, \
         so that version is not offered; add \"TLS_AES_128_GCM_SHA256\""
    );
    assert_eq!(
        told("tls.cipher_suites = [\"TLS_AES_128_GCM_SHA256\"]"),
        "1:21: warning: tls.cipher_suites: no TLS 1.2 cipher suite is listed, \
         so that version is not offered; add one, or set minimum_version = \"1.3\""
    );
    let only_tls12 = "[tls]\ncipher_suites = [\"ECDHE-RSA-AES128-GCM-SHA256\"]\n";
    let text = MINIMAL.replace("pool = \"web\"", "pool = \"web\"\nminimum_version = \"1.3\"");
    assert_eq!(
        told_exactly(&format!("{only_tls12}{text}")).lines().last(),
        Some(
            "8:19: error: listener[0].minimum_version: no TLS 1.3 cipher suite is listed, \
             and older versions are refused; add \"TLS_AES_128_GCM_SHA256\""
        )
    );
}

#[test]
fn a_group_must_exist_in_the_library() {
    assert_eq!(
        told("[tls]\nprovider = \"ring\"\ngroups = [\"X25519MLKEM768\", \"x448\"]"),
        "3:11: error: tls.groups[0]: X25519MLKEM768 is not available with \
         provider = \"ring\"; take it out, or set provider = \"aws-lc-rs\"\n\
         3:29: error: tls.groups[1]: unknown key-exchange group \"x448\"; \
         known are X25519MLKEM768, x25519, secp256r1, secp384r1"
    );
    assert_eq!(
        told("tls.groups = [\"secp256r\"]"),
        "1:15: error: tls.groups[0]: unknown key-exchange group \"secp256r\"; \
         did you mean \"secp256r1\"?"
    );
}

#[test]
fn cpus_must_suffice_for_the_threads() {
    assert_eq!(
        told("[engine]\nengines = 3\ncpus = [\"0-1\"]"),
        "3:8: error: engine.cpus: 2 CPUs for 3 engines; \
         list at least 3, or set engines = \"auto\""
    );
    assert_eq!(
        told("engine.cpus = [\"3-1\", 9000]"),
        "1:16: error: engine.cpus[0]: \"3-1\" is not a range of CPUs; \
         write CPU numbers from 0 to 8191, such as 3 or \"4-7\"\n\
         1:23: error: engine.cpus[1]: 9000 is out of range; \
         write a whole number from 0 to 8191"
    );
}

#[test]
fn a_limit_is_told_its_mistake() {
    assert_eq!(
        told("[limits]\nsource_connections = \"none\""),
        "2:22: error: limits.source_connections: expected \"off\" or a whole number from 1 to \
         4194304, found \"none\""
    );
    assert_eq!(
        told("[limits]\nhandshakes_per_second = 0"),
        "2:25: error: limits.handshakes_per_second: 0 is out of range; write a whole number from \
         1 to 1000000"
    );
    assert_eq!(
        told("[limits]\nipv4_prefix = 33"),
        "2:15: error: limits.ipv4_prefix: 33 is out of range; write a whole number from 1 to 32"
    );
    assert_eq!(
        told("[limits]\nexempt = [\"10.0.0.1/8\", \"::1\", \"::1/128\"]"),
        "2:11: error: limits.exempt[0]: \"10.0.0.1/8\" has bits beyond its prefix; write \
         \"10.0.0.0/8\", or \"10.0.0.1\" for the one address\n\
         2:32: error: limits.exempt[2]: ::1/128 is listed twice; name each prefix once"
    );
    let many = (0..65).map(|host| format!("\"10.0.0.{host}\"")).collect::<Vec<_>>().join(",");
    let text = told(&format!("[limits]\nexempt = [{many}]"));
    assert!(text.ends_with("limits.exempt[64]: 65 prefixes; write at most 64"), "{text}");
    assert_eq!(
        told("[limits]\nsource_connections = 5\nsource_incomplete_handshakes = 5"),
        "3:32: warning: limits.source_incomplete_handshakes: has no effect beside \
         source_connections = 5; write a lower one"
    );
}

#[test]
fn suspicious_settings_are_warned_of_and_used() {
    assert_eq!(
        told("engine.cpus = [0, 1]\nhandshake.cpus = [1]"),
        "2:18: warning: handshake.cpus: engines are pinned to the same CPUs (1); \
         give handshakes CPUs of their own, or they delay what engines relay"
    );
    assert_eq!(
        told("[handshake]\ninline = true\nworkers = 2"),
        "3:11: warning: handshake.workers: has no effect with inline = true; \
         take one of the two out"
    );
    assert_eq!(
        told("[engine]\nspin = \"always\"\nnapi_busy_poll = \"50us\""),
        "3:18: warning: engine.napi_busy_poll: has no effect with spin = \"always\": the kernel \
         polls devices only before an engine sleeps; take one of the two out"
    );
    let unused = format!("{MINIMAL}[[pool]]\nname = \"spare\"\nbackends = [\"unix:/a\"]");
    assert_eq!(
        told_exactly(&unused),
        "10:8: warning: pool[1].name: no listener uses the pool \"spare\"; \
         name it in a [[listener]], or take it out"
    );
    assert!(parsed(&unused).0.is_some());
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_text() {
    let told = told("[tls]\nprovider = 1\ngroups = 2\n[engine]\nbacklog = 0\nx = 1");
    let places: Vec<&str> = told.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(places, ["2", "3", "5", "6"]);
}

#[test]
fn broken_syntax_is_told_by_line_and_nothing_else_is_guessed() {
    assert_eq!(
        told_exactly("[engine]\nbacklog = many\n"),
        "2:11: error: not TOML: string values must be quoted, expected literal string"
    );
    assert_eq!(told_exactly("a = 1\na = 2"), "2:1: error: not TOML: duplicate key");
}

// ── Files ───────────────────────────────────────────────────────────────────────────

#[test]
fn a_file_is_loaded_with_paths_relative_to_it() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("forebay.toml");
    std::fs::write(&file, MINIMAL).unwrap();
    let (settings, findings) = load(&file);
    assert_eq!(findings, []);
    let certificates = &settings.unwrap().listeners[0].certificates;
    assert_eq!(certificates[0].value, directory.path().join("site.pem"));
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("forebay.toml");
    let told = |file: &Path| {
        let (settings, findings) = load(file);
        assert!(settings.is_none());
        lines(&findings).replace(&format!("{}/", directory.path().display()), "")
    };
    assert_eq!(
        told(&file),
        "forebay.toml: error: cannot be read: No such file or directory (os error 2)"
    );
    std::fs::write(&file, b"# \xc3\xa9\na = \"\xff\"").unwrap();
    assert_eq!(told(&file), "forebay.toml:2:6: error: is not UTF-8 text here");
    assert_eq!(told(Path::new("/dev/zero")), "/dev/zero: error: is larger than 4 MiB");
}

// ── Names into addresses ────────────────────────────────────────────────────────────

fn with_backends(backends: &str) -> Settings {
    settings(&with_backends_text(backends))
}

fn with_backends_text(backends: &str) -> String {
    MINIMAL.replace("\"10.0.0.1:8080\"", backends)
}

fn named(host: &str, addresses: &[&str]) -> Vec<NamedServer> {
    let server = |address: &&str| NamedServer {
        host: host.to_owned(),
        address: address.parse().unwrap(),
        port: None,
        weight: None,
        backup: false,
    };
    addresses.iter().map(server).collect()
}

#[test]
fn every_address_of_a_name_becomes_a_backend_once() {
    let settings = with_backends("\"10.0.0.1:80\", \"A.example:80\", \"unix:/a\"");
    let (pools, findings) = resolve(&settings, 1, |name| {
        assert_eq!(*name, Wanted::Host("a.example".into()));
        Ok(named("a.example", &["10.0.0.1", "10.0.0.2", "2001:db8::1"]))
    });
    assert!(findings.is_empty(), "{findings:?}");
    let backends: Vec<(String, &str)> = pools[0]
        .backends
        .iter()
        .map(|backend| (backend.endpoint.to_string(), backend.name.as_str()))
        .collect();
    assert_eq!(
        backends,
        [
            ("10.0.0.1:80".into(), "10.0.0.1:80"),
            ("10.0.0.2:80".into(), "a.example:80 (10.0.0.2)"),
            ("[2001:db8::1]:80".into(), "a.example:80 (2001:db8::1)"),
            ("unix:/a".into(), "unix:/a"),
        ]
    );
    assert_eq!(&*pools[0].name, "web");
}

#[test]
fn a_service_gives_its_servers_ports_weights_and_backups() {
    let settings = with_backends("\"srv:_app._tcp.example\"");
    let (pools, _) = resolve(&settings, 1, |name| {
        assert_eq!(*name, Wanted::Service("_app._tcp.example".into()));
        let [one, two] = ["a", "b"].map(|host| named(host, &["10.0.0.1"]).remove(0));
        let one = NamedServer { port: Some(81), weight: Some(7), ..one };
        Ok(vec![one, NamedServer { port: Some(82), backup: true, ..two }])
    });
    let backends: Vec<(&str, u16, bool)> = pools[0]
        .backends
        .iter()
        .map(|backend| (backend.name.as_str(), backend.weight, backend.backup))
        .collect();
    assert_eq!(backends, [("a:81 (10.0.0.1)", 7, false), ("b:82 (10.0.0.1)", 1, true)]);
}

#[test]
fn a_pool_without_any_server_is_an_error_for_every_name() {
    let settings = with_backends("\"a.example:80\", \"srv:b.example\"");
    let (_, findings) = resolve(&settings, 1, |name| match name {
        Wanted::Host(_) => Err(Condition::Failing(RecordType::A, Failure::Timeout)),
        Wanted::Service(_) => Err(Condition::Absent { exists: false }),
    });
    assert_eq!(
        lines(&findings).replace("/etc/forebay/", ""),
        "forebay.toml:8:13: error: pool[0].backends[0]: a.example:80 cannot be resolved, and its \
         pool has no other: no nameserver answers in time (A); check the name and [resolver], or \
         write an IP address\n\
         forebay.toml:8:29: error: pool[0].backends[1]: srv:b.example cannot be resolved, and its \
         pool has no other: there is no such name; check the name and [resolver], or write an IP \
         address"
    );
}

#[test]
fn a_pool_does_without_a_name_that_does_not_resolve() {
    let settings = with_backends("\"a.example:80\", \"10.0.0.1:80\"");
    let (pools, findings) = resolve(&settings, 1, |_| Err(Condition::Untried));
    assert_eq!(pools[0].backends.len(), 1);
    assert_eq!(
        lines(&findings).replace("/etc/forebay/", ""),
        "forebay.toml:8:13: warning: pool[0].backends[0]: a.example:80 cannot be resolved: no \
         nameserver has answered yet; its pool does without it until it can"
    );
}

#[test]
fn of_more_servers_than_a_pool_takes_the_first_are_taken() {
    let settings = with_backends("\"10.1.0.1:80\", \"a.example:80\"");
    let addresses: Vec<String> =
        (0..Pool::BACKENDS_MAX).map(|last| format!("10.0.0.{last}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let (pools, findings) = resolve(&settings, 1, |_| Ok(named("a.example", &addresses)));
    assert_eq!(pools[0].backends.len(), Pool::BACKENDS_MAX);
    assert_eq!(
        lines(&findings).replace("/etc/forebay/", ""),
        "forebay.toml:7:8: warning: pool[0].name: the names stand for 129 backends; \
         a pool has at most 128: the others are left out"
    );
}

#[test]
fn a_service_has_no_weight_of_its_own_and_no_port() {
    let backends = "{ address = \"srv:_app._tcp.example\", weight = 2 }, \"srv:app.example:80\"";
    let (settings, findings) = parsed(&with_backends_text(backends));
    assert!(settings.is_none());
    let text = lines(&findings);
    assert!(text.contains("a service has the weights of its SRV records"), "{text}");
    assert!(text.contains("without a port: the SRV records have it"), "{text}");
}

#[test]
fn a_resolver_is_read_and_its_mistakes_are_told() {
    let text = |resolver: &str| {
        format!("{}[resolver]\n{resolver}\n", with_backends_text("\"10.0.0.1:80\""))
    };
    let (settings, findings) = parsed(&text(
        "nameservers = [\"192.0.2.53\", \"[2001:db8::53]:5353\"]\ntimeout = \"2s\"\nattempts = 3\n\
         families = \"ipv4\"\nttl_min = \"5s\"\nttl_max = \"1m\"\nhosts = \"hosts\"",
    ));
    assert!(findings.is_empty(), "{findings:?}");
    let resolver = settings.unwrap().resolver;
    let nameservers = ["192.0.2.53:53", "[2001:db8::53]:5353"].map(|at| at.parse().unwrap());
    assert_eq!(resolver.nameservers, Some(nameservers.into()));
    assert_eq!((resolver.timeout, resolver.attempts), (Some(Duration::from_secs(2)), Some(3)));
    assert_eq!(resolver.hosts, Path::new("/etc/forebay/hosts"));
    assert_eq!(resolver.resolv_conf, Path::new("/etc/resolv.conf"));
    for (wrong, told) in [
        ("nameservers = []", "write 1 to 3"),
        ("nameservers = [\"dns.example\"]", "\"dns.example\" is not a nameserver"),
        ("ttl_min = \"2m\"\nttl_max = \"1m\"", "write a ttl_max above ttl_min"),
        ("attempts = 0", "out of range"),
    ] {
        let (settings, findings) = parsed(&text(wrong));
        assert!(settings.is_none() && lines(&findings).contains(told), "{}", lines(&findings));
    }
}

// ── Nothing panics ──────────────────────────────────────────────────────────────────

/// A line that is nearly right: any key anywhere, with any kind of value.
fn any_line() -> impl Strategy<Value = String> {
    let keys: Vec<&str> = TABLES.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
    let value = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}")),
        any::<bool>().prop_map(|boolean| boolean.to_string()),
        ".{0,12}".prop_map(|text| format!("{text:?}")),
        "[0-9]{1,22}(ms|s|m|KiB|GiB|-[0-9]{1,3})?".prop_map(|text| format!("{text:?}")),
        "(unix|\\[::\\]|10.0.0.1|a.b)?:[0-9]{0,6}".prop_map(|text| format!("{text:?}")),
        Just("\"web\"".to_owned()),
        Just("\"auto\"".to_owned()),
        Just("{ rsa = 1 }".to_owned()),
    ];
    let value = prop_oneof![
        3 => value.clone(),
        1 => proptest::collection::vec(value, 0..4).prop_map(|list| format!("[{}]", list.join(","))),
    ];
    let header = proptest::sample::select(TABLES.map(|(table, _)| table).to_vec());
    prop_oneof![
        4 => (proptest::sample::select(keys), value).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => header.clone().prop_map(|table| format!("[{table}]")),
        1 => header.prop_map(|table| format!("[[{table}]]")),
        1 => ".{0,20}",
    ]
}

/// Findings of any text are placed in it, and withhold the settings if they are errors.
fn check_any(text: &str) {
    let (settings, findings) = parsed(text);
    assert_eq!(settings.is_none(), findings.iter().any(Finding::is_error), "{text}");
    let count = text.split('\n').count();
    for finding in findings {
        assert!(finding.line <= count, "{finding} in {text:?}");
        assert!(!finding.to_string().contains('\n'), "one line: {finding:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text: String) {
        check_any(&text);
    }

    #[test]
    fn no_text_that_is_nearly_right_panics(
        lines in proptest::collection::vec(any_line(), 0..12),
    ) {
        check_any(&lines.join("\n"));
        check_any(&format!("{}\n{MINIMAL}", lines.join("\n")));
    }

    #[test]
    fn no_damage_to_a_right_file_panics(
        at in any::<prop::sample::Index>(),
        length in 0_usize..30,
        patch in ".{0,6}",
    ) {
        let characters: Vec<char> = EXAMPLE.chars().collect();
        let start = at.index(characters.len());
        let end = (start + length).min(characters.len());
        let damaged: String =
            characters[..start].iter().copied().chain(patch.chars()).chain(characters[end..].iter().copied()).collect();
        check_any(&damaged);
    }
}
