//! A function's log: the newest lines that its instances wrote, and what the host had to say about them.
//!
//! `guest` writes guest output, `pool` writes endings, the admin plane reads and follows. A log keeps a bounded number
//! of lines and bytes in memory and nothing on disk: an operator who wants more collects the host's own log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::clock;
use crate::ids::{InstanceId, KeyId, RequestId, VersionLabel};

/// Lines that a function's log keeps.
const LINES_MAX: usize = 2000;
/// Bytes of text that a function's log keeps.
const BYTES_MAX: usize = 512 * 1024;
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
#[derive(Clone, Debug)]
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
    // A std mutex: the critical section copies one line and never waits.
    state: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    sequence: u64,
}

impl Default for Log {
    fn default() -> Log {
        Log(Arc::new(Inner { state: Mutex::default(), newest: watch::Sender::new(0) }))
    }
}

impl Log {
    /// Where the instances of a revision write.
    pub fn of_version(&self, version: VersionLabel) -> LogWriter {
        LogWriter { log: self.clone(), version }
    }

    /// The newest `count` lines, oldest first.
    pub fn tail(&self, count: usize) -> Vec<Line> {
        let kept = self.0.state.lock().expect("no holder of this lock panics");
        kept.lines.iter().skip(kept.lines.len().saturating_sub(count)).cloned().collect()
    }

    /// The number of the newest line; 0 if there is none.
    pub fn newest(&self) -> u64 {
        *self.0.newest.borrow()
    }

    /// Follows the log from after line `sequence`.
    pub fn follow(&self, sequence: u64) -> Follower {
        Follower { log: self.clone(), newest: self.0.newest.subscribe(), sequence }
    }

    fn after(&self, sequence: u64) -> Vec<Line> {
        let kept = self.0.state.lock().expect("no holder of this lock panics");
        kept.lines.iter().filter(|line| line.sequence > sequence).cloned().collect()
    }
}

/// Writes lines about one revision of the function.
#[derive(Clone)]
pub struct LogWriter {
    log: Log,
    version: VersionLabel,
}

impl LogWriter {
    /// Appends a line, and forgets the oldest ones beyond the bounds.
    pub fn write(&self, stream: Stream, instance: InstanceId, author: Author, text: String) {
        let version = self.version.get();
        let sequence = {
            let mut kept = self.log.0.state.lock().expect("no holder of this lock panics");
            kept.sequence += 1;
            kept.bytes += text.len();
            let sequence = kept.sequence;
            kept.lines.push_back(Line { time: clock::date(), sequence, stream, version, instance, author, text });
            while kept.lines.len() > LINES_MAX || kept.bytes > BYTES_MAX {
                let Some(oldest) = kept.lines.pop_front() else { break };
                kept.bytes -= oldest.text.len();
            }
            sequence
        };
        self.log.0.newest.send_replace(sequence);
    }
}

/// Reads a log as it grows. Lines that were forgotten before they were read show as a gap in the sequence.
pub struct Follower {
    log: Log,
    newest: watch::Receiver<u64>,
    sequence: u64,
}

impl Follower {
    /// The lines since the last call; waits for at least one.
    pub async fn next(&mut self) -> Vec<Line> {
        loop {
            self.newest.borrow_and_update();
            let lines = self.log.after(self.sequence);
            if let Some(last) = lines.last() {
                self.sequence = last.sequence;
                return lines;
            }
            if self.newest.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_is_bounded_and_can_be_followed() {
        let log = Log::default();
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
        assert_eq!(follower.next().await[0].text, "more");
        write(Stream::Stdout, "x".repeat(BYTES_MAX));
        assert_eq!(log.tail(usize::MAX).len(), 1);
    }
}
