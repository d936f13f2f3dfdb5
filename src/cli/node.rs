//! `ringdove node`.

use super::ready::Listening;
use super::signals::Signals;
use super::{Failure, Outcome};
use ringdove::config::{NodeConfig, Settings};
use ringdove::drivers::logging;
use ringdove::drivers::node::serve::{self, RunningNode};
use ringdove::engine::ids::NodeId;
use ringdove::engine::table::Table;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::watch;

/// Run a node: start a cluster, or join one by --seed
///
/// Every setting below may also be an environment variable (RINGDOVE_MAX_MEMORY=512mb) or a line
/// of the file named by --config (max-memory = "512mb"). A flag wins over a variable, a variable
/// over the file.
#[derive(clap::Args, Default)]
#[command(after_help = EXAMPLES)]
pub struct NodeArgs {
    #[command(flatten)]
    settings: Settings,
    /// TOML file with settings
    #[arg(long, value_name = "FILE", help_heading = "Operation")]
    config: Option<PathBuf>,
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
    logging::init(&config);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    // The node's tasks share their state without locks, so all of them live on this thread.
    ringdove::drivers::runtime()?.block_on(serve(config, args.exit_with_stdin))
}

/// Runs a node until it is asked to stop.
async fn serve(config: NodeConfig, exit_with_stdin: bool) -> Outcome {
    let mut signals = Signals::catch()?;
    let orphaned = orphaned(exit_with_stdin);
    let node = serve::start(config).await?;
    let at = Listening::of(node.addresses());
    println!("{at}");
    let welcomed = async {
        ready(node.core().tables(), node.addresses().node).await;
        println!("{}", at.ready());
        if !exit_with_stdin {
            println!("{}", welcome(&at));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = welcomed => {}
        () = signals.next() => {}
        // Whoever started us is gone, and the nodes beside us are going too: nobody to hand over to.
        () = orphaned => {
            node.stop().await;
            return Ok(ExitCode::SUCCESS);
        }
    }
    eprintln!("ringdove: handing partitions over before leaving; once more to exit at once");
    let drained = tokio::select! {
        drained = drain(&node) => drained,
        () = signals.next() => return Ok(ExitCode::FAILURE),
    };
    node.stop().await;
    if !drained {
        return Err(Failure(
            "--drain-timeout passed with partitions still here; left without handing them over".to_owned(),
        ));
    }
    eprintln!("ringdove: left the cluster");
    Ok(ExitCode::SUCCESS)
}

/// Hands everything over and says how far it is, when that changes.
async fn drain(node: &RunningNode) -> bool {
    let mut last = usize::MAX;
    node.drain(|held| {
        if held != last && held > 0 {
            eprintln!("ringdove: {held} partitions to hand over");
        }
        last = held;
    })
    .await
}

/// Waits until the node is a member and no partition is unassigned.
async fn ready(mut tables: watch::Receiver<Arc<Table>>, me: NodeId) {
    let is_ready = |table: &Arc<Table>| {
        table.members.contains_key(&me) && table.partitions.iter().all(|held| held.epoch.0 > 0)
    };
    if tables.wait_for(is_ready).await.is_err() {
        // The node stops; so will we.
        std::future::pending().await
    }
}

/// Waits for the end of standard input if `watched`, else for ever.
async fn orphaned(watched: bool) {
    if !watched {
        return std::future::pending().await;
    }
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        // Whatever ends it, an error or the end of the pipe, means the same.
        let _ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(ended);
    });
    let _dropped = end.await;
}

/// What a person at the terminal should know.
fn welcome(at: &Listening) -> String {
    let Listening { resp, quic, admin, .. } = at;
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
