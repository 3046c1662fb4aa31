//! The certificates of a listener, found by server name.
//!
//! Three hash maps: names as they are, suffixes of wildcards, and addresses. A look-up is
//! one probe for an exact name and one more for a wildcard, whatever the number of certificates;
//! it allocates nothing. Per name there is at most one certificate of each kind of key:
//! of two, the one that expires last.
//!
//! ```text
//!   certificates: [a, b, c, …]  ◀─ places ─┐
//!   names ──▶ { "a.example": [0], "b.example": [1, 2] }   shared by an index that follows,
//!                                                         if only dates and keys are new
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::store::Certificates;
use super::{CertificateName, KeyType, LoadedCertificate};

/// The certificates of a listener.
#[derive(Clone, Debug, Default)]
pub struct CertificateIndex {
    certificates: Certificates,
    names: Arc<Names>,
}

#[derive(Debug, Default)]
struct Names {
    exact: HashMap<Box<str>, Candidates>,
    wildcard: HashMap<Box<str>, Candidates>,
    address: HashMap<IpAddr, Candidates>,
    /// Of two certificates for one name and kind of key one was taken, by its date.
    contested: bool,
}

impl From<Vec<LoadedCertificate>> for CertificateIndex {
    fn from(certificates: Vec<LoadedCertificate>) -> Self {
        Self::new(certificates.into_iter().map(Arc::new).collect())
    }
}

impl CertificateIndex {
    /// Indexes certificates by all of their names.
    ///
    /// # Panics
    /// With 2³² certificates or more.
    pub fn new(certificates: Certificates) -> Self {
        let mut names = Names::default();
        for (place, certificate) in certificates.iter().enumerate() {
            let candidate = Candidates::place(place);
            for name in certificate.names.iter() {
                let candidates = match name {
                    CertificateName::Exact(name) => names.exact.entry(name.clone()).or_default(),
                    CertificateName::Wildcard(suffix) => {
                        names.wildcard.entry(suffix.clone()).or_default()
                    }
                    CertificateName::Address(address) => names.address.entry(*address).or_default(),
                };
                names.contested |= candidates.add(candidate, &certificates);
            }
        }
        Self { certificates, names: Arc::new(names) }
    }

    /// The index of `certificates`, which follow those of `self`: the same as
    /// [`Self::new`] makes, and without its cost if every changed certificate is for the
    /// names, and has the kind of key, of the one in whose place it is.
    pub fn followed_by(&self, certificates: Certificates) -> Self {
        let stands_in = |(old, new): (&Arc<LoadedCertificate>, &Arc<LoadedCertificate>)| {
            Arc::ptr_eq(old, new) || old.key_type == new.key_type && old.names == new.names
        };
        let shared = !self.names.contested
            && self.certificates.len() == certificates.len()
            && self.certificates.iter().zip(certificates.iter()).all(stands_in);
        match shared {
            true => Self { certificates, names: Arc::clone(&self.names) },
            false => Self::new(certificates),
        }
    }

    /// Whether both find the same places by the same names: no name came or went.
    pub fn same_names(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.names, &other.names)
    }

    /// The certificates, in the order given.
    pub fn certificates(&self) -> &[Arc<LoadedCertificate>] {
        &self.certificates
    }

    /// The candidates for a name in lower case: those that name it, and those with a
    /// wildcard in place of its first label.
    pub fn find(&self, name: &str) -> Found<'_> {
        let suffix = name.split_once('.').map(|(_, suffix)| suffix);
        Found {
            certificates: &self.certificates,
            exact: self.names.exact.get(name),
            wildcard: suffix.and_then(|suffix| self.names.wildcard.get(suffix)),
        }
    }

    /// The candidates for an address in its plain form.
    pub fn find_address(&self, address: IpAddr) -> Found<'_> {
        let exact = self.names.address.get(&address);
        Found { certificates: &self.certificates, exact, wildcard: None }
    }

    /// Whether any certificate is for an address.
    pub fn has_addresses(&self) -> bool {
        !self.names.address.is_empty()
    }

    /// The certificates that share every name with the one at `place`: its siblings
    /// with other kinds of key.
    ///
    /// # Panics
    /// If there is no certificate at `place`.
    pub fn siblings(&self, place: usize) -> Candidates {
        let names = &self.certificates[place].names;
        let mut candidates = Candidates::default();
        for (other, certificate) in self.certificates.iter().enumerate() {
            let others = &certificate.names;
            // The first name that differs ends it for nearly all of them.
            let same = other == place
                || others.len() == names.len()
                    && others.iter().all(|name| names.contains(name))
                    && names.iter().all(|name| others.contains(name));
            if same {
                candidates.add(Candidates::place(other), &self.certificates);
            }
        }
        candidates
    }

    /// The candidates of a [`Candidates`] from this index, best first.
    pub fn resolve<'a>(
        &'a self,
        candidates: &'a Candidates,
    ) -> impl Iterator<Item = &'a LoadedCertificate> {
        at_places(candidates.0.iter(), &self.certificates)
    }
}

/// What [`CertificateIndex::find`] found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    certificates: &'a [Arc<LoadedCertificate>],
    exact: Option<&'a Candidates>,
    wildcard: Option<&'a Candidates>,
}

impl<'a> Found<'a> {
    /// Whether no certificate is for the name.
    pub const fn is_empty(&self) -> bool {
        self.exact.is_none() && self.wildcard.is_none()
    }

    /// The candidates of the best match, apart from the index.
    pub fn candidates(self) -> Option<Candidates> {
        self.exact.or(self.wildcard).copied()
    }

    /// Without those that have a wildcard in place of the first label.
    #[must_use]
    pub const fn exact(self) -> Self {
        Self { wildcard: None, ..self }
    }

    /// The certificates for the name: exact before wildcard, then by kind of key.
    pub fn iter(self) -> impl Iterator<Item = &'a LoadedCertificate> {
        let places = places(self.exact).iter().chain(places(self.wildcard));
        at_places(places, self.certificates)
    }
}

/// Certificates that serve one name, at most one for each [`KeyType`], by place in the
/// index: small, because there is one for every name.
#[derive(Clone, Copy, Debug)]
pub struct Candidates([u32; KeyType::ALL.len()]);

impl Candidates {
    const NONE: u32 = u32::MAX;

    fn place(place: usize) -> u32 {
        u32::try_from(place)
            .ok()
            .filter(|place| *place != Self::NONE)
            .expect("fewer than 2^32 certificates fit in memory")
    }

    /// Returns whether there is another one of its kind already.
    fn add(&mut self, candidate: u32, certificates: &[Arc<LoadedCertificate>]) -> bool {
        let certificate = &certificates[candidate as usize];
        let slot = &mut self.0[certificate.key_type as usize];
        let contested = *slot != Self::NONE;
        if !contested || certificates[*slot as usize].not_after < certificate.not_after {
            *slot = candidate;
        }
        contested
    }
}

fn places(candidates: Option<&Candidates>) -> &[u32] {
    candidates.map_or(&[], |candidates| &candidates.0)
}

fn at_places<'a>(
    places: impl Iterator<Item = &'a u32>,
    certificates: &'a [Arc<LoadedCertificate>],
) -> impl Iterator<Item = &'a LoadedCertificate> {
    places.filter(|place| **place != Candidates::NONE).map(|place| &*certificates[*place as usize])
}

impl Default for Candidates {
    fn default() -> Self {
        Self([Self::NONE; KeyType::ALL.len()])
    }
}
