//! Looking for lines: in memory first, and then back in time in the file.

use std::time::SystemTime;

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
    /// With this text in them, in upper or lower case.
    pub text: Option<String>,
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
            && self.text.as_ref().is_none_or(|text| has(&line.text, text))
    }
}

/// Whether `part` is in `text`. Letters of ASCII may differ in their case.
fn has(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

impl Log {
    /// The newest lines that are meant. It may read the file, and blocks meanwhile.
    pub fn search(&self, search: &Search) -> anyhow::Result<Found> {
        let mut below = search.before.unwrap_or(u64::MAX);
        let mut newest_first = Vec::new();
        {
            let kept = self.lock();
            for line in kept.lines.iter().rev().filter(|line| line.sequence < below) {
                if newest_first.len() == search.count {
                    break;
                }
                if search.is_meant(line) {
                    newest_first.push(line.clone());
                }
            }
            let oldest = kept.lines.front().map_or(kept.sequence + 1, |line| line.sequence);
            below = below.min(oldest);
        }
        let mut next = None;
        if newest_first.len() == search.count {
            next = newest_first.last().map(|line| line.sequence);
        } else if let Some(store) = self.0.due.store() {
            next = store.search(&self.0.owner, search, below, &mut newest_first)?;
        }
        newest_first.reverse();
        Ok(Found { lines: newest_first, next: next.filter(|next| *next > 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_case_of_letters_does_not_matter() {
        assert!(has("Connection REFUSED", "refused") && has("x", "") && has("grüße", "GRüßE"));
        assert!(!has("refuse", "refused") && !has("", "x"));
    }
}
