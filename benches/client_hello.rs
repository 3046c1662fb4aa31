//! What the engine pays for a ClientHello: the scan, whole and in fragments, and the
//! decision that follows it.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::tls::client_hello::{CLIENT_HELLO_BYTES_MAX, Scan, scan};
use forebay::tls::policy::{Policy, PolicySettings};
use forebay::tls::self_signed::self_signed;
use forebay::tls::{CryptoLibrary, tickets};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

/// The first flight of a rustls client with aws-lc-rs; with TLS 1.3 it has a
/// post-quantum key share.
fn hello(versions: &[&'static SupportedProtocolVersion]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("the provider has suites of every version")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.cert_decompressors = Vec::new();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = "www.example.com".try_into().expect("a DNS name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory takes all");
    bytes
}

/// The same message in records of `size` bytes.
fn fragmented(stream: &[u8], size: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for fragment in stream[5..].chunks(size) {
        records.extend([22, 3, 1]);
        records.extend((fragment.len() as u16).to_be_bytes());
        records.extend(fragment);
    }
    records
}

fn scanning(criterion: &mut Criterion) {
    let tls12 = hello(&[&rustls::version::TLS12]);
    let tls13 = hello(rustls::ALL_VERSIONS);
    let mut scratch = Box::new([0; CLIENT_HELLO_BYTES_MAX]);
    let mut group = criterion.benchmark_group("client_hello/scan");
    for (name, stream) in [
        ("tls12", tls12),
        ("tls13 post-quantum, in 1 KiB records", fragmented(&tls13, 1_024)),
        ("tls13 post-quantum, in 1-byte records", fragmented(&tls13, 1)),
        ("tls13 post-quantum", tls13),
    ] {
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| match scan(black_box(&stream), &mut scratch) {
                Scan::Complete(hello) => hello.stream_bytes,
                other => panic!("{other:?}"),
            });
        });
    }
    group.finish();
}

fn admission(criterion: &mut Criterion) {
    let library = CryptoLibrary::AwsLc;
    let certificate = self_signed(&["www.example.com"], library).expect("a certificate");
    let tickets = tickets::per_process(library).expect("a ticket key");
    let policy =
        Policy::new(PolicySettings::new(library, vec![certificate], tickets)).expect("a policy");
    let stream = hello(rustls::ALL_VERSIONS);
    let mut scratch = Box::new([0; CLIENT_HELLO_BYTES_MAX]);
    let Scan::Complete(hello) = scan(&stream, &mut scratch) else { panic!("incomplete") };
    criterion.bench_function("client_hello/admit", |bencher| {
        bencher.iter(|| policy.admit(black_box(&hello), None).is_ok());
    });
}

criterion_group!(benches, scanning, admission);
criterion_main!(benches);
