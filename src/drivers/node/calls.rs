//! Commands that may be answered in any order: planned, run, gathered.
//!
//! Used by connections of QUIC clients and by the embedding program's handles. (RESP connections
//! answer in order and have their own pipeline.)

use super::Door;
use crate::drivers::wake::Wake;
use crate::engine::command::{self, Gather, Plan, SessionOp, Step};
use crate::engine::dedup::RequestTag;
use crate::engine::ids::MapId;
use crate::engine::node::Engine;
use crate::engine::op::{Op, Submitted, Ticket};
use crate::engine::partition::primary::ReplyBytes;
use crate::engine::resp::Proto;
use crate::engine::time::Now;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// A door that keeps replies until its task takes them.
#[derive(Default)]
pub struct QueueDoor {
    replies: RefCell<VecDeque<(u64, ReplyBytes)>>,
    wake: Wake,
}

impl QueueDoor {
    /// A door without replies.
    pub fn new() -> Rc<QueueDoor> {
        Rc::new(QueueDoor::default())
    }

    /// Ends when there are replies to take.
    pub async fn wake(&self) {
        self.wake.notified().await;
    }

    /// The replies that came, with their operations' numbers.
    pub fn take(&self) -> VecDeque<(u64, ReplyBytes)> {
        std::mem::take(&mut *self.replies.borrow_mut())
    }
}

impl Door for QueueDoor {
    fn complete(&self, number: u64, reply: ReplyBytes) {
        self.replies.borrow_mut().push_back((number, reply));
        self.wake.notify();
    }
}

/// The commands of one door that are under way. A call is named by its caller's number.
pub struct Calls {
    door: u64,
    next: u64,
    under_way: HashMap<u64, Part>,
    gathers: HashMap<u64, Gathering>,
}

enum Part {
    Whole(u64),
    Of(u64, u32),
}

/// A command in parts.
struct Gathering {
    gather: Box<Gather>,
    map: MapId,
}

impl Gathering {
    fn reply(self) -> Vec<u8> {
        let mut reply = Vec::new();
        self.gather.write_reply(&mut reply);
        reply
    }
}

impl Calls {
    /// Nothing under way at this door.
    pub fn new(door: u64) -> Calls {
        Calls { door, next: 0, under_way: HashMap::new(), gathers: HashMap::new() }
    }

    fn ticket(&mut self, part: Part) -> Ticket {
        self.next += 1;
        self.under_way.insert(self.next, part);
        Ticket { door: self.door, number: self.next }
    }

    /// Runs a command; its RESP3 reply, if it is there at once. Otherwise it comes of [`Calls::reply`].
    pub fn submit(
        &mut self,
        engine: &mut Engine,
        now: Now,
        call: u64,
        map: MapId,
        exactly_once: Option<RequestTag>,
        args: &[&[u8]],
    ) -> Option<Vec<u8>> {
        let partitions = engine.table().settings.partitions;
        let entropy = engine.random();
        let planned = command::resolve(args)
            .and_then(|spec| Ok((spec, command::plan(spec, args, Proto::Resp3, partitions, entropy)?)));
        match planned {
            Err(refusal) => Some(format!("-{refusal}\r\n").into_bytes()),
            Ok((_, Plan::Session(SessionOp::AcceptLoss))) => {
                engine.accept_loss(now);
                Some(b"+OK\r\n".to_vec())
            }
            Ok((spec, Plan::Session(_))) => {
                Some(format!("-ERR '{}' is for RESP connections only\r\n", spec.name).into_bytes())
            }
            Ok((spec, Plan::One { partition, .. })) => {
                let ticket = self.ticket(Part::Whole(call));
                let exactly_once = exactly_once.filter(|_| spec.is_write());
                let op = Op { exactly_once, ..Op::new(spec, partition, map, Proto::Resp3, args) };
                let mut out = Vec::new();
                let done = engine.submit(now, ticket, &op, &mut out) == Submitted::Done;
                if done {
                    self.under_way.remove(&ticket.number);
                }
                done.then_some(out)
            }
            Ok((_, Plan::Gather(gather))) => self.gather(engine, now, call, Gathering { gather, map }),
        }
    }

    /// The reply of a pending operation: the call that is done by it, with its reply.
    pub fn reply(
        &mut self,
        engine: &mut Engine,
        now: Now,
        number: u64,
        reply: &[u8],
    ) -> Option<(u64, Vec<u8>)> {
        match self.under_way.remove(&number)? {
            Part::Whole(call) => Some((call, reply.to_vec())),
            Part::Of(call, index) => {
                let mut gathering = self.gathers.remove(&call)?;
                match gathering.gather.on_reply(index, reply) {
                    Step::Done => Some((call, gathering.reply())),
                    Step::Wait => {
                        self.gathers.insert(call, gathering);
                        None
                    }
                    Step::Submit => self.gather(engine, now, call, gathering).map(|reply| (call, reply)),
                }
            }
        }
    }

    /// Runs parts as far as they go; the reply when the command is done.
    fn gather(
        &mut self,
        engine: &mut Engine,
        now: Now,
        call: u64,
        mut gathering: Gathering,
    ) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        if gathering.gather.is_done() {
            return Some(gathering.reply());
        }
        loop {
            out.clear();
            let (index, number, submitted) = {
                let Some(sub) = gathering.gather.next_sub() else { break };
                let ticket = self.ticket(Part::Of(call, sub.index));
                let op = Op::new(sub.spec, sub.partition, gathering.map, Proto::Resp3, &sub.args);
                (sub.index, ticket.number, engine.submit(now, ticket, &op, &mut out))
            };
            if submitted == Submitted::Done {
                self.under_way.remove(&number);
                if gathering.gather.on_reply(index, &out) == Step::Done {
                    return Some(gathering.reply());
                }
            }
        }
        self.gathers.insert(call, gathering);
        None
    }
}
