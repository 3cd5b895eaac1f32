//! What functions used since midnight, asked of the ledger every few seconds and not by everybody who looks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::clock;
use crate::host::Host;
use crate::ledger::{Group, Sums, UsageQuery};
use crate::web::problem::Failure;

/// How old what is shown may be.
const AGE_MAX: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Sums by function.
pub(super) type ByFunction = Arc<HashMap<String, Sums>>;

/// The sums that were asked for last.
#[derive(Default)]
pub(super) struct Today {
    asked: Mutex<Option<(Instant, ByFunction)>>,
}

impl Today {
    /// What each function used since midnight, UTC. Whoever shows it looks who may see it.
    pub(super) async fn sums(&self, host: &Arc<Host>) -> Result<ByFunction, Failure> {
        let mut asked = self.asked.lock().await;
        if let Some((_, sums)) = asked.as_ref().filter(|(at, _)| at.elapsed() < AGE_MAX) {
            return Ok(sums.clone());
        }
        let query = UsageQuery { from: Some(midnight(clock::date())), group: Group::Function, ..UsageQuery::default() };
        let usage = host.ask_ledger(move |ledger| ledger.usage(&query, &|_| true)).await??;
        let sums: ByFunction = Arc::new(usage.groups.into_iter().map(|group| (group.key, group.sums)).collect());
        *asked = Some((Instant::now(), sums.clone()));
        Ok(sums)
    }
}

/// The beginning of the day, UTC.
pub(super) fn midnight(now: SystemTime) -> SystemTime {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs() / DAY.as_secs() * DAY.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_in_utc() {
        let time = |text| humantime::parse_rfc3339(text).unwrap();
        assert_eq!(midnight(time("2026-11-28T23:59:59Z")), time("2026-11-28T00:00:00Z"));
        assert_eq!(midnight(time("2026-11-28T00:00:00Z")), time("2026-11-28T00:00:00Z"));
    }
}
