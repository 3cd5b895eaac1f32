//! What queries answer.

use super::*;
use crate::csv::Row;

#[test]
fn a_record_tells_what_was_posted() {
    let host = Fixture::new();
    let start = UNIX_EPOCH + Duration::from_millis(1_767_225_600_123);
    let reading = WindowReading {
        start,
        at: start + MS(90),
        open: MS(80),
        executed: Duration::from_nanos(1_000_001),
        duration: MS(70),
        requests: 3,
        hook_calls: 2,
        parked: MS(9),
        parked_bytes: 5,
        memory_mb: 1024,
        ..window("f")
    };
    host.window(reading.clone());
    let expected = WindowRecord {
        function: "f".to_owned(),
        version: "LATEST".to_owned(),
        instance: reading.instance.to_string(),
        sequence: 1,
        start: "2026-01-01T00:00:00.123Z".to_owned(),
        end: Some("2026-01-01T00:00:00.213Z".to_owned()),
        executed_ms: 1.000_001,
        duration_ms: 70.0,
        open_ms: 80.0,
        requests: 3,
        hook_calls: 2,
        memory_bytes_peak: 1 << 20,
        memory_mb: 1024,
        epochs: 2,
        cu: 0.002,
        basis: Basis::Execution,
        parked_ms: 9.0,
        parked_bytes: 5,
        state: WindowState::Ended,
    };
    assert_eq!(host.windows(), [expected]);

    let mut reading = invocation("g");
    (reading.instance, reading.outcome, reading.delivered, reading.start) = (None, "function-busy", false, start);
    host.invocation(reading.clone());
    host.invocation(reading.clone());
    let expected = |id| InvocationRecord {
        called_by: CalledBy::Data,
        attempt: 1,
        id,
        request: reading.request.to_string(),
        function: "g".to_owned(),
        version: "LATEST".to_owned(),
        instance: None,
        start: "2026-01-01T00:00:00.123Z".to_owned(),
        queued_ms: 1.0,
        handler_ms: 2.0,
        executed_ms: 0.0,
        key: None,
        outcome: "function-busy".to_owned(),
        delivered: false,
    };
    let page = host.ledger.invocations(&RecordQuery::default(), EVERY_FUNCTION).unwrap();
    assert_eq!(page.invocations, [expected(1), expected(2)], "a request identifier may repeat");
}

#[test]
fn sums_of_groups_are_sums_of_records_and_each_window_is_rounded_up_by_itself() {
    let host = Fixture::new();
    let midnight = UNIX_EPOCH + DAY * 20_000;
    for number in 0..60_u32 {
        let function = if number % 3 == 0 { "a" } else { "b" };
        host.window(WindowReading {
            start: midnight + Duration::from_secs(1800) * number,
            executed: Duration::from_nanos(u64::from(number) * 100_001),
            duration: Duration::from_nanos(u64::from(number) * 300_007),
            open: MS(u64::from(number)),
            requests: number,
            hook_calls: 1,
            memory_bytes_peak: u64::from(number),
            memory_mb: 64 * (1 + number % 4),
            basis: if number % 2 == 0 { Basis::Execution } else { Basis::Duration },
            parked: Duration::from_secs(u64::from(number)),
            parked_bytes: 1 << 29,
            ..window(function)
        });
    }
    let records = host.windows();
    let near = |left: f64, right: f64| assert!((left - right).abs() < 1e-9 * left.abs().max(1.0), "{left} {right}");
    for (group, groups) in [(Group::Function, 2), (Group::Instance, 60), (Group::Hour, 30), (Group::Day, 2)] {
        let usage = host.usage(group);
        assert_eq!(usage.groups.len(), groups, "{group:?}");
        for UsageGroup { key, sums } in &usage.groups {
            let of_group: Vec<&WindowRecord> = records
                .iter()
                .filter(|record| match group {
                    Group::None | Group::Key => true,
                    Group::Function => record.function == *key,
                    Group::Instance => record.instance == *key,
                    Group::Hour => record.start[..13] == key[..13],
                    Group::Day => record.start[..10] == key[..10],
                })
                .collect();
            let whole = |of: fn(&WindowRecord) -> u64| of_group.iter().map(|record| of(record)).sum::<u64>();
            assert_eq!(sums.windows, of_group.len() as u64);
            assert_eq!(sums.epochs, whole(|record| record.epochs));
            assert_eq!(sums.execution_epochs, whole(|record| record.executed_ms.ceil() as u64));
            assert_eq!(sums.duration_epochs, whole(|record| record.duration_ms.ceil() as u64));
            assert_eq!(sums.requests, whole(|record| u64::from(record.requests)));
            assert_eq!(sums.memory_bytes_peak, of_group.iter().map(|record| record.memory_bytes_peak).max().unwrap());
            let close =
                |sum: f64, of: fn(&WindowRecord) -> f64| near(sum, of_group.iter().map(|record| of(record)).sum());
            close(sums.cu, |record| record.cu);
            close(sums.executed_ms, |record| record.executed_ms);
            close(sums.duration_ms, |record| record.duration_ms);
            close(sums.open_ms, |record| record.open_ms);
            close(sums.parked_ms, |record| record.parked_ms);
            near(sums.parked_gb_seconds, sums.parked_ms / 2000.0);
        }
        assert_eq!(usage.total, host.usage(Group::None).total);
        assert_eq!(usage.total.hook_calls, 60);
    }
    // The first windows executed 0, 0.1, 0.2 .. 0.9 ms and a little: nine epochs for 4.5 ms.
    let few = host.usage(Group::Instance).groups;
    assert_eq!(few.iter().filter(|group| group.sums.execution_epochs == 1).count(), 9);
}

#[test]
fn a_window_belongs_to_the_time_in_which_it_starts() {
    let host = Fixture::new();
    let noon = UNIX_EPOCH + DAY * 20_000 + DAY / 2;
    for start in [noon - MS(1), noon, noon + MS(999), noon + MS(1000)] {
        host.window(WindowReading { start, ..window("f") });
        host.window(WindowReading { start, ..window("g") });
    }
    let query = UsageQuery {
        function: Some("f".parse().unwrap()),
        from: Some(noon),
        to: Some(noon + MS(1000)),
        group: Group::Hour,
    };
    let usage = host.ledger.usage(&query, EVERY_FUNCTION).unwrap();
    assert_eq!(usage.total.windows, 2);
    assert_eq!(usage.groups.len(), 1);
    assert_eq!(usage.groups[0].key, "2024-10-04T12:00:00Z");
    assert_eq!(host.ledger.usage(&UsageQuery { function: None, ..query }, EVERY_FUNCTION).unwrap().total.windows, 4);
}

#[test]
fn an_empty_ledger_has_used_nothing() {
    let host = Fixture::new();
    for group in [Group::None, Group::Function, Group::Day] {
        assert_eq!(host.usage(group), Usage::default());
    }
}

#[test]
fn parked_time_of_thousands_of_instances_for_years_is_summed() {
    let host = Fixture::new();
    let century = DAY * 36_500;
    for _ in 0..10 {
        host.window(WindowReading { parked: century, parked_bytes: 1 << 30, ..window("f") });
    }
    let mut total = host.usage(Group::None).total;
    assert_eq!(total.parked_ms, century.as_secs_f64() * 10_000.0);
    assert_eq!(total.parked_gb_seconds, century.as_secs_f64() * 10.0);
    total.add_parked(century, 1 << 29);
    assert_eq!(total.parked_ms, century.as_secs_f64() * 11_000.0);
    assert_eq!(total.parked_gb_seconds, century.as_secs_f64() * 10.5);
}

#[test]
fn every_field_of_a_record_is_a_column() {
    fn columns<R: Row>(record: &R) {
        let record = serde_json::to_value(record).unwrap();
        let mut fields: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
        let mut columns = R::COLUMNS.to_vec();
        fields.sort_unstable();
        columns.sort_unstable();
        assert_eq!(fields, columns);
    }
    let host = Fixture::new();
    host.window(window("f"));
    host.invocation(InvocationReading { key: Some(KeyId::random()), ..invocation("f") });
    columns(&host.windows()[0]);
    columns(&host.ledger.invocations(&RecordQuery::default(), EVERY_FUNCTION).unwrap().invocations[0]);
    columns(&host.usage(Group::Function).groups[0]);
}

#[test]
fn pages_hold_every_record_once_in_the_order_of_their_starts() {
    let host = Fixture::new();
    let noon = UNIX_EPOCH + DAY * 20_000;
    for number in 0..25_u64 {
        let function = if number % 5 == 0 { "rare" } else { "f" };
        // Backwards, and several with the same start.
        let start = noon - Duration::from_secs(number / 3);
        host.invocation(InvocationReading { start, ..invocation(function) });
        host.window(WindowReading { start, ..window(function) });
    }
    for (function, count, newest) in
        [(None, 25, false), (Some("rare"), 5, false), (None, 25, true), (Some("rare"), 5, true)]
    {
        let function = function.map(|name: &str| name.parse().unwrap());
        let mut query = RecordQuery { function, limit: 4, newest, ..RecordQuery::default() };
        let mut seen = Vec::new();
        loop {
            let page = host.ledger.invocations(&query, EVERY_FUNCTION).unwrap();
            assert!(page.invocations.len() == 4 || page.next.is_none());
            seen.extend(page.invocations.into_iter().map(|record| (record.start, record.id)));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), count);
        if newest {
            seen.reverse();
        }
        assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]));
    }
    let query = RecordQuery { limit: 25, ..RecordQuery::default() };
    let page = host.ledger.windows(&query, EVERY_FUNCTION).unwrap();
    assert_eq!((page.windows.len(), page.next), (25, None), "a full page is not always followed by another");
    let query = RecordQuery { limit: 1, newest: true, ..RecordQuery::default() };
    let page = host.ledger.windows(&query, EVERY_FUNCTION).unwrap();
    assert_eq!(humantime::parse_rfc3339(&page.windows[0].start).unwrap(), noon);
}

#[test]
fn a_window_that_ends_between_two_pages_is_on_one_of_them() {
    let host = Fixture::new();
    let start = SystemTime::now();
    let windows: Vec<WindowReading> = (0..10).map(|_| WindowReading { start, ended: false, ..window("f") }).collect();
    windows.iter().for_each(|window| host.window(window.clone()));
    let mut query = RecordQuery { limit: 5, function: Some("f".parse().unwrap()), ..RecordQuery::default() };
    let mut seen = host.ledger.windows(&query, EVERY_FUNCTION).unwrap();
    windows.into_iter().for_each(|window| host.window(WindowReading { ended: true, ..window }));
    query.after = seen.next.take();
    let rest = host.ledger.windows(&query, EVERY_FUNCTION).unwrap();
    assert!(seen.windows.iter().all(|window| window.state == WindowState::Open));
    assert!(rest.windows.iter().all(|window| window.state == WindowState::Ended));
    let all = seen.windows.iter().chain(&rest.windows).map(|window| window.instance.clone());
    assert_eq!(all.collect::<std::collections::BTreeSet<_>>().len(), 10);
}

#[test]
fn open_windows_are_on_the_bill_and_among_the_records_of_their_function() {
    let host = Fixture::new();
    for function in ["f", "g"] {
        host.window(WindowReading { ended: false, ..window(function) });
        host.window(window(function));
    }
    assert_eq!(host.usage(Group::None).total.windows, 4);
    let query = UsageQuery { function: Some("f".parse().unwrap()), group: Group::Function, ..UsageQuery::default() };
    let usage = host.ledger.usage(&query, EVERY_FUNCTION).unwrap();
    assert_eq!((usage.total.windows, usage.groups.len(), usage.groups[0].key.as_str()), (2, 1, "f"));
    let query = RecordQuery { function: Some("g".parse().unwrap()), ..RecordQuery::default() };
    assert_eq!(host.ledger.windows(&query, EVERY_FUNCTION).unwrap().windows.len(), 2);
}

#[test]
fn records_of_long_ago_that_are_stored_late_are_in_their_place() {
    let host = Fixture::new();
    let now = SystemTime::now();
    let ages = [0, 3600, 1, 7200, 2, 3, 4];
    for age in ages {
        let start = now - Duration::from_secs(age);
        host.invocation(InvocationReading { start, ..invocation("f") });
        host.ledger.flush().unwrap();
    }
    let mut sorted = ages;
    sorted.sort_unstable_by(|left, right| right.cmp(left));
    let expected = sorted.map(|age| time::rfc3339_ms(time::to_unix_us(now - Duration::from_secs(age))));
    for limit in [1, 2, 3, 7] {
        let mut query = RecordQuery { limit, ..RecordQuery::default() };
        let mut starts = Vec::new();
        loop {
            let page = host.ledger.invocations(&query, EVERY_FUNCTION).unwrap();
            starts.extend(page.invocations.into_iter().map(|record| record.start));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!(starts, expected, "{limit} on a page");
    }
    for (from, to, count) in [(3600, 3, 2), (3600, 2, 3), (4, 0, 4), (7201, 3601, 1)] {
        let at = |age| Some(now - Duration::from_secs(age));
        let query = RecordQuery { from: at(from), to: at(to), ..RecordQuery::default() };
        assert_eq!(host.ledger.invocations(&query, EVERY_FUNCTION).unwrap().invocations.len(), count, "{from} to {to}");
    }
}

#[test]
fn a_damaged_block_is_an_error_and_no_short_answer() {
    let host = Fixture::new();
    for _ in 0..3 {
        host.invocation(invocation("f"));
        host.window(window("f"));
    }
    host.ledger.flush().unwrap();
    for table in ["invocation_blocks", "window_blocks"] {
        let cut = format!("UPDATE {table} SET rows = substr(rows, 1, length(rows) - 1)");
        host.sqlite().execute_batch(&cut).unwrap();
    }
    assert!(matches!(host.ledger.invocations(&RecordQuery::default(), EVERY_FUNCTION), Err(QueryError::Store(_))));
    assert!(matches!(host.ledger.windows(&RecordQuery::default(), EVERY_FUNCTION), Err(QueryError::Store(_))));
    assert!(matches!(host.ledger.usage(&UsageQuery::default(), EVERY_FUNCTION), Err(QueryError::Store(_))));
}

#[test]
fn an_answer_with_too_many_groups_is_refused() {
    let host = Fixture::new();
    let (post, reading) = (host.ledger.post(), window("f"));
    for _ in 0..=query::GROUPS_MAX {
        post(Reading::Window(&WindowReading { instance: InstanceId::random(), ..reading.clone() }));
    }
    let by = |group| host.ledger.usage(&UsageQuery { group, ..UsageQuery::default() }, EVERY_FUNCTION);
    assert!(matches!(by(Group::Instance), Err(QueryError::TooManyGroups)));
    assert_eq!(by(Group::Function).unwrap().total.windows, 1 + query::GROUPS_MAX as u64);
}

#[test]
fn bad_limits_and_cursors_are_refused() {
    let host = Fixture::new();
    for limit in [0, 10_001] {
        let query = RecordQuery { limit, ..RecordQuery::default() };
        assert!(
            matches!(host.ledger.windows(&query, EVERY_FUNCTION), Err(QueryError::InvalidLimit(refused)) if refused == limit)
        );
    }
    for after in ["", "1", "1-", "a-b", "1-2-3"] {
        let query = RecordQuery { after: Some(after.to_owned()), ..RecordQuery::default() };
        assert!(matches!(host.ledger.invocations(&query, EVERY_FUNCTION), Err(QueryError::InvalidCursor)), "{after}");
    }
}

#[test]
fn queries_are_json_with_times_in_rfc_3339() {
    let query: UsageQuery =
        serde_json::from_str(r#"{"function": "f", "from": "2026-01-01T00:00:00Z", "group": "day"}"#).unwrap();
    assert_eq!(query.from, Some(UNIX_EPOCH + Duration::from_secs(1_767_225_600)));
    let text = serde_json::to_string(&query).unwrap();
    assert_eq!(text, r#"{"function":"f","from":"2026-01-01T00:00:00.000Z","group":"day"}"#);
    for wrong in [r#"{"from": "yesterday"}"#, r#"{"form": "2026-01-01T00:00:00Z"}"#, r#"{"group": "Day"}"#] {
        assert!(serde_json::from_str::<UsageQuery>(wrong).is_err(), "{wrong}");
    }
    assert_eq!(serde_json::from_str::<RecordQuery>("{}").unwrap().limit, 1000);

    let group = UsageGroup { key: "f".to_owned(), sums: Sums { requests: 3, ..Sums::default() } };
    let json = serde_json::to_value(&group).unwrap();
    assert_eq!((&json["key"], &json["requests"], &json["hookCalls"]), (&"f".into(), &3.into(), &0.into()));
    assert_eq!(serde_json::from_value::<UsageGroup>(json).unwrap(), group);
}

#[test]
fn what_an_instance_used_is_divided_among_the_keys_of_its_requests() {
    let host = Fixture::new();
    let [one, other] = [1, 2].map(KeyId::from_u64);
    let shared = InstanceId::random();
    let of =
        |key, ms, instance| InvocationReading { key, executed: MS(ms), instance: Some(instance), ..invocation("f") };
    for (key, ms) in [(Some(one), 10), (Some(other), 20), (Some(one), 10), (None, 40)] {
        host.invocation(of(key, ms, shared));
    }
    host.window(WindowReading { instance: shared, executed: MS(160), requests: 4, ..window("f") });
    // One of `other` alone, and one that no request had.
    let own = InstanceId::random();
    host.invocation(of(Some(other), 5, own));
    host.window(WindowReading { instance: own, executed: MS(6), requests: 1, ..window("f") });
    host.window(WindowReading { executed: MS(3), requests: 0, hook_calls: 1, ..window("g") });
    let usage = host.usage(Group::Key);
    let found: Vec<_> = usage
        .groups
        .iter()
        .map(|group| (group.key.as_str(), group.sums.requests, group.sums.executed_ms, group.sums.epochs))
        .collect();
    let (one, other) = (one.to_string(), other.to_string());
    assert_eq!(found, [("-", 1, 83.0, 83), (one.as_str(), 2, 40.0, 40), (other.as_str(), 2, 46.0, 46)]);
    assert_eq!(usage.total, host.usage(Group::None).total);
    let query = UsageQuery { group: Group::Key, ..UsageQuery::default() };
    let seen = host.ledger.usage(&query, &|function| function == "g").unwrap();
    assert_eq!((seen.groups.len(), seen.total.executed_ms, seen.groups[0].key.as_str()), (1, 3.0, "-"));
}
