//! Single records, page by page: windows and invocations in the order of their starts.
//!
//! A page's cursor is the start and the row number of its last record, so a page costs the same wherever it is. A
//! record that is stored later but started earlier than the cursor is not on a later page: who follows a running host
//! asks again for a time range.

use std::time::{Duration, SystemTime};

use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::query::{Conditions, QueryError};
use super::{Ledger, time};
use crate::ids::{FunctionName, InstanceId};
use crate::meter::{Basis, compute_units, epochs};

/// Records on a page at most, and unless the caller chose.
pub(super) const LIMIT_MAX: u32 = 10_000;
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
    /// The `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl Default for RecordQuery {
    fn default() -> RecordQuery {
        RecordQuery { function: None, from: None, to: None, limit: LIMIT_DEFAULT, after: None }
    }
}

/// A page of window records, newest last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowPage {
    /// The records.
    pub windows: Vec<WindowRecord>,
    /// Names the next page, if there is one.
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
    /// Counts the instance's windows from 1.
    pub sequence: u32,
    /// When the instance woke; RFC 3339, UTC.
    pub start: String,
    /// When the window ended; absent while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Time in which the host polled the instance.
    pub executed_ms: f64,
    /// Time in which a request or a hook was under way.
    pub duration_ms: f64,
    /// Time in which the window was open, suspended time left out.
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
    /// What the window is charged by.
    pub basis: Basis,
    /// How long the instance had been parked before.
    pub parked_ms: f64,
    /// Linear memory it held while parked.
    pub parked_bytes: u64,
    /// How the window stands.
    pub state: WindowState,
}

/// How a window stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WindowState {
    /// Its figures still grow.
    Open,
    /// It ended in order.
    Ended,
    /// Its host was killed; its figures are what was stored until then.
    Lost,
}

/// A page of invocation records, newest last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvocationPage {
    /// The records.
    pub invocations: Vec<InvocationRecord>,
    /// Names the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One request that was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvocationRecord {
    /// The record's number. Requests are identified by their callers and may repeat; this does not.
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
    /// From acceptance to the instance's start on it.
    pub queued_ms: f64,
    /// From the handler's call to its end.
    pub handler_ms: f64,
    /// `ok`, `cancelled`, or the code of the error.
    pub outcome: String,
    /// Whether the caller was still there for the answer.
    pub delivered: bool,
}

impl Ledger {
    /// Lists windows. It blocks.
    pub fn windows(&self, query: &RecordQuery) -> Result<WindowPage, QueryError> {
        let (windows, next) = self.page(
            query,
            "id, start_us, function, version, instance, sequence, at_us, state, open_ns, executed_ns, duration_ns, \
             requests, hook_calls, memory_bytes_peak, memory_mb, by_duration, parked_ns, parked_bytes FROM windows",
            window,
        )?;
        Ok(WindowPage { windows, next })
    }

    /// Lists invocations. It blocks.
    pub fn invocations(&self, query: &RecordQuery) -> Result<InvocationPage, QueryError> {
        let (invocations, next) = self.page(
            query,
            "id, start_us, request, function, version, instance, queued_ns, handler_ns, outcome, delivered \
             FROM invocations",
            invocation,
        )?;
        Ok(InvocationPage { invocations, next })
    }

    fn page<R>(
        &self,
        query: &RecordQuery,
        columns: &str,
        record: fn(&Row<'_>) -> rusqlite::Result<R>,
    ) -> Result<(Vec<R>, Option<String>), QueryError> {
        if !(1..=LIMIT_MAX).contains(&query.limit) {
            return Err(QueryError::InvalidLimit(query.limit));
        }
        let mut conditions = Conditions::new(query.function.as_ref(), query.from, query.to);
        if let Some(after) = &query.after {
            conditions.and("(start_us, id) > (?, ?)", Cursor::parse(after)?.values());
        }
        let limit = query.limit as usize;
        // One more than the page has room for tells whether there is a next one.
        let sql = format!("SELECT {columns} {} ORDER BY start_us, id LIMIT {}", conditions.sql(), limit + 1);
        let reader = self.reader()?;
        let mut statement = reader.prepare(&sql)?;
        let mut rows = statement.query(conditions.values())?;
        let mut records = Vec::new();
        let mut last = Cursor { start_us: 0, id: 0 };
        while let Some(row) = rows.next()? {
            if records.len() == limit {
                return Ok((records, Some(last.text())));
            }
            last = Cursor { id: row.get(0)?, start_us: row.get(1)? };
            records.push(record(row)?);
        }
        Ok((records, None))
    }
}

/// The last record of a page.
struct Cursor {
    start_us: i64,
    id: i64,
}

impl Cursor {
    fn parse(text: &str) -> Result<Cursor, QueryError> {
        let number = |text: &str| text.parse().map_err(|_| QueryError::InvalidCursor);
        let (start_us, id) = text.split_once('-').ok_or(QueryError::InvalidCursor)?;
        Ok(Cursor { start_us: number(start_us)?, id: number(id)? })
    }

    fn text(&self) -> String {
        format!("{}-{}", self.start_us, self.id)
    }

    fn values(&self) -> [i64; 2] {
        [self.start_us, self.id]
    }
}

fn window(row: &Row<'_>) -> rusqlite::Result<WindowRecord> {
    let span = |column| -> rusqlite::Result<Duration> { Ok(time::from_ns(row.get(column)?)) };
    let state = match row.get("state")? {
        0 => WindowState::Open,
        1 => WindowState::Ended,
        2 => WindowState::Lost,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(7, other)),
    };
    let (executed, duration) = (span("executed_ns")?, span("duration_ns")?);
    let (basis, charged) =
        if row.get("by_duration")? { (Basis::Duration, duration) } else { (Basis::Execution, executed) };
    let epochs = epochs(charged);
    let memory_mb = row.get("memory_mb")?;
    Ok(WindowRecord {
        function: row.get("function")?,
        version: row.get("version")?,
        instance: instance(row.get("instance")?),
        sequence: row.get("sequence")?,
        start: time::rfc3339_ms(row.get("start_us")?),
        end: if state == WindowState::Open { None } else { Some(time::rfc3339_ms(row.get("at_us")?)) },
        executed_ms: time::to_ms(executed),
        duration_ms: time::to_ms(duration),
        open_ms: time::to_ms(span("open_ns")?),
        requests: row.get("requests")?,
        hook_calls: row.get("hook_calls")?,
        memory_bytes_peak: row.get::<_, i64>("memory_bytes_peak")?.cast_unsigned(),
        memory_mb,
        epochs,
        cu: compute_units(epochs * u64::from(memory_mb)),
        basis,
        parked_ms: time::to_ms(span("parked_ns")?),
        parked_bytes: row.get::<_, i64>("parked_bytes")?.cast_unsigned(),
        state,
    })
}

fn invocation(row: &Row<'_>) -> rusqlite::Result<InvocationRecord> {
    Ok(InvocationRecord {
        id: row.get::<_, i64>("id")?.cast_unsigned(),
        request: row.get("request")?,
        function: row.get("function")?,
        version: row.get("version")?,
        instance: row.get::<_, Option<i64>>("instance")?.map(instance),
        start: time::rfc3339_ms(row.get("start_us")?),
        queued_ms: time::to_ms(time::from_ns(row.get("queued_ns")?)),
        handler_ms: time::to_ms(time::from_ns(row.get("handler_ns")?)),
        outcome: row.get("outcome")?,
        delivered: row.get("delivered")?,
    })
}

fn instance(stored: i64) -> String {
    InstanceId::from_u64(stored.cast_unsigned()).to_string()
}
