//! What a new list of revoked clients costs: reading it, and holding one client that is here
//! against it. `cargo bench --bench client_rechecks` prints a table.
//!
//! The control thread holds all of them against it, one after the other
//! (`control/client_rechecks.rs`): so many clients take so many times as long.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay::tls::client_auth::{Demand, Revocation, Rules, Verifier, VerifierSettings};
use forebay::tls::names::CipherSuite;
use forebay::tls::{CryptoLibrary, provider};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

/// Those of the revoked; clients have smaller numbers.
const FIRST_REVOKED: u64 = 1 << 32;

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` runs it too: once is enough there.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let (checks, lengths) =
        if measured { (2_000, &[0, 1_000, 100_000][..]) } else { (1, &[0, 10][..]) };
    println!(
        "| revoked on the list | issuers between | list read, ms | a client, µs | clients a second |"
    );
    println!("|---|---|---|---|---|");
    for revoked in lengths {
        for between in [0, 1] {
            let Scene { chain, authority, list } = Scene::new(*revoked, between)?;
            let begin = Instant::now();
            let verifier = verifier(authority, list)?;
            let read_ms = begin.elapsed().as_secs_f64() * 1e3;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let one = time(checks, || verifier.check(black_box(&chain), now))?;
            let (us, a_second) = (one.as_secs_f64() * 1e6, 1.0 / one.as_secs_f64());
            println!("| {revoked} | {between} | {read_ms:.1} | {us:.0} | {a_second:.0} |");
        }
    }
    Ok(())
}

/// A client's chain, and what it is held against.
struct Scene {
    chain: Vec<CertificateDer<'static>>,
    authority: CertificateDer<'static>,
    list: CertificateRevocationListDer<'static>,
}

impl Scene {
    /// With P-256 keys all over.
    fn new(revoked: u64, between: usize) -> Result<Self, rcgen::Error> {
        let parameters = authority_parameters();
        let key = KeyPair::generate()?;
        let authority = parameters.self_signed(&key)?.der().clone();
        let mut issuer = Issuer::new(parameters, key);
        let mut chain = Vec::new();
        for _ in 0..between {
            let (parameters, key) = (authority_parameters(), KeyPair::generate()?);
            chain.insert(0, parameters.signed_by(&key, &issuer)?.der().clone());
            issuer = Issuer::new(parameters, key);
        }
        let mut parameters = CertificateParams::new(["client.example".to_owned()])?;
        parameters.serial_number = Some(SerialNumber::from(1_u64));
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        chain.insert(0, parameters.signed_by(&KeyPair::generate()?, &issuer)?.der().clone());
        let revoked = (0..revoked).map(|number| RevokedCertParams {
            serial_number: SerialNumber::from(FIRST_REVOKED + number),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&issuer)?.der().clone();
        Ok(Self { chain, authority, list })
    }
}

fn authority_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn verifier(
    authority: CertificateDer<'static>,
    list: CertificateRevocationListDer<'static>,
) -> anyhow::Result<Verifier> {
    let library = CryptoLibrary::AwsLc;
    let (suites, groups) = (&CipherSuite::DEFAULT_ORDER, provider::default_groups(library));
    let provider = provider::crypto_provider(library, suites, groups)?;
    let settings = VerifierSettings {
        demand: Demand::Required,
        authorities: vec![authority],
        revocation_lists: vec![list],
        // The authority itself publishes no list here.
        revocation: Revocation { end_entity_only: true, ..Revocation::default() },
        rules: Rules::default(),
    };
    Ok(Verifier::new(settings, Arc::new(provider))?)
}

/// How long one of `count` takes.
fn time<E>(count: u32, mut work: impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    let begin = Instant::now();
    for _ in 0..count {
        work()?;
    }
    Ok(begin.elapsed() / count)
}
