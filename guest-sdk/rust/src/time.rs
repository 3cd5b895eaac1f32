//! Waiting.
//!
//! Functions call this. On the default billing basis waiting is not charged, only executed time.

use std::time::Duration;

use crate::platform;

/// Waits for this long. Other requests and tasks run meanwhile.
///
/// Time passes while the instance is parked: a wait that ends meanwhile is over at the thaw.
pub async fn sleep(duration: Duration) {
    platform::sleep(duration).await;
}
