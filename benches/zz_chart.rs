//! Draws what the other benchmarks measured last as `docs/img/bench.svg`.
//!
//! Named to run last: `cargo bench` goes by the alphabet. `cargo bench --bench zz_chart`

mod rig;

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoTextStyle, RGBColor, ShapeStyle, TextStyle, WHITE};
use rig::{Failure, results};
use serde_json::Value;
use std::path::Path;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 1_120;
const MARGIN: i32 = 24;
const TITLE_HEIGHT: i32 = 52;
const ROW_HEIGHT: i32 = 26;
const LABEL_WIDTH: i32 = 180;
const VALUE_WIDTH: i32 = 146;
const OURS: RGBColor = RGBColor(37, 99, 135);
const THEIRS: RGBColor = RGBColor(176, 184, 190);
const LIMIT: RGBColor = RGBColor(200, 80, 40);
const INK: RGBColor = RGBColor(34, 40, 46);
const FAINT: RGBColor = RGBColor(104, 112, 120);

/// One bar.
struct Row {
    label: String,
    value: f64,
    /// What is written behind it.
    shown: String,
    /// The most it should be, marked.
    bar: Option<f64>,
    ours: bool,
}

/// Bars under a title.
struct Panel {
    title: String,
    note: &'static str,
    rows: Vec<Row>,
    /// A line across all bars.
    reference: Option<f64>,
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn redis() -> Panel {
    let kept = results::kept("redis");
    let rows = list(&kept["rows"]).iter().map(|row| {
        let unit = if row["unit"] == "B" { "B" } else { "µs" };
        let digits = if unit == "B" { 0 } else { 1 };
        let (ours, theirs, ratio) = (number(&row["ringdove"]), number(&row["redis"]), number(&row["ratio"]));
        Row {
            label: text(&row["what"]),
            value: ratio,
            shown: format!("{ratio:.2}  ({ours:.digits$} : {theirs:.digits$} {unit})"),
            bar: Some(number(&row["bar"])),
            ours: true,
        }
    });
    Panel {
        title: format!("Relative to Redis {} (line: the same; mark: our bound)", text(&kept["version"])),
        note: "CPU an operation; 50 clients, 64 B, 1 M keys; three nodes: two synchronous copies",
        rows: rows.collect(),
        reference: Some(1.0),
    }
}

fn replication() -> Panel {
    let kept = results::kept("replication");
    let rows = list(&kept["400"]).iter().enumerate().map(|(index, row)| {
        let per_second = number(&row["per_second"]);
        Row {
            label: text(&row["mode"])
                .replace("one record a message, 32 under way", "a message each, 32 at once"),
            value: per_second,
            shown: format!("{:.1} k/s, {:.1} µs", per_second / 1e3, number(&row["cpu_us"])),
            bar: None,
            ours: index == 0,
        }
    });
    Panel {
        title: "Replicated writes a second, and their CPU".to_owned(),
        note: "two nodes over QUIC, 50 clients with 8 writes under way each",
        rows: rows.collect(),
        reference: None,
    }
}

fn streaming() -> Panel {
    let kept = results::kept("streaming");
    let rows = list(&kept).iter().enumerate().map(|(index, row)| {
        let (speed, cost) = (number(&row["mb_per_second"]), number(&row["cpu_ns_per_byte"]));
        let (label, shown) = (text(&row["what"]), format!("{speed:.0} MB/s, {cost:.1} ns/B"));
        Row { label, value: speed, shown, bar: None, ours: index > 0 }
    });
    Panel {
        title: "A full copy to a node that joins".to_owned(),
        note: "beside bare QUIC with the same settings; CPU of both processes",
        rows: rows.collect(),
        reference: None,
    }
}

fn forwarding() -> Panel {
    let kept = results::kept("forwarding");
    let rows = list(&kept).iter().map(|row| {
        let (path, under_way) = (text(&row["path"]), number(&row["under_way"]));
        let cpu_us = number(&row["cpu_us"]);
        Row {
            label: format!("{path}, {under_way:.0} under way"),
            value: cpu_us,
            shown: format!("{cpu_us:.1} µs, p50 {:.2} ms", number(&row["p50_us"]) / 1e3),
            bar: None,
            ours: path == "forwarded",
        }
    });
    Panel {
        title: "GETs asked of the wrong node: CPU of both nodes".to_owned(),
        note: "two nodes; local is asked of the primary itself",
        rows: rows.collect(),
        reference: None,
    }
}

fn front_door() -> Panel {
    let kept = results::kept("resp");
    let rows = list(&kept).iter().filter(|row| number(&row["at_a_time"]) != 1.0).map(|row| {
        let ns = number(&row["engine_ns"]);
        Row {
            label: format!("{}, {:.0} at a time", text(&row["command"]), number(&row["at_a_time"])),
            value: ns,
            shown: format!("{ns:.0} ns, decode {:.0}", number(&row["decode_ns"])),
            bar: None,
            ours: true,
        }
    });
    Panel {
        title: "From bytes to bytes without a socket".to_owned(),
        note: "decode, session and engine of one node, 1 M keys",
        rows: rows.collect(),
        reference: None,
    }
}

fn style<'a>(size: i32, color: &'a RGBColor, area: &Area<'_>, side: HPos) -> TextStyle<'a> {
    ("sans-serif", size).with_color(color).into_text_style(area).pos(Pos::new(side, VPos::Center))
}

fn draw(area: &Area<'_>, panel: &Panel) -> Result<(), Failure> {
    let (width, _) = area.dim_in_pixel();
    let across = width as i32 - LABEL_WIDTH - VALUE_WIDTH;
    area.draw(&Text::new(panel.title.clone(), (0, 8), style(15, &INK, area, HPos::Left)))?;
    area.draw(&Text::new(panel.note, (0, 27), style(11, &FAINT, area, HPos::Left)))?;
    let bars = panel.rows.iter().filter_map(|row| row.bar).chain(panel.reference);
    let most = panel.rows.iter().map(|row| row.value).chain(bars).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LABEL_WIDTH + (value / most * f64::from(across)) as i32;
    for (index, row) in panel.rows.iter().enumerate() {
        let top = TITLE_HEIGHT - 8 + index as i32 * ROW_HEIGHT;
        let (middle, end) = (top + ROW_HEIGHT / 2, x(row.value).max(LABEL_WIDTH + 1));
        let color = if row.ours { OURS } else { THEIRS };
        area.draw(&Text::new(
            row.label.clone(),
            (LABEL_WIDTH - 8, middle),
            style(12, &INK, area, HPos::Right),
        ))?;
        area.draw(&Rectangle::new([(LABEL_WIDTH, top + 5), (end, top + ROW_HEIGHT - 5)], color.filled()))?;
        if let Some(bar) = row.bar {
            let mark = [(x(bar), top + 3), (x(bar), top + ROW_HEIGHT - 3)];
            area.draw(&PathElement::new(mark, ShapeStyle::from(&LIMIT).stroke_width(2)))?;
        }
        let behind = LABEL_WIDTH + across + 10;
        area.draw(&Text::new(row.shown.clone(), (behind, middle), style(12, &INK, area, HPos::Left)))?;
    }
    if let Some(reference) = panel.reference {
        let bottom = TITLE_HEIGHT - 8 + panel.rows.len() as i32 * ROW_HEIGHT;
        let line = [(x(reference), TITLE_HEIGHT - 8), (x(reference), bottom)];
        area.draw(&PathElement::new(line, ShapeStyle::from(&FAINT).stroke_width(1)))?;
    }
    Ok(())
}

fn height(panel: &Panel) -> i32 {
    TITLE_HEIGHT + panel.rows.len() as i32 * ROW_HEIGHT + 14
}

fn bench() -> Result<(), Failure> {
    let panels = [redis(), front_door(), replication(), forwarding(), streaming()];
    let mut columns: [Vec<&Panel>; 2] = Default::default();
    let tall = |column: &[&Panel]| column.iter().map(|panel| height(panel)).sum::<i32>();
    for panel in panels.iter().filter(|panel| !panel.rows.is_empty()) {
        let shorter = usize::from(tall(&columns[1]) < tall(&columns[0]));
        columns[shorter].push(panel);
    }
    let high = columns.iter().map(|column| tall(column)).max().unwrap_or(0);
    if high == 0 {
        println!("nothing was measured yet");
        return Ok(());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/img/bench.svg");
    std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
    let size = (WIDTH, (high + 2 * MARGIN) as u32);
    let root = SVGBackend::new(&path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let inner = root.margin(MARGIN, MARGIN, MARGIN, MARGIN);
    let (left, right) = inner.split_horizontally(WIDTH as i32 / 2 - MARGIN / 2);
    for (area, column) in [left.margin(0, 0, 0, MARGIN), right].iter().zip(&columns) {
        let mut top = 0;
        for panel in column {
            let (above, _) = area.split_vertically(top + height(panel));
            let (_, own) = above.split_vertically(top);
            draw(&own, panel)?;
            top += height(panel);
        }
    }
    root.present()?;
    println!("{}", path.display());
    Ok(())
}

fn main() {
    results::run("chart", bench);
}
