//! What all queries share: their errors, their connection, and the way through the stored records.
//!
//! Queries block, so asynchronous callers run them in `spawn_blocking`. Readers of a write-ahead log see one moment
//! and never hold up the writer.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags, params};

use super::Ledger;
use super::block::{SPAN_US, records};
use super::record::{Kind, Record, Window};
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
    /// A record cannot be read.
    #[error("read the ledger: a record is damaged: {0}")]
    Damaged(#[from] postcard::Error),
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

/// Which records a query is about.
#[derive(Clone, Copy)]
pub(super) struct Filter<'a> {
    function: Option<&'a str>,
    from_us: i64,
    /// Not included.
    to_us: i64,
}

impl<'a> Filter<'a> {
    /// Records of `function` that start in the time from `from` until before `to`.
    pub(super) fn new(
        function: Option<&'a FunctionName>,
        from: Option<SystemTime>,
        to: Option<SystemTime>,
    ) -> Filter<'a> {
        Filter {
            function: function.map(FunctionName::as_str),
            from_us: from.map_or(i64::MIN, to_unix_us),
            to_us: to.map_or(i64::MAX, to_unix_us),
        }
    }

    /// Leaves out what starts before `from_us`.
    pub(super) fn not_before(self, from_us: i64) -> Filter<'a> {
        Filter { from_us: self.from_us.max(from_us), ..self }
    }

    fn takes<'r>(&self, record: &impl Record<'r>) -> bool {
        let start_us = record.start_us();
        self.from_us <= start_us
            && start_us < self.to_us
            && self.function.is_none_or(|function| function == record.function())
    }
}

/// Whether to read on.
pub(super) enum Next {
    Block,
    Enough,
}

const BLOCKS: &str = "
    SELECT first_us, first_number, data FROM blocks
    WHERE kind = ?1 AND first_us >= ?2 AND first_us < ?3 AND last_us >= ?4
        AND (?5 IS NULL OR function IS NULL OR function = ?5)
    ORDER BY first_us";

/// Shows `look` every stored record of one kind that `filter` takes, block by block in the order of their first starts;
/// before each block, `next` is told when its first record starts. Each record comes with its number.
pub(super) fn read_blocks<R>(
    connection: &Connection,
    filter: Filter<'_>,
    mut next: impl FnMut(i64) -> Next,
    mut look: impl for<'a> FnMut(u64, R::Of<'a>) -> Result<(), QueryError>,
) -> Result<(), QueryError>
where
    R: Kind,
{
    let mut statement = connection.prepare_cached(BLOCKS)?;
    let first_us = filter.from_us.saturating_sub(SPAN_US);
    let kind = <R::Of<'static> as Record<'static>>::KIND;
    let mut rows = statement.query(params![kind, first_us, filter.to_us, filter.from_us, filter.function])?;
    while let Some(row) = rows.next()? {
        if matches!(next(row.get(0)?), Next::Enough) {
            break;
        }
        let data = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        for record in records::<R::Of<'_>>(row.get(1)?, data) {
            let (number, record) = record?;
            if filter.takes(&record) {
                look(number, record)?;
            }
        }
    }
    Ok(())
}

/// Shows `look` the windows that have not ended and that `filter` takes.
pub(super) fn read_open_windows(
    connection: &Connection,
    filter: Filter<'_>,
    mut look: impl FnMut(Window<'_>) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let mut statement = connection.prepare_cached("SELECT data FROM open_windows")?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let window: Window<'_> = postcard::from_bytes(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
        if filter.takes(&window) {
            look(window)?;
        }
    }
    Ok(())
}
