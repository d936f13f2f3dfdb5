//! Whether what clients saw of each key can be explained by one copy that does one thing at a time
//! (invariant j).
//!
//! Sources: Wing and Gong, "Testing and Verifying Concurrent Objects" (1993); Lowe, "Testing for
//! Linearizability" (2017), whose memory of configurations already tried makes it fast; Horn and
//! Kroening, "Faster Linearizability Checking via P-Compositionality" (2015): a history is
//! linearizable if and only if that of each key is, so keys are checked one by one.

use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use xxhash_rust::xxh3::Xxh3Builder;

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read the value.
    Get,
    /// Write the value.
    Set(Bytes),
    /// Remove the value.
    Delete,
    /// Add to the decimal number that the value is; a missing value counts as 0.
    Add(i64),
    /// Write `value` if the current value is `expected` (`None`: if there is none).
    CompareAndSwap {
        /// What the value must be.
        expected: Option<Bytes>,
        /// What it becomes then.
        value: Bytes,
    },
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value read by [`Op::Get`].
    Value(Option<Bytes>),
    /// [`Op::Set`] is done.
    Done,
    /// Whether [`Op::Delete`] found something to remove.
    Removed(bool),
    /// The sum after [`Op::Add`].
    Sum(i64),
    /// Whether [`Op::CompareAndSwap`] did swap.
    Swapped(bool),
}

/// One operation on one key, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked. Only for the report: a client may have several operations under way.
    pub client: u64,
    /// When it was asked for, in microseconds.
    pub invoke_us: u64,
    /// What was asked for.
    pub op: Op,
    /// When the answer came, in microseconds, and what it was. `None` is *in doubt*: the
    /// operation may have taken effect at any time since, may still do so, or never will.
    /// Operations that are known not to have happened don't belong into a history.
    pub answer: Option<(u64, Outcome)>,
}

/// Names an operation of a [`History`] until its answer comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    key: Bytes,
    at: usize,
}

/// Operations by key, recorded as they happen.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: BTreeMap<Bytes, Vec<Option<Operation>>>,
}

impl History {
    /// Records that an operation was asked for. Until told otherwise it is in doubt.
    pub fn invoke(&mut self, client: u64, key: Bytes, op: Op, now_us: u64) -> Ticket {
        let operations = self.keys.entry(key.clone()).or_default();
        operations.push(Some(Operation { client, invoke_us: now_us, op, answer: None }));
        Ticket { key, at: operations.len() - 1 }
    }

    /// Records the answer to an operation.
    pub fn answered(&mut self, ticket: Ticket, outcome: Outcome, now_us: u64) {
        if let Some(Some(operation)) = self.slot(&ticket) {
            operation.answer = Some((now_us, outcome));
        }
    }

    /// Records that an operation was refused and is known not to have happened.
    pub fn refused(&mut self, ticket: Ticket) {
        if let Some(slot) = self.slot(&ticket) {
            *slot = None;
        }
    }

    /// Records that an operation was answered by a part of the cluster that was given up since: a read
    /// says nothing, a write may or may not have got about before.
    pub fn cut_off(&mut self, ticket: Ticket) {
        if let Some(slot) = self.slot(&ticket)
            && let Some(operation) = slot
        {
            match operation.op {
                Op::Get => *slot = None,
                _ => operation.answer = None,
            }
        }
    }

    fn slot(&mut self, ticket: &Ticket) -> Option<&mut Option<Operation>> {
        self.keys.get_mut(&ticket.key)?.get_mut(ticket.at)
    }

    /// The operations on one key.
    pub fn operations(&self, key: &[u8]) -> Vec<Operation> {
        self.keys.get(key).into_iter().flatten().flatten().cloned().collect()
    }

    /// Checks every key, with at most `steps_max` steps each.
    pub fn check_each(&self, steps_max: u64) -> impl Iterator<Item = (&Bytes, Result<(), Failure>)> {
        self.keys.iter().map(move |(key, operations)| {
            let operations: Vec<_> = operations.iter().flatten().cloned().collect();
            (key, check(&operations, steps_max))
        })
    }

    /// Checks every key, with at most `steps_max` steps each.
    ///
    /// # Errors
    /// The first key whose history has no explanation, or took too long to find one for.
    pub fn check(&self, steps_max: u64) -> Result<(), (Bytes, Failure)> {
        self.check_each(steps_max)
            .try_for_each(|(key, checked)| checked.map_err(|failure| (key.clone(), failure)))
    }
}

/// Why a history wasn't accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No order of the operations explains their answers.
    NotLinearizable {
        /// The longest explanation found, in order.
        explained: Vec<Operation>,
        /// What the value was after it.
        value: Option<Bytes>,
        /// The operation that had been answered by then and doesn't fit.
        unexplained: Box<Operation>,
    },
    /// Not decided within the steps allowed.
    TooHard,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// As much of the past as a reader can use.
        const SHOWN: usize = 12;
        match self {
            Failure::NotLinearizable { explained, value, unexplained } => {
                writeln!(f, "no order explains {unexplained:?}; at best it comes after")?;
                for operation in &explained[explained.len().saturating_sub(SHOWN)..] {
                    writeln!(f, "  {operation:?}")?;
                }
                write!(f, "when the value was {value:?}")
            }
            Failure::TooHard => f.write_str("not decided within the steps allowed"),
        }
    }
}

/// Checks the history of one key, which starts without a value.
///
/// An operation precedes another if its answer came before the other was asked for; the same
/// microsecond counts as at the same time. `steps_max` bounds time and memory: with ten clients a
/// good history takes a few steps an operation, each kept in memory.
///
/// # Errors
/// See [`Failure`].
///
/// ```
/// use ringdove::sim::linearizability::{check, Op, Operation, Outcome};
/// let at = |invoke_us, op, return_us, outcome| Operation {
///     client: 1, invoke_us, op, answer: Some((return_us, outcome)),
/// };
/// let set = at(0, Op::Set("a".into()), 10, Outcome::Done);
/// assert!(check(&[set.clone(), at(20, Op::Get, 30, Outcome::Value(Some("a".into())))], 100).is_ok());
/// assert!(check(&[set, at(20, Op::Get, 30, Outcome::Value(None))], 100).is_err());
/// ```
pub fn check(operations: &[Operation], steps_max: u64) -> Result<(), Failure> {
    Search::new(operations).run(steps_max)
}

/// The value after `op`, if `op` may be answered like this. In doubt any answer will do, but what
/// changes nothing needn't be tried: it explains no more than never having happened.
fn step(value: &Option<Bytes>, op: &Op, outcome: Option<&Outcome>) -> Option<Option<Bytes>> {
    let (after, answer) = match op {
        Op::Get => (value.clone(), Outcome::Value(value.clone())),
        Op::Set(new) => (Some(new.clone()), Outcome::Done),
        Op::Delete => (None, Outcome::Removed(value.is_some())),
        Op::Add(delta) => {
            let sum = number(value)?.checked_add(*delta)?;
            (Some(Bytes::from(sum.to_string())), Outcome::Sum(sum))
        }
        Op::CompareAndSwap { expected, value: new } if expected == value => {
            (Some(new.clone()), Outcome::Swapped(true))
        }
        Op::CompareAndSwap { .. } => (value.clone(), Outcome::Swapped(false)),
    };
    let possible = outcome.map_or(after != *value, |outcome| *outcome == answer);
    possible.then_some(after)
}

fn number(value: &Option<Bytes>) -> Option<i64> {
    match value {
        None => Some(0),
        Some(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
    }
}

/// The beginning or the end of an operation that was answered.
#[derive(Clone, Copy, Debug)]
enum Event {
    Invoke(usize),
    Return(usize),
}

/// A set of operations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Chosen(Vec<u64>);

impl Chosen {
    fn flip(&mut self, operation: usize) {
        self.0[operation / 64] ^= 1 << (operation % 64);
    }

    fn contains(&self, operation: usize) -> bool {
        self.0[operation / 64] & (1 << (operation % 64)) != 0
    }
}

/// Where the search got stuck, by the operations' positions.
struct DeadEnd {
    explained: Vec<usize>,
    value: Option<Bytes>,
    unexplained: usize,
}

/// A point of the search; what is possible from here on depends on nothing else.
#[derive(PartialEq, Eq, Hash)]
struct Configuration {
    chosen: Chosen,
    value: Option<Bytes>,
    /// The value without the last choice, if that was in doubt: it must make a difference.
    without_last: Option<Option<Bytes>>,
}

/// What to try next.
#[derive(Clone, Copy)]
enum Cursor {
    /// The operation that begins at this event.
    At(usize),
    /// An operation in doubt, by its position among them, now that this event blocks the rest.
    /// These come last: most never happened, and each one tried without need doubles the work.
    Doubtful { position: usize, blocked_at: usize },
}

/// One operation of the explanation being built.
struct Choice {
    operation: usize,
    /// Where it was found, to go on from there should it turn out wrong.
    found: Cursor,
    /// The value before it.
    before: Option<Bytes>,
}

/// The search for an explanation: depth first over the answered operations that are not yet
/// explained. Their events are kept in time order in a doubly linked list, so that an operation
/// can be taken out and put back in constant time; what begins before the first end in the list
/// may come next.
struct Search<'h> {
    operations: &'h [Operation],
    events: Vec<Event>,
    /// Links of the list; the last index is its head and its end in one.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where each operation begins and ends, if it was answered.
    bounds: Vec<Option<(usize, usize)>>,
    /// The operations in doubt, by their beginning.
    doubtful: Vec<usize>,
    value: Option<Bytes>,
    chosen: Chosen,
    tried: HashSet<Configuration, Xxh3Builder>,
    path: Vec<Choice>,
}

impl<'h> Search<'h> {
    fn new(operations: &'h [Operation]) -> Search<'h> {
        let mut timed = Vec::with_capacity(operations.len() * 2);
        let mut doubtful = Vec::new();
        for (i, operation) in operations.iter().enumerate() {
            if let Some((return_us, _)) = operation.answer {
                // At the same time beginnings come first: then the operations overlap.
                timed.push((operation.invoke_us, 0, i, Event::Invoke(i)));
                timed.push((return_us, 1, i, Event::Return(i)));
            } else {
                doubtful.push(i);
            }
        }
        timed.sort_by_key(|&(at_us, order, i, _)| (at_us, order, i));
        doubtful.sort_by_key(|&i| operations[i].invoke_us);
        let events: Vec<Event> = timed.into_iter().map(|(.., event)| event).collect();
        let mut begins = vec![0; operations.len()];
        let mut bounds = vec![None; operations.len()];
        for (at, event) in events.iter().enumerate() {
            match *event {
                Event::Invoke(i) => begins[i] = at,
                Event::Return(i) => bounds[i] = Some((begins[i], at)),
            }
        }
        let head = events.len();
        Search {
            operations,
            next: (1..=head).chain([0]).collect(),
            previous: std::iter::once(head).chain(0..head).collect(),
            events,
            bounds,
            doubtful,
            value: None,
            chosen: Chosen(vec![0; operations.len().div_ceil(64)]),
            tried: HashSet::default(),
            path: Vec::new(),
        }
    }

    fn event(&self, at: usize) -> Event {
        self.events[at]
    }

    fn first(&self) -> usize {
        self.next[self.events.len()]
    }

    fn unlink(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn relink(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        self.next[previous] = at;
        self.previous[next] = at;
    }

    /// Takes an operation as the next of the explanation, if its answer fits and this wasn't
    /// tried before.
    fn choose(&mut self, operation: usize, found: Cursor) -> bool {
        let Operation { op, answer, .. } = &self.operations[operation];
        let outcome = answer.as_ref().map(|(_, outcome)| outcome);
        let Some(after) = step(&self.value, op, outcome) else {
            return false;
        };
        // An operation in doubt that makes no difference to the next one explains no more than
        // if it had never happened.
        if let Some(last) = self.path.last()
            && self.is_doubtful(last.operation)
            && (step(&last.before, op, outcome).as_ref() == Some(&after)
                || (self.is_doubtful(operation) && after == last.before))
        {
            return false;
        }
        self.chosen.flip(operation);
        let configuration = Configuration {
            chosen: self.chosen.clone(),
            value: after.clone(),
            without_last: self.is_doubtful(operation).then(|| self.value.clone()),
        };
        if !self.tried.insert(configuration) {
            self.chosen.flip(operation);
            return false;
        }
        let before = std::mem::replace(&mut self.value, after);
        self.path.push(Choice { operation, found, before });
        if let Some((begin, end)) = self.bounds[operation] {
            self.unlink(begin);
            self.unlink(end);
        }
        true
    }

    fn is_doubtful(&self, operation: usize) -> bool {
        self.bounds[operation].is_none()
    }

    /// Takes the last choice back and tells what to try instead.
    fn take_back(&mut self) -> Option<Cursor> {
        let Choice { operation, found, before } = self.path.pop()?;
        self.value = before;
        self.chosen.flip(operation);
        if let Some((begin, end)) = self.bounds[operation] {
            // In the reverse order of their removal.
            self.relink(end);
            self.relink(begin);
        }
        Some(match found {
            Cursor::At(at) => Cursor::At(self.next[at]),
            Cursor::Doubtful { position, blocked_at } => {
                Cursor::Doubtful { position: position + 1, blocked_at }
            }
        })
    }

    fn run(mut self, steps_max: u64) -> Result<(), Failure> {
        let end = self.events.len();
        let mut best: Option<DeadEnd> = None;
        let mut cursor = Cursor::At(self.first());
        let mut steps = 0;
        // Once every answer is explained, those in doubt may all never happen.
        while self.first() != end {
            steps += 1;
            if steps > steps_max {
                return Err(Failure::TooHard);
            }
            cursor = match cursor {
                Cursor::At(at) => match self.event(at) {
                    Event::Invoke(i) if self.choose(i, cursor) => Cursor::At(self.first()),
                    Event::Invoke(_) => Cursor::At(self.next[at]),
                    Event::Return(i) => {
                        self.note_dead_end(&mut best, i);
                        Cursor::Doubtful { position: 0, blocked_at: at }
                    }
                },
                Cursor::Doubtful { position, blocked_at } => {
                    match self.doubtful_begun_before(position, blocked_at) {
                        Some(i) if self.is_first_of_its_kind(position) && self.choose(i, cursor) => {
                            Cursor::At(self.first())
                        }
                        Some(_) => Cursor::Doubtful { position: position + 1, blocked_at },
                        None => match self.take_back() {
                            Some(cursor) => cursor,
                            None => return Err(self.failure(best)),
                        },
                    }
                }
            };
        }
        Ok(())
    }

    /// The operation in doubt at this position, if it may come before the end at `blocked_at`.
    fn doubtful_begun_before(&self, position: usize, blocked_at: usize) -> Option<usize> {
        let &i = self.doubtful.get(position)?;
        let Event::Return(blocking) = self.events[blocked_at] else {
            return None;
        };
        let (return_us, _) = self.operations[blocking].answer.as_ref()?;
        (self.operations[i].invoke_us <= *return_us).then_some(i)
    }

    /// Whether the operation in doubt at this position is free and no earlier free one asks for
    /// the same: which of those took effect makes no difference.
    fn is_first_of_its_kind(&self, position: usize) -> bool {
        let i = self.doubtful[position];
        let same = |&j: &usize| !self.chosen.contains(j) && self.operations[j].op == self.operations[i].op;
        !self.chosen.contains(i) && !self.doubtful[..position].iter().any(same)
    }

    fn note_dead_end(&self, best: &mut Option<DeadEnd>, unexplained: usize) {
        if best.as_ref().is_none_or(|best| self.path.len() > best.explained.len()) {
            let explained = self.path.iter().map(|choice| choice.operation).collect();
            *best = Some(DeadEnd { explained, value: self.value.clone(), unexplained });
        }
    }

    /// The search always gets stuck somewhere before it gives up.
    fn failure(&self, best: Option<DeadEnd>) -> Failure {
        let Some(DeadEnd { explained, value, unexplained }) = best else {
            return Failure::TooHard;
        };
        let operation = |i: usize| self.operations[i].clone();
        Failure::NotLinearizable {
            explained: explained.into_iter().map(operation).collect(),
            value,
            unexplained: Box::new(operation(unexplained)),
        }
    }
}

#[cfg(test)]
#[path = "linearizability_tests.rs"]
mod tests;
