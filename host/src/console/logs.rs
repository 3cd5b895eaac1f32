//! The log of a function, followed, and back in time.

use maud::{Markup, html};

use super::Seen;
use super::page;
use super::parts::segment;
use crate::access::Right;
use crate::ids::FunctionName;
use crate::web::problem::Failure;

/// Lines that the page begins with, and that come with each step back in time.
const LINES: usize = 500;

/// Which lines are shown.
pub(super) struct Shown {
    function: Option<String>,
    request: String,
    text: String,
    stream: String,
}

impl Shown {
    /// None for what no function can be called.
    pub(super) fn of(query: impl Fn(&str) -> Option<String>) -> Option<Shown> {
        let function = query("function");
        if function.as_ref().is_some_and(|name| name.parse::<FunctionName>().is_err()) {
            return None;
        }
        let or_empty = |name: &str| query(name).unwrap_or_default();
        Some(Shown { function, request: or_empty("request"), text: or_empty("text"), stream: or_empty("stream") })
    }

    pub(super) async fn page(&self, seen: &Seen) -> Result<Markup, Failure> {
        let mut names: Vec<String> =
            seen.console.host.functions().iter().map(|function| function.name.to_string()).collect();
        names.retain(|name| seen.operator.may(Right::Read, name));
        let function = self.function.clone().or_else(|| names.first().cloned());
        let main = html! {
            form.filters method="get" action="/console/logs" role="search" {
                label {
                    "Function"
                    input name="function" list="functions" value=(function.as_deref().unwrap_or_default()) autocomplete="off" required;
                    datalist id="functions" { @for name in names.iter().take(1000) { option value=(name) {} } }
                }
                label { "Request" input name="request" value=(self.request) placeholder="all" autocomplete="off"; }
                label { "Text" input type="search" name="text" value=(self.text); }
                label {
                    "Stream"
                    select name="stream" { @for (own, shown) in [("", "all"), ("stdout", "stdout"), ("stderr", "stderr"), ("host", "host")] { option value=(own) selected[own == self.stream] { (shown) } } }
                }
                button { "Show" }
            }
            @if let Some(function) = &function {
                div.log role="log" aria-label="Lines" tabindex="0" data-log=(self.path(function)) data-request=(self.request) {
                    button.older type="button" hidden { "Older lines" }
                }
            } @else { p.empty { "No function is deployed yet." } }
        };
        Ok(page::page(seen, "/console/logs", "Logs", main))
    }

    /// What the API is asked for.
    fn path(&self, function: &str) -> String {
        let mut path = format!("/v1/functions/{}/logs?tail={LINES}", segment(function));
        for (name, value) in [("request", &self.request), ("text", &self.text), ("stream", &self.stream)] {
            if !value.is_empty() {
                path += &format!("&{name}={}", segment(value));
            }
        }
        path
    }
}
