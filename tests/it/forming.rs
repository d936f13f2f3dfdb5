//! Clusters of one, two and three.

use crate::harness::cluster::{Cluster, HEAL_DEADLINE};
use crate::harness::http;
use crate::harness::load::touch_everything;
use crate::harness::wait::eventually;
use ringdove::drivers::admin_http::{Health, Standing};
use ringdove::engine::resp::Reply;
use std::time::Duration;

#[test]
fn one_node_serves_and_says_that_it_is_alone() {
    let cluster = Cluster::start(1);
    let mut resp = cluster.connect(0);
    assert_eq!(resp.words("SET greeting hello").unwrap(), Reply::Simple("OK".to_owned()));
    assert_eq!(resp.words("GET greeting").unwrap(), Reply::Bulk(b"hello".to_vec()));
    assert_eq!(cluster.status().health, Health::FewerCopies);
    assert_eq!(http::get(cluster.nodes[0].admin, "/readyz").unwrap().status, 200);
    assert_eq!(http::get(cluster.nodes[0].admin, "/healthz").unwrap().status, 200);
    touch_everything("alone", cluster.nodes[0].resp);
}

#[test]
fn three_nodes_form_from_one_seed_and_each_answers_every_key() {
    let cluster = Cluster::start(3);
    let status = cluster.status();
    assert_eq!(status.health, Health::Healthy);
    assert_eq!(status.voters.len(), 3);
    // Copies come first; then their primaries change hands.
    eventually("fair shares", HEAL_DEADLINE, || {
        let shares: Vec<u32> =
            cluster.nodes[0].status()?.members.iter().map(|member| member.primaries).collect();
        assert_eq!(shares.iter().sum::<u32>(), 1024);
        let fair = shares.iter().all(|share| (341..=342).contains(share));
        if fair { Ok(()) } else { Err(format!("{shares:?}")) }
    });
    for node in &cluster.nodes {
        assert_eq!(http::get(node.admin, "/readyz").unwrap().status, 200);
    }
    // Written anywhere, read everywhere.
    for (at, node) in cluster.nodes.iter().enumerate() {
        touch_everything(&format!("at{at}"), node.resp);
    }
    for index in 0..3 {
        let mut resp = cluster.connect(index);
        let command: Vec<String> = ["MGET".to_owned()]
            .into_iter()
            .chain((0..3_000).map(|n| format!("at{}:{n}", (index + 1) % 3)))
            .collect();
        let Reply::Array(values) = resp.call(&command).unwrap() else { panic!("MGET answers an array") };
        assert!(values.len() == 3_000 && values.iter().all(|value| *value == Reply::Bulk(b"1".to_vec())));
        assert_eq!(resp.words("DBSIZE").unwrap(), Reply::Integer(9_000));
    }
    // Each copy counts: 1,024 primaries and 1,024 backups, none on the same node.
    let table = http::partitions(cluster.nodes[0].admin).unwrap();
    for partition in &table.partitions {
        assert_eq!(partition.backups.len(), 1);
        assert_ne!(partition.backups.first(), partition.primary.as_ref());
    }
}

#[test]
fn of_two_nodes_either_survivor_goes_on() {
    for victim in [0, 1] {
        let mut cluster = Cluster::start(2);
        touch_everything("before", cluster.nodes[0].resp);
        cluster.nodes.remove(victim).kill();
        let survivor = &cluster.nodes[0];
        eventually("the survivor serves everything alone", HEAL_DEADLINE, || {
            let status = survivor.status()?;
            let member = status.member(&survivor.node).ok_or("it isn't a member")?;
            let is_alone = member.primaries == 1024 && member.status == Standing::Up;
            if is_alone && status.unavailable_partitions == 0 { Ok(()) } else { Err(format!("{member:?}")) }
        });
        let took = touch_everything("after", survivor.resp);
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert_eq!(cluster.connect(0).words("DBSIZE").unwrap(), Reply::Integer(6_000));
    }
}

#[test]
fn a_node_without_its_seed_waits_and_then_joins() {
    let mut cluster = Cluster::start(1);
    // A port that nobody has: bound, seen, and given back.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let seed = cluster.nodes[0].quic.to_string();
    let node = crate::harness::process::start(&["--seed", &nobody.to_string(), "--seed", &seed]);
    cluster.nodes.push(node);
    cluster.settle();
    cluster.nodes[1].serve();
}
