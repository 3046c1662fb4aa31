//! The policies that listeners only try: built on reload, their counts kept.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::config::{Finding, ListenerSettings, Settings, ShadowSettings};
use crate::engine::shadow::{Shadow, ShadowCounts};
use crate::tls::policy::Policy;
use crate::tls::policy::candidate::Candidate;

/// What a listener tries, and what for.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    settings: ShadowSettings,
    pub(super) shadow: Arc<Shadow>,
}

/// What the listener tries besides `policy`, if anything. Counts go on from `before` if that
/// tried the same; else they begin at zero, in each of so many engines.
pub(super) fn prepare(
    settings: &Settings,
    listener: &ListenerSettings,
    policy: &Policy,
    before: Option<&Tried>,
    engines: usize,
    findings: &mut Vec<Finding>,
) -> Option<Tried> {
    let wanted = listener.shadow.as_ref()?;
    let candidate = match Candidate::new(policy, settings.tls.provider, &wanted.value.terms) {
        Ok(candidate) => candidate,
        Err(error) => {
            findings.push(settings.error(&wanted.place, error.to_string()));
            return None;
        }
    };
    if !candidate.has_any_certificate() {
        let message = "every client would fail: no certificate of the listener has a key that \
                       may sign under this";
        let help = "add certificates with such keys beside the others";
        findings.push(settings.warning(&wanted.place, message).with_help(help));
    }
    let same = before.filter(|before| before.settings == wanted.value);
    let counts = match same {
        Some(before) => Arc::clone(&before.shadow.counts),
        None => Arc::new(ShadowCounts::new(wanted.value.names, engines)),
    };
    let shadow = Arc::new(Shadow { candidate, counts });
    Some(Tried { settings: wanted.value.clone(), shadow })
}
