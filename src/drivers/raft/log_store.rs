//! The log and the vote, in memory.

use super::command::{LogEntry, LogId, LogTypes, Vote};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The log and the vote of one voter. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryLog {
    shared: Arc<Mutex<Contents>>,
}

#[derive(Debug, Default)]
struct Contents {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, LogEntry>,
}

impl MemoryLog {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        // No holder of this lock can leave the contents half changed.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<LogTypes> for MemoryLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        Ok(self.contents().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.contents().vote)
    }
}

impl RaftLogStorage<LogTypes> for MemoryLog {
    type LogReader = MemoryLog;

    async fn get_log_state(&mut self) -> Result<LogState<LogTypes>, io::Error> {
        let contents = self.contents();
        let last = contents.entries.values().next_back().map(RaftEntry::log_id);
        Ok(LogState { last_purged_log_id: contents.purged, last_log_id: last.or(contents.purged) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.contents().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<LogTypes>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.contents().entries.extend(entries.into_iter().map(|entry| (entry.log_id().index, entry)));
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let first_gone = last_log_id.map_or(0, |id| id.index + 1);
        self.contents().entries.split_off(&first_gone);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let mut contents = self.contents();
        contents.entries = contents.entries.split_off(&(log_id.index + 1));
        contents.purged = Some(log_id);
        Ok(())
    }
}
