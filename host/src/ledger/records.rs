//! Single records, page by page: windows and invocations in the order of their starts.
//!
//! A page's cursor is the start of its last record, and a number that tells it from others with the same start, so a
//! page costs the same wherever it is. A record that is stored later but started earlier than the cursor is not on a
//! later page: to follow a running host, query a time range again.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::query::{Head, LIMIT_MAX, QueryError, Scope, Visible};
use super::rows::{InvocationRow, State, WindowRow};
use super::{Ledger, time};
use crate::csv::Row;
use crate::ids::FunctionName;
use crate::meter::{Basis, CalledBy, compute_units};

/// Records on a page by default.
const LIMIT_DEFAULT: u32 = 1000;

/// Which records to list. A record belongs to the time in which it starts.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct RecordQuery {
    /// Only this function.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    #[param(value_type = Option<String>)]
    pub function: Option<FunctionName>,
    /// Only records that started at this time or later; RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none", with = "time")]
    #[schema(value_type = Option<String>, format = DateTime)]
    #[param(value_type = Option<String>, format = DateTime)]
    pub from: Option<SystemTime>,
    /// Only records that started before this time; RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none", with = "time")]
    #[schema(value_type = Option<String>, format = DateTime)]
    #[param(value_type = Option<String>, format = DateTime)]
    pub to: Option<SystemTime>,
    /// Records on a page: 1 to 10 000.
    #[schema(minimum = 1, maximum = 10_000, default = 1000)]
    #[param(minimum = 1, maximum = 10_000, default = 1000)]
    pub limit: u32,
    /// The `next` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether pages begin with the newest record, and not with the oldest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub newest: bool,
}

impl Default for RecordQuery {
    fn default() -> RecordQuery {
        RecordQuery { function: None, from: None, to: None, limit: LIMIT_DEFAULT, after: None, newest: false }
    }
}

/// A page of window records, newest last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowPage {
    /// The records.
    pub windows: Vec<WindowRecord>,
    /// The cursor of the next page, if there is one: pass it as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One active window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowRecord {
    /// The function.
    pub function: String,
    /// The version that ran.
    pub version: String,
    /// The instance.
    pub instance: String,
    /// The number of the window in its instance, from 1.
    pub sequence: u32,
    /// When the instance started or thawed; RFC 3339, UTC.
    pub start: String,
    /// When the window ended; absent while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Time in which the host polled the instance.
    pub executed_ms: f64,
    /// Time in which a request or a hook was under way.
    pub duration_ms: f64,
    /// Time in which the window was open, without suspended time.
    pub open_ms: f64,
    /// Requests that started.
    pub requests: u32,
    /// Hooks that were called.
    pub hook_calls: u32,
    /// The most linear memory the instance ever had.
    pub memory_bytes_peak: u64,
    /// The function's configured memory.
    pub memory_mb: u32,
    /// Charged epochs.
    pub epochs: u64,
    /// Charged CU.
    pub cu: f64,
    /// The billing basis of the window.
    pub basis: Basis,
    /// How long the instance had been parked before.
    pub parked_ms: f64,
    /// Linear memory it held while parked.
    pub parked_bytes: u64,
    /// The state of the window.
    pub state: WindowState,
}

/// The state of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WindowState {
    /// Its figures still grow.
    Open,
    /// The window ended; its figures are final.
    Ended,
    /// Its host was killed; its figures end at the host's last sign of life.
    Lost,
}

/// A page of invocation records, newest last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvocationPage {
    /// The records.
    pub invocations: Vec<InvocationRecord>,
    /// The cursor of the next page, if there is one: pass it as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One request that was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvocationRecord {
    /// The record's number, which never repeats. Request identifiers may repeat, because callers choose them.
    pub id: u64,
    /// The request.
    pub request: String,
    /// The function.
    pub function: String,
    /// The version that was asked to answer.
    pub version: String,
    /// The instance, unless the request ended in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// When the host accepted the request; RFC 3339, UTC.
    pub start: String,
    /// From acceptance to the handler's call.
    pub queued_ms: f64,
    /// From the handler's call to its end.
    pub handler_ms: f64,
    /// Executed time of the instance meanwhile; requests that overlap share it. 0 in records of hosts before version 5 of
    /// the ledger.
    pub executed_ms: f64,
    /// Who called the function.
    pub called_by: CalledBy,
    /// The access key that the caller showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Which attempt at the request this was, from 1.
    pub attempt: u32,
    /// `ok`, `cancelled`, or the code of the error.
    pub outcome: String,
    /// True if the caller got the answer.
    pub delivered: bool,
}

impl Row for WindowRecord {
    const COLUMNS: &'static [&'static str] = &[
        "start",
        "end",
        "function",
        "version",
        "instance",
        "sequence",
        "state",
        "requests",
        "hookCalls",
        "executedMs",
        "durationMs",
        "openMs",
        "epochs",
        "cu",
        "basis",
        "memoryMb",
        "memoryBytesPeak",
        "parkedMs",
        "parkedBytes",
    ];
}

impl Row for InvocationRecord {
    const COLUMNS: &'static [&'static str] = &[
        "start",
        "id",
        "request",
        "function",
        "version",
        "instance",
        "calledBy",
        "key",
        "attempt",
        "queuedMs",
        "handlerMs",
        "executedMs",
        "outcome",
        "delivered",
    ];
}

impl Ledger {
    /// Lists windows of the functions that are visible. It blocks.
    pub fn windows(&self, query: &RecordQuery, visible: Visible<'_>) -> Result<WindowPage, QueryError> {
        let (mut page, scope) = Page::begin(query, visible)?;
        self.reader()?.windows(&scope, |head, row| {
            let number = u128::from(row.instance.as_u64()) << u32::BITS | u128::from(row.sequence);
            Ok(page.offer(head, Cursor { start_us: row.start_us, number }, || window(head, row)))
        })?;
        let (windows, next) = page.end();
        Ok(WindowPage { windows, next })
    }

    /// Lists invocations of the functions that are visible. It blocks.
    pub fn invocations(&self, query: &RecordQuery, visible: Visible<'_>) -> Result<InvocationPage, QueryError> {
        let (mut page, scope) = Page::begin(query, visible)?;
        self.reader()?.invocations(&scope, |head, id, row| {
            let id = id.unsigned_abs();
            let cursor = Cursor { start_us: row.start_us, number: id.into() };
            Ok(page.offer(head, cursor, || invocation(head, id, row)))
        })?;
        let (invocations, next) = page.end();
        Ok(InvocationPage { invocations, next })
    }
}

/// The position of a record in the order of all: its start, and a number that is unique among the records with this
/// start. For an invocation it is the record's number. For a window it consists of the instance and the sequence,
/// because a window that ends between two pages moves to another table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cursor {
    start_us: i64,
    number: u128,
}

impl Cursor {
    fn parse(text: &str) -> Result<Cursor, QueryError> {
        let (start_us, number) = text.split_once('-').ok_or(QueryError::InvalidCursor)?;
        Ok(Cursor {
            start_us: start_us.parse().map_err(|_| QueryError::InvalidCursor)?,
            number: number.parse().map_err(|_| QueryError::InvalidCursor)?,
        })
    }

    fn text(&self) -> String {
        format!("{}-{}", self.start_us, self.number)
    }
}

struct Found<R> {
    cursor: Cursor,
    record: R,
}

impl<R> PartialEq for Found<R> {
    fn eq(&self, other: &Found<R>) -> bool {
        self.cursor == other.cursor
    }
}

impl<R> Eq for Found<R> {}

impl<R> PartialOrd for Found<R> {
    fn partial_cmp(&self, other: &Found<R>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Found<R> {
    fn cmp(&self, other: &Found<R>) -> Ordering {
        self.cursor.cmp(&other.cursor)
    }
}

/// A page while it is collected: of the records that were offered, the first in the order of their cursors.
struct Page<R> {
    newest: bool,
    after: Option<Cursor>,
    limit: usize,
    /// The last record is on top. One more record than the page has room for tells that there is a next page.
    found: BinaryHeap<Found<R>>,
}

impl<R> Page<R> {
    fn begin<'a>(query: &RecordQuery, visible: Visible<'a>) -> Result<(Page<R>, Scope<'a>), QueryError> {
        if !(1..=LIMIT_MAX).contains(&query.limit) {
            return Err(QueryError::InvalidLimit(query.limit));
        }
        let after = query.after.as_deref().map(Cursor::parse).transpose()?;
        let mut scope = Scope::new(query.function.as_ref(), query.from, query.to, visible);
        // One more tells whether there is another page.
        scope.newest = query.newest.then_some(query.limit as usize + 1);
        if let Some(Cursor { start_us, .. }) = after {
            match query.newest {
                false => scope.from_us = scope.from_us.max(start_us),
                true => scope.to_us = scope.to_us.min(start_us.saturating_add(1)),
            }
        }
        let (newest, limit) = (query.newest, query.limit as usize);
        let after = after.map(|after| placed(newest, after));
        Ok((Page { newest, after, limit, found: BinaryHeap::new() }, scope))
    }

    /// Adds the record at `cursor`, from the block of `head`, if it is among the first so far. Breaks if no later block
    /// can have a record of the page.
    fn offer(&mut self, head: &Head<'_>, cursor: Cursor, record: impl FnOnce() -> R) -> ControlFlow<()> {
        let cursor = placed(self.newest, cursor);
        if self.after.is_some_and(|after| cursor <= after) {
            return ControlFlow::Continue(());
        }
        if self.found.len() > self.limit
            && let Some(last) = self.found.peek()
        {
            let all_later =
                if self.newest { !head.end_us() >= last.cursor.start_us } else { head.first_us > last.cursor.start_us };
            if all_later {
                return ControlFlow::Break(());
            }
            if cursor > last.cursor {
                return ControlFlow::Continue(());
            }
            self.found.pop();
        }
        self.found.push(Found { cursor, record: record() });
        ControlFlow::Continue(())
    }

    fn end(self) -> (Vec<R>, Option<String>) {
        let newest = self.newest;
        let mut found = self.found.into_sorted_vec();
        let more = found.len() > self.limit;
        found.truncate(self.limit);
        let next = found.last().filter(|_| more).map(|last| placed(newest, last.cursor).text());
        (found.into_iter().map(|found| found.record).collect(), next)
    }
}

/// A cursor's place in the order of a page; and of such a place, the cursor.
fn placed(newest: bool, cursor: Cursor) -> Cursor {
    let Cursor { start_us, number } = cursor;
    if newest { Cursor { start_us: !start_us, number: !number } } else { cursor }
}

fn window(head: &Head<'_>, row: &WindowRow) -> WindowRecord {
    let epochs = row.epochs();
    WindowRecord {
        function: head.function.to_owned(),
        version: head.version.to_owned(),
        instance: row.instance.to_string(),
        sequence: row.sequence,
        start: time::rfc3339_ms(row.start_us),
        end: (row.state != State::Open).then(|| time::rfc3339_ms(row.at_us)),
        executed_ms: time::to_ms(row.executed_ns),
        duration_ms: time::to_ms(row.duration_ns),
        open_ms: time::to_ms(row.open_ns),
        requests: row.requests,
        hook_calls: row.hook_calls,
        memory_bytes_peak: row.memory_bytes_peak,
        memory_mb: row.memory_mb,
        epochs,
        cu: compute_units(epochs * u64::from(row.memory_mb)),
        basis: row.basis,
        parked_ms: time::to_ms(row.parked_ns),
        parked_bytes: row.parked_bytes,
        state: match row.state {
            State::Open => WindowState::Open,
            State::Ended => WindowState::Ended,
            State::Lost => WindowState::Lost,
        },
    }
}

fn invocation(head: &Head<'_>, id: u64, row: &InvocationRow<'_>) -> InvocationRecord {
    InvocationRecord {
        id,
        request: row.request.to_string(),
        function: head.function.to_owned(),
        version: head.version.to_owned(),
        instance: row.instance.map(|instance| instance.to_string()),
        start: time::rfc3339_ms(row.start_us),
        queued_ms: time::to_ms(row.queued_ns),
        handler_ms: time::to_ms(row.handler_ns),
        executed_ms: time::to_ms(row.executed_ns),
        called_by: row.called_by,
        key: row.key.map(|key| key.to_string()),
        attempt: row.attempt,
        outcome: row.outcome.to_owned(),
        delivered: row.delivered,
    }
}
