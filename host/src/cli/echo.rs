//! What functions print, shown by `up` as it comes: each line behind its function's name.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use clap::builder::styling::AnsiColor;
use futures::{StreamExt as _, pin_mut};
use tokio::task::JoinSet;

use crate::admin::model::LogLine;
use crate::ids::FunctionName;

use super::client::Client;
use super::output;
use super::progress::Progress;

/// Colours of names, so that functions can be told apart.
const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Green,
    AnsiColor::BrightCyan,
    AnsiColor::BrightMagenta,
];

/// Shows what functions print from when they are known; ends when dropped.
pub(super) struct Echo {
    client: Client,
    progress: Progress,
    functions: HashSet<FunctionName>,
    following: JoinSet<()>,
}

impl Echo {
    pub(super) fn new(client: Client, progress: Progress) -> Echo {
        Echo { client, progress, functions: HashSet::new(), following: JoinSet::new() }
    }

    /// Shows what these functions print from now on.
    pub(super) fn follow<'a>(&mut self, names: impl IntoIterator<Item = &'a FunctionName>) {
        for name in names {
            if !self.functions.insert(name.clone()) {
                continue;
            }
            let (client, progress, name) = (self.client.clone(), self.progress.clone(), name.clone());
            self.following.spawn(async move {
                // Until the host ends, or the function is deleted. Whatever else ends it, the log itself is complete.
                let Ok(lines) = client.follow(&name, &[("tail", "0".to_owned())]).await else { return };
                pin_mut!(lines);
                while let Some(Ok(line)) = lines.next().await {
                    progress.note(&shown(&line.value));
                }
            });
        }
    }
}

/// A line behind its function's name; a text of several lines as such.
fn shown(line: &LogLine) -> String {
    let mut hasher = DefaultHasher::new();
    line.function.hash(&mut hasher);
    let colour = COLOURS[hasher.finish() as usize % COLOURS.len()];
    let name = output::coloured(&output::plain(&line.function), colour);
    // Behind another sign, so that no function can say something in the host's name.
    let shown = |part: &str| match line.stream.as_str() {
        "host" => format!("{name} ! {}", output::yellow(&output::plain(part))),
        _ => format!("{name} | {}", output::plain(part)),
    };
    line.text.split('\n').map(shown).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::logs::tests::line;

    #[test]
    fn a_text_of_several_lines_is_several_lines_and_steers_no_terminal() {
        let line = line("a\nb\u{1b}[31m");
        let plain = anstream::adapter::strip_str(&shown(&line)).to_string();
        assert_eq!(plain, "hello | a\nhello | b\\u{1b}[31m");
    }
}
