//! What all queries share: their errors, their connection, and how they find their blocks.
//!
//! Queries block, so asynchronous callers run them in `spawn_blocking`. Readers of a write-ahead log see a snapshot and
//! never block the writer.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags, params};

use super::Ledger;
use super::block::{INVOCATION_BLOCKS, Rows, WINDOW_BLOCKS, base, damaged, end};
use super::rows::{InvocationRow, WindowRow};
use super::time::to_unix_us;
use crate::ids::FunctionName;

/// How long a query waits for SQLite's own locks, which are only held briefly.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// The maximum number of records on a page.
pub(super) const LIMIT_MAX: u32 = 10_000;
/// The maximum number of groups in an answer.
pub(super) const GROUPS_MAX: usize = 100_000;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The page's size is out of bounds.
    #[error("`limit` is {0}: it must be 1 to {max}", max = LIMIT_MAX)]
    InvalidLimit(u32),
    /// The cursor is not one that a page returned.
    #[error("`after` is not a cursor that an earlier page gave as `next`")]
    InvalidCursor,
    /// The answer would have too many groups.
    #[error("more than {max} groups: choose a shorter time or one function", max = GROUPS_MAX)]
    TooManyGroups,
    /// Some readings could not be stored in time, so the answer would be too low.
    #[error("the ledger has not stored all usage yet, so the figures would be incomplete: ask again later")]
    Behind,
    /// SQLite failed.
    #[error("read the ledger: {0}")]
    Store(#[from] rusqlite::Error),
}

/// Says of which functions whoever asks may see records.
pub type Visible<'a> = &'a dyn Fn(&str) -> bool;

/// For those who may see all of them.
pub const EVERY_FUNCTION: Visible<'static> = &|_| true;

/// The records that a query asks for.
pub(super) struct Scope<'a> {
    pub(super) visible: Visible<'a>,
    pub(super) function: Option<String>,
    /// They start at this time or later.
    pub(super) from_us: i64,
    /// They start before this time.
    pub(super) to_us: i64,
    /// The newest so many are wanted, and they are visited from the newest block on.
    pub(super) newest: Option<usize>,
    /// None that starts before this time is wanted any more: enough later ones are known.
    pub(super) floor_us: Cell<i64>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(
        function: Option<&FunctionName>,
        from: Option<SystemTime>,
        to: Option<SystemTime>,
        visible: Visible<'a>,
    ) -> Scope<'a> {
        Scope {
            visible,
            function: function.map(|function| function.as_str().to_owned()),
            from_us: from.map_or(0, to_unix_us),
            to_us: to.map_or(i64::MAX, to_unix_us),
            newest: None,
            floor_us: Cell::new(i64::MIN),
        }
    }

    /// The part of it between these times.
    pub(super) fn between(&self, from_us: i64, to_us: i64) -> Scope<'a> {
        let (from_us, to_us) = (from_us.max(self.from_us), to_us.min(self.to_us));
        let Scope { visible, function, newest, floor_us, .. } = self;
        let (function, floor_us) = (function.clone(), floor_us.clone());
        Scope { visible: *visible, function, from_us, to_us, newest: *newest, floor_us }
    }

    /// Raises the floor to what the newest of these starts leave room for.
    fn raise_floor(&self, starts: impl Iterator<Item = i64>) {
        let Some(wanted) = self.newest else { return };
        let mut latest = BinaryHeap::new();
        // Those at the end of the scope may be on the page before: they say nothing about how many this one has.
        for start_us in starts.filter(|start_us| self.holds(*start_us) && *start_us < self.to_us - 1) {
            if latest.len() < wanted {
                latest.push(Reverse(start_us));
            } else if let Some(mut first) = latest.peek_mut()
                && first.0 < start_us
            {
                *first = Reverse(start_us);
            }
        }
        if latest.len() == wanted
            && let Some(Reverse(first)) = latest.peek()
        {
            self.floor_us.set(self.floor_us.get().max(*first));
        }
    }

    fn holds(&self, start_us: i64) -> bool {
        (self.from_us..self.to_us).contains(&start_us) && start_us >= self.floor_us.get()
    }
}

/// What the records of a block have in common.
pub(super) struct Head<'a> {
    pub(super) function: &'a str,
    pub(super) version: &'a str,
    /// The number of the first record.
    pub(super) id: i64,
    /// No record of this block or of a later one starts earlier.
    pub(super) first_us: i64,
}

impl Head<'_> {
    /// Where blocks are visited from the newest on, no record of this one or of those that follow starts as late as this.
    pub(super) fn end_us(&self) -> i64 {
        end(self.first_us)
    }
}

/// A connection that sees one snapshot.
pub(super) struct Reader(pub(super) Connection);

impl Ledger {
    /// A connection that sees everything posted before this call.
    pub(super) fn reader(&self) -> Result<Reader, QueryError> {
        self.flush()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_WAIT)?;
        // Two statements without a transaction would see a window that ends between them twice, or not at all.
        connection.execute_batch("BEGIN")?;
        Ok(Reader(connection))
    }
}

/// What a visitor returns: continue or stop.
pub(super) type Visited = Result<ControlFlow<()>, QueryError>;

/// Which blocks of windows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Blocks {
    All,
    /// Those with windows of smaller numbers than this.
    Before(i64),
    /// The others. They are few, and in the order of their numbers.
    From(i64),
}

impl Reader {
    /// Visits the windows in `scope`: the open ones, then the others, block by block in the order of `first_us` or, if the newest
    /// come first, in the opposite order.
    pub(super) fn windows(
        &self,
        scope: &Scope<'_>,
        mut visit: impl FnMut(&Head<'_>, &WindowRow) -> Visited,
    ) -> Result<(), QueryError> {
        self.open_windows(scope, &mut visit)?;
        self.ended_windows(scope, Blocks::All, visit)
    }

    /// Visits the open windows in `scope`.
    pub(super) fn open_windows(
        &self,
        scope: &Scope<'_>,
        mut visit: impl FnMut(&Head<'_>, &WindowRow) -> Visited,
    ) -> Result<(), QueryError> {
        // There are only as many as instances are awake, so their order does not matter.
        let mut select = self.0.prepare(
            "SELECT 0, function, version, start_us, row FROM open_windows WHERE ?1 IS NULL OR function = ?1",
        )?;
        each(
            select.query([&scope.function])?,
            |_| Ok(ControlFlow::Continue(true)),
            |head, rows| {
                // They are not ordered, so a stop at one says nothing about the next ones.
                windows_of(scope, &head, rows, &mut visit).map(|_| ControlFlow::Continue(()))
            },
        )
    }

    /// Visits the windows in `scope` that ended.
    pub(super) fn ended_windows(
        &self,
        scope: &Scope<'_>,
        blocks: Blocks,
        mut visit: impl FnMut(&Head<'_>, &WindowRow) -> Visited,
    ) -> Result<(), QueryError> {
        self.blocks(WINDOW_BLOCKS, scope, blocks, |head, rows| windows_of(scope, &head, rows, &mut visit))
    }

    /// Visits the invocations in `scope` with their numbers, block by block in the order of `first_us`.
    pub(super) fn invocations(
        &self,
        scope: &Scope<'_>,
        mut visit: impl FnMut(&Head<'_>, i64, &InvocationRow<'_>) -> Visited,
    ) -> Result<(), QueryError> {
        self.blocks(INVOCATION_BLOCKS, scope, Blocks::All, |head, bytes| {
            if !(scope.visible)(head.function) {
                return Ok(ControlFlow::Continue(()));
            }
            if scope.newest.is_some() {
                // The rows are nearly in the order of their starts: each would be taken for one of the newest until the next comes.
                let mut rows = Rows::new(bytes, head.first_us);
                scope.raise_floor(iter::from_fn(|| rows.invocation().map(|row| row.start_us)));
            }
            let mut rows = Rows::new(bytes, head.first_us);
            let mut id = head.id;
            while let Some(row) = rows.invocation() {
                if scope.holds(row.start_us) && visit(&head, id, &row)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                id += 1;
            }
            if rows.are_read() { Ok(ControlFlow::Continue(())) } else { Err(damaged(INVOCATION_BLOCKS).into()) }
        })
    }

    fn blocks(
        &self,
        table: &str,
        scope: &Scope<'_>,
        blocks: Blocks,
        visit: impl FnMut(Head<'_>, &[u8]) -> Visited,
    ) -> Result<(), QueryError> {
        let function = if scope.function.is_some() { "function = ?4" } else { "?4 IS NULL" };
        // The sign keeps SQLite from the index by time where the one by number leads to fewer rows, and the other way round.
        let (time, number, order) = match blocks {
            Blocks::All | Blocks::Before(_) if scope.newest.is_some() => ("first_us", "+id < ?5", "first_us DESC"),
            Blocks::All | Blocks::Before(_) => ("first_us", "+id < ?5", "first_us"),
            Blocks::From(_) => ("+first_us", "id >= ?5", "id"),
        };
        let number_of = match blocks {
            Blocks::All => i64::MAX,
            Blocks::Before(number) | Blocks::From(number) => number,
        };
        let mut select = self.0.prepare(&format!(
            "SELECT id, function, version, first_us, rows, last_us FROM {table}
             WHERE {time} >= ?1 AND last_us >= ?2 AND {time} < ?3 AND {function} AND {number} ORDER BY {order}"
        ))?;
        // A block that begins before the requested time may contain records of it, but only if it is of the same time
        // span.
        let values = params![base(scope.from_us), scope.from_us, scope.to_us, scope.function, number_of];
        let wanted = |row: &rusqlite::Row<'_>| {
            let (first_us, last_us, floor_us) = (row.get(3)?, row.get::<_, i64>(5)?, scope.floor_us.get());
            let is_last = scope.newest.is_some() && end(first_us) <= floor_us;
            Ok(if is_last { ControlFlow::Break(()) } else { ControlFlow::Continue(last_us >= floor_us) })
        };
        each(select.query(values)?, wanted, visit)
    }
}

/// Visits the windows of a block that are in `scope`.
fn windows_of(
    scope: &Scope<'_>,
    head: &Head<'_>,
    rows: &[u8],
    visit: &mut impl FnMut(&Head<'_>, &WindowRow) -> Visited,
) -> Visited {
    if !(scope.visible)(head.function) {
        return Ok(ControlFlow::Continue(()));
    }
    let mut rows = Rows::new(rows, head.first_us);
    while let Some(row) = rows.window() {
        if scope.holds(row.start_us) && visit(head, &row)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    if rows.are_read() { Ok(ControlFlow::Continue(())) } else { Err(damaged(WINDOW_BLOCKS).into()) }
}

/// Visits the rows that are wanted. Of the others SQLite need not read the records.
fn each(
    mut rows: rusqlite::Rows<'_>,
    wanted: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<ControlFlow<(), bool>>,
    mut visit: impl FnMut(Head<'_>, &[u8]) -> Visited,
) -> Result<(), QueryError> {
    while let Some(row) = rows.next()? {
        match wanted(row)? {
            ControlFlow::Continue(true) => {}
            ControlFlow::Continue(false) => continue,
            ControlFlow::Break(()) => break,
        }
        let text = |column| -> rusqlite::Result<&str> { Ok(row.get_ref(column)?.as_str()?) };
        let head = Head { id: row.get(0)?, function: text(1)?, version: text(2)?, first_us: row.get(3)? };
        let bytes = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
        if visit(head, bytes)?.is_break() {
            break;
        }
    }
    Ok(())
}
