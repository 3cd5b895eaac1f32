//! The catalog's table in SQLite. Every change is on disk before it is acknowledged.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rusqlite::{Connection, Row, params};

use super::function::Function;
use crate::log::Log;

/// Counts changes of the table's shape.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE functions (
    name            TEXT PRIMARY KEY,
    revision        INTEGER NOT NULL,
    sha256          TEXT NOT NULL,
    component_bytes INTEGER NOT NULL,
    exports         TEXT NOT NULL, -- JSON
    settings        TEXT NOT NULL, -- JSON
    suspended       INTEGER NOT NULL,
    created_us      INTEGER NOT NULL, -- since 1970
    updated_us      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
";

/// The table. One connection: changes are rare, and reads happen once, at start.
pub(super) struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    pub(super) fn open(path: &Path) -> anyhow::Result<Store> {
        let open = || -> anyhow::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // A deployment that was acknowledged survives a power cut too.
            connection.pragma_update(None, "synchronous", "FULL")?;
            let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            match version {
                0 => connection.execute_batch(SCHEMA)?,
                SCHEMA_VERSION => {}
                newer => anyhow::bail!("it has schema {newer}, this host knows {SCHEMA_VERSION}: use a newer host"),
            }
            Ok(connection)
        };
        let connection = open().with_context(|| format!("open the catalog {}", path.display()))?;
        Ok(Store { connection: Mutex::new(connection) })
    }

    pub(super) fn all(&self) -> anyhow::Result<Vec<Function>> {
        let connection = self.connection.lock().expect("no holder of this lock panics");
        let mut statement = connection.prepare("SELECT * FROM functions ORDER BY name").context("read the catalog")?;
        let rows = statement.query_map([], |row| Ok(read(row))).context("read the catalog")?;
        rows.map(|row| row.context("read the catalog")?).collect()
    }

    pub(super) fn put(&self, function: &Function) -> anyhow::Result<()> {
        let connection = self.connection.lock().expect("no holder of this lock panics");
        connection
            .execute(
                "INSERT OR REPLACE INTO functions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    function.name.as_str(),
                    function.revision,
                    function.sha256,
                    function.component_bytes,
                    serde_json::to_string(&function.exports)?,
                    serde_json::to_string(&function.settings)?,
                    function.suspended,
                    microseconds(function.created),
                    microseconds(function.updated),
                ],
            )
            .context("write the catalog")?;
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> anyhow::Result<()> {
        let connection = self.connection.lock().expect("no holder of this lock panics");
        connection.execute("DELETE FROM functions WHERE name = ?1", [name]).context("write the catalog")?;
        Ok(())
    }
}

fn read(row: &Row<'_>) -> anyhow::Result<Function> {
    let name: String = row.get("name")?;
    let json = |column: &str| -> anyhow::Result<String> { Ok(row.get(column)?) };
    let time = |column: &str| -> anyhow::Result<SystemTime> {
        let microseconds: u64 = row.get(column)?;
        Ok(UNIX_EPOCH + Duration::from_micros(microseconds))
    };
    let function = || -> anyhow::Result<Function> {
        Ok(Function {
            name: name.parse()?,
            revision: row.get("revision")?,
            sha256: row.get("sha256")?,
            component_bytes: row.get("component_bytes")?,
            exports: serde_json::from_str(&json("exports")?)?,
            settings: serde_json::from_str(&json("settings")?)?,
            suspended: row.get("suspended")?,
            created: time("created_us")?,
            updated: time("updated_us")?,
            log: Log::default(),
            preparing: Arc::default(),
        })
    };
    function().with_context(|| format!("read function `{name}` from the catalog"))
}

fn microseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
