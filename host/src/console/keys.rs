//! Access keys: which there are, and making, rotating and revoking them.

use maud::{Markup, html};

use super::Seen;
use super::page;
use super::parts::Column::Text;
use super::parts::{action, segment, table, time};
use crate::access::Right;
use crate::admin::model::{KeyList, KeyView};
use crate::web::problem::Failure;

/// Which keys are shown.
pub(super) struct Shown {
    function: String,
}

impl Shown {
    pub(super) fn of(query: impl Fn(&str) -> Option<String>) -> Shown {
        Shown { function: query("function").unwrap_or_default() }
    }

    pub(super) async fn page(&self, seen: &Seen) -> Result<Markup, Failure> {
        let mut list: KeyList = seen.console.api.get(&seen.operator, "/v1/keys").await?;
        list.keys.retain(|key| self.function.is_empty() || covers(key, &self.function));
        let main = html! {
            form.filters method="get" action="/console/keys" role="search" {
                label { "Function" input type="search" name="function" value=(self.function) placeholder="all"; }
                button { "Show" }
            }
            div.secret.card id="secret" hidden { p { "The key is shown only now. Send it as " code { "Authorization: Bearer KEY" } ":" } output aria-label="Key" {} }
            div id="keys" { (keys(&list, if self.function.is_empty() { "There is no key." } else { "No key is for this function." })) }
            (self.create())
        };
        Ok(page::page(seen, "/console/keys", "Keys", main))
    }

    fn create(&self) -> Markup {
        html! {
            section.card aria-labelledby="create-title" {
                h2 id="create-title" { "New key" }
                form data-key="/v1/keys" {
                    div.row {
                        label { "Description" input name="description" maxlength="256" autocomplete="off"; span.wrong hidden {} }
                        label { "Functions" input name="functions" required value=(self.function) placeholder="shop, shop-*, or * for all" autocomplete="off"; span.wrong hidden {} }
                        label { "Requests a second" input name="requestsPerSecond" type="number" min="1" placeholder="any number"; span.wrong hidden {} }
                        label { "Days until it expires" input name="days" type="number" min="1" max="36500" placeholder="never"; span.wrong hidden {} }
                    }
                    fieldset {
                        legend { "Rights" }
                        @for right in Right::ALL { label.check { input type="checkbox" name="rights" value=(right.as_str()) checked[right == Right::Invoke]; (right.as_str()) } }
                    }
                    p.wrong data-rest hidden {}
                    button { "Create" }
                }
            }
        }
    }
}

fn keys(list: &KeyList, none: &str) -> Markup {
    html! {
        @if list.keys.is_empty() { p.empty { (none) } } @else {
            (table("Keys", &[Text("Key"), Text("For"), Text("Rights"), Text("Made"), Text("Expires"), Text("Last used"), Text("")], html! {
                @for key in &list.keys {
                    tr {
                        th scope="row" { code { (key.id) } " " bdi { (key.description) } }
                        td { (key.functions.join(", ")) @if let Some(most) = key.requests_per_second { " (" (most) " a second)" } }
                        td { (key.rights.iter().map(|right| right.as_str()).collect::<Vec<_>>().join(", ")) }
                        td { @if let Some(at) = &key.created_at { (time(at)) } }
                        td { @if let Some(at) = &key.expires_at { (time(at)) } @else { "never" } }
                        td { @if let Some(at) = &key.last_used_at { (time(at)) } @else { "never" } }
                        // The host's admin token is no key that it could change.
                        td { @if key.created_at.is_some() { (controls(key)) } }
                    }
                }
            }))
        }
    }
}

fn controls(key: &KeyView) -> Markup {
    let path = format!("/v1/keys/{}", segment(&key.id));
    html! {
        button type="button" data-method="POST" data-path={ (path) "/rotate" } data-shows="token" data-sure="Replace its secret? The old one stops working at once." { "Rotate" }
        (action("Revoke", ("DELETE", &path), Some("Revoke the key? It stops working at once.")))
    }
}

/// Whether a key is for a function.
fn covers(key: &KeyView, function: &str) -> bool {
    key.functions.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => function.starts_with(prefix),
        None => pattern == function,
    })
}
