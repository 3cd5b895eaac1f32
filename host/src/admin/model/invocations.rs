//! The JSON of asynchronous invocations.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::queue::{Payload, State, Told};

/// An asynchronous invocation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AsyncInvocationView {
    /// Its identifier: the caller's `Dormouse-Invocation-Id`, or one that the host gave. Its attempts have it as their request's.
    pub id: String,
    /// The function.
    pub function: String,
    /// The version or alias that was asked for, or `LATEST`.
    pub qualifier: String,
    /// The address that something is sent to for the function; absent for events of the function itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Method and address of a request for a function of HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Attempts that began.
    pub attempts: u32,
    /// When it was accepted; RFC 3339, UTC.
    pub accepted_at: String,
    /// When it may begin, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<String>,
    /// When the last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_at: Option<String>,
    /// When the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// How the last attempt ended: `ok`, or the code of the problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What was wrong with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The status that a function of HTTP, or an address, answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The size of the reply, also if it was too large to be kept.
    #[serde(default)]
    pub reply_bytes: u64,
    /// Who was told of the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Told>,
    /// The functions whose destinations led here, the first one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// The invocation that this one replays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<String>,
    /// The access key that the caller showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// An asynchronous invocation with its event and its reply, as far as they are kept.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WholeAsyncInvocation {
    /// All but these.
    #[serde(flatten)]
    pub invocation: AsyncInvocationView,
    /// The event, or the body of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Payload>,
    /// The reply to the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Payload>,
}

/// Asynchronous invocations of a function.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AsyncInvocationList {
    /// The newest first.
    pub invocations: Vec<AsyncInvocationView>,
    /// Older ones follow: pass it as `before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// What became of an order to stop.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StopView {
    /// `stopped`, or `running` while the attempt is being ended.
    pub state: State,
}

/// The invocation that replays another one.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReplayView {
    /// Its identifier.
    pub id: String,
}

/// Which invocations to replay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// Those in this state: `failed`, `expired`, `stopped` or `succeeded`; by default `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Accepted from then on; RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Accepted before then; RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// How many were replayed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayedView {
    /// Accepted once more.
    pub replayed: u64,
    /// Left alone, because their events are not kept.
    pub not_kept: u64,
}

/// The secret that receivers check signatures with.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WebhookSecretView {
    /// `whsec_` and the secret in base64, as Standard Webhooks writes it.
    pub secret: String,
}
