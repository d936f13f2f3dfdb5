//! Bar charts as SVG, in two columns of panels.
//!
//! `benches/zz_chart.rs` draws with it, too.

use std::fmt::Write;

/// One bar.
pub struct Bar {
    pub label: String,
    pub value: f64,
    /// What is written behind it.
    pub shown: String,
    /// What it should not pass, or reach, marked.
    pub limit: Option<f64>,
    /// Whether it is ringdove's; others are paler.
    pub is_ours: bool,
}

/// Bars under a title.
pub struct Panel {
    pub title: String,
    /// Each of its clauses, which semicolons part, has a line.
    pub note: String,
    pub bars: Vec<Bar>,
    /// A line across all bars.
    pub reference: Option<f64>,
}

const WIDTH: i32 = 1_240;
const MARGIN: i32 = 24;
const TITLE_HEIGHT: i32 = 30;
const NOTE_HEIGHT: i32 = 14;
const BAR_HEIGHT: i32 = 26;
const PANEL_GAP: i32 = 22;
const LABEL_WIDTH: i32 = 230;
const SHOWN_WIDTH: i32 = 190;
const OURS: &str = "#256387";
const THEIRS: &str = "#b0b8be";
const LIMIT: &str = "#c85028";
const INK: &str = "#22282e";
const FAINT: &str = "#687078";

/// The drawing; panels without bars are left out.
pub fn svg(panels: &[Panel]) -> String {
    let column_width = (WIDTH - 3 * MARGIN) / 2;
    let mut bottoms = [MARGIN; 2];
    let mut body = String::new();
    for panel in panels.iter().filter(|panel| !panel.bars.is_empty()) {
        let column = usize::from(bottoms[1] < bottoms[0]);
        let left = MARGIN + column as i32 * (column_width + MARGIN);
        draw(&mut body, panel, left, bottoms[column], column_width);
        bottoms[column] += height(panel);
    }
    let height = bottoms[0].max(bottoms[1]) - PANEL_GAP + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn height(panel: &Panel) -> i32 {
    heading_height(panel) + panel.bars.len() as i32 * BAR_HEIGHT + PANEL_GAP
}

fn heading_height(panel: &Panel) -> i32 {
    TITLE_HEIGHT + panel.note.split("; ").count() as i32 * NOTE_HEIGHT
}

fn draw(out: &mut String, panel: &Panel, left: i32, top: i32, width: i32) {
    text(out, left, top + 8, 15, INK, "start", &panel.title);
    for (line, clause) in panel.note.split("; ").enumerate() {
        text(out, left, top + 27 + line as i32 * NOTE_HEIGHT, 11, FAINT, "start", clause);
    }
    let marks = panel.bars.iter().filter_map(|bar| bar.limit).chain(panel.reference);
    let values = panel.bars.iter().map(|bar| bar.value).chain(marks);
    let most = values.filter(|value| value.is_finite()).fold(f64::MIN_POSITIVE, f64::max);
    let (zero, across) = (left + LABEL_WIDTH, width - LABEL_WIDTH - SHOWN_WIDTH);
    let x = |value: f64| zero + (value / most * f64::from(across)) as i32;
    let first = top + heading_height(panel);
    for (index, bar) in panel.bars.iter().enumerate() {
        let top = first + index as i32 * BAR_HEIGHT;
        let middle = top + BAR_HEIGHT / 2;
        text(out, zero - 8, middle, 12, INK, "end", &bar.label);
        let (color, length) = (if bar.is_ours { OURS } else { THEIRS }, (x(bar.value) - zero).max(1));
        let thick = BAR_HEIGHT - 10;
        element(
            out,
            format_args!(
                "rect x=\"{zero}\" y=\"{}\" width=\"{length}\" height=\"{thick}\" fill=\"{color}\"",
                top + 5
            ),
        );
        if let Some(limit) = bar.limit {
            line(out, x(limit), [top + 3, top + BAR_HEIGHT - 3], LIMIT, 2);
        }
        text(out, zero + across + 10, middle, 12, INK, "start", &bar.shown);
    }
    if let Some(reference) = panel.reference {
        line(out, x(reference), [first, first + panel.bars.len() as i32 * BAR_HEIGHT], FAINT, 1);
    }
}

fn element(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string doesn't fail.
    let _ = writeln!(out, "<{what}/>");
}

fn line(out: &mut String, x: i32, [top, bottom]: [i32; 2], color: &str, width: i32) {
    element(out, format_args!("path d=\"M{x} {top}V{bottom}\" stroke=\"{color}\" stroke-width=\"{width}\""));
}

fn text(out: &mut String, x: i32, middle: i32, size: i32, color: &str, anchor: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Not every program that draws SVG knows `dominant-baseline`.
    let base = middle + size * 7 / 20;
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{base}\" font-size=\"{size}\" fill=\"{color}\" text-anchor=\"{anchor}\">{content}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, value: f64) -> Bar {
        Bar { label: label.to_owned(), value, shown: format!("{value}"), limit: Some(1.0), is_ours: true }
    }

    fn panel(title: &str, bars: Vec<Bar>) -> Panel {
        Panel { title: title.to_owned(), note: "note".to_owned(), bars, reference: Some(1.0) }
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let drawn = svg(&[panel("a", vec![bar("one", 1.0), bar("half", 0.5), bar("none", f64::NAN)])]);
        let lengths: Vec<i32> = drawn
            .lines()
            .filter(|line| line.contains(OURS))
            .filter_map(|line| line.split("width=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert!(matches!(lengths[..], [one, half, 1] if (one - 2 * half).abs() <= 1), "{lengths:?}");
    }

    #[test]
    fn panels_share_two_columns_and_empty_ones_are_left_out() {
        let drawn = svg(&[
            panel("<a & b>", vec![bar("x", 1.0)]),
            panel("gone", vec![]),
            panel("c", vec![bar("y", 2.0)]),
        ]);
        assert!(drawn.contains("&lt;a &amp; b&gt;") && !drawn.contains("gone"));
        let tops: Vec<&str> = drawn
            .lines()
            .filter(|line| line.contains("font-size=\"15\""))
            .filter_map(|line| line.split(" y=\"").nth(1)?.split('"').next())
            .collect();
        assert!(matches!(tops[..], [left, right] if left == right), "{tops:?}");
    }
}
