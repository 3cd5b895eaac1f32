//! `dormouse top`: what a host does now, in a terminal.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::admin::model::FunctionView;
use crate::ledger::{Group, Sums};

use super::client::Client;
use super::client_args::ClientArgs;
use super::units::Moment;
use super::{list, output, units};

/// Functions on the screen.
const ROWS: usize = 40;
/// More often than this costs the host more than it shows.
const EVERY_LEAST: Duration = Duration::from_millis(100);
/// Back to the first place of an empty screen.
const CLEARED: &str = "\u{1b}[H\u{1b}[2J";

/// Show what a host does now, live
///
/// The busiest functions first: their instances by state, requests a second and executed time since the last look, and what
/// they were charged in the last 24 hours. Ctrl-C ends it.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  dormouse top\n  dormouse top --every 5s\n  dormouse top --once")]
pub(super) struct Top {
    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    every: Duration,
    /// Look once over that time, and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

fn interval(text: &str) -> anyhow::Result<Duration> {
    let interval = humantime::parse_duration(text)?;
    anyhow::ensure!(interval >= EVERY_LEAST, "it must be at least {EVERY_LEAST:?}");
    Ok(interval)
}

/// What was seen at one time.
struct Look {
    at: Instant,
    functions: Vec<FunctionView>,
    sums: HashMap<String, Sums>,
}

impl Top {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = self.client.client()?;
        let is_screen = std::io::stdout().is_terminal() && !self.once;
        let mut before = Look::at(&client).await?;
        loop {
            tokio::time::sleep(self.every).await;
            let now = Look::at(&client).await?;
            let text = now.since(&before);
            output::print(&if is_screen { format!("{CLEARED}{text}") } else { text })?;
            if self.once {
                return Ok(());
            }
            before = now;
        }
    }
}

impl Look {
    async fn at(client: &Client) -> anyhow::Result<Look> {
        let functions = client.functions().await?.value.functions;
        let from: Moment = "24h".parse()?;
        let query = [("from", from.rfc3339()), ("group", super::usage::name_of(Group::Function).to_owned())];
        let usage = client.usage(&query).await?.value;
        let sums = usage.groups.into_iter().map(|group| (group.key, group.sums)).collect();
        Ok(Look { at: Instant::now(), functions, sums })
    }

    /// The table: what changed since another look, the busiest first.
    fn since(&self, before: &Look) -> String {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let sums = |look: &Look, name: &str| look.sums.get(name).cloned().unwrap_or_default();
        let mut rows: Vec<(&FunctionView, f64, f64, f64)> = Vec::new();
        for function in &self.functions {
            let (now, then) = (sums(self, &function.name), sums(before, &function.name));
            // What is older than a day falls out of the sums.
            let requests = now.requests.saturating_sub(then.requests) as f64 / seconds;
            let executed = (now.executed_ms - then.executed_ms).max(0.0) / seconds;
            rows.push((function, requests, executed, now.cu));
        }
        let total = |figure: fn(&(&FunctionView, f64, f64, f64)) -> f64| rows.iter().map(figure).sum::<f64>();
        let (requests, executed, cu) = (total(|row| row.1), total(|row| row.2), total(|row| row.3));
        rows.sort_by(|one, other| other.2.total_cmp(&one.2).then_with(|| other.1.total_cmp(&one.1)));
        let mut table = output::table(["function", "instances", "requests/s", "executed/s", "CU, 24 h"]);
        for (function, requests, executed, cu) in rows.iter().take(ROWS) {
            table.add_row([
                output::text(&function.name),
                output::text(&list::instances(&function.instances, list::mark(function))),
                output::figure(units::rate(*requests)),
                output::figure(units::duration_ms(*executed)),
                output::figure(units::cu(*cu)),
            ]);
        }
        let functions = match self.functions.len() {
            1 => "1 function".to_owned(),
            count => format!("{} functions", units::count(count as u64)),
        };
        let (requests, executed, cu) = (units::rate(requests), units::duration_ms(executed), units::cu(cu));
        let head = format!("{functions}, {requests} requests/s, {executed} executed a second, {cu} CU in 24 h");
        format!("{head}\n\n{}", output::rendered(&table))
    }
}
