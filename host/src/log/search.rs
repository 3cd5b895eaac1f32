//! Looking for lines: in memory first, and then back in time in the file.

use std::time::SystemTime;

use anyhow::bail;

use super::{Author, Line, Log, Stream};

/// Which lines of a log are meant.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The newest so many of them.
    pub count: usize,
    /// Only those before the line with this number.
    pub before: Option<u64>,
    /// Written at this time or later.
    pub from: Option<SystemTime>,
    /// Written before this time.
    pub to: Option<SystemTime>,
    /// Of this request.
    pub request: Option<String>,
    /// Of this stream.
    pub stream: Option<Stream>,
    /// With this text in them; the case of ASCII letters does not matter.
    pub text: Option<Words>,
}

/// A text that is looked for.
#[derive(Clone, Debug)]
pub struct Words {
    /// In lower case.
    lower: String,
}

impl Words {
    /// What is looked for.
    pub fn new(text: &str) -> Words {
        Words { lower: text.to_ascii_lowercase() }
    }

    fn are_in(&self, text: &str) -> bool {
        // The library's search takes time in proportion to the text, whatever is looked for.
        self.lower.is_empty() || text.to_ascii_lowercase().contains(&self.lower)
    }
}

/// Bytes of text in one answer: those that are found beyond it are for the next question.
const BYTES_MAX: usize = 8 << 20;

/// Lines that were found so far, the newest first.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) lines: Vec<Line>,
    bytes: usize,
}

impl Gathered {
    /// Adds a line. False if there are enough without it.
    pub(super) fn add(&mut self, line: Line, search: &Search) -> bool {
        let has_room = self.lines.len() < search.count && self.bytes < BYTES_MAX;
        if has_room {
            self.bytes += line.text.len();
            self.lines.push(line);
        }
        has_room
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Oldest first.
    pub lines: Vec<Line>,
    /// There may be more, before the line with this number.
    pub next: Option<u64>,
}

impl Search {
    /// Whether a line is meant, wherever it stands.
    pub fn is_meant(&self, line: &Line) -> bool {
        let is_of = |request: &String| matches!(&line.author, Author::Request { id, .. } if id.as_str() == request);
        self.request.as_ref().is_none_or(is_of)
            && self.stream.is_none_or(|stream| stream == line.stream)
            && self.from.is_none_or(|from| line.time >= from)
            && self.to.is_none_or(|to| line.time < to)
            && self.text.as_ref().is_none_or(|words| words.are_in(&line.text))
    }
}

impl Log {
    /// The newest lines that are meant. It may read the file, and blocks meanwhile; it gives up when nobody wants the answer
    /// any more.
    pub fn search(&self, search: &Search, is_wanted: &dyn Fn() -> bool) -> anyhow::Result<Found> {
        if search.count == 0 {
            return Ok(Found::default());
        }
        let below = search.before.unwrap_or(u64::MAX);
        // Copied, so that those who write do not wait until they are looked at.
        let (in_memory, oldest) = {
            let kept = self.lock();
            let oldest = kept.lines.front().map_or(kept.sequence + 1, |line| line.sequence);
            (kept.lines.iter().filter(|line| line.sequence < below).cloned().collect::<Vec<_>>(), oldest)
        };
        let mut gathered = Gathered::default();
        let mut next = None;
        for line in in_memory.into_iter().rev().filter(|line| search.is_meant(line)) {
            let sequence = line.sequence;
            if !gathered.add(line, search) {
                next = Some(sequence + 1);
                break;
            }
        }
        if next.is_none()
            && let Some(store) = self.0.due.store()
        {
            next = store.search((&self.0.owner, search), below.min(oldest), &mut gathered, is_wanted)?;
        }
        if !is_wanted() {
            bail!("nobody waits for the answer");
        }
        let mut lines = gathered.lines;
        lines.reverse();
        Ok(Found { lines, next: next.filter(|next| *next > 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_case_of_letters_does_not_matter() {
        let has = |text: &str, part: &str| Words::new(part).are_in(text);
        assert!(has("Connection REFUSED", "refused") && has("x", "") && has("grüße", "GRüßE"));
        assert!(!has("refuse", "refused") && !has("", "x"));
    }
}
