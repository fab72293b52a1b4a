//! The checker against two others: one that tries every order, and porcupine-rs, which somebody else wrote.

use std::time::{Duration, Instant};

use porcupine_rs::{Model, check_operations};

use super::*;
use crate::figures::Figures;
use crate::random::Random;

fn op(client: u64, call: Call, called: u64, answered: u64, answer: Answer) -> Operation {
    Operation {
        client,
        key: 1,
        call,
        called,
        answer: Some((answered, answer)),
    }
}

fn write(called: u64, answered: u64, value: u64) -> Operation {
    op(1, Call::Write(value), called, answered, Answer::Written)
}

fn read(called: u64, answered: u64, value: u64) -> Operation {
    op(2, Call::Read, called, answered, Answer::Value(value))
}

fn cas(called: u64, answered: u64, from: u64, to: u64, swapped: bool) -> Operation {
    let answer = Answer::Swapped(swapped);
    op(3, Call::Cas(from, to), called, answered, answer)
}

fn lost(mut operation: Operation) -> Operation {
    operation.answer = None;
    operation
}

fn violation(history: &[Operation]) -> Violation {
    match check(history, Limits::default()) {
        Verdict::Violated(violation) => *violation,
        other => panic!("{other:?}"),
    }
}

fn is_linearizable(history: &[Operation]) -> bool {
    match check(history, Limits::default()) {
        Verdict::Linearizable => true,
        Verdict::Violated(_) => false,
        Verdict::Undecided(key, why) => panic!("{key}: {why}"),
    }
}

#[test]
fn a_read_sees_the_last_write_or_one_under_way() {
    assert!(is_linearizable(&[]));
    assert!(is_linearizable(&[read(1, 2, 0)]));
    assert!(is_linearizable(&[write(1, 2, 5), read(3, 4, 5)]));
    assert!(!is_linearizable(&[write(1, 2, 5), read(3, 4, 0)]));
    assert!(is_linearizable(&[
        write(1, 9, 5),
        read(2, 3, 0),
        read(4, 5, 5)
    ]));
    assert!(!is_linearizable(&[
        write(1, 9, 5),
        read(2, 3, 5),
        read(4, 5, 0)
    ]));
    // Read before it was called.
    assert!(!is_linearizable(&[read(1, 2, 5), write(3, 4, 5)]));
    // At the same moment is at the same time.
    assert!(is_linearizable(&[write(1, 3, 5), read(3, 4, 0)]));
}

#[test]
fn an_operation_without_an_answer_takes_effect_later_or_never() {
    let unknown = lost(write(1, 2, 5));
    assert!(is_linearizable(&[unknown, read(3, 4, 0), read(5, 6, 0)]));
    assert!(is_linearizable(&[unknown, read(3, 4, 0), read(5, 6, 5)]));
    assert!(!is_linearizable(&[unknown, read(3, 4, 5), read(5, 6, 0)]));
    // Once, though: not again behind the next write.
    let once = [unknown, read(3, 4, 5), write(5, 6, 7), read(7, 8, 5)];
    assert!(!is_linearizable(&once));
    assert!(!is_linearizable(&[read(3, 4, 5), lost(write(5, 6, 5))]));
    let swap = lost(cas(1, 2, 0, 5, false));
    assert!(is_linearizable(&[swap, read(3, 4, 5)]));
    assert!(!is_linearizable(&[
        swap,
        write(3, 4, 1),
        read(5, 6, 1),
        read(7, 8, 5)
    ]));
}

#[test]
fn a_comparison_fails_only_beside_another_value() {
    assert!(is_linearizable(&[cas(1, 2, 0, 5, true), read(3, 4, 5)]));
    assert!(!is_linearizable(&[cas(1, 2, 0, 5, false)]));
    assert!(!is_linearizable(&[cas(1, 2, 4, 5, true)]));
    // Two from the same value: one of them wins.
    assert!(!is_linearizable(&[
        cas(1, 4, 0, 5, true),
        cas(2, 3, 0, 6, true)
    ]));
    assert!(is_linearizable(&[
        cas(1, 4, 0, 5, true),
        cas(2, 3, 0, 6, false)
    ]));
}

#[test]
fn registers_do_not_mix() {
    let mut other = read(3, 4, 0);
    other.key = 2;
    assert!(is_linearizable(&[write(1, 2, 5), other]));
    other.answer = Some((4, Answer::Value(5)));
    assert_eq!(violation(&[write(1, 2, 5), other]).key, 2);
}

#[test]
fn a_stale_read_is_explained_by_two_writes_and_itself() {
    let mut history = Vec::new();
    for n in 0..1000 {
        let at = n * 100;
        history.push(write(at, at + 10, n + 1));
        history.push(read(at + 20, at + 30, n + 1));
        history.push(cas(at + 40, at + 50, n + 7000, 1, false));
        history.push(lost(write(at + 60, at + 70, n + 9000)));
        if n % 100 != 50 {
            history.pop();
        }
    }
    history.push(read(70_035, 70_045, 650));
    let violation = violation(&history);
    assert_eq!(violation.operation, read(70_035, 70_045, 650));
    assert_eq!(violation.core.len(), 3, "{violation}");
    assert!(!is_linearizable(&violation.core));
    assert!(violation.to_string().contains("read -> 650"), "{violation}");
}

#[test]
fn a_long_history_with_many_lost_answers_is_decided_soon() {
    let mut random = Random::new(5);
    let history = lived(&mut random, 20_000, 8, 250);
    let lost = history.iter().filter(|o| o.answer.is_none()).count();
    assert!(lost > 40, "{lost}");
    let started = Instant::now();
    assert!(is_linearizable(&history));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_is_too_much_is_undecided() {
    let mut history: Vec<_> = (1..=300).map(|n| lost(write(n, 0, n))).collect();
    history.push(read(400, 401, 1));
    let verdict = check(&history, Limits::default());
    assert!(matches!(verdict, Verdict::Undecided(1, _)), "{verdict:?}");
    let few = Limits {
        configurations: 10,
        ..Limits::default()
    };
    let verdict = check(&history[100..], few);
    assert!(matches!(verdict, Verdict::Undecided(1, _)), "{verdict:?}");
    let no_time = Limits {
        time: Duration::ZERO,
        ..Limits::default()
    };
    let verdict = check(&history[290..], no_time);
    assert!(matches!(verdict, Verdict::Undecided(1, _)), "{verdict:?}");
}

/// What clients see of a register that takes every operation at one moment. One answer in `lost_one_in` is lost; of
/// those, half never took effect.
fn lived(random: &mut Random, operations: u64, clients: u64, lost_one_in: u64) -> Vec<Operation> {
    let mut free_at = vec![0_u64; clients as usize];
    let mut plan = Vec::new();
    for n in 0..operations {
        let client = random.below(clients);
        let called = free_at[client as usize] + random.below(5);
        let effect = called + random.below(8);
        let answered = effect + random.below(8);
        free_at[client as usize] = answered + 1;
        // Values repeat in short histories: that is harder.
        let values = if operations > 100 { u64::MAX } else { 4 };
        let value = (n + 1) % values;
        let call = match random.below(3) {
            0 => Call::Read,
            1 => Call::Write(value),
            _ => Call::Cas(random.below(3), value),
        };
        plan.push((effect, random.number(), client, call, called, answered));
    }
    plan.sort_unstable_by_key(|(effect, tie, ..)| (*effect, *tie));
    let mut register = INITIAL;
    let mut history = Vec::new();
    for (_, _, client, mut call, called, answered) in plan {
        let is_lost = random.below(lost_one_in) == 0;
        let takes_effect = !is_lost || random.below(2) == 0;
        if let (Call::Cas(from, _), true) = (&mut call, random.below(2) == 0) {
            *from = register;
        }
        let answer = match call {
            Call::Read => Answer::Value(register),
            Call::Write(value) => {
                register = if takes_effect { value } else { register };
                Answer::Written
            }
            Call::Cas(from, to) => {
                let swapped = from == register;
                register = if takes_effect && swapped {
                    to
                } else {
                    register
                };
                Answer::Swapped(swapped)
            }
        };
        let answer = (!is_lost).then_some((answered, answer));
        history.push(Operation {
            client,
            key: 1,
            call,
            called,
            answer,
        });
    }
    history
}

/// Changes one thing, perhaps into something impossible.
fn mutate(history: &mut [Operation], random: &mut Random) {
    let place = random.below(history.len() as u64) as usize;
    let operation = &mut history[place];
    match (random.below(3), &mut operation.answer) {
        (0, Some((_, Answer::Value(value)))) => *value = random.below(4),
        (0, Some((_, Answer::Swapped(swapped)))) => *swapped = !*swapped,
        (1, Some((answered, _))) => {
            let by = random.below(20);
            operation.called += by;
            *answered += by;
        }
        (_, Some((answered, _))) => *answered = operation.called,
        (_, None) => {
            let answer = match operation.call {
                Call::Read => Answer::Value(random.below(4)),
                Call::Write(_) => Answer::Written,
                Call::Cas(..) => Answer::Swapped(random.below(2) == 0),
            };
            operation.answer = Some((operation.called + 9, answer));
        }
    }
}

/// Tries every order.
fn brute(rest: &[Operation], value: u64) -> bool {
    if rest.iter().all(|operation| operation.answer.is_none()) {
        return true;
    }
    let first_answer = rest.iter().filter_map(|o| o.answer).map(|(at, _)| at).min();
    (0..rest.len()).any(|place| {
        let operation = &rest[place];
        // Whoever was called behind an answer comes behind it.
        let may_be_next = first_answer.is_none_or(|answer| operation.called <= answer);
        let Some(value) = operation.effect(value).filter(|_| may_be_next) else {
            return false;
        };
        let mut rest = rest.to_vec();
        rest.remove(place);
        brute(&rest, value)
    })
}

#[derive(Clone, Debug)]
struct Register;

impl Model for Register {
    type State = u64;
    type Op = (Call, Option<Answer>);
    type Metadata = ();

    fn init() -> u64 {
        INITIAL
    }

    /// In words of its own: what the checker itself believes of registers is under test too.
    fn step(state: &u64, (call, answer): &Self::Op) -> (bool, u64) {
        let (right, next) = match *call {
            Call::Read => (Answer::Value(*state), *state),
            Call::Write(value) => (Answer::Written, value),
            Call::Cas(from, to) if from == *state => (Answer::Swapped(true), to),
            Call::Cas(..) => (Answer::Swapped(false), *state),
        };
        (answer.is_none_or(|answer| answer == right), next)
    }
}

fn porcupine(history: &[Operation]) -> bool {
    let time = |at: u64| i64::try_from(at).unwrap();
    let history: Vec<_> = history
        .iter()
        .map(|operation| porcupine_rs::Operation::<Register> {
            client_id: None,
            call_time: time(operation.called),
            return_time: operation.answer.map_or(i64::MAX, |(at, _)| time(at)),
            op: (operation.call, operation.answer.map(|(_, answer)| answer)),
            metadata: None,
        })
        .collect();
    check_operations(&history)
}

/// `HISTORIES` says how many; the long form of `make api` asks for more.
#[test]
fn three_checkers_agree() {
    let count = std::env::var("HISTORIES").map_or(4000, |n| n.parse().unwrap());
    let seed = std::env::var("SEED").map_or(7, |n| n.parse().unwrap());
    let (mut agreed, mut impossible, mut explained) = (0, 0, 0);
    for number in 0..count {
        let mut random = Random::new(seed ^ (number << 20));
        let (operations, clients) = (1 + random.below(7), 2 + random.below(3));
        let mut history = lived(&mut random, operations, clients, 5);
        let is_mutated = number % 3 != 0;
        for _ in 0..if is_mutated { 1 + random.below(3) } else { 0 } {
            mutate(&mut history, &mut random);
        }
        let verdict = check(&history, Limits::default());
        let ours = matches!(verdict, Verdict::Linearizable);
        let (every_order, theirs) = (brute(&history, INITIAL), porcupine(&history));
        assert!(
            ours == every_order && ours == theirs && (ours || is_mutated),
            "history {number}, seed {seed}: ours {ours}, every order {every_order}, porcupine {theirs}: {history:#?}"
        );
        agreed += 1;
        if let Verdict::Violated(violation) = verdict {
            impossible += 1;
            // The core is impossible for all of them too.
            let core = &violation.core;
            assert!(!brute(core, INITIAL) && !porcupine(core), "{violation}");
            explained += 1;
        }
    }
    // Longer ones, of which not every order can be tried.
    for number in 0..count / 20 {
        let mut random = Random::new(seed ^ (number << 40));
        let mut history = lived(&mut random, 60, 4, 15);
        if number % 3 != 0 {
            mutate(&mut history, &mut random);
        }
        let ours = is_linearizable(&history);
        assert_eq!(
            ours,
            porcupine(&history),
            "long {number}, seed {seed}: {history:#?}"
        );
        agreed += 1;
        impossible += u64::from(!ours);
    }
    assert!(explained > 0);
    let target = std::env::temp_dir();
    let mut figures = Figures::new("linear", &target);
    figures.exactly("checkers_agreed", agreed, "count", count + count / 20);
    figures.at_least(
        "checkers_agreed_on_violations",
        impossible,
        "count",
        count / 10,
    );
    if std::env::var_os("FIGURES_DIR").is_some() {
        assert!(figures.write().unwrap());
    }
}
