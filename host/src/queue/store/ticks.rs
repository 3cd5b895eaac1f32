//! What is kept of timers.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows;
use crate::clock::{from_microseconds, microseconds};
use crate::queue::invocation::{NewInvocation, Tick, TickState};

/// Invocations of a timer that are remembered.
const RUNS_MAX: usize = 10;

pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<TickState>> {
    let mut statement = connection.prepare("SELECT * FROM ticks")?;
    let found = statement.query_map((), |row| {
        let function: String = row.get("function")?;
        Ok(TickState {
            function: function.parse().map_err(|_| rows::wrong("function"))?,
            tick: Tick {
                trigger: row.get("trigger")?,
                schedule: row.get("schedule")?,
                at: from_microseconds(row.get("last_us")?),
            },
            runs: rows::json(row, "runs")?.unwrap_or_default(),
        })
    });
    found?.collect()
}

/// Whether a tick was dealt with already.
pub(super) fn is_over(connection: &Connection, function: &str, tick: &Tick) -> rusqlite::Result<bool> {
    let sql = "SELECT last_us FROM ticks WHERE function = ?1 AND trigger = ?2 AND schedule = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let last: Option<u64> =
        statement.query_row(params![function, tick.trigger, tick.schedule], |row| row.get(0)).optional()?;
    Ok(last.is_some_and(|last| last >= microseconds(tick.at)))
}

/// Notes where a timer begins, or from where it goes on.
pub(super) fn note(connection: &Connection, function: &str, tick: &Tick) -> rusqlite::Result<()> {
    let sql = "INSERT INTO ticks VALUES (?1, ?2, ?3, ?4, '[]')
               ON CONFLICT DO UPDATE SET schedule = excluded.schedule, last_us = excluded.last_us";
    let values = params![function, tick.trigger, tick.schedule, microseconds(tick.at)];
    connection.prepare_cached(sql)?.execute(values).map(drop)
}

/// Notes the invocation of a trigger.
pub(super) fn note_run(connection: &Connection, trigger: &str, new: &NewInvocation) -> rusqlite::Result<()> {
    let function = new.lane.function.as_str();
    if let Some(tick) = &new.tick {
        note(connection, function, tick)?;
    }
    // A timer that is disabled can be fired by hand.
    let sql = "INSERT OR IGNORE INTO ticks VALUES (?1, ?2, '', 0, '[]')";
    connection.prepare_cached(sql)?.execute(params![function, trigger])?;
    let sql = "SELECT runs FROM ticks WHERE function = ?1 AND trigger = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let runs: Option<Vec<String>> = statement.query_row(params![function, trigger], |row| rows::json(row, "runs"))?;
    let mut runs = runs.unwrap_or_default();
    runs.insert(0, new.id.to_string());
    runs.truncate(RUNS_MAX);
    let sql = "UPDATE ticks SET runs = ?3 WHERE function = ?1 AND trigger = ?2";
    connection.prepare_cached(sql)?.execute(params![function, trigger, rows::json_of(&runs)?]).map(drop)
}

/// Forgets a timer.
pub(super) fn forget(connection: &Connection, function: &str, trigger: &str) -> rusqlite::Result<()> {
    let sql = "DELETE FROM ticks WHERE function = ?1 AND trigger = ?2";
    connection.execute(sql, params![function, trigger]).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_tick_that_was_dealt_with_is_over_and_another_schedule_begins_anew() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("schema.sql")).unwrap();
        let tick = |schedule: &str, seconds| Tick {
            trigger: "t".to_owned(),
            schedule: schedule.to_owned(),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        };
        note(&connection, "f", &tick("hourly", 100)).unwrap();
        let is_over =
            |function: &str, schedule: &str, seconds| is_over(&connection, function, &tick(schedule, seconds));
        assert!(is_over("f", "hourly", 100).unwrap() && is_over("f", "hourly", 99).unwrap());
        assert!(!is_over("f", "hourly", 101).unwrap() && !is_over("f", "daily", 100).unwrap());
        assert!(!is_over("g", "hourly", 100).unwrap());
        forget(&connection, "f", "t").unwrap();
        assert!(!is_over("f", "hourly", 100).unwrap());
    }
}
