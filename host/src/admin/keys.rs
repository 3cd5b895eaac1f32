//! Access keys: create, list, show, rotate, revoke. All of it takes the right to manage everything.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use http::StatusCode;

use super::Plane;
use super::audit::Detail;
use super::functions::{json, json_or_default};
use super::model::{CreateKeyRequest, KeyList, KeyView, KeyWithSecret, Problem, RotateKeyRequest};
use super::query;
use super::reject::Named;
use crate::access::{EntryId, Key, KeyChangeError, NewKey, Scope, WithSecret};
use crate::ids::KeyId;
use crate::web::problem::{Code, Failure};

/// The longest time for which an old secret still works.
const GRACE_MS_MAX: u64 = 30 * 86_400_000;

type Shared = State<Arc<Plane>>;

/// All access keys, without their secrets.
#[utoipa::path(get, path = "/v1/keys", operation_id = "listKeys", responses((status = 200, body = KeyList)))]
pub(super) async fn list(State(plane): Shared) -> Json<KeyList> {
    Json(KeyList { keys: plane.host.access().list().iter().map(|key| view(key)).collect() })
}

/// Makes an access key. The answer has its secret, which is never shown again.
#[utoipa::path(post, path = "/v1/keys", operation_id = "createKey", request_body = CreateKeyRequest,
    responses((status = 201, body = KeyWithSecret), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn create(
    State(plane): Shared,
    Extension(entry): Extension<EntryId>,
    body: Body,
) -> Result<impl IntoResponse, Failure> {
    let new = read(json(body).await?)?;
    let made = plane.host.change_access(move |access| access.create(new, Some(entry))).await??;
    let made = with_secret(&made);
    let rights: Vec<&str> = made.key.rights.iter().map(|right| right.as_str()).collect();
    let detail = Detail(format!("{}: {} for {}", made.key.id, rights.join(", "), made.key.functions.join(", ")));
    Ok((StatusCode::CREATED, detail.attached(), Json(made)))
}

/// One access key, without its secret.
#[utoipa::path(get, path = "/v1/keys/{id}", operation_id = "showKey",
    params(("id" = String, Path, description = "The key's identifier")),
    responses((status = 200, body = KeyView), (status = 404, body = Problem)))]
pub(super) async fn show(State(plane): Shared, Named(id): Named<KeyId>) -> Result<Json<KeyView>, Failure> {
    let key = plane.host.access().list().into_iter().find(|key| key.id == id);
    key.map(|key| Json(view(&key))).ok_or_else(|| KeyChangeError::NotFound(id).into())
}

/// Gives an access key another secret, which the answer has. The old one stops working at once, or after `graceMs`.
#[utoipa::path(post, path = "/v1/keys/{id}/rotate", operation_id = "rotateKey",
    params(("id" = String, Path, description = "The key's identifier")), request_body = RotateKeyRequest,
    responses((status = 200, body = KeyWithSecret), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn rotate(
    State(plane): Shared,
    Named(id): Named<KeyId>,
    body: Body,
) -> Result<Json<KeyWithSecret>, Failure> {
    let RotateKeyRequest { grace_ms } = json_or_default(body).await?;
    if grace_ms > GRACE_MS_MAX {
        let detail = format!("`graceMs` is {grace_ms}; it must be 0 to {GRACE_MS_MAX}");
        return Err(Failure::new(Code::KeyRefused, detail));
    }
    let grace = Duration::from_millis(grace_ms);
    let rotated = plane.host.change_access(move |access| access.rotate(id, grace)).await??;
    Ok(Json(with_secret(&rotated)))
}

/// Revokes an access key: it stops working at once.
#[utoipa::path(delete, path = "/v1/keys/{id}", operation_id = "revokeKey",
    params(("id" = String, Path, description = "The key's identifier")),
    responses((status = 204), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn revoke(State(plane): Shared, Named(id): Named<KeyId>) -> Result<StatusCode, Failure> {
    plane.host.change_access(move |access| access.revoke(id)).await??;
    Ok(StatusCode::NO_CONTENT)
}

fn read(request: CreateKeyRequest) -> Result<NewKey, Failure> {
    let refused = |detail: String| Failure::new(Code::KeyRefused, detail);
    let mut functions = BTreeSet::new();
    for text in &request.functions {
        functions.insert(text.parse().map_err(|error| refused(format!("`functions`: {error}")))?);
    }
    let expires = request.expires_at.as_deref().map(|text| query::time("expiresAt", text).map_err(refused));
    let requests_per_second = request.requests_per_second.map(|limit| {
        NonZeroU32::new(limit).ok_or_else(|| refused("`requestsPerSecond` is 0; it must be at least 1".to_owned()))
    });
    Ok(NewKey {
        scope: Scope { functions, rights: request.rights.into_iter().collect() },
        description: request.description,
        requests_per_second: requests_per_second.transpose()?,
        expires: expires.transpose()?,
    })
}

fn with_secret(made: &WithSecret) -> KeyWithSecret {
    KeyWithSecret { token: made.token.clone(), key: view(&made.key) }
}

fn view(key: &Key) -> KeyView {
    let time = |time: SystemTime| humantime::format_rfc3339_millis(time).to_string();
    KeyView {
        id: key.id.to_string(),
        description: key.description.clone(),
        functions: key.scope.functions.iter().map(ToString::to_string).collect(),
        rights: key.scope.rights.iter().copied().collect(),
        requests_per_second: key.requests_per_second.map(NonZeroU32::get),
        created_at: (key.id != KeyId::ADMIN_TOKEN).then(|| time(key.created)),
        expires_at: key.expires.map(time),
        rotated_at: key.rotated.map(time),
        previous_until: key.previous_until().map(time),
        last_used_at: key.last_used().map(time),
    }
}
