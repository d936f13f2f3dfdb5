//! Salvage: a partition none of whose in-sync copies lives goes on from a former copy where that
//! provably loses nothing, or where an operator accepted the loss.
//!
//! Why nothing is lost. Let X be counted out (`Assignment::former`) while P went on as primary. What
//! was acknowledged before, X has acknowledged, too. What was acknowledged since needed
//! `copies_needed` members, fewer than were left in sync, so a learner took it, too: one of those
//! listed now, for to give one up strikes X from the list. All listed learners have promised the next
//! epoch here, so nothing more is acknowledged, and let the leases that P reads by run out (P reads
//! by those of all of them, see `Primary::leased`). A learner that attached at `after` and has come
//! to `last` has all records between, as records, and every learner's `last` bounds what was ever
//! acknowledged: P attaches learners no later than at its commit. So X, clean up to `shared_until`,
//! is enough if no `last` is beyond it; and X with one learner's records is, if that learner
//! attached no later than X's clean end and no `last` is beyond its own.

use super::asking::{Asking, Unanswered};
use super::draft::Draft;
use super::message::{Held, Order, Taken};
use super::{ControllerConfig, ControllerOutput};
use crate::engine::ids::{Epoch, NodeId, PartitionId, Sequence};
use crate::engine::table::{Assignment, Table, TableChange};
use crate::engine::time::Now;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Who was asked for what they hold, and what they said.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    asked: BTreeMap<PartitionId, Asked>,
    asking: Asking,
}

#[derive(Debug)]
struct Asked {
    /// The dead primary's epoch.
    epoch: Epoch,
    since_us: u64,
    /// By an operator's decision, whatever is found is good enough.
    accepted: bool,
    answers: BTreeMap<NodeId, Held>,
    /// Who was to complete its copy with whose records, when that was last asked, and whether it has.
    merge: Option<Merge>,
    told: bool,
}

#[derive(Clone, Copy, Debug)]
struct Merge {
    from: NodeId,
    to: NodeId,
    sent_us: Option<u64>,
    done: bool,
}

/// What is to be done with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Not all have answered.
    Wait,
    /// This copy is as good as can be had.
    Recover(NodeId),
    /// `to` has all of it once it has taken over what `from` took.
    Merge { from: NodeId, to: NodeId },
    /// Nobody has it for certain, or, after an operator's decision, at all.
    Nothing,
}

impl Asked {
    fn new(epoch: Epoch, since_us: u64, accepted: bool) -> Asked {
        Asked { epoch, since_us, accepted, answers: BTreeMap::new(), merge: None, told: false }
    }

    /// Whose word matters: whoever may hold something.
    fn concerned<'a>(&self, table: &'a Table, assignment: &'a Assignment) -> Vec<NodeId> {
        if self.accepted {
            return table.members.keys().copied().filter(|&node| table.is_live(node)).collect();
        }
        let former = assignment.former.iter().map(|former| former.node);
        let nodes: BTreeSet<NodeId> =
            former.filter(|&node| table.is_live(node)).chain(assignment.learners.iter().copied()).collect();
        nodes.into_iter().collect()
    }

    fn verdict(&self, patient: bool, table: &Table, assignment: &Assignment) -> Verdict {
        let concerned = self.concerned(table, assignment);
        let complete = concerned.iter().all(|node| self.answers.contains_key(node));
        if self.accepted {
            let best = self
                .answers
                .iter()
                .filter(|(node, _)| table.is_live(**node))
                .filter_map(|(&node, held)| held.copy.map(|copy| (held.current, copy, node)))
                .max();
            return match best {
                _ if !complete && patient => Verdict::Wait,
                Some((_, _, node)) => Verdict::Recover(node),
                None => Verdict::Nothing,
            };
        }
        // Every listed learner has to promise: without one, the old primary might go on.
        let Some(taken) = assignment
            .learners
            .iter()
            .map(|node| self.answers.get(node).map(|held| (*node, held.taken)))
            .collect::<Option<Vec<_>>>()
        else {
            return Verdict::Wait;
        };
        if !complete && patient {
            return Verdict::Wait;
        }
        if taken.iter().any(|(_, taken)| *taken == Taken::Lost) {
            return Verdict::Nothing;
        }
        let records = |taken: &Taken| match *taken {
            Taken::Records { after, last } => Some((after, last)),
            Taken::Nothing | Taken::Lost => None,
        };
        let reach = taken.iter().filter_map(|(_, taken)| records(taken)).map(|(_, last)| last).max();
        // A learner that was complete already has all by itself.
        let became_complete = assignment.learners.iter().find(|node| {
            self.answers.get(node).is_some_and(|held| {
                held.current && held.copy.is_some_and(|(_, last)| reach.is_none_or(|reach| reach <= last))
            })
        });
        if let Some(&node) = became_complete {
            return Verdict::Recover(node);
        }
        let mut former: Vec<(Sequence, NodeId)> = assignment
            .former
            .iter()
            .filter(|former| table.is_live(former.node))
            .filter_map(|former| {
                let (epoch, last) = self.answers.get(&former.node)?.copy?;
                (epoch >= assignment.origin).then_some((last.min(former.shared_until), former.node))
            })
            .collect();
        former.sort_unstable();
        for &(clean, node) in former.iter().rev() {
            if reach.is_none_or(|reach| reach <= clean) {
                return Verdict::Recover(node);
            }
            let witness = taken.iter().find(|(_, taken)| {
                records(taken).is_some_and(|(after, last)| after <= clean && Some(last) == reach)
            });
            if let Some(&(from, _)) = witness {
                return Verdict::Merge { from, to: node };
            }
        }
        // Somebody who is away may come back with a better one.
        let all_back = assignment.former.iter().all(|former| table.is_live(former.node));
        if all_back { Verdict::Nothing } else { Verdict::Wait }
    }
}

impl Salvage {
    /// An operator accepts whatever can be had of the partitions that are dead now.
    pub(super) fn accept(&mut self, now: Now, table: &Table) {
        for partition in table.partition_ids().filter(|&id| table.is_dead(id)) {
            let Some(assignment) = table.assignment(partition) else { continue };
            let asked = self
                .asked
                .entry(partition)
                .or_insert_with(|| Asked::new(assignment.epoch, now.mono_us, true));
            if !asked.accepted || asked.epoch != assignment.epoch {
                *asked = Asked::new(assignment.epoch, now.mono_us, true);
            }
        }
        self.asking.restart();
    }

    /// Follows the table and sends what is due.
    pub(super) fn follow(
        &mut self,
        now: Now,
        config: &ControllerConfig,
        table: &Table,
        outputs: &mut VecDeque<ControllerOutput>,
    ) {
        let now_us = now.mono_us;
        let mut orders = Unanswered::new();
        for (partition, assignment) in table.partition_ids().zip(&table.partitions) {
            if !table.is_dead(partition) {
                if self.asked.remove(&partition).is_some() {
                    tracing::info!(%partition, primary = %assignment.primary, "no longer dead");
                }
                continue;
            }
            let epoch = assignment.epoch;
            let asked = self.asked.entry(partition).or_insert_with(|| {
                tracing::error!(%partition, %epoch, former = ?assignment.former, "dead: no complete copy of it lives");
                Asked::new(epoch, now_us, false)
            });
            if asked.epoch != epoch {
                *asked = Asked::new(epoch, now_us, false);
            }
            let away: Vec<NodeId> =
                asked.answers.keys().copied().filter(|&node| !table.is_live(node)).collect();
            for node in away {
                asked.answers.remove(&node);
            }
            if !asked.accepted && assignment.former.is_empty() {
                continue;
            }
            for node in asked.concerned(table, assignment) {
                if !asked.answers.contains_key(&node) {
                    orders.entry((node, assignment.primary)).or_default().push((partition, epoch.next()));
                }
            }
            let patient = now_us < asked.since_us + config.seal_timeout_ms * 1_000;
            match asked.verdict(patient, table, assignment) {
                Verdict::Merge { from, to } => {
                    let wanted = Merge { from, to, sent_us: None, done: false };
                    let merge = match &mut asked.merge {
                        Some(merge) if (merge.from, merge.to) == (from, to) => merge,
                        other => other.insert(wanted),
                    };
                    let due = merge.sent_us.is_none_or(|sent| now_us >= sent + config.resend_ms * 1_000);
                    if !merge.done && due {
                        merge.sent_us = Some(now_us);
                        let order = Order::Merge { partition, epoch: epoch.next(), to };
                        outputs.push_back(ControllerOutput::Send { to: from, order });
                    }
                }
                Verdict::Nothing if !std::mem::replace(&mut asked.told, true) => {
                    tracing::error!(%partition, answers = ?asked.answers, "dead: no former copy is certain to have everything; see accept-loss");
                }
                Verdict::Nothing | Verdict::Wait | Verdict::Recover(_) => {}
            }
        }
        let order = |deposed, partitions| Order::Salvage { deposed, partitions };
        self.asking.send(now, config, orders, order, outputs);
    }

    /// Takes note of what a member holds.
    pub(super) fn held(&mut self, from: NodeId, held: &[Held]) {
        for held in held {
            if let Some(asked) = self.asked.get_mut(&held.partition)
                && held.epoch == asked.epoch.next()
            {
                tracing::debug!(%from, ?held, "held");
                asked.answers.insert(from, *held);
            }
        }
    }

    /// Takes note that `to` has taken over what `from` took.
    pub(super) fn merged(&mut self, to: NodeId, from: NodeId, partition: PartitionId, epoch: Epoch) {
        if let Some(asked) = self.asked.get_mut(&partition)
            && epoch == asked.epoch.next()
            && let Some(merge) = &mut asked.merge
            && (merge.from, merge.to) == (from, to)
        {
            tracing::debug!(%partition, %from, %to, "merged");
            merge.done = true;
        }
    }

    /// Lets those go on that can; returns accepted losses of which nobody has anything.
    pub(super) fn conclude(
        &self,
        now: Now,
        config: &ControllerConfig,
        draft: &mut Draft,
    ) -> Vec<(PartitionId, Epoch)> {
        let mut lost = Vec::new();
        for (&partition, asked) in &self.asked {
            let Some(assignment) = draft.table.assignment(partition) else { continue };
            let epoch = asked.epoch;
            if assignment.epoch != epoch
                || !draft.table.is_dead(partition)
                || (!asked.accepted && assignment.former.is_empty())
            {
                continue;
            }
            let patient = now.mono_us < asked.since_us + config.seal_timeout_ms * 1_000;
            let accepted = asked.accepted;
            let primary = match asked.verdict(patient, &draft.table, assignment) {
                Verdict::Recover(node) => node,
                Verdict::Merge { to, from }
                    if asked
                        .merge
                        .is_some_and(|merge| merge.done && (merge.from, merge.to) == (from, to)) =>
                {
                    to
                }
                Verdict::Nothing if accepted => {
                    lost.push((partition, epoch));
                    continue;
                }
                Verdict::Nothing | Verdict::Wait | Verdict::Merge { .. } => continue,
            };
            if draft.push(TableChange::Recover { partition, epoch, primary, accepted }) {
                tracing::warn!(%partition, %primary, accepted, "recovering from a former copy");
            }
        }
        lost
    }

    /// When something is to be sent again or patience ends.
    pub(super) fn alarms_us(&self, config: &ControllerConfig) -> impl Iterator<Item = u64> {
        let resend_us = config.resend_ms * 1_000;
        let timeout_us = config.seal_timeout_ms * 1_000;
        let merges = self.asked.values().filter_map(|asked| asked.merge).filter(|merge| !merge.done);
        let merges = merges.filter_map(|merge| merge.sent_us).map(move |sent_us| sent_us + resend_us);
        self.asking
            .alarms_us(config)
            .chain(merges)
            .chain(self.asked.values().map(move |asked| asked.since_us + timeout_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::controller::tests::cluster::{member, settings};
    use crate::engine::ids::{Incarnation, TableVersion};
    use crate::engine::table::{Former, MemberStatus};

    const P: PartitionId = PartitionId(0);
    const X: NodeId = NodeId(2);
    const L: NodeId = NodeId(3);
    const M: NodeId = NodeId(4);

    /// Node 1 is dead, 2 is the former copy, the others learn.
    fn verdict(shared_until: u64, learners: &[NodeId], answers: &[(NodeId, Option<u64>, Taken)]) -> Verdict {
        let mut table = Table::new(Incarnation(1), settings(1, 2));
        for id in 1..=4 {
            table.apply(&[TableChange::PutMember(member(id))]);
        }
        table.apply(&[TableChange::SetStatus(NodeId(1), MemberStatus::Down)]);
        let assignment = Assignment {
            epoch: Epoch(5),
            origin: Epoch(1),
            primary: NodeId(1),
            isr: vec![NodeId(1)],
            learners: learners.to_vec(),
            since: learners.iter().map(|&node| (node, TableVersion(1))).collect(),
            former: vec![Former { node: X, shared_until: Sequence(shared_until) }],
        };
        let mut asked = Asked::new(Epoch(5), 0, false);
        for &(node, last, taken) in answers {
            let copy = last.map(|last| (Epoch(5), Sequence(last)));
            let held =
                Held { partition: P, epoch: Epoch(6), copy, current: node != X && copy.is_some(), taken };
            asked.answers.insert(node, held);
        }
        asked.verdict(false, &table, &assignment)
    }

    fn took(after: u64, last: u64) -> Taken {
        Taken::Records { after: Sequence(after), last: Sequence(last) }
    }

    #[test]
    fn every_learner_has_to_promise_first() {
        let x = (X, Some(10), Taken::Nothing);
        assert_eq!(verdict(u64::MAX, &[L, M], &[x, (L, None, Taken::Nothing)]), Verdict::Wait);
        assert_eq!(verdict(u64::MAX, &[L], &[(L, None, Taken::Nothing)]), Verdict::Nothing, "no copy");
    }

    #[test]
    fn a_copy_that_no_record_is_beyond_goes_on() {
        let x = (X, Some(10), Taken::Nothing);
        assert_eq!(verdict(u64::MAX, &[L], &[x, (L, None, Taken::Nothing)]), Verdict::Recover(X));
        assert_eq!(verdict(u64::MAX, &[L], &[x, (L, None, took(8, 10))]), Verdict::Recover(X));
    }

    #[test]
    fn what_a_learner_took_since_is_added() {
        let x = (X, Some(10), Taken::Nothing);
        let merge = |from| Verdict::Merge { from, to: X };
        assert_eq!(verdict(u64::MAX, &[L], &[x, (L, None, took(10, 15))]), merge(L));
        let both = [x, (L, None, took(9, 12)), (M, None, took(10, 15))];
        assert_eq!(verdict(u64::MAX, &[L, M], &both), merge(M), "the furthest has all of it");
        assert_eq!(verdict(9, &[L], &[x, (L, None, took(9, 9))]), Verdict::Recover(X));
        assert_eq!(verdict(9, &[L], &[x, (L, None, took(9, 10))]), merge(L), "its own 10 is another");
    }

    #[test]
    fn a_gap_is_a_loss() {
        let x = (X, Some(10), Taken::Nothing);
        assert_eq!(verdict(u64::MAX, &[L], &[x, (L, None, took(11, 15))]), Verdict::Nothing);
        assert_eq!(verdict(8, &[L], &[x, (L, None, took(9, 15))]), Verdict::Nothing, "it is clean to 8");
        assert_eq!(verdict(u64::MAX, &[L], &[x, (L, None, Taken::Lost)]), Verdict::Nothing);
        let gone_on = [x, (L, None, took(9, 12)), (M, None, took(12, 15))];
        assert_eq!(verdict(u64::MAX, &[L, M], &gone_on), Verdict::Nothing, "none of the two has it all");
    }

    #[test]
    fn a_learner_that_was_complete_needs_nobody() {
        let learner = (L, Some(15), took(15, 15));
        assert_eq!(verdict(u64::MAX, &[L], &[(X, Some(10), Taken::Nothing), learner]), Verdict::Recover(L));
        let beyond = [(X, Some(10), Taken::Nothing), learner, (M, None, took(15, 16))];
        assert_eq!(verdict(u64::MAX, &[L, M], &beyond), Verdict::Nothing, "something came after it");
    }
}
