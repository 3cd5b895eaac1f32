//! What was measured: figures with their rounds, spread, target and noise; as tables, JSON and plots.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{clock, machine, plots};

/// One measured quantity.
pub(crate) struct Figure {
    /// The benchmark, such as `density`.
    pub(crate) bench: &'static str,
    /// What it was measured on.
    pub(crate) case: String,
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// One value a round; the median counts.
    pub(crate) rounds: Vec<f64>,
    /// More than the allowed share of CPU went elsewhere in at least one round, however often it was repeated.
    pub(crate) noisy: bool,
    pub(crate) target: Option<Target>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Figure {
    pub(crate) fn new(
        bench: &'static str,
        case: impl Into<String>,
        name: impl Into<String>,
        unit: &'static str,
    ) -> Figure {
        let (case, name) = (case.into(), name.into());
        Figure { bench, case, name, unit, rounds: Vec::new(), noisy: false, target: None }
    }

    pub(crate) fn value(mut self, value: f64) -> Figure {
        self.rounds.push(value);
        self
    }

    pub(crate) fn values(mut self, values: Vec<f64>) -> Figure {
        self.rounds = values;
        self
    }

    pub(crate) fn noisy(mut self, noisy: bool) -> Figure {
        self.noisy = noisy;
        self
    }

    pub(crate) fn target(mut self, target: impl Into<Option<Target>>) -> Figure {
        self.target = target.into();
        self
    }

    pub(crate) fn median(&self) -> f64 {
        clock::median(&self.rounds)
    }

    fn verdict(&self) -> &'static str {
        let median = self.median();
        match self.target {
            None => "",
            Some(_) if self.noisy => "no result",
            Some(Target::AtLeast(least)) if median >= least => "met",
            Some(Target::AtMost(most)) if median <= most => "met",
            Some(_) => "missed",
        }
    }

    fn row(&self) -> Vec<String> {
        let (least, most) = (clock::quantile(&self.rounds, 0.0), clock::quantile(&self.rounds, 1.0));
        let spread = if self.rounds.len() > 1 { format!("{}..{}", short(least), short(most)) } else { String::new() };
        let target = match self.target {
            None => String::new(),
            Some(Target::AtLeast(least)) => format!(">= {}", short(least)),
            Some(Target::AtMost(most)) => format!("<= {}", short(most)),
        };
        let value = format!("{} {}", short(self.median()), self.unit);
        let noisy = if self.noisy { "noisy" } else { "" };
        let words = [&self.case, &self.name, &value, &spread, &target, self.verdict(), noisy];
        words.into_iter().map(|word| word.to_owned()).collect()
    }

    fn json(&self) -> Value {
        let target = self.target.map(|target| match target {
            Target::AtLeast(least) => json!({"atLeast": least}),
            Target::AtMost(most) => json!({"atMost": most}),
        });
        json!({
            "bench": self.bench, "case": self.case, "name": self.name, "unit": self.unit, "median": self.median(),
            "rounds": self.rounds, "noisy": self.noisy, "target": target, "verdict": self.verdict(),
        })
    }
}

/// Prints figures, one a line.
pub(crate) fn show(figures: &[&Figure]) {
    let header = ["case", "figure", "median", "spread", "target", "", ""].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = figures.iter().map(|figure| figure.row()).collect();
    table(&header, &rows);
}

/// Prints a table whose columns are as wide as they must be.
pub(crate) fn table(header: &[String], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let words = rows.iter().chain(std::iter::once(&header.to_vec())).map(|row| row[column].chars().count()).max();
        words.unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    for row in std::iter::once(&header.to_vec()).chain(rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(word, width)| format!("{word:<width$}")).collect();
        println!("  {}", cells.join("  ").trim_end());
    }
    println!();
}

/// A number with as many digits as are worth reading.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        medium if medium >= 100.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        tiny if tiny >= 0.01 || tiny == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}

/// Writes `bench.json` and the plots.
pub(crate) fn write(figures: &[Figure], machine: &Value, quick: bool, folder: &Path) -> Result<()> {
    let whole = json!({
        "machine": machine,
        "loadAverageAfter": machine::load_average(),
        "quick": quick,
        "figures": figures.iter().map(Figure::json).collect::<Vec<_>>(),
    });
    let path = folder.join("bench.json");
    fs::write(&path, serde_json::to_vec_pretty(&whole)?).with_context(|| format!("write {}", path.display()))?;
    println!("{}", path.display());
    for path in plots::write(figures, folder)? {
        println!("{}", path.display());
    }
    Ok(())
}

/// Names every target that was missed, and how many were met.
pub(crate) fn summary(figures: &[Figure]) {
    let with = |verdict: &'static str| figures.iter().filter(move |figure| figure.verdict() == verdict);
    let noisy = figures.iter().filter(|figure| figure.noisy).count();
    let counts = ["met", "missed", "no result"].map(|verdict| with(verdict).count());
    println!(
        "targets: {} met, {} missed, {} without a result; {noisy} figures are noisy",
        counts[0], counts[1], counts[2]
    );
    for missed in with("missed") {
        let row = missed.row();
        println!("  missed  {} {} {}: {} ({})", missed.bench, row[0], row[1], row[2], row[4]);
    }
}
