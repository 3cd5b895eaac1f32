//! The audit log: which operator changed what, when and from where.
//!
//! An entry is on disk before the change is made, and gets the answer's status afterwards, so that no change is missing
//! here, whenever the host is killed. It keeps a bounded number of entries.

use std::net::IpAddr;
use std::time::SystemTime;

use anyhow::Context as _;
use rusqlite::{Row, params};

use super::store::{EntryId, Store};
use crate::clock::{self, microseconds};

/// A change that an operator asks for.
#[derive(Clone, Debug)]
pub struct Change {
    /// Who: a key's identifier, `certificate:` and its fingerprint, or `local`.
    pub operator: String,
    /// From where.
    pub address: IpAddr,
    /// What, as the API's document names it: `deployFunction`.
    pub action: String,
    /// The function that it is about.
    pub function: Option<String>,
    /// What of it: an alias, for instance.
    pub detail: String,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its number: later entries have higher ones.
    pub id: u64,
    /// When.
    pub at: SystemTime,
    /// Who.
    pub operator: String,
    /// From where.
    pub address: String,
    /// What.
    pub action: String,
    /// The function that it is about.
    pub function: Option<String>,
    /// More about it, without secrets.
    pub detail: String,
    /// The status that the operator got; none: the operator left, or the host ended, before.
    pub status: Option<u16>,
}

impl Store {
    /// Notes a change before it is made, and forgets the oldest entries beyond `entries_max`.
    pub(super) fn note_change(&self, change: &Change, at: SystemTime, entries_max: u64) -> anyhow::Result<EntryId> {
        let note = || -> rusqlite::Result<EntryId> {
            let mut connection = self.lock();
            let transaction = connection.transaction()?;
            let address = change.address.to_canonical().to_string();
            transaction.execute(
                "INSERT INTO audit (at_us, operator, address, action, function, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![microseconds(at), change.operator, address, change.action, change.function, change.detail],
            )?;
            let id = transaction.last_insert_rowid();
            let last_forgotten = id.saturating_sub(i64::try_from(entries_max).unwrap_or(i64::MAX));
            transaction.execute("DELETE FROM audit WHERE id <= ?1", [last_forgotten])?;
            transaction.commit()?;
            Ok(EntryId(id))
        };
        note().context("write the audit log, without which nothing is changed")
    }

    /// Notes how a change ended.
    pub(super) fn note_end(&self, EntryId(id): EntryId, status: u16, detail: &str) -> anyhow::Result<()> {
        let sql = "UPDATE audit SET status = ?2, detail = ?3 WHERE id = ?1";
        self.lock().execute(sql, params![id, status, detail]).context("write the audit log")?;
        Ok(())
    }

    /// The newest entries that `wanted` holds for and that are older than entry `before`, newest first.
    pub(super) fn entries(
        &self,
        before: Option<u64>,
        limit: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> anyhow::Result<Vec<Entry>> {
        let read = || -> rusqlite::Result<Vec<Entry>> {
            let connection = self.lock();
            let mut statement = connection.prepare("SELECT * FROM audit WHERE id < ?1 ORDER BY id DESC")?;
            let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
            let mut rows = statement.query([before])?;
            let mut entries = Vec::new();
            while let Some(row) = rows.next()?.filter(|_| entries.len() < limit) {
                entries.extend(Some(entry(row)?).filter(&wanted));
            }
            Ok(entries)
        };
        read().context("read the audit log")
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        id: row.get("id")?,
        at: clock::from_microseconds(row.get("at_us")?),
        operator: row.get("operator")?,
        address: row.get("address")?,
        action: row.get("action")?,
        function: row.get("function")?,
        detail: row.get("detail")?,
        status: row.get("status")?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    use super::*;

    fn change(function: &str) -> Change {
        Change {
            operator: "local".to_owned(),
            address: Ipv4Addr::LOCALHOST.into(),
            action: "deployFunction".to_owned(),
            function: Some(function.to_owned()),
            detail: String::new(),
        }
    }

    #[test]
    fn the_log_keeps_its_newest_entries_page_by_page() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("access.sqlite")).unwrap();
        for number in 0..20 {
            let id = store.note_change(&change(&format!("f{}", number % 2)), UNIX_EPOCH, 10).unwrap();
            if number != 19 {
                store.note_end(id, 200, "revision 1").unwrap();
            }
        }
        let all = store.entries(None, 100, |_| true).unwrap();
        assert_eq!(all.iter().map(|entry| entry.id).collect::<Vec<_>>(), (11..=20).rev().collect::<Vec<_>>());
        assert_eq!((all[0].status, all[1].status, all[1].detail.as_str()), (None, Some(200), "revision 1"));
        let page = store.entries(Some(15), 2, |entry| entry.function.as_deref() == Some("f0")).unwrap();
        assert_eq!(page.iter().map(|entry| entry.id).collect::<Vec<_>>(), [13, 11]);
    }
}
