//! How features that depend on the machine are asked for.
#![forbid(unsafe_code)]

use std::time::Duration;

/// `"auto" | "on" | "off"` in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    /// Used where it can be had.
    #[default]
    Auto,
    /// Asked for: where it is used it is said what happens if it cannot be had.
    On,
    /// Not used.
    Off,
}

impl Switch {
    /// The words of the configuration file.
    pub const WORDS: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("on", Self::On), ("off", Self::Off)];
}

/// Whether an engine without work polls its ring instead of sleeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spin {
    /// It sleeps at once.
    #[default]
    Off,
    /// It polls for so long after its last work, then it sleeps.
    For(Duration),
    /// It never sleeps.
    Always,
}

impl Spin {
    /// Whether to poll on when the last work was `idle` ago.
    pub fn polls(self, idle: Duration) -> bool {
        match self {
            Self::Off => false,
            Self::For(duration) => idle < duration,
            Self::Always => true,
        }
    }
}
