//! Certificate files that change under a running forebay, as an operator changes them.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use support::certificates::{Key, self_signed};
use support::configuration::configuration;
use support::echo::EchoBackend;
use support::forebay::Forebay;
use support::ports::free_address;
use support::tls_client;

/// A forebay with a directory of certificates: a.test, which is the default, and b.test.
struct Site {
    forebay: Forebay,
    configuration: String,
    address: SocketAddr,
    /// Where certificates are made before they are put in place.
    directory: TempDir,
    _backend: EchoBackend,
}

impl Site {
    fn start(rest: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let served = directory.path().join("served");
        fs::create_dir(&served).expect("directory");
        self_signed(&served, "a.pem", Key::EcdsaP256, &["a.test"]);
        self_signed(&served, "b.pem", Key::EcdsaP256, &["b.test"]);
        let backend = EchoBackend::start();
        let address = free_address();
        let text = configuration(address, &[&served], &[&backend.address.to_string()], "", rest);
        let forebay = Forebay::start(directory.path(), &text);
        Self { forebay, configuration: text, address, directory, _backend: backend }
    }

    /// Ends forebay, and starts it again with the same files.
    fn restart(&mut self) {
        self.forebay.signal(libc::SIGTERM);
        self.forebay.wait_for_exit();
        self.forebay = Forebay::start(self.directory.path(), &self.configuration);
    }

    fn served(&self, file: &str) -> PathBuf {
        self.directory.path().join("served").join(file)
    }

    /// Puts a new certificate for `name` in place, in one step.
    fn renew(&self, file: &str, name: &str) {
        let made = self_signed(self.directory.path(), file, Key::EcdsaP256, &[name]);
        fs::rename(made, self.served(file)).expect("rename");
    }

    fn replace(&self, file: &str, text: &str) {
        let beside = self.directory.path().join("beside");
        fs::write(&beside, text).expect("write");
        fs::rename(beside, self.served(file)).expect("rename");
    }

    /// The certificate that a client asking for `name` is shown.
    fn shown(&self, name: &'static str) -> CertificateDer<'static> {
        let mut client = tls_client::connect(Arc::new(tls_client::config()), self.address, name);
        client.conn.complete_io(&mut client.sock).expect("handshake");
        tls_client::shown(&client)
    }

    fn wait_until_shown(&mut self, name: &'static str, file: &str) {
        let wanted = certificate(&self.served(file));
        let Self { forebay, address, .. } = self;
        let address = *address;
        forebay.wait_until(&format!("clients of {name} see {file}"), |_| {
            let config = Arc::new(tls_client::config());
            let mut client = tls_client::connect(config, address, name);
            client.conn.complete_io(&mut client.sock).expect("handshake");
            tls_client::shown(&client) == wanted
        });
    }
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).expect("a certificate")
}

#[test]
fn a_renewed_and_a_new_certificate_are_served_without_a_signal() {
    let mut site = Site::start("");
    let other = site.shown("b.test");
    site.renew("a.pem", "a.test");
    site.wait_until_shown("a.test", "a.pem");
    site.renew("c.pem", "c.test");
    site.wait_until_shown("c.test", "c.pem");
    assert_eq!(site.shown("b.test"), other);
}

#[test]
fn a_file_that_turns_bad_leaves_the_old_certificate_and_others_are_still_renewed() {
    let mut site = Site::start("");
    let before = site.shown("a.test");
    site.replace("a.pem", "rubbish");
    let line = site.forebay.wait_for_log("the certificate read before stays in use");
    assert!(line.contains("a.pem: is not PEM"), "{line}");
    assert_eq!(site.shown("a.test"), before);
    site.renew("b.pem", "b.test");
    site.wait_until_shown("b.test", "b.pem");
    assert_eq!(site.shown("a.test"), before);
    site.replace("new.pem", "rubbish");
    let line = site.forebay.wait_for_log("it is left out until it is mended");
    assert!(line.contains("new.pem"), "{line}");
    // A signal says the same.
    site.forebay.signal(libc::SIGHUP);
    site.forebay.wait_for_log("reloading file=");
    site.renew("a.pem", "a.test");
    site.wait_until_shown("a.test", "a.pem");
    assert_eq!(site.forebay.metric("forebay_reloads_failed_total", &[]) as u64, 0);
}

#[test]
fn a_removed_file_is_no_longer_served() {
    let mut site = Site::start("");
    fs::remove_file(site.served("b.pem")).expect("remove");
    // The default certificate takes its place.
    site.wait_until_shown("b.test", "a.pem");
}

#[test]
fn the_configuration_file_is_not_read_when_certificates_change() {
    let mut site = Site::start("");
    fs::write(&site.forebay.configuration_file, "half written").expect("write");
    site.renew("a.pem", "a.test");
    site.wait_until_shown("a.test", "a.pem");
    assert_eq!(site.forebay.metric("forebay_last_reload_succeeded", &[]) as u64, 1);
}

#[test]
fn a_reload_that_is_refused_for_another_mistake_keeps_no_renewal_back() {
    let mut site = Site::start("");
    site.forebay.write_configuration(&site.configuration.replace("[[pool]]", "[[pol]]"));
    site.renew("b.pem", "b.test");
    site.forebay.signal(libc::SIGHUP);
    site.forebay.wait_for_log("reload refused");
    site.wait_until_shown("b.test", "b.pem");
    // These show only when everything else has been read.
    let other_place =
        site.configuration.replace("certificates = [", "certificates = [\"missing\", ");
    let other_library = format!("{}\n[tls]\nprovider = \"ring\"\n", site.configuration);
    for mistaken in [other_place, other_library] {
        site.forebay.write_configuration(&mistaken);
        site.renew("b.pem", "b.test");
        site.forebay.signal(libc::SIGHUP);
        site.wait_until_shown("b.test", "b.pem");
    }
    assert_eq!(site.forebay.metric("forebay_reloads_failed_total", &[]), 3.0);
}

#[test]
fn a_successor_that_is_not_valid_yet_may_lie_beside_the_certificate_of_today() {
    let mut site = Site::start("");
    let put = |file: &str, years: [i32; 2]| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(["b.test".to_owned()]).expect("a name");
        [parameters.not_before, parameters.not_after] =
            years.map(|year| rcgen::date_time_ymd(year, 1, 1));
        let certificate = parameters.self_signed(&key).expect("a certificate");
        site.replace(file, &[certificate.pem(), key.serialize_pem()].concat());
    };
    put("b-expired.pem", [2020, 2021]);
    put("b-next.pem", [3000, 3001]);
    put("other.pem", [2020, 3000]);
    site.wait_until_shown("b.test", "other.pem");
    fs::remove_file(site.served("other.pem")).expect("remove");
    site.wait_until_shown("b.test", "b.pem");
    fs::remove_file(site.served("b.pem")).expect("remove");
    site.wait_until_shown("b.test", "b-next.pem");
}

#[test]
fn a_reload_that_is_asked_for_follows_links_to_what_was_changed_elsewhere() {
    let mut site = Site::start("");
    let elsewhere = self_signed(site.directory.path(), "linked.pem", Key::EcdsaP256, &["c.test"]);
    std::os::unix::fs::symlink(&elsewhere, site.served("c.pem")).expect("link");
    site.wait_until_shown("c.test", "c.pem");
    let made = site.directory.path().join("made");
    fs::create_dir(&made).expect("directory");
    let renewed = self_signed(&made, "c.pem", Key::EcdsaP256, &["c.test"]);
    fs::write(&elsewhere, fs::read(renewed).expect("read")).expect("write");
    site.forebay.signal(libc::SIGHUP);
    site.wait_until_shown("c.test", "c.pem");
}

#[test]
fn keys_that_have_no_room_in_memory_are_read_when_a_client_asks() {
    let site = Site::start("[tls]\nkeys_in_memory = 1\n");
    for _ in 0..3 {
        assert_eq!(site.shown("a.test"), certificate(&site.served("a.pem")));
        assert_eq!(site.shown("b.test"), certificate(&site.served("b.pem")));
    }
}

/// A site that writes an index, which is there.
fn with_index() -> (Site, PathBuf) {
    // Relative to the configuration file, which lies in the same directory.
    let mut site = Site::start("[tls]\ncertificate_index = \"certificates.index\"\n");
    let index = site.directory.path().join("certificates.index");
    let path = index.clone();
    site.forebay.wait_until("the index is written", move |_| path.exists());
    (site, index)
}

#[test]
fn a_start_takes_from_the_index_what_has_not_changed_and_reads_the_rest() {
    let (mut site, index) = with_index();
    let text = fs::read_to_string(&index).expect("an index");
    assert!(text.contains("\"a.test\"") && text.contains("b.pem"), "{text}");
    assert!(!text.contains("PRIVATE"), "{text}");
    site.renew("b.pem", "c.test");
    site.restart();
    assert_eq!(site.shown("a.test"), certificate(&site.served("a.pem")));
    assert_eq!(site.shown("c.test"), certificate(&site.served("b.pem")));
    site.forebay.wait_until("the index says so", move |_| {
        fs::read_to_string(&index).is_ok_and(|text| text.contains("\"c.test\""))
    });
}

#[test]
fn a_policy_beside_a_certificate_that_the_index_knows_is_followed() {
    let (mut site, _) = with_index();
    let protocol = |site: &Site| {
        let mut config = tls_client::config();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut client = tls_client::connect(Arc::new(config), site.address, "b.test");
        client.conn.complete_io(&mut client.sock).expect("handshake");
        client.conn.alpn_protocol().map(<[u8]>::to_vec)
    };
    assert_eq!(protocol(&site), None);
    site.replace("b.policy", "alpn = [\"http/1.1\"]\n");
    // Once because it is new, and once because it is there although nothing has changed.
    for _ in 0..2 {
        site.restart();
        assert_eq!(protocol(&site).as_deref(), Some(&b"http/1.1"[..]));
    }
    fs::remove_file(site.served("b.policy")).expect("remove");
    site.restart();
    assert_eq!(protocol(&site), None);
}

#[test]
fn an_index_that_is_of_no_use_costs_time_and_is_made_anew() {
    let (mut site, index) = with_index();
    let good = fs::read(&index).expect("an index");
    for bad in [&b"rubbish"[..], &good[..good.len() - 10], b""] {
        fs::write(&index, bad).expect("write");
        site.restart();
        site.forebay.wait_for_log("the index of certificates is not used");
        assert_eq!(site.shown("b.test"), certificate(&site.served("b.pem")));
        let (path, good) = (index.clone(), good.clone());
        site.forebay.wait_until("the index is made anew", move |_| {
            fs::read(&path).is_ok_and(|bytes| bytes.len() == good.len())
        });
    }
}

#[test]
fn an_index_that_lies_shows_no_client_a_certificate_for_another_name() {
    let (mut site, index) = with_index();
    // With its checksum, as only somebody who means it would.
    let text = fs::read_to_string(&index).expect("an index").replace("\"b.test\"", "\"x.test\"");
    let (head, body) = text.split_once('\n').expect("two parts");
    let crc32 = format!("{:08x}", crc32fast::hash(body.as_bytes()));
    let (before, _) = head.split_once("\"crc32\":\"").expect("a checksum");
    fs::write(&index, format!("{before}\"crc32\":\"{crc32}\"}}\n{body}")).expect("write");
    site.restart();
    let mut client = tls_client::connect(Arc::new(tls_client::config()), site.address, "x.test");
    assert!(client.conn.complete_io(&mut client.sock).is_err(), "b.pem is for b.test");
    let line = site.forebay.wait_for_log("cannot be read any more");
    assert!(line.contains("it is for other names now"), "{line}");
    assert_eq!(site.shown("a.test"), certificate(&site.served("a.pem")));
}
