//! Opening, closing, and the effects of a kill or of a foreign file.

use super::*;

#[test]
fn a_killed_host_loses_no_window_and_charges_busy_ones_until_its_last_sign_of_life() {
    let host = Fixture::new();
    let past = SystemTime::now() - MS(10_000);
    let open = WindowReading { ended: false, start: past, at: past, open: MS(7), duration: MS(5), ..window("f") };
    let busy = WindowReading { busy: true, basis: Basis::Duration, ..open.clone() };
    host.window(busy);
    host.window(WindowReading { instance: InstanceId::random(), function: "idle".parse().unwrap(), ..open.clone() });
    host.window(WindowReading { instance: InstanceId::random(), ended: true, function: "e".parse().unwrap(), ..open });
    host.ledger.flush().unwrap();
    assert_eq!(host.windows().iter().filter(|window| window.state == WindowState::Open).count(), 2);

    let next = host.killed();
    let grown = (next.heartbeat() - time::to_unix_us(past)) as f64 / 1000.0;
    assert!((10_000.0..40_000.0).contains(&grown), "{grown}");
    let windows = next.windows();
    let of = |function: &str| windows.iter().find(|window| window.function == function).unwrap();
    assert_eq!(
        (of("f").state, of("idle").state, of("e").state),
        (WindowState::Lost, WindowState::Lost, WindowState::Ended)
    );
    assert!((of("f").duration_ms - grown - 5.0).abs() < 0.001, "{:?}", of("f"));
    assert!((of("f").open_ms - grown - 7.0).abs() < 0.001);
    assert_eq!(of("f").epochs, of("f").duration_ms.ceil() as u64);
    for other in ["idle", "e"] {
        assert_eq!((of(other).duration_ms, of(other).open_ms), (5.0, 7.0));
    }
    assert_eq!(next.killed().windows(), windows, "a second kill changes nothing");
}

#[test]
fn a_closed_ledger_has_stored_everything_and_can_be_closed_again() {
    let mut host = Fixture::new();
    for _ in 0..1000 {
        host.invocation(invocation("f"));
    }
    host.ledger.flush().unwrap();
    let reader = host.sqlite();
    reader.query_row("SELECT count(*) FROM invocation_blocks", (), |_| Ok(())).unwrap();
    host.ledger.close().unwrap();
    host.ledger.close().unwrap();
    host.ledger.flush().unwrap();
    let log = std::fs::metadata(host.folder.path().join("ledger.db-wal")).unwrap();
    assert_eq!(log.len(), 0, "it is folded into the file although somebody else has it open");
    host.invocation(invocation("late"));
    assert_eq!(host.ledger.backlog(), 0);

    let path = host.folder.path().join("ledger.db");
    host.ledger = Ledger::open(&path, FOR_EVER).unwrap();
    host.invocation(invocation("f"));
    let page = host.ledger.invocations(&RecordQuery { limit: 2000, ..RecordQuery::default() }, EVERY_FUNCTION).unwrap();
    assert_eq!(page.invocations.iter().map(|record| record.id).max(), Some(1001));
    assert_eq!(page.invocations.len(), 1001);
}

/// Why `path` cannot be opened.
fn refusal(path: &Path) -> String {
    match Ledger::open(path, Options::default()) {
        Ok(_) => panic!("it was opened"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let host = Fixture::new();
    host.ledger.close().unwrap();
    host.sqlite().pragma_update(None, "user_version", 99).unwrap();
    let text = refusal(&host.folder.path().join("ledger.db"));
    assert!(text.contains("newer Dormouse") && text.contains("99") && text.contains("ledger.db"), "{text}");
    let version: i32 = host.sqlite().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 99);
}

#[test]
fn an_earlier_schema_is_refused_with_advice_and_left_alone() {
    let host = Fixture::new();
    host.ledger.close().unwrap();
    host.sqlite().pragma_update(None, "user_version", 1).unwrap();
    let text = refusal(&host.folder.path().join("ledger.db"));
    assert!(
        text.contains("earlier Dormouse") && text.contains("version 1") && text.contains("move the file"),
        "{text}"
    );
    assert_eq!(host.count("SELECT count(*) FROM heartbeat"), 1);
}

#[test]
fn files_that_are_no_ledger_are_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.db");
    std::fs::write(&path, "this is no database ".repeat(1000)).unwrap();
    let text = refusal(&path);
    assert!(text.contains("text.db") && text.contains("damaged") && text.contains("move the file"), "{text}");

    let path = folder.path().join("other.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    let text = refusal(&path);
    assert!(text.contains("other.db") && text.contains("another program"), "{text}");

    let text = refusal(&folder.path().join("missing/ledger.db"));
    assert!(text.contains("missing/ledger.db"), "{text}");
}

#[test]
fn a_damaged_ledger_is_refused_with_advice() {
    let host = Fixture::new();
    for _ in 0..2000 {
        host.invocation(invocation("f"));
    }
    host.ledger.close().unwrap();
    let path = host.folder.path().join("ledger.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 20_000].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let text = refusal(&path);
    assert!(text.contains("ledger.db") && text.contains("damaged") && text.contains(".recover"), "{text}");
}
