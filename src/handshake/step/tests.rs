use std::io::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CipherSuite, ClientConfig, Error, NamedGroup, RootCertStore, ServerConfig,
};

use super::*;
use crate::handshake::test_support::{
    HOST, LIBRARIES, Offer, Pair, VERSIONS, client_config, client_config_trusting, exchange,
    identity, open_all, server_config, server_config_asking, server_config_raw,
};
use crate::tls::client_auth::{Demand, Revocation, Rules, Verifier, VerifierSettings};
use crate::tls::{names, provider};

const LIBRARY: CryptoLibrary = CryptoLibrary::AwsLc;

fn pair(library: CryptoLibrary, version: Version) -> Pair {
    let offer = Offer::version(version);
    Pair::new(library, &server_config(library, &offer), &Arc::new(client_config(&offer)))
}

/// Configurations whose next connection resumes.
fn with_ticket(library: CryptoLibrary, version: Version) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let offer = Offer::version(version);
    let (server, client) = (server_config(library, &offer), Arc::new(client_config(&offer)));
    Pair::new(library, &server, &client).run().unwrap();
    (server, client)
}

fn refused(server: &Offer, client: &Offer) -> (FailureReason, Error) {
    let server = server_config(LIBRARY, server);
    let mut pair = Pair::new(LIBRARY, &server, &Arc::new(client_config(client)));
    let client_says = pair.run().unwrap_err();
    (pair.failure().reason, client_says)
}

#[test]
fn a_full_handshake_ends_in_keys_that_the_client_understands() {
    for library in LIBRARIES {
        for version in VERSIONS {
            let mut pair = pair(library, version);
            pair.run().unwrap();
            assert!(pair.task.input.is_empty());
            assert!(pair.task.state.is_none() && pair.task.secrets.is_none());
            let mut established = pair.established();
            assert_eq!(established.facts.version, version);
            assert!(!established.facts.resumed);
            exchange(&mut pair.client, &mut established);
        }
    }
}

/// A gate that asks for a certificate, and trusts this authority.
fn gate(library: CryptoLibrary, authority: CertificateDer<'static>) -> Arc<Gate> {
    let groups = provider::default_groups(library);
    let provider = provider::crypto_provider(library, &names::CipherSuite::DEFAULT_ORDER, groups);
    let settings = VerifierSettings {
        demand: Demand::Required,
        authorities: vec![authority],
        revocation_lists: Vec::new(),
        revocation: Revocation::default(),
        rules: Rules::default(),
    };
    let verifier = Verifier::new(settings, Arc::new(provider.unwrap())).unwrap();
    Arc::new(Gate::new(Arc::new(verifier), Arc::default()))
}

#[test]
fn a_client_that_resumes_and_would_not_come_in_now_is_told_so_and_gets_no_session() {
    let mut stranger = rcgen::CertificateParams::default();
    stranger.distinguished_name.push(rcgen::DnType::CommonName, "stranger");
    let stranger = stranger.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    for library in LIBRARIES {
        for version in VERSIONS {
            let offer = Offer::version(version);
            let (own, key) = identity();
            let (then, now) = (gate(library, own.clone()), gate(library, stranger.der().clone()));
            let server = server_config_asking(library, &offer, Arc::clone(then.verifier()) as _);
            let (server, mut client) = (Arc::new(server), client_config(&offer));
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let certified = CertifiedKey::from_der(vec![own], key, &provider).unwrap();
            client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
            let client = Arc::new(client);
            for resumed in [false, true] {
                let mut pair = Pair::new(library, &server, &client);
                pair.task.gate = Some(Arc::clone(&then));
                pair.run().unwrap();
                let established = pair.established();
                assert_eq!(established.facts.resumed, resumed, "{library} {version}");
                assert_eq!(established.client.unwrap().chain().len(), 1);
            }
            let mut pair = Pair::new(library, &server, &client);
            pair.task.gate = Some(Arc::clone(&now));
            let client_says = pair.run().unwrap_err();
            assert_eq!(client_says, Error::AlertReceived(AlertDescription::UnknownCA));
            assert_eq!(pair.failure().reason, FailureReason::ClientCertificateUntrusted);
        }
    }
}

#[test]
fn every_suite_ends_in_keys_that_the_client_understands() {
    for library in LIBRARIES {
        for (suite, version) in [
            (CipherSuite::TLS13_AES_128_GCM_SHA256, Version::Tls13),
            (CipherSuite::TLS13_AES_256_GCM_SHA384, Version::Tls13),
            (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, Version::Tls13),
            (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, Version::Tls12),
            (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, Version::Tls12),
            (CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, Version::Tls12),
        ] {
            let offer = Offer { suites: Some(vec![suite]), ..Offer::version(version) };
            let server = server_config(library, &offer);
            let mut pair = Pair::new(library, &server, &Arc::new(client_config(&offer)));
            pair.run().unwrap();
            let mut established = pair.established();
            assert_eq!(established.facts.cipher_suite, u16::from(suite));
            exchange(&mut pair.client, &mut established);
        }
    }
}

#[test]
fn the_facts_are_those_that_the_client_sees() {
    for library in LIBRARIES {
        for version in VERSIONS {
            let offer = Offer {
                groups: Some(vec![NamedGroup::secp256r1]),
                alpn: vec![b"h2", b"http/1.1"],
                ..Offer::version(version)
            };
            let server = server_config(library, &offer);
            let mut pair = Pair::new(library, &server, &Arc::new(client_config(&offer)));
            pair.run().unwrap();
            let facts = pair.established().facts;
            let suite = pair.client.negotiated_cipher_suite().unwrap().suite();
            assert_eq!(
                facts,
                SessionFacts {
                    version,
                    cipher_suite: suite.into(),
                    group: Some(0x0017),
                    resumed: false,
                    // The key of these tests does not note what it signs with.
                    signature_scheme: None,
                    certificate: None,
                    alpn: Some(b"h2".as_slice().into()),
                    server_name: Some(HOST.into()),
                }
            );
        }
    }
}

#[test]
fn the_post_quantum_group_is_negotiated_with_a_client_that_has_it() {
    let offer =
        Offer { groups: Some(vec![NamedGroup::X25519MLKEM768]), ..Offer::version(Version::Tls13) };
    let mut pair =
        Pair::new(LIBRARY, &server_config(LIBRARY, &offer), &Arc::new(client_config(&offer)));
    pair.run().unwrap();
    let mut established = pair.established();
    assert_eq!(established.facts.group, Some(0x11ec));
    exchange(&mut pair.client, &mut established);
}

#[test]
fn a_ticket_resumes_the_session() {
    for library in LIBRARIES {
        for version in VERSIONS {
            let (server, client) = with_ticket(library, version);
            let mut pair = Pair::new(library, &server, &client);
            pair.run().unwrap();
            let mut established = pair.established();
            assert!(established.facts.resumed, "{library} {version}");
            // TLS 1.3 clients exchange keys again, for forward secrecy; TLS 1.2 ones not.
            assert_eq!(established.facts.group.is_some(), version == Version::Tls13);
            exchange(&mut pair.client, &mut established);
        }
    }
}

#[test]
fn a_later_flight_is_a_continuation() {
    for version in VERSIONS {
        let mut pair = pair(LIBRARY, version);
        pair.task.class = CostClass::Rsa;
        let hello = pair.client_flight();
        let (first, second) = hello.split_at(20);
        pair.step_with(first);
        assert_eq!(pair.task.class, CostClass::Rsa, "nothing was computed yet");
        pair.step_with(second);
        assert_eq!(pair.task.class, CostClass::Continuation);
    }
}

#[test]
fn a_retry_costs_what_the_first_hello_was_expected_to() {
    for library in LIBRARIES {
        let version = Version::Tls13;
        // The client sends a key share for its first group only.
        let client = Offer {
            groups: Some(vec![NamedGroup::secp384r1, NamedGroup::X25519]),
            ..Offer::version(version)
        };
        let server = Offer { groups: Some(vec![NamedGroup::X25519]), ..Offer::version(version) };
        let server = server_config(library, &server);
        let mut pair = Pair::new(library, &server, &Arc::new(client_config(&client)));
        pair.task.class = CostClass::Rsa;

        let hello = pair.client_flight();
        pair.step_with(&hello);
        assert_eq!(pair.task.class, CostClass::Rsa);
        pair.answer().unwrap();

        let second_hello = pair.client_flight();
        pair.step_with(&second_hello);
        assert_eq!(pair.task.class, CostClass::Continuation);
        pair.answer().unwrap();

        pair.run().unwrap();
        let mut established = pair.established();
        assert_eq!(established.facts.group, Some(u16::from(NamedGroup::X25519)));
        assert!(!established.facts.resumed);
        exchange(&mut pair.client, &mut established);
    }
}

#[test]
fn bytes_may_come_one_by_one() {
    for library in LIBRARIES {
        for version in VERSIONS {
            let mut pair = pair(library, version);
            while !matches!(pair.task.outcome, StepOutcome::Established(_)) {
                let flight = pair.client_flight();
                assert!(!flight.is_empty());
                for byte in flight {
                    pair.step_with(&[byte]);
                    assert!(!matches!(pair.task.outcome, StepOutcome::Failed(_)));
                }
                pair.answer().unwrap();
            }
            let mut established = pair.established();
            exchange(&mut pair.client, &mut established);
        }
    }
}

#[test]
fn a_hello_may_come_in_many_records() {
    for library in LIBRARIES {
        for version in VERSIONS {
            let mut pair = pair(library, version);
            let hello = pair.client_flight();
            let mut fragments = Vec::new();
            for fragment in hello[HEADER_BYTES..].chunks(7) {
                fragments.extend_from_slice(&[22, 3, 1, 0, fragment.len() as u8]);
                fragments.extend_from_slice(fragment);
            }
            // In two steps, the first of which ends within a fragment.
            let (first, second) = fragments.split_at(100);
            pair.step_with(first);
            pair.step_with(second);
            pair.answer().unwrap();
            pair.run().unwrap();
            let mut established = pair.established();
            exchange(&mut pair.client, &mut established);
        }
    }
}

/// Client and server at the last flight of the client, which it has not sent yet and to
/// which it may add application data.
fn before_the_last_flight(library: CryptoLibrary, version: Version) -> Pair {
    let mut pair = match version {
        Version::Tls13 => pair(library, version),
        // Only in a resumption does a TLS 1.2 client speak last.
        Version::Tls12 => {
            let (server, client) = with_ticket(library, version);
            Pair::new(library, &server, &client)
        }
    };
    let hello = pair.client_flight();
    pair.step_with(&hello);
    pair.answer().unwrap();
    pair
}

#[test]
fn data_behind_the_last_flight_is_left_for_our_record_layer() {
    for library in LIBRARIES {
        for version in VERSIONS {
            let mut pair = before_the_last_flight(library, version);
            let mut flight = pair.client_flight();
            let mut data = Vec::new();
            for part in [b"GET / HTTP/1.1\r\n".as_slice(), b"Host: forebay.test\r\n\r\n"] {
                pair.client.writer().write_all(part).unwrap();
                data.extend_from_slice(&pair.client_flight());
            }
            let partial_record = data.len() - 3;
            flight.extend_from_slice(&data[..partial_record]);

            pair.step_with(&flight);
            let mut established = pair.established();
            assert_eq!(pair.task.input, data[..partial_record], "{library} {version}");

            pair.task.input.extend_from_slice(&data[partial_record..]);
            assert_eq!(
                open_all(&mut established, &mut pair.task.input),
                b"GET / HTTP/1.1\r\nHost: forebay.test\r\n\r\n"
            );
            pair.answer().unwrap();
            exchange(&mut pair.client, &mut established);
        }
    }
}

#[test]
fn a_tls13_client_may_leave_out_the_compatibility_record() {
    for library in LIBRARIES {
        let mut pair = before_the_last_flight(library, Version::Tls13);
        let flight = pair.client_flight();
        let without = flight.strip_prefix(&[20, 3, 3, 0, 1, 1]).expect("rustls sends one");
        pair.step_with(without);
        pair.answer().unwrap();
        let mut established = pair.established();
        exchange(&mut pair.client, &mut established);
    }
}

#[test]
fn a_compatibility_record_of_other_content_is_refused() {
    let mut pair = before_the_last_flight(LIBRARY, Version::Tls13);
    let mut flight = pair.client_flight();
    flight[5] = 2;
    pair.step_with(&flight);
    assert_eq!(pair.failure().reason, FailureReason::Protocol);
    let alert = Error::AlertReceived(AlertDescription::UnexpectedMessage);
    assert_eq!(pair.answer(), Err(alert));
}

#[test]
fn handshakes_in_turn_on_one_thread_keep_their_secrets_apart() {
    let mut pairs = [pair(LIBRARY, Version::Tls13), pair(LIBRARY, Version::Tls13)];
    for pair in &mut pairs {
        let hello = pair.client_flight();
        pair.step_with(&hello);
        pair.answer().unwrap();
    }
    for mut pair in pairs {
        pair.run().unwrap();
        let mut established = pair.established();
        // The next keys come from the secrets.
        pair.client.refresh_traffic_keys().unwrap();
        exchange(&mut pair.client, &mut established);
    }
}

#[test]
fn steps_of_one_handshake_may_run_on_different_threads() {
    for library in LIBRARIES {
        let mut pair = before_the_last_flight(library, Version::Tls13);
        let flight = pair.client_flight();
        let mut pair = std::thread::spawn(move || {
            pair.step_with(&flight);
            pair
        })
        .join()
        .unwrap();
        pair.answer().unwrap();
        let mut established = pair.established();
        pair.client.refresh_traffic_keys().unwrap();
        exchange(&mut pair.client, &mut established);
    }
}

/// A certificate authority that has nothing to do with ours.
fn somebody_else() -> CertificateDer<'static> {
    let mut parameters = rcgen::CertificateParams::new([HOST.to_owned()]).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "somebody else");
    let key = rcgen::KeyPair::generate().unwrap();
    parameters.self_signed(&key).unwrap().der().clone()
}

#[test]
fn a_client_that_does_not_trust_the_certificate_says_so() {
    for library in LIBRARIES {
        for version in VERSIONS {
            let offer = Offer::version(version);
            let mut roots = RootCertStore::empty();
            roots.add(somebody_else()).unwrap();
            let client = Arc::new(client_config_trusting(roots, &offer));
            let mut pair = Pair::new(library, &server_config(library, &offer), &client);
            let hello = pair.client_flight();
            pair.step_with(&hello);
            pair.answer().unwrap_err();
            let alert = pair.client_flight();
            pair.step_with(&alert);
            assert_eq!(pair.failure().reason, FailureReason::ClientAlert, "{library} {version}");
            assert!(pair.failure().detail.contains("UnknownCA"), "{}", pair.failure().detail);
        }
    }
}

#[test]
fn a_changed_finished_record_is_a_bad_record() {
    for library in LIBRARIES {
        for version in VERSIONS {
            let mut pair = before_the_last_flight(library, version);
            let mut flight = pair.client_flight();
            *flight.last_mut().unwrap() ^= 1;
            pair.step_with(&flight);
            assert_eq!(pair.failure().reason, FailureReason::BadRecord);
            let alert = Error::AlertReceived(AlertDescription::BadRecordMac);
            assert_eq!(pair.answer(), Err(alert));
        }
    }
}

#[test]
fn a_finished_that_does_not_verify_is_refused() {
    for library in LIBRARIES {
        let mut pair = pair(library, Version::Tls12);
        let mut hello = pair.client_flight();
        // Someone on the way hides the client's extended_master_secret extension (23,
        // empty) as one that nobody knows. Both sides then compute the same keys, from
        // different transcripts.
        let at = hello.windows(4).position(|bytes| bytes == [0, 23, 0, 0]).unwrap();
        hello[at] = 0xfa;
        pair.step_with(&hello);
        pair.answer().unwrap();
        let flight = pair.client_flight();
        pair.step_with(&flight);
        assert_eq!(pair.failure().reason, FailureReason::BadRecord);
        assert!(!pair.task.output.is_empty(), "a decrypt_error alert");
    }
}

#[test]
fn no_version_in_common_is_told() {
    for (server, client) in [(Version::Tls13, Version::Tls12), (Version::Tls12, Version::Tls13)] {
        let (reason, client_says) = refused(&Offer::version(server), &Offer::version(client));
        assert_eq!(reason, FailureReason::NoSharedVersion);
        assert_eq!(client_says, Error::AlertReceived(AlertDescription::ProtocolVersion));
    }
}

#[test]
fn no_suite_in_common_is_told() {
    let offer = |suite| Offer { suites: Some(vec![suite]), ..Offer::version(Version::Tls13) };
    let (reason, client_says) = refused(
        &offer(CipherSuite::TLS13_AES_128_GCM_SHA256),
        &offer(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    );
    assert_eq!(reason, FailureReason::NoSharedCipherSuite);
    assert_eq!(client_says, Error::AlertReceived(AlertDescription::HandshakeFailure));
}

#[test]
fn no_group_in_common_is_told() {
    for version in VERSIONS {
        let offer = |group| Offer { groups: Some(vec![group]), ..Offer::version(version) };
        let (reason, client_says) =
            refused(&offer(NamedGroup::X25519), &offer(NamedGroup::secp256r1));
        assert_eq!(reason, FailureReason::NoSharedGroup);
        assert_eq!(client_says, Error::AlertReceived(AlertDescription::HandshakeFailure));
    }
}

#[test]
fn no_application_protocol_in_common_is_told() {
    for version in VERSIONS {
        let offer = |protocol| Offer { alpn: vec![protocol], ..Offer::version(version) };
        let (reason, client_says) = refused(&offer(b"h2"), &offer(b"imap"));
        assert_eq!(reason, FailureReason::NoSharedProtocol);
        assert_eq!(client_says, Error::AlertReceived(AlertDescription::NoApplicationProtocol));
    }
}

#[test]
fn a_client_that_can_verify_no_certificate_is_told() {
    // As the certificate resolver answers when no signature scheme fits.
    let mut config = server_config_raw(LIBRARY, &Offer::default());
    config.cert_resolver = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
    let client = Arc::new(client_config(&Offer::default()));
    let mut pair = Pair::new(LIBRARY, &Arc::new(config), &client);
    pair.run().unwrap_err();
    assert_eq!(pair.failure().reason, FailureReason::NoSharedSignatureScheme);
}

#[test]
fn a_hello_that_does_not_end_is_refused_at_the_bound() {
    let mut pair = pair(LIBRARY, Version::Tls13);
    // A message of 65,000 bytes, in records of 4,000.
    let mut bytes = vec![22, 3, 1, 0x0f, 0xa4, 1, 0x00, 0xfd, 0xe8];
    bytes.resize(bytes.len() + 4_000, 0);
    while bytes.len() < Task::INPUT_BYTES_MAX {
        bytes.extend_from_slice(&[22, 3, 1, 0x0f, 0xa0]);
        bytes.resize(bytes.len() + 4_000, 0);
    }
    let (within, beyond) = bytes.split_at(Task::INPUT_BYTES_MAX - 1);
    pair.step_with(within);
    assert!(matches!(pair.task.outcome, StepOutcome::NeedsInput));
    pair.step_with(&beyond[..1]);
    assert_eq!(pair.failure().reason, FailureReason::ClientHelloTooLarge);
    assert_eq!(pair.task.output, [21, 3, 3, 0, 2, 2, 47], "illegal_parameter");
}

#[test]
fn a_record_header_is_judged_before_its_body_arrives() {
    let mut pair = before_the_last_flight(LIBRARY, Version::Tls13);
    pair.step_with(b"GET /");
    assert_eq!(pair.failure().reason, FailureReason::Protocol);
}

#[test]
fn a_second_flight_larger_than_the_bound_is_refused() {
    let mut pair = before_the_last_flight(LIBRARY, Version::Tls12);
    let room = pair.task.input_room_bytes();
    let mut bytes = vec![22, 3, 3, 0x47, 0xff];
    bytes.resize(room, 0);
    pair.step_with(&bytes);
    assert_eq!(pair.failure().reason, FailureReason::Protocol);
}

#[test]
fn a_first_step_without_configuration_is_our_own_failure() {
    let mut task = Task::new(0, 0);
    step(&mut task, LIBRARY);
    assert!(matches!(
        task.outcome,
        StepOutcome::Failed(HandshakeFailure { reason: FailureReason::Internal, .. })
    ));
}

#[test]
fn a_configuration_that_catches_no_secrets_is_our_own_failure() {
    let offer = Offer::version(Version::Tls13);
    let mut config = server_config_raw(LIBRARY, &offer);
    config.key_log = Arc::new(rustls::NoKeyLog);
    let mut pair = Pair::new(LIBRARY, &Arc::new(config), &Arc::new(client_config(&offer)));
    pair.run().unwrap();
    assert_eq!(pair.failure().reason, FailureReason::Internal);
    assert!(pair.failure().detail.contains("key log"), "{}", pair.failure().detail);
}

#[test]
fn a_chain_larger_than_any_client_takes_is_our_own_failure() {
    let (certificate, key) = identity();
    let mut config = server_config_raw(LIBRARY, &Offer::default());
    let chain = vec![certificate; 400];
    let provider = config.crypto_provider();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(chain, key);
    config.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let client = Arc::new(client_config(&Offer::default()));
    let mut pair = Pair::new(LIBRARY, &Arc::new(config), &client);
    let hello = pair.client_flight();
    pair.step_with(&hello);
    assert_eq!(pair.failure().reason, FailureReason::Internal);
    assert!(pair.task.output.len() <= Task::OUTPUT_BYTES_MAX);
}

/// A task that has answered the hello of `version`, and the client's next flight.
fn at_second_flight(version: Version) -> (Pair, Vec<u8>) {
    let mut pair = pair(LIBRARY, version);
    let hello = pair.client_flight();
    pair.step_with(&hello);
    pair.answer().unwrap();
    let flight = pair.client_flight();
    (pair, flight)
}

fn is_decided_or_waits(task: &Task) -> bool {
    match &task.outcome {
        StepOutcome::NeedsInput => task.state.is_some(),
        StepOutcome::Failed(failure) => {
            task.state.is_none() && failure.reason != FailureReason::Internal
        }
        StepOutcome::Established(_) => task.state.is_none(),
        StepOutcome::Pending
        | StepOutcome::ServerFailed(_)
        | StepOutcome::TicketKept
        | StepOutcome::Shed(_) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn garbage_never_panics_and_is_never_our_fault(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5),
        like_a_record in any::<bool>(),
    ) {
        let mut pair = pair(LIBRARY, Version::Tls13);
        for mut part in parts {
            if like_a_record && part.len() > HEADER_BYTES {
                let length = (part.len() - HEADER_BYTES) as u16;
                part[..3].copy_from_slice(&[22, 3, 1]);
                part[3..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
            }
            pair.step_with(&part);
            prop_assert!(is_decided_or_waits(&pair.task), "{:?}", pair.task);
            if !matches!(pair.task.outcome, StepOutcome::NeedsInput) {
                break;
            }
        }
    }

    #[test]
    fn a_changed_hello_never_panics_and_is_never_our_fault(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        version in prop::sample::select(&VERSIONS[..]),
    ) {
        let mut pair = pair(LIBRARY, version);
        let mut hello = pair.client_flight();
        for (index, byte) in changes {
            let index = index.index(hello.len());
            hello[index] = byte;
        }
        let cut = cut.index(hello.len());
        for part in [&hello[..cut], &hello[cut..]] {
            pair.step_with(part);
            prop_assert!(is_decided_or_waits(&pair.task), "{:?}", pair.task);
            if !matches!(pair.task.outcome, StepOutcome::NeedsInput) {
                break;
            }
        }
    }

    #[test]
    fn a_changed_second_flight_never_panics_and_is_never_our_fault(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        version in prop::sample::select(&VERSIONS[..]),
    ) {
        let (mut pair, mut flight) = at_second_flight(version);
        for (index, byte) in changes {
            let index = index.index(flight.len());
            flight[index] = byte;
        }
        let cut = cut.index(flight.len());
        for part in [&flight[..cut], &flight[cut..]] {
            pair.step_with(part);
            prop_assert!(is_decided_or_waits(&pair.task), "{:?}", pair.task);
            if !matches!(pair.task.outcome, StepOutcome::NeedsInput) {
                break;
            }
        }
    }

    #[test]
    fn however_the_flights_are_cut_the_same_session_comes_of_them(
        cuts in prop::collection::vec(1_usize..400, 1..12),
        version in prop::sample::select(&VERSIONS[..]),
        library in prop::sample::select(&LIBRARIES[..]),
    ) {
        let mut pair = pair(library, version);
        let mut cuts = cuts.into_iter().cycle();
        while !matches!(pair.task.outcome, StepOutcome::Established(_)) {
            let flight = pair.client_flight();
            let mut rest = flight.as_slice();
            prop_assert!(!rest.is_empty());
            while !rest.is_empty() {
                let (part, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                pair.step_with(part);
                rest = after;
            }
            pair.answer().unwrap();
        }
        let mut established = pair.established();
        exchange(&mut pair.client, &mut established);
    }
}
