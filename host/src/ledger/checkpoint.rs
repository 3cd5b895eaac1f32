//! Checkpoints SQLite's write-ahead log (writes it back into the file), on a thread of its own.
//!
//! A checkpoint takes milliseconds of CPU and waits for the disk. On the writer's thread it would delay commits, which
//! have 50 ms each, and slow down requests on the same core. This thread has the lowest priority. Nothing depends on
//! when it runs: what is in the log is stored. If it never ran, the writer would checkpoint by itself (`store.rs`).

use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use anyhow::Context;
use rusqlite::Connection;

/// A checkpoint is made after this much was added to the log: enough that waiting for the disk is rare.
const LOG_BYTES: usize = 4 * 1024 * 1024;

/// What a commit adds to the log besides the records: whole pages of tables and indexes. A rough estimate.
const COMMIT_BYTES: usize = 16 * 1024;

/// How often the thread tries to checkpoint the whole log, so that it starts anew, while the writer keeps adding to it.
const TRIES: usize = 4;

/// The lowest priority: nothing waits for this thread.
#[cfg(target_os = "linux")]
const NICE: i32 = 19;

/// The checkpoint thread. It ends when this is dropped.
pub(super) struct Checkpoints {
    wanted: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    added: usize,
}

impl Checkpoints {
    /// Starts the thread for the ledger at `path`.
    pub(super) fn start(path: &Path) -> anyhow::Result<Checkpoints> {
        let connection = Connection::open(path)?;
        let (wanted, asked) = sync_channel(1);
        let work = move || {
            // On other systems this would lower the priority of the whole process.
            #[cfg(target_os = "linux")]
            if let Err(error) = rustix::process::nice(NICE) {
                tracing::debug!(%error, "checkpoints of the ledger have the priority of other threads");
            }
            for () in asked {
                if let Err(error) = fold(&connection) {
                    // The next checkpoint includes this one; until then the log is longer.
                    tracing::debug!(%error, "a checkpoint of the ledger failed");
                }
            }
        };
        let thread = std::thread::Builder::new().name("ledger-file".to_owned()).spawn(work);
        let thread = thread.context("start the ledger's second thread")?;
        Ok(Checkpoints { wanted: Some(wanted), thread: Some(thread), added: 0 })
    }

    /// A commit added `bytes` of records.
    pub(super) fn added(&mut self, bytes: usize) {
        self.added += COMMIT_BYTES + bytes;
        if self.added < LOG_BYTES {
            return;
        }
        self.added = 0;
        match self.wanted.as_ref().map(|wanted| wanted.try_send(())) {
            // A checkpoint that has not started yet will include this commit.
            None | Some(Ok(()) | Err(TrySendError::Full(()))) => {}
            Some(Err(TrySendError::Disconnected(()))) => self.wanted = None,
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.wanted.take());
        if let Some(thread) = self.thread.take() {
            // A panic was reported by its own message, and the log is still intact.
            let _ = thread.join();
        }
    }
}

fn fold(connection: &Connection) -> rusqlite::Result<()> {
    for _ in 0..TRIES {
        let sql = "PRAGMA wal_checkpoint(PASSIVE)";
        let (logged, folded): (i64, i64) = connection.query_row(sql, (), |row| Ok((row.get(1)?, row.get(2)?)))?;
        if logged == folded {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_folded_in_while_the_writer_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (a)").unwrap();
        let mut checkpoints = Checkpoints::start(&path).unwrap();
        let row = vec![7_u8; 256 * 1024];
        for _ in 0..4 * LOG_BYTES / row.len() {
            writer.execute("INSERT INTO t VALUES (?1)", [&row]).unwrap();
            checkpoints.added(row.len());
        }
        drop(checkpoints);
        assert!(std::fs::metadata(&path).unwrap().len() >= LOG_BYTES as u64);
        let (logged, folded): (i64, i64) =
            writer.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |row| Ok((row.get(1)?, row.get(2)?))).unwrap();
        assert_eq!(logged, folded);
    }
}
