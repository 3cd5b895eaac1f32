//! The ledger's SQLite file: opening and checking it, recovery after a kill, transactions, and deletion by age.
//!
//! Owned by the writer's thread after [`Store::open`]. It never waits for work and knows nothing of shards.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};

use super::batch::{self, Batch, Key, Numbers};
use super::block::{Block, Blocks};
use super::record::{Invocation, Record, Window};
use super::time::to_unix_us;

/// The version of the schema, in the file's `user_version`.
const SCHEMA_VERSION: i32 = 2;

/// `DORM`: tells a ledger from other SQLite files.
const APPLICATION_ID: i32 = 0x444f_524d;

const SCHEMA: &str = include_str!("schema.sql");

/// A smaller file is checked as a whole when it is opened; checking a large one would hold up the host's start.
const CHECK_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// How long SQLite itself waits for a lock. Nobody else should hold one, so this is only for an operator's shell.
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// Blocks keep their numbers when a transaction is tried again, so no attempt adds a second row.
const PUT_BLOCK: &str = "
    INSERT INTO blocks (kind, id, first_us, last_us, first_number, records, function, data)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (kind, id) DO NOTHING";

const PUT_OPEN_WINDOW: &str = "INSERT OR REPLACE INTO open_windows (instance, sequence, data) VALUES (?1, ?2, ?3)";

const DELETE_OPEN_WINDOW: &str = "DELETE FROM open_windows WHERE instance = ?1 AND sequence = ?2";

const PUT_HEARTBEAT: &str = "UPDATE heartbeat SET at_us = ?1 WHERE id = 1";

const PRUNE: &str = "
    DELETE FROM blocks WHERE kind = ?1 AND id IN (
        SELECT id FROM blocks WHERE kind = ?1 AND first_us < ?2 AND last_us < ?2 ORDER BY first_us LIMIT ?3)";

/// The connection that writes.
pub(super) struct Store {
    connection: Connection,
    /// Windows that have a row as open ones.
    open: HashSet<Key>,
    numbers: Numbers,
}

impl Store {
    /// Opens or makes the file, and closes what a killed host left open.
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

    /// The numbers that came next when the file was opened.
    pub(super) fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// Whether the window has a row as an open one.
    pub(super) fn has_open(&self, key: &Key) -> bool {
        !self.open.is_empty() && self.open.contains(key)
    }

    /// Stores `batch` and the heartbeat, all or nothing; how many rows it wrote.
    pub(super) fn write(&mut self, batch: &mut Batch, heartbeat: SystemTime) -> rusqlite::Result<usize> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut rows = put_blocks(&transaction, Window::KIND, batch.windows())?;
        rows += put_blocks(&transaction, Invocation::KIND, batch.invocations())?;
        let mut put = transaction.prepare_cached(PUT_OPEN_WINDOW)?;
        for reading in batch.open() {
            let (instance, sequence) = batch::key(reading);
            // Writing plain values into memory cannot fail.
            let data = postcard::to_allocvec(&Window::from(reading)).unwrap_or_default();
            rows += put.execute(params![instance.as_u64().cast_signed(), sequence, data])?;
        }
        drop(put);
        let mut delete = transaction.prepare_cached(DELETE_OPEN_WINDOW)?;
        for (instance, sequence) in batch.ended() {
            delete.execute(params![instance.as_u64().cast_signed(), sequence])?;
        }
        drop(delete);
        transaction.prepare_cached(PUT_HEARTBEAT)?.execute([to_unix_us(heartbeat)])?;
        transaction.commit()?;
        self.open.extend(batch.open().map(batch::key));
        for key in batch.ended() {
            self.open.remove(key);
        }
        Ok(rows)
    }

    /// Deletes at most `blocks_max` blocks of invocations and as many of windows that all started before the given
    /// times.
    pub(super) fn prune(
        &self,
        invocations: SystemTime,
        windows: SystemTime,
        blocks_max: usize,
    ) -> rusqlite::Result<usize> {
        let blocks_max = i64::try_from(blocks_max).unwrap_or(i64::MAX);
        let mut prune = self.connection.prepare_cached(PRUNE)?;
        let pruned = prune.execute([Invocation::KIND, to_unix_us(invocations), blocks_max])?;
        Ok(pruned + prune.execute([Window::KIND, to_unix_us(windows), blocks_max])?)
    }

    /// Folds the write-ahead log into the file.
    pub(super) fn checkpoint(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
    }
}

fn put_blocks(transaction: &Transaction<'_>, kind: i64, blocks: &[Block]) -> rusqlite::Result<usize> {
    let mut put = transaction.prepare_cached(PUT_BLOCK)?;
    for block in blocks {
        put.execute(params![
            kind,
            block.id,
            block.first_us,
            block.last_us,
            block.first_number,
            block.records,
            block.function,
            block.data,
        ])?;
    }
    Ok(blocks.len())
}

fn open(path: &Path) -> anyhow::Result<Store> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_WAIT)?;
    prepare_schema(&mut connection)?;
    if std::fs::metadata(path)?.len() <= CHECK_BYTES_MAX {
        let fault: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
        if fault != "ok" {
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(corrupt, Some(fault)).into());
        }
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
    ensure!(mode == "wal", "its file system does not let SQLite write ahead");
    // A commit then goes to the log with a plain write, which outlives a killed process: only a crash of the machine
    // can take the last commits, and it cannot damage the file. Waiting for the disk would cost milliseconds for each.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Each checkpoint waits for the disk: let 16 MB gather for one, and keep no log longer than a burst of 64 MB.
    connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    let lost = close_lost(&mut connection).context("close the windows that were open")?;
    if lost > 0 {
        tracing::warn!(windows = lost, "the host was killed before; windows were closed at its last sign of life");
    }
    let next = |what: &str, kind: i64| {
        let sql = format!("SELECT coalesce(max({what}), 1) FROM blocks WHERE kind = ?1");
        connection.query_row(&sql, [kind], |row| row.get::<_, i64>(0))
    };
    let numbers = Numbers {
        window_block: next("id + 1", Window::KIND)?,
        invocation_block: next("id + 1", Invocation::KIND)?,
        invocation: next("first_number + records", Invocation::KIND)?.cast_unsigned(),
    };
    Ok(Store { connection, open: HashSet::new(), numbers })
}

/// Closes what a killed host left open: it was alive until the heartbeat.
fn close_lost(connection: &mut Connection) -> anyhow::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let alive_us = transaction.query_row("SELECT at_us FROM heartbeat", (), |row| row.get(0))?;
    let id = "SELECT coalesce(max(id), 0) + 1 FROM blocks WHERE kind = ?1";
    let mut blocks = Blocks::new(transaction.query_row(id, [Window::KIND], |row| row.get(0))?, 0);
    let mut lost = 0;
    let mut read = transaction.prepare("SELECT data FROM open_windows")?;
    let mut rows = read.query(())?;
    while let Some(row) = rows.next()? {
        let mut window: Window<'_> = postcard::from_bytes(row.get_ref(0)?.as_blob()?)?;
        window.lose(alive_us);
        blocks.push(&window);
        lost += 1;
    }
    drop(rows);
    drop(read);
    put_blocks(&transaction, Window::KIND, blocks.finished())?;
    transaction.execute("DELETE FROM open_windows", ())?;
    transaction.commit()?;
    Ok(lost)
}

fn prepare_schema(connection: &mut Connection) -> anyhow::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let objects: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    let new = version == 0 && application == 0 && objects == 0;
    ensure!(new || application == APPLICATION_ID, "it is a database of another program");
    if version > SCHEMA_VERSION {
        bail!(
            "it was written by a newer Dormouse (its schema is version {version}, this one knows {SCHEMA_VERSION}): \
             use that version or a later one"
        );
    }
    if new {
        transaction.execute_batch(SCHEMA).context("make its tables")?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    } else {
        // Version 1 was never released; a later one brings its predecessors up to date here.
        ensure!(
            version == SCHEMA_VERSION,
            "its schema is of version {version}, from before the first release: move the file and its `-wal` and \
             `-shm` away to start with an empty ledger"
        );
    }
    transaction.commit().context("make its tables")
}

fn damage(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}
