//! What the catalog knows of compiled code: the SHA-256 of each file, by which `artifacts` tells whether it is still what was
//! written, and whose it is.

use rusqlite::{OptionalExtension as _, params};

use super::store::Store;

impl Store {
    /// The SHA-256 of a component's compiled code, if this engine compiled it.
    pub(super) fn code(&self, component: &str, engine: &str) -> anyhow::Result<Option<String>> {
        let sql = "SELECT sha256 FROM code WHERE component = ?1 AND engine = ?2";
        self.read(|connection| connection.query_row(sql, [component, engine], |row| row.get(0)).optional())
    }

    /// Notes what a component was compiled to.
    pub(super) fn put_code(&self, component: &str, engine: &str, sha256: &str) -> anyhow::Result<()> {
        self.change(|transaction| {
            transaction
                .execute("INSERT OR REPLACE INTO code VALUES (?1, ?2, ?3)", params![component, engine, sha256])?;
            Ok(())
        })
    }

    /// Forgets what components were compiled to that no revision names.
    pub(super) fn forget_unused_code(&self) -> anyhow::Result<()> {
        self.change(|transaction| {
            transaction.execute("DELETE FROM code WHERE component NOT IN (SELECT sha256 FROM revisions)", ())?;
            Ok(())
        })
    }
}
