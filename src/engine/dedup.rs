//! Exactly-once: what a partition remembers of the writes that clients may send again.
//!
//! A client numbers its writes *per partition*, densely, and repeats the number when it sends a
//! write again. The primary [`check`](DedupTable::check)s the tag before it executes and
//! [`record`](DedupTable::record)s the reply afterwards; the update travels to the backups next to
//! the write's records, so a new primary knows as much as the old one did. A write without effect
//! (a compare-and-swap that lost, an error) need not be recorded: to run it again is to run it once.
//!
//! Memory is bounded, so things are forgotten, and then the table must not guess:
//!
//! - below what the client itself acknowledged, a reply is gone and the request is
//!   [`Verdict::Forgotten`];
//! - a reply that was too long to keep, or may be to a write that was replaced
//!   ([`forget_replies`](DedupTable::forget_replies)), is gone, but that its request ran is known;
//! - a client that was forgotten altogether leaves a trace, the *forgetting time*: the latest last
//!   use of any forgotten client. A request that was first sent after it, or after its client was
//!   (again) remembered, can't have run unnoticed ([`Verdict::Fresh`]); one that is older than both
//!   might have ([`Verdict::Forgotten`]). Ages are durations measured by the client, times are readings of the
//!   partition's hybrid clock, which never goes back; no two machines' clocks are compared.
//!
//! A forgotten request is answered as in doubt, never executed again.

use super::ids::ClientId;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// The most writes of one client to one partition whose replies are kept.
pub const WINDOW_MAX: usize = 1_024;
/// Replies longer than this are not kept: a repeated request for one is in doubt. Bytes.
pub const REPLY_BYTES_MAX: usize = 64 << 10;

/// Idle clients forgotten with each update at most, so that no write pays for many.
const FORGET_BATCH: usize = 4;
/// What a client costs besides its replies, roughly, in bytes.
const CLIENT_BYTES: usize = 128;
/// What a kept reply costs besides its bytes, roughly.
const ENTRY_BYTES: usize = 40;

/// The mark of a write that may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTag {
    /// Who.
    pub client: ClientId,
    /// Which: numbered from 0 by the client, one sequence a partition.
    pub request: u64,
    /// The client has the answers of all its requests to this partition below this one.
    pub acknowledged_below: u64,
    /// How long ago the client first sent this request, in milliseconds.
    pub age_ms: u32,
}

/// What a table may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupLimits {
    /// Clients remembered.
    pub clients_max: usize,
    /// Bytes of replies and bookkeeping; an encoded table is no longer than this and 16 bytes.
    pub bytes_max: usize,
    /// Clients unused for so long are forgotten. Must exceed any client's deadline by far.
    pub idle_ms: u64,
    /// How much longer ago than its age says a request may have been sent: what it spends on the
    /// way and parked in nodes. Milliseconds.
    pub age_margin_ms: u64,
}

impl Default for DedupLimits {
    fn default() -> DedupLimits {
        DedupLimits { clients_max: 65_536, bytes_max: 4 << 20, idle_ms: 600_000, age_margin_ms: 30_000 }
    }
}

/// Whether a tagged write may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It has not run: execute it and [`record`](DedupTable::record) it.
    Fresh,
    /// It has run, and this was the reply. To be released as a read of the key would be: once the
    /// key's last write is committed.
    Duplicate(&'a [u8]),
    /// It may have run; the reply is gone. Answer that it is in doubt.
    Forgotten,
}

/// One change of a table, as it travels next to the records of its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupUpdate<'a> {
    /// Who.
    pub client: ClientId,
    /// Which of its writes ran.
    pub request: u64,
    /// What the client has acknowledged.
    pub acknowledged_below: u64,
    /// The reading of the partition's hybrid clock at the write, in wall milliseconds.
    pub at_ms: u64,
    /// The reply, as RESP3.
    pub reply: &'a [u8],
}

/// The bytes are not what this module encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("exactly-once state that doesn't decode")]
pub struct DedupDecodeError;

/// What one partition remembers of its clients' writes.
#[derive(Clone, Debug)]
pub struct DedupTable {
    limits: DedupLimits,
    clients: BTreeMap<ClientId, Window>,
    /// The clients by last use.
    by_use: BTreeSet<(u64, ClientId)>,
    bytes: usize,
    /// The latest last use of any client forgotten; `None` if none ever was.
    forgot_ms: Option<u64>,
}

/// What is remembered of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Window {
    /// All requests that ran after this are noted here (or below the floor).
    since_ms: u64,
    used_ms: u64,
    /// Requests below this are forgotten.
    floor: u64,
    /// The requests that ran, ascending, all at or above `floor`.
    ran: Vec<(u64, Reply)>,
}

/// A kept reply; most are a few bytes. Empty, as no reply is, if only that the request ran is known.
type Reply = SmallVec<[u8; 16]>;

/// What is kept of a reply: all or nothing.
fn kept(reply: &[u8]) -> &[u8] {
    if reply.len() > REPLY_BYTES_MAX { &[] } else { reply }
}

impl DedupTable {
    /// An empty table.
    pub fn new(limits: DedupLimits) -> DedupTable {
        DedupTable { limits, clients: BTreeMap::new(), by_use: BTreeSet::new(), bytes: 0, forgot_ms: None }
    }

    /// Whether the write may run. `now_ms` is the reading of the partition's hybrid clock in wall
    /// milliseconds, or of the wall clock if that is higher.
    pub fn check(&self, tag: &RequestTag, now_ms: u64) -> Verdict<'_> {
        let window = self.clients.get(&tag.client);
        if let Some(window) = window {
            if tag.request < window.floor {
                return Verdict::Forgotten;
            }
            if let Ok(at) = window.find(tag.request) {
                let reply = &window.ran[at].1;
                return if reply.is_empty() { Verdict::Forgotten } else { Verdict::Duplicate(reply) };
            }
        }
        let sent_ms = now_ms.saturating_sub(u64::from(tag.age_ms) + self.limits.age_margin_ms);
        let known = window.is_some_and(|window| sent_ms > window.since_ms);
        let might_have_run = !known && self.forgot_ms.is_some_and(|forgot_ms| sent_ms <= forgot_ms);
        if might_have_run { Verdict::Forgotten } else { Verdict::Fresh }
    }

    /// Takes note that a write ran: at the primary when it executes, at the other copies when the
    /// update arrives. To record the same update twice changes nothing.
    pub fn record(&mut self, update: &DedupUpdate<'_>) {
        self.touch(update.client, update.at_ms, update.at_ms);
        self.note(update);
        self.forget_idle(update.at_ms, FORGET_BATCH);
        self.keep_bounds(update.client);
    }

    /// Enters a request of a known client.
    fn note(&mut self, update: &DedupUpdate<'_>) {
        self.acknowledge(update.client, update.acknowledged_below);
        let Some(window) = self.clients.get_mut(&update.client) else { return };
        if update.request < window.floor {
            return;
        }
        let reply = kept(update.reply);
        match window.find(update.request) {
            Ok(at) if window.ran[at].1.is_empty() => window.ran[at].1 = Reply::from_slice(reply),
            Ok(_) => return,
            Err(at) => {
                window.ran.insert(at, (update.request, Reply::from_slice(reply)));
                self.bytes += ENTRY_BYTES;
            }
        }
        self.bytes += reply.len();
        if window.ran.len() > WINDOW_MAX {
            let oldest = window.ran[0].0;
            self.bytes -= window.raise_floor(oldest.saturating_add(1));
        }
    }

    /// Forgets all replies, but not that the requests ran: to repeat one is in doubt, until another
    /// copy's state is [merged](DedupTable::merge) that knows its reply.
    pub fn forget_replies(&mut self) {
        for (_, reply) in self.clients.values_mut().flat_map(|window| &mut window.ran) {
            self.bytes -= reply.len();
            *reply = Reply::new();
        }
    }

    /// Drops the replies of a client's requests below `below`; it has them.
    pub fn acknowledge(&mut self, client: ClientId, below: u64) {
        if let Some(window) = self.clients.get_mut(&client) {
            self.bytes -= window.raise_floor(below);
        }
    }

    /// Forgets at most `count_max` clients that were last used more than the idle time before
    /// `now_ms`; says how many. A copy may do so on its own: its verdicts stay sound.
    pub fn forget_idle(&mut self, now_ms: u64, count_max: usize) -> usize {
        let mut forgotten = 0;
        while forgotten < count_max
            && let Some(&(used_ms, client)) = self.by_use.first()
            && used_ms.saturating_add(self.limits.idle_ms) < now_ms
        {
            self.forget(client);
            forgotten += 1;
        }
        forgotten
    }

    /// Clients remembered.
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Bytes taken by replies and bookkeeping, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything, as when the partition is given up or begins empty.
    pub fn clear(&mut self) {
        *self = DedupTable::new(self.limits);
    }

    /// Takes up another copy's state, as from a snapshot; what this one knows beyond it (from
    /// updates that overtook the snapshot) stays, and replies forgotten here are known again.
    pub fn merge(&mut self, other: &DedupTable) {
        self.forgot_ms = self.forgot_ms.max(other.forgot_ms);
        for (&client, window) in &other.clients {
            self.touch(client, window.since_ms, window.used_ms);
            self.acknowledge(client, window.floor);
            for (request, reply) in &window.ran {
                self.note(&DedupUpdate {
                    client,
                    request: *request,
                    acknowledged_below: window.floor,
                    at_ms: window.used_ms,
                    reply,
                });
            }
            self.keep_bounds(client);
        }
    }

    /// Appends the whole table, for a snapshot.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // Zero is "never forgot", so a time is written plus one.
        let forgot = self.forgot_ms.map_or(0, |ms| ms.saturating_add(1));
        out.extend_from_slice(&forgot.to_le_bytes());
        out.extend_from_slice(&(self.clients.len() as u32).to_le_bytes());
        for (client, window) in &self.clients {
            for number in [client.0, window.since_ms, window.used_ms, window.floor] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&(window.ran.len() as u32).to_le_bytes());
            for (request, reply) in &window.ran {
                out.extend_from_slice(&request.to_le_bytes());
                out.extend_from_slice(&(reply.len() as u32).to_le_bytes());
                out.extend_from_slice(reply);
            }
        }
    }

    /// Reads a whole table back. Its bounds are those of `limits`, whatever the bytes hold.
    ///
    /// # Errors
    /// If the bytes aren't a table.
    pub fn decode(bytes: &[u8], limits: DedupLimits) -> Result<DedupTable, DedupDecodeError> {
        let mut table = DedupTable::new(limits);
        let mut rest = Rest(bytes);
        table.forgot_ms = rest.u64()?.checked_sub(1);
        for _ in 0..rest.u32()? {
            let client = ClientId(rest.u64()?);
            let (since_ms, used_ms, floor) = (rest.u64()?, rest.u64()?, rest.u64()?);
            table.touch(client, since_ms, used_ms);
            table.acknowledge(client, floor);
            for _ in 0..rest.u32()? {
                table.note(&DedupUpdate {
                    client,
                    request: rest.u64()?,
                    acknowledged_below: floor,
                    at_ms: used_ms,
                    reply: rest.bytes()?,
                });
            }
            table.keep_bounds(client);
        }
        if rest.0.is_empty() { Ok(table) } else { Err(DedupDecodeError) }
    }

    /// Makes sure that a client is known since `since_ms` and was used at `at_ms`.
    fn touch(&mut self, client: ClientId, since_ms: u64, at_ms: u64) {
        let window = self.clients.entry(client).or_insert_with(|| {
            self.bytes += CLIENT_BYTES;
            Window { since_ms, used_ms: at_ms, ..Window::default() }
        });
        self.by_use.remove(&(window.used_ms, client));
        window.since_ms = window.since_ms.min(since_ms);
        window.used_ms = window.used_ms.max(at_ms);
        self.by_use.insert((window.used_ms, client));
    }

    /// Forgets the least recently used clients until the bounds hold, `spared` last and never
    /// whole.
    fn keep_bounds(&mut self, spared: ClientId) {
        while self.clients.len() > self.limits.clients_max || self.bytes > self.limits.bytes_max {
            let oldest = self.by_use.iter().map(|&(_, client)| client).find(|&client| client != spared);
            if let Some(client) = oldest {
                self.forget(client);
                continue;
            }
            let Some(window) = self.clients.get_mut(&spared) else { return };
            let Some(&(oldest, _)) = window.ran.first() else { return };
            self.bytes -= window.raise_floor(oldest.saturating_add(1));
        }
    }

    fn forget(&mut self, client: ClientId) {
        if let Some(mut window) = self.clients.remove(&client) {
            self.by_use.remove(&(window.used_ms, client));
            self.bytes -= window.raise_floor(u64::MAX) + CLIENT_BYTES;
            self.forgot_ms = self.forgot_ms.max(Some(window.used_ms));
        }
    }
}

impl Window {
    fn find(&self, request: u64) -> Result<usize, usize> {
        // New requests mostly come in order: look at the end first.
        match self.ran.last() {
            Some(&(last, _)) if last < request => Err(self.ran.len()),
            None => Err(0),
            _ => self.ran.binary_search_by_key(&request, |&(ran, _)| ran),
        }
    }

    /// Drops the replies below `floor`; says how many bytes that frees.
    fn raise_floor(&mut self, floor: u64) -> usize {
        self.floor = self.floor.max(floor);
        let below = self.ran.partition_point(|&(request, _)| request < self.floor);
        self.ran.drain(..below).map(|(_, reply)| ENTRY_BYTES + reply.len()).sum()
    }
}

impl<'a> DedupUpdate<'a> {
    /// The update of a write that just ran. A reply that is too long to keep doesn't travel either.
    pub fn of(tag: &RequestTag, at_ms: u64, reply: &'a [u8]) -> DedupUpdate<'a> {
        DedupUpdate {
            client: tag.client,
            request: tag.request,
            acknowledged_below: tag.acknowledged_below,
            at_ms,
            reply: kept(reply),
        }
    }

    /// Appends the update: 36 bytes and the reply.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.client.0, self.request, self.acknowledged_below, self.at_ms] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&(self.reply.len() as u32).to_le_bytes());
        out.extend_from_slice(self.reply);
    }

    /// Reads an update from the start of `bytes`; says how many bytes it took.
    ///
    /// # Errors
    /// If there is none.
    pub fn decode(bytes: &'a [u8]) -> Result<(DedupUpdate<'a>, usize), DedupDecodeError> {
        let mut rest = Rest(bytes);
        let update = DedupUpdate {
            client: ClientId(rest.u64()?),
            request: rest.u64()?,
            acknowledged_below: rest.u64()?,
            at_ms: rest.u64()?,
            reply: rest.bytes()?,
        };
        Ok((update, bytes.len() - rest.0.len()))
    }
}

/// What is left of the bytes while they are decoded.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DedupDecodeError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(DedupDecodeError)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u32(&mut self) -> Result<u32, DedupDecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, DedupDecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], DedupDecodeError> {
        let length = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(DedupDecodeError)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const ALICE: ClientId = ClientId(1);
    const BOB: ClientId = ClientId(2);

    fn table() -> DedupTable {
        DedupTable::new(DedupLimits::default())
    }

    fn tag(client: ClientId, request: u64) -> RequestTag {
        RequestTag { client, request, acknowledged_below: 0, age_ms: 0 }
    }

    fn run(table: &mut DedupTable, client: ClientId, request: u64, at_ms: u64, reply: &[u8]) {
        table.record(&DedupUpdate::of(&tag(client, request), at_ms, reply));
    }

    fn encoded(table: &DedupTable) -> Vec<u8> {
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_repeated_request_gets_the_first_reply() {
        let mut table = table();
        assert_eq!(table.check(&tag(ALICE, 0), 1_000), Verdict::Fresh);
        run(&mut table, ALICE, 0, 1_000, b":1\r\n");
        run(&mut table, ALICE, 0, 1_001, b":2\r\n");
        assert_eq!(table.check(&tag(ALICE, 0), 1_002), Verdict::Duplicate(b":1\r\n"));
        assert_eq!(table.check(&tag(ALICE, 1), 1_002), Verdict::Fresh);
        assert_eq!(table.check(&tag(BOB, 0), 1_002), Verdict::Fresh);
    }

    #[test]
    fn what_is_acknowledged_is_forgotten() {
        let mut table = table();
        for request in 0..4 {
            run(&mut table, ALICE, request, 1, b"+OK\r\n");
        }
        table.acknowledge(ALICE, 2);
        assert_eq!(table.check(&tag(ALICE, 1), 1), Verdict::Forgotten);
        assert_eq!(table.check(&tag(ALICE, 2), 1), Verdict::Duplicate(b"+OK\r\n"));
        table.acknowledge(ALICE, 0);
        assert_eq!(table.check(&tag(ALICE, 1), 1), Verdict::Forgotten, "the floor never sinks");
    }

    #[test]
    fn a_window_is_bounded() {
        let mut table = table();
        for request in 0..2 * WINDOW_MAX as u64 {
            run(&mut table, ALICE, request, 1, b"+OK\r\n");
        }
        assert_eq!(table.clients[&ALICE].ran.len(), WINDOW_MAX);
        assert_eq!(table.check(&tag(ALICE, 5), 1), Verdict::Forgotten);
    }

    #[test]
    fn a_reply_too_long_to_keep_is_in_doubt_not_run_again() {
        let mut table = table();
        run(&mut table, ALICE, 0, 1, &vec![b'x'; REPLY_BYTES_MAX + 1]);
        assert_eq!(table.check(&tag(ALICE, 0), 1), Verdict::Forgotten);
        assert_eq!(table.check(&tag(ALICE, 1), 1), Verdict::Fresh);
    }

    #[test]
    fn a_forgotten_clients_old_request_is_in_doubt_and_its_new_one_is_not() {
        let mut table = table();
        run(&mut table, ALICE, 0, 1_000, b"+OK\r\n");
        let later = 1_000 + table.limits.idle_ms + 1;
        assert_eq!(table.forget_idle(later - 1, 10), 0);
        assert_eq!(table.forget_idle(later, 10), 1);
        let mut again = tag(ALICE, 0);
        again.age_ms = u32::try_from(later - 1_000).expect("small");
        assert_eq!(table.check(&again, later), Verdict::Forgotten);
        assert_eq!(table.check(&tag(ALICE, 1), later), Verdict::Fresh);
        assert_eq!(table.check(&tag(BOB, 0), later), Verdict::Fresh);
    }

    #[test]
    fn a_client_remembered_again_is_still_in_doubt_about_what_it_sent_before() {
        let limits = DedupLimits { clients_max: 1, age_margin_ms: 0, ..DedupLimits::default() };
        let mut table = DedupTable::new(limits);
        run(&mut table, ALICE, 5, 1_000, b"+OK\r\n");
        run(&mut table, BOB, 0, 2_000, b"+OK\r\n");
        run(&mut table, ALICE, 6, 3_000, b"+OK\r\n");
        let mut again = tag(ALICE, 5);
        again.age_ms = 3_000;
        assert_eq!(table.check(&again, 4_000), Verdict::Forgotten);
        assert_eq!(table.check(&tag(ALICE, 7), 4_000), Verdict::Fresh);
    }

    #[test]
    fn the_least_recently_used_client_makes_room() {
        let mut table = DedupTable::new(DedupLimits { clients_max: 2, ..DedupLimits::default() });
        run(&mut table, ALICE, 0, 100_000, b"+OK\r\n");
        run(&mut table, BOB, 0, 100_001, b"+OK\r\n");
        run(&mut table, ALICE, 1, 100_002, b"+OK\r\n");
        run(&mut table, ClientId(3), 0, 100_003, b"+OK\r\n");
        assert_eq!(table.client_count(), 2);
        assert_eq!(table.check(&tag(BOB, 0), 100_004), Verdict::Forgotten);
        assert_eq!(table.check(&tag(ALICE, 1), 100_004), Verdict::Duplicate(b"+OK\r\n"));
    }

    #[test]
    fn bytes_are_bounded_even_for_a_lone_client() {
        let limits = DedupLimits { bytes_max: 10_000, ..DedupLimits::default() };
        let mut table = DedupTable::new(limits);
        for request in 0..100 {
            run(&mut table, ALICE, request, 1, &[b'x'; 1_000]);
            assert!(table.bytes() <= 10_000);
        }
        assert_eq!(table.check(&tag(ALICE, 99), 1), Verdict::Duplicate(&[b'x'; 1_000]));
        table.acknowledge(ALICE, 100);
        assert_eq!(table.bytes(), CLIENT_BYTES);
    }

    #[test]
    fn a_snapshot_merges_under_newer_updates() {
        let mut source = table();
        run(&mut source, ALICE, 0, 1, b"a");
        run(&mut source, BOB, 7, 2, b"b");
        let snapshot = DedupTable::decode(&encoded(&source), DedupLimits::default()).unwrap();
        let mut learner = table();
        run(&mut learner, ALICE, 1, 3, b"c");
        learner.merge(&snapshot);
        run(&mut source, ALICE, 1, 3, b"c");
        assert_eq!(encoded(&learner), encoded(&source));
    }

    #[test]
    fn forgotten_replies_are_in_doubt_until_a_copy_that_knows_them_is_merged() {
        let mut table = table();
        run(&mut table, ALICE, 0, 1, b":53");
        run(&mut table, ALICE, 2, 2, b"another's");
        table.forget_replies();
        assert_eq!(table.bytes(), CLIENT_BYTES + 2 * ENTRY_BYTES);
        let mut other = self::table();
        run(&mut other, ALICE, 2, 3, b":54");
        table.merge(&DedupTable::decode(&encoded(&other), DedupLimits::default()).unwrap());
        assert_eq!(table.check(&tag(ALICE, 0), 4), Verdict::Forgotten);
        assert_eq!(table.check(&tag(ALICE, 1), 4), Verdict::Fresh, "it never ran");
        assert_eq!(table.check(&tag(ALICE, 2), 4), Verdict::Duplicate(b":54"));
        let copy = DedupTable::decode(&encoded(&table), DedupLimits::default()).unwrap();
        assert_eq!(copy.check(&tag(ALICE, 0), 4), Verdict::Forgotten);
        assert_eq!(copy.bytes(), table.bytes());
    }

    #[derive(Clone, Debug)]
    struct Step {
        client: u64,
        request: u64,
        acknowledged_below: u64,
        elapsed_ms: u64,
        reply: Vec<u8>,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0..6u64, 0..12u64, 0..4u64, 0..400u64, vec(any::<u8>(), 1..30)).prop_map(
            |(client, request, behind, elapsed_ms, reply)| Step {
                client,
                request,
                acknowledged_below: request.saturating_sub(behind),
                elapsed_ms,
                reply,
            },
        );
        vec(step, 0..80)
    }

    proptest! {
        /// The heart of it: under tight bounds, whatever is forgotten, nothing runs twice.
        #[test]
        fn nothing_runs_twice(steps in steps()) {
            let limits = DedupLimits { clients_max: 3, bytes_max: 900, idle_ms: 2_000, age_margin_ms: 0 };
            let mut table = DedupTable::new(limits);
            let mut backup = DedupTable::new(limits);
            let mut ran: BTreeMap<(u64, u64), (u64, Vec<u8>)> = BTreeMap::new();
            let mut now_ms = 1_000_000;
            for step in steps {
                now_ms += step.elapsed_ms;
                let first = ran.get(&(step.client, step.request));
                let tag = RequestTag {
                    client: ClientId(step.client),
                    request: step.request,
                    acknowledged_below: step.acknowledged_below,
                    age_ms: first.map_or(0, |(at_ms, _)| (now_ms - at_ms) as u32),
                };
                match table.check(&tag, now_ms) {
                    Verdict::Fresh => {
                        prop_assert!(first.is_none(), "ran twice");
                        let update = DedupUpdate::of(&tag, now_ms, &step.reply);
                        table.record(&update);
                        let mut bytes = Vec::new();
                        update.encode(&mut bytes);
                        let (decoded, taken) = DedupUpdate::decode(&bytes).unwrap();
                        prop_assert_eq!(taken, bytes.len());
                        backup.record(&decoded);
                        ran.insert((step.client, step.request), (now_ms, step.reply));
                    }
                    Verdict::Duplicate(reply) => {
                        prop_assert_eq!(Some(reply), first.map(|(_, reply)| &reply[..]));
                    }
                    Verdict::Forgotten => {}
                }
                prop_assert!(table.bytes() <= limits.bytes_max);
                prop_assert!(encoded(&table).len() <= table.bytes() + 16);
                prop_assert!(table.client_count() <= limits.clients_max);
                prop_assert_eq!(encoded(&table), encoded(&backup));
            }
            let copy = DedupTable::decode(&encoded(&table), limits).unwrap();
            prop_assert_eq!(encoded(&copy), encoded(&table));
            prop_assert_eq!(copy.bytes(), table.bytes());
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = DedupTable::decode(&bytes, DedupLimits::default());
            let _ = DedupUpdate::decode(&bytes);
        }
    }
}
