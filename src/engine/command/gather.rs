//! Commands in parts: which sub-commands to run, and how their replies become one.

use super::refusal::Refusal;
use super::scan::ScanArgs;
use super::spec::{CommandSpec, Gathering};
use crate::engine::ids::{PartitionId, Slot};
use crate::engine::resp::{Proto, Reply, ReplyLimits, ReplyWriter};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::Range;

/// Parts under way at a time.
const WINDOW: usize = 1_024;
/// The most partitions asked at once by what goes on until it has found enough.
const WAVE_MAX: usize = 64;
/// The longest reply that is put together.
const REPLY_BYTES_MAX: usize = 512 << 20;
/// Bits of a SCAN cursor below those that name the partition.
const CURSOR_BITS: u32 = 48;

/// One part of a command, to be run at the primary of its partition.
#[derive(Debug)]
pub struct Sub<'g> {
    /// Which part: what [`Gather::on_reply`] wants back with the reply.
    pub index: u32,
    /// What to run.
    pub spec: &'static CommandSpec,
    /// Where.
    pub partition: PartitionId,
    /// Name and arguments.
    pub args: SmallVec<[&'g [u8]; 8]>,
}

/// What follows a part's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Other parts are under way.
    Wait,
    /// [`Gather::next_sub`] has more parts.
    Submit,
    /// [`Gather::write_reply`] has the reply.
    Done,
}

/// A command in parts, from its first sub-command to its reply.
///
/// Take sub-commands with [`Gather::next_sub`] until it has none for now, hand every reply to
/// [`Gather::on_reply`] exactly once, and do what the returned [`Step`] says. The first error that
/// any part replies becomes the reply, once all parts under way have ended.
#[derive(Debug)]
pub struct Gather {
    spec: &'static CommandSpec,
    proto: Proto,
    partition_count: u16,
    /// Name and arguments, end to end.
    text: Vec<u8>,
    args: Vec<Range<usize>>,
    /// Parts handed out, and those of them that replied.
    submitted: u32,
    replied: u32,
    error: Option<Vec<u8>>,
    parts: Parts,
}

#[derive(Debug)]
enum Parts {
    /// A fixed number of parts that don't depend on each other.
    Fixed { total: u32, per_key: bool, gathered: Gathered },
    /// Partitions asked in waves until one has a value.
    FirstValue { wave: Wave, value: Option<Vec<u8>> },
    /// Partitions asked in waves until enough entries were looked at.
    Scan { wave: Wave, scan: Box<Scan> },
}

#[derive(Debug)]
enum Gathered {
    Sum(i64),
    AllOk,
    /// Entries so far, their bytes, and replies that came before their turn.
    Concat {
        entries: usize,
        body: Vec<u8>,
        turn: u32,
        early: BTreeMap<u32, Vec<u8>>,
    },
}

/// Consecutive partitions that are asked at once.
#[derive(Debug)]
struct Wave {
    /// The first part of this wave.
    first: u32,
    /// Its partition: parts map to partitions from there, wrapping around.
    partition: u16,
    /// Partitions from `partition` on that are still to be asked, this wave included.
    left: usize,
    replies: Vec<Option<Vec<u8>>>,
}

impl Wave {
    fn new(partition: u16, left: usize) -> Wave {
        Wave { first: 0, partition, left, replies: vec![None] }
    }

    fn len(&self) -> usize {
        self.replies.len()
    }

    /// Moves on by `passed` partitions to a wave of `len`, or as many as are left. False at the end.
    fn advance(&mut self, passed: usize, len: usize, partition_count: u16) -> bool {
        self.first += self.len() as u32;
        self.partition = ((usize::from(self.partition) + passed) % usize::from(partition_count)) as u16;
        self.left -= passed;
        self.replies = vec![None; len.min(self.left)];
        self.left > 0
    }
}

#[derive(Debug)]
struct Scan {
    /// Cursor within the wave's first partition, as text; the others start at 0.
    inner: String,
    /// Entries still to look at, as a number and as text.
    wanted: usize,
    wanted_text: String,
    /// Where the next SCAN goes on; 0 at the end.
    next: u64,
    entries: usize,
    body: Vec<u8>,
}

impl Gather {
    fn new(
        spec: &'static CommandSpec,
        args: &[&[u8]],
        proto: Proto,
        partition_count: u16,
        parts: Parts,
    ) -> Gather {
        let mut text = Vec::with_capacity(args.iter().map(|arg| arg.len()).sum());
        let args = args.iter().map(|arg| {
            let start = text.len();
            text.extend_from_slice(arg);
            start..text.len()
        });
        let args = args.collect();
        Gather { spec, proto, partition_count, text, args, submitted: 0, replied: 0, error: None, parts }
    }

    /// A part for each key.
    pub(super) fn per_key(
        spec: &'static CommandSpec,
        gathering: Gathering,
        args: &[&[u8]],
        proto: Proto,
        partition_count: u16,
    ) -> Gather {
        let total = spec.keys.of(args).count() as u32;
        let parts = Parts::Fixed { total, per_key: true, gathered: Gathered::of(gathering) };
        Gather::new(spec, args, proto, partition_count, parts)
    }

    /// What goes on after `at_once`: the part behind those is under way. `body` is what they have left in the
    /// reply.
    pub fn after(
        at_once: AtOnce,
        spec: &'static CommandSpec,
        args: &[&[u8]],
        proto: Proto,
        partition_count: u16,
        body: &[u8],
    ) -> Gather {
        let AtOnce { gathering, parts, sum, .. } = at_once;
        let mut gather = Gather::per_key(spec, gathering, args, proto, partition_count);
        (gather.replied, gather.submitted) = (parts, parts + 1);
        if let Parts::Fixed { gathered, .. } = &mut gather.parts {
            match gathered {
                Gathered::Sum(so_far) => *so_far = sum,
                Gathered::AllOk => {}
                Gathered::Concat { entries, body: so_far, turn, .. } => {
                    (*entries, *turn) = (parts as usize, parts);
                    so_far.extend_from_slice(body);
                }
            }
        }
        gather
    }

    /// A part for each partition, or as many as it takes.
    pub(super) fn per_partition(
        spec: &'static CommandSpec,
        gathering: Gathering,
        args: &[&[u8]],
        proto: Proto,
        partition_count: u16,
        entropy: u64,
    ) -> Result<Gather, Refusal> {
        let parts = match gathering {
            Gathering::FirstValue => {
                let start = (entropy % u64::from(partition_count)) as u16;
                Parts::FirstValue { wave: Wave::new(start, usize::from(partition_count)), value: None }
            }
            Gathering::Scan => {
                let ScanArgs { cursor, count, .. } = ScanArgs::parse(args)?;
                let partition = (cursor >> CURSOR_BITS) as u16;
                // A cursor made up by the client may name a partition that doesn't exist: at the end.
                let left = usize::from(partition_count.saturating_sub(partition));
                let inner = (cursor & ((1 << CURSOR_BITS) - 1)).to_string();
                let scan = Scan {
                    inner,
                    wanted: count,
                    wanted_text: count.to_string(),
                    next: 0,
                    entries: 0,
                    body: Vec::new(),
                };
                let mut wave = Wave::new(partition, left);
                wave.replies.truncate(left);
                Parts::Scan { wave, scan: Box::new(scan) }
            }
            _ => Parts::Fixed {
                total: u32::from(partition_count),
                per_key: false,
                gathered: Gathered::of(gathering),
            },
        };
        Ok(Gather::new(spec, args, proto, partition_count, parts))
    }

    /// The next part to run, if one can be run now.
    pub fn next_sub(&mut self) -> Option<Sub<'_>> {
        let index = self.submitted;
        let under_way = (self.submitted - self.replied) as usize;
        if under_way >= WINDOW || self.error.is_some() || index >= self.submit_end() {
            return None;
        }
        self.submitted += 1;
        let arg = |at: usize| &self.text[self.args[at].clone()];
        let mut args = SmallVec::new();
        let partition = match &self.parts {
            Parts::Fixed { per_key: true, .. } => {
                let step = usize::from(self.spec.keys.step);
                let at = usize::from(self.spec.keys.first) + index as usize * step;
                args.push(arg(0));
                args.extend((at..at + step).map(arg));
                Slot::of(arg(at)).partition(self.partition_count)
            }
            Parts::Fixed { per_key: false, .. } => {
                args.extend((0..self.args.len()).map(arg));
                PartitionId(index as u16)
            }
            Parts::FirstValue { wave, .. } => {
                args.extend((0..self.args.len()).map(arg));
                let offset = (index - wave.first) as usize;
                PartitionId(
                    ((usize::from(wave.partition) + offset) % usize::from(self.partition_count)) as u16,
                )
            }
            Parts::Scan { wave, scan } => {
                let offset = (index - wave.first) as u16;
                args.push(arg(0));
                args.push(if offset == 0 { scan.inner.as_bytes() } else { b"0" });
                args.extend((2..self.args.len()).map(arg));
                // The last COUNT given is the one that counts.
                args.push(&b"COUNT"[..]);
                args.push(scan.wanted_text.as_bytes());
                PartitionId(wave.partition + offset)
            }
        };
        Some(Sub { index, spec: self.spec, partition, args })
    }

    /// The parts that may be handed out by now.
    fn submit_end(&self) -> u32 {
        match &self.parts {
            Parts::Fixed { total, .. } => *total,
            Parts::FirstValue { wave, .. } | Parts::Scan { wave, .. } => wave.first + wave.len() as u32,
        }
    }

    /// Whether all is there for [`Gather::write_reply`] before any part was run.
    pub fn is_done(&self) -> bool {
        self.replied == self.submitted && (self.error.is_some() || self.submitted >= self.submit_end())
    }

    /// Whether parts remain that wait for others to reply.
    pub fn has_more(&self) -> bool {
        self.error.is_none() && self.submitted < self.submit_end()
            || matches!(self.parts, Parts::FirstValue { .. } | Parts::Scan { .. })
    }

    /// Takes the encoded reply of part `index`.
    pub fn on_reply(&mut self, index: u32, reply: &[u8]) -> Step {
        self.replied += 1;
        if reply.first().is_none_or(|&kind| kind == b'-') {
            let reply =
                if reply.is_empty() { &b"-ERR no reply from a part of the command\r\n"[..] } else { reply };
            self.error.get_or_insert_with(|| reply.to_vec());
        }
        if self.error.is_none() {
            let accepted = match &mut self.parts {
                Parts::Fixed { gathered, .. } => gathered.take(index, reply),
                Parts::FirstValue { wave, .. } | Parts::Scan { wave, .. } => {
                    let place =
                        index.checked_sub(wave.first).and_then(|at| wave.replies.get_mut(at as usize));
                    place.map(|place| *place = Some(reply.to_vec())).is_some()
                }
            };
            if !accepted {
                self.error = Some(b"-ERR unexpected reply from a part of the command\r\n".to_vec());
            }
        }
        if self.replied < self.submitted {
            return Step::Wait;
        }
        if self.error.is_none() && self.submitted >= self.submit_end() {
            self.end_wave();
        }
        if self.is_done() { Step::Done } else { Step::Submit }
    }

    /// When all parts so far have replied: evaluates a wave and sets up the next, if one is needed.
    fn end_wave(&mut self) {
        match &mut self.parts {
            Parts::Fixed { .. } => {}
            Parts::FirstValue { wave, value } => {
                let is_value = |reply: &Vec<u8>| reply.first() == Some(&b'$') && !reply.starts_with(b"$-");
                *value = wave.replies.iter().flatten().find(|reply| is_value(reply)).cloned();
                let asked = wave.len();
                if value.is_some() {
                    wave.replies.clear();
                    wave.first = self.submitted;
                } else {
                    wave.advance(asked, (asked * 2).min(WAVE_MAX), self.partition_count);
                }
            }
            Parts::Scan { wave, scan } => {
                if scan.end_wave(wave, self.submitted, self.partition_count).is_none() {
                    self.error = Some(b"-ERR unexpected reply from a part of the command\r\n".to_vec());
                }
            }
        }
    }

    /// Appends the whole reply to `out`.
    pub fn write_reply(&self, out: &mut Vec<u8>) {
        if let Some(error) = &self.error {
            out.extend_from_slice(error);
            return;
        }
        let mut writer = ReplyWriter::new(out, self.proto);
        match &self.parts {
            Parts::Fixed { gathered, .. } => match gathered {
                Gathered::Sum(sum) => writer.integer(*sum),
                Gathered::AllOk => writer.ok(),
                Gathered::Concat { entries, body, .. } => {
                    writer.array(*entries);
                    writer.out.extend_from_slice(body);
                }
            },
            Parts::FirstValue { value: Some(value), .. } => writer.out.extend_from_slice(value),
            Parts::FirstValue { value: None, .. } => writer.null(),
            Parts::Scan { scan, .. } => {
                writer.array(2);
                writer.bulk(scan.next.to_string().as_bytes());
                writer.array(scan.entries);
                writer.out.extend_from_slice(&scan.body);
            }
        }
    }
}

/// A command of many keys while every part so far replied at once, and is part of the reply already: what
/// most of them need. [`Gather::after`] goes on from there when a part doesn't.
#[derive(Debug)]
pub struct AtOnce {
    gathering: Gathering,
    /// Those that replied.
    parts: u32,
    sum: i64,
    /// Where in the output their entries begin.
    body_at: usize,
}

impl AtOnce {
    /// Begins the reply of `total` parts.
    pub fn begin(gathering: Gathering, total: usize, proto: Proto, out: &mut Vec<u8>) -> AtOnce {
        if gathering == Gathering::Concat {
            ReplyWriter::new(out, proto).array(total);
        }
        AtOnce { gathering, parts: 0, sum: 0, body_at: out.len() }
    }

    /// Makes of the reply of the next part, all that is in `out` from `at` on, its part of the whole. False,
    /// and nothing changed, if it is none that is expected.
    #[inline]
    pub fn take(&mut self, at: usize, out: &mut Vec<u8>) -> bool {
        const ONE_ENTRY: &[u8] = b"*1\r\n";
        let reply = &out[at..];
        let taken = match self.gathering {
            Gathering::Sum => match header(reply, b':') {
                Some((number, b"")) => {
                    self.sum = self.sum.saturating_add(number);
                    out.truncate(at);
                    true
                }
                _ => false,
            },
            Gathering::AllOk if reply == b"+OK\r\n" => {
                out.truncate(at);
                true
            }
            Gathering::Concat
                if reply.starts_with(ONE_ENTRY) && out.len() - self.body_at <= REPLY_BYTES_MAX =>
            {
                out.drain(at..at + ONE_ENTRY.len());
                true
            }
            _ => false,
        };
        self.parts += u32::from(taken);
        taken
    }

    /// Where in the output the entries of the parts begin.
    pub fn body_at(&self) -> usize {
        self.body_at
    }

    /// Ends the reply.
    pub fn end(self, proto: Proto, out: &mut Vec<u8>) {
        match self.gathering {
            Gathering::Sum => ReplyWriter::new(out, proto).integer(self.sum),
            Gathering::AllOk => ReplyWriter::new(out, proto).ok(),
            _ => {}
        }
    }
}

impl Gathered {
    fn of(gathering: Gathering) -> Gathered {
        match gathering {
            Gathering::Sum => Gathered::Sum(0),
            Gathering::AllOk => Gathered::AllOk,
            _ => Gathered::Concat { entries: 0, body: Vec::new(), turn: 0, early: BTreeMap::new() },
        }
    }

    /// Takes a part's reply; false if it is none of the kind.
    fn take(&mut self, index: u32, reply: &[u8]) -> bool {
        match self {
            Gathered::Sum(sum) => match header(reply, b':') {
                Some((number, b"")) => {
                    *sum = sum.saturating_add(number);
                    true
                }
                _ => false,
            },
            Gathered::AllOk => reply == b"+OK\r\n",
            Gathered::Concat { entries, body, turn, early } => {
                if index != *turn {
                    early.insert(index, reply.to_vec());
                    return true;
                }
                if !append(entries, body, reply) {
                    return false;
                }
                *turn += 1;
                while let Some(reply) = early.remove(turn) {
                    if !append(entries, body, &reply) {
                        return false;
                    }
                    *turn += 1;
                }
                true
            }
        }
    }
}

/// Appends an array reply's entries; false if it is none, or too much.
fn append(entries: &mut usize, body: &mut Vec<u8>, reply: &[u8]) -> bool {
    match header(reply, b'*') {
        Some((count, rest)) if count >= 0 && body.len() + rest.len() <= REPLY_BYTES_MAX => {
            *entries += count as usize;
            body.extend_from_slice(rest);
            true
        }
        _ => false,
    }
}

impl Scan {
    /// Takes the wave's replies in order, up to the first partition that is not at its end, and
    /// sets up the next wave. `None` if a reply is malformed.
    ///
    /// What partitions behind that one replied is dropped, and will be asked again. Waves grow
    /// while partitions turn out empty, so that a sparse key space takes few round trips.
    fn end_wave(&mut self, wave: &mut Wave, submitted: u32, partition_count: u16) -> Option<()> {
        let (mut passed, mut seen_in_wave) = (0, 0);
        for reply in std::mem::take(&mut wave.replies) {
            let Part { next, seen, entries, body } = Part::parse(&reply?)?;
            self.entries += entries;
            self.body.extend_from_slice(&body);
            self.wanted = self.wanted.saturating_sub(seen);
            seen_in_wave += seen;
            if next != 0 {
                self.next = u64::from(wave.partition + passed as u16) << CURSOR_BITS | next;
                self.inner = next.to_string();
                break;
            }
            passed += 1;
            self.inner = "0".to_owned();
            let following = wave.partition + passed as u16;
            self.next = if following < partition_count { u64::from(following) << CURSOR_BITS } else { 0 };
            if self.wanted == 0 {
                break;
            }
        }
        let enough = self.wanted == 0 || self.next == 0 || self.body.len() > REPLY_BYTES_MAX;
        let grown = if seen_in_wave == 0 { passed.max(1) * 2 } else { 1 };
        wave.first = submitted;
        wave.left -= passed;
        wave.partition = wave.partition.saturating_add(passed as u16);
        let len = if enough { 0 } else { grown.min(WAVE_MAX).min(wave.left) };
        wave.replies = vec![None; len];
        self.wanted_text = self.wanted.to_string();
        Some(())
    }
}

/// One partition's part of SCAN.
struct Part {
    next: u64,
    seen: usize,
    entries: usize,
    body: Vec<u8>,
}

impl Part {
    fn parse(reply: &[u8]) -> Option<Part> {
        let (3, rest) = header(reply, b'*')? else { return None };
        let (next, taken) = Reply::parse(rest, &ReplyLimits::default()).ok()??;
        let Reply::Bulk(next) = next else { return None };
        let next: u64 = std::str::from_utf8(&next).ok()?.parse().ok()?;
        let (seen, rest) = header(&rest[taken..], b':')?;
        let (entries, body) = header(rest, b'*')?;
        if next >> CURSOR_BITS != 0 {
            return None;
        }
        Some(Part {
            next,
            seen: usize::try_from(seen).ok()?,
            entries: usize::try_from(entries).ok()?,
            body: body.to_vec(),
        })
    }
}

/// The number after a type byte, and what follows its line.
fn header(reply: &[u8], kind: u8) -> Option<(i64, &[u8])> {
    let rest = reply.strip_prefix(&[kind])?;
    let end = rest.iter().position(|&byte| byte == b'\r')?;
    let number = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((number, rest.get(end + 2..)?))
}
