//! Routes: what becomes of a client, by what its ClientHello says and where it comes from.
//!
//! ```text
//!   listener: route 1 ─▶ route 2 ─▶ … ─▶ its own pool
//!             the first whose conditions all hold decides
//! ```
//!
//! A condition that is not written holds for everybody. Everything is known before a worker
//! or a server hears of the client, so a route costs no connection and no cryptography.
//!
//! All but the client's certificate: routes that ask for it are passed over at first, and are
//! what the certificate may choose among when the handshake is done. They only forward.
//!
//! Sans-I/O, and no allocation per client. May know: names, versions, addresses, rules on
//! client certificates. Must not know: pools, the engine.
#![forbid(unsafe_code)]

mod reach;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::tls::Version;
use crate::tls::client_auth::{Choices, OpenChoice, Rules};
use crate::tls::client_hello::{ClientHello, Ja4};

pub use reach::unreachable;

/// The most routes of a listener: each client is held against them in turn.
pub const ROUTES_MAX: usize = OpenChoice::COUNT_MAX;

/// The key of the condition that is not known before the handshake.
pub const CERTIFICATE: &str = "client_certificate";

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What people and metrics call it.
    pub name: Arc<str>,
    /// Whom it is for.
    pub conditions: Conditions,
    /// What becomes of them.
    pub action: Action,
}

/// What becomes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// TLS ends here; its plaintext goes to this pool.
    Forward {
        /// The pool's place.
        pool: usize,
    },
    /// The stream goes to this pool as it is, from the first byte of its ClientHello on.
    Passthrough {
        /// The pool's place.
        pool: usize,
    },
    /// The client is told that it is not served here (alert access_denied).
    Reject,
}

/// Whom a route is for: all that are written must hold, and of each list one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The name asked for.
    pub server_names: Option<NamePatterns>,
    /// The application protocol: with [`Action::Passthrough`] any that the client offers,
    /// otherwise the one that the listener would choose.
    pub protocols: Option<Vec<Box<[u8]>>>,
    /// Where the client comes from.
    pub sources: Option<Vec<IpNet>>,
    /// The TLS version: with [`Action::Passthrough`] the newest that the client offers,
    /// otherwise the one that the listener would choose.
    pub versions: Option<Vec<Version>>,
    /// The client's fingerprint.
    pub fingerprints: Option<HashSet<Ja4>>,
    /// What the client's certificate says; only with [`Action::Forward`].
    pub certificates: Option<Rules>,
}

/// Patterns of server names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamePatterns {
    /// Names as they are, in lower case.
    pub exact: HashSet<Box<str>>,
    /// What follows `*.`, in lower case: any one label in front of it, as in certificates.
    pub one_label: HashSet<Box<str>>,
    /// Clients that ask for no name.
    pub none: bool,
}

impl NamePatterns {
    fn matches(&self, name: Option<&str>) -> bool {
        let Some(name) = name else { return self.none };
        self.exact.contains(name)
            || name.split_once('.').is_some_and(|(_, suffix)| self.one_label.contains(suffix))
    }
}

/// What is known of a client when its ClientHello is there.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Where it comes from.
    pub source: IpAddr,
    /// What it said.
    pub hello: &'a ClientHello<'a>,
    /// The version that the listener would choose, if it has one.
    pub version: Option<Version>,
    /// The application protocol that the listener would choose, if any.
    pub protocol: Option<&'a [u8]>,
}

/// The routes of a listener, in order.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    routes: Box<[Route]>,
    /// Whether any of them asks for a fingerprint: else none is made.
    by_fingerprint: bool,
    /// Those that ask for a certificate: their rules and pools, in order.
    by_certificate: Choices,
}

impl Routes {
    /// Routes in this order.
    pub fn new(routes: Vec<Route>) -> Self {
        let by_fingerprint = routes.iter().any(|route| route.conditions.fingerprints.is_some());
        let by_certificate = routes.iter().filter_map(Route::by_certificate);
        let by_certificate = by_certificate.map(|(rules, pool)| (rules.clone(), pool)).collect();
        Self { routes: routes.into_boxed_slice(), by_fingerprint, by_certificate }
    }

    /// The routes.
    pub fn as_slice(&self) -> &[Route] {
        &self.routes
    }

    /// Whether any of the routes asks for a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        !self.by_certificate.is_empty()
    }

    /// The pools of routes before the one that [`Self::find`] finds whose conditions hold but
    /// for the certificate, which is to choose among them; `None` if there is none.
    pub fn choice_of(&self, client: &Client<'_>) -> Option<OpenChoice> {
        let fingerprint = self.fingerprint(client);
        let mut choice = None;
        let mut place = 0;
        for route in &self.routes {
            let unmet = route.unmet(client, fingerprint.as_ref());
            if unmet.is_none() {
                break;
            }
            if unmet == Some(CERTIFICATE) && route.by_certificate().is_some() {
                let new = || OpenChoice::new(Arc::clone(&self.by_certificate));
                choice.get_or_insert_with(new).open(place);
            }
            place += usize::from(route.by_certificate().is_some());
        }
        choice
    }

    /// The place of the route that decides; `None` leaves the client to the listener.
    pub fn find(&self, client: &Client<'_>) -> Option<usize> {
        if self.routes.is_empty() {
            return None;
        }
        let fingerprint = self.fingerprint(client);
        self.routes.iter().position(|route| route.unmet(client, fingerprint.as_ref()).is_none())
    }

    /// The first condition of `route` that does not hold for the client; `None` if all do.
    /// [`CERTIFICATE`] if all others do, and the certificate is not known yet.
    pub fn unmet(&self, route: &Route, client: &Client<'_>) -> Option<&'static str> {
        route.unmet(client, self.fingerprint(client).as_ref())
    }

    fn fingerprint(&self, client: &Client<'_>) -> Option<Ja4> {
        if self.by_fingerprint { Ja4::of(client.hello) } else { None }
    }
}

impl Route {
    /// The rules on the client's certificate, and the pool that they lead to.
    fn by_certificate(&self) -> Option<(&Rules, usize)> {
        match self.action {
            Action::Forward { pool } => Some((self.conditions.certificates.as_ref()?, pool)),
            Action::Passthrough { .. } | Action::Reject => None,
        }
    }

    fn unmet(&self, client: &Client<'_>, fingerprint: Option<&Ja4>) -> Option<&'static str> {
        let Conditions { server_names, protocols, sources, versions, fingerprints, certificates } =
            &self.conditions;
        let passes = matches!(self.action, Action::Passthrough { .. });
        if !holds(server_names, |patterns| {
            patterns.matches(client.hello.server_name.as_ref().map(|name| name.as_str()))
        }) {
            return Some("sni");
        }
        if !holds(sources, |prefixes| {
            let source = client.source.to_canonical();
            prefixes.iter().any(|prefix| prefix.contains(&source))
        }) {
            return Some("source");
        }
        if !holds(versions, |versions| {
            let version = if passes { newest_offered(client.hello) } else { client.version };
            version.is_some_and(|version| versions.contains(&version))
        }) {
            return Some("version");
        }
        if !holds(protocols, |protocols| {
            let mut protocols = protocols.iter();
            if passes {
                let offered = client.hello.alpn;
                protocols.any(|protocol| {
                    offered.is_some_and(|offered| offered.iter().any(|other| other == &**protocol))
                })
            } else {
                protocols.any(|protocol| client.protocol == Some(&**protocol))
            }
        }) {
            return Some("alpn");
        }
        let known = holds(fingerprints, |fingerprints| {
            fingerprint.is_some_and(|fingerprint| fingerprints.contains(fingerprint))
        });
        if !known {
            return Some("ja4");
        }
        certificates.as_ref().map(|_| CERTIFICATE)
    }
}

fn holds<T>(condition: &Option<T>, check: impl FnOnce(&T) -> bool) -> bool {
    condition.as_ref().is_none_or(check)
}

fn newest_offered(hello: &ClientHello<'_>) -> Option<Version> {
    if hello.offers_tls13() {
        Some(Version::Tls13)
    } else if hello.offers_tls12() {
        Some(Version::Tls12)
    } else {
        None
    }
}
