//! The instances of one revision: which of them gets a request, and what waits for one.
//!
//! The pool counts and chooses, as `policy` says; only an instance's driver moves its state. A [`Runner`] runs the driver
//! and reports to the pool (`owner.rs`); what an operator, the catalog and the host order is in `orders.rs`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::compute::Pace;
use super::context::Context;
use super::entry::Awake;
use super::metrics::FunctionMetrics;
use super::policy::{Bounds, Decision, Phase};
use super::runner::Runner;
use super::state::State;
use crate::ids::{KeyId, RequestId, RevisionId};
use crate::instance::{self, Answer, Caller, Ended, Input, Job, Outcome, Start, Terms, Timings};
use crate::meter::{AcceptedCall, CalledBy, InvocationMeter};
use crate::traces::{OpenSpan, Trace};

/// How long after a request was told to stop it is told again.
const STOP_AGAIN: Duration = Duration::from_secs(1);

/// What a pool needs beside the terms of its instances.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// Instances and queue.
    pub bounds: Bounds,
    /// Parked this long, an instance is stopped.
    pub idle_timeout: Duration,
    /// The longest wait for an instance.
    pub queue_timeout: Duration,
    /// The longest time in the handler.
    pub request_timeout: Duration,
}

/// A request for a function.
pub struct Request {
    /// Its identifier.
    pub id: RequestId,
    /// Under which name the revision was asked for: a version's number, or `LATEST`.
    pub version: Arc<str>,
    /// Who called.
    pub called_by: CalledBy,
    /// The access key that was shown.
    pub key: Option<KeyId>,
    /// Which attempt at the request this is, from 1.
    pub attempt: u32,
    /// What the handler gets.
    pub input: Input,
    /// What it continues.
    pub trace: Trace,
    /// Its span, if it is sampled.
    pub span: Option<OpenSpan>,
    /// Ends the request when it is cancelled.
    pub stop: Option<CancellationToken>,
}

/// Why a request got no instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// All instances are busy and the queue is full.
    #[error("all instances are busy and the queue is full")]
    Busy,
    /// The host drains.
    #[error("the host is shutting down")]
    Draining,
    /// Its instance was lost through a fault of the host.
    #[error("the instance was lost through a fault of the host")]
    Lost,
}

/// A cheap handle to the pool of one revision.
#[derive(Clone)]
pub struct Pool(pub(super) Arc<Inner>);

/// Keeps a pool known to the host while a request for it is on its way, even if nothing else would.
pub struct Pinned(Pool);

pub(super) struct Inner {
    pub(super) revision: RevisionId,
    pub(super) terms: Arc<Terms>,
    pub(super) settings: PoolSettings,
    pub(super) context: Context,
    // A std mutex: holders move values between lists and never wait.
    state: Mutex<State>,
    pins: AtomicU32,
    /// The same as the phase says, for those who ask at every request.
    pub(super) retiring: AtomicBool,
    tickets: AtomicU64,
    pub(super) pace: Pace,
    counters: FunctionMetrics,
    /// What is shown of it.
    pub(super) board: Arc<Board>,
    /// Itself, for tasks that go on by themselves.
    pub(super) me: Weak<Inner>,
}

/// What became of a job.
enum Placed {
    /// This instance has it, and must be run.
    Given(Arc<Runner>),
    /// Nobody has it, as was decided.
    Left(Box<Job>, Decision),
}

impl Pool {
    pub(super) fn new(revision: RevisionId, terms: Arc<Terms>, settings: PoolSettings, context: Context) -> Pool {
        let counters = context.metrics.of(&terms.function);
        let board = Board::new(revision, context.moves.clone());
        let state = Mutex::new(State::new(Phase::Open, 0));
        let (pins, retiring) = (AtomicU32::new(0), AtomicBool::new(false));
        let (tickets, pace) = (AtomicU64::new(0), Pace::default());
        Pool(Arc::new_cyclic(|me| Inner {
            revision,
            terms,
            settings,
            context,
            state,
            pins,
            retiring,
            tickets,
            pace,
            counters,
            board,
            me: me.clone(),
        }))
    }

    /// Pins the pool.
    pub(super) fn pin(self) -> Pinned {
        self.0.pins.fetch_add(1, Ordering::Relaxed);
        Pinned(self)
    }

    /// Whether nothing is left in it, and no request is on its way to it.
    pub(super) fn is_over(&self) -> bool {
        let state = self.0.lock();
        matches!(state.phase, Phase::Retiring(_)) && state.is_empty() && self.0.pins.load(Ordering::Relaxed) == 0
    }
}

impl Pinned {
    /// Runs a request and waits for its answer. If the caller leaves, a request that has an instance goes on; one that
    /// still waits is never started.
    pub async fn call(&self, request: Request) -> Result<Answer, Refused> {
        let inner = &*self.0.0;
        let (reply, mut answer) = oneshot::channel();
        let ticket = inner.tickets.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let Request { id, version, called_by, key, attempt, input, trace, span, stop } = request;
        let function = inner.terms.function.clone();
        let call = AcceptedCall { request: id.clone(), function, version, called_by, key, attempt };
        let job = Box::new(Job {
            ticket,
            request: id,
            input,
            trace,
            span: span.map(Box::new),
            timeout: inner.settings.request_timeout,
            start: Start::Active,
            accepted: now,
            assigned: now,
            meter: InvocationMeter::accept(call, now, inner.terms.post.clone()),
            caller: Caller::Waiting(reply),
            is_work: called_by.is_work(),
        });
        let answered = async {
            match inner.give(job)? {
                Some(runner) => runner.run(Some(ticket)),
                None => match timeout(inner.settings.queue_timeout, &mut answer).await {
                    Ok(answer) => return answer.map_err(|_| inner.unanswered()),
                    Err(_elapsed) => inner.give_up(ticket, now),
                },
            }
            answer.await.map_err(|_| inner.unanswered())
        };
        match stop {
            None => answered.await,
            Some(stop) => tokio::select! {
                biased;
                answered = answered => answered,
                never = inner.stop_when_told(stop, ticket) => match never {},
            },
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.0.pins.fetch_sub(1, Ordering::Relaxed);
        self.0.0.look_whether_it_is_over();
    }
}

impl Inner {
    /// Why a request was dropped without an answer: the drain's time was over, or the engine itself failed.
    fn unanswered(&self) -> Refused {
        if self.context.tasks.draining() { Refused::Draining } else { Refused::Lost }
    }

    /// Stops a request once it is told to. Again and again, because an instance may just be handing it to another one.
    async fn stop_when_told(&self, stop: CancellationToken, ticket: u64) -> Infallible {
        stop.cancelled().await;
        loop {
            let waiting = {
                let mut state = self.lock();
                let waiting = state.take_waiting(ticket);
                if waiting.is_none() {
                    state.awake.iter().for_each(|awake| awake.stop_request(ticket));
                }
                waiting
            };
            if let Some(job) = waiting {
                self.answer_unserved(job, Outcome::Stopped);
            }
            tokio::time::sleep(STOP_AGAIN).await;
        }
    }

    /// Answers a request that waited too long, unless an instance took it meanwhile.
    fn give_up(&self, ticket: u64, since: Instant) {
        let late = self.lock().take_waiting(ticket);
        if let Some(job) = late {
            self.count_unserved("function-busy");
            job.answer(Outcome::QueueTimedOut, Timings { queue: since.elapsed(), ..Timings::default() });
        }
    }

    /// Takes back jobs that an instance was given and will not run. They wait first in line, but not for ever.
    pub(super) fn take_back(&self, jobs: impl DoubleEndedIterator<Item = Box<Job>>) {
        for job in jobs.rev() {
            let ticket = job.ticket;
            self.lock().wait_first(job);
            let (Some(pool), since) = (self.me.upgrade(), Instant::now()) else { return };
            self.context.spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(pool.settings.queue_timeout) => pool.give_up(ticket, since),
                    () = pool.context.tasks.closing() => {}
                }
            });
        }
    }

    /// Finds an instance for a job, which must be run then; none if the job has to wait.
    fn give(&self, job: Box<Job>) -> Result<Option<Arc<Runner>>, Refused> {
        let mut state = self.lock();
        if self.context.tasks.is_cut_off() {
            job.refuse("host-draining");
            return Err(Refused::Draining);
        }
        if job.is_work {
            state.wait_last(job);
            drop(state);
            self.serve_waiting();
            return Ok(None);
        }
        let (job, left) = match self.place(&mut state, job) {
            Placed::Given(runner) => return Ok(Some(runner)),
            // Callers that left do not keep others out.
            Placed::Left(job, Decision::Refuse) => match state.take_abandoned() {
                left if left.is_empty() => {
                    drop(state);
                    job.refuse("function-busy");
                    self.count_unserved("function-busy");
                    return Err(Refused::Busy);
                }
                left => (job, left),
            },
            Placed::Left(job, _) => (job, VecDeque::new()),
        };
        state.wait_last(job);
        drop(state);
        self.drop_cancelled(left);
        Ok(None)
    }

    /// Gives waiting requests to instances for as long as there is one for them.
    pub(super) fn serve_waiting(&self) {
        if self.context.tasks.is_cut_off() {
            let waiting = self.lock().take_all_waiting();
            return waiting.for_each(|job| self.answer_unserved(job, Outcome::Draining));
        }
        loop {
            let mut state = self.lock();
            let Some(mut job) = state.take_next(self.settings.bounds) else { return };
            if job.is_abandoned() {
                drop(state);
                self.drop_cancelled([job]);
                continue;
            }
            job.assigned = Instant::now();
            let is_work = job.is_work;
            match self.place(&mut state, job) {
                Placed::Given(runner) => {
                    state.note_turn(is_work);
                    drop(state);
                    runner.wake();
                }
                Placed::Left(job, _) => return state.wait_first(job),
            }
        }
    }

    /// Finds an instance for a job, or says why it got none.
    fn place(&self, state: &mut State, mut job: Box<Job>) -> Placed {
        let decision = state.decide(self.settings.bounds);
        match decision {
            Decision::Lend(index) => {
                let Awake { entry, runner } = &mut state.awake[index];
                job.start = match entry.state() {
                    instance::State::Starting | instance::State::Initializing => Start::Cold,
                    _ => Start::Active,
                };
                entry.give(job);
                Placed::Given(runner.clone())
            }
            Decision::Thaw => match state.take_newest_parked() {
                Some(resting) => {
                    job.start = Start::Parked;
                    Placed::Given(self.wake(state, resting, Some(job)))
                }
                None => Placed::Left(job, decision),
            },
            Decision::Start => {
                job.start = Start::Cold;
                Placed::Given(self.start(state, Some(job)))
            }
            Decision::Wait | Decision::Refuse => Placed::Left(job, decision),
        }
    }

    /// Answers a request that never began.
    pub(super) fn answer_unserved(&self, job: Box<Job>, outcome: Outcome) {
        let (queue, start) = (job.assigned.duration_since(job.accepted), job.assigned.elapsed());
        let timings = Timings { queue, start, ..Timings::default() };
        self.count(Ended { code: outcome.code(), start: None, timings });
        job.answer(outcome, timings);
    }

    /// Asks for a look at all pools if this one may have served its time.
    pub(super) fn look_whether_it_is_over(&self) {
        if self.retiring.load(Ordering::Relaxed) {
            self.context.reaper.expect(Instant::now());
        }
    }

    /// Closes the records of requests whose callers left before an instance took them.
    fn drop_cancelled(&self, jobs: impl IntoIterator<Item = Box<Job>>) {
        for mut job in jobs {
            self.count_unserved("cancelled");
            job.meter.outcome("cancelled", false);
        }
    }

    pub(super) fn count(&self, ended: Ended) {
        self.board.answered(ended.code != "ok");
        self.counters.count(ended);
    }

    /// Counts a request that got no instance.
    fn count_unserved(&self, code: &'static str) {
        self.count(Ended { code, start: None, timings: Timings::default() });
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}
