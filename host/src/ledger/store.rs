//! The ledger's SQLite file: opening and checking it, recovery after a kill, transactions, and deletion by age.
//!
//! Owned by the writer's thread after [`Store::open`]. It never waits for work and knows nothing of shards.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail, ensure};
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use super::batch::{self, Batch, Chunk, Key};
use super::time::{to_ns, to_unix_us};
use crate::meter::{Basis, InvocationReading, WindowReading};

/// The version of the schema, in the file's `user_version`.
const SCHEMA_VERSION: i32 = 1;

/// `DORM`: tells a ledger from other SQLite files.
const APPLICATION_ID: i32 = 0x444f_524d;

const SCHEMA: &str = include_str!("schema.sql");

/// A smaller file is checked as a whole when it is opened; checking a large one would hold up the host's start.
const CHECK_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// How long SQLite itself waits for a lock. Nobody else should hold one, so this is only for an operator's shell.
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// A later reading replaces an open window's row, and nothing else: a window that ended or was lost never changes, and
/// an earlier reading changes nothing. The order is that of `batch::progress`.
const PUT_WINDOW: &str = "
    INSERT INTO windows (function, version, instance, sequence, start_us, at_us, state, busy, open_ns, executed_ns,
        duration_ns, requests, hook_calls, memory_bytes_peak, memory_mb, by_duration, parked_ns, parked_bytes)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
    ON CONFLICT (instance, sequence) DO UPDATE SET at_us = excluded.at_us, state = excluded.state,
        busy = excluded.busy, open_ns = excluded.open_ns, executed_ns = excluded.executed_ns,
        duration_ns = excluded.duration_ns, requests = excluded.requests, hook_calls = excluded.hook_calls,
        memory_bytes_peak = excluded.memory_bytes_peak, memory_mb = excluded.memory_mb,
        by_duration = excluded.by_duration, parked_ns = excluded.parked_ns, parked_bytes = excluded.parked_bytes
    WHERE windows.state = 0 AND (excluded.state, excluded.open_ns, excluded.executed_ns, excluded.duration_ns,
            excluded.requests, excluded.hook_calls, excluded.memory_bytes_peak)
        >= (windows.state, windows.open_ns, windows.executed_ns, windows.duration_ns,
            windows.requests, windows.hook_calls, windows.memory_bytes_peak)";

/// The writer chooses the row's number and keeps it when a transaction is tried again, so no attempt adds a second row.
const PUT_INVOCATION: &str = "
    INSERT INTO invocations (id, request, function, version, instance, start_us, queued_ns, handler_ns, outcome,
        delivered)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
    ON CONFLICT (id) DO NOTHING";

const PUT_HEARTBEAT: &str = "UPDATE heartbeat SET at_us = ?1 WHERE id = 1";

/// What a killed host left open was alive until the heartbeat. A busy window's clocks ran until then; one that was not
/// busy lingered, which nobody is charged for, or was suspended, when its clocks stood still.
const CLOSE_LOST: &str = "
    UPDATE windows SET state = 2, busy = 0,
        open_ns = open_ns + busy * 1000 * max(0, beat.at_us - windows.at_us),
        duration_ns = duration_ns + busy * 1000 * max(0, beat.at_us - windows.at_us),
        at_us = CASE busy WHEN 0 THEN windows.at_us ELSE max(windows.at_us, beat.at_us) END
    FROM heartbeat AS beat WHERE state = 0";

const PRUNE_INVOCATIONS: &str = "
    DELETE FROM invocations
    WHERE id IN (SELECT id FROM invocations WHERE start_us < ?1 ORDER BY start_us LIMIT ?2)";

const PRUNE_WINDOWS: &str = "
    DELETE FROM windows
    WHERE id IN (SELECT id FROM windows WHERE start_us < ?1 AND state <> 0 ORDER BY start_us LIMIT ?2)";

/// The connection that writes.
pub(super) struct Store {
    connection: Connection,
    next_invocation: i64,
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

    /// Stores `chunk` of `batch` and, if given, the heartbeat, all or nothing. The windows it returns were closed
    /// before, so that their readings changed nothing.
    pub(super) fn write(
        &mut self,
        batch: &Batch,
        chunk: Chunk,
        heartbeat: Option<SystemTime>,
    ) -> rusqlite::Result<Vec<Key>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut closed = Vec::new();
        let mut put = transaction.prepare_cached(PUT_WINDOW)?;
        for window in batch.windows(chunk) {
            if put_window(&mut put, window)? == 0 {
                closed.push(batch::key(window));
            }
        }
        drop(put);
        let mut put = transaction.prepare_cached(PUT_INVOCATION)?;
        let mut id = self.next_invocation;
        for invocation in batch.invocations(chunk) {
            put_invocation(&mut put, id, invocation)?;
            id += 1;
        }
        drop(put);
        if let Some(at) = heartbeat {
            transaction.prepare_cached(PUT_HEARTBEAT)?.execute([to_unix_us(at)])?;
        }
        transaction.commit()?;
        self.next_invocation = id;
        Ok(closed)
    }

    /// Deletes at most `rows_max` invocations and as many windows that started before the given times.
    pub(super) fn prune(
        &self,
        invocations: SystemTime,
        windows: SystemTime,
        rows_max: usize,
    ) -> rusqlite::Result<usize> {
        let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let mut prune = self.connection.prepare_cached(PRUNE_INVOCATIONS)?;
        let pruned = prune.execute([to_unix_us(invocations), rows_max])?;
        Ok(pruned + self.connection.prepare_cached(PRUNE_WINDOWS)?.execute([to_unix_us(windows), rows_max])?)
    }

    /// Folds the write-ahead log into the file.
    pub(super) fn checkpoint(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
    }
}

fn put_window(put: &mut rusqlite::Statement<'_>, window: &WindowReading) -> rusqlite::Result<usize> {
    put.execute(params![
        window.function.as_str(),
        &*window.version,
        window.instance.as_u64().cast_signed(),
        window.sequence,
        to_unix_us(window.start),
        to_unix_us(window.at),
        window.ended,
        window.busy && !window.ended,
        to_ns(window.open),
        to_ns(window.executed),
        to_ns(window.duration),
        window.requests,
        window.hook_calls,
        bytes(window.memory_bytes_peak),
        window.memory_mb,
        window.basis == Basis::Duration,
        to_ns(window.parked),
        bytes(window.parked_bytes),
    ])
}

fn put_invocation(
    put: &mut rusqlite::Statement<'_>,
    id: i64,
    invocation: &InvocationReading,
) -> rusqlite::Result<usize> {
    put.execute(params![
        id,
        invocation.request.as_str(),
        invocation.function.as_str(),
        &*invocation.version,
        invocation.instance.map(|instance| instance.as_u64().cast_signed()),
        to_unix_us(invocation.start),
        to_ns(invocation.queued),
        to_ns(invocation.handler),
        invocation.outcome,
        invocation.delivered,
    ])
}

fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
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
    // Instances' identifiers are random, so their index is written everywhere at once; 32 MB keep it in memory.
    connection.pragma_update(None, "cache_size", -32 * 1024)?;
    let lost = connection.execute(CLOSE_LOST, ()).context("close the windows that were open")?;
    if lost > 0 {
        tracing::warn!(windows = lost, "the host was killed before; windows were closed at its last sign of life");
    }
    let next_invocation =
        connection.query_row("SELECT coalesce(max(id), 0) + 1 FROM invocations", (), |row| row.get(0))?;
    Ok(Store { connection, next_invocation })
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
        // Version 1 is the first; a later one brings its predecessors up to date here.
        ensure!(version == SCHEMA_VERSION, anyhow!("its schema has the unknown version {version}"));
    }
    transaction.commit().context("make its tables")
}

fn damage(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}
