use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::AlertDescription;

use super::*;
use crate::tls::client_auth::{AdmittedClients, Entrance, Gate, Rule};
use crate::tls::test_support::LIBRARIES;
use crate::tls::{CryptoLibrary, names::CipherSuite, provider};

/// In the year of the lists and certificates: 2026-07-01.
const NOW: Duration = Duration::from_secs(1_782_864_000);
/// After the next update of the lists, before the certificates end: 2027-07-01.
const LISTS_OUTDATED: Duration = Duration::from_secs(1_814_400_000);
/// After the certificates end: 2029-07-01.
const CERTIFICATES_ENDED: Duration = Duration::from_secs(1_877_558_400);

struct Authority {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str, above: Option<&Self>) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = match above {
            Some(above) => parameters.signed_by(&key, &above.issuer).unwrap(),
            None => parameters.self_signed(&key).unwrap(),
        };
        Self { der: certificate.der().clone(), issuer: Issuer::new(parameters, key) }
    }

    fn issue(&self, serial: u64, name: &str) -> CertificateDer<'static> {
        self.issue_for(serial, name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue_for(
        &self,
        serial: u64,
        name: &str,
        purpose: ExtendedKeyUsagePurpose,
    ) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::new([name.to_owned()]).unwrap();
        parameters.serial_number = Some(SerialNumber::from(serial));
        parameters.not_before = date_time_ymd(2026, 1, 1);
        parameters.not_after = date_time_ymd(2029, 1, 1);
        parameters.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        parameters.signed_by(&key, &self.issuer).unwrap().der().clone()
    }

    fn revoke(&self, number: u64, serials: &[u64]) -> CertificateRevocationListDer<'static> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 2, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 2, 1),
            next_update: date_time_ymd(2027, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().der().clone()
    }
}

fn trusting(authority: &Authority) -> VerifierSettings {
    VerifierSettings {
        demand: Demand::Required,
        authorities: vec![authority.der.clone()],
        revocation_lists: Vec::new(),
        revocation: Revocation::default(),
        rules: Rules::default(),
    }
}

fn made(settings: VerifierSettings, library: CryptoLibrary) -> Result<Verifier, VerifierError> {
    let groups = provider::default_groups(library);
    let provider = provider::crypto_provider(library, &CipherSuite::DEFAULT_ORDER, groups);
    Verifier::new(settings, Arc::new(provider.unwrap()))
}

fn verifier(settings: VerifierSettings) -> Verifier {
    made(settings, CryptoLibrary::AwsLc).unwrap()
}

/// What a refused client is told.
fn alert(verdict: Result<(), Error>) -> Option<AlertDescription> {
    match verdict {
        Err(Error::InvalidCertificate(error)) => Some(error.into()),
        Err(error) => panic!("{error}"),
        Ok(()) => None,
    }
}

#[test]
fn a_client_of_the_authority_comes_in_with_either_library_and_a_strangers_does_not() {
    let (ours, theirs) = (Authority::new("ours", None), Authority::new("theirs", None));
    for library in LIBRARIES {
        let verifier = made(trusting(&ours), library).unwrap();
        assert_eq!(alert(verifier.check(&[ours.issue(1, "app.example")], NOW)), None);
        let stranger = alert(verifier.check(&[theirs.issue(1, "app.example")], NOW));
        assert_eq!(stranger, Some(AlertDescription::UnknownCA));
    }
}

#[test]
fn nobody_comes_through_a_gate_without_a_certificate_unless_it_may() {
    let authority = Authority::new("ours", None);
    for (demand, passes) in [(Demand::Required, false), (Demand::Optional, true)] {
        let settings = VerifierSettings { demand, ..trusting(&authority) };
        let gate = Gate::new(Arc::new(verifier(settings)), Arc::default());
        let admitted = gate.admit(None, true, Entrance::default(), NOW);
        assert_eq!(admitted.is_ok_and(|client| client.is_none()), passes);
    }
}

#[test]
fn the_list_of_clients_is_not_longer_than_twice_those_who_are_here() {
    let authority = Authority::new("ours", None);
    let admitted = Arc::new(AdmittedClients::default());
    let gate = Gate::new(Arc::new(verifier(trusting(&authority))), Arc::clone(&admitted));
    let chain = [authority.issue(1, "app.example")];
    let come = || gate.admit(Some(&chain), false, Entrance::default(), NOW).unwrap().unwrap();
    let staying = come();
    for _ in 0..10 * AdmittedClients::LENGTH_KEPT {
        come();
    }
    let listed = admitted.take();
    assert!(listed.len() <= AdmittedClients::LENGTH_KEPT);
    assert!(Arc::ptr_eq(&listed[0].upgrade().unwrap(), &staying));
    assert!(admitted.take().is_empty());
}

#[test]
fn a_client_past_its_end_and_a_servers_certificate_are_refused() {
    let authority = Authority::new("ours", None);
    let verifier = verifier(trusting(&authority));
    let ended = verifier.check(&[authority.issue(1, "app.example")], CERTIFICATES_ENDED);
    assert_eq!(alert(ended), Some(AlertDescription::CertificateExpired));
    let server = authority.issue_for(2, "app.example", ExtendedKeyUsagePurpose::ServerAuth);
    let server = alert(verifier.check(&[server], NOW));
    assert_eq!(server, Some(AlertDescription::UnsupportedCertificate));
}

#[test]
fn a_revoked_client_is_refused_and_others_of_the_same_authority_are_not() {
    let authority = Authority::new("ours", None);
    let settings = VerifierSettings {
        revocation_lists: vec![authority.revoke(1, &[7])],
        ..trusting(&authority)
    };
    let verifier = verifier(settings);
    let revoked = alert(verifier.check(&[authority.issue(7, "app.example")], NOW));
    assert_eq!(revoked, Some(AlertDescription::CertificateRevoked));
    assert_eq!(alert(verifier.check(&[authority.issue(8, "app.example")], NOW)), None);
}

#[test]
fn an_outdated_list_counts_only_where_that_is_said() {
    let authority = Authority::new("ours", None);
    let client = authority.issue(8, "app.example");
    let check = |outdated_list_counts| {
        verifier(VerifierSettings {
            revocation_lists: vec![authority.revoke(1, &[7])],
            revocation: Revocation { outdated_list_counts, ..Revocation::default() },
            ..trusting(&authority)
        })
        .check(std::slice::from_ref(&client), LISTS_OUTDATED)
    };
    assert!(check(false).is_err());
    assert_eq!(check(true), Ok(()));
}

#[test]
fn an_issuer_without_a_list_is_taken_only_where_that_is_said() {
    let root = Authority::new("root", None);
    let middle = Authority::new("middle", Some(&root));
    let chain = [middle.issue(8, "app.example"), middle.der.clone()];
    let check = |lists, revocation| {
        let settings = VerifierSettings { revocation_lists: lists, revocation, ..trusting(&root) };
        verifier(settings).check(&chain, NOW)
    };
    let strict = Revocation::default();
    let end_entity_only = Revocation { end_entity_only: true, ..strict };
    let unknown_is_good = Revocation { unknown_is_good: true, ..strict };
    let (of_root, of_middle) = (root.revoke(1, &[]), middle.revoke(1, &[]));
    assert_eq!(check(vec![of_root.clone(), of_middle.clone()], strict), Ok(()));
    assert!(check(vec![of_middle.clone()], strict).is_err());
    assert_eq!(check(vec![of_middle], end_entity_only), Ok(()));
    assert!(check(vec![of_root.clone()], end_entity_only).is_err());
    assert_eq!(check(vec![of_root], unknown_is_good), Ok(()));
}

#[test]
fn a_valid_client_without_a_rule_is_denied_access() {
    let authority = Authority::new("ours", None);
    let rules = Rules::new(vec!["dns:app.example".parse().unwrap()]);
    let verifier = verifier(VerifierSettings { rules, ..trusting(&authority) });
    assert_eq!(alert(verifier.check(&[authority.issue(1, "app.example")], NOW)), None);
    let other = alert(verifier.check(&[authority.issue(2, "other.example")], NOW));
    assert_eq!(other, Some(AlertDescription::AccessDenied));
}

#[test]
fn a_chain_beyond_the_limit_is_not_looked_at() {
    let authority = Authority::new("ours", None);
    let verifier = verifier(trusting(&authority));
    let mut chain = vec![authority.issue(1, "app.example")];
    chain.resize(Verifier::CHAIN_MAX, authority.der.clone());
    assert_eq!(verifier.check(&chain, NOW), Ok(()));
    chain.push(authority.der.clone());
    let Err(Error::InvalidCertificate(CertificateError::Other(OtherError(error)))) =
        verifier.check(&chain, NOW)
    else {
        panic!("a chain of {} was looked at", chain.len());
    };
    assert_eq!(error.to_string(), "the client sent 9 certificates, more than 8");
}

#[test]
fn no_certificate_at_all_does_not_pass_for_one() {
    let verifier = verifier(trusting(&Authority::new("ours", None)));
    assert_eq!(verifier.check(&[], NOW), Err(Error::NoCertificatesPresented));
}

#[test]
fn a_certificate_is_asked_for_and_demanded_as_configured() {
    let authority = Authority::new("ours", None);
    for (demand, mandatory) in [(Demand::Optional, false), (Demand::Required, true)] {
        let verifier = verifier(VerifierSettings { demand, ..trusting(&authority) });
        assert!(verifier.offer_client_auth());
        assert_eq!(verifier.client_auth_mandatory(), mandatory);
    }
}

#[test]
fn nodes_with_the_same_files_in_another_order_have_one_id() {
    let (one, two) = (Authority::new("one", None), Authority::new("two", None));
    let lists = [one.revoke(1, &[7, 8]), two.revoke(1, &[])];
    let rules: [Rule; 2] = ["cn:a", "cn:b"].map(|text| text.parse().unwrap());
    let id = |turned: bool| {
        let mut settings = VerifierSettings {
            authorities: vec![one.der.clone(), two.der.clone()],
            revocation_lists: lists.to_vec(),
            rules: Rules::new(rules.to_vec()),
            ..trusting(&one)
        };
        if turned {
            settings.authorities.reverse();
            settings.revocation_lists.reverse();
            settings.rules = Rules::new(rules.iter().rev().cloned().collect());
        }
        *verifier(settings).id()
    };
    assert_eq!(id(false), id(true));
}

#[test]
fn a_list_issued_anew_keeps_the_id_and_one_that_revokes_more_changes_it() {
    let authority = Authority::new("ours", None);
    let id = |list| {
        let settings = VerifierSettings { revocation_lists: vec![list], ..trusting(&authority) };
        *verifier(settings).id()
    };
    let first = id(authority.revoke(1, &[7]));
    assert_eq!(first, id(authority.revoke(2, &[7])));
    assert_ne!(first, id(authority.revoke(2, &[7, 8])));
}

#[test]
fn every_setting_is_part_of_the_id() {
    let authority = Authority::new("ours", None);
    let other = Authority::new("other", None);
    let changes: [fn(&mut VerifierSettings, &Authority); 6] = [
        |_, _| {},
        |settings, _| settings.demand = Demand::Optional,
        |settings, other| settings.authorities.push(other.der.clone()),
        |settings, other| settings.revocation_lists.push(other.revoke(1, &[])),
        |settings, _| settings.revocation.unknown_is_good = true,
        |settings, _| settings.rules = Rules::new(vec!["cn:app".parse().unwrap()]),
    ];
    let ids: BTreeSet<_> = changes
        .iter()
        .map(|change| {
            let mut settings = trusting(&authority);
            change(&mut settings, &other);
            *verifier(settings).id()
        })
        .collect();
    assert_eq!(ids.len(), changes.len());
}

#[test]
fn an_authority_or_a_list_that_cannot_be_read_is_named_by_its_place() {
    let authority = Authority::new("ours", None);
    let error = |settings| made(settings, CryptoLibrary::AwsLc).unwrap_err().to_string();
    let mut settings = trusting(&authority);
    settings.authorities.push(vec![0x30, 0].into());
    let authority_error = error(settings);
    assert!(authority_error.starts_with("certificate 2 of the authorities"), "{authority_error}");
    let mut settings = trusting(&authority);
    settings.revocation_lists = vec![authority.revoke(1, &[]), vec![0x30, 0].into()];
    let list_error = error(settings);
    assert!(list_error.starts_with("revocation list 2"), "{list_error}");
    let settings = VerifierSettings { authorities: Vec::new(), ..trusting(&authority) };
    assert!(made(settings, CryptoLibrary::AwsLc).is_err());
}
