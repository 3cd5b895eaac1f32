//! Errors of the data plane: the one place that turns what became of a call into a problem.

use crate::guest;
use crate::instance::Outcome;
use crate::invoke::Refusal;
use crate::pool::Refused;
use crate::web::problem::{Code, Failure};

/// What a function answered.
pub(super) enum Answered {
    /// The reply to an event.
    Event(Vec<u8>),
    /// The response to a request.
    Http(Box<guest::Response>),
}

#[deny(clippy::wildcard_enum_match_arm, reason = "each refusal's answer is chosen, never defaulted")]
impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let code = match &refusal {
            Refusal::NoFunction(_) | Refusal::NoQualifier { .. } => Code::FunctionNotFound,
            Refusal::NoKey(_) => Code::Unauthorized,
            Refusal::OutOfScope { .. } => Code::Forbidden,
            Refusal::Disabled { .. } => Code::FunctionDisabled,
            Refusal::LedgerFull => Code::HostFull,
            Refusal::Unavailable => Code::FunctionUnavailable,
            Refusal::HookPath(_) => Code::NotFound,
            Refusal::NotHttp => Code::InvalidRequest,
            Refusal::Pool(Refused::Busy) => Code::FunctionBusy,
            Refusal::Pool(Refused::Lost) => Code::InstanceLost,
            Refusal::Pool(Refused::Draining) => Code::HostDraining,
        };
        Failure::new(code, refusal.to_string())
    }
}

/// What a function answered, or what went wrong.
#[deny(clippy::wildcard_enum_match_arm, reason = "each outcome's answer is chosen, never defaulted")]
pub(super) fn result(outcome: Outcome) -> Result<Answered, Failure> {
    let failure = |code, detail: &str| Err(Failure::new(code, detail));
    match outcome {
        Outcome::Replied(reply) => Ok(Answered::Event(reply)),
        Outcome::Responded(response) => Ok(Answered::Http(response)),
        Outcome::BadResponse(text) => failure(Code::FunctionResponseInvalid, &text),
        Outcome::Failed(error) => failure(Code::FunctionFailed, &error),
        Outcome::Crashed(trap) => failure(Code::FunctionCrashed, &format!("{}: {}", trap.name, trap.summary)),
        Outcome::OutOfMemory => {
            failure(Code::FunctionOutOfMemory, "the function wanted more memory than `memoryMb` allows")
        }
        Outcome::TimedOut => failure(
            Code::FunctionTimedOut,
            "the function took longer than `timeoutMs` allows, or its initializer longer than its own",
        ),
        Outcome::Lost => failure(
            Code::InstanceLost,
            "the instance ended through another request or its background work; this one is not to blame",
        ),
        Outcome::HostFull => failure(
            Code::HostFull,
            "the host has no room or no memory left for this, and nothing is parked that could go",
        ),
        Outcome::Draining => failure(Code::HostDraining, "the host stopped before the request had ended"),
        Outcome::QueueTimedOut => {
            failure(Code::FunctionBusy, "all instances stayed busy for longer than `queueTimeoutMs`")
        }
    }
}
