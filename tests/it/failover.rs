//! Nodes that die without a word, under load.

use crate::harness::cluster::Cluster;
use crate::harness::load::{Load, touch_everything};
use ringdove::drivers::admin_http::{ClusterStatus, MemberView};
use std::time::Duration;

/// Partitions are served again within 6 s; a busy machine that runs unoptimised nodes gets more.
const SERVED_AGAIN: Duration = Duration::from_secs(10);

/// Kills one of the nodes under load and checks what the others owe their clients.
fn survive(cluster: &mut Cluster, label: &str, victim: usize) {
    let load = Load::start(label, &cluster.resp());
    load.run(500);
    let killed = cluster.nodes.remove(victim).kill();
    touch_everything(&format!("{label}:touch"), cluster.nodes[0].resp);
    let served = killed.elapsed();
    println!("{label}: everything served {served:?} after the kill");
    load.run(500);
    let written = load.finish();
    written.check(cluster.nodes[0].resp);
    written.check(cluster.nodes[1].resp);
    // Nothing is written any more; copies are rebuilt all the same.
    let healed = cluster.settle();
    println!("{label}: copies full again {healed:?} later");
    assert!(served < SERVED_AGAIN, "served again after {served:?}");
    for node in &cluster.nodes {
        written.check(node.resp);
    }
}

fn find(cluster: &Cluster, wanted: impl Fn(&ClusterStatus, &MemberView) -> bool) -> usize {
    // Who was killed may be listed as a voter for a moment yet.
    let status = cluster.status();
    let is_wanted = |node: &str| status.members.iter().any(|it| it.node == node && wanted(&status, it));
    cluster.nodes.iter().position(|node| is_wanted(&node.node)).expect("such a member")
}

#[test]
fn killing_the_leader_then_another_voter_loses_nothing() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    survive(&mut cluster, "leader", leader);
    // A new process takes the dead one's place; then the next may die.
    cluster.add();
    cluster.settle();
    let leader = cluster.nodes[cluster.leader()].node.clone();
    let voter = find(&cluster, |_, member| member.voter && member.node != leader);
    survive(&mut cluster, "voter", voter);
}

#[test]
fn killing_a_member_without_a_vote_loses_nothing() {
    let mut cluster = Cluster::start(4);
    let silent = find(&cluster, |_, member| !member.voter);
    survive(&mut cluster, "voteless", silent);
}

#[test]
fn killing_the_source_or_the_target_of_migrations_loses_nothing() {
    for kill_newcomer in [true, false] {
        let mut cluster = Cluster::start(3);
        let load = Load::start("migration", &cluster.resp());
        load.run(1_000);
        let newcomer = cluster.add();
        crate::harness::wait::eventually("copies are under way", Duration::from_secs(30), || {
            let status = cluster.status();
            let moving = status.migrations.len();
            if moving > 0 { Ok(()) } else { Err(crate::harness::cluster::describe(&status)) }
        });
        let victim = if kill_newcomer { newcomer } else { 1 };
        cluster.nodes.remove(victim).kill();
        load.run(500);
        let written = load.finish();
        cluster.settle();
        for node in &cluster.nodes {
            written.check(node.resp);
        }
    }
}
