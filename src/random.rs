//! Numbers that look like chance, for choices that an adversary gains nothing by guessing.
//!
//! Knows nothing of the rest of the crate.
#![forbid(unsafe_code)]

/// SplitMix64 (Steele, Lea and Flood, 2014): tiny, and every seed is a good seed.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator whose whole output follows from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if that is 0. Multiplied into the range instead of divided
    /// (Lemire 2019), with a bias below `limit` in 2^64.
    pub const fn below(&mut self, limit: u64) -> u64 {
        ((self.bits() as u128 * limit as u128) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let (mut one, mut two) = (SplitMix64::new(7), SplitMix64::new(7));
        assert!((0..100).all(|_| one.bits() == two.bits()));
        assert_ne!(SplitMix64::new(7).bits(), SplitMix64::new(8).bits());
    }

    #[test]
    fn numbers_below_a_limit_are_spread_evenly() {
        let mut random = SplitMix64::new(1);
        let mut counts = [0; 5];
        for _ in 0..50_000 {
            counts[random.below(5) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(random.below(0), 0);
    }
}
