//! Progress of long work on stderr: spinners and bars on a terminal, plain lines elsewhere.
//!
//! Used by `build`, `deploy` and `up`. Results never go this way; they belong on stdout.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::{output, units};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// All steps that are under way; cheap to clone.
#[derive(Clone)]
pub(super) struct Progress {
    bars: MultiProgress,
    terminal: bool,
}

/// One step. Dropped without an ending it just disappears.
pub(super) struct Step {
    bars: MultiProgress,
    bar: ProgressBar,
    label: String,
    terminal: bool,
    started: Instant,
}

impl Progress {
    /// Shows progress on stderr.
    pub(super) fn new() -> Progress {
        Progress { bars: MultiProgress::new(), terminal: std::io::stderr().is_terminal() }
    }

    /// Begins a step: `label` says of what, `doing` what is done first.
    pub(super) fn step(&self, label: &str, doing: &str) -> Step {
        let bar = self.bars.add(ProgressBar::new_spinner().with_style(spinner()));
        let (label, terminal) = (label.to_owned(), self.terminal);
        let step = Step { bars: self.bars.clone(), bar, label, terminal, started: Instant::now() };
        step.bar.set_prefix(step.label.clone());
        step.bar.set_message(doing.to_owned());
        if step.terminal {
            step.bar.enable_steady_tick(TICK);
        } else {
            output::note(&format!("{}: {doing}", step.label));
        }
        step
    }

    /// Prints a line without disturbing the steps.
    pub(super) fn note(&self, line: &str) {
        if !line.is_empty() {
            self.bars.suspend(|| output::note(line));
        }
    }
}

impl Step {
    /// Turns the step into a bar of so many bytes.
    pub(super) fn measure(&self, bytes: u64) {
        self.bar.set_length(bytes);
        self.bar.set_style(bytes_bar());
    }

    /// The bar, for whoever moves the bytes.
    pub(super) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// Says what is done now.
    pub(super) fn doing(&self, doing: &str) {
        self.bar.set_style(spinner());
        self.bar.set_message(doing.to_owned());
    }

    /// Ends the step with a line that stays.
    pub(super) fn done(self, what: &str) {
        self.bar.finish_and_clear();
        let took = units::duration(self.started.elapsed());
        self.bars.suspend(|| output::note(&format!("{}: {what} in {took}", self.label)));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.bars.remove(&self.bar);
    }
}

fn spinner() -> ProgressStyle {
    style("{spinner} {prefix}: {wide_msg} {elapsed}")
}

fn bytes_bar() -> ProgressStyle {
    style("{spinner} {prefix}: {msg} {wide_bar} {binary_bytes}/{binary_total_bytes}")
}

/// A template that cannot be read falls back to indicatif's own; a bar is no reason to fail.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
