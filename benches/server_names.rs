//! Looking up the certificate for a server name among 100,000 names.

use std::sync::Arc;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use forebay::tls::CryptoLibrary;
use forebay::tls::certificates::index::CertificateIndex;
use forebay::tls::certificates::store::Certificates;
use forebay::tls::certificates::{CertificateName, KeyType, LoadedCertificate};
use forebay::tls::self_signed::self_signed;

const NAMES: usize = 100_000;

/// 1,000 certificates of 100 names each, a tenth of them wildcards, half RSA. They share
/// one key: looking up never touches it.
fn certificates() -> Certificates {
    let model = self_signed(&["model.example"], CryptoLibrary::AwsLc).expect("a certificate");
    (0..NAMES / 100)
        .map(|certificate| {
            let names = (0..100).map(|name| {
                let text = match name % 10 {
                    0 => format!("*.customer-{certificate}-{name}.example.com"),
                    _ => format!("www.customer-{certificate}-{name}.example.com"),
                };
                CertificateName::parse(&text).expect("a name")
            });
            let key_type = if certificate % 2 == 0 { KeyType::Rsa } else { KeyType::EcdsaP256 };
            Arc::new(LoadedCertificate { names: names.collect(), key_type, ..model.clone() })
        })
        .collect()
}

fn looking_up(criterion: &mut Criterion) {
    let certificates = certificates();
    let index = CertificateIndex::new(certificates.clone());
    let mut group = criterion.benchmark_group("server_names");

    // A different name each time, so that the caches are as cold as in production.
    let names: Vec<String> = (0..NAMES)
        .map(|place| {
            let place = place * 7_919 % NAMES;
            format!("www.customer-{}-{}.example.com", place / 100, place % 100)
        })
        .collect();
    let mut place = 0;
    group.bench_function("exact or wildcard, of 100,000", |bencher| {
        bencher.iter(|| {
            place = (place + 1) % NAMES;
            assert!(index.find(black_box(&names[place])).iter().next().is_some());
        });
    });
    group.bench_function("unknown, of 100,000", |bencher| {
        bencher.iter(|| assert!(index.find(black_box("www.unknown.example.org")).is_empty()));
    });
    group.sample_size(10);
    group.bench_function("building the index of 100,000", |bencher| {
        bencher.iter_batched(
            || certificates.clone(),
            CertificateIndex::new,
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, looking_up);
criterion_main!(benches);
