//! A run as a drawing: how long probes took, how much was answered a second, and what happened.

use super::history::{Load, Outcome, Record};
use super::report::Report;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (1_200, 640);
const INK: RGBColor = RGBColor(34, 40, 46);
const GOOD: RGBColor = RGBColor(37, 99, 135);
const BAD: RGBColor = RGBColor(200, 80, 40);
const BUCKET_US: u64 = 250_000;

/// Draws a run into a file.
///
/// # Errors
/// What drawing or the file system says.
pub fn draw(report: &Report, records: &[Record], file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("{}, run {} ({})", report.row.title, report.run, report.network);
    let root = root.titled(&title, ("sans-serif", 18).into_font().color(&INK))?;
    let (above, below) = root.split_vertically(380);
    let end_s = records.iter().map(|record| record.return_us).max().unwrap_or(1) as f64 / 1e6;

    let probes = || records.iter().filter(|record| record.load == Load::Probe && record.client != u16::MAX);
    let mut chart = ChartBuilder::on(&above)
        .margin(8)
        .x_label_area_size(20)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end_s, (0.1..20_000.0).log_scale())?;
    chart.configure_mesh().y_desc("a write, ms").light_line_style(WHITE).draw()?;
    let point = |record: &Record| {
        let ms = ((record.return_us - record.invoke_us) as f64 / 1e3).max(0.1);
        let colour = if record.outcome == Outcome::Done { GOOD } else { BAD };
        Circle::new((record.invoke_us as f64 / 1e6, ms), 2, colour.mix(0.6).filled())
    };
    chart.draw_series(probes().map(point))?;
    for (number, (at_us, what)) in report.marks.iter().enumerate() {
        let at_s = *at_us as f64 / 1e6;
        chart.draw_series([PathElement::new([(at_s, 0.1), (at_s, 20_000.0)], BAD.mix(0.7))])?;
        let height = 15_000.0 / 1.8_f64.powi(number as i32 % 6);
        let style = ("sans-serif", 13).into_font().color(&BAD);
        chart.draw_series([Text::new(what.clone(), (at_s + end_s * 0.003, height), style)])?;
    }

    let mut answered = vec![0.0; (end_s * 1e6) as usize / BUCKET_US as usize + 1];
    for record in records.iter().filter(|record| record.outcome.is_answer() && record.client != u16::MAX) {
        answered[(record.return_us / BUCKET_US) as usize] += 1e6 / BUCKET_US as f64;
    }
    let most = answered.iter().copied().fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&below)
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end_s, 0.0..most * 1.1)?;
    chart.configure_mesh().y_desc("answers a second").x_desc("seconds").light_line_style(WHITE).draw()?;
    let line = answered.iter().enumerate().map(|(at, &count)| (at as f64 * BUCKET_US as f64 / 1e6, count));
    chart.draw_series(LineSeries::new(line, GOOD.stroke_width(2)))?;
    root.present()?;
    Ok(())
}
