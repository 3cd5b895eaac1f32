//! Instances as lanes over the last minutes, with what can be done with each.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use maud::{Markup, html};
use tokio::time::Instant;

use super::Seen;
use super::lanes::{self, Lane};
use super::page::{self, Fragments};
use super::parts::{action, function_path, segment, state};
use crate::access::Right;
use crate::clock;
use crate::figures::{bytes, count, duration_ms};
use crate::host::Found;
use crate::ids::{FunctionName, InstanceId, RevisionId};
use crate::instance::State;
use crate::web::problem::Failure;

/// How far back lanes go.
const WINDOW: Duration = Duration::from_secs(120);
/// Lanes on one page.
const LANES: usize = 60;
/// What lanes are drawn in.
const WIDTH: f64 = 1000.0;

/// Whose instances are shown.
pub(super) struct Shown {
    function: Option<String>,
}

impl Shown {
    pub(super) fn of(query: impl Fn(&str) -> Option<String>) -> Shown {
        Shown { function: query("function") }
    }

    pub(super) async fn page(&self, seen: &Seen) -> Result<Markup, Failure> {
        let fragments = self.fragments(seen).await?;
        let main = page::live(fragments, |part| {
            html! {
                form.filters method="get" action="/console/instances" role="search" {
                    label { "Function" input type="search" name="function" value=(self.function.as_deref().unwrap_or_default()) placeholder="all"; }
                    button { "Show" }
                }
                (legend())
                div id="lanes" { (part("lanes")) }
            }
        });
        Ok(page::page(seen, "/console/instances", "Instances", main))
    }

    pub(super) async fn fragments(&self, seen: &Seen) -> Result<Fragments, Failure> {
        let lanes = match &self.function {
            None => lanes(seen, None),
            Some(name) => match name.parse::<FunctionName>() {
                Ok(name) => lanes(seen, Some(&name)),
                Err(error) => html! { p.wrong { (error.to_string()) } },
            },
        };
        Ok(vec![("lanes", lanes)])
    }
}

/// What the colours of lanes stand for.
pub(super) fn legend() -> Markup {
    html! {
        p.legend {
            @for name in ["starting", "active", "freezing", "parked", "suspended", "stopping"] { (state(name)) " " }
            span.hint { "The last two minutes. A parked instance executes nothing and costs nothing." }
        }
    }
}

/// The lanes of one function's instances, or of those of all functions that moved last.
pub(super) fn lanes(seen: &Seen, only: Option<&FunctionName>) -> Markup {
    let host = &seen.console.host;
    let is_shown =
        |name: &FunctionName| only.is_none_or(|only| only == name) && seen.operator.may(Right::Read, name.as_str());
    let functions: HashMap<RevisionId, FunctionName> =
        host.revisions().into_iter().filter(|(_, name)| is_shown(name)).collect();
    let mut moves = host.moves().after(0);
    moves.retain(|moved| functions.contains_key(&moved.revision));
    let mut of: HashMap<InstanceId, &FunctionName> =
        moves.iter().filter_map(|moved| Some((moved.instance, functions.get(&moved.revision)?))).collect();
    let mut lanes = lanes::of(&moves, Instant::now(), WINDOW, LANES);
    // Only the pools of what is shown are asked for more.
    let shown: HashSet<&FunctionName> =
        lanes.iter().filter_map(|lane| of.get(&lane.instance).copied()).chain(only).collect();
    let found: HashMap<InstanceId, Found> =
        shown.into_iter().flat_map(|name| host.instances(name)).map(|found| (found.instance.id, found)).collect();
    // On a busy host the moves of one that has rested for long are forgotten.
    for Found { instance, .. } in found.values().filter(|_| only.is_some()) {
        if !of.contains_key(&instance.id) && lanes.len() < LANES {
            let ago = clock::date().duration_since(instance.since).unwrap_or_default();
            lanes.push(Lane::resting(instance.id, instance.state, ago, WINDOW));
        }
    }
    of.extend(found.keys().filter_map(|id| Some((*id, only?))));
    html! {
        @if lanes.is_empty() { p.empty { "No instance moved in the last minutes." } }
        @else {
            div.wide role="region" aria-label="Instances" tabindex="0" {
                table.lanes {
                    thead { tr { th scope="col" { "Instance" } th scope="col" { "State" } th scope="col" { "Two minutes ago to now" } th.number scope="col" { "Requests" } th.number scope="col" { "Executed" } th.number scope="col" { "Memory" } th scope="col" { "" } } }
                    tbody {
                        @for lane in &lanes {
                            @if let Some(function) = of.get(&lane.instance) { (row(lane, function, found.get(&lane.instance), only.is_none())) }
                        }
                    }
                }
            }
        }
    }
}

fn row(lane: &Lane, function: &FunctionName, found: Option<&Found>, names_function: bool) -> Markup {
    let id = lane.instance.to_string();
    let now = found.map_or(lane.state, |found| found.instance.state);
    html! {
        tr data-instance=(id) data-state=(now.as_str()) {
            th scope="row" { @if names_function { a href=(function_path(function.as_str())) { (function) } " " } code { (id) } }
            td { (state(now.as_str())) }
            td { (drawing(lane)) }
            @if let Some(Found { instance, .. }) = found {
                td.number { (count(instance.vitals.requests())) @if instance.in_flight > 0 { " (" (instance.in_flight) " now)" } }
                td.number { (duration_ms(instance.vitals.executed().as_secs_f64() * 1000.0)) }
                td.number { (bytes(instance.vitals.memory_bytes())) }
                td { (action("Stop", ("POST", &format!("/v1/instances/{}/stop", segment(&id))), None)) }
            } @else { td {} td {} td {} td {} }
        }
    }
}

fn drawing(lane: &Lane) -> Markup {
    html! {
        svg.lane viewBox=(format!("0 0 {WIDTH} 20")) preserveAspectRatio="none" role="img" aria-label=(words(lane)) {
            @for stretch in &lane.stretches {
                // What took less than a pixel is still seen.
                @let width = ((stretch.to - stretch.from) * WIDTH).max(1.5);
                rect class={ "state-" (stretch.state.as_str()) } x=(format!("{:.1}", stretch.from * WIDTH)) y=(if stretch.state == State::Parked { "14" } else { "2" })
                    width=(format!("{width:.1}")) height=(if stretch.state == State::Parked { "4" } else { "16" }) {}
            }
        }
    }
}

/// The lane for those who do not see it.
fn words(lane: &Lane) -> String {
    let mut shares: Vec<(&str, f64)> = Vec::new();
    for stretch in &lane.stretches {
        let (name, length) = (stretch.state.as_str(), stretch.to - stretch.from);
        match shares.iter_mut().find(|(own, _)| *own == name) {
            Some((_, share)) => *share += length,
            None => shares.push((name, length)),
        }
    }
    let shares: Vec<String> = shares.iter().map(|(name, share)| format!("{name} {:.0} %", share * 100.0)).collect();
    shares.join(", ")
}
