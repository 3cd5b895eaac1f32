//! The thread that stores readings: when it wakes, what it commits, and what it does when SQLite fails.
//!
//! It sleeps without a timer while nothing is posted and no window is busy. While windows are busy it writes a
//! heartbeat, so that the next host knows until when a killed one was alive.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::batch::Batch;
use super::calendar::Calendar;
use super::intake::{Intake, Woken};
use super::store::Store;
use super::{COMMIT_WITHIN, Options};
use crate::clock;

/// How long the first reading waits for others to share its commit; the rest of [`COMMIT_WITHIN`] is for the commit.
const GATHER: Duration = Duration::from_millis(40);

/// The most records in one transaction, so that a long backlog neither locks the file for long nor starts over when it
/// fails.
const TRANSACTION_RECORDS_MAX: usize = 16_384;

/// Waits between attempts while SQLite fails. Each is twice as long as the one before.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long a closing ledger keeps trying.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Blocks that are added to the sums at once, and how long to wait before more are.
const SUMMED_AT_ONCE: usize = 512;
const SUM_PAUSE: Duration = Duration::from_millis(20);

/// Old blocks deleted after one commit: twice as many as were written, so that deletion catches up, within these
/// bounds.
const PRUNE_BLOCKS_MIN: usize = 8;
const PRUNE_BLOCKS_MAX: usize = 64;

/// When a failed attempt is repeated.
struct Retry {
    at: Instant,
    wait: Duration,
}

/// How far the date moves before it is stored again.
const DATE_STORED_EVERY: Duration = Duration::from_secs(3600);

/// What the thread owns.
pub(super) struct Writer {
    store: Store,
    intake: Arc<Intake>,
    options: Options,
    batch: Batch,
    /// When the heartbeat was last written.
    beat: Instant,
    gathering: Option<Instant>,
    retry: Option<Retry>,
    prune_failed: bool,
    sum_failed: bool,
    calendar: Calendar,
    /// The date that is in the file.
    stored_date: SystemTime,
}

/// Reports that the thread has ended, even if it panicked.
struct Finish(Arc<Intake>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finished(!std::thread::panicking());
    }
}

impl Writer {
    pub(super) fn new(store: Store, intake: Arc<Intake>, options: Options) -> rusqlite::Result<Writer> {
        let date = store.date()?.unwrap_or_else(clock::date);
        Ok(Writer {
            store,
            intake,
            options,
            batch: Batch::default(),
            beat: Instant::now(),
            gathering: None,
            retry: None,
            prune_failed: false,
            sum_failed: false,
            calendar: Calendar::new(date),
            stored_date: date,
        })
    }

    /// Stores readings until the ledger closes.
    pub(super) fn run(mut self) {
        let _finish = Finish(self.intake.clone());
        self.intake.attend();
        loop {
            let (posts, deadline) = self.next();
            let woken = self.intake.wait(posts, deadline);
            if self.intake.closing() {
                return self.finish();
            }
            if woken == Woken::Posted && self.gathering.is_none() {
                self.gathering = Some(Instant::now() + GATHER);
            } else {
                self.round();
            }
        }
    }

    /// What to wait for: true if a post ends the wait, and the deadline that ends it.
    fn next(&self) -> (bool, Option<Instant>) {
        let beat = self.batch.is_busy().then(|| self.beat + COMMIT_WITHIN);
        // A ledger that was written by an earlier version is added to the sums little by little.
        let sum = self.must_sum_up().then(|| Instant::now() + SUM_PAUSE);
        let beat = [beat, sum].into_iter().flatten().min();
        match (&self.retry, self.gathering) {
            (Some(retry), _) => (false, Some(retry.at)),
            (None, Some(until)) => (false, Some(beat.map_or(until, |beat| beat.min(until)))),
            (None, None) => (true, beat),
        }
    }

    fn round(&mut self) {
        self.gathering = None;
        let ticket = self.intake.flush_wanted();
        let committed = self.commit(false);
        let stored = committed.is_ok();
        match committed {
            Ok(rows) => {
                self.succeeded();
                self.intake.answer(ticket, stored);
                self.prune(rows);
                self.sum_up();
            }
            Err(error) => {
                self.failed(&error);
                self.intake.answer(ticket, stored);
            }
        }
    }

    /// Takes what was posted and stores everything. Returns the number of rows.
    fn commit(&mut self, last: bool) -> rusqlite::Result<usize> {
        // Taken before the readings. So every window that ended before this moment is stored as ended before a
        // heartbeat says that the host was alive at this moment.
        let alive = clock::date();
        self.take(last);
        let mut rows = 0;
        while !self.batch.is_empty() || (rows == 0 && self.batch.is_busy()) {
            let chunk = self.batch.chunk(TRANSACTION_RECORDS_MAX);
            let whole = self.batch.is_whole(chunk);
            let heartbeat = (whole && self.batch.is_busy()).then_some(alive);
            self.store.write(&self.batch, chunk, heartbeat)?;
            let (stored, readings) = self.batch.forget(chunk);
            self.intake.settle(readings);
            rows += stored;
            if whole {
                self.beat = Instant::now();
                break;
            }
        }
        Ok(rows)
    }

    fn take(&mut self, last: bool) {
        let mut all = Vec::new();
        self.intake.drain(last, |taken| all.push(taken));
        let folded = self.batch.take(all);
        self.intake.settle(folded);
    }

    fn succeeded(&mut self) {
        if self.retry.take().is_some() {
            tracing::info!("the ledger stores usage again");
        }
    }

    fn failed(&mut self, error: &rusqlite::Error) {
        if self.retry.is_none() {
            let backlog = self.intake.backlog();
            tracing::error!(%error, backlog, "the ledger cannot store usage; it keeps the readings and tries again");
        }
        let wait = self.retry.as_ref().map_or(RETRY_FIRST, |retry| (retry.wait * 2).min(RETRY_MAX));
        self.retry = Some(Retry { at: Instant::now() + wait, wait });
    }

    fn prune(&mut self, rows: usize) {
        if rows == 0 {
            return; // Only the heartbeat was written.
        }
        let date = self.calendar.date(clock::date());
        let before = |retention| date.checked_sub(retention).unwrap_or(SystemTime::UNIX_EPOCH);
        let blocks_max = (2 * rows).clamp(PRUNE_BLOCKS_MIN, PRUNE_BLOCKS_MAX);
        let (invocations, windows) = (before(self.options.retention), before(self.options.window_retention));
        let pruned = self.store.prune(invocations, windows, blocks_max).and_then(|_| self.store_date(date));
        match pruned {
            Ok(()) => self.prune_failed = false,
            Err(error) if !self.prune_failed => {
                tracing::warn!(%error, "the ledger cannot delete old records");
                self.prune_failed = true;
            }
            Err(_) => {}
        }
    }

    fn must_sum_up(&self) -> bool {
        !self.sum_failed && self.store.unsummed() > self.options.unsummed_max
    }

    /// Adds blocks to the sums of their hours. Where that fails, queries read the blocks.
    fn sum_up(&mut self) {
        if !self.must_sum_up() {
            return;
        }
        if let Err(error) = self.store.sum_up(SUMMED_AT_ONCE) {
            tracing::warn!(%error, "the ledger cannot add up hours; until it starts anew, questions about usage take longer");
            self.sum_failed = true;
        }
    }

    /// Stores the date now and then: a host that is killed may forget an hour.
    fn store_date(&mut self, date: SystemTime) -> rusqlite::Result<()> {
        let moved = date.duration_since(self.stored_date).unwrap_or(DATE_STORED_EVERY);
        if moved >= DATE_STORED_EVERY {
            self.store.set_date(date)?;
            self.stored_date = date;
        }
        Ok(())
    }

    fn finish(mut self) {
        let give_up = Instant::now() + CLOSE_WITHIN;
        while let Err(error) = self.commit(true) {
            if Instant::now() >= give_up {
                let backlog = self.intake.backlog();
                tracing::error!(%error, backlog, "the ledger closes without having stored all usage");
                return;
            }
            self.failed(&error);
            std::thread::sleep(RETRY_FIRST);
        }
        if let Err(error) = self.store.checkpoint() {
            tracing::warn!(%error, "the ledger's log is left beside its file; the next start reads it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::window;
    use super::*;
    use crate::meter::{Reading, WindowReading};

    fn writer(folder: &tempfile::TempDir) -> Writer {
        let store = Store::open(&folder.path().join("ledger.db")).unwrap();
        Writer::new(store, Arc::new(Intake::new(u64::MAX)), Options::default()).unwrap()
    }

    /// Posts a busy window to `writer`.
    fn busy(writer: &mut Writer) {
        writer.intake.post(Reading::Window(&WindowReading { ended: false, busy: true, ..window("f") }));
        writer.commit(false).unwrap();
    }

    #[test]
    fn a_writer_with_nothing_to_do_has_no_timer() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        assert_eq!(writer.next(), (true, None));
        writer.intake.post(Reading::Window(&WindowReading { ended: false, ..window("f") }));
        writer.commit(false).unwrap();
        assert_eq!(writer.next(), (true, None), "an open window in which nothing happens is nothing to do");
    }

    #[test]
    fn a_busy_window_is_the_reason_for_a_timer() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        busy(&mut writer);
        assert_eq!(writer.next(), (true, Some(writer.beat + COMMIT_WITHIN)));
    }

    #[test]
    fn gathering_ends_at_its_time_or_with_the_heartbeat() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        let until = writer.beat + COMMIT_WITHIN * 20;
        writer.gathering = Some(until);
        assert_eq!(writer.next(), (false, Some(until)));
        busy(&mut writer);
        assert_eq!(writer.next(), (false, Some(writer.beat + COMMIT_WITHIN)));
    }

    #[test]
    fn waits_between_attempts_grow_to_their_limit() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        let waits: Vec<u128> = (0..8)
            .map(|_| {
                writer.failed(&rusqlite::Error::InvalidQuery);
                writer.retry.as_ref().unwrap().wait.as_millis()
            })
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        writer.succeeded();
        assert_eq!(writer.next(), (true, None));
    }
}
