//! Bugs that can be put in on purpose (feature `mutants`), to see that the simulator catches each.
//!
//! A mutant is part of the configuration, like everything else that decides what an engine does.
//! Without the feature there is nothing to set, and every question is answered at compile time.

use super::partition::Partition;
use super::record::RecordLog;
use super::shared::Shared;
use super::store::{FencingToken, Keyspace, KeyspaceContext};

/// A bug: what the engine does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A backup takes records of any epoch, from anyone.
    SkipEpochCheck,
    /// A write is acknowledged before the backups have it.
    AcknowledgeEarly,
    /// A primary serves reads without a lease.
    IgnoreLease,
    /// A learner wipes its former copy when it is attached again.
    WipeOnReattach,
    /// Backups delete expired entries by their own clock.
    BackupsExpire,
    /// The source of a handover drops its copy before the new reign is agreed on.
    DropSourceEarly,
    /// Requests that were sent again are executed again.
    NoDedup,
    /// The queue of operations that wait for a handover loses its last one.
    LoseLastQueued,
    /// The survivor that knows least becomes primary.
    PromoteLowest,
    /// Chunks of a snapshot bring back what was deleted meanwhile.
    ResurrectDeleted,
    /// Backups that promised a reign away go on granting leases to it.
    LeaseDespiteSeal,
    /// Snapshots are taken for complete without a look at count and digest, and a chunk is missing.
    CompleteTooEarly,
    /// What a learner said of an earlier attempt to attach it counts for this one.
    CountStaleAcks,
}

impl Mutant {
    /// Those that the simulator has to catch.
    pub const ALL: [Mutant; 13] = [
        Mutant::SkipEpochCheck,
        Mutant::AcknowledgeEarly,
        Mutant::IgnoreLease,
        Mutant::WipeOnReattach,
        Mutant::BackupsExpire,
        Mutant::DropSourceEarly,
        Mutant::NoDedup,
        Mutant::LoseLastQueued,
        Mutant::PromoteLowest,
        Mutant::ResurrectDeleted,
        Mutant::LeaseDespiteSeal,
        Mutant::CompleteTooEarly,
        Mutant::CountStaleAcks,
    ];
}

/// The mutant that an engine is, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutation(#[cfg(feature = "mutants")] Option<Mutant>);

impl Mutation {
    /// An engine with this bug.
    #[cfg(feature = "mutants")]
    pub fn of(mutant: Mutant) -> Mutation {
        Mutation(Some(mutant))
    }

    /// Whether the engine has this bug; never without the feature.
    #[inline(always)]
    pub fn is(self, mutant: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        let has = self.0 == Some(mutant);
        #[cfg(not(feature = "mutants"))]
        let has = {
            let _ = mutant;
            false
        };
        has
    }
}

impl Partition {
    /// What [`Mutant::BackupsExpire`] does: deletes what is due here, and tells nobody.
    pub(super) fn expire_by_own_clock(&mut self, shared: &mut Shared, budget: usize) {
        let Some(copy) = &mut self.copy else { return };
        let context = KeyspaceContext {
            now: shared.now,
            partition: self.id,
            partition_count: shared.table.settings.partitions,
            entropy: 0,
            token: FencingToken {
                incarnation: shared.table.incarnation,
                epoch: self.epoch,
                sequence: copy.last,
            },
            maps: &shared.table.maps,
            limits: shared.config.limits,
        };
        let mut unheard = RecordLog::default();
        Keyspace::new(&mut copy.shard, &mut shared.arena, &mut copy.hlc, &mut unheard, context)
            .sweep_expired(budget);
    }
}
