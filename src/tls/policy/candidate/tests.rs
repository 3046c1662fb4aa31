use super::*;
use crate::tls::certificates::{KeyType, LoadedCertificate};
use crate::tls::client_hello::{CLIENT_HELLO_BYTES_MAX, Scan, scan};
use crate::tls::policy::tests::{four_kinds, only, policy, settings};
use crate::tls::policy::{PolicySettings, UnknownServerName};
use crate::tls::test_support::{Client, LIBRARIES, ONLY_TLS12, ONLY_TLS13};

/// What is negotiated unless configured otherwise.
fn everything(library: CryptoLibrary) -> CandidateTerms {
    let settings = settings(library, Vec::new());
    CandidateTerms {
        minimum_version: settings.minimum_version,
        cipher_suites: settings.cipher_suites,
        groups: settings.groups,
        signature_schemes: None,
    }
}

fn without_rsa() -> Option<Vec<SignatureScheme>> {
    Some(SignatureScheme::all().filter(|scheme| !scheme.is_rsa()).collect())
}

#[track_caller]
fn judge(
    library: CryptoLibrary,
    certificates: Vec<LoadedCertificate>,
    terms: &CandidateTerms,
    client: &Client,
) -> Verdict {
    let policy = policy(library, certificates);
    let candidate = Candidate::new(&policy, library, terms).unwrap();
    let hello = client.hello();
    match scan(&hello, &mut [0; CLIENT_HELLO_BYTES_MAX]) {
        Scan::Complete(hello) => {
            assert!(policy.admit(&hello, None).is_ok());
            candidate.judge(&hello, None)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_of_tls12_would_fail_where_tls13_is_demanded() {
    for library in LIBRARIES {
        let terms = CandidateTerms { minimum_version: Version::Tls13, ..everything(library) };
        for (versions, expected) in [(ONLY_TLS12, Verdict::Version), (ONLY_TLS13, Verdict::Served)]
        {
            let client = Client { versions, ..Client::new(library) };
            assert_eq!(judge(library, four_kinds(library), &terms, &client), expected);
        }
    }
}

#[test]
fn a_client_without_a_post_quantum_group_would_fail_where_one_is_demanded() {
    let library = CryptoLibrary::AwsLc;
    let terms = CandidateTerms { groups: vec![Group::X25519_MLKEM768], ..everything(library) };
    let classical = Client { groups: vec![Group::X25519], ..Client::new(library) };
    let tls12 = Client { versions: ONLY_TLS12, ..Client::new(library) };
    for (client, expected) in [
        (Client::new(library), Verdict::Served),
        (classical, Verdict::Group),
        (tls12, Verdict::Group),
    ] {
        assert_eq!(judge(library, four_kinds(library), &terms, &client), expected);
    }
}

#[test]
fn without_rsa_a_client_fails_that_knows_nothing_else_and_a_name_that_has_nothing_else() {
    for library in LIBRARIES {
        let terms = CandidateTerms { signature_schemes: without_rsa(), ..everything(library) };
        for versions in [ONLY_TLS12, ONLY_TLS13] {
            let client = Client { versions, ..Client::new(library) };
            let old =
                Client { schemes: vec![rustls::SignatureScheme::RSA_PSS_SHA256], ..client.clone() };
            let all = || four_kinds(library);
            let rsa = || only(library, KeyType::Rsa);
            assert_eq!(judge(library, all(), &terms, &client), Verdict::Served);
            assert_eq!(judge(library, all(), &terms, &old), Verdict::SignatureScheme);
            assert_eq!(judge(library, rsa(), &terms, &client), Verdict::Certificate);
            assert_eq!(judge(library, rsa(), &terms, &old), Verdict::Certificate);
        }
    }
}

#[test]
fn a_client_without_any_suite_that_is_left_would_fail_by_its_suites() {
    for library in LIBRARIES {
        let suites = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let left = ["TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"];
        let terms = CandidateTerms { cipher_suites: suites(&left), ..everything(library) };
        for other in ["TLS_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"] {
            let client = Client { suites: suites(&[other]), ..Client::new(library) };
            let client = Client {
                versions: if other.starts_with("TLS") { ONLY_TLS13 } else { ONLY_TLS12 },
                ..client
            };
            let verdict = judge(library, four_kinds(library), &terms, &client);
            assert_eq!(verdict, Verdict::CipherSuite, "{other}");
        }
    }
}

#[test]
fn whether_any_certificate_is_left_is_known_without_a_client() {
    for library in LIBRARIES {
        let terms = CandidateTerms { signature_schemes: without_rsa(), ..everything(library) };
        for (certificates, expected) in
            [(four_kinds(library), true), (only(library, KeyType::Rsa), false)]
        {
            let policy = policy(library, certificates);
            let candidate = Candidate::new(&policy, library, &terms).unwrap();
            assert_eq!(candidate.has_any_certificate(), expected);
        }
    }
}

/// The verdict is that of the policy that the candidate may become one day.
#[test]
fn who_would_be_served_is_who_is_served_once_the_policy_is_in_force() {
    let library = CryptoLibrary::AwsLc;
    let everything = everything(library);
    let suites: Vec<&[CipherSuite]> = vec![
        &everything.cipher_suites,
        &everything.cipher_suites[..1],
        &everything.cipher_suites[2..5],
    ];
    let groups: Vec<&[Group]> = vec![&everything.groups, &everything.groups[..1], &[Group::X25519]];
    let mut compared = [0; Verdict::ALL.len()];
    for kinds in [four_kinds, |library| only(library, KeyType::Rsa)] {
        let policy = policy(library, kinds(library));
        for minimum_version in [Version::Tls12, Version::Tls13] {
            for (cipher_suites, groups) in
                suites.iter().flat_map(|suites| groups.iter().map(move |groups| (suites, groups)))
            {
                let terms = CandidateTerms {
                    minimum_version,
                    cipher_suites: cipher_suites.to_vec(),
                    groups: groups.to_vec(),
                    signature_schemes: None,
                };
                let candidate = Candidate::new(&policy, library, &terms).unwrap();
                let in_force = Policy::new(PolicySettings {
                    minimum_version,
                    cipher_suites: terms.cipher_suites.clone(),
                    groups: terms.groups.clone(),
                    unknown_sni: UnknownServerName::Default,
                    ..settings(library, kinds(library))
                })
                .unwrap();
                for client in clients(library) {
                    let hello = client.hello();
                    let mut scratch = [0; CLIENT_HELLO_BYTES_MAX];
                    let Scan::Complete(hello) = scan(&hello, &mut scratch) else { panic!() };
                    if policy.admit(&hello, None).is_err() {
                        continue;
                    }
                    let verdict = candidate.judge(&hello, None);
                    let expected = match in_force.admit(&hello, None) {
                        Ok(_) => &[Verdict::Served][..],
                        Err(Refusal::NoSharedVersion) => &[Verdict::Version],
                        Err(Refusal::NoSharedGroup) => &[Verdict::Group],
                        Err(Refusal::NoSharedCipherSuite) => {
                            &[Verdict::CipherSuite, Verdict::Certificate]
                        }
                        Err(other) => panic!("{other}"),
                    };
                    assert!(expected.contains(&verdict), "{verdict:?} {terms:?} {client:?}");
                    compared[verdict as usize] += 1;
                }
            }
        }
    }
    for verdict in [Verdict::Served, Verdict::Version, Verdict::CipherSuite, Verdict::Group] {
        assert!(compared[verdict as usize] > 10, "{verdict:?}: {compared:?}");
    }
}

fn clients(library: CryptoLibrary) -> impl Iterator<Item = Client> {
    let client = Client::new(library);
    let suites = client.suites.clone();
    let restricted = [ONLY_TLS12, ONLY_TLS13, rustls::ALL_VERSIONS].map(|versions| {
        let client = Client { versions, ..client.clone() };
        let one_group = Client { groups: vec![Group::SECP384R1], ..client.clone() };
        let few_suites = Client { suites: vec![suites[1], suites[5], suites[6]], ..client.clone() };
        [client, one_group, few_suites]
    });
    restricted.into_iter().flatten()
}
