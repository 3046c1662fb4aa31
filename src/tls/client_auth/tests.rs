use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::*;

/// A certificate with these names and common names.
fn certificate(names: Vec<SanType>, common_names: &[&str]) -> Vec<u8> {
    let mut parameters = CertificateParams::default();
    parameters.subject_alt_names = names;
    parameters.distinguished_name = DistinguishedName::new();
    for name in common_names {
        parameters.distinguished_name.push(DnType::CommonName, *name);
    }
    let key = KeyPair::generate().unwrap();
    parameters.self_signed(&key).unwrap().der().to_vec()
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn email(text: &str) -> SanType {
    SanType::Rfc822Name(text.try_into().unwrap())
}

fn rule(text: &str) -> Rule {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn holds(text: &str, der: &[u8]) -> bool {
    rule(text).holds(&ClientCertificate::parse(der).unwrap())
}

#[test]
fn a_dns_rule_holds_for_the_name_in_any_case() {
    let der = certificate(vec![dns("other.example"), dns("App.Example")], &[]);
    assert!(holds("dns:app.example", &der));
    assert!(holds("dns:APP.example", &der));
    assert!(!holds("dns:example", &der));
    assert!(!holds("dns:my.app.example", &der));
}

#[test]
fn a_dns_wildcard_stands_for_just_one_label() {
    let one = certificate(vec![dns("app.example")], &[]);
    let two = certificate(vec![dns("my.app.example")], &[]);
    let none = certificate(vec![dns("example")], &[]);
    assert_eq!([&one, &two, &none].map(|der| holds("dns:*.example", der)), [true, false, false]);
}

#[test]
fn a_wildcard_in_the_clients_certificate_stands_for_no_client() {
    let der = certificate(vec![dns("*.example")], &[]);
    assert!(!holds("dns:*.example", &der));
    assert!(!holds("dns:app.example", &der));
}

#[test]
fn a_common_name_is_no_dns_name() {
    let der = certificate(vec![], &["app.example"]);
    assert!(!holds("dns:app.example", &der));
    assert!(holds("cn:app.example", &der));
}

#[test]
fn a_common_name_counts_only_as_it_is_written_and_when_it_is_the_only_one() {
    assert!(!holds("cn:App", &certificate(vec![], &["app"])));
    assert!(!holds("cn:app", &certificate(vec![dns("app")], &[])));
}

#[test]
fn a_spiffe_prefix_holds_below_its_path_only() {
    let below =
        |id: &str| holds("uri:spiffe://prod.example/ns/web/*", &certificate(vec![uri(id)], &[]));
    assert!(below("spiffe://prod.example/ns/web/front"));
    assert!(below("spiffe://prod.example/ns/web/front/2"));
    assert!(!below("spiffe://prod.example/ns/web"));
    assert!(!below("spiffe://prod.example/ns/webmail/front"));
    assert!(!below("spiffe://prod.example.evil/ns/web/front"));
    assert!(!below("https://prod.example/ns/web/front"));
}

#[test]
fn an_id_that_spiffe_forbids_is_below_no_prefix() {
    for id in ["web/../admin", "web/%2e%2e", "web//x", "web/", "web/."] {
        let der = certificate(vec![uri(&format!("spiffe://prod.example/{id}"))], &[]);
        assert!(!holds("uri:spiffe://prod.example/web/*", &der), "{id}");
        assert!(!holds("uri:spiffe://prod.example/*", &der), "{id}");
    }
}

#[test]
fn a_certificate_with_two_uris_is_no_spiffe_identity() {
    let id = "spiffe://prod.example/web";
    assert!(holds("uri:spiffe://prod.example/web", &certificate(vec![uri(id)], &[])));
    let two = certificate(vec![uri(id), uri("spiffe://prod.example/admin")], &[]);
    assert!(!holds("uri:spiffe://prod.example/web", &two));
    assert!(!holds("uri:spiffe://prod.example/*", &two));
}

#[test]
fn another_uri_holds_byte_for_byte_and_beside_others() {
    let der = certificate(vec![uri("urn:device:7"), uri("urn:device:8")], &[]);
    assert!(holds("uri:urn:device:8", &der));
    assert!(!holds("uri:urn:device", &der));
    assert!(!holds("uri:URN:device:8", &der));
}

#[test]
fn a_mail_address_holds_with_its_host_in_any_case_but_not_its_name() {
    let der = certificate(vec![email("Ops@Corp.Example")], &[]);
    assert!(holds("email:Ops@corp.example", &der));
    assert!(!holds("email:ops@corp.example", &der));
    assert!(holds("email:@corp.example", &der));
    assert!(!holds("email:@example", &der));
    assert!(!holds("email:@sub.corp.example", &der));
}

#[test]
fn a_key_rule_holds_in_both_spellings_for_that_key_alone() {
    let der = certificate(vec![], &["one"]);
    let digest = *ClientCertificate::parse(&der).unwrap().key_digest();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(holds(&format!("spki:{hex}"), &der));
    assert!(holds(&format!("spki:{}", hex.to_uppercase()), &der));
    assert!(!holds(&format!("spki:{hex}"), &certificate(vec![], &["one"])));
}

#[test]
fn a_key_is_named_as_openssl_and_http_public_key_pinning_name_it() {
    // printf '' | openssl dgst -sha256 -binary | base64
    let empty = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(rule(&format!("spki:{empty}")), rule(&format!("spki:{hex}")));
}

#[test]
fn any_rule_of_a_list_lets_a_client_in_and_an_empty_list_everybody() {
    let der = certificate(vec![dns("app.example")], &["app"]);
    let client = ClientCertificate::parse(&der).unwrap();
    let allow =
        |texts: &[&str]| Rules::new(texts.iter().map(|text| rule(text)).collect()).allow(&client);
    assert!(allow(&["cn:other", "dns:app.example"]));
    assert!(!allow(&["cn:other", "dns:other.example"]));
    assert!(allow(&[]));
}

#[test]
fn what_would_hold_for_nobody_is_no_rule_and_the_error_says_what_to_write() {
    for (text, says) in [
        ("app.example", "begin it with dns:"),
        ("san:app.example", "begin it with dns:"),
        ("DNS:app.example", "begin it with dns:"),
        ("cn:", "nothing behind the colon"),
        ("dns:192.0.2.1", "is an address"),
        ("dns:*", "is no DNS name"),
        ("dns:*.*.example", "is no DNS name"),
        ("dns:app.*", "is no DNS name"),
        ("uri:prod.example/web", "write a scheme too"),
        ("uri:https://prod.example/*", "only SPIFFE IDs"),
        ("uri:urn:with space", "is no URI"),
        ("uri:spiffe://Prod.example/web", "is no SPIFFE ID"),
        ("uri:SPIFFE://prod.example/web", "is no SPIFFE ID"),
        ("uri:spiffe://prod.example/", "is no SPIFFE ID"),
        ("uri:spiffe://prod.example/*/web", "is no SPIFFE ID"),
        ("uri:spiffe://prod.example/web*", "is no SPIFFE ID"),
        ("uri:spiffe://*", "is no SPIFFE ID"),
        ("email:corp.example", "write email:name@host"),
        ("email:*@corp.example", "write email:name@host"),
        ("email:@*.example", "write email:name@host"),
        ("spki:abcd", "is no SHA-256 digest"),
        ("spki:sha256/abcd", "is no SHA-256 digest"),
        ("spki:sha1/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "is no SHA-256 digest"),
    ] {
        let error = text.parse::<Rule>().expect_err(text).to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn a_certificate_beyond_the_limit_or_with_bytes_behind_it_is_not_read() {
    let mut der = certificate(vec![], &["app"]);
    der.push(0);
    assert_eq!(ClientCertificate::parse(&der).err(), Some(UnreadableCertificate::NotX509));
    let bytes = ClientCertificate::BYTES_MAX + 1;
    let error = ClientCertificate::parse(&vec![0x30; bytes]).err();
    assert_eq!(error, Some(UnreadableCertificate::TooLarge { bytes }));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_of_rules_panic(
        text in any::<String>(),
        value in "(dns|uri|email|cn|spki):(spiffe://|sha256/)?[a-z@/*. é]{0,70}",
    ) {
        let _ = text.parse::<Rule>();
        let _ = value.parse::<Rule>();
    }

    #[test]
    fn no_bytes_make_the_reader_of_certificates_panic(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        place in 0_usize..300,
        byte: u8,
    ) {
        let _ = ClientCertificate::parse(&noise);
        let mut der = certificate(vec![dns("app.example"), uri("spiffe://d/p")], &["app"]);
        let place = place % der.len();
        der[place] = byte;
        if let Ok(client) = ClientCertificate::parse(&der) {
            let _ = (rule("dns:app.example").holds(&client), rule("cn:app").holds(&client));
        }
    }
}
