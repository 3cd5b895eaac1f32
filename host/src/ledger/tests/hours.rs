//! Sums of hours: they say what the windows say, whatever is asked and however far they are.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn noise(number: u64) -> u64 {
    // Of SplitMix64.
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 11
}

/// Windows of two functions over three days, some of them just at the edges of hours.
fn post_windows(host: &Fixture, from: SystemTime, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let at = Duration::from_micros(noise(number) % (72 * 3_600_000_000));
        let hours = HOUR * (at.as_secs() / 3600) as u32;
        let start = match number % 4 {
            0 => from + hours,
            1 => from + hours + HOUR - Duration::from_micros(1),
            _ => from + at,
        };
        host.window(WindowReading {
            start,
            open: MS(noise(number + 1) % 1000),
            executed: Duration::from_nanos(noise(number + 2) % 50_000_000),
            duration: Duration::from_nanos(noise(number + 3) % 90_000_000),
            requests: (number % 7) as u32,
            hook_calls: (number % 3) as u32,
            memory_bytes_peak: noise(number + 4) % (1 << 30),
            memory_mb: [64, 128, 333][number as usize % 3],
            basis: if number.is_multiple_of(5) { Basis::Duration } else { Basis::Execution },
            parked: MS(noise(number + 5) % 100_000),
            parked_bytes: noise(number + 6) % (1 << 20),
            ..window(["f", "g"][number as usize % 2])
        });
    }
}

/// The sums of hours are used for all groups but that of instances, whose total is of windows only.
fn check(host: &Fixture, from: SystemTime) {
    let ask = |group, function: Option<&str>, from, to| {
        let function = function.map(|name| name.parse().unwrap());
        host.ledger.usage(&UsageQuery { function, from, to, group }, EVERY_FUNCTION).unwrap()
    };
    let minutes = |count: u32| Some(from + Duration::from_secs(60) * count);
    let times =
        [None, minutes(0), minutes(60), minutes(90), minutes(59), minutes(24 * 60), minutes(4000), minutes(4321)];
    for function in [None, Some("f"), Some("h")] {
        for from in times {
            for to in times {
                let exact = ask(Group::Instance, function, from, to).total;
                for group in [Group::None, Group::Function, Group::Hour, Group::Day] {
                    let usage = ask(group, function, from, to);
                    assert_eq!(usage.total, exact, "{group:?} of {function:?} from {from:?} to {to:?}");
                    let windows: u64 = usage.groups.iter().map(|group| group.sums.windows).sum();
                    assert!(group == Group::None || windows == exact.windows, "{group:?} from {from:?} to {to:?}");
                }
            }
        }
    }
    for group in ask(Group::Hour, None, None, None).groups {
        let begin = humantime::parse_rfc3339(&group.key).unwrap();
        assert_eq!(ask(Group::Instance, None, Some(begin), Some(begin + HOUR)).total, group.sums, "{}", group.key);
    }
    for group in ask(Group::Function, None, minutes(30), None).groups {
        assert_eq!(ask(Group::Instance, Some(&group.key), minutes(30), None).total, group.sums, "{}", group.key);
    }
}

#[test]
fn they_say_what_the_windows_say() {
    let from = UNIX_EPOCH + DAY * 20_000;
    for unsummed_max in [0, 3, usize::MAX] {
        let host = Fixture::with(Options { unsummed_max, ..FOR_EVER });
        for batch in 0..4 {
            post_windows(&host, from, batch * 150..(batch + 1) * 150);
            host.ledger.flush().unwrap();
            check(&host, from);
        }
        let waits = "SELECT count(*) FROM window_blocks WHERE id >= (SELECT next FROM summed)";
        let comes_close = || host.count(waits).unsigned_abs() as usize <= unsummed_max;
        assert!(comes(comes_close), "no more wait than may");
        assert_eq!(host.count("SELECT count(*) FROM hours") > 0, unsummed_max < usize::MAX);
        check(&host, from);
        let killed = host.killed();
        check(&killed, from);
    }
}

#[test]
fn a_ledger_of_an_earlier_version_is_added_to_them_little_by_little() {
    let from = UNIX_EPOCH + DAY * 20_000;
    let host = Fixture::with(Options { unsummed_max: usize::MAX, ..FOR_EVER });
    // More blocks than are added at once.
    for batch in 0..8 {
        post_windows(&host, from, batch * 150..(batch + 1) * 150);
        host.ledger.flush().unwrap();
    }
    host.ledger.close().unwrap();
    let sqlite = host.sqlite();
    sqlite.execute_batch("DROP TABLE hours; DROP TABLE summed; PRAGMA user_version = 5").unwrap();
    let options = Options { unsummed_max: 0, ..FOR_EVER };
    let path = host.folder.path().join("ledger.db");
    let host = Fixture { ledger: Ledger::open(&path, options).unwrap(), folder: host.folder };
    check(&host, from);
    let waits = "SELECT count(*) FROM window_blocks WHERE id >= (SELECT next FROM summed)";
    assert!(comes(|| host.count(waits) == 0), "without anything that is posted");
    check(&host, from);
}

#[test]
fn windows_after_all_others_were_deleted_are_on_the_bill() {
    let host = Fixture::with(Options { unsummed_max: 0, ..FOR_EVER });
    post_windows(&host, UNIX_EPOCH + DAY * 20_000, 0..50);
    host.ledger.flush().unwrap();
    assert!(comes(|| host.count("SELECT next FROM summed") > 50));
    host.ledger.close().unwrap();
    host.sqlite().execute_batch("DELETE FROM window_blocks; DELETE FROM hours").unwrap();
    let path = host.folder.path().join("ledger.db");
    let host = Fixture { ledger: Ledger::open(&path, FOR_EVER).unwrap(), folder: host.folder };
    host.window(window("f"));
    assert_eq!(host.usage(Group::Function).total.windows, 1);
}

#[test]
fn those_of_deleted_windows_go_with_them() {
    let host = Fixture::with(Options { window_retention: DAY, unsummed_max: 0, ..FOR_EVER });
    for days in [3, 2, 0] {
        host.window(WindowReading { start: SystemTime::now() - DAY * days, ..window("f") });
        host.ledger.flush().unwrap();
    }
    assert!(comes(|| host.count("SELECT count(*) FROM hours") == 1), "the sums of two days are deleted");
    assert_eq!(host.usage(Group::None).total.windows, 1);
}
