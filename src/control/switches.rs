//! Optional means of the machine: what of them is used, and the words for what was asked
//! for and cannot be had. Each want is warned of once; forebay does without.

#![forbid(unsafe_code)]

use std::fs;
use std::time::Duration;

use super::cpus::{self, Placement};
use super::listeners::{self, Listeners};
use crate::config::engine::Steer;
use crate::config::{Finding, Place, Settings};
use crate::driver::memory::Pages;
use crate::switch::{Spin, Switch};

/// What the placement of the threads leaves without effect.
pub fn check(settings: &Settings, placement: &Placement) -> Vec<Finding> {
    let shared: Vec<usize> =
        (0..placement.engines.len()).filter(|engine| placement.shares_its_cpu(*engine)).collect();
    if settings.engine.spin == Spin::Off || shared.is_empty() {
        return Vec::new();
    }
    let place = Place { key: "engine.spin".to_owned(), ..Place::default() };
    let message = format!(
        "has no effect on engines {}, whose CPUs other threads share: they sleep instead",
        cpus::list(&shared)
    );
    let help = "give them CPUs of their own (engine.cpus, handshake.cpus), or take it out";
    vec![settings.warning(&place, message).with_help(help)]
}

/// Whether an engine polls: not where it would take the CPU from those it waits for.
pub(super) fn spin(wanted: Spin, placement: &Placement, engine: usize) -> Spin {
    if placement.shares_its_cpu(engine) { Spin::Off } else { wanted }
}

/// `engine.steer`: spreads connections over the engines as wanted, else by hash.
pub(super) fn steer(wanted: Steer, listeners: &Listeners, placement: &Placement) {
    if wanted == Steer::Cpu
        && let Err(error) = listeners::steer_by_cpu(listeners, &placement.engines)
    {
        tracing::warn!(%error, "cannot steer connections by CPU: they are spread by hash");
    }
}

/// `engine.napi_busy_poll`: `obtained` is whether the kernel does it.
pub(super) fn warn_of_device_polling(wanted: Duration, obtained: bool) {
    if !wanted.is_zero() && !obtained {
        tracing::warn!(
            "this kernel does not poll network devices for a ring: engine.napi_busy_poll has no \
             effect; it needs Linux 6.9 with CONFIG_NET_RX_BUSY_POLL"
        );
    }
}

/// `engine.huge_pages`: `obtained` is what the buffers of each engine lie on.
pub(super) fn warn_of_pages(wanted: Switch, obtained: &[Pages]) {
    let without = obtained.iter().filter(|pages| **pages < Pages::Reserved).count();
    if wanted == Switch::On && without > 0 {
        tracing::warn!(
            engines = obtained.len(),
            without,
            "too few reserved huge pages for the buffers: the kernel is asked for transparent \
             ones instead; raise vm.nr_hugepages"
        );
    }
}

/// Says whether the kernel has what would move bytes without copying them. forebay uses
/// neither: docs/zero-copy.md has the reasons, and what it would take.
pub(super) fn report_unused(receives_without_copy: bool) {
    let words = |there| if there { "in this kernel" } else { "not in this kernel" };
    // Protocols that can be stacked on a TCP socket; "tls" from when its module is loaded.
    let stackable = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp");
    let kernel_tls =
        stackable.is_ok_and(|names| names.split_whitespace().any(|name| name == "tls"));
    tracing::info!(
        zero_copy_receive = words(receives_without_copy),
        kernel_tls = if kernel_tls { "loaded" } else { "not loaded" },
        "not used by forebay (docs/zero-copy.md)"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polling() -> Settings {
        let mut settings = Settings::default();
        settings.engine.spin = Spin::Always;
        settings
    }

    #[test]
    fn engines_that_share_their_cpu_do_not_poll_and_are_named() {
        let placement = Placement { engines: vec![0, 1, 2], workers: vec![2, 1], shared: true };
        let polls = |engine| spin(Spin::Always, &placement, engine);
        assert_eq!([polls(0), polls(1), polls(2)], [Spin::Always, Spin::Off, Spin::Off]);
        let findings = check(&polling(), &placement);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert!(!finding.is_error());
        assert!(finding.to_string().contains("engine.spin: has no effect on engines 1-2"));
    }

    #[test]
    fn there_is_nothing_to_warn_of_without_polling_or_without_sharing() {
        let apart = Placement { engines: vec![0, 1], workers: vec![2], shared: false };
        let shared = Placement { engines: vec![0], workers: vec![0], shared: true };
        assert_eq!(check(&polling(), &apart), []);
        assert_eq!(check(&Settings::default(), &shared), []);
    }
}
