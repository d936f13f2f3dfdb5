//! Long values on all copies: as records, and in snapshots.

use super::cluster::Cluster;
use super::testing::{SECOND_US, arrived, call, formed, op_of, submit_long, whole};
use crate::engine::ids::NodeId;
use crate::engine::op::{Long, Submitted, Ticket};
use crate::engine::store::{LongInput, LongValue};
use crate::engine::table::{ClusterSettings, Survival};

fn long_value(byte: u8, bytes: usize) -> LongValue {
    let mut input = LongInput::new(bytes).expect("room");
    input.bytes().resize(bytes, byte);
    input.finish()
}

/// SETs a key to a value that needs no copy.
fn set(cluster: &mut Cluster, node: NodeId, number: u64, key: &[u8], value: &LongValue) {
    let args: [&[u8]; 3] = [b"SET", key, value.bytes()];
    let long = Long::of(vec![value.clone()]);
    let out = submit_long(cluster, node, number, &args, Some(&long));
    let out = out.or_else(|| arrived(cluster, number)).expect("it arrives");
    assert_eq!(out, b"+OK\r\n");
}

#[test]
fn long_values_are_the_same_on_all_copies() {
    let settings = ClusterSettings { partitions: 8, replicas: 2, min_copies: 1, survival: Survival::Auto };
    let (mut cluster, nodes) = formed(1, settings, 1);
    let values: Vec<LongValue> =
        (1..=6u8).map(|byte| long_value(byte, 300_000 + usize::from(byte))).collect();
    for (number, value) in values.iter().enumerate() {
        set(&mut cluster, nodes[0], number as u64, format!("alone:{number}").as_bytes(), value);
    }
    // A second node learns them from snapshots.
    let second = cluster.start();
    assert!(cluster.run_until(30 * SECOND_US, whole));
    for (number, value) in values.iter().enumerate() {
        for (node, name) in [nodes[0], second].into_iter().zip(["first", "second"]) {
            let key = format!("{name}:{number}");
            set(&mut cluster, node, 100 + number as u64, key.as_bytes(), value);
        }
    }
    set(&mut cluster, nodes[0], 200, b"first:0", &values[1]);
    call(&mut cluster, nodes[0], 201, &[b"SET", b"alone:0", b"short"]);
    assert!(cluster.run_until(30 * SECOND_US, whole));
    for node in [nodes[0], second] {
        let got = call(&mut cluster, node, 300 + node.0, &[b"GET", b"first:0"]);
        assert!(got.starts_with(b"$300002\r\n\x02\x02") && got.len() == 300_002 + 11);
        assert_eq!(call(&mut cluster, node, 400 + node.0, &[b"GET", b"alone:0"]), b"$5\r\nshort\r\n");
    }
}

/// A reply that has to wait for a commit holds its value itself.
#[test]
fn a_long_value_is_not_read_before_it_is_committed() {
    let settings = ClusterSettings { partitions: 1, replicas: 2, min_copies: 1, survival: Survival::Auto };
    let (mut cluster, nodes) = formed(2, settings, 2);
    let value = long_value(7, 300_000);
    let args: [&[u8]; 2] = [b"GET", b"key"];
    let read = |cluster: &mut Cluster, node, number| {
        let long = Long::default();
        long.open(true);
        (submit_long(cluster, node, number, &args, Some(&long)), long.take())
    };
    let primary = cluster.engine(nodes[0]).table().partitions[0].primary;
    set(&mut cluster, primary, 1, b"key", &value);
    let (out, splice) = read(&mut cluster, primary, 2);
    assert_eq!(out.as_deref(), Some(&b"$300000\r\n\r\n"[..]));
    assert_eq!(splice.map(|splice| (splice.at, splice.bytes)), Some((9, value.bytes().clone())));

    // The next write is on its way when it is read.
    let submitted = cluster.input(primary, |engine, now| {
        let ticket = |number| Ticket { door: 1, number };
        let append: [&[u8]; 3] = [b"APPEND", b"key", b"more"];
        let written = engine.submit(now, ticket(3), &op_of(engine, &append, None), &mut Vec::new());
        let long = Long::default();
        long.open(true);
        let read = engine.submit(now, ticket(4), &op_of(engine, &args, Some(&long)), &mut Vec::new());
        assert!(long.take().is_none());
        Some((written, read))
    });
    // The replies wait, in full: `:300004` and the value.
    assert_eq!(submitted, Some((Submitted::Pending(9), Submitted::Pending(300_004 + 11))));
    let got = arrived(&mut cluster, 4).expect("it arrives");
    assert!(got.starts_with(b"$300004\r\n\x07") && got.ends_with(b"more\r\n") && got.len() == 300_004 + 11);
}
