//! A function's log: what its instances wrote, and what the host had to say about them.
//!
//! `guest` writes guest output, `instance` writes endings, the planes read and follow. The newest lines of each log are in memory,
//! where they are written and followed without waiting. A thread of its own ([`Logs`]) copies them into a file, within
//! bounds of size and age, and old lines are read from there. A host that is killed loses the lines of its last half second.

mod block;
mod reader;
mod search;
mod store;
mod writer;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use self::writer::Due;
use crate::clock;
use crate::ids::{FunctionName, InstanceId, KeyId, RequestId, VersionLabel};

pub use search::{Found, Search, Words};
pub use store::Owner;
pub use writer::{LogBounds, Logs};

/// Lines of a log that are in memory.
const LINES_MAX: usize = 2000;
/// Bytes of text of a log that are in memory.
const BYTES_MAX: usize = 512 * 1024;
/// A log is looked at once in this time, at most, for one who follows it.
const FOLLOWED_EVERY: Duration = Duration::from_millis(20);
/// So many lines that are in memory only make it urgent to store them: a quarter of those that memory has room for.
const URGENT_LINES: u64 = 500;
const URGENT_BYTES: usize = 128 * 1024;
/// Bytes of one line; what is longer is cut.
pub const LINE_BYTES_MAX: usize = 32 * 1024;

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The guest, on its standard output.
    Stdout,
    /// The guest, on its standard error.
    Stderr,
    /// The host, about the instance.
    Host,
}

impl Stream {
    /// All of them.
    pub const ALL: [Stream; 3] = [Stream::Stdout, Stream::Stderr, Stream::Host];

    /// The stream of this name.
    pub fn from_name(name: &str) -> Option<Stream> {
        Stream::ALL.into_iter().find(|stream| stream.as_str() == name)
    }

    /// The stream's name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Host => "host",
        }
    }
}

/// Whose line it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// This request's, or this hook's: they have identifiers alike.
    Request {
        /// Its identifier.
        id: RequestId,
        /// The access key that its caller showed.
        key: Option<KeyId>,
    },
    /// One of several's, and nobody can tell which.
    Unknown,
    /// No request's: none was there, or the line is about the instance.
    Nobody,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub time: SystemTime,
    /// Counts the function's lines from 1.
    pub sequence: u64,
    /// Who wrote it.
    pub stream: Stream,
    /// The version that the instance runs.
    pub version: Arc<str>,
    /// The instance.
    pub instance: InstanceId,
    /// The request.
    pub author: Author,
    /// The text, without its line end.
    pub text: String,
}

/// A cheap handle to one function's log.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    owner: Owner,
    // A std mutex: whoever holds it only moves or copies lines, of which there are few, and never waits.
    state: Mutex<Kept>,
    newest: watch::Sender<u64>,
    due: Arc<Due>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    sequence: u64,
    /// The newest line that is in the file.
    stored: u64,
    /// Bytes of the lines after it.
    unstored_bytes: usize,
    /// The thread knows that there are such lines.
    is_due: bool,
    /// The function is deleted; its last lines are in memory only.
    forgotten: bool,
}

impl Kept {
    /// The lines after this one. Those before are not looked at: whoever writes may be waiting.
    fn range_after(&self, sequence: u64) -> impl Iterator<Item = &Line> {
        self.lines.range(self.lines.partition_point(|line| line.sequence <= sequence)..)
    }
}

impl Log {
    /// A log whose lines that are in the file have numbers up to this one.
    fn new(owner: Owner, stored: u64, due: Arc<Due>) -> Log {
        let state = Kept { sequence: stored, stored, ..Kept::default() };
        Log(Arc::new(Inner { owner, state: Mutex::new(state), newest: watch::Sender::new(stored), due }))
    }

    /// Where the instances of a revision write.
    pub fn of_version(&self, version: VersionLabel) -> LogWriter {
        LogWriter { log: self.clone(), version }
    }

    /// The newest `count` lines that are in memory, oldest first.
    pub fn tail(&self, count: usize) -> Vec<Line> {
        let kept = self.lock();
        kept.lines.iter().skip(kept.lines.len().saturating_sub(count)).cloned().collect()
    }

    /// The number of the newest line; 0 if there is none.
    pub fn newest(&self) -> u64 {
        *self.0.newest.borrow()
    }

    /// Follows the log from after line `sequence`.
    pub fn follow(&self, sequence: u64) -> Follower {
        Follower { log: self.clone(), newest: self.0.newest.subscribe(), sequence, looked: None }
    }

    /// The lines in memory after this one.
    fn after(&self, sequence: u64) -> Vec<Line> {
        let kept = self.lock();
        kept.range_after(sequence).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.state.lock().expect("no holder of this lock panics")
    }
}

/// The side of the thread that stores lines.
impl Log {
    /// The lines that are not in the file, and how many more there were that memory has forgotten; none if the function is
    /// deleted.
    fn unstored(&self) -> Option<(Vec<Line>, u64)> {
        let mut kept = self.lock();
        kept.is_due = false;
        if kept.forgotten {
            return None;
        }
        let stored = kept.stored;
        let lines: Vec<_> = kept.range_after(stored).cloned().collect();
        let lost = lines.first().map_or(0, |first| first.sequence - stored - 1);
        Some((lines, lost))
    }

    fn note_stored(&self, sequence: u64) {
        let mut kept = self.lock();
        kept.stored = sequence;
        let later = kept.lines.iter().rev().take_while(|line| line.sequence > sequence);
        kept.unstored_bytes = later.map(|line| line.text.len()).sum();
    }

    fn forget(&self) {
        self.lock().forgotten = true;
        // Those who follow learn it.
        self.0.newest.send_modify(|_| {});
    }
}

/// Writes lines about one revision of the function.
#[derive(Clone)]
pub struct LogWriter {
    log: Log,
    version: VersionLabel,
}

impl LogWriter {
    /// Whose log it is.
    pub fn function(&self) -> &FunctionName {
        &self.log.0.owner.function
    }

    /// Appends a line, and forgets the oldest ones beyond the bounds.
    pub fn write(&self, stream: Stream, instance: InstanceId, author: Author, mut text: String) {
        text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
        let version = self.version.get();
        let (sequence, was_due, is_urgent) = {
            let mut kept = self.log.lock();
            kept.sequence += 1;
            kept.bytes += text.len();
            kept.unstored_bytes += text.len();
            let sequence = kept.sequence;
            kept.lines.push_back(Line { time: clock::date(), sequence, stream, version, instance, author, text });
            while kept.lines.len() > LINES_MAX || kept.bytes > BYTES_MAX {
                let Some(oldest) = kept.lines.pop_front() else { break };
                kept.bytes -= oldest.text.len();
            }
            let is_urgent = sequence - kept.stored >= URGENT_LINES || kept.unstored_bytes >= URGENT_BYTES;
            (sequence, std::mem::replace(&mut kept.is_due, true), is_urgent)
        };
        self.log.0.due.note(&self.log, was_due, is_urgent);
        self.log.0.newest.send_replace(sequence);
    }
}

/// Reads a log as it grows. Lines that were forgotten before they were read show as a gap in the sequence.
pub struct Follower {
    log: Log,
    newest: watch::Receiver<u64>,
    sequence: u64,
    /// When it looked last.
    looked: Option<Instant>,
}

impl Follower {
    /// The lines since the last call; waits for at least one. None: the function is deleted.
    pub async fn next(&mut self) -> Option<Vec<Line>> {
        loop {
            // Whoever writes line after line pays for none of those who read: they are not woken for each.
            if let Some(looked) = self.looked.replace(Instant::now()) {
                tokio::time::sleep_until(looked + FOLLOWED_EVERY).await;
                self.looked = Some(Instant::now());
            }
            self.newest.borrow_and_update();
            let lines = self.log.after(self.sequence);
            if let Some(last) = lines.last() {
                self.sequence = last.sequence;
                return Some(lines);
            }
            if self.log.lock().forgotten || self.newest.changed().await.is_err() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_is_bounded_and_can_be_followed() {
        let log = Logs::in_memory().of(Owner::of("f"));
        let (writer, instance) = (log.of_version(VersionLabel::new("1".into())), InstanceId::random());
        let write = |stream, text| writer.write(stream, instance, Author::Nobody, text);
        for number in 0..LINES_MAX + 10 {
            write(Stream::Stdout, number.to_string());
        }
        let lines = log.tail(usize::MAX);
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(lines[0].text, "10");
        let mut follower = log.follow(lines.last().unwrap().sequence);
        write(Stream::Host, "more".to_owned());
        assert_eq!(follower.next().await.unwrap()[0].text, "more");
        for _ in 0..20 {
            write(Stream::Stdout, "x".repeat(LINE_BYTES_MAX));
        }
        assert_eq!(log.tail(usize::MAX).len(), BYTES_MAX / LINE_BYTES_MAX);
    }

    /// Waits until the thread has done what there is to do.
    fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
        let start = tokio::time::Instant::now();
        while !is_so() {
            assert!(start.elapsed().as_secs() < 60, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    const BOUNDS: LogBounds = LogBounds {
        bytes_max: 64 << 20,
        function_bytes_max: 64 << 20,
        kept_for: std::time::Duration::from_secs(86_400),
    };

    #[test]
    fn lines_that_memory_has_no_more_are_read_from_disk_also_by_the_next_host() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs.sqlite");
        let logs = Logs::open(&path, BOUNDS);
        let log = logs.of(Owner::of("f"));
        let writer = log.of_version(VersionLabel::new("1".into()));
        let last = LINES_MAX as u64 * 3;
        for number in 1..=last {
            writer.write(Stream::Stdout, InstanceId::from_u64(1), Author::Nobody, number.to_string());
            if number % URGENT_LINES == 0 {
                // The thread is not waited for by those who write; here it is, so that it misses none.
                eventually("lines are stored", || log.lock().stored >= number);
            }
        }
        let numbers = |log: &Log, search: Search| -> Vec<u64> {
            log.search(&search, &|| true).unwrap().lines.iter().map(|line| line.text.parse().unwrap()).collect()
        };
        let all = Search { count: 100_000, ..Search::default() };
        assert!(numbers(&log, all.clone()).into_iter().eq(1..=last), "memory and disk fit together");
        let page = Search { count: 10, before: Some(last - LINES_MAX as u64 + 5), ..Search::default() };
        let found = log.search(&page, &|| true).unwrap();
        assert_eq!((found.lines.len(), found.next), (10, Some(last - LINES_MAX as u64 - 5)));
        writer.write(Stream::Stdout, InstanceId::from_u64(1), Author::Nobody, (last + 1).to_string());
        logs.close();

        let logs = Logs::open(&path, BOUNDS);
        let log = logs.of(Owner::of("f"));
        assert!(numbers(&log, all.clone()).into_iter().eq(1..=last + 1), "what was not stored is stored at the end");
        assert_eq!(log.newest(), last + 1);
        let writer = log.of_version(VersionLabel::new("1".into()));
        writer.write(Stream::Stdout, InstanceId::from_u64(1), Author::Nobody, (last + 2).to_string());
        assert_eq!(numbers(&log, Search { count: 2, ..Search::default() }), [last + 1, last + 2]);
        logs.forget(&log);
        writer.write(Stream::Stdout, InstanceId::from_u64(1), Author::Nobody, "after".to_owned());
        logs.close();
        let logs = Logs::open(&path, BOUNDS);
        assert!(numbers(&logs.of(Owner::of("f")), all).is_empty(), "a deleted function has no lines");
        logs.close();
    }

    #[test]
    fn after_a_kill_no_number_is_used_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs.sqlite");
        let killed = Logs::open(&path, BOUNDS);
        let log = killed.of(Owner::of("f"));
        let write = |log: &Log| {
            let writer = log.of_version(VersionLabel::new("1".into()));
            writer.write(Stream::Host, InstanceId::from_u64(1), Author::Nobody, "line".to_owned());
        };
        write(&log);
        eventually("the line is stored", || log.lock().stored == 1);
        // Whoever follows has seen lines that are not in the file.
        (0..LINES_MAX - 1).for_each(|_| write(&log));
        let seen = log.newest();
        let next = Logs::open(&path, BOUNDS);
        let log = next.of(Owner::of("f"));
        write(&log);
        assert!(log.newest() > seen, "{} after {seen}", log.newest());
        next.close();
        killed.close();
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_lines_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs.sqlite");
        std::fs::write(&path, "no database".repeat(1000)).unwrap();
        let logs = Logs::open(&path, BOUNDS);
        let log = logs.of(Owner::of("f"));
        log.of_version(VersionLabel::new("1".into())).write(
            Stream::Host,
            InstanceId::from_u64(1),
            Author::Nobody,
            "x".repeat(2 * LINE_BYTES_MAX),
        );
        let lines = log.search(&Search { count: 9, ..Search::default() }, &|| true).unwrap().lines;
        assert_eq!((lines.len(), lines[0].text.len()), (1, LINE_BYTES_MAX), "and no line is longer than it may be");
        assert!(std::fs::read(&path).unwrap().starts_with(b"no database"), "the file is left as it is");
        logs.close();
    }

    #[test]
    fn an_answer_is_bounded_and_says_where_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::open(&folder.path().join("logs.sqlite"), BOUNDS);
        let log = logs.of(Owner::of("f"));
        let writer = log.of_version(VersionLabel::new("1".into()));
        for number in 1..=400 {
            writer.write(Stream::Stdout, InstanceId::from_u64(1), Author::Nobody, "x".repeat(LINE_BYTES_MAX));
            eventually("the line is stored", || number % 8 != 0 || log.lock().stored >= number);
        }
        let ask = |before| log.search(&Search { count: 100_000, before, ..Search::default() }, &|| true).unwrap();
        let (mut before, mut seen) = (None, Vec::new());
        loop {
            let found = ask(before);
            let bytes: usize = found.lines.iter().map(|line| line.text.len()).sum();
            assert!(bytes <= (8 << 20) + LINE_BYTES_MAX, "{bytes}");
            seen.splice(0..0, found.lines.iter().map(|line| line.sequence));
            before = found.next;
            if before.is_none() {
                break;
            }
        }
        assert!(seen.into_iter().eq(1..=400));
        let all = Search { count: 100_000, ..Search::default() };
        assert!(log.search(&all, &|| false).is_err(), "nobody wants the answer");
        logs.close();
    }

    #[test]
    fn nothing_is_written_where_nothing_may_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs.sqlite");
        let logs = Logs::open(&path, LogBounds { bytes_max: 0, ..BOUNDS });
        let log = logs.of(Owner::of("f"));
        let writer = log.of_version(VersionLabel::new("1".into()));
        writer.write(Stream::Host, InstanceId::from_u64(1), Author::Nobody, "line".to_owned());
        assert_eq!(log.search(&Search { count: 9, ..Search::default() }, &|| true).unwrap().lines.len(), 1);
        logs.close();
        assert!(!path.exists());
    }
}
