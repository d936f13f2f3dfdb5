//! What came of a run, and a table of many.

use super::checks::{Findings, quantile};
use super::rows::Row;
use std::collections::BTreeMap;

/// What came of one run of a row.
pub struct Report {
    pub row: &'static Row,
    pub run: u32,
    pub network: &'static str,
    /// Promises broken: none may be.
    pub breaches: Vec<String>,
    /// Goals in time or number that were missed. A busy machine can be the reason.
    pub misses: Vec<String>,
    pub findings: Findings,
    /// How long partitions with a copy on a node in trouble weren't served.
    pub unavailable_s: Vec<f64>,
    /// The slowest hundredth of probes before the fault, and during it of partitions without a
    /// copy on a node in trouble.
    pub p99_before_ms: f64,
    pub others_p99_ms: f64,
    /// Median, 99th percentile and maximum of all probes during the fault.
    pub all_ms: [f64; 3],
    pub healed_s: f64,
    pub promotions: u64,
    pub digests_equal: u64,
    /// Whatever else a row measures.
    pub figures: BTreeMap<&'static str, f64>,
    /// What happened when, in microseconds.
    pub marks: Vec<(u64, String)>,
    pub took_s: f64,
}

impl Report {
    pub fn new(row: &'static Row, run: u32) -> Report {
        Report {
            row,
            run,
            network: "none",
            breaches: Vec::new(),
            misses: Vec::new(),
            findings: Findings::default(),
            unavailable_s: Vec::new(),
            p99_before_ms: 0.0,
            others_p99_ms: 0.0,
            all_ms: [0.0; 3],
            healed_s: 0.0,
            promotions: 0,
            digests_equal: 0,
            figures: BTreeMap::new(),
            marks: Vec::new(),
            took_s: 0.0,
        }
    }

    /// Notes a figure and whether it is at most what it should be.
    pub fn at_most(&mut self, name: &'static str, value: f64, most: f64) {
        self.figures.insert(name, value);
        if value > most {
            self.misses.push(format!("{name}: {value:.2}, at most {most} wanted"));
        }
    }

    /// Notes a figure and whether it is at least what it should be.
    pub fn at_least(&mut self, name: &'static str, value: f64, least: f64) {
        self.figures.insert(name, value);
        if value < least {
            self.misses.push(format!("{name}: {value:.2}, at least {least} wanted"));
        }
    }

    /// One line for somebody who waits.
    pub fn line(&self) -> String {
        let verdict = match (self.breaches.len(), self.misses.len()) {
            (0, 0) => "ok".to_owned(),
            (0, misses) => format!("{misses} goals missed"),
            (breaches, _) => format!("{breaches} BREACHES"),
        };
        let Findings { acknowledged, in_doubt, refused, expiry_error_ms, .. } = &self.findings;
        let mut line = format!(
            "{:<12} #{:<2} {verdict:<16} {:>5.1} s · {acknowledged} acknowledged, {in_doubt} in doubt, \
             {refused} refused · unavailable p50 {:.2} s, max {:.2} s ({}) · p99 {:.1} ms before, others {:.1} ms · \
             all {:.0?} ms · healed {:.1} s · {} promotions · expiry off by {expiry_error_ms:.0} ms",
            self.row.name,
            self.run,
            self.took_s,
            quantile(&self.unavailable_s, 0.5),
            quantile(&self.unavailable_s, 1.0),
            self.unavailable_s.len(),
            self.p99_before_ms,
            self.others_p99_ms,
            self.all_ms,
            self.healed_s,
            self.promotions,
        );
        for (name, value) in &self.figures {
            line += &format!(" · {name} {value:.2}");
        }
        for (kind, texts) in [("BREACH", &self.breaches), ("missed", &self.misses)] {
            for text in texts {
                line += &format!("\n    {kind}: {text}");
            }
        }
        line
    }
}

/// All runs by row, in Markdown.
pub fn table(reports: &[Report]) -> String {
    let mut rows: BTreeMap<usize, Vec<&Report>> = BTreeMap::new();
    for report in reports {
        let order = super::rows::ROWS.iter().position(|row| row.name == report.row.name);
        rows.entry(order.unwrap_or(usize::MAX)).or_default().push(report);
    }
    let mut text = "| fault | runs | writes acknowledged | lost | not linearizable | counters off | stale reads | \
                    two holders | in doubt | unavailable p50 / max | p99 before → others | healed p50 / max | \
                    other figures (worst) | breaches | goals missed |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for reports in rows.values() {
        let sum = |of: fn(&Report) -> usize| reports.iter().map(|report| of(report)).sum::<usize>();
        let all = |of: fn(&Report) -> f64| reports.iter().map(|report| of(report)).collect::<Vec<_>>();
        let unavailable: Vec<f64> = reports.iter().flat_map(|report| report.unavailable_s.clone()).collect();
        let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for report in reports {
            for (name, value) in &report.figures {
                figures.entry(name).or_default().push(*value);
            }
            figures.entry("promotions").or_default().push(report.promotions as f64);
            figures.entry("expiry error ms").or_default().push(report.findings.expiry_error_ms);
        }
        let range = |(name, values): (&&str, &Vec<f64>)| {
            let (least, most) = (quantile(values, 0.0), quantile(values, 1.0));
            if least == most {
                format!("{name} {most:.1}")
            } else {
                format!("{name} {least:.1} to {most:.1}")
            }
        };
        let figures: Vec<String> = figures.iter().map(range).collect();
        text += &format!(
            "| {} | {} | {} | {} | {} of {} | {} | {} | {} | {} | {:.2} s / {:.2} s | {:.1} → {:.1} ms | {:.1} s / {:.1} s | {} | {} | {} |\n",
            reports[0].row.title,
            reports.len(),
            sum(|report| report.findings.acknowledged),
            sum(|report| report.findings.lost),
            sum(|report| report.findings.nonlinear),
            sum(|report| report.findings.registers),
            sum(|report| report.findings.counters_wrong),
            sum(|report| report.findings.stale),
            sum(|report| report.findings.two_holders),
            sum(|report| report.findings.in_doubt),
            quantile(&unavailable, 0.5),
            quantile(&unavailable, 1.0),
            quantile(&all(|report| report.p99_before_ms), 0.5),
            quantile(&all(|report| report.others_p99_ms), 0.5),
            quantile(&all(|report| report.healed_s), 0.5),
            quantile(&all(|report| report.healed_s), 1.0),
            figures.join(", "),
            sum(|report| report.breaches.len()),
            sum(|report| report.misses.len()),
        );
    }
    for report in reports {
        let all = report.breaches.iter().map(|what| ("breach", what));
        for (kind, what) in all.chain(report.misses.iter().map(|what| ("missed", what))) {
            let what = what.replace('\n', "\n  ");
            text += &format!("\n- {} #{}: {kind}: {what}", report.row.name, report.run);
        }
    }
    text
}
