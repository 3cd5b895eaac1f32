//! Pieces that several pages show.

use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use self::Column::{Number, Text};
use crate::pool::InstanceCounts;

/// The head of a table's column.
pub(super) enum Column {
    Text(&'static str),
    /// Its figures stand to the right.
    Number(&'static str),
}

/// A part of an address.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The address of a function's page.
pub(super) fn function_path(name: &str) -> String {
    format!("/console/functions/{}", segment(name))
}

/// The address of the page with a request's lines.
pub(super) fn request_path(function: &str, request: &str) -> String {
    format!("/console/logs?function={}&request={}", segment(function), segment(request))
}

/// How many instances are in which state, as a bar with its figures in words.
pub(super) fn states(counts: InstanceCounts) -> Markup {
    let named: Vec<(&str, u32)> = counts.named().into_iter().filter(|(_, count)| *count > 0).collect();
    let total: u32 = named.iter().map(|(_, count)| count).sum();
    let words: Vec<String> = named.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let words = if words.is_empty() { "no instances".to_owned() } else { words.join(", ") };
    let share = |count: u32| f64::from(count) * 100.0 / f64::from(total);
    let places = named.iter().scan(0.0, |from, (state, count)| {
        let place = (*state, *from, share(*count));
        *from += share(*count);
        Some(place)
    });
    html! {
        svg.bar viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label=(words) {
            @for (state, from, width) in places {
                rect class={ "state-" (state) } x=(format!("{from:.2}")) width=(format!("{width:.2}")) y="0" height="10" {}
            }
        }
        span.words { (words) }
    }
}

/// A state as a word in its colour.
pub(super) fn state(name: &str) -> Markup {
    html! { span class={ "state state-" (name) } { (name) } }
}

/// A table that can be wider than a phone.
pub(super) fn table(label: &str, columns: &[Column], rows: Markup) -> Markup {
    html! {
        div.wide role="region" aria-label=(label) tabindex="0" {
            table {
                thead {
                    tr {
                        @for column in columns {
                            @match column {
                                Text(name) => { th scope="col" { (name) } }
                                Number(name) => { th.number scope="col" { (name) } }
                            }
                        }
                    }
                }
                tbody { (rows) }
            }
        }
    }
}

/// A figure with its name.
pub(super) fn figure(name: &str, value: &str) -> Markup {
    html! { div.figure { dt { (name) } dd { (value) } } }
}

/// A time without its date's year and fractions, which a machine still reads.
pub(super) fn time(rfc3339: &str) -> Markup {
    let shown: String = rfc3339.get(5..19).unwrap_or(rfc3339).replace('T', " ");
    html! { time datetime=(rfc3339) title=(rfc3339) { (shown) } }
}

/// A button that asks the API for a change. `method` is that of the request, `sure` a question that is asked before.
pub(super) fn action(label: &str, (method, path): (&str, &str), sure: Option<&str>) -> Markup {
    html! {
        button type="button" data-method=(method) data-path=(path) data-sure=[sure] class=[sure.map(|_| "danger")] { (label) }
    }
}
