//! Errors as `application/problem+json` (RFC 9457): all codes there are, and the status of each.
//!
//! The planes choose a code; what each stands for is on the page `host/docs/errors.md`, which a test compares with
//! [`Code`].

use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::headers;
use crate::access::BadKey;
use crate::ids::RequestId;

/// Seconds after which a caller that was turned away may try again.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An error, as `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `about:blank`: `title` says what the status means, `code` what happened.
    pub r#type: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable, for programs.
    pub code: String,
    /// What was wrong and what would be right.
    pub detail: String,
    /// The request this answers.
    pub request_id: String,
}

/// Declares the codes once: variant, code, status, and what it means.
macro_rules! codes {
    ($($variant:ident $code:literal $status:ident $meaning:literal,)*) => {
        /// What happened, for programs. Each code has one status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Code] = &[$(Code::$variant,)*];

            /// The code in problem documents, in records and in metrics.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$variant => $code,)*
                }
            }

            /// The one of that name; `internal` if there is none.
            pub fn named(name: &str) -> Code {
                Code::ALL.iter().copied().find(|code| code.as_str() == name).unwrap_or(Code::Internal)
            }

            /// The HTTP status that it comes with.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Code::$variant => StatusCode::$status,)*
                }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Code::$variant => $meaning,)*
                }
            }
        }
    };
}

codes! {
    FunctionNotFound "function-not-found" NOT_FOUND
        "There is no function of this name, or no such version or alias of it",
    VersionNotFound "version-not-found" NOT_FOUND
        "The function has no such version",
    AliasNotFound "alias-not-found" NOT_FOUND
        "The function has no such alias",
    InstanceNotFound "instance-not-found" NOT_FOUND
        "There is no such instance; it may have stopped",
    NotFound "not-found" NOT_FOUND
        "There is nothing at this path",
    MethodNotAllowed "method-not-allowed" METHOD_NOT_ALLOWED
        "The path has no such method; the field `Allow` lists those it has",
    InvalidRequest "invalid-request" BAD_REQUEST
        "Something in the address, the query or the body cannot be read",
    InvalidName "invalid-name" BAD_REQUEST
        "No function, version or alias can have this name",
    InvocationTypeNotSupported "invocation-type-not-supported" BAD_REQUEST
        "`Dormouse-Invocation-Type` is neither `sync` nor `async`",
    InvocationNotFound "invocation-not-found" NOT_FOUND
        "The function has no such asynchronous invocation; it may have ended long ago",
    TriggerNotFound "trigger-not-found" NOT_FOUND
        "The function has no such trigger",
    InvocationEnded "invocation-ended" CONFLICT
        "The asynchronous invocation has ended, so it cannot be stopped",
    InvocationNotEnded "invocation-not-ended" CONFLICT
        "The asynchronous invocation has not ended, so it cannot be replayed",
    InvocationStopped "invocation-stopped" CONFLICT
        "An operator stopped the asynchronous invocation",
    EventNotKept "event-not-kept" CONFLICT
        "The event was not kept after the end of its invocation, so it cannot be replayed",
    QueueFull "queue-full" TOO_MANY_REQUESTS
        "As many events wait as the function's `async.maxQueued` or the host's `queue-max-mb` allows; try again after `Retry-After`",
    QueueUnavailable "queue-unavailable" SERVICE_UNAVAILABLE
        "The host cannot store events at the moment, for example because its disk is full; try again after `Retry-After`",
    UpgradeNotSupported "upgrade-not-supported" NOT_IMPLEMENTED
        "The request asks for a WebSocket, which functions do not have",
    EventIncomplete "event-incomplete" BAD_REQUEST
        "The event ended before its announced length",
    EventTimedOut "event-timed-out" REQUEST_TIMEOUT
        "The event did not arrive in time",
    EventTooLarge "event-too-large" PAYLOAD_TOO_LARGE
        "The event is larger than `event-bytes-max`",
    ComponentTooLarge "component-too-large" PAYLOAD_TOO_LARGE
        "The component is larger than `component-bytes-max`",
    ConfigurationTooLarge "configuration-too-large" PAYLOAD_TOO_LARGE
        "The JSON of a request to the admin plane is larger than 2 MiB",
    ComponentRefused "component-refused" UNPROCESSABLE_ENTITY
        "The upload is not a component that this host can run",
    SettingsRefused "settings-refused" UNPROCESSABLE_ENTITY
        "A setting is unknown or has a value that it cannot have",
    AliasRefused "alias-refused" UNPROCESSABLE_ENTITY
        "The alias would be wrong: no version, or weights that make no sense",
    VersionUnchanged "version-unchanged" CONFLICT
        "`LATEST` is published already, and has not changed since",
    VersionInUse "version-in-use" CONFLICT
        "An alias names the version that was to be deleted",
    TooMany "too-many" CONFLICT
        "The function has as many versions or aliases, or the host as many access keys, as this host allows",
    FunctionDisabled "function-disabled" FORBIDDEN
        "An operator disabled the function; `detail` says why",
    FunctionFailed "function-failed" INTERNAL_SERVER_ERROR
        "The function returned an error; its text is in `detail`",
    FunctionCrashed "function-crashed" BAD_GATEWAY
        "The function trapped; the backtrace is in its log",
    FunctionOutOfMemory "function-out-of-memory" BAD_GATEWAY
        "The function wanted more memory than `memoryMb`",
    FunctionResponseInvalid "function-response-invalid" BAD_GATEWAY
        "What the function answered is not a whole HTTP response",
    FunctionTimedOut "function-timed-out" GATEWAY_TIMEOUT
        "The function took longer than `timeoutMs`",
    InstanceLost "instance-lost" BAD_GATEWAY
        "The instance ended through another request or its background work",
    FunctionBusy "function-busy" TOO_MANY_REQUESTS
        "All instances are busy, and the queue is full or the wait was too long; try again after `Retry-After`",
    FunctionUnavailable "function-unavailable" SERVICE_UNAVAILABLE
        "Instances of the function cannot be started; `dormouse show` says why",
    HostFull "host-full" SERVICE_UNAVAILABLE
        "The host has no room for another instance, event, reply or record; try again after `Retry-After`",
    HostDraining "host-draining" SERVICE_UNAVAILABLE
        "The host is shutting down",
    LedgerUnhealthy "ledger-unhealthy" SERVICE_UNAVAILABLE
        "The host cannot write its ledger",
    LedgerBehind "ledger-behind" SERVICE_UNAVAILABLE
        "The ledger has not stored yet what was asked for; try again",
    Unauthorized "unauthorized" UNAUTHORIZED
        "No access key was shown where one is wanted, or it is wrong, revoked or expired",
    Forbidden "forbidden" FORBIDDEN
        "The access key does not cover this; or a web page or another machine asks for what only programs on this one may have",
    KeyLimitReached "key-limit-reached" TOO_MANY_REQUESTS
        "The access key has called functions as often in this second as it may; try again after `Retry-After`",
    KeyNotFound "key-not-found" NOT_FOUND
        "There is no such access key; it may have been revoked",
    KeyRefused "key-refused" UNPROCESSABLE_ENTITY
        "The access key would make no sense: no functions, no rights, or an end that is over",
    Internal "internal" INTERNAL_SERVER_ERROR
        "A fault of the host; its log says more",
}

/// Something that went wrong, on its way to the caller.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What happened.
    pub code: Code,
    /// What was wrong and what would be right. Nothing that helps an attacker.
    pub detail: String,
}

impl Failure {
    /// A failure with everything said.
    pub fn new(code: Code, detail: impl Into<String>) -> Failure {
        Failure { code, detail: detail.into() }
    }

    /// The reply, with the request's identifier.
    pub fn reply(self, request: &RequestId) -> http::Response<Full<Bytes>> {
        let status = self.code.status();
        self.reply_with(status, request)
    }

    /// The reply, with another status than the code's.
    pub fn reply_with(self, status: StatusCode, request: &RequestId) -> http::Response<Full<Bytes>> {
        let problem = Problem {
            r#type: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            code: self.code.as_str().to_owned(),
            detail: self.detail,
            request_id: request.as_str().to_owned(),
        };
        // A struct of texts and a number always is JSON.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = http::Response::new(Full::from(Bytes::from(body)));
        *response.status_mut() = status;
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        fields.insert(headers::REQUEST_ID, headers::value(request));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            fields.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if status == StatusCode::UNAUTHORIZED {
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<BadKey> for Failure {
    fn from(bad: BadKey) -> Failure {
        let code = match bad {
            BadKey::Unknown | BadKey::Expired { .. } => Code::Unauthorized,
            BadKey::TooManyCalls { .. } => Code::KeyLimitReached,
        };
        Failure::new(code, bad.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_about_errors_lists_every_code_with_its_status_and_meaning() {
        let page = include_str!("../../docs/errors.md");
        let row = |code: &Code| format!("| `{}` | {} | {} |", code.as_str(), code.status().as_u16(), code.meaning());
        let table: Vec<String> = Code::ALL.iter().map(row).collect();
        assert!(page.contains(&table.join("\n")), "host/docs/errors.md must hold this table:\n{}", table.join("\n"));
    }
}
