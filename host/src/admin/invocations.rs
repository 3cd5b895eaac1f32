//! Asynchronous invocations: list, show, stop, replay.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Deserialize;

use super::Plane;
use super::audit::Detail;
use super::functions::json_or_default;
use super::model::{
    AsyncInvocationList, AsyncInvocationView, Problem, ReplayRequest, ReplayView, ReplayedView, StopView,
    WebhookSecretView, WholeAsyncInvocation,
};
use super::query;
use super::reject::{Named, NamedOf, find, invalid};
use crate::clock;
use crate::ids::{FunctionName, LATEST, RequestId};
use crate::queue::{Payload, Record, State as Standing, Wanted};
use crate::web::problem::{Code, Failure};

type Shared = State<Arc<Plane>>;

/// Which asynchronous invocations to show.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct InvocationsQuery {
    /// Only those in this state: `queued`, `running`, `waiting-to-retry`, `succeeded`, `failed`, `expired` or `stopped`.
    state: Option<String>,
    /// Only those accepted from then on; RFC 3339, UTC.
    from: Option<String>,
    /// Only those accepted before then.
    to: Option<String>,
    /// Only older ones than this: the `next` of the previous page.
    before: Option<u64>,
    /// Invocations on a page: 1 to 1000.
    limit: usize,
}

impl Default for InvocationsQuery {
    fn default() -> InvocationsQuery {
        InvocationsQuery { state: None, from: None, to: None, before: None, limit: 100 }
    }
}

/// A function's asynchronous invocations, the newest first; those that ended are there for as long as the host keeps them.
#[utoipa::path(get, path = "/v1/functions/{name}/invocations", operation_id = "listAsyncInvocations",
    params(("name" = String, Path, description = "The function's name"), InvocationsQuery),
    responses((status = 200, body = AsyncInvocationList), (status = 400, body = Problem),
              (status = 404, body = Problem)))]
pub(super) async fn list(
    State(plane): Shared,
    Named(function): Named<FunctionName>,
    asked: Result<Query<InvocationsQuery>, QueryRejection>,
) -> Result<Json<AsyncInvocationList>, Failure> {
    let Query(InvocationsQuery { state, from, to, before, limit }) = asked?;
    query::check_limit(limit)?;
    let state = state.map(|name| {
        let known = Standing::ALL.map(Standing::as_str).join(", ");
        Standing::from_name(&name).ok_or_else(|| invalid(format!("`state` must be one of: {known}")))
    });
    let (state, from, to) = (state.transpose()?, query::moment("from", from)?, query::moment("to", to)?);
    let name = function.clone();
    let found =
        plane.queue.list(Wanted { function, state, from, to, replayed: true, before, limit: limit + 1 }).await?;
    if found.is_empty() {
        // A deleted one may still have some.
        find(&plane.host, &name)?;
    }
    let (page, next) = query::page(found, limit, |record| record.seq);
    Ok(Json(AsyncInvocationList { invocations: page.into_iter().map(view).collect(), next }))
}

/// One asynchronous invocation, with its event and its reply as far as they are kept.
#[utoipa::path(get, path = "/v1/functions/{name}/invocations/{id}", operation_id = "showAsyncInvocation",
    params(("name" = String, Path, description = "The function's name"),
           ("id" = String, Path, description = "The invocation's identifier")),
    responses((status = 200, body = WholeAsyncInvocation), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(plane): Shared,
    NamedOf(function, id): NamedOf<RequestId>,
) -> Result<Json<WholeAsyncInvocation>, Failure> {
    let found = plane.queue.show(function.clone(), id.clone()).await?;
    let (record, event, reply) = found.ok_or_else(|| {
        let detail = format!("function `{function}` has no asynchronous invocation `{id}`; it may have ended long ago");
        Failure::new(Code::InvocationNotFound, detail)
    })?;
    let payload = |bytes: Option<bytes::Bytes>| bytes.map(|bytes| Payload::of(&bytes));
    Ok(Json(WholeAsyncInvocation { invocation: view(record), event: payload(event), reply: payload(reply) }))
}

/// Stops an asynchronous invocation: one that waits at once, one that runs as if it had timed out.
#[utoipa::path(post, path = "/v1/functions/{name}/invocations/{id}/stop", operation_id = "stopAsyncInvocation",
    params(("name" = String, Path, description = "The function's name"),
           ("id" = String, Path, description = "The invocation's identifier")),
    responses((status = 200, body = StopView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn stop(
    State(plane): Shared,
    NamedOf(function, id): NamedOf<RequestId>,
) -> Result<Json<StopView>, Failure> {
    Ok(Json(StopView { state: plane.queue.stop(function, id).await? }))
}

/// Accepts the event of an asynchronous invocation that has ended once more, as a new invocation.
#[utoipa::path(post, path = "/v1/functions/{name}/invocations/{id}/replay", operation_id = "replayAsyncInvocation",
    params(("name" = String, Path, description = "The function's name"),
           ("id" = String, Path, description = "The invocation's identifier")),
    responses((status = 202, body = ReplayView), (status = 404, body = Problem), (status = 409, body = Problem),
              (status = 429, body = Problem)))]
pub(super) async fn replay(
    State(plane): Shared,
    NamedOf(function, id): NamedOf<RequestId>,
) -> Result<impl IntoResponse, Failure> {
    let receipt = plane.queue.replay(function, id).await?;
    let id = receipt.id.to_string();
    Ok((StatusCode::ACCEPTED, Detail(format!("as {id}")).attached(), Json(ReplayView { id })))
}

/// Replays asynchronous invocations: by default all that failed, at most the 10,000 newest. What was replayed is left out.
#[utoipa::path(post, path = "/v1/functions/{name}/replay", operation_id = "replayAsyncInvocations",
    params(("name" = String, Path, description = "The function's name")), request_body = ReplayRequest,
    responses((status = 202, body = ReplayedView), (status = 400, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn replay_all(
    State(plane): Shared,
    Named(function): Named<FunctionName>,
    body: Body,
) -> Result<impl IntoResponse, Failure> {
    let ReplayRequest { state, from, to } = json_or_default(body).await?;
    let state = state.unwrap_or(Standing::Failed);
    if !state.has_ended() {
        return Err(invalid(format!("`state` is `{}`; only what has ended can be replayed", state.as_str())));
    }
    let (from, to) = (query::moment("from", from)?, query::moment("to", to)?);
    let wanted = Wanted { function, state: Some(state), from, to, replayed: false, before: None, limit: 0 };
    let (replayed, not_kept) = plane.queue.replay_all(wanted).await?;
    let detail = Detail(format!("{replayed} that had {}", state.as_str()));
    Ok((StatusCode::ACCEPTED, detail.attached(), Json(ReplayedView { replayed, not_kept })))
}

/// The secret with which requests to the function's URL destinations are signed, as Standard Webhooks writes it.
#[utoipa::path(get, path = "/v1/functions/{name}/webhook-secret", operation_id = "showWebhookSecret",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = WebhookSecretView), (status = 404, body = Problem)))]
pub(super) async fn webhook_secret(
    State(plane): Shared,
    Named(function): Named<FunctionName>,
) -> Result<Json<WebhookSecretView>, Failure> {
    find(&plane.host, &function)?;
    Ok(Json(WebhookSecretView { secret: plane.queue.webhook_secret(&function) }))
}

fn view(record: Record) -> AsyncInvocationView {
    let Record { lane, id, state, at, accepted, attempts, origin, result, .. } = record;
    let time = |time: SystemTime| humantime::format_rfc3339_micros(time).to_string();
    let result = result.unwrap_or_default();
    let at_us = |us: u64| (us > 0).then(|| time(clock::from_microseconds(us)));
    let waits = matches!(state, Standing::Queued | Standing::WaitingToRetry);
    let began_at = if state == Standing::Running { Some(time(at)) } else { at_us(result.began_us) };
    let ended_at = if state.has_ended() { Some(time(at)) } else { at_us(result.ended_us) };
    AsyncInvocationView {
        id: id.to_string(),
        function: lane.function.to_string(),
        qualifier: lane.qualifier.as_deref().unwrap_or(LATEST).to_owned(),
        url: lane.url.as_deref().map(str::to_owned),
        request: origin.http.as_ref().map(|head| format!("{} {}", head.method, head.uri)),
        state,
        attempts,
        accepted_at: time(accepted),
        due_at: waits.then(|| time(at)),
        began_at,
        ended_at,
        code: Some(result.code).filter(|code| !code.is_empty()),
        detail: result.detail,
        status: result.status,
        reply_bytes: result.reply_bytes,
        destination: result.told,
        chain: origin.chain.iter().map(ToString::to_string).collect(),
        replay_of: origin.replay_of,
        key: origin.key.map(|key| key.to_string()),
    }
}
