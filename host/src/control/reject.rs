//! Errors of the admin plane.

use std::str::FromStr;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::catalog::ChangeError;
use crate::http::problem::Failure;
use crate::ids::{InstanceId, InvalidInstanceId, InvalidName, RequestId};
use crate::ledger::QueryError;

/// A request that an operator has to change.
pub(super) fn invalid(detail: impl Into<String>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
}

pub(super) fn instance_not_found(id: InstanceId) -> Failure {
    let detail = format!("there is no instance `{id}` on this host; it may have stopped");
    Failure::new(StatusCode::NOT_FOUND, "instance-not-found", detail)
}

pub(super) async fn no_such_path() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "not-found", "there is nothing here; /openapi.json lists what there is")
}

pub(super) async fn wrong_method() -> Failure {
    let detail = "this path has no such method; /openapi.json lists what there is";
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
}

/// What a path names, such as a function or an instance.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T> FromRequestParts<S> for Named<T>
where
    T: FromStr<Err: Into<Failure>>,
{
    type Rejection = Failure;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Named<T>, Failure> {
        let path = Path::<String>::from_request_parts(head, state).await;
        let Path(text) = path.map_err(|rejection| invalid(rejection.body_text()))?;
        text.parse().map(Named).map_err(Into::into)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.reply(&RequestId::new()).map(Body::new)
    }
}

impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "invalid-name", error.to_string())
    }
}

impl From<InvalidInstanceId> for Failure {
    fn from(error: InvalidInstanceId) -> Failure {
        invalid(error.to_string())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Failure {
        invalid(rejection.body_text())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        tracing::error!("admin request failed: {error:#}");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("{error:#}"))
    }
}

#[deny(clippy::wildcard_enum_match_arm, reason = "each error's answer is chosen, never defaulted")]
impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Failure {
        let detail = error.to_string();
        match error {
            ChangeError::NotFound(name) => Failure::function_not_found(name.as_str(), None),
            ChangeError::Refused(_) => Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "component-refused", detail),
            ChangeError::Settings(_) => Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "settings-refused", detail),
            ChangeError::Internal(error) => error.into(),
        }
    }
}

#[deny(clippy::wildcard_enum_match_arm, reason = "each error's answer is chosen, never defaulted")]
impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        let detail = error.to_string();
        match error {
            QueryError::InvalidLimit(_) | QueryError::InvalidCursor | QueryError::TooManyGroups => invalid(detail),
            QueryError::Behind => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "ledger-behind", detail),
            QueryError::Store(_) => anyhow::Error::from(error).into(),
        }
    }
}
