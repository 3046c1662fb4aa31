//! Whether several servers are one to a client: what each shows for a name, and whether each
//! resumes the sessions of every other.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::super::output::say;
use super::probe::{Prober, Question, Seen, Sessions};
use super::report::Report;
use super::servers::{host_name, not_for};
use crate::tls::certificates::day;
use crate::tls::certificates::examination::{Examination, Standard, examine};
use crate::tls::{CryptoLibrary, Version};

/// The most servers: every pair is tried, in both directions and versions.
pub(super) const NODES_MAX: usize = 32;

/// What was compared.
#[derive(Debug, Serialize)]
pub(super) struct NodesReport {
    names: Vec<NameOnNodes>,
    resumption: Vec<Resumption>,
}

/// What the nodes show for one name.
#[derive(Debug, Serialize)]
struct NameOnNodes {
    /// `None`: without asking for a name.
    name: Option<String>,
    certificates: Agreement,
    nodes: Vec<NodeSeen>,
}

/// Whether nodes show the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Agreement {
    /// The very same chain.
    Same,
    /// Others, for the name, of the same issuer and kind of key: one for each node, or a
    /// renewal under way.
    Equivalent,
    Different,
}

/// What one node shows.
#[derive(Debug, Serialize)]
struct NodeSeen {
    node: String,
    versions: Vec<String>,
    alpn: Option<String>,
    serial: String,
    key: String,
    issuer: String,
    /// Seconds since 1970-01-01 UTC.
    not_after: i64,
    #[serde(skip)]
    chain: Vec<CertificateDer<'static>>,
    #[serde(skip)]
    examined: Examination,
}

/// Whether a session begun on one node was resumed on another.
#[derive(Debug, Serialize)]
struct Resumption {
    name: Option<String>,
    version: String,
    from: String,
    to: String,
    resumed: bool,
}

/// What to ask, and what is good enough.
pub(super) struct Comparison<'a> {
    pub(super) nodes: &'a [String],
    pub(super) names: &'a [String],
    pub(super) alpn: &'a [String],
    pub(super) prober: &'a Prober,
    pub(super) standard: Standard<'a>,
    /// Equivalent certificates are not good enough.
    pub(super) same: bool,
}

impl Comparison<'_> {
    /// Asks every node for every name, and tries every pair.
    pub(super) fn run(&self, report: &mut Report) {
        let mut compared = NodesReport { names: Vec::new(), resumption: Vec::new() };
        let names: Vec<Option<&str>> = match self.names {
            [] => vec![self.nodes.first().and_then(|node| host_name(node))],
            names => names.iter().map(|name| Some(name.as_str())).collect(),
        };
        for (index, name) in names.into_iter().enumerate() {
            let nodes: Vec<NodeSeen> =
                self.nodes.iter().filter_map(|node| self.look(node, name, report)).collect();
            let certificates = self.compare(name, &nodes, report);
            // Which name it is makes no difference: tickets are a matter of the listener.
            if index == 0 {
                for version in [Version::Tls13, Version::Tls12] {
                    self.try_pairs(name, version, &nodes, &mut compared.resumption, report);
                }
            }
            let name = name.map(str::to_owned);
            compared.names.push(NameOnNodes { name, certificates, nodes });
        }
        report.nodes = Some(compared);
    }

    /// What a node shows with each version.
    fn look(&self, node: &str, name: Option<&str>, report: &mut Report) -> Option<NodeSeen> {
        let place = place(node, name);
        let mut seen: Vec<Seen> = Vec::new();
        let mut failure = None;
        for version in [Version::Tls13, Version::Tls12] {
            let none = Sessions::none();
            let question = Question { server: node, name, version: Some(version), alpn: self.alpn };
            match self.prober.ask(question, &none) {
                Ok(one) => seen.push(one),
                Err(error) => failure = Some(error),
            }
        }
        let versions = seen.iter().map(|one| one.version.to_string()).collect();
        let Some(first) = seen.into_iter().next() else {
            let failure = failure.map_or_else(String::new, |error| error.to_string());
            report.fail(&place, failure);
            return None;
        };
        let examined = examine(&first.chain, CryptoLibrary::AwsLc, self.standard);
        report.examined(&place, &examined);
        if let Some(name) = name
            && !examined.covers(name)
        {
            report.find(&place, not_for(name, &examined));
        }
        Some(NodeSeen {
            node: node.to_owned(),
            versions,
            alpn: first.alpn,
            serial: examined.serial.clone(),
            key: examined.key.clone(),
            issuer: examined.issuer.clone(),
            not_after: examined.not_after,
            chain: first.chain,
            examined,
        })
    }

    /// Says where nodes differ from the first.
    fn compare(&self, name: Option<&str>, nodes: &[NodeSeen], report: &mut Report) -> Agreement {
        let Some((first, others)) = nodes.split_first() else { return Agreement::Same };
        let mut agreement = Agreement::Same;
        for other in others {
            let place = place(&other.node, name);
            let differs = |what: &str, ours: &str, theirs: &str, advice: &str| {
                format!("{what} is {ours}, on {} it is {theirs}: {advice}", first.node)
            };
            match certificates_agree(first, other, name) {
                Agreement::Same => {}
                Agreement::Equivalent => {
                    if agreement == Agreement::Same {
                        agreement = Agreement::Equivalent;
                    }
                    if self.same {
                        let (ours, theirs) = (describe(other), describe(first));
                        let advice = "renew it there too";
                        report.find(&place, differs("the certificate", &ours, &theirs, advice));
                    }
                }
                Agreement::Different => {
                    agreement = Agreement::Different;
                    let (ours, theirs) = (describe(other), describe(first));
                    let advice = "put the same certificate on both, or one of the same issuer \
                                  and kind of key for the same name";
                    report.find(&place, differs("the certificate", &ours, &theirs, advice));
                }
            }
            if first.chain.get(1..) != other.chain.get(1..) && agreement != Agreement::Different {
                let advice = "the same chain of issuers belongs behind both certificates";
                let lengths = (other.chain.len().to_string(), first.chain.len().to_string());
                let what = "the chain (number of certificates)";
                report.find(&place, differs(what, &lengths.0, &lengths.1, advice));
            }
            if first.versions != other.versions {
                let (ours, theirs) = (other.versions.join(" "), first.versions.join(" "));
                let advice = "compare minimum_version and cipher_suites";
                report.find(&place, differs("what is spoken", &ours, &theirs, advice));
            }
            if first.alpn != other.alpn {
                let text = |seen: &NodeSeen| seen.alpn.clone().unwrap_or_else(|| "none".to_owned());
                let advice = "compare alpn of the listeners";
                let what = "the protocol chosen (ALPN)";
                report.find(&place, differs(what, &text(other), &text(first), advice));
            }
        }
        agreement
    }

    /// Begins a session on each node that speaks `version`, and offers it to every other.
    fn try_pairs(
        &self,
        name: Option<&str>,
        version: Version,
        nodes: &[NodeSeen],
        tried: &mut Vec<Resumption>,
        report: &mut Report,
    ) {
        let text = version.to_string();
        let speakers: Vec<&NodeSeen> =
            nodes.iter().filter(|node| node.versions.contains(&text)).collect();
        for from in &speakers {
            for to in speakers.iter().filter(|to| to.node != from.node) {
                let Some(resumed) = self.try_pair(name, version, from, to, report) else {
                    continue;
                };
                if !resumed {
                    let message = format!(
                        "does not resume a session begun on {} ({text}): give both the same \
                         session.secrets and session_domain, and look at their clocks",
                        from.node
                    );
                    report.find(&place(&to.node, name), message);
                }
                tried.push(Resumption {
                    name: name.map(str::to_owned),
                    version: text.clone(),
                    from: from.node.clone(),
                    to: to.node.clone(),
                    resumed,
                });
            }
        }
    }

    /// Whether a session begun on `from` is resumed on `to`; `None` if that cannot be told.
    fn try_pair(
        &self,
        name: Option<&str>,
        version: Version,
        from: &NodeSeen,
        to: &NodeSeen,
        report: &mut Report,
    ) -> Option<bool> {
        let alpn: Vec<String> = from.alpn.iter().cloned().collect();
        let look = |node: &str, sessions: &Arc<Sessions>| {
            let question = Question { server: node, name, version: Some(version), alpn: &alpn };
            self.prober.ask(question, sessions)
        };
        let sessions = Sessions::wanted();
        if let Err(error) = look(&from.node, &sessions) {
            report.fail(&place(&from.node, name), error);
            return None;
        }
        let Some(offered) = sessions.take() else {
            let message = format!("gives no session ticket ({version}): are tickets turned off?");
            report.find(&place(&from.node, name), message);
            return None;
        };
        match look(&to.node, &offered) {
            Ok(seen) => Some(seen.resumed),
            Err(error) => {
                report.fail(&place(&to.node, name), error);
                None
            }
        }
    }
}

fn place(node: &str, name: Option<&str>) -> String {
    name.map_or_else(|| node.to_owned(), |name| format!("{node} ({name})"))
}

fn describe(seen: &NodeSeen) -> String {
    format!("{} number {} until {}", seen.key, seen.serial, day(seen.not_after))
}

fn certificates_agree(first: &NodeSeen, other: &NodeSeen, name: Option<&str>) -> Agreement {
    if first.chain.first() == other.chain.first() {
        return Agreement::Same;
    }
    let covered = |seen: &NodeSeen| name.is_none_or(|name| seen.examined.covers(name));
    let alike = first.key == other.key
        && first.issuer == other.issuer
        && covered(first)
        && covered(other)
        // Without a name to ask for, only equal names tell.
        && (name.is_some() || first.examined.names == other.examined.names);
    if alike { Agreement::Equivalent } else { Agreement::Different }
}

impl NodesReport {
    pub(super) fn print_text(&self) {
        for NameOnNodes { name, certificates, nodes } in &self.names {
            let name = name.as_deref().unwrap_or("without a name");
            let agreement = match certificates {
                Agreement::Same => "the same certificate",
                Agreement::Equivalent => "equivalent certificates",
                Agreement::Different => "different certificates",
            };
            say(format_args!("{name}: {agreement} on {} nodes", nodes.len()));
            for node in nodes {
                say(format_args!(
                    "  {}: {}; {}; ALPN {}",
                    node.node,
                    describe(node),
                    node.versions.join(" "),
                    node.alpn.as_deref().unwrap_or("none")
                ));
            }
        }
        let resumed = self.resumption.iter().filter(|one| one.resumed).count();
        say(format_args!("sessions resumed: {resumed} of {}", self.resumption.len()));
    }
}
