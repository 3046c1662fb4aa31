use super::*;
use crate::handshake::test_support::LIBRARIES;
use crate::tls::self_signed::self_signed;

impl KeyCosts {
    /// Made up, for tests of what follows from them.
    pub(crate) fn elliptic_curve(first: Duration, last: Duration) -> Self {
        Self { key: "ecdsa-p256".to_owned(), first, last, kind: KeyKind::EllipticCurve }
    }
}

#[test]
fn each_kind_of_key_is_measured_once_with_either_library() {
    for library in LIBRARIES {
        let certificate = self_signed(&["forebay.test"], library).unwrap();
        let measured = measure(library, [&certificate, &certificate]);
        let [key] = measured.as_slice() else { panic!("one kind of key: {measured:?}") };
        assert_eq!(key.key, "ecdsa-p256");
        assert!(key.first >= COST_MIN && key.last >= COST_MIN, "{key:?}");
        assert!(key.per_second() > 1.0, "{key:?}");
    }
}

#[test]
fn without_a_measurement_costs_are_the_typical_ones() {
    assert_eq!(step_costs(&[]), StepCosts::TYPICAL);
}

#[test]
fn a_class_costs_what_its_dearest_key_does() {
    let costs = |micros| Duration::from_micros(micros);
    let measured = [
        KeyCosts::elliptic_curve(costs(90), costs(30)),
        KeyCosts::elliptic_curve(costs(200), costs(35)),
        KeyCosts { kind: KeyKind::Rsa, ..KeyCosts::elliptic_curve(costs(500), costs(25)) },
    ];
    let expected = StepCosts {
        continuation: costs(35),
        resumption: costs(35),
        elliptic_curve: costs(200),
        rsa: costs(500),
    };
    assert_eq!(step_costs(&measured), expected);
}
