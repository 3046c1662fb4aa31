//! What those who watch a server say of it, and what follows for new connections.
//!
//! ```text
//!   operator ─ ready │ drain │ maintenance ─┐
//!   agent ──── the same; fails; a weight ───┼─▶ the strictest of them ─▶ Standing
//!   checks ─── it fails ────────────────────┤
//!   ejection ─ connections to it fail ──────┤
//!   names ──── its name has it no longer ───┘
//! ```
//!
//! Each of them says its own and takes back only its own: a server takes connections when
//! nobody objects any more. May know: standings. Must not know: who comes to an opinion how.
#![forbid(unsafe_code)]

use super::status::{Availability, Standing};
use crate::clock::Moment;

/// What somebody wants a server to get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Whatever the others let it have.
    #[default]
    Ready,
    /// No new connections.
    Drain,
    /// No new connections, and no checks either: somebody is at work on it.
    Maintenance,
}

impl Wish {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Maintenance];

    /// As it is written in requests and shown.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }
}

/// What is said of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opinions {
    /// The operator's, until the process ends.
    pub operator: Wish,
    /// Its checks fail.
    pub check_fails: bool,
    /// Its agent's.
    pub agent: AgentOpinion,
    /// Too many connections to it have failed of late.
    pub ejected: bool,
    /// The name that it was found by stands for others now.
    pub unnamed: bool,
}

/// What an agent has said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentOpinion {
    /// It said `drain` or `maint`, and not `ready` since.
    pub wish: Wish,
    /// It said `down`, `fail` or `stopped`, and not `up` since.
    pub fails: bool,
    /// Hundredths of the configured weight, at most [`Standing::WEIGHT_PERCENT_MAX`].
    pub weight_percent: u16,
    /// Connections in the place of the configured limit, at most
    /// [`Standing::CONNECTIONS_MAX`].
    pub connections_max: Option<u32>,
}

impl Default for AgentOpinion {
    fn default() -> Self {
        Self { wish: Wish::Ready, fails: false, weight_percent: 100, connections_max: None }
    }
}

impl Opinions {
    /// What they come to.
    pub fn availability(&self) -> Availability {
        let named = if self.unnamed { Wish::Drain } else { Wish::Ready };
        match self.operator.max(self.agent.wish).max(named) {
            Wish::Maintenance => Availability::Maintenance,
            Wish::Drain => Availability::Drain,
            Wish::Ready if self.check_fails || self.agent.fails => Availability::Down,
            Wish::Ready if self.ejected => Availability::Ejected,
            Wish::Ready => Availability::Up,
        }
    }

    /// The standing that follows on `before`.
    pub(super) fn standing(&self, before: Standing, now: Moment) -> Standing {
        let after = Standing {
            availability: self.availability(),
            weight_percent: self.agent.weight_percent.min(Standing::WEIGHT_PERCENT_MAX),
            connections_max: self.agent.connections_max,
            up_since: before.up_since,
        };
        let comes_back = after.takes_connections() && !before.takes_connections();
        Standing { up_since: if comes_back { Some(now) } else { before.up_since }, ..after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::ServerStatus;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanoseconds(seconds * 1_000_000_000)
    }

    #[test]
    fn the_strictest_opinion_decides_and_each_takes_back_its_own_only() {
        let status = ServerStatus::new(1);
        let change = |change: fn(&mut Opinions)| status.change(at(1), change).1.availability;
        assert_eq!(change(|opinions| opinions.unnamed = true), Availability::Drain);
        assert_eq!(change(|opinions| opinions.unnamed = false), Availability::Up);
        assert_eq!(change(|opinions| opinions.ejected = true), Availability::Ejected);
        assert_eq!(change(|opinions| opinions.check_fails = true), Availability::Down);
        assert_eq!(change(|opinions| opinions.agent.wish = Wish::Drain), Availability::Drain);
        let maintain = |opinions: &mut Opinions| opinions.operator = Wish::Maintenance;
        assert_eq!(change(maintain), Availability::Maintenance);
        assert_eq!(change(|opinions| opinions.operator = Wish::Ready), Availability::Drain);
        assert_eq!(change(|opinions| opinions.agent.wish = Wish::Ready), Availability::Down);
        assert_eq!(change(|opinions| opinions.check_fails = false), Availability::Ejected);
        assert_eq!(change(|opinions| opinions.ejected = false), Availability::Up);
    }

    #[test]
    fn who_comes_back_begins_slowly_and_who_was_never_out_does_not() {
        let status = ServerStatus::new(1);
        let since = |now, change: fn(&mut Opinions)| status.change(now, change).1.up_since;
        assert_eq!(since(at(1), |opinions| opinions.agent.weight_percent = 50), None);
        assert_eq!(since(at(2), |opinions| opinions.agent.weight_percent = 0), None);
        assert_eq!(since(at(3), |opinions| opinions.agent.weight_percent = 100), Some(at(3)));
        assert_eq!(since(at(4), |opinions| opinions.agent.weight_percent = 70), Some(at(3)));
    }
}
