//! One run of a row: a cluster, its clients, and what is done to it.

use super::checks::{self, Bounds, Findings};
use super::history::{self, Action, Load, Outcome, Record, Recorder};
use super::loads::{Loads, Pace};
use super::network::Network;
use super::nodes::{Nodes, wait};
use super::report::Report;
use super::rows::Row;
use super::timeline;
use crate::harness::resp::Resp;
use ringdove::engine::ids::Slot;
use ringdove::engine::resp::Reply;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Keys asked for at once after the end.
const READ_BATCH: usize = 500;
/// Two comparisons of all digests, whose period is 30 s, are done within.
const DIGESTS_DEADLINE: Duration = Duration::from_secs(75);

/// Partitions of a cluster by default.
const PARTITIONS: u16 = 1024;

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// As short as it still says something: for CI.
    Smoke,
    /// As the table of faults has it.
    Full,
}

/// What is the same for all runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub effort: Effort,
    /// Where histories, drawings and what nodes wrote go, if anywhere.
    pub folder: Option<PathBuf>,
    /// For how long random faults go on.
    pub random_for: Duration,
}

/// A cluster with clients, during one run.
pub struct Stage {
    // Before the nodes, so that clients end first.
    loads: Option<Loads>,
    pub nodes: Nodes,
    pub recorder: Recorder,
    pub settings: Settings,
    pub report: Report,
    pace: Pace,
    /// Partitions with a copy on a node in trouble and another elsewhere.
    affected: BTreeSet<u16>,
    /// Partitions all of whose copies are on nodes in trouble.
    swallowed: BTreeSet<u16>,
    /// From the first fault to the end of the last, in microseconds.
    trouble_us: Option<(u64, u64)>,
    healed_us: Option<u64>,
    /// How far expiry may be off.
    pub expiry_allowed: Duration,
    /// Reigns begun by each node when all was well.
    promotions_before: BTreeMap<String, u64>,
    /// When the clients had warmed up.
    warm_us: u64,
    /// Held while there is load. See [`take_turn`].
    turn: Option<File>,
}

/// Waits until no other cluster of this kind is under load on this machine, whoever started it: it
/// would spoil the figures. The wait for digests disturbs nobody, so that several programs are done sooner
/// than one. `None` if there is nowhere to wait.
fn take_turn() -> Option<File> {
    let file = File::create(std::env::temp_dir().join("ringdove-chaos.lock")).ok()?;
    file.lock().is_ok().then_some(file)
}

/// Runs a row once. Panics within it count as breaches.
pub fn run(row: &'static Row, number: u32, settings: &Settings) -> Report {
    let run = std::panic::AssertUnwindSafe(|| run_unguarded(row, number, settings));
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        let mut report = Report::new(row, number);
        report.breaches.push(format!("the harness gave up: {text}"));
        report
    })
}

fn run_unguarded(row: &'static Row, number: u32, settings: &Settings) -> Report {
    let mut stage = Stage::set(row, number, settings);
    let started = Instant::now();
    let acted = stage.act(row);
    if let Err(reason) = acted {
        stage.report.breaches.push(reason);
    }
    let mut report = stage.finish();
    report.took_s = started.elapsed().as_secs_f64();
    report
}

impl Stage {
    /// Starts the nodes and waits until they are one cluster.
    fn set(row: &'static Row, number: u32, settings: &Settings) -> Stage {
        let turn = take_turn();
        let recorder = Recorder::default();
        let network = Network::make(row.network, row.places);
        let mut report = Report::new(row, number);
        report.network = network.kind();
        let nodes = Nodes::new(network, row.places, row.flags, recorder.clone());
        let full = settings.effort == Effort::Full;
        let pace = Pace {
            every: if full { row.pace } else { row.pace * 2 },
            probed: if full { 128 } else { 64 },
            probe_every: Duration::from_millis(if full { 200 } else { 250 }),
        };
        Stage {
            loads: None,
            nodes,
            recorder,
            settings: settings.clone(),
            report,
            pace,
            affected: BTreeSet::new(),
            swallowed: BTreeSet::new(),
            trouble_us: None,
            healed_us: None,
            expiry_allowed: Duration::ZERO,
            promotions_before: BTreeMap::new(),
            warm_us: 0,
            turn,
        }
    }

    fn act(&mut self, row: &Row) -> Result<(), String> {
        (row.prepare)(self);
        for place in 0..row.nodes {
            self.nodes.start(place);
        }
        self.nodes.settle(Duration::from_secs(90))?;
        self.rest()?;
        self.promotions_before = self.nodes.counters("promotions");
        let homes: Vec<usize> = (0..row.nodes).collect();
        let seeds = homes.iter().map(|&place| self.nodes.network.seed(place)).collect();
        self.loads = Some(Loads::start(&self.recorder, &self.nodes.doors, &homes, seeds, self.pace));
        self.work(200)?;
        self.warm_us = self.recorder.now_us();
        self.pause_for(self.either(Duration::from_secs(1), Duration::from_secs(5)));
        (row.fault)(self)?;
        if self.healed_us.is_none() {
            self.heal()?;
        }
        self.pause_for(self.either(Duration::from_secs(1), Duration::from_secs(5)));
        Ok(())
    }

    /// Waits until primaries are where they should be, so that no handover disturbs what is measured.
    pub fn rest(&self) -> Result<(), String> {
        let first = *self.nodes.running().first().ok_or("no node")?;
        let shares = || {
            let status = self.nodes.status(first)?;
            let shares: Vec<u32> = status.members.iter().map(|member| member.primaries).collect();
            let (least, most) = (shares.iter().min().copied(), shares.iter().max().copied());
            match most.unwrap_or(0) - least.unwrap_or(0) <= 1 && status.migrations.is_empty() {
                true => Ok(()),
                false => Err(format!("primaries {shares:?}")),
            }
        };
        wait("fair shares", Duration::from_secs(60), shares).map(drop)
    }

    /// One of two, by how much effort is made.
    pub fn either<T>(&self, smoke: T, full: T) -> T {
        match self.settings.effort {
            Effort::Smoke => smoke,
            Effort::Full => full,
        }
    }

    /// Lets the clients work for a while.
    pub fn pause_for(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Waits until clients were answered so many times more.
    ///
    /// # Errors
    /// If they aren't for long.
    pub fn work(&self, count: usize) -> Result<(), String> {
        let until = self.recorder.answered() + count;
        let look = || match self.recorder.answered() {
            done if done >= until => Ok(()),
            done => Err(format!("{done} of {until} answers")),
        };
        wait("the clients get answers", Duration::from_secs(60), look).map(drop)
    }

    /// Says what happens now; it is drawn into the timeline.
    pub fn mark(&mut self, what: &str) {
        let at_us = self.recorder.now_us();
        self.report.marks.push((at_us, what.to_owned()));
    }

    /// Says that trouble begins now, for partitions with a copy on these nodes.
    ///
    /// # Errors
    /// If nobody tells who holds what.
    pub fn trouble(&mut self, what: &str, places: &[usize]) -> Result<(), String> {
        let healthy = self.nodes.running().into_iter().find(|place| !places.contains(place));
        let witness = healthy.or(places.first().copied()).ok_or("no node")?;
        let ids: Vec<String> = places.iter().map(|&place| self.nodes.at(place).node.clone()).collect();
        let table = self.nodes.partitions(witness)?;
        for (number, partition) in table.partitions.iter().enumerate() {
            let holders = partition.primary.iter().chain(&partition.backups);
            let (inside, outside): (Vec<_>, Vec<_>) = holders.partition(|holder| ids.contains(holder));
            match (inside.is_empty(), outside.is_empty()) {
                (true, _) => continue,
                (false, false) => self.affected.insert(number as u16),
                (false, true) => self.swallowed.insert(number as u16),
            };
        }
        self.mark(what);
        let now_us = self.recorder.now_us();
        self.trouble_us.get_or_insert((now_us, now_us));
        Ok(())
    }

    /// Says that trouble begins now, for all partitions.
    pub fn trouble_everywhere(&mut self, what: &str) {
        self.affected.extend(0..PARTITIONS);
        self.mark(what);
        let now_us = self.recorder.now_us();
        self.trouble_us.get_or_insert((now_us, now_us));
    }

    /// Whether all copies of a key are on nodes in trouble.
    pub fn is_swallowed(&self, key: &str) -> bool {
        self.swallowed.contains(&Slot::of(key.as_bytes()).partition(PARTITIONS).0)
    }

    /// Says that the last fault has just ended.
    pub fn calm(&mut self, what: &str) {
        self.mark(what);
        let now_us = self.recorder.now_us();
        if let Some((_, to_us)) = &mut self.trouble_us {
            *to_us = now_us;
        }
    }

    /// Reigns begun since all was well, by nodes that still run.
    pub fn promotions(&self) -> u64 {
        let before = |node| self.promotions_before.get(node).copied().unwrap_or(0);
        self.nodes.counters("promotions").iter().map(|(node, count)| count - before(node)).sum()
    }

    /// Waits until all members that run have their copies again.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn heal(&mut self) -> Result<(), String> {
        let settled = self.nodes.settle(Duration::from_secs(90))?;
        self.mark("healed");
        self.healed_us = Some(self.recorder.now_us());
        self.report.healed_s = settled.as_secs_f64();
        Ok(())
    }

    /// Ends the load, reads everything back, and makes the checks.
    fn finish(mut self) -> Report {
        let end_us = self.recorder.now_us();
        if let Some(mut loads) = self.loads.take() {
            loads.stop();
        }
        let mut report = std::mem::replace(&mut self.report, Report::new(&super::rows::NONE, 0));
        if report.row.keeps_all
            && let Err(reason) = self.read_back()
        {
            report.breaches.push(reason);
        }
        drop(self.turn.take());
        if self.settings.effort == Effort::Full
            && let Err(reason) = self.compare_digests()
        {
            report.breaches.push(reason);
        }
        report.digests_equal = self.nodes.counter("digests_equal");
        for alarm in ["digest_mismatches", "invariant_alarms", "snapshot_mismatches"] {
            let count = self.nodes.counter(alarm);
            if count > 0 {
                report.breaches.push(format!("{alarm}: {count}"));
            }
        }
        report.promotions = self.promotions();
        report.breaches.extend(self.nodes.complaints());
        let records = self.recorder.all();
        let (from_us, calm_us) = self.trouble_us.unwrap_or((end_us, end_us));
        // What was under way when the trouble ended may still be told so.
        let to_us = self.healed_us.unwrap_or(calm_us).max(calm_us) + 10_000_000;
        let bounds =
            Bounds { expiry_us: self.expiry_allowed.as_micros() as u64, trouble_us: (from_us, to_us) };
        self.measure(&mut report, &records, end_us);
        if report.row.keeps_all {
            report.take(checks::check(&records, &bounds));
        }
        (report.row.goals)(&mut report);
        if let Some(folder) = &self.settings.folder
            && let Err(error) = self.save(&report, &records, folder)
        {
            eprintln!("can't write to {}: {error}", folder.display());
        }
        report
    }

    fn measure(&self, report: &mut Report, records: &[Record], end_us: u64) {
        let Some((from_us, _)) = self.trouble_us else { return };
        let pause_us = self.pace.probe_every.as_micros() as u64;
        let healed_us = self.healed_us.unwrap_or(end_us);
        let window_us = (from_us, healed_us.max(from_us + 1));
        report.unavailable_s = checks::unavailable_s(records, &self.affected, window_us, pause_us);
        let other = |partition| !self.affected.contains(&partition) && !self.swallowed.contains(&partition);
        report.p99_before_ms =
            checks::quantile(&checks::probe_ms(records, (self.warm_us, from_us), |_| true), 0.99);
        report.others_p99_ms = checks::quantile(&checks::probe_ms(records, window_us, other), 0.99);
        let all = checks::probe_ms(records, window_us, |_| true);
        report.all_ms = [0.5, 0.99, 1.0].map(|share| checks::quantile(&all, share));
    }

    /// Reads every key that a check wants to know the end of, through one node after the other.
    fn read_back(&mut self) -> Result<(), String> {
        let mut keys = BTreeSet::new();
        for record in self.recorder.all() {
            let ended = match record.load {
                Load::Unique | Load::Probe => record.outcome == Outcome::Done,
                Load::Counter | Load::NumberedCounter | Load::Delete => true,
                Load::Register | Load::Expiry | Load::Lock => false,
            };
            if ended {
                keys.insert((record.load, record.key));
            }
        }
        let keys: Vec<_> = keys.into_iter().collect();
        let places = self.nodes.running();
        for (number, batch) in keys.chunks(READ_BATCH).enumerate() {
            let place = places[number % places.len()];
            let mut resp = Resp::connect(self.nodes.at(place).resp).map_err(|error| error.to_string())?;
            let commands: Vec<_> =
                batch.iter().map(|(_, key)| vec![b"GET".to_vec(), key.clone().into_bytes()]).collect();
            let invoke_us = self.recorder.now_us();
            let replies = resp.pipeline(&commands).map_err(|error| format!("reading back: {error}"))?;
            let return_us = self.recorder.now_us();
            for ((load, key), reply) in batch.iter().zip(replies) {
                let outcome = match reply {
                    Reply::Null => Outcome::Value(None),
                    Reply::Bulk(value) => Outcome::Value(Some(String::from_utf8_lossy(&value).into_owned())),
                    other => Outcome::Refused(format!("{other:?}")),
                };
                self.recorder.add(Record {
                    load: *load,
                    client: u16::MAX,
                    node: Some(place),
                    key: key.clone(),
                    action: Action::Get,
                    invoke_us,
                    return_us,
                    outcome,
                });
            }
        }
        Ok(())
    }

    /// Waits until every copy was compared with its primary since now.
    fn compare_digests(&self) -> Result<(), String> {
        let begin = self.nodes.counter("digests_equal");
        let status = self.nodes.status(*self.nodes.running().first().ok_or("no node")?)?;
        let copies =
            u64::from(status.copies_wanted.saturating_sub(1)) * u64::from(status.settings.partitions);
        let look = || match self.nodes.counter("digests_equal") - begin {
            done if done >= copies => Ok(()),
            done => Err(format!("{done} of {copies} digests were compared equal")),
        };
        wait("all digests compared", DIGESTS_DEADLINE, look).map(drop)
    }

    fn save(
        &self,
        report: &Report,
        records: &[Record],
        folder: &Path,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let folder = folder.join(format!("{}-{}", report.row.name, report.run));
        std::fs::create_dir_all(&folder)?;
        history::save(records, &folder.join("history.jsonl"))?;
        self.nodes.save_output(&folder)?;
        let mut text = report.line() + "\n\n";
        for (at_us, what) in &report.marks {
            text += &format!("- {:.3} s: {what}\n", *at_us as f64 / 1e6);
        }
        std::fs::write(folder.join("report.md"), text)?;
        timeline::draw(report, records, &folder.join("timeline.svg"))?;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A paused node would keep its clients waiting.
        for place in self.nodes.running() {
            self.nodes.resume_quietly(place);
        }
    }
}

impl Report {
    fn take(&mut self, findings: Findings) {
        self.breaches.extend(findings.breaches.iter().cloned());
        self.findings = findings;
    }
}
