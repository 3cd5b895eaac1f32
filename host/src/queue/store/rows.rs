//! How invocations stand in rows, and reading them. Readers have a connection of their own, so they never hold the writer up.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, Type, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, ToSql, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::Wanted;
use crate::clock::{from_microseconds, microseconds};
use crate::ids::{FunctionName, RequestId};
use crate::queue::invocation::{Claimed, LaneId, LaneKey, Record, State};

/// The numbers of states. Whether one that waits was tried before is seen in its attempts.
pub(super) const WAITING: i64 = 0;
pub(super) const RUNNING: i64 = 1;
pub(super) const ENDED: [i64; 4] = [2, 3, 4, 5];

/// A record with its event and its reply, as far as they are kept.
pub type Whole = (Record, Option<Bytes>, Option<Bytes>);

const COLUMNS: &str = "seq, functions.name, lanes.qualifier, lanes.url, invocations.id, state, at_us, accepted_us, attempts, \
                       origin, result";
const TABLES: &str = "invocations JOIN lanes ON lanes.id = lane JOIN functions ON functions.id = invocations.function";

pub(super) fn number(state: State) -> i64 {
    match state {
        State::Queued | State::WaitingToRetry => WAITING,
        State::Running => RUNNING,
        State::Succeeded => 2,
        State::Failed => 3,
        State::Expired => 4,
        State::Stopped => 5,
    }
}

pub(super) fn state(row: &Row<'_>) -> rusqlite::Result<State> {
    let (number, attempts): (i64, u32) = (row.get("state")?, row.get("attempts")?);
    Ok(match number {
        WAITING if attempts == 0 => State::Queued,
        WAITING => State::WaitingToRetry,
        RUNNING => State::Running,
        2 => State::Succeeded,
        3 => State::Failed,
        4 => State::Expired,
        _ => State::Stopped,
    })
}

/// An identifier as it is stored: those that hosts make take 16 bytes.
pub(super) struct Id<'a>(pub(super) &'a RequestId);

impl ToSql for Id<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = self.0.as_str();
        Ok(match Uuid::try_parse(text).ok().filter(|uuid| uuid.hyphenated().to_string() == text) {
            Some(uuid) => ToSqlOutput::from(uuid.into_bytes().to_vec()),
            None => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

pub(super) fn id(row: &Row<'_>) -> rusqlite::Result<RequestId> {
    let text = match row.get_ref("id")? {
        ValueRef::Blob(bytes) => Uuid::from_slice(bytes).map(|uuid| uuid.hyphenated().to_string()).ok(),
        other => other.as_str().ok().map(str::to_owned),
    };
    text.and_then(|text| text.parse().ok()).ok_or_else(|| wrong("id"))
}

pub(super) fn lane_key(row: &Row<'_>) -> rusqlite::Result<LaneKey> {
    let (name, qualifier, url): (String, String, String) = (row.get("name")?, row.get("qualifier")?, row.get("url")?);
    let unless_empty = |text: String| (!text.is_empty()).then(|| text.into());
    let function: FunctionName = name.parse().map_err(|_| wrong("name"))?;
    Ok(LaneKey { function, qualifier: unless_empty(qualifier), url: unless_empty(url) })
}

pub(super) fn wrong(column: &str) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(0, column.to_owned(), Type::Blob)
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|_| wrong(column))
}

pub(super) fn json_of(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// None for a value that says nothing.
pub(super) fn json_unless_default<T: Serialize + Default + PartialEq>(value: &T) -> rusqlite::Result<Option<String>> {
    if *value == T::default() { Ok(None) } else { json_of(value).map(Some) }
}

/// An invocation whose attempt begins.
pub(super) fn claimed(row: &Row<'_>, lane: LaneId, key: &LaneKey, seq: u64) -> rusqlite::Result<Claimed> {
    let event: Option<Vec<u8>> = row.get("event")?;
    Ok(Claimed {
        seq,
        lane: key.clone(),
        lane_id: lane,
        id: id(row)?,
        accepted: from_microseconds(row.get("accepted_us")?),
        attempt: row.get::<_, u32>("attempts")? + 1,
        failures: row.get("failures")?,
        origin: json(row, "origin")?.unwrap_or_default(),
        event: Bytes::from(event.unwrap_or_default()),
    })
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        seq: row.get("seq")?,
        lane: lane_key(row)?,
        id: id(row)?,
        state: state(row)?,
        at: from_microseconds(row.get("at_us")?),
        accepted: from_microseconds(row.get("accepted_us")?),
        attempts: row.get("attempts")?,
        // What cannot be read is not shown; the rest is.
        origin: json(row, "origin").ok().flatten().unwrap_or_default(),
        result: json(row, "result").ok().flatten(),
    })
}

/// A connection for reading.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

pub(super) fn show(path: &Path, function: &FunctionName, id: &RequestId) -> anyhow::Result<Option<Whole>> {
    let read = || {
        let connection = open(path)?;
        let sql =
            format!("SELECT {COLUMNS}, event, reply FROM {TABLES} WHERE invocations.id = ?1 AND functions.name = ?2");
        let whole = |row: &Row<'_>| {
            let bytes = |column: &str| row.get::<_, Option<Vec<u8>>>(column).map(|bytes| bytes.map(Bytes::from));
            Ok((record(row)?, bytes("event")?, bytes("reply")?))
        };
        connection.query_row(&sql, params![Id(id), function.as_str()], whole).optional()
    };
    read().context("read the queue")
}

pub(super) fn list(path: &Path, wanted: &Wanted) -> anyhow::Result<Vec<Record>> {
    let read = || -> rusqlite::Result<Vec<Record>> {
        let connection = open(path)?;
        let state = match wanted.state {
            None => "1",
            Some(State::Queued) => "state = ?6 AND attempts = 0",
            Some(State::WaitingToRetry) => "state = ?6 AND attempts > 0",
            Some(_) => "state = ?6",
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM {TABLES} WHERE functions.name = ?1 AND seq < ?2 AND accepted_us >= ?3 AND accepted_us < ?4
             AND ({state}) AND ?6 = ?6 AND (?7 OR replayed = 0 AND lanes.url = '') ORDER BY seq DESC LIMIT ?5"
        );
        let time =
            |time: Option<SystemTime>, default| time.map_or(default, |time| microseconds(time).min(i64::MAX as u64));
        let values = params![
            wanted.function.as_str(),
            wanted.before.unwrap_or(i64::MAX as u64).min(i64::MAX as u64),
            time(wanted.from, 0),
            time(wanted.to, i64::MAX as u64),
            wanted.limit,
            wanted.state.map_or(WAITING, number),
            wanted.replayed,
        ];
        connection.prepare(&sql)?.query_map(values, record)?.collect()
    };
    read().context("read the queue")
}
