//! How others reach an instance's driver: jobs to run, and the newest order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::job::Job;
use super::order::Order;
use crate::traces::Followed;

/// Jobs and the newest order for one instance. A caller that adds something must also make the instance run. The queue
/// is bounded, because the pool never assigns more jobs than the instance's concurrency.
#[derive(Default)]
pub struct Inbox {
    // A std mutex: it is held only to move a job, and never while waiting.
    jobs: Mutex<VecDeque<Box<Job>>>,
    /// The number of jobs. Outside the lock, because the driver reads it in every turn.
    count: AtomicUsize,
    order: AtomicU8,
    /// Tickets of requests that are to be stopped.
    stops: Mutex<Vec<u64>>,
    has_stops: AtomicBool,
}

impl Inbox {
    /// Adds a job.
    pub fn send(&self, job: Box<Job>) {
        let mut jobs = self.lock();
        jobs.push_back(job);
        self.count.store(jobs.len(), Ordering::Release);
    }

    /// Sets the order, unless the one before stays.
    pub fn order(&self, order: Order) {
        let newest = |before| order.replaces(Order::from_code(before)).then(|| order.code());
        // Fails only if the order before stays.
        let _ = self.order.fetch_update(Ordering::AcqRel, Ordering::Acquire, newest);
    }

    /// The newest order.
    pub fn current_order(&self) -> Order {
        Order::from_code(self.order.load(Ordering::Acquire))
    }

    /// Takes the next job.
    pub fn take(&self) -> Option<Box<Job>> {
        if !self.has_jobs() {
            return None;
        }
        let mut jobs = self.lock();
        let job = jobs.pop_front();
        self.count.store(jobs.len(), Ordering::Release);
        job
    }

    /// Asks for a request to be stopped; ignored if the instance has it not.
    pub fn stop_request(&self, ticket: u64) {
        let mut stops = self.stops.lock().expect("no holder of this lock panics");
        if !stops.contains(&ticket) {
            stops.push(ticket);
        }
        self.has_stops.store(true, Ordering::Release);
    }

    /// The requests that are to be stopped.
    pub(super) fn take_stops(&self) -> Vec<u64> {
        if !self.has_stops.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut stops = self.stops.lock().expect("no holder of this lock panics");
        self.has_stops.store(false, Ordering::Release);
        std::mem::take(&mut stops)
    }

    /// Takes a job out of the line.
    pub(super) fn take_ticket(&self, ticket: u64) -> Option<Box<Job>> {
        let mut jobs = self.lock();
        let index = jobs.iter().position(|job| job.ticket == ticket)?;
        let job = jobs.remove(index);
        self.count.store(jobs.len(), Ordering::Release);
        job
    }

    /// True if jobs wait.
    pub fn has_jobs(&self) -> bool {
        self.jobs() > 0
    }

    /// The requests that wait, as far as they are sampled.
    pub(super) fn followed(&self) -> Followed {
        let mut followed = Followed::default();
        self.lock().iter().filter_map(|job| job.span.as_ref()).for_each(|span| followed.add(span));
        followed
    }

    /// The number of jobs that wait.
    pub(super) fn jobs(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Box<Job>>> {
        self.jobs.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::{CutOff, StopReason};
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
        inbox.order(Order::CutOff(CutOff::DrainOver));
        inbox.order(Order::Stop(StopReason::Shutdown));
        assert_eq!(inbox.current_order(), Order::CutOff(CutOff::DrainOver));
    }
}
