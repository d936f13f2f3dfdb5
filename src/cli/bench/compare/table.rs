//! The table: as lines for a terminal, and as the block of Markdown that the README shows.

use super::rows::{Pair, Report, Row, Samples, Section, Unit};
use std::path::Path;

/// What stands around the block in a file that has more to say.
pub const MARKS: [&str; 2] = ["<!-- compare:begin -->", "<!-- compare:end -->"];

/// The lines above a section's rows.
pub fn heading(section: &Section) -> String {
    format!(
        "\n{}: {}\n{:<46} {:>26} {:>26} {:<6} {:>6} {:>7} {:<7} {:>9} {:>9}\n",
        section.title,
        section.note,
        "",
        "ringdove (min–max)",
        "Redis (min–max)",
        "",
        "ratio",
        "bar",
        "",
        "wall k/s",
        "Redis"
    )
}

/// A row.
pub fn line(row: &Row) -> String {
    let [ours, theirs] = figures(row);
    let wall = wall(row).map_or(String::new(), |[ours, theirs]| format!(" {ours:>9} {theirs:>9}"));
    format!(
        "{:<46} {ours:>26} {theirs:>26} {:<6} {:>6.2} {:>7} {:<7}{wall}\n",
        what(row),
        row.unit.name(),
        row.ratio(),
        row.bar.to_string(),
        row.verdict()
    )
}

/// How many bars are met.
pub fn verdict(report: &Report) -> String {
    let (met, all) = report.met();
    format!("\n{met} of {all} bars are met.\n")
}

fn what(row: &Row) -> String {
    match row.beside {
        Some(beside) => format!("{} (beside: {beside})", row.what),
        None => row.what.clone(),
    }
}

/// Both sides' medians and spreads.
fn figures(row: &Row) -> Pair<String> {
    let show = |samples: &Samples| {
        let [min, max] = samples.spread().map(|end| row.unit.show(end));
        format!("{} ({min}–{max})", row.unit.show(samples.median()))
    };
    [show(&row.figures[0]), show(&row.figures[1])]
}

/// Both sides' thousands of commands a second.
fn wall(row: &Row) -> Option<Pair<String>> {
    let show = |samples: &Samples| Unit::PerSecond.show(samples.median());
    row.wall.as_ref().map(|[ours, theirs]| [show(ours), show(theirs)])
}

/// The block for a README; `chart` is where that finds the chart.
pub fn markdown(report: &Report, chart: Option<&Path>) -> String {
    let mut text = String::new();
    if let Some(chart) = chart {
        text += &format!("![ringdove beside Redis]({})\n\n", chart.display());
    }
    text += &format!(
        "Beside Redis {} without persistence, on {} cores, by `ringdove bench compare --redis`: medians of {} interleaved runs \
         (least to most). CPU is user and system time of all servers an operation; k/s is what the load reached by the clock on the wall.\n",
        report.redis_version, report.cores, report.runs
    );
    for section in &report.sections {
        text += &format!(
            "\n| {} | ringdove | Redis | ratio | bar | k/s |\n|---|---|---|---|---|---|\n",
            section.title.to_lowercase()
        );
        for row in &section.rows {
            let [ours, theirs] = figures(row);
            let (unit, beside) =
                (row.unit.name(), row.beside.map_or(String::new(), |what| format!(", {what}")));
            let wall = wall(row).map_or(String::new(), |[ours, theirs]| format!("{ours} : {theirs}"));
            let missed = if row.is_met() { "" } else { ", missed" };
            text += &format!(
                "| {} | {ours} {unit} | {theirs} {unit}{beside} | {:.2} | {}{missed} | {wall} |\n",
                row.what,
                row.ratio(),
                row.bar
            );
        }
        text += &format!("\n{}: {}.\n", section.title, section.note);
    }
    text
}

/// `old` with the block between its marks; the block alone in place of nothing. `None` if `old` is
/// something else, which is not ours to throw away.
pub fn placed(block: &str, old: &str) -> Option<String> {
    let [begin, end] = MARKS;
    if old.trim().is_empty() {
        return Some(format!("{begin}\n{block}{end}\n"));
    }
    let (before, rest) = old.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{block}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::sample;
    use super::*;

    #[test]
    fn lines_say_all_of_a_row() {
        let report = sample();
        let rows = &report.sections[0].rows;
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(
            words(line(&rows[0])),
            "SET, pipeline 1 8.00 (7.00–9.00) 10.00 (9.00–12.00) µs CPU 0.80 ≤ 0.88 met 50.0 45.0"
        );
        assert_eq!(
            words(line(&rows[1])),
            "GET <fast> 4000.0 (4000.0–4000.0) 2000.0 (1500.0–2000.0) k/s 2.00 ≥ 2.00 met"
        );
        assert!(line(&report.sections[1].rows[0]).contains("beside: direct"));
        assert!(heading(&report.sections[0]).contains("One node: 50 clients"));
        assert_eq!(verdict(&report), "\n2 of 3 bars are met.\n");
    }

    #[test]
    fn a_block_for_the_readme() {
        let block = markdown(&sample(), Some(Path::new("docs/img/redis.svg")));
        for part in [
            "](docs/img/redis.svg)",
            "Redis 7.0.15 without persistence, on 2 cores",
            "medians of 3",
            "| SET, pipeline 1 | 8.00 (7.00–9.00) µs CPU | 10.00 (9.00–12.00) µs CPU | 0.80 | ≤ 0.88 | 50.0 : 45.0 |",
            "| 3.00 | ≤ 1.80, missed |",
            "µs CPU, direct |",
            "One node: 50 clients.",
        ] {
            assert!(block.contains(part), "{part} is missing in\n{block}");
        }
        assert!(!markdown(&sample(), None).contains("!["));
    }

    #[test]
    fn a_block_goes_between_its_marks() {
        let [begin, end] = MARKS;
        let old = format!("# Title\n{begin}\nold\n{end}\nmore\n");
        let once = placed("new\n", &old).unwrap();
        assert_eq!(once, format!("# Title\n{begin}\nnew\n{end}\nmore\n"));
        assert_eq!(placed("new\n", &once), Some(once));
        assert_eq!(placed("new\n", ""), Some(format!("{begin}\nnew\n{end}\n")));
        for other in ["# Title\n", begin, &format!("{end}{begin}")] {
            assert_eq!(placed("new\n", other), None, "{other}");
        }
    }
}
