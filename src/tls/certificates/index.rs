//! The certificates of a listener, found by server name.
//!
//! Two hash maps: names as they are, and suffixes of wildcards. A look-up is one probe
//! for an exact name and one more for a wildcard, whatever the number of certificates;
//! it allocates nothing. Per name there is at most one certificate of each kind of key:
//! of two, the one that expires last.

use std::collections::HashMap;

use super::{CertificateName, KeyType, LoadedCertificate};

/// The certificates of a listener.
#[derive(Debug, Default)]
pub struct CertificateIndex {
    certificates: Vec<LoadedCertificate>,
    exact: HashMap<Box<str>, Candidates>,
    wildcard: HashMap<Box<str>, Candidates>,
}

impl CertificateIndex {
    /// Indexes certificates by all of their names.
    ///
    /// # Panics
    /// With 2³² certificates or more.
    pub fn new(certificates: Vec<LoadedCertificate>) -> Self {
        let mut index = Self { certificates, ..Self::default() };
        for place in 0..index.certificates.len() {
            let candidate = Candidates::place(place);
            for name in index.certificates[place].names.iter() {
                let (map, name) = match name {
                    CertificateName::Exact(name) => (&mut index.exact, name),
                    CertificateName::Wildcard(suffix) => (&mut index.wildcard, suffix),
                    CertificateName::Address(_) => continue,
                };
                map.entry(name.clone()).or_default().add(candidate, &index.certificates);
            }
        }
        index
    }

    /// The certificates, in the order given.
    pub fn certificates(&self) -> &[LoadedCertificate] {
        &self.certificates
    }

    /// The candidates for a name in lower case: those that name it, and those with a
    /// wildcard in place of its first label.
    pub fn find(&self, name: &str) -> Found<'_> {
        let suffix = name.split_once('.').map(|(_, suffix)| suffix);
        Found {
            certificates: &self.certificates,
            exact: self.exact.get(name),
            wildcard: suffix.and_then(|suffix| self.wildcard.get(suffix)),
        }
    }

    /// The certificates that share every name with the one at `place`: its siblings
    /// with other kinds of key.
    ///
    /// # Panics
    /// If there is no certificate at `place`.
    pub fn siblings(&self, place: usize) -> Candidates {
        let sorted = |place: usize| {
            let mut names: Vec<_> = self.certificates[place].names.iter().collect();
            names.sort();
            names
        };
        let names = sorted(place);
        let mut candidates = Candidates::default();
        for other in 0..self.certificates.len() {
            // Counting first spares the sorting for nearly all of them.
            let same = other == place
                || self.certificates[other].names.len() == names.len() && sorted(other) == names;
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
        candidates.iter(&self.certificates)
    }
}

/// What [`CertificateIndex::find`] found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    certificates: &'a [LoadedCertificate],
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

    /// The certificates for the name: exact before wildcard, then by kind of key.
    pub fn iter(self) -> impl Iterator<Item = &'a LoadedCertificate> {
        [self.exact, self.wildcard]
            .into_iter()
            .flatten()
            .flat_map(move |candidates| candidates.iter(self.certificates))
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

    fn add(&mut self, candidate: u32, certificates: &[LoadedCertificate]) {
        let certificate = &certificates[candidate as usize];
        let slot = &mut self.0[certificate.key_type as usize];
        if *slot == Self::NONE || certificates[*slot as usize].not_after < certificate.not_after {
            *slot = candidate;
        }
    }

    fn iter(self, certificates: &[LoadedCertificate]) -> impl Iterator<Item = &LoadedCertificate> {
        self.0
            .into_iter()
            .filter(|place| *place != Self::NONE)
            .map(move |place| &certificates[place as usize])
    }
}

impl Default for Candidates {
    fn default() -> Self {
        Self([Self::NONE; KeyType::ALL.len()])
    }
}
