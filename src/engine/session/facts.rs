//! What a connection asks of its node.

use crate::engine::ids::{NodeId, PartitionId};
pub use crate::engine::op::{Op, Submitted};
use crate::engine::resp::Proto;
use crate::engine::table::Table;
use crate::engine::time::Now;
use std::net::SocketAddr;

/// The number of a connection at its node; never used twice while the node lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names an operation between a [`Connection`](super::Connection) and its [`Host`]. Never used twice by a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Why a parameter can't be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigRefusal {
    /// There is no such parameter.
    Unknown,
    /// It can't be changed while the node runs.
    Immutable,
    /// The value is none of its values, for this reason.
    Invalid(String),
}

/// What a node knows about itself and its cluster.
pub trait Facts {
    /// The time.
    fn now(&self) -> Now;
    /// This node.
    fn me(&self) -> NodeId;
    /// The table as this node knows it.
    fn table(&self) -> &Table;
    /// Numbers for INFO, as of now.
    fn stats(&self) -> Stats;
    /// What clients must present, if anything.
    fn password(&self) -> Option<&[u8]>;
    /// Shows every parameter, by its name in CONFIG, with its value.
    fn config(&self, visit: &mut dyn FnMut(&str, &str));
    /// Shows every *other* connection.
    fn clients(&self, visit: &mut dyn FnMut(&ClientInfo));
    /// Whether DEBUG is allowed.
    fn debug_allowed(&self) -> bool;
}

/// What a node does for a connection.
pub trait Host: Facts {
    /// Runs a command at its partition, here or at another node.
    ///
    /// Operations that a connection submits to one partition take effect in the order of their
    /// submission. On [`Submitted::Done`] exactly one encoded reply has been appended to `out`; a long value of it
    /// may have been left in `op.long` instead.
    fn submit(&mut self, ticket: Ticket, op: Op<'_>, out: &mut Vec<u8>) -> Submitted;
    /// Partitions and hashes of the keys of commands that come next, for overlapping cache misses.
    /// `writes`: some of them will be written. Changes nothing.
    fn touch(&self, _keys: &[(PartitionId, u64)], _writes: bool) {}
    /// Where a client is sent instead, if it asked for redirects (or the node is set to give them)
    /// and the partition's primary is another node.
    fn redirect(&self, partition: PartitionId) -> Option<SocketAddr>;
    /// Random bits.
    fn entropy(&mut self) -> u64;
    /// Sets parameters, all or none.
    ///
    /// # Errors
    /// The index of the first that can't be set, and why.
    fn config_set(&mut self, parameters: &[(&str, &str)]) -> Result<(), (usize, ConfigRefusal)>;
    /// Sets the counters behind [`Facts::stats`] to zero.
    fn reset_stats(&mut self);
    /// Asks the controller to begin dead partitions anew, empty.
    fn accept_loss(&mut self);
    /// Closes another connection.
    fn kill(&mut self, connection: ConnectionId);
    /// Owes `+OK` to the ticket after so many microseconds.
    fn sleep(&mut self, ticket: Ticket, us: u64);
}

/// A connection as CLIENT LIST shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its number.
    pub id: ConnectionId,
    /// The client's address.
    pub remote: SocketAddr,
    /// The node's address that it came to.
    pub local: SocketAddr,
    /// The name it gave itself; empty if none.
    pub name: String,
    /// The client library's name; empty if it did not say.
    pub lib_name: String,
    /// The client library's version; empty if it did not say.
    pub lib_version: String,
    /// The last command, in lower case.
    pub command: &'static str,
    /// Which version of the protocol it speaks.
    pub proto: Proto,
    /// Whether it asked not to be closed to save memory.
    pub no_evict: bool,
    /// When it connected, on the monotonic clock.
    pub connected_at_us: u64,
    /// When its last command came, on the monotonic clock.
    pub active_at_us: u64,
    /// Bytes received and not yet run.
    pub input_bytes: usize,
    /// Bytes of replies not yet sent.
    pub output_bytes: usize,
}

impl ClientInfo {
    /// Takes over what may have changed since.
    pub(super) fn update(&mut self, now: &ClientInfo) {
        let ClientInfo { name, lib_name, lib_version, command, proto, no_evict, active_at_us, .. } = now;
        for (old, new) in
            [(&mut self.name, name), (&mut self.lib_name, lib_name), (&mut self.lib_version, lib_version)]
        {
            // Most are empty, and not worth a comparison's call.
            if (old.len(), new.len()) != (0, 0) && old != new {
                old.clone_from(new);
            }
        }
        (self.command, self.proto) = (command, *proto);
        (self.no_evict, self.active_at_us) = (*no_evict, *active_at_us);
    }
}

/// Numbers for INFO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The process.
    pub process_id: u32,
    /// Where Redis clients connect.
    pub tcp_port: u16,
    /// Since the node started, in seconds.
    pub uptime_s: u64,
    /// Connections of Redis clients.
    pub clients: u64,
    /// Connections that wait for a reply from a partition.
    pub clients_blocked: u64,
    /// The most connections allowed.
    pub clients_max: u64,
    /// Bytes that entries take.
    pub memory_used_bytes: u64,
    /// The most they have taken.
    pub memory_peak_bytes: u64,
    /// Bytes the process has resident.
    pub memory_resident_bytes: u64,
    /// The limit; 0 is none.
    pub memory_max_bytes: u64,
    /// What happens at the limit, as CONFIG names it.
    pub memory_policy: &'static str,
    /// Connections accepted in all.
    pub connections_received: u64,
    /// Connections refused in all.
    pub connections_rejected: u64,
    /// Connections closed because their clients did not take their replies.
    pub connections_slow: u64,
    /// Commands run in all.
    pub commands: u64,
    /// Commands a second of late.
    pub commands_per_s: u64,
    /// Bytes read from Redis clients.
    pub input_bytes: u64,
    /// Bytes written to Redis clients.
    pub output_bytes: u64,
    /// Keys that expired at this primary.
    pub keys_expired: u64,
    /// Keys evicted by this primary.
    pub keys_evicted: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Processor time in user mode, in microseconds.
    pub cpu_user_us: u64,
    /// Processor time in the kernel, in microseconds.
    pub cpu_system_us: u64,
    /// Keys of the partitions that this node is primary of.
    pub keys: u64,
    /// Those of them that expire.
    pub keys_expiring: u64,
}
