//! What is going on, on standard error: one line that is written over on a terminal, else a line a step.

use std::io::{IsTerminal, Write};
use std::time::Instant;

pub struct Progress {
    start: Instant,
    is_terminal: bool,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { start: Instant::now(), is_terminal: std::io::stderr().is_terminal() }
    }

    /// Says what begins.
    pub fn step(&self, what: &str) {
        if self.is_terminal {
            self.write_over(what);
        } else {
            eprintln!("{:>5} s  {what}", self.start.elapsed().as_secs());
        }
    }

    /// Says which run of a row begins, to somebody who watches.
    pub fn run(&self, what: &str, run: usize, of: usize) {
        if self.is_terminal {
            self.write_over(&format!("{what}: run {run} of {of}"));
        }
    }

    /// Makes room for what stays.
    pub fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }

    fn write_over(&self, text: &str) {
        eprint!("\r\x1b[K{:>5} s  {text}", self.start.elapsed().as_secs());
        // Nobody is harmed by progress that isn't shown.
        let _ = std::io::stderr().flush();
    }
}
