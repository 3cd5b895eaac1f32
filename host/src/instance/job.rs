//! A request on its way through an instance, and its answer.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::guest::{Delivery, Input, Response, Trap};
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
    /// What the handler gets.
    pub input: Input,
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
    pub caller: Caller,
}

/// Who waits for a job.
pub enum Caller {
    /// Somebody who has no answer yet.
    Waiting(oneshot::Sender<Answer>),
    /// Somebody who reads the body of the response.
    Reading(Delivery),
    /// Nobody any more.
    Gone,
}

/// How a request ended that an instance ran.
#[derive(Debug)]
pub enum Outcome {
    /// The handler's result.
    Replied(Vec<u8>),
    /// The head of the handler's response, and its body as it comes.
    Responded(Box<Response>),
    /// The handler, or the initializer before it, returned this error.
    Failed(String),
    /// What the handler answered is no HTTP response.
    BadResponse(String),
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
    /// It waited too long for an instance.
    QueueTimedOut,
}

impl Outcome {
    /// `ok`, or the stable code of the problem: the same in replies, records and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Outcome::Replied(_) | Outcome::Responded(_) => "ok",
            Outcome::Failed(_) => "function-failed",
            Outcome::BadResponse(_) => "function-response-invalid",
            Outcome::Crashed(_) => "function-crashed",
            Outcome::OutOfMemory => "function-out-of-memory",
            Outcome::TimedOut => "function-timed-out",
            Outcome::Lost => "instance-lost",
            Outcome::HostFull => "host-full",
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
    /// Whether its caller left before it was answered.
    pub fn is_abandoned(&self) -> bool {
        matches!(&self.caller, Caller::Waiting(reply) if reply.is_closed())
    }

    /// Sends the head of a response. The job goes on until all of the body is read.
    pub fn respond(&mut self, response: Box<Response>, timings: Timings) {
        let delivery = response.body().delivery();
        if self.send(Outcome::Responded(response), timings) {
            self.caller = Caller::Reading(delivery);
        }
    }

    /// Sends the answer, or ends the one under way, and closes the invocation record.
    pub fn answer(mut self: Box<Self>, outcome: Outcome, timings: Timings) {
        let code = outcome.code();
        let delivered = match &self.caller {
            // The caller may have left meanwhile; the record says so.
            Caller::Waiting(_) => self.send(outcome, timings),
            Caller::Reading(delivery) => {
                delivery.close();
                delivery.is_whole()
            }
            Caller::Gone => false,
        };
        self.meter.outcome(code, delivered);
    }

    /// Sends an answer to a caller that waits; false if it does not.
    fn send(&mut self, outcome: Outcome, timings: Timings) -> bool {
        let instance = self.meter.reading().instance;
        let answer = Answer { outcome, start: self.start, timings, instance };
        match std::mem::replace(&mut self.caller, Caller::Gone) {
            Caller::Waiting(reply) => reply.send(answer).is_ok(),
            Caller::Reading(_) | Caller::Gone => false,
        }
    }
}
