//! `ringdove bench`: a load generator.
//!
//! Each client keeps `--pipeline` commands under way and sends the next batch when the last one is
//! answered, or, with `--rate`, when it is due. A command's latency is that of its batch, from the
//! write, or when that was due, to the last reply.
//! - `plan`: what is sent;
//! - `cluster`: to whom, where each key is asked for at its primary;
//! - `resp`: how it is sent to a Redis port, ringdove's or another's;
//! - `quic`: how it is sent by ringdove's own client;
//! - `pace`: when it is sent, at a given rate;
//! - `report`: what is measured and printed;
//! - `compare`: ringdove beside Redis, by this and other loads.

mod cluster;
mod compare;
mod pace;
mod plan;
mod quic;
mod report;
mod resp;

use super::client::Connection;
use super::{Failure, Outcome, block_on};
use plan::{Budget, Plan, Ratio};
use report::Measured;
use resp::RespTarget;
use ringdove::config::{ByteSize, HostPort};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true, after_help = EXAMPLES)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(clap::Subcommand)]
enum BenchCommand {
    // Described where its flags are.
    Compare(compare::CompareArgs),
}

#[derive(clap::Args)]
struct LoadArgs {
    /// Load this Redis port, of a node or of another server to compare with; without it the
    /// cluster is loaded over QUIC
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "quic")]
    resp: Option<HostPort>,
    /// Load all primaries of the cluster that this port belongs to, as CLUSTER SLOTS names them: each
    /// client stays with one of them and asks it for random keys of its slots. A slot that moves
    /// meanwhile gives MOVED, which is an error
    #[arg(long, requires = "resp")]
    cluster: bool,
    #[command(flatten)]
    connection: Connection,
    /// Clients at once
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Commands that each client keeps under way
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pipeline: u32,
    /// How long to run [default: 10s, unless --requests is given]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// How many commands to send in all
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    requests: Option<u64>,
    /// Commands to send a second in all, at even distances, however fast they are answered;
    /// latencies then count from when a command was due [default: as many as are answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: Option<u64>,
    /// Bytes of a value
    #[arg(long, value_name = "SIZE", default_value = "64")]
    value_size: ByteSize,
    /// Seconds that a value lives [default: for ever]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    ttl: Option<u64>,
    /// Different keys, of 16 bytes each; chosen at random, all as likely
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// GETs to SETs
    #[arg(long, value_name = "GET:SET", default_value = "1:1")]
    ratio: Ratio,
    /// Set every key once before measuring
    #[arg(long)]
    fill: bool,
    /// Threads that generate the load
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// File with the password for AUTH (RESP)
    #[arg(long, value_name = "FILE")]
    pass_file: Option<std::path::PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  ringdove bench --resp 127.0.0.1:6379 --pipeline 16 --ratio 9:1 --fill
  ringdove bench --resp 127.0.0.1:6379 --rate 20000 --seconds 30
  ringdove bench --resp 127.0.0.1:6379 --cluster --fill
  ringdove bench --quic 127.0.0.1:7379 --requests 1000000 --value-size 1kb --json
  ringdove bench compare --redis         ringdove beside Redis on this machine";

/// The longest value sent, in bytes.
const VALUE_BYTES_MAX: u64 = 512 << 20;

pub fn run(args: BenchArgs) -> Outcome {
    match args.command {
        Some(BenchCommand::Compare(compare)) => compare::run(compare),
        None => run_load(args.load),
    }
}

fn run_load(args: LoadArgs) -> Outcome {
    if args.value_size.0 > VALUE_BYTES_MAX {
        return Err(Failure(format!("--value-size: more than {}", ByteSize(VALUE_BYTES_MAX))));
    }
    let plan = Plan {
        keys: args.keys,
        ratio: args.ratio,
        value: vec![b'x'; args.value_size.0 as usize].into(),
        ttl: args.ttl.map(|seconds| seconds.to_string().into()),
        rate: args.rate,
        pipeline: args.pipeline,
        clients: args.clients,
        threads: args.threads.min(args.clients),
    };
    let target = Target::of(&args)?;
    if args.fill {
        for part in target.parts() {
            let budget = Arc::new(Budget::fill(plan.keys));
            let filled = drive(&part, &Plan { rate: None, ..plan.clone() }, &budget)?;
            filled.refuse_errors()?;
        }
    }
    let budget = Arc::new(match args.requests {
        Some(requests) => Budget::requests(requests),
        None => Budget::time(Duration::from_secs(args.seconds.unwrap_or(10).max(1))),
    });
    let measured = drive(&target, &plan, &budget)?;
    print!("{}", if args.json { measured.json() } else { measured.table(&target.to_string(), &plan) });
    Ok(if measured.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whom to load.
#[derive(Clone)]
enum Target {
    /// One port for all keys, or all primaries of a cluster, each for its own.
    Resp(Arc<[RespTarget]>),
    Quic(Box<Connection>),
}

impl Target {
    fn of(args: &LoadArgs) -> Result<Target, Failure> {
        let Some(address) = &args.resp else { return Ok(Target::Quic(Box::new(args.connection.clone()))) };
        let port = RespTarget::new(address.clone(), args.pass_file.as_deref())?;
        if !args.cluster {
            return Ok(Target::Resp([port].into()));
        }
        let primaries = block_on(cluster::primaries(&port, args.keys))?;
        if primaries.len() > args.clients as usize {
            let count = primaries.len();
            return Err(Failure(format!("--clients: fewer than the {count} primaries to be loaded")));
        }
        Ok(Target::Resp(primaries.into()))
    }

    /// What is filled one after the other: each port with the keys that it serves.
    fn parts(&self) -> Vec<Target> {
        match self {
            Target::Resp(ports) => ports.iter().map(|port| Target::Resp([port.clone()].into())).collect(),
            Target::Quic(_) => vec![self.clone()],
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Resp(ports) => {
                let ports: Vec<String> = ports.iter().map(RespTarget::to_string).collect();
                write!(f, "RESP {}", ports.join(", "))
            }
            Target::Quic(connection) => write!(f, "QUIC {}", connection.seeds()),
        }
    }
}

/// Spends the budget with all clients, spread over the threads, and adds up what they measured.
fn drive(target: &Target, plan: &Plan, budget: &Arc<Budget>) -> Result<Measured, Failure> {
    let start = std::time::Instant::now();
    let workers: Vec<_> = (0..plan.threads)
        .map(|thread| {
            let (target, plan, budget) = (target.clone(), plan.clone(), budget.clone());
            let clients = (thread..plan.clients).step_by(plan.threads as usize);
            std::thread::spawn(move || {
                block_on(async move {
                    match &target {
                        Target::Resp(ports) => resp::load(ports, &plan, &budget, clients).await,
                        Target::Quic(connection) => quic::load(connection, &plan, &budget, clients).await,
                    }
                })
            })
        })
        .collect();
    let mut all = Measured::default();
    for worker in workers {
        let measured = worker.join().map_err(|_| Failure("a load thread panicked".to_owned()))?;
        all.add(&measured?);
    }
    all.elapsed = start.elapsed();
    Ok(all)
}
