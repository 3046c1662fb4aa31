//! Certificate compression (RFC 8879), TLS 1.3 only: a smaller flight for clients that
//! offer it, for a copy where the chain was compressed before.
//!
//! ```text
//!   rustls, on a worker ──▶ Cached ── compressed before? ──▶ copy
//!                              │ no: compress, keep, let the oldest unused go
//!                              ▼
//!                        zlib-rs | brotli
//! ```
//!
//! One cache for each algorithm serves every listener of the process. rustls' own cache is
//! one for each configuration and is searched from end to end, which suits a few chains.
//!
//! May know: rustls. Must not know: certificates, listeners; what is compressed is bytes.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rustls::CertificateCompressionAlgorithm;
use rustls::compress::{
    BROTLI_COMPRESSOR, CertCompressor, CompressionFailed, CompressionLevel, ZLIB_COMPRESSOR,
};

/// Bytes kept for each algorithm, originals and results: some 3,000 chains. Beyond it those
/// go that nobody asked for since the last round.
pub const CACHE_BYTES_MAX: usize = 16 << 20;

/// Workers that ask for different chains seldom wait for each other.
const SHARDS: usize = 8;

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// RFC 7932.
    Brotli,
    /// RFC 1950.
    Zlib,
}

impl Compression {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Brotli, Self::Zlib];

    /// The compressor that rustls is given, with the cache of the process.
    pub fn compressor(self) -> &'static dyn CertCompressor {
        static BROTLI: LazyLock<Cached> =
            LazyLock::new(|| Cached::new(BROTLI_COMPRESSOR, CACHE_BYTES_MAX));
        static ZLIB: LazyLock<Cached> =
            LazyLock::new(|| Cached::new(ZLIB_COMPRESSOR, CACHE_BYTES_MAX));
        match self {
            Self::Brotli => &*BROTLI,
            Self::Zlib => &*ZLIB,
        }
    }
}

/// A compressor that remembers.
#[derive(Debug)]
struct Cached {
    compressor: &'static dyn CertCompressor,
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes_max: usize,
}

/// What was compressed, by length and checksum.
#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Key, Entry>,
    /// In the order in which they are looked at for who must go.
    round: VecDeque<Key>,
    bytes: usize,
}

/// Narrows down to one chain nearly always; the original decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    bytes: usize,
    checksum: u32,
}

#[derive(Debug)]
struct Entry {
    original: Box<[u8]>,
    compressed: Arc<[u8]>,
    /// Since it was looked at last.
    used: bool,
}

impl Cached {
    fn new(compressor: &'static dyn CertCompressor, bytes_max: usize) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { compressor, shards, shard_bytes_max: bytes_max / SHARDS }
    }

    fn shard(&self, key: Key) -> std::sync::MutexGuard<'_, Shard> {
        // Nothing panics while it holds the lock.
        let shard = &self.shards[key.checksum as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CertCompressor for Cached {
    fn compress(&self, input: Vec<u8>, _: CompressionLevel) -> Result<Vec<u8>, CompressionFailed> {
        let key = Key { bytes: input.len(), checksum: crc32fast::hash(&input) };
        if let Some(compressed) = self.shard(key).find(key, &input) {
            return Ok(compressed.to_vec());
        }
        let compressed = self.compressor.compress(input.clone(), LEVEL)?;
        self.shard(key).keep(key, input, &compressed, self.shard_bytes_max);
        Ok(compressed)
    }

    fn algorithm(&self) -> CertificateCompressionAlgorithm {
        self.compressor.algorithm()
    }
}

/// The fast level: a worker compresses in the middle of a handshake, and who asks for
/// thousands of names must not hold the workers up. `cargo bench --bench
/// certificate_compression` shows what the slow level would save and cost.
const LEVEL: CompressionLevel = CompressionLevel::Interactive;

impl Shard {
    fn find(&mut self, key: Key, original: &[u8]) -> Option<Arc<[u8]>> {
        let entry = self.entries.get_mut(&key)?;
        if *entry.original != *original {
            return None;
        }
        entry.used = true;
        Some(Arc::clone(&entry.compressed))
    }

    fn keep(&mut self, key: Key, original: Vec<u8>, compressed: &[u8], bytes_max: usize) {
        let bytes = original.len() + compressed.len();
        if bytes > bytes_max || self.entries.contains_key(&key) {
            // Another worker was faster; or another chain has its place, and keeps it.
            return;
        }
        while self.bytes + bytes > bytes_max {
            let Some(oldest) = self.round.pop_front() else { break };
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.round.push_back(oldest);
                }
                _ => {
                    let gone = self.entries.remove(&oldest);
                    self.bytes -= gone.map_or(0, |gone| gone.bytes());
                }
            }
        }
        let entry = Entry { original: original.into(), compressed: compressed.into(), used: false };
        self.bytes += bytes;
        self.entries.insert(key, entry);
        self.round.push_back(key);
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        self.original.len() + self.compressed.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Leaves out every second byte, and counts how often it was asked.
    #[derive(Debug, Default)]
    struct Halving(AtomicUsize);

    impl CertCompressor for Halving {
        fn compress(
            &self,
            input: Vec<u8>,
            _: CompressionLevel,
        ) -> Result<Vec<u8>, CompressionFailed> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(input.iter().step_by(2).copied().collect())
        }

        fn algorithm(&self) -> CertificateCompressionAlgorithm {
            CertificateCompressionAlgorithm::Zlib
        }
    }

    fn cached(bytes_max: usize) -> (&'static Halving, Cached) {
        let halving: &Halving = Box::leak(Box::default());
        (halving, Cached::new(halving, bytes_max))
    }

    fn compress(cached: &Cached, input: &[u8]) -> Vec<u8> {
        cached.compress(input.to_vec(), CompressionLevel::Amortized).expect("compresses")
    }

    #[test]
    fn what_was_compressed_before_is_not_compressed_again() {
        let (halving, cached) = cached(1 << 20);
        for _ in 0..3 {
            assert_eq!(compress(&cached, b"abcd"), b"ac");
            assert_eq!(compress(&cached, b"abce"), b"ac");
        }
        assert_eq!(halving.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_cache_never_holds_more_than_its_bound() {
        let (_, cached) = cached(SHARDS * 1_024);
        for number in 0_u32..2_000 {
            compress(&cached, &number.to_be_bytes().repeat(20));
        }
        for shard in &cached.shards {
            let shard = shard.lock().unwrap();
            let held: usize = shard.entries.values().map(Entry::bytes).sum();
            assert_eq!(held, shard.bytes);
            assert!(held <= 1_024 && held > 512, "{held}");
            assert_eq!(shard.round.len(), shard.entries.len());
        }
    }

    #[test]
    fn what_is_in_use_outlives_what_is_not() {
        let (halving, cached) = cached(SHARDS * 1_024);
        compress(&cached, &[7; 100]);
        for number in 0_u32..1_000 {
            compress(&cached, &number.to_be_bytes().repeat(20));
            compress(&cached, &[7; 100]);
        }
        assert_eq!(halving.0.load(Ordering::Relaxed), 1_001);
    }

    #[test]
    fn what_has_no_room_is_compressed_and_not_kept() {
        let (halving, cached) = cached(SHARDS * 64);
        assert_eq!(compress(&cached, &[1; 100]), [1; 50]);
        assert_eq!(compress(&cached, &[1; 100]), [1; 50]);
        assert_eq!(halving.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn both_algorithms_make_a_chain_smaller() {
        for compression in Compression::ALL {
            let compressor = compression.compressor();
            let chain = b"a certificate has names and names and names again".repeat(20);
            let compressed = compressor.compress(chain.clone(), LEVEL).expect("compresses");
            assert!(compressed.len() < chain.len() / 4, "{compression:?}");
        }
    }
}
