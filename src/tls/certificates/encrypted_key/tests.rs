use std::fs;
use std::time::SystemTime;

use pkcs8::pkcs5::pbes2::{Parameters, Pbkdf2Params, ScryptParams};
use tempfile::TempDir;

use super::*;
use crate::tls::CryptoLibrary;
use crate::tls::certificates::test_files::{concatenate, one_certificate};
use crate::tls::certificates::{LoadedCertificate, load};
use crate::tls::test_support::{LIBRARIES, openssl, openssl_certificate, restrict};

fn passphrases(text: &str) -> Passphrases {
    Passphrases::parse(text.as_bytes()).unwrap()
}

/// What loading `file` with these passphrases comes to.
fn loaded(
    directory: &TempDir,
    file: &str,
    library: CryptoLibrary,
    passphrases: &Passphrases,
) -> Result<LoadedCertificate, String> {
    let path = directory.path().join(file);
    restrict(&path);
    let (mut certificates, findings) = load(&[path], library, passphrases, SystemTime::now());
    match findings.as_slice() {
        [] => Ok(certificates.pop().unwrap()),
        [finding] => Err(finding.message()),
        several => panic!("{several:#?}"),
    }
}

/// `a.crt` with its key encrypted as `openssl pkey` or `openssl pkcs8` is told to.
fn encrypted(command: &str) -> TempDir {
    let directory = one_certificate();
    openssl(directory.path(), &format!("{command} -passout pass:right -in a.key -out a.locked"));
    concatenate(directory.path(), &["a.crt", "a.locked"], "both.pem");
    directory
}

#[test]
fn a_key_of_every_kind_opens_with_its_passphrase_in_both_libraries() {
    let directory = TempDir::new().unwrap();
    for (name, key) in [
        ("p256", "ec -pkeyopt ec_paramgen_curve:P-256"),
        ("p384", "ec -pkeyopt ec_paramgen_curve:P-384"),
        ("rsa", "rsa:2048"),
        ("ed25519", "ed25519"),
    ] {
        openssl_certificate(directory.path(), name, key, "DNS:a.example");
        let command = format!("pkey -aes256 -passout pass:right -in {name}.key -out {name}.locked");
        openssl(directory.path(), &command);
        fs::rename(
            directory.path().join(format!("{name}.locked")),
            directory.path().join(format!("{name}.key")),
        )
        .unwrap();
        restrict(&directory.path().join(format!("{name}.key")));
        for library in LIBRARIES {
            let file = format!("{name}.crt");
            let certificate =
                loaded(&directory, &file, library, &passphrases("right\n")).expect(name);
            certificate.signing.certified().unwrap().keys_match().unwrap();
        }
    }
}

#[test]
fn every_way_of_deriving_the_key_that_openssl_has_is_read() {
    for command in [
        "pkcs8 -topk8 -v2 aes-128-cbc",
        "pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA512 -iter 10000",
        "pkcs8 -topk8 -scrypt",
    ] {
        let directory = encrypted(command);
        let right = passphrases("right");
        loaded(&directory, "both.pem", CryptoLibrary::AwsLc, &right).expect(command);
    }
}

#[test]
fn every_passphrase_of_the_file_is_tried() {
    let directory = encrypted("pkey -aes256");
    let several = passphrases("wrong\r\n\nright\r\nother");
    loaded(&directory, "both.pem", CryptoLibrary::AwsLc, &several).expect("the second opens it");
}

#[test]
fn without_a_passphrase_the_finding_names_the_key_to_set() {
    let directory = encrypted("pkey -aes256");
    let none = Passphrases::default();
    let message = loaded(&directory, "both.pem", CryptoLibrary::AwsLc, &none).unwrap_err();
    let path = directory.path().join("both.pem").display().to_string();
    assert_eq!(
        message,
        format!(
            "holds an encrypted private key, and there is no passphrase for it: name a file \
             with it in tls.key_passphrase_file, or decrypt the key: openssl pkey -in {path} \
             -out {path}.plain, and keep the result readable by forebay's user only"
        )
    );
}

#[test]
fn with_wrong_passphrases_only_the_finding_says_so() {
    let directory = encrypted("pkey -aes256");
    let wrong = passphrases("wrong\nRight\n");
    let message = loaded(&directory, "both.pem", CryptoLibrary::AwsLc, &wrong).unwrap_err();
    let path = directory.path().join("both.pem").display().to_string();
    assert_eq!(
        message,
        format!(
            "holds an encrypted private key that no passphrase of tls.key_passphrase_file opens \
             (tried: 2); add the right one there, and try it: openssl pkey -noout -in {path}"
        )
    );
}

#[test]
fn the_old_encryption_of_openssl_is_refused_with_the_command_that_converts_it() {
    let directory = one_certificate();
    let at = directory.path();
    openssl(at, "ec -aes128 -passout pass:right -in a.key -out a.locked");
    concatenate(at, &["a.crt", "a.locked"], "both.pem");
    let right = passphrases("right");
    let message = loaded(&directory, "both.pem", CryptoLibrary::AwsLc, &right).unwrap_err();
    let path = at.join("both.pem").display().to_string();
    let command = format!("openssl pkey -aes256 -in {path} -out {path}.pkcs8");
    assert!(message.ends_with(&format!("convert it: {command}")), "{message}");
    // The command does what it says.
    openssl(
        at,
        &format!("{} -passin pass:right -passout pass:right", &command["openssl ".len()..]),
    );
    concatenate(at, &["a.crt", "both.pem.pkcs8"], "new.pem");
    loaded(&directory, "new.pem", CryptoLibrary::AwsLc, &right).expect("it is readable now");
}

#[test]
fn an_encryption_that_we_do_not_have_is_refused_with_the_command_that_converts_it() {
    for command in ["pkcs8 -topk8 -v2 des3", "pkcs8 -topk8 -v1 PBE-SHA1-3DES"] {
        let directory = encrypted(command);
        let right = passphrases("right");
        let message = loaded(&directory, "both.pem", CryptoLibrary::AwsLc, &right).unwrap_err();
        assert!(message.contains("that is not supported"), "{command}: {message}");
        assert!(message.contains("openssl pkey -aes256 -in "), "{command}: {message}");
    }
}

#[test]
fn a_key_whose_opening_would_cost_without_measure_is_not_tried() {
    let directory = encrypted("pkcs8 -topk8 -scrypt -outform der");
    let der = fs::read(directory.path().join("a.locked")).unwrap();
    let info = EncryptedPrivateKeyInfoRef::try_from(der.as_slice()).unwrap();
    let EncryptionScheme::Pbes2(parameters) = info.encryption_algorithm else { panic!("PBES2") };
    let Kdf::Scrypt(scrypt) = parameters.kdf else { panic!("scrypt") };
    let with = |kdf| check_cost(&EncryptionScheme::Pbes2(Parameters { kdf, ..parameters }));
    assert_eq!(with(Kdf::Scrypt(scrypt)), Ok(()));
    // 128 · 8 · 2^20 bytes are 1 GiB. The library takes the logarithm of 0.
    for cost_parameter in [1 << 20, 0, 3] {
        let refused = with(Kdf::Scrypt(ScryptParams { cost_parameter, ..scrypt })).unwrap_err();
        assert!(matches!(refused, Closed::Unsupported(_)), "{refused:?}");
    }
    let parallelization = SCRYPT_LANES_MAX + 1;
    with(Kdf::Scrypt(ScryptParams { parallelization, ..scrypt })).unwrap_err();
    let mut pbkdf2 = Pbkdf2Params::hmac_sha256(ITERATIONS_MAX, b"eight of").expect("parameters");
    assert_eq!(with(Kdf::Pbkdf2(pbkdf2)), Ok(()));
    pbkdf2.iteration_count += 1;
    let refused = with(Kdf::Pbkdf2(pbkdf2)).unwrap_err();
    assert_eq!(refused, Closed::Unsupported("PBKDF2 with 10000001 iterations".to_owned()));
}

#[test]
fn a_file_without_or_with_too_many_passphrases_is_an_error() {
    assert_eq!(Passphrases::parse(b"\n\r\n").unwrap_err(), PassphrasesError::Empty);
    let many = "x\n".repeat(PASSPHRASES_MAX + 1);
    assert_eq!(Passphrases::parse(many.as_bytes()).unwrap_err(), PassphrasesError::TooMany);
    assert_eq!(passphrases(&"x\n".repeat(PASSPHRASES_MAX)).0.len(), PASSPHRASES_MAX);
}

#[test]
fn passphrases_are_not_printed() {
    assert_eq!(format!("{:?}", passphrases("right")), "Passphrases(1)");
}
