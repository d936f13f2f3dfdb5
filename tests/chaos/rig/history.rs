//! What clients asked for and what they were told, in the order they were told.

use serde::Serialize;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What a client does, and thereby which check applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// Writes every key once.
    Unique,
    /// Increments without request ids: what is in doubt may have been done.
    Counter,
    /// Increments with request ids: each is done once.
    NumberedCounter,
    /// Reads, writes, and swaps if nobody else did; several clients a key.
    Register,
    /// Writes with a time to live, and reads around its end.
    Expiry,
    /// Writes, deletes, reads.
    Delete,
    /// Takes locks, and writes to what they guard.
    Lock,
    /// Writes to one partition over and over, to see when it is served.
    Probe,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Set(String),
    SetFor {
        value: String,
        ttl_ms: u64,
    },
    Get,
    Delete,
    Add(i64),
    Swap {
        expected: Option<String>,
        value: String,
    },
    Lock {
        lease_ms: u64,
    },
    Unlock,
    /// The resource that a lock guards was shown this token.
    Guarded([u64; 3]),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Done,
    Value(Option<String>),
    Number(i64),
    /// Whether a conditional action did something.
    Flag(bool),
    Token([u64; 3]),
    /// It was not done, and won't be; why.
    Refused(String),
    /// It may have been done, or may be yet; why that isn't known.
    Doubt(String),
}

impl Outcome {
    /// Whether it was done, or a condition kept it from being.
    pub fn is_answer(&self) -> bool {
        !matches!(self, Outcome::Refused(_) | Outcome::Doubt(_))
    }
}

/// One action of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    pub load: Load,
    pub client: u16,
    /// The node that was asked, by its place; none for the QUIC client, which chooses itself.
    pub node: Option<usize>,
    pub key: String,
    pub action: Action,
    /// Microseconds of the [`Recorder`].
    pub invoke_us: u64,
    pub return_us: u64,
    pub outcome: Outcome,
}

/// Collects records. Clones share them.
#[derive(Clone)]
pub struct Recorder {
    start: Instant,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { start: Instant::now(), records: Arc::default() }
    }
}

impl Recorder {
    /// Microseconds since the beginning.
    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    pub fn add(&self, record: Record) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }

    /// How many actions were answered so far.
    pub fn answered(&self) -> usize {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().filter(|record| record.outcome.is_answer()).count()
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes records to a file, one a line.
///
/// # Errors
/// What the file system says.
pub fn save(records: &[Record], file: &Path) -> std::io::Result<()> {
    let mut out = BufWriter::new(std::fs::File::create(file)?);
    for record in records {
        serde_json::to_writer(&mut out, record)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
