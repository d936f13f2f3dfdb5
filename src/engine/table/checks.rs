//! What must be true of every table: asserted by debug builds, tests and the simulator.

use super::apply::is_distinct;
use super::{COPIES_MAX, MAP_COUNT_MAX, MEMBER_COUNT_MAX, NAME_BYTES_MAX, RETIRED_COUNT_MAX, Table};
use crate::engine::ids::{Epoch, PARTITION_COUNT_MAX, PartitionId};
use crate::engine::message::NUMBER_MAX;

impl Table {
    /// Checks what must be true of every table.
    ///
    /// # Errors
    /// What is wrong, for a human.
    pub fn checks(&self) -> Result<(), String> {
        self.check_whole()?;
        self.partition_ids().try_for_each(|partition| self.check_partition(partition))
    }

    /// Checks what is true of every partition together, and of all but the partitions.
    fn check_whole(&self) -> Result<(), String> {
        let count = self.settings.partitions;
        check(count.is_power_of_two() && count <= PARTITION_COUNT_MAX, || format!("{count} partitions"))?;
        check(self.settings.replicas > 0, || "no copies at all".into())?;
        // The next one must be one, too.
        check(self.version.0 <= NUMBER_MAX, || format!("no version is {}", self.version))?;
        check(self.partitions.len() == usize::from(count), || {
            format!("{} assignments", self.partitions.len())
        })?;
        check(self.members.len() <= MEMBER_COUNT_MAX, || "too many members".into())?;
        check(self.retired.len() <= RETIRED_COUNT_MAX, || "too many retired".into())?;
        check(self.maps.len() <= MAP_COUNT_MAX, || "too many maps".into())?;
        for (node, member) in &self.members {
            check(*node == member.node, || format!("{node} filed under another id"))?;
            check(!self.is_retired(*node), || format!("{node} came back"))?;
            let zone_bytes = member.zone.as_ref().map_or(0, String::len);
            let named = member.name.len().max(zone_bytes) <= NAME_BYTES_MAX;
            check(named, || format!("{node} has a name too long"))?;
        }
        for (index, map) in self.maps.iter().enumerate() {
            let named = (1..=NAME_BYTES_MAX).contains(&map.name.len());
            check(named, || format!("map {index} has a bad name"))?;
            let twin = self.maps[..index].iter().any(|other| other.name == map.name);
            check(!twin, || format!("two maps named {}", map.name))?;
        }
        Ok(())
    }

    fn check_partition(&self, partition: PartitionId) -> Result<(), String> {
        let assignment = &self.partitions[partition.index()];
        let fail = |what: &str| Err(format!("{partition}: {what}: {assignment:?}"));
        if assignment.epoch == Epoch(0) {
            return match assignment.ack_set().count() {
                0 => Ok(()),
                _ => fail("copies before the first assignment"),
            };
        }
        let holders: Vec<_> = assignment.ack_set().collect();
        if !is_distinct(&holders) {
            return fail("two copies on one node");
        }
        if holders.len() > COPIES_MAX {
            return fail("too many copies");
        }
        let named = |learner| assignment.since.contains_key(learner);
        if assignment.since.len() != assignment.learners.len() || !assignment.learners.iter().all(named) {
            return fail("a learner's attachment has no name");
        }
        if !assignment.former.is_empty() && assignment.learners.is_empty() {
            return fail("former copies without a learner to vouch");
        }
        if assignment.former.len() > COPIES_MAX {
            return fail("too many former copies");
        }
        if !holders.iter().all(|node| self.members.contains_key(node)) {
            return fail("a copy on a stranger");
        }
        // A primary that left last has taken its copy with it; any other is in sync with itself.
        if self.members.contains_key(&assignment.primary) && !assignment.isr.contains(&assignment.primary) {
            return fail("the primary is not in sync");
        }
        if assignment.epoch.0 > NUMBER_MAX {
            return fail("no reign is that late");
        }
        if assignment.origin == Epoch(0) || assignment.origin > assignment.epoch {
            return fail("began after it is");
        }
        Ok(())
    }

    /// Checks this table, and that it may follow `before`, which was found right: directly or some entries
    /// later. What the two share is not looked at again.
    ///
    /// # Errors
    /// What is wrong or went backwards, for a human.
    pub fn checks_after(&self, before: &Table) -> Result<(), String> {
        self.check_whole()?;
        let same_members = self.members.keys().eq(before.members.keys());
        check(self.version >= before.version, || "the version went back".into())?;
        check(self.incarnation >= before.incarnation, || "the incarnation went back".into())?;
        check(self.ever_three || !before.ever_three, || "three members were forgotten".into())?;
        check(self.settings == before.settings, || "the settings changed".into())?;
        for partition in self.partition_ids() {
            let (old, new) = match (before.assignment(partition), self.assignment(partition)) {
                (Some(old), Some(new)) => (old, new),
                _ => return Err(format!("{partition} is missing")),
            };
            let shared = std::ptr::eq(old, new);
            if !shared || !same_members {
                self.check_partition(partition)?;
            }
            if shared {
                continue;
            }
            check(new.epoch >= old.epoch, || format!("{partition}: the epoch went back"))?;
            check(new.epoch > old.epoch || new.primary == old.primary, || {
                format!("{partition}: two primaries at {}", new.epoch)
            })?;
            check(new.origin >= old.origin, || format!("{partition}: the origin went back"))?;
        }
        Ok(())
    }
}

fn check(holds: bool, fault: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(fault()) }
}
