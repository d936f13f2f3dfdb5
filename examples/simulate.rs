//! Runs simulated clusters of the production engine, each decided by its seed.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 1000
//! cargo run --example simulate -- --seed 42 --trace
//! ```
//!
//! Options: `--seeds N` how many, `--start S` the first; `--seed S` just one; `--seconds T` of faults in
//! each (60); `--trace` prints what happens. Exits with 1 if a promise was broken, after printing the
//! line that replays the run.

use ringdove::sim::scenario::Scenario;
use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut start, mut count, mut seconds, mut trace) = (1u64, 100u64, 60u64, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|value| value.parse().ok());
        let known = match arg.as_str() {
            "--trace" => {
                trace = true;
                Some(())
            }
            "--seeds" => number().map(|value| count = value),
            "--start" => number().map(|value| start = value),
            "--seconds" => number().map(|value| seconds = value),
            "--seed" => number().map(|value| (start, count) = (value, 1)),
            _ => None,
        };
        if known.is_none() {
            eprintln!("usage: simulate [--seeds N] [--start S] [--seed S] [--seconds T] [--trace]");
            return ExitCode::from(2);
        }
    }
    if trace {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| {
            tracing_subscriber::EnvFilter::new("ringdove=trace,ringdove::engine::membership=info")
        });
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stdout).init();
    }
    let mut broken = 0u64;
    for seed in start..start + count {
        let scenario = Scenario { fault_s: seconds, ..Scenario::new(seed) };
        match scenario.run() {
            Ok(summary) if count == 1 => println!("seed {seed}: {summary:?}"),
            Ok(_) => {}
            Err(violation) => {
                broken += 1;
                println!("seed {seed}: {violation}");
                println!(
                    "  replay: cargo run --example simulate -- --seed {seed} --seconds {seconds} --trace"
                );
            }
        }
    }
    println!("{count} seeds from {start}: {broken} broken");
    ExitCode::from(u8::from(broken > 0))
}
