//! What rustls begins with, by the name that a client asks for: names may authenticate
//! their clients in ways of their own.

use std::collections::HashMap;
use std::sync::Arc;

use super::terms::AllTerms;
use crate::tls::certificates::CertificateName;
use crate::tls::client_auth::Gate;

/// How clients of one kind come in.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) gate: Option<Arc<Gate>>,
    /// What is negotiated with them, by the policy of the certificate.
    pub(super) terms: AllTerms,
}

/// The doors of a listener.
#[derive(Debug)]
pub(super) struct Doors {
    common: Door,
    /// Those of certain names; the maps have their places.
    others: Vec<Door>,
    exact: HashMap<Box<str>, usize>,
    /// By what follows the first label.
    one_label: HashMap<Box<str>, usize>,
}

impl Doors {
    /// One door for everybody.
    pub(super) fn new(common: Door) -> Self {
        let (exact, one_label) = (HashMap::new(), HashMap::new());
        Self { common, others: Vec::new(), exact, one_label }
    }

    /// Another for whoever asks for one of `names`. No client asks for an address.
    pub(super) fn add(&mut self, names: Vec<CertificateName>, door: Door) {
        let place = self.others.len();
        self.others.push(door);
        for name in names {
            match name {
                CertificateName::Exact(name) => self.exact.insert(name, place),
                CertificateName::Wildcard(suffix) => self.one_label.insert(suffix, place),
                CertificateName::Address(_) => None,
            };
        }
    }

    /// The door for this name, which is in lower case: the exact name goes before the
    /// wildcard.
    pub(super) fn of(&self, server_name: Option<&str>) -> &Door {
        let name = match server_name {
            Some(name) if !self.others.is_empty() => name,
            _ => return &self.common,
        };
        let below = || self.one_label.get(name.split_once('.')?.1);
        match self.exact.get(name).or_else(below) {
            Some(place) => &self.others[*place],
            None => &self.common,
        }
    }
}
