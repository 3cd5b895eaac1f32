//! Who changed what.

use maud::{Markup, html};

use super::Seen;
use super::page;
use super::parts::Column::{Number, Text};
use super::parts::{table, time};
use crate::admin::model::AuditList;
use crate::web::problem::Failure;

/// Entries that are shown.
const ENTRIES: u32 = 100;

pub(super) async fn page(seen: &Seen) -> Result<Markup, Failure> {
    let list: AuditList = seen.console.api.get(&seen.operator, &format!("/v1/audit?limit={ENTRIES}")).await?;
    let main = html! {
        @if list.entries.is_empty() { p.empty { "Nothing was changed." } } @else {
            (table("Changes", &[Text("Time"), Text("Who"), Text("From"), Text("What"), Text("Function"), Text("Detail"), Number("Status")], html! {
                @for entry in &list.entries {
                    tr {
                        td { (time(&entry.time)) }
                        td { code { (entry.operator) } }
                        td { (entry.address) }
                        th scope="row" { (entry.action) }
                        td { (entry.function.as_deref().unwrap_or_default()) }
                        td.text { (entry.detail) }
                        td.number class=[entry.status.is_some_and(|status| status >= 400).then_some("bad")] { (entry.status.map(|status| status.to_string()).unwrap_or_default()) }
                    }
                }
            }))
        }
    };
    Ok(page::page(seen, "/console/audit", "Changes", main))
}
