//! Errors of the admin plane.

use std::str::FromStr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::access::KeyChangeError;
use crate::catalog::{ChangeError, Function};
use crate::host::Host;
use crate::ids::{
    FunctionName, InstanceId, InvalidAlias, InvalidInstanceId, InvalidKeyId, InvalidName, InvalidRequestId,
    InvalidVersion,
};
use crate::ledger::QueryError;
use crate::queue::OrderError;
use crate::trigger::FireError;
use crate::web::problem::{Code, Failure};

/// A request that an operator has to change.
pub(super) fn invalid(detail: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidRequest, detail)
}

pub(super) fn instance_not_found(id: InstanceId) -> Failure {
    Failure::new(Code::InstanceNotFound, format!("there is no instance `{id}` on this host; it may have stopped"))
}

pub(super) async fn no_such_path() -> Failure {
    Failure::new(Code::NotFound, "there is nothing here; /openapi.json lists what there is")
}

pub(super) async fn wrong_method() -> Failure {
    let detail = "this path has no such method; /openapi.json lists what there is";
    Failure::new(Code::MethodNotAllowed, detail)
}

pub(super) fn function_not_found(name: &FunctionName) -> Failure {
    Failure::new(Code::FunctionNotFound, format!("there is no function `{name}`"))
}

/// The function that a path names.
pub(super) fn find(host: &Host, name: &FunctionName) -> Result<Arc<Function>, Failure> {
    host.function(name.as_str()).ok_or_else(|| function_not_found(name))
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

/// What a path names of a function, such as a version or an alias.
pub(super) struct NamedOf<T>(pub(super) FunctionName, pub(super) T);

impl<S: Send + Sync, T> FromRequestParts<S> for NamedOf<T>
where
    T: FromStr<Err: Into<Failure>>,
{
    type Rejection = Failure;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<NamedOf<T>, Failure> {
        let path = Path::<(String, String)>::from_request_parts(head, state).await;
        let Path((function, text)) = path.map_err(|rejection| invalid(rejection.body_text()))?;
        Ok(NamedOf(function.parse()?, text.parse().map_err(Into::into)?))
    }
}

/// Handlers end with a failure; the plane makes the problem of it, with the request's identifier.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.code.status();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Failure {
        Failure::new(Code::InvalidName, error.to_string())
    }
}

impl From<InvalidVersion> for Failure {
    fn from(error: InvalidVersion) -> Failure {
        Failure::new(Code::InvalidName, error.to_string())
    }
}

impl From<InvalidAlias> for Failure {
    fn from(error: InvalidAlias) -> Failure {
        Failure::new(Code::InvalidName, error.to_string())
    }
}

impl From<InvalidInstanceId> for Failure {
    fn from(error: InvalidInstanceId) -> Failure {
        invalid(error.to_string())
    }
}

impl From<InvalidKeyId> for Failure {
    fn from(error: InvalidKeyId) -> Failure {
        invalid(error.to_string())
    }
}

impl From<InvalidRequestId> for Failure {
    fn from(error: InvalidRequestId) -> Failure {
        invalid(error.to_string())
    }
}

impl From<FireError> for Failure {
    fn from(error: FireError) -> Failure {
        let detail = error.to_string();
        match error {
            FireError::NotFound(..) => Failure::new(Code::TriggerNotFound, detail),
            FireError::Address(_) => invalid(detail),
            FireError::Store(error) => error.into(),
        }
    }
}

impl From<OrderError> for Failure {
    fn from(error: OrderError) -> Failure {
        let detail = error.to_string();
        let code = match error {
            OrderError::NotFound(..) => Code::InvocationNotFound,
            OrderError::Ended(_) => Code::InvocationEnded,
            OrderError::NotEnded(_) => Code::InvocationNotEnded,
            OrderError::NotKept => Code::EventNotKept,
            OrderError::Store(error) => return error.into(),
            OrderError::Internal(error) => return error.into(),
        };
        Failure::new(code, detail)
    }
}

impl From<KeyChangeError> for Failure {
    fn from(error: KeyChangeError) -> Failure {
        let detail = error.to_string();
        let code = match error {
            KeyChangeError::NotFound(_) => Code::KeyNotFound,
            KeyChangeError::AdminToken | KeyChangeError::Refused(_) => Code::KeyRefused,
            KeyChangeError::TooMany(_) => Code::TooMany,
            KeyChangeError::Internal(error) => return error.into(),
        };
        Failure::new(code, detail)
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
        Failure::new(Code::Internal, format!("{error:#}"))
    }
}

#[deny(clippy::wildcard_enum_match_arm, reason = "each error's answer is chosen, never defaulted")]
impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Failure {
        let detail = error.to_string();
        let code = match error {
            ChangeError::Internal(error) => return error.into(),
            ChangeError::NotFound(_) => Code::FunctionNotFound,
            ChangeError::NoVersion(..) => Code::VersionNotFound,
            ChangeError::NoAlias(..) => Code::AliasNotFound,
            ChangeError::Refused(_) => Code::ComponentRefused,
            ChangeError::Draining => Code::HostDraining,
            ChangeError::Settings(_) | ChangeError::AddressTaken(..) => Code::SettingsRefused,
            ChangeError::Unchanged(..) => Code::VersionUnchanged,
            ChangeError::VersionInUse { .. } => Code::VersionInUse,
            ChangeError::Alias(..) => Code::AliasRefused,
            ChangeError::TooMany(..) => Code::TooMany,
        };
        Failure::new(code, detail)
    }
}

#[deny(clippy::wildcard_enum_match_arm, reason = "each error's answer is chosen, never defaulted")]
impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        let detail = error.to_string();
        match error {
            QueryError::InvalidLimit(_) | QueryError::InvalidCursor | QueryError::TooManyGroups => invalid(detail),
            QueryError::Behind => Failure::new(Code::LedgerBehind, detail),
            QueryError::Store(_) => anyhow::Error::from(error).into(),
        }
    }
}
