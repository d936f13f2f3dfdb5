//! Good histories are accepted, bad ones are not, and on small ones the search agrees with trying
//! every order.

use super::*;
use proptest::prelude::*;

const STEPS: u64 = 1_000_000;

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn answered(client: u64, invoke_us: u64, op: Op, return_us: u64, outcome: Outcome) -> Operation {
    Operation { client, invoke_us, op, answer: Some((return_us, outcome)) }
}

fn set(invoke_us: u64, text: &'static str, return_us: u64) -> Operation {
    answered(1, invoke_us, Op::Set(value(text)), return_us, Outcome::Done)
}

fn get(invoke_us: u64, text: Option<&'static str>, return_us: u64) -> Operation {
    answered(2, invoke_us, Op::Get, return_us, Outcome::Value(text.map(value)))
}

fn delete(invoke_us: u64, found: bool, return_us: u64) -> Operation {
    answered(3, invoke_us, Op::Delete, return_us, Outcome::Removed(found))
}

fn add(invoke_us: u64, delta: i64, return_us: u64, sum: i64) -> Operation {
    answered(4, invoke_us, Op::Add(delta), return_us, Outcome::Sum(sum))
}

fn swap(
    invoke_us: u64,
    expected: Option<&'static str>,
    text: &'static str,
    return_us: u64,
    swapped: bool,
) -> Operation {
    let op = Op::CompareAndSwap { expected: expected.map(value), value: value(text) };
    answered(5, invoke_us, op, return_us, Outcome::Swapped(swapped))
}

fn in_doubt(operation: Operation) -> Operation {
    Operation { answer: None, ..operation }
}

#[track_caller]
fn good(history: &[Operation]) {
    assert_eq!(check(history, STEPS), Ok(()));
}

#[track_caller]
fn bad(history: &[Operation]) {
    assert!(matches!(check(history, STEPS), Err(Failure::NotLinearizable { .. })));
}

#[test]
fn nothing_at_all_is_fine() {
    good(&[]);
    good(&[get(0, None, 1)]);
}

#[test]
fn a_concurrent_write_may_be_seen_or_not() {
    good(&[set(0, "a", 10), set(20, "b", 60), get(30, Some("a"), 40), get(45, Some("b"), 50)]);
    good(&[set(0, "a", 10), set(20, "b", 60), get(30, Some("b"), 40), get(45, Some("b"), 50)]);
}

#[test]
fn reads_that_go_back_are_bad() {
    bad(&[set(0, "a", 10), set(20, "b", 60), get(30, Some("b"), 40), get(45, Some("a"), 50)]);
}

#[test]
fn a_stale_read_is_bad() {
    bad(&[set(0, "a", 10), set(20, "b", 30), get(40, Some("a"), 50)]);
    bad(&[set(0, "a", 10), get(20, None, 30)]);
}

#[test]
fn a_lost_update_is_bad() {
    good(&[add(0, 1, 100, 2), add(10, 1, 90, 1), get(110, Some("2"), 120)]);
    bad(&[add(0, 1, 100, 1), add(10, 1, 90, 1)]);
    bad(&[add(0, 1, 10, 1), add(20, 1, 30, 2), get(40, Some("1"), 50)]);
    bad(&[set(0, "a", 10), swap(20, Some("a"), "b", 40, true), swap(20, Some("a"), "c", 40, true)]);
}

/// A read of what was never written, or of a write that is then not there: taken back.
#[test]
fn a_dirty_read_is_bad() {
    bad(&[set(0, "a", 10), get(20, Some("x"), 30)]);
    bad(&[set(0, "a", 10), in_doubt(set(20, "b", 0)), get(30, Some("b"), 40), get(50, Some("a"), 60)]);
}

#[test]
fn a_resurrected_delete_is_bad() {
    good(&[set(0, "a", 10), delete(20, true, 30), get(40, None, 50)]);
    bad(&[set(0, "a", 10), delete(20, true, 30), get(40, Some("a"), 50)]);
    bad(&[set(0, "a", 10), delete(20, true, 30), get(40, None, 50), get(60, Some("a"), 70)]);
    bad(&[set(0, "a", 10), delete(20, true, 30), delete(40, true, 50)]);
}

#[test]
fn an_operation_in_doubt_takes_effect_late_once_or_never() {
    let doubtful = in_doubt(set(20, "b", 0));
    let history = |reads: &[Operation]| {
        let mut history = vec![set(0, "a", 10), doubtful.clone()];
        history.extend_from_slice(reads);
        history
    };
    good(&history(&[get(30, Some("a"), 40), get(500, Some("a"), 510)]));
    good(&history(&[get(30, Some("a"), 40), get(500, Some("b"), 510)]));
    bad(&history(&[get(30, Some("b"), 40), get(50, Some("a"), 60), get(70, Some("b"), 80)]));
    // Not before it was asked for.
    bad(&[get(0, Some("b"), 10), in_doubt(set(20, "b", 0))]);
    // A counter in doubt counts once at most.
    good(&[in_doubt(add(0, 1, 0, 0)), add(10, 1, 20, 2)]);
    good(&[in_doubt(add(0, 1, 0, 0)), add(10, 1, 20, 1)]);
    bad(&[in_doubt(add(0, 1, 0, 0)), add(10, 1, 20, 3)]);
    // A swap in doubt may have failed.
    good(&[set(0, "a", 10), in_doubt(swap(20, Some("z"), "b", 0, true)), get(30, Some("a"), 40)]);
}

#[test]
fn the_same_microsecond_counts_as_overlapping() {
    good(&[set(0, "a", 10), get(10, None, 20)]);
    bad(&[set(0, "a", 10), get(11, None, 20)]);
}

#[test]
fn the_failure_names_the_operation_that_does_not_fit() {
    let stale = get(40, Some("a"), 50);
    let history = [set(0, "a", 10), set(20, "b", 30), stale.clone(), get(60, Some("b"), 70)];
    let Err(Failure::NotLinearizable { explained, value: at_last, unexplained }) = check(&history, STEPS)
    else {
        panic!("a stale read was accepted");
    };
    assert_eq!((explained.as_slice(), *unexplained), (&history[..2], stale));
    assert_eq!(at_last, Some(value("b")));
}

#[test]
fn the_steps_are_bounded() {
    assert_eq!(check(&[set(0, "a", 10), set(0, "b", 10)], 1), Err(Failure::TooHard));
}

#[test]
fn a_recorded_history_is_checked_key_by_key() {
    let mut history = History::default();
    let (x, y) = (value("x"), value("y"));
    let first = history.invoke(1, x.clone(), Op::Set(value("a")), 0);
    let refused = history.invoke(2, y.clone(), Op::Set(value("b")), 0);
    let lost = history.invoke(3, x.clone(), Op::Delete, 5);
    history.answered(first, Outcome::Done, 10);
    history.refused(refused);
    drop(lost);
    let read = history.invoke(4, x.clone(), Op::Get, 20);
    history.answered(read, Outcome::Value(None), 30);
    assert_eq!(history.check(STEPS), Ok(()));
    assert_eq!(history.operations(&x).len(), 3);
    let read = history.invoke(4, y.clone(), Op::Get, 40);
    history.answered(read, Outcome::Value(Some(value("b"))), 50);
    assert_eq!(history.check(STEPS).map_err(|(key, _)| key), Err(y));
}

/// What one copy that does one thing at a time answers.
fn serve(current: &mut Option<Bytes>, op: &Op) -> Outcome {
    match op {
        Op::Get => Outcome::Value(current.clone()),
        Op::Set(new) => {
            *current = Some(new.clone());
            Outcome::Done
        }
        Op::Delete => Outcome::Removed(current.take().is_some()),
        Op::Add(delta) => {
            let digits = current.as_deref().unwrap_or(b"0");
            let before: i64 = String::from_utf8_lossy(digits).parse().expect("only digits here");
            *current = Some(Bytes::from((before + delta).to_string()));
            Outcome::Sum(before + delta)
        }
        Op::CompareAndSwap { expected, value } => {
            let swaps = expected == current;
            if swaps {
                *current = Some(value.clone());
            }
            Outcome::Swapped(swaps)
        }
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let digit = || (0u8..4).prop_map(|digit| Bytes::from(digit.to_string()));
    prop_oneof![
        Just(Op::Get),
        digit().prop_map(Op::Set),
        Just(Op::Delete),
        (1i64..3).prop_map(Op::Add),
        (proptest::option::of(digit()), digit())
            .prop_map(|(expected, value)| Op::CompareAndSwap { expected, value }),
    ]
}

/// Operations of overlapping length around the moment at which they take effect; the fourth says
/// what becomes of them: 0 answer lost, 1 never happened and in doubt, otherwise answered.
fn served(plan: Vec<(Op, u64, u64, u8)>) -> Vec<Operation> {
    let mut current = None;
    let mut history = Vec::new();
    for (i, (op, before_us, after_us, fate)) in plan.into_iter().enumerate() {
        let at_us = 1_000 + i as u64 * 10;
        let outcome = (fate != 1).then(|| serve(&mut current, &op));
        let answer = outcome.filter(|_| fate > 1).map(|outcome| (at_us + after_us, outcome));
        history.push(Operation { client: i as u64, invoke_us: at_us - before_us, op, answer });
    }
    history
}

fn any_plan(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(Op, u64, u64, u8)>> {
    proptest::collection::vec((any_op(), 0u64..60, 0u64..60, 0u8..12), count)
}

/// Tries every order, and every choice of those in doubt.
fn explainable(history: &[Operation], left: u32, current: &Option<Bytes>) -> bool {
    let open = |i: usize| left & (1 << i) != 0;
    let indices = || (0..history.len()).filter(|&i| open(i));
    if indices().all(|i| history[i].answer.is_none()) {
        return true;
    }
    indices().any(|i| {
        let first = indices().all(|j| match &history[j].answer {
            Some((return_us, _)) => *return_us >= history[i].invoke_us,
            None => true,
        });
        let mut after = current.clone();
        first && {
            let outcome = serve(&mut after, &history[i].op);
            let fits = history[i].answer.as_ref().is_none_or(|(_, seen)| *seen == outcome);
            fits && explainable(history, left & !(1 << i), &after)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_one_copy_answers_is_accepted(plan in any_plan(0..60)) {
        // Many lost answers at once can make a history too hard; it must never look wrong.
        let checked = check(&served(plan), STEPS);
        prop_assert!(matches!(checked, Ok(()) | Err(Failure::TooHard)), "{:?}", checked);
    }

    #[test]
    fn the_search_agrees_with_trying_every_order(
        plan in any_plan(1..7),
        spoiled in any::<prop::sample::Index>(),
        outcome in prop_oneof![
            (0u8..4).prop_map(|digit| Outcome::Value(Some(Bytes::from(digit.to_string())))),
            Just(Outcome::Value(None)),
            any::<bool>().prop_map(Outcome::Removed),
            (0i64..6).prop_map(Outcome::Sum),
            any::<bool>().prop_map(Outcome::Swapped),
        ],
    ) {
        let mut history = served(plan);
        let at = spoiled.index(history.len());
        if let Some((_, seen)) = &mut history[at].answer
            && std::mem::discriminant(seen) == std::mem::discriminant(&outcome)
        {
            *seen = outcome;
        }
        let explainable = explainable(&history, (1 << history.len()) - 1, &None);
        prop_assert_eq!(check(&history, STEPS).is_ok(), explainable);
    }
}

/// Ten clients, ten thousand operations: what a simulation produces for one hot key.
#[test]
fn long_histories_are_decided_in_few_steps() {
    let ops = [Op::Add(1), Op::Get, Op::Delete, Op::Set(value("7")), Op::Get];
    let plan = (0..10_000u64).map(|i| {
        let op = ops[(i * i % 5) as usize].clone();
        (op, i * 7 % 60, i * 13 % 60, if i % 500 == 0 { 1 } else { 2 })
    });
    assert_eq!(check(&served(plan.collect()), STEPS), Ok(()));
}
