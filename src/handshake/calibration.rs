//! What handshake steps cost on this machine, measured once before anybody is served.
//!
//! Real handshakes in memory: a rustls client says hello, [`step`] answers, the client
//! finishes, and only the steps are timed. The median of many is taken, since a machine
//! that starts has other things to do too.
//!
//! May know: the step, rustls' client, clocks. Must not know: engines, what becomes of the
//! figures.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig};

use super::step::step;
use super::{StepCosts, StepOutcome, Task};
use crate::clock::Moment;
use crate::tls::CryptoLibrary;
use crate::tls::certificates::{KeyType, LoadedCertificate};
use crate::tls::names::CipherSuite;
use crate::tls::policy::{KeyKind, Policy, PolicySettings};
use crate::tls::{provider, tickets, unverified};

/// Handshakes with one key at most, and the time after which no further one is begun.
const HANDSHAKES_MAX: usize = 200;
const TIME_MAX: Duration = Duration::from_millis(40);

/// Kinds of keys at most: with the time for each, all stay below half a second.
const KEYS_MAX: usize = 8;

/// No step is taken to cost less: that would be a clock that stands.
const COST_MIN: Duration = Duration::from_micros(1);

/// What handshakes with one kind of key cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCosts {
    /// The kind of key, such as `ecdsa-p256` or `rsa-2048`.
    pub key: String,
    /// The step that answers a ClientHello.
    pub first: Duration,
    /// The step that answers the client's Finished.
    pub last: Duration,
    kind: KeyKind,
}

impl KeyCosts {
    /// Full handshakes that one worker can do in a second.
    pub fn per_second(&self) -> f64 {
        1.0 / (self.first + self.last).as_secs_f64()
    }
}

/// Measures one certificate for each kind of key among `certificates`, at most eight.
///
/// What cannot be measured is left out, and costs what is typical: whether a certificate
/// can be used is said elsewhere.
pub fn measure<'a>(
    library: CryptoLibrary,
    certificates: impl IntoIterator<Item = &'a LoadedCertificate>,
) -> Vec<KeyCosts> {
    let mut measured: Vec<KeyCosts> = Vec::new();
    for certificate in certificates {
        let key = key_name(certificate);
        if measured.len() == KEYS_MAX || measured.iter().any(|known| known.key == key) {
            continue;
        }
        if let Some((first, last)) = measure_one(library, certificate) {
            measured.push(KeyCosts { key, first, last, kind: certificate.key_type.into() });
        }
    }
    measured
}

/// The costs by class: of each class those of its dearest key.
pub fn step_costs(measured: &[KeyCosts]) -> StepCosts {
    let typical = StepCosts::TYPICAL;
    let dearest = |kind| measured.iter().filter(|key| key.kind == kind).map(|key| key.first).max();
    let last = measured.iter().map(|key| key.last).max();
    StepCosts {
        continuation: last.unwrap_or(typical.continuation),
        // Symmetric cryptography and a ticket, as in the last step of a full handshake.
        resumption: last.unwrap_or(typical.resumption),
        elliptic_curve: dearest(KeyKind::EllipticCurve).unwrap_or(typical.elliptic_curve),
        rsa: dearest(KeyKind::Rsa).unwrap_or(typical.rsa),
    }
}

fn key_name(certificate: &LoadedCertificate) -> String {
    match certificate.key_type {
        KeyType::EcdsaP256 => "ecdsa-p256".to_owned(),
        KeyType::EcdsaP384 => "ecdsa-p384".to_owned(),
        KeyType::EcdsaP521 => "ecdsa-p521".to_owned(),
        KeyType::Ed25519 => "ed25519".to_owned(),
        KeyType::Rsa => format!("rsa-{}", certificate.key_bits),
    }
}

/// The medians of the first and the last step.
fn measure_one(
    library: CryptoLibrary,
    certificate: &LoadedCertificate,
) -> Option<(Duration, Duration)> {
    let tickets = tickets::per_process(library).ok()?;
    let signing = certificate.signing.for_trial()?;
    let certificate = LoadedCertificate { signing, ..certificate.clone() };
    let settings = PolicySettings::new(library, vec![certificate], tickets);
    let server = Policy::new(settings).ok()?.tls13();
    let client = Arc::new(client_config(library)?);
    let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
    let begin = Moment::now();
    while firsts.len() < HANDSHAKES_MAX && Moment::now().since(begin) < TIME_MAX {
        let (first, last) = handshake(&server, &client, library)?;
        firsts.push(first);
        lasts.push(last);
    }
    Some((median(firsts), median(lasts)))
}

/// One full TLS 1.3 handshake; how long the two steps took.
fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    library: CryptoLibrary,
) -> Option<(Duration, Duration)> {
    let name = ServerName::try_from("calibration.invalid").ok()?;
    let mut client = ClientConnection::new(Arc::clone(client), name).ok()?;
    let mut task = Task::new(0, 0);
    task.config = Some(Arc::clone(server));
    client.write_tls(&mut task.input).ok()?;
    let first = timed(&mut task, library);
    if !matches!(task.outcome, StepOutcome::NeedsInput) {
        return None;
    }
    client.read_tls(&mut task.output.as_slice()).ok()?;
    client.process_new_packets().ok()?;
    task.output.clear();
    client.write_tls(&mut task.input).ok()?;
    let last = timed(&mut task, library);
    matches!(task.outcome, StepOutcome::Established(_)).then_some((first, last))
}

fn timed(task: &mut Task, library: CryptoLibrary) -> Duration {
    let begin = Moment::now();
    step(task, library);
    Moment::now().since(begin)
}

fn client_config(library: CryptoLibrary) -> Option<ClientConfig> {
    let (suites, groups) = (&CipherSuite::DEFAULT_ORDER, provider::default_groups(library));
    let provider = Arc::new(provider::crypto_provider(library, suites, groups).ok()?);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(unverified::any_certificate(&provider))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    // Compression costs something for the first of many clients only.
    config.cert_decompressors = Vec::new();
    Some(config)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default().max(COST_MIN)
}

#[cfg(test)]
mod tests;
