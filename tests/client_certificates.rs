//! Clients with certificates: who comes in by which mode, rule and list, who is refused when
//! it resumes a session, and who is thrown out.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use tempfile::TempDir;

use support::authority::write;
use support::backend::Backend;
use support::certificates::{Key, self_signed};
use support::clients::{ClientAuthority, Identity};
use support::configuration::configuration;
use support::curl::curl;
use support::forebay::{Forebay, PATIENCE};
use support::openssl::{OpensslClient, only};
use support::ports::free_address;
use support::program::{Finished, run};
use support::proxy_header::{ProxyHeader, parse};
use support::tls_client::{self, TlsStream};

const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

/// A server that answers the first bytes of each connection and ends it, or echoes what
/// begins with "stay" for as long as the client likes.
struct Responder {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Responder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let counter = Arc::clone(&counter);
                thread::spawn(move || {
                    let mut buffer = [0; 1_024];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        counter.fetch_add(1, Ordering::Relaxed);
                        let stays = buffer[..count].starts_with(b"stay");
                        if stream.write_all(b"served").is_err() || !stays {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    /// How often anybody's bytes have come here.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// One listener, its authority for clients and the list of the revoked.
struct Scene {
    forebay: Forebay,
    address: SocketAddr,
    responder: Responder,
    authority: ClientAuthority,
    list: PathBuf,
    directory: TempDir,
}

impl Scene {
    /// With these lines behind the listener's own; `CA` and `CRL` in them stand for the
    /// files.
    fn new(lines: &str) -> Self {
        Self::before(None, lines, "")
    }

    /// The same before another server than the responder, with more keys of the pool.
    fn before(server: Option<&str>, lines: &str, pool: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let authority = ClientAuthority::new("clients");
        let list = directory.path().join("clients.crl.pem");
        authority.revoke(&list, &[]);
        let certificate = self_signed(directory.path(), "site.pem", Key::EcdsaP256, &["a.test"]);
        let (address, responder) = (free_address(), Responder::start());
        let lines = lines
            .replace("CA", &format!("{:?}", authority.certificate()))
            .replace("CRL", &format!("{list:?}"));
        let backend = server.map_or_else(|| responder.address.to_string(), str::to_owned);
        let text = configuration(address, &[&certificate], &[&backend], pool, "").replacen(
            "[[pool]]",
            &format!("{lines}\n[[pool]]"),
            1,
        );
        let forebay = Forebay::start(directory.path(), &text);
        Self { forebay, address, responder, authority, list, directory }
    }

    /// One `openssl s_client`, with or without a certificate.
    fn openssl(&self, version: &str, name: &str, identity: Option<&Identity>) -> Finished {
        let client = OpensslClient::new(self.address).name(name).with(&[only(version)]);
        match identity {
            Some(identity) => client.identity(identity),
            None => client,
        }
        .run("hello")
    }

    /// One curl, with or without a certificate. What it asks in HTTP/1.1 is answered without
    /// a head (RFC 1945 section 4.1).
    fn curl(&self, version: &str, identity: Option<&Identity>) -> Finished {
        let mut curl = curl(self.address, "a.test", &self.directory.path().join("site.pem"), "/");
        curl.args(["--http0.9", "--tls-max", version, &format!("--tlsv{version}")]);
        if let Some(identity) = identity {
            curl.arg("--cert").arg(&identity.certificate).arg("--key").arg(&identity.key);
        }
        run(curl, "")
    }

    /// Waits until so many handshakes have failed for this reason.
    fn wait_for_failures(&mut self, reason: &str, count: f64) {
        let label = format!("reason=\"{reason}\"");
        self.forebay.wait_until(&format!("{count} of {reason}"), |forebay| {
            forebay.metric("forebay_handshake_failures_total", &[&label]) == count
        });
    }

    fn verified(&self) -> f64 {
        self.forebay.metric("forebay_client_certificates_verified_total", &[])
    }

    fn resumed(&self) -> f64 {
        self.forebay.metric("forebay_client_certificates_resumed_total", &[])
    }

    /// Changes the list of the revoked, and waits until that is in force.
    fn revoke(&mut self, revoked: &[&Identity]) {
        let generation =
            |forebay: &Forebay| forebay.metric("forebay_configuration_generation", &[]);
        let before = generation(&self.forebay);
        self.authority.revoke(&self.list, revoked);
        self.forebay.wait_until("the list is in force", |forebay| generation(forebay) > before);
    }
}

fn connect(client: &Arc<ClientConfig>, address: SocketAddr) -> TlsStream {
    let stream = tls_client::connect(Arc::clone(client), address, "a.test");
    stream.sock.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// A client that shows its certificate and resumes.
fn client(version: &'static SupportedProtocolVersion, identity: &Identity) -> Arc<ClientConfig> {
    let chain = vec![CertificateDer::from_pem_file(&identity.certificate).expect("certificate")];
    let key = PrivateKeyDer::from_pem_file(&identity.key).expect("key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = tls_client::config_of(Arc::clone(&provider), &[version]);
    let certified = CertifiedKey::from_der(chain, key, &provider).expect("the key fits");
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

/// A client without a certificate.
fn anonymous(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Arc::new(tls_client::config_of(provider, &[version]))
}

/// Asks, and says whether there was an answer and whether the session was resumed.
fn ask(stream: &mut TlsStream) -> std::io::Result<HandshakeKind> {
    stream.write_all(b"stay")?;
    stream.read_exact(&mut [0; 6])?;
    Ok(stream.conn.handshake_kind().expect("a handshake"))
}

fn rustls_versions() -> [&'static SupportedProtocolVersion; 2] {
    [&rustls::version::TLS12, &rustls::version::TLS13]
}

#[test]
fn who_must_show_a_certificate_is_refused_without_one_and_served_with_a_good_one() {
    let mut scene = Scene::new("[listener.client_auth]\nmode = \"required\"\nca = CA");
    let ours = scene.authority.issue("ours", "DNS:ours.test");
    let strangers = ClientAuthority::new("strangers");
    let stranger = strangers.issue("ours", "DNS:ours.test");
    for version in VERSIONS {
        scene.openssl(version, "a.test", Some(&ours)).assert_success(&["served"]);
        let without = scene.openssl(version, "a.test", None);
        without.assert_failure(&["alert certificate required"]);
        let foreign = scene.openssl(version, "a.test", Some(&stranger));
        foreign.assert_failure(&["alert unknown ca"]);
    }
    scene.wait_for_failures("client_certificate_missing", 2.0);
    scene.wait_for_failures("client_certificate_untrusted", 2.0);
    assert_eq!((scene.verified(), scene.responder.asked()), (2.0, 2));
    scene.forebay.wait_for_log("client_certificate_missing");
}

#[test]
fn who_may_show_a_certificate_is_served_without_one_and_refused_with_a_bad_one() {
    let scene = Scene::new("[listener.client_auth]\nmode = \"optional\"\nca = CA");
    let strangers = ClientAuthority::new("strangers");
    let stranger = strangers.issue("ours", "DNS:ours.test");
    for version in VERSIONS {
        scene.openssl(version, "a.test", None).assert_success(&["served"]);
        let foreign = scene.openssl(version, "a.test", Some(&stranger));
        foreign.assert_failure(&["alert unknown ca"]);
    }
    assert_eq!(scene.verified(), 0.0);
}

#[test]
fn names_ask_for_certificates_in_ways_of_their_own() {
    let scene = Scene::new(
        "[listener.client_auth]\nmode = \"none\"\nca = CA\n\
         [[listener.client_auth_for]]\nsni = \"*.closed.test\"\nmode = \"required\"\n\
         [[listener.client_auth_for]]\nsni = \"open.closed.test\"\nmode = \"none\"",
    );
    let ours = scene.authority.issue("ours", "DNS:ours.test");
    for version in VERSIONS {
        scene.openssl(version, "a.test", None).assert_success(&["served"]);
        scene.openssl(version, "open.closed.test", None).assert_success(&["served"]);
        scene.openssl(version, "x.closed.test", Some(&ours)).assert_success(&["served"]);
        let without = scene.openssl(version, "x.closed.test", None);
        without.assert_failure(&["alert certificate required"]);
    }
    assert_eq!(scene.verified(), 2.0);
}

#[test]
fn each_kind_of_rule_lets_in_whom_it_means_and_no_other_client_of_the_authority() {
    let scene_of = |digest: &str| {
        let rules = [
            ("dns", "dns:*.web.test"),
            ("uri", "uri:spiffe://prod.test/web/*"),
            ("email", "email:@corp.test"),
            ("cn", "cn:app"),
            ("spki", digest),
        ];
        let tables = rules.map(|(name, rule)| {
            format!(
                "[[listener.client_auth_for]]\nsni = \"{name}.test\"\nmode = \"required\"\n\
                 allow = [{rule:?}]\n"
            )
        });
        Scene::new(&format!(
            "[listener.client_auth]\nmode = \"none\"\nca = CA\n{}",
            tables.concat()
        ))
    };
    let mut scene = scene_of(&format!("spki:{}", "00".repeat(32)));
    let app = scene
        .authority
        .issue("app", "DNS:front.web.test,URI:spiffe://prod.test/web/front,email:ops@corp.test");
    let other = scene
        .authority
        .issue("other", "DNS:web.test,URI:spiffe://prod.test/web,email:ops@sub.corp.test");
    // The pin of the key, as an operator makes it; the configuration is written anew.
    let pin = std::process::Command::new("sh")
        .arg("-c")
        .arg(
            "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform DER | \
             openssl dgst -sha256 -r",
        )
        .arg(&app.certificate)
        .output()
        .expect("openssl")
        .stdout;
    let pin = String::from_utf8(pin).expect("text");
    let pin = pin.split(' ').next().expect("a digest");
    let file = &scene.forebay.configuration_file;
    let text = fs::read_to_string(file).expect("read").replace(&"00".repeat(32), pin);
    fs::write(file, text).expect("write");
    scene.forebay.signal(libc::SIGHUP);
    scene.forebay.wait_for_log("reloaded");

    for (index, name) in ["dns", "uri", "email", "cn", "spki"].into_iter().enumerate() {
        let (version, name) = (VERSIONS[index % 2], format!("{name}.test"));
        scene.openssl(version, &name, Some(&app)).assert_success(&["served"]);
        scene.openssl(version, &name, Some(&other)).assert_failure(&["alert access denied"]);
    }
    scene.wait_for_failures("client_not_allowed", 5.0);
    assert_eq!(scene.responder.asked(), 5);
}

#[test]
fn a_revoked_client_is_refused_and_its_list_is_on_the_metrics_page() {
    let mut scene = Scene::new("[listener.client_auth]\nmode = \"required\"\nca = CA\ncrl = CRL");
    let [kept, lost] =
        ["kept", "lost"].map(|name| scene.authority.issue(name, &format!("DNS:{name}.test")));
    scene.openssl("TLSv1.3", "a.test", Some(&lost)).assert_success(&["served"]);
    scene.revoke(&[&lost]);
    for version in VERSIONS {
        scene.openssl(version, "a.test", Some(&kept)).assert_success(&["served"]);
        let revoked = scene.openssl(version, "a.test", Some(&lost));
        revoked.assert_failure(&["alert certificate revoked"]);
    }
    scene.wait_for_failures("client_certificate_revoked", 2.0);
    let next = "forebay_client_revocation_list_next_update_timestamp_seconds";
    assert!(scene.forebay.metric(next, &["name=\"CN=clients\""]) > 1.7e9);
}

#[test]
fn curl_is_served_with_a_good_certificate_and_refused_without_or_once_it_is_revoked() {
    let mut scene = Scene::new("[listener.client_auth]\nmode = \"required\"\nca = CA\ncrl = CRL");
    let client = scene.authority.issue("curl", "DNS:curl.test");
    for version in ["1.2", "1.3"] {
        scene.revoke(&[]);
        scene.curl(version, Some(&client)).assert_success(&["served"]);
        scene.curl(version, None).assert_failure(&["alert certificate required"]);
        scene.revoke(&[&client]);
        scene.curl(version, Some(&client)).assert_failure(&["alert certificate revoked"]);
    }
    assert_eq!(scene.responder.asked(), 2);
}

#[test]
fn a_client_revoked_since_is_refused_on_resumption_before_a_byte_is_forwarded() {
    let mut scene = Scene::new("[listener.client_auth]\nmode = \"required\"\nca = CA\ncrl = CRL");
    let lost = scene.authority.issue("lost", "DNS:lost.test");
    for version in rustls_versions() {
        scene.revoke(&[]);
        let client = client(version, &lost);
        let first = ask(&mut connect(&client, scene.address)).expect("an answer");
        assert_eq!(first, HandshakeKind::Full, "{version:?}");
        let second = ask(&mut connect(&client, scene.address)).expect("an answer");
        assert_eq!(second, HandshakeKind::Resumed, "{version:?}");
        let asked = scene.responder.asked();
        scene.revoke(&[&lost]);
        ask(&mut connect(&client, scene.address)).expect_err("refused");
        assert_eq!(scene.responder.asked(), asked, "{version:?}");
    }
    assert_eq!(scene.resumed(), 2.0);
    scene.wait_for_failures("client_certificate_revoked", 2.0);
}

#[test]
fn a_new_list_ends_the_sessions_of_whom_it_revokes_and_nobody_elses() {
    let mut scene = Scene::new(
        "[listener.client_auth]\nmode = \"optional\"\nca = CA\ncrl = CRL\n\
         [[listener.client_auth_for]]\nsni = \"other.test\"\nmode = \"optional\"",
    );
    let [kept, lost] =
        ["kept", "lost"].map(|name| scene.authority.issue(name, &format!("DNS:{name}.test")));
    for version in rustls_versions() {
        scene.revoke(&[]);
        let mut anonymous = connect(&anonymous(version), scene.address);
        let mut staying = connect(&client(version, &kept), scene.address);
        let revoked = client(version, &lost);
        let mut thrown_out = [(); 3].map(|()| connect(&revoked, scene.address));
        for stream in thrown_out.iter_mut().chain([&mut staying, &mut anonymous]) {
            ask(stream).expect("an answer");
        }
        scene.revoke(&[&lost]);
        for stream in &mut thrown_out {
            let error = stream.read(&mut [0; 1]).expect_err("ended");
            assert!(error.to_string().contains("AccessDenied"), "{error}");
        }
        for stream in [&mut staying, &mut anonymous] {
            ask(stream).expect("still served");
        }
    }
    // Counted when their last operation is over, after the alert.
    scene.forebay.wait_until("all are counted", |forebay| {
        let reason = ["reason=\"client_refused\""];
        forebay.metric("forebay_connections_ended_total", &reason) == 6.0
    });
}

/// The header that the server gets for a client, and that the client's data follows.
fn header_of(scene: &Scene, backend: &Backend, client: &Arc<ClientConfig>) -> ProxyHeader {
    let mut stream = connect(client, scene.address);
    stream.write_all(b"stay").expect("sent");
    let mut bytes = Vec::new();
    let mut server = backend.accept();
    while !bytes.ends_with(b"stay") {
        let mut buffer = [0; 1024];
        let count = server.read(&mut buffer).expect("read");
        assert!(count > 0, "{bytes:?}");
        bytes.extend_from_slice(&buffer[..count]);
    }
    server.write_all(b"served").expect("sent");
    stream.read_exact(&mut [0; 6]).expect("an answer");
    let header = parse(&bytes);
    assert_eq!(&bytes[header.length..], b"stay");
    header
}

#[test]
fn the_server_is_told_of_the_certificate_and_whether_it_was_shown_now() {
    let backend = Backend::listen();
    let scene = Scene::before(
        Some(&backend.address),
        "[listener.client_auth]\nmode = \"optional\"\nca = CA",
        "proxy_protocol = \"v2\"",
    );
    let ours = scene.authority.issue("ours", "DNS:ours.test");
    let header = |client: &Arc<ClientConfig>| {
        let header = header_of(&scene, &backend, client);
        (header.certificate_bits, header.common_name)
    };
    for version in rustls_versions() {
        let client = client(version, &ours);
        assert_eq!(header(&client), (6, Some("ours".to_owned())), "{version:?}");
        assert_eq!(header(&client), (4, Some("ours".to_owned())), "{version:?}, resumed");
        assert_eq!(header(&anonymous(version)), (0, None), "{version:?}");
    }
}

#[test]
fn the_server_is_sent_the_certificate_itself_if_its_pool_asks_and_there_is_room() {
    /// PP2_SUBTYPE_SSL_CLIENT_CERT.
    const CLIENT_CERT: u8 = 0x28;
    let backend = Backend::listen();
    let scene = Scene::before(
        Some(&backend.address),
        "[listener.client_auth]\nmode = \"optional\"\nca = CA",
        "proxy_protocol = \"v2\"\n\
         proxy_tlvs = [\"authority\", \"crc32c\", \"ssl_cn\", \"ssl_client_cert\"]",
    );
    let small = scene.authority.issue("small", "DNS:small.test");
    let names: Vec<_> = (0..300).map(|number| format!("DNS:{number}.names.test")).collect();
    let large = scene.authority.issue("large", &names.join(","));
    let certificate = CertificateDer::from_pem_file(&small.certificate).expect("a certificate");
    for version in rustls_versions() {
        let told = |client: &Arc<ClientConfig>| {
            let header = header_of(&scene, &backend, client);
            let found = header.others.iter().find(|(kind, _)| *kind == CLIENT_CERT);
            (header.common_name, found.map(|(_, der)| der.clone()))
        };
        let of_small = (Some("small".to_owned()), Some(certificate.to_vec()));
        let small = client(version, &small);
        assert_eq!(told(&small), of_small, "{version:?}");
        assert_eq!(told(&small), of_small, "{version:?}, resumed");
        assert_eq!(told(&client(version, &large)), (Some("large".to_owned()), None));
        assert_eq!(told(&anonymous(version)), (None, None));
    }
    let left_out = scene.forebay.metric("forebay_proxy_header_certificates_left_out_total", &[]);
    assert_eq!(left_out, 2.0);
}

#[test]
fn a_route_by_certificate_takes_whom_it_means_on_resumption_too_and_nobody_else() {
    let partners = Backend::listen();
    let scene = Scene::before(
        None,
        "[listener.client_auth]\nmode = \"optional\"\nca = CA\n\
         [[listener.route]]\nsni = \"elsewhere.test\"\nclient_certificate = [\"cn:partner\"]\n\
         pool = \"servers\"\n\
         [[listener.route]]\nclient_certificate = [\"cn:nobody\", \"cn:partner\"]\n\
         pool = \"partners\"",
        &format!("[[pool]]\nname = \"partners\"\nbackends = [\"{}\"]", partners.address),
    );
    let partner = scene.authority.issue("partner", "DNS:partner.test");
    let other = scene.authority.issue("other", "DNS:other.test");
    for version in rustls_versions() {
        let client_of = client(version, &partner);
        for resumed in [false, true] {
            let mut stream = connect(&client_of, scene.address);
            stream.write_all(b"stay").expect("sent");
            let mut server = partners.accept();
            server.read_exact(&mut [0; 4]).expect("the partner's bytes");
            server.write_all(b"served").expect("sent");
            stream.read_exact(&mut [0; 6]).expect("an answer");
            let kind = stream.conn.handshake_kind();
            assert_eq!(kind == Some(HandshakeKind::Resumed), resumed, "{version:?}");
        }
        for elsewhere in [client(version, &other), anonymous(version)] {
            ask(&mut connect(&elsewhere, scene.address)).expect("the responder's answer");
        }
    }
}

#[test]
fn a_list_or_authority_that_cannot_be_used_changes_nothing() {
    let mut scene = Scene::new("[listener.client_auth]\nmode = \"required\"\nca = CA\ncrl = CRL");
    let [kept, lost] =
        ["kept", "lost"].map(|name| scene.authority.issue(name, &format!("DNS:{name}.test")));
    scene.revoke(&[&lost]);
    for (file, what) in [
        (scene.list.clone(), "holds no revocation list in PEM form"),
        (scene.authority.certificate(), "holds no certificate in PEM form"),
    ] {
        let good = fs::read(&file).expect("read");
        write(&file, b"half a fi");
        scene.forebay.wait_for_log(what);
        scene.openssl("TLSv1.3", "a.test", Some(&kept)).assert_success(&["served"]);
        let revoked = scene.openssl("TLSv1.3", "a.test", Some(&lost));
        revoked.assert_failure(&["alert certificate revoked"]);
        write(&file, &good);
    }
    assert!(scene.forebay.metric("forebay_reloads_failed_total", &[]) >= 1.0);
}

#[test]
fn a_session_begun_with_a_certificate_resumes_where_it_is_asked_for_and_nowhere_else() {
    let open = free_address();
    let scene = Scene::new("[listener.client_auth]\nmode = \"required\"\nca = CA");
    let site = scene.directory.path().join("site.pem");
    let mut text = fs::read_to_string(&scene.forebay.configuration_file).expect("read");
    let admin = text.find("[admin]").expect("the admin address");
    text.truncate(admin);
    text.push_str(&format!(
        "[[listener]]\nname = \"open\"\naddress = \"{open}\"\ncertificates = [{site:?}]\n\
         pool = \"servers\"\n"
    ));
    let ours = scene.authority.issue("ours", "DNS:ours.test");
    let closed = scene.address;
    drop(scene.forebay);
    let forebay = Forebay::start(Path::new(scene.directory.path()), &text);
    for version in rustls_versions() {
        for order in [[closed, open], [open, closed]] {
            let client = client(version, &ours);
            for address in order {
                let kind = ask(&mut connect(&client, address)).expect("an answer");
                assert_eq!(kind, HandshakeKind::Full, "{version:?}");
            }
            let kind = ask(&mut connect(&client, order[1])).expect("an answer");
            assert_eq!(kind, HandshakeKind::Resumed, "{version:?}");
        }
    }
    let refused = "forebay_session_tickets_refused_total";
    assert_eq!(forebay.metric(refused, &["cause=\"other_domain\""]), 4.0);
}
