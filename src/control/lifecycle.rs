//! Where the process stands between start and end, for everyone who asks.

use std::sync::atomic::{AtomicU8, Ordering};

/// A stage of the process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Not every engine accepts yet.
    Starting,
    /// Accepting connections.
    Accepting,
    /// Leaving: new clients should go elsewhere. They are served for
    /// `timeouts.drain_notice`, then only what is there is finished.
    Draining,
}

/// The stage, written by the control thread and read by the admin thread.
#[derive(Debug)]
pub struct Lifecycle(AtomicU8);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(AtomicU8::new(Stage::Starting as u8))
    }
}

impl Lifecycle {
    /// Enters a stage.
    pub fn enter(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Release);
    }

    /// The stage now.
    pub fn stage(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Accepting,
            _ => Stage::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_read_as_it_was_entered() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.stage(), Stage::Starting);
        for stage in [Stage::Accepting, Stage::Draining, Stage::Starting] {
            lifecycle.enter(stage);
            assert_eq!(lifecycle.stage(), stage);
        }
    }
}
