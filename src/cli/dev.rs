//! `ringdove dev`: a local cluster of child processes.

use super::ready::{Listening, Ready};
use super::signals::Signals;
use super::{Failure, Outcome, block_on};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// How long a child may take from its start to its ready line.
const START_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct DevArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    nodes: u8,
    /// Flags for every node, such as: -- --replicas 3 --max-memory 100mb
    #[arg(last = true, value_name = "NODE FLAGS")]
    flags: Vec<OsString>,
}

pub fn run(args: DevArgs) -> Outcome {
    block_on(cluster(args))
}

async fn cluster(args: DevArgs) -> Outcome {
    let mut signals = Signals::catch()?;
    let mut nodes = tokio::select! {
        started = start(&args) => started?,
        // The children die with the pipes to them.
        () = signals.next() => return Ok(ExitCode::FAILURE),
    };
    print!("{}", addresses(&nodes));

    let lost = loop {
        tokio::select! {
            () = signals.next() => break false,
            (index, status) = next_exit(&mut nodes) => {
                let node = nodes.remove(index);
                eprintln!("ringdove: {} is gone ({status}); {} left", node.at.name, nodes.len());
                if nodes.is_empty() {
                    break true;
                }
            }
        }
    };
    if lost {
        return Err(Failure("all nodes are gone".to_owned()));
    }
    eprintln!("ringdove: stopping {} nodes; once more to kill them", nodes.len());
    tokio::select! {
        clean = stop(&mut nodes) => Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        () = signals.next() => Ok(ExitCode::FAILURE),
    }
}

/// A running child. Dropping it kills the process.
struct DevNode {
    child: Child,
    /// Held open: its end tells the child that we are gone.
    _lifeline: ChildStdin,
    at: Listening,
}

/// Starts the first node, then the others by its address.
async fn start(args: &DevArgs) -> Result<Vec<DevNode>, Failure> {
    let program = std::env::current_exe()?;
    let spawn = |number: u8, seed: Option<&str>| {
        let mut command = Command::new(&program);
        command.args(["node", "--exit-with-stdin", "--name", &format!("dev-{number}")]);
        for door in ["--resp", "--quic", "--admin"] {
            command.args([door, "127.0.0.1:0"]);
        }
        command.args(seed.iter().flat_map(|seed| ["--seed", seed]));
        if !args.flags.iter().any(|flag| flag.to_string_lossy().starts_with("--log")) {
            command.args(["--log", "warn"]);
        }
        command.args(&args.flags);
        // Its own process group, or Ctrl-C would reach it before we can stop the nodes in order.
        command.process_group(0).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    };
    let mut nodes = vec![ready(spawn(1, None)?).await?];
    let seed = nodes[0].at.quic.to_string();
    // All at once, as they join side by side.
    let mut starting = Vec::new();
    for number in 2..=args.nodes {
        starting.push(spawn(number, Some(&seed))?);
    }
    for child in starting {
        nodes.push(ready(child).await?);
    }
    Ok(nodes)
}

/// Waits for a child's ready line; what it prints later is passed on.
async fn ready(mut child: Child) -> Result<DevNode, Failure> {
    // Taken out of the child, as waiting for the child would close it.
    let (Some(stdout), Some(lifeline)) = (child.stdout.take(), child.stdin.take()) else {
        return Err(Failure("a node has no pipes to it".to_owned()));
    };
    let mut lines = BufReader::new(stdout).lines();
    let wait = async {
        while let Some(line) = lines.next_line().await? {
            if let Ok(Ready(at)) = line.parse() {
                return Ok(Some(at));
            }
        }
        std::io::Result::Ok(None)
    };
    match tokio::time::timeout(START_TIMEOUT, wait).await {
        Ok(Ok(Some(at))) => {
            tokio::spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    println!("{line}");
                }
            });
            Ok(DevNode { child, _lifeline: lifeline, at })
        }
        Ok(Ok(None)) => {
            let status = child.wait().await?;
            Err(Failure(format!("a node ended before it was ready ({status})")))
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Failure(format!("a node is not ready after {START_TIMEOUT:?}"))),
    }
}

/// Waits until one of the nodes ends.
async fn next_exit(nodes: &mut [DevNode]) -> (usize, ExitStatus) {
    std::future::poll_fn(|context| {
        for (index, node) in nodes.iter_mut().enumerate() {
            let exit = std::pin::pin!(node.child.wait());
            if let std::task::Poll::Ready(Ok(status)) = exit.poll(context) {
                return std::task::Poll::Ready((index, status));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Asks every node to stop and waits for them. Whether all ended well.
async fn stop(nodes: &mut Vec<DevNode>) -> bool {
    for node in nodes.iter() {
        let pid = node.child.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(pid) = pid {
            // It may have ended by itself just now.
            let _gone = kill_process(pid, Signal::TERM).is_err();
        }
    }
    let mut clean = true;
    while !nodes.is_empty() {
        let (index, status) = next_exit(nodes).await;
        let node = nodes.remove(index);
        clean &= status.success();
        eprintln!("ringdove: {} stopped ({status})", node.at.name);
    }
    clean
}

/// The table of addresses.
fn addresses(nodes: &[DevNode]) -> String {
    let mut text = format!("{:<8} {:<22} {:<22} {}\n", "NODE", "REDIS CLIENTS", "QUIC", "ADMIN PAGE");
    for DevNode { at, .. } in nodes {
        let (resp, quic) = (at.resp.to_string(), at.quic.to_string());
        text += &format!("{:<8} {resp:<22} {quic:<22} http://{}/\n", at.name, at.admin);
    }
    let first = &nodes[0].at;
    text += &format!(
        "\nredis-cli -p {}   ·   ringdove get KEY --quic {}   ·   ringdove status --admin {}\nCtrl-C stops them all\n",
        first.resp.port(),
        first.quic,
        first.admin
    );
    text
}
