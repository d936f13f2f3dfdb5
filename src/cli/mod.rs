//! The command line: one file a subcommand.

mod bench;
mod certs;
mod client;
mod dev;
mod http;
mod node;
mod ready;
mod signals;
mod status;

use clap::{Parser, Subcommand};
use std::fmt;
use std::process::ExitCode;

/// A distributed in-memory key/value store: a shared pool of memory across machines.
///
/// Without a command it starts one node on loopback, as `ringdove node` does.
#[derive(Parser)]
#[command(name = "ringdove", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  ringdove                               one node; talk to it with redis-cli
  ringdove node --seed 127.0.0.1:7379 --resp 127.0.0.1:0 --quic 127.0.0.1:0 --admin 127.0.0.1:0
                                         a second one beside it
  ringdove dev --nodes 3                 a local cluster to play with
  ringdove set greeting hello && ringdove get greeting
  ringdove status --watch";

#[derive(Subcommand)]
enum Command {
    // Described where its flags are.
    Node(Box<node::NodeArgs>),
    /// Run a local cluster of several processes, for development
    Dev(dev::DevArgs),
    /// Show members, partitions, replication and migrations
    Status(status::StatusArgs),
    /// Measure throughput and latency over RESP or QUIC
    Bench(bench::BenchArgs),
    /// Make certificates, for those who don't want a shared secret
    #[command(subcommand)]
    Certs(certs::CertsCommand),
    #[command(flatten)]
    Data(client::DataCommand),
}

/// Why a command failed, for the person who ran it.
#[derive(Debug)]
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a command ends with: an exit code, or why it failed.
type Outcome = Result<ExitCode, Failure>;

/// Parses the command line and runs it.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        None => node::run(node::NodeArgs::default()),
        Some(Command::Node(args)) => node::run(*args),
        Some(Command::Dev(args)) => dev::run(args),
        Some(Command::Status(args)) => status::run(args),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Certs(command)) => certs::run(command),
        Some(Command::Data(command)) => client::run(command),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("ringdove: {failure}");
        ExitCode::FAILURE
    })
}

/// Runs a command's future on a runtime of one thread.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_teaches() {
        let mut command = Cli::command();
        let node = command.find_subcommand_mut("node").unwrap().render_long_help().to_string();
        for heading in
            ["Cluster:", "Addresses:", "Security:", "Memory:", "Clients:", "Operation:", "Examples:"]
        {
            assert!(node.contains(heading), "{heading} is missing in\n{node}");
        }
        for key in ringdove::config::Settings::KEYS {
            assert!(node.contains(&format!("--{}", key.replace('_', "-"))), "{key}");
        }
        assert!(node.contains("RINGDOVE_MAX_MEMORY"));
    }
}
