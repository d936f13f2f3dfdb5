//! The rows of the table that connections answer themselves.

use super::scan::{count_keys_in_slot, get_keys_in_slot};
use super::spec::{CommandSpec, Flags, Group, KeyPositions, Route, SessionOp as Op};

const FAST: Flags = Flags::FAST;
const OPEN: Flags = Flags::FAST.and(Flags::NO_AUTH).and(Flags::NOSCRIPT).and(Flags::STALE);
const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::STALE);
const STALE: Flags = Flags::STALE;
const QUIET: Flags = Flags::NOSCRIPT.and(Flags::STALE);
const C: Group = Group::Connection;
const S: Group = Group::Server;
const K: Group = Group::Cluster;

#[rustfmt::skip] // One row a line.
pub(super) const SPECS: &[CommandSpec] = &[
    CommandSpec::session(C, "ping", -1, FAST, Op::Ping, "1.0.0", "Ping the server"),
    CommandSpec::session(C, "echo", 2, FAST, Op::Echo, "1.0.0", "Echo the given string"),
    CommandSpec::session(C, "quit", -1, OPEN, Op::Quit, "1.0.0", "Close the connection"),
    CommandSpec::session(C, "reset", 1, OPEN, Op::Reset, "6.2.0", "Reset the connection"),
    CommandSpec::session(C, "hello", -1, OPEN, Op::Hello, "6.0.0", "Handshake with Redis"),
    CommandSpec::session(C, "auth", -2, OPEN, Op::Auth, "1.0.0", "Authenticate to the server"),
    CommandSpec::session(C, "select", 2, STALE.and(FAST), Op::Select, "1.0.0", "Change the selected database for the current connection"),
    CommandSpec::session(C, "client", -2, Flags::NONE, Op::Help, "2.4.0", "A container for client connection commands")
        .with_subcommands(CLIENT),
    CommandSpec::session(S, "command", -1, STALE, Op::Command, "2.8.13", "Get array of Redis command details").with_subcommands(COMMAND),
    CommandSpec::session(S, "config", -2, Flags::NONE, Op::Help, "2.0.0", "A container for server configuration commands")
        .with_subcommands(CONFIG),
    CommandSpec::session(S, "debug", -2, ADMIN, Op::Help, "1.0.0", "A container for debugging commands").with_subcommands(&[
        CommandSpec::session(S, "debug|sleep", 3, ADMIN, Op::DebugSleep, "1.0.0", "Delay this connection for so many seconds"),
        help("debug|help", "1.0.0"),
    ]),
    CommandSpec::session(S, "rd.acceptloss", 1, ADMIN, Op::AcceptLoss, "0.1.0", "Let partitions without a complete copy go on from the best former one, or empty: what it lacks is given up"),
    CommandSpec::session(S, "info", -1, STALE, Op::Info, "1.0.0", "Get information and statistics about the server"),
    CommandSpec::session(S, "time", 1, STALE.and(FAST), Op::Time, "2.6.0", "Return the current server time"),
    CommandSpec::session(Group::Generic, "wait", 3, Flags::NOSCRIPT, Op::Wait, "3.0.0", "The copies beside the primary that hold every acknowledged write"),
    CommandSpec::session(K, "cluster", -2, Flags::NONE, Op::Help, "3.0.0", "A container for cluster commands").with_subcommands(CLUSTER),
    CommandSpec::session(K, "asking", 1, FAST, Op::Asking, "3.0.0", "Sent by cluster clients after an -ASK redirect"),
    CommandSpec::session(K, "readonly", 1, STALE.and(FAST), Op::ReadOnly, "3.0.0", "Enables read queries for a connection to a cluster replica node"),
    CommandSpec::session(K, "readwrite", 1, STALE.and(FAST), Op::ReadWrite, "3.0.0", "Disables read queries for a connection to a cluster replica node"),
];

#[rustfmt::skip] // One row a line.
const CLIENT: &[CommandSpec] = &[
    CommandSpec::session(C, "client|getname", 2, QUIET, Op::ClientGetName, "2.6.9", "Get the current connection name"),
    help("client|help", "5.0.0"),
    CommandSpec::session(C, "client|id", 2, QUIET, Op::ClientId, "5.0.0", "Returns the client ID for the current connection"),
    CommandSpec::session(C, "client|info", 2, QUIET, Op::ClientInfo, "6.2.0", "Returns information about the current client connection"),
    CommandSpec::session(C, "client|kill", -3, ADMIN, Op::ClientKill, "2.4.0", "Kill the connection of a client"),
    CommandSpec::session(C, "client|list", -2, ADMIN, Op::ClientList, "2.4.0", "Get the list of client connections"),
    CommandSpec::session(C, "client|no-evict", 3, ADMIN, Op::ClientNoEvict, "7.0.0", "Set client eviction mode for the current connection"),
    CommandSpec::session(C, "client|reply", 3, QUIET, Op::ClientReply, "3.2.0", "Instruct the server whether to reply to commands"),
    CommandSpec::session(C, "client|setinfo", 4, QUIET, Op::ClientSetInfo, "7.2.0", "Set client or connection specific info"),
    CommandSpec::session(C, "client|setname", 3, QUIET, Op::ClientSetName, "2.6.9", "Set the current connection name"),
];

#[rustfmt::skip] // One row a line.
const COMMAND: &[CommandSpec] = &[
    CommandSpec::session(S, "command|count", 2, STALE, Op::CommandCount, "2.8.13", "Get total number of Redis commands"),
    CommandSpec::session(S, "command|docs", -2, STALE, Op::CommandDocs, "7.0.0", "Get array of specific Redis command documentation"),
    CommandSpec::session(S, "command|getkeys", -4, STALE, Op::CommandGetKeys, "2.8.13", "Extract keys given a full Redis command"),
    help("command|help", "5.0.0"),
    CommandSpec::session(S, "command|info", -2, STALE, Op::CommandInfo, "2.8.13", "Get array of specific Redis command details, or all when no argument is given"),
    CommandSpec::session(S, "command|list", -2, STALE, Op::CommandList, "7.0.0", "Get an array of Redis command names"),
];

#[rustfmt::skip] // One row a line.
const CONFIG: &[CommandSpec] = &[
    CommandSpec::session(S, "config|get", -3, ADMIN, Op::ConfigGet, "2.0.0", "Get the values of configuration parameters"),
    help("config|help", "5.0.0"),
    CommandSpec::session(S, "config|resetstat", 2, ADMIN, Op::ConfigResetStat, "2.0.0", "Reset the stats returned by INFO"),
    CommandSpec::session(S, "config|set", -4, ADMIN, Op::ConfigSet, "2.0.0", "Set configuration parameters to the given values"),
];

#[rustfmt::skip] // One row a line.
const CLUSTER: &[CommandSpec] = &[
    CommandSpec::key(K, "cluster|countkeysinslot", 3, Flags::READONLY, count_keys_in_slot, "3.0.0", "Return the number of keys in the specified hash slot")
        .with_keys(KeyPositions::NONE)
        .with_route(Route::Slot),
    CommandSpec::key(K, "cluster|getkeysinslot", 4, Flags::READONLY, get_keys_in_slot, "3.0.0", "Return key names in the specified hash slot")
        .with_keys(KeyPositions::NONE)
        .with_route(Route::Slot),
    help("cluster|help", "5.0.0"),
    CommandSpec::session(K, "cluster|info", 2, STALE, Op::ClusterInfo, "3.0.0", "Provides info about Redis Cluster node state"),
    CommandSpec::session(K, "cluster|keyslot", 3, STALE, Op::ClusterKeySlot, "3.0.0", "Returns the hash slot of the specified key"),
    CommandSpec::session(K, "cluster|myid", 2, STALE, Op::ClusterMyId, "3.0.0", "Return the node id"),
    CommandSpec::session(K, "cluster|nodes", 2, STALE, Op::ClusterNodes, "3.0.0", "Get Cluster config for the node"),
    CommandSpec::session(K, "cluster|shards", 2, STALE, Op::ClusterShards, "7.0.0", "Get array of cluster slots to node mappings"),
    CommandSpec::session(K, "cluster|slots", 2, STALE, Op::ClusterSlots, "3.0.0", "Get array of Cluster slot to node mappings"),
];

const fn help(name: &'static str, since: &'static str) -> CommandSpec {
    CommandSpec::session(
        S,
        name,
        2,
        STALE,
        Op::Help,
        since,
        "Show helpful text about the different subcommands",
    )
}
