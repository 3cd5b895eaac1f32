//! Reading the file with the lines of all logs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::block;
use super::search::{Gathered, Search};
use super::store::{Owner, number_of};
use crate::clock::microseconds;

/// Blocks that one search reads at most; whoever wants more goes on before the last line of them.
const BLOCKS_READ_MAX: usize = 512;
/// How long a reader waits for SQLite's own locks.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// Readers have connections of their own, so that nobody waits for the thread that writes, nor for another reader.
pub(super) struct Reader {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> anyhow::Result<Reader> {
        let reader = Reader { path: path.to_owned(), idle: Mutex::default() };
        let first = reader.connection()?;
        reader.lock().push(first);
        Ok(reader)
    }

    fn connection(&self) -> anyhow::Result<Connection> {
        let idle = self.lock().pop();
        let opened = idle.map_or_else(
            || {
                let connection = Connection::open(&self.path)?;
                connection.pragma_update(None, "query_only", true)?;
                connection.busy_timeout(BUSY_WAIT)?;
                Ok(connection)
            },
            Ok,
        );
        opened.map_err(|error: rusqlite::Error| {
            anyhow::Error::from(error).context(format!("read {}", self.path.display()))
        })
    }

    /// Adds lines that are meant, from before the line `below` on back in time, until there are enough. Returns the line before
    /// which there may be more.
    pub(super) fn search(
        &self,
        (owner, search): (&Owner, &Search),
        below: u64,
        gathered: &mut Gathered,
        is_wanted: &dyn Fn() -> bool,
    ) -> anyhow::Result<Option<u64>> {
        let connection = self.connection()?;
        let next = search_in(&connection, (owner, search), below, gathered, is_wanted);
        self.lock().push(connection);
        next
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().expect("no holder of this lock panics")
    }
}

fn search_in(
    connection: &Connection,
    (owner, search): (&Owner, &Search),
    below: u64,
    gathered: &mut Gathered,
    is_wanted: &dyn Fn() -> bool,
) -> anyhow::Result<Option<u64>> {
    let which = match &search.request {
        Some(_) => "id IN (SELECT block FROM requests WHERE request = ?5)",
        None => "?5 = 0",
    };
    let sql = format!(
        "SELECT first_sequence, lines FROM blocks
         WHERE log = (SELECT id FROM logs WHERE function = ?1 AND created_us = ?2)
         AND first_sequence < ?3 AND +last_us >= ?4 AND first_us < ?6 AND {which}
         ORDER BY first_sequence DESC LIMIT {BLOCKS_READ_MAX}"
    );
    let number = search.request.as_ref().map_or(0, |request| number_of(request));
    let signed = |number: u64| number.min(i64::MAX as u64).cast_signed();
    let values = params![
        owner.function.as_str(),
        owner.created_us,
        signed(below),
        search.from.map_or(0, |from| signed(microseconds(from))),
        number,
        search.to.map_or(i64::MAX, |to| signed(microseconds(to))),
    ];
    let mut statement = connection.prepare_cached(&sql)?;
    let read = |row: &Row<'_>| Ok((row.get::<_, u64>(0)?, row.get::<_, Vec<u8>>(1)?));
    let mut blocks_read = 0;
    for block in statement.query_map(values, read)? {
        let (first, packed) = block?;
        blocks_read += 1;
        let lines = block::unpack(&packed).into_iter().rev();
        for line in lines.filter(|line| line.sequence < below && search.is_meant(line)) {
            let sequence = line.sequence;
            if !gathered.add(line, search) {
                return Ok(Some(sequence + 1));
            }
        }
        if blocks_read == BLOCKS_READ_MAX || !is_wanted() {
            return Ok(Some(first));
        }
    }
    Ok(None)
}
