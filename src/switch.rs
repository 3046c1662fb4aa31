//! A feature that is on, off, or used where it can be had.
#![forbid(unsafe_code)]

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
