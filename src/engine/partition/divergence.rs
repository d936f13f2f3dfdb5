//! What a primary wrote after the survivor that went on without it was gone from its ack set: writes
//! that the cluster never saw. They are counted and named before they are dropped, never merged.

use super::{Copy, Partition, Role};
use crate::engine::ids::{NodeId, Sequence, Version};
use crate::engine::record;
use crate::engine::shared::Shared;

/// Where another copy was last known to have everything.
#[derive(Clone, Copy, Debug)]
pub struct Parted {
    /// The last record it acknowledged.
    sequence: Sequence,
    /// What was written since is of a later version.
    version: Version,
}

/// The records that were executed here, those of other reigns between two of one's own included.
#[derive(Clone, Copy, Debug)]
pub struct Led {
    from: Sequence,
    /// The clock when it began.
    version: Version,
    until: Sequence,
}

impl Copy {
    /// A reign over this copy begins here.
    pub(super) fn lead_from_here(&mut self) {
        let (from, version) = (self.last, self.hlc.last());
        self.led.get_or_insert(Led { from, version, until: from });
    }

    /// A reign over this copy ends here.
    pub(super) fn led_until_here(&mut self) {
        if let Some(led) = &mut self.led {
            led.until = self.last;
        }
    }

    /// A node that has everything up to `acked` is no longer told of writes.
    pub(super) fn part_from(&mut self, node: NodeId, acked: Sequence, limits: &record::Limits) {
        let parted = self.parting(acked, limits);
        self.parted.entry(node).or_insert(parted);
    }

    fn parting(&self, acked: Sequence, limits: &record::Limits) -> Parted {
        let first = self.tail.from(acked.next()).and_then(|mut groups| groups.next()).and_then(|group| {
            let mut rest = &group.records[..];
            record::decode(&mut rest, limits).ok().map(|effect| effect.version())
        });
        let version = first.map_or(self.hlc.last(), |first| Version(first.0.saturating_sub(1)));
        Parted { sequence: acked, version }
    }
}

impl Partition {
    /// How many records were executed here that `carrier`, who went on with the cluster, never
    /// acknowledged. Their keys are logged.
    pub fn divergent_writes(&self, shared: &Shared, carrier: NodeId) -> u64 {
        let Some(copy) = &self.copy else { return 0 };
        let Some(led) = copy.led else { return 0 };
        // Who was never seen to follow has nothing of these reigns.
        let apart = Parted { sequence: led.from, version: led.version };
        let in_sync = shared.table.assignment(self.id).is_some_and(|known| known.isr.contains(&carrier));
        let (parted, until) = match &self.role {
            Role::Primary(primary) => {
                let mut followers = primary.followers.iter();
                let followed = followers.find(|follower| follower.node == carrier && follower.in_sync);
                let parting = followed.map(|it| copy.parting(it.acked, &shared.config.limits));
                (copy.parted.get(&carrier).copied().or(parting).unwrap_or(apart), copy.last)
            }
            // Whoever leads now tells the rest (seed 691).
            Role::Follower { .. } | Role::Bystander => match copy.parted.get(&carrier) {
                Some(parted) => (*parted, led.until),
                None if in_sync => return 0,
                None => (apart, led.until),
            },
        };
        let count = until.0.saturating_sub(parted.sequence.0);
        if count > 0 && tracing::enabled!(tracing::Level::DEBUG) {
            let mut cursor = 0;
            loop {
                cursor = copy.shard.scan(&shared.arena, cursor, 1_024, |entry| {
                    if entry.version > parted.version {
                        let key = entry.key.escape_ascii();
                        tracing::debug!(partition = %self.id, map = %entry.map, %key, "divergent write dropped");
                    }
                });
                if cursor == 0 {
                    break;
                }
            }
        }
        count
    }
}
