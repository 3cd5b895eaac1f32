//! A request on its way through an instance, and its answer.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::guest::{Delivery, Input, Response, Trap};
use crate::ids::{InstanceId, RequestId};
use crate::meter::InvocationMeter;
use crate::traces::{OpenSpan, Trace};

/// The state in which a request found its instance; sent as `Dormouse-Start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The instance was started for this request, or was still starting.
    Cold,
    /// The instance was parked.
    Parked,
    /// The instance was awake.
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

/// A request for an instance to run.
pub struct Job {
    /// Unique among the jobs of a pool, unlike the request identifier, which callers may use twice.
    pub ticket: u64,
    /// The request.
    pub request: RequestId,
    /// What the handler gets.
    pub input: Input,
    /// What it continues.
    pub trace: Trace,
    /// Its span, if it is sampled.
    pub span: Option<Box<OpenSpan>>,
    /// The handler's timeout.
    pub timeout: Duration,
    /// The state in which it found its instance.
    pub start: Start,
    /// When the pool accepted it.
    pub accepted: Instant,
    /// When the pool gave it to an instance.
    pub assigned: Instant,
    /// Posts the invocation record when the job is dropped.
    pub meter: InvocationMeter,
    /// Who gets the answer.
    pub caller: Caller,
    /// Whether it is waiting work, for which nobody waits.
    pub is_work: bool,
}

/// The caller of a job.
pub enum Caller {
    /// Waits for the answer.
    Waiting(oneshot::Sender<Answer>),
    /// Reads the body of the response.
    Reading(Delivery),
    /// Left, or has got its answer.
    Gone,
}

/// How a request ended.
#[derive(Debug)]
pub enum Outcome {
    /// The handler's result.
    Replied(Vec<u8>),
    /// The handler's response, whole or to be read while the guest writes it.
    Responded(Box<Response>),
    /// The handler, or the initializer before it, returned this error.
    Failed(String),
    /// The handler's answer is not a valid HTTP response.
    BadResponse(String),
    /// Its code was stopped.
    Crashed(Trap),
    /// It exceeded its memory limit.
    OutOfMemory,
    /// It exceeded its timeout.
    TimedOut,
    /// An operator stopped it.
    Stopped,
    /// Its instance ended for a reason other than this request.
    Lost,
    /// The host has no room for the instance it needs.
    HostFull,
    /// It waited too long for an instance.
    QueueTimedOut,
    /// The host stopped before it had ended.
    Draining,
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
            Outcome::Stopped => "invocation-stopped",
            Outcome::Lost => "instance-lost",
            Outcome::HostFull => "host-full",
            Outcome::QueueTimedOut => "function-busy",
            Outcome::Draining => "host-draining",
        }
    }

    /// What was wrong, for the caller; nothing if it went well.
    pub fn detail(&self) -> String {
        let fixed = match self {
            Outcome::Replied(_) | Outcome::Responded(_) => "",
            Outcome::BadResponse(text) | Outcome::Failed(text) => return text.clone(),
            Outcome::Crashed(trap) => return format!("{}: {}", trap.name, trap.summary),
            Outcome::OutOfMemory => "the function wanted more memory than `memoryMb` allows",
            Outcome::TimedOut => {
                "the function took longer than `timeoutMs` allows, or its initializer longer than its own"
            }
            Outcome::Stopped => "an operator stopped the invocation",
            Outcome::Lost => {
                "the instance ended through another request or its background work; this one is not to blame"
            }
            Outcome::HostFull => "the host has no room or no memory left for this, and nothing is parked that could go",
            Outcome::Draining => "the host stopped before the request had ended",
            Outcome::QueueTimedOut => "all instances stayed busy for longer than `queueTimeoutMs`",
        };
        fixed.to_owned()
    }
}

/// How long the parts of a request took; sent as `Server-Timing`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Waiting for an instance.
    pub queue: Duration,
    /// From the assigned instance to the handler's call: starting or thawing.
    pub start: Duration,
    /// In the handler.
    pub handler: Duration,
    /// Executed time of the instance during the handler; overlapping requests share it.
    pub executed: Duration,
}

/// What is counted of a request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// `ok`, or the code of the problem.
    pub code: &'static str,
    /// The state in which it found its instance; none: it got none.
    pub start: Option<Start>,
    /// Where the time went.
    pub timings: Timings,
}

/// What the caller gets.
#[derive(Debug)]
pub struct Answer {
    /// How the request ended.
    pub outcome: Outcome,
    /// The state in which it found its instance.
    pub start: Start,
    /// How long its parts took.
    pub timings: Timings,
    /// The instance, if there was one.
    pub instance: Option<InstanceId>,
}

impl Job {
    /// True if the caller left before the answer.
    pub fn is_abandoned(&self) -> bool {
        matches!(&self.caller, Caller::Waiting(reply) if reply.is_closed())
    }

    /// Drops a job that is refused: it has no record.
    pub fn refuse(mut self: Box<Self>, code: &'static str) {
        if let Some(span) = &mut self.span {
            span.course().code = code;
        }
        self.meter.forget();
    }

    /// Sends the head of a response. The job continues until the whole body is read.
    pub fn respond(&mut self, response: Box<Response>, timings: Timings) {
        let delivery = response.body().delivery();
        if let Some(span) = &mut self.span {
            span.course().status = Some(response.status().as_u16());
        }
        if self.send(Outcome::Responded(response), timings)
            && let Some(delivery) = delivery
        {
            self.caller = Caller::Reading(delivery);
        }
    }

    /// Sends the answer, or ends the response that is being read, and completes the invocation record.
    pub fn answer(mut self: Box<Self>, outcome: Outcome, timings: Timings) {
        let code = outcome.code();
        self.meter.executed(timings.executed);
        self.note_course(&outcome, timings);
        let delivered = match &self.caller {
            // The caller may have left meanwhile; then the record says so.
            Caller::Waiting(_) => self.send(outcome, timings),
            Caller::Reading(delivery) => {
                match &outcome {
                    Outcome::Replied(_) | Outcome::Responded(_) => delivery.close(),
                    failed => delivery.fail(failed.code(), failed.detail()),
                }
                delivery.is_whole()
            }
            Caller::Gone => false,
        };
        self.meter.outcome(code, delivered);
    }

    fn note_course(&mut self, outcome: &Outcome, timings: Timings) {
        let Some(span) = &mut self.span else { return };
        let course = span.course();
        if let Outcome::Responded(response) = outcome {
            course.status = Some(response.status().as_u16());
        }
        let reading = self.meter.reading();
        (course.accepted, course.instance) = (Some(reading.start), reading.instance);
        (course.found, course.code) = (self.start.as_str(), outcome.code());
        Timings { queue: course.queue, start: course.start, handler: course.handler, executed: course.executed } =
            timings;
    }

    /// Sends an answer to the caller if it waits. False if it does not wait or has left.
    fn send(&mut self, outcome: Outcome, timings: Timings) -> bool {
        let instance = self.meter.reading().instance;
        let answer = Answer { outcome, start: self.start, timings, instance };
        match std::mem::replace(&mut self.caller, Caller::Gone) {
            Caller::Waiting(reply) => reply.send(answer).is_ok(),
            Caller::Reading(_) | Caller::Gone => false,
        }
    }
}
