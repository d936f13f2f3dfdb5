//! How rows come about: runs of both sides by turns, printed as they are known.

use super::Failure;
use super::cost::{Cost, Costly, Side};
use super::progress::Progress;
use super::redis::Folder;
use super::rows::{Bar, Pair, Row, Samples, Section, Unit};
use super::table;
use std::io::Write;

/// Clients of all loads that are to keep a server busy.
pub const CLIENTS: u32 = 50;
/// Different keys, and bytes of a value, where nothing else is said.
pub const KEYS: u64 = 1_000_000;
pub const VALUE_BYTES: u32 = 64;

/// A comparison under way.
pub struct Comparison {
    /// Runs of each side a row.
    pub runs: usize,
    /// Whether fewer rows are measured, with fewer commands.
    pub is_quick: bool,
    /// Entries of which the memory is measured.
    pub memory_keys: u64,
    pub folder: Folder,
    pub progress: Progress,
    sections: Vec<Section>,
}

impl Comparison {
    pub fn new(runs: usize, is_quick: bool, memory_keys: u64) -> Result<Comparison, Failure> {
        let (folder, progress) = (Folder::create()?, Progress::new());
        Ok(Comparison { runs, is_quick, memory_keys, folder, progress, sections: Vec::new() })
    }

    /// What was measured.
    pub fn into_sections(self) -> Vec<Section> {
        self.sections
    }

    /// Begins a section.
    pub fn section(&mut self, title: &'static str, note: String) -> Result<(), Failure> {
        let section = Section { title, note, rows: Vec::new() };
        self.print(&table::heading(&section))?;
        self.sections.push(section);
        Ok(())
    }

    /// Adds a row to the section.
    pub fn row(&mut self, row: Row) -> Result<(), Failure> {
        self.print(&table::line(&row))?;
        if let Some(section) = self.sections.last_mut() {
            section.rows.push(row);
        }
        Ok(())
    }

    fn print(&self, text: &str) -> Result<(), Failure> {
        self.progress.clear();
        let mut stdout = std::io::stdout();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Runs both sides, 0 (ringdove's) and 1, by turns, so that what else the machine does falls on both.
    pub async fn by_turns<T>(
        &self,
        what: &str,
        run: impl AsyncFn(usize) -> Result<T, Failure>,
    ) -> Result<Pair<Vec<T>>, Failure> {
        let mut all = [Vec::new(), Vec::new()];
        for round in 0..self.runs {
            self.progress.run(what, round + 1, self.runs);
            for turn in 0..2 {
                let side = (round + turn) % 2;
                all[side].push(run(side).await?);
            }
        }
        Ok(all)
    }

    /// As many commands as measure something, fewer where that is to be quick.
    pub fn requests(&self, count: u64) -> u64 {
        if self.is_quick { count / 2 } else { count }
    }

    /// What a load costs both sides.
    pub async fn costs(
        &self,
        what: &str,
        sides: &Pair<(Side<'_>, impl Costly)>,
    ) -> Result<Pair<Vec<Cost>>, Failure> {
        self.by_turns(what, async |side| {
            let (side, load) = &sides[side];
            side.cost(load).await
        })
        .await
    }

    /// A row of processor time an operation.
    pub async fn cpu_row(
        &mut self,
        what: String,
        beside: Option<&'static str>,
        bar: f64,
        sides: &Pair<(Side<'_>, impl Costly)>,
    ) -> Result<(), Failure> {
        let costs = self.costs(&what, sides).await?;
        let of = |figure: fn(&Cost) -> f64| costs.each_ref().map(|runs| Samples::of(runs.iter().map(figure)));
        let (figures, wall) = (of(|cost| cost.cpu_us), Some(of(|cost| cost.per_second)));
        self.row(Row { what, unit: Unit::CpuUs, beside, figures, wall, bar: Bar::AtMost(bar) })
    }
}
