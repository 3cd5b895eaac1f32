//! Errors as Function Compute's clients read them.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::{Value, json};

use crate::access::BadKey;
use crate::catalog::ChangeError;
use crate::ids::RequestId;
use crate::invoke::Refusal;
use crate::queue::{OrderError, StoreError};
use crate::web::problem::{Code, Failure};

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    /// The code of Function Compute.
    pub(super) code: &'static str,
    pub(super) message: Cow<'static, str>,
}

impl Fault {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault { status, code, message: message.into() }
    }

    /// Something that the client has to change.
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    pub(super) fn denied(message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(StatusCode::FORBIDDEN, "AccessDenied", message)
    }

    pub(super) fn not_found(code: &'static str, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(super) fn exists(code: &'static str, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(StatusCode::CONFLICT, code, message)
    }

    pub(super) fn unmet(code: &'static str, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(StatusCode::PRECONDITION_FAILED, code, message)
    }

    pub(super) fn unavailable(message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "ResourceThrottled", message)
    }

    fn exhausted(message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(StatusCode::TOO_MANY_REQUESTS, "ResourceExhausted", message)
    }

    pub(super) fn too_large(bytes_max: usize) -> Fault {
        let message = format!("payload size exceeds maximum allowed size ({bytes_max} bytes)");
        Fault::new(StatusCode::BAD_REQUEST, "EntityTooLarge", message)
    }

    /// The body: each client finds the names that it reads.
    pub(super) fn body(&self, request: &RequestId) -> Value {
        json!({
            "ErrorCode": self.code, "ErrorMessage": self.message, "errorCode": self.code, "errorMessage": self.message,
            "Code": self.code, "Message": self.message, "RequestId": request.as_str(),
        })
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Fault {
        tracing::error!("a request of Function Compute's APIs failed: {error:#}");
        let message = "an internal error has occurred; the host's log says which";
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message)
    }
}

impl From<BadKey> for Fault {
    fn from(bad: BadKey) -> Fault {
        match bad {
            BadKey::Unknown | BadKey::Expired { .. } => Fault::denied(bad.to_string()),
            BadKey::TooManyCalls { .. } => Fault::exhausted(bad.to_string()),
        }
    }
}

#[deny(clippy::wildcard_enum_match_arm, reason = "each error's answer is chosen, never defaulted")]
impl From<ChangeError> for Fault {
    fn from(error: ChangeError) -> Fault {
        let message = error.to_string();
        match error {
            ChangeError::Internal(error) => error.into(),
            ChangeError::NotFound(name) => {
                let (service, function) = name.parts();
                no_function(service, function)
            }
            ChangeError::NoVersion(..) => Fault::not_found("VersionNotFound", message),
            ChangeError::NoAlias(..) => Fault::not_found("AliasNotFound", message),
            ChangeError::Refused(_) | ChangeError::Settings(_) | ChangeError::Alias(..) => Fault::invalid(message),
            ChangeError::AddressTaken(..) => Fault::exists("TriggerAlreadyExists", message),
            ChangeError::Unchanged(..) | ChangeError::VersionInUse { .. } => {
                Fault::unmet("PreconditionFailed", message)
            }
            ChangeError::TooMany(..) => Fault::new(StatusCode::BAD_REQUEST, "LimitExceededError", message),
            ChangeError::Draining => Fault::unavailable(message),
        }
    }
}

#[deny(clippy::wildcard_enum_match_arm, reason = "each error's answer is chosen, never defaulted")]
impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        use crate::pool::Refused;
        let message = refusal.to_string();
        match refusal {
            Refusal::NoFunction(name) => match name.split_once('.') {
                Some((service, function)) => no_function(Some(service), function),
                None => no_function(None, &name),
            },
            Refusal::NoQualifier { .. } => Fault::not_found("VersionNotFound", message),
            Refusal::NoKey(_) | Refusal::OutOfScope { .. } | Refusal::Disabled { .. } | Refusal::HookPath(_) => {
                Fault::denied(message)
            }
            Refusal::LedgerFull | Refusal::Pool(Refused::Draining) => Fault::unavailable(message),
            Refusal::Unavailable => Fault::unmet("FunctionNotStarted", message),
            Refusal::NotHttp => Fault::invalid(message),
            Refusal::Pool(Refused::Busy) => Fault::exhausted(message),
            Refusal::Pool(Refused::Lost) => {
                Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message)
            }
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Failure::from(error).into()
    }
}

impl From<OrderError> for Fault {
    fn from(error: OrderError) -> Fault {
        let message = error.to_string();
        match error {
            OrderError::NotFound(..) => Fault::not_found("StatefulAsyncInvocationNotFound", message),
            OrderError::Ended(_) | OrderError::NotEnded(_) | OrderError::NotKept => {
                Fault::unmet("PreconditionFailed", message)
            }
            OrderError::Store(error) => error.into(),
            OrderError::Internal(error) => error.into(),
        }
    }
}

/// What this host's other planes would answer.
impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        let status = failure.code.status();
        let code = match failure.code {
            Code::EventTooLarge | Code::ComponentTooLarge | Code::ConfigurationTooLarge => {
                return Fault::new(StatusCode::BAD_REQUEST, "EntityTooLarge", failure.detail);
            }
            Code::Unauthorized | Code::Forbidden => return Fault::denied(failure.detail),
            _ if status == StatusCode::TOO_MANY_REQUESTS => "ResourceExhausted",
            _ if status == StatusCode::SERVICE_UNAVAILABLE => "ResourceThrottled",
            _ if status.is_client_error() => return Fault::invalid(failure.detail),
            _ => "InternalServerError",
        };
        Fault::new(status, code, failure.detail)
    }
}

pub(super) fn no_function(service: Option<&str>, function: &str) -> Fault {
    let message = match service {
        Some(service) => format!("function '{function}' does not exist in service '{service}'"),
        None => format!("function '{function}' does not exist"),
    };
    Fault::not_found("FunctionNotFound", message)
}
