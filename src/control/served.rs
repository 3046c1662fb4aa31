//! The listeners of the configuration in force, and their certificates as a page for the
//! admin address: a part of them at a time, because there may be 100,000.
//!
//! Keeps what the engines have too, and reads it only when somebody asks.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::engine::shadow::Shadow;
use crate::tls::certificates::{CertificateName, LoadedCertificate};
use crate::tls::policy::Policy;

/// Certificates of one page, unless asked for fewer or more.
pub const PAGE_DEFAULT: usize = 100;

/// The most certificates of one page.
pub const PAGE_MAX: usize = 1_000;

/// Names shown of one certificate.
pub const NAMES_MAX: usize = 100;

/// A listener and what it shows.
#[derive(Clone, Debug)]
pub struct ServedListener {
    /// Its name.
    pub name: String,
    /// Its certificates.
    pub policy: Arc<Policy>,
    /// What is tried on its clients.
    pub shadow: Option<Arc<Shadow>>,
}

/// Written by the control thread, read by the admin thread.
#[derive(Debug, Default)]
pub struct Served(Mutex<Arc<[ServedListener]>>);

/// One page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedPage {
    /// Certificates of all listeners; one that two listeners show counts twice.
    pub total: usize,
    /// The place of the first one here among them.
    pub offset: usize,
    /// The offset of the next page; `None` after the last.
    pub next_offset: Option<usize>,
    /// By listener, in the order of the configuration.
    pub certificates: Vec<ServedCertificate>,
}

/// A certificate that a listener shows. Times are in seconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedCertificate {
    /// The listener's name.
    pub listener: String,
    /// The file.
    pub file: String,
    /// The first [`NAMES_MAX`] names.
    pub names: Vec<String>,
    /// How many names there are.
    pub names_total: usize,
    /// The kind of key.
    pub key: String,
    /// The size of the key.
    pub key_bits: u16,
    /// The start of its validity.
    pub not_before: i64,
    /// The end of its validity.
    pub not_after: i64,
    /// The end of its OCSP staple, if it has one.
    pub staple_ends: Option<i64>,
    /// When a client was last shown it, to the minute; `None` if not since it was read, or
    /// if nobody keeps count.
    pub last_used: Option<i64>,
    /// Whether chain and key are in memory.
    pub in_memory: bool,
}

impl ServedCertificate {
    /// The facts of one certificate.
    pub fn new(listener: &str, certificate: &LoadedCertificate) -> Self {
        let names = certificate.names.iter().take(NAMES_MAX);
        Self {
            listener: listener.to_owned(),
            file: certificate.source.display().to_string(),
            names: names.map(CertificateName::to_string).collect(),
            names_total: certificate.names.len(),
            key: certificate.key_type.to_string(),
            key_bits: certificate.key_bits,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            staple_ends: certificate.staple_ends,
            last_used: certificate.signing.last_used(),
            in_memory: certificate.signing.is_resident(),
        }
    }
}

impl Served {
    /// Puts another configuration in the place of the one before.
    pub fn replace(&self, listeners: Vec<ServedListener>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = listeners.into();
    }

    /// The listeners, in the order of the configuration.
    pub fn listeners(&self) -> Arc<[ServedListener]> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `limit` certificates from the one at `offset` on.
    pub fn page(&self, offset: usize, limit: usize) -> ServedPage {
        let listeners = self.listeners();
        let total = listeners.iter().map(|listener| listener.policy.certificates().len()).sum();
        let all = listeners.iter().flat_map(|listener| {
            listener.policy.certificates().iter().map(|certificate| (&listener.name, certificate))
        });
        let certificates: Vec<_> = all
            .skip(offset)
            .take(limit.min(PAGE_MAX))
            .map(|(listener, certificate)| ServedCertificate::new(listener, certificate))
            .collect();
        let next_offset = next_offset(offset, certificates.len(), total);
        ServedPage { total, offset, next_offset, certificates }
    }
}

/// The offset of the page behind one of `shown` things of `total`; `None` after the last.
pub fn next_offset(offset: usize, shown: usize, total: usize) -> Option<usize> {
    let next = offset.saturating_add(shown);
    (next < total && shown > 0).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::policy::PolicySettings;
    use crate::tls::self_signed::self_signed;
    use crate::tls::{CryptoLibrary, tickets};

    fn listener(name: &str, names: &[&str]) -> ServedListener {
        let library = CryptoLibrary::AwsLc;
        let certificates = names.iter().map(|name| self_signed(&[name], library).expect("made"));
        let tickets = tickets::per_process(library).expect("keys");
        let settings = PolicySettings::new(library, certificates.collect::<Vec<_>>(), tickets);
        let policy = Arc::new(Policy::new(settings).expect("a policy"));
        ServedListener { name: name.to_owned(), policy, shadow: None }
    }

    #[test]
    fn pages_follow_each_other_over_all_listeners_to_the_end() {
        let served = Served::default();
        assert_eq!(served.page(0, 10).certificates, []);
        let one = listener("one", &["a.example", "b.example"]);
        served.replace(vec![one, listener("two", &["c.example"])]);
        let mut seen = Vec::new();
        let mut offset = Some(0);
        while let Some(at) = offset {
            let page = served.page(at, 2);
            assert_eq!((page.total, page.offset), (3, at));
            seen.extend(page.certificates.into_iter().map(|one| (one.listener, one.names)));
            offset = page.next_offset;
        }
        let expected = [("one", "a.example"), ("one", "b.example"), ("two", "c.example")];
        let expected =
            expected.map(|(listener, name)| (listener.to_owned(), vec![name.to_owned()]));
        assert_eq!(seen, expected);
        assert_eq!(served.page(usize::MAX, 5).next_offset, None);
    }

    #[test]
    fn of_many_names_the_first_are_shown_and_all_are_counted() {
        let names: Vec<String> = (0..150).map(|number| format!("{number}.example")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let certificate = self_signed(&names, CryptoLibrary::AwsLc).expect("made");
        let served = ServedCertificate::new("one", &certificate);
        assert_eq!((served.names.len(), served.names_total), (NAMES_MAX, 150));
    }
}
