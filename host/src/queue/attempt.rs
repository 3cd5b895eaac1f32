//! One attempt at an invocation: through the host's one door, or to an address.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;

use super::delivery;
use super::http_head;
use super::invocation::{AttemptResult, Claimed};
use super::policy::Ended;
use crate::clock::{self, microseconds};
use crate::guest::{EventInput, Response, ResponseBody};
use crate::host::Host;
use crate::instance::Outcome;
use crate::invoke::{Call, Caller, Payload, Refusal, Takes};
use crate::meter::CalledBy;
use crate::pool::Refused;
use crate::telemetry;
use crate::traces::TraceContext;

/// How long an event waits for its share of the memory for events.
const SHARE_WITHIN: Duration = Duration::from_secs(60);
/// How much of a function's error is kept.
const DETAIL_BYTES_MAX: usize = 4096;

/// How an attempt ended.
pub(super) struct Attempted {
    pub(super) ended: Ended,
    pub(super) result: AttemptResult,
    /// What was answered, if it is no larger than what is kept.
    pub(super) reply: Option<Bytes>,
}

/// What runs attempts.
pub(super) struct Runner<'a> {
    pub(super) host: &'a Host,
    /// Larger replies are not kept.
    pub(super) kept_bytes_max: usize,
    /// Ends the attempt.
    pub(super) stop: CancellationToken,
}

/// An outcome on its way to a record.
struct Finding {
    ended: Ended,
    code: &'static str,
    detail: String,
    status: Option<u16>,
    reply: Reply,
}

/// A reply, as far as it is kept.
#[derive(Default)]
struct Reply {
    kept: Option<Bytes>,
    bytes: u64,
}

impl Finding {
    fn new(ended: Ended, code: &'static str, detail: impl Into<String>) -> Finding {
        Finding { ended, code, detail: detail.into(), status: None, reply: Reply::default() }
    }
}

impl Attempted {
    /// An event that is too old for an attempt.
    pub(super) fn expired() -> Attempted {
        let detail = "the event was older than `async.maxEventAgeMs` before an attempt could begin";
        attempted(Finding::new(Ended::Hopeless, "event-expired", detail), None)
    }
}

fn attempted(finding: Finding, began: Option<SystemTime>) -> Attempted {
    let Finding { ended, code, mut detail, status, reply } = finding;
    detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
    let began = began.filter(|_| ended != Ended::NotBegun);
    let result = AttemptResult {
        code: code.to_owned(),
        detail,
        began_us: began.map_or(0, microseconds),
        ended_us: microseconds(clock::date()),
        status,
        reply_bytes: reply.bytes,
        told: None,
    };
    Attempted { ended, result, reply: reply.kept }
}

impl Runner<'_> {
    /// Runs one attempt to its end.
    pub(super) async fn run(&self, claimed: &Claimed) -> Attempted {
        let began = clock::date();
        let finding = match &claimed.lane.url {
            Some(url) => {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => Finding::new(Ended::Stopped, "invocation-stopped", Outcome::Stopped.detail()),
                    sent = delivery::send(self.host, claimed, url) => self.found_sent(sent),
                }
            }
            None => telemetry::about(&claimed.id, self.invoke(claimed)).await,
        };
        attempted(finding, Some(began))
    }

    fn found_sent(&self, sent: delivery::Delivered) -> Finding {
        let reply = Reply { bytes: sent.body.len() as u64, kept: Some(sent.body) };
        Finding { status: sent.status, reply, ..Finding::new(sent.ended, sent.code, sent.detail) }
    }

    async fn invoke(&self, claimed: &Claimed) -> Finding {
        let origin = &claimed.origin;
        let name = claimed.lane.function.as_str();
        if self.host.function(name).is_some_and(|function| function.created > claimed.accepted) {
            let detail = format!("the function `{name}` that the event was for was deleted; there is another one now");
            return Finding::new(Ended::Hopeless, "function-not-found", detail);
        }
        let share = self.host.event_room().wait(claimed.event.len(), SHARE_WITHIN).await;
        let Some(share) = share else {
            return Finding::new(Ended::NotBegun, "host-full", "too many large events wait or are handled");
        };
        let called_by = if origin.trigger.is_some() { CalledBy::Trigger } else { CalledBy::Queue };
        let call = Call {
            function: claimed.lane.function.as_str(),
            qualifier: claimed.lane.qualifier.as_deref(),
            affinity: origin.affinity.as_deref().map(str::as_bytes),
            request: claimed.id.clone(),
            trace: origin.traceparent.as_deref().and_then(|text| TraceContext::parse(text, None)),
            caller: Caller::Host { called_by, key: origin.key },
            auth: None,
            attempt: claimed.attempt,
            stop: Some(self.stop.clone()),
        };
        let payload = |takes| async move {
            match (&origin.http, takes) {
                (Some(head), Takes::Http) => {
                    let request = http_head::request(head, claimed.event.clone());
                    request.map(|request| Payload::Http(Box::new(request))).ok_or(Refusal::NotHttp)
                }
                _ => Ok(Payload::Event(EventInput { bytes: claimed.event.to_vec(), share })),
            }
        };
        match self.host.invoke::<Refusal, _>(call, payload).await {
            Ok(answer) => self.found(answer.outcome).await,
            Err(refusal) => Finding::new(why_refused(&refusal), refusal.code(), refusal.to_string()),
        }
    }

    async fn found(&self, outcome: Outcome) -> Finding {
        let (code, detail, ended) = (outcome.code(), outcome.detail(), how_ended(&outcome));
        match outcome {
            Outcome::Replied(reply) => {
                let bytes = reply.len() as u64;
                let kept = (reply.len() <= self.kept_bytes_max).then(|| Bytes::from(reply));
                Finding { reply: Reply { kept, bytes }, ..Finding::new(ended, code, detail) }
            }
            Outcome::Responded(response) => self.found_response(*response).await,
            _ => Finding::new(ended, code, detail),
        }
    }

    /// A response of 400 or above is a failure, as it is for hooks.
    async fn found_response(&self, response: Response) -> Finding {
        let status = response.status().as_u16();
        let collected: Result<Reply, String> = match response.into_body() {
            ResponseBody::Whole(bytes) => Ok(self.kept(bytes.len() as u64, bytes)),
            ResponseBody::Streamed(mut body) => {
                let collect = async {
                    let (mut kept, mut bytes) = (Vec::new(), 0u64);
                    while let Some(frame) = body.frame().await {
                        let frame = frame.map_err(|error| error.to_string())?;
                        let Some(data) = frame.data_ref() else { continue };
                        bytes += data.len() as u64;
                        if bytes <= self.kept_bytes_max as u64 {
                            kept.extend_from_slice(data);
                        }
                    }
                    Ok::<_, String>(self.kept(bytes, Bytes::from(kept)))
                };
                tokio::select! {
                    biased;
                    // The function learns that nobody reads any more.
                    () = self.stop.cancelled() => {
                        return Finding::new(Ended::Stopped, "invocation-stopped", Outcome::Stopped.detail());
                    }
                    collected = collect => collected,
                }
            }
        };
        let finding = match &collected {
            Err(error) => Finding::new(Ended::Badly, "function-response-invalid", error.clone()),
            Ok(_) if status < 400 => Finding::new(Ended::Well, "ok", ""),
            Ok(reply) => {
                let text = reply.kept.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                let detail =
                    if text.is_empty() { format!("it answered {status}") } else { format!("{status}: {text}") };
                Finding::new(Ended::Badly, "function-failed", detail)
            }
        };
        Finding { status: Some(status), reply: collected.unwrap_or_default(), ..finding }
    }

    fn kept(&self, bytes: u64, collected: Bytes) -> Reply {
        Reply { kept: (bytes <= self.kept_bytes_max as u64).then_some(collected), bytes }
    }
}

#[deny(clippy::wildcard_enum_match_arm, reason = "what follows each outcome is chosen, never defaulted")]
fn how_ended(outcome: &Outcome) -> Ended {
    match outcome {
        Outcome::Replied(_) | Outcome::Responded(_) => Ended::Well,
        Outcome::Failed(_)
        | Outcome::BadResponse(_)
        | Outcome::Crashed(_)
        | Outcome::OutOfMemory
        | Outcome::TimedOut => Ended::Badly,
        Outcome::Lost | Outcome::Draining => Ended::Lost,
        Outcome::HostFull | Outcome::QueueTimedOut => Ended::NotBegun,
        Outcome::Stopped => Ended::Stopped,
    }
}

#[deny(clippy::wildcard_enum_match_arm, reason = "what follows each refusal is chosen, never defaulted")]
fn why_refused(refusal: &Refusal) -> Ended {
    match refusal {
        Refusal::NoFunction(_) | Refusal::NoQualifier { .. } | Refusal::HookPath(_) | Refusal::NotHttp => {
            Ended::Hopeless
        }
        Refusal::NoKey(_)
        | Refusal::OutOfScope { .. }
        | Refusal::Disabled { .. }
        | Refusal::LedgerFull
        | Refusal::Unavailable
        | Refusal::Pool(Refused::Busy | Refused::Draining) => Ended::NotBegun,
        Refusal::Pool(Refused::Lost) => Ended::Lost,
    }
}
