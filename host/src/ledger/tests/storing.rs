//! Readings on their way into the file: none lost, none twice, none too late.

use super::*;

#[test]
fn a_query_sees_everything_posted_before_it() {
    let host = Fixture::new();
    for posted in 1..=20 {
        host.window(window("f"));
        host.invocation(invocation("f"));
        assert_eq!(host.usage(Group::None).total.windows, posted);
        let page = host.ledger.invocations(&RecordQuery::default(), EVERY_FUNCTION).unwrap();
        assert_eq!(page.invocations.len() as u64, posted);
    }
    assert_eq!(host.ledger.backlog(), 0);
}

#[test]
fn readings_are_stored_although_nobody_asks() {
    let host = Fixture::new();
    // The first may find the writer awake; the later ones must wake it.
    for posted in 1..=5 {
        host.invocation(invocation("f"));
        assert!(comes(|| host.stored_invocations() == posted));
    }
}

#[test]
fn a_window_that_is_posted_again_is_not_charged_again() {
    let host = Fixture::new();
    let open = WindowReading { ended: false, open: MS(10), executed: MS(10), ..window("f") };
    let more = WindowReading { open: MS(20), executed: MS(15), requests: 2, ..open.clone() };
    let ended = WindowReading { ended: true, open: MS(30), executed: MS(25), requests: 2, ..open.clone() };
    // With a query between, each is a transaction of its own. Earlier readings that arrive late change nothing.
    let steps = [(&open, 10.0), (&more, 15.0), (&open, 15.0), (&ended, 25.0), (&more, 25.0), (&ended, 25.0)];
    for (reading, executed_ms) in steps {
        host.window(reading.clone());
        let total = host.usage(Group::None).total;
        assert_eq!((total.windows, total.executed_ms), (1, executed_ms));
    }
    assert_eq!(host.windows()[0].state, WindowState::Ended);
}

#[test]
fn readings_that_wait_together_are_one_row_of_the_latest() {
    let host = Fixture::new();
    let first = WindowReading { ended: false, ..window("f") };
    for ms in 1..=1000 {
        host.window(WindowReading { open: MS(ms), executed: MS(ms), ended: ms == 1000, ..first.clone() });
    }
    let total = host.usage(Group::None).total;
    assert_eq!((total.windows, total.requests, total.epochs), (1, 1, 1000));
    assert_eq!(host.ledger.backlog(), 0);
}

#[test]
fn the_heart_beats_while_a_window_is_busy_and_only_then() {
    let host = Fixture::new();
    let busy = WindowReading { ended: false, busy: true, ..window("f") };
    host.window(busy.clone());
    host.ledger.flush().unwrap();
    let first = host.heartbeat();
    assert!(comes(|| host.heartbeat() > first));

    for quiet in [WindowReading { busy: false, open: MS(1), ..busy.clone() }, WindowReading { ended: true, ..busy }] {
        host.window(quiet);
        host.ledger.flush().unwrap();
        let last = host.heartbeat();
        std::thread::sleep(COMMIT_WITHIN * 4); // There is no event to wait for if nothing happens.
        assert_eq!(host.heartbeat(), last);
    }
}

#[test]
fn old_records_are_deleted_and_windows_are_kept_longer() {
    let host = Fixture::with(Options { retention: DAY, window_retention: DAY * 10, ..FOR_EVER });
    let ago = |days| SystemTime::now() - DAY * days;
    for days in [0, 2, 20] {
        host.invocation(InvocationReading { start: ago(days), ..invocation("f") });
        host.window(WindowReading { start: ago(days), ..window("f") });
    }
    host.window(WindowReading { start: ago(20), ended: false, ..window("open") });
    host.ledger.flush().unwrap();
    let windows = || host.count("SELECT sum(count) FROM window_blocks");
    assert!(comes(|| (host.stored_invocations(), windows()) == (1, 2)));
    assert!(host.windows().iter().any(|window| window.function == "open"), "the open window is kept, too");
}

#[test]
fn a_clock_that_jumped_years_ahead_deletes_nothing_at_once() {
    let mut host = Fixture::new();
    let ago = |days| SystemTime::now() - DAY * days;
    for days in [731, 730] {
        host.invocation(InvocationReading { start: ago(days), ..invocation("f") });
        host.window(WindowReading { start: ago(days), ..window("f") });
    }
    host.ledger.close().unwrap();
    // What a host leaves behind that ran when the clock still showed that.
    host.sqlite().execute("UPDATE heartbeat SET date_us = ?1", [time::to_unix_us(ago(730))]).unwrap();
    host.ledger = Ledger::open(&host.folder.path().join("ledger.db"), Options::default()).unwrap();
    for _ in 0..3 {
        // Each commit deletes what is old, so the last one finds what the others left.
        host.invocation(invocation("f"));
        host.ledger.flush().unwrap();
    }
    assert_eq!((host.stored_invocations(), host.windows().len()), (5, 2));
    host.ledger.close().unwrap();
    let date = host.count("SELECT date_us FROM heartbeat");
    assert!(date < time::to_unix_us(ago(729)), "the next host is as careful");
}

#[test]
fn many_old_blocks_are_deleted_in_steps_and_never_one_with_a_record_that_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("ledger.db")).unwrap();
    let mut batch = batch::Batch::default();
    let intake = Intake::new(1000);
    let kept = UNIX_EPOCH + Duration::from_secs(1_048_576 * 2); // The beginning of a time span.
    for number in 0..10 {
        let function = format!("f{number}");
        intake.post(Reading::Invocation(&InvocationReading { start: UNIX_EPOCH, ..invocation(&function) }));
    }
    for start in [kept, kept + MS(1000)] {
        intake.post(Reading::Invocation(&InvocationReading { start, ..invocation("f") }));
    }
    intake.drain(false, |taken| assert_eq!(batch.take([taken]), 0));
    store.write(&batch, batch.chunk(100), None).unwrap();
    let prune = |now| -> Vec<usize> { (0..4).map(|_| store.prune(now, now, 4).unwrap()).collect() };
    assert_eq!(prune(kept + MS(1000)), [4, 4, 2, 0]);
    assert_eq!(prune(kept + MS(1001)), [1, 0, 0, 0]);
}

#[test]
fn while_sqlite_refuses_the_readings_wait_and_nothing_is_lost() {
    let host = Fixture::new();
    let sqlite = host.sqlite();
    sqlite.execute_batch("BEGIN IMMEDIATE").unwrap();
    host.invocation(invocation("f"));
    host.window(window("f"));
    assert!(matches!(host.ledger.flush(), Err(QueryError::Behind)));
    assert!(!host.ledger.healthy());
    host.invocation(invocation("f"));
    assert_eq!(host.ledger.backlog(), 3);
    assert!(host.ledger.has_room());

    sqlite.execute_batch("COMMIT").unwrap();
    assert!(comes(|| host.ledger.healthy()), "it tries again by itself");
    assert_eq!(host.usage(Group::None).total.windows, 1);
    assert_eq!(host.ledger.invocations(&RecordQuery::default(), EVERY_FUNCTION).unwrap().invocations.len(), 2);
    assert_eq!(host.ledger.backlog(), 0);
}

#[test]
fn eight_threads_lose_nothing() {
    const EACH: u64 = 12_500;
    let host = Fixture::new();
    let instances: Arc<Vec<InstanceId>> = Arc::new((0..8).map(|_| InstanceId::random()).collect());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (post, instances) = (host.ledger.post(), instances.clone());
            scope.spawn(move || {
                for number in 1..=EACH {
                    post(Reading::Invocation(&invocation("f")));
                    // A hundred readings for each window; the last one ends it.
                    let sequence = u32::try_from((number - 1) / 100).unwrap();
                    let executed = MS((number - 1) % 100 + 1);
                    let ended = number % 100 == 0;
                    let instance = instances[thread];
                    let reading = WindowReading { instance, sequence, executed, open: executed, ended, ..window("f") };
                    post(Reading::Window(&reading));
                }
            });
        }
    });
    let total = host.usage(Group::None).total;
    assert_eq!((total.windows, total.epochs), (8 * EACH / 100, 8 * EACH));
    assert_eq!(host.stored_invocations().cast_unsigned(), 8 * EACH);
}

#[test]
fn a_commit_is_a_row_for_each_function_and_not_for_each_reading() {
    let host = Fixture::new();
    for _ in 0..500 {
        for function in ["f", "g"] {
            host.invocation(invocation(function));
            host.window(window(function));
        }
    }
    host.ledger.flush().unwrap();
    for table in ["invocation_blocks", "window_blocks"] {
        let rows = host.count(&format!("SELECT count(*) FROM {table}"));
        // The readings may fall into two time spans, and into several commits if this thread waits for the CPU.
        assert!((2..100).contains(&rows), "{rows} in {table}");
        assert_eq!(host.count(&format!("SELECT sum(count) FROM {table}")), 1000);
    }
    assert_eq!(host.count("SELECT count(*) FROM open_windows"), 0);
}
