//! Waiting.
//!
//! Functions call this. To wait costs nothing: the bill counts executed time.

use std::time::Duration;

use crate::platform;

/// Waits for this long and lets others work meanwhile.
///
/// The time goes on while the instance is parked: a wait that ended in the meantime is over at the thaw.
pub async fn sleep(duration: Duration) {
    platform::sleep(duration).await;
}
