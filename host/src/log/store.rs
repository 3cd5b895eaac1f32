//! The file with the lines of all logs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::block;
use super::{Author, Line};
use crate::clock::microseconds;
use crate::ids::FunctionName;
use crate::sqlite::{self, Schema};

const SCHEMA: Schema =
    Schema { version: 1, create: include_str!("schema.sql"), migrations: &[], unmarked_version: 0, shrinks: false };

/// A log whose newest block is smaller than this gets its next lines into the same block.
const SMALL_BYTES: u64 = 4 << 10;
/// What a block takes beside its lines, and each of its requests, about.
const BLOCK_BYTES: u64 = 100;
const REQUEST_BYTES: u64 = 24;
/// Blocks that are deleted in one transaction.
const DELETED_MAX: usize = 64;
/// What SQLite's log beside the file may take when it is not used.
const LOG_BYTES_MAX: u64 = 8 << 20;
/// Free pages that are given back to the file system at once.
const PAGES_GIVEN_BACK: u64 = 1024;
/// Bytes of lines in one transaction, beside those of the last log in it.
const TRANSACTION_BYTES_MAX: usize = 4 << 20;

/// Whose log it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The function.
    pub function: FunctionName,
    /// When it was first deployed, in microseconds since 1970.
    pub created_us: u64,
}

impl Owner {
    /// The log of a function that was first deployed at that time.
    pub fn new(function: FunctionName, created: SystemTime) -> Owner {
        Owner { function, created_us: microseconds(created) }
    }

    #[cfg(test)]
    pub(super) fn of(function: &str) -> Owner {
        Owner { function: function.parse().unwrap(), created_us: 0 }
    }
}

/// How much the file may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreBounds {
    pub(super) bytes_max: u64,
    pub(super) function_bytes_max: u64,
}

/// The thread's side.
pub(super) struct Store {
    connection: Connection,
    bounds: StoreBounds,
    logs: HashMap<Owner, Known>,
    /// What the blocks of each log take.
    bytes: HashMap<i64, u64>,
}

struct Known {
    id: i64,
    last_sequence: u64,
}

impl Store {
    pub(super) fn open(path: &Path, bounds: StoreBounds) -> anyhow::Result<Store> {
        let open = || {
            let connection = sqlite::open(path, &SCHEMA)?;
            sqlite::write_ahead(&connection)?;
            // A power cut may take the newest lines along; it does not damage the file.
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
            let mut store = Store { connection, bounds, logs: HashMap::new(), bytes: HashMap::new() };
            store.read_logs()?;
            Ok(store)
        };
        open().map_err(|error: anyhow::Error| error.context(format!("open the logs of functions, {}", path.display())))
    }

    fn read_logs(&mut self) -> anyhow::Result<()> {
        let sql = "SELECT id, function, created_us, coalesce(sum(bytes), 0), coalesce(max(last_sequence), 0)
                   FROM logs LEFT JOIN (SELECT log, bytes, last_sequence FROM blocks) ON log = id GROUP BY id";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let function: String = row.get(1)?;
            let owner = Owner { function: function.parse()?, created_us: row.get(2)? };
            let id = row.get(0)?;
            self.logs.insert(owner, Known { id, last_sequence: row.get(4)? });
            self.bytes.insert(id, row.get(3)?);
        }
        Ok(())
    }

    /// Notes that a host uses the file. True if the one before did not say that it has stored everything: it was killed.
    pub(super) fn begin(&self) -> anyhow::Result<bool> {
        let is_whole: bool = self.connection.query_row("SELECT is_whole FROM state", (), |row| row.get(0))?;
        self.connection.execute("UPDATE state SET is_whole = 0", ())?;
        Ok(!is_whole)
    }

    /// Notes that everything is stored.
    pub(super) fn end(&self) -> anyhow::Result<()> {
        self.connection.execute("UPDATE state SET is_whole = 1", ())?;
        Ok(())
    }

    /// The number of the newest line; 0 if there is none.
    pub(super) fn newest(&self, owner: &Owner) -> u64 {
        self.logs.get(owner).map_or(0, |known| known.last_sequence)
    }

    /// The logs that are in the file.
    pub(super) fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.logs.keys()
    }

    /// Adds lines to logs. Returns how many logs have theirs: all of them, unless it failed.
    pub(super) fn write(&mut self, added: &[(Owner, Vec<Line>)]) -> (usize, anyhow::Result<()>) {
        let mut written = 0;
        while written < added.len() {
            let mut bytes = 0;
            let part = added[written..].iter().take_while(|(_, lines)| {
                let fits = bytes < TRANSACTION_BYTES_MAX;
                bytes += lines.iter().map(|line| line.text.len()).sum::<usize>();
                fits
            });
            let part = part.count();
            let logs = &added[written..written + part];
            if let Err(error) = self.whole(|store| logs.iter().try_for_each(|(owner, lines)| store.add(owner, lines))) {
                return (written, Err(error));
            }
            written += part;
        }
        (written, Ok(()))
    }

    fn add(&mut self, owner: &Owner, lines: &[Line]) -> anyhow::Result<()> {
        let log = self.id_of(owner)?;
        let newest = self
            .connection
            .prepare_cached(
                "SELECT id, lines FROM blocks WHERE log = ?1 AND bytes < ?2 AND first_sequence =
                 (SELECT max(first_sequence) FROM blocks WHERE log = ?1)",
            )?
            .query_row(params![log, SMALL_BYTES], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        let (id, mut all) = match newest {
            Some((id, packed)) => (Some(id), block::unpack(&packed)),
            None => (None, Vec::new()),
        };
        all.extend_from_slice(lines);
        let blocks = block::pack(&all)?;
        let ids = std::iter::once(id).chain(std::iter::repeat(None));
        for ((of_block, packed), id) in blocks.iter().zip(ids) {
            self.put(log, id, of_block, packed)?;
        }
        if let (Some(known), Some(last)) = (self.logs.get_mut(owner), lines.last()) {
            known.last_sequence = last.sequence;
        }
        Ok(())
    }

    fn id_of(&mut self, owner: &Owner) -> anyhow::Result<i64> {
        if let Some(known) = self.logs.get(owner) {
            return Ok(known.id);
        }
        let values = params![owner.function.as_str(), owner.created_us];
        self.connection.prepare_cached("INSERT INTO logs (function, created_us) VALUES (?1, ?2)")?.execute(values)?;
        let id = self.connection.last_insert_rowid();
        self.logs.insert(owner.clone(), Known { id, last_sequence: 0 });
        Ok(id)
    }

    /// Writes a block: a new one, or in place of that with this number, whose lines it has as well.
    fn put(&mut self, log: i64, id: Option<i64>, lines: &[Line], packed: &[u8]) -> anyhow::Result<()> {
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Ok(()) };
        // The machine's clock may be set back.
        let times = lines.iter().map(|line| microseconds(line.time));
        let (first_us, last_us) = (times.clone().min().unwrap_or_default(), times.max().unwrap_or_default());
        let requests = requests(lines);
        let bytes = packed.len() as u64 + BLOCK_BYTES + REQUEST_BYTES * requests.len() as u64;
        let before: Option<u64> = self
            .connection
            .prepare_cached("SELECT bytes FROM blocks WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO blocks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute(params![id, log, first.sequence, last.sequence, first_us, last_us, bytes, packed])?;
        let id = id.unwrap_or_else(|| self.connection.last_insert_rowid());
        let mut insert = self.connection.prepare_cached("INSERT OR IGNORE INTO requests VALUES (?1, ?2)")?;
        for request in requests {
            insert.execute([request, id])?;
        }
        let all = self.bytes.entry(log).or_default();
        *all = (*all + bytes).saturating_sub(before.unwrap_or(0));
        Ok(())
    }

    /// Deletes a block, and what leads to it.
    fn delete(&mut self, id: i64) -> anyhow::Result<()> {
        let mut deleted =
            self.connection.prepare_cached("DELETE FROM blocks WHERE id = ?1 RETURNING log, bytes, lines")?;
        let (log, bytes, lines) = deleted
            .query_row([id], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?, row.get::<_, Vec<u8>>(2)?)))?;
        let mut delete = self.connection.prepare_cached("DELETE FROM requests WHERE request = ?1 AND block = ?2")?;
        for request in requests(&block::unpack(&lines)) {
            delete.execute([request, id])?;
        }
        if let Some(all) = self.bytes.get_mut(&log) {
            *all = all.saturating_sub(bytes);
        }
        Ok(())
    }

    /// Deletes some of what is too old or too much, the oldest first, in one transaction. True if there is more to delete.
    pub(super) fn prune(&mut self, oldest: SystemTime) -> anyhow::Result<bool> {
        let mut doomed: BTreeMap<i64, u64> = self
            .blocks("WHERE last_us < ?1 ORDER BY last_us", microseconds(oldest).cast_signed())?
            .into_iter()
            .collect();
        let bytes_max = self.bounds.function_bytes_max;
        for (log, bytes) in self.bytes.iter().filter(|(_, bytes)| **bytes > bytes_max) {
            let mut excess = bytes - bytes_max;
            for (block, bytes) in self.blocks("WHERE log = ?1 ORDER BY first_sequence", *log)? {
                doomed.insert(block, bytes);
                if bytes >= excess {
                    break;
                }
                excess -= bytes;
            }
        }
        let too_many = sqlite::bytes_used(&self.connection)?.saturating_sub(self.bounds.bytes_max);
        let mut excess = too_many.saturating_sub(doomed.values().sum());
        if excess > 0 {
            for (block, bytes) in self.blocks("WHERE last_us >= ?1 ORDER BY last_us", 0)? {
                if doomed.insert(block, bytes).is_none() {
                    excess = excess.saturating_sub(bytes);
                }
                if excess == 0 {
                    break;
                }
            }
        }
        if !doomed.is_empty() {
            self.whole(|store| doomed.keys().try_for_each(|id| store.delete(*id)))?;
        }
        self.give_back()?;
        Ok(!doomed.is_empty()
            && (doomed.len() >= DELETED_MAX || sqlite::bytes_used(&self.connection)? > self.bounds.bytes_max))
    }

    /// Gives space back to the file system, if much of it is free: lines come and go, and use it again.
    fn give_back(&self) -> anyhow::Result<()> {
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
        let (free, all, page) = (pragma("freelist_count")?, pragma("page_count")?, pragma("page_size")?);
        if free > all / 4 || all * page > self.bounds.bytes_max {
            sqlite::give_back(&self.connection, PAGES_GIVEN_BACK)?;
        }
        Ok(())
    }

    /// Deletes some of the lines of a log. True if there are more.
    pub(super) fn forget(&mut self, owner: &Owner) -> anyhow::Result<bool> {
        let Some(known) = self.logs.get(owner) else { return Ok(false) };
        let id = known.id;
        let blocks = self.blocks("WHERE log = ?1 ORDER BY first_sequence", id)?;
        let has_more = blocks.len() == DELETED_MAX;
        self.whole(|store| {
            blocks.iter().try_for_each(|(id, _)| store.delete(*id))?;
            if !has_more {
                store.connection.execute("DELETE FROM logs WHERE id = ?1", [id])?;
            }
            Ok(())
        })?;
        if !has_more {
            self.logs.remove(owner);
            self.bytes.remove(&id);
        }
        Ok(has_more)
    }

    /// Some blocks, and what each of them takes.
    fn blocks(&self, which: &str, value: i64) -> anyhow::Result<Vec<(i64, u64)>> {
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT id, bytes FROM blocks {which} LIMIT {DELETED_MAX}"))?;
        let rows = statement.query_map([value], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Makes changes in one transaction: all of them, or none.
    fn whole(&mut self, change: impl FnOnce(&mut Store) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let made = change(self).and_then(|()| Ok(self.connection.execute_batch("COMMIT")?));
        if made.is_err() {
            if !self.connection.is_autocommit() {
                self.connection.execute_batch("ROLLBACK")?;
            }
            self.logs.clear();
            self.bytes.clear();
            self.read_logs()?;
        }
        made
    }
}

/// The numbers of the requests that lines belong to.
fn requests(lines: &[Line]) -> HashSet<i64> {
    lines
        .iter()
        .filter_map(|line| match &line.author {
            Author::Request { id, .. } => Some(number_of(id.as_str())),
            Author::Unknown | Author::Nobody => None,
        })
        .collect()
}

/// A request's number in the index. Those that the host chose are UUIDs which begin with the time, so that requests of one time
/// are close to each other.
pub(super) fn number_of(request: &str) -> i64 {
    let number = match request.parse::<Uuid>() {
        Ok(id) => id.as_u64_pair().0,
        Err(_) => u64::from_be_bytes(std::array::from_fn({
            let digest = Sha256::digest(request);
            move |index| digest[index]
        })),
    };
    number.cast_signed()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use tempfile::TempDir;

    use super::*;
    use crate::ids::{InstanceId, RequestId};
    use crate::log::reader::Reader;
    use crate::log::search::{Gathered, Search};
    use crate::log::{Stream, Words};

    const BOUNDS: StoreBounds = StoreBounds { bytes_max: u64::MAX, function_bytes_max: u64::MAX };

    fn open(folder: &TempDir, bounds: StoreBounds) -> (Store, Reader) {
        let path = folder.path().join("logs.sqlite");
        (Store::open(&path, bounds).unwrap(), Reader::open(&path).unwrap())
    }

    /// A line at second `sequence`, of the request that is named.
    fn line(sequence: u64, request: &str, text: &str) -> Line {
        Line {
            time: UNIX_EPOCH + Duration::from_secs(sequence),
            sequence,
            stream: Stream::Stdout,
            version: "LATEST".into(),
            instance: InstanceId::from_u64(1),
            author: Author::Request { id: request.parse::<RequestId>().unwrap(), key: None },
            text: text.to_owned(),
        }
    }

    /// Text that cannot be compressed, with its number.
    fn noise(number: u64) -> String {
        let digest = |part: u64| hex::encode(Sha256::digest([number.to_le_bytes(), part.to_le_bytes()].concat()));
        (0..8).map(digest).collect()
    }

    fn found(reader: &Reader, owner: &Owner, search: &Search, below: u64) -> (Vec<u64>, Option<u64>) {
        let mut gathered = Gathered::default();
        let next = reader.search((owner, search), below, &mut gathered, &|| true).unwrap();
        (gathered.lines.into_iter().map(|line| line.sequence).collect(), next)
    }

    #[test]
    fn lines_are_found_from_the_newest_on_and_by_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, reader) = open(&folder, BOUNDS);
        let (f, g) = (Owner::of("f"), Owner::of("g"));
        for sequence in 1..=100 {
            let request = if sequence % 10 == 0 { "tenth" } else { "other" };
            let lines = vec![line(sequence, request, &noise(sequence))];
            store.write(&[(f.clone(), lines.clone()), (g.clone(), lines)]).1.unwrap();
        }
        let search = |search: Search| found(&reader, &f, &Search { count: 3, ..search }, 1000);
        assert_eq!(search(Search::default()), (vec![100, 99, 98], Some(98)));
        assert_eq!(found(&reader, &f, &Search { count: 3, ..Search::default() }, 50), (vec![49, 48, 47], Some(47)));
        let tenth = Search { request: Some("tenth".to_owned()), ..Search::default() };
        assert_eq!(search(tenth.clone()).0, [100, 90, 80]);
        assert_eq!(found(&reader, &f, &Search { count: 100, ..tenth }, 30), (vec![20, 10], None));
        let time = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(search(Search { from: time(98), ..Search::default() }), (vec![100, 99, 98], None));
        assert_eq!(search(Search { to: time(3), ..Search::default() }), (vec![2, 1], None));
        assert_eq!(search(Search { text: Some(Words::new(&noise(7))), ..Search::default() }).0, [7]);
        assert_eq!(search(Search { stream: Some(Stream::Stderr), ..Search::default() }), (vec![], None));
        let all = Search { count: 1000, ..Search::default() };
        assert_eq!(
            found(&reader, &Owner { created_us: 1, ..f.clone() }, &all, 1000),
            (vec![], None),
            "another function"
        );
        // What a host that starts anew knows.
        let (store, _) = open(&folder, BOUNDS);
        assert_eq!((store.newest(&f), store.newest(&Owner::of("h"))), (100, 0));
    }

    #[test]
    fn a_function_that_writes_little_has_few_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = open(&folder, BOUNDS);
        for sequence in 1..=500 {
            store.write(&[(Owner::of("f"), vec![line(sequence, "same", "hello")])]).1.unwrap();
        }
        let count: u64 = store.connection.query_row("SELECT count(*) FROM blocks", (), |row| row.get(0)).unwrap();
        assert!(count <= 4, "{count}");
    }

    #[test]
    fn the_oldest_lines_go_if_a_function_or_all_together_have_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = StoreBounds { bytes_max: 1 << 20, function_bytes_max: 400 << 10 };
        let (mut store, reader) = open(&folder, bounds);
        let functions = ["a", "b", "c", "d"].map(Owner::of);
        let mut was_full = false;
        for batch in 0..80 {
            for function in &functions {
                let lines = (1..=20).map(|line| batch * 20 + line);
                let lines = lines.map(|sequence| line(sequence, &sequence.to_string(), &noise(sequence))).collect();
                store.write(&[(function.clone(), lines)]).1.unwrap();
                while store.prune(UNIX_EPOCH).unwrap() {}
                let bytes = sqlite::bytes_used(&store.connection).unwrap();
                assert!(bytes <= bounds.bytes_max);
                was_full |= bytes > bounds.bytes_max * 9 / 10;
                assert!(!was_full || bytes > bounds.bytes_max / 2, "no more goes than must: {bytes}");
                assert!(store.bytes.values().all(|bytes| *bytes <= bounds.function_bytes_max), "{:?}", store.bytes);
            }
        }
        assert!(was_full);
        for function in &functions {
            let (left, _) = found(&reader, function, &Search { count: 10_000, ..Search::default() }, 10_000);
            assert!(left.len() > 100 && left.len() < 1000, "{}", left.len());
            assert!(left.iter().copied().eq((1601 - left.len() as u64..=1600).rev()), "the newest are left: {left:?}");
        }
        let leading: u64 = store.connection.query_row("SELECT count(*) FROM requests", (), |row| row.get(0)).unwrap();
        let without = "SELECT count(*) FROM requests WHERE block NOT IN (SELECT id FROM blocks)";
        let stale: u64 = store.connection.query_row(without, (), |row| row.get(0)).unwrap();
        assert!(leading > 0 && stale == 0, "{stale} of {leading} lead nowhere");
        let (again, _) = open(&folder, bounds);
        assert_eq!(again.bytes, store.bytes, "what blocks take is counted rightly");
    }

    #[test]
    fn old_lines_go_and_those_of_a_deleted_function() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, reader) = open(&folder, BOUNDS);
        let (f, g) = (Owner::of("f"), Owner::of("g"));
        for sequence in 1..=200 {
            let lines = vec![line(sequence, "r", &noise(sequence).repeat(16))];
            store.write(&[(f.clone(), lines.clone()), (g.clone(), lines)]).1.unwrap();
        }
        while store.prune(UNIX_EPOCH + Duration::from_secs(150)).unwrap() {}
        let all = Search { count: 1000, ..Search::default() };
        let (left, _) = found(&reader, &f, &all, 1000);
        assert!(left.first() == Some(&200) && left.last().is_some_and(|last| (140..=150).contains(last)), "{left:?}");
        while store.forget(&f).unwrap() {}
        assert_eq!(found(&reader, &f, &all, 1000), (vec![], None));
        assert!(!found(&reader, &g, &all, 1000).0.is_empty());
        assert!(store.owners().all(|owner| *owner == g));
    }

    #[test]
    fn what_cannot_be_written_is_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, reader) = open(&folder, BOUNDS);
        let f = Owner::of("f");
        store.write(&[(f.clone(), vec![line(1, "r", "one")])]).1.unwrap();
        let pages: u64 = store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        store.connection.pragma_update(None, "max_page_count", pages).unwrap();
        let large = vec![line(2, "r", &(0..100).map(noise).collect::<String>())];
        assert!(store.write(&[(f.clone(), large.clone())]).1.is_err(), "the disk is full");
        assert_eq!(store.newest(&f), 1);
        store.connection.pragma_update(None, "max_page_count", 1 << 20).unwrap();
        store.write(&[(f.clone(), large)]).1.unwrap();
        assert_eq!(found(&reader, &f, &Search { count: 9, ..Search::default() }, 9).0, [2, 1]);
    }

    #[test]
    fn requests_of_one_time_are_close_to_each_other() {
        let ids: Vec<String> = (0..100).map(|_| RequestId::new().to_string()).collect();
        let numbers: Vec<i64> = ids.iter().map(|id| number_of(id) >> 24).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] <= pair[1]), "{numbers:?}");
        assert_ne!(number_of("a"), number_of("b"));
    }
}
