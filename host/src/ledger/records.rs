//! Single records, page by page: windows and invocations in the order of their starts.
//!
//! A page's cursor is the place of its last record in that order, so a page costs about the same wherever it is. A
//! record that is stored later but started earlier than the cursor is not on a later page: who follows a running host
//! asks again for a time range.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::query::{Filter, Next, QueryError, read_blocks, read_open_windows};
use super::record::{self, Invocation, Invocations, Kind, Record, Window, Windows};
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
        let (mut page, reader) = self.page(query)?;
        read_open_windows(&reader, page.filter, |window| page.offer(&window, 0, shown_window))?;
        let page = page.fill::<Windows>(&reader, shown_window)?;
        let (windows, next) = page.into_records();
        Ok(WindowPage { windows, next })
    }

    /// Lists invocations. It blocks.
    pub fn invocations(&self, query: &RecordQuery) -> Result<InvocationPage, QueryError> {
        let (page, reader) = self.page(query)?;
        let page = page.fill::<Invocations>(&reader, shown_invocation)?;
        let (invocations, next) = page.into_records();
        Ok(InvocationPage { invocations, next })
    }

    fn page<'q, S>(&self, query: &'q RecordQuery) -> Result<(Page<'q, S>, Connection), QueryError> {
        if !(1..=LIMIT_MAX).contains(&query.limit) {
            return Err(QueryError::InvalidLimit(query.limit));
        }
        let mut filter = Filter::new(query.function.as_ref(), query.from, query.to);
        let after = query.after.as_deref().map(Cursor::parse).transpose()?;
        if let Some(after) = after {
            filter = filter.not_before(after.start_us);
        }
        let page = Page { filter, after, limit: query.limit as usize, records: BTreeMap::new() };
        Ok((page, self.reader()?))
    }
}

/// The earliest records that come after a cursor: one more than the page has room for, which tells whether there is a
/// next one.
struct Page<'q, S> {
    filter: Filter<'q>,
    after: Option<Cursor>,
    limit: usize,
    records: BTreeMap<Cursor, S>,
}

impl<S> Page<'_, S> {
    /// Takes a record if it is among the earliest so far.
    fn offer<'a, R: Record<'a>>(&mut self, record: &R, number: u64, show: fn(&R, u64) -> S) -> Result<(), QueryError> {
        let at = Cursor { start_us: record.start_us(), tie: record.tie(number) };
        let too_late = self.is_full() && self.records.last_key_value().is_some_and(|(last, _)| *last < at);
        if self.after.is_none_or(|after| after < at) && !too_late {
            self.records.insert(at, show(record, number));
            if self.records.len() > self.limit + 1 {
                self.records.pop_last();
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.records.len() > self.limit
    }

    /// Reads blocks for as long as they may hold an earlier record than those it has.
    fn fill<K: Kind>(self, reader: &Connection, show: for<'a> fn(&K::Of<'a>, u64) -> S) -> Result<Self, QueryError> {
        let filter = self.filter;
        let page = RefCell::new(self);
        let next = |first_us| {
            let page = page.borrow();
            let last = page.records.last_key_value().map(|(last, _)| last.start_us);
            if page.is_full() && last.is_some_and(|last| last < first_us) { Next::Enough } else { Next::Block }
        };
        read_blocks::<K>(reader, filter, next, |number, record| page.borrow_mut().offer(&record, number, show))?;
        Ok(page.into_inner())
    }

    fn into_records(mut self) -> (Vec<S>, Option<String>) {
        let more = self.is_full();
        if more {
            self.records.pop_last();
        }
        let next = self.records.last_key_value().filter(|_| more).map(|(last, _)| last.text());
        (self.records.into_values().collect(), next)
    }
}

/// Where a record is in the order of all; a page's last one names the next page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cursor {
    start_us: i64,
    tie: u128,
}

impl Cursor {
    fn parse(text: &str) -> Result<Cursor, QueryError> {
        let (start_us, tie) = text.split_once('-').ok_or(QueryError::InvalidCursor)?;
        Ok(Cursor {
            start_us: start_us.parse().map_err(|_| QueryError::InvalidCursor)?,
            tie: tie.parse().map_err(|_| QueryError::InvalidCursor)?,
        })
    }

    fn text(&self) -> String {
        format!("{}-{}", self.start_us, self.tie)
    }
}

fn ms(ns: u64) -> f64 {
    time::to_ms(Duration::from_nanos(ns))
}

fn shown_window(window: &Window<'_>, _number: u64) -> WindowRecord {
    let state = match window.state {
        record::OPEN => WindowState::Open,
        record::ENDED => WindowState::Ended,
        _ => WindowState::Lost,
    };
    let (basis, charged_ns) =
        if window.by_duration { (Basis::Duration, window.duration_ns) } else { (Basis::Execution, window.executed_ns) };
    let epochs = epochs(Duration::from_nanos(charged_ns));
    WindowRecord {
        function: window.function.to_owned(),
        version: window.version.to_owned(),
        instance: InstanceId::from_u64(window.instance).to_string(),
        sequence: window.sequence,
        start: time::rfc3339_ms(window.start_us),
        end: if state == WindowState::Open { None } else { Some(time::rfc3339_ms(window.at_us)) },
        executed_ms: ms(window.executed_ns),
        duration_ms: ms(window.duration_ns),
        open_ms: ms(window.open_ns),
        requests: window.requests,
        hook_calls: window.hook_calls,
        memory_bytes_peak: window.memory_bytes_peak,
        memory_mb: window.memory_mb,
        epochs,
        cu: compute_units(epochs * u64::from(window.memory_mb)),
        basis,
        parked_ms: ms(window.parked_ns),
        parked_bytes: window.parked_bytes,
        state,
    }
}

fn shown_invocation(invocation: &Invocation<'_>, number: u64) -> InvocationRecord {
    InvocationRecord {
        id: number,
        request: invocation.request.to_owned(),
        function: invocation.function.to_owned(),
        version: invocation.version.to_owned(),
        instance: invocation.instance.map(|instance| InstanceId::from_u64(instance).to_string()),
        start: time::rfc3339_ms(invocation.start_us),
        queued_ms: ms(invocation.queued_ns),
        handler_ms: ms(invocation.handler_ns),
        outcome: invocation.outcome.to_owned(),
        delivered: invocation.delivered,
    }
}
