//! One partition at one node: its copy, its role, and the replication protocol.
//!
//! The tour:
//! - `mod.rs`: what a node holds of a partition, and what a new table makes of it.
//! - [`primary`]: executing operations, the ack set, commit, who waits for what.
//! - [`follower`]: the backup's and learner's side: taking records, seals.
//! - [`snapshot`]: streaming a copy to a learner, and the learner's staging.
//! - [`handover`]: giving the reign to another in-sync replica.
//! - [`salvage`]: going on from a former copy when no in-sync one is left.
//! - [`divergence`]: what was written apart from the cluster.
//!
//! Source of the scheme: PacificA (Lin et al., 2008), with leases as in DESIGN "Failover".

pub mod divergence;
pub mod follower;
pub mod handover;
pub mod primary;
pub mod salvage;
pub mod snapshot;

use super::dedup::{DedupLimits, DedupTable};
use super::hlc::Hlc;
use super::ids::{Epoch, NodeId, PartitionId, Sequence};
use super::message::{Records, Refusal};
use super::peers::Mark;
use super::record::{self, Effect, Limits};
use super::shared::Shared;
use super::store::{Arena, Shard};
use super::table::Assignment;
use super::time::Now;
use bytes::Bytes;
use divergence::{Led, Parted};
use primary::{Primary, Unheard};
use salvage::{Merging, Passing};
use snapshot::Staging;
use std::collections::{BTreeMap, VecDeque};

/// What a node holds of one partition.
///
/// What every operation looks at lies together, here and in what follows: it has to come from memory.
#[repr(C, align(64))]
pub struct Partition {
    /// The epoch of the table in force here.
    pub epoch: Epoch,
    /// The highest epoch promised to a controller; never decreases (invariant b).
    pub promised: Epoch,
    /// What this node is to the partition.
    pub role: Role,
    /// Which one.
    pub id: PartitionId,
    /// A complete copy: served, followed, or kept until enough others are complete.
    pub copy: Option<Copy>,
    /// A copy in the making.
    pub staging: Option<Box<Staging>>,
    /// Whether it attached since the table lists it as a learner: writes may have waited for it.
    took: bool,
    /// What a former copy is being completed with.
    merging: Option<Merging>,
    /// What is being passed on to a former copy.
    passing: Option<Box<Passing>>,
    /// Whom the table in force here names as primary.
    primary: NodeId,
    /// Earlier primaries that may not know that they are, and may hold leases from here.
    reigned: Vec<Unheard>,
}

/// What a node is to a partition.
pub enum Role {
    /// Nothing, though a former copy may still be kept.
    Bystander,
    /// An in-sync backup or a learner: takes records from `primary`.
    Follower {
        /// Whom from.
        primary: NodeId,
        /// Whether the table lists this copy as in sync.
        in_sync: bool,
    },
    /// The one that executes.
    Primary(Box<Primary>),
}

/// A complete copy of a partition.
#[repr(C)]
pub struct Copy {
    /// The clock that versions the entries.
    pub hlc: Hlc,
    /// The last record applied.
    pub last: Sequence,
    /// The last record known to be committed.
    pub commit: Sequence,
    /// The entries.
    pub shard: Shard,
    /// Records after `commit`, for whoever lacks them.
    pub tail: Tail,
    /// Replies to exactly-once writes.
    pub dedup: DedupTable,
    /// The epoch in which the copy was last in force.
    pub epoch: Epoch,
    /// The snapshot attempt that made it; 0 if it began with the reign.
    pub attempt: u64,
    /// No longer followed: kept until replaced, whatever its epoch.
    pub former: bool,
    /// In-sync replicas that were counted out of this primary's ack set, and where.
    parted: BTreeMap<NodeId, Parted>,
    /// What was executed here: from the first reign over this copy to the end of the last.
    led: Option<Led>,
}

/// The records that are not known to be committed, in groups as they were sent.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Tail {
    bytes: usize,
    groups: VecDeque<Group>,
}

/// Consecutive records that travel together.
#[derive(Clone, Debug)]
pub struct Group {
    /// The sequence of the first.
    pub first: Sequence,
    /// How many.
    pub count: u32,
    /// The records.
    pub records: Bytes,
}

impl Group {
    /// The sequence of the last record.
    pub fn last(&self) -> Sequence {
        Sequence(self.first.0 + u64::from(self.count) - 1)
    }

    /// What it is sent as.
    fn message(&self, partition: PartitionId, epoch: Epoch, commit: Sequence) -> Records<'_> {
        let Group { first, count, records } = self;
        Records { partition, epoch, first: *first, count: *count, commit, records }
    }

    /// What its ack will mean.
    fn mark(&self, partition: PartitionId, epoch: Epoch, attempt: u64) -> Mark {
        Mark { partition, epoch, sequence: self.last(), attempt, fence: 0 }
    }
}

impl Tail {
    /// Appends the next group.
    pub fn push(&mut self, group: Group) {
        debug_assert!(self.groups.back().is_none_or(|last| last.last().next() == group.first));
        self.bytes += group.records.len();
        self.groups.push_back(group);
    }

    /// Lets go of what is committed.
    pub fn trim(&mut self, commit: Sequence) {
        while let Some(group) = self.groups.front()
            && group.last() <= commit
        {
            self.bytes -= group.records.len();
            self.groups.pop_front();
        }
    }

    /// The groups from `first` on; `None` if that is no longer, or not at a group's start.
    pub fn from(&self, first: Sequence) -> Option<impl Iterator<Item = &Group>> {
        let index = self.groups.partition_point(|group| group.first < first);
        self.groups.get(index).is_some_and(|group| group.first == first).then(|| self.groups.range(index..))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The sequence of the first record held.
    pub fn first(&self) -> Option<Sequence> {
        self.groups.front().map(|group| group.first)
    }

    /// The sequence of the last record held.
    pub fn last(&self) -> Option<Sequence> {
        self.groups.back().map(Group::last)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// Whether everything is committed.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

impl Copy {
    /// An empty copy at the start of a reign.
    pub fn empty(epoch: Epoch) -> Copy {
        Copy {
            shard: Shard::new(),
            hlc: Hlc::default(),
            last: Sequence(0),
            commit: Sequence(0),
            tail: Tail::default(),
            dedup: DedupTable::new(DedupLimits::default()),
            epoch,
            attempt: 0,
            former: false,
            parted: BTreeMap::new(),
            led: None,
        }
    }

    /// Whether this copy takes part in the reign of `epoch`.
    pub fn is_current(&self, epoch: Epoch) -> bool {
        !self.former && self.epoch == epoch
    }

    /// Takes note that everything up to `commit` is committed.
    pub fn committed(&mut self, commit: Sequence) {
        let commit = commit.min(self.last);
        if commit > self.commit {
            self.commit = commit;
            self.tail.trim(commit);
        }
    }

    /// Applies records that follow `last`. All or nothing: they are checked before the first is applied.
    fn apply(
        &mut self,
        arena: &mut Arena,
        limits: &Limits,
        now: Now,
        count: u32,
        records: &[u8],
    ) -> Result<(), Refusal> {
        check_records(count, records, limits)?;
        let mut rest = records;
        while !rest.is_empty() {
            let Ok(effect) = record::decode(&mut rest, limits) else { break };
            apply_effect(&mut self.shard, &mut self.hlc, &mut self.dedup, arena, now, &effect);
        }
        self.last = Sequence(self.last.0 + u64::from(count));
        Ok(())
    }
}

/// Whether `records` decodes to exactly `count` records.
fn check_records(count: u32, records: &[u8], limits: &Limits) -> Result<(), Refusal> {
    let mut rest = records;
    let mut seen = 0u32;
    while !rest.is_empty() {
        record::decode(&mut rest, limits).map_err(|_| Refusal::Unknown)?;
        seen += 1;
    }
    if seen == count { Ok(()) } else { Err(Refusal::Unknown) }
}

/// Applies one record in log order.
fn apply_effect(
    shard: &mut Shard,
    hlc: &mut Hlc,
    dedup: &mut DedupTable,
    arena: &mut Arena,
    now: Now,
    effect: &Effect<'_>,
) {
    match *effect {
        Effect::Remember(ref update) => dedup.record(update),
        _ => {
            hlc.observe(effect.version());
            shard.apply(arena, effect, now);
        }
    }
}

impl Partition {
    /// A partition of which nothing is held.
    pub fn new(id: PartitionId) -> Partition {
        Partition {
            id,
            epoch: Epoch(0),
            promised: Epoch(0),
            role: Role::Bystander,
            copy: None,
            staging: None,
            took: false,
            merging: None,
            passing: None,
            primary: NodeId(0),
            reigned: Vec::new(),
        }
    }

    /// Whom the table in force here names as primary.
    pub fn primary(&self) -> NodeId {
        self.primary
    }

    /// Whether this node is its primary.
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// Makes of this partition what a newer table says.
    pub fn install(&mut self, shared: &mut Shared, assignment: &Assignment) {
        if assignment.epoch == Epoch(0) {
            return;
        }
        debug_assert!(assignment.epoch >= self.epoch, "epochs never go back within an incarnation");
        let new_epoch = assignment.epoch != self.epoch;
        // The same primary's log goes on: what was taken of it stands, until it attaches this learner anew.
        let goes_on = assignment.primary == self.primary && assignment.epoch == self.epoch.next();
        if new_epoch {
            self.note_reigned(shared, assignment);
        }
        self.epoch = assignment.epoch;
        self.primary = assignment.primary;
        self.promised = self.promised.max(assignment.epoch);
        if new_epoch {
            shared.peers.reign_began(self.id, assignment.epoch, shared.table.version);
            self.drop_passing(shared);
            // Every reign starts its learners anew, with attempts numbered by its own primary.
            if !goes_on {
                self.drop_staging(shared);
            }
        }

        // A reign that starts from nothing voids whatever was held before.
        if self.copy.as_ref().is_some_and(|copy| copy.epoch < assignment.origin) {
            self.discard_copy(shared);
        }
        let in_sync = assignment.isr.contains(&shared.me);
        let was_in_sync = matches!(self.role, Role::Follower { in_sync: true, .. } | Role::Primary(_));
        if !in_sync
            && (was_in_sync || !assignment.holds(shared.me))
            && let Some(copy) = &mut self.copy
        {
            // Writes went on without it from here on, in the same epoch perhaps.
            copy.former = true;
        }
        if in_sync && self.copy.is_none() {
            if assignment.epoch != assignment.origin {
                tracing::error!(partition = %self.id, epoch = %assignment.epoch, "listed as in sync without a copy");
                shared.stats.invariant_alarms += 1;
            }
            self.copy = Some(Copy::empty(assignment.epoch));
        }

        self.merging = None;
        if in_sync && assignment.primary == shared.me {
            if let Some(copy) = &mut self.copy {
                // Named again, after all: recovered from.
                shared.stats.recovered += u64::from(copy.former);
                copy.former = false;
            }
            self.took = false;
            self.drop_staging(shared);
            if self.is_primary() && !new_epoch {
                self.update_ack_set(shared, assignment);
            } else if self.is_primary() {
                self.renew(shared, assignment);
            } else {
                self.promote(shared, assignment);
            }
        } else {
            self.step_down(shared);
            let learned = matches!(self.role, Role::Follower { in_sync: false, .. });
            self.took &= learned;
            self.role = if in_sync || assignment.learners.contains(&shared.me) {
                Role::Follower { primary: assignment.primary, in_sync }
            } else {
                Role::Bystander
            };
            if in_sync {
                self.drop_staging(shared);
            }
        }
        if in_sync && let Some(copy) = &mut self.copy {
            if copy.epoch != assignment.epoch {
                // Attempts are numbered by each primary: those of the last one say nothing now.
                copy.attempt = 0;
            }
            copy.epoch = assignment.epoch;
        }
        if !assignment.holds(shared.me) {
            self.drop_staging(shared);
            // Never wipe before replaced: only enough other complete copies make ours superfluous.
            if self.copy.is_some() && shared.enough_copies(assignment) {
                self.discard_copy(shared);
            }
        }
    }

    /// Keeps in mind whose reign is over, before the table in force is taken note of. Leases are between
    /// nodes: each reads on, on those from here, until it hears of its end, even when its copy counts
    /// no more, and whoever reigns by then.
    fn note_reigned(&mut self, shared: &Shared, assignment: &Assignment) {
        self.reigned.retain(|unheard| unheard.may_read(shared));
        let nobody = self.epoch == Epoch(0) && assignment.epoch == assignment.origin;
        let others: Vec<NodeId> = match assignment.epoch == self.epoch.next() && self.epoch > Epoch(0) {
            true => vec![self.primary],
            false if nobody => Vec::new(),
            // Reigns have passed here unnoticed: anybody's.
            false => shared.peers.iter().map(|(node, _)| node).collect(),
        };
        for node in others.into_iter().filter(|&node| node != shared.me && node != assignment.primary) {
            let unheard = Unheard::of(shared, node);
            if unheard.may_read(shared) {
                self.reigned.retain(|known| known.node != node);
                self.reigned.push(unheard);
            }
        }
    }

    /// Lets go of the copy; its memory is reclaimed in bounded steps.
    fn discard_copy(&mut self, shared: &mut Shared) {
        if let Some(copy) = self.copy.take() {
            shared.condemned.push_back(copy.shard);
        }
    }

    /// Lets go of a copy in the making.
    fn drop_staging(&mut self, shared: &mut Shared) {
        if let Some(staging) = self.staging.take() {
            shared.condemned.push_back(staging.copy.shard);
        }
    }

    /// Everything held is void: the node joins another incarnation.
    pub fn reset(&mut self, shared: &mut Shared) {
        self.step_down(shared);
        self.role = Role::Bystander;
        self.drop_passing(shared);
        self.drop_staging(shared);
        self.discard_copy(shared);
        self.epoch = Epoch(0);
        self.reigned.clear();
        self.promised = Epoch(0);
    }
}
