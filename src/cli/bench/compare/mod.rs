//! `ringdove bench compare --redis`: ringdove beside a Redis of this machine.
//!
//! - `servers`, `redis`: ringdove's nodes and Redis's servers as child processes;
//! - `load`, `redis_benchmark`: what is sent to both, by processes of their own;
//! - `cost`: what that costs the servers; `measure`: runs by turns, and the rows they give;
//! - `one_node`, `cluster`, `memory`, `latency`: what is compared, and the bars;
//! - `rows`: the figures; `table`, `chart`, `progress`: how they are shown.

mod chart;
mod cluster;
mod cost;
mod latency;
mod load;
mod measure;
mod memory;
mod one_node;
mod progress;
mod redis;
mod redis_benchmark;
mod rows;
mod servers;
mod table;

use super::super::signals::Signals;
use super::super::{Failure, Outcome, block_on, http, ready};
use measure::{Comparison, KEYS};
use rows::{Report, Row, Section};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Compare ringdove with the Redis of this machine: CPU, throughput, latency and memory
///
/// Starts ringdove nodes and Redis servers on free ports of 127.0.0.1, loads both with
/// redis-benchmark and `ringdove bench` by turns, and prints medians with the least and the most of
/// all runs, ringdove's ratio to Redis, and the bar that ringdove holds itself to. CPU is user and
/// system time of the servers an operation, as the operating system counts it; what the load reached
/// by the clock on the wall stands beside it.
///
/// Needs redis-server, redis-benchmark and redis-cli, Linux, and 4 GB of free memory (2 GB with
/// --quick). Takes a quarter of an hour on two cores (a few minutes with --quick). Nothing else
/// should run meanwhile: CPU suffers little from company, latency and throughput much.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// Compare with Redis
    #[arg(long, required = true)]
    redis: bool,
    /// Fewer rows, half the commands, and 3 runs
    #[arg(long)]
    quick: bool,
    /// Runs of each side a row [default: 5, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=99))]
    runs: Option<u8>,
    /// Measure only this part; repeat it for more
    #[arg(long, value_name = "PART", value_enum)]
    only: Vec<Part>,
    /// Entries of which the memory is measured; 10000000 take 2.5 GB
    #[arg(long, value_name = "N", default_value_t = KEYS, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000))]
    memory_keys: u64,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the ratios into this file as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Write the table as Markdown to this file, new or with the lines <!-- compare:begin --> and
    /// <!-- compare:end --> that it goes between
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  ringdove bench compare --redis --quick
  ringdove bench compare --redis --only memory --memory-keys 10000000
  ringdove bench compare --redis --chart docs/img/redis.svg --markdown README.md";

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// CPU of GET, SET, MGET and MSET, throughput, p99 at equal load
    OneNode,
    /// Three nodes beside a Redis Cluster, and forwarding
    Cluster,
    /// Bytes an entry
    Memory,
    /// One client, one command at a time
    Latency,
}

pub fn run(args: CompareArgs) -> Outcome {
    block_on(async {
        let mut signals = Signals::catch()?;
        let mut hangup = signal(SignalKind::hangup())?;
        let interrupted = async {
            tokio::select! {
                () = signals.next() => {}
                _ = hangup.recv() => {}
            }
        };
        tokio::select! {
            done = compare(&args) => done,
            // All servers are gone by now: they went with what waited for them.
            () = interrupted => Err(Failure("interrupted; all servers are stopped".to_owned())),
        }
    })
}

async fn compare(args: &CompareArgs) -> Outcome {
    if servers::cpu_us("self").is_nan() {
        return Err(Failure(
            "the comparison reads CPU and memory from /proc, which isn't here: it needs Linux".to_owned(),
        ));
    }
    check_files(args)?;
    let redis_version = redis::version().await?;
    let runs = args.runs.map_or(if args.quick { 3 } else { 5 }, usize::from);
    let mut comparison = Comparison::new(runs, args.quick, args.memory_keys)?;
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    if wanted(Part::OneNode) {
        one_node::measure(&mut comparison).await?;
    }
    if wanted(Part::Cluster) {
        cluster::measure(&mut comparison).await?;
    }
    if wanted(Part::Memory) {
        memory::measure(&mut comparison).await?;
    }
    if wanted(Part::Latency) {
        latency::measure(&mut comparison).await?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let report = Report { redis_version, cores, runs, sections: comparison.into_sections() };
    print!("{}", table::verdict(&report));
    write(args, &report)?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses files that can't be written before anything is measured for them.
fn check_files(args: &CompareArgs) -> Result<(), Failure> {
    for path in [&args.json, &args.chart, &args.markdown].into_iter().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if path.is_dir() || folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(Failure(format!("{}: not a file in a folder that exists", path.display())));
        }
    }
    args.markdown.as_ref().map_or(Ok(()), |path| placed(path, "").map(drop))
}

/// What the Markdown file is to hold.
fn placed(path: &Path, block: &str) -> Result<String, Failure> {
    let old = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        old => old.map_err(|error| Failure(format!("{}: {error}", path.display())))?,
    };
    let [begin, end] = table::MARKS;
    table::placed(block, &old).ok_or_else(|| {
        Failure(format!("{}: has no lines {begin} and {end} for the table to go between", path.display()))
    })
}

/// Writes the files that were asked for.
fn write(args: &CompareArgs, report: &Report) -> Result<(), Failure> {
    if let Some(path) = &args.json {
        write_file(path, &report.json())?;
    }
    if let Some(path) = &args.chart {
        write_file(path, &chart::svg(&panels(report)))?;
    }
    if let Some(path) = &args.markdown {
        let folder = path.parent().unwrap_or(path);
        let chart = args.chart.as_deref().map(|chart| chart.strip_prefix(folder).unwrap_or(chart));
        write_file(path, &placed(path, &table::markdown(report, chart))?)?;
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure(format!("{}: {error}", path.display())))
}

/// The chart: a panel a section, a bar a ratio.
fn panels(report: &Report) -> Vec<chart::Panel> {
    let bar = |row: &Row| {
        let [ours, theirs] = row.figures.each_ref().map(|samples| row.unit.show(samples.median()));
        chart::Bar {
            label: row.what.clone(),
            value: row.ratio(),
            shown: format!("{:.2}  ({ours} : {theirs} {})", row.ratio(), row.unit.name()),
            limit: Some(row.bar.ratio()),
            is_ours: true,
        }
    };
    let panel = |section: &Section| chart::Panel {
        title: format!(
            "{}: relative to Redis {} (line: the same; mark: our bar)",
            section.title, report.redis_version
        ),
        note: section.note.clone(),
        bars: section.rows.iter().map(bar).collect(),
        reference: Some(1.0),
    };
    report.sections.iter().map(panel).collect()
}

/// The program under test: this one.
fn program() -> io::Result<PathBuf> {
    std::env::current_exe()
}
