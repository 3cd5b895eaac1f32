//! The tables of the queue in SQLite, and every change of them.

use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::counts::{Counts, Full};
use super::rows::{self, ENDED, Id, RUNNING, WAITING};
use super::{Accepted, Claim, Stop, StoreBounds, ticks};
use crate::clock::{self, from_microseconds, microseconds};
use crate::ids::{FunctionName, RequestId};
use crate::queue::invocation::{AttemptResult, LaneId, LaneKey, NewInvocation, State, Tick, Verdict};
use crate::sqlite::{self, Schema};

const SCHEMA: Schema =
    Schema { version: 1, create: include_str!("schema.sql"), migrations: &[], unmarked_version: 0, shrinks: true };

/// Bytes of events that one claim takes into memory, if it takes more than one.
const CLAIM_BYTES_MAX: usize = 8 << 20;
/// Invocations that are forgotten in one step.
const FORGOTTEN_MAX: u64 = 1000;
/// Free pages that are given back to the file system in one step, and how many there must be.
const PAGES_GIVEN_BACK: u64 = 2000;
const PAGES_FREE_MIN: u64 = 256;

/// What an invocation counts for.
const BYTES: &str = "ifnull(octet_length(event), 0) + ifnull(octet_length(origin), 0)";

/// A change of the tables.
pub(super) type Change<T> = Box<dyn FnOnce(&mut Tables) -> rusqlite::Result<T> + Send>;

/// The tables, of which there is one writer.
pub(super) struct Tables {
    connection: Connection,
    bounds: StoreBounds,
    lanes: HashMap<LaneKey, LaneId>,
    /// Invocations that have ended and are still kept.
    ended: u64,
    /// Whether the tables are as large as they may be.
    is_full: bool,
    /// Space was given back that the file system does not have yet.
    gave_back: bool,
}

impl Tables {
    /// Opens the tables and counts what is in them. What was running waits again.
    pub(super) fn open(path: &Path, bounds: StoreBounds) -> anyhow::Result<(Tables, Counts)> {
        let open = || -> anyhow::Result<(Tables, Counts)> {
            let connection = sqlite::open_durable(path, &SCHEMA)?;
            connection.pragma_update(None, "cache_size", -16_384)?;
            connection.set_prepared_statement_cache_capacity(32);
            let mut tables =
                Tables { connection, bounds, lanes: HashMap::new(), ended: 0, is_full: false, gave_back: false };
            // Their numbers may be used again, so they are forgotten only here, where nobody has them.
            tables.connection.execute_batch(
                "DELETE FROM lanes WHERE NOT EXISTS (SELECT 1 FROM invocations WHERE lane = lanes.id);
                 DELETE FROM functions WHERE id NOT IN (SELECT function FROM lanes)",
            )?;
            tables.read_lanes()?;
            tables.wait_again()?;
            let counts = Counts::new(bounds.bytes_max);
            tables.count(&counts)?;
            Ok((tables, counts))
        };
        open().with_context(|| format!("open {}", path.display()))
    }

    fn read_lanes(&mut self) -> anyhow::Result<()> {
        let mut statement = self.connection.prepare(
            "SELECT lanes.id, name, qualifier, url FROM lanes JOIN functions ON functions.id = lanes.function",
        )?;
        let mut found = statement.query(())?;
        while let Some(row) = found.next()? {
            self.lanes.insert(rows::lane_key(row)?, LaneId(row.get("id")?));
        }
        Ok(())
    }

    /// What was running when the host before ended waits again, in its old place.
    fn wait_again(&self) -> rusqlite::Result<()> {
        for lane in self.lanes.values() {
            self.connection.execute(
                "UPDATE invocations SET state = ?2, at_us = accepted_us WHERE lane = ?1 AND state = ?3",
                params![lane.0, WAITING, RUNNING],
            )?;
        }
        Ok(())
    }

    fn count(&mut self, counts: &Counts) -> anyhow::Result<()> {
        let keys: HashMap<LaneId, LaneKey> = self.lanes.iter().map(|(key, id)| (*id, key.clone())).collect();
        let sql = format!("SELECT lane, state, at_us, {BYTES} FROM invocations");
        let mut statement = self.connection.prepare(&sql)?;
        let mut found = statement.query(())?;
        while let Some(row) = found.next()? {
            if row.get::<_, i64>(1)? != WAITING {
                self.ended += 1;
                continue;
            }
            let lane = LaneId(row.get(0)?);
            let key = keys.get(&lane).context("an event is in a lane that is not there")?;
            counts.found(lane, key, from_microseconds(row.get(2)?), row.get(3)?);
        }
        Ok(())
    }

    /// Makes changes in one transaction: all of them, or none.
    pub(super) fn group<T>(&mut self, changes: Vec<Change<T>>) -> rusqlite::Result<Vec<T>> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let make = |tables: &mut Tables| -> rusqlite::Result<Vec<T>> {
            tables.make_room()?;
            changes.into_iter().map(|change| change(tables)).collect()
        };
        let ended = self.ended;
        let made = make(self).and_then(|made| self.connection.execute_batch("COMMIT").map(|()| made));
        if made.is_err() {
            self.ended = ended;
            if !self.connection.is_autocommit() {
                self.connection.execute_batch("ROLLBACK")?;
            }
            // Lanes that the transaction made are not there. If they cannot be read now, the next group fails and tries again.
            self.lanes.clear();
            if let Err(error) = self.read_lanes() {
                tracing::error!("the queue's lanes cannot be read: {error:#}");
            }
        }
        if std::mem::take(&mut self.gave_back) && made.is_ok() {
            // The file becomes smaller once its log is part of it. If somebody reads just now, the next time will do.
            let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
        }
        made
    }

    /// Forgets the oldest of what has ended if the tables are too large, and notes whether they still are.
    fn make_room(&mut self) -> rusqlite::Result<()> {
        self.is_full = sqlite::bytes_used(&self.connection)? > self.bounds.bytes_max;
        if self.is_full && self.forget_oldest(FORGOTTEN_MAX)? > 0 {
            self.is_full = sqlite::bytes_used(&self.connection)? > self.bounds.bytes_max;
        }
        Ok(())
    }

    pub(super) fn accept(&mut self, new: &NewInvocation) -> rusqlite::Result<Result<Accepted, Full>> {
        if self.is_full {
            return Ok(Err(Full::Host(self.bounds.bytes_max >> 20)));
        }
        if let Some(tick) = &new.tick
            && ticks::is_over(&self.connection, new.lane.function.as_str(), tick)?
        {
            return Ok(Ok(Accepted::Known(State::Queued)));
        }
        let lane = self.lane(&new.lane)?;
        let forgotten = self.forget_of_earlier(new)?;
        self.ended = self.ended.saturating_sub(forgotten);
        if self.insert(lane, new)? {
            if let Some(trigger) = &new.origin.trigger {
                ticks::note_run(&self.connection, trigger, new)?;
            }
            if let Some(replayed) = &new.origin.replay_of {
                let sql = "UPDATE invocations SET replayed = 1
                           WHERE id = ?1 AND function = (SELECT function FROM lanes WHERE id = ?2)";
                let id: Option<RequestId> = replayed.parse().ok();
                let values = params![id.as_ref().map(Id), lane.0];
                self.connection.prepare_cached(sql)?.execute(values)?;
            }
            return Ok(Ok(Accepted::New(lane)));
        }
        let sql = "SELECT state, attempts FROM invocations
                   WHERE id = ?1 AND function = (SELECT id FROM functions WHERE name = ?2)";
        let mut statement = self.connection.prepare_cached(sql)?;
        let known = statement.query_row(params![Id(&new.id), new.lane.function.as_str()], rows::state)?;
        Ok(Ok(Accepted::Known(known)))
    }

    /// Forgets what an earlier function of the same name had under this identifier; says how many that were.
    fn forget_of_earlier(&self, new: &NewInvocation) -> rusqlite::Result<u64> {
        let sql = "DELETE FROM invocations WHERE id = ?1 AND function = (SELECT id FROM functions WHERE name = ?2)
                   AND accepted_us < ?3 AND state >= ?4";
        let since = microseconds(new.function_since);
        let values = params![Id(&new.id), new.lane.function.as_str(), since, ENDED[0]];
        Ok(self.connection.prepare_cached(sql)?.execute(values)? as u64)
    }

    /// False if the function has one of this identifier.
    fn insert(&self, lane: LaneId, new: &NewInvocation) -> rusqlite::Result<bool> {
        let origin = rows::json_unless_default(&new.origin)?;
        let sql =
            "INSERT INTO invocations (function, lane, id, state, at_us, accepted_us, attempts, failures, origin, event)
                   VALUES ((SELECT function FROM lanes WHERE id = ?1), ?1, ?2, ?3, ?4, ?5, 0, 0, ?6, ?7)
                   ON CONFLICT (id, function) DO NOTHING";
        let (due, now) = (microseconds(new.due), microseconds(clock::date()));
        let values = params![lane.0, Id(&new.id), WAITING, due, now, origin, &*new.event];
        Ok(self.connection.prepare_cached(sql)?.execute(values)? > 0)
    }

    fn lane(&mut self, key: &LaneKey) -> rusqlite::Result<LaneId> {
        if let Some(lane) = self.lanes.get(key) {
            return Ok(*lane);
        }
        let name = key.function.as_str();
        self.connection.execute("INSERT OR IGNORE INTO functions (name) VALUES (?1)", [name])?;
        let qualifier = key.qualifier.as_deref().unwrap_or_default();
        let url = key.url.as_deref().unwrap_or_default();
        let sql =
            "INSERT INTO lanes (function, qualifier, url) VALUES ((SELECT id FROM functions WHERE name = ?1), ?2, ?3)";
        self.connection.execute(sql, params![name, qualifier, url])?;
        let lane = LaneId(self.connection.last_insert_rowid());
        self.lanes.insert(key.clone(), lane);
        Ok(lane)
    }

    pub(super) fn claim(
        &mut self,
        lane: LaneId,
        key: &LaneKey,
        due_by: SystemTime,
        limit: usize,
    ) -> rusqlite::Result<Claim> {
        let (mut claim, mut unreadable) = (Claim::default(), Vec::<(u64, String)>::new());
        let now = microseconds(clock::date());
        {
            let sql = "SELECT seq, id, accepted_us, attempts, failures, origin, event FROM invocations
                       WHERE lane = ?1 AND state = ?2 AND at_us <= ?3 ORDER BY at_us LIMIT ?4";
            let mut statement = self.connection.prepare_cached(sql)?;
            let mut found = statement.query(params![lane.0, WAITING, microseconds(due_by), limit])?;
            let mut bytes = 0;
            while bytes < CLAIM_BYTES_MAX
                && let Some(row) = found.next()?
            {
                let seq = row.get("seq")?;
                match rows::claimed(row, lane, key, seq) {
                    Ok(read) => {
                        bytes += read.event.len();
                        claim.claimed.push(read);
                    }
                    Err(error) => unreadable.push((seq, error.to_string())),
                }
            }
        }
        for (seq, error) in unreadable {
            // Nobody may have to wait behind it.
            tracing::error!(function = %key.function, "an event cannot be read and is given up: {error}");
            let result = AttemptResult { code: "internal".to_owned(), detail: error, ..AttemptResult::default() };
            let sql = "UPDATE invocations SET state = ?2, at_us = ?3, result = ?4 WHERE seq = ?1";
            let values = params![seq, rows::number(State::Failed), now, rows::json_of(&result)?];
            self.connection.execute(sql, values)?;
            self.note_end(seq)?;
        }
        for claimed in &claim.claimed {
            let sql = "UPDATE invocations SET state = ?2, at_us = ?3, attempts = ?4 WHERE seq = ?1";
            let values = params![claimed.seq, RUNNING, now, claimed.attempt];
            self.connection.prepare_cached(sql)?.execute(values)?;
        }
        let sql = "SELECT min(at_us) FROM invocations WHERE lane = ?1 AND state = ?2";
        let next: Option<u64> =
            self.connection.prepare_cached(sql)?.query_row(params![lane.0, WAITING], |row| row.get(0))?;
        claim.next = next.map(from_microseconds);
        Ok(claim)
    }

    /// Notes what became of an attempt. Returns the lane of what tells the destination, if something does.
    pub(super) fn settle(
        &mut self,
        seq: u64,
        result: &AttemptResult,
        verdict: &Verdict,
    ) -> rusqlite::Result<Option<LaneId>> {
        let unused = result.began_us == 0;
        let result = rows::json_of(result)?;
        let now = microseconds(clock::date());
        match verdict {
            Verdict::Retry { due, counts } => {
                let sql = "UPDATE invocations SET state = ?2, at_us = ?3, failures = failures + ?4, result = ?5,
                           attempts = attempts - ?7 WHERE seq = ?1 AND state = ?6";
                let values = params![seq, WAITING, microseconds(*due), counts, result, RUNNING, unused];
                self.connection.prepare_cached(sql)?.execute(values)?;
                Ok(None)
            }
            Verdict::End { state, reply, next } => {
                let sql = "UPDATE invocations SET state = ?2, at_us = ?3, result = ?4, reply = ?5,
                           event = iif(octet_length(event) > ?6, NULL, event), attempts = attempts - ?8
                           WHERE seq = ?1 AND state = ?7";
                let (number, kept) = (rows::number(*state), self.bounds.kept_bytes_max);
                let values = params![seq, number, now, result, reply.as_deref(), kept, RUNNING, unused];
                self.connection.prepare_cached(sql)?.execute(values)?;
                self.note_end(seq)?;
                let Some(next) = next else { return Ok(None) };
                let lane = self.lane(&next.lane)?;
                self.insert(lane, next)?;
                Ok(Some(lane))
            }
        }
    }

    fn note_end(&mut self, seq: u64) -> rusqlite::Result<()> {
        if self.bounds.kept_for.is_zero() {
            self.connection.prepare_cached("DELETE FROM invocations WHERE seq = ?1")?.execute([seq])?;
        } else {
            self.ended += 1;
        }
        Ok(())
    }

    /// Stops an invocation that waits; with the lane and the bytes of one that was stopped.
    pub(super) fn stop(
        &mut self,
        function: &FunctionName,
        id: &RequestId,
    ) -> rusqlite::Result<(Stop, Option<(LaneId, u64)>)> {
        let sql = format!(
            "SELECT seq, lane, state, attempts, {BYTES} FROM invocations
             WHERE id = ?1 AND function = (SELECT id FROM functions WHERE name = ?2)"
        );
        let found = self.connection.prepare_cached(&sql)?.query_row(params![Id(id), function.as_str()], |row| {
            Ok((row.get::<_, u64>(0)?, LaneId(row.get(1)?), rows::state(row)?, row.get::<_, u64>(4)?))
        });
        let Some((seq, lane, state, bytes)) = found.optional()? else { return Ok((Stop::NotFound, None)) };
        match state {
            State::Queued | State::WaitingToRetry => {
                let sql = "UPDATE invocations SET state = ?2, at_us = ?3 WHERE seq = ?1";
                let values = params![seq, rows::number(State::Stopped), microseconds(clock::date())];
                self.connection.execute(sql, values)?;
                self.note_end(seq)?;
                Ok((Stop::Done, Some((lane, bytes))))
            }
            State::Running => Ok((Stop::Running, None)),
            ended => Ok((Stop::Ended(ended), None)),
        }
    }

    pub(super) fn note_tick(&self, function: &FunctionName, tick: &Tick) -> rusqlite::Result<()> {
        ticks::note(&self.connection, function.as_str(), tick)
    }

    pub(super) fn forget_tick(&self, function: &FunctionName, trigger: &str) -> rusqlite::Result<()> {
        ticks::forget(&self.connection, function.as_str(), trigger)
    }

    /// Forgets what ended long ago, or is too much, and gives free space back. Says whether there is more to do.
    pub(super) fn tidy(&mut self) -> rusqlite::Result<bool> {
        let kept_since = microseconds(clock::ago(self.bounds.kept_for));
        let mut forgotten = 0;
        for lane in self.lanes.values() {
            for state in ENDED {
                let sql = "DELETE FROM invocations WHERE seq IN (SELECT seq FROM invocations
                           WHERE lane = ?1 AND state = ?2 AND at_us < ?3 LIMIT ?4)";
                let values = params![lane.0, state, kept_since, FORGOTTEN_MAX];
                forgotten += self.connection.prepare_cached(sql)?.execute(values)? as u64;
            }
        }
        self.ended = self.ended.saturating_sub(forgotten);
        let too_many = self.ended.saturating_sub(self.bounds.ended_max).min(FORGOTTEN_MAX);
        if too_many > 0 {
            forgotten += self.forget_oldest(too_many)?;
        }
        let free: u64 = self.connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        if free > PAGES_FREE_MIN {
            sqlite::give_back(&self.connection, PAGES_GIVEN_BACK)?;
            self.gave_back = true;
        }
        Ok(forgotten >= FORGOTTEN_MAX || free > PAGES_GIVEN_BACK)
    }

    /// Forgets so many of what ended first; says how many there were.
    fn forget_oldest(&mut self, count: u64) -> rusqlite::Result<u64> {
        let mut oldest: Option<(u64, LaneId, i64)> = None;
        for lane in self.lanes.values() {
            for state in ENDED {
                let sql = "SELECT min(at_us) FROM invocations WHERE lane = ?1 AND state = ?2";
                let mut statement = self.connection.prepare_cached(sql)?;
                let at: Option<u64> = statement.query_row(params![lane.0, state], |row| row.get(0))?;
                let found = at.map(|at| (at, *lane, state));
                oldest = match (oldest, found) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            }
        }
        let Some((_, lane, state)) = oldest else { return Ok(0) };
        let sql = "DELETE FROM invocations WHERE seq IN (SELECT seq FROM invocations
                   WHERE lane = ?1 AND state = ?2 ORDER BY at_us LIMIT ?3)";
        let forgotten = self.connection.prepare_cached(sql)?.execute(params![lane.0, state, count])? as u64;
        self.ended = self.ended.saturating_sub(forgotten);
        Ok(forgotten)
    }
}
