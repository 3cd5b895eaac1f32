//! The one span that a request has in the host's log: every line that is written while it is answered carries its id.

use tracing::Span;

use crate::ids::RequestId;

/// The span of a request to a plane. An error's span, so that it is there whatever `RUST_LOG` leaves out.
pub fn of(request: &RequestId) -> Span {
    tracing::error_span!("request", request = request.as_str())
}
