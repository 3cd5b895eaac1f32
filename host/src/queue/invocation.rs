//! An asynchronous invocation: what was sent, where it stands, and how it ended.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{FunctionName, KeyId, RequestId};

/// Where an asynchronous invocation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It waits for its first attempt.
    Queued,
    /// An attempt is under way.
    Running,
    /// An attempt failed or could not begin, and it waits for the next one.
    WaitingToRetry,
    /// The function succeeded.
    Succeeded,
    /// The last attempt failed, or no attempt makes sense.
    Failed,
    /// It was too old for another attempt.
    Expired,
    /// An operator stopped it.
    Stopped,
}

impl State {
    /// All of them, in the order in which they follow each other.
    pub const ALL: [State; 7] = [
        State::Queued,
        State::Running,
        State::WaitingToRetry,
        State::Succeeded,
        State::Failed,
        State::Expired,
        State::Stopped,
    ];

    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::WaitingToRetry => "waiting-to-retry",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Expired => "expired",
            State::Stopped => "stopped",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether it is over.
    pub fn has_ended(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Expired | State::Stopped)
    }
}

/// Names a line in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LaneId(pub i64);

/// What waits in one line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LaneKey {
    /// The function that is invoked, or for which something is sent.
    pub function: FunctionName,
    /// The version or alias that was asked for; none: `LATEST`.
    pub qualifier: Option<Arc<str>>,
    /// The address that it is sent to; none: the function is invoked.
    pub url: Option<Arc<str>>,
}

/// An invocation to be accepted.
#[derive(Clone, Debug)]
pub(super) struct NewInvocation {
    /// Its line.
    pub lane: LaneKey,
    /// Its identifier: one that the function has already is not accepted again.
    pub id: RequestId,
    /// When it may begin.
    pub due: SystemTime,
    /// Who sent it, and how it is called.
    pub origin: Origin,
    /// The event, or the request's body.
    pub event: Bytes,
    /// When the function was first deployed: what an earlier one of its name had counts no more.
    pub function_since: SystemTime,
    /// The tick that it stands for. One that was dealt with is not accepted again.
    pub tick: Option<Tick>,
}

impl Origin {
    /// Bytes that it takes beside the event.
    pub fn bytes(&self) -> u64 {
        if *self == Origin::default() { 0 } else { serde_json::to_vec(self).map_or(0, |json| json.len() as u64) }
    }
}

/// A tick of a timer.
#[derive(Clone, Debug)]
pub struct Tick {
    /// The trigger's name.
    pub trigger: String,
    /// Its schedule, as text.
    pub schedule: String,
    /// The tick's own time.
    pub at: SystemTime,
}

/// What is kept of a timer.
#[derive(Clone, Debug)]
pub struct TickState {
    /// The function.
    pub function: FunctionName,
    /// The last tick that was dealt with.
    pub tick: Tick,
    /// Its newest invocations, the newest first.
    pub runs: Vec<String>,
}

/// Who sent an invocation, and how the function is called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Origin {
    /// The access key that the caller showed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// The caller's W3C trace context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Events with the same value get the same version of an alias with weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// The request, if it is one of HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpHead>,
    /// How it is sent, if it is for an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sending: Option<Sending>,
    /// The functions whose destinations led here, the first one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<FunctionName>,
    /// The invocation that this one replays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<String>,
    /// The trigger that fired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
}

/// How something is sent to an address.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sending {
    /// The longest time for an answer.
    pub timeout_ms: u64,
    /// The most attempts.
    pub attempts_max: u32,
}

/// A request of HTTP without its body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpHead {
    /// The method.
    pub method: String,
    /// The address, as the function sees it.
    pub uri: String,
    /// The fields.
    pub fields: Vec<(String, FieldValue)>,
}

/// A field's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldValue {
    /// Text.
    Text(String),
    /// Bytes that are no text.
    Bytes(Vec<u8>),
}

/// An invocation whose attempt begins.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    /// Names it in the store.
    pub seq: u64,
    /// Its line.
    pub lane: LaneKey,
    /// Names its line in the store.
    pub lane_id: LaneId,
    /// Its identifier.
    pub id: RequestId,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// Attempts before that failed and count.
    pub failures: u32,
    /// Who sent it.
    pub origin: Origin,
    /// The event.
    pub event: Bytes,
}

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttemptResult {
    /// `ok`, or the code of the problem.
    pub code: String,
    /// What was wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// When the attempt began, in microseconds since 1970; 0: it did not, and its number is used again.
    #[serde(skip_serializing_if = "is_zero")]
    pub began_us: u64,
    /// When it ended.
    #[serde(skip_serializing_if = "is_zero")]
    pub ended_us: u64,
    /// Of a function of HTTP the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The bytes that the reply had; more than what is kept, if it was too large.
    #[serde(skip_serializing_if = "is_zero")]
    pub reply_bytes: u64,
    /// Who was told, or why nobody was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
}

/// Who was told how an invocation ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Told {
    /// The function or the address.
    pub destination: String,
    /// The invocation that tells it: of the destination's function, or of this function for an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// Why it was not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What becomes of an invocation after an attempt.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It waits for another attempt.
    Retry {
        /// When that is due.
        due: SystemTime,
        /// Whether this attempt counts as a failure.
        counts: bool,
    },
    /// It is over.
    End {
        /// How.
        state: State,
        /// The reply, as far as it is kept.
        reply: Option<Bytes>,
        /// Tells the destination; accepted in the same step.
        next: Option<Box<NewInvocation>>,
    },
}

/// An invocation as it is stored.
#[derive(Clone, Debug)]
pub struct Record {
    /// Orders them: later ones have higher numbers.
    pub seq: u64,
    /// Its line.
    pub lane: LaneKey,
    /// Its identifier.
    pub id: RequestId,
    /// Where it stands.
    pub state: State,
    /// When it is due, began or ended, as its state says.
    pub at: SystemTime,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// Attempts that began.
    pub attempts: u32,
    /// Who sent it.
    pub origin: Origin,
    /// How the last attempt ended.
    pub result: Option<AttemptResult>,
}
