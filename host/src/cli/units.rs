//! Points in time for people, and figures. All pure; the clock comes in as an argument.

use std::str::FromStr;
use std::time::SystemTime;

use anyhow::Context;

use crate::clock;
pub(super) use crate::figures::{bytes, count, cu, duration, duration_ms, rate};

/// How long before `now` a point in time was: `3 min ago`. What is no RFC 3339 time is shown as it is.
pub(super) fn ago(now: SystemTime, time: &str) -> String {
    let Ok(then) = humantime::parse_rfc3339_weak(time) else { return time.to_owned() };
    let seconds = now.duration_since(then).unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// A point in time on the command line: RFC 3339, a date, or how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(SystemTime);

impl FromStr for Moment {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Moment> {
        moment(text, clock::date())
    }
}

impl Moment {
    /// As the API wants it: RFC 3339, UTC.
    pub(super) fn rfc3339(self) -> String {
        humantime::format_rfc3339_millis(self.0).to_string()
    }
}

/// A time to come on the command line: in how long, a date, or RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Later(SystemTime);

impl FromStr for Later {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Later> {
        if let Ok(span) = humantime::parse_duration(text) {
            return clock::date().checked_add(span).map(Later).context("that is too far away");
        }
        let wanted = "write a time like `2027-05-01T12:00:00Z`, a day like `2027-05-01`, or in how long: `12h`, `90d`";
        Ok(Later(absolute(text).context(wanted)?))
    }
}

impl Later {
    /// As the API wants it: RFC 3339, UTC.
    pub(super) fn rfc3339(self) -> String {
        Moment(self.0).rfc3339()
    }
}

fn moment(text: &str, now: SystemTime) -> anyhow::Result<Moment> {
    if let Ok(age) = humantime::parse_duration(text) {
        return now.checked_sub(age).map(Moment).context("that is too long ago");
    }
    let wanted =
        "write a time like `2026-05-01T12:00:00Z`, a day like `2026-05-01`, or how long ago: `30m`, `1h`, `7d`";
    absolute(text).map(Moment).context(wanted)
}

fn absolute(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339(&format!("{text}T00:00:00Z"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_absolute_or_relative() {
        let now = humantime::parse_rfc3339("2026-05-02T01:00:00Z").unwrap();
        let at = |text: &str| moment(text, now).unwrap().rfc3339();
        assert_eq!(at("1h"), "2026-05-02T00:00:00.000Z");
        assert_eq!(at("7d"), "2026-04-25T01:00:00.000Z");
        assert_eq!(at("2026-05-01"), "2026-05-01T00:00:00.000Z");
        assert_eq!(at("2026-05-01T12:00:00.5Z"), "2026-05-01T12:00:00.500Z");
        assert!(moment("soon", now).is_err());
    }

    #[test]
    fn ages_are_short() {
        let now = humantime::parse_rfc3339("2026-05-02T01:00:00Z").unwrap();
        assert_eq!(ago(now, "2026-05-02T00:59:30Z"), "30 s ago");
        assert_eq!(ago(now, "2026-05-02T00:00:00.000Z"), "1 h ago");
        assert_eq!(ago(now, "2026-04-22T00:00:00Z"), "10 days ago");
        assert_eq!(ago(now, "?"), "?");
    }
}
