//! The platform of native tests: everything runs on one thread in real time, and a closure answers HTTP.
//!
//! `task`, `time` and `http` call this where a component calls `wasi`; tests use it through `testing`. Like an
//! instance, a thread has its own tasks, which run only inside `block_on`. Between two calls of it the thread is like a
//! parked instance.

#![allow(
    clippy::disallowed_methods,
    reason = "a workspace may want another clock, but here the clock is what is meant"
)]

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use crate::http::{Request, Response, Target};

type Task = Pin<Box<dyn Future<Output = ()>>>;
type Answer = Rc<dyn Fn(&Request) -> crate::Result<Response>>;

thread_local! {
    static TASKS: RefCell<VecDeque<Task>> = const { RefCell::new(VecDeque::new()) };
    static TIMERS: RefCell<Vec<(Instant, Waker)>> = const { RefCell::new(Vec::new()) };
    static ANSWER: RefCell<Option<Answer>> = const { RefCell::new(None) };
}

pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    TASKS.with_borrow_mut(|tasks| tasks.push_back(Box::pin(task)));
}

pub(crate) async fn sleep(duration: Duration) {
    let end = Instant::now() + duration;
    poll_fn(|task| {
        if Instant::now() >= end {
            return Poll::Ready(());
        }
        TIMERS.with_borrow_mut(|timers| {
            if !timers.iter().any(|(at, waker)| *at == end && waker.will_wake(task.waker())) {
                timers.push((end, task.waker().clone()));
            }
        });
        Poll::Pending
    })
    .await;
}

pub(crate) async fn send(request: &Request, _: &Target<'_>) -> Result<Response, String> {
    let answer = ANSWER.with_borrow(Clone::clone);
    let answer = answer.ok_or("there is no host in a native test; answer with testing::answer_http")?;
    answer(request).map_err(|error| error.to_string())
}

pub(crate) fn answer_http(answer: Answer) {
    ANSWER.set(Some(answer));
}

/// Runs a future to its end, and the spawned tasks meanwhile. Unfinished tasks continue in the next call.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut task = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut task) {
            return output;
        }
        poll_tasks(&mut task);
        rest();
    }
}

/// Polls each task once, including those that were spawned meanwhile.
fn poll_tasks(context: &mut Context<'_>) {
    let mut pending = VecDeque::new();
    while let Some(mut task) = TASKS.with_borrow_mut(VecDeque::pop_front) {
        if task.as_mut().poll(context).is_pending() {
            pending.push_back(task);
        }
    }
    TASKS.set(pending);
}

/// Waits for the next timer or for another wake. A wake that came before ends the wait at once.
fn rest() {
    let now = Instant::now();
    let due = TIMERS.with_borrow_mut(|timers| timers.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>());
    due.into_iter().for_each(|(_, waker)| waker.wake());
    match TIMERS.with_borrow(|timers| timers.iter().map(|(at, _)| *at).min()) {
        Some(next) => thread::park_timeout(next - now),
        None => thread::park(),
    }
}

/// One waker for all: any wake polls everything, which is cheap enough for tests.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
