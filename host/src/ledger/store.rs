//! The ledger's SQLite file: opening and checking it, recovery after a kill, transactions, and deletion by age.
//!
//! Owned by the writer's thread after [`Store::open`]. It never waits for work and knows nothing of shards.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use super::batch::{Batch, Chunk};
use super::block::{Block, INVOCATION_BLOCKS, Key, Rows, WINDOW_BLOCKS, damaged};
use super::checkpoint::Checkpoints;
use super::hours;
use super::rows::{State, WindowRow};
use super::time::{from_unix_us, to_unix_us};
use crate::meter::WindowReading;
use crate::sqlite::{self, Schema};

const SCHEMA: Schema = Schema {
    version: 6,
    create: concat!(include_str!("schema.sql"), include_str!("schema_5_to_6.sql")),
    // Version 1 was never released. Version 3 has rows that say who called, and version 5 rows that say with which key
    // (`rows.rs`), which the versions before cannot read.
    migrations: &[
        (2, ""),
        (3, "ALTER TABLE heartbeat ADD COLUMN date_us INTEGER NOT NULL DEFAULT 0"),
        (4, ""),
        (5, include_str!("schema_5_to_6.sql")),
    ],
    unmarked_version: 0,
    shrinks: false,
};

/// A file of up to this size is checked as a whole when it is opened. Checking a larger one would delay the host's
/// start.
const CHECK_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// The writer checkpoints the log by itself when it has this many pages: 32 MB.
const AUTOCHECKPOINT_PAGES: u32 = 8192;

/// How long SQLite itself waits for a lock. Nobody else should hold one, so this is only for an operator's shell.
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// The writer numbers the records, and keeps the numbers when it retries a transaction, so that no attempt adds a
/// second row.
const PUT_BLOCK: &str = "(id, function, version, first_us, last_us, count, rows)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (id) DO NOTHING";

const PUT_OPEN: &str = "
    INSERT OR REPLACE INTO open_windows (instance, sequence, function, version, start_us, row)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const END_OPEN: &str = "DELETE FROM open_windows WHERE instance = ?1 AND sequence = ?2";

const PUT_HEARTBEAT: &str = "UPDATE heartbeat SET at_us = ?1 WHERE id = 1";

/// A block is old when its last record is.
const PRUNE: &str = "WHERE first_us < ?1 AND last_us < ?1 ORDER BY first_us LIMIT ?2";

/// The connection that writes.
pub(super) struct Store {
    connection: Connection,
    /// `None` when the store closes.
    checkpoints: Option<Checkpoints>,
    /// The numbers of the next records.
    next_window: i64,
    next_invocation: i64,
    /// Blocks of windows that are in no sum yet.
    unsummed: usize,
}

impl Store {
    /// Opens or creates the file, and closes the windows that a killed host left open.
    pub(super) fn open(path: &Path) -> anyhow::Result<Store> {
        let store = open(path).map_err(|error| match damage(&error) {
            true => error.context(format!(
                "`{0}` is damaged or no ledger. Restore it from a backup, or save what is readable with \
                 `sqlite3 '{0}' .recover`; to start with an empty ledger, move the file and its `-wal` and `-shm` away",
                path.display()
            )),
            false => error.context(format!("open the ledger `{}`", path.display())),
        })?;
        Ok(store)
    }

    /// Stores `chunk` of `batch` and, if given, the heartbeat, all or nothing.
    pub(super) fn write(&mut self, batch: &Batch, chunk: Chunk, heartbeat: Option<SystemTime>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for window in batch.open(chunk) {
            put_open(&transaction, window)?;
        }
        let next_window = put_blocks(&transaction, WINDOW_BLOCKS, self.next_window, batch.windows(chunk))?;
        let invocations = batch.invocations(chunk);
        let next_invocation = put_blocks(&transaction, INVOCATION_BLOCKS, self.next_invocation, invocations)?;
        if let Some(at) = heartbeat {
            transaction.prepare_cached(PUT_HEARTBEAT)?.execute([to_unix_us(at)])?;
        }
        transaction.commit()?;
        (self.next_window, self.next_invocation) = (next_window, next_invocation);
        self.unsummed += batch.windows(chunk).count();
        if let Some(checkpoints) = &mut self.checkpoints {
            let blocks = batch.windows(chunk).chain(batch.invocations(chunk));
            checkpoints.added(blocks.map(|block| block.rows.len()).sum());
        }
        Ok(())
    }

    /// Blocks of windows that are in no sum yet.
    pub(super) fn unsummed(&self) -> usize {
        self.unsummed
    }

    /// Adds at most so many of them to the sums.
    pub(super) fn sum_up(&mut self, blocks_max: usize) -> rusqlite::Result<()> {
        let summed = hours::sum_up(&mut self.connection, blocks_max)?;
        self.unsummed = if summed < blocks_max { 0 } else { self.unsummed.saturating_sub(summed) };
        Ok(())
    }

    /// The date by which records grow old; in a file that has none yet, of its last sign of life.
    pub(super) fn date(&self) -> rusqlite::Result<Option<SystemTime>> {
        let sql = "SELECT iif(date_us = 0, at_us, date_us) FROM heartbeat";
        let date_us: i64 = self.connection.query_row(sql, (), |row| row.get(0))?;
        Ok((date_us > 0).then(|| from_unix_us(date_us)))
    }

    /// Stores that date.
    pub(super) fn set_date(&self, date: SystemTime) -> rusqlite::Result<()> {
        let mut set = self.connection.prepare_cached("UPDATE heartbeat SET date_us = ?1 WHERE id = 1")?;
        set.execute([to_unix_us(date)]).map(drop)
    }

    /// Deletes at most `blocks_max` blocks of invocations and as many of windows, if all their records started before
    /// the given times. Returns the number of deleted blocks.
    pub(super) fn prune(
        &self,
        invocations: SystemTime,
        windows: SystemTime,
        blocks_max: usize,
    ) -> rusqlite::Result<usize> {
        let mut pruned = 0;
        for (table, before) in [(INVOCATION_BLOCKS, invocations), (WINDOW_BLOCKS, windows)] {
            let sql = format!("DELETE FROM {table} WHERE id IN (SELECT id FROM {table} {PRUNE})");
            pruned += self.connection.prepare_cached(&sql)?.execute(params![to_unix_us(before), blocks_max])?;
        }
        hours::prune(&self.connection, to_unix_us(windows))?;
        Ok(pruned)
    }

    /// Checkpoints the whole write-ahead log before the file is closed.
    pub(super) fn checkpoint(&mut self) -> rusqlite::Result<()> {
        self.checkpoints = None;
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
    }
}

/// Stores `blocks`, whose records are numbered from `next`, and deletes the rows of windows that were open before.
/// Returns the number after the last.
fn put_blocks<'a>(
    connection: &Connection,
    table: &str,
    mut next: i64,
    blocks: impl Iterator<Item = &'a Block>,
) -> rusqlite::Result<i64> {
    let mut put = connection.prepare_cached(&format!("INSERT INTO {table} {PUT_BLOCK}"))?;
    for block in blocks {
        let Block { first_us, last_us, count, rows, .. } = block;
        put.execute(params![next, block.function.as_str(), &*block.version, first_us, last_us, count, rows])?;
        next += i64::from(*count);
        for key in &block.ends {
            connection.prepare_cached(END_OPEN)?.execute(params![number(key), key.1])?;
        }
    }
    Ok(next)
}

/// An instance's identifier as SQLite's integer.
fn number((instance, _): &Key) -> i64 {
    instance.as_u64().cast_signed()
}

fn put_open(connection: &Connection, window: &WindowReading) -> rusqlite::Result<()> {
    let row = WindowRow::from(window);
    let mut block = Block::new(window.function.clone(), window.version.clone(), row.start_us);
    block.add_window(&row);
    let mut put = connection.prepare_cached(PUT_OPEN)?;
    let key = number(&(window.instance, window.sequence));
    put.execute(params![key, row.sequence, window.function.as_str(), &*window.version, row.start_us, block.rows])?;
    Ok(())
}

/// Closes the windows that a killed host left open. Returns their number.
///
/// The host was alive until the heartbeat. A busy window's clocks ran until then. One that was not busy was lingering,
/// which is not charged, or suspended, so its clocks were stopped.
fn close_lost(connection: &mut Connection) -> anyhow::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let beat_us: i64 = transaction.query_row("SELECT at_us FROM heartbeat", (), |row| row.get(0))?;
    let mut lost = Vec::new();
    let mut select = transaction.prepare("SELECT function, version, start_us, row FROM open_windows")?;
    let mut stored = select.query(())?;
    while let Some(row) = stored.next()? {
        let (function, version): (String, String) = (row.get(0)?, row.get(1)?);
        let (start_us, bytes): (i64, Vec<u8>) = (row.get(2)?, row.get(3)?);
        let mut window = Rows::new(&bytes, start_us).window().ok_or_else(|| damaged("an open window"))?;
        if window.busy {
            let grown_us = beat_us.saturating_sub(window.at_us).max(0);
            let grown_ns = grown_us.unsigned_abs().saturating_mul(1000);
            window.open_ns = window.open_ns.saturating_add(grown_ns);
            window.duration_ns = window.duration_ns.saturating_add(grown_ns);
            window.at_us += grown_us;
        }
        (window.state, window.busy) = (State::Lost, false);
        let mut block = Block::new(function.parse()?, version.into(), start_us);
        block.add_window(&window);
        lost.push(block);
    }
    drop(stored);
    drop(select);
    let next = next_number(&transaction, WINDOW_BLOCKS)?.max(hours::summed_to(&transaction)?);
    put_blocks(&transaction, WINDOW_BLOCKS, next, lost.iter())?;
    transaction.execute("DELETE FROM open_windows", ())?;
    transaction.commit()?;
    Ok(lost.len())
}

/// The number after the last record of `table`.
fn next_number(connection: &Connection, table: &str) -> rusqlite::Result<i64> {
    let sql = format!("SELECT coalesce((SELECT id + count FROM {table} ORDER BY id DESC LIMIT 1), 1)");
    connection.query_row(&sql, (), |row| row.get(0))
}

fn open(path: &Path) -> anyhow::Result<Store> {
    let mut connection = sqlite::open(path, &SCHEMA)?;
    connection.busy_timeout(BUSY_WAIT)?;
    // Otherwise a statement is planned again whenever its parameters change, which costs more than running it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    if std::fs::metadata(path)?.len() <= CHECK_BYTES_MAX {
        let fault: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
        if fault != "ok" {
            return Err(damaged(&fault).into());
        }
    }
    sqlite::write_ahead(&connection)?;
    // A commit is then a plain write to the log, which survives a killed process. Only a crash of the machine can lose
    // the last commits, and it cannot damage the file. Waiting for the disk would cost milliseconds per commit.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // `checkpoint.rs` does this much earlier, unless it gets no CPU. After a burst, at most 64 MB of log are kept.
    connection.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    let lost = close_lost(&mut connection).context("close the windows that were open")?;
    if lost > 0 {
        tracing::warn!(windows = lost, "the host was killed before; windows were closed at its last sign of life");
    }
    // Never again a number that is in the sums, even if all its windows are deleted.
    let next_window = next_number(&connection, WINDOW_BLOCKS)?.max(hours::summed_to(&connection)?);
    let next_invocation = next_number(&connection, INVOCATION_BLOCKS)?;
    let unsummed = hours::unsummed(&connection)?;
    let checkpoints = Some(Checkpoints::start(path)?);
    Ok(Store { connection, checkpoints, next_window, next_invocation, unsummed })
}

fn damage(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}
