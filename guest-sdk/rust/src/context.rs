//! What the host tells a function about a call.
//!
//! `export` builds one for each call from what the host sent; `testing` invents one. A function only reads it.

use std::time::{Duration, SystemTime};

/// The context of a call. Each call of a handler or a hook gets its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context {
    /// The request's identifier, unique on this host unless the caller chose it. Each call of a hook has its own.
    pub request_id: String,
    /// The function's name.
    pub function: String,
    /// The deployed version that runs: `LATEST`, or a number.
    pub version: String,
    /// The instance's identifier: the same in every call into this instance, in logs and in the bill.
    pub instance_id: String,
    /// The memory this instance may use, in MB (1 MB is 1,048,576 bytes).
    pub memory_mb: u32,
    /// The deadline of this call. While the instance is suspended, the real deadline moves further away; this value
    /// does not.
    pub deadline: SystemTime,
    /// Which attempt at this request this is, starting with 1.
    pub attempt: u32,
    /// The caller's W3C trace context, if it sent one.
    pub traceparent: Option<String>,
}

impl Context {
    /// The time left until the deadline; zero once it has passed.
    pub fn remaining(&self) -> Duration {
        self.deadline.duration_since(SystemTime::now()).unwrap_or_default()
    }
}
