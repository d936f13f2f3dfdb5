//! Nodes that come and go on purpose, under load: no client notices.

use crate::harness::cluster::{Cluster, HEAL_DEADLINE};
use crate::harness::load::Load;

#[test]
fn joins_and_graceful_leaves_cost_no_client_an_error() {
    let mut cluster = Cluster::start(2);
    // The clients stay with the first node, which stays.
    let stays = cluster.nodes[0].resp;
    let load = Load::start("joins", &[stays, stays, stays]);
    load.run(500);
    cluster.add();
    cluster.settle();
    load.run(300);
    cluster.add();
    cluster.settle();
    load.run(300);
    for _ in 0..2 {
        let mut leaver = cluster.nodes.remove(1);
        leaver.stop(HEAL_DEADLINE);
        cluster.settle();
        load.run(300);
    }
    let written = load.finish();
    for node in &cluster.nodes {
        written.check_untroubled(node.resp);
    }
}

#[test]
fn a_rolling_restart_costs_no_client_an_error_and_no_key() {
    let mut cluster = Cluster::start(3);
    let mut all = Vec::new();
    for round in 0..3 {
        // Clients of the nodes that stay in this round.
        let load = Load::start(&format!("round{round}"), &cluster.resp()[1..]);
        load.run(300);
        cluster.nodes[0].stop(HEAL_DEADLINE);
        let stopped = cluster.nodes.remove(0);
        drop(stopped);
        load.run(100);
        cluster.add();
        cluster.settle();
        load.run(100);
        all.push(load.finish());
    }
    for written in &all {
        for node in &cluster.nodes {
            written.check_untroubled(node.resp);
        }
    }
}
