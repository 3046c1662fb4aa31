//! Bytes that tell their place in a stream, made and checked at the speed of memory.
//!
//! Every stream is one random block, repeated, from a place that its seed chooses. The
//! block's length is a prime number, so bytes that are lost, doubled, swapped or of
//! another stream show, unless they are a multiple of a million and odd bytes away; the
//! length of the whole, which is checked too, tells those.

use std::sync::LazyLock;

use super::random::Random;

/// The longest piece that one call gives.
pub const PIECE_BYTES_MAX: usize = 256 * 1024;

const BLOCK_BYTES: usize = 1_048_573;

static BLOCK: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut random = Random::new(0x0F0E_BA1D);
    let mut block: Vec<u8> = (0..BLOCK_BYTES).map(|_| random.next() as u8).collect();
    // So that no piece has to wrap around.
    block.extend_from_within(..PIECE_BYTES_MAX);
    block.into_boxed_slice()
});

/// The bytes of stream `seed` from `position` on, [`PIECE_BYTES_MAX`] of them.
pub fn piece(seed: u64, position: u64) -> &'static [u8] {
    let start = Random::new(seed).next() % BLOCK_BYTES as u64 + position % BLOCK_BYTES as u64;
    let start = start as usize % BLOCK_BYTES;
    &BLOCK[start..start + PIECE_BYTES_MAX]
}

/// Whether `data` is what stream `seed` has at `position`.
pub fn matches(seed: u64, mut position: u64, data: &[u8]) -> bool {
    data.chunks(PIECE_BYTES_MAX).all(|chunk| {
        let expected = &piece(seed, position)[..chunk.len()];
        position += chunk.len() as u64;
        chunk == expected
    })
}

/// The first `length` bytes of stream `seed`.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let missing = length - bytes.len();
        bytes.extend_from_slice(&piece(seed, bytes.len() as u64)[..missing.min(PIECE_BYTES_MAX)]);
    }
    bytes
}
