//! Routes that nobody can reach, because an earlier one takes all of their clients.
//!
//! Each earlier route is held against a later one by itself. That two of them together
//! leave nobody over is not found: it is rare, and no harm.

use ipnet::IpNet;

use super::{Action, Conditions, NamePatterns, Route};

/// Places of the routes that nobody can reach, each with the earlier one that is to blame.
pub fn unreachable(routes: &[Route]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (place, route) in routes.iter().enumerate() {
        let before = routes[..place].iter().position(|earlier| takes_all_of(earlier, route));
        found.extend(before.map(|earlier| (place, earlier)));
    }
    found
}

/// Whether every client that `later` is for is one that `earlier` takes.
fn takes_all_of(earlier: &Route, later: &Route) -> bool {
    let Conditions { server_names, protocols, sources, versions, fingerprints, certificates } =
        &earlier.conditions;
    let theirs = &later.conditions;
    // What protocol and version stand for depends on the action.
    let passes = |route: &Route| matches!(route.action, Action::Passthrough { .. });
    let alike = passes(earlier) == passes(later);
    covers(server_names, &theirs.server_names, |ours, theirs| ours.takes_all_of(theirs))
        && covers(sources, &theirs.sources, |ours, theirs| {
            theirs.iter().all(|prefix| ours.iter().any(|wide: &IpNet| wide.contains(prefix)))
        })
        && covers(certificates, &theirs.certificates, |ours, theirs| ours == theirs)
        && covers(fingerprints, &theirs.fingerprints, |ours, theirs| theirs.is_subset(ours))
        && (alike || protocols.is_none() && versions.is_none())
        && covers(protocols, &theirs.protocols, |ours, theirs| {
            theirs.iter().all(|protocol| ours.contains(protocol))
        })
        && covers(versions, &theirs.versions, |ours, theirs| {
            theirs.iter().all(|version| ours.contains(version))
        })
}

fn covers<T>(ours: &Option<T>, theirs: &Option<T>, check: impl FnOnce(&T, &T) -> bool) -> bool {
    match (ours, theirs) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(ours), Some(theirs)) => check(ours, theirs),
    }
}

impl NamePatterns {
    fn takes_all_of(&self, other: &Self) -> bool {
        (self.none || !other.none)
            && other.one_label.is_subset(&self.one_label)
            && other.exact.iter().all(|name| self.matches(Some(name)))
    }
}
