//! The table as openraft's state machine.

use super::command::{
    LogCommand, LogEntry, LogId, LogTypes, Reply, Snapshot, SnapshotMeta, SnapshotTable, StoredMembership,
};

use crate::engine::ids::TableVersion;
use crate::engine::table::Table;
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Where tables are published; shared by all state machines a node has in its life.
pub(super) type TableWatch = watch::Sender<Option<Arc<Table>>>;

/// The state built from the log. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct TableMachine {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// `None` until the group's first entry is applied. Copied on write, so that readers and
    /// snapshots keep what they hold.
    table: SnapshotTable,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<Snapshot>,
    /// `None` once the node has turned to another group: a straggling apply of the old one must
    /// not overwrite the new one's table.
    publish: Option<TableWatch>,
}

impl TableMachine {
    pub(super) fn new(publish: TableWatch) -> Self {
        TableMachine {
            shared: Arc::new(Mutex::new(State {
                table: None,
                applied: None,
                membership: StoredMembership::default(),
                snapshot: None,
                publish: Some(publish),
            })),
        }
    }

    /// The table as applied here.
    pub(super) fn table(&self) -> SnapshotTable {
        self.state().table.clone()
    }

    /// Publishes nothing any more.
    pub(super) fn retire(&self) {
        self.state().publish = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Applying an entry is the only work under this lock, and it is total.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, entry: &LogEntry) -> Reply {
        self.applied = Some(entry.log_id());
        let applied = match &entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id()), membership.clone());
                None
            }
            EntryPayload::Normal(LogCommand::Begin { table, first }) => {
                let mut table = table.as_ref().clone();
                let applied = table.apply(first);
                self.table = Some(Arc::new(table));
                Some(applied)
            }
            // Changes before the beginning have nothing to change; the proposer sees no `applied`.
            EntryPayload::Normal(LogCommand::Change(changes)) => {
                self.table.as_mut().map(|table| Arc::make_mut(table).apply(changes))
            }
        };
        Reply { version: self.table.as_ref().map_or(TableVersion(0), |table| table.version), applied }
    }

    fn publish(&self) {
        if let (Some(publish), Some(table)) = (&self.publish, &self.table) {
            publish.send_if_modified(|published| {
                let new = published.as_ref().is_none_or(|old| !Arc::ptr_eq(old, table));
                if new {
                    *published = Some(table.clone());
                }
                new
            });
        }
    }
}

impl RaftStateMachine<LogTypes> for TableMachine {
    type SnapshotData = SnapshotTable;
    type SnapshotBuilder = TableMachine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<LogTypes>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let reply = {
                let mut state = self.state();
                let reply = state.apply(&entry);
                state.publish();
                reply
            };
            // After publishing: who hears of its proposal finds it in the published table.
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotTable,
    ) -> Result<(), io::Error> {
        let mut state = self.state();
        state.table = snapshot.clone();
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        state.snapshot = Some(Snapshot { meta: meta.clone(), snapshot });
        state.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.state().snapshot.clone())
    }
}

impl RaftSnapshotBuilder<LogTypes> for TableMachine {
    type SnapshotData = SnapshotTable;

    /// The state as it is now: the table is shared, not copied, until the next entry changes it.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let mut state = self.state();
        let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        let snapshot = Snapshot { meta, snapshot: state.table.clone() };
        state.snapshot = Some(snapshot.clone());
        Ok(snapshot)
    }
}
