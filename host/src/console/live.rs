//! Pages that somebody keeps open: parts that changed are sent once a second.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, StreamExt as _};
use http::{HeaderValue, header};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Seen, View};

/// How often a page is rendered again.
const EVERY: Duration = Duration::from_secs(1);

struct Follower {
    view: View,
    seen: Seen,
    ticks: Interval,
    /// What the page has already.
    sent: HashMap<&'static str, String>,
}

/// Sends the parts of a page that changed, as an object of JSON with the markup by element, until the reader goes, its key is
/// revoked, or the host closes.
pub(super) fn follow(view: View, seen: Seen) -> http::Response<Body> {
    let tasks = seen.console.host.tasks().clone();
    let mut ticks = interval(EVERY);
    // A page that takes long is not rendered more often for it.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let follower = Follower { view, seen, ticks, sent: HashMap::new() };
    let events = stream::unfold(follower, |mut follower| async move {
        let changed = follower.next().await?;
        Some((Event::default().json_data(changed).unwrap_or_default(), follower))
    });
    let until_closed = events.map(Ok::<_, Infallible>).take_until(async move { tasks.closing().await });
    let mut response = Sse::new(until_closed).keep_alive(KeepAlive::default()).into_response();
    // A browser that may keep it would let the page at the same address wait for its end.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Follower {
    /// The next parts that are other than before; none if there will be none.
    async fn next(&mut self) -> Option<HashMap<&'static str, String>> {
        loop {
            self.ticks.tick().await;
            if !self.seen.may_go_on() {
                return None;
            }
            let fragments = self.view.fragments(&self.seen).await.ok()?;
            let mut changed = HashMap::new();
            for (id, markup) in fragments {
                let markup = markup.into_string();
                if self.sent.get(id) != Some(&markup) {
                    self.sent.insert(id, markup.clone());
                    changed.insert(id, markup);
                }
            }
            if !changed.is_empty() {
                return Some(changed);
            }
        }
    }
}
