//! What the handshake workers can do on this machine, and the limits that follow.
//!
//! Settled at the start, from what [`calibration`] measures or, with
//! `handshake.calibrate = false`, from what is typical. A key that a reload brings is
//! taken to cost what its class costs: measuring it would take time from those served.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::config::HandshakeSettings;
use crate::engine::snapshot::Snapshot;
use crate::handshake::StepCosts;
use crate::handshake::calibration::{self, KeyCosts};
use crate::tls::CryptoLibrary;

/// With `credits = "auto"` an engine has them for the handshakes that its workers do in
/// this time: so long may a client take for its part, a round trip and its arithmetic.
const CLIENTS_TAKE: Duration = Duration::from_millis(250);

/// Bounds of `credits = "auto"`: enough for clients far away, and 53 MB on each engine.
const CREDITS_AUTO: (usize, usize) = (1_024, 4_096);

/// What handshakes cost and what that allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// What was measured, by kind of key.
    pub keys: Vec<KeyCosts>,
    /// What a step of each class costs.
    pub costs: StepCosts,
    /// Credits of each engine.
    pub credits: usize,
    /// Time that the workers may owe each engine before it is scarce.
    pub backlog: Duration,
    /// Handshakes that are done in that time.
    pub handshakes_of_backlog: u32,
}

impl Capacity {
    /// Measures, unless told not to, and settles the limits. `workers` is 0 where engines
    /// do the handshakes themselves.
    pub fn measure(
        settings: &HandshakeSettings,
        library: CryptoLibrary,
        snapshot: &Snapshot,
        engines: usize,
        workers: usize,
    ) -> Self {
        let certificates =
            snapshot.listeners.iter().flat_map(|listener| listener.policy.certificates());
        let keys = if settings.calibrate {
            calibration::measure(library, certificates.map(|certificate| &**certificate))
        } else {
            Vec::new()
        };
        let capacity = Self::settle(settings, keys, engines, workers);
        capacity.log();
        capacity
    }

    fn settle(
        settings: &HandshakeSettings,
        keys: Vec<KeyCosts>,
        engines: usize,
        workers: usize,
    ) -> Self {
        let costs = calibration::step_costs(&keys);
        let engines = engines.max(1);
        let workers = if workers == 0 { engines } else { workers };
        let workers_of_engine = workers as f64 / engines as f64;
        // Of several keys the cheapest: it allows the most handshakes.
        let cheapest = keys.iter().map(|key| key.first + key.last).min();
        let handshake = cheapest.unwrap_or(costs.elliptic_curve + costs.continuation);
        let handshakes = CLIENTS_TAKE.div_duration_f64(handshake) * workers_of_engine;
        let backlog = settings.queue_time.mul_f64(workers_of_engine);
        let (least, most) = CREDITS_AUTO;
        let automatic = (handshakes.ceil() as usize).clamp(least, most);
        Self {
            credits: settings.credits.unwrap_or(automatic),
            backlog,
            handshakes_of_backlog: backlog.div_duration_f64(handshake).ceil() as u32,
            keys,
            costs,
        }
    }

    /// Full handshakes a second of one worker, by kind of key.
    pub fn rates(&self) -> Vec<(String, f64)> {
        self.keys.iter().map(|costs| (costs.key.clone(), costs.per_second())).collect()
    }

    fn log(&self) {
        for KeyCosts { key, first, last, .. } in &self.keys {
            tracing::info!(key, first_step = ?first, last_step = ?last, "handshakes measured");
        }
        tracing::info!(
            credits = self.credits,
            backlog = ?self.backlog,
            measured = !self.keys.is_empty(),
            "handshake capacity of each engine"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);

    fn settle(keys: &[KeyCosts], engines: usize, workers: usize) -> Capacity {
        Capacity::settle(&HandshakeSettings::default(), keys.to_vec(), engines, workers)
    }

    #[test]
    fn credits_are_the_handshakes_of_a_quarter_of_a_second_within_bounds() {
        let key = |first| KeyCosts::elliptic_curve(first * MICROSECOND, 20 * MICROSECOND);
        assert_eq!(settle(&[key(80)], 1, 1).credits, 2_500);
        assert_eq!(settle(&[key(80)], 2, 1).credits, 1_250);
        assert_eq!(settle(&[key(80)], 1, 8).credits, 4_096);
        assert_eq!(settle(&[key(80_000)], 1, 1).credits, 1_024);
        assert_eq!(settle(&[], 1, 1).credits, 1_563, "typical costs where nothing was measured");
    }

    #[test]
    fn of_several_keys_the_cheapest_decides_on_credits_and_the_dearest_on_costs() {
        let cheap = KeyCosts::elliptic_curve(80 * MICROSECOND, 20 * MICROSECOND);
        let dear = KeyCosts::elliptic_curve(480 * MICROSECOND, 30 * MICROSECOND);
        let capacity = settle(&[dear, cheap], 1, 1);
        assert_eq!(capacity.credits, 2_500);
        assert_eq!(capacity.costs.elliptic_curve, 480 * MICROSECOND);
        assert_eq!(capacity.costs.continuation, 30 * MICROSECOND);
        assert_eq!(capacity.costs.rsa, StepCosts::TYPICAL.rsa);
    }

    #[test]
    fn what_is_configured_is_not_overruled() {
        let settings = HandshakeSettings { credits: Some(7), ..HandshakeSettings::default() };
        assert_eq!(Capacity::settle(&settings, Vec::new(), 1, 1).credits, 7);
    }

    #[test]
    fn each_engine_may_be_owed_its_share_of_the_workers_queue_time() {
        let queue_time = HandshakeSettings::default().queue_time;
        assert_eq!(settle(&[], 1, 1).backlog, queue_time);
        assert_eq!(settle(&[], 4, 2).backlog, queue_time / 2);
        assert_eq!(settle(&[], 2, 6).backlog, queue_time * 3);
        assert_eq!(settle(&[], 4, 0).backlog, queue_time, "inline");
    }
}
