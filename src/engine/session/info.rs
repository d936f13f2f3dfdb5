//! INFO.

use super::facts::{Facts, Stats};
use crate::engine::resp::ReplyWriter;
use std::fmt::Write;

/// The version of Redis whose commands and replies these are: clients switch features by it.
pub(super) const REDIS_VERSION: &str = "7.2.4";

type Section = fn(&mut Text, &dyn Facts, &Stats);

const SECTIONS: [(&str, Section); 9] = [
    ("server", server),
    ("clients", clients),
    ("memory", memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", replication),
    ("cpu", cpu),
    ("cluster", cluster),
    ("keyspace", keyspace),
];

/// `name:value` lines.
struct Text(String);

impl Text {
    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }
}

/// INFO: the named sections, or all.
pub(super) fn info(names: &[&[u8]], facts: &impl Facts, reply: &mut ReplyWriter<'_>) {
    let is_wanted = |section: &str| {
        let all = ["all", "default", "everything"];
        let names_it = |name: &&[u8]| {
            all.iter().chain([&section]).any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        };
        names.is_empty() || names.iter().any(names_it)
    };
    let (stats, mut text) = (facts.stats(), Text(String::new()));
    for (name, write_section) in SECTIONS {
        if is_wanted(name) {
            if !text.0.is_empty() {
                text.0.push_str("\r\n");
            }
            let title =
                if name == "cpu" { "CPU".to_owned() } else { name[..1].to_ascii_uppercase() + &name[1..] };
            let _ = write!(text.0, "# {title}\r\n");
            write_section(&mut text, facts, &stats);
        }
    }
    reply.verbatim(text.0.as_bytes());
}

fn server(text: &mut Text, facts: &dyn Facts, stats: &Stats) {
    text.line("redis_version", REDIS_VERSION);
    text.line("ringdove_version", env!("CARGO_PKG_VERSION"));
    text.line("redis_mode", "cluster");
    text.line("arch_bits", usize::BITS);
    text.line("process_id", stats.process_id);
    text.line("run_id", super::cluster::redis_id(facts.me()));
    text.line("tcp_port", stats.tcp_port);
    text.line("server_time_usec", facts.now().wall_ms * 1_000);
    text.line("uptime_in_seconds", stats.uptime_s);
    text.line("uptime_in_days", stats.uptime_s / 86_400);
}

fn clients(text: &mut Text, _: &dyn Facts, stats: &Stats) {
    text.line("connected_clients", stats.clients);
    text.line("maxclients", stats.clients_max);
    text.line("blocked_clients", stats.clients_blocked);
}

fn memory(text: &mut Text, _: &dyn Facts, stats: &Stats) {
    for (name, bytes) in [
        ("used_memory", stats.memory_used_bytes),
        ("used_memory_rss", stats.memory_resident_bytes),
        ("used_memory_peak", stats.memory_peak_bytes),
        ("maxmemory", stats.memory_max_bytes),
    ] {
        text.line(name, bytes);
        text.line(&format!("{name}_human"), human(bytes));
    }
    text.line("maxmemory_policy", stats.memory_policy);
    let used = stats.memory_used_bytes.max(1) as f64;
    text.line("mem_fragmentation_ratio", format_args!("{:.2}", stats.memory_resident_bytes as f64 / used));
}

/// Bytes with a unit, as Redis prints them.
fn human(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1_024 => format!("{bytes}B"),
        1_024..1_048_576 => format!("{:.2}K", value / 1_024.0),
        1_048_576..1_073_741_824 => format!("{:.2}M", value / 1_048_576.0),
        _ => format!("{:.2}G", value / 1_073_741_824.0),
    }
}

/// Memory is all there is; what clients look for says "nothing under way, nothing failed".
fn persistence(text: &mut Text, _: &dyn Facts, _: &Stats) {
    text.line("loading", 0);
    text.line("rdb_changes_since_last_save", 0);
    text.line("rdb_bgsave_in_progress", 0);
    text.line("rdb_last_save_time", 0);
    text.line("rdb_last_bgsave_status", "ok");
    text.line("aof_enabled", 0);
    text.line("aof_rewrite_in_progress", 0);
}

fn stats(text: &mut Text, _: &dyn Facts, stats: &Stats) {
    text.line("total_connections_received", stats.connections_received);
    text.line("total_commands_processed", stats.commands);
    text.line("instantaneous_ops_per_sec", stats.commands_per_s);
    text.line("total_net_input_bytes", stats.input_bytes);
    text.line("total_net_output_bytes", stats.output_bytes);
    text.line("rejected_connections", stats.connections_rejected);
    text.line("client_output_buffer_limit_disconnections", stats.connections_slow);
    text.line("expired_keys", stats.keys_expired);
    text.line("evicted_keys", stats.keys_evicted);
    text.line("keyspace_hits", stats.hits);
    text.line("keyspace_misses", stats.misses);
}

fn replication(text: &mut Text, facts: &dyn Facts, _: &Stats) {
    let backups = facts.table().settings.replicas.saturating_sub(1);
    text.line("role", "master");
    text.line("connected_slaves", backups);
    text.line("master_replid", super::cluster::redis_id(facts.me()));
    text.line("master_repl_offset", 0);
    text.line("min_copies", facts.table().settings.min_copies);
}

fn cpu(text: &mut Text, _: &dyn Facts, stats: &Stats) {
    let seconds = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.line("used_cpu_sys", seconds(stats.cpu_system_us));
    text.line("used_cpu_user", seconds(stats.cpu_user_us));
}

fn cluster(text: &mut Text, _: &dyn Facts, _: &Stats) {
    text.line("cluster_enabled", 1);
}

fn keyspace(text: &mut Text, _: &dyn Facts, stats: &Stats) {
    if stats.keys > 0 {
        text.line("db0", format_args!("keys={},expires={},avg_ttl=0", stats.keys, stats.keys_expiring));
    }
}
