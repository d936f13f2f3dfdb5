//! Between the engine and the agreed log.

use super::{LogOrder, NodeCore};
use crate::drivers::quic::RequestError;
use crate::drivers::raft::{AgreedLog, OutgoingRpc, ProposeError, RpcFailure};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Carries out what the engine orders, one order at a time; proposals run on their own so that
/// a slow one delays nobody.
pub async fn run(core: NodeCore, log: AgreedLog, mut orders: mpsc::UnboundedReceiver<LogOrder>) {
    while let Some(order) = orders.recv().await {
        match order {
            LogOrder::Propose(entry) => {
                let log = log.clone();
                tokio::task::spawn_local(async move {
                    // The table shows the result, or the controller proposes again.
                    match log.propose(entry).await {
                        Ok(proposed) => tracing::debug!(version = %proposed.table_version, "entry applied"),
                        Err(ProposeError::NotLeader(_)) => {}
                        Err(error) => tracing::warn!(%error, "an entry was not agreed"),
                    }
                });
            }
            LogOrder::Voters(voters) => {
                let members = core.look(|engine, _| engine.table().members.clone());
                let voters: BTreeMap<_, _> =
                    voters.into_iter().filter_map(|node| Some((node, members.get(&node)?.quic))).collect();
                if let Err(error) = log.set_voters(voters) {
                    tracing::debug!(%error, "the voters stay as they are");
                }
            }
            LogOrder::Form(table) => match log.form(Vec::new(), *table).await {
                Ok(proposed) => tracing::info!(version = %proposed.table_version, "formed"),
                Err(error) => tracing::error!(%error, "could not form a group"),
            },
            LogOrder::Abandon => {
                if let Err(error) = log.abandon().await {
                    tracing::error!(%error, "could not leave the former group");
                }
            }
        }
    }
}

/// Hands every table and every change of leader to the engine.
pub async fn watch(core: NodeCore, log: AgreedLog) {
    let mut tables = log.tables();
    let mut leadership = log.leadership();
    loop {
        tokio::select! {
            changed = tables.changed() => {
                if changed.is_err() {
                    return;
                }
                let table = tables.borrow_and_update().clone();
                if let Some(table) = table {
                    core.with(|engine, now| engine.table_committed(now, table));
                }
            }
            changed = leadership.changed() => {
                if changed.is_err() {
                    return;
                }
                let current = leadership.borrow_and_update().clone();
                // The table that the leader stands on comes first.
                let table = tables.borrow().clone();
                core.with(|engine, now| {
                    if let Some(table) = table {
                        engine.table_committed(now, table);
                    }
                    let leader = if current.is_me { Some(engine.me()) } else { current.leader.filter(|&leader| leader != engine.me()) };
                    engine.leadership(now, current.term, leader, current.voters);
                });
            }
        }
    }
}

/// Sends the log's requests over the mesh.
pub async fn carry(core: NodeCore, mut requests: mpsc::Receiver<OutgoingRpc>) {
    while let Some(OutgoingRpc { to, body, timeout, reply }) = requests.recv().await {
        let Some(mesh) = core.mesh() else {
            let _ = reply.send(Err(RpcFailure::Unreachable));
            continue;
        };
        let answer = mesh.request(to, body, timeout);
        tokio::task::spawn_local(async move {
            let result = answer.await.map_err(|error| match error {
                RequestError::Timeout => RpcFailure::Timeout,
                RequestError::Refused(_) => RpcFailure::Refused,
                _ => RpcFailure::Unreachable,
            });
            let _asker_gave_up = reply.send(result);
        });
    }
}
