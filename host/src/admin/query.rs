//! What queries of several lists have in common: pages that go back in time, and times.

use std::time::SystemTime;

use super::reject::invalid;
use crate::web::problem::Failure;

/// Entries on a page.
const LIMIT_MAX: usize = 1000;

/// Checks how many entries are wanted.
pub(super) fn check_limit(limit: usize) -> Result<(), Failure> {
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(());
    }
    Err(invalid(format!("`limit` is {limit}: it must be 1 to {LIMIT_MAX}")))
}

/// A page of what was found, which is one more than wanted if there is more: then with the number to go on before.
pub(super) fn page<T>(mut found: Vec<T>, limit: usize, number: impl Fn(&T) -> u64) -> (Vec<T>, Option<u64>) {
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).map(number);
    (found, next)
}

/// A time in a query, which may be left out.
pub(super) fn moment(name: &str, text: Option<String>) -> Result<Option<SystemTime>, Failure> {
    text.map(|text| time(name, &text).map_err(invalid)).transpose()
}

/// A time as people write it in queries and settings; says what is wrong with it.
pub(super) fn time(name: &str, text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339_weak(text)
        .map_err(|_| format!("`{name}` is `{text}`; it must be a time such as `2027-01-31T00:00:00Z`"))
}
