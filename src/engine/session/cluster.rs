//! CLUSTER: the table as cluster-aware Redis clients understand it.
//!
//! Every member is shown as a master with the slots whose primary it is. Backups are not shown as
//! replicas: a node backs up partitions of many others, which Redis's model has no words for.

use super::facts::Facts;
use crate::engine::ids::{NodeId, PartitionId, SLOT_COUNT, Slot};
use crate::engine::resp::ReplyWriter;
use crate::engine::table::{Member, MemberStatus, Table};
use std::fmt::Write;
use std::net::SocketAddr;

/// Consecutive slots with one primary.
struct SlotRange {
    first: Slot,
    last: Slot,
    primary: NodeId,
}

/// All slots that have a live primary, in order.
fn ranges(table: &Table) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for (index, assignment) in table.partitions.iter().enumerate() {
        let primary = assignment.primary;
        if assignment.epoch.0 == 0 || !table.is_live(primary) {
            continue;
        }
        let (first, last) = PartitionId(index as u16).slots(table.settings.partitions);
        match ranges.last_mut() {
            Some(range) if range.primary == primary && range.last.0 + 1 == first.0 => range.last = last,
            _ => ranges.push(SlotRange { first, last, primary }),
        }
    }
    ranges
}

/// A node's id in the 40 digits of Redis.
pub(super) fn redis_id(node: NodeId) -> String {
    format!("{node}{:024}", 0)
}

/// The host part of an address; empty, which clients take for the host they know, if it is unspecified.
fn host_of(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { String::new() } else { address.ip().to_string() }
}

pub(super) fn info(facts: &impl Facts, reply: &mut ReplyWriter<'_>) {
    let table = facts.table();
    let served: usize = ranges(table).iter().map(|range| usize::from(range.last.0 - range.first.0) + 1).sum();
    let assigned_partitions = table.partitions.iter().filter(|assignment| assignment.epoch.0 > 0).count();
    let assigned = assigned_partitions * usize::from(SLOT_COUNT / table.settings.partitions);
    let live = table.members.values().filter(|member| member.status != MemberStatus::Down);
    let size = live.filter(|member| member.weight > 0).count();
    let state = if served == usize::from(SLOT_COUNT) { "ok" } else { "fail" };
    let my_epoch = table.partitions.iter().filter(|assignment| assignment.primary == facts.me());
    let my_epoch = my_epoch.map(|assignment| assignment.epoch.0).max().unwrap_or(0);
    let text = format!(
        "cluster_state:{state}\r\ncluster_slots_assigned:{assigned}\r\ncluster_slots_ok:{served}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:{}\r\ncluster_known_nodes:{}\r\ncluster_size:{size}\r\n\
         cluster_current_epoch:{}\r\ncluster_my_epoch:{my_epoch}\r\ncluster_stats_messages_sent:0\r\n\
         cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n",
        assigned.saturating_sub(served),
        table.members.len(),
        table.version.0,
    );
    reply.verbatim(text.as_bytes());
}

pub(super) fn nodes(facts: &impl Facts, reply: &mut ReplyWriter<'_>) {
    let table = facts.table();
    let ranges = ranges(table);
    let mut text = String::new();
    for member in table.members.values() {
        let me = if member.node == facts.me() { "myself," } else { "" };
        let (failed, link) = match member.status {
            MemberStatus::Down => (",fail", "disconnected"),
            MemberStatus::Up | MemberStatus::Leaving => ("", "connected"),
        };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{} {}:{}@{} {me}master{failed} - 0 0 {} {link}",
            redis_id(member.node),
            host_of(member.resp),
            member.resp.port(),
            member.quic.port(),
            table.version.0,
        );
        for range in ranges.iter().filter(|range| range.primary == member.node) {
            let _ = match (range.first.0, range.last.0) {
                (first, last) if first == last => write!(text, " {first}"),
                (first, last) => write!(text, " {first}-{last}"),
            };
        }
        text.push('\n');
    }
    reply.verbatim(text.as_bytes());
}

pub(super) fn slots(facts: &impl Facts, reply: &mut ReplyWriter<'_>) {
    let table = facts.table();
    let ranges = ranges(table);
    reply.array(ranges.len());
    for range in &ranges {
        reply.array(3);
        reply.integer(i64::from(range.first.0));
        reply.integer(i64::from(range.last.0));
        let resp = table.members.get(&range.primary).map(|member| member.resp);
        reply.array(4);
        reply.bulk(resp.map(host_of).unwrap_or_default().as_bytes());
        reply.integer(resp.map_or(0, |address| i64::from(address.port())));
        reply.bulk(redis_id(range.primary).as_bytes());
        reply.array(0);
    }
}

pub(super) fn shards(facts: &impl Facts, reply: &mut ReplyWriter<'_>) {
    let table = facts.table();
    let ranges = ranges(table);
    reply.array(table.members.len());
    for member in table.members.values() {
        let own: Vec<_> = ranges.iter().filter(|range| range.primary == member.node).collect();
        reply.map(2);
        reply.bulk(b"slots");
        reply.array(own.len() * 2);
        for range in own {
            reply.integer(i64::from(range.first.0));
            reply.integer(i64::from(range.last.0));
        }
        reply.bulk(b"nodes");
        reply.array(1);
        shard_node(member, reply);
    }
}

fn shard_node(member: &Member, reply: &mut ReplyWriter<'_>) {
    let host = host_of(member.resp);
    reply.map(7);
    reply.bulk(b"id");
    reply.bulk(redis_id(member.node).as_bytes());
    reply.bulk(b"port");
    reply.integer(i64::from(member.resp.port()));
    reply.bulk(b"ip");
    reply.bulk(host.as_bytes());
    reply.bulk(b"endpoint");
    reply.bulk(host.as_bytes());
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"replication-offset");
    reply.integer(0);
    reply.bulk(b"health");
    reply.bulk(if member.status == MemberStatus::Down { b"fail" } else { b"online" });
}
