//! `forebay certs` and `forebay reload`: the commands of an operator, against files, against
//! a running forebay and against several.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use support::authority::{Authority, openssl};
use support::certificates::{Key, self_signed};
use support::forebay::Forebay;
use support::node::Node;
use support::ports::free_address;
use support::tls_client;

/// What a command came to.
struct Outcome {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Outcome {
    #[track_caller]
    fn expect(self, status: i32, parts: &[&str]) -> Self {
        let Self { stdout, stderr, .. } = &self;
        assert_eq!(self.status, Some(status), "{stdout}\n{stderr}");
        for part in parts {
            assert!(stdout.contains(part) || stderr.contains(part), "{part}:\n{stdout}\n{stderr}");
        }
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

fn forebay(arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(arguments)
        .env_remove("FOREBAY_LOG")
        .env_remove("RUST_LOG")
        .output()
        .expect("forebay starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome {
        status: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

impl Node {
    fn exchange(&self, name: &str) {
        let config = Arc::new(tls_client::config());
        let mut client = tls_client::connect(config, self.address, name);
        client.conn.complete_io(&mut client.sock).expect("handshake");
    }
}

#[test]
fn the_list_of_a_running_process_says_when_a_certificate_was_last_used() {
    let (node, authority) = (Node::new(), Authority::new());
    authority.issue(&node.at("site.pem"), &["a.test", "*.b.test"]);
    let forebay_process = node.start("");
    let file = text(&forebay_process.configuration_file).to_owned();
    let listed = || forebay(&["certs", "list", "-c", &file, "--json"]).expect(0, &[]).json();
    let before = listed();
    let one = &before[0];
    assert_eq!(before.as_array().map(Vec::len), Some(1));
    assert_eq!(one["names"], serde_json::json!(["a.test", "*.b.test"]));
    assert_eq!(one["key"], "ECDSA P-256");
    assert_eq!(one["issuer"], "CN=test authority");
    assert_eq!(one["file"], text(&node.at("site.pem")));
    assert_eq!(one["listener"], "main");
    assert_eq!(one["last_used"], Value::Null);
    node.exchange("a.test");
    assert!(listed()[0]["last_used"].as_i64().is_some_and(|at| at > 1_600_000_000));
    forebay(&["certs", "list", "-c", &file])
        .expect(0, &["NAMES", "a.test *.b.test", "CN=test authority", "main"]);
}

#[test]
fn without_a_process_the_list_is_that_of_the_configuration() {
    let node = Node::new();
    self_signed(node.directory.path(), "site.pem", Key::EcdsaP256, &["a.test"]);
    let file = node.at("forebay.toml");
    fs::write(&file, node.configuration("")).expect("write");
    forebay(&["certs", "list", "-c", text(&file)])
        .expect(0, &["has no admin.address", "without last use", "a.test", "ECDSA P-256"]);
    fs::write(node.at("site.pem"), "rubbish").expect("write");
    forebay(&["certs", "list", "-c", text(&file)]).expect(1, &["is not PEM"]);
    forebay(&["certs", "list", "--admin", &free_address().to_string()])
        .expect(2, &["nobody answers at the admin address"]);
}

#[test]
fn checked_files_are_fine_or_every_finding_says_what_to_do() {
    let (node, authority) = (Node::new(), Authority::new());
    let site = node.at("site.pem");
    authority.issue(&site, &["a.test", "*.b.test"]);
    let roots = authority.certificate();
    let check = |more: &[&str]| {
        forebay(&[&["certs", "check", text(&site), "--roots", text(&roots)], more].concat())
    };
    // The authority's certificates are valid for 30 days.
    let fine = ["--days", "20"];
    check(&fine).expect(0, &["findings: 0, not checked: 0"]);
    check(&["--days", "40"]).expect(1, &["expires in ", " days, on ", "renew it"]);
    check(&[&fine[..], &["--names", "a.test,x.b.test"]].concat())
        .expect(0, &["a.test: covered by", "x.b.test: covered by"]);
    let uncovered = check(&[&fine[..], &["--names", "a.test,c.test", "--json"]].concat());
    let uncovered = uncovered.expect(1, &[]).json();
    assert_eq!(uncovered["findings"][0]["place"], "c.test");
    assert_eq!(uncovered["names"][0]["covered_by"][0], text(&site));
    // The machine does not know this authority.
    forebay(&["certs", "check", text(&site), "--days", "20"]).expect(1, &["--roots"]);
    // A key of somebody else.
    let other = self_signed(node.directory.path(), "other.pem", Key::EcdsaP256, &["o.test"]);
    let pem = fs::read_to_string(&site).expect("file");
    let key_begins = pem.find("-----BEGIN PRIVATE KEY").expect("a key");
    let others = fs::read_to_string(&other).expect("file");
    let others_key = &others[others.find("-----BEGIN PRIVATE KEY").expect("a key")..];
    fs::write(&site, [&pem[..key_begins], others_key].concat()).expect("write");
    check(&fine).expect(1, &["does not belong to the certificate", "openssl pkey -pubout"]);
    check(&["nowhere.pem"]).expect(2, &["not checked: nowhere.pem: is no file"]);
}

#[test]
fn weak_certificates_are_findings() {
    let directory = tempfile::tempdir().expect("directory");
    let at = directory.path();
    openssl(
        at,
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "weak.key",
            "-out",
            "weak.crt",
            "-days",
            "90",
            "-subj",
            "/CN=weak.test",
            "-sha1",
        ],
    );
    forebay(&["certs", "check", text(&at.join("weak.crt")), "--names", "weak.test"]).expect(
        1,
        &["is signed with SHA-1", "has no subjectAltName", "ends in a self-signed certificate"],
    );
}

#[test]
fn a_server_is_asked_for_each_name() {
    let (node, authority) = (Node::new(), Authority::new());
    authority.issue(&node.at("site.pem"), &["a.test", "*.b.test"]);
    let forebay_process = node.start("");
    let (server, roots) = (node.address.to_string(), authority.certificate());
    let common = ["certs", "check", "--days", "7", "--roots", text(&roots), &server];
    let check = |more: &[&str]| forebay(&[&common[..], more].concat());
    check(&[]).expect(0, &["ECDSA P-256 for a.test, *.b.test; from CN=test authority"]);
    check(&["--names", "a.test,*.b.test"]).expect(0, &["certificates: 1"]);
    check(&["--names", "a.test,c.test"])
        .expect(1, &["the certificate shown for c.test is for other names (a.test, *.b.test)"]);
    // The names of the configuration.
    let file = text(&forebay_process.configuration_file).to_owned();
    check(&["-c", &file]).expect(0, &["a.test: covered by", "*.b.test: covered by"]);
    drop(forebay_process);
    check(&[]).expect(2, &["cannot be connected"]);
}

#[test]
fn a_server_without_its_intermediate_certificate_has_an_incomplete_chain() {
    let (node, authority) = (Node::new(), Authority::new());
    let site = node.at("site.pem");
    authority.issue(&site, &["a.test"]);
    // Only the leaf and the key; and the roots are those of another authority.
    let pem = fs::read_to_string(&site).expect("file");
    let sections: Vec<&str> = pem.split_inclusive("-----END CERTIFICATE-----\n").collect();
    fs::write(&site, [sections[0], sections[2]].concat()).expect("write");
    let _forebay = node.start("");
    let stranger = Authority::new();
    let server = node.address.to_string();
    let arguments = ["certs", "check", &server, "--days", "7", "--roots"];
    let roots = stranger.certificate();
    // Of the same name, with another key.
    forebay(&[&arguments[..], &[text(&roots)]].concat()).expect(1, &["the chain is incomplete"]);
}

/// Two nodes with certificates of `authority` for a.test, configured with these lines each.
struct Pair {
    nodes: [Node; 2],
    authority: Authority,
}

impl Pair {
    /// Both with the same certificate.
    fn new() -> Self {
        let (nodes, authority) = ([Node::new(), Node::new()], Authority::new());
        authority.issue(&nodes[0].at("site.pem"), &["a.test"]);
        fs::copy(nodes[0].at("site.pem"), nodes[1].at("site.pem")).expect("copy");
        Self { nodes, authority }
    }

    /// With the secrets that one of them has, or each its own.
    fn start(&self, shared_secrets: bool) -> [Forebay; 2] {
        let secrets = self.nodes[0].at("tier.secrets");
        if shared_secrets && !secrets.exists() {
            forebay(&["ticket-secret", "generate", text(&secrets)]).expect(0, &[]);
        }
        let rest = match shared_secrets {
            true => format!("[session]\nsecrets = {secrets:?}\n"),
            false => String::new(),
        };
        [self.nodes[0].start(&rest), self.nodes[1].start(&rest)]
    }

    fn check(&self, more: &[&str]) -> Outcome {
        let nodes = format!("{},{}", self.nodes[0].address, self.nodes[1].address);
        let roots = self.authority.certificate();
        let common = ["certs", "check", "--nodes", &nodes, "--names", "a.test", "--days", "7"];
        forebay(&[&common[..], &["--roots", text(&roots)], more].concat())
    }
}

#[test]
fn nodes_with_the_same_certificate_and_secrets_are_one_to_a_client() {
    let pair = Pair::new();
    let _nodes = pair.start(true);
    pair.check(&["--same"])
        .expect(0, &["a.test: the same certificate on 2 nodes", "sessions resumed: 4 of 4"]);
    let report = pair.check(&["--json"]).expect(0, &[]).json();
    assert_eq!(report["nodes"]["names"][0]["certificates"], "same");
    let versions = serde_json::json!(["TLSv1.3", "TLSv1.2"]);
    assert_eq!(report["nodes"]["names"][0]["nodes"][1]["versions"], versions);
    let pairs = report["nodes"]["resumption"].as_array().expect("pairs");
    assert!(pairs.iter().all(|pair| pair["resumed"] == true) && pairs.len() == 4, "{pairs:?}");
}

#[test]
fn nodes_with_secrets_of_their_own_do_not_resume_each_others_sessions() {
    let pair = Pair::new();
    let _nodes = pair.start(false);
    let outcome = pair.check(&[]).expect(1, &["sessions resumed: 0 of 4"]);
    for version in ["TLSv1.2", "TLSv1.3"] {
        for [from, to] in [[0, 1], [1, 0]] {
            let [from, to] = [from, to].map(|node: usize| pair.nodes[node].address);
            let finding = format!(
                "{to} (a.test): does not resume a session begun on {from} ({version}): give both"
            );
            assert!(outcome.stdout.contains(&finding), "{finding}:\n{}", outcome.stdout);
        }
    }
}

#[test]
fn a_renewal_under_way_is_reported_and_then_its_end() {
    let pair = Pair::new();
    let mut nodes = pair.start(true);
    // One node has the new certificate, the other the old one.
    pair.authority.issue(&pair.nodes[1].at("site.pem"), &["a.test"]);
    nodes[1].signal(libc::SIGHUP);
    nodes[1].wait_for_log("reloaded");
    pair.check(&[]).expect(0, &["a.test: equivalent certificates on 2 nodes"]);
    pair.check(&["--same"]).expect(1, &["renew it there too"]);
    fs::copy(pair.nodes[1].at("site.pem"), pair.nodes[0].at("site.pem")).expect("copy");
    nodes[0].signal(libc::SIGHUP);
    nodes[0].wait_for_log("reloaded");
    pair.check(&["--same"]).expect(0, &["a.test: the same certificate on 2 nodes"]);
}

#[test]
fn nodes_that_differ_are_told_in_what() {
    let pair = Pair::new();
    self_signed(pair.nodes[1].directory.path(), "site.pem", Key::Rsa2048, &["a.test"]);
    let _nodes =
        [pair.nodes[0].start(""), pair.nodes[1].start("[tls]\nminimum_version = \"1.3\"\n")];
    pair.check(&[]).expect(
        1,
        &[
            "a.test: different certificates on 2 nodes",
            "the certificate is RSA number",
            "what is spoken is TLSv1.3, on",
            "ends in a self-signed certificate",
        ],
    );
}

#[test]
fn a_node_that_is_not_there_cannot_be_checked() {
    let pair = Pair::new();
    let nodes = pair.start(true);
    let [_first, second] = nodes;
    drop(second);
    pair.check(&[]).expect(2, &["not checked:", "cannot be connected"]);
    let one = pair.nodes[0].address.to_string();
    forebay(&["certs", "check", "--nodes", &one]).expect(2, &["--nodes takes 2 to"]);
}

#[test]
fn reload_waits_for_the_outcome_and_says_it() {
    let node = Node::new();
    self_signed(node.directory.path(), "site.pem", Key::EcdsaP256, &["a.test"]);
    let forebay_process = node.start("");
    let file = text(&forebay_process.configuration_file).to_owned();
    forebay(&["reload", "-c", &file]).expect(0, &["reloaded: generation 2 is in force"]);
    assert_eq!(forebay_process.metric("forebay_configuration_generation", &[]) as u64, 2);
    forebay_process.write_configuration(&node.configuration("[tls]\nkeys_in_memroy = 5\n"));
    forebay(&["reload", "-c", &file])
        .expect(1, &["keys_in_memroy", "did you mean", "reload refused", "(generation 2)"]);
    forebay_process.write_configuration(&node.configuration("[tls]\nkeys_in_memory = 5\n"));
    let outcome = forebay(&["reload", "-c", &file, "--json"]).expect(0, &[]).json();
    assert_eq!(outcome["generation"], 3);
    drop(forebay_process);
    forebay(&["reload", "-c", &file]).expect(2, &["nobody answers", "does forebay run?"]);
    fs::write(&file, "").expect("write");
    forebay(&["reload", "-c", &file]).expect(2, &["has no admin.address"]);
}
