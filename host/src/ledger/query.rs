//! What all queries share: their errors, their connection, and their conditions.
//!
//! Queries block, so asynchronous callers run them in `spawn_blocking`. Readers of a write-ahead log see one moment
//! and never hold up the writer.

use std::time::{Duration, SystemTime};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use super::Ledger;
use super::time::to_unix_us;
use crate::ids::FunctionName;

/// How long a query waits for SQLite's own locks, which are held for moments only.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The page's size is out of bounds.
    #[error("`limit` is {0}: it must be 1 to {max}", max = super::records::LIMIT_MAX)]
    InvalidLimit(u32),
    /// The cursor is none that a page gave.
    #[error("`after` is not a cursor that an earlier page gave as `next`")]
    InvalidCursor,
    /// The answer would have too many groups.
    #[error("more than {max} groups: choose a shorter time or one function", max = super::usage::GROUPS_MAX)]
    TooManyGroups,
    /// Readings are waiting that could not be stored in time, so the answer would be too low.
    #[error("the ledger has not stored all usage yet, so the figures would be incomplete: ask again later")]
    Behind,
    /// SQLite failed.
    #[error("read the ledger: {0}")]
    Store(#[from] rusqlite::Error),
}

impl Ledger {
    /// A connection that sees everything posted before this call.
    pub(super) fn reader(&self) -> Result<Connection, QueryError> {
        self.flush()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_WAIT)?;
        Ok(connection)
    }
}

/// Conditions of a `WHERE`, and the values of their placeholders.
pub(super) struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    /// Rows of `function` that start in the time from `from` until before `to`.
    pub(super) fn new(function: Option<&FunctionName>, from: Option<SystemTime>, to: Option<SystemTime>) -> Conditions {
        let mut conditions = Conditions { sql: "WHERE true".to_owned(), values: Vec::new() };
        if let Some(function) = function {
            conditions.and("function = ?", [function.as_str().to_owned()]);
        }
        if let Some(from) = from {
            conditions.and("start_us >= ?", [to_unix_us(from)]);
        }
        if let Some(to) = to {
            conditions.and("start_us < ?", [to_unix_us(to)]);
        }
        conditions
    }

    /// Adds a condition with as many placeholders as there are values.
    pub(super) fn and<V: Into<Value>>(&mut self, condition: &str, values: impl IntoIterator<Item = V>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.extend(values.into_iter().map(Into::into));
    }

    /// The whole `WHERE`.
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// The values, for `Statement::query`.
    pub(super) fn values(&self) -> impl rusqlite::Params + use<'_> {
        rusqlite::params_from_iter(&self.values)
    }
}
