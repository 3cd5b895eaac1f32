//! Opening a store's SQLite file: whose it is, which version its tables have, and bringing them up to date.
//!
//! `catalog` and `ledger` each say what their file looks like ([`Schema`]) and get a connection to one that looks so.
//! Nothing here knows what is stored.

use std::path::Path;

use anyhow::{Context as _, ensure};
use rusqlite::{Connection, TransactionBehavior};

use crate::private;

/// `DORM`: tells our files from those of other programs.
const APPLICATION_ID: i32 = 0x444f_524d;

/// What a store's file looks like.
pub struct Schema {
    /// Counts changes of the tables; in the file's `user_version`.
    pub version: i32,
    /// Makes the tables of a new file.
    pub create: &'static str,
    /// Brings the tables of an older file up to date, each by one version: the version it starts from, and its SQL.
    pub migrations: &'static [(i32, &'static str)],
    /// The last version whose files do not say that they are ours; 0 if all of them do.
    pub unmarked_version: i32,
    /// Whether space in the file can be given back to the file system, which costs one page in eight hundred.
    pub shrinks: bool,
}

/// Opens the file, or makes it, with the tables of `schema`. A change of the tables happens as a whole or not at all.
pub fn open(path: &Path, schema: &Schema) -> anyhow::Result<Connection> {
    // Made here, because SQLite would leave it to the umask who may read it; its log gets the same mode.
    private::file(path)?;
    let mut connection = Connection::open(path)?;
    if schema.shrinks {
        // It counts only for a file that has no tables.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let objects: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    let new = found == 0 && application == 0 && objects == 0;
    let unmarked = application == 0 && (1..=schema.unmarked_version).contains(&found);
    ensure!(new || unmarked || application == APPLICATION_ID, "it is a database of another program");
    let known = schema.version;
    ensure!(
        found <= known,
        "it was written by a newer Dormouse (its schema is version {found}, this one knows {known}): use that version or \
         a later one"
    );
    if new {
        transaction.execute_batch(schema.create).context("make its tables")?;
    } else {
        for version in found..known {
            let migration = schema.migrations.iter().find(|(from, _)| *from == version);
            let (_, sql) = migration.with_context(|| {
                format!(
                    "it was written by an earlier Dormouse (its schema is version {version}, which was never released): \
                     move the file and its `-wal` and `-shm` away to start anew"
                )
            })?;
            transaction
                .execute_batch(sql)
                .with_context(|| format!("bring its tables up to version {}", version + 1))?;
        }
    }
    if new || found < known {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", known)?;
    }
    transaction.commit().context("make its tables")?;
    Ok(connection)
}

/// The same for a file whose changes survive a power cut once they are acknowledged.
pub fn open_durable(path: &Path, schema: &Schema) -> anyhow::Result<Connection> {
    let connection = open(path, schema)?;
    write_ahead(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Lets readers go on while somebody writes (SQLite's write-ahead log).
pub fn write_ahead(connection: &Connection) -> anyhow::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
    ensure!(mode == "wal", "its file system does not let SQLite write ahead");
    Ok(())
}

/// What the tables take in the file, in bytes.
pub fn bytes_used(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}

/// Gives at most so many free pages back to the file system, if the file can shrink.
pub fn give_back(connection: &Connection, pages_max: u64) -> rusqlite::Result<()> {
    // It gives back a page with each step.
    let mut give_back = connection.prepare(&format!("PRAGMA incremental_vacuum({pages_max})"))?;
    let mut pages = give_back.query(())?;
    while pages.next()?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Schema =
        Schema { version: 1, create: "CREATE TABLE t (a)", migrations: &[], unmarked_version: 0, shrinks: false };
    const THIRD: Schema = Schema {
        version: 3,
        create: "CREATE TABLE t (a, b, c)",
        migrations: &[(1, "ALTER TABLE t ADD COLUMN b"), (2, "ALTER TABLE t ADD COLUMN c")],
        unmarked_version: 0,
        shrinks: false,
    };

    #[test]
    fn older_files_are_brought_up_to_date_and_newer_and_foreign_ones_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        open(&path, &FIRST).unwrap().execute("INSERT INTO t VALUES (7)", ()).unwrap();
        for _ in 0..2 {
            let connection = open(&path, &THIRD).unwrap();
            let row = connection.query_row("SELECT a, b, c FROM t", (), |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(row, 7);
        }
        let newer = open(&path, &FIRST).unwrap_err().to_string();
        assert!(newer.contains("schema is version 3, this one knows 1"), "{newer}");
        let foreign = folder.path().join("b.sqlite");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE x (a)").unwrap();
        assert!(open(&foreign, &FIRST).unwrap_err().to_string().contains("another program"));
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        open(&path, &FIRST).unwrap();
        let broken = Schema { migrations: &[(1, "ALTER TABLE t ADD COLUMN b"), (2, "nonsense")], ..THIRD };
        assert!(open(&path, &broken).is_err());
        open(&path, &THIRD).unwrap().query_row("SELECT count(b) FROM t", (), |_| Ok(())).unwrap();
    }
}
