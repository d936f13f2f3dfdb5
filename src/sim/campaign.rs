//! Many runs on all cores: progress, totals, and what to do about a failure.

use super::checks::Violation;
use super::scenario::{Scenario, Summary};
use crate::engine::mutants::Mutation;
use std::fmt;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;

/// What a written trace shows.
pub const TRACE_FILTER: &str = "ringdove=trace,ringdove::engine::membership=info";

/// So many runs of seeds in a row.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The first seed.
    pub start: u64,
    /// How many seeds.
    pub seeds: u64,
    /// How long things go wrong in each, in virtual seconds.
    pub fault_s: u64,
    /// A bug put in on purpose.
    pub mutation: Mutation,
    /// Threads; 0 is one a core.
    pub threads: usize,
    /// Stop at the first seed that breaks a promise.
    pub first_only: bool,
    /// Tell how far it has come, on standard error.
    pub progress: bool,
    /// Each so-manieth seed runs twice and must leave the same trace; 0 is none.
    pub twice_every: u64,
}

impl Default for Campaign {
    fn default() -> Campaign {
        Campaign {
            start: 1,
            seeds: 100,
            fault_s: Scenario::new(0).fault_s,
            mutation: Mutation::default(),
            threads: 0,
            first_only: false,
            progress: false,
            twice_every: 100,
        }
    }
}

/// A promise broken.
#[derive(Clone, Debug)]
pub struct Broken {
    /// By this run.
    pub scenario: Scenario,
    /// Which promise, and how.
    pub violation: Violation,
    /// Where the trace was written, if it could be.
    pub trace: Option<PathBuf>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { seed, fault_s, .. } = self.scenario;
        writeln!(f, "seed {seed} at commit {}: {}", commit(), self.violation)?;
        write!(f, "  replay: cargo run --example simulate -- --seed {seed} --seconds {fault_s} --trace")?;
        match &self.trace {
            Some(path) => write!(f, "\n  trace: {}", path.display()),
            None => Ok(()),
        }
    }
}

/// How the runs went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Runs.
    pub runs: u64,
    /// Runs that were made twice, to compare their traces.
    pub compared: u64,
    /// Promises broken, by seed.
    pub broken: Vec<Broken>,
    /// Sums over all runs that kept every promise.
    pub totals: Summary,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { runs, compared, broken, totals, elapsed } = self;
        let hours = totals.virtual_us as f64 / 3.6e9;
        let seconds = elapsed.as_secs_f64();
        writeln!(
            f,
            "{runs} seeds in {seconds:.1} s, {:.1} a second; {hours:.1} hours of virtual time",
            *runs as f64 / seconds
        )?;
        writeln!(f, "  clients: {}", totals.outcomes)?;
        writeln!(f, "  faults: {}", totals.faults)?;
        writeln!(f, "  agreed on: {}", totals.committed)?;
        writeln!(f, "  engines: {}; {} events", totals.work, totals.events)?;
        writeln!(
            f,
            "  histories: {} keys, {} too hard to decide; unique keys: {}",
            totals.keys, totals.undecided, totals.unique
        )?;
        writeln!(f, "  run twice with the same trace: {compared}")?;
        for broken in broken {
            writeln!(f, "{broken}")?;
        }
        write!(f, "{} broken", broken.len())
    }
}

impl Campaign {
    /// Runs all of it.
    pub fn run(&self) -> Report {
        let begin = Instant::now();
        let threads = match self.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let (next, end) = (AtomicU64::new(self.start), self.start + self.seeds);
        // A seed beyond this one need not be run: the first broken one is known to come before it.
        let until = AtomicU64::new(end);
        let report = Mutex::new(Report::default());
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= until.load(Ordering::Relaxed) {
                            break;
                        }
                        let outcome = self.run_one(seed);
                        if outcome.is_err() && self.first_only {
                            until.fetch_min(seed, Ordering::Relaxed);
                        }
                        let mut report = report.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                        report.runs += 1;
                        match outcome {
                            Ok(summary) => {
                                report.compared += u64::from(self.is_compared(seed));
                                report.totals += summary;
                            }
                            Err(broken) => {
                                if self.progress {
                                    eprintln!("\r{broken}");
                                }
                                report.broken.push(*broken);
                            }
                        }
                        if self.progress && (report.runs.is_multiple_of(20) || report.runs == self.seeds) {
                            self.tell(&report, begin.elapsed());
                        }
                    }
                });
            }
        });
        let mut report = report.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        report.broken.sort_by_key(|broken| broken.scenario.seed);
        report.elapsed = begin.elapsed();
        report
    }

    fn is_compared(&self, seed: u64) -> bool {
        self.twice_every > 0 && seed.is_multiple_of(self.twice_every)
    }

    fn run_one(&self, seed: u64) -> Result<Summary, Box<Broken>> {
        let scenario = Scenario { seed, fault_s: self.fault_s, mutation: self.mutation, rogue: false };
        let mut outcome = scenario.run();
        if let (Ok(summary), true) = (&outcome, self.is_compared(seed)) {
            outcome = match scenario.run() {
                Ok(again) if again == *summary => Ok(again),
                other => Err(Violation {
                    invariant: "a seed decides everything",
                    detail: format!("first {summary:?}, then {other:?}"),
                    at_us: 0,
                }),
            };
        }
        outcome.map_err(|violation| {
            // What is searched for on purpose needs no trace.
            let trace = if self.first_only { None } else { write_trace(&scenario) };
            Box::new(Broken { scenario, violation, trace })
        })
    }

    fn tell(&self, report: &Report, elapsed: Duration) {
        let rate = report.runs as f64 / elapsed.as_secs_f64();
        let (runs, seeds, broken) = (report.runs, self.seeds, report.broken.len());
        eprint!("\r{runs} of {seeds} seeds, {rate:.1} a second, {broken} broken ");
        if runs == seeds {
            eprintln!();
        }
    }
}

/// Runs a scenario again and writes down everything that happens.
fn write_trace(scenario: &Scenario) -> Option<PathBuf> {
    let folder = PathBuf::from("target/sim");
    fs::create_dir_all(&folder).ok()?;
    let path = folder.join(format!("seed-{}.trace", scenario.seed));
    let file = BufWriter::new(File::create(&path).ok()?);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(TRACE_FILTER))
        .without_time()
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .finish();
    // It ends as it did before.
    let _ = tracing::subscriber::with_default(subscriber, || scenario.run());
    Some(path)
}

/// The commit that this is, if it can be told.
fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    commit.map_or("unknown".into(), |commit| String::from_utf8_lossy(&commit).trim().to_owned())
}
