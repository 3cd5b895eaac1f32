//! A request on its way through an instance, and its answer.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::guest::Trap;
use crate::ids::{InstanceId, RequestId};
use crate::meter::InvocationMeter;

/// How the instance was found that a request ran in; the reply's `Dormouse-Start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It was started for this request, or was still starting.
    Cold,
    /// It was parked.
    Parked,
    /// It was awake.
    Active,
}

impl Start {
    /// The word in the reply and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Start::Cold => "cold",
            Start::Parked => "parked",
            Start::Active => "active",
        }
    }
}

/// A request that an instance is to run.
pub struct Job {
    /// Tells jobs of one pool apart; callers may use a request identifier twice.
    pub ticket: u64,
    /// The request.
    pub request: RequestId,
    /// The event.
    pub event: Vec<u8>,
    /// The caller's W3C trace context.
    pub traceparent: Option<String>,
    /// The longest time in the handler.
    pub timeout: Duration,
    /// How its instance was found.
    pub start: Start,
    /// When the pool accepted it.
    pub accepted: Instant,
    /// When the pool gave it to an instance.
    pub assigned: Instant,
    /// Posts the invocation record when the job is dropped.
    pub meter: InvocationMeter,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
}

/// How a request ended that an instance ran.
#[derive(Debug)]
pub enum Outcome {
    /// The handler's result.
    Replied(Vec<u8>),
    /// The handler, or the initializer before it, returned this error.
    Failed(String),
    /// Its code was stopped.
    Crashed(Trap),
    /// It wanted more memory than it may have.
    OutOfMemory,
    /// It took longer than it may.
    TimedOut,
    /// Its instance ended through somebody else's fault.
    Lost,
    /// The host has no room for the instance it needs.
    HostFull,
    /// The host shuts down.
    Draining,
    /// It waited too long for an instance.
    QueueTimedOut,
}

impl Outcome {
    /// `ok`, or the stable code of the problem: the same in replies, records and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Outcome::Replied(_) => "ok",
            Outcome::Failed(_) => "function-failed",
            Outcome::Crashed(_) => "function-crashed",
            Outcome::OutOfMemory => "function-out-of-memory",
            Outcome::TimedOut => "function-timed-out",
            Outcome::Lost => "instance-lost",
            Outcome::HostFull => "host-full",
            Outcome::Draining => "host-draining",
            Outcome::QueueTimedOut => "function-busy",
        }
    }
}

/// Where a request's time went; the reply's `Server-Timing`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Waiting for an instance.
    pub queue: Duration,
    /// From there to the handler's call: starting or thawing.
    pub start: Duration,
    /// In the handler.
    pub handler: Duration,
    /// Executed time of the instance meanwhile; overlapping requests share it.
    pub executed: Duration,
}

/// What the caller gets.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// How the instance was found.
    pub start: Start,
    /// Where the time went.
    pub timings: Timings,
    /// The instance, if there was one.
    pub instance: Option<InstanceId>,
}

impl Job {
    /// Sends the answer and closes the invocation record.
    pub fn answer(mut self: Box<Self>, outcome: Outcome, timings: Timings) {
        let code = outcome.code();
        let instance = self.meter.reading().instance;
        let answer = Answer { outcome, start: self.start, timings, instance };
        // The caller may have left meanwhile; the record says so.
        let delivered = self.reply.send(answer).is_ok();
        self.meter.outcome(code, delivered);
    }
}
