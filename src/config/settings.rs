//! One layer of settings, all optional: what the flags say, or the environment, or the file.

use super::values::{
    Bounded, ByteSize, Eviction, HostPort, Label, ListenAddress, LogFilter, LogFormat, Millis,
    PartitionCount, Switch,
};
use crate::engine::table::Survival;
use std::path::PathBuf;

/// Declares [`Settings`] and what follows from the list of its fields: merging two layers, and
/// setting a field by its key, so that no source can know a setting that another doesn't.
macro_rules! settings {
    (
        lists { $($(#[$list_attribute:meta])* $list:ident: $item:ty,)* }
        scalars { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }
    ) => {
        /// One layer of settings. Keys are the field names with `-` for `_`: the flag is
        /// `--max-memory`, the variable `RINGDOVE_MAX_MEMORY`, the line of the file
        /// `max-memory = "512mb"` (`max_memory` is understood as well).
        #[derive(Clone, Debug, Default, clap::Args)]
        pub struct Settings {
            $($(#[$list_attribute])* pub $list: Option<Vec<$item>>,)*
            $($(#[$attribute])* pub $field: Option<$type>,)*
        }

        impl Settings {
            /// Every key, in the order of `--help`.
            pub const KEYS: &[&str] = &[$(stringify!($list),)* $(stringify!($field),)*];

            /// This layer where it says something, else the lower one.
            pub fn or(self, lower: Settings) -> Settings {
                Settings {
                    $($list: self.$list.or(lower.$list),)*
                    $($field: self.$field.or(lower.$field),)*
                }
            }

            /// Sets one field from the words that a source has for it.
            ///
            /// # Errors
            ///
            /// The reason why a value is refused, in words.
            ///
            /// # Panics
            ///
            /// If `key` is not one of [`Settings::KEYS`].
            pub(super) fn set(&mut self, key: &str, words: &[String]) -> Result<(), String> {
                match key {
                    $(stringify!($list) => {
                        let items = words.iter().map(|word| word.parse());
                        self.$list = Some(items.collect::<Result<_, _>>()?);
                    })*
                    $(stringify!($field) => {
                        let [word] = words else {
                            return Err("takes one value, not a list".to_owned());
                        };
                        self.$field = Some(word.parse().map_err(|e| format!("{e}"))?);
                    })*
                    _ => unreachable!("the caller looks the key up in KEYS"),
                }
                Ok(())
            }

            /// The keys that this layer says something about.
            pub(super) fn keys_set(&self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $(if self.$list.is_some() { keys.push(stringify!($list)); })*
                $(if self.$field.is_some() { keys.push(stringify!($field)); })*
                keys
            }
        }
    };
}

settings! {
    lists {
        /// A member of the cluster to join, any one; repeat it for more. Without it the node
        /// starts a cluster of its own
        #[arg(long, value_name = "HOST:PORT", help_heading = "Cluster")]
        seed: HostPort,
    }
    scalars {
        /// A name for people [default: the host's name and the QUIC port]
        #[arg(long, value_name = "NAME", help_heading = "Cluster")]
        name: Label,
        /// Failure domain (rack, site): two copies never share one
        #[arg(long, value_name = "ZONE", help_heading = "Cluster")]
        zone: Label,
        /// Copies in all, the primary included; fixed when the cluster forms [default: 2]
        #[arg(long, value_name = "N", help_heading = "Cluster")]
        replicas: Bounded<1, 8>,
        /// Copies that a write needs before it is acknowledged [default: 2, or --replicas if less]
        #[arg(long, value_name = "N", help_heading = "Cluster")]
        min_copies: Bounded<1, 8>,
        /// Partitions, a power of two up to 16384; fixed when the cluster forms [default: 1024]
        #[arg(long, value_name = "N", help_heading = "Cluster")]
        partitions: PartitionCount,
        /// Who goes on when members are lost: `auto` (any survivor until the cluster had three
        /// members, a majority from then on), `majority`, `takeover` [default: auto]
        #[arg(long, value_name = "RULE", help_heading = "Cluster")]
        survival: Survival,
        /// Share of the partitions relative to other members, 1 to 10000 [default: 100]
        #[arg(long, value_name = "N", help_heading = "Cluster")]
        weight: Bounded<1, 10_000>,
        /// Vote, but hold no partition: a small third member that makes a majority possible
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", help_heading = "Cluster")]
        witness: Switch,

        /// Where Redis clients connect (TCP); port 0 picks a free one [default: 127.0.0.1:6379]
        #[arg(long, value_name = "ADDR", help_heading = "Addresses")]
        resp: ListenAddress,
        /// Where peers and QUIC clients connect (UDP) [default: 127.0.0.1:7379]
        #[arg(long, value_name = "ADDR", help_heading = "Addresses")]
        quic: ListenAddress,
        /// Where the admin page, metrics and health are served (HTTP) [default: 127.0.0.1:9379]
        #[arg(long, value_name = "ADDR", help_heading = "Addresses")]
        admin: ListenAddress,
        /// The QUIC address that others should use, if it isn't the one listened on; its host
        /// goes for RESP and admin too
        #[arg(long, value_name = "HOST:PORT", help_heading = "Addresses")]
        advertise: HostPort,

        /// File with the cluster's secret (or RINGDOVE_SECRET); needed beyond loopback
        #[arg(long, value_name = "FILE", help_heading = "Security")]
        secret_file: PathBuf,
        /// Directory with ca.pem, node.pem and node.key (see `ringdove certs`), instead of a secret
        #[arg(long, value_name = "DIR", help_heading = "Security")]
        certs: PathBuf,
        /// File with the password that Redis clients must AUTH with
        #[arg(long, value_name = "FILE", help_heading = "Security")]
        require_pass_file: PathBuf,
        /// Speak TLS on the RESP port
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", help_heading = "Security")]
        resp_tls: Switch,
        /// Certificate chain for --resp-tls [default: the node's own]
        #[arg(long, value_name = "FILE", help_heading = "Security")]
        resp_tls_cert: PathBuf,
        /// Private key of --resp-tls-cert
        #[arg(long, value_name = "FILE", help_heading = "Security")]
        resp_tls_key: PathBuf,

        /// Memory for entries, counted in real bytes: 512mb, 2GiB; 0 is no bound [default: 0]
        #[arg(long, value_name = "SIZE", help_heading = "Memory")]
        max_memory: ByteSize,
        /// When it is full: `noeviction`, `allkeys-lru`, `volatile-ttl` [default: noeviction]
        #[arg(long, value_name = "POLICY", help_heading = "Memory")]
        eviction: Eviction,
        /// The longest key, at most 64kb [default: 64kb]
        #[arg(long, value_name = "SIZE", help_heading = "Memory")]
        max_key_size: ByteSize,
        /// The longest value, at most 512mb [default: 64mb]
        #[arg(long, value_name = "SIZE", help_heading = "Memory")]
        max_value_size: ByteSize,

        /// Redis connections at once [default: 10000]
        #[arg(long, value_name = "N", help_heading = "Clients")]
        max_clients: Bounded<1, 1_000_000>,
        /// How long a command may wait for its partition before it is refused; more than a failover takes
        /// [default: 8s]
        #[arg(long, value_name = "TIME", help_heading = "Clients")]
        op_timeout: Millis,
        /// Answer MOVED instead of forwarding, for cluster-aware Redis clients
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", help_heading = "Clients")]
        resp_redirect: Switch,
        /// Allow DEBUG SLEEP, which stalls the node on purpose
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true", help_heading = "Clients")]
        enable_debug_command: Switch,

        /// Send records one a message, and so many messages unacknowledged at most: to measure what
        /// batching is worth
        #[arg(long, value_name = "N", help_heading = "Operation")]
        unbatched_replication: Bounded<1, 1_000>,

        /// Bytes a second that this node sends to make copies on others; 0 is no bound [default: 0]
        #[arg(long, value_name = "SIZE", help_heading = "Operation")]
        copy_rate: ByteSize,
        /// How long a graceful stop may take to hand partitions over [default: 60s]
        #[arg(long, value_name = "TIME", help_heading = "Operation")]
        drain_timeout: Millis,
        /// What is logged to stderr: a level, or info,ringdove::drivers=debug [default: info]
        #[arg(long, value_name = "FILTER", help_heading = "Operation")]
        log: LogFilter,
        /// `text`, or `plain` without time and colours [default: text]
        #[arg(long, value_name = "FORMAT", help_heading = "Operation")]
        log_format: LogFormat,
    }
}
