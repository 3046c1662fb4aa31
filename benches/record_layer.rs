//! The record layer against its floor: the bare AEAD call on the same bytes.
//!
//! `cargo bench --bench record_layer`

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay::tls::CryptoLibrary;
use forebay::tls::aead::{AeadKey, NONCE_BYTES, TAG_BYTES};
use forebay::tls::record::{
    Algorithm, CONTROL_RECORD_BYTES_MAX, DirectionKeys, HEADER_BYTES, Hash, Opened, Opener,
    RecordSizer, SEGMENT_PLAINTEXT_BYTES, Sealer, TRAILER_BYTES_MAX, TrafficSecret,
};

const LIBRARIES: [CryptoLibrary; 2] = [CryptoLibrary::AwsLc, CryptoLibrary::Ring];
const SIZES: [usize; 2] = [1 << 10, 16 << 10];
const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm, Algorithm::Chacha20Poly1305];

/// Records that lie ready to be opened at one time: few enough to stay in the cache.
const OPEN_BATCH: BatchSize = BatchSize::NumIterations(16);

fn keys(library: CryptoLibrary, algorithm: Algorithm) -> DirectionKeys {
    let secret = TrafficSecret::copy_of(&[7; 48][..Hash::of_suite(algorithm).output_bytes()])
        .expect("48 bytes at most");
    DirectionKeys::from_traffic_secret(algorithm, library, secret, 0).expect("valid keys")
}

fn bare_key(library: CryptoLibrary, algorithm: Algorithm) -> AeadKey {
    AeadKey::new(library, algorithm, &[7; 32][..algorithm.key_bytes()]).expect("valid key")
}

/// Nonces that count up, as a record layer's do.
fn count_up(nonce: &mut [u8; NONCE_BYTES]) -> [u8; NONCE_BYTES] {
    let (_, low) = nonce.split_last_chunk_mut::<8>().expect("12 bytes");
    *low = (u64::from_be_bytes(*low) + 1).to_be_bytes();
    *nonce
}

fn seal(criterion: &mut Criterion) {
    for algorithm in ALGORITHMS {
        let mut group = criterion.benchmark_group(format!("seal/{algorithm:?}"));
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            for library in LIBRARIES {
                group.bench_function(BenchmarkId::new(format!("bare/{library}"), size), |bench| {
                    let key = bare_key(library, algorithm);
                    let mut nonce = [0; NONCE_BYTES];
                    // Laid out as a record is: alignment matters as much as anything.
                    let mut buffer = vec![0; HEADER_BYTES + size + TRAILER_BYTES_MAX];
                    let mut tag = [0; TAG_BYTES];
                    bench.iter(|| {
                        let nonce = count_up(&mut nonce);
                        let text = &mut black_box(&mut buffer)[HEADER_BYTES..][..size + 1];
                        key.seal(nonce, &[0; HEADER_BYTES], text, &mut tag)
                    });
                });
                group.bench_function(
                    BenchmarkId::new(format!("record/{library}"), size),
                    |bench| {
                        let mut sealer = Sealer::new(keys(library, algorithm)).expect("keys");
                        let mut buffer = vec![0; HEADER_BYTES + size + TRAILER_BYTES_MAX];
                        let mut control = [0; CONTROL_RECORD_BYTES_MAX];
                        bench.iter(|| {
                            if sealer.key_update_due() {
                                sealer.key_update(false, &mut control).expect("key update");
                            }
                            let plaintext = HEADER_BYTES..HEADER_BYTES + size;
                            sealer.seal_run(black_box(&mut buffer), plaintext, size)
                        });
                    },
                );
            }
        }
    }
}

/// 16 KiB as twelve records of one segment each, which is what the first bytes after
/// silence cost.
fn seal_run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal_run/Aes128Gcm");
    const SIZE: usize = 16 << 10;
    group.throughput(Throughput::Bytes(SIZE as u64));
    for library in LIBRARIES {
        group.bench_function(BenchmarkId::new(library.to_string(), SIZE), |bench| {
            let mut sealer = Sealer::new(keys(library, Algorithm::Aes128Gcm)).expect("keys");
            let room = sealer.sealed_bytes(SIZE, SEGMENT_PLAINTEXT_BYTES);
            let mut buffer = vec![0; room];
            let mut control = [0; CONTROL_RECORD_BYTES_MAX];
            bench.iter(|| {
                if sealer.key_update_due() {
                    sealer.key_update(false, &mut control).expect("key update");
                }
                let plaintext = HEADER_BYTES..HEADER_BYTES + SIZE;
                sealer.seal_run(black_box(&mut buffer), plaintext, SEGMENT_PLAINTEXT_BYTES)
            });
        });
    }
}

fn open(criterion: &mut Criterion) {
    for algorithm in ALGORITHMS {
        let mut group = criterion.benchmark_group(format!("open/{algorithm:?}"));
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            for library in LIBRARIES {
                group.bench_function(BenchmarkId::new(format!("bare/{library}"), size), |bench| {
                    let key = bare_key(library, algorithm);
                    let mut tag = [0; TAG_BYTES];
                    let mut sealed = vec![0; size + 1];
                    key.seal([0; NONCE_BYTES], &[0; HEADER_BYTES], &mut sealed, &mut tag)
                        .expect("sealed");
                    bench.iter_batched_ref(
                        || sealed.clone(),
                        |text| key.open([0; NONCE_BYTES], &[0; HEADER_BYTES], text, &tag),
                        OPEN_BATCH,
                    );
                });
                group.bench_function(
                    BenchmarkId::new(format!("record/{library}"), size),
                    |bench| {
                        let sealer =
                            RefCell::new(Sealer::new(keys(library, algorithm)).expect("keys"));
                        let mut opener = Opener::new(keys(library, algorithm)).expect("keys");
                        bench.iter_batched_ref(
                            || {
                                let mut record = vec![7; HEADER_BYTES + size + TRAILER_BYTES_MAX];
                                let plaintext = HEADER_BYTES..HEADER_BYTES + size;
                                sealer
                                    .borrow_mut()
                                    .seal_run(&mut record, plaintext, size)
                                    .expect("sealed");
                                record
                            },
                            |record| match opener.open(record) {
                                Ok(Opened::Data { plaintext, .. }) => plaintext,
                                other => panic!("{other:?}"),
                            },
                            OPEN_BATCH,
                        );
                    },
                );
            }
        }
    }
}

/// What a KeyUpdate costs the receiver, and what a connection's keys cost to make.
fn keying(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keying/Aes128Gcm");
    for library in LIBRARIES {
        group.bench_function(BenchmarkId::new("new", library), |bench| {
            bench.iter_batched(
                || keys(library, Algorithm::Aes128Gcm),
                Opener::new,
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("key_update", library), |bench| {
            let mut sealer = Sealer::new(keys(library, Algorithm::Aes128Gcm)).expect("keys");
            let mut control = [0; CONTROL_RECORD_BYTES_MAX];
            bench.iter(|| sealer.key_update(false, &mut control));
        });
    }
    group.bench_function("record_sizer", |bench| {
        let mut sizer = RecordSizer::default();
        let now = forebay::clock::Moment::from_nanoseconds(1);
        bench.iter(|| sizer.next(black_box(now), 100));
    });
}

criterion_group! {
    name = benches;
    // Short enough that no key reaches its limit while it is measured.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = seal, seal_run, open, keying
}
criterion_main!(benches);
