//! Destinations: who is told how an asynchronous invocation ended, and what they are told.
//!
//! What a destination gets is an asynchronous invocation itself, accepted in the same step in which the end is noted: so it is
//! as durable, is tried again as often, and is seen, stopped and replayed in the same way.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::invocation::{AttemptResult, Claimed, LaneKey, NewInvocation, Origin, Sending, State, Told};
use super::payload::Payload;
use crate::catalog::Destination;
use crate::clock;
use crate::ids::{FunctionName, LATEST, RequestId};

/// What a destination is told: the event of its function, or the body of the request to its address.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ending<'a> {
    /// The function whose invocation ended.
    function: &'a str,
    qualifier: &'a str,
    invocation_id: &'a str,
    /// `succeeded`, `failed` or `expired`.
    state: State,
    attempts: u32,
    accepted_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    began_at: Option<String>,
    ended_at: String,
    /// `ok`, or the code of the problem.
    code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<Payload>,
}

/// Makes the invocation that tells a destination how another one ended, or says why it is not told.
pub(super) fn tell(
    destination: &Destination,
    claimed: &Claimed,
    state: State,
    (result, reply): (&AttemptResult, Option<&[u8]>),
    chain_max: usize,
) -> (Told, Option<Box<NewInvocation>>) {
    let function = &claimed.lane.function;
    let mut chain = claimed.origin.chain.clone();
    chain.push(function.clone());
    let to = match destination {
        Destination::Function(name, None) => name.to_string(),
        Destination::Function(name, Some(qualifier)) => format!("{name}:{qualifier}"),
        Destination::Url(url, ..) => url.clone(),
    };
    if chain.len() > chain_max {
        let refused = Some(cut(&chain, &to, chain_max));
        return (Told { destination: to, invocation: None, refused }, None);
    }
    let ending = Ending {
        function: function.as_str(),
        qualifier: claimed.lane.qualifier.as_deref().unwrap_or(LATEST),
        invocation_id: claimed.id.as_str(),
        state,
        attempts: claimed.attempt,
        accepted_at: date(claimed.accepted),
        began_at: (result.began_us > 0).then(|| date(clock::from_microseconds(result.began_us))),
        ended_at: date(clock::from_microseconds(result.ended_us)),
        code: &result.code,
        detail: &result.detail,
        reply: reply.map(Payload::of),
    };
    // A struct of texts and numbers always is JSON.
    let event = serde_json::to_vec(&ending).unwrap_or_default();
    let (lane, sending) = match destination {
        Destination::Function(name, qualifier) => {
            let qualifier = qualifier.as_deref().map(Arc::from);
            (LaneKey { function: name.clone(), qualifier, url: None }, None)
        }
        Destination::Url(url, limit, attempts_max) => {
            let sending = Sending { timeout_ms: limit.as_millis() as u64, attempts_max: *attempts_max };
            (LaneKey { function: function.clone(), qualifier: None, url: Some(url.as_str().into()) }, Some(sending))
        }
    };
    let id = RequestId::new();
    let origin = Origin { sending, chain, traceparent: claimed.origin.traceparent.clone(), ..Origin::default() };
    let told = Told { destination: to, invocation: Some(id.to_string()), refused: None };
    (
        told,
        Some(Box::new(NewInvocation {
            lane,
            id,
            due: clock::date(),
            origin,
            event: event.into(),
            function_since: SystemTime::UNIX_EPOCH,
            tick: None,
        })),
    )
}

/// Why a chain of destinations ends, with the functions that lead in a circle.
fn cut(chain: &[FunctionName], to: &str, chain_max: usize) -> String {
    let shown: Vec<&str> = chain.iter().rev().take(4).rev().map(FunctionName::as_str).collect();
    let shown = shown.join(" -> ");
    format!(
        "{} destinations in a row led here, and no more than {chain_max} may (`queue-chain-max`): ... -> {shown} -> {to}",
        chain.len()
    )
}

fn date(date: SystemTime) -> String {
    humantime::format_rfc3339_millis(date).to_string()
}
