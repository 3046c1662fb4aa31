//! What lies beside a certificate or around its key: OCSP staples, passphrases, and the
//! compressed form that it is sent in. With the real binary, openssl, and rustls as client.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rustls::CertificateCompressionAlgorithm;
use rustls::compress::{
    BROTLI_DECOMPRESSOR, CertDecompressor, DecompressionFailed, ZLIB_DECOMPRESSOR,
};

use support::authority::{Authority, openssl, write};
use support::certificates::{Key, self_signed};
use support::configuration::configuration;
use support::node::Node;
use support::openssl::only;
use support::program::{Finished, command, run};
use support::tls_client;

const DAY: Duration = Duration::from_secs(86_400);

impl Node {
    /// What `forebay check` says, and its exit status.
    fn check(&self, rest: &str) -> (Option<i32>, String) {
        let file = self.at("forebay.toml");
        fs::write(&file, self.configuration(rest)).expect("write");
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["check", "-c"])
            .arg(&file)
            .output()
            .expect("forebay starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// openssl's account of a handshake.
    fn handshake(&self, name: &str, more: &[&str]) -> Finished {
        let mut command = command("openssl");
        command.args(["s_client", "-connect", &self.address.to_string()]);
        command.args(["-servername", name]).args(more);
        let finished = run(command, "Q\n");
        finished.assert_success(&[]);
        finished
    }

    /// The same of a client that asks for a staple.
    fn ask_for_staple(&self, version: &str) -> Finished {
        self.handshake("a.test", &["-status", only(version)])
    }

    fn is_stapled(&self) -> bool {
        self.ask_for_staple("TLSv1.3").text.contains("OCSP Response Status: successful")
    }
}

#[test]
fn a_staple_reaches_the_clients_of_both_versions_that_ask_for_it() {
    let (site, authority) = (Node::new(), Authority::new());
    authority.issue(&site.at("site.pem"), &["a.test"]);
    let response = authority.ocsp_response_by_openssl(&site.at("site.pem"));
    write(&site.at("site.ocsp"), &response);
    let forebay = site.start("");
    for version in ["TLSv1.2", "TLSv1.3"] {
        let asked = site.ask_for_staple(version);
        for part in ["OCSP Response Status: successful", "Cert Status: good"] {
            assert!(asked.text.contains(part), "{version}: {}", asked.text);
        }
    }
    let ends = forebay.metric("forebay_ocsp_staple_expiry_timestamp_seconds", &["a.test"]);
    let ahead = ends - SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64();
    assert!((6.0 * 86_400.0..7.0 * 86_400.0).contains(&ahead), "{ahead}");
}

#[test]
fn a_staple_whose_time_is_over_is_reported_and_not_sent() {
    let (site, authority) = (Node::new(), Authority::new());
    authority.issue(&site.at("site.pem"), &["a.test"]);
    let response = authority.ocsp_response(&site.at("site.pem"), SystemTime::now() - DAY);
    write(&site.at("site.ocsp"), &response);
    let (status, said) = site.check("");
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("site.ocsp: is not sent as OCSP staple any more"), "{said}");
    let forebay = site.start("");
    assert!(!site.is_stapled());
    let ends = forebay.metric("forebay_ocsp_staple_expiry_timestamp_seconds", &["a.test"]);
    assert!(ends > 0.0 && ends < SystemTime::UNIX_EPOCH.elapsed().expect("time").as_secs_f64());
}

#[test]
fn a_staple_whose_time_ends_is_no_longer_sent_and_a_new_one_is_noticed() {
    let (mut site, authority) = (Node::new(), Authority::new());
    authority.issue(&site.at("site.pem"), &["a.test"]);
    let ends = SystemTime::now() + Duration::from_secs(4);
    let response = authority.ocsp_response(&site.at("site.pem"), ends);
    write(&site.at("site.ocsp"), &response);
    let mut forebay = site.start("");
    assert!(site.is_stapled());
    let site = &mut site;
    forebay.wait_until("the staple is gone", |_| !site.is_stapled());
    assert!(SystemTime::now() >= ends - Duration::from_secs(1));
    forebay.wait_for_log("the time of an OCSP staple is over, and it is no longer sent");
    let response = authority.ocsp_response(&site.at("site.pem"), SystemTime::now() + DAY);
    write(&site.at("site.ocsp"), &response);
    forebay.wait_until("the new staple is sent", |_| site.is_stapled());
}

#[test]
fn the_staple_of_another_certificate_is_reported_and_not_sent() {
    let (site, authority) = (Node::new(), Authority::new());
    authority.issue(&site.at("b.pem"), &["b.test"]);
    authority.issue(&site.at("site.pem"), &["a.test"]);
    let response = authority.ocsp_response(&site.at("b.pem"), SystemTime::now() + DAY);
    write(&site.at("site.ocsp"), &response);
    let (_, said) = site.check("");
    assert!(said.contains("site.ocsp: is not sent as OCSP staple: it is about another"), "{said}");
    let _forebay = site.start("");
    assert!(!site.is_stapled());
}

/// Puts the key of `site.pem` under the passphrase "right".
fn encrypt(site: &Node) {
    self_signed(site.directory.path(), "plain.pem", Key::EcdsaP256, &["a.test"]);
    let at = site.directory.path();
    let passphrase = ["-passout", "pass:right"];
    openssl(
        at,
        &[&["pkey", "-aes256", "-in", "plain.pem", "-out", "locked"][..], &passphrase].concat(),
    );
    openssl(at, &["x509", "-in", "plain.pem", "-out", "certificate"]);
    let pem = ["certificate", "locked"].map(|file| fs::read(at.join(file)).expect("file")).concat();
    write(&site.at("site.pem"), &pem);
}

const WITH_PASSPHRASES: &str = "[tls]\nkey_passphrase_file = \"passphrases\"\n";

#[test]
fn an_encrypted_key_is_served_with_its_passphrase_also_when_it_is_read_again() {
    let site = Node::new();
    encrypt(&site);
    write(&site.at("passphrases"), b"other\nright\n");
    let mut forebay = site.start(WITH_PASSPHRASES);
    site.handshake("a.test", &[]);
    // No room in memory: the second certificate drives the first one out.
    let other = self_signed(site.directory.path(), "b.pem", Key::EcdsaP256, &["b.test"]);
    let backend = site.backend.address.to_string();
    let rest = format!("{WITH_PASSPHRASES}keys_in_memory = 1\n");
    let certificates = [&*site.at("site.pem"), &*other];
    forebay.write_configuration(&configuration(
        site.address,
        &certificates,
        &[&backend],
        "",
        &rest,
    ));
    forebay.signal(libc::SIGHUP);
    forebay.wait_for_log("reloaded");
    for name in ["a.test", "b.test", "a.test", "b.test"] {
        site.handshake(name, &[]);
    }
}

#[test]
fn what_is_wrong_with_a_passphrase_is_said_with_what_to_do() {
    let site = Node::new();
    encrypt(&site);
    let (status, said) = site.check("");
    assert_eq!(status, Some(2));
    assert!(said.contains("name a file with it in tls.key_passphrase_file"), "{said}");
    let (status, said) = site.check(WITH_PASSPHRASES);
    assert_eq!(status, Some(2));
    assert!(said.contains("tls.key_passphrase_file"), "{said}");
    assert!(said.contains("passphrases: cannot be read"), "{said}");
    write(&site.at("passphrases"), b"wrong\n");
    let (status, said) = site.check(WITH_PASSPHRASES);
    assert_eq!(status, Some(2));
    assert!(said.contains("no passphrase of tls.key_passphrase_file opens (tried: 1)"), "{said}");
    write(&site.at("passphrases"), b"right\n");
    assert_eq!(site.check(WITH_PASSPHRASES), (Some(0), String::new()));
    let open = fs::Permissions::from_mode(0o640);
    fs::set_permissions(site.at("passphrases"), open).expect("permissions");
    let (status, said) = site.check(WITH_PASSPHRASES);
    assert_eq!(status, Some(2));
    assert!(said.contains("has mode 0640") && said.contains("chmod 600"), "{said}");
}

#[test]
fn a_pkcs12_file_is_refused_with_the_command_that_converts_it() {
    let site = Node::new();
    let at = site.directory.path();
    self_signed(at, "plain.pem", Key::EcdsaP256, &["a.test"]);
    openssl(
        at,
        &["pkcs12", "-export", "-in", "plain.pem", "-passout", "pass:secret", "-out", "site.pem"],
    );
    let (status, said) = site.check("");
    assert_eq!(status, Some(2));
    let path = site.at("site.pem").display().to_string();
    let command = format!("openssl pkcs12 -in {path} -nodes -out {path}.pem");
    assert!(said.contains(&format!("is a PKCS#12 container; convert it: {command}")), "{said}");
    // It does what it says.
    let mut arguments: Vec<&str> = command.split(' ').skip(1).collect();
    arguments.extend(["-passin", "pass:secret"]);
    openssl(at, &arguments);
    fs::rename(at.join("site.pem.pem"), at.join("site.pem")).expect("rename");
    assert_eq!(site.check(""), (Some(0), String::new()));
}

/// Counts what it unpacks.
#[derive(Debug)]
struct Counting {
    unpacks: &'static dyn CertDecompressor,
    count: AtomicUsize,
}

impl CertDecompressor for Counting {
    fn decompress(&self, input: &[u8], output: &mut [u8]) -> Result<(), DecompressionFailed> {
        self.count.fetch_add(1, Ordering::Relaxed);
        assert!(input.len() < output.len());
        self.unpacks.decompress(input, output)
    }

    fn algorithm(&self) -> CertificateCompressionAlgorithm {
        self.unpacks.algorithm()
    }
}

/// How often a client that offers `decompressors` got the certificate of site.pem compressed.
fn compressed(site: &Node, unpacks: &'static dyn CertDecompressor) -> usize {
    let counting: &'static Counting =
        Box::leak(Box::new(Counting { unpacks, count: AtomicUsize::new(0) }));
    let mut config = tls_client::config();
    config.cert_decompressors = vec![counting];
    let mut client = tls_client::connect(Arc::new(config), site.address, "a.test");
    client.conn.complete_io(&mut client.sock).expect("handshake");
    assert_eq!(tls_client::shown(&client), certificate(&site.at("site.pem")));
    counting.count.load(Ordering::Relaxed)
}

fn certificate(file: &Path) -> rustls::pki_types::CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_file(file).expect("a certificate")
}

#[test]
fn clients_that_offer_it_get_the_certificate_compressed_with_either_library() {
    for provider in ["aws-lc-rs", "ring"] {
        let (site, authority) = (Node::new(), Authority::new());
        authority.issue(&site.at("site.pem"), &["a.test"]);
        let _forebay = site.start(&format!(
            "[tls]\nprovider = \"{provider}\"\ncertificate_compression = [\"brotli\", \"zlib\"]\n"
        ));
        for decompressor in [BROTLI_DECOMPRESSOR, ZLIB_DECOMPRESSOR] {
            // The second time from the cache.
            assert_eq!(compressed(&site, decompressor), 1);
            assert_eq!(compressed(&site, decompressor), 1);
        }
        // openssl of this version does not offer it.
        site.handshake("a.test", &[]);
    }
}

#[test]
fn certificates_are_compressed_only_as_configured() {
    let (site, authority) = (Node::new(), Authority::new());
    authority.issue(&site.at("site.pem"), &["a.test"]);
    let mut forebay = site.start("");
    assert_eq!(compressed(&site, BROTLI_DECOMPRESSOR), 0);
    let rest = "[tls]\ncertificate_compression = [\"zlib\"]\n";
    forebay.write_configuration(&site.configuration(rest));
    forebay.signal(libc::SIGHUP);
    forebay.wait_for_log("reloaded");
    assert_eq!(compressed(&site, BROTLI_DECOMPRESSOR), 0);
    assert_eq!(compressed(&site, ZLIB_DECOMPRESSOR), 1);
}
