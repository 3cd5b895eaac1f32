//! Timers: when a function is invoked by the clock. Pure: the time comes in as an argument.
//!
//! Expressions and time zones are those of libraries (croner, and jiff with the IANA database that it brings). Where clocks are
//! set forward, a time of the day that is left out comes when the clocks are set; where they are set back, one that is there
//! twice comes once. What repeats within the hour goes on through both.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const PAYLOAD_BYTES_MAX: usize = 65_536;
const EXPRESSION_BYTES_MAX: usize = 256;
/// Between two ticks.
const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Missed ticks that one start may make up for.
const MISSED_MAX: u32 = 10_000;
/// Ticks that are this late were missed, for example because the machine slept.
const LATE: Duration = Duration::from_secs(60);

/// When a function is invoked by the clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TimerSpec {
    /// A cron expression of five fields, or of six with the seconds first: `0 3 * * MON-FRI`; or `@hourly`, `@daily`, `@weekly`,
    /// `@monthly`, `@yearly`, or `@every 5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Instead of `cron`: a fixed rate, in ms from one tick to the next, at least 1000. It begins when the trigger is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// The time zone of `cron`, by its IANA name, such as `Europe/Berlin`; by default `UTC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// A text that the function gets in its event, as `payload`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub payload: String,
    /// What becomes of ticks that were missed while the host was down; by default `once`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
    /// How many of them at most with `all`, the newest: 1 to 10 000; by default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed_max: Option<u32>,
}

/// What becomes of ticks that were missed while the host was down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// They are left out.
    Skip,
    /// The last of them is made up for.
    #[default]
    Once,
    /// All of them are, up to `missedMax`.
    All,
}

/// A checked timer.
#[derive(Clone, Debug)]
pub struct Timer {
    /// When it ticks.
    pub schedule: Schedule,
    /// What the function gets.
    pub payload: String,
    /// How many missed ticks are made up for: the newest.
    pub missed_max: usize,
}

/// When a timer ticks. As text it is what makes a timer the same one after a change.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// By a cron expression in a time zone.
    Cron(Box<Cron>, TimeZone),
    /// At a fixed rate.
    Every(Duration),
}

impl TimerSpec {
    pub(super) fn check(&self) -> Result<Timer, Vec<String>> {
        let mut faults = Vec::new();
        let schedule = self.schedule().map_err(|fault| faults.push(fault)).ok();
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            faults.push(format!("`timer.payload` has more than {PAYLOAD_BYTES_MAX} bytes"));
        }
        let all_max = self.missed_max.unwrap_or(100);
        if !(1..=MISSED_MAX).contains(&all_max) {
            faults.push(format!("`timer.missedMax` is {all_max}; it must be 1 to {MISSED_MAX}"));
        }
        let missed_max = match self.missed.unwrap_or_default() {
            Missed::Skip => 0,
            Missed::Once => 1,
            Missed::All => all_max as usize,
        };
        match schedule {
            Some(schedule) if faults.is_empty() => Ok(Timer { schedule, payload: self.payload.clone(), missed_max }),
            Some(_) | None => Err(faults),
        }
    }

    fn schedule(&self) -> Result<Schedule, String> {
        let every = |every: Duration| {
            if (EVERY_MIN..=EVERY_MAX).contains(&every) {
                return Ok(Schedule::Every(every));
            }
            Err("a fixed rate must be from one second to 366 days".to_owned())
        };
        match (&self.cron, self.every_ms) {
            (Some(text), None) => match text.trim().strip_prefix("@every ") {
                Some(_) if self.timezone.is_some() => {
                    Err("`timer.timezone` is for times of the day; leave it out".to_owned())
                }
                Some(text) => every(humantime::parse_duration(text.trim()).map_err(|error| {
                    format!("`timer.cron`: `{text}` is no duration such as `90s`, `5m` or `2h`: {error}")
                })?),
                None => self.cron(text),
            },
            (None, Some(_)) if self.timezone.is_some() => {
                Err("`timer.timezone` is for times of the day; leave it out".to_owned())
            }
            (None, Some(ms)) => every(Duration::from_millis(ms)),
            (Some(_), Some(_)) => {
                Err("the timer has both `cron` and `everyMs`; set one of them to null, or leave it out".to_owned())
            }
            (None, None) => Err("a timer needs `cron`, for example `0 3 * * *`, or `everyMs`".to_owned()),
        }
    }

    fn cron(&self, text: &str) -> Result<Schedule, String> {
        let shown: String = text.chars().take(EXPRESSION_BYTES_MAX).collect();
        let wrong = |error: &dyn fmt::Display| {
            format!(
                "`timer.cron`: `{shown}` is no cron expression ({error}); write minute, hour, day of the month, month and day of \
                 the week, with the seconds before them if you need those: `0 3 * * MON-FRI`"
            )
        };
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(wrong(&"it is too long"));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(text.trim()).map_err(|error| wrong(&error))?;
        let zone = self.timezone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(zone).map_err(|_| {
            let zone: String = zone.chars().take(64).collect();
            format!("`timer.timezone`: `{zone}` is no time zone of the IANA database, such as `Europe/Berlin`")
        })?;
        let schedule = Schedule::Cron(Box::new(cron), zone);
        // The 30th of February, for example.
        let first = schedule.next(UNIX_EPOCH + Duration::from_secs(1_800_000_000), UNIX_EPOCH);
        if first.is_none() { Err(format!("`timer.cron`: `{shown}` never comes")) } else { Ok(schedule) }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Cron(cron, zone) => write!(f, "{} {}", cron.as_str(), zone.iana_name().unwrap_or("UTC")),
            Schedule::Every(every) => write!(f, "@every {}", humantime::format_duration(*every)),
        }
    }
}

impl Schedule {
    /// The first tick after `after`. A fixed rate counts from `anchor`, which is one of its ticks, or when it was made.
    pub fn next(&self, after: SystemTime, anchor: SystemTime) -> Option<SystemTime> {
        match self {
            Schedule::Cron(cron, zone) => {
                cron.find_next_occurrence(&zoned(after, zone)?, false).ok().map(|at| at.timestamp().into())
            }
            Schedule::Every(every) => {
                let ticks = after.duration_since(anchor).unwrap_or_default().as_nanos() / every.as_nanos() + 1;
                anchor.checked_add(every.checked_mul(u32::try_from(ticks).ok()?)?)
            }
        }
    }

    /// The last tick until `by`, if it is after `anchor`.
    fn last(&self, by: SystemTime, anchor: SystemTime) -> Option<SystemTime> {
        let last = match self {
            Schedule::Cron(cron, zone) => {
                cron.find_previous_occurrence(&zoned(by, zone)?, true).ok().map(|at| at.timestamp().into())
            }
            Schedule::Every(every) => {
                let ticks = by.duration_since(anchor).unwrap_or_default().as_nanos() / every.as_nanos();
                anchor.checked_add(every.checked_mul(u32::try_from(ticks).ok()?)?)
            }
        };
        last.filter(|last| *last > anchor)
    }
}

fn zoned(time: SystemTime, zone: &TimeZone) -> Option<Zoned> {
    Timestamp::try_from(time).ok().map(|time| time.to_zoned(zone.clone()))
}

impl Timer {
    /// The ticks that are due by `now`, the first one first. The last that was dealt with was at `last`; what is before
    /// `started` was missed, since the host was down.
    pub fn due(&self, last: SystemTime, started: SystemTime, now: SystemTime) -> Vec<SystemTime> {
        let missed_by = now.checked_sub(LATE).map_or(started, |late| started.max(late));
        let mut due = Vec::new();
        let mut by = missed_by;
        while due.len() < self.missed_max
            && let Some(tick) = self.schedule.last(by, last)
        {
            due.push(tick);
            let Some(before) = tick.checked_sub(Duration::from_millis(1)) else { break };
            by = before;
        }
        due.reverse();
        let mut from = missed_by.max(last);
        while let Some(tick) = self.schedule.next(from, last).filter(|tick| *tick <= now) {
            due.push(tick);
            from = tick;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::{Date, date};

    use super::*;

    fn timer(spec: TimerSpec) -> Timer {
        spec.check().unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    fn cron(expression: &str, zone: &str) -> Timer {
        let cron = Some(expression.to_owned());
        timer(TimerSpec { cron, timezone: Some(zone.to_owned()), ..TimerSpec::default() })
    }

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn ticks(timer: &Timer, from: SystemTime, to: SystemTime) -> Vec<Timestamp> {
        let next = |after: &SystemTime| timer.schedule.next(*after, from);
        let all = std::iter::successors(next(&from), next).take_while(|tick| *tick < to);
        all.map(|tick| Timestamp::try_from(tick).unwrap()).collect()
    }

    /// Seconds that Berlin is ahead of UTC at 03:00 on a day of 2027: summer time is from the last Sunday of March to the last of
    /// October.
    fn berlin_offset(day: Date) -> i64 {
        if day >= date(2027, 3, 28) && day < date(2027, 10, 31) { 7200 } else { 3600 }
    }

    #[test]
    fn a_year_of_ticks_is_right_over_both_changes_of_the_clocks() {
        let (from, to) = (at("2026-12-31T23:00:00Z"), at("2027-12-31T23:00:00Z"));
        let mut expected: Vec<Timestamp> = Vec::new();
        let mut day = date(2027, 1, 1);
        while day.year() == 2027 {
            let utc = day.at(2, 30, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp().as_second();
            expected.push(match day {
                // 02:30 is not there: the clocks go from 02:00 to 03:00, which is 01:00 UTC.
                day if day == date(2027, 3, 28) => "2027-03-28T01:00:00Z".parse().unwrap(),
                // 02:30 is there twice; the first counts, in summer time.
                day if day == date(2027, 10, 31) => "2027-10-31T00:30:00Z".parse().unwrap(),
                day => Timestamp::from_second(utc - berlin_offset(day)).unwrap(),
            });
            day = day.tomorrow().unwrap();
        }
        assert_eq!(ticks(&cron("30 2 * * *", "Europe/Berlin"), from, to), expected);
        // What repeats within the hour goes on: each quarter of an hour of that year, by the clock of UTC.
        let quarters = ticks(&cron("*/15 * * * *", "Europe/Berlin"), from, to);
        assert_eq!(quarters.len(), 365 * 96 - 1, "the first is at `from` itself");
        assert!(quarters.windows(2).all(|pair| pair[1].as_second() - pair[0].as_second() == 900));
        // Without daylight saving nothing moves.
        let utc = ticks(&cron("30 2 * * *", "UTC"), from, to);
        assert!(utc.len() == 365 && utc.windows(2).all(|pair| pair[1].as_second() - pair[0].as_second() == 86_400));
    }

    #[test]
    fn expressions_have_five_or_six_fields_names_and_rates() {
        let from = at("2027-01-01T00:00:30Z");
        for (expression, first) in [
            ("*/5 * * * *", "2027-01-01T00:05:00Z"),
            ("*/20 * * * * *", "2027-01-01T00:00:40Z"),
            ("0 9 * * MON", "2027-01-04T09:00:00Z"),
            ("0 0 1 JUL *", "2027-07-01T00:00:00Z"),
            ("0 0 L * *", "2027-01-31T00:00:00Z"),
            ("@daily", "2027-01-02T00:00:00Z"),
            ("@every 90s", "2027-01-01T00:02:00Z"),
        ] {
            let timer = timer(TimerSpec { cron: Some(expression.to_owned()), ..TimerSpec::default() });
            assert_eq!(timer.schedule.next(from, from).unwrap(), at(first), "{expression}");
        }
        let rate = timer(TimerSpec { every_ms: Some(2500), ..TimerSpec::default() });
        assert_eq!(rate.schedule.next(at("2027-01-01T00:00:33Z"), from).unwrap(), at("2027-01-01T00:00:35Z"));
    }

    #[test]
    fn missed_ticks_are_made_up_for_as_the_timer_says() {
        let hourly = |missed, missed_max| {
            let cron = Some("0 * * * *".to_owned());
            timer(TimerSpec { cron, missed: Some(missed), missed_max, ..TimerSpec::default() })
        };
        let (last, started) = (at("2027-01-01T03:00:00Z"), at("2027-01-01T09:59:30Z"));
        let due = |timer: &Timer, now: &str| {
            let due = timer.due(last, started, at(now));
            due.into_iter()
                .map(|tick| Timestamp::try_from(tick).unwrap().to_string()[11..13].to_owned())
                .collect::<Vec<_>>()
        };
        let before_the_next = "2027-01-01T09:59:40Z";
        assert_eq!(due(&hourly(Missed::Skip, None), before_the_next), [""; 0]);
        assert_eq!(due(&hourly(Missed::Once, None), before_the_next), ["09"]);
        assert_eq!(due(&hourly(Missed::All, None), before_the_next), ["04", "05", "06", "07", "08", "09"]);
        assert_eq!(due(&hourly(Missed::All, Some(2)), before_the_next), ["08", "09"]);
        assert_eq!(due(&hourly(Missed::Skip, None), "2027-01-01T10:00:01Z"), ["10"]);
        assert_eq!(due(&hourly(Missed::Once, None), "2027-01-01T10:00:01Z"), ["09", "10"]);
        // The machine slept for hours.
        assert_eq!(due(&hourly(Missed::Once, None), "2027-01-01T15:30:00Z"), ["15"]);
        let every = timer(TimerSpec { every_ms: Some(3_600_000), missed: Some(Missed::All), ..TimerSpec::default() });
        assert_eq!(due(&every, before_the_next), ["04", "05", "06", "07", "08", "09"]);
    }

    #[test]
    fn a_year_of_missed_seconds_takes_no_time() {
        let cron = Some("* * * * * *".to_owned());
        let timer = timer(TimerSpec { cron, missed: Some(Missed::All), ..TimerSpec::default() });
        let due = timer.due(at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
        assert_eq!(due.len(), 100);
        assert_eq!(due.last(), Some(&at("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let faults = |spec: TimerSpec| spec.check().unwrap_err().join("; ");
        let of = |cron: &str| TimerSpec { cron: Some(cron.to_owned()), ..TimerSpec::default() };
        assert!(faults(TimerSpec::default()).contains("a timer needs `cron`"));
        assert!(faults(TimerSpec { every_ms: Some(1), ..of("* * * * *") }).contains("both `cron` and `everyMs`"));
        assert!(faults(of("every day")).contains("`every day` is no cron expression"));
        assert!(faults(of("* * * * * * *")).contains("is no cron expression"));
        assert!(faults(of("0 0 30 2 *")).contains("never comes"));
        assert!(faults(of("@every soon")).contains("`soon` is no duration"));
        assert!(faults(of("@every 10ms")).contains("from one second"));
        assert!(faults(TimerSpec { every_ms: Some(5), ..TimerSpec::default() }).contains("from one second"));
        let zone = Some("Mars/Base".to_owned());
        assert!(
            faults(TimerSpec { timezone: zone.clone(), ..of("0 3 * * *") }).contains("`Mars/Base` is no time zone")
        );
        assert!(faults(TimerSpec { timezone: zone, ..of("@every 5m") }).contains("leave it out"));
        assert!(faults(TimerSpec { missed_max: Some(0), ..of("0 3 * * *") }).contains("`timer.missedMax` is 0"));
    }
}
