//! From settings to what engines run on: certificates loaded, policies built, pools made.
//!
//! Used by start, reload and `forebay check` alike, so that what the check accepts is
//! what a start takes. Reports everything that is wrong, not the first thing.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::client_gates::ClientFiles;
use super::key_passphrases;
use super::pool_tls;
use super::pools::PoolMaker;
use super::proxy_headers;
use super::served::ServedListener;
use super::session_keys::{SessionKeys, Staged};
use super::shadow_policies::{self, Tried};
use super::source_addresses;
use super::supervise::{DrainTimes, Reloaded};
use crate::config::{self, Finding, ListenerSettings, Located, Settings};
use crate::engine::snapshot::{ClientLimits, Listener, Records, Snapshot, Timeouts};
use crate::routing::Routes;
use crate::tls::certificates::file_index::{self, FileIndex};
use crate::tls::certificates::index::CertificateIndex;
use crate::tls::certificates::store::{Certificates, Loading, Look, Store};
use crate::tls::certificates::{CertificateName, LoadedCertificate, Severity};
use crate::tls::client_auth::{AdmittedClients, Gate};
use crate::tls::policy::{DefaultCertificate, NamedGate, Policy, PolicySettings};
use crate::tls::tickets::DomainId;

/// Where listeners get their certificates from.
#[derive(Debug)]
pub enum CertificateSource {
    /// The files that the settings name.
    Files,
    /// These, for every listener: nothing is read.
    InMemory(Vec<Arc<LoadedCertificate>>),
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

/// The same, the file of the passphrases of their keys, those that clients' certificates
/// are held against, what `[pool.tls]` names, and the keys of PROXY headers: what is watched
/// for changes.
pub fn certificate_places(settings: &Settings) -> impl Iterator<Item = &Path> {
    let passphrases = settings.tls.key_passphrase_file.iter();
    let of_clients = settings.listeners.iter().flat_map(|listener| {
        let named = listener.client_auth_for.iter().map(|named| &named.settings);
        std::iter::once(&listener.client_auth)
            .chain(named)
            .flat_map(|auth| auth.authorities.iter().chain(&auth.revocation_lists))
    });
    let to_servers = settings.pools.iter().filter_map(|pool| pool.tls.as_ref());
    let to_servers = to_servers.flat_map(|tls| tls.ca.iter().chain(&tls.certificate));
    let others = passphrases.chain(of_clients).chain(to_servers).map(|place| place.value.as_path());
    let of_headers = proxy_headers::key_files(settings).map(PathBuf::as_path);
    certificate_paths(settings).chain(others).chain(of_headers)
}

/// A listener of the configuration in force.
#[derive(Debug)]
struct InForce {
    name: String,
    policy: Arc<Policy>,
    tried: Option<Tried>,
    names_domain: Option<DomainId>,
}

/// Prepares configurations for engines, one after the other.
#[derive(Debug)]
pub struct Preparer {
    source: CertificateSource,
    /// What was read from files.
    store: Store,
    session_keys: SessionKeys,
    /// What the next configuration is likely to have in common with this one.
    in_force: Vec<InForce>,
    pools: Rc<RefCell<PoolMaker>>,
    admitted: Arc<AdmittedClients>,
}

impl Preparer {
    /// A preparer with certificates from `source`, whose configurations take their ticket
    /// keys from `session_keys`.
    pub fn new(source: CertificateSource, session_keys: SessionKeys) -> Self {
        Self {
            source,
            store: Store::default(),
            session_keys,
            in_force: Vec::new(),
            pools: Rc::new(RefCell::new(PoolMaker::new(1))),
            admitted: Arc::default(),
        }
    }

    /// The clients that came in by certificate, whatever the configuration.
    pub fn admitted_clients(&self) -> Arc<AdmittedClients> {
        Arc::clone(&self.admitted)
    }

    /// Prepares without reading the certificates that `index` knows, as far as their files
    /// have not changed.
    #[must_use]
    pub fn with_index(self, index: FileIndex) -> Self {
        Self { store: Store::indexed(index), ..self }
    }

    /// What a later process need not read again, if that is not what was asked for last.
    pub fn index_if_outdated(&mut self) -> Option<file_index::Snapshot> {
        self.store.index_if_outdated()
    }

    /// Who makes the pools: to be told what is put in force.
    pub fn pools(&self) -> Rc<RefCell<PoolMaker>> {
        Rc::clone(&self.pools)
    }

    /// Prepares for so many engines, instead of one.
    #[must_use]
    pub fn for_engines(self, engines: usize) -> Self {
        Self { pools: Rc::new(RefCell::new(PoolMaker::new(engines))), ..self }
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
        self.prepare_again(settings, Look::Everywhere, bound, generation, Vec::new())
    }

    /// The same, with no more than that `look` at the files of certificates, after `findings`,
    /// which are returned with those made here.
    pub fn prepare_again(
        &mut self,
        settings: &Settings,
        look: Look<'_>,
        bound: &[Bound],
        generation: u64,
        mut findings: Vec<Finding>,
    ) -> (Option<Reloaded<Snapshot>>, Vec<Finding>) {
        let mut loading = self.begin_loading(settings, &mut findings).look(look);
        let mut shown = Vec::new();
        let mut staged = self.session_keys.stage(settings, &mut findings);
        let mut policies = Vec::new();
        let mut client_files = ClientFiles::default();
        for listener in &settings.listeners {
            let errors_before = errors(&findings);
            let loaded = self.certificates(settings, listener, &mut loading, &mut findings);
            shown.extend_from_slice(&loaded);
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
        let (policies, domains): (Vec<_>, Vec<_>) = policies
            .into_iter()
            .map(|prepared| prepared.map_or((None, None), |(policy, id)| (Some(policy), id)))
            .unzip();
        let engines = self.pools.borrow().engines();
        let tried: Vec<Option<Tried>> = settings
            .listeners
            .iter()
            .zip(&policies)
            .map(|(listener, policy)| {
                let before = self.in_force.iter().find(|one| one.name == listener.name);
                let before = before.and_then(|before| before.tried.as_ref());
                let (policy, found) = (policy.as_ref()?, &mut findings);
                shadow_policies::prepare(settings, listener, policy, before, engines, found)
            })
            .collect();
        let (mut pools, unresolved) = self.pools.borrow_mut().make(settings);
        findings.extend(unresolved);
        findings.extend(source_addresses::check(settings));
        proxy_headers::complete(settings, &mut pools, &mut findings);
        for (pool, of_pool) in pools.iter_mut().zip(&settings.pools) {
            let Some(tls) = &of_pool.tls else { continue };
            let errors_before = errors(&findings);
            let certificate = tls.certificate.as_ref();
            let loaded = certificate.map(|path| load(settings, path, &mut loading, &mut findings));
            if errors(&findings) > errors_before {
                continue;
            }
            let loaded = loaded.unwrap_or_default();
            shown.extend_from_slice(&loaded);
            match pool_tls::build(settings, tls, loaded.first(), pool) {
                Ok(built) => pool.tls = Some(built),
                Err(finding) => findings.push(*finding),
            }
        }
        let prepared = policies.iter().zip(&tried);
        let served = settings.listeners.iter().zip(prepared).filter_map(|(listener, prepared)| {
            let (policy, tried) = prepared;
            Some(ServedListener {
                name: listener.name.clone(),
                policy: Arc::clone(policy.as_ref()?),
                shadow: tried.as_ref().map(|tried| Arc::clone(&tried.shadow)),
            })
        });
        let served = served.collect();
        let listeners = listeners(settings, bound, &policies, &tried, &mut findings);
        let Some(staged) = staged.filter(|_| !findings.iter().any(Finding::is_error)) else {
            return (None, findings);
        };
        let loaded = loading.finish();
        self.store.commit(loaded);
        self.session_keys.put_in_force(staged);
        let pools: Vec<_> = pools.into_iter().map(Arc::new).collect();
        let in_force = settings.listeners.iter().zip(&policies).zip(tried).zip(domains);
        self.in_force = in_force
            .filter_map(|(((listener, policy), tried), names_domain)| {
                let (name, policy) = (listener.name.clone(), Arc::clone(policy.as_ref()?));
                Some(InForce { name, policy, tried, names_domain })
            })
            .collect();
        let snapshot = Snapshot {
            generation,
            listeners: listeners.into(),
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
            certificates: shown,
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
    ) -> Certificates {
        if let CertificateSource::InMemory(certificates) = &self.source {
            return certificates.clone().into();
        }
        let paths = listener.default_certificate.iter().chain(&listener.certificates);
        let mut loaded: Vec<Certificates> =
            paths.map(|path| load(settings, path, loading, findings)).collect();
        if loaded.len() == 1 {
            return loaded.remove(0);
        }
        // The default certificate is usually in a directory of the list too.
        let mut sources = HashSet::new();
        let all = loaded.iter().flat_map(|certificates| certificates.iter());
        all.filter(|one| sources.insert(Arc::clone(&one.source))).cloned().collect()
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
        certificates: Certificates,
        gates: Gates,
        staged: &mut Staged,
    ) -> Result<(Arc<Policy>, Option<DomainId>), Box<Finding>> {
        let place = listener.certificates.first().map(|first| first.place.clone());
        let place = place.unwrap_or_default();
        let fail = |message: String| Box::new(settings.error(&place, message));
        if certificates.is_empty() {
            return Err(fail(format!("listener {:?} has no certificate", listener.name)));
        }
        let before = self.in_force.iter().find(|one| one.name == listener.name);
        let index = match before {
            Some(before) => before.policy.index().followed_by(certificates),
            None => CertificateIndex::new(certificates),
        };
        let of_names = || {
            let before = before.filter(|before| before.policy.index().same_names(&index));
            before.and_then(|before| before.names_domain).unwrap_or_else(|| {
                let names = index.certificates().iter().flat_map(|one| one.names.iter());
                let names: Vec<Cow<'_, str>> = names.map(text).collect();
                DomainId::of_names(names.iter().map(Cow::as_ref))
            })
        };
        let (domain, names_domain) = match &listener.session_domain {
            Some(name) => (DomainId::named(name), None),
            None => {
                let domain = of_names();
                (domain, Some(domain))
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
        let policy = Policy::new(PolicySettings {
            library: settings.tls.provider,
            minimum_version: policy.minimum_version,
            cipher_suites: policy.cipher_suites.clone(),
            groups: policy.groups.clone(),
            compression: settings.tls.certificate_compression.clone(),
            alpn: listener.alpn.iter().map(|name| name.clone().into_bytes()).collect(),
            certificates: index,
            default_certificate: DefaultCertificate::First,
            unknown_sni: listener.unknown_sni,
            tickets: common_tickets,
            gate: gates.common,
            gates_of_names,
        })
        .map_err(|error| fail(format!("listener {:?}: {error}", listener.name)))?;
        Ok((Arc::new(policy), names_domain))
    }
}

/// A name as it is written, copied only where it must be.
fn text(name: &CertificateName) -> Cow<'_, str> {
    match name {
        CertificateName::Exact(name) => Cow::Borrowed(name),
        name => Cow::Owned(name.to_string()),
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
) -> Certificates {
    let (loaded, problems) = loading.load(&path.value);
    findings.extend(problems.into_iter().map(|problem| match problem.severity {
        Severity::Error => settings.error(&path.place, problem.to_string()),
        Severity::Warning => settings.warning(&path.place, problem.to_string()),
    }));
    loaded
}

/// A listener for each bound address. Sockets are made at start only, so a reload must
/// have the same addresses; names and everything else may change.
fn listeners(
    settings: &Settings,
    bound: &[Bound],
    policies: &[Option<Arc<Policy>>],
    tried: &[Option<Tried>],
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
                shadow: tried[index].as_ref().map(|tried| Arc::clone(&tried.shadow)),
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
    let index =
        |settings: &Settings| settings.tls.certificate_index.as_ref().map(|at| at.value.clone());
    let mut findings = Vec::new();
    for (key, changed) in [
        ("engine", old.engine != new.engine),
        ("handshake", old.handshake != new.handshake),
        ("log", old.log != new.log),
        ("admin.address", address(old) != address(new)),
        ("tls.certificate_index", index(old) != index(new)),
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
