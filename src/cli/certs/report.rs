//! What a check found, as text or as JSON, and the exit code that follows.

use serde::Serialize;

use super::super::output::say;
use super::super::{ExitStatus, FAILURE, SUCCESS, WRONG_INPUT};
use super::nodes::NodesReport;
use crate::tls::certificates::examination::Examination;
use crate::tls::certificates::{CertificateName, day};

/// Everything that was looked at.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// The certificates, one for each place.
    pub(super) certificates: Vec<CertificateReport>,
    /// The names asked for, and what covers them.
    pub(super) names: Vec<NameReport>,
    /// What was compared between nodes.
    pub(super) nodes: Option<NodesReport>,
    /// Everything wrong.
    pub(super) findings: Vec<Finding>,
    /// What could not be looked at, and why.
    pub(super) unchecked: Vec<Finding>,
}

/// A certificate and where it was seen.
#[derive(Debug, Serialize)]
pub(super) struct CertificateReport {
    /// The file, or the server and the name that it was asked for.
    pub(super) place: String,
    pub(super) names: Vec<String>,
    pub(super) key: String,
    pub(super) issuer: String,
    pub(super) serial: String,
    /// Seconds since 1970-01-01 UTC.
    pub(super) not_after: i64,
}

impl CertificateReport {
    pub(super) fn new(place: &str, examined: &Examination) -> Self {
        Self {
            place: place.to_owned(),
            names: examined.names.iter().map(CertificateName::to_string).collect(),
            key: examined.key.clone(),
            issuer: examined.issuer.clone(),
            serial: examined.serial.clone(),
            not_after: examined.not_after,
        }
    }
}

/// A name asked for.
#[derive(Debug, Serialize)]
pub(super) struct NameReport {
    pub(super) name: String,
    /// Places of certificates for it.
    pub(super) covered_by: Vec<String>,
}

/// Something wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) place: String,
    pub(super) message: String,
}

impl Report {
    pub(super) fn find(&mut self, place: &str, message: impl ToString) {
        let finding = Finding { place: place.to_owned(), message: message.to_string() };
        // What several names of one server have in common is said once.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    pub(super) fn fail(&mut self, place: &str, message: impl ToString) {
        let failure = Finding { place: place.to_owned(), message: message.to_string() };
        if !self.unchecked.contains(&failure) {
            self.unchecked.push(failure);
        }
    }

    /// Takes in a certificate seen at `place`.
    pub(super) fn examined(&mut self, place: &str, examined: &Examination) {
        for flaw in &examined.flaws {
            self.find(place, flaw);
        }
        self.certificates.push(CertificateReport::new(place, examined));
    }

    pub(super) fn print(&self, as_json: bool) -> ExitStatus {
        if as_json {
            match serde_json::to_string_pretty(self) {
                Ok(text) => say(text),
                Err(error) => eprintln!("forebay: {error}"),
            }
        } else {
            self.print_text();
        }
        if !self.unchecked.is_empty() {
            WRONG_INPUT
        } else if !self.findings.is_empty() {
            FAILURE
        } else {
            SUCCESS
        }
    }

    fn print_text(&self) {
        for one in &self.certificates {
            say(format_args!(
                "{}: {} for {}; from {}; until {}",
                one.place,
                one.key,
                if one.names.is_empty() { "no name".to_owned() } else { one.names.join(", ") },
                one.issuer,
                day(one.not_after)
            ));
        }
        for NameReport { name, covered_by } in &self.names {
            if !covered_by.is_empty() {
                say(format_args!("{name}: covered by {}", covered_by.join(", ")));
            }
        }
        if let Some(nodes) = &self.nodes {
            nodes.print_text();
        }
        for Finding { place, message } in &self.findings {
            say(format_args!("finding: {place}: {message}"));
        }
        for Finding { place, message } in &self.unchecked {
            eprintln!("not checked: {place}: {message}");
        }
        say(format_args!(
            "certificates: {}, findings: {}, not checked: {}",
            self.certificates.len(),
            self.findings.len(),
            self.unchecked.len()
        ));
    }
}
