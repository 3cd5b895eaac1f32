//! Instances as lanes over the last minutes, with what can be done with each.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

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
use crate::ledger::{InvocationRecord, RecordQuery};
use crate::web::problem::Failure;

/// How far back lanes go.
const WINDOW: Duration = Duration::from_secs(120);
/// Moves that are looked at for the lanes of all functions: on a busy host they go back less far, and cost no more.
const MOVES: usize = 4096;
/// Requests that are drawn on all lanes of a page together: the newest.
const REQUESTS: u32 = 300;
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
            None => lanes(seen, None).await?,
            Some(name) => match name.parse::<FunctionName>() {
                Ok(name) => lanes(seen, Some(&name)).await?,
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
            span.request { "request" } " "
            span.hint { "The last two minutes. What is dark in a request was executing, the rest waited; point at it to see which it is. A parked instance executes nothing and costs nothing." }
        }
    }
}

/// The lanes of one function's instances, or of those of all functions that moved last.
pub(super) async fn lanes(seen: &Seen, only: Option<&FunctionName>) -> Result<Markup, Failure> {
    let requests = requests(seen, only).await?;
    let host = &seen.console.host;
    let is_shown =
        |name: &FunctionName| only.is_none_or(|only| only == name) && seen.operator.may(Right::Read, name.as_str());
    let mut moves = match only {
        None => host.moves().newest(MOVES),
        Some(_) => host.moves().after(0),
    };
    let mut functions: HashMap<RevisionId, Option<FunctionName>> = HashMap::new();
    let mut function_of =
        |revision| functions.entry(revision).or_insert_with(|| host.function_of(revision).filter(is_shown)).clone();
    moves.retain(|moved| function_of(moved.revision).is_some());
    let mut lanes = lanes::of(&moves, Instant::now(), WINDOW, LANES);
    let found = match only {
        Some(name) => host.instances(name),
        // Only of those that are drawn more is asked.
        None => {
            let mut drawn: HashMap<RevisionId, Vec<InstanceId>> = HashMap::new();
            for lane in &lanes {
                drawn.entry(lane.revision).or_default().push(lane.instance);
            }
            drawn
                .into_iter()
                .flat_map(|(revision, ids)| host.instances_among(revision, |id| ids.contains(&id)))
                .collect()
        }
    };
    // On a busy host the moves of one that has rested for long are forgotten.
    let drawn: HashSet<InstanceId> = lanes.iter().map(|lane| lane.instance).collect();
    let resting = found.iter().rev().filter(|found| !drawn.contains(&found.instance.id));
    for Found { instance, revision, .. } in resting.take(LANES - lanes.len()) {
        let ago = clock::date().duration_since(instance.since).unwrap_or_default();
        lanes.push(Lane::resting((instance.id, *revision), instance.state, ago, WINDOW));
    }
    let found: HashMap<InstanceId, Found> = found.into_iter().map(|found| (found.instance.id, found)).collect();
    let of_function = |lane: Lane| function_of(lane.revision).map(|function| (lane, function));
    let lanes: Vec<(Lane, FunctionName)> = lanes.into_iter().filter_map(of_function).collect();
    Ok(html! {
        @if lanes.is_empty() { p.empty { "No instance moved in the last minutes." } }
        @else {
            div.wide role="region" aria-label="Instances" tabindex="0" {
                table.lanes {
                    thead { tr { th scope="col" { "Instance" } th scope="col" { "State" } th scope="col" { "Two minutes ago to now" } th.number scope="col" { "Requests" } th.number scope="col" { "Executed" } th.number scope="col" { "Memory" } th scope="col" { "" } } }
                    tbody {
                        @for (lane, function) in &lanes {
                            (row(lane, function, (found.get(&lane.instance), only.is_none()), requests.get(&lane.instance)))
                        }
                    }
                }
            }
        }
    })
}

fn row(
    lane: &Lane,
    function: &FunctionName,
    (found, names_function): (Option<&Found>, bool),
    requests: Option<&Vec<Served>>,
) -> Markup {
    let id = lane.instance.to_string();
    let now = found.map_or(lane.state, |found| found.instance.state);
    html! {
        tr data-instance=(id) data-state=(now.as_str()) {
            th scope="row" { @if names_function { a href=(function_path(function.as_str())) { (function) } " " } code { (id) } }
            td { (state(now.as_str())) }
            td { (drawing(lane, requests.map(Vec::as_slice).unwrap_or_default())) }
            @if let Some(Found { instance, .. }) = found {
                td.number { (count(instance.vitals.requests())) @if instance.in_flight > 0 { " (" (instance.in_flight) " now)" } }
                td.number { (duration_ms(instance.vitals.executed().as_secs_f64() * 1000.0)) }
                td.number { (bytes(instance.vitals.memory_bytes())) }
                td { (action("Stop", ("POST", &format!("/v1/instances/{}/stop", segment(&id))), None)) }
            } @else { td {} td {} td {} td {} }
        }
    }
}

/// A request that an instance has answered.
struct Served {
    id: String,
    outcome: String,
    /// Where its handler began and ended in the window.
    from: f64,
    to: f64,
    handler_ms: f64,
    executed_ms: f64,
}

impl Served {
    fn of(record: &InvocationRecord, now: SystemTime) -> Option<(InstanceId, Served)> {
        let instance = record.instance.as_ref()?.parse().ok()?;
        let start = humantime::parse_rfc3339(&record.start).ok()?;
        let ago_ms = now.duration_since(start).unwrap_or_default().as_secs_f64() * 1000.0 - record.queued_ms;
        let place = |ago_ms: f64| (1.0 - ago_ms / (WINDOW.as_secs_f64() * 1000.0)).clamp(0.0, 1.0);
        let (id, outcome) = (record.request.clone(), record.outcome.clone());
        let (handler_ms, executed_ms) = (record.handler_ms, record.executed_ms);
        Some((
            instance,
            Served { id, outcome, from: place(ago_ms), to: place(ago_ms - handler_ms), handler_ms, executed_ms },
        ))
    }

    /// For those who point at it.
    fn title(&self) -> String {
        let Served { id, outcome, handler_ms, executed_ms, .. } = self;
        format!("{id}: {outcome}, {} in the handler, {} executed", duration_ms(*handler_ms), duration_ms(*executed_ms))
    }
}

/// The newest requests of what is shown, by instance.
async fn requests(seen: &Seen, only: Option<&FunctionName>) -> Result<HashMap<InstanceId, Vec<Served>>, Failure> {
    let from = Some(clock::ago(WINDOW));
    let query = RecordQuery { function: only.cloned(), from, newest: true, limit: REQUESTS, ..RecordQuery::default() };
    let operator = seen.operator.clone();
    let asked = seen
        .console
        .host
        .ask_ledger(move |ledger| ledger.invocations(&query, &move |name: &str| operator.may(Right::Read, name)));
    let (newest, now) = (asked.await??, clock::date());
    let mut by_instance: HashMap<InstanceId, Vec<Served>> = HashMap::new();
    for (instance, served) in newest.invocations.iter().filter_map(|record| Served::of(record, now)) {
        by_instance.entry(instance).or_default().push(served);
    }
    Ok(by_instance)
}

fn drawing(lane: &Lane, requests: &[Served]) -> Markup {
    html! {
        svg.lane viewBox=(format!("0 0 {WIDTH} 20")) preserveAspectRatio="none" role="img" aria-label=(words(lane)) {
            @for stretch in &lane.stretches {
                // What took less than a pixel is still seen.
                @let width = ((stretch.to - stretch.from) * WIDTH).max(1.5);
                rect class={ "state-" (stretch.state.as_str()) } x=(format!("{:.1}", stretch.from * WIDTH)) y=(if stretch.state == State::Parked { "14" } else { "2" })
                    width=(format!("{width:.1}")) height=(if stretch.state == State::Parked { "4" } else { "16" }) {}
            }
            @for served in requests {
                // How long it was executing stands at its beginning; the rest of it waited.
                @let width = ((served.to - served.from) * WIDTH).max(2.0);
                @let share = if served.handler_ms > 0.0 { (served.executed_ms / served.handler_ms).min(1.0) } else { 0.0 };
                g.request.failed[served.outcome != "ok"] data-request=(served.id) {
                    title { (served.title()) }
                    rect x=(format!("{:.1}", served.from * WIDTH)) y="4" width=(format!("{width:.1}")) height="6" {}
                    rect.executed x=(format!("{:.1}", served.from * WIDTH)) y="4" width=(format!("{:.1}", width * share)) height="6" {}
                }
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
