use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Job {
    id: u32,
    class: CostClass,
    submitted: Moment,
    deadline: Moment,
    alive: bool,
}

impl Waiting for Job {
    fn class(&self) -> CostClass {
        self.class
    }

    fn submitted(&self) -> Moment {
        self.submitted
    }

    fn deadline(&self) -> Moment {
        self.deadline
    }
}

const EC: CostClass = CostClass::EllipticCurve;

fn at(milliseconds: u64) -> Moment {
    Moment::from_nanoseconds(milliseconds * 1_000_000)
}

fn job(id: u32, class: CostClass, submitted: Moment) -> Job {
    Job { id, class, submitted, deadline: at(1_000_000), alive: true }
}

fn alive(job: &Job) -> bool {
    job.alive
}

fn scheduler(tasks_max: usize) -> Scheduler<Job> {
    Scheduler::new(&SchedulerSettings::with_room(tasks_max))
}

fn run_next(scheduler: &mut Scheduler<Job>, now: Moment) -> (u32, bool) {
    match scheduler.pick(now, alive) {
        Some(Pick::Run { task, newest_first }) => (task.id, newest_first),
        other => panic!("a task to run was expected, not {other:?}"),
    }
}

#[test]
fn nothing_waiting_gives_nothing() {
    assert_eq!(scheduler(4).pick(at(0), alive), None);
}

#[test]
fn the_oldest_goes_first_while_the_queue_keeps_up() {
    let mut scheduler = scheduler(4);
    for id in 0..3 {
        scheduler.admit(job(id, EC, at(u64::from(id))), at(3), alive).unwrap();
    }
    assert_eq!(run_next(&mut scheduler, at(3)), (0, false));
    assert_eq!(run_next(&mut scheduler, at(3)), (1, false));
    assert_eq!(run_next(&mut scheduler, at(3)), (2, false));
}

#[test]
fn the_newest_goes_first_once_the_oldest_has_waited_too_long() {
    let mut scheduler = scheduler(4);
    for id in 0..3 {
        scheduler.admit(job(id, EC, at(u64::from(id))), at(3), alive).unwrap();
    }
    assert_eq!(run_next(&mut scheduler, at(11)), (2, true));
    assert_eq!(run_next(&mut scheduler, at(11)), (1, true));
    assert_eq!(run_next(&mut scheduler, at(11)), (0, true));
}

#[test]
fn an_expired_task_is_shed_not_run() {
    let mut scheduler = scheduler(4);
    let expired = Job { deadline: at(5), ..job(1, EC, at(0)) };
    scheduler.admit(expired.clone(), at(0), alive).unwrap();
    assert_eq!(scheduler.pick(at(5), alive), Some(Pick::Shed(expired, ShedReason::Expired)));
}

#[test]
fn a_task_whose_client_has_gone_is_shed_not_run() {
    let mut scheduler = scheduler(4);
    let gone = Job { alive: false, ..job(1, EC, at(0)) };
    scheduler.admit(gone.clone(), at(0), alive).unwrap();
    assert_eq!(scheduler.pick(at(1), alive), Some(Pick::Shed(gone, ShedReason::ClientGone)));
}

#[test]
fn an_expired_task_at_the_front_is_shed_even_while_the_newest_run() {
    let mut scheduler = scheduler(4);
    scheduler.admit(Job { deadline: at(20), ..job(0, EC, at(0)) }, at(0), alive).unwrap();
    scheduler.admit(job(1, EC, at(19)), at(19), alive).unwrap();
    scheduler.admit(job(2, EC, at(19)), at(19), alive).unwrap();
    assert_eq!(run_next(&mut scheduler, at(19)), (2, true));
    assert!(matches!(
        scheduler.pick(at(20), alive),
        Some(Pick::Shed(Job { id: 0, .. }, ShedReason::Expired))
    ));
}

#[test]
fn a_full_queue_that_keeps_up_refuses_the_arriving_task() {
    let mut scheduler = scheduler(2);
    for id in 0..2 {
        scheduler.admit(job(id, EC, at(0)), at(0), alive).unwrap();
    }
    let (victim, reason) = scheduler.admit(job(2, EC, at(1)), at(1), alive).unwrap_err();
    assert_eq!((victim.id, reason), (2, ShedReason::QueueFull));
    assert_eq!(scheduler.len(), 2);
}

#[test]
fn a_full_queue_that_does_not_keep_up_gives_up_its_oldest_task() {
    let mut scheduler = scheduler(2);
    for id in 0..2 {
        scheduler.admit(job(id, EC, at(0)), at(0), alive).unwrap();
    }
    let (victim, reason) = scheduler.admit(job(2, EC, at(11)), at(11), alive).unwrap_err();
    assert_eq!((victim.id, reason), (0, ShedReason::QueueFull));
    assert_eq!(run_next(&mut scheduler, at(11)), (2, true));
}

#[test]
fn a_full_queue_gives_up_a_useless_task_before_any_other() {
    let mut scheduler = scheduler(2);
    scheduler.admit(Job { deadline: at(1), ..job(0, EC, at(0)) }, at(0), alive).unwrap();
    scheduler.admit(job(1, EC, at(0)), at(0), alive).unwrap();
    let (victim, reason) = scheduler.admit(job(2, EC, at(2)), at(2), alive).unwrap_err();
    assert_eq!((victim.id, reason), (0, ShedReason::Expired));
}

#[test]
fn a_class_without_room_refuses_every_task() {
    let mut scheduler = scheduler(0);
    let (victim, reason) = scheduler.admit(job(0, EC, at(0)), at(0), alive).unwrap_err();
    assert_eq!((victim.id, reason), (0, ShedReason::QueueFull));
}

#[test]
fn a_full_class_takes_no_room_from_another() {
    let mut scheduler = scheduler(1);
    scheduler.admit(job(0, EC, at(0)), at(0), alive).unwrap();
    scheduler.admit(job(1, CostClass::Rsa, at(0)), at(0), alive).unwrap();
    assert_eq!(scheduler.len(), 2);
}

#[test]
fn classes_that_all_wait_share_the_turns_by_their_weights() {
    let mut scheduler = scheduler(1_000);
    for id in 0..1_000 {
        for class in CostClass::ALL {
            scheduler.admit(job(id, class, at(0)), at(0), alive).unwrap();
        }
    }
    let mut counts = [0; CLASSES];
    for _ in 0..150 {
        match scheduler.pick(at(0), alive) {
            Some(Pick::Run { task, .. }) => counts[task.class as usize] += 1,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(counts, [80, 40, 20, 10]);
}

#[test]
fn a_class_that_waits_alone_has_every_turn() {
    let mut scheduler = scheduler(100);
    for id in 0..100 {
        scheduler.admit(job(id, CostClass::Rsa, at(0)), at(0), alive).unwrap();
    }
    for id in 0..100 {
        assert_eq!(run_next(&mut scheduler, at(0)), (id, false));
    }
}

#[derive(Debug, Clone)]
enum Event {
    Admit { class: usize, lifetime_ms: u64, alive: bool },
    Pick,
    Advance { milliseconds: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..CLASSES, 1_u64..60, prop::bool::weighted(0.9))
            .prop_map(|(class, lifetime_ms, alive)| Event::Admit { class, lifetime_ms, alive }),
        3 => Just(Event::Pick),
        1 => (0_u64..15).prop_map(|milliseconds| Event::Advance { milliseconds }),
    ]
}

proptest! {
    #[test]
    fn every_task_comes_out_once_useless_ones_as_shed_and_bounds_hold(
        events in prop::collection::vec(event(), 1..400),
        tasks_max in 0_usize..12,
    ) {
        let mut scheduler = scheduler(tasks_max);
        let mut now = at(0);
        let mut inside = BTreeMap::new();
        let mut next_id = 0;
        // Picks of other classes since a class that waits had one of its own.
        let mut passed_over = [0; CLASSES];
        let picks_at_end = events.len() * 2;
        let events = events.into_iter().chain(std::iter::repeat_n(Event::Pick, picks_at_end));
        for event in events {
            match event {
                Event::Advance { milliseconds } => {
                    now = now.after(Duration::from_millis(milliseconds));
                }
                Event::Admit { class, lifetime_ms, alive: client_alive } => {
                    let new = Job {
                        id: next_id,
                        class: CostClass::ALL[class],
                        submitted: now,
                        deadline: now.after(Duration::from_millis(lifetime_ms)),
                        alive: client_alive,
                    };
                    next_id += 1;
                    inside.insert(new.id, new.clone());
                    if let Err((victim, reason)) = scheduler.admit(new, now, alive) {
                        prop_assert!(inside.remove(&victim.id).as_ref() == Some(&victim));
                        let of_its_class =
                            inside.values().filter(|job| job.class == victim.class).count();
                        prop_assert_eq!(of_its_class, tasks_max, "only a full queue sheds");
                        prop_assert_eq!(
                            reason == ShedReason::Expired,
                            victim.alive && victim.deadline <= now
                        );
                    }
                }
                Event::Pick => match scheduler.pick(now, alive) {
                    None => prop_assert!(inside.is_empty()),
                    Some(Pick::Run { task, .. }) => {
                        prop_assert!(inside.remove(&task.id).as_ref() == Some(&task));
                        prop_assert!(task.alive && task.deadline > now);
                        passed_over[task.class as usize] = 0;
                        for class in CostClass::ALL {
                            if class != task.class
                                && inside.values().any(|job| job.class == class)
                            {
                                passed_over[class as usize] += 1;
                            } else {
                                passed_over[class as usize] = 0;
                            }
                            let two_rounds = 2 * SchedulerSettings::WEIGHTS.iter().sum::<u32>();
                            prop_assert!(passed_over[class as usize] < two_rounds);
                        }
                    }
                    Some(Pick::Shed(task, reason)) => {
                        prop_assert!(inside.remove(&task.id).as_ref() == Some(&task));
                        match reason {
                            ShedReason::ClientGone => prop_assert!(!task.alive),
                            ShedReason::Expired => prop_assert!(task.deadline <= now),
                            other => prop_assert!(false, "{:?} is not for a pick", other),
                        }
                    }
                },
            }
            prop_assert_eq!(scheduler.len(), inside.len());
            for class in CostClass::ALL {
                let waiting = inside.values().filter(|job| job.class == class).count();
                prop_assert!(waiting <= tasks_max);
            }
        }
        prop_assert!(inside.is_empty(), "as many picks as tasks empty it");
        prop_assert!(scheduler.is_empty());
    }
}
