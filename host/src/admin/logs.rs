//! A function's log: lines that are there, from the newest on back in time, or all from now on as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::future;
use futures::stream::{self, StreamExt as _};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Plane;
use super::model::{LogLine, LogLines, Problem};
use super::query;
use super::reject::{Named, find, invalid};
use crate::host::Host;
use crate::ids::FunctionName;
use crate::log::{Author, Follower, Found, Line, Log, Search, Stream, Words};
use crate::operator::Operator;
use crate::web::problem::{Code, Failure};

/// Lines that one answer has at most.
const TAIL_MAX: usize = 100_000;
/// How long a text may be that is looked for.
const TEXT_BYTES_MAX: usize = 1024;
/// Searches at once; each holds what one answer may have.
pub(super) const SEARCHES_MAX: usize = 4;
/// How long further ones wait.
const SEARCH_WITHIN: Duration = Duration::from_secs(10);

/// What to show.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    /// The newest so many lines of those that are meant: 1 to 100000; 0 with `follow`: only what is new.
    tail: usize,
    /// Only lines before the one with this number: the `next` of the answer before.
    before: Option<u64>,
    /// Only lines from then on; RFC 3339, UTC.
    from: Option<String>,
    /// Only lines before then.
    to: Option<String>,
    /// Only lines of this request.
    request: Option<String>,
    /// Only lines of `stdout`, `stderr` or `host`.
    stream: Option<String>,
    /// Only lines with this text in them, in upper or lower case.
    text: Option<String>,
    /// Whether to go on with new lines as server-sent events, a line of JSON each.
    follow: bool,
    /// With `follow`: begin with what came after the line with this number, as far as it is in memory; `tail` does not matter then.
    after: Option<u64>,
}

impl Default for LogQuery {
    fn default() -> LogQuery {
        LogQuery {
            tail: 100,
            before: None,
            from: None,
            to: None,
            request: None,
            stream: None,
            text: None,
            follow: false,
            after: None,
        }
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
    let (follows, after) = (query.follow, query.after);
    let search = query.search()?;
    let function = find(&plane.host, &name)?;
    if !follows {
        let found = search_in(&plane, &function.log, search).await?;
        let lines = found.lines.iter().map(|line| view(&name, line)).collect();
        return Ok(Json(LogLines { lines, next: found.next }).into_response());
    }
    let (before, newest) = match after {
        // A number that there is not is one of another host's life, or of a function that was deleted: all is new then.
        Some(after) if after > function.log.newest() => (Vec::new(), 0),
        Some(after) => (Vec::new(), after),
        None => {
            let newest = function.log.newest();
            let before = Search { before: Some(newest + 1), ..search.clone() };
            (search_in(&plane, &function.log, before).await?.lines, newest)
        }
    };
    Ok(follow(name, (before, function.log.follow(newest)), search, (plane.host.clone(), operator)))
}

impl LogQuery {
    fn search(self) -> Result<Search, Failure> {
        let LogQuery { tail, before, from, to, request, stream, text, follow, after } = self;
        if tail > TAIL_MAX {
            return Err(invalid(format!("`tail` is {tail}: it must be 0 to {TAIL_MAX}")));
        }
        if follow && (before.is_some() || to.is_some()) {
            return Err(invalid("`follow` goes on with new lines; `before` and `to` are for those that are there"));
        }
        if text.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(invalid(format!("`text` has more than {TEXT_BYTES_MAX} bytes")));
        }
        if after.is_some() && !follow {
            return Err(invalid(
                "`after` is for `follow`; what is there already is asked for with `before` and `tail`",
            ));
        }
        let named = |name: String| {
            let wrong = || invalid(format!("`stream` is `{name}`: it must be `stdout`, `stderr` or `host`"));
            Stream::from_name(&name).ok_or_else(wrong)
        };
        Ok(Search {
            count: tail,
            before,
            from: query::moment("from", from)?,
            to: query::moment("to", to)?,
            request,
            stream: stream.map(named).transpose()?,
            text: text.map(|text| Words::new(&text)),
        })
    }
}

/// Looks for lines on a thread where blocking is allowed. If whoever asks leaves, or the host has no more time, it is given up.
async fn search_in(plane: &Plane, log: &Log, search: Search) -> Result<Found, Failure> {
    let waiting = timeout(SEARCH_WITHIN, plane.searches.clone().acquire_owned()).await;
    let busy = || Failure::new(Code::HostFull, "many logs are searched at once; ask again");
    let place = waiting.ok().and_then(Result::ok).ok_or_else(busy)?;
    let (log, tasks) = (log.clone(), plane.host.tasks().clone());
    let asked = CancellationToken::new();
    let (left, _leaves) = (asked.clone(), asked.drop_guard());
    let found = plane.host.tasks().blocking(move || {
        let _place = place;
        log.search(&search, &|| !left.is_cancelled() && !tasks.is_cut_off())
    });
    Ok(found.await??)
}

fn follow(
    name: FunctionName,
    (before, follower): (Vec<Line>, Follower),
    search: Search,
    (host, operator): (Arc<Host>, Operator),
) -> Response {
    let tasks = host.tasks().clone();
    let later = stream::unfold(follower, async |mut follower| Some((follower.next().await?, follower)));
    let lines = stream::iter([before]).chain(later).flat_map(stream::iter);
    let lines = lines.filter(move |line| future::ready(search.is_meant(line)));
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
