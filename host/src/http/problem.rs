//! Errors as `application/problem+json` (RFC 9457): the one place that turns what happened into a status and a code.

use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::headers;
use crate::guest;
use crate::ids::RequestId;
use crate::instance::Outcome;
use crate::pool::Refused;

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

/// Something that went wrong, on its way to the caller.
#[derive(Debug)]
pub struct Failure {
    /// The HTTP status.
    pub status: StatusCode,
    /// Stable, for programs.
    pub code: &'static str,
    /// What was wrong and what would be right. Nothing that helps an attacker.
    pub detail: String,
}

impl Failure {
    /// A failure with everything said.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Failure {
        Failure { status, code, detail: detail.into() }
    }

    /// No such function, or no such version of it.
    pub fn function_not_found(function: &str, qualifier: Option<&str>) -> Failure {
        let shown: String = function.chars().take(80).collect();
        let detail = match qualifier {
            None => format!("there is no function `{shown}`"),
            Some(qualifier) => {
                let qualifier: String = qualifier.chars().take(80).collect();
                format!("function `{shown}` has no version or alias `{qualifier}`; leave it out for `LATEST`")
            }
        };
        Failure::new(StatusCode::NOT_FOUND, "function-not-found", detail)
    }

    /// The event is larger than the host takes.
    pub fn event_too_large(bytes_max: usize) -> Failure {
        let detail = format!("the event is larger than {bytes_max} bytes, the most this host takes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "event-too-large", detail)
    }

    /// The reply, with the request's identifier.
    pub fn reply(self, request: &RequestId) -> http::Response<Full<Bytes>> {
        let problem = Problem {
            r#type: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail,
            request_id: request.as_str().to_owned(),
        };
        // A struct of texts and a number always is JSON.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = http::Response::new(Full::from(Bytes::from(body)));
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        fields.insert(headers::REQUEST_ID, headers::value(request));
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            fields.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What a function answered.
pub(super) enum Answered {
    /// The reply to an event.
    Event(Vec<u8>),
    /// The response to a request.
    Http(Box<guest::Response>),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        match refused {
            Refused::Busy => Failure::new(StatusCode::TOO_MANY_REQUESTS, "function-busy", refused.to_string()),
            Refused::Lost => Failure::new(StatusCode::BAD_GATEWAY, "instance-lost", refused.to_string()),
            Refused::Draining => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "host-draining", refused.to_string()),
        }
    }
}

/// What a function answered, or what went wrong.
#[deny(clippy::wildcard_enum_match_arm, reason = "each outcome's answer is chosen, never defaulted")]
pub(super) fn result(outcome: Outcome) -> Result<Answered, Failure> {
    let code = outcome.code();
    let failure = |status, detail: String| Err(Failure::new(status, code, detail));
    match outcome {
        Outcome::Replied(reply) => Ok(Answered::Event(reply)),
        Outcome::Responded(response) => Ok(Answered::Http(response)),
        Outcome::BadResponse(text) => failure(StatusCode::BAD_GATEWAY, text),
        Outcome::Failed(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error),
        Outcome::Crashed(trap) => failure(StatusCode::BAD_GATEWAY, format!("{}: {}", trap.name, trap.summary)),
        Outcome::OutOfMemory => {
            failure(StatusCode::BAD_GATEWAY, "the function wanted more memory than `memoryMb` allows".to_owned())
        }
        Outcome::TimedOut => {
            failure(StatusCode::GATEWAY_TIMEOUT, "the function took longer than `timeoutMs` allows".to_owned())
        }
        Outcome::Lost => failure(
            StatusCode::BAD_GATEWAY,
            "the instance ended through another request or its background work; this one is not to blame".to_owned(),
        ),
        Outcome::HostFull => failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "the host has no room for another instance, and none is parked that could go".to_owned(),
        ),
        Outcome::Draining => failure(StatusCode::SERVICE_UNAVAILABLE, "the host is shutting down".to_owned()),
        Outcome::QueueTimedOut => failure(
            StatusCode::TOO_MANY_REQUESTS,
            "all instances stayed busy for longer than `queueTimeoutMs`".to_owned(),
        ),
    }
}
