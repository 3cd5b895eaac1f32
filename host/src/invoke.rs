//! The one door: whoever wants a function to run comes through [`Host::invoke`].
//!
//! A call names a function and a qualifier. The door asks whether the caller may, resolves them to a revision, asks whether
//! the host takes the call, and pins the revision's pool. Only then is the input read and shaped, for the revision that will get it: a deployment
//! meanwhile cannot come between the two, however long an upload takes. The answer is an outcome; what it means in HTTP
//! is for the planes to say.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::access::{Auth, Key, Right};
use crate::catalog::{Alias, Function, HttpEvent, Revision, Target};
use crate::chance;
use crate::clock;
use crate::guest::{self, Body, EventInput, Protocol};
use crate::host::Host;
use crate::ids::{KeyId, LATEST, RequestId};
use crate::instance::{Answer, Input};
use crate::meter::CalledBy;
use crate::pool;
use crate::traces::{Course, TraceContext};

/// A call of a function.
#[derive(Clone)]
pub struct Call<'a> {
    /// The function's name.
    pub function: &'a str,
    /// A version, an alias or `LATEST`; none: `LATEST`.
    pub qualifier: Option<&'a str>,
    /// Calls with the same value get the same version of an alias with weights.
    pub affinity: Option<&'a [u8]>,
    /// The request's identifier.
    pub request: RequestId,
    /// The caller's trace context.
    pub trace: Option<TraceContext>,
    /// Who calls.
    pub caller: Caller<'a>,
    /// What somebody outside must show; none: what the function or the host asks for.
    pub auth: Option<Auth>,
    /// Which attempt at the request this is, from 1.
    pub attempt: u32,
    /// Ends the call when it is cancelled.
    pub stop: Option<CancellationToken>,
}

/// Who calls a function.
#[derive(Clone, Copy)]
pub enum Caller<'a> {
    /// Somebody outside, with the access key that was shown.
    Outside(Option<&'a Key>),
    /// The host itself, with work that was let in before.
    Host {
        /// On whose behalf.
        called_by: CalledBy,
        /// The access key that was shown when it was let in.
        key: Option<KeyId>,
    },
}

impl Caller<'_> {
    fn called_by(self) -> CalledBy {
        match self {
            Caller::Outside(_) => CalledBy::Data,
            Caller::Host { called_by, .. } => called_by,
        }
    }

    /// The identifier of the access key.
    pub fn key(self) -> Option<KeyId> {
        match self {
            Caller::Outside(key) => key.map(|key| key.id),
            Caller::Host { key, .. } => key,
        }
    }
}

/// What a call brings.
pub enum Payload {
    /// An event. A function of HTTP gets it as Function Compute sends it: `POST /invoke`.
    Event(EventInput),
    /// A request for a function of HTTP, whose path is the function's own.
    Http(Box<Request<Body>>),
}

/// What a revision takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Events; of an HTTP request, its body.
    Events,
    /// Events; of an HTTP request, all of it as JSON.
    EventsOfHttp,
    /// HTTP requests.
    Http,
}

impl Takes {
    /// What this revision takes.
    pub fn of(revision: &Revision) -> Takes {
        match (revision.exports.protocol, revision.settings.http_event) {
            (Protocol::Event, HttpEvent::Body) => Takes::Events,
            (Protocol::Event, HttpEvent::Request) => Takes::EventsOfHttp,
            (Protocol::Http02 | Protocol::Http03, _) => Takes::Http,
        }
    }
}

/// Why a call is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no function of that name.
    #[error("there is no function `{0}`")]
    NoFunction(String),
    /// The function has no such version or alias.
    #[error("function `{function}` has no version or alias `{qualifier}`; leave it out for `LATEST`")]
    NoQualifier {
        /// The function.
        function: String,
        /// What was asked for.
        qualifier: String,
    },
    /// The function wants a key, and none was shown. There may be no such function.
    #[error(
        "function `{0}` wants an access key, and none of this host's was sent: send it as `Authorization: Bearer KEY`; the command line takes it from `--key` or \
         DORMOUSE_KEY. The host's operator makes one with `dormouse keys create`, or lets everybody call the function with \
         `auth` set to `none`"
    )]
    NoKey(String),
    /// The key does not cover the function. There may be no such function.
    #[error("the key {key} may not invoke function `{function}`")]
    OutOfScope {
        /// The key.
        key: KeyId,
        /// The function.
        function: String,
    },
    /// An operator disabled the function.
    #[error("function `{function}` is disabled: {reason}")]
    Disabled {
        /// The function.
        function: String,
        /// Why, in the operator's words.
        reason: String,
    },
    /// The host cannot store what calls use.
    #[error("the host cannot store what requests use at the moment, so it takes none")]
    LedgerFull,
    /// The function's instances cannot be started; the host's log says why.
    #[error("the host cannot start instances of this function; its operator sees why in `dormouse show`")]
    Unavailable,
    /// The path is a hook's, which only the host calls.
    #[error("`{0}` is a hook of this function, which only the host calls")]
    HookPath(String),
    /// A request of HTTP for a function that takes events.
    #[error("the function takes events, and no HTTP requests")]
    NotHttp,
    /// No instance took it.
    #[error(transparent)]
    Pool(#[from] pool::Refused),
}

impl Refusal {
    /// The stable code of the problem, as in [`crate::instance::Outcome::code`].
    #[deny(clippy::wildcard_enum_match_arm, reason = "each refusal's code is chosen, never defaulted")]
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::NoFunction(_) | Refusal::NoQualifier { .. } => "function-not-found",
            Refusal::NoKey(_) => "unauthorized",
            Refusal::OutOfScope { .. } => "forbidden",
            Refusal::Disabled { .. } => "function-disabled",
            Refusal::LedgerFull => "host-full",
            Refusal::Unavailable => "function-unavailable",
            Refusal::HookPath(_) => "not-found",
            Refusal::NotHttp => "invalid-request",
            Refusal::Pool(pool::Refused::Busy) => "function-busy",
            Refusal::Pool(pool::Refused::Lost) => "instance-lost",
            Refusal::Pool(pool::Refused::Draining) => "host-draining",
        }
    }
}

impl Host {
    /// Runs a function. `input` is asked for the call's payload once it is known what the function takes.
    pub async fn invoke<E, F>(&self, call: Call<'_>, input: impl FnOnce(Takes) -> F) -> Result<Answer, E>
    where
        E: From<Refusal>,
        F: Future<Output = Result<Payload, E>>,
    {
        let (function, target) = self.admit(&call)?;
        let pool = match self.pinned(&target.revision) {
            Some(pool) => pool,
            None => self.prepare(&function, &target.revision).await.map_err(|_| Refusal::Unavailable)?,
        };
        let exports = &target.revision.exports;
        let began = clock::date();
        let input = match (input(Takes::of(&target.revision)).await?, exports.protocol) {
            (Payload::Event(event), Protocol::Event) => Input::Event(event),
            (Payload::Event(event), Protocol::Http02 | Protocol::Http03) => {
                Input::Http(Box::new(guest::event_request(whole(event))))
            }
            (Payload::Http(request), Protocol::Http02 | Protocol::Http03) => {
                // Hooks that are requests are the host's to send.
                if exports.is_hook_path(request.uri().path()) {
                    return Err(Refusal::HookPath(request.uri().path().to_owned()).into());
                }
                Input::Http(request)
            }
            (Payload::Http(_), Protocol::Event) => return Err(Refusal::NotHttp.into()),
        };
        let (trace, mut span) = self.traces().begin(call.trace, &function.name, began);
        if let Some(span) = &mut span {
            *span.course() = Course {
                request: Some(call.request.clone()),
                version: target.version.to_string(),
                trigger: trigger(call.caller.called_by()),
                attempt: call.attempt,
                asked: match &input {
                    Input::Http(request) => Some((request.method().clone(), request.uri().path().to_owned())),
                    Input::Event(_) | Input::Nothing => None,
                },
                ..Course::default()
            };
        }
        let request = pool::Request {
            id: call.request,
            version: target.version,
            called_by: call.caller.called_by(),
            key: call.caller.key(),
            attempt: call.attempt,
            input,
            trace,
            span,
            stop: call.stop,
        };
        Ok(pool.call(request).await.map_err(Refusal::Pool)?)
    }

    /// Whether the host takes the call, and what it runs then.
    pub fn admit(&self, call: &Call<'_>) -> Result<(Arc<Function>, Target), Refusal> {
        if self.tasks().draining() {
            return Err(pool::Refused::Draining.into());
        }
        let shown = |text: &str| text.chars().take(80).collect();
        let function = self.function(call.function);
        // Asked before anything is said of the function, so that strangers do not learn which ones there are.
        if let Caller::Outside(key) = call.caller
            && call.auth.unwrap_or_else(|| self.auth_of(function.as_deref())) == Auth::Key
        {
            let key = key.ok_or_else(|| Refusal::NoKey(shown(call.function)))?;
            if !key.scope.allows(Right::Invoke, call.function) {
                return Err(Refusal::OutOfScope { key: key.id, function: shown(call.function) });
            }
        }
        let function = function.ok_or_else(|| Refusal::NoFunction(shown(call.function)))?;
        let qualifier = call.qualifier.unwrap_or(LATEST);
        let target = function
            .resolve(qualifier, |alias| place(&function, alias, call.affinity))
            .ok_or_else(|| Refusal::NoQualifier { function: shown(call.function), qualifier: shown(qualifier) })?;
        if let Some(reason) = &function.disabled {
            return Err(Refusal::Disabled { function: function.name.to_string(), reason: reason.clone() });
        }
        if !self.ledger_has_room() {
            return Err(Refusal::LedgerFull);
        }
        Ok((function, target))
    }
}

/// What let a function run, in the words of OpenTelemetry.
fn trigger(called_by: CalledBy) -> &'static str {
    match called_by {
        CalledBy::Data => "http",
        CalledBy::Queue => "pubsub",
        CalledBy::Trigger => "timer",
        CalledBy::Console => "other",
    }
}

fn whole(event: EventInput) -> Body {
    Full::from(Bytes::from_owner(event)).map_err(|never| match never {}).boxed_unsync()
}

/// A call's place among the shares of an alias: a number from 0 to below 1. The same `affinity` has the same place on
/// every host and after every restart; without one it is drawn.
fn place(function: &Function, alias: &Alias, affinity: Option<&[u8]>) -> f64 {
    let Some(affinity) = affinity else { return chance::drawn() };
    let mut digest = Sha256::new();
    for part in [function.name.as_str().as_bytes(), alias.name.as_str().as_bytes(), affinity] {
        // The lengths keep the parts apart.
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();
    chance::fraction(u64::from_le_bytes(std::array::from_fn(|index| digest[index])))
}
