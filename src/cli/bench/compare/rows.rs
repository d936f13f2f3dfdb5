//! What a comparison gives: rows of two sides, each with all its runs, and the bar that their ratio is held to.

use serde_json::{Value, json};

/// The figures of a side's runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn of(runs: impl IntoIterator<Item = f64>) -> Samples {
        let mut runs: Vec<f64> = runs.into_iter().collect();
        runs.sort_by(f64::total_cmp);
        Samples(runs)
    }

    /// The middle one; of an even number the lower middle. NaN if there is none.
    pub fn median(&self) -> f64 {
        self.0.get(self.0.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
    }

    /// The least and the most.
    pub fn spread(&self) -> [f64; 2] {
        [self.0.first(), self.0.last()].map(|end| end.copied().unwrap_or(f64::NAN))
    }

    fn json(&self) -> Value {
        let [min, max] = self.spread();
        json!({ "median": self.median(), "min": min, "max": max })
    }
}

/// What a row's figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds of the servers' processor time, user and system, an operation.
    CpuUs,
    /// Microseconds from a command to its reply.
    LatencyUs,
    /// Bytes of resident memory an entry.
    Bytes,
    /// Commands a second.
    PerSecond,
}

impl Unit {
    /// For people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Unit::CpuUs => "µs CPU",
            Unit::LatencyUs => "µs",
            Unit::Bytes => "B",
            Unit::PerSecond => "k/s",
        }
    }

    /// A figure in this unit, as people read it.
    pub fn show(self, figure: f64) -> String {
        match self {
            Unit::CpuUs => format!("{figure:.2}"),
            Unit::LatencyUs => format!("{figure:.1}"),
            Unit::Bytes => format!("{figure:.0}"),
            Unit::PerSecond => format!("{:.1}", figure / 1e3),
        }
    }
}

/// What the ratio should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

impl Bar {
    pub fn is_met(self, ratio: f64) -> bool {
        match self {
            Bar::AtMost(most) => ratio <= most,
            Bar::AtLeast(least) => ratio >= least,
        }
    }

    /// The ratio at the bar.
    pub fn ratio(self) -> f64 {
        let (Bar::AtMost(ratio) | Bar::AtLeast(ratio)) = self;
        ratio
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bar::AtMost(most) => write!(f, "≤ {most:.2}"),
            Bar::AtLeast(least) => write!(f, "≥ {least:.2}"),
        }
    }
}

/// Two sides of a comparison, ringdove's first.
pub type Pair<T> = [T; 2];

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub what: String,
    pub unit: Unit,
    /// What ringdove is beside, if that isn't Redis.
    pub beside: Option<&'static str>,
    pub figures: Pair<Samples>,
    /// Commands a second by the clock on the wall, of the same runs.
    pub wall: Option<Pair<Samples>>,
    pub bar: Bar,
}

impl Row {
    /// Of the medians, ringdove's to the other.
    pub fn ratio(&self) -> f64 {
        let [ours, theirs] = &self.figures;
        ours.median() / theirs.median()
    }

    pub fn is_met(&self) -> bool {
        self.bar.is_met(self.ratio())
    }

    /// `met` or `missed`.
    pub fn verdict(&self) -> &'static str {
        if self.is_met() { "met" } else { "missed" }
    }

    fn json(&self) -> Value {
        let pair =
            |[ours, theirs]: &Pair<Samples>| json!({ "ringdove": ours.json(), "other": theirs.json() });
        json!({
            "what": self.what,
            "unit": match self.unit {
                Unit::CpuUs => "cpu_us",
                Unit::LatencyUs => "us",
                Unit::Bytes => "bytes",
                Unit::PerSecond => "per_second",
            },
            "beside": self.beside.unwrap_or("Redis"),
            "figures": pair(&self.figures),
            "wall_per_second": self.wall.as_ref().map(pair),
            "ratio": self.ratio(),
            "bar": { "ratio": self.bar.ratio(), "at_least": matches!(self.bar, Bar::AtLeast(_)) },
            "met": self.is_met(),
        })
    }
}

/// Rows of one kind.
#[derive(Clone, Debug)]
pub struct Section {
    pub title: &'static str,
    pub note: String,
    pub rows: Vec<Row>,
}

/// All that was measured.
#[derive(Clone, Debug)]
pub struct Report {
    pub redis_version: String,
    pub cores: usize,
    pub runs: usize,
    pub sections: Vec<Section>,
}

impl Report {
    /// How many rows meet their bar, and how many there are.
    pub fn met(&self) -> (usize, usize) {
        let rows = || self.sections.iter().flat_map(|section| &section.rows);
        (rows().filter(|row| row.is_met()).count(), rows().count())
    }

    /// For programs.
    pub fn json(&self) -> String {
        let section = |section: &Section| {
            let rows: Vec<Value> = section.rows.iter().map(Row::json).collect();
            json!({ "title": section.title, "note": section.note, "rows": rows })
        };
        let sections: Vec<Value> = self.sections.iter().map(section).collect();
        let report = json!({
            "ringdove": env!("CARGO_PKG_VERSION"),
            "redis": self.redis_version,
            "cores": self.cores,
            "runs": self.runs,
            "sections": sections,
        });
        format!("{report:#}\n")
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Two sections, a bar met and one missed.
    pub fn sample() -> Report {
        let samples = |runs: [f64; 3]| Samples::of(runs);
        let row = |what: &str, unit, bar, ours, theirs| Row {
            what: what.to_owned(),
            unit,
            beside: None,
            figures: [samples(ours), samples(theirs)],
            wall: None,
            bar,
        };
        let mut set =
            row("SET, pipeline 1", Unit::CpuUs, Bar::AtMost(0.88), [8.0, 9.0, 7.0], [10.0, 12.0, 9.0]);
        set.wall = Some([samples([50e3, 60e3, 40e3]), samples([45e3, 45e3, 45e3])]);
        let mut forwarded =
            row("GET, forwarded", Unit::CpuUs, Bar::AtMost(1.8), [30.0, 30.0, 30.0], [10.0, 10.0, 10.0]);
        forwarded.beside = Some("direct");
        let fast = row("GET <fast>", Unit::PerSecond, Bar::AtLeast(2.0), [4e6, 4e6, 4e6], [2e6, 2e6, 1.5e6]);
        Report {
            redis_version: "7.0.15".to_owned(),
            cores: 2,
            runs: 3,
            sections: vec![
                Section { title: "One node", note: "50 clients".to_owned(), rows: vec![set, fast] },
                Section { title: "Three nodes", note: "two copies".to_owned(), rows: vec![forwarded] },
            ],
        }
    }

    #[test]
    fn medians_and_spreads() {
        let samples = Samples::of([3.0, 1.0, 2.0, 9.0]);
        assert_eq!((samples.median(), samples.spread()), (2.0, [1.0, 9.0]));
        assert!(Samples::of([]).median().is_nan());
    }

    #[test]
    fn bars_are_met_on_their_side() {
        assert!(Bar::AtMost(0.5).is_met(0.5) && !Bar::AtMost(0.5).is_met(0.51));
        assert!(Bar::AtLeast(2.0).is_met(2.0) && !Bar::AtLeast(2.0).is_met(1.99));
        // What could not be measured is not met.
        assert!(!Bar::AtMost(0.5).is_met(f64::NAN) && !Bar::AtLeast(2.0).is_met(f64::NAN));
    }

    #[test]
    fn programs_can_read_it() {
        let report = sample();
        assert_eq!(report.met(), (2, 3));
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        let row = &json["sections"][0]["rows"][0];
        assert_eq!(row["ratio"], 0.8);
        assert_eq!(row["figures"]["ringdove"], json!({ "median": 8.0, "min": 7.0, "max": 9.0 }));
        assert_eq!(row["wall_per_second"]["other"]["median"], 45e3);
        assert_eq!(json["sections"][0]["rows"][1]["bar"], json!({ "ratio": 2.0, "at_least": true }));
        assert_eq!(json["sections"][1]["rows"][0]["beside"], "direct");
        assert_eq!(json["sections"][1]["rows"][0]["met"], false);
    }
}
