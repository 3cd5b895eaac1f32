//! What all pages have: the head, the ways to the other pages, and parts that change.

use maud::{DOCTYPE, Markup, html};

use super::Seen;
use crate::web::problem::Failure;

/// Parts of a page that change while somebody looks, by the identifier of the element that they fill.
pub(super) type Fragments = Vec<(&'static str, Markup)>;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The pages, in their order.
const PAGES: [(&str, &str); 7] = [
    ("/", "Functions"),
    ("/console/instances", "Instances"),
    ("/console/bill", "Bill"),
    ("/console/logs", "Logs"),
    ("/console/overview", "Host"),
    ("/console/keys", "Keys"),
    ("/console/audit", "Changes"),
];

/// A page with a title, below the navigation. `own` is the page of [`PAGES`] that it is or belongs to.
pub(super) fn page(seen: &Seen, own: &str, title: &str, main: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, seen.token.as_deref()))
            body {
                a.skip href="#main" { "Skip to the page" }
                header {
                    a.brand href="/" { img src=(asset("icon.svg")) alt="" width="24" height="24"; "Dormouse" }
                    nav aria-label="Pages" {
                        @for (address, name) in PAGES {
                            a href=(address) aria-current=[(address == own).then_some("page")] { (name) }
                        }
                    }
                    @if seen.token.is_some() {
                        form method="post" action="/console/sign-out" { button.quiet { "Sign out" } }
                    }
                }
                main id="main" { h1 { (title) } (main) }
                div.toast id="toast" role="status" aria-live="polite" {}
            }
        }
    }
}

/// A page for whoever has not signed in, or for what is not there.
pub(super) fn plain(title: &str, main: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, None))
            body { main.plain id="main" { h1 { (title) } (main) } }
        }
    }
}

/// A page about what went wrong.
pub(super) fn failed(failure: &Failure) -> Markup {
    let title = failure.code.status().canonical_reason().unwrap_or("Error").to_owned();
    plain(
        &title,
        html! { p { (failure.detail) } p { code { (failure.code.as_str()) } } p { a href="/" { "Functions" } } },
    )
}

fn head(title: &str, token: Option<&str>) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            @if let Some(token) = token { meta name="csrf" content=(token); }
            title { (title) " · Dormouse" }
            link rel="icon" href=(asset("icon.svg"));
            link rel="stylesheet" href=(asset("uPlot.css"));
            link rel="stylesheet" href=(asset("console.css"));
            script src=(asset("uPlot.js")) defer {}
            script src=(asset("console.js")) defer {}
        }
    }
}

fn asset(file: &str) -> String {
    format!("/console/assets/{file}?{VERSION}")
}

/// Marks a page that is rendered again while somebody looks.
pub(super) fn live(fragments: Fragments, whole: impl FnOnce(&dyn Fn(&str) -> Markup) -> Markup) -> Markup {
    let part = |id: &str| {
        let found = fragments.iter().find(|(own, _)| *own == id);
        found.map(|(_, markup)| markup.clone()).unwrap_or_default()
    };
    html! { div data-live {} (whole(&part)) }
}
