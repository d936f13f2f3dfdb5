//! The table at this node: taking a newer one, entering an incarnation, telling the others.

use super::{Engine, Output};
use crate::engine::ids::{NodeId, PartitionId, TableVersion};
use crate::engine::message::{Message, TableStep};
use crate::engine::partition::{Partition, Role};
use crate::engine::table::{MemberStatus, Table};
use std::sync::Arc;

/// How far ahead of this node's table another member's can be: nobody sleeps for so many entries.
const VERSIONS_AHEAD_MAX: u64 = 1 << 32;

/// Whether a table of a later incarnation is what a takeover makes of this cluster's.
fn taken_over(table: &Table, mine: &Table) -> Result<(), String> {
    if table.settings != mine.settings {
        return Err("a takeover changes no settings".into());
    }
    match table.carried_by {
        Some(carrier) if table.members.contains_key(&carrier) || table.is_retired(carrier) => Ok(()),
        _ => Err("nobody took over".into()),
    }
}

impl Engine {
    pub(super) fn table_received(&mut self, from: NodeId, table: Table) {
        let mine = self.shared.table.incarnation;
        if table.incarnation.0 == 0 || (mine.0 != 0 && !mine.same_lineage(table.incarnation)) {
            self.shared.stats.refused.incarnation += 1;
            tracing::warn!(%from, "a table of another cluster");
            return;
        }
        if !table.supersedes(&self.shared.table) {
            return;
        }
        self.install_checked(from, table);
    }

    /// Whether a version of this incarnation's table is further ahead than anybody can be.
    pub(super) fn is_unheard_of(&self, version: TableVersion) -> bool {
        let mine = &self.shared.table;
        mine.incarnation.0 != 0 && version.0 > mine.version.0.saturating_add(VERSIONS_AHEAD_MAX)
    }

    /// Takes a newer table from a member, unless it cannot be what was agreed.
    fn install_checked(&mut self, from: NodeId, table: Table) {
        let mine = &self.shared.table;
        let same = table.incarnation == mine.incarnation;
        if same && self.is_unheard_of(table.version) {
            self.shared.stats.refused.sequence += 1;
            tracing::warn!(%from, version = %table.version, "a table from the future");
            return;
        }
        let follows = match same {
            true => table.checks_after(mine),
            false if mine.incarnation.0 == 0 => table.checks(),
            false => table.checks().and_then(|()| taken_over(&table, mine)),
        };
        if let Err(fault) = follows {
            self.shared.stats.refused.malformed += 1;
            tracing::warn!(%from, fault, "a table that cannot be");
            return;
        }
        self.install(Arc::new(table));
    }

    /// Takes the changes that lead to the next table; asks for all of it if others are missing here.
    pub(super) fn table_step(&mut self, from: NodeId, step: TableStep) {
        let mine = &self.shared.table;
        if step.version <= mine.version {
            return;
        }
        if step.after != mine.version {
            self.shared.pull_table(from);
            return;
        }
        let mut table = (**mine).clone();
        table.version = step.version;
        for (id, assignment) in step.partitions {
            match table.partitions.get_mut(id.index()) {
                Some(known) => *known = assignment,
                None => {
                    self.shared.stats.refused.partition += 1;
                    return;
                }
            }
        }
        self.install_checked(from, table);
    }

    pub(super) fn install(&mut self, table: Arc<Table>) {
        if !table.supersedes(&self.shared.table) {
            return;
        }
        let now = self.shared.now;
        if table.incarnation != self.shared.table.incarnation {
            self.enter_incarnation(&table);
        }
        let before = self.shared.set_table(table.clone());
        let Engine { shared, partitions, .. } = self;
        for (partition, assignment) in partitions.iter_mut().zip(&table.partitions) {
            let unchanged = before.incarnation == table.incarnation
                && before.partitions.get(partition.id.index()) == Some(assignment);
            // A former copy may have become superfluous by a change elsewhere.
            let kept = matches!(partition.role, Role::Bystander) && partition.copy.is_some();
            if !unchanged || kept {
                partition.install(shared, assignment);
                shared.woken.insert(partition.id);
            }
        }
        for (&node, member) in &table.members {
            if node != self.shared.me
                && member.status != MemberStatus::Down
                && self.maintained.get(&node) != Some(&member.quic)
            {
                self.maintained.insert(node, member.quic);
                self.outputs.push_back(Output::Maintain(node, member.quic));
            }
            if member.status == MemberStatus::Down && before.is_live(node) {
                self.unanswered(node);
            }
        }
        let gone: Vec<NodeId> =
            self.maintained.keys().copied().filter(|node| !table.members.contains_key(node)).collect();
        for node in gone {
            self.maintained.remove(&node);
            self.outputs.push_back(Output::Forget(node));
            self.unanswered(node);
        }
        self.map_wanted.retain(|wanted| table.map_id(&wanted.name).is_none());
        if self.leaving
            && !self.left
            && before.members.contains_key(&self.shared.me)
            && !table.members.contains_key(&self.shared.me)
        {
            self.left = true;
            self.membership.leave(now);
            self.outputs.push_back(Output::Left);
        }
        self.outputs.push_back(Output::TableChanged);
    }

    fn enter_incarnation(&mut self, table: &Table) {
        let former = self.shared.table.incarnation;
        // Survivors of a takeover carry their copies into the new incarnation; whoever was left
        // behind starts from nothing.
        let carries = former.0 != 0 && table.carried_by == Some(self.shared.me);
        if former.0 != 0 && !carries {
            tracing::warn!(%former, now = %table.incarnation, "joining a later incarnation as a fresh member");
            let Engine { shared, partitions, .. } = self;
            if let Some(carrier) = table.carried_by {
                let divergent: u64 =
                    partitions.iter().map(|partition| partition.divergent_writes(shared, carrier)).sum();
                if divergent > 0 {
                    tracing::warn!(divergent, %carrier, "writes taken here apart from the cluster are dropped");
                }
                shared.stats.divergent += divergent;
            }
            for partition in partitions.iter_mut() {
                partition.reset(shared);
            }
            self.outputs.push_back(Output::Rejoined);
            if self.leading {
                self.leading = false;
                self.controller.resign();
            }
        }
        if carries {
            // What waits here was executed in the life before: a fencing token of it may be smaller than one
            // that the other side of a split has given since (seed 720018).
            let Engine { shared, partitions, .. } = self;
            for partition in partitions.iter_mut() {
                partition.flush(shared);
                partition.step_down(shared);
            }
        }
        self.pending_seals.clear();
        self.shared.peers.new_incarnation(table.incarnation);
        // Whoever leads while its cluster forms keeps what the log said before this table came of it.
        if !self.leading {
            self.shared.peers.term = 0;
            self.shared.peers.leader = None;
        }
        self.membership.set_incarnation(self.shared.now, table.incarnation);
        if self.partitions.len() != table.partitions.len() {
            self.partitions =
                (0..table.settings.partitions).map(|id| Partition::new(PartitionId(id))).collect();
        }
    }

    /// Tells all members of the table in force: the step from `before`, if that says it all. Those that it
    /// no longer names hear of it, too: who leaves waits for that.
    pub(super) fn push_table(&mut self, before: Option<&Table>) {
        let me = self.shared.me;
        let table = self.shared.table.clone();
        let step = before.and_then(|before| TableStep::between(before, &table));
        let message = match step {
            Some(step) => Message::TableStep(step),
            None => Message::Table(Box::new((*table).clone())),
        };
        let gone = before.map(|before| &before.members).into_iter().flatten();
        let gone = gone.filter(|(node, _)| !table.members.contains_key(node));
        for (&node, member) in table.members.iter().chain(gone) {
            if node != me && member.status != MemberStatus::Down {
                self.shared.peers.send_control(node, &message);
            }
        }
    }
}
