//! From settings to what engines run on: certificates loaded, policies built, host
//! names resolved.
//!
//! Used by start, reload and `forebay check` alike, so that what the check accepts is
//! what a start takes. Reports everything that is wrong, not the first thing.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::client_gates::ClientFiles;
use super::key_passphrases;
use super::metrics::CertificateExpiry;
use super::served::ServedListener;
use super::servers::KnownServers;
use super::session_keys::{SessionKeys, Staged};
use super::supervise::{DrainTimes, Reloaded};
use crate::config::{self, Finding, ListenerSettings, Located, Settings};
use crate::engine::snapshot::{ClientLimits, Listener, Records, Snapshot, Timeouts};
use crate::routing::Routes;
use crate::tls::certificates::store::{Loading, Store};
use crate::tls::certificates::{LoadedCertificate, Severity};
use crate::tls::client_auth::{AdmittedClients, Gate};
use crate::tls::policy::{DefaultCertificate, NamedGate, Policy, PolicySettings};
use crate::tls::tickets::DomainId;

/// Where listeners get their certificates from.
#[derive(Debug)]
pub enum CertificateSource {
    /// The files that the settings name.
    Files,
    /// These, for every listener: nothing is read.
    InMemory(Vec<LoadedCertificate>),
}

/// One address that is listened on, and the listener it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// As configured: the port may be 0.
    pub address: SocketAddr,
    /// The listener's name.
    pub name: String,
}

/// The addresses of all listeners, in the order in which engines get their sockets.
pub fn addresses(settings: &Settings) -> Vec<Bound> {
    let of_listener = |listener: &ListenerSettings| {
        let name = listener.name.clone();
        let bound = move |at: &Located<SocketAddr>| Bound { address: at.value, name: name.clone() };
        listener.addresses.iter().map(bound).collect::<Vec<_>>()
    };
    settings.listeners.iter().flat_map(of_listener).collect()
}

/// The files and directories that certificates come from.
pub fn certificate_paths(settings: &Settings) -> impl Iterator<Item = &Path> {
    settings
        .listeners
        .iter()
        .flat_map(|listener| listener.default_certificate.iter().chain(&listener.certificates))
        .map(|place| place.value.as_path())
}

/// The same, the file of the passphrases of their keys, and those that clients'
/// certificates are held against: what is watched for changes.
pub fn certificate_places(settings: &Settings) -> impl Iterator<Item = &Path> {
    let passphrases = settings.tls.key_passphrase_file.iter();
    let of_clients = settings.listeners.iter().flat_map(|listener| {
        let named = listener.client_auth_for.iter().map(|named| &named.settings);
        std::iter::once(&listener.client_auth)
            .chain(named)
            .flat_map(|auth| auth.authorities.iter().chain(&auth.revocation_lists))
    });
    let others = passphrases.chain(of_clients).map(|place| place.value.as_path());
    certificate_paths(settings).chain(others)
}

/// Prepares configurations for engines, one after the other.
#[derive(Debug)]
pub struct Preparer {
    source: CertificateSource,
    /// What was read from files.
    store: Store,
    session_keys: SessionKeys,
    servers: KnownServers,
    admitted: Arc<AdmittedClients>,
    engines: usize,
}

impl Preparer {
    /// A preparer with certificates from `source`, whose configurations take their ticket
    /// keys from `session_keys`.
    pub fn new(source: CertificateSource, session_keys: SessionKeys) -> Self {
        let (store, servers) = (Store::default(), KnownServers::default());
        Self { source, store, session_keys, servers, admitted: Arc::default(), engines: 1 }
    }

    /// The clients that came in by certificate, whatever the configuration.
    pub fn admitted_clients(&self) -> Arc<AdmittedClients> {
        Arc::clone(&self.admitted)
    }

    /// Prepares for so many engines, instead of one.
    #[must_use]
    pub fn for_engines(self, engines: usize) -> Self {
        Self { engines, ..self }
    }

    /// Loads and builds everything that `settings` ask for. Engines get one listener
    /// for each of `bound`, in that order.
    ///
    /// Returns every finding, and the outcome if none of them is an error.
    pub fn prepare(
        &mut self,
        settings: &Settings,
        bound: &[Bound],
        generation: u64,
    ) -> (Option<Reloaded<Snapshot>>, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut loading = self.begin_loading(settings, &mut findings);
        let mut expiries = Vec::new();
        let mut staged = self.session_keys.stage(settings, &mut findings);
        let mut policies = Vec::new();
        let mut client_files = ClientFiles::default();
        for listener in &settings.listeners {
            let errors_before = errors(&findings);
            let loaded = self.certificates(settings, listener, &mut loading, &mut findings);
            expiries.extend(loaded.iter().map(expiry));
            let gates = self.gates(settings, listener, &mut client_files, &mut findings);
            if errors(&findings) > errors_before {
                // What a policy made of the rest would say is beside the point.
                policies.push(None);
                continue;
            }
            let Some(staged) = &mut staged else {
                policies.push(None);
                continue;
            };
            let policy = self.policy(settings, listener, loaded, gates, staged);
            policies.push(policy.map_err(|finding| findings.push(*finding)).ok());
        }
        let mut pools = config::resolve(settings, self.engines).unwrap_or_else(|unresolved| {
            findings.extend(unresolved);
            Vec::new()
        });
        let served = settings.listeners.iter().zip(&policies).filter_map(|(listener, policy)| {
            let policy = Arc::clone(policy.as_ref()?);
            Some(ServedListener { name: listener.name.clone(), policy })
        });
        let served = served.collect();
        let listeners = listeners(settings, bound, &policies, &mut findings);
        let Some(staged) = staged.filter(|_| !findings.iter().any(Finding::is_error)) else {
            return (None, findings);
        };
        let loaded = loading.finish();
        self.store.commit(loaded);
        self.session_keys.put_in_force(staged);
        self.servers.recognise(&mut pools);
        let pools: Vec<_> = pools.into_iter().map(Arc::new).collect();
        self.servers.remember(&pools);
        // Two listeners may show the same certificate.
        expiries.sort();
        expiries.dedup();
        let snapshot = Snapshot {
            generation,
            listeners,
            pools: pools.clone(),
            timeouts: Timeouts {
                client_hello: settings.timeouts.client_hello,
                handshake: settings.timeouts.handshake,
                queue: settings.timeouts.queue,
                connect: settings.timeouts.connect,
                idle: settings.timeouts.idle,
                half_closed: settings.timeouts.half_closed,
                first_data_wait: settings.timeouts.first_data_wait,
            },
            records: Records {
                small_bytes: settings.tls.small_records_bytes,
                strict_truncation: settings.tls.strict_truncation,
            },
            limits: ClientLimits {
                source_connections: settings.limits.source_connections,
                source_incomplete_handshakes: settings.limits.source_incomplete_handshakes,
                source_handshakes_per_second: settings.limits.source_handshakes_per_second,
                handshakes_per_second: settings.limits.handshakes_per_second,
                ipv4_prefix: settings.limits.ipv4_prefix,
                ipv6_prefix: settings.limits.ipv6_prefix,
                exempt: settings.limits.exempt.clone(),
            },
        };
        let reloaded = Reloaded {
            snapshot: Arc::new(snapshot),
            certificates: expiries,
            pools,
            revocation_lists: client_files.revocation_lists,
            served,
            drain_times: DrainTimes {
                notice: settings.timeouts.drain_notice,
                limit: settings.timeouts.drain,
            },
        };
        (Some(reloaded), findings)
    }

    /// What is wrong with the certificates that `settings` name. The settings may have
    /// errors.
    pub fn check_certificates(&self, settings: &Settings) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut loading = self.begin_loading(settings, &mut findings);
        for listener in &settings.listeners {
            self.certificates(settings, listener, &mut loading, &mut findings);
        }
        findings
    }

    fn begin_loading(&self, settings: &Settings, findings: &mut Vec<Finding>) -> Loading<'_> {
        // Without, keys that need one say so each.
        let passphrases = key_passphrases::read(settings, findings).unwrap_or_default();
        let tls = &settings.tls;
        self.store.begin(tls.provider, tls.keys_in_memory, passphrases, SystemTime::now())
    }

    /// The listener's certificates, the default one first.
    fn certificates(
        &self,
        settings: &Settings,
        listener: &ListenerSettings,
        loading: &mut Loading<'_>,
        findings: &mut Vec<Finding>,
    ) -> Vec<LoadedCertificate> {
        if let CertificateSource::InMemory(certificates) = &self.source {
            return certificates.clone();
        }
        let mut loaded = Vec::new();
        let mut sources = HashSet::new();
        for path in listener.default_certificate.iter().chain(&listener.certificates) {
            let found = load(settings, path, loading, findings);
            // The default certificate is usually in a directory of the list too.
            loaded.extend(found.into_iter().filter(|one| sources.insert(one.source.clone())));
        }
        loaded
    }

    /// Who decides on clients: at the listener, and for each of its lists of names.
    fn gates(
        &self,
        settings: &Settings,
        listener: &ListenerSettings,
        files: &mut ClientFiles,
        findings: &mut Vec<Finding>,
    ) -> Gates {
        let mut gate = |wanted| files.gate(settings, listener, wanted, &self.admitted, findings);
        let common = gate(&listener.client_auth);
        let named = listener.client_auth_for.iter().map(|named| gate(&named.settings)).collect();
        Gates { common, named }
    }

    fn policy(
        &self,
        settings: &Settings,
        listener: &ListenerSettings,
        certificates: Vec<LoadedCertificate>,
        gates: Gates,
        staged: &mut Staged,
    ) -> Result<Arc<Policy>, Box<Finding>> {
        let place = listener.certificates.first().map(|first| first.place.clone());
        let place = place.unwrap_or_default();
        let fail = |message: String| Box::new(settings.error(&place, message));
        if certificates.is_empty() {
            return Err(fail(format!("listener {:?} has no certificate", listener.name)));
        }
        let library = settings.tls.provider;
        let domain = match &listener.session_domain {
            Some(name) => DomainId::named(name),
            None => {
                let names = certificates.iter().flat_map(|certificate| certificate.names.iter());
                let names: Vec<String> = names.map(ToString::to_string).collect();
                DomainId::of_names(names.iter().map(String::as_str))
            }
        };
        let mut tickets = |gate: &Option<Arc<Gate>>| {
            let domain = match gate {
                Some(gate) => domain.for_clients_of(gate.verifier().id()),
                None => domain,
            };
            self.session_keys.ring(staged, domain)
        };
        let common_tickets = tickets(&gates.common);
        let named = listener.client_auth_for.iter().zip(gates.named);
        let gates_of_names = named
            .map(|(named, gate)| NamedGate {
                names: named.names.clone(),
                tickets: tickets(&gate),
                gate,
            })
            .collect();

        let policy = &listener.policy;
        Policy::new(PolicySettings {
            library,
            minimum_version: policy.minimum_version,
            cipher_suites: policy.cipher_suites.clone(),
            groups: policy.groups.clone(),
            compression: settings.tls.certificate_compression.clone(),
            alpn: listener.alpn.iter().map(|name| name.clone().into_bytes()).collect(),
            certificates,
            default_certificate: DefaultCertificate::First,
            unknown_sni: listener.unknown_sni,
            tickets: common_tickets,
            gate: gates.common,
            gates_of_names,
        })
        .map(Arc::new)
        .map_err(|error| fail(format!("listener {:?}: {error}", listener.name)))
    }
}

/// Who decides on the clients of a listener.
struct Gates {
    common: Option<Arc<Gate>>,
    /// In the order of the lists of names.
    named: Vec<Option<Arc<Gate>>>,
}

fn errors(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.is_error()).count()
}

fn load(
    settings: &Settings,
    path: &Located<PathBuf>,
    loading: &mut Loading<'_>,
    findings: &mut Vec<Finding>,
) -> Vec<LoadedCertificate> {
    let (loaded, problems) = loading.load(&path.value);
    findings.extend(problems.into_iter().map(|problem| match problem.severity {
        Severity::Error => settings.error(&path.place, problem.to_string()),
        Severity::Warning => settings.warning(&path.place, problem.to_string()),
    }));
    loaded
}

fn expiry(certificate: &LoadedCertificate) -> CertificateExpiry {
    CertificateExpiry {
        not_after_unix_seconds: certificate.not_after,
        name: certificate.names.first().map(ToString::to_string).unwrap_or_default(),
        source: certificate.source.display().to_string(),
        staple_ends_unix_seconds: certificate.staple_ends,
    }
}

/// A listener for each bound address. Sockets are made at start only, so a reload must
/// have the same addresses; names and everything else may change.
fn listeners(
    settings: &Settings,
    bound: &[Bound],
    policies: &[Option<Arc<Policy>>],
    findings: &mut Vec<Finding>,
) -> Vec<Listener> {
    const RESTART: &str = "addresses are bound at start: restart to change them";
    for (listener, at) in settings
        .listeners
        .iter()
        .flat_map(|listener| listener.addresses.iter().map(move |at| (listener, at)))
    {
        if bound.iter().all(|bound| bound.address != at.value) {
            let message = format!("listener {:?} is new on {}", listener.name, at.value);
            findings.push(settings.error(&at.place, message).with_help(RESTART));
        }
    }
    let mut listeners = Vec::with_capacity(bound.len());
    for bound in bound {
        let index = settings
            .listeners
            .iter()
            .position(|listener| listener.addresses.iter().any(|at| at.value == bound.address));
        let Some(index) = index else {
            let message = format!("listener {:?} on {} is gone", bound.name, bound.address);
            let place = config::Place::default();
            findings.push(settings.error(&place, message).with_help(RESTART));
            continue;
        };
        let listener = &settings.listeners[index];
        // Without a policy there is a finding already.
        if let Some(policy) = &policies[index] {
            listeners.push(Listener {
                name: Arc::from(listener.name.as_str()),
                policy: Arc::clone(policy),
                pool: listener.pool,
                routes: Routes::new(listener.routes.clone()),
                header_senders: listener.accept_proxy_from.clone(),
            });
        }
    }
    listeners
}

/// What differs between the settings of the start and new ones and needs a restart. Only
/// another crypto library is an error: policies would be built for one library and
/// records be protected by another.
pub fn needs_restart(old: &Settings, new: &Settings) -> Vec<Finding> {
    let place = |key: &str| config::Place { key: key.to_owned(), ..config::Place::default() };
    let address = |settings: &Settings| settings.admin.address.as_ref().map(|at| at.value);
    let mut findings = Vec::new();
    for (key, changed) in [
        ("engine", old.engine != new.engine),
        ("handshake", old.handshake != new.handshake),
        ("log", old.log != new.log),
        ("admin.address", address(old) != address(new)),
    ] {
        if changed {
            let message = "has changed, which takes effect at the next start";
            findings.push(new.warning(&place(key), message));
        }
    }
    if old.tls.provider != new.tls.provider {
        let message = format!("cannot change from {} while running", old.tls.provider);
        let finding = new.error(&place("tls.provider"), message);
        findings.push(finding.with_help("restart to change it"));
    }
    findings
}

#[cfg(test)]
mod tests;
