//! Figures for people: durations, sizes, CUs, points in time. All pure; the clock comes in as an argument.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use crate::clock;

const KB: f64 = 1024.0;

/// Milliseconds in the unit that fits: `12.3 µs`, `4.56 ms`, `7.89 s`, `1.5 min`, `2 h`.
pub(super) fn duration_ms(ms: f64) -> String {
    let (value, unit) = match ms {
        0.0 => return "0".to_owned(),
        ms if ms < 1.0 => (ms * 1000.0, "µs"),
        ms if ms < 1000.0 => (ms, "ms"),
        ms if ms < 60_000.0 => (ms / 1000.0, "s"),
        ms if ms < 3_600_000.0 => (ms / 60_000.0, "min"),
        ms => (ms / 3_600_000.0, "h"),
    };
    format!("{} {unit}", significant(value, 3))
}

/// A duration in the unit that fits.
pub(super) fn duration(duration: Duration) -> String {
    duration_ms(duration.as_secs_f64() * 1000.0)
}

/// Bytes in the unit that fits; 1 MB is 1,048,576 bytes, as everywhere in Dormouse.
pub(super) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < KB {
            return format!("{} {unit}", significant(value, 3));
        }
        value /= KB;
    }
    format!("{} TB", significant(value, 3))
}

/// CUs, with enough digits that one epoch of the smallest function still shows.
pub(super) fn cu(cu: f64) -> String {
    significant(cu, 4)
}

/// A number with thousands set apart: `1,234,567`.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `value` with that many significant digits, without an exponent and without zeros that say nothing.
fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(digits - 1 - magnitude).unwrap_or(0).min(12);
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

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
    fn durations_take_the_unit_that_fits() {
        let cases = [
            (0.0, "0"),
            (0.0123, "12.3 µs"),
            (0.5, "500 µs"),
            (1.0, "1 ms"),
            (4.5678, "4.57 ms"),
            (999.0, "999 ms"),
            (1500.0, "1.5 s"),
            (90_000.0, "1.5 min"),
            (7_200_000.0, "2 h"),
            (360_000_000.0, "100 h"),
        ];
        for (ms, expected) in cases {
            assert_eq!(duration_ms(ms), expected, "{ms}");
        }
    }

    #[test]
    fn sizes_and_counts_are_readable() {
        assert_eq!([bytes(0), bytes(999), bytes(1536), bytes(134_217_728)], ["0 B", "999 B", "1.5 KB", "128 MB"]);
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([cu(0.0), cu(1.0), cu(0.000_062_5), cu(12_345.678)], ["0", "1", "0.0000625", "12346"]);
    }

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
