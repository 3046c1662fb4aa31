//! Who would be refused under the policies that are only tried, as a page for the admin
//! address and as metrics.
//!
//! Reads cells that engines write, when somebody asks.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::served::ServedListener;
use crate::engine::shadow::{NameCounts, ShadowCounts, refused};
use crate::tls::policy::candidate::Verdict;

/// Names of one listener on a page, unless asked for fewer or more.
pub const NAMES_DEFAULT: usize = 100;

/// The most names of one listener on a page.
pub const NAMES_MAX: usize = 10_000;

/// The listeners that try a policy. Counts are since that policy was first tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowPage {
    /// In the order of the configuration.
    pub listeners: Vec<ShadowOfListener>,
}

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowOfListener {
    /// The listener's name.
    pub listener: String,
    /// All clients.
    pub all: Clients,
    /// Those that asked for no name.
    pub no_name: Clients,
    /// Those that asked for a name that no certificate has, or for one without a row.
    pub other: Clients,
    /// Names, those with the most clients that would fail first.
    pub names: Vec<ShadowOfName>,
    /// Names that have rows, those beyond the limit of this page included.
    pub names_total: usize,
    /// Names that have room in each engine.
    pub names_max: usize,
}

/// Clients that asked for one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowOfName {
    /// The name.
    pub name: String,
    /// Those that were counted for it.
    #[serde(flatten)]
    pub clients: Clients,
    /// It may have had clients that are counted as other.
    pub is_partial: bool,
    /// Of those so many at most would fail.
    pub missed_max: u64,
}

/// Clients that were served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    /// How many.
    pub clients: u64,
    /// Those of them that would fail.
    pub would_fail: u64,
    /// Those by cause: the first that stands against a client.
    pub by_cause: ByCause,
}

/// Clients that would fail, by cause; see [`Verdict`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByCause {
    /// [`Verdict::Version`]
    pub version: u64,
    /// [`Verdict::CipherSuite`]
    pub cipher_suite: u64,
    /// [`Verdict::Certificate`]
    pub certificate: u64,
    /// [`Verdict::SignatureScheme`]
    pub signature_scheme: u64,
    /// [`Verdict::Group`]
    pub group: u64,
}

impl From<[u64; Verdict::ALL.len()]> for Clients {
    fn from(counts: [u64; Verdict::ALL.len()]) -> Self {
        let of = |verdict: Verdict| counts[verdict as usize];
        Self {
            clients: counts.iter().sum(),
            would_fail: refused(&counts),
            by_cause: ByCause {
                version: of(Verdict::Version),
                cipher_suite: of(Verdict::CipherSuite),
                certificate: of(Verdict::Certificate),
                signature_scheme: of(Verdict::SignatureScheme),
                group: of(Verdict::Group),
            },
        }
    }
}

impl ShadowPage {
    /// The page of these listeners, with at most `limit` names of each.
    pub fn new(listeners: &[ServedListener], limit: usize) -> Self {
        let limit = limit.min(NAMES_MAX);
        let page = tried(listeners).map(|(listener, counts)| of_listener(listener, counts, limit));
        Self { listeners: page.collect() }
    }
}

/// The listeners that try a policy.
pub fn tried(listeners: &[ServedListener]) -> impl Iterator<Item = (&str, &ShadowCounts)> {
    listeners.iter().filter_map(|listener| {
        let shadow = listener.shadow.as_ref()?;
        Some((listener.name.as_str(), &*shadow.counts))
    })
}

fn of_listener(listener: &str, counts: &ShadowCounts, limit: usize) -> ShadowOfListener {
    let mut names: Vec<(String, NameCounts)> = counts.names().into_iter().collect();
    let names_total = names.len();
    names.sort_by_key(|(_, known)| {
        let clients: u64 = known.clients.iter().sum();
        std::cmp::Reverse((known.refused(), clients))
    });
    names.truncate(limit);
    let names = names.into_iter().map(|(name, known)| ShadowOfName {
        name,
        clients: known.clients.into(),
        is_partial: known.is_partial,
        missed_max: known.missed_max,
    });
    ShadowOfListener {
        listener: listener.to_owned(),
        all: counts.sum().into(),
        no_name: counts.no_name().into(),
        other: counts.other().into(),
        names: names.collect(),
        names_total,
        names_max: counts.names_max(),
    }
}
