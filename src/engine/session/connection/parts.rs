//! Commands of many keys, a part for each, as long as their parts reply at once: nothing of them is copied
//! or kept then.

use super::super::batch::{Key, locate};
use super::{MAP, Pipeline, ticket};
use crate::engine::command::{AtOnce, CommandSpec, Gather, Gathering};
use crate::engine::op::{Op, Submitted};
use crate::engine::session::Host;
use smallvec::SmallVec;

/// Keys whose memory is read together, so that their cache misses overlap.
const TOUCHED: usize = 64;

impl Pipeline {
    /// Runs a part for each key, in order. From the first one on that has to wait, a [`Gather`] goes on.
    pub(super) fn per_key(
        &mut self,
        spec: &'static CommandSpec,
        gathering: Gathering,
        args: &[&[u8]],
        heard: bool,
        host: &mut impl Host,
    ) {
        let (proto, partition_count) = (self.session.proto(), host.table().settings.partitions);
        let is_direct = self.pending.is_empty();
        if is_direct {
            self.reply_of(self.read);
        }
        let mut out = std::mem::take(if is_direct { &mut self.output } else { &mut self.scratch });
        let start = out.len();
        let parts = args[usize::from(spec.keys.first)..].chunks_exact(usize::from(spec.keys.step));
        let mut at_once = AtOnce::begin(gathering, parts.len(), proto, &mut out);
        let mut keys: SmallVec<[Key; TOUCHED]> = SmallVec::new();
        let mut waiting = None;
        for (index, part) in parts.clone().enumerate() {
            if index % TOUCHED == 0 {
                keys.clear();
                keys.extend(
                    parts.clone().skip(index).take(TOUCHED).map(|part| locate(part[0], partition_count)),
                );
                host.touch(&keys, spec.is_write());
            }
            let (partition, hash) = keys[index % TOUCHED];
            let mut words = SmallVec::<[&[u8]; 3]>::from_slice(&args[..1]);
            words.extend_from_slice(part);
            let key_hash = Some(hash);
            let (args, long) = (&words, Some(&self.long));
            let op = Op { spec, partition, map: MAP, proto, exactly_once: None, key_hash, args, long };
            let at = out.len();
            let submitted = host.submit(ticket(self.next, index as u32), op, &mut out);
            if submitted != Submitted::Done || !at_once.take(at, &mut out) {
                waiting = Some((index as u32, submitted, at));
                break;
            }
        }
        let Some((index, submitted, at)) = waiting else {
            at_once.end(proto, &mut out);
            if is_direct {
                if !heard {
                    out.truncate(start);
                }
                self.output = out;
            } else {
                self.scratch = out;
                self.push_scratch(heard);
            }
            return;
        };
        let body = &out[at_once.body_at()..at];
        let mut gather = Box::new(Gather::after(at_once, spec, args, proto, partition_count, body));
        if submitted == Submitted::Done {
            gather.on_reply(index, &out[at..]);
        }
        out.truncate(start);
        *if is_direct { &mut self.output } else { &mut self.scratch } = out;
        self.gather(gather, heard, host);
    }
}
