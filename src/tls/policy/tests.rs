use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::SystemTime;

use rustls::{ClientConnection, HandshakeKind, KeyLog, ServerConnection, SignatureScheme};
use tempfile::TempDir;

use super::*;
use crate::tls::certificates::{self, Passphrases};
use crate::tls::client_hello::{CLIENT_HELLO_BYTES_MAX, Scan, scan};
use crate::tls::names::CIPHER_SUITES;
use crate::tls::self_signed::self_signed;
use crate::tls::test_support::{
    Client, LIBRARIES, ONLY_TLS12, ONLY_TLS13, Versions, connect, first_flight,
    openssl_certificate, shake,
};
use crate::tls::{secrets, tickets};

/// Certificates of four kinds for one name, made by openssl once.
static FOUR_KINDS: LazyLock<TempDir> = LazyLock::new(|| {
    let directory = TempDir::new().unwrap();
    for (name, key) in [
        ("1-rsa", "rsa:2048"),
        ("2-p256", "ec -pkeyopt ec_paramgen_curve:P-256"),
        ("3-p384", "ec -pkeyopt ec_paramgen_curve:P-384"),
        ("4-ed25519", "ed25519"),
    ] {
        openssl_certificate(directory.path(), name, key, "DNS:www.example.com");
    }
    directory
});

pub(super) fn four_kinds(library: CryptoLibrary) -> Vec<LoadedCertificate> {
    let paths = [FOUR_KINDS.path().to_owned()];
    let (certificates, findings) =
        certificates::load(&paths, library, &Passphrases::default(), SystemTime::now());
    assert_eq!(findings, []);
    certificates
}

pub(super) fn only(library: CryptoLibrary, key_type: KeyType) -> Vec<LoadedCertificate> {
    let mut certificates = four_kinds(library);
    certificates.retain(|certificate| certificate.key_type == key_type);
    certificates
}

pub(super) fn settings(
    library: CryptoLibrary,
    certificates: Vec<LoadedCertificate>,
) -> PolicySettings {
    PolicySettings::new(library, certificates, tickets::per_process(library).unwrap())
}

pub(super) fn policy(library: CryptoLibrary, certificates: Vec<LoadedCertificate>) -> Policy {
    Policy::new(settings(library, certificates)).unwrap()
}

fn admit<'p>(policy: &'p Policy, hello: &[u8]) -> Result<Admission<'p>, Refusal> {
    admit_at(policy, hello, None)
}

/// Of a client that has connected to `destination`; the handshake that follows on this
/// thread knows it too.
fn admit_at<'p>(
    policy: &'p Policy,
    hello: &[u8],
    destination: Option<IpAddr>,
) -> Result<Admission<'p>, Refusal> {
    super::destination::set(destination);
    let mut scratch = [0; CLIENT_HELLO_BYTES_MAX];
    match scan(hello, &mut scratch) {
        Scan::Complete(hello) => policy.admit(&hello, destination),
        other => panic!("{other:?}"),
    }
}

/// A whole handshake as forebay does it: admitted, then run.
fn session(
    policy: &Policy,
    client: ClientConnection,
) -> (Admission<'_>, ClientConnection, ServerConnection) {
    session_at(policy, client, None)
}

fn session_at(
    policy: &Policy,
    mut client: ClientConnection,
    destination: Option<IpAddr>,
) -> (Admission<'_>, ClientConnection, ServerConnection) {
    let hello = first_flight(&mut client);
    let admission = admit_at(policy, &hello, destination).unwrap();
    let server = shake(&mut client, Arc::clone(&admission.config), hello).unwrap();
    (admission, client, server)
}

/// The source of the certificate that `client` is shown.
fn shown<'p>(policy: &'p Policy, client: &Client) -> (Admission<'p>, PathBuf) {
    shown_at(policy, client, None)
}

fn shown_at<'p>(
    policy: &'p Policy,
    client: &Client,
    destination: Option<IpAddr>,
) -> (Admission<'p>, PathBuf) {
    let (admission, connection, _) = session_at(policy, client.connection(), destination);
    let leaf = &connection.peer_certificates().unwrap()[0];
    let certificate = policy
        .certificates()
        .iter()
        .find(|certificate| certificate.signing.certified().unwrap().cert[0] == *leaf)
        .unwrap();
    assert_eq!(admission.key, certificate.key_type.into(), "admit() and rustls agree");
    (admission, certificate.source.file_stem().unwrap().into())
}

#[test]
fn the_cheapest_key_that_the_client_can_verify_signs() {
    for library in LIBRARIES {
        let policy = policy(library, four_kinds(library));
        for versions in [ONLY_TLS12, ONLY_TLS13, rustls::ALL_VERSIONS] {
            let shown_to = |schemes: &[SignatureScheme]| {
                let schemes = schemes.to_vec();
                shown(&policy, &Client { versions, schemes, ..Client::new(library) }).1
            };
            assert_eq!(shown_to(&[]), PathBuf::from("2-p256"));
            assert_eq!(
                shown_to(&[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256]),
                PathBuf::from("1-rsa")
            );
            assert_eq!(
                shown_to(&[
                    SignatureScheme::RSA_PSS_SHA256,
                    SignatureScheme::ECDSA_NISTP384_SHA384
                ]),
                PathBuf::from("3-p384")
            );
            assert_eq!(
                shown_to(&[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ED25519]),
                PathBuf::from("4-ed25519")
            );
        }
    }
}

#[test]
fn a_tls12_client_with_rsa_suites_only_is_shown_the_rsa_certificate() {
    for library in LIBRARIES {
        let policy = policy(library, four_kinds(library));
        let suites = vec!["ECDHE-RSA-AES128-GCM-SHA256".parse().unwrap()];
        let client = Client { versions: ONLY_TLS12, suites, ..Client::new(library) };
        let (admission, source) = shown(&policy, &client);
        assert_eq!(source, PathBuf::from("1-rsa"));
        assert_eq!(admission.key, KeyKind::Rsa);
    }
}

#[test]
fn rsa_in_old_padding_does_for_tls12_but_not_for_tls13() {
    for library in LIBRARIES {
        let policy = policy(library, only(library, KeyType::Rsa));
        let schemes = vec![SignatureScheme::RSA_PKCS1_SHA256];
        let client = Client { versions: ONLY_TLS12, schemes, ..Client::new(library) };
        shown(&policy, &client);
        let client = Client { versions: ONLY_TLS13, ..client };
        assert_eq!(admit(&policy, &client.hello()).unwrap_err(), Refusal::NoSharedSignatureScheme);
    }
}

#[test]
fn every_suite_is_negotiated_when_it_is_the_only_one_offered() {
    for library in LIBRARIES {
        let policy = policy(library, four_kinds(library));
        for (code, name) in CIPHER_SUITES {
            let versions: Versions = if code >> 8 == 0x13 { ONLY_TLS13 } else { ONLY_TLS12 };
            let suites = vec![name.parse().unwrap()];
            let client = Client { versions, suites, ..Client::new(library) };
            let (_, _, server) = session(&policy, client.connection());
            let suite = server.negotiated_cipher_suite().unwrap();
            assert_eq!(u16::from(suite.suite()), code, "{name}");
        }
    }
}

#[test]
fn the_server_prefers_its_own_order_of_suites() {
    for library in LIBRARIES {
        let policy = policy(library, four_kinds(library));
        for (versions, expected) in [(ONLY_TLS12, 0xc02b), (ONLY_TLS13, 0x1301)] {
            let mut suites = CipherSuite::DEFAULT_ORDER.to_vec();
            suites.reverse();
            let client = Client { versions, suites, ..Client::new(library) };
            let (admission, _, server) = session(&policy, client.connection());
            let suite = server.negotiated_cipher_suite().unwrap();
            assert_eq!(u16::from(suite.suite()), expected);
            assert_eq!(server.protocol_version(), Some(admission.version.into()));
        }
    }
}

#[test]
fn the_name_decides_exact_then_wildcard_then_default() {
    let library = CryptoLibrary::AwsLc;
    let mut certificates = Vec::new();
    for (source, names) in [
        ("default", &["default.example"][..]),
        ("wildcard", &["*.example.com"]),
        ("exact", &["www.example.com"]),
    ] {
        let certificate = self_signed(names, library).unwrap();
        certificates.push(LoadedCertificate { source: Path::new(source).into(), ..certificate });
    }
    let policy = policy(library, certificates);
    for (server_name, expected) in [
        ("www.example.com", "exact"),
        ("WWW.EXAMPLE.COM", "exact"),
        ("mail.example.com", "wildcard"),
        ("example.com", "default"),
        ("a.b.example.com", "default"),
        ("192.0.2.1", "default"),
    ] {
        let client = Client { server_name, ..Client::new(library) };
        assert_eq!(shown(&policy, &client).1, PathBuf::from(expected), "{server_name}");
    }
}

/// A certificate for `names` from the file `source`, with this policy.
fn with_policy(source: &str, names: &[&str], policy: &str) -> LoadedCertificate {
    let certificate = self_signed(names, CryptoLibrary::AwsLc).unwrap();
    let policy = (!policy.is_empty())
        .then(|| Arc::new(policy_file::parse(policy.as_bytes()).expect("a policy")));
    LoadedCertificate { source: Path::new(source).into(), policy, ..certificate }
}

const ONLY_NEW: &str = "minimum_version = \"1.3\"";

#[test]
fn who_names_no_server_is_shown_the_certificate_for_the_address_it_connected_to() {
    let library = CryptoLibrary::AwsLc;
    let certificates = || {
        vec![
            with_policy("default", &["default.example"], ""),
            with_policy("four", &["192.0.2.1", "four.example"], ""),
            with_policy("six", &["2001:db8::1"], ""),
        ]
    };
    for unknown_sni in [UnknownServerName::Default, UnknownServerName::Reject] {
        let settings = settings(library, certificates());
        let policy = Policy::new(PolicySettings { unknown_sni, ..settings }).unwrap();
        assert!(policy.chooses_by_address());
        let unnamed = Client { server_name: "198.51.100.7", ..Client::new(library) };
        for (destination, expected) in [
            ("192.0.2.1", "four"),
            ("::ffff:192.0.2.1", "four"),
            ("2001:db8::1", "six"),
            ("192.0.2.2", "default"),
        ] {
            let destination = Some(destination.parse().unwrap());
            let (_, source) = shown_at(&policy, &unnamed, destination);
            assert_eq!(source, PathBuf::from(expected), "{destination:?}");
        }
        assert_eq!(shown(&policy, &unnamed).1, PathBuf::from("default"));
        // A name decides alone.
        let named = Client { server_name: "default.example", ..Client::new(library) };
        let (_, source) = shown_at(&policy, &named, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(source, PathBuf::from("default"));
    }
    assert!(!policy(library, four_kinds(library)).chooses_by_address());
}

#[test]
fn a_certificate_whose_policy_demands_a_newer_version_is_not_shown_in_an_older_one() {
    let library = CryptoLibrary::AwsLc;
    let policy = policy(
        library,
        vec![
            with_policy("any", &["any.example"], ""),
            with_policy("new", &["new.example"], ONLY_NEW),
        ],
    );
    let client = |server_name, versions| Client { server_name, versions, ..Client::new(library) };
    shown(&policy, &client("any.example", ONLY_TLS12));
    let refused = admit(&policy, &client("new.example", ONLY_TLS12).hello());
    assert_eq!(refused.unwrap_err(), Refusal::NoSharedVersion);
    let (admission, source) = shown(&policy, &client("new.example", rustls::ALL_VERSIONS));
    assert_eq!((admission.version, source), (Version::Tls13, PathBuf::from("new")));
}

#[test]
fn a_policy_may_allow_an_older_version_than_the_listener() {
    let library = CryptoLibrary::AwsLc;
    let certificates = vec![
        with_policy("new", &["new.example"], ""),
        with_policy("old", &["old.example"], "minimum_version = \"1.2\""),
    ];
    let settings = settings(library, certificates);
    let settings = PolicySettings { minimum_version: Version::Tls13, ..settings };
    let policy = Policy::new(settings).unwrap();
    let client = |server_name| Client { server_name, versions: ONLY_TLS12, ..Client::new(library) };
    assert_eq!(shown(&policy, &client("old.example")).0.version, Version::Tls12);
    let refused = admit(&policy, &client("new.example").hello());
    assert_eq!(refused.unwrap_err(), Refusal::NoSharedVersion);
}

#[test]
fn a_wildcard_is_no_way_around_the_policy_of_the_names_own_certificate() {
    let library = CryptoLibrary::AwsLc;
    let certificates = vec![
        with_policy("all", &["*.example.com"], ""),
        with_policy("own", &["www.example.com"], ONLY_NEW),
    ];
    let policy = policy(library, certificates);
    let client = Client { versions: ONLY_TLS12, ..Client::new(library) };
    assert_eq!(admit(&policy, &client.hello()).unwrap_err(), Refusal::NoSharedVersion);
    let client = Client { server_name: "mail.example.com", ..client };
    assert_eq!(shown(&policy, &client).1, PathBuf::from("all"));
}

#[test]
fn of_certificates_with_several_keys_each_has_its_own_policy() {
    let library = CryptoLibrary::AwsLc;
    let mut certificates = four_kinds(library);
    for certificate in &mut certificates {
        if certificate.key_type != KeyType::Rsa {
            certificate.policy = with_policy("", &["a.example"], ONLY_NEW).policy;
        }
    }
    let policy = policy(library, certificates);
    for (versions, expected) in [(ONLY_TLS12, "1-rsa"), (ONLY_TLS13, "2-p256")] {
        let client = Client { versions, ..Client::new(library) };
        assert_eq!(shown(&policy, &client).1, PathBuf::from(expected));
    }
}

#[test]
fn the_protocols_of_a_policy_take_the_place_of_the_listeners() {
    let library = CryptoLibrary::AwsLc;
    let certificates = vec![
        with_policy("both", &["both.example"], ""),
        with_policy("one", &["one.example"], "alpn = [\"http/1.1\"]"),
        with_policy("none", &["none.example"], "alpn = []"),
    ];
    let settings = PolicySettings {
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        ..settings(library, certificates)
    };
    let policy = Policy::new(settings).unwrap();
    let client = |server_name, protocols: &[&str]| Client {
        server_name,
        alpn: protocols.iter().map(|name| name.as_bytes().to_vec()).collect(),
        ..Client::new(library)
    };
    for (name, expected) in [
        ("both.example", Some(&b"h2"[..])),
        ("one.example", Some(b"http/1.1")),
        ("none.example", None),
    ] {
        let client = client(name, &["http/1.1", "h2"]);
        let (_, _, server) = session(&policy, client.connection());
        assert_eq!(server.alpn_protocol(), expected, "{name}");
        let mut scratch = [0; CLIENT_HELLO_BYTES_MAX];
        let stream = client.hello();
        let Scan::Complete(hello) = scan(&stream, &mut scratch) else { panic!("incomplete") };
        assert_eq!(policy.preview(&hello, None), (Some(Version::Tls13), expected), "{name}");
    }
    let refused = admit(&policy, &client("one.example", &["h2"]).hello());
    assert_eq!(refused.unwrap_err(), Refusal::NoSharedProtocol);
}

#[test]
fn what_routes_ask_for_is_what_the_policy_of_the_certificate_lets_happen() {
    let library = CryptoLibrary::AwsLc;
    let policy = policy(library, vec![with_policy("new", &["www.example.com"], ONLY_NEW)]);
    for (versions, expected) in [(ONLY_TLS12, None), (ONLY_TLS13, Some(Version::Tls13))] {
        let stream = Client { versions, ..Client::new(library) }.hello();
        let mut scratch = [0; CLIENT_HELLO_BYTES_MAX];
        let Scan::Complete(hello) = scan(&stream, &mut scratch) else { panic!("incomplete") };
        assert_eq!(policy.preview(&hello, None).0, expected);
    }
}

#[test]
fn a_session_of_an_older_version_does_not_outlive_a_policy_that_forbids_it() {
    let library = CryptoLibrary::AwsLc;
    let tickets = tickets::per_process(library).unwrap();
    let policy = |policy| {
        let certificates = vec![with_policy("a", &["www.example.com"], policy)];
        let tickets = Arc::clone(&tickets);
        Policy::new(PolicySettings::new(library, certificates, tickets)).unwrap()
    };
    let config = Client { versions: ONLY_TLS12, ..Client::new(library) }.config();
    let before = policy("");
    let connections = [(); 2].map(|()| session(&before, connect(&config, "www.example.com")).1);
    assert_eq!(connections[1].handshake_kind(), Some(HandshakeKind::Resumed));
    let hello = first_flight(&mut connect(&config, "www.example.com"));
    assert_eq!(admit(&policy(ONLY_NEW), &hello).unwrap_err(), Refusal::NoSharedVersion);
}

#[test]
fn policies_that_cannot_be_kept_are_explained() {
    let library = CryptoLibrary::AwsLc;
    let cipher_suites = vec!["ECDHE-ECDSA-AES128-GCM-SHA256".parse().unwrap()];
    let certificates = vec![with_policy("/etc/a.pem", &["a.example"], ONLY_NEW)];
    let settings_with = |certificates| settings(library, certificates);
    let error = Policy::new(PolicySettings { cipher_suites, ..settings_with(certificates) });
    assert_eq!(
        error.unwrap_err().to_string(),
        "/etc/a.policy: minimum_version: no cipher suite of the listener belongs to TLSv1.3 or \
         newer; add one, such as TLS_AES_128_GCM_SHA256"
    );
    let certificates = |count: usize| -> Vec<_> {
        let one = with_policy("a", &["a.example"], ONLY_NEW);
        let numbered = |number: usize| {
            let alpn = Some(vec![number.to_string().into_bytes()]);
            let policy = Arc::new(CertificatePolicy { minimum_version: None, alpn });
            LoadedCertificate { policy: Some(policy), ..one.clone() }
        };
        // Each twice: only what differs counts.
        (0..count).chain(0..count).map(numbered).collect()
    };
    assert!(Policy::new(settings_with(certificates(POLICIES_MAX))).is_ok());
    assert_eq!(
        Policy::new(settings_with(certificates(POLICIES_MAX + 1))).unwrap_err().to_string(),
        "the policy files of its certificates say 65 different things; at most 64 can be told \
         apart"
    );
}

#[test]
fn an_unknown_name_is_rejected_when_told_to_and_no_name_is_not() {
    for library in LIBRARIES {
        let policy = Policy::new(PolicySettings {
            unknown_sni: UnknownServerName::Reject,
            ..settings(library, four_kinds(library))
        })
        .unwrap();
        let hello = |server_name| Client { server_name, ..Client::new(library) }.hello();
        let refusal = admit(&policy, &hello("other.example")).unwrap_err();
        assert_eq!(refusal, Refusal::UnknownServerName);
        assert!(admit(&policy, &hello("192.0.2.1")).is_ok());
        assert!(admit(&policy, &hello("www.example.com")).is_ok());
    }
}

#[test]
fn the_default_comes_in_all_its_kinds_of_key() {
    let library = CryptoLibrary::AwsLc;
    let policy = policy(library, four_kinds(library));
    let schemes = vec![SignatureScheme::RSA_PSS_SHA256];
    let client = Client { server_name: "192.0.2.1", schemes, ..Client::new(library) };
    assert_eq!(shown(&policy, &client).1, PathBuf::from("1-rsa"));
    let client = Client { schemes: Vec::new(), ..client };
    assert_eq!(shown(&policy, &client).1, PathBuf::from("2-p256"));
}

#[test]
fn the_default_can_be_named() {
    let library = CryptoLibrary::AwsLc;
    let two = || {
        let mut certificates = vec![
            self_signed(&["one.example"], library).unwrap(),
            self_signed(&["*.two.example"], library).unwrap(),
        ];
        certificates[1].source = Path::new("two").into();
        settings(library, certificates)
    };
    let named = |name: &str| {
        let default_certificate = DefaultCertificate::Name(name.to_owned());
        Policy::new(PolicySettings { default_certificate, ..two() })
    };
    let client = Client { server_name: "192.0.2.1", ..Client::new(library) };
    assert_eq!(shown(&named("www.two.example").unwrap(), &client).1, PathBuf::from("two"));
    assert_eq!(
        named("one.exmaple").unwrap_err().to_string(),
        "no certificate is valid for the default name \"one.exmaple\"; \
         did you mean \"one.example\"?"
    );
}

#[test]
fn a_name_whose_certificate_the_client_cannot_verify_is_not_given_another() {
    let library = CryptoLibrary::AwsLc;
    let mut certificates = only(library, KeyType::Rsa);
    certificates.push(self_signed(&["ec.example"], library).unwrap());
    let policy = policy(library, certificates);
    let schemes = vec![SignatureScheme::RSA_PSS_SHA256];
    let client = Client { server_name: "ec.example", schemes, ..Client::new(library) };
    assert_eq!(admit(&policy, &client.hello()).unwrap_err(), Refusal::NoSharedSignatureScheme);
}

#[test]
fn an_old_client_is_refused_by_a_listener_of_tls13() {
    for library in LIBRARIES {
        let policy = Policy::new(PolicySettings {
            minimum_version: Version::Tls13,
            ..settings(library, four_kinds(library))
        })
        .unwrap();
        let hello = |versions| Client { versions, ..Client::new(library) }.hello();
        let refusal = admit(&policy, &hello(ONLY_TLS12)).unwrap_err();
        assert_eq!(refusal, Refusal::NoSharedVersion);
        assert_eq!(admit(&policy, &hello(ONLY_TLS13)).unwrap().version, Version::Tls13);
    }
}

#[test]
fn suites_of_one_version_leave_only_that_version() {
    let library = CryptoLibrary::AwsLc;
    let cipher_suites = vec!["ECDHE-RSA-AES128-GCM-SHA256".parse().unwrap()];
    let policy = Policy::new(PolicySettings {
        cipher_suites: cipher_suites.clone(),
        ..settings(library, four_kinds(library))
    })
    .unwrap();
    let client = Client::new(library);
    assert_eq!(shown(&policy, &client).0.version, Version::Tls12);

    let error = Policy::new(PolicySettings {
        cipher_suites,
        minimum_version: Version::Tls13,
        ..settings(library, four_kinds(library))
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no cipher suite of the list belongs to an allowed version (the oldest is TLSv1.3); \
         add one of TLS 1.3, such as TLS_AES_128_GCM_SHA256"
    );
}

#[test]
fn a_client_without_a_suite_or_group_in_common_is_refused() {
    let library = CryptoLibrary::AwsLc;
    let suite = |name: &str| vec![name.parse::<CipherSuite>().unwrap()];
    let with = |cipher_suites, groups| {
        Policy::new(PolicySettings {
            cipher_suites,
            groups,
            ..settings(library, four_kinds(library))
        })
        .unwrap()
    };
    let client = Client {
        suites: suite("TLS_AES_256_GCM_SHA384"),
        versions: ONLY_TLS13,
        ..Client::new(library)
    };
    let policy = with(suite("TLS_AES_128_GCM_SHA256"), vec![Group::X25519]);
    assert_eq!(admit(&policy, &client.hello()).unwrap_err(), Refusal::NoSharedCipherSuite);

    // The post-quantum group exists in TLS 1.3 only.
    let policy = with(CipherSuite::DEFAULT_ORDER.to_vec(), vec![Group::X25519_MLKEM768]);
    let client = Client { versions: ONLY_TLS12, ..Client::new(library) };
    assert_eq!(admit(&policy, &client.hello()).unwrap_err(), Refusal::NoSharedGroup);
    let client = Client { versions: ONLY_TLS13, ..client };
    assert!(admit(&policy, &client.hello()).is_ok());
}

#[test]
fn alpn_is_chosen_in_the_servers_order_and_no_match_is_refused() {
    for library in LIBRARIES {
        let policy = Policy::new(PolicySettings {
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            ..settings(library, four_kinds(library))
        })
        .unwrap();
        for versions in [ONLY_TLS12, ONLY_TLS13] {
            let client = |names: &[&[u8]]| Client {
                versions,
                alpn: names.iter().map(|name| name.to_vec()).collect(),
                ..Client::new(library)
            };
            let both = client(&[b"http/1.1", b"h2"]);
            let (_, _, server) = session(&policy, both.connection());
            assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));

            let neither = client(&[b"imap"]);
            let refusal = admit(&policy, &neither.hello()).unwrap_err();
            assert_eq!(refusal, Refusal::NoSharedProtocol);

            let none = client(&[]);
            let (_, _, server) = session(&policy, none.connection());
            assert_eq!(server.alpn_protocol(), None);
        }
    }
}

#[test]
fn sessions_resume_and_a_tls12_one_is_known_to_be_cheap() {
    for library in LIBRARIES {
        let policy = policy(library, four_kinds(library));
        for versions in [ONLY_TLS12, ONLY_TLS13] {
            let client = Client { versions, ..Client::new(library) };
            let config = client.config();
            for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let connection = connect(&config, client.server_name);
                let (admission, connection, _) = session(&policy, connection);
                assert_eq!(connection.handshake_kind(), Some(expected), "{library} {versions:?}");
                let resumes_tls12 = versions == ONLY_TLS12 && expected == HandshakeKind::Resumed;
                assert_eq!(admission.symmetric_only, resumes_tls12);
            }
        }
    }
}

#[test]
fn a_session_does_not_resume_at_a_policy_with_other_ticket_keys() {
    for library in LIBRARIES {
        let policies = [(); 2].map(|()| policy(library, four_kinds(library)));
        let client = Client { versions: ONLY_TLS13, ..Client::new(library) };
        let config = client.config();
        for policy in &policies {
            let connection = connect(&config, client.server_name);
            let (_, connection, _) = session(policy, connection);
            assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
}

/// The client's side of the same secrets.
#[derive(Debug, Default)]
struct ClientSecrets(Mutex<Vec<(String, Vec<u8>)>>);

impl KeyLog for ClientSecrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().push((label.to_owned(), secret.to_vec()));
    }
}

#[test]
fn the_traffic_secrets_of_tls13_are_caught_and_are_those_of_the_client() {
    for library in LIBRARIES {
        let policy = policy(library, four_kinds(library));
        for (suite, bytes) in [("TLS_AES_128_GCM_SHA256", 32), ("TLS_AES_256_GCM_SHA384", 48)] {
            let suites = vec![suite.parse().unwrap()];
            let client = Client { versions: ONLY_TLS13, suites, ..Client::new(library) };
            let log = Arc::new(ClientSecrets::default());
            let mut config = Arc::unwrap_or_clone(client.config());
            config.key_log = Arc::clone(&log) as _;
            let connection = connect(&Arc::new(config), client.server_name);
            let (_, _, server) = session(&policy, connection);

            let caught = secrets::take().unwrap();
            assert_eq!(caught.client.as_bytes().len(), bytes);
            let log = log.0.lock().unwrap();
            let logged = |label| &log.iter().find(|(found, _)| found == label).unwrap().1;
            assert_eq!(caught.client.as_bytes(), logged("CLIENT_TRAFFIC_SECRET_0"));
            assert_eq!(caught.server.as_bytes(), logged("SERVER_TRAFFIC_SECRET_0"));
            assert!(server.dangerous_extract_secrets().is_ok());
        }
    }
}

#[test]
fn the_traffic_secrets_are_caught_in_the_step_that_answers_the_client_hello() {
    for library in LIBRARIES {
        let policy = policy(library, four_kinds(library));
        let client = Client { versions: ONLY_TLS13, ..Client::new(library) };
        let hello = client.hello();
        let config = admit(&policy, &hello).unwrap().config;
        let mut server = ServerConnection::new(config).unwrap();
        server.read_tls(&mut hello.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        assert!(server.is_handshaking());
        assert!(secrets::take().is_some());
    }
}

#[test]
fn a_tls12_session_leaves_no_secret_behind() {
    for library in LIBRARIES {
        let policy = policy(library, four_kinds(library));
        let client = Client { versions: ONLY_TLS12, ..Client::new(library) };
        let config = client.config();
        // The second is a resumption, which rustls logs without being asked to.
        for _ in 0..2 {
            session(&policy, connect(&config, client.server_name));
            assert!(secrets::take().is_none());
        }
    }
}

#[test]
fn settings_that_make_no_policy_are_explained() {
    let library = CryptoLibrary::AwsLc;
    let error = |settings| Policy::new(settings).unwrap_err().to_string();
    assert_eq!(error(settings(library, Vec::new())), "no certificate is configured");

    let good = || settings(library, vec![self_signed(&["a.example"], library).unwrap()]);
    assert_eq!(
        error(PolicySettings { alpn: vec![Vec::new()], ..good() }),
        "the ALPN name \"\" must have 1 to 255 bytes"
    );
    assert_eq!(
        error(PolicySettings { groups: Vec::new(), ..good() }),
        "no key-exchange group is configured; leave the list out for the default ones"
    );
    assert_eq!(
        error(PolicySettings {
            library: CryptoLibrary::Ring,
            groups: vec![Group::X25519_MLKEM768],
            ..good()
        }),
        "ring has no key-exchange group X25519MLKEM768; \
         use aws-lc-rs for it, or take it off the list"
    );
}

mod crafted {
    //! What no rustls client sends.

    use super::*;

    /// A ClientHello of TLS 1.3 with the given extensions left out.
    fn hello_without(library: CryptoLibrary, left_out: &[u16]) -> Vec<u8> {
        let suites = vec!["TLS_AES_128_GCM_SHA256".parse().unwrap()];
        let hello = Client { versions: ONLY_TLS13, suites, ..Client::new(library) }.hello();
        let session_id_length = usize::from(hello[43]);
        let suites = 44 + session_id_length;
        let suites_length = usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
        let extensions = suites + 2 + suites_length + 2;
        let (head, mut rest) = hello.split_at(extensions);
        rest = &rest[2..];
        let mut kept: Vec<u8> = Vec::new();
        while let [high, low, length_high, length_low, content @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
            if !left_out.contains(&u16::from_be_bytes([*high, *low])) {
                kept.extend(&rest[..4 + length]);
            }
            rest = &content[length..];
        }
        let mut stream = head.to_vec();
        stream.extend((kept.len() as u16).to_be_bytes());
        stream.extend(kept);
        let length = stream.len() as u16;
        stream[3..5].copy_from_slice(&(length - 5).to_be_bytes());
        stream[7..9].copy_from_slice(&(length - 9).to_be_bytes());
        stream
    }

    #[test]
    fn a_tls13_client_without_signature_schemes_misses_an_extension() {
        let policy = policy(CryptoLibrary::AwsLc, four_kinds(CryptoLibrary::AwsLc));
        let refusal = admit(&policy, &hello_without(CryptoLibrary::AwsLc, &[13])).unwrap_err();
        assert_eq!(refusal, Refusal::NoSignatureSchemes);
        assert_eq!(refusal.alert(), Some(rustls::AlertDescription::MissingExtension));
    }

    #[test]
    fn a_client_without_groups_is_refused() {
        let policy = policy(CryptoLibrary::AwsLc, four_kinds(CryptoLibrary::AwsLc));
        let refusal = admit(&policy, &hello_without(CryptoLibrary::AwsLc, &[10])).unwrap_err();
        assert_eq!(refusal, Refusal::NoSharedGroup);
    }

    #[test]
    fn a_client_that_names_tls13_suites_but_not_the_version_gets_no_tls13() {
        let library = CryptoLibrary::AwsLc;
        let policy = policy(library, four_kinds(library));
        // Without supported_versions it is a TLS 1.2 client without a TLS 1.2 suite.
        let refusal = admit(&policy, &hello_without(library, &[43])).unwrap_err();
        assert_eq!(refusal, Refusal::NoSharedCipherSuite);
    }
}

mod agreement {
    //! Whatever a client offers, `admit` and rustls come to the same end.

    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::*;

    /// Policies that differ in all that can be refused.
    fn policies(library: CryptoLibrary) -> Vec<Policy> {
        let suite = |name: &str| name.parse::<CipherSuite>().unwrap();
        let plain = || settings(library, four_kinds(library));
        [
            PolicySettings { alpn: vec![b"h2".to_vec()], ..plain() },
            PolicySettings { unknown_sni: UnknownServerName::Reject, ..plain() },
            PolicySettings { minimum_version: Version::Tls13, ..plain() },
            PolicySettings { groups: vec![Group::SECP256R1], ..plain() },
            PolicySettings {
                cipher_suites: vec![
                    suite("TLS_CHACHA20_POLY1305_SHA256"),
                    suite("ECDHE-RSA-AES256-GCM-SHA384"),
                ],
                ..plain()
            },
            PolicySettings { certificates: with_policies(library).into(), ..plain() },
            settings(library, only(library, KeyType::Rsa)),
            settings(library, only(library, KeyType::EcdsaP384)),
        ]
        .map(|settings| Policy::new(settings).unwrap())
        .into()
    }

    /// One for the address that the clients below connect to, and one that demands TLS 1.3
    /// and HTTP/2.
    fn with_policies(library: CryptoLibrary) -> Vec<LoadedCertificate> {
        let own = "minimum_version = \"1.3\"\nalpn = [\"h2\"]";
        let mut certificates = four_kinds(library);
        certificates[1].policy = with_policy("", &["a.example"], own).policy;
        let mut of_address = self_signed(&["192.0.2.1"], library).unwrap();
        of_address.policy = with_policy("", &["a.example"], "alpn = [\"imap\"]").policy;
        certificates.push(of_address);
        certificates
    }

    static POLICIES: LazyLock<[Vec<Policy>; 2]> = LazyLock::new(|| LIBRARIES.map(policies));

    fn clients() -> impl Strategy<Value = (usize, Client)> {
        const SCHEMES: [SignatureScheme; 7] = [
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
            SignatureScheme::ECDSA_NISTP521_SHA512,
        ];
        let offers = (
            select(vec![ONLY_TLS12, ONLY_TLS13, rustls::ALL_VERSIONS]),
            subsequence(CipherSuite::DEFAULT_ORDER.to_vec(), 1..=9).prop_shuffle(),
            subsequence(SCHEMES.to_vec(), 1..=7).prop_shuffle(),
            subsequence(vec![b"h2".to_vec(), b"imap".to_vec()], 0..=2),
            select(vec!["www.example.com", "other.example", "192.0.2.1"]),
        );
        (0..LIBRARIES.len(), offers)
            .prop_flat_map(|(library, offers)| {
                let groups = provider::default_groups(LIBRARIES[library]).to_vec();
                let count = 1..=groups.len();
                (Just(library), Just(offers), subsequence(groups, count).prop_shuffle())
            })
            .prop_map(|(library, (versions, suites, schemes, alpn, server_name), groups)| {
                let library_name = LIBRARIES[library];
                let client = Client {
                    library: library_name,
                    versions,
                    suites,
                    groups,
                    schemes,
                    alpn,
                    server_name,
                };
                (library, client)
            })
    }

    fn chosen<'a>(
        policy: &'a Policy,
        stream: &[u8],
        destination: Option<IpAddr>,
    ) -> Option<&'a LoadedCertificate> {
        let mut scratch = [0; CLIENT_HELLO_BYTES_MAX];
        let Scan::Complete(hello) = scan(stream, &mut scratch) else { return None };
        policy.certificate(&hello, destination).ok()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn admitted_is_what_completes_and_refused_is_what_fails(
            (library, client) in clients(),
            which in any::<prop::sample::Index>(),
        ) {
            // rustls builds no client without a suite for any of its versions.
            let tls13 = client.suites.iter().any(|suite| suite.code_point() >> 8 == 0x13);
            let tls12 = client.suites.iter().any(|suite| suite.code_point() >> 8 != 0x13);
            prop_assume!(tls13 || client.versions != ONLY_TLS13);
            prop_assume!(tls12 || client.versions != ONLY_TLS12);
            // Of one without a group it sends an empty list, which is malformed.
            let tls12_group = client.groups.iter().any(|group| *group != Group::X25519_MLKEM768);
            prop_assume!(tls12_group || tls13 && client.versions != ONLY_TLS12);

            let policy = which.get(&POLICIES[library]);
            let mut connection = client.connection();
            let hello = first_flight(&mut connection);
            let destination = "192.0.2.1".parse().ok();
            let admission = admit_at(policy, &hello, destination);
            let terms = match chosen(policy, &hello, destination) {
                Some(certificate) => policy.doors.of(None).terms.of(certificate),
                None => &policy.doors.of(None).terms.own,
            };
            let config = match &admission {
                Ok(admission) => Arc::clone(&admission.config),
                // Without an admission the version is unknown: try both that the client offers.
                Err(_) => Arc::clone(&terms.tls12),
            };
            let outcome = shake(&mut connection, config, hello);
            match admission {
                Ok(admission) => {
                    let server = outcome.unwrap();
                    prop_assert_eq!(server.protocol_version(), Some(admission.version.into()));
                    let leaf = &connection.peer_certificates().unwrap()[0];
                    let certificate = policy
                        .certificates()
                        .iter()
                        .find(|certificate| certificate.signing.certified().unwrap().cert[0] == *leaf)
                        .unwrap();
                    prop_assert_eq!(admission.key, certificate.key_type.into());
                }
                Err(refusal) => {
                    prop_assert!(outcome.is_err(), "{:?}, but rustls agreed", refusal);
                    if client.versions == ONLY_TLS12 {
                        return Ok(());
                    }
                    let mut connection = client.connection();
                    let hello = first_flight(&mut connection);
                    let outcome = shake(&mut connection, Arc::clone(&terms.tls13), hello);
                    prop_assert!(outcome.is_err(), "{:?}, but rustls agreed", refusal);
                }
            }
        }
    }
}

#[test]
fn what_is_in_its_time_comes_before_what_has_expired_and_what_is_not_valid_yet() {
    let library = CryptoLibrary::AwsLc;
    let of = |source: &str, key_type, not_after| {
        let certificate = self_signed(&["www.example.com"], library).unwrap();
        LoadedCertificate { source: Path::new(source).into(), key_type, not_after, ..certificate }
    };
    let early =
        LoadedCertificate { not_before: i64::MAX - 1, ..of("early", KeyType::EcdsaP256, i64::MAX) };
    let expired = of("expired", KeyType::EcdsaP256, 1);
    let valid = of("valid", KeyType::Rsa, i64::MAX);
    let of_the_same_kind = of("valid too", KeyType::EcdsaP256, i64::MAX - 2);
    for (certificates, shown) in [
        (vec![expired.clone(), valid.clone()], KeyKind::Rsa),
        (vec![early.clone(), valid.clone()], KeyKind::Rsa),
        (vec![early, valid, of_the_same_kind], KeyKind::EllipticCurve),
        (vec![expired], KeyKind::EllipticCurve),
    ] {
        let policy = policy(library, certificates);
        let hello = Client::new(library).hello();
        let admission = admit(&policy, &hello).unwrap();
        assert_eq!(admission.key, shown);
    }
}
