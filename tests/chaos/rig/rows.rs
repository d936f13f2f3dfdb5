//! The table of faults: what is done to a cluster, and what must hold besides what always must.

use super::bulk::Bulk;
use super::checks::quantile;
use super::history::{Outcome, Record};
use super::network::Need;
use super::nodes::wait;
use super::report::Report;
use super::stage::Stage;
use super::throttle::Throttle;
use rand::RngExt;
use ringdove::drivers::admin_http::PartitionsStatus;
use ringdove::engine::resp::Reply;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

type Done = Result<(), String>;

/// One kind of fault.
pub struct Row {
    /// For the command line.
    pub name: &'static str,
    /// For the table.
    pub title: &'static str,
    pub network: Need,
    /// Nodes at the start, and places for more.
    pub nodes: usize,
    pub places: usize,
    pub flags: &'static [&'static str],
    /// Between two actions of one client: 10 ms leave the machine half idle, 2 ms keep it busy.
    pub pace: Duration,
    /// Whether what was acknowledged must still be there.
    pub keeps_all: bool,
    /// Before any node is started.
    pub prepare: fn(&mut Stage),
    pub fault: fn(&mut Stage) -> Done,
    /// What should hold of the figures.
    pub goals: fn(&mut Report),
}

const PLAIN: Row = Row {
    name: "",
    title: "",
    network: Need::Cuts,
    nodes: 5,
    places: 5,
    flags: &[],
    pace: Duration::from_millis(10),
    keeps_all: true,
    prepare: |_| (),
    fault: |_| Ok(()),
    goals: |_| (),
};

/// No row: what a report is of that isn't one yet.
pub static NONE: Row = PLAIN;

/// All rows.
pub static ROWS: &[Row] = &[
    Row { name: "kill", title: "SIGKILL of any node", fault: kill_any, goals: failover_goals, ..PLAIN },
    Row {
        name: "kill-leader",
        title: "SIGKILL of the log's leader",
        fault: kill_leader,
        goals: failover_goals,
        ..PLAIN
    },
    Row { name: "pause", title: "SIGSTOP 10 s, then SIGCONT", fault: pause, goals: pause_goals, ..PLAIN },
    Row {
        name: "flicker",
        title: "SIGSTOP 1 s, thirty times",
        fault: flicker,
        goals: flicker_goals,
        ..PLAIN
    },
    Row { name: "cut", title: "cut 2 from 3, 20 s", fault: cut, goals: cut_goals, ..PLAIN },
    Row { name: "deaf", title: "one-way cut 10 s: deaf", fault: deaf, goals: one_way_goals, ..PLAIN },
    Row { name: "mute", title: "one-way cut 10 s: mute", fault: mute, goals: one_way_goals, ..PLAIN },
    Row { name: "bridge", title: "bridge cut 20 s", fault: bridge, goals: one_way_goals, ..PLAIN },
    Row {
        name: "loss",
        title: "loss 5/10/20 %, delay, doubling",
        network: Need::Relays,
        fault: loss,
        ..PLAIN
    },
    Row { name: "slow", title: "one node at 5 % CPU", fault: slow, ..PLAIN },
    Row {
        name: "clock",
        title: "clock ±60 s and jumps on one node",
        prepare: skew,
        fault: clock,
        goals: clock_goals,
        ..PLAIN
    },
    Row {
        name: "rolling",
        title: "rolling restart of all five",
        fault: rolling,
        goals: rolling_goals,
        ..PLAIN
    },
    Row {
        name: "grow",
        title: "join 5→7 and leave 7→5 at full load",
        places: 7,
        pace: Duration::from_millis(2),
        fault: grow,
        goals: grow_goals,
        ..PLAIN
    },
    Row {
        name: "migration",
        title: "SIGKILL of source, target, leader during migration",
        places: 6,
        fault: migration,
        goals: migration_goals,
        ..PLAIN
    },
    Row {
        name: "two-of-three",
        title: "3 copies, min 2: two killed at once",
        flags: &["--replicas", "3", "--min-copies", "2"],
        fault: two_of_three,
        goals: failover_goals,
        ..PLAIN
    },
    Row {
        name: "second-kill",
        title: "second kill after copies are full again",
        fault: second_kill,
        goals: failover_goals,
        ..PLAIN
    },
    Row {
        name: "refill",
        title: "SIGKILL of a node that holds 1 GB",
        fault: refill,
        goals: refill_goals,
        ..PLAIN
    },
    Row {
        name: "all-killed",
        title: "whole cluster SIGKILLed",
        fault: all_killed,
        keeps_all: false,
        ..PLAIN
    },
    Row { name: "random", title: "random faults", fault: random, ..PLAIN },
];

fn failover_goals(report: &mut Report) {
    let unavailable = report.unavailable_s.clone();
    report.at_most("unavailable p50 s", quantile(&unavailable, 0.5), 3.0);
    report.at_most("unavailable max s", quantile(&unavailable, 1.0), 6.0);
    others_goal(report);
}

fn others_goal(report: &mut Report) {
    if report.p99_before_ms > 0.0 {
        report.at_most("others' p99, times that before", report.others_p99_ms / report.p99_before_ms, 3.0);
    }
}

/// Kills a node now.
fn kill(stage: &mut Stage, place: usize) -> Done {
    stage.trouble(&format!("SIGKILL of node {}", place + 1), &[place])?;
    stage.nodes.kill(place);
    stage.heal()
}

fn kill_any(stage: &mut Stage) -> Done {
    let place = stage.report.run as usize % 5;
    kill(stage, place)
}

fn kill_leader(stage: &mut Stage) -> Done {
    let leader = stage.nodes.leader()?;
    kill(stage, leader)
}

fn pause(stage: &mut Stage) -> Done {
    let place = stage.report.run as usize % 5;
    pause_one(stage, place, stage.either(Duration::from_secs(5), Duration::from_secs(10)))
}

fn pause_one(stage: &mut Stage, place: usize, time: Duration) -> Done {
    stage.trouble(&format!("SIGSTOP of node {}", place + 1), &[place])?;
    stage.nodes.pause(place);
    stage.pause_for(time);
    stage.nodes.resume(place);
    stage.calm("SIGCONT");
    let resumed = Instant::now();
    stage.heal()?;
    let serves_again = resumed.elapsed().as_secs_f64();
    stage.report.at_most("serves again s", serves_again, 10.0);
    Ok(())
}

fn pause_goals(report: &mut Report) {
    failover_goals(report);
}

fn flicker(stage: &mut Stage) -> Done {
    let place = stage.report.run as usize % 5;
    stage.trouble(&format!("SIGSTOP of node {}, 1 s, again and again", place + 1), &[place])?;
    for _ in 0..stage.either(4, 30) {
        stage.nodes.pause(place);
        stage.pause_for(Duration::from_secs(1));
        stage.nodes.resume(place);
        stage.pause_for(Duration::from_secs(1));
    }
    stage.calm("enough");
    stage.heal()
}

/// Partitions change hands at once, so that a promotion is one of a node, of many partitions.
fn flicker_goals(report: &mut Report) {
    report.at_most("partitions promoted", report.promotions as f64, 3.0 * 1024.0 / 5.0);
}

fn cut(stage: &mut Stage) -> Done {
    let first = stage.report.run as usize % 5;
    let minority = [first, (first + 1) % 5];
    cut_off(stage, &minority, stage.either(Duration::from_secs(8), Duration::from_secs(20)))
}

fn cut_off(stage: &mut Stage, minority: &[usize], time: Duration) -> Done {
    let is_inside = |place: usize| minority.contains(&place);
    stage.trouble(&format!("nodes {:?} cut off", places(minority)), minority)?;
    stage.nodes.network.cut(|from, to| is_inside(from) != is_inside(to))?;
    let cut_us = stage.recorder.now_us();
    let readers = Readers::start(stage, minority);
    stage.pause_for(time);
    let join_us = stage.recorder.now_us();
    stage.nodes.network.cut(|_, _| false)?;
    stage.calm("joined again");
    let joined = Instant::now();
    stage.heal()?;
    let healed = joined.elapsed().as_secs_f64();
    stage.report.at_most("healed s", healed, 10.0);
    let last_read_us = readers.last_us(join_us);
    stage.report.at_most("minority read for s", last_read_us.saturating_sub(cut_us) as f64 / 1e6, 2.0);
    // What the minority answered of its own. Partitions that are there with all their copies go on until it
    // notices that it is one.
    const NOTICED_US: u64 = 2_000_000;
    let records = stage.recorder.all();
    let inside = |record: &&Record| record.node.is_some_and(is_inside);
    let during = |record: &&Record| record.invoke_us > cut_us && record.return_us < join_us;
    let is_write = |record: &&Record| {
        record.outcome.is_answer() && !matches!(record.outcome, Outcome::Value(_) | Outcome::Flag(false))
    };
    let writes = records.iter().filter(inside).filter(during).filter(is_write);
    let writes = writes
        .filter(|record| !stage.is_swallowed(&record.key) || record.invoke_us > cut_us + NOTICED_US)
        .count();
    stage.report.at_most("writes acknowledged by the minority", writes as f64, 0.0);
    Ok(())
}

/// Clients that read at some nodes, a new connection for every read, as one may have to wait.
struct Readers(Vec<std::thread::JoinHandle<Vec<u64>>>);

impl Readers {
    /// Reads keys of all kinds of partitions, for 6 s.
    fn start(stage: &Stage, places: &[usize]) -> Readers {
        let keys = (0..1024).step_by(16).map(|partition| super::loads::probe_key(partition, 1024));
        let keys: Vec<String> = keys.collect();
        let mut threads = Vec::new();
        for &place in places {
            let door = stage.nodes.at(place).resp;
            for turn in 0..120 {
                let (key, recorder) = (keys[turn * 7 % keys.len()].clone(), stage.recorder.clone());
                threads.push(std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(50) * turn as u32);
                    let invoke_us = recorder.now_us();
                    let reply = crate::harness::resp::Resp::connect(door)
                        .and_then(|mut resp| resp.call(&["GET", key.as_str()]));
                    match reply {
                        Ok(Reply::Bulk(_) | Reply::Null) => vec![invoke_us, recorder.now_us()],
                        _ => Vec::new(),
                    }
                }));
            }
        }
        Readers(threads)
    }

    /// When the last read began that was answered before `end_us`; 0 if none was.
    fn last_us(self, end_us: u64) -> u64 {
        let reads = self.0.into_iter().map(|thread| thread.join().expect("a reader doesn't panic"));
        let answered = reads.filter(|read| read.get(1).is_some_and(|&return_us| return_us < end_us));
        answered.map(|read| read[0]).max().unwrap_or(0)
    }
}

fn cut_goals(report: &mut Report) {
    report.at_most("majority serves after s", quantile(&report.unavailable_s.clone(), 1.0), 6.0);
}

fn places(places: &[usize]) -> Vec<usize> {
    places.iter().map(|place| place + 1).collect()
}

fn one_way(stage: &mut Stage, what: &str, place: usize, is_cut: impl Fn(usize, usize) -> bool) -> Done {
    let time = stage.either(Duration::from_secs(9), Duration::from_secs(15));
    partial_cut(stage, &format!("node {} {what}", place + 1), &[place], time, is_cut)
}

/// A cut that leaves every pair of nodes a way, directly or not, or troubles only some.
fn partial_cut(
    stage: &mut Stage,
    what: &str,
    troubled: &[usize],
    time: Duration,
    is_cut: impl Fn(usize, usize) -> bool,
) -> Done {
    if troubled.len() > 1 {
        stage.trouble_everywhere(what);
    } else {
        stage.trouble(what, troubled)?;
    }
    stage.nodes.network.cut(is_cut)?;
    // Who is declared dead must be one of those in trouble.
    let healthy: Vec<usize> =
        stage.nodes.running().into_iter().filter(|place| !troubled.contains(place)).collect();
    let start = Instant::now();
    let mut wrongly_dead = BTreeSet::new();
    while start.elapsed() < time {
        for &witness in &healthy {
            let Ok(status) = stage.nodes.status(witness) else { continue };
            for &place in &healthy {
                let member = status.member(&stage.nodes.at(place).node);
                if member.is_none_or(|member| member.status.as_str() == "down") {
                    wrongly_dead.insert(place);
                }
            }
        }
        stage.pause_for(Duration::from_millis(200));
    }
    stage.nodes.network.cut(|_, _| false)?;
    stage.calm("joined again");
    stage.heal()?;
    stage.report.at_most("healthy nodes declared dead", wrongly_dead.len() as f64, 0.0);
    Ok(())
}

fn deaf(stage: &mut Stage) -> Done {
    let place = stage.report.run as usize % 5;
    one_way(stage, "hears nothing", place, |_, to| to == place)
}

fn mute(stage: &mut Stage) -> Done {
    let place = stage.report.run as usize % 5;
    one_way(stage, "is not heard", place, |from, _| from == place)
}

/// One node sees everybody; the pairs beside it don't see each other.
fn bridge(stage: &mut Stage) -> Done {
    let middle = stage.report.run as usize % 5;
    let side = |place: usize| match (place + 5 - middle) % 5 {
        0 => 0,
        1 | 2 => 1,
        _ => 2,
    };
    let time = stage.either(Duration::from_secs(8), Duration::from_secs(20));
    let what = format!("only node {} sees all", middle + 1);
    let others: Vec<usize> = (0..5).filter(|&place| place != middle).collect();
    partial_cut(stage, &what, &others, time, |from, to| side(from) * side(to) == 2)
}

fn one_way_goals(report: &mut Report) {
    let worst = quantile(&report.unavailable_s, 1.0);
    report.at_most("progress after s", worst, 10.0);
}

/// The bounds of throughput under loss are of what the same network does without.
fn loss(stage: &mut Stage) -> Done {
    let time = stage.either(Duration::from_millis(1_500), Duration::from_secs(20));
    let rate = |stage: &mut Stage| {
        let before = stage.recorder.answered();
        stage.pause_for(time);
        (stage.recorder.answered() - before) as f64 / time.as_secs_f64()
    };
    let whole = rate(stage);
    stage.trouble_everywhere("packets overtake each other, and come twice");
    stage.nodes.network.relay(|rules| {
        rules.delay_max = Duration::from_millis(2);
        rules.doubled = 0.05;
    });
    let _warm = rate(stage);
    stage.nodes.network.relay(|rules| {
        rules.delay_max = Duration::ZERO;
        rules.doubled = 0.0;
    });
    let steps = [(5, "throughput at 5 % loss", 0.6), (10, "at 10 %", 0.35), (20, "at 20 %", 0.1)];
    for (percent, name, least) in steps {
        stage.mark(&format!("{percent} % lost"));
        stage.nodes.network.relay(|rules| rules.loss = f64::from(percent) / 100.0);
        let share = rate(stage) / whole;
        stage.report.at_least(name, share, least);
        if percent == 10 {
            let promotions = stage.promotions() as f64;
            stage.report.at_most("promotions at ≤ 10 %", promotions, 0.0);
        }
    }
    stage.nodes.network.relay(|rules| rules.loss = 0.0);
    stage.calm("no loss");
    stage.heal()
}

fn slow(stage: &mut Stage) -> Done {
    let place = stage.report.run as usize % 5;
    stage.trouble(&format!("node {} runs 5 % of the time", place + 1), &[place])?;
    let throttle = Throttle::hold(stage.nodes.at(place).pid(), 0.05);
    stage.pause_for(stage.either(Duration::from_secs(4), Duration::from_secs(20)));
    drop(throttle);
    stage.calm("runs freely");
    stage.heal()
}

const SKEWED: usize = 1;

/// Where libfaketime reads by how much a clock is off.
fn skew_file(stage: &Stage) -> std::path::PathBuf {
    let own = format!("ringdove-chaos-clock-{}-{}", std::process::id(), stage.report.run);
    std::env::temp_dir().join(own)
}

fn fake_clock() -> Option<String> {
    let libraries =
        ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"];
    let library = libraries.iter().map(|folder| format!("{folder}/libfaketimeMT.so.1"));
    library.into_iter().find(|library| std::path::Path::new(library).exists())
}

fn skew(stage: &mut Stage) {
    let Some(library) = fake_clock() else {
        crate::harness::tools::missing("libfaketime is not installed");
        return;
    };
    let file = skew_file(stage);
    std::fs::write(&file, "+60s").expect("a file for the clock");
    let variables = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // The system clock jumps; time doesn't.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    stage.nodes.set_environment(SKEWED, variables.map(|(name, value)| (name.to_owned(), value)).to_vec());
    stage.expiry_allowed = Duration::from_secs(1);
}

fn clock(stage: &mut Stage) -> Done {
    let file = skew_file(stage);
    stage.trouble("the clock of node 2 jumps", &[SKEWED])?;
    for jump in ["-60s", "+60s", "+0s", "-60s"] {
        stage.mark(jump);
        std::fs::write(&file, jump).map_err(|error| error.to_string())?;
        stage.pause_for(stage.either(Duration::from_millis(700), Duration::from_secs(5)));
    }
    stage.calm("jumped enough");
    // Its keys go on under other nodes' clocks.
    let promotions = stage.promotions() as f64;
    stage.report.at_most("promotions by clock", promotions, 0.0);
    kill(stage, SKEWED)?;
    stage.pause_for(Duration::from_secs(3));
    let _gone = std::fs::remove_file(file);
    Ok(())
}

fn clock_goals(report: &mut Report) {
    let error_ms = report.findings.expiry_error_ms;
    report.at_most("expiry off by ms", error_ms, 1_000.0);
}

/// Answers that were errors, at nodes other than `place`, between two times.
fn client_errors(stage: &Stage, place: Option<usize>, from_us: u64, to_us: u64) -> usize {
    let failed = |record: &&Record| !record.outcome.is_answer();
    let elsewhere = |record: &&Record| place.is_none() || record.node != place;
    let within = |record: &&Record| record.return_us > from_us && record.invoke_us < to_us;
    stage.recorder.all().iter().filter(failed).filter(elsewhere).filter(within).count()
}

fn rolling(stage: &mut Stage) -> Done {
    stage.trouble_everywhere("rolling restart");
    let mut errors = 0;
    for place in stage.nodes.running().into_iter().take(stage.either(2, 5)) {
        stage.mark(&format!("SIGTERM of node {}", place + 1));
        let from_us = stage.recorder.now_us();
        stage.nodes.stop(place, Duration::from_secs(60))?;
        stage.mark("again");
        stage.nodes.start(place);
        stage.nodes.settle(Duration::from_secs(60))?;
        errors += client_errors(stage, Some(place), from_us, stage.recorder.now_us());
    }
    stage.calm("all restarted");
    stage.heal()?;
    stage.report.at_most("client errors", errors as f64, 0.0);
    Ok(())
}

fn rolling_goals(report: &mut Report) {
    let [_, p99_ms, max_ms] = report.all_ms;
    report.at_most("probe p99 ms", p99_ms, 50.0);
    report.at_most("probe max ms", max_ms, 200.0);
}

/// The share of copies that are where they weren't.
fn moved(before: &PartitionsStatus, after: &PartitionsStatus) -> f64 {
    let (mut copies, mut new) = (0.0, 0.0);
    for (before, after) in before.partitions.iter().zip(&after.partitions) {
        let held: Vec<&String> = before.primary.iter().chain(&before.backups).collect();
        for holder in after.primary.iter().chain(&after.backups) {
            copies += 1.0;
            new += f64::from(u8::from(!held.contains(&holder)));
        }
    }
    new / copies
}

fn grow(stage: &mut Stage) -> Done {
    let before = stage.nodes.partitions(0)?;
    stage.trouble_everywhere("two join");
    let from_us = stage.recorder.now_us();
    for place in [5, 6] {
        stage.nodes.start(place);
    }
    stage.nodes.settle(Duration::from_secs(90))?;
    stage.rest()?;
    let after = stage.nodes.partitions(0)?;
    stage.report.at_most("moved share in %", moved(&before, &after) * 100.0, 100.0 * 2.0 / 7.0 + 2.0);
    for place in [5, 6] {
        stage.mark(&format!("node {} leaves", place + 1));
        stage.nodes.stop(place, Duration::from_secs(60))?;
        stage.nodes.settle(Duration::from_secs(60))?;
    }
    stage.calm("both left");
    stage.heal()?;
    let errors = client_errors(stage, None, from_us, stage.recorder.now_us());
    stage.report.at_most("client errors", errors as f64, 0.0);
    Ok(())
}

fn grow_goals(report: &mut Report) {
    if report.p99_before_ms > 0.0 {
        report.at_most("p99, times that before", report.all_ms[1] / report.p99_before_ms, 3.0);
    }
}

fn migration(stage: &mut Stage) -> Done {
    stage.mark("a node joins");
    stage.nodes.start(5);
    let moving = || {
        let status = stage.nodes.status(0)?;
        let migration = status.migrations.first().ok_or("nothing moves")?;
        let source = stage.nodes.place_of(&migration.from).ok_or("the source is gone")?;
        Ok((source, stage.nodes.place_of(&migration.to).unwrap_or(5)))
    };
    let ((source, target), _) = wait("copies are under way", Duration::from_secs(20), moving)?;
    let victim = match stage.report.run % 3 {
        0 => target,
        1 => source,
        _ => stage.nodes.leader()?,
    };
    kill(stage, victim)
}

fn migration_goals(report: &mut Report) {
    let healed_s = report.healed_s;
    report.at_most("settled s", healed_s, 10.0);
}

fn two_of_three(stage: &mut Stage) -> Done {
    let first = stage.report.run as usize % 5;
    let second = (first + 1 + stage.report.run as usize / 5 % 4) % 5;
    stage.trouble(&format!("SIGKILL of nodes {} and {}", first + 1, second + 1), &[first, second])?;
    stage.nodes.kill(first);
    stage.nodes.kill(second);
    stage.heal()
}

fn second_kill(stage: &mut Stage) -> Done {
    let first = stage.report.run as usize % 5;
    kill(stage, first)?;
    kill(stage, (first + 2) % 5)
}

/// Copies of a node's share are made again, without traffic on it.
fn refill(stage: &mut Stage) -> Done {
    let per_node: usize = stage.either(16 << 20, 1 << 30);
    stage.mark("filling");
    let doors = |stage: &Stage| -> Vec<_> {
        stage.nodes.running().into_iter().map(|place| stage.nodes.at(place).resp).collect()
    };
    let (nodes, copies) = (5, 2);
    let bulk = Bulk::write(per_node * nodes / copies, &doors(stage))?;
    let place = stage.report.run as usize % nodes;
    kill(stage, place)?;
    let missing = bulk.missing(&doors(stage))?;
    if missing > 0 {
        stage.report.breaches.push(format!("{missing} keys written before are not there"));
    }
    Ok(())
}

fn refill_goals(report: &mut Report) {
    let healed_s = report.healed_s;
    report.at_most("copies full again s", healed_s, 60.0);
}

/// Four are killed, one is only paused: when it wakes, there is a new cluster at its peers' addresses.
fn all_killed(stage: &mut Stage) -> Done {
    let old = stage.nodes.status(0)?.incarnation;
    let old_id = stage.nodes.at(4).node.clone();
    stage.trouble("SIGKILL of nodes 1 to 4, SIGSTOP of 5", &[0, 1, 2, 3])?;
    stage.nodes.pause(4);
    for place in 0..4 {
        stage.nodes.kill(place);
    }
    stage.nodes.open_door(4, None);
    let sleeper = stage.nodes.set_aside(4);
    for place in 0..4 {
        stage.nodes.start(place);
    }
    stage.heal()?;
    let status = stage.nodes.status(0)?;
    if status.incarnation == old {
        stage.report.breaches.push("the new cluster has the incarnation of the old".to_owned());
    }
    let keys: u64 = status.members.iter().map(|member| member.keys).sum();
    stage.report.figures.insert("keys written since", keys as f64);
    sleeper.signal(rustix::process::Signal::CONT);
    stage.mark("SIGCONT of the old node 5");
    // Long enough for it to find its old peers' addresses.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        for place in 0..4 {
            let status = stage.nodes.status(place)?;
            if status.incarnation == old || status.member(&old_id).is_some() {
                stage.report.breaches.push(format!("node {} took the old node for a member", place + 1));
                return Ok(());
            }
        }
        stage.pause_for(Duration::from_millis(250));
    }
    Ok(())
}

fn random(stage: &mut Stage) -> Done {
    let start = Instant::now();
    let mut rng = rand::rng();
    let mut faults = 0.0;
    stage.trouble_everywhere("random faults begin");
    while start.elapsed() < stage.settings.random_for {
        let place = rng.random_range(0..5);
        let time = Duration::from_millis(rng.random_range(500..12_000));
        match rng.random_range(0..7) {
            0 => {
                stage.mark(&format!("SIGKILL of node {}", place + 1));
                stage.nodes.kill(place);
                stage.nodes.settle(Duration::from_secs(90))?;
                stage.nodes.start(place);
            }
            1 => {
                stage.mark(&format!("SIGSTOP of node {} for {time:.1?}", place + 1));
                stage.nodes.pause(place);
                stage.pause_for(time);
                stage.nodes.resume(place);
            }
            2 => {
                let other = (place + 1 + rng.random_range(0..4)) % 5;
                stage.mark(&format!("nodes {} and {} cut off for {time:.1?}", place + 1, other + 1));
                let is_inside = |here| here == place || here == other;
                stage.nodes.network.cut(|from, to| is_inside(from) != is_inside(to))?;
                stage.pause_for(time);
            }
            3 => {
                stage.mark(&format!("node {} hears nothing for {time:.1?}", place + 1));
                stage.nodes.network.cut(|_, to| to == place)?;
                stage.pause_for(time);
            }
            4 => {
                stage.mark(&format!("node {} is not heard for {time:.1?}", place + 1));
                stage.nodes.network.cut(|from, _| from == place)?;
                stage.pause_for(time);
            }
            5 => {
                stage.mark(&format!("node {} at 5 % for {time:.1?}", place + 1));
                let _throttle = Throttle::hold(stage.nodes.at(place).pid(), 0.05);
                stage.pause_for(time);
            }
            _ => {
                stage.mark(&format!("node {} restarts", place + 1));
                stage.nodes.stop(place, Duration::from_secs(90))?;
                stage.nodes.start(place);
            }
        }
        stage.nodes.network.cut(|_, _| false)?;
        stage.nodes.settle(Duration::from_secs(90))?;
        faults += 1.0;
    }
    stage.calm("random faults end");
    stage.report.figures.insert("faults", faults);
    stage.heal()
}
