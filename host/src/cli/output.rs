//! What commands print for people: tables, figures, states. Programs get the API's JSON instead, untouched.
//!
//! Colours appear only on a terminal that wants them; `anstream` decides that. Progress is not printed here.

use std::io::{self, Write};

use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};

/// Prints text and a line's end to stdout, at once.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Prints text and a line's end to stderr. Nobody can be told if that fails.
pub(super) fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Says how to go on with a list that has older entries.
pub(super) fn note_older(next: Option<u64>) {
    if let Some(next) = next {
        note(&format!("there are older ones: repeat with `--before {next}`"));
    }
}

/// A table without lines, whose long texts wrap at the terminal's width.
pub(super) fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if COLUMNS > 0 {
        table.set_header(header.map(|name| Cell::new(name.to_uppercase()).add_attribute(Attribute::Bold)));
    }
    table
}

/// A cell of guests' or people's text.
pub(super) fn text(text: &str) -> Cell {
    Cell::new(plain(text))
}

/// A cell for a figure.
pub(super) fn figure(figure: impl ToString) -> Cell {
    Cell::new(figure).set_alignment(CellAlignment::Right)
}

/// The table as text, without the spaces that fill up each line.
pub(super) fn rendered(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Guest output must not steer the operator's terminal: control characters become visible.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\t' => shown.push(letter),
            letter if letter.is_control() || turns(letter) => shown.extend(letter.escape_default()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// Whether a character changes in which direction the text around it is shown (Unicode Standard Annex 9).
fn turns(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Something good, as a word.
pub(super) fn green(word: &str) -> String {
    coloured(word, AnsiColor::Green)
}

/// Something to look at, as a word.
pub(super) fn yellow(word: &str) -> String {
    coloured(word, AnsiColor::Yellow)
}

/// Something bad, as a word.
pub(super) fn red(word: &str) -> String {
    coloured(word, AnsiColor::Red)
}

/// A heading.
pub(super) fn bold(word: &str) -> String {
    let style = Style::new().bold();
    format!("{style}{word}{style:#}")
}

/// A word in this colour.
pub(super) fn coloured(word: &str, colour: AnsiColor) -> String {
    let style = Style::new().fg_color(Some(colour.into())).bold();
    format!("{style}{word}{style:#}")
}

/// One thing or many: `1 function`, `2 functions`.
pub(super) fn several(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_cannot_send_escapes_to_the_terminal() {
        assert_eq!(plain("a\tb\u{1b}[2Jc\r"), "a\tb\\u{1b}[2Jc\\r");
        assert_eq!(plain("a\u{202e}b\u{e9}"), "a\\u{202e}b\u{e9}");
    }

    #[test]
    fn tables_have_no_trailing_space() {
        let mut table = table(["name", "size"]);
        table.add_row([text("a"), figure(12)]);
        assert_eq!(anstream::adapter::strip_str(&rendered(&table)).to_string(), " NAME  SIZE\n a       12");
    }
}
