//! The host: how much of it is used, and what went wrong last.

use maud::{Markup, html};

use super::Seen;
use super::page::{self, Fragments};
use super::parts::Column::Text;
use super::parts::{figure, request_path, states, table, time};
use crate::access::Right;
use crate::figures::{bytes, count, duration_ms};
use crate::ids::FunctionName;
use crate::ledger::RecordQuery;
use crate::pool::InstanceCounts;
use crate::web::problem::Failure;

/// Requests among which failures are looked for.
const LOOKED_AT: u32 = 200;
/// Failures that are shown.
const FAILURES: usize = 20;

pub(super) async fn page(seen: &Seen) -> Result<Markup, Failure> {
    let fragments = fragments(seen).await?;
    let main = page::live(fragments, |part| {
        html! {
            div id="host" { (part("host")) }
            section aria-labelledby="failures-title" { h2 id="failures-title" { "Newest failures" } div id="failures" { (part("failures")) } }
        }
    });
    Ok(page::page(seen, "/console/overview", "Host", main))
}

pub(super) async fn fragments(seen: &Seen) -> Result<Fragments, Failure> {
    seen.operator.check_with_some(Right::Read)?;
    let host = &seen.console.host;
    let may = |name: &FunctionName| seen.operator.may(Right::Read, name.as_str());
    let counts = host.instance_counts_by_function();
    let counts = counts.iter().filter(|(name, _)| may(name)).map(|(_, counts)| *counts);
    let all = counts.fold(InstanceCounts::default(), InstanceCounts::plus);
    let functions = host.functions().iter().filter(|function| may(&function.name)).count();
    let is_host_seen = seen.operator.may_with_all(Right::Read);
    let room = host.head_room();
    let (waiting, running) = seen.console.queue.backlog();
    let uptime = seen.console.started.elapsed().as_secs_f64() * 1000.0;
    let of = |used: u64, most: u64| {
        if most == usize::MAX as u64 { count(used) } else { format!("{} of {}", count(used), count(most)) }
    };
    let overview = html! {
        dl.figures {
            (figure("Version", env!("CARGO_PKG_VERSION")))
            (figure("Up", &duration_ms(uptime)))
            (figure("Functions", &count(functions as u64)))
            @if is_host_seen {
                (figure("Instances", &of(room.instances, room.instances_max)))
                (figure("Memory of the host", &format!("{} of {}", bytes(room.resident_bytes), bytes(room.memory_bytes_max))))
                (figure("Linear memory", &bytes(room.guest_memory_bytes)))
                (figure("Of it parked", &bytes(room.parked_memory_bytes)))
                (figure("Kernel maps of instances", &of(room.maps, room.maps_max)))
                (figure("Stopped to make room", &count(room.evictions)))
                (figure("Epochs", &format!("{}, {}", count(room.epochs), if room.is_ticking { "ticking" } else { "at rest" })))
                (figure("Requests that wait", &count(room.waiting as u64)))
                (figure("Asynchronous: waiting, running", &format!("{}, {}", count(waiting), count(running))))
                (figure("Ledger", if host.is_ledger_healthy() { "writes" } else { "cannot write" }))
                (figure("Queue", if seen.console.queue.is_healthy() { "writes" } else { "cannot write" }))
            }
        }
        p { (states(all)) }
    };
    Ok(vec![("host", overview), ("failures", failures(seen).await?)])
}

async fn failures(seen: &Seen) -> Result<Markup, Failure> {
    let query = RecordQuery { limit: LOOKED_AT, newest: true, ..RecordQuery::default() };
    let operator = seen.operator.clone();
    let newest = seen
        .console
        .host
        .ask_ledger(move |ledger| ledger.invocations(&query, &move |name: &str| operator.may(Right::Read, name)));
    let newest = newest.await??;
    let failed = newest.invocations.iter().filter(|request| request.outcome != "ok").take(FAILURES);
    let failed: Vec<_> = failed.collect();
    Ok(html! {
        @if failed.is_empty() { p.empty { "None among the last " (LOOKED_AT) " requests." } } @else {
            (table("Failures", &[Text("Time"), Text("Function"), Text("Outcome"), Text("Request")], html! {
                @for request in failed {
                    tr {
                        td { (time(&request.start)) }
                        th scope="row" { (request.function) }
                        td.bad { (request.outcome) }
                        td { a href=(request_path(&request.function, &request.request)) { code { (request.request) } } }
                    }
                }
            }))
        }
    })
}
