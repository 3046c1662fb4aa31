//! The certificates of a listener, found by server name.
//!
//! Three hash maps: names as they are, suffixes of wildcards, and addresses. A look-up is
//! one probe for an exact name and one more for a wildcard, whatever the number of certificates;
//! it allocates nothing. Several certificates for one name with the same kind of key are rivals:
//! all are candidates, the one that expires last first, because today's and the one that is
//! valid from tomorrow on may both be there.
//!
//! ```text
//!   certificates: [a, b, c, …]  ◀─ places ─┐
//!   names ──▶ { "a.example": [0], "b.example": [1, 2] }   shared by an index that follows,
//!                                                         if only dates and keys are new
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::slice;
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
    rivals: Rivals,
}

/// Places of certificates for one name and with one kind of key, best first, where there are
/// several.
type Rivals = Vec<Vec<u32>>;

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
                candidates.add(candidate, &certificates, &mut names.rivals);
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
        let shared = self.names.rivals.is_empty()
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
            index: self,
            exact: self.names.exact.get(name),
            wildcard: suffix.and_then(|suffix| self.names.wildcard.get(suffix)),
        }
    }

    /// The candidates for an address in its plain form.
    pub fn find_address(&self, address: IpAddr) -> Found<'_> {
        let exact = self.names.address.get(&address);
        Found { index: self, exact, wildcard: None }
    }

    /// Whether any certificate is for an address.
    pub fn has_addresses(&self) -> bool {
        !self.names.address.is_empty()
    }

    /// The certificates that share every name with the one at `place`: its siblings
    /// with other kinds of key, or other dates.
    ///
    /// # Panics
    /// If there is no certificate at `place`.
    pub fn siblings(&self, place: usize) -> Siblings {
        let names = &self.certificates[place].names;
        let mut siblings = Siblings::default();
        for (other, certificate) in self.certificates.iter().enumerate() {
            let others = &certificate.names;
            // The first name that differs ends it for nearly all of them.
            let same = other == place
                || others.len() == names.len()
                    && others.iter().all(|name| names.contains(name))
                    && names.iter().all(|name| others.contains(name));
            if same {
                let Siblings { candidates, rivals } = &mut siblings;
                candidates.add(Candidates::place(other), &self.certificates, rivals);
            }
        }
        siblings
    }

    /// The siblings of [`Self::siblings`] of this index, best first.
    pub fn resolve<'a>(
        &'a self,
        siblings: &'a Siblings,
    ) -> impl Iterator<Item = &'a LoadedCertificate> {
        let places = Places::new([Some(&siblings.candidates), None], &siblings.rivals);
        at_places(places, &self.certificates)
    }
}

/// Certificates for the same names, apart from the index.
#[derive(Clone, Debug, Default)]
pub struct Siblings {
    candidates: Candidates,
    rivals: Rivals,
}

/// What [`CertificateIndex::find`] found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    index: &'a CertificateIndex,
    exact: Option<&'a Candidates>,
    wildcard: Option<&'a Candidates>,
}

impl<'a> Found<'a> {
    /// Whether no certificate is for the name.
    pub const fn is_empty(&self) -> bool {
        self.exact.is_none() && self.wildcard.is_none()
    }

    /// The candidates of the best match, apart from the index.
    pub fn siblings(self) -> Option<Siblings> {
        let CertificateIndex { certificates, names } = self.index;
        let mut siblings = Siblings::default();
        let candidates = self.exact.or(self.wildcard)?;
        for place in Places::new([Some(candidates), None], &names.rivals) {
            siblings.candidates.add(*place, certificates, &mut siblings.rivals);
        }
        Some(siblings)
    }

    /// Without those that have a wildcard in place of the first label.
    #[must_use]
    pub const fn exact(self) -> Self {
        Self { wildcard: None, ..self }
    }

    /// The certificates for the name: exact before wildcard, then by kind of key.
    pub fn iter(self) -> impl Iterator<Item = &'a LoadedCertificate> {
        let CertificateIndex { certificates, names } = self.index;
        let places = Places::new([self.exact, self.wildcard], &names.rivals);
        at_places(places, certificates)
    }
}

/// Certificates that serve one name, for each [`KeyType`] a place in the index, or
/// [`Self::RIVALS`] and a place among rivals: small, because there is one for every name.
#[derive(Clone, Copy, Debug)]
struct Candidates([u32; KeyType::ALL.len()]);

impl Candidates {
    const NONE: u32 = u32::MAX;
    const RIVALS: u32 = 1 << 31;

    fn place(place: usize) -> u32 {
        u32::try_from(place)
            .ok()
            .filter(|place| *place < Self::RIVALS)
            .expect("fewer than 2^31 certificates fit in memory")
    }

    fn add(&mut self, candidate: u32, certificates: &[Arc<LoadedCertificate>], all: &mut Rivals) {
        let slot = &mut self.0[certificates[candidate as usize].key_type as usize];
        let rivals = match *slot {
            Self::NONE => {
                *slot = candidate;
                return;
            }
            // It has the name twice.
            alone if alone == candidate => return,
            alone if alone < Self::RIVALS => {
                *slot = Self::RIVALS | Self::place(all.len());
                all.push(vec![alone]);
                &mut all[(*slot ^ Self::RIVALS) as usize]
            }
            several => &mut all[(several ^ Self::RIVALS) as usize],
        };
        let ends = |place: u32| certificates[place as usize].not_after;
        let behind = rivals.iter().take_while(|one| ends(**one) >= ends(candidate)).count();
        if !rivals.contains(&candidate) {
            rivals.insert(behind, candidate);
        }
    }
}

/// Places in the order of kinds of key, and rivals in theirs. Written out, because every
/// client's comes by here.
struct Places<'a> {
    slots: slice::Iter<'a, u32>,
    then: Option<&'a Candidates>,
    rivals: slice::Iter<'a, u32>,
    all: &'a Rivals,
}

impl<'a> Places<'a> {
    /// Those of one, then those of the other.
    fn new([first, then]: [Option<&'a Candidates>; 2], all: &'a Rivals) -> Self {
        let slots = first.map_or(&[][..], |candidates| &candidates.0);
        Self { slots: slots.iter(), then, rivals: [].iter(), all }
    }
}

impl<'a> Iterator for Places<'a> {
    type Item = &'a u32;

    #[inline]
    fn next(&mut self) -> Option<&'a u32> {
        loop {
            if let Some(place) = self.rivals.next() {
                return Some(place);
            }
            match self.slots.next() {
                Some(slot) if *slot < Candidates::RIVALS => return Some(slot),
                Some(&Candidates::NONE) => {}
                Some(several) => {
                    self.rivals = self.all[(several ^ Candidates::RIVALS) as usize].iter();
                }
                None => self.slots = self.then.take()?.0.iter(),
            }
        }
    }
}

fn at_places<'a>(
    places: impl Iterator<Item = &'a u32>,
    certificates: &'a [Arc<LoadedCertificate>],
) -> impl Iterator<Item = &'a LoadedCertificate> {
    places.map(|place| &*certificates[*place as usize])
}

impl Default for Candidates {
    fn default() -> Self {
        Self([Self::NONE; KeyType::ALL.len()])
    }
}
