//! What is done when time has passed.

use super::{Engine, JOIN_REPEAT_US, Output, VOTERS_REPEAT_US};
use crate::engine::controller::{self, Report};
use crate::engine::ids::NodeId;
use crate::engine::message::{self, Message, Unavailable};
use crate::engine::mutants::Mutant;
use crate::engine::partition::Role;
use crate::engine::partition::primary::{Asker, IN_DOUBT};
use crate::engine::table::MemberStatus;
use crate::engine::time::Now;

/// Complete copies that nobody else has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnlyHere {
    /// Partitions.
    pub partitions: usize,
    /// Their keys.
    pub keys: u64,
}

/// Who leaves and waits says so this often.
const WARN_REPEAT_US: u64 = 5_000_000;

impl Engine {
    pub(super) fn tick_partitions(&mut self) {
        let Engine { shared, partitions, .. } = self;
        for id in shared.restless.take() {
            let partition = &mut partitions[id.index()];
            partition.tick_primary(shared);
            if partition.is_restless() {
                shared.restless.insert(id);
            }
        }
        // Memory of shards given up, in bounded steps.
        let mut budget = 20_000;
        while budget > 0
            && let Some(shard) = shared.condemned.front_mut()
        {
            if shard.release_some(&mut shared.arena, budget) {
                shared.condemned.pop_front();
            }
            budget = budget.saturating_sub(5_000);
        }
    }

    /// What waits for a node that was a moment behind in its table is asked again soon.
    pub(super) fn tick_parked(&mut self) {
        for id in self.router.parked_partitions() {
            let Some(assignment) = self.shared.table.assignment(id) else { continue };
            let primary = assignment.primary;
            if primary == self.shared.me
                || (self.shared.table.is_live(primary) && self.shared.peers.linked(primary))
            {
                self.shared.woken.insert(id);
            }
        }
    }

    pub(super) fn tick_slow(&mut self, now: Now) {
        let now_us = now.mono_us;
        self.shared.look_for_majority();
        self.look_at_partitions();
        self.make_room(0);
        self.tick_digests(now_us, self.partitions.len());
        for forwarded in self.router.expired(now_us) {
            let Asker::Local(ticket) = forwarded.asker else { continue };
            self.shared.stats.expired_patience += 1;
            if forwarded.op.encoded().writes() {
                self.shared.stats.in_doubt += 1;
                self.shared.complete_error(ticket, IN_DOUBT);
            } else {
                self.shared.complete_error(ticket, Unavailable::NoPrimary.resp_error());
            }
        }
        let parked = self.router.parked_partitions();
        self.shared.woken.extend(parked);
        self.tick_membership_of_table(now);
        self.tick_takeover(now);
        let table = self.shared.table.clone();
        self.shared.peers.retain(now_us, |node| table.members.contains_key(&node));
    }

    /// Expiry and housekeeping of a slice of the partitions: all are seen within a second (at rest, where
    /// nothing expires, within ten). The slices are thin because requests wait meanwhile.
    pub(super) fn tick_expiry(&mut self) {
        const SLICES: usize = 40;
        let count = self.partitions.len();
        let slice = count.div_ceil(SLICES);
        let maps_bounded = self.shared.table.maps.iter().any(|map| map.defaults.bytes_max > 0);
        for _ in 0..slice {
            self.sweep_cursor = (self.sweep_cursor + 1) % count.max(1);
            let budget = self.shared.config.sweep_budget;
            let Engine { shared, partitions, .. } = self;
            let partition = &mut partitions[self.sweep_cursor];
            if partition.is_primary() {
                partition.sweep(shared, budget);
                if maps_bounded {
                    partition.evict(shared, 0);
                }
            } else if shared.config.mutation.is(Mutant::BackupsExpire) {
                partition.expire_by_own_clock(shared, budget);
            } else if let Some(copy) = &mut partition.copy {
                copy.shard.tidy(&mut shared.arena, budget);
            }
        }
    }

    fn tick_digests(&mut self, now_us: u64, count: usize) {
        if count == 0 {
            return;
        }
        // Spread over the period: so many partitions are due by now.
        let per_partition_us = (self.shared.config.digest_period_us / count as u64).max(1);
        if self.digest_owed_us == 0 {
            self.digest_owed_us = now_us;
        }
        while self.digest_owed_us + per_partition_us <= now_us {
            self.digest_owed_us += per_partition_us;
            self.digest_cursor = (self.digest_cursor + 1) % count;
            self.partitions[self.digest_cursor].send_digest(&mut self.shared);
        }
    }

    /// Joining, leaving, pulling and reporting are repeated until the table shows the result.
    pub(super) fn tick_membership_of_table(&mut self, now: Now) {
        let now_us = now.mono_us;
        let me = self.shared.me;
        let table = self.shared.table.clone();
        let in_cluster = table.incarnation.0 != 0;
        let listed = table.members.get(&me);
        if in_cluster && listed.is_none() && !self.leaving && now_us >= self.last_join_us + JOIN_REPEAT_US {
            self.last_join_us = now_us;
            if self.leading {
                self.controller.join(now, self.member.clone());
            } else {
                let join = Message::Join { member: self.member.clone(), relayed: false };
                for node in self.towards_leader() {
                    self.shared.peers.send_control(node, &join);
                }
            }
        }
        if !in_cluster && now_us >= self.last_pull_us + JOIN_REPEAT_US {
            self.last_pull_us = now_us;
            let linked: Vec<NodeId> =
                self.shared.peers.iter().filter(|(_, peer)| peer.linked).map(|(node, _)| node).collect();
            self.shared.pulls.extend(linked);
        }
        if now_us >= self.last_report_us + JOIN_REPEAT_US {
            self.last_report_us = now_us;
            if self.leaving && listed.is_some() {
                self.shared.report(Report::Leave);
            }
            for wanted in self.map_wanted.clone() {
                self.shared.report(Report::DefineMap(wanted));
            }
        }
        // Whoever could take something over: a member that is gone as well never will, and might have
        // gone before it could say that it was leaving.
        let alone = !table.members.values().any(|member| {
            member.node != me
                && member.status == MemberStatus::Up
                && member.weight > 0
                && (self.membership.is_alive(member.node) || self.shared.peers.linked(member.node))
        });
        // Nobody waits for who was never let in, or whose removal was not heard of.
        let stranger = listed.is_none();
        if self.leaving && !self.left && (stranger || alone) && !self.waits_for_heirs(now) {
            self.left = true;
            self.outputs.push_back(Output::Left);
        }
        if self.leading {
            // The leader first: whoever has to go, it isn't the one that decides.
            let mut current = self.controller.voters().to_vec();
            current.sort_by_key(|&node| node != me);
            // Who died a moment ago is still linked: a set of voters must not rest on it.
            let lately_us = now_us.saturating_sub(self.shared.config.peers.lease_us);
            let alive = |node: NodeId| {
                let peers = &self.shared.peers;
                let answers = peers.linked(node) && peers.answered_us(node) >= lately_us;
                node == me || (self.membership.is_alive(node) && answers)
            };
            let voters = controller::voters(&table, &current, alive);
            if !current.is_empty()
                && !voters.is_empty()
                && (voters != self.voters_ordered.0 || now_us >= self.voters_ordered.1 + VOTERS_REPEAT_US)
            {
                self.voters_ordered = (voters.clone(), now_us);
                self.outputs.push_back(Output::Voters(voters));
            }
        }
    }

    /// Whether a node that leaves and finds itself alone stays, for somebody to take what only it holds:
    /// a member that is away and may come back, or be replaced. How long is up to whoever asked it to leave.
    fn waits_for_heirs(&mut self, now: Now) -> bool {
        let me = self.shared.me;
        let only = self.only_here();
        let heirs = self.shared.table.heirs().any(|member| member.node != me);
        // The log goes with its only voter: the other, handed everything, may not know it yet (seed 971).
        let decides = self.controller.voters() == [me];
        let waits = heirs && (only.keys > 0 || decides);
        if only.keys > 0 && (!waits || now.mono_us >= self.warned_us + WARN_REPEAT_US) {
            self.warned_us = now.mono_us;
            let OnlyHere { partitions, keys } = only;
            match waits {
                true => tracing::warn!(
                    partitions,
                    keys,
                    "leaving, and nobody is there to take over what only this node holds; waiting"
                ),
                false => tracing::warn!(
                    partitions,
                    keys,
                    "leaving as the last one: what this node holds is gone with it"
                ),
            }
        }
        waits
    }

    /// What would be lost with this node: no other member that lives has a complete copy of it.
    pub fn only_here(&self) -> OnlyHere {
        let (me, table) = (self.shared.me, &self.shared.table);
        let reached = |node: NodeId| {
            node != me
                && table.is_live(node)
                && (self.membership.is_alive(node) || self.shared.peers.linked(node))
        };
        let mut only = OnlyHere::default();
        for (assignment, partition) in table.partitions.iter().zip(&self.partitions) {
            let Some(copy) = &partition.copy else { continue };
            if assignment.isr.contains(&me) && !assignment.isr.iter().any(|&node| reached(node)) {
                only.partitions += 1;
                only.keys += copy.shard.len() as u64;
            }
        }
        only
    }

    /// Small clusters: the survivor goes on as the next incarnation.
    fn tick_takeover(&mut self, now: Now) {
        let me = self.shared.me;
        let table = self.shared.table.clone();
        if table.incarnation.0 == 0 || self.leading || !table.members.contains_key(&me) || self.leaving {
            self.leader_lost_us = None;
            return;
        }
        let alive =
            |node: NodeId| node == me || self.membership.is_alive(node) || self.shared.peers.linked(node);
        if !controller::may_take_over(&table, me, alive) {
            self.leader_lost_us = None;
            return;
        }
        let since = *self.leader_lost_us.get_or_insert(now.mono_us);
        // What the lost voter may still serve under our lease must have run out.
        if now.mono_us < since + self.shared.config.peers.lease_us {
            return;
        }
        self.leader_lost_us = None;
        let incarnation = table.incarnation.successor(me);
        tracing::warn!(%incarnation, "the rest of this small cluster is lost; going on alone");
        self.outputs.push_back(Output::Form(Box::new(table.carried_on(incarnation, me))));
    }

    /// Looks at every partition, once for all that is asked of all of them: that takes time, for they have to come
    /// from memory.
    fn look_at_partitions(&mut self) {
        let Engine { shared, partitions, .. } = self;
        let (mut keys, mut migrations, mut copy_left_bytes) = (0, 0, 0);
        let mut at_rest = true;
        for partition in partitions.iter() {
            let Some(copy) = &partition.copy else { continue };
            at_rest &= copy.shard.expiring() == 0 && !copy.shard.has_trash();
            let Role::Primary(primary) = &partition.role else { continue };
            // Stragglers: whoever is busy marks itself.
            if partition.is_restless() {
                shared.restless.insert(partition.id);
            }
            keys += copy.shard.len() as u64;
            for sending in primary.followers.iter().filter_map(|follower| follower.sending.as_ref()) {
                migrations += 1;
                copy_left_bytes += sending.left_bytes(copy);
            }
        }
        self.at_rest = at_rest && self.is_alone_and_idle();
        self.update_load(keys, migrations, copy_left_bytes);
    }

    /// Whether nobody waits for a timer here, the partitions apart.
    fn is_alone_and_idle(&self) -> bool {
        let shared = &self.shared;
        shared.table.members.len() == 1
            && shared.table.maps.is_empty()
            && self.maintained.is_empty()
            && self.router.is_empty()
            && !self.leaving
            && shared.restless.is_empty()
            && shared.condemned.is_empty()
            && !shared.arena.has_draining()
    }

    fn update_load(&mut self, keys: u64, migrations: u32, copy_left_bytes: u64) {
        let status = self.controller.status();
        let moves = status.learners + status.migrations_wanted + status.handovers_wanted + status.surplus;
        let load = &mut self.shared.peers.load;
        load.keys = keys;
        load.migrations = migrations;
        load.copy_left_bytes = copy_left_bytes;
        load.moves_wanted = moves.try_into().unwrap_or(u32::MAX);
        load.bytes = self.shared.arena.bytes_used();
        load.bytes_max = self.shared.config.bytes_max;
        load.operations = self.shared.stats.operations;
        load.uptime_s = (self.shared.now.mono_us - self.started_us) / 1_000_000;
        load.snapshot_bytes = self.shared.stats.snapshot_bytes_sent;
    }

    /// What this node says of itself.
    pub fn load(&self) -> &message::Load {
        &self.shared.peers.load
    }
}
