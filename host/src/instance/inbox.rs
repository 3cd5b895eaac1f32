//! How others reach an instance's driver: jobs to run, and the newest order.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use super::job::Job;

/// What an operator, the pool or the host wants of an instance. A new order replaces the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Take jobs.
    Run,
    /// Stand still as soon as it is active.
    Suspend,
    /// Go, in order.
    Stop(StopReason),
}

/// Why an instance stops in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Parked longer than `idleTimeoutMs`.
    Idle,
    /// The function has new code or a new configuration.
    Updated,
    /// The function is gone.
    Deleted,
    /// An operator stopped this instance.
    Operator,
    /// The host needs its room.
    Evicted,
    /// The host shuts down.
    Shutdown,
    /// A request in it timed out while it waited.
    RequestTimedOut,
    /// It answered as many requests as `maxRequestsPerInstance` allows.
    Spent,
}

impl StopReason {
    /// The reason's name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            StopReason::Idle => "idle",
            StopReason::Updated => "updated",
            StopReason::Deleted => "deleted",
            StopReason::Operator => "operator",
            StopReason::Evicted => "evicted",
            StopReason::Shutdown => "shutdown",
            StopReason::RequestTimedOut => "request-timed-out",
            StopReason::Spent => "spent",
        }
    }
}

/// An instance's mailbox. Whoever puts something in sees to it that the instance runs. The pool never hands out more
/// jobs than the instance's concurrency, which bounds it.
pub struct Inbox {
    // A std mutex: holders move a job or copy an order, and never wait.
    mail: Mutex<Mail>,
}

struct Mail {
    jobs: VecDeque<Box<Job>>,
    order: Order,
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox { mail: Mutex::new(Mail { jobs: VecDeque::new(), order: Order::Run }) }
    }
}

impl Inbox {
    /// Hands over a job.
    pub fn send(&self, job: Box<Job>) {
        self.lock().jobs.push_back(job);
    }

    /// Gives an order. A stop is never taken back.
    pub fn order(&self, order: Order) {
        let mut mail = self.lock();
        if !matches!(mail.order, Order::Stop(_)) {
            mail.order = order;
        }
    }

    /// The newest order.
    pub fn current_order(&self) -> Order {
        self.lock().order
    }

    /// The next job that no driver took.
    pub fn take(&self) -> Option<Box<Job>> {
        self.lock().jobs.pop_front()
    }

    /// Whether there are jobs that no driver took.
    pub fn has_jobs(&self) -> bool {
        !self.lock().jobs.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().expect("no holder of this lock panics")
    }
}
