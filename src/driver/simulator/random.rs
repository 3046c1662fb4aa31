//! The one source of chance: a seeded generator. Knows nothing of the rest.

use std::time::Duration;

use crate::random::SplitMix64;

/// How often something happens: in a thousand opportunities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chance(pub u16);

impl Chance {
    /// It never happens.
    pub const NEVER: Self = Self(0);
    /// It happens every time.
    pub const ALWAYS: Self = Self(1000);
}

/// [`SplitMix64`] and what a simulation draws by it.
#[derive(Clone, Debug)]
pub struct Random(SplitMix64);

impl Random {
    /// A generator whose whole output follows from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: usize) -> usize {
        assert!(limit > 0, "no number is below 0");
        // The bias of the remainder does not matter to a test.
        usize::try_from(self.bits() % limit as u64).expect("below a usize")
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        assert!(least <= most, "an empty choice: {least} to {most}");
        least + self.below(most - least + 1)
    }

    /// A number from `least` to `most` whose order of magnitude is uniform, so that
    /// small values are as frequent as large ones. `least` must not be 0.
    pub fn magnitude(&mut self, least: usize, most: usize) -> usize {
        assert!(0 < least && least <= most, "an empty choice: {least} to {most}");
        let doublings = (most / least).ilog2() as usize;
        let floor = least << self.between(0, doublings);
        self.between(floor, most.min(floor.saturating_mul(2)))
    }

    /// Whether it happens this time.
    pub fn happens(&mut self, chance: Chance) -> bool {
        // Nothing is drawn for what is switched off: a fault class that is off does not
        // disturb the others.
        chance.0 > 0 && self.below(1000) < usize::from(chance.0)
    }

    /// One of `choices`, which must not be empty.
    pub fn choice<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A duration from `least` to `most` with uniform order of magnitude.
    pub fn duration(&mut self, least: Duration, most: Duration) -> Duration {
        let nanoseconds = |duration: Duration| {
            usize::try_from(duration.as_nanos()).expect("durations here are days at most")
        };
        Duration::from_nanos(self.magnitude(nanoseconds(least), nanoseconds(most)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_within_their_bounds() {
        let mut random = Random::new(1);
        for _ in 0..10_000 {
            assert!(random.below(3) < 3);
            assert!((5..=9).contains(&random.between(5, 9)));
            assert!((3..=100_000).contains(&random.magnitude(3, 100_000)));
        }
        assert_eq!(random.between(4, 4), 4);
        assert_eq!(random.magnitude(4, 4), 4);
    }

    #[test]
    fn a_chance_of_never_and_of_always_are_exact() {
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| !random.happens(Chance::NEVER)));
        assert!((0..1000).all(|_| random.happens(Chance::ALWAYS)));
    }
}
