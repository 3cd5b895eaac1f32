//! The thread that copies lines from memory into the file.
//!
//! It has no queue of its own: memory holds the lines until it comes. If it comes too late, because the disk is slow or full,
//! the oldest are lost, and their numbers are missing in the log.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use super::Log;
use super::reader::Reader;
use super::store::{Owner, Store, StoreBounds};
use crate::clock;

/// How long the first line waits for others to be stored with it.
const GATHER: Duration = Duration::from_millis(500);
/// Waits after a failure, each twice as long as the one before.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often it looks for lines that have become too old.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// It is said once in so long that lines were lost.
const LOSS_TOLD_EVERY: Duration = Duration::from_secs(60);

/// How much of functions' logs is kept on disk.
#[derive(Clone, Copy, Debug)]
pub struct LogBounds {
    /// Of all together; 0: nothing.
    pub bytes_max: u64,
    /// Of one function.
    pub function_bytes_max: u64,
    /// For how long.
    pub kept_for: Duration,
}

/// All functions' logs.
pub struct Logs {
    due: Arc<Due>,
    stored: Mutex<HashMap<Owner, u64>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread has to do. Logs know it, so that it learns of their lines.
pub(super) struct Due {
    reader: Option<Reader>,
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Default)]
struct Work {
    logs: Vec<Log>,
    forgotten: Vec<Owner>,
    is_urgent: bool,
    closing: bool,
}

impl Logs {
    /// Logs whose lines are in memory only.
    pub fn in_memory() -> Logs {
        Logs::new(None, HashMap::new())
    }

    /// Logs that are kept in the file; if nothing may be kept or the file cannot be used, in memory only.
    pub fn open(path: &Path, bounds: LogBounds) -> Logs {
        if bounds.bytes_max == 0 {
            return Logs::in_memory();
        }
        Logs::on_disk(path, bounds).unwrap_or_else(|error| {
            tracing::error!(
                "functions' logs are in memory only, because of the file {0}: {error:#}. To begin a new one, stop the host and move \
                 it away with its `-wal` and `-shm`",
                path.display()
            );
            Logs::in_memory()
        })
    }

    fn on_disk(path: &Path, bounds: LogBounds) -> anyhow::Result<Logs> {
        let LogBounds { bytes_max, function_bytes_max, kept_for } = bounds;
        let store = Store::open(path, StoreBounds { bytes_max, function_bytes_max })?;
        // Lines of a host that was killed may be missing. Those that follow leave their numbers out, so that whoever has seen one
        // of them does not take a new line for it.
        let missing = if store.begin()? { super::LINES_MAX as u64 } else { 0 };
        let stored = store.owners().map(|owner| (owner.clone(), store.newest(owner) + missing)).collect();
        let logs = Logs::new(Some(Reader::open(path)?), stored);
        let writer = Writer { store, due: logs.due.clone(), kept_for, retry: None, loss_told: None };
        let thread = thread::Builder::new().name("logs".to_owned()).spawn(move || writer.run());
        *logs.thread.lock().expect("no holder of this lock panics") = Some(thread.context("start a thread")?);
        Ok(logs)
    }

    fn new(reader: Option<Reader>, stored: HashMap<Owner, u64>) -> Logs {
        let due = Due { reader, work: Mutex::default(), changed: Condvar::new() };
        Logs { due: Arc::new(due), stored: Mutex::new(stored), thread: Mutex::default() }
    }

    /// The log of a function that is made known, which happens once.
    pub fn of(&self, owner: Owner) -> Log {
        let stored = self.stored().remove(&owner).unwrap_or(0);
        Log::new(owner, stored, self.due.clone())
    }

    /// Deletes the lines of a function that is deleted.
    pub fn forget(&self, log: &Log) {
        log.forget();
        self.due.forget(log.0.owner.clone());
    }

    /// Deletes the lines of functions whose logs were not asked for with [`Logs::of`]: they were deleted just before the host
    /// ended.
    pub fn forget_others(&self) {
        for (owner, _) in self.stored().drain() {
            self.due.forget(owner);
        }
    }

    /// Stores what is not stored yet, and ends the thread.
    pub fn close(&self) {
        self.due.lock().closing = true;
        self.due.changed.notify_one();
        let thread = self.thread.lock().expect("no holder of this lock panics").take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that stores functions' logs has panicked");
        }
    }

    fn stored(&self) -> MutexGuard<'_, HashMap<Owner, u64>> {
        self.stored.lock().expect("no holder of this lock panics")
    }
}

impl Due {
    /// A line was written. If the log was due before, only that it is urgent now is news.
    pub(super) fn note(&self, log: &Log, was_due: bool, is_urgent: bool) {
        if self.reader.is_none() || (was_due && !is_urgent) {
            return;
        }
        let mut work = self.lock();
        if !was_due {
            work.logs.push(log.clone());
        }
        if !was_due || !work.is_urgent {
            work.is_urgent |= is_urgent;
            drop(work);
            self.changed.notify_one();
        }
    }

    fn forget(&self, owner: Owner) {
        if self.reader.is_some() {
            self.lock().forgotten.push(owner);
            self.changed.notify_one();
        }
    }

    /// Where lines are that memory has no more.
    pub(super) fn store(&self) -> Option<&Reader> {
        self.reader.as_ref()
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().expect("no holder of this lock panics")
    }

    /// Waits until something is to be done, for so long at most, and a moment more for what belongs to it. With `rest` it is not
    /// asked before that time is over.
    fn wait(&self, rest: Option<Duration>) -> Work {
        let poisoned = "no holder of this lock panics";
        let is_idle =
            |work: &mut Work| !work.closing && (rest.is_some() || (work.logs.is_empty() && work.forgotten.is_empty()));
        let wait = rest.unwrap_or(PRUNE_EVERY);
        let (work, _) = self.changed.wait_timeout_while(self.lock(), wait, is_idle).expect(poisoned);
        let gathers = |work: &mut Work| !work.closing && !work.is_urgent && !work.logs.is_empty();
        let (mut work, _) = self.changed.wait_timeout_while(work, GATHER, gathers).expect(poisoned);
        let closing = work.closing;
        Work { closing, ..std::mem::take(&mut *work) }
    }
}

/// What the thread owns.
struct Writer {
    store: Store,
    due: Arc<Due>,
    kept_for: Duration,
    /// How long it waits after a failure; none: it did not fail.
    retry: Option<Duration>,
    loss_told: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        // The bounds may have become smaller.
        let pruned = self.prune();
        self.note(pruned);
        loop {
            let work = self.due.wait(self.retry);
            let closing = work.closing;
            let result = self.store(work).and_then(|()| if closing { self.store.end() } else { self.prune() });
            self.note(result);
            if closing {
                return;
            }
        }
    }

    /// Says when storing begins to fail, and when it works again.
    fn note(&mut self, result: anyhow::Result<()>) {
        match result {
            Ok(()) => {
                if self.retry.take().is_some() {
                    tracing::info!("functions' logs are stored again");
                }
            }
            Err(error) => {
                if self.retry.is_none() {
                    tracing::error!("functions' logs cannot be stored; the newest lines stay in memory: {error:#}");
                }
                self.retry = Some(self.retry.map_or(RETRY_FIRST, |wait| (wait * 2).min(RETRY_MAX)));
            }
        }
    }

    /// Stores the lines of the logs that are due, and deletes those of functions that are deleted.
    fn store(&mut self, work: Work) -> anyhow::Result<()> {
        let (mut logs, mut added) = (Vec::new(), Vec::new());
        for log in work.logs {
            let Some((lines, lost)) = log.unstored() else { continue };
            self.tell_loss(&log, lost);
            if !lines.is_empty() {
                added.push((log.0.owner.clone(), lines));
                logs.push(log);
            }
        }
        let (written, mut result) = self.store.write(&added);
        for (log, (_, lines)) in logs.iter().zip(&added).take(written) {
            log.note_stored(lines.last().map_or(0, |last| last.sequence));
        }
        for log in logs.into_iter().skip(written) {
            // It may have become due again meanwhile.
            if !std::mem::replace(&mut log.lock().is_due, true) {
                self.due.lock().logs.push(log);
            }
        }
        for owner in work.forgotten {
            result = result.and_then(|()| self.forget(&owner));
            if result.is_err() {
                self.due.lock().forgotten.push(owner);
            }
        }
        result
    }

    fn forget(&mut self, owner: &Owner) -> anyhow::Result<()> {
        while self.store.forget(owner)? {}
        Ok(())
    }

    fn prune(&mut self) -> anyhow::Result<()> {
        while self.store.prune(clock::ago(self.kept_for))? {
            // Lines do not wait until all is deleted.
            if !self.due.lock().logs.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn tell_loss(&mut self, log: &Log, lost: u64) {
        if lost == 0 || self.loss_told.is_some_and(|told| told.elapsed() < LOSS_TOLD_EVERY) {
            return;
        }
        self.loss_told = Some(Instant::now());
        let function = log.0.owner.function.as_str();
        tracing::warn!(
            function,
            lost,
            "lines of a function's log were written faster than they could be stored, and are lost"
        );
    }
}
