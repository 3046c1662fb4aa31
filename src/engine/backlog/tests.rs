use std::collections::HashSet;
use std::net::IpAddr;

use super::*;
use crate::clock::Moment;
use crate::engine::snapshot::ClientLimits;

const EC: CostClass = CostClass::EllipticCurve;
const COST: Duration = Duration::from_micros(100);
const CREDITS: u32 = 1_000;

/// A backlog with room for ten steps before time is scarce, and its sources.
struct Scene {
    backlog: Backlog,
    sources: Sources,
    credits: u32,
}

impl Scene {
    fn new() -> Self {
        let costs = StepCosts { elliptic_curve: COST, ..StepCosts::TYPICAL };
        let sources = Sources::new(CREDITS as usize, &ClientLimits::NONE, 1);
        let backlog = loop {
            let backlog = Backlog::new(CREDITS as usize, costs, 10 * COST);
            if tells_apart(&backlog) {
                break backlog;
            }
        };
        Self { backlog, sources, credits: 0 }
    }

    fn source(&mut self, number: u8) -> Source {
        self.sources.enter(IpAddr::from([192, 0, 2, number]), Moment::default()).expect("let in")
    }

    /// Lets clients of a source begin as long as they are not limited; how many, and why
    /// the next one is.
    fn flood(&mut self, source: u8, name: &str) -> (u32, ShedCause) {
        let source = self.source(source);
        for count in 0..CREDITS {
            if let Some(cause) = self.backlog.limits(source, Some(name), &self.sources) {
                return (count, cause);
            }
            self.begin(source, name);
        }
        panic!("never limited");
    }

    fn begin(&mut self, source: Source, name: &str) {
        let name = self.backlog.cell_of(Some(name));
        self.backlog.charge(self.credits, EC, source, name, &mut self.sources);
        self.credits += 1;
    }
}

/// Whether no two names of these tests meet in one cell, as a few of any that many may.
fn tells_apart(backlog: &Backlog) -> bool {
    let numbered = (0..20).map(|number| format!("{number}.example"));
    let named = ["a", "b", "flooded", "quiet"].map(|name| format!("{name}.example"));
    let names: Vec<String> = numbered.chain(named).collect();
    let cells = names.iter().map(|name| backlog.cell(Some(name)));
    let cells: HashSet<usize> = cells.chain([backlog.cell(None)]).collect();
    cells.len() == names.len() + 1
}

#[test]
fn one_source_alone_gets_all_that_there_is() {
    let mut scene = Scene::new();
    assert_eq!(scene.flood(1, "a.example"), (10, ShedCause::SourceShare));
    assert_eq!(scene.backlog.owed(), 10 * COST);
}

#[test]
fn beside_a_flood_another_source_gets_its_share() {
    let mut scene = Scene::new();
    scene.flood(1, "a.example");
    assert_eq!(scene.flood(2, "b.example"), (5, ShedCause::SourceShare));
    let flooding = scene.source(1);
    assert!(scene.backlog.limits_source(flooding, &scene.sources));
}

#[test]
fn a_name_that_many_sources_flood_leaves_another_name_its_share() {
    let mut scene = Scene::new();
    let mut limited = 0;
    for number in 1..=30 {
        let source = scene.source(number);
        match scene.backlog.limits(source, Some("flooded.example"), &scene.sources) {
            None => scene.begin(source, "flooded.example"),
            Some(cause) => {
                assert_eq!(cause, ShedCause::NameShare);
                limited += 1;
            }
        }
    }
    assert_eq!(limited, 20);
    let other = scene.source(200);
    assert_eq!(scene.backlog.limits(other, Some("quiet.example"), &scene.sources), None);
}

#[test]
fn clients_that_name_no_server_are_one_name() {
    let mut scene = Scene::new();
    for number in 1..=10 {
        let source = scene.source(number);
        let nameless = scene.backlog.cell_of(None);
        scene.backlog.charge(number.into(), EC, source, nameless, &mut scene.sources);
    }
    let other = scene.source(200);
    let cause = scene.backlog.limits(other, None, &scene.sources);
    assert_eq!(cause, Some(ShedCause::NameShare));
}

#[test]
fn at_twice_the_bound_nobody_may_begin() {
    let mut scene = Scene::new();
    for number in 0..20 {
        assert!(!scene.backlog.is_full());
        let source = scene.source(number);
        scene.begin(source, &format!("{number}.example"));
    }
    assert!(scene.backlog.is_full());
    let other = scene.source(200);
    assert_eq!(scene.backlog.limits(other, None, &scene.sources), None, "his turn will come");
}

#[test]
fn the_exempt_are_held_to_no_share() {
    let mut scene = Scene::new();
    let (first, ..) = scene.flood(1, "a.example");
    for _ in 0..first {
        scene.begin(Source::EXEMPT, "a.example");
    }
    assert_eq!(scene.backlog.limits(Source::EXEMPT, Some("a.example"), &scene.sources), None);
}

#[test]
fn what_comes_back_is_owed_no_more() {
    let mut scene = Scene::new();
    scene.flood(1, "a.example");
    scene.flood(2, "b.example");
    for credit in 0..scene.credits {
        scene.backlog.settle(credit, &mut scene.sources);
        scene.backlog.settle(credit, &mut scene.sources);
    }
    assert_eq!(scene.backlog.owed(), Duration::ZERO);
    assert_eq!(scene.backlog.names_waiting, 0);
    let source = scene.source(1);
    assert_eq!(scene.sources.owed(source), (Duration::ZERO, 0));
}

#[test]
fn a_dear_step_counts_for_more_than_a_cheap_one() {
    let mut scene = Scene::new();
    let source = scene.source(1);
    let nameless = scene.backlog.cell_of(None);
    scene.backlog.charge(0, CostClass::Rsa, source, nameless, &mut scene.sources);
    scene.backlog.charge(1, CostClass::Continuation, source, nameless, &mut scene.sources);
    let typical = StepCosts::TYPICAL;
    assert_eq!(scene.backlog.owed(), typical.rsa + typical.continuation);
}
