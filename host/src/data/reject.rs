//! Errors of the data plane: the one place that turns what became of a call into a problem.

use crate::guest;
use crate::instance::Outcome;
use crate::invoke::Refusal;
use crate::queue::StoreError;
use crate::web::problem::{Code, Failure};

/// What a function answered.
pub(super) enum Answered {
    /// The reply to an event.
    Event(Vec<u8>),
    /// The response to a request.
    Http(Box<guest::Response>),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::new(Code::named(refusal.code()), refusal.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let code = match &error {
            StoreError::Full(_) => Code::QueueFull,
            StoreError::Unavailable(_) => Code::QueueUnavailable,
        };
        Failure::new(code, error.to_string())
    }
}

/// What a function answered, or what went wrong.
pub(super) fn result(outcome: Outcome) -> Result<Answered, Failure> {
    match outcome {
        Outcome::Replied(reply) => Ok(Answered::Event(reply)),
        Outcome::Responded(response) => Ok(Answered::Http(response)),
        failed => Err(Failure::new(Code::named(failed.code()), failed.detail())),
    }
}
