//! How others reach an instance's driver: jobs to run, and the newest order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
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
    /// In the order of their declaration.
    const ALL: [StopReason; 8] = [
        StopReason::Idle,
        StopReason::Updated,
        StopReason::Deleted,
        StopReason::Operator,
        StopReason::Evicted,
        StopReason::Shutdown,
        StopReason::RequestTimedOut,
        StopReason::Spent,
    ];

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
#[derive(Default)]
pub struct Inbox {
    // A std mutex: holders move a job, and never wait.
    jobs: Mutex<VecDeque<Box<Job>>>,
    /// How many there are: drivers look far more often than jobs come.
    count: AtomicUsize,
    order: AtomicU8,
}

impl Inbox {
    /// Hands over a job.
    pub fn send(&self, job: Box<Job>) {
        let mut jobs = self.lock();
        jobs.push_back(job);
        self.count.store(jobs.len(), Ordering::Release);
    }

    /// Gives an order. A stop is never taken back.
    pub fn order(&self, order: Order) {
        let stops = |before| matches!(Order::from_code(before), Order::Stop(_));
        let newest = |before| if stops(before) { None } else { Some(order.code()) };
        // Refused only if it is told to stop already.
        let _ = self.order.fetch_update(Ordering::AcqRel, Ordering::Acquire, newest);
    }

    /// The newest order.
    pub fn current_order(&self) -> Order {
        Order::from_code(self.order.load(Ordering::Acquire))
    }

    /// The next job that no driver took.
    pub fn take(&self) -> Option<Box<Job>> {
        if !self.has_jobs() {
            return None;
        }
        let mut jobs = self.lock();
        let job = jobs.pop_front();
        self.count.store(jobs.len(), Ordering::Release);
        job
    }

    /// Whether there are jobs that no driver took.
    pub fn has_jobs(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Box<Job>>> {
        self.jobs.lock().expect("no holder of this lock panics")
    }
}

impl Order {
    const RUN: u8 = 0;
    const SUSPEND: u8 = 1;
    /// And from here on, the reasons to stop in their order.
    const STOP: u8 = 2;

    fn code(self) -> u8 {
        match self {
            Order::Run => Self::RUN,
            Order::Suspend => Self::SUSPEND,
            Order::Stop(reason) => Self::STOP + reason as u8,
        }
    }

    fn from_code(code: u8) -> Order {
        match code {
            Self::RUN => Order::Run,
            Self::SUSPEND => Order::Suspend,
            stop => Order::Stop(StopReason::ALL[usize::from(stop - Self::STOP)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_order_counts_until_one_says_stop() {
        let inbox = Inbox::default();
        assert_eq!(inbox.current_order(), Order::Run);
        for order in [Order::Suspend, Order::Run, Order::Suspend] {
            inbox.order(order);
            assert_eq!(inbox.current_order(), order);
        }
        for reason in StopReason::ALL {
            let inbox = Inbox::default();
            inbox.order(Order::Stop(reason));
            inbox.order(Order::Run);
            inbox.order(Order::Stop(StopReason::Shutdown));
            assert_eq!(inbox.current_order(), Order::Stop(reason));
        }
    }
}
