//! What is measured, and how it is shown.

use super::super::Failure;
use super::plan::{Op, Plan};
use hdrhistogram::Histogram;
use ringdove::config::ByteSize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Latencies in nanoseconds and errors, of some clients or all of them.
pub struct Measured {
    gets: Histogram<u64>,
    sets: Histogram<u64>,
    /// Error replies by their code, such as `OOM`.
    pub errors: BTreeMap<String, u64>,
    /// From the first connection to the last reply.
    pub elapsed: Duration,
}

/// The shortest and the longest latency told apart, in nanoseconds: others count as these.
const LATENCY_NS: [u64; 2] = [100, 60_000_000_000];
/// Errors told apart; a server that makes up new ones should not fill our memory.
const ERRORS_MAX: usize = 32;

impl Default for Measured {
    fn default() -> Measured {
        // Bounds and three digits are constants within the crate's limits.
        let [shortest, longest] = LATENCY_NS;
        let histogram = || Histogram::new_with_bounds(shortest, longest, 3).expect("constant bounds");
        Measured { gets: histogram(), sets: histogram(), errors: BTreeMap::new(), elapsed: Duration::ZERO }
    }
}

impl Measured {
    /// Notes a batch that took so long.
    pub fn batch(&mut self, batch: &[Op], took: Duration) {
        let ns = took.as_nanos() as u64;
        let sets = batch.iter().filter(|op| matches!(op, Op::Set(_))).count() as u64;
        // Saturating: what lies beyond the bounds is counted at the bound.
        if sets > 0 {
            self.sets.saturating_record_n(ns, sets);
        }
        if sets < batch.len() as u64 {
            self.gets.saturating_record_n(ns, batch.len() as u64 - sets);
        }
    }

    /// Notes an error reply: `-ERR unknown …`, with or without the sign.
    pub fn error(&mut self, reply: &[u8]) {
        let code = reply.split(|byte| !byte.is_ascii_alphanumeric()).find(|word| !word.is_empty());
        let code = String::from_utf8_lossy(code.unwrap_or(b"?"));
        let code = if self.errors.len() < ERRORS_MAX { &code[..code.len().min(32)] } else { "other" };
        *self.errors.entry(code.to_owned()).or_default() += 1;
    }

    /// Adds what others measured.
    pub fn add(&mut self, other: &Measured) {
        // All histograms have the same bounds, so adding can't fail.
        let _same_bounds = self.gets.add(&other.gets).and(self.sets.add(&other.sets));
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
    }

    /// An error for people if there were error replies.
    pub fn refuse_errors(&self) -> Result<(), Failure> {
        match self.errors.first_key_value() {
            None => Ok(()),
            Some((code, count)) => Err(Failure(format!("{count} commands were refused with {code}"))),
        }
    }

    fn count(&self) -> u64 {
        self.gets.len() + self.sets.len()
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// For people.
    pub fn table(&self, target: &str, plan: &Plan) -> String {
        let rate = plan.rate.map_or(String::new(), |rate| format!(", {rate} a second offered"));
        let mut text = format!(
            "{target}: {} clients, pipeline {}, {} values, {} keys{rate}\n\n{:<6} {:>12} {:>12} {:>10} {:>10} {:>10} {:>10}\n",
            plan.clients,
            plan.pipeline,
            ByteSize(plan.value.len() as u64),
            plan.keys,
            "",
            "commands",
            "a second",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms"
        );
        for (name, histogram) in [("GET", &self.gets), ("SET", &self.sets)] {
            if histogram.is_empty() {
                continue;
            }
            let ms = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e6;
            text += &format!(
                "{name:<6} {:>12} {:>12.0} {:>10.3} {:>10.3} {:>10.3} {:>10.3}\n",
                histogram.len(),
                self.per_second(histogram.len()),
                ms(0.5),
                ms(0.99),
                ms(0.999),
                histogram.max() as f64 / 1e6,
            );
        }
        text += &format!("{:<6} {:>12} {:>12.0}\n", "all", self.count(), self.per_second(self.count()));
        for (code, count) in &self.errors {
            text += &format!("error  {count:>12} {code}\n");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        let figures = |histogram: &Histogram<u64>| {
            let us = |ns: u64| ns as f64 / 1e3;
            serde_json::json!({
                "commands": histogram.len(),
                "per_second": self.per_second(histogram.len()),
                "p50_us": us(histogram.value_at_quantile(0.5)),
                "p99_us": us(histogram.value_at_quantile(0.99)),
                "p999_us": us(histogram.value_at_quantile(0.999)),
                "max_us": us(histogram.max()),
            })
        };
        let report = serde_json::json!({
            "seconds": self.elapsed.as_secs_f64(),
            "commands": self.count(),
            "per_second": self.per_second(self.count()),
            "get": figures(&self.gets),
            "set": figures(&self.sets),
            "errors": self.errors,
        });
        format!("{report:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_errors() {
        let mut measured = Measured { elapsed: Duration::from_secs(2), ..Measured::default() };
        for ms in 1..=100 {
            measured.batch(&[Op::Get(1), Op::Set(2), Op::Set(3)], Duration::from_millis(ms));
        }
        measured.error(b"-OOM command not allowed");
        measured.error(b"OOM again");
        measured.error(b"");
        let mut all = Measured { elapsed: Duration::from_secs(2), ..Measured::default() };
        all.add(&measured);
        let json: serde_json::Value = serde_json::from_str(&all.json()).unwrap();
        assert_eq!(json["commands"], 300);
        assert_eq!(json["per_second"], 150.0);
        assert_eq!(json["set"]["commands"], 200);
        let p99 = json["get"]["p99_us"].as_f64().unwrap();
        assert!((98_900.0..=99_100.0).contains(&p99), "{p99}");
        assert_eq!(json["errors"]["OOM"], 2);
        assert_eq!(json["errors"]["?"], 1);
        assert!(all.refuse_errors().is_err());
    }

    #[test]
    fn absurd_latencies_are_counted() {
        let mut measured = Measured::default();
        measured.batch(&[Op::Get(1)], Duration::from_secs(86_400));
        measured.batch(&[Op::Get(1)], Duration::ZERO);
        assert_eq!(measured.count(), 2);
    }
}
