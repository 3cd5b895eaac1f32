//! Background tasks.
//!
//! Functions call this; the platform runs the tasks. There is no handle: a task ends by itself.

use crate::platform;

/// Starts a task that continues after its request was answered, as long as the instance is awake.
///
/// While the instance is parked, its tasks do not run; after a thaw they continue where they stopped. Work that must be
/// done before the instance is parked belongs in [`pre_freeze`](crate::Function::pre_freeze), which the host waits for.
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
