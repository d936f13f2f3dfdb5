//! Orders of the controller, seals, and reports to it.

use super::{Engine, PendingSeal};
use crate::engine::controller::{Order, Report, Sealed, SealedPartition};
use crate::engine::ids::{Epoch, NodeId, PartitionId};
use crate::engine::message::Message;
use crate::engine::mutants::Mutant;

/// So many members are told what the leader, out of reach itself, should hear from one of them.
const RELAYS_MAX: usize = 3;

impl Engine {
    pub(super) fn order(&mut self, from: NodeId, order: Order) {
        match order {
            Order::Seal { ref partitions, .. } | Order::Salvage { ref partitions, .. }
                if partitions.len() > self.partitions.len() =>
            {
                self.shared.stats.refused.oversize += 1;
            }
            Order::Seal { deposed, partitions } => self.seal(from, deposed, partitions, false),
            Order::Salvage { deposed, partitions } => self.seal(from, deposed, partitions, true),
            Order::Merge { partition, epoch, to } => match self.partitions.get_mut(partition.index()) {
                Some(part) => part.pass_overlay(&mut self.shared, epoch, to),
                None => self.shared.stats.refused.partition += 1,
            },
            Order::Handover { partition, epoch, to } => match self.partitions.get_mut(partition.index()) {
                Some(part) => part.begin_handover(&mut self.shared, epoch, to),
                None => self.shared.stats.refused.partition += 1,
            },
        }
    }

    fn seal(
        &mut self,
        controller: NodeId,
        deposed: NodeId,
        mut partitions: Vec<(PartitionId, Epoch)>,
        salvage: bool,
    ) {
        let now_us = self.shared.now.mono_us;
        // A promise that no reign can ever keep up with would close the partition for good. Who is some
        // tables behind asks for them, and is asked again.
        let before = partitions.len();
        partitions.retain(|&(id, epoch)| {
            self.partitions.get(id.index()).is_some_and(|partition| epoch <= partition.epoch.next())
        });
        if partitions.len() < before {
            self.shared.stats.refused.epoch += (before - partitions.len()) as u64;
            self.shared.pull_table(controller);
        }
        for &(id, epoch) in &partitions {
            let Some(partition) = self.partitions.get_mut(id.index()) else { continue };
            if epoch <= partition.epoch {
                continue;
            }
            partition.seal(&mut self.shared, epoch);
            if deposed != self.shared.me && !self.shared.config.mutation.is(Mutant::LeaseDespiteSeal) {
                self.shared.peers.seal(deposed, id, epoch);
            }
        }
        // The promise is told once the lease that was granted has run out.
        let ready_us = self.shared.peers.granted_until_us(deposed).max(now_us);
        self.pending_seals.retain(|pending| {
            (pending.deposed, pending.controller, pending.salvage) != (deposed, controller, salvage)
        });
        self.pending_seals.push(PendingSeal { controller, deposed, salvage, partitions, ready_us });
        self.tick_seals();
    }

    pub(super) fn tick_seals(&mut self) {
        let now_us = self.shared.now.mono_us;
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending_seals)
            .into_iter()
            .partition(|pending| pending.ready_us <= now_us);
        self.pending_seals = waiting;
        for pending in ready {
            if pending.salvage {
                let Engine { shared, partitions, .. } = self;
                let mut held = Vec::new();
                for (id, epoch) in pending.partitions {
                    let Some(partition) = partitions.get_mut(id.index()) else { continue };
                    held.extend(partition.salvage(shared, epoch));
                }
                let report = Report::Held(held);
                let me = shared.me;
                if pending.controller == me {
                    self.controller.report(self.shared.now, me, report);
                } else {
                    let report = Message::Report { from: me, report, relayed: true };
                    shared.peers.send_control(pending.controller, &report);
                }
                continue;
            }
            let mut sealed = Vec::new();
            for (id, epoch) in pending.partitions {
                let Some(partition) = self.partitions.get_mut(id.index()) else { continue };
                if let Some(last) = partition.seal(&mut self.shared, epoch) {
                    sealed.push(SealedPartition { partition: id, epoch, last });
                }
            }
            let sealed = Sealed { deposed: pending.deposed, partitions: sealed };
            if pending.controller == self.shared.me {
                self.controller.sealed(self.shared.now, self.shared.me, sealed);
            } else {
                self.shared.peers.send_control(pending.controller, &Message::Sealed(sealed));
            }
        }
    }

    pub(super) fn send_reports(&mut self) {
        let me = self.shared.me;
        for report in std::mem::take(&mut self.shared.reports) {
            if self.leading {
                self.controller.report(self.shared.now, me, report);
                continue;
            }
            let report = Message::Report { from: me, report, relayed: false };
            for node in self.towards_leader() {
                self.shared.peers.send_control(node, &report);
            }
        }
    }

    /// The leader; where there is no way to it, some who may have one.
    pub(super) fn towards_leader(&mut self) -> Vec<NodeId> {
        if let Some(leader) = self.shared.peers.leader
            && self.shared.peers.linked(leader)
        {
            return vec![leader];
        }
        let mut linked: Vec<NodeId> =
            self.shared.peers.iter().filter(|(_, peer)| peer.linked).map(|(node, _)| node).collect();
        for chosen in 0..linked.len().min(RELAYS_MAX) {
            let rest = linked.len() - chosen;
            linked.swap(chosen, chosen + self.shared.random() as usize % rest);
        }
        linked.truncate(RELAYS_MAX);
        linked
    }
}
