//! Runs simulated clusters of the production engine, each decided by its seed.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 1000
//! cargo run --example simulate -- --seed 42 --trace
//! ```
//!
//! `--members N` forms a fleet of so many nodes without data instead, kills one and tells how fast it
//! converged. Options: `--seeds N` how many, `--start S` the first; `--seed S` just one; `--seconds T` of faults in
//! each (60); `--threads N` (all cores); `--trace` prints what happens (with `--seed`). Exits with 1 if
//! a promise was broken, after printing the line that replays the run and writing its trace to a file.

use ringdove::sim::campaign::{self, Campaign};
use ringdove::sim::fleet;
use ringdove::sim::scenario::Scenario;
use std::process::ExitCode;

const USAGE: &str =
    "usage: simulate [--seeds N] [--start S] [--seed S] [--seconds T] [--threads N] [--trace] [--members N]";

fn main() -> ExitCode {
    let mut campaign = Campaign { progress: true, ..Campaign::default() };
    let (mut single, mut trace, mut members) = (false, false, 0);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|value| value.parse::<u64>().ok());
        let known = match arg.as_str() {
            "--trace" => {
                trace = true;
                Some(())
            }
            "--members" => number().map(|value| members = value as usize),
            "--seeds" => number().map(|value| campaign.seeds = value),
            "--start" => number().map(|value| campaign.start = value),
            "--seconds" => number().map(|value| campaign.fault_s = value),
            "--threads" => number().map(|value| campaign.threads = value as usize),
            "--seed" => number().map(|value| {
                single = true;
                (campaign.start, campaign.seeds) = (value, 1);
            }),
            _ => None,
        };
        if known.is_none() {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    if members > 0 {
        println!("{}", fleet::converge(members, campaign.start));
        return ExitCode::SUCCESS;
    }
    if single {
        return one(&campaign, trace);
    }
    let report = campaign.run();
    println!("{report}");
    ExitCode::from(u8::from(!report.broken.is_empty()))
}

fn one(campaign: &Campaign, trace: bool) -> ExitCode {
    if trace {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(campaign::TRACE_FILTER));
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stdout).init();
    }
    let scenario = Scenario { fault_s: campaign.fault_s, ..Scenario::new(campaign.start) };
    match scenario.run() {
        Ok(summary) => {
            println!("seed {}: {summary:#?}", scenario.seed);
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {}: {violation}", scenario.seed);
            ExitCode::FAILURE
        }
    }
}
