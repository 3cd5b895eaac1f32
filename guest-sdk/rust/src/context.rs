//! What the host tells a function about the call it is in.
//!
//! `export` builds one for each call from what the host sent; `testing` makes one up. A function only reads it.

use std::time::{Duration, SystemTime};

/// The call that a function is in. Handlers and hooks get one each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context {
    /// The request's identifier, unique on this host unless the caller chose it. A hook has one of its own.
    pub request_id: String,
    /// The function's name.
    pub function: String,
    /// The deployed version that runs: `LATEST`, or a number.
    pub version: String,
    /// The instance's identifier: the same in every call into this instance, in logs and in the bill.
    pub instance_id: String,
    /// The memory this instance may use, in MB (1 MB is 1,048,576 bytes).
    pub memory_mb: u32,
    /// When the host gives up on this call. Time spent suspended moves the real deadline further away, not this figure.
    pub deadline: SystemTime,
    /// Which attempt at this request this is, starting with 1.
    pub attempt: u32,
    /// The W3C trace context of the caller, when it sent one.
    pub traceparent: Option<String>,
}

impl Context {
    /// The time left until the deadline; zero once it has passed.
    pub fn remaining(&self) -> Duration {
        self.deadline.duration_since(SystemTime::now()).unwrap_or_default()
    }
}
