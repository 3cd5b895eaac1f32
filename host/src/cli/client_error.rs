//! Why a host gave no answer, in words for whoever typed the command.

use reqwest::StatusCode;

use super::output;
use crate::admin::model::Problem;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no host answers at {address} ({cause}); `dormouse serve` or `dormouse up` starts one")]
    Unreachable { address: String, cause: String },
    #[error(
        "{address} shows a certificate that is not trusted here ({cause}); `--ca FILE` trusts the one that has signed it"
    )]
    Untrusted { address: String, cause: String },
    #[error("{}", refusal(.0))]
    Refused(Box<Problem>),
    #[error("{address} answered {status}, and not as a Dormouse does: {body}")]
    Foreign { address: String, status: StatusCode, body: String },
    #[error("talk to {address}: {cause}")]
    Broken { address: String, cause: String },
}

fn refusal(problem: &Problem) -> String {
    let text = if problem.detail.is_empty() { &problem.title } else { &problem.detail };
    format!("{} ({})", output::plain(text), output::plain(&problem.code))
}

/// The innermost cause, which is the one that says something.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
