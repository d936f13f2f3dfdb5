//! `ringdove node`.

use super::ready::Ready;
use super::{Failure, Outcome};
use ringdove::config::{NodeConfig, Settings};
use std::path::PathBuf;

/// Run a node: start a cluster, or join one by --seed
///
/// Every setting below may also be an environment variable (RINGDOVE_MAX_MEMORY=512mb) or a line
/// of the file named by --config (max-memory = "512mb"). A flag wins over a variable, a variable
/// over the file.
#[derive(clap::Args, Default)]
#[command(after_help = EXAMPLES)]
pub struct NodeArgs {
    /// TOML file with settings
    #[arg(long, value_name = "FILE", help_heading = "Operation")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Stop when standard input ends: the program that started this one is gone.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

const EXAMPLES: &str = "\
Units:
  SIZE is 512mb, 2GiB (powers of 1024), 2g (of 1000) or bytes; TIME is 250ms, 5s, 2m, 1h.

Examples:
  ringdove node
      one node on loopback
  ringdove node --seed 10.0.0.1:7379 --resp 0.0.0.0:6379 --quic 10.0.0.2:7379 \\
      --secret-file /etc/ringdove/secret --max-memory 4gb --eviction allkeys-lru
      join the cluster of 10.0.0.1 from another machine, as a cache of 4 GiB";

pub fn run(args: NodeArgs) -> Outcome {
    let config = NodeConfig::load(args.config, args.settings, std::env::vars_os())?;
    ringdove::drivers::logging::init(&config);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let _ = (args.exit_with_stdin, welcome);
    Err(Failure("this build has no node yet".to_owned()))
}

/// What a person at the terminal should know.
fn welcome(ready: &Ready) -> String {
    let Ready { resp, quic, admin, .. } = ready;
    format!(
        "  talk to it   redis-cli -h {} -p {}\n\
         \x20              ringdove get KEY --quic {quic}\n\
         \x20 look at it   http://{admin}/   or: ringdove status --admin {admin}\n\
         \x20 add a node   ringdove node --seed {quic} --resp 127.0.0.1:0 --quic 127.0.0.1:0 --admin 127.0.0.1:0\n\
         \x20 stop it      Ctrl-C hands its partitions over first; a second one exits at once",
        resp.ip(),
        resp.port(),
    )
}
