//! Calling functions: at once, or later.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use super::Fc;
use super::api::Api;
use super::fault::Fault;
use super::request::{Asked, Reply};
use crate::access::Auth;
use crate::catalog::{Function, Revision};
use crate::guest::{EventInput, ResponseBody};
use crate::ids::RequestId;
use crate::instance::{Answer, Outcome, Timings};
use crate::invoke::{Call, Caller, Payload};
use crate::log::Author;
use crate::operator::Operator;
use crate::queue::HandedOver;
use crate::traces::TraceContext;
use crate::web::headers;
use crate::web::problem::Code;

const INVOCATION_TYPE: HeaderName = HeaderName::from_static("x-fc-invocation-type");
const LOG_TYPE: HeaderName = HeaderName::from_static("x-fc-log-type");
const LOG_RESULT: HeaderName = HeaderName::from_static("x-fc-log-result");
const STATEFUL_ID: HeaderName = HeaderName::from_static("x-fc-stateful-async-invocation-id");
const TASK_ID: HeaderName = HeaderName::from_static("x-fc-async-task-id");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-fc-error-type");
const DURATION: HeaderName = HeaderName::from_static("x-fc-invocation-duration");
const MEMORY: HeaderName = HeaderName::from_static("x-fc-max-memory-usage");
const CHECKSUM: HeaderName = HeaderName::from_static("x-fc-code-checksum");
const INSTANCE: HeaderName = HeaderName::from_static("x-fc-instance-id");
const SERVICE_VERSION: HeaderName = HeaderName::from_static("x-fc-invocation-service-version");
const CODE_VERSION: HeaderName = HeaderName::from_static("x-fc-invocation-code-version");
/// Bytes of the log that come with a reply, as at Function Compute.
const LOG_BYTES_MAX: usize = 4096;
/// Characters of an identifier that a caller chooses.
const ID_MAX: usize = 128;
/// How much of a failed HTTP function's response is read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// The status and the field `X-Fc-Error-Type` with which an HTTP trigger answers that a request failed.
pub fn http_error(code: Code) -> (StatusCode, HeaderName, HeaderValue) {
    let (status, kind) = match code {
        Code::FunctionFailed
        | Code::FunctionCrashed
        | Code::FunctionOutOfMemory
        | Code::FunctionResponseInvalid
        | Code::FunctionTimedOut
        | Code::InstanceLost => (StatusCode::BAD_GATEWAY, "UnhandledInvocationError"),
        _ => (code.status(), "FcCommonError"),
    };
    (status, ERROR_TYPE, HeaderValue::from_static(kind))
}

/// Calls a function; the event is the body, byte for byte.
pub(super) async fn run(fc: &Fc, asked: &Asked, event: EventInput) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let qualifier = fc.qualifier(&target)?;
    let (caller, auth) = match &asked.operator {
        Operator::Key(key) => {
            key.count_call()?;
            (Caller::Outside(Some(key)), Some(Auth::Key))
        }
        // Whoever has no key may call what the function lets everybody call.
        Operator::Nobody => (Caller::Outside(None), None),
        Operator::Local | Operator::Certificate(_) => (Caller::Outside(None), Some(Auth::None)),
    };
    let call = Call {
        function: target.name.as_str(),
        qualifier: Some(&qualifier),
        affinity: None,
        request: asked.id.clone(),
        trace: TraceContext::of_fields(&asked.fields),
        caller,
        auth,
        attempt: 1,
        stop: None,
    };
    let has_tail = tail_wanted(asked)?;
    let (function, found) = fc.host.admit(&call)?;
    if is_asynchronous(asked)? {
        return hand_over(fc, asked, (&function, &call), event).await;
    }
    // The version that was drawn, if the qualifier is an alias with weights: the reply names it.
    let call = Call { qualifier: Some(&found.version), ..call };
    let answer = fc.host.invoke(call, async |_| Ok::<_, Fault>(Payload::Event(event))).await?;
    let label = match (&target.service, &target.qualifier) {
        (Some(_), Some(qualifier)) => qualifier.clone(),
        _ => found.version.to_string(),
    };
    let about = About::of(fc, (asked, &function), &found.revision, &answer);
    let mut reply = about.result(answer.outcome).await?;
    about.note(&mut reply.fields, &label);
    if has_tail {
        let tail = STANDARD.encode(about.tail());
        reply.fields.extend(HeaderValue::from_str(&tail).ok().map(|tail| (LOG_RESULT, tail)));
    }
    Ok(reply)
}

fn tail_wanted(asked: &Asked) -> Result<bool, Fault> {
    match asked.field(&LOG_TYPE) {
        None | Some("None" | "") => Ok(false),
        Some("Tail") => Ok(true),
        Some(other) => {
            let shown: String = other.chars().take(32).collect();
            Err(Fault::invalid(format!("`X-Fc-Log-Type` is '{shown}'; it must be `None` or `Tail`")))
        }
    }
}

fn is_asynchronous(asked: &Asked) -> Result<bool, Fault> {
    match asked.field(&INVOCATION_TYPE) {
        None | Some("Sync" | "") => Ok(false),
        Some("Async") => Ok(true),
        Some(other) => {
            let shown: String = other.chars().take(32).collect();
            Err(Fault::invalid(format!("`X-Fc-Invocation-Type` is '{shown}'; it must be `Sync` or `Async`")))
        }
    }
}

/// Hands an event over; it is on disk when this returns.
async fn hand_over(
    fc: &Fc,
    asked: &Asked,
    (function, call): (&Function, &Call<'_>),
    event: EventInput,
) -> Result<Reply, Fault> {
    let name = if asked.api == Api::V2023 { TASK_ID } else { STATEFUL_ID };
    let chosen = asked.field(&name).filter(|id| !id.is_empty());
    let id = chosen.map(|id| {
        let starts = id.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let id = RequestId::from_caller(id).filter(|_| starts && id.len() <= ID_MAX && id.bytes().all(valid));
        id.ok_or_else(|| {
            Fault::invalid(format!(
                "`{name}` must be 1 to {ID_MAX} letters, digits, `_` and `-`, starting with a letter or `_`"
            ))
        })
    });
    // Without one of its own, the invocation goes by the request's identifier, which the answer has.
    let id = id.transpose()?.unwrap_or_else(|| asked.id.clone());
    let handed = HandedOver { id: Some(id), http: None, event: Bytes::from_owner(event) };
    let receipt = fc.queue.accept(function, call, handed).await?;
    let mut fields = HeaderMap::new();
    fields.insert(name, headers::value(&receipt.id));
    Ok(Reply { status: StatusCode::ACCEPTED, ..Reply::bytes(Bytes::new()) }.with(fields))
}

/// What every reply says about its call.
struct About<'a> {
    asked: &'a Asked,
    function: &'a Function,
    memory_mb: u32,
    timeout: Duration,
    checksum: String,
    timings: Timings,
    instance: Option<String>,
    memory_bytes: u64,
}

impl<'a> About<'a> {
    fn of(fc: &Fc, (asked, function): (&'a Asked, &'a Function), revision: &Revision, answer: &Answer) -> About<'a> {
        let found = answer.instance.and_then(|id| fc.host.instance(id));
        let kept = revision.settings.function_compute();
        About {
            asked,
            function,
            memory_mb: revision.settings.memory_mb,
            timeout: revision.settings.request_timeout,
            checksum: kept.get("codeChecksum").and_then(Value::as_str).unwrap_or_default().to_owned(),
            timings: answer.timings,
            instance: answer.instance.map(|id| id.to_string()),
            memory_bytes: found.map_or(0, |found| found.instance.vitals.memory_bytes()),
        }
    }

    fn megabytes(&self) -> String {
        format!("{:.2}", self.memory_bytes as f64 / f64::from(1 << 20))
    }

    fn note(&self, fields: &mut HeaderMap, label: &str) {
        let version = if self.asked.api == Api::V2023 { CODE_VERSION } else { SERVICE_VERSION };
        let duration = milliseconds(self.timings.handler).to_string();
        let instance = self.instance.clone().unwrap_or_default();
        for (name, value) in [
            (DURATION, duration.as_str()),
            (MEMORY, &self.megabytes()),
            (CHECKSUM, &self.checksum),
            (INSTANCE, &instance),
            (version, label),
        ] {
            fields
                .extend(HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()).map(|value| (name, value)));
        }
        let exposed = "x-fc-request-id,x-fc-invocation-duration,x-fc-max-memory-usage,x-fc-code-checksum,x-fc-instance-id,\
                       x-fc-error-type,x-fc-log-result";
        fields.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    }

    /// What came of the call. What the function is to blame for is an answer; the rest is a fault of the host.
    async fn result(&self, outcome: Outcome) -> Result<Reply, Fault> {
        let detail = outcome.detail();
        let duration = milliseconds(self.timings.handler);
        let exited = || {
            let memory = self.megabytes();
            format!(
                "Process exited unexpectedly before completing request (duration: {duration}ms, maxMemoryUsage: {memory}MB)"
            )
        };
        match outcome {
            Outcome::Replied(bytes) => {
                let mut reply = Reply::bytes(bytes.into());
                let kind = HeaderValue::from_static("application/octet-stream");
                reply.fields.insert(header::CONTENT_TYPE, kind);
                Ok(reply)
            }
            Outcome::Responded(response) => responded(*response).await,
            Outcome::Failed(text) => Ok(failed(&text)),
            Outcome::BadResponse(text) => Ok(unhandled(&text, "BadResponse")),
            Outcome::Crashed(trap) => Ok(unhandled(&format!("{}: {}", exited(), trap.name), "RuntimeExited")),
            Outcome::Lost => Ok(unhandled(&exited(), "RuntimeExited")),
            Outcome::OutOfMemory => {
                let message = format!("Function out of memory: it wanted more than {} MB", self.memory_mb);
                Ok(unhandled(&message, "OutOfMemory"))
            }
            Outcome::TimedOut => {
                let seconds = self.timeout.as_secs_f64();
                Ok(unhandled(&format!("Function time out after {seconds} seconds"), "FunctionTimeout"))
            }
            Outcome::Stopped => Err(Fault::unmet("AsyncInvocationStopped", detail)),
            Outcome::HostFull | Outcome::Draining => Err(Fault::unavailable(detail)),
            Outcome::QueueTimedOut => Err(Fault::new(StatusCode::TOO_MANY_REQUESTS, "ResourceExhausted", detail)),
        }
    }

    /// The end of what the call wrote, and of what the host says about it, with the lines of Function Compute around it.
    fn tail(&self) -> String {
        let id = &self.asked.id;
        let is_own = |author: &Author| matches!(author, Author::Request { id: own, .. } if own == id);
        let lines: Vec<String> = self
            .function
            .log
            .tail(usize::MAX)
            .into_iter()
            .filter(|line| is_own(&line.author))
            .map(|line| line.text)
            .collect();
        let written: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let duration = self.timings.handler;
        let end = format!(
            "FC Invoke End RequestId: {id}\n\nDuration: {:.2} ms, Billed Duration: {} ms, Memory Size: {} MB, Max Memory Used: {} MB",
            duration.as_secs_f64() * 1000.0,
            milliseconds(duration),
            self.memory_mb,
            self.megabytes(),
        );
        let whole = format!("FC Invoke Start RequestId: {id}\n{written}{end}");
        let mut from = whole.len().saturating_sub(LOG_BYTES_MAX);
        while !whole.is_char_boundary(from) {
            from += 1;
        }
        whole[from..].to_owned()
    }
}

/// Whole milliseconds, rounded up.
fn milliseconds(duration: Duration) -> u128 {
    duration.as_nanos().div_ceil(1_000_000)
}

/// The response of an HTTP function to its event.
async fn responded(response: crate::guest::Response) -> Result<Reply, Fault> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).cloned();
    let body = response.into_body();
    if status.as_u16() < 400 {
        let body = match body {
            ResponseBody::Whole(bytes) => super::request::whole(bytes),
            ResponseBody::Streamed(body) => body.boxed_unsync(),
        };
        let mut reply = Reply { body, ..Reply::bytes(Bytes::new()) };
        reply.fields.extend(kind.map(|kind| (header::CONTENT_TYPE, kind)));
        return Ok(reply);
    }
    let text = match body {
        ResponseBody::Whole(bytes) => bytes,
        ResponseBody::Streamed(body) => {
            let read = Limited::new(*body, ERROR_BYTES_MAX).collect().await;
            read.map(|read| read.to_bytes()).unwrap_or_default()
        }
    };
    let text = String::from_utf8_lossy(&text[..text.len().min(ERROR_BYTES_MAX)]).into_owned();
    Ok(failed(&text))
}

/// The answer to a call whose function returned an error. Glue for languages returns it in the form that it has there.
fn failed(text: &str) -> Reply {
    let given = serde_json::from_str::<Value>(text).ok().filter(|value| value.get("errorMessage").is_some());
    match given {
        Some(mut given) => {
            let handled = given.as_object_mut().and_then(|given| given.remove("handled"));
            error(&given, handled == Some(Value::Bool(true)))
        }
        None => error(&json!({"errorMessage": text, "errorType": "Error", "stackTrace": []}), true),
    }
}

fn unhandled(message: &str, kind: &str) -> Reply {
    error(&json!({"errorMessage": message, "errorType": kind, "stackTrace": []}), false)
}

fn error(value: &Value, is_handled: bool) -> Reply {
    let mut reply = Reply::json(value.clone());
    let kind = if is_handled { "HandledInvocationError" } else { "UnhandledInvocationError" };
    reply.fields.insert(ERROR_TYPE, HeaderValue::from_static(kind));
    reply
}
