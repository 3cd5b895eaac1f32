//! A function's log: its newest lines, or all from now on as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::future;
use futures::stream::{self, StreamExt as _};
use serde::Deserialize;

use super::Plane;
use super::model::{LogLine, LogLines, Problem};
use super::reject::{Named, find};
use crate::host::Host;
use crate::ids::FunctionName;
use crate::log::{Author, Line, Log};
use crate::operator::Operator;
use crate::web::problem::Failure;

/// What to show.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    /// Lines to begin with.
    tail: usize,
    /// Only lines of this request.
    request: Option<String>,
    /// Whether to go on with new lines as server-sent events, a line of JSON each.
    follow: bool,
}

impl Default for LogQuery {
    fn default() -> LogQuery {
        LogQuery { tail: 100, request: None, follow: false }
    }
}

/// What the function's instances wrote, and what the host had to say about them.
#[utoipa::path(get, path = "/v1/functions/{name}/logs", operation_id = "readLog",
    params(("name" = String, Path, description = "The function's name"), LogQuery),
    responses((status = 200, body = LogLines), (status = 404, body = Problem)))]
pub(super) async fn read(
    State(plane): State<Arc<Plane>>,
    operator: Operator,
    Named(name): Named<FunctionName>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query?;
    let function = find(&plane.host, &name)?;
    if query.follow {
        return Ok(follow(name, &function.log, query, (plane.host.clone(), operator)));
    }
    let lines = query.newest(function.log.tail(query.looked_at())).iter().map(|line| view(&name, line)).collect();
    Ok(Json(LogLines { lines }).into_response())
}

impl LogQuery {
    /// How many of the newest lines may be among those that are meant.
    fn looked_at(&self) -> usize {
        if self.request.is_some() { usize::MAX } else { self.tail }
    }

    fn is_meant(&self, line: &Line) -> bool {
        let Some(request) = &self.request else { return true };
        matches!(&line.author, Author::Request { id, .. } if id.as_str() == request)
    }

    /// The newest of those that are meant.
    fn newest(&self, mut lines: Vec<Line>) -> Vec<Line> {
        lines.retain(|line| self.is_meant(line));
        lines.split_off(lines.len().saturating_sub(self.tail))
    }
}

fn follow(name: FunctionName, log: &Log, query: LogQuery, (host, operator): (Arc<Host>, Operator)) -> Response {
    let tasks = host.tasks().clone();
    let before = log.tail(query.looked_at());
    let newest = before.last().map_or_else(|| log.newest(), |line| line.sequence);
    let before = query.newest(before);
    let follower = log.follow(newest);
    let later = stream::unfold(follower, async |mut follower| Some((follower.next().await, follower)));
    let lines = stream::iter([before]).chain(later).flat_map(stream::iter);
    let lines = lines.filter(move |line| future::ready(query.is_meant(line)));
    let lines = lines.take_while(move |_| future::ready(operator.is_current(host.access())));
    let events = lines.map(move |line| Event::default().json_data(view(&name, &line)).unwrap_or_default());
    let until_closed = events.map(Ok::<_, Infallible>).take_until(async move { tasks.closing().await });
    Sse::new(until_closed).keep_alive(KeepAlive::default()).into_response()
}

fn view(name: &FunctionName, line: &Line) -> LogLine {
    let (request, key) = match &line.author {
        Author::Request { id, key } => (Some(id.to_string()), *key),
        Author::Unknown | Author::Nobody => (None, None),
    };
    LogLine {
        time: humantime::format_rfc3339_millis(line.time).to_string(),
        sequence: line.sequence,
        stream: line.stream.as_str().to_owned(),
        function: name.to_string(),
        version: line.version.to_string(),
        instance: line.instance.to_string(),
        request,
        key: key.map(|key| key.to_string()),
        request_unknown: line.author == Author::Unknown,
        text: line.text.clone(),
    }
}
