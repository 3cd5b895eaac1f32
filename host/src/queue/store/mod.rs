//! Where asynchronous invocations are kept: the one interface between the queue and a storage.
//!
//! Nothing above it knows what is below: [`Store`] takes and gives invocations by the meaning of what happens to them, and each
//! method ends when what it says is durable. The storage is SQLite (`sqlite.rs`, fed in groups by `writer.rs`); another one,
//! shared by several hosts, takes its place here: it has a method for each of these, and `claim` is what keeps two hosts from
//! taking the same event.

mod counts;
mod rows;
mod sqlite;
mod ticks;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

pub(super) use self::counts::LaneCounts;
use self::counts::{Counts, Full};
pub use self::rows::Whole;
use self::sqlite::Tables;
use self::writer::Writer;
use super::invocation::{
    AttemptResult, Claimed, LaneId, LaneKey, NewInvocation, Record, State, Tick, TickState, Verdict,
};
use crate::ids::{FunctionName, RequestId};

/// How much a store may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreBounds {
    /// Bytes on disk.
    pub bytes_max: u64,
    /// Invocations that are kept after their end.
    pub ended_max: u64,
    /// How long they are kept.
    pub kept_for: Duration,
    /// Events larger than this are not kept after the end.
    pub kept_bytes_max: u64,
}

/// What became of an invocation that was to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// It is stored, in this lane.
    New(LaneId),
    /// The function has one of this identifier.
    Known(State),
}

/// What became of an order to stop an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It waited, and is stopped.
    Done,
    /// It is running: whoever runs it has to stop it.
    Running,
    /// It has ended, as this says.
    Ended(State),
    /// There is none.
    NotFound,
}

/// Invocations that were claimed, and when the next one of the lane is due.
#[derive(Debug, Default)]
pub(super) struct Claim {
    /// Those whose attempts begin.
    pub claimed: Vec<Claimed>,
    /// When the next one is due, if one waits.
    pub next: Option<SystemTime>,
}

/// Which invocations are wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The function.
    pub function: FunctionName,
    /// Their state; none: any.
    pub state: Option<State>,
    /// Accepted from then on.
    pub from: Option<SystemTime>,
    /// Accepted before then.
    pub to: Option<SystemTime>,
    /// Whether also those that were replayed, and what is sent to addresses.
    pub replayed: bool,
    /// Older than the one with this number.
    pub before: Option<u64>,
    /// So many at most.
    pub limit: usize,
}

/// Why something was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// As many wait as may.
    #[error("{0}")]
    Full(#[from] Full),
    /// The storage fails.
    #[error("the host cannot store events at the moment: {0}")]
    Unavailable(Arc<str>),
}

/// A cheap handle to the store.
#[derive(Clone)]
pub(super) struct Store {
    writer: Writer,
    counts: Arc<Counts>,
    path: Arc<Path>,
}

impl Store {
    /// Opens the store. What was running when the host before ended waits again.
    pub(super) fn open(path: &Path, bounds: StoreBounds) -> anyhow::Result<Store> {
        let (tables, counts) = Tables::open(path, bounds)?;
        let counts = Arc::new(counts);
        Ok(Store { writer: Writer::start(tables, counts.clone())?, counts, path: path.into() })
    }

    /// Accepts an invocation: it is on disk when this returns.
    pub(super) async fn accept(&self, new: NewInvocation, queued_max: u64) -> Result<Accepted, StoreError> {
        let place = self.counts.reserve(&new.lane.function, new.event.len() as u64 + new.origin.bytes(), queued_max)?;
        let accepted = self.writer.run(move |tables| {
            let accepted = tables.accept(&new)?;
            Ok((accepted.clone(), move |counts: &Counts| {
                if let Ok(Accepted::New(lane)) = accepted {
                    counts.accepted(lane, &new.lane);
                    place.keep();
                }
            }))
        });
        Ok(accepted.await??)
    }

    /// Begins attempts at those of a lane that are due by then, the oldest first. That they run is stored when this returns.
    pub(super) async fn claim(
        &self,
        lane: LaneId,
        key: LaneKey,
        due_by: SystemTime,
        limit: usize,
    ) -> Result<Claim, StoreError> {
        let claim = self.writer.run(move |tables| {
            let claim = tables.claim(lane, &key, due_by, limit)?;
            let claimed = claim.claimed.len() as u64;
            Ok((claim, move |counts: &Counts| counts.claimed(lane, claimed)))
        });
        claim.await
    }

    /// Notes what became of an attempt; says in which lane the invocation is that tells the destination.
    pub(super) async fn settle(
        &self,
        claimed: &Claimed,
        result: AttemptResult,
        verdict: Verdict,
    ) -> Result<Option<LaneId>, StoreError> {
        let (seq, lane, key, bytes) =
            (claimed.seq, claimed.lane_id, claimed.lane.clone(), claimed.event.len() as u64 + claimed.origin.bytes());
        let settled = self.writer.run(move |tables| {
            let next = tables.settle(seq, &result, &verdict)?;
            Ok((next, move |counts: &Counts| {
                counts.settled(lane, &key, bytes, &verdict);
                if let (Some(lane), Verdict::End { next: Some(next), .. }) = (next, &verdict) {
                    counts.appended(lane, &next.lane, next.event.len() as u64 + next.origin.bytes());
                }
            }))
        });
        settled.await
    }

    /// Stops an invocation that waits.
    pub(super) async fn stop(&self, function: FunctionName, id: RequestId) -> Result<Stop, StoreError> {
        let stopped = self.writer.run(move |tables| {
            let (stop, stopped) = tables.stop(&function, &id)?;
            Ok((stop, move |counts: &Counts| {
                if let Some((lane, bytes)) = stopped {
                    counts.stopped(lane, bytes);
                }
            }))
        });
        stopped.await
    }

    /// Forgets what ended long ago and gives free space back; says whether there is more to do.
    pub(super) async fn tidy(&self) -> Result<bool, StoreError> {
        self.writer.run(|tables| Ok((tables.tidy()?, |_: &Counts| {}))).await
    }

    /// One invocation with its event and its reply, as far as they are kept. It blocks.
    pub(super) fn show(&self, function: &FunctionName, id: &RequestId) -> anyhow::Result<Option<Whole>> {
        rows::show(&self.path, function, id)
    }

    /// Invocations, the newest first. It blocks.
    pub(super) fn list(&self, wanted: &Wanted) -> anyhow::Result<Vec<Record>> {
        rows::list(&self.path, wanted)
    }

    /// What is kept of timers. It blocks.
    pub(crate) fn ticks(&self) -> anyhow::Result<Vec<TickState>> {
        rows::open(&self.path).and_then(|connection| ticks::all(&connection)).context("read the timers")
    }

    /// Notes where a timer begins.
    pub(crate) async fn note_tick(&self, function: FunctionName, tick: Tick) -> Result<(), StoreError> {
        self.writer.run(move |tables| Ok((tables.note_tick(&function, &tick)?, |_: &Counts| {}))).await
    }

    /// Forgets a timer.
    pub(crate) async fn forget_tick(&self, function: FunctionName, trigger: String) -> Result<(), StoreError> {
        self.writer.run(move |tables| Ok((tables.forget_tick(&function, &trigger)?, |_: &Counts| {}))).await
    }

    /// What waits and runs, by lane.
    pub(super) fn lanes(&self) -> Vec<LaneCounts> {
        self.counts.lanes()
    }

    /// Whether it could be written when that was last tried.
    pub(super) fn is_healthy(&self) -> bool {
        self.writer.is_healthy()
    }

    /// Stores what is still to be stored, and ends. It blocks.
    pub(super) fn close(&self) {
        self.writer.close();
    }
}
