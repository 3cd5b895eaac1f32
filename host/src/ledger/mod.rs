//! The ledger: receives readings, stores them in SQLite, and answers what was used.
//!
//! `meter.rs` posts readings from `Drop`; [`Ledger::post`] packs them into blocks (`block.rs`, `rows.rs`) in the shards
//! of `intake.rs` and returns. One thread (`writer.rs`) takes the blocks, drops duplicates (`batch.rs`) and commits
//! groups of blocks (`store.rs`), each block as one row of SQLite; later it adds them to the sums of their hours (`hours.rs`).
//! Queries (`usage.rs` and `by_key.rs` for sums, `records.rs` for
//! single records) open their own read-only connection on the caller's thread and read the blocks (`query.rs`).
//!
//! Invariants:
//!
//! - A posted reading is stored within [`COMMIT_WITHIN`], or it waits until SQLite works again; none is dropped.
//! - An open window has a row of its own, which later readings replace. The transaction that stores its end deletes
//!   this row and adds one record to a block, so no reading is ever charged twice.
//! - While no window is busy and nothing is posted, no timer runs and the thread sleeps.
//!
//! The ledger calls no other part of the host. It does not guard against a second host on the same file: the owner of
//! the state directory does.

mod batch;
mod block;
mod by_key;
mod calendar;
mod checkpoint;
mod exact;
mod hours;
mod intake;
mod query;
mod records;
mod rows;
mod store;
#[cfg(test)]
mod tests;
mod time;
mod usage;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};

pub use query::{EVERY_FUNCTION, QueryError, Visible};
pub use records::{InvocationPage, InvocationRecord, RecordQuery, WindowPage, WindowRecord, WindowState};
pub use usage::{Group, Sums, Usage, UsageGroup, UsageQuery};

use crate::meter;
use intake::Intake;
use store::Store;
use writer::Writer;

/// A reading is committed this long after it was posted, unless SQLite fails or cannot keep up.
pub const COMMIT_WITHIN: Duration = Duration::from_millis(50);

/// Readings that may wait to be stored before [`Ledger::has_room`] returns false: about 50 MB of memory.
pub const BACKLOG_MAX: u64 = 1_000_000;

/// How long invocation records are kept by default.
pub const INVOCATION_RETENTION: Duration = Duration::from_secs(30 * 86_400);

/// How long window records, from which the bill is made, are kept by default.
pub const WINDOW_RETENTION: Duration = Duration::from_secs(400 * 86_400);

/// Blocks that wait by default until they are added to the sums of their hours: few enough to be read for every query.
const UNSUMMED_MAX: usize = 256;

/// The longest that a query waits for the writer.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// An operator's settings for a ledger.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long invocation records are kept.
    pub retention: Duration,
    /// How long window records are kept.
    pub window_retention: Duration,
    /// Blocks of windows that wait until they are added to the sums of their hours.
    pub unsummed_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { retention: INVOCATION_RETENTION, window_retention: WINDOW_RETENTION, unsummed_max: UNSUMMED_MAX }
    }
}

/// An open ledger. Dropping it stores everything posted, as [`Ledger::close`] does.
pub struct Ledger {
    path: PathBuf,
    intake: Arc<Intake>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Ledger {
    /// Opens the ledger at `path`, or creates it, and closes the windows that a killed host left open. It blocks.
    pub fn open(path: &Path, options: Options) -> anyhow::Result<Ledger> {
        let store = Store::open(path)?;
        let intake = Arc::new(Intake::new(BACKLOG_MAX));
        let writer = Writer::new(store, intake.clone(), options)?;
        let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || writer.run());
        let writer = Mutex::new(Some(thread.context("start the ledger's thread")?));
        Ok(Ledger { path: path.to_owned(), intake, writer })
    }

    /// The function to which meters post their readings. It takes a lock that is held only for a push, and never waits
    /// for SQLite.
    pub fn post(&self) -> meter::Post {
        let intake = self.intake.clone();
        Arc::new(move |reading| intake.post(reading))
    }

    /// Readings that were posted and are not stored yet.
    pub fn backlog(&self) -> u64 {
        self.intake.backlog()
    }

    /// True if new work may begin. False while [`BACKLOG_MAX`] readings wait, so that work is refused and not lost.
    pub fn has_room(&self) -> bool {
        self.intake.has_room()
    }

    /// Whether the last attempt to store readings succeeded.
    pub fn healthy(&self) -> bool {
        self.intake.healthy()
    }

    /// Stores everything posted before this call. It blocks, at most for some seconds.
    pub fn flush(&self) -> Result<(), QueryError> {
        if self.intake.flush(FLUSH_WITHIN) { Ok(()) } else { Err(QueryError::Behind) }
    }

    /// Stores everything posted, writes the write-ahead log back into the file and ends the thread. It blocks. A second
    /// call does nothing. Readings that are posted afterwards are not stored, which is logged as an error.
    pub fn close(&self) -> anyhow::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = writer.take() {
            self.intake.close();
            ensure!(thread.join().is_ok(), "the ledger's thread panicked");
        }
        let unsaved = self.backlog();
        ensure!(unsaved == 0, "{unsaved} readings could not be stored in `{}`", self.path.display());
        Ok(())
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(error = format!("{error:#}"), "the ledger did not close in order");
        }
    }
}
