//! What must hold of a history, whatever happened to the cluster. Pure: each check takes records,
//! the reads after the end included, and tells breaches in words.

use super::history::{Action, Load, Outcome, Record};
use bytes::Bytes;
use ringdove::sim::linearizability::{self, Op, Operation};
use std::collections::{BTreeMap, BTreeSet};

/// Steps that the explanation of one key's history may take.
const STEPS_MAX: u64 = 3_000_000;
/// Readings of clocks are rounded to milliseconds at several places.
const ROUNDING_US: u64 = 5_000;
/// Breaches of one kind that are told in words.
const TOLD_MAX: usize = 5;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Promises broken.
    pub breaches: Vec<String>,
    pub acknowledged: usize,
    pub lost: usize,
    pub registers: usize,
    pub nonlinear: usize,
    pub counters_wrong: usize,
    /// Reads of what was deleted or expired, and of what should have been there.
    pub stale: usize,
    pub two_holders: usize,
    /// How far expiry was off at most, in milliseconds.
    pub expiry_error_ms: f64,
    pub in_doubt: usize,
    pub refused: usize,
}

/// How strict to be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How far expiry may be off, for nodes whose clocks disagree.
    pub expiry_us: u64,
    /// When something was wrong with the cluster: what is in doubt must have been under way then.
    pub trouble_us: (u64, u64),
}

impl Findings {
    /// Makes a few of many breaches known.
    fn tell(&mut self, breaches: Vec<String>) -> usize {
        let count = breaches.len();
        self.breaches.extend(breaches.into_iter().take(TOLD_MAX));
        if count > TOLD_MAX {
            self.breaches.push(format!("… {} more of this kind", count - TOLD_MAX));
        }
        count
    }
}

/// Makes all checks.
pub fn check(records: &[Record], bounds: &Bounds) -> Findings {
    let mut found = Findings::default();
    let of = |load: Load| records.iter().filter(move |record| record.load == load);
    let written = |record: &&Record| matches!(record.outcome, Outcome::Done | Outcome::Number(_));
    let is_write = |record: &&Record| record.action != Action::Get;
    found.acknowledged = records.iter().filter(is_write).filter(written).count();
    found.in_doubt =
        records.iter().filter(is_write).filter(|r| matches!(r.outcome, Outcome::Doubt(_))).count();
    found.refused = records.iter().filter(|r| matches!(r.outcome, Outcome::Refused(_))).count();

    let lost = unique(of(Load::Unique));
    found.lost = found.tell(lost);
    let probes = unique_last(of(Load::Probe));
    found.lost += found.tell(probes);
    let counters = by_key(of(Load::Counter)).into_iter().chain(by_key(of(Load::NumberedCounter)));
    let counters = counters.flat_map(|(key, records)| counter(key, &records)).collect();
    found.counters_wrong = found.tell(counters);
    let deleted =
        by_key(of(Load::Delete)).into_iter().flat_map(|(key, records)| delete(key, &records)).collect();
    found.stale = found.tell(deleted);
    let mut error_us = 0;
    let expired = by_key(of(Load::Expiry)).into_iter();
    let expired =
        expired.flat_map(|(key, records)| expiry(key, &records, bounds.expiry_us, &mut error_us)).collect();
    found.stale += found.tell(expired);
    found.expiry_error_ms = error_us as f64 / 1e3;
    let locks = by_key(of(Load::Lock)).into_iter();
    let locks = locks.flat_map(|(key, records)| lock(key, &records, bounds.expiry_us)).collect();
    found.two_holders = found.tell(locks);
    let registers = by_key(of(Load::Register));
    found.registers = registers.len();
    let nonlinear = registers.into_iter().filter_map(|(key, records)| register(key, &records)).collect();
    found.nonlinear = found.tell(nonlinear);
    let untimely = records.iter().filter(is_write).filter_map(|record| doubt(record, bounds)).collect();
    found.tell(untimely);
    found
}

fn by_key<'r>(records: impl Iterator<Item = &'r Record>) -> BTreeMap<&'r str, Vec<&'r Record>> {
    let mut keys = BTreeMap::<_, Vec<_>>::new();
    for record in records {
        keys.entry(record.key.as_str()).or_default().push(record);
    }
    keys
}

/// Every acknowledged write is there in every later read.
fn unique<'r>(records: impl Iterator<Item = &'r Record>) -> Vec<String> {
    let mut breaches = Vec::new();
    for (key, records) in by_key(records) {
        let Some((value, set)) = records.iter().find_map(|record| match &record.action {
            Action::Set(value) if record.outcome == Outcome::Done => Some((value, record)),
            _ => None,
        }) else {
            continue;
        };
        let mut reads = 0;
        for read in records.iter().filter(|read| read.action == Action::Get && read.outcome.is_answer()) {
            reads += 1;
            if read.outcome != Outcome::Value(Some(value.clone())) {
                breaches
                    .push(format!("{key}, acknowledged at {} µs, reads {:?}", set.return_us, read.outcome));
            }
        }
        if reads == 0 {
            breaches.push(format!("{key}, acknowledged at {} µs, can't be read", set.return_us));
        }
    }
    breaches
}

/// Of keys that one client writes again and again: what is read last is the last acknowledged write,
/// or one in doubt after it.
fn unique_last<'r>(records: impl Iterator<Item = &'r Record>) -> Vec<String> {
    let mut breaches = Vec::new();
    for (key, records) in by_key(records) {
        let number = |record: &&&Record| match &record.action {
            Action::Set(value) => value.parse::<u64>().ok(),
            _ => None,
        };
        let done = |record: &&&Record| record.outcome == Outcome::Done;
        let last = records.iter().filter(done).filter_map(|record| number(&record)).max();
        for read in records.iter().filter(|read| read.action == Action::Get) {
            if let Outcome::Value(value) = &read.outcome {
                let value = value.as_ref().and_then(|value| value.parse::<u64>().ok());
                if value < last {
                    breaches.push(format!("{key}: {last:?} was acknowledged, {value:?} is there"));
                }
            }
        }
    }
    breaches
}

/// Acknowledged ≤ value ≤ acknowledged + in doubt, and no two increments led to the same sum.
fn counter(key: &str, records: &[&Record]) -> Vec<String> {
    let (mut acknowledged, mut in_doubt) = (0, 0);
    let mut sums = BTreeSet::new();
    let mut breaches = Vec::new();
    for record in records {
        match (&record.action, &record.outcome) {
            (Action::Add(1), Outcome::Number(sum)) => {
                acknowledged += 1;
                if !sums.insert(*sum) {
                    breaches.push(format!("{key}: two increments led to {sum}"));
                }
            }
            (Action::Add(1), Outcome::Doubt(_)) => in_doubt += 1,
            _ => {}
        }
    }
    for record in records {
        if let (Action::Get, Outcome::Value(value)) = (&record.action, &record.outcome) {
            let value = value.as_ref().map_or(Some(0), |value| value.parse().ok());
            let possible = acknowledged..=acknowledged + in_doubt;
            if !value.is_some_and(|value: i64| possible.contains(&value)) {
                breaches.push(format!("{key}: {value:?} is not within {possible:?}"));
            }
        }
    }
    breaches
}

/// Of keys with one client: what was written is there until deleted, and then never again.
fn delete(key: &str, records: &[&Record]) -> Vec<String> {
    let find = |wanted: fn(&Action) -> bool| records.iter().find(|record| wanted(&record.action));
    let set = find(|action| matches!(action, Action::Set(_)));
    let Some(set) = set.filter(|set| set.outcome == Outcome::Done) else { return Vec::new() };
    let delete = find(|action| *action == Action::Delete);
    let delete = delete.filter(|delete| !matches!(delete.outcome, Outcome::Refused(_)));
    let mut breaches = Vec::new();
    if delete.is_some_and(|delete| delete.outcome == Outcome::Flag(false)) {
        breaches.push(format!("{key}: DEL found nothing"));
    }
    for read in records.iter().filter(|read| read.action == Action::Get) {
        let Outcome::Value(value) = &read.outcome else { continue };
        let is_gone = |delete: &&&Record| delete.outcome.is_answer() && delete.return_us < read.invoke_us;
        let is_there = delete.is_none_or(|delete| read.return_us < delete.invoke_us);
        if delete.as_ref().is_some_and(is_gone) && value.is_some() {
            breaches.push(format!("{key}: read after its delete, at {} µs", read.return_us));
        } else if is_there && set.return_us < read.invoke_us && value.is_none() {
            breaches.push(format!("{key}: gone before its delete, at {} µs", read.return_us));
        }
    }
    breaches
}

/// An entry with a time to live is there until its end and not after. Gives the largest error in
/// `error_us`, and tells those beyond `allowed_us`.
fn expiry(key: &str, records: &[&Record], allowed_us: u64, error_us: &mut u64) -> Vec<String> {
    let mut breaches = Vec::new();
    let Some((set, ttl_us)) = records.iter().find_map(|record| match &record.action {
        Action::SetFor { ttl_ms, .. } if record.outcome == Outcome::Done => Some((record, ttl_ms * 1_000)),
        _ => None,
    }) else {
        return breaches;
    };
    for read in records.iter().filter(|read| read.action == Action::Get && read.invoke_us > set.return_us) {
        let (late_us, what) = match &read.outcome {
            Outcome::Value(Some(_)) => (read.invoke_us.saturating_sub(set.return_us + ttl_us), "still there"),
            Outcome::Value(None) => ((set.invoke_us + ttl_us).saturating_sub(read.return_us), "gone early"),
            _ => continue,
        };
        *error_us = late_us.max(*error_us);
        if late_us > allowed_us + ROUNDING_US {
            breaches
                .push(format!("{key}, ttl {ttl_us} µs: {what} by {late_us} µs, at {} µs", read.return_us));
        }
    }
    breaches
}

/// Tokens grow from one holder to the next, what the lock guards accepts no two with the same, and
/// nobody gets the lock while somebody surely holds it.
fn lock(key: &str, records: &[&Record], allowed_us: u64) -> Vec<String> {
    struct Held<'r> {
        record: &'r Record,
        token: [u64; 3],
        /// It is held from the answer until this.
        surely_until_us: u64,
    }
    let mut held: Vec<Held<'_>> = Vec::new();
    let mut breaches = Vec::new();
    for record in records {
        if let (Action::Lock { lease_ms }, Outcome::Token(token)) = (&record.action, &record.outcome) {
            let unlock = records.iter().find(|later| {
                later.client == record.client
                    && later.action == Action::Unlock
                    && later.invoke_us >= record.return_us
            });
            let lease_end_us = (record.invoke_us + lease_ms * 1_000).saturating_sub(allowed_us + ROUNDING_US);
            let unlock_us = unlock.map_or(u64::MAX, |unlock| unlock.invoke_us);
            held.push(Held { record, token: *token, surely_until_us: lease_end_us.min(unlock_us) });
        }
    }
    let mut holders = BTreeMap::new();
    for record in records {
        if let (Action::Guarded(token), Outcome::Flag(true)) = (&record.action, &record.outcome) {
            let holder = *holders.entry(token).or_insert(record.client);
            if holder != record.client {
                breaches.push(format!(
                    "{key}: {token:?} was accepted from clients {holder} and {}",
                    record.client
                ));
            }
        }
    }
    held.sort_by_key(|held| held.record.return_us);
    for (index, first) in held.iter().enumerate() {
        for second in &held[index + 1..] {
            if first.record.return_us < second.record.invoke_us && second.token <= first.token {
                breaches.push(format!("{key}: {:?} came after {:?}", second.token, first.token));
            }
            if first.record.client != second.record.client
                && first.record.return_us < second.record.invoke_us
                && second.record.return_us < first.surely_until_us
            {
                breaches.push(format!(
                    "{key}: client {} got it at {} µs, while client {} held it",
                    second.record.client, second.record.return_us, first.record.client
                ));
            }
        }
    }
    breaches
}

/// What clients saw of a register can be explained by one copy.
fn register(key: &str, records: &[&Record]) -> Option<String> {
    let bytes = |text: &String| Bytes::from(text.clone());
    let operation = |record: &&Record| {
        let op = match &record.action {
            Action::Get => Op::Get,
            Action::Set(value) => Op::Set(bytes(value)),
            Action::Delete => Op::Delete,
            Action::Swap { expected, value } => {
                Op::CompareAndSwap { expected: expected.as_ref().map(bytes), value: bytes(value) }
            }
            _ => return None,
        };
        let outcome = match &record.outcome {
            Outcome::Done => Some(linearizability::Outcome::Done),
            Outcome::Value(value) => Some(linearizability::Outcome::Value(value.as_ref().map(bytes))),
            Outcome::Flag(done) if op == Op::Delete => Some(linearizability::Outcome::Removed(*done)),
            Outcome::Flag(done) => Some(linearizability::Outcome::Swapped(*done)),
            Outcome::Doubt(_) => None,
            _ => return None,
        };
        let answer = outcome.map(|outcome| (record.return_us, outcome));
        Some(Operation { client: record.client.into(), invoke_us: record.invoke_us, op, answer })
    };
    let operations: Vec<Operation> = records.iter().filter_map(operation).collect();
    linearizability::check(&operations, STEPS_MAX).err().map(|failure| format!("{key}: {failure}"))
}

/// A write is in doubt only if it was under way while something was wrong.
fn doubt(record: &Record, bounds: &Bounds) -> Option<String> {
    let Outcome::Doubt(why) = &record.outcome else { return None };
    let (from_us, to_us) = bounds.trouble_us;
    let timely = record.invoke_us <= to_us && record.return_us >= from_us;
    (!timely)
        .then(|| format!("{} in doubt at {} µs, while all was well: {why}", record.key, record.return_us))
}

/// For how long each of these partitions wasn't served between two times, in seconds: the longest
/// time between two answers to its probes, without the pause between probes.
pub fn unavailable_s(
    records: &[Record],
    partitions: &BTreeSet<u16>,
    window_us: (u64, u64),
    pause_us: u64,
) -> Vec<f64> {
    let mut answers: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for record in
        records.iter().filter(|record| record.load == Load::Probe && record.outcome == Outcome::Done)
    {
        if partitions.contains(&record.client) {
            answers.entry(record.client).or_default().push(record.return_us);
        }
    }
    let (from_us, to_us) = window_us;
    let longest = |mut times: Vec<u64>| {
        times.sort_unstable();
        // What comes after the last answer counts as well.
        times.push(to_us.max(times.last().copied().unwrap_or(from_us)));
        let gaps = times.windows(2).filter(|gap| gap[1] >= from_us && gap[0] <= to_us);
        gaps.map(|gap| (gap[1] - gap[0]).saturating_sub(pause_us)).max().unwrap_or(0) as f64 / 1e6
    };
    answers.into_values().map(longest).collect()
}

/// Milliseconds that probes of these partitions took that were asked for and answered within a time.
pub fn probe_ms(records: &[Record], within_us: (u64, u64), wanted: impl Fn(u16) -> bool) -> Vec<f64> {
    records
        .iter()
        .filter(|record| record.load == Load::Probe && record.action != Action::Get && wanted(record.client))
        .filter(|record| within_us.0 <= record.invoke_us && record.return_us <= within_us.1)
        .map(|record| (record.return_us - record.invoke_us) as f64 / 1e3)
        .collect()
}

/// The value that a share of all are at or below; 0 of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Bounds = Bounds { expiry_us: 0, trouble_us: (0, u64::MAX) };

    fn record(load: Load, client: u16, key: &str, at_us: u64, action: Action, outcome: Outcome) -> Record {
        let key = key.to_owned();
        Record { load, client, node: None, key, action, invoke_us: at_us, return_us: at_us + 10, outcome }
    }

    #[track_caller]
    fn check_that(records: &[Record], breaches: usize) {
        let found = check(records, &CALM).breaches;
        assert_eq!(found.len(), breaches, "{found:?}");
    }

    #[test]
    fn a_lost_write_is_found() {
        let set = record(Load::Unique, 0, "k", 0, Action::Set("v".into()), Outcome::Done);
        let read = |value: Option<&str>| {
            record(Load::Unique, 0, "k", 100, Action::Get, Outcome::Value(value.map(str::to_owned)))
        };
        check_that(&[set.clone(), read(Some("v"))], 0);
        check_that(&[set.clone(), read(None)], 1);
        check_that(&[set.clone(), read(Some("w"))], 1);
        check_that(&[set], 1);
        let doubt = record(Load::Unique, 0, "k", 0, Action::Set("v".into()), Outcome::Doubt(String::new()));
        check_that(&[doubt, read(None)], 0);
    }

    #[test]
    fn a_counter_that_is_off_is_found() {
        let add = |at_us, outcome| record(Load::Counter, 0, "c", at_us, Action::Add(1), outcome);
        let read = |value: &str| {
            record(Load::Counter, 0, "c", 900, Action::Get, Outcome::Value(Some(value.to_owned())))
        };
        let history = [add(0, Outcome::Number(1)), add(20, Outcome::Doubt(String::new()))];
        for (value, breaches) in [("0", 1), ("1", 0), ("2", 0), ("3", 1)] {
            check_that(&[&history[..], &[read(value)]].concat(), breaches);
        }
        check_that(&[add(0, Outcome::Number(1)), add(20, Outcome::Number(1)), read("2")], 1);
    }

    #[test]
    fn what_comes_back_after_its_delete_is_found() {
        let of = |at_us, action, outcome| record(Load::Delete, 0, "d", at_us, action, outcome);
        let set = of(0, Action::Set("v".into()), Outcome::Done);
        let gone = of(100, Action::Delete, Outcome::Flag(true));
        let read =
            |at_us, value: Option<&str>| of(at_us, Action::Get, Outcome::Value(value.map(str::to_owned)));
        check_that(&[set.clone(), read(50, Some("v")), gone.clone(), read(150, None)], 0);
        check_that(&[set.clone(), gone.clone(), read(150, Some("v"))], 1);
        check_that(&[set.clone(), read(50, None), gone], 1);
        check_that(&[set, of(100, Action::Delete, Outcome::Doubt(String::new())), read(150, Some("v"))], 0);
    }

    #[test]
    fn expiry_that_is_late_or_early_is_found() {
        let of = |at_us, action, outcome| record(Load::Expiry, 0, "e", at_us, action, outcome);
        let set = of(0, Action::SetFor { value: "v".into(), ttl_ms: 1_000 }, Outcome::Done);
        let read =
            |at_us, value: Option<&str>| of(at_us, Action::Get, Outcome::Value(value.map(str::to_owned)));
        check_that(&[set.clone(), read(900_000, Some("v")), read(1_100_000, None)], 0);
        check_that(&[set.clone(), read(1_100_000, Some("v"))], 1);
        check_that(&[set, read(900_000, None)], 1);
    }

    #[test]
    fn two_holders_of_a_lock_are_found() {
        let of = |client, at_us, action, outcome| record(Load::Lock, client, "l", at_us, action, outcome);
        let lock = |client, at_us, token| {
            of(client, at_us, Action::Lock { lease_ms: 1_000 }, Outcome::Token([0, 0, token]))
        };
        check_that(&[lock(0, 0, 1), lock(1, 1_100_000, 2)], 0);
        check_that(&[lock(0, 0, 1), lock(1, 500_000, 2)], 1);
        check_that(&[lock(0, 0, 2), lock(1, 1_100_000, 1)], 1);
        let unlock = of(0, 400_000, Action::Unlock, Outcome::Flag(true));
        check_that(&[lock(0, 0, 1), unlock, lock(1, 500_000, 2)], 0);
        let guarded = |client| of(client, 0, Action::Guarded([0, 0, 1]), Outcome::Flag(true));
        check_that(&[guarded(0), guarded(1)], 1);
    }

    #[test]
    fn a_stale_read_of_a_register_is_found() {
        let of = |at_us, action, outcome| record(Load::Register, 0, "r", at_us, action, outcome);
        let set = |at_us, value: &str| of(at_us, Action::Set(value.into()), Outcome::Done);
        let read = |at_us, value: &str| of(at_us, Action::Get, Outcome::Value(Some(value.into())));
        check_that(&[set(0, "a"), set(100, "b"), read(200, "b")], 0);
        check_that(&[set(0, "a"), set(100, "b"), read(200, "a")], 1);
        let swap = Action::Swap { expected: Some("a".into()), value: "c".into() };
        check_that(&[set(0, "a"), set(100, "b"), of(200, swap, Outcome::Flag(true))], 1);
    }

    #[test]
    fn doubt_without_a_cause_is_found() {
        let doubt = record(Load::Counter, 0, "c", 500, Action::Add(1), Outcome::Doubt(String::new()));
        let check_at = |trouble_us| {
            check(std::slice::from_ref(&doubt), &Bounds { expiry_us: 0, trouble_us }).breaches.len()
        };
        assert_eq!(check_at((400, 600)), 0);
        assert_eq!(check_at((600, 700)), 1);
        assert_eq!(check_at((100, 400)), 1);
    }

    #[test]
    fn unavailability_is_the_longest_silence() {
        let probe = |at_us| record(Load::Probe, 7, "p", at_us, Action::Set("1".into()), Outcome::Done);
        let records: Vec<Record> = [0, 1_000_000, 4_000_000, 5_000_000].into_iter().map(probe).collect();
        let found = unavailable_s(&records, &BTreeSet::from([7]), (500_000, 5_000_010), 1_000_000);
        assert_eq!(found, [2.0]);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
    }
}
