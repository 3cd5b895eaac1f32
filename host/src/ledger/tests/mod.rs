//! The ledger as its users see it, on real files: what the tests share.

mod hours;
mod opening;
mod queries;
mod speed;
mod storing;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::ids::{InstanceId, KeyId, RequestId};
use crate::meter::{Basis, CalledBy, InvocationReading, Reading, WindowReading};

const MS: fn(u64) -> Duration = Duration::from_millis;
const DAY: Duration = Duration::from_secs(86_400);
/// For records whose starts are part of what a test expects.
const FOR_EVER: Options =
    Options { retention: Duration::MAX, window_retention: Duration::MAX, unsummed_max: UNSUMMED_MAX };

/// An ended window of `function` that used nothing.
pub(super) fn window(function: &str) -> WindowReading {
    let now = SystemTime::now();
    WindowReading {
        function: function.parse().unwrap(),
        version: "LATEST".into(),
        instance: InstanceId::random(),
        sequence: 1,
        start: now,
        open: Duration::ZERO,
        ended: true,
        busy: false,
        at: now,
        executed: Duration::ZERO,
        duration: Duration::ZERO,
        requests: 1,
        hook_calls: 0,
        memory_bytes_peak: 1 << 20,
        memory_mb: 128,
        basis: Basis::Execution,
        parked: Duration::ZERO,
        parked_bytes: 0,
    }
}

/// A request to `function` that went well.
pub(super) fn invocation(function: &str) -> InvocationReading {
    InvocationReading {
        called_by: CalledBy::Data,
        key: None,
        executed: Duration::ZERO,
        attempt: 1,
        request: RequestId::new(),
        function: function.parse().unwrap(),
        version: "LATEST".into(),
        instance: Some(InstanceId::random()),
        start: SystemTime::now(),
        queued: MS(1),
        handler: MS(2),
        outcome: "ok",
        delivered: true,
    }
}

struct Fixture {
    folder: TempDir,
    ledger: Ledger,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(FOR_EVER)
    }

    fn with(options: Options) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("ledger.db"), options).unwrap();
        Fixture { folder, ledger }
    }

    fn window(&self, window: WindowReading) {
        (self.ledger.post())(Reading::Window(&window));
    }

    fn invocation(&self, invocation: InvocationReading) {
        (self.ledger.post())(Reading::Invocation(&invocation));
    }

    /// A connection beside the ledger's own.
    fn sqlite(&self) -> Connection {
        Connection::open(self.folder.path().join("ledger.db")).unwrap()
    }

    fn windows(&self) -> Vec<WindowRecord> {
        self.ledger.windows(&RecordQuery::default(), EVERY_FUNCTION).unwrap().windows
    }

    fn usage(&self, group: Group) -> Usage {
        self.ledger.usage(&UsageQuery { group, ..UsageQuery::default() }, EVERY_FUNCTION).unwrap()
    }

    /// Invocations in the file, counted without the ledger.
    fn stored_invocations(&self) -> i64 {
        self.count("SELECT coalesce(sum(count), 0) FROM invocation_blocks")
    }

    fn count(&self, sql: &str) -> i64 {
        self.sqlite().query_row(sql, (), |row| row.get(0)).unwrap()
    }

    fn heartbeat(&self) -> i64 {
        self.count("SELECT at_us FROM heartbeat")
    }

    /// What the next host finds after this one is killed: the files as they are, with nothing closed. SQLite writes
    /// its log in order, so a copy of the file and then of the log is what a kill leaves.
    fn killed(&self) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ledger.db", "ledger.db-wal"] {
            std::fs::copy(self.folder.path().join(name), folder.path().join(name)).unwrap();
        }
        let ledger = Ledger::open(&folder.path().join("ledger.db"), FOR_EVER).unwrap();
        Fixture { folder, ledger }
    }
}

/// Waits some seconds for `condition`. False if it did not become true.
fn comes(mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..5000 {
        if condition() {
            return true;
        }
        std::thread::sleep(MS(1));
    }
    false
}
