//! The list of functions, which is the first page.

use std::cmp::Ordering;
use std::sync::Arc;

use maud::{Markup, html};

use super::Seen;
use super::page::{self, Fragments};
use super::parts::Column::{Number, Text};
use super::parts::{function_path, segment, states, table};
use super::rates::Rate;
use crate::access::Right;
use crate::catalog::Function;
use crate::figures::{count, cu, duration_ms, rate};
use crate::ledger::Sums;
use crate::pool::InstanceCounts;
use crate::web::problem::Failure;

/// Functions on one page.
const ROWS: usize = 50;

/// The orders that there are: in the address, and as people read it.
const ORDERS: [(&str, &str); 5] = [
    ("name", "Name"),
    ("instances", "Instances"),
    ("requests", "Requests a second"),
    ("executed", "Executed today"),
    ("charge", "Charge today"),
];

/// Which functions are shown.
pub(super) struct List {
    filter: String,
    order: String,
    page: usize,
}

struct Row {
    function: Arc<Function>,
    counts: InstanceCounts,
    rate: Rate,
    today: Sums,
}

impl List {
    pub(super) fn of(query: impl Fn(&str) -> Option<String>) -> List {
        let page = query("page").and_then(|page| page.parse().ok()).unwrap_or(1).max(1);
        List { filter: query("filter").unwrap_or_default(), order: query("order").unwrap_or_default(), page }
    }

    pub(super) async fn page(&self, seen: &Seen) -> Result<Markup, Failure> {
        let fragments = self.fragments(seen).await?;
        let main = page::live(fragments, |part| {
            html! {
                form.filters method="get" action="/" role="search" {
                    label { "Filter" input type="search" name="filter" value=(self.filter) placeholder="part of a name"; }
                    label {
                        "Order"
                        select name="order" {
                            @for (own, name) in ORDERS { option value=(own) selected[own == self.order] { (name) } }
                        }
                    }
                    button { "Show" }
                }
                div id="functions" { (part("functions")) }
                (deploy())
            }
        });
        Ok(page::page(seen, "/", "Functions", main))
    }

    pub(super) async fn fragments(&self, seen: &Seen) -> Result<Fragments, Failure> {
        let rows = self.rows(seen).await?;
        let pages = rows.len().div_ceil(ROWS).max(1);
        let shown = &rows[(self.page - 1).min(pages - 1) * ROWS..];
        let shown = &shown[..shown.len().min(ROWS)];
        let columns = [
            Text("Function"),
            Text("Instances"),
            Number("Requests/s"),
            Number("Failures/s"),
            Number("Executed today"),
            Number("CU today"),
        ];
        let list = html! {
            @if rows.is_empty() && self.filter.is_empty() {
                p.empty { "No function is deployed yet. Drop a component below, or run " code { "dormouse deploy" } "." }
            } @else {
                p.summary { (count(rows.len() as u64)) @if rows.len() == 1 { " function" } @else { " functions" } }
                (table("Functions", &columns, html! { @for row in shown { (row.markup()) } }))
                (self.pager(self.page.min(pages), pages))
            }
        };
        Ok(vec![("functions", list)])
    }

    async fn rows(&self, seen: &Seen) -> Result<Vec<Row>, Failure> {
        let console = &seen.console;
        let mut functions = console.host.functions();
        functions.retain(|function| {
            let name = function.name.as_str();
            name.contains(&self.filter) && seen.operator.may(Right::Read, name)
        });
        let (counts, rates) = (console.host.instance_counts_by_function(), console.rates.of(&console.host));
        let today = console.today.sums(&console.host).await?;
        let mut rows: Vec<Row> = functions
            .into_iter()
            .map(|function| Row {
                counts: counts.get(&function.name).copied().unwrap_or_default(),
                rate: rates.get(&function.name).copied().unwrap_or_default(),
                today: today.get(function.name.as_str()).cloned().unwrap_or_default(),
                function,
            })
            .collect();
        let most = |by: fn(&Row) -> f64| {
            move |one: &Row, other: &Row| by(other).partial_cmp(&by(one)).unwrap_or(Ordering::Equal)
        };
        match self.order.as_str() {
            "instances" => rows.sort_by(most(|row| f64::from(row.counts.total()))),
            "requests" => rows.sort_by(most(|row| row.rate.requests)),
            "executed" => rows.sort_by(most(|row| row.today.executed_ms)),
            "charge" => rows.sort_by(most(|row| row.today.cu)),
            _ => {}
        }
        Ok(rows)
    }

    fn pager(&self, own: usize, pages: usize) -> Markup {
        let address =
            |page: usize| format!("/?filter={}&order={}&page={page}", segment(&self.filter), segment(&self.order));
        html! {
            @if pages > 1 {
                nav.pager aria-label="Pages of the list" {
                    @if own > 1 { a href=(address(own - 1)) rel="prev" { "Earlier" } }
                    span { "Page " (own) " of " (pages) }
                    @if own < pages { a href=(address(own + 1)) rel="next" { "Later" } }
                }
            }
        }
    }
}

impl Row {
    fn markup(&self) -> Markup {
        let function = &self.function;
        html! {
            tr data-function=(function.name) {
                th scope="row" {
                    a href=(function_path(function.name.as_str())) { (function.name) }
                    @if function.suspended { span.tag { "suspended" } }
                    @if function.disabled.is_some() { span.tag { "disabled" } }
                }
                td { (states(self.counts)) }
                td.number { (rate(self.rate.requests)) }
                td.number class=[(self.rate.failures > 0.0).then_some("bad")] { (rate(self.rate.failures)) }
                td.number { (duration_ms(self.today.executed_ms)) }
                td.number { (cu(self.today.cu)) }
            }
        }
    }
}

/// The form that deploys a component under a new name.
fn deploy() -> Markup {
    html! {
        section.card aria-labelledby="deploy" {
            h2 id="deploy" { "Deploy" }
            form data-upload {
                label { "Name" input name="name" required pattern="[A-Za-z_][A-Za-z0-9_.\\-]*" maxlength="128" placeholder="hello" autocomplete="off"; }
                label.drop { "Component (.wasm): drop it here or choose it" input type="file" name="component" accept=".wasm,application/wasm" required; }
                button { "Deploy" }
                progress hidden max="100" aria-label="Upload" {}
                p.told role="status" {}
            }
        }
    }
}
