//! Sums by function and hour, kept beside the records, so that the bill of a month is not made of millions of them.
//!
//! The writer adds blocks to the sums some time after it has stored them, in the order of their numbers, and notes how far it
//! has come in the same transaction. A query takes whole hours from the sums, and reads the blocks that are not in them yet
//! and those at the edges of its time.

use std::collections::HashMap;
use std::ops::ControlFlow;

use rusqlite::{Connection, TransactionBehavior, params};

use super::block::{Rows, WINDOW_BLOCKS, damaged};
use super::exact::{Charge, Exact};
use super::query::{QueryError, Reader, Scope, Visited};

/// The span of a sum.
pub(super) const HOUR_US: i64 = 3_600_000_000;

/// Sums as a row holds them: ten numbers of 8 bytes, then five of 16, the lowest byte first.
const BYTES: usize = 10 * 8 + 5 * 16;

/// Blocks of windows that are in no sum yet.
pub(super) fn unsummed(connection: &Connection) -> rusqlite::Result<usize> {
    let sql = "SELECT count(*) FROM window_blocks WHERE id >= (SELECT next FROM summed)";
    connection.query_row(sql, (), |row| row.get(0))
}

/// The number of the first window that is in no sum.
pub(super) fn summed_to(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT next FROM summed", (), |row| row.get(0))
}

/// Adds at most so many blocks to the sums, and returns how many there were.
pub(super) fn sum_up(connection: &mut Connection, blocks_max: usize) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut added: HashMap<(String, i64), Exact> = HashMap::new();
    let (mut blocks, mut next) = (0, None);
    {
        let mut select = transaction.prepare_cached(
            "SELECT id, count, function, first_us, rows FROM window_blocks
             WHERE id >= (SELECT next FROM summed) ORDER BY id LIMIT ?1",
        )?;
        let mut stored = select.query([blocks_max])?;
        while let Some(block) = stored.next()? {
            let (id, count, function): (i64, i64, String) = (block.get(0)?, block.get(1)?, block.get(2)?);
            let bytes = block.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
            let mut rows = Rows::new(bytes, block.get(3)?);
            while let Some(row) = rows.window() {
                let hour_us = row.start_us - row.start_us.rem_euclid(HOUR_US);
                added.entry((function.clone(), hour_us)).or_default().add(&row);
            }
            if !rows.are_read() {
                return Err(damaged(WINDOW_BLOCKS));
            }
            blocks += 1;
            next = Some(id + count);
        }
        let mut get = transaction.prepare_cached("SELECT sums FROM hours WHERE function = ?1 AND hour_us = ?2")?;
        let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO hours VALUES (?1, ?2, ?3)")?;
        for ((function, hour_us), mut sums) in added {
            let mut before = get.query(params![function, hour_us])?;
            if let Some(row) = before.next()? {
                sums.add_sums(&read(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?);
            }
            put.execute(params![function, hour_us, written(&sums)])?;
        }
    }
    if let Some(next) = next {
        transaction.execute("UPDATE summed SET next = ?1", [next])?;
    }
    transaction.commit()?;
    Ok(blocks)
}

/// Deletes the sums of hours that began and ended before a time.
pub(super) fn prune(connection: &Connection, before_us: i64) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM hours WHERE hour_us <= ?1")?;
    delete.execute([before_us.saturating_sub(HOUR_US)]).map(drop)
}

impl Reader {
    /// The number of the first window that is in no sum.
    pub(super) fn summed_to(&self) -> Result<i64, QueryError> {
        Ok(summed_to(&self.0)?)
    }

    /// Visits the sums of the hours of `scope`, with their functions and beginnings.
    pub(super) fn hours(
        &self,
        scope: &Scope<'_>,
        mut visit: impl FnMut(&str, i64, &Exact) -> Visited,
    ) -> Result<(), QueryError> {
        let mut select = self.0.prepare(
            "SELECT function, hour_us, sums FROM hours
             WHERE hour_us >= ?1 AND hour_us < ?2 AND (?3 IS NULL OR function = ?3) ORDER BY hour_us",
        )?;
        let mut stored = select.query(params![scope.from_us, scope.to_us, scope.function])?;
        while let Some(row) = stored.next()? {
            let function = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            if !(scope.visible)(function) {
                continue;
            }
            let sums = read(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?;
            if visit(function, row.get(1)?, &sums)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

fn written(sums: &Exact) -> Vec<u8> {
    let charges = [sums.by_execution, sums.by_duration, sums.charged];
    let small = [sums.windows, sums.requests, sums.hook_calls, sums.memory_bytes_peak].into_iter();
    let small = small.chain(charges.into_iter().flat_map(|charge| [charge.epochs, charge.epoch_mb]));
    let large = [sums.executed_ns, sums.duration_ns, sums.open_ns, sums.parked_ns, sums.parked_byte_ns];
    let mut bytes: Vec<u8> = small.flat_map(u64::to_le_bytes).collect();
    bytes.extend(large.into_iter().flat_map(u128::to_le_bytes));
    bytes
}

fn read(bytes: &[u8]) -> rusqlite::Result<Exact> {
    let bytes: &[u8; BYTES] = bytes.try_into().map_err(|_| damaged("hours"))?;
    let (small, large) = bytes.split_at(10 * 8);
    let small = |place: usize| u64::from_le_bytes(std::array::from_fn(|byte| small[place * 8 + byte]));
    let large = |place: usize| u128::from_le_bytes(std::array::from_fn(|byte| large[place * 16 + byte]));
    let charge = |place: usize| Charge { epochs: small(place), epoch_mb: small(place + 1) };
    Ok(Exact {
        windows: small(0),
        requests: small(1),
        hook_calls: small(2),
        memory_bytes_peak: small(3),
        by_execution: charge(4),
        by_duration: charge(6),
        charged: charge(8),
        executed_ns: large(0),
        duration_ns: large(1),
        open_ns: large(2),
        parked_ns: large(3),
        parked_byte_ns: large(4),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_survive() {
        let charge = |epochs, epoch_mb| Charge { epochs, epoch_mb };
        let sums = Exact {
            windows: 1,
            requests: 2,
            hook_calls: 3,
            memory_bytes_peak: u64::MAX,
            executed_ns: 5,
            duration_ns: u128::MAX,
            open_ns: 7,
            parked_ns: 8,
            by_execution: charge(9, 10),
            by_duration: charge(11, 12),
            charged: charge(13, 14),
            parked_byte_ns: 15,
        };
        assert_eq!(read(&written(&sums)).unwrap(), sums);
        assert!(read(&[0; BYTES - 1]).is_err());
    }
}
