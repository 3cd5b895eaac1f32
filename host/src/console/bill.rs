//! What is charged: over time, by function, and the windows and requests behind it.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};
use serde_json::json;

use super::Seen;
use super::page::{self, Fragments};
use super::parts::Column::{Number, Text};
use super::parts::{figure, function_path, request_path, segment, table, time};
use crate::clock;
use crate::figures::{bytes, count, cu, duration_ms};
use crate::ids::FunctionName;
use crate::ledger::{InvocationPage, Sums, Usage, WindowPage};
use crate::web::problem::Failure;

/// Spans that can be chosen, in days.
const SPANS: [(&str, u64, &str); 4] =
    [("1", 1, "one day"), ("7", 7, "one week"), ("31", 31, "one month"), ("366", 366, "one year")];
/// Windows and requests that are shown.
const RECORDS: u32 = 20;

/// What can be had as CSV, and what a link to it says.
pub(super) const SHEETS: [(&str, &str); 4] =
    [("functions", "by function"), ("time", "over time"), ("windows", "windows"), ("requests", "requests")];

/// What of the bill is shown.
pub(super) struct Shown {
    function: Option<String>,
    days: u64,
}

impl Shown {
    /// None for what no function can be called, and for days that there are no sums of.
    pub(super) fn of(query: impl Fn(&str) -> Option<String>) -> Option<Shown> {
        let function = query("function");
        if function.as_ref().is_some_and(|name| name.parse::<FunctionName>().is_err()) {
            return None;
        }
        let days = query("days").map_or(Some(7), |days| days.parse().ok());
        Some(Shown { function, days: days.filter(|days| (1..=366).contains(days))? })
    }

    /// A question to the ledger's part of the API.
    pub(super) fn path(&self, what: &str, more: &str) -> String {
        let from = clock::date() - Duration::from_secs(self.days * 24 * 60 * 60);
        let from = humantime::format_rfc3339_seconds(whole_hour(from)).to_string();
        let function = self.function.as_ref().map(|name| format!("&function={}", segment(name))).unwrap_or_default();
        format!("/v1/usage{what}?from={}{function}{more}", segment(&from))
    }

    fn sheet_path(&self, of: &str) -> String {
        let function = self.function.as_ref().map(|name| format!("&function={}", segment(name))).unwrap_or_default();
        format!("/console/bill.csv?of={of}&days={}{function}", self.days)
    }

    /// How time is divided.
    pub(super) fn steps(&self) -> &'static str {
        if self.days <= 7 { "hour" } else { "day" }
    }

    pub(super) async fn page(&self, seen: &Seen) -> Result<Markup, Failure> {
        let group = self.steps();
        let over_time: Usage = seen.console.api.get(&seen.operator, &self.path("", &format!("&group={group}"))).await?;
        let fragments = self.fragments(seen).await?;
        let series = over_time.groups.iter().map(|group| {
            let Sums { cu, executed_ms, duration_ms, open_ms, .. } = group.sums;
            json!({"at": group.key, "cu": cu, "executed": executed_ms / 1000.0, "active": duration_ms / 1000.0, "wall": open_ms / 1000.0})
        });
        let series = serde_json::Value::from_iter(series).to_string();
        let main = page::live(fragments, |part| {
            html! {
                form.filters method="get" action="/console/bill" role="search" {
                    label { "Function" input type="search" name="function" value=(self.function.as_deref().unwrap_or_default()) placeholder="all"; }
                    label { "Since" select name="days" { @for (value, days, shown) in SPANS { option value=(value) selected[days == self.days] { (shown) } } } }
                    button { "Show" }
                }
                div id="total" { (part("total")) }
                p.controls { "As CSV: " @for (of, shown) in SHEETS { a href=(self.sheet_path(of)) download { (shown) } " " } }
                figure.chart {
                    figcaption { "Charged CU" }
                    div data-chart=(series) data-days=(self.days) data-lines="cu" {}
                }
                figure.chart {
                    figcaption { "Seconds: executed, from the first request to the end of pre-freeze, and on the clock" }
                    div data-chart=(series) data-days=(self.days) data-lines="executed,active,wall" {}
                }
                div id="by-function" { (part("by-function")) }
                div id="records" { (part("records")) }
            }
        });
        Ok(page::page(seen, "/console/bill", "Bill", main))
    }

    pub(super) async fn fragments(&self, seen: &Seen) -> Result<Fragments, Failure> {
        let (api, operator) = (&seen.console.api, &seen.operator);
        let mut usage: Usage = api.get(operator, &self.path("", "&group=function")).await?;
        usage.groups.sort_by(|one, other| other.sums.cu.total_cmp(&one.sums.cu));
        let records = match &self.function {
            None => html! { p.hint { "Choose a function to see its windows and requests." } },
            Some(_) => {
                let limit = format!("&newest=true&limit={RECORDS}");
                let windows: WindowPage = api.get(operator, &self.path("/windows", &limit)).await?;
                let requests: InvocationPage = api.get(operator, &self.path("/invocations", &limit)).await?;
                html! { (windows_of(&windows)) (requests_of(&requests)) }
            }
        };
        Ok(vec![("total", total(&usage.total)), ("by-function", self.by_function(&usage)), ("records", records)])
    }

    fn by_function(&self, usage: &Usage) -> Markup {
        html! {
            (table("By function", &[Text("Function"), Number("Requests"), Number("Executed"), Number("Active"), Number("CU"), Number("By execution"), Number("By duration"), Number("Parked GB s")], html! {
                @for group in usage.groups.iter().take(100) {
                    @let sums = &group.sums;
                    tr {
                        th scope="row" { a href={ "/console/bill?days=" (self.days) "&function=" (segment(&group.key)) } { (group.key) } " " a.quiet href=(function_path(&group.key)) { "function" } }
                        td.number { (count(sums.requests)) }
                        td.number { (duration_ms(sums.executed_ms)) }
                        td.number { (duration_ms(sums.duration_ms)) }
                        td.number { (cu(sums.cu)) }
                        td.number { (cu(sums.execution_cu)) }
                        td.number { (cu(sums.duration_cu)) }
                        td.number { (format!("{:.2}", sums.parked_gb_seconds)) }
                    }
                }
            }))
        }
    }
}

fn total(sums: &Sums) -> Markup {
    html! {
        dl.figures {
            (figure("Charged CU", &cu(sums.cu)))
            (figure("By executed time", &cu(sums.execution_cu)))
            (figure("By duration", &cu(sums.duration_cu)))
            (figure("Executed", &duration_ms(sums.executed_ms)))
            (figure("Requests", &count(sums.requests)))
            (figure("Parked memory", &format!("{:.2} GB s", sums.parked_gb_seconds)))
        }
    }
}

fn windows_of(page: &WindowPage) -> Markup {
    html! {
        h2 { "Newest windows" }
        (table("Windows", &[Text("Start"), Text("Instance"), Number("Requests"), Number("Executed"), Number("Epochs"), Number("CU"), Number("Memory")], html! {
            @for window in &page.windows {
                tr {
                    td { (time(&window.start)) }
                    td { code { (window.instance) } }
                    td.number { (window.requests) }
                    td.number { (duration_ms(window.executed_ms)) }
                    td.number { (count(window.epochs)) }
                    td.number { (cu(window.cu)) }
                    td.number { (bytes(window.memory_bytes_peak)) }
                }
            }
        }))
    }
}

fn requests_of(page: &InvocationPage) -> Markup {
    html! {
        h2 { "Newest requests" }
        (table("Requests", &[Text("Start"), Text("Request"), Text("Outcome"), Number("Waited"), Number("Handler"), Number("Executed")], html! {
            @for request in &page.invocations {
                tr {
                    td { (time(&request.start)) }
                    td { a href=(request_path(&request.function, &request.request)) { code { (request.request) } } }
                    td class=[(request.outcome != "ok").then_some("bad")] { (request.outcome) }
                    td.number { (duration_ms(request.queued_ms)) }
                    td.number { (duration_ms(request.handler_ms)) }
                    td.number { (duration_ms(request.executed_ms)) }
                }
            }
        }))
    }
}

/// Hours are what the ledger keeps sums of.
fn whole_hour(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since / 3600 * 3600)
}
