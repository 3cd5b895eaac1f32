//! How others reach an instance's driver: jobs to run, and the newest order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::job::Job;
use super::order::Order;

/// Jobs and the newest order for one instance. Whoever puts something in must also make the instance run. The pool never
/// hands out more jobs than the instance's concurrency, so it is bounded.
#[derive(Default)]
pub struct Inbox {
    // A std mutex: holders move a job, and never wait.
    jobs: Mutex<VecDeque<Box<Job>>>,
    /// How many there are, beside the lock: a driver looks in every turn.
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
        // Fails only if the instance was told to stop already.
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
        self.jobs() > 0
    }

    /// How many jobs there are that no driver took.
    pub(super) fn jobs(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Box<Job>>> {
        self.jobs.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::StopReason;
    use super::*;

    #[test]
    fn the_newest_order_counts_until_one_says_stop() {
        let inbox = Inbox::default();
        assert_eq!(inbox.current_order(), Order::Run);
        for order in [Order::Suspend, Order::Run, Order::Suspend] {
            inbox.order(order);
            assert_eq!(inbox.current_order(), order);
        }
        inbox.order(Order::Stop(StopReason::Idle));
        inbox.order(Order::Run);
        inbox.order(Order::Stop(StopReason::Shutdown));
        assert_eq!(inbox.current_order(), Order::Stop(StopReason::Idle));
    }
}
