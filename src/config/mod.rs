//! The settings of a node: parsed once from flags, environment and file into [`NodeConfig`], whose
//! values every other part can trust.
//!
//! - `credentials`: secrets and certificates;
//! - `values`: the types of single settings (sizes, lengths of time, addresses);
//! - `settings`: one layer of optional settings, as flags or any other source give them;
//! - `sources`: which source wins, and who said what;
//! - this file: the validated outcome.

mod credentials;
mod settings;
mod sources;
mod values;

pub use credentials::{Credentials, CredentialsError, Password};
pub use settings::Settings;
pub use sources::Origin;
pub use values::{
    Bounded, ByteSize, Eviction, HostPort, Label, ListenAddress, LogFilter, LogFormat, Millis,
    PartitionCount, Switch,
};

use crate::engine::table::{ClusterSettings, Survival};
use sources::Sources;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest key ever, in bytes.
const KEY_BYTES_LIMIT: u64 = 64 << 10;
/// The longest value ever, in bytes: as in Redis.
const VALUE_BYTES_LIMIT: u64 = 512 << 20;
/// The smallest bound on memory that makes sense, in bytes.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// Everything a node needs to know at its start, validated.
///
/// [`NodeConfig::default`] is a single node on loopback with the built-in development secret.
/// After changing fields by hand call [`check`](NodeConfig::check); [`NodeConfig::load`] has done
/// so.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Members to join by; none starts a cluster.
    pub seeds: Vec<HostPort>,
    /// The node's name for people; see [`name_for`](NodeConfig::name_for).
    pub name: Option<String>,
    /// Failure domain.
    pub zone: Option<String>,
    /// What a cluster formed by this node will be. A joining node takes the cluster's instead.
    pub cluster: ClusterSettings,
    /// Share of partitions relative to others, 1 to 10,000; 0 makes a witness.
    pub weight: u16,
    /// Where Redis clients connect.
    pub resp: SocketAddr,
    /// Where peers and QUIC clients connect.
    pub quic: SocketAddr,
    /// Where the admin HTTP server listens.
    pub admin: SocketAddr,
    /// The QUIC address that others should use; its host goes for RESP and admin too.
    pub advertise: Option<HostPort>,
    /// What peers are checked by.
    pub credentials: Credentials,
    /// The password of the RESP door.
    pub require_pass: Option<Password>,
    /// TLS at the RESP door.
    pub resp_tls: RespTls,
    /// Whether RESP clients get `MOVED` instead of being forwarded.
    pub resp_redirect: bool,
    /// Whether `DEBUG SLEEP` is allowed.
    pub enable_debug_command: bool,
    /// Memory for entries in bytes; 0 is no bound.
    pub memory_bytes_max: u64,
    /// What happens when it is full.
    pub eviction: Eviction,
    /// Bounds on what clients may send and hold.
    pub limits: Limits,
    /// Records travel one a message, so many unacknowledged at most; `None` is batching as usual.
    /// For measuring what batching is worth.
    pub unbatched_replication: Option<u16>,
    /// How long a graceful stop may take to hand partitions over.
    pub drain_timeout: Duration,
    /// Bytes a second for all copies that this node sends to others; 0 is no bound.
    pub copy_bytes_per_s: u64,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log_filter: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// TLS at the RESP door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RespTls {
    /// Plain TCP.
    #[default]
    Off,
    /// TLS with the node's own certificate.
    NodeCertificate,
    /// TLS with a certificate of its own.
    Files {
        /// The certificate chain, PEM.
        cert: PathBuf,
        /// Its private key, PEM.
        key: PathBuf,
    },
}

/// Bounds on what clients may send and hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest key in bytes, at most 64 KiB.
    pub key_bytes_max: u32,
    /// The longest value in bytes, at most 512 MiB.
    pub value_bytes_max: u32,
    /// RESP connections at once.
    pub clients_max: u32,
    /// How long a command may wait for its partition, in milliseconds.
    pub op_timeout_ms: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            key_bytes_max: 64 << 10,
            value_bytes_max: 64 << 20,
            clients_max: 10_000,
            op_timeout_ms: 8_000,
        }
    }
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        NodeConfig {
            seeds: Vec::new(),
            name: None,
            zone: None,
            cluster: ClusterSettings {
                partitions: 1024,
                replicas: 2,
                min_copies: 2,
                survival: Survival::Auto,
            },
            weight: 100,
            resp: loopback(6379),
            quic: loopback(7379),
            admin: loopback(9379),
            advertise: None,
            credentials: Credentials::Development,
            require_pass: None,
            resp_tls: RespTls::Off,
            resp_redirect: false,
            enable_debug_command: false,
            memory_bytes_max: 0,
            eviction: Eviction::NoEviction,
            limits: Limits::default(),
            unbatched_replication: None,
            drain_timeout: Duration::from_secs(60),
            copy_bytes_per_s: 0,
            log_filter: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

/// Why a configuration is refused. Each message names the source and the reason, and never a
/// secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file can't be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of the configuration file is refused.
    #[error("{}, line {line}: {reason}\n  {line} | {text}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What stands there.
        text: String,
        /// Why it is refused.
        reason: String,
    },
    /// An environment variable is refused.
    #[error("{variable}: {reason}")]
    Variable {
        /// Its name.
        variable: String,
        /// Why it is refused.
        reason: String,
    },
    /// Settings that are fine one by one don't go together, or what they name can't be used.
    #[error("{origin}: {reason}")]
    Refused {
        /// Who said it.
        origin: Origin,
        /// Why it is refused.
        reason: String,
    },
}

/// Why a [`NodeConfig`] can't be: the key of the setting and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Conflict {
    /// One of [`Settings::KEYS`].
    pub key: &'static str,
    /// Why, in words.
    pub reason: String,
}

impl NodeConfig {
    /// Merges the flags over the environment over the file over the defaults, and checks the
    /// outcome. Reads the files that settings name (the configuration, secrets), nothing else.
    ///
    /// `config` is the file named by `--config`; without it `RINGDOVE_CONFIG` may name one.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the source (flag, variable, file and line) and the reason.
    pub fn load(
        config: Option<PathBuf>,
        flags: Settings,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<NodeConfig, ConfigError> {
        let sources = Sources::merge(config, flags, environment)?;
        let refused = |conflict: Conflict| ConfigError::Refused {
            origin: sources.origin(conflict.key),
            reason: conflict.reason,
        };
        let config = NodeConfig::from_sources(&sources).map_err(refused)?;
        config.check().map_err(refused)?;
        Ok(config)
    }

    fn from_sources(sources: &Sources) -> Result<NodeConfig, Conflict> {
        let given = sources.settings.clone();
        let default = NodeConfig::default();
        let replicas = given.replicas.map_or(default.cluster.replicas, |n| n.0 as u8);
        let limits = default.limits;
        Ok(NodeConfig {
            credentials: credentials(&given, sources.secret.clone())?,
            require_pass: given.require_pass_file.as_deref().map(password).transpose()?,
            resp_tls: resp_tls(&given)?,
            seeds: given.seed.unwrap_or_default(),
            name: given.name.map(|name| name.0),
            zone: given.zone.map(|zone| zone.0),
            cluster: ClusterSettings {
                partitions: given.partitions.map_or(default.cluster.partitions, |count| count.0),
                replicas,
                min_copies: given.min_copies.map_or(replicas.min(2), |n| n.0 as u8),
                survival: given.survival.unwrap_or(default.cluster.survival),
            },
            weight: match given.witness {
                Some(Switch(true)) => 0,
                _ => given.weight.map_or(default.weight, |weight| weight.0 as u16),
            },
            resp: given.resp.map_or(default.resp, |address| address.0),
            quic: given.quic.map_or(default.quic, |address| address.0),
            admin: given.admin.map_or(default.admin, |address| address.0),
            advertise: given.advertise,
            resp_redirect: given.resp_redirect.is_some_and(|on| on.0),
            enable_debug_command: given.enable_debug_command.is_some_and(|on| on.0),
            memory_bytes_max: given.max_memory.map_or(default.memory_bytes_max, |size| size.0),
            eviction: given.eviction.unwrap_or(default.eviction),
            limits: Limits {
                key_bytes_max: size_setting(
                    "max_key_size",
                    given.max_key_size,
                    limits.key_bytes_max,
                    KEY_BYTES_LIMIT,
                )?,
                value_bytes_max: size_setting(
                    "max_value_size",
                    given.max_value_size,
                    limits.value_bytes_max,
                    VALUE_BYTES_LIMIT,
                )?,
                clients_max: given.max_clients.map_or(limits.clients_max, |count| count.0),
                op_timeout_ms: match given.op_timeout {
                    None => limits.op_timeout_ms,
                    Some(Millis(ms @ 10..=600_000)) => ms as u32,
                    Some(_) => return conflict("op_timeout", "must be from 10ms to 10m"),
                },
            },
            unbatched_replication: given.unbatched_replication.map(|count| count.0 as u16),
            copy_bytes_per_s: given.copy_rate.map_or(default.copy_bytes_per_s, |size| size.0),
            drain_timeout: given.drain_timeout.map_or(default.drain_timeout, Duration::from),
            log_filter: given.log.map_or(default.log_filter, |filter| filter.0),
            log_format: given.log_format.unwrap_or(default.log_format),
        })
    }

    /// Checks what no single field can say.
    ///
    /// # Errors
    ///
    /// The first [`Conflict`] found.
    pub fn check(&self) -> Result<(), Conflict> {
        let ClusterSettings { partitions, replicas, min_copies, .. } = self.cluster;
        if !partitions.is_power_of_two() || partitions > crate::engine::ids::PARTITION_COUNT_MAX {
            return conflict("partitions", "must be a power of two from 1 to 16384");
        }
        if replicas == 0 || min_copies == 0 || min_copies > replicas {
            return conflict(
                "min_copies",
                format!("{min_copies} copies for a write, but there are only {replicas} in all (--replicas)"),
            );
        }
        if self.weight == 0 && self.seeds.is_empty() {
            return conflict(
                "witness",
                "a witness holds no partition, so it can't start a cluster: give it a --seed",
            );
        }
        if self.resp == self.admin && self.resp.port() != 0 {
            return conflict("admin", format!("{} is the RESP address already", self.admin));
        }
        if let Some(seed) = self.seeds.iter().find(|seed| seed.port == 0) {
            return conflict("seed", format!("{seed} has port 0, where nobody listens"));
        }
        if let Some(advertise) = &self.advertise {
            let wildcard = advertise.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
            if wildcard || advertise.port == 0 {
                return conflict("advertise", format!("{advertise} is no address that others could reach"));
            }
        }
        if self.memory_bytes_max != 0 && self.memory_bytes_max < MEMORY_BYTES_MIN {
            return conflict(
                "max_memory",
                format!("{} bytes is less than 1 MiB; was a unit forgotten?", self.memory_bytes_max),
            );
        }
        self.check_exposure()
    }

    /// Refuses to be reachable from other machines without a secret.
    fn check_exposure(&self) -> Result<(), Conflict> {
        if !self.credentials.is_development() {
            return Ok(());
        }
        let why = "would be reachable from other machines with the built-in development secret, which \
                   everybody knows: give the cluster a secret (--secret-file or RINGDOVE_SECRET) or \
                   certificates (--certs), or stay on loopback";
        let listeners = [("resp", self.resp), ("quic", self.quic), ("admin", self.admin)];
        for (key, address) in listeners {
            if !address.ip().to_canonical().is_loopback() {
                return conflict(key, format!("{address} {why}"));
            }
        }
        match &self.advertise {
            Some(advertise) if !advertise.is_loopback() => {
                conflict("advertise", format!("{advertise} {why}"))
            }
            _ => Ok(()),
        }
    }

    /// What is allowed but should be said aloud at start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let open = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
        if open(self.resp) && self.require_pass.is_none() {
            warnings.push(format!(
                "anyone who reaches {} can read and write: set --require-pass-file",
                self.resp
            ));
        }
        if open(self.resp) && self.require_pass.is_some() && self.resp_tls == RespTls::Off {
            warnings.push(format!("passwords and values cross {} in the clear: set --resp-tls", self.resp));
        }
        if open(self.admin) {
            warnings.push(format!("the admin page at {} asks for no password", self.admin));
        }
        if self.eviction != Eviction::NoEviction && self.memory_bytes_max == 0 {
            warnings.push(format!("--eviction {} never acts without --max-memory", self.eviction.as_str()));
        }
        warnings
    }

    /// The node's name: the configured one, else the host's name and the QUIC port it got.
    pub fn name_for(&self, quic: SocketAddr) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => {
                let system = rustix::system::uname();
                let host = system.nodename().to_string_lossy();
                let host: String = host
                    .chars()
                    .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
                    .take(56)
                    .collect();
                format!("{}-{}", if host.is_empty() { "node" } else { &host }, quic.port())
            }
        }
    }

    /// Whether this member holds no partitions.
    pub fn is_witness(&self) -> bool {
        self.weight == 0
    }
}

fn conflict<T>(key: &'static str, reason: impl Into<String>) -> Result<T, Conflict> {
    Err(Conflict { key, reason: reason.into() })
}

fn credentials(given: &Settings, secret: Option<String>) -> Result<Credentials, Conflict> {
    Credentials::choose(given.secret_file.as_deref(), secret, given.certs.as_deref()).map_err(|error| {
        let key = match error {
            CredentialsError::Secret(_) => "secret_file",
            _ => "certs",
        };
        Conflict { key, reason: error.to_string() }
    })
}

fn password(path: &Path) -> Result<Password, Conflict> {
    Password::read(path).map_err(|reason| Conflict { key: "require_pass_file", reason })
}

fn resp_tls(given: &Settings) -> Result<RespTls, Conflict> {
    match (given.resp_tls, &given.resp_tls_cert, &given.resp_tls_key) {
        (None | Some(Switch(false)), None, None) => Ok(RespTls::Off),
        (Some(Switch(true)), None, None) => Ok(RespTls::NodeCertificate),
        (Some(Switch(true)), Some(cert), Some(key)) => {
            Ok(RespTls::Files { cert: cert.clone(), key: key.clone() })
        }
        (_, Some(_), None) => conflict("resp_tls_cert", "needs --resp-tls-key with it"),
        (_, None, Some(_)) => conflict("resp_tls_key", "needs --resp-tls-cert with it"),
        (_, Some(_), Some(_)) => conflict("resp_tls_cert", "does nothing without --resp-tls"),
    }
}

fn size_setting(
    key: &'static str,
    given: Option<ByteSize>,
    default: u32,
    limit: u64,
) -> Result<u32, Conflict> {
    match given {
        None => Ok(default),
        Some(ByteSize(bytes)) if (1..=limit).contains(&bytes) => Ok(bytes as u32),
        Some(ByteSize(bytes)) => conflict(key, format!("{bytes} bytes is not from 1 to {limit} bytes")),
    }
}

#[cfg(test)]
mod tests;
