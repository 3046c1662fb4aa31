use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::test_files::{P256, concatenate, one_certificate, write};
use super::*;
use crate::tls::test_support::{LIBRARIES, openssl, openssl_certificate, restrict};

const AWS: CryptoLibrary = CryptoLibrary::AwsLc;

fn load_now(paths: &[PathBuf], library: CryptoLibrary) -> (Vec<LoadedCertificate>, Vec<Finding>) {
    load(paths, library, &Passphrases::default(), SystemTime::now())
}

/// The one finding for `path`, in its own words.
fn only_message(path: &Path, library: CryptoLibrary) -> (String, Severity) {
    let (_, findings) = load_now(&[path.to_owned()], library);
    let [finding] = findings.as_slice() else { panic!("{findings:#?}") };
    (finding.message(), finding.severity)
}

/// The one error for `path`.
fn error(path: &Path) -> String {
    let (certificates, _) = load_now(&[path.to_owned()], AWS);
    assert!(certificates.is_empty());
    let (message, severity) = only_message(path, AWS);
    assert_eq!(severity, Severity::Error);
    message
}

/// The one certificate at `path`, which nothing is wrong with.
fn good(path: &Path, library: CryptoLibrary) -> LoadedCertificate {
    let (mut certificates, findings) = load_now(&[path.to_owned()], library);
    assert_eq!(findings, [], "{library}");
    assert_eq!(certificates.len(), 1);
    certificates.pop().unwrap()
}

fn texts(names: &[CertificateName]) -> Vec<String> {
    names.iter().map(CertificateName::to_string).collect()
}

#[test]
fn every_kind_of_key_loads_in_every_form_with_both_libraries() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    for (name, key, key_type, traditional) in [
        ("p256", P256, KeyType::EcdsaP256, true),
        ("p384", "ec -pkeyopt ec_paramgen_curve:P-384", KeyType::EcdsaP384, true),
        ("rsa", "rsa:2048", KeyType::Rsa, true),
        ("ed25519", "ed25519", KeyType::Ed25519, false),
    ] {
        openssl_certificate(at, name, key, "DNS:a.example");
        for library in LIBRARIES {
            assert_eq!(good(&at.join(format!("{name}.crt")), library).key_type, key_type);
        }
        if traditional {
            // SEC1 for EC, PKCS#1 for RSA.
            openssl(at, &format!("pkey -in {name}.key -traditional -out {name}.old"));
            let both = [&format!("{name}.crt")[..], &format!("{name}.old")[..]];
            let path = concatenate(at, &both, &format!("{name}-old.pem"));
            for library in LIBRARIES {
                assert_eq!(good(&path, library).key_type, key_type);
            }
        }
    }
}

#[test]
fn p521_loads_with_aws_lc_rs_and_ring_says_what_to_use_instead() {
    let directory = TempDir::new().unwrap();
    let key = "ec -pkeyopt ec_paramgen_curve:P-521";
    openssl_certificate(directory.path(), "a", key, "DNS:a.example");
    let path = directory.path().join("a.crt");
    assert_eq!(good(&path, AWS).key_type, KeyType::EcdsaP521);
    assert_eq!(
        only_message(&path, CryptoLibrary::Ring).0,
        "has an ECDSA P-521 key, which ring cannot sign with; use ECDSA P-256 or P-384, \
         Ed25519, or RSA of 2048 to 4096 bits"
    );
}

#[test]
fn a_weak_rsa_key_is_unsupported() {
    let directory = TempDir::new().unwrap();
    openssl_certificate(directory.path(), "a", "rsa:1024", "DNS:a.example");
    for (library, bits) in [(AWS, 8192), (CryptoLibrary::Ring, 4096)] {
        assert_eq!(
            only_message(&directory.path().join("a.crt"), library).0,
            format!(
                "has an RSA key of 1024 bits, which {library} cannot sign with; \
                 use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to {bits} bits"
            )
        );
    }
}

#[test]
fn an_unusual_curve_is_unsupported() {
    let directory = TempDir::new().unwrap();
    let key = "ec -pkeyopt ec_paramgen_curve:secp256k1";
    openssl_certificate(directory.path(), "a", key, "DNS:a.example");
    let message = error(&directory.path().join("a.crt"));
    assert!(message.starts_with("has an EC key on the curve 1.3.132.0.10, which"), "{message}");
}

#[test]
fn an_rsa_pss_key_is_unsupported() {
    let directory = TempDir::new().unwrap();
    openssl_certificate(directory.path(), "a", "rsa-pss", "DNS:a.example");
    let message = error(&directory.path().join("a.crt"));
    assert!(message.contains("1.2.840.113549.1.1.10, which aws-lc-rs cannot sign"), "{message}");
}

#[test]
fn chain_and_key_may_stand_in_one_file_in_any_order() {
    let directory = one_certificate();
    for order in [["a.crt", "a.key"], ["a.key", "a.crt"]] {
        let path = concatenate(directory.path(), &order, "both.pem");
        assert_eq!(texts(&good(&path, AWS).names), ["a.example"]);
    }
}

#[test]
fn a_pem_file_finds_its_key_beside_it_too() {
    let directory = one_certificate();
    concatenate(directory.path(), &["a.crt"], "b.pem");
    concatenate(directory.path(), &["a.key"], "b.key");
    good(&directory.path().join("b.pem"), AWS);
}

#[test]
fn the_chain_is_put_in_order_leaf_first() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    openssl_certificate(at, "root", P256, "DNS:root.example");
    for (name, issuer) in [("middle", "root"), ("leaf", "middle")] {
        openssl(
            at,
            &format!(
                "req -new -newkey {P256} -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
            ),
        );
        fs::write(
            at.join("extensions"),
            "subjectAltName=DNS:leaf.example\nbasicConstraints=CA:TRUE\n",
        )
        .unwrap();
        openssl(
            at,
            &format!(
                "x509 -req -in {name}.csr -CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial \
                 -days 365 -extfile extensions -out {name}.crt"
            ),
        );
    }
    let orders =
        [["leaf", "middle", "root"], ["root", "middle", "leaf"], ["middle", "leaf", "root"]];
    let der =
        |certificate: &LoadedCertificate| certificate.signing.certified().unwrap().cert.clone();
    let mut expected = None;
    for order in orders {
        let mut files: Vec<_> = order.iter().map(|name| format!("{name}.crt")).collect();
        files.push("leaf.key".to_owned());
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        let path = concatenate(at, &files, "chain.pem");
        let loaded = good(&path, AWS);
        assert_eq!(texts(&loaded.names), ["leaf.example"]);
        assert_eq!(&der(&loaded), expected.get_or_insert(der(&loaded)));
    }

    openssl_certificate(at, "stray", P256, "DNS:stray.example");
    let path = concatenate(at, &["leaf.crt", "stray.crt", "leaf.key"], "stray.pem");
    assert_eq!(
        only_message(&path, AWS),
        (
            "holds a certificate (number 2: CN=stray) that is not in the leaf's chain; \
             it is sent all the same"
                .to_owned(),
            Severity::Warning
        )
    );
}

#[test]
fn a_directory_is_read_in_order_and_leaves_the_rest_alone() {
    let directory = one_certificate();
    let at = directory.path();
    openssl_certificate(at, "b", P256, "DNS:b.example");
    concatenate(at, &["b.crt", "b.key"], "0.pem");
    for stray in [".hidden.pem", "stray.key", "stray.ocsp", "README"] {
        write(at, stray, b"not for us");
    }
    fs::create_dir(at.join("deeper")).unwrap();
    write(&at.join("deeper"), "c.pem", b"not for us either");
    fs::create_dir(at.join("directory.pem")).unwrap();

    let (certificates, findings) = load_now(&[at.to_owned(), at.join("a.crt")], AWS);
    assert_eq!(findings, []);
    let sources: Vec<_> =
        certificates.iter().map(|certificate| certificate.source.file_name().unwrap()).collect();
    assert_eq!(sources, ["0.pem", "a.crt", "b.crt"]);
}

#[test]
fn every_error_and_warning_is_reported_not_only_the_first() {
    let directory = one_certificate();
    let at = directory.path();
    write(at, "empty.pem", b" \n");
    concatenate(at, &["a.crt"], "keyless.crt");
    write(at, "text.pem", b"hello");
    let (certificates, findings) = load_now(&[at.to_owned(), at.join("missing.pem")], AWS);
    assert_eq!(certificates.len(), 1);
    let findings: Vec<_> = findings.iter().map(Finding::to_string).collect();
    let at = at.display();
    assert_eq!(
        findings,
        [
            format!("{at}/empty.pem: is empty"),
            format!(
                "{at}/keyless.crt: holds no private key, and there is no {at}/keyless.key; \
                 append the key to the certificate file or put it there"
            ),
            format!(
                "{at}/text.pem: is not PEM: no line begins with \"-----BEGIN \"; \
                 give the certificate chain and its private key in PEM form"
            ),
            format!("{at}/missing.pem: cannot be read: No such file or directory (os error 2)"),
        ]
    );
}

#[test]
fn a_directory_without_certificates_is_an_error() {
    let directory = TempDir::new().unwrap();
    assert_eq!(error(directory.path()), "is a directory without any *.pem or *.crt file");
}

#[test]
fn what_is_no_file_is_not_opened() {
    assert_eq!(error(Path::new("/dev/zero")), "is neither a file nor a directory");
}

#[test]
fn a_huge_file_is_not_read_to_its_end() {
    let directory = TempDir::new().unwrap();
    let path = write(directory.path(), "a.pem", b"");
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 32).unwrap();
    assert_eq!(error(&path), "is larger than 1048576 bytes: not a certificate file");
}

#[test]
fn a_key_of_another_certificate_is_named_with_both_kinds() {
    let directory = one_certificate();
    let at = directory.path();
    openssl_certificate(at, "b", "rsa:2048", "DNS:b.example");
    let path = concatenate(at, &["a.crt", "b.key"], "mixed.pem");
    assert_eq!(
        error(&path),
        "holds a private key that does not belong to the certificate (the key is RSA, the \
         certificate's is ECDSA P-256); compare the output of: openssl x509 -noout -pubkey, and: \
         openssl pkey -pubout"
    );

    // Said of the file that holds the key.
    concatenate(at, &["b.key"], "a.key");
    let (_, findings) = load_now(&[at.join("a.crt")], AWS);
    assert_eq!(findings[0].path, at.join("a.key"));
}

#[test]
fn a_key_without_a_certificate_is_an_error() {
    let directory = one_certificate();
    let path = concatenate(directory.path(), &["a.key"], "key.pem");
    assert_eq!(
        error(&path),
        "holds no certificate, only a private key; put the certificate chain in front of it"
    );
}

#[test]
fn pem_without_certificate_or_key_is_an_error() {
    let directory = one_certificate();
    let at = directory.path();
    openssl(at, "pkey -in a.key -pubout -out public.pem");
    assert_eq!(error(&at.join("public.pem")), "holds no certificate");

    concatenate(at, &["public.pem"], "a.key");
    assert_eq!(error(&at.join("a.crt")), "holds no private key");
}

#[test]
fn two_keys_in_a_file_are_an_error() {
    let directory = one_certificate();
    let path = concatenate(directory.path(), &["a.crt", "a.key", "a.key"], "two.pem");
    assert_eq!(
        error(&path),
        "holds 2 private keys; leave only the one that belongs to the certificate"
    );
}

#[test]
fn binary_forms_are_named_with_the_command_that_converts_them() {
    let directory = one_certificate();
    let at = directory.path();
    openssl(at, "x509 -in a.crt -outform der -out certificate");
    openssl(at, "pkey -in a.key -outform der -out key");
    openssl(at, "pkcs12 -export -in a.crt -inkey a.key -passout pass: -out container");
    for (name, expected) in [
        ("certificate", "is a certificate in DER form; convert it: openssl x509 -inform der -in"),
        ("key", "is a private key in DER form; convert it: openssl pkey -inform der -in"),
        ("container", "is a PKCS#12 container; convert it: openssl pkcs12 -in"),
    ] {
        let message = error(&at.join(name));
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn a_file_that_is_called_as_pkcs12_files_are_gets_their_command_too() {
    let directory = TempDir::new().unwrap();
    for name in ["site.p12", "site.PFX"] {
        let path = write(directory.path(), name, &[0x30, 0x80, 0x02, 0x01, 0x03]);
        let path_text = path.display();
        assert_eq!(
            error(&path),
            format!(
                "is a PKCS#12 container; convert it: openssl pkcs12 -in {path_text} -nodes \
                 -out {path_text}.pem"
            )
        );
    }
}

#[test]
fn other_pem_sections_are_named_with_the_command_that_converts_them() {
    let directory = one_certificate();
    let at = directory.path();
    openssl(at, "crl2pkcs7 -nocrl -certfile a.crt -out a.p7");
    openssl(at, "x509 -in a.crt -trustout -out trusted");
    for (name, expected) in [
        ("a.p7", "holds a PEM section \"PKCS7\"; convert it: openssl pkcs7 -print_certs -in"),
        ("trusted", "holds a PEM section \"TRUSTED CERTIFICATE\"; convert it: openssl x509 -in"),
    ] {
        let message = error(&at.join(name));
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn broken_pem_is_described() {
    let directory = one_certificate();
    let at = directory.path();
    let pem = fs::read_to_string(at.join("a.crt")).unwrap();
    let cut = write(at, "cut.pem", &pem.as_bytes()[..pem.len() / 2]);
    assert_eq!(error(&cut), "holds broken PEM: the section \"CERTIFICATE\" has no END line");
    let garbled = write(at, "garbled.pem", pem.replacen("MII", "M!I", 1).as_bytes());
    assert_eq!(error(&garbled), "holds broken PEM: a section is not valid base64");
}

#[test]
fn a_broken_certificate_is_named_by_its_place() {
    let directory = one_certificate();
    let at = directory.path();
    let mut pem = fs::read(at.join("a.crt")).unwrap();
    pem.extend(b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    pem.extend(fs::read(at.join("a.key")).unwrap());
    let message = error(&write(at, "broken.pem", &pem));
    assert!(message.starts_with("certificate number 2 in it is not valid X.509: "), "{message}");
}

#[test]
fn a_broken_key_is_unusable() {
    let directory = one_certificate();
    let at = directory.path();
    let mut pem = fs::read(at.join("a.crt")).unwrap();
    pem.extend(b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
    let message = error(&write(at, "broken.pem", &pem));
    assert!(message.starts_with("holds a private key that cannot be used: "), "{message}");
    assert!(message.ends_with("; look at it: openssl pkey -check"), "{message}");
}

#[test]
fn a_byte_order_mark_and_text_around_the_sections_do_no_harm() {
    let directory = one_certificate();
    let at = directory.path();
    let mut pem = b"\xef\xbb\xbf".to_vec();
    pem.extend(fs::read(at.join("a.crt")).unwrap());
    pem.extend(b"subject=/CN=a\r\n");
    pem.extend(fs::read(at.join("a.key")).unwrap());
    good(&write(at, "marked.pem", &pem), AWS);
}

#[test]
fn validity_is_judged_by_the_clock_and_only_warned_of() {
    let directory = one_certificate();
    let path = directory.path().join("a.crt");
    let not_after = good(&path, AWS).not_after as u64;
    let at = |seconds: u64| {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let (certificates, findings) =
            load(std::slice::from_ref(&path), AWS, &Passphrases::default(), now);
        assert_eq!(certificates.len(), 1);
        assert!(findings.iter().all(|finding| finding.severity == Severity::Warning));
        findings.iter().map(Finding::message).collect::<Vec<_>>()
    };
    let day = 24 * 60 * 60;
    assert_eq!(at(not_after - 14 * day), Vec::<String>::new());
    let soon = at(not_after - 14 * day + 1);
    assert!(soon[0].starts_with("expires in 13 days, on 2"), "{soon:?}");
    assert!(soon[0].ends_with("; renew it"), "{soon:?}");
    let expired = at(not_after + 1);
    assert!(expired[0].starts_with("expired on 2"), "{expired:?}");
    let early = at(0);
    assert!(early[0].starts_with("is not valid before 2"), "{early:?}");
}

#[test]
fn a_key_that_everyone_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;

    let directory = one_certificate();
    let at = directory.path();
    fs::set_permissions(at.join("a.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let (_, findings) = load_now(&[at.join("a.crt")], AWS);
    assert_eq!(
        findings[0].to_string(),
        format!(
            "{}: holds a private key that every user can read (mode 0644); chmod o-rwx",
            at.join("a.key").display()
        )
    );
    assert_eq!(findings[0].severity, Severity::Warning);

    fs::set_permissions(at.join("a.key"), fs::Permissions::from_mode(0o640)).unwrap();
    good(&at.join("a.crt"), AWS);
}

#[test]
fn names_are_taken_from_the_alternative_name() {
    let directory = TempDir::new().unwrap();
    openssl_certificate(
        directory.path(),
        "a",
        P256,
        "DNS:A.Example,DNS:*.b.example,IP:192.0.2.1,IP:2001:db8::1,email:x@a.example",
    );
    let loaded = good(&directory.path().join("a.crt"), AWS);
    assert_eq!(texts(&loaded.names), ["a.example", "*.b.example", "192.0.2.1", "2001:db8::1"]);
}

#[test]
fn a_name_that_no_client_can_ask_for_is_warned_of() {
    let directory = TempDir::new().unwrap();
    openssl_certificate(directory.path(), "a", P256, "DNS:w*.a.example,DNS:b.example");
    assert_eq!(
        only_message(&directory.path().join("a.crt"), AWS).0,
        "is valid for \"w*.a.example\", which is not a DNS name (a \"*\" must be the whole first \
         label)"
    );
}

#[test]
fn the_common_name_counts_only_without_an_alternative_name() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    for (name, subject) in [("dns", "/CN=old.example"), ("text", "/CN=Just_a title/O=x")] {
        let key = format!("req -x509 -newkey {P256} -nodes -keyout {name}.key -out {name}.crt");
        let mut command: Vec<&str> = key.split(' ').collect();
        command.extend(["-days", "365", "-subj", subject]);
        let status =
            std::process::Command::new("openssl").args(command).current_dir(at).output().unwrap();
        assert!(status.status.success());
        restrict(&at.join(format!("{name}.key")));
    }
    assert_eq!(
        only_message(&at.join("dns.crt"), AWS),
        (
            "has no subjectAltName, only the common name \"old.example\"; it is served for that \
             name, but today's clients will refuse it"
                .to_owned(),
            Severity::Warning
        )
    );
    assert_eq!(
        only_message(&at.join("text.crt"), AWS),
        (
            "is valid for no DNS name and no address; it can only serve as the default".to_owned(),
            Severity::Warning
        )
    );
}

mod index {
    use super::super::index::CertificateIndex;
    use super::super::store::Certificates;
    use super::*;
    use crate::tls::self_signed::self_signed;

    /// Certificates for names and kinds of key; how they sign does not matter here.
    fn certificates(of: &[(&[&str], KeyType, i64)]) -> Certificates {
        let model = self_signed(&["model.example"], AWS).unwrap();
        of.iter()
            .enumerate()
            .map(|(place, (names, key_type, not_after))| LoadedCertificate {
                source: Path::new(&place.to_string()).into(),
                names: names.iter().map(|name| CertificateName::parse(name).unwrap()).collect(),
                key_type: *key_type,
                not_after: *not_after,
                ..model.clone()
            })
            .map(Arc::new)
            .collect()
    }

    fn found(index: &CertificateIndex, name: &str) -> Vec<String> {
        index
            .find(name)
            .iter()
            .map(|certificate| certificate.source.display().to_string())
            .collect()
    }

    #[test]
    fn exact_comes_before_wildcard_and_a_wildcard_is_one_label() {
        let index = CertificateIndex::new(certificates(&[
            (&["*.a.example"], KeyType::EcdsaP256, 1),
            (&["www.a.example"], KeyType::EcdsaP256, 1),
        ]));
        assert_eq!(found(&index, "www.a.example"), ["1", "0"]);
        assert_eq!(found(&index, "mail.a.example"), ["0"]);
        for name in ["a.example", "x.www.a.example", "example", "", ".", ".a.example.x"] {
            assert!(index.find(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn an_address_finds_the_certificates_that_have_it_and_no_name_does() {
        let index = CertificateIndex::new(certificates(&[
            (&["a.example", "192.0.2.1"], KeyType::Rsa, 1),
            (&["2001:db8::1", "192.0.2.1"], KeyType::EcdsaP256, 1),
        ]));
        let found_at = |address: &str| -> Vec<_> {
            let found = index.find_address(address.parse().unwrap());
            found.iter().map(|certificate| certificate.source.display().to_string()).collect()
        };
        assert_eq!(found_at("192.0.2.1"), ["1", "0"]);
        assert_eq!(found_at("2001:db8::1"), ["1"]);
        assert_eq!(found_at("192.0.2.2"), Vec::<String>::new());
        assert!(index.find("192.0.2.1").is_empty());
        assert!(index.has_addresses());
        let names_only = certificates(&[(&["a.example"], KeyType::Rsa, 1)]);
        assert!(!CertificateIndex::new(names_only).has_addresses());
    }

    #[test]
    fn kinds_of_key_stand_side_by_side_and_elliptic_curves_come_first() {
        let index = CertificateIndex::new(certificates(&[
            (&["a.example"], KeyType::Rsa, 9),
            (&["a.example"], KeyType::EcdsaP384, 1),
            (&["a.example"], KeyType::Ed25519, 1),
            (&["a.example"], KeyType::EcdsaP256, 1),
        ]));
        assert_eq!(found(&index, "a.example"), ["3", "2", "1", "0"]);
    }

    #[test]
    fn of_equal_keys_the_one_that_expires_last_comes_first_wherever_it_stands() {
        let index = CertificateIndex::new(certificates(&[
            (&["a.example", "b.example"], KeyType::Rsa, 5),
            (&["a.example"], KeyType::Rsa, 7),
            (&["a.example"], KeyType::Rsa, 6),
        ]));
        assert_eq!(found(&index, "a.example"), ["1", "2", "0"]);
        assert_eq!(found(&index, "b.example"), ["0"]);
        let siblings = index.find("a.example").siblings().expect("found");
        let ends: Vec<i64> = index.resolve(&siblings).map(|one| one.not_after).collect();
        assert_eq!(ends, [7, 6, 5]);
    }

    #[test]
    fn a_certificate_that_has_a_name_twice_is_found_once() {
        let index = CertificateIndex::new(certificates(&[
            (&["a.example", "a.example"], KeyType::Rsa, 5),
            (&["a.example", "a.example"], KeyType::Rsa, 7),
        ]));
        assert_eq!(found(&index, "a.example"), ["1", "0"]);
    }

    #[test]
    fn siblings_have_the_same_names_in_any_order_and_other_keys() {
        let index = CertificateIndex::new(certificates(&[
            (&["a.example", "192.0.2.1"], KeyType::Rsa, 5),
            (&["192.0.2.1", "a.example"], KeyType::EcdsaP256, 5),
            (&["a.example"], KeyType::EcdsaP384, 5),
        ]));
        let siblings = index.siblings(0);
        let sources: Vec<_> =
            index.resolve(&siblings).map(|certificate| certificate.source.clone()).collect();
        assert_eq!(sources, [Path::new("1").into(), Path::new("0").into()]);
    }

    /// With `replacement` in the place of the certificate at `place`.
    fn replaced(
        before: &CertificateIndex,
        place: usize,
        replacement: (&[&str], KeyType, i64),
    ) -> CertificateIndex {
        let mut certificates = before.certificates().to_vec();
        certificates[place] = Arc::clone(&self::certificates(&[replacement])[0]);
        before.followed_by(certificates.into())
    }

    #[test]
    fn a_renewed_certificate_is_found_without_indexing_anew() {
        let before = CertificateIndex::new(certificates(&[
            (&["a.example", "*.a.example"], KeyType::Rsa, 5),
            (&["b.example"], KeyType::Rsa, 5),
        ]));
        let after = replaced(&before, 1, (&["b.example"], KeyType::Rsa, 9));
        assert!(after.same_names(&before));
        let found: Vec<i64> = after.find("b.example").iter().map(|one| one.not_after).collect();
        assert_eq!(found, [9]);
    }

    #[test]
    fn other_names_kinds_of_key_or_numbers_of_certificates_are_indexed_anew() {
        let before = CertificateIndex::new(certificates(&[
            (&["a.example"], KeyType::Rsa, 5),
            (&["b.example"], KeyType::Rsa, 5),
        ]));
        let after = replaced(&before, 1, (&["c.example"], KeyType::Rsa, 5));
        assert!(after.find("b.example").is_empty() && !after.find("c.example").is_empty());
        let after = replaced(&before, 1, (&["b.example"], KeyType::EcdsaP256, 5));
        assert_eq!(after.find("b.example").iter().count(), 1);
        assert!(!after.same_names(&before));
        let after = before.followed_by(before.certificates()[..1].into());
        assert!(after.find("b.example").is_empty());
    }

    #[test]
    fn where_two_compete_for_a_name_a_renewal_decides_anew() {
        let before = CertificateIndex::new(certificates(&[
            (&["a.example"], KeyType::Rsa, 5),
            (&["a.example"], KeyType::Rsa, 7),
        ]));
        let after = replaced(&before, 0, (&["a.example"], KeyType::Rsa, 9));
        let found: Vec<i64> = after.find("a.example").iter().map(|one| one.not_after).collect();
        assert_eq!(found, [9, 7]);
    }
}
