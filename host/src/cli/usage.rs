//! `dormouse usage`: the bill, and the records it is made of.

use comfy_table::Cell;

use crate::csv::{self, Row};
use crate::ids::FunctionName;
use crate::ledger::{Group, InvocationPage, Sums, Usage, WindowPage, WindowRecord, WindowState};

use super::answer::Answer;
use super::client::Client;
use super::client_args::ClientArgs;
use super::fc_price::{Line, Price};
use super::output;
use super::units::{self, Moment};

/// Show what was used and what it costs
///
/// Charged is executed time: the time in which the host ran an instance for a request, a hook or its background work.
/// Parked and suspended time, waiting for I/O and queueing cost nothing. Beside the charge stands what the same work
/// would cost by wall clock, from the first request's start to the end of pre-freeze, as other hosts charge.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    dormouse usage --from 1h\n  \
    dormouse usage --function hello --from 2026-05-01 --to 2026-06-01 --group day\n  \
    dormouse usage --group key --from 30d\n  \
    dormouse usage --as fc --from 30d\n  \
    dormouse usage --csv --group day --from 30d > usage.csv\n  \
    dormouse usage --invocations --function hello --from 10m")]
pub(super) struct UsageCommand {
    /// Only this function
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    /// From this time on: RFC 3339, a day, or how long ago (`1h`, `7d`)
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Before this time, written the same way
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
    /// Group rows by
    #[arg(long, value_enum, default_value_t = Group::Function)]
    group: Group,
    /// List active windows, which are what is charged
    #[arg(long, conflicts_with_all = ["group", "invocations"])]
    windows: bool,
    /// List requests
    #[arg(long, conflicts_with = "group")]
    invocations: bool,
    /// Price the same use as another host would
    #[arg(long, value_enum, value_name = "HOST", conflicts_with_all = ["group", "windows", "invocations"])]
    r#as: Option<PricedAs>,
    /// Print all figures as CSV, for spreadsheets
    #[arg(long, conflicts_with_all = ["as", "json"])]
    csv: bool,
    /// Begin with the newest windows or requests, not with the oldest
    #[arg(long)]
    newest: bool,
    /// How many windows or requests to list at most
    #[arg(long, value_name = "RECORDS", default_value_t = 1000)]
    limit: u32,
    /// Go on after a list that was cut off
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

/// A host whose prices are known.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PricedAs {
    /// Function Compute, with its prices since August 2024.
    Fc,
}

impl UsageCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let client = self.client.client()?;
        if let Some(PricedAs::Fc) = self.r#as {
            let price = self.price(&client).await?;
            let json = serde_json::to_string(&price)?;
            return self.client.show(&Answer { value: price, json }, priced);
        }
        if self.windows {
            let page = client.usage_records("windows", &self.page_query()).await?;
            self.show(&page, |page| &page.windows, windows)?;
            self.note_next(page.value.next.as_deref());
        } else if self.invocations {
            let page = client.usage_records("invocations", &self.page_query()).await?;
            self.show(&page, |page| &page.invocations, invocations)?;
            self.note_next(page.value.next.as_deref());
        } else {
            let mut query = self.query();
            query.push(("group", name_of(self.group).to_owned()));
            let usage = client.usage(&query).await?;
            self.show(&usage, |usage| &usage.groups, |usage| bill(usage, self.group))?;
        }
        Ok(())
    }

    /// Shows an answer with such records.
    fn show<T, R: Row>(
        &self,
        answer: &Answer<T>,
        records: impl FnOnce(&T) -> &Vec<R>,
        people: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if !self.csv {
            return self.client.show(answer, people);
        }
        let table = csv::head::<R>()? + &csv::rows(records(&answer.value))?;
        Ok(output::print(table.trim_end())?)
    }

    /// What the use would cost at Function Compute, which rounds each function's hours up.
    async fn price(&self, client: &Client) -> anyhow::Result<Price> {
        let grouped = async |function: Option<&str>, group: Group| {
            let mut query = self.query();
            if let Some(function) = function {
                query.retain(|(name, _)| *name != "function");
                query.push(("function", function.to_owned()));
            }
            query.push(("group", name_of(group).to_owned()));
            client.usage(&query).await
        };
        let mut lines = Vec::new();
        for group in grouped(None, Group::Function).await?.value.groups {
            let hours = grouped(Some(&group.key), Group::Hour).await?.value.groups;
            let hours: Vec<Sums> = hours.into_iter().map(|hour| hour.sums).collect();
            // One that was deleted meanwhile says nothing.
            let function = match group.key.parse() {
                Ok(name) => client.function_if_any(&name).await?,
                Err(_) => None,
            };
            let vcpu = function.and_then(|function| function.settings.function_compute.get("cpu")?.as_f64());
            lines.push(Line::of(group.key, vcpu, &hours));
        }
        Ok(Price::of(lines))
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let function = self.function.as_ref().map(|name| ("function", name.to_string()));
        let from = self.from.map(|from| ("from", from.rfc3339()));
        let to = self.to.map(|to| ("to", to.rfc3339()));
        [function, from, to].into_iter().flatten().collect()
    }

    fn page_query(&self) -> Vec<(&'static str, String)> {
        let mut query = self.query();
        query.push(("limit", self.limit.to_string()));
        query.extend(self.newest.then(|| ("newest", "true".to_owned())));
        query.extend(self.after.clone().map(|after| ("after", after)));
        query
    }

    fn note_next(&self, next: Option<&str>) {
        if let Some(next) = next {
            output::note(&format!("there are more: repeat with `--after {next}`"));
        }
    }
}

fn priced(price: &Price) -> String {
    if price.functions.is_empty() {
        return "nothing was used in that time".to_owned();
    }
    let mut table = output::table(["function", "invocations", "vCPU s", "GB s", "CU"]);
    for Line { function, invocations, vcpu_seconds, gb_seconds, cu } in &price.functions {
        table.add_row([
            output::text(function),
            output::figure(units::count(*invocations)),
            output::figure(units::cu(*vcpu_seconds)),
            output::figure(units::cu(*gb_seconds)),
            output::figure(units::cu(*cu)),
        ]);
    }
    format!(
        "{}\n\nAt Function Compute this would be {} CU, rounded up for each function and hour: {:.6} US dollars.",
        output::rendered(&table),
        units::cu(price.cu),
        price.usd
    )
}

/// A group's name in the API.
pub(super) fn name_of(group: Group) -> &'static str {
    match group {
        Group::None => "none",
        Group::Function => "function",
        Group::Instance => "instance",
        Group::Hour => "hour",
        Group::Day => "day",
        Group::Key => "key",
    }
}

fn bill(usage: &Usage, group: Group) -> String {
    if usage.total == Sums::default() {
        return "nothing was used in that time".to_owned();
    }
    let key = if group == Group::None { "" } else { name_of(group) };
    let mut table = output::table([key, "requests", "hooks", "executed", "parked", "charged CU", "wall-clock CU"]);
    for group in &usage.groups {
        table.add_row(bill_row(&group.key, &group.sums));
    }
    table.add_row(bill_row("total", &usage.total));
    format!("{}\n\n{}", output::rendered(&table), explanation(&usage.total))
}

fn bill_row(key: &str, sums: &Sums) -> [Cell; 7] {
    [
        output::text(key),
        output::figure(units::count(sums.requests)),
        output::figure(units::count(sums.hook_calls)),
        output::figure(units::duration_ms(sums.executed_ms)),
        output::figure(units::duration_ms(sums.parked_ms)),
        output::figure(units::cu(sums.cu)),
        output::figure(units::cu(sums.duration_cu)),
    ]
}

/// What the figures mean, for those who see them for the first time.
fn explanation(total: &Sums) -> String {
    let unit =
        "1 CU = 1 s at 1 GB of configured memory, and each window is rounded up to 1 ms; parked time is not charged";
    if total.duration_cu <= 0.0 || total.cu >= total.duration_cu {
        return format!("{unit}.");
    }
    let saved = 100.0 * (1.0 - total.cu / total.duration_cu);
    format!(
        "{unit}.\nBy the clock the same work would have cost {} CU; you save {saved:.0} %.",
        units::cu(total.duration_cu)
    )
}

fn windows(page: &WindowPage) -> String {
    if page.windows.is_empty() {
        return "no window began in that time".to_owned();
    }
    let mut table = output::table([
        "start",
        "function",
        "instance",
        "window",
        "state",
        "requests",
        "hooks",
        "open",
        "executed",
        "peak memory",
        "basis",
        "CU",
    ]);
    for window in &page.windows {
        table.add_row(window_row(window));
    }
    output::rendered(&table)
}

fn window_row(window: &WindowRecord) -> [Cell; 12] {
    let state = match window.state {
        WindowState::Open => "open",
        WindowState::Ended => "ended",
        WindowState::Lost => "lost",
    };
    [
        output::text(&window.start),
        output::text(&window.function),
        output::text(&window.instance),
        output::figure(window.sequence),
        output::text(state),
        output::figure(window.requests),
        output::figure(window.hook_calls),
        output::figure(units::duration_ms(window.open_ms)),
        output::figure(units::duration_ms(window.executed_ms)),
        output::figure(units::bytes(window.memory_bytes_peak)),
        output::text(window.basis.as_str()),
        output::figure(units::cu(window.cu)),
    ]
}

fn invocations(page: &InvocationPage) -> String {
    if page.invocations.is_empty() {
        return "no request was accepted in that time".to_owned();
    }
    let mut table =
        output::table(["start", "function", "request", "key", "instance", "queued", "handler", "executed", "outcome"]);
    for invocation in &page.invocations {
        let unread = if invocation.delivered { "" } else { ", caller gone" };
        table.add_row([
            output::text(&invocation.start),
            output::text(&invocation.function),
            output::text(&invocation.request),
            output::text(invocation.key.as_deref().unwrap_or("-")),
            output::text(invocation.instance.as_deref().unwrap_or("-")),
            output::figure(units::duration_ms(invocation.queued_ms)),
            output::figure(units::duration_ms(invocation.handler_ms)),
            output::figure(units::duration_ms(invocation.executed_ms)),
            output::text(&format!("{}{unread}", invocation.outcome)),
        ]);
    }
    output::rendered(&table)
}

#[cfg(test)]
mod tests {
    use crate::ledger::UsageGroup;

    use super::*;

    #[test]
    fn the_bill_has_a_line_a_group_a_total_and_its_unit() {
        let sums = Sums { requests: 1234, cu: 0.25, duration_cu: 1.0, executed_ms: 2000.0, ..Sums::default() };
        let groups = vec![UsageGroup { key: "hello".to_owned(), sums: sums.clone() }];
        let text = bill(&Usage { groups, total: sums }, Group::Function);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("hello") && lines[1].contains("1,234") && lines[1].contains("0.25"), "{text}");
        assert!(lines[2].contains("total"), "{text}");
        assert!(text.contains("1 CU = 1 s at 1 GB"), "{text}");
    }

    #[test]
    fn an_empty_bill_is_a_sentence() {
        assert_eq!(bill(&Usage::default(), Group::Function), "nothing was used in that time");
    }
}
