//! Load over QUIC, by the library's own client. The clients of a thread share its connections, as
//! the tasks of a program do.

use super::super::Failure;
use super::super::client::Connection;
use super::pace::Pace;
use super::plan::{Budget, Op, Ops, Plan, key_bytes};
use super::report::Measured;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ringdove::{Client, Error};
use std::sync::Arc;
use std::time::Instant;

/// Runs these clients, by their numbers, on this thread until the budget is spent.
pub async fn load(
    connection: &Connection,
    plan: &Plan,
    budget: &Arc<Budget>,
    clients: impl ExactSizeIterator<Item = u32>,
) -> Result<Measured, Failure> {
    let in_flight = clients.len() * plan.pipeline as usize;
    let client = Client::connect(connection.config()?.in_flight_max(in_flight)).await?;
    let mut running = tokio::task::JoinSet::new();
    for number in clients {
        let (client, plan, budget) = (client.clone(), plan.clone(), budget.clone());
        running.spawn(async move { client_loop(&client, &plan, &budget, number.into()).await });
    }
    let mut all = Measured::default();
    while let Some(ended) = running.join_next().await {
        all.add(&ended.map_err(|_| Failure("a client panicked".to_owned()))?);
    }
    Ok(all)
}

async fn client_loop(client: &Client, plan: &Plan, budget: &Budget, seed: u64) -> Measured {
    let (mut measured, mut ops, mut batch) = (Measured::default(), Ops::new(seed), Vec::new());
    let mut pace = Pace::of(plan, ops.fraction());
    loop {
        ops.next_batch(plan, budget, |_| true, &mut batch);
        if batch.is_empty() {
            return measured;
        }
        let start = match &mut pace {
            Some(pace) => pace.next().await,
            None => Instant::now(),
        };
        let mut under_way: FuturesUnordered<_> = batch.iter().map(|op| send(client, plan, *op)).collect();
        while let Some(outcome) = under_way.next().await {
            if let Err(error) = outcome {
                measured.error(format!("{error:?}").as_bytes());
            }
        }
        drop(under_way);
        measured.batch(&batch, start.elapsed());
    }
}

async fn send(client: &Client, plan: &Plan, op: Op) -> Result<(), Error> {
    client.command(&plan.words(op, &key_bytes(op.key()))).await?;
    Ok(())
}
