//! What is sent: keys, values, their mix, and how much of it.

use smallvec::{SmallVec, smallvec};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// GETs to SETs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    gets: u32,
    sets: u32,
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Ratio, String> {
        let parsed = text
            .split_once(':')
            .and_then(|(gets, sets)| Some(Ratio { gets: gets.parse().ok()?, sets: sets.parse().ok()? }));
        let is_fit = |ratio: &Ratio| (1..=1_000_000).contains(&ratio.gets.saturating_add(ratio.sets));
        parsed.filter(is_fit).ok_or_else(|| format!("`{text}` is not GETS:SETS, such as 9:1 or 0:1"))
    }
}

/// The load.
#[derive(Clone)]
pub struct Plan {
    /// Different keys.
    pub keys: u64,
    /// GETs to SETs.
    pub ratio: Ratio,
    /// What is set.
    pub value: Arc<[u8]>,
    /// How many seconds it lives, in digits, if not for ever.
    pub ttl: Option<Arc<str>>,
    /// Commands a second in all; as many as are answered if there is none.
    pub rate: Option<u64>,
    /// Commands under way at each client.
    pub pipeline: u32,
    /// Clients in all.
    pub clients: u32,
    /// Threads that they are spread over.
    pub threads: u32,
}

impl Plan {
    /// The words of a command on a key.
    pub fn words<'a>(&'a self, op: Op, key: &'a [u8]) -> SmallVec<[&'a [u8]; 5]> {
        match op {
            Op::Get(_) => smallvec![&b"GET"[..], key],
            Op::Set(_) => {
                let mut words: SmallVec<[&[u8]; 5]> = smallvec![&b"SET"[..], key, &self.value[..]];
                words.extend(self.ttl.iter().flat_map(|ttl| [&b"EX"[..], ttl.as_bytes()]));
                words
            }
        }
    }

    /// A small load of one client, for tests.
    #[cfg(test)]
    pub fn sample(ratio: &str) -> Plan {
        Plan {
            keys: 100,
            ratio: ratio.parse().unwrap(),
            value: Arc::from(*b"value"),
            ttl: None,
            rate: None,
            pipeline: 7,
            clients: 1,
            threads: 1,
        }
    }
}

/// A command to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `GET key`.
    Get(u64),
    /// `SET key value`.
    Set(u64),
}

impl Op {
    /// The number of its key.
    pub fn key(self) -> u64 {
        let (Op::Get(key) | Op::Set(key)) = self;
        key
    }
}

/// How much is sent in all, shared by the clients.
pub struct Budget {
    left: AtomicU64,
    deadline: Option<Instant>,
    fills: bool,
}

impl Budget {
    /// So many commands.
    pub fn requests(count: u64) -> Budget {
        Budget { left: AtomicU64::new(count), deadline: None, fills: false }
    }

    /// As many as fit into this time, from now on.
    pub fn time(span: Duration) -> Budget {
        Budget { deadline: Some(Instant::now() + span), ..Budget::requests(u64::MAX) }
    }

    /// One SET of every key.
    pub fn fill(keys: u64) -> Budget {
        Budget { fills: true, ..Budget::requests(keys) }
    }

    /// Takes up to `count` commands out; 0 when all is spent. For a fill also the number of the
    /// first of them, counted down from the last key.
    fn take(&self, count: u32) -> (u32, u64) {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return (0, 0);
        }
        if self.deadline.is_some() {
            return (count, 0);
        }
        let take = |left: u64| Some(left - left.min(count.into()));
        // `take` never gives `None`, so both arms hold what was left.
        let (Ok(left) | Err(left)) = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        (left.min(count.into()) as u32, left)
    }
}

/// A client's source of commands.
pub struct Ops {
    random: u64,
}

impl Ops {
    /// Clients with different seeds send different commands.
    pub fn new(seed: u64) -> Ops {
        Ops { random: seed }
    }

    /// The next batch, of keys that `is_served`; empty when the budget is spent. There must be such keys.
    pub fn next_batch(
        &mut self,
        plan: &Plan,
        budget: &Budget,
        is_served: impl Fn(u64) -> bool,
        batch: &mut Vec<Op>,
    ) {
        batch.clear();
        // Of the keys that a fill takes out, some may be left out.
        while batch.len() < plan.pipeline as usize {
            let (count, left) = budget.take(plan.pipeline - batch.len() as u32);
            if count == 0 {
                return;
            }
            if budget.fills {
                let keys = (left - u64::from(count)..left).rev();
                batch.extend(keys.filter(|&key| is_served(key)).map(Op::Set));
            } else {
                batch.extend((0..count).map(|_| self.op(plan, &is_served)));
            }
        }
    }

    fn op(&mut self, plan: &Plan, is_served: impl Fn(u64) -> bool) -> Op {
        let key = loop {
            let key = self.random() % plan.keys;
            if is_served(key) {
                break key;
            }
        };
        let Ratio { gets, sets } = plan.ratio;
        if self.random() % u64::from(gets + sets) < u64::from(gets) { Op::Get(key) } else { Op::Set(key) }
    }

    /// Anything from 0 to 1, all as likely.
    pub fn fraction(&mut self) -> f64 {
        self.random() as f64 / u64::MAX as f64
    }

    /// splitmix64 (Steele, Lea, Flood 2014): fast, and even enough to choose keys with.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The 16 bytes of a key.
pub fn key_bytes(key: u64) -> [u8; 16] {
    let mut bytes = *b"key:000000000000";
    let mut rest = key;
    for digit in bytes[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios() {
        for text in ["", "1", "0:0", "a:b", "1:-1", "4294967295:4294967295"] {
            assert!(text.parse::<Ratio>().is_err(), "{text}");
        }
        let (mut ops, plan) = (Ops::new(1), Plan::sample("3:1"));
        let gets = (0..10_000).filter(|_| matches!(ops.op(&plan, |_| true), Op::Get(_))).count();
        assert!((7_300..7_700).contains(&gets), "{gets}");
    }

    #[test]
    fn a_budget_is_spent_exactly() {
        let (mut ops, plan, budget, mut batch) =
            (Ops::new(1), Plan::sample("1:1"), Budget::requests(100), Vec::new());
        let mut sent = 0;
        loop {
            ops.next_batch(&plan, &budget, |key| key % 3 == 0, &mut batch);
            if batch.is_empty() {
                break;
            }
            assert!(batch.iter().all(|op| op.key() % 3 == 0));
            sent += batch.len();
        }
        assert_eq!(sent, 100);
    }

    #[test]
    fn a_fill_sets_every_key_that_is_served_once() {
        let filled = |is_served: fn(u64) -> bool| {
            let (mut ops, plan, budget, mut batch) =
                (Ops::new(1), Plan::sample("1:0"), Budget::fill(100), Vec::new());
            let mut keys = Vec::new();
            loop {
                ops.next_batch(&plan, &budget, is_served, &mut batch);
                if batch.is_empty() {
                    break;
                }
                assert!(batch.iter().all(|op| matches!(op, Op::Set(_))));
                keys.extend(batch.iter().map(|op| op.key()));
            }
            keys.sort_unstable();
            keys
        };
        assert_eq!(filled(|_| true), (0..100).collect::<Vec<_>>());
        assert_eq!(filled(|key| key % 40 == 3), [3, 43, 83]);
    }

    #[test]
    fn values_live_as_long_as_asked() {
        let (plan, key) = (Plan::sample("1:1"), key_bytes(1));
        assert_eq!(plan.words(Op::Set(1), &key).as_slice(), [&b"SET"[..], &key, b"value"]);
        let plan = Plan { ttl: Some("60".into()), ..plan };
        assert_eq!(plan.words(Op::Set(1), &key).as_slice(), [&b"SET"[..], &key, b"value", b"EX", b"60"]);
        assert_eq!(plan.words(Op::Get(1), &key).as_slice(), [&b"GET"[..], &key]);
    }

    #[test]
    fn keys_have_sixteen_bytes() {
        assert_eq!(&key_bytes(42), b"key:000000000042");
        assert_eq!(&key_bytes(999_999_999_999), b"key:999999999999");
    }
}
