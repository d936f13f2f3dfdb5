//! Random histories: joins, deaths, leaves, cuts and changes of leader, then peace. The cluster
//! checks every entry; in the end the table must be at its goal and stay there.

use super::cluster::{Cluster, member, settings};
use crate::engine::controller::Report;
use crate::engine::ids::NodeId;
use crate::engine::table::MemberStatus;

fn alive(cluster: &Cluster) -> Vec<u64> {
    let up = |id: &u64| cluster.status(*id) == Some(MemberStatus::Up);
    let alive = cluster.nodes.iter().filter(|(_, fake)| fake.alive).map(|(node, _)| node.0);
    alive.filter(up).collect()
}

fn history(seed: u64, replicas: u8) {
    let mut cluster = Cluster::new(settings(16, replicas), seed);
    cluster.lost_proposals = cluster.below(20);
    cluster.withdrawn = cluster.below(30);
    let mut next = 1;
    for _ in 0..4 {
        cluster.join(member(next));
        next += 1;
    }
    cluster.run(50);
    for _ in 0..12 {
        let up = alive(&cluster);
        if up.is_empty() {
            // The first entry is not committed yet.
            cluster.run(500);
            continue;
        }
        let one = up[cluster.below(up.len() as u64) as usize];
        let leads = NodeId(one) == cluster.config.me;
        match cluster.below(6) {
            0 | 1 => {
                cluster.join(member(next));
                next += 1;
            }
            2 if up.len() > 3 => {
                // One death at a time: acknowledged writes survive that.
                cluster.settle();
                cluster.kill(one);
                if leads {
                    let heir = alive(&cluster)[0];
                    cluster.lead(heir);
                }
            }
            3 if up.len() > 3 => cluster.report(one, Report::Leave),
            4 if up.len() > 3 && !leads => {
                cluster.cut(one);
                cluster.run(1_500);
                cluster.mend(one);
            }
            _ => cluster.lead(one),
        }
        let ms = cluster.below(3_000);
        cluster.run(ms);
    }
    let entries = cluster.entries.len();
    cluster.converge();
    let more = cluster.entries.len() - entries;
    assert!(more <= 120, "{more} entries to come to rest");
    let up = alive(&cluster);
    for &id in &up {
        let led = cluster.primaries(id);
        assert!(led <= 16usize.div_ceil(up.len()) + 1, "n{id} leads {led} of 16 among {up:?}");
    }
}

#[test]
fn random_histories_come_to_rest() {
    for seed in 0..12 {
        history(seed, 2);
    }
}

#[test]
fn random_histories_with_three_copies() {
    for seed in 100..106 {
        history(seed, 3);
    }
}
