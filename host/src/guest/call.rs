//! A call into a guest and its result.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{ComponentType, Lower};

use super::delivery::{Body, Response};
use crate::ids::{KeyId, RequestId};
use crate::traces::Trace;

/// Names a call within its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// The export that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Answers a request.
    Handler,
    /// Prepares the instance.
    Initializer,
    /// Runs before the instance is parked.
    PreFreeze,
    /// Runs before the instance is dropped.
    PreStop,
}

impl Entry {
    /// The word that logs and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Entry::Handler => "handler",
            Entry::Initializer => "initializer",
            Entry::PreFreeze => "pre-freeze",
            Entry::PreStop => "pre-stop",
        }
    }
}

/// The record `context` of `wit/function.wit`, in its order.
#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct CallContext {
    /// The request, or the hook's own identifier.
    #[component(name = "request-id")]
    pub request_id: Arc<str>,
    /// The function's name.
    pub function: Arc<str>,
    /// The version that runs.
    pub version: Arc<str>,
    /// The instance.
    #[component(name = "instance-id")]
    pub instance_id: Arc<str>,
    /// Configured memory in MB.
    #[component(name = "memory-mb")]
    pub memory_mb: u32,
    /// The deadline of the call, in Unix ms.
    #[component(name = "deadline-ms")]
    pub deadline_ms: u64,
    /// Which attempt at the request this is, from 1.
    pub attempt: u32,
    /// The W3C trace context.
    pub traceparent: Option<Arc<str>>,
}

/// One call, ready to be made.
#[derive(Debug)]
pub struct Call {
    /// Chosen by the caller, unique within the guest.
    pub id: CallId,
    /// The export to call.
    pub entry: Entry,
    /// The request, or the hook's own identifier.
    pub request: RequestId,
    /// The access key that its caller showed.
    pub key: Option<KeyId>,
    /// The context that the guest gets.
    pub context: CallContext,
    /// What its own requests continue.
    pub trace: Trace,
    /// What the handler gets; hooks get nothing.
    pub input: Input,
}

/// The input of a call.
#[derive(Debug, Default)]
pub enum Input {
    /// Nothing: the call is a hook's.
    #[default]
    Nothing,
    /// An event.
    Event(EventInput),
    /// An HTTP request with an absolute URI. Its body is read while the guest runs.
    Http(Box<http::Request<Body>>),
}

/// An event, and its share of the memory that all of them may take. It is held until the call has ended.
#[derive(Debug, Default)]
pub struct EventInput {
    /// What the handler gets.
    pub bytes: Vec<u8>,
    /// The share; small events have none.
    pub share: Option<OwnedSemaphorePermit>,
}

impl From<Vec<u8>> for EventInput {
    fn from(bytes: Vec<u8>) -> EventInput {
        EventInput { bytes, share: None }
    }
}

impl AsRef<[u8]> for EventInput {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What an export returned, or a fault.
pub type Returned = Result<Reply, Fault>;

/// What an export returned.
#[derive(Debug)]
pub enum Reply {
    /// Nothing: it is a hook's, or the caller has the response already.
    Nothing,
    /// The reply to an event.
    Event(Vec<u8>),
    /// A whole response, of which the caller has nothing yet.
    Response(Box<Response>),
}

/// A failure that did not end the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The export returned an error with this text.
    Failed(String),
    /// The answer is not a valid HTTP response, or not a complete one.
    BadResponse(String),
}
