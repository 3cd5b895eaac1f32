//! Background tasks.
//!
//! Functions call this; the platform runs what they spawn. There is no handle: a task ends by itself.

use crate::platform;

/// Starts a task that goes on after its request was answered, for as long as the instance is awake.
///
/// Parked, the instance and all its tasks stand still; thawed, they go on where they were. A task that must be done
/// before the instance rests belongs into [`pre_freeze`](crate::Function::pre_freeze), which the host waits for.
///
/// ```
/// use std::{cell::Cell, rc::Rc, time::Duration};
/// use dormouse_sdk::{sleep, spawn, testing::block_on};
///
/// let done = Rc::new(Cell::new(false));
/// let ours = done.clone();
/// block_on(async {
///     spawn(async move { done.set(true) });
///     sleep(Duration::from_millis(1)).await;
/// });
/// assert!(ours.get());
/// ```
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    platform::spawn(task);
}
