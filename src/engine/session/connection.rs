//! One RESP connection as a pure pipeline: bytes in, commands out; replies in, bytes out.

mod long;
mod parts;

use long::LongOutput;

use super::answer::{Answer, answer};
use super::batch::{Batch, Key, Stop};
use super::facts::{ClientInfo, ConnectionId, Host, Op, Submitted, Ticket};
use super::state::Session;
use crate::engine::command::{
    CommandSpec, Flags, Gather, Plan, Refusal, Route, SessionOp, Step, has_many_slots, plan, resolve,
};
use crate::engine::ids::{MapId, PartitionId, Slot};
use crate::engine::op::Long;
use crate::engine::resp::{Decoder, DecoderLimits, ReplyWriter, Trust};
use crate::engine::store::LongInput;
use crate::engine::time::Now;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Bits of a ticket that name the part of a command in parts.
const PART_BITS: u32 = 21;
/// An empty input buffer keeps so much room, in bytes.
const RETAINED_BYTES_MAX: usize = 256 << 10;
/// An empty output buffer keeps so much room, in bytes.
const RETAINED_OUTPUT_BYTES_MAX: usize = 1 << 20;
/// So much output doesn't wait for more, in bytes.
const HELD_BYTES_MAX: usize = 16 << 10;
/// The map that RESP sees.
pub(super) const MAP: MapId = MapId(0);

/// What a connection may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// What one command may be.
    pub decoder: DecoderLimits,
    /// Commands whose replies are not yet due for sending, beyond which no further one is begun.
    pub pending_max: usize,
    /// Bytes of replies, beyond which no further command is begun. One reply may be longer.
    pub output_bytes_max: usize,
}

impl Default for ConnectionLimits {
    /// 1,024 commands, 1 MiB of replies.
    fn default() -> ConnectionLimits {
        ConnectionLimits { decoder: DecoderLimits::default(), pending_max: 1_024, output_bytes_max: 1 << 20 }
    }
}

/// One RESP connection. A driver is a loop around it:
///
/// 1. while [`Connection::wants_input`], read into [`Connection::input`] and
///    [`process`](Connection::process), no more at a time than there is [`room`](Connection::input_room) for;
/// 2. when an operation is done, [`complete`](Connection::complete) it;
/// 3. after each of these, if [`Connection::output_is_due`], write all [pieces](Connection::output_piece) and
///    [`Connection::output_written`], then `process` once more: it takes up what had to wait for room.
///    Output that is not due for a while is to be [released](Connection::release_output);
/// 4. when [`Connection::is_closed`] and all output is written, close the socket.
///
/// Replies leave in the order of their commands, whatever the order of completion. Those of commands that
/// came together leave together, where that holds none back for long: to send is dearer than to run.
#[derive(Debug)]
pub struct Connection {
    decoder: Decoder,
    input: Vec<u8>,
    /// A long argument of the command at the front of `input`, which ends before it.
    long: Option<LongInput>,
    /// What the command at the front of `input` lacks at least, in bytes.
    needed: usize,
    pipeline: Pipeline,
}

impl Connection {
    /// A client that has just connected. It must authenticate if the node has a `password`.
    pub fn new(
        id: ConnectionId,
        remote: SocketAddr,
        local: SocketAddr,
        now: Now,
        password: Option<&[u8]>,
        limits: ConnectionLimits,
    ) -> Connection {
        Connection {
            decoder: Decoder::new(limits.decoder),
            input: Vec::new(),
            long: None,
            needed: 0,
            pipeline: Pipeline {
                limits,
                session: Session::new(id, remote, local, now, password),
                last: None,
                output: Vec::new(),
                long_output: LongOutput::default(),
                long: Long::default(),
                scratch: Vec::new(),
                pending: VecDeque::new(),
                next: 0,
                read: 0,
                output_read: 0,
                is_due: false,
                pending_bytes: 0,
                barrier: false,
                closing: false,
                commands: 0,
            },
        }
    }

    /// Where a driver appends what it read. It must not touch what is there.
    pub fn input(&mut self) -> &mut Vec<u8> {
        match &mut self.long {
            None => &mut self.input,
            Some(long) => long.bytes(),
        }
    }

    /// How much may be appended to the input before it is [processed](Connection::process).
    pub fn input_room(&self) -> usize {
        self.long.as_ref().map_or(usize::MAX, LongInput::missing)
    }

    /// Whether a long argument is being received: much is to come, and others should have their turns meanwhile.
    pub fn receives_long(&self) -> bool {
        self.long.is_some()
    }

    /// Whether there is input that [`process`](Connection::process) may have left for want of room.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty() && self.long.is_none()
    }

    /// The bytes that the command under way lacks at least, to reserve before reading; 0 if unknown.
    pub fn input_needed(&self) -> usize {
        self.needed
    }

    /// Whether more input is welcome. If not, leave it in the socket: the client will notice.
    pub fn wants_input(&self) -> bool {
        self.pipeline.may_begin()
    }

    /// Encoded replies in order, without their long values.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.pipeline.output
    }

    /// Encoded replies in order, long values included, for the driver to write: what is in one piece from `at` on.
    /// Empty only at the end.
    pub fn output_piece(&self, at: usize) -> &[u8] {
        self.pipeline.long_output.piece(&self.pipeline.output, at)
    }

    /// Bytes of all pieces.
    pub fn output_len(&self) -> usize {
        self.pipeline.output_len()
    }

    /// Whether the output is to be written now; otherwise more replies of the commands that it is of are
    /// to come, and leave with it.
    pub fn output_is_due(&self) -> bool {
        self.pipeline.is_due()
    }

    /// The output was written: clears it.
    pub fn output_written(&mut self) {
        self.pipeline.is_due = false;
        self.pipeline.long_output.clear();
        let output = &mut self.pipeline.output;
        output.clear();
        if output.capacity() > RETAINED_OUTPUT_BYTES_MAX {
            *output = Vec::new();
        }
    }

    /// Makes the output due, whatever is still to come.
    pub fn release_output(&mut self) {
        self.pipeline.is_due = true;
    }

    /// Whether nothing will be appended to the output any more, so that the socket is to be closed
    /// once it is written.
    pub fn is_closed(&self) -> bool {
        self.pipeline.closing && self.pipeline.pending.is_empty()
    }

    /// Whether commands wait for their replies.
    pub fn is_waiting(&self) -> bool {
        !self.pipeline.pending.is_empty()
    }

    /// Commands begun so far.
    pub fn commands(&self) -> u64 {
        self.pipeline.commands
    }

    /// What the server remembers of the client.
    pub fn session(&self) -> &Session {
        &self.pipeline.session
    }

    /// The connection as CLIENT LIST shows it.
    pub fn info(&self) -> ClientInfo {
        let mut info = self.pipeline.session.info.clone();
        self.update_info(&mut info);
        info
    }

    /// Brings up to date what [`Connection::info`] gave before, without an allocation where nothing has a
    /// new name.
    pub fn update_info(&self, info: &mut ClientInfo) {
        info.update(&self.pipeline.session.info);
        info.input_bytes = self.input.len() + self.long.as_ref().map_or(0, LongInput::len);
        info.output_bytes = self.pipeline.output_len() + self.pipeline.pending_bytes;
    }

    /// Appends to the input and [`process`](Connection::process)es it.
    pub fn receive(&mut self, bytes: &[u8], host: &mut impl Host) {
        let mut rest = bytes;
        loop {
            let (now, later) = rest.split_at(rest.len().min(self.input_room()));
            self.input().extend_from_slice(now);
            self.process(host);
            rest = later;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Begins all whole commands of the input, as far as the limits allow.
    pub fn process(&mut self, host: &mut impl Host) {
        let Connection { decoder, input, long, needed, pipeline } = self;
        if input.is_empty() {
            return;
        }
        pipeline.session.info.active_at_us = host.now().mono_us;
        if let Some(mut incoming) = long.take() {
            incoming.advance();
            *needed = incoming.missing();
            if *needed > 0 {
                *long = Some(incoming);
                return;
            }
            decoder.put_long(incoming.finish());
        }
        pipeline.read += 1;
        let partition_count = host.table().settings.partitions;
        let mut at = 0;
        while at < input.len() && pipeline.may_begin() {
            let trust =
                if pipeline.session.is_authenticated() { Trust::Authenticated } else { Trust::Stranger };
            let mut batch = Batch::new(pipeline.last);
            let stop = batch.decode(decoder, &input[at..], trust, partition_count);
            pipeline.last = batch.last;
            batch.touch(host);
            let begun = batch
                .commands
                .iter()
                .take_while(|command| {
                    let (may_begin, args) = (pipeline.may_begin(), batch.args_of(command));
                    if may_begin && !args.is_empty() {
                        pipeline.begin(args, command.spec, batch.key_of(command), host);
                    }
                    may_begin
                })
                .count();
            let commands = &batch.commands;
            if begun < commands.len() {
                // The rest is decoded anew when there is room for it.
                decoder.rewind();
                at += begun.checked_sub(1).map_or(0, |last| commands[last].end);
                break;
            }
            at += commands.last().map_or(0, |last| last.end);
            *needed = 0;
            match stop {
                Stop::Full => {}
                Stop::Apart(consumed) if pipeline.may_begin() => {
                    let args = decoder.args(&input[at..]);
                    if !args.is_empty() {
                        pipeline.long = Long::of(decoder.long().to_vec());
                        pipeline.begin(&args, None, None, host);
                        pipeline.long = Long::default();
                    }
                    drop(args);
                    decoder.release();
                    at += consumed;
                }
                Stop::Apart(_) => decoder.rewind(),
                Stop::Incomplete(missing) => {
                    *needed = missing;
                    break;
                }
                Stop::Broken(error) => {
                    pipeline.refuse(&Refusal::err(error), true);
                    pipeline.closing = true;
                }
            }
        }
        if !pipeline.closing {
            *long = receive_apart(decoder, input, at, needed);
        }
        if pipeline.closing || at == input.len() {
            input.clear();
            if input.capacity() > RETAINED_BYTES_MAX {
                *input = Vec::new();
            }
        } else {
            input.drain(..at);
        }
    }

    /// Takes the encoded reply that a [`Submitted::Pending`] operation was owed, then goes on with
    /// the input if there is some. A ticket that is not open is ignored.
    pub fn complete(&mut self, ticket: Ticket, reply: &[u8], host: &mut impl Host) {
        self.pipeline.complete(ticket, reply, host);
        self.process(host);
    }
}

/// Goes on to receive the argument that the command at `at` lacks in a buffer of its own, if it is long: it is not
/// copied any more then.
fn receive_apart(decoder: &Decoder, input: &mut Vec<u8>, at: usize, needed: &mut usize) -> Option<LongInput> {
    const LINE_END: usize = 2;
    let (start, length) = decoder.awaits_long()?;
    let start = at + start;
    let there = input.len().checked_sub(start).filter(|there| there + LINE_END < length)?;
    // Without so much memory in one piece it goes on to come into the input, piece by piece.
    let mut long = LongInput::new(length).ok()?;
    long.bytes().extend_from_slice(&input[start..]);
    long.advance();
    input.truncate(start);
    *needed = length - there;
    Some(long)
}

/// Commands between their arrival and the sending of their replies.
#[derive(Debug)]
struct Pipeline {
    limits: ConnectionLimits,
    session: Session,
    /// The command that was decoded last.
    last: Option<&'static CommandSpec>,
    output: Vec<u8>,
    /// Long values that belong into `output`.
    long_output: LongOutput,
    /// Those of the command that begins, and of its reply.
    long: Long,
    /// For replies that are not yet due.
    scratch: Vec<u8>,
    /// Commands whose replies are not in `output` yet, in order; the last is number `next - 1`.
    pending: VecDeque<Pending>,
    next: u64,
    /// Counts the reads, to tell which commands came together.
    read: u64,
    /// Of which read the last reply in `output` is.
    output_read: u64,
    /// Whether the output waits for no other reply any more.
    is_due: bool,
    /// Bytes of the replies in `pending`, those that the node holds back included.
    pending_bytes: usize,
    /// Whether the last command in `pending` must end before another begins.
    barrier: bool,
    closing: bool,
    commands: u64,
}

#[derive(Debug)]
struct Pending {
    state: State,
    /// Which read it came with.
    read: u64,
    /// Whether the client wants the reply.
    heard: bool,
}

#[derive(Debug)]
enum State {
    /// For one reply, of which the node holds so many bytes already.
    Waiting(usize),
    /// For the replies of parts.
    Gathering(Box<Gather>),
    /// For those before it.
    Ready(SmallVec<[u8; 24]>),
}

impl Pipeline {
    fn may_begin(&self) -> bool {
        !self.closing
            && !self.barrier
            && self.pending.len() < self.limits.pending_max
            && self.output_len() + self.pending_bytes < self.limits.output_bytes_max
    }

    fn output_len(&self) -> usize {
        self.output.len() + self.long_output.bytes()
    }

    /// A reply to a command of this read is put into the output next.
    fn reply_of(&mut self, read: u64) {
        if read != self.output_read {
            // What is due waits for nothing of another read.
            self.is_due = self.is_due();
            self.output_read = read;
        }
    }

    fn is_due(&self) -> bool {
        let ends_with_read = || self.pending.front().is_none_or(|pending| pending.read != self.output_read);
        !self.output.is_empty()
            && (self.is_due || ends_with_read() || self.output_len() >= HELD_BYTES_MAX || !self.may_begin())
    }

    /// Begins one command. `spec` and `key`, its only one, are given if they were found out before.
    #[inline(always)]
    fn begin(
        &mut self,
        args: &[&[u8]],
        spec: Option<&'static CommandSpec>,
        key: Option<Key>,
        host: &mut impl Host,
    ) {
        self.commands += 1;
        let heard = self.session.hears_next();
        if let Err(refusal) = self.try_begin(args, spec, key, heard, host) {
            self.refuse(&refusal, heard);
        }
    }

    #[inline(always)]
    fn try_begin(
        &mut self,
        args: &[&[u8]],
        spec: Option<&'static CommandSpec>,
        key: Option<Key>,
        heard: bool,
        host: &mut impl Host,
    ) -> Result<(), Refusal> {
        let spec = match spec {
            Some(spec) => spec,
            None => resolve(args)?,
        };
        self.session.info.command = spec.name;
        if !self.session.authenticated && !spec.flags.has(Flags::NO_AUTH) {
            return Err(Refusal::Text("NOAUTH Authentication required.".to_owned()));
        }
        if let Some((partition, hash)) = key {
            let slot = || Slot::of(args[usize::from(spec.keys.first)]);
            return self.one(spec, partition, slot, Some(hash), args, heard, host);
        }
        self.begin_other(spec, args, heard, host)
    }

    /// Begins a command that has not just one key.
    #[inline(never)]
    fn begin_other(
        &mut self,
        spec: &'static CommandSpec,
        args: &[&[u8]],
        heard: bool,
        host: &mut impl Host,
    ) -> Result<(), Refusal> {
        let partition_count = host.table().settings.partitions;
        if let Route::PerKey(gathering) = spec.route
            && has_many_slots(spec, args)?
        {
            self.per_key(spec, gathering, args, heard, host);
            return Ok(());
        }
        // Only commands in parts depend on chance, and they are rare.
        let entropy = if spec.keys.first == 0 { host.entropy() } else { 0 };
        match plan(spec, args, self.session.proto(), partition_count, entropy)? {
            Plan::One { partition, slot } => self.one(spec, partition, || slot, None, args, heard, host)?,
            Plan::Session(op) => self.answer(spec, op, args, heard, host)?,
            Plan::Gather(gather) => self.gather(gather, heard, host),
        }
        Ok(())
    }

    /// Begins a command of one partition.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    fn one(
        &mut self,
        spec: &'static CommandSpec,
        partition: PartitionId,
        slot: impl FnOnce() -> Slot,
        key_hash: Option<u64>,
        args: &[&[u8]],
        heard: bool,
        host: &mut impl Host,
    ) -> Result<(), Refusal> {
        if let Some(address) = host.redirect(partition) {
            return Err(Refusal::Text(format!("MOVED {} {address}", slot().0)));
        }
        let proto = self.session.proto();
        let ticket = ticket(self.next, 0);
        let direct = self.pending.is_empty();
        if direct {
            self.reply_of(self.read);
        }
        let out = if direct { &mut self.output } else { &mut self.scratch };
        let before = out.len();
        self.long.open(direct);
        let long = Some(&self.long);
        let op = Op { spec, partition, map: MAP, proto, exactly_once: None, key_hash, args, long };
        let submitted = host.submit(ticket, op, out);
        // Whatever came of it, the next one leaves nothing there unasked.
        let splice = self.long.take();
        match submitted {
            Submitted::Pending(bytes) => {
                self.pending_bytes += bytes;
                self.push(State::Waiting(bytes), heard);
            }
            Submitted::Done if direct => {
                if !heard {
                    self.output.truncate(before);
                } else if let Some(splice) = splice {
                    self.long_output.push(splice);
                }
            }
            Submitted::Done => self.push_scratch(heard),
        }
        Ok(())
    }

    fn answer(
        &mut self,
        spec: &'static CommandSpec,
        op: SessionOp,
        args: &[&[u8]],
        heard: bool,
        host: &mut impl Host,
    ) -> Result<(), Refusal> {
        let mut reply = ReplyWriter::new(&mut self.scratch, self.session.proto());
        let outcome = answer(&mut self.session, spec, op, args, host, &mut reply);
        if outcome.is_err() {
            self.scratch.clear();
        }
        match outcome? {
            Answer::Written => self.push_scratch(heard),
            Answer::Aloud => self.push_scratch(true),
            Answer::Silent => self.scratch.clear(),
            Answer::Close => {
                self.push_scratch(heard);
                self.closing = true;
            }
            Answer::Sleep(us) => {
                host.sleep(ticket(self.next, 0), us);
                self.push(State::Waiting(0), heard);
                self.barrier = true;
            }
        }
        Ok(())
    }

    fn gather(&mut self, mut gather: Box<Gather>, heard: bool, host: &mut impl Host) {
        if self.drive(&mut gather, self.next, host) {
            gather.write_reply(&mut self.scratch);
            self.push_scratch(heard);
        } else {
            // Parts that were not begun must not be overtaken by commands behind this one.
            self.barrier = gather.has_more();
            self.push(State::Gathering(gather), heard);
        }
    }

    /// Submits the parts that can be submitted now. Whether all have replied.
    fn drive(&mut self, gather: &mut Gather, number: u64, host: &mut impl Host) -> bool {
        let proto = self.session.proto();
        loop {
            let (index, submitted) = {
                let Some(sub) = gather.next_sub() else { break };
                let (spec, partition) = (sub.spec, sub.partition);
                let op = Op::new(spec, partition, MAP, proto, &sub.args);
                self.scratch.clear();
                (sub.index, host.submit(ticket(number, sub.index), op, &mut self.scratch))
            };
            if submitted == Submitted::Done {
                gather.on_reply(index, &self.scratch);
            }
        }
        self.scratch.clear();
        gather.is_done()
    }

    fn complete(&mut self, ticket: Ticket, reply: &[u8], host: &mut impl Host) {
        let number = ticket.0 >> PART_BITS;
        let index = (ticket.0 & ((1 << PART_BITS) - 1)) as u32;
        let first = self.next - self.pending.len() as u64;
        let Some(at) = number.checked_sub(first).map(|at| at as usize) else { return };
        let Some(pending) = self.pending.get_mut(at) else { return };
        match std::mem::replace(&mut pending.state, State::Waiting(0)) {
            State::Waiting(bytes) => {
                self.pending_bytes -= bytes;
                self.settle(at, reply);
            }
            State::Gathering(mut gather) => {
                let done = match gather.on_reply(index, reply) {
                    Step::Wait => false,
                    Step::Submit => self.drive(&mut gather, number, host),
                    Step::Done => true,
                };
                if done {
                    let mut whole = Vec::new();
                    gather.write_reply(&mut whole);
                    self.settle(at, &whole);
                } else {
                    if !gather.has_more() && at + 1 == self.pending.len() {
                        self.barrier = false;
                    }
                    self.pending[at].state = State::Gathering(gather);
                }
            }
            ready @ State::Ready(_) => self.pending[at].state = ready,
        }
    }

    /// Files the reply of `pending[at]`, and sends all that are due.
    fn settle(&mut self, at: usize, reply: &[u8]) {
        if at + 1 == self.pending.len() {
            self.barrier = false;
        }
        if at > 0 {
            let pending = &mut self.pending[at];
            let kept = if pending.heard { reply } else { b"" };
            self.pending_bytes += kept.len();
            pending.state = State::Ready(SmallVec::from_slice(kept));
            return;
        }
        if self.pending[0].heard {
            self.reply_of(self.pending[0].read);
            self.output.extend_from_slice(reply);
        }
        self.pending.pop_front();
        while let Some(&Pending { state: State::Ready(_), read, .. }) = self.pending.front() {
            self.reply_of(read);
            if let Some(Pending { state: State::Ready(reply), .. }) = self.pending.pop_front() {
                self.output.extend_from_slice(&reply);
                self.pending_bytes -= reply.len();
            }
        }
    }

    /// Replies with an error.
    fn refuse(&mut self, refusal: &Refusal, heard: bool) {
        ReplyWriter::new(&mut self.scratch, self.session.proto()).error(&refusal.to_string());
        self.push_scratch(heard);
    }

    /// Sends the reply in `scratch`, or files it behind those before it.
    fn push_scratch(&mut self, heard: bool) {
        if !heard {
            self.scratch.clear();
        }
        if self.pending.is_empty() {
            self.reply_of(self.read);
            self.output.append(&mut self.scratch);
        } else if heard {
            self.pending_bytes += self.scratch.len();
            let reply = SmallVec::from_slice(&self.scratch);
            self.scratch.clear();
            self.push(State::Ready(reply), heard);
        }
        if self.scratch.capacity() > RETAINED_OUTPUT_BYTES_MAX {
            self.scratch = Vec::new();
        }
    }

    fn push(&mut self, state: State, heard: bool) {
        self.pending.push_back(Pending { state, read: self.read, heard });
        self.next += 1;
    }
}

fn ticket(number: u64, part: u32) -> Ticket {
    Ticket(number << PART_BITS | u64::from(part))
}
