//! The date. A machine's clock may show any, also one before 1970, which most libraries take for impossible and panic at.

use std::time::{Duration, SystemTime};

/// The date and time that the machine shows; 1970 if it shows an earlier one.
pub fn date() -> SystemTime {
    SystemTime::now().max(SystemTime::UNIX_EPOCH)
}

/// The date `time` ago, 1970 at the earliest.
pub fn ago(time: Duration) -> SystemTime {
    date().checked_sub(time).map_or(SystemTime::UNIX_EPOCH, |then| then.max(SystemTime::UNIX_EPOCH))
}
