//! What instances do, for those who look: how many are in which state, read without a pool's lock, and the newest moves of
//! all instances of a host, for which somebody can wait.
//!
//! Nothing is decided by what stands here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::counts::InstanceCounts;
use crate::ids::{InstanceId, RevisionId};
use crate::instance::State;

/// An instance changed its state.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// Counts the moves of a host from 1.
    pub sequence: u64,
    /// When it moved.
    pub at: Instant,
    /// What it runs.
    pub revision: RevisionId,
    /// The instance.
    pub instance: InstanceId,
    /// The state it is in since then; `Stopped`: it is gone.
    pub state: State,
}

/// The newest moves of all instances of a host: of a few minutes, if it is not busy.
pub struct Moves {
    max: usize,
    // A std mutex: the critical section copies one move and never waits.
    kept: Mutex<Kept>,
    changed: Notify,
}

#[derive(Default)]
struct Kept {
    moves: VecDeque<Move>,
    sequence: u64,
}

impl Moves {
    /// So many of them are kept, in 48 bytes each.
    pub(super) fn new(max: usize) -> Arc<Moves> {
        Arc::new(Moves { max, kept: Mutex::default(), changed: Notify::new() })
    }

    /// The moves after the one with this number that are still kept.
    pub fn after(&self, sequence: u64) -> Vec<Move> {
        let kept = self.kept.lock().expect("no holder of this lock panics");
        let count = usize::try_from(kept.sequence.saturating_sub(sequence)).unwrap_or(usize::MAX);
        kept.moves.range(kept.moves.len().saturating_sub(count)..).copied().collect()
    }

    /// The newest so many of them.
    pub fn newest(&self, count: usize) -> Vec<Move> {
        let kept = self.kept.lock().expect("no holder of this lock panics");
        kept.moves.range(kept.moves.len().saturating_sub(count)..).copied().collect()
    }

    /// Waits until there is a move after the one with this number.
    pub async fn newer_than(&self, sequence: u64) {
        loop {
            let changed = self.changed.notified();
            if self.kept.lock().expect("no holder of this lock panics").sequence > sequence {
                return;
            }
            changed.await;
        }
    }

    fn note(&self, at: Instant, revision: RevisionId, instance: InstanceId, state: State) {
        {
            let mut kept = self.kept.lock().expect("no holder of this lock panics");
            kept.sequence += 1;
            let sequence = kept.sequence;
            if kept.moves.len() == self.max {
                kept.moves.pop_front();
            }
            kept.moves.push_back(Move { sequence, at, revision, instance, state });
        }
        self.changed.notify_waiters();
    }
}

/// What the instances of one pool do.
pub(super) struct Board {
    revision: RevisionId,
    counts: [AtomicU32; InstanceCounts::KINDS],
    moves: Arc<Moves>,
    requests: AtomicU64,
    failures: AtomicU64,
    /// Linear memory of the parked instances.
    parked_bytes: AtomicU64,
}

impl Board {
    pub(super) fn new(revision: RevisionId, moves: Arc<Moves>) -> Arc<Board> {
        let zero = AtomicU64::default;
        let (requests, failures, parked_bytes) = (zero(), zero(), zero());
        Arc::new(Board { revision, counts: Default::default(), moves, requests, failures, parked_bytes })
    }

    /// How many instances are in which state.
    pub(super) fn counts(&self) -> InstanceCounts {
        InstanceCounts::of(|kind| self.counts[kind].load(Ordering::Relaxed))
    }

    /// Linear memory of the parked instances.
    pub(super) fn parked_bytes(&self) -> u64 {
        self.parked_bytes.load(Ordering::Relaxed)
    }

    /// Counts a request that was answered.
    pub(super) fn answered(&self, is_failure: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(is_failure.into(), Ordering::Relaxed);
    }

    /// Requests that were answered, and those of them that failed.
    pub(super) fn requests(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }
}

/// An instance on its pool's board, for as long as this is there.
pub(super) struct Shown {
    board: Arc<Board>,
    instance: InstanceId,
    state: State,
    /// What it adds to the memory of those that are parked.
    parked_bytes: u64,
}

impl Shown {
    pub(super) fn new(board: Arc<Board>, instance: InstanceId, state: State, now: Instant) -> Shown {
        board.counts[InstanceCounts::kind(state)].fetch_add(1, Ordering::Relaxed);
        board.moves.note(now, board.revision, instance, state);
        Shown { board, instance, state, parked_bytes: 0 }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Shows it in another state, with its linear memory.
    pub(super) fn moved(&mut self, state: State, memory_bytes: u64, now: Instant) {
        self.hold(if state == State::Parked { memory_bytes } else { 0 });
        let counts = &self.board.counts;
        counts[InstanceCounts::kind(self.state)].fetch_sub(1, Ordering::Relaxed);
        counts[InstanceCounts::kind(state)].fetch_add(1, Ordering::Relaxed);
        self.state = state;
        self.board.moves.note(now, self.board.revision, self.instance, state);
    }
}

impl Shown {
    fn hold(&mut self, parked_bytes: u64) {
        self.board.parked_bytes.fetch_add(parked_bytes, Ordering::Relaxed);
        self.board.parked_bytes.fetch_sub(self.parked_bytes, Ordering::Relaxed);
        self.parked_bytes = parked_bytes;
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.hold(0);
        self.board.counts[InstanceCounts::kind(self.state)].fetch_sub(1, Ordering::Relaxed);
        if self.state != State::Stopped {
            self.board.moves.note(Instant::now(), self.board.revision, self.instance, State::Stopped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100;

    #[tokio::test(start_paused = true)]
    async fn counts_and_moves_follow_an_instance_until_it_is_gone() {
        let moves = Moves::new(MAX);
        let board = Board::new(RevisionId(7), moves.clone());
        let (id, now) = (InstanceId::random(), Instant::now());
        let mut shown = Shown::new(board.clone(), id, State::Starting, now);
        let other = Shown::new(board.clone(), InstanceId::random(), State::Parked, now);
        shown.moved(State::Parked, 700, now);
        assert_eq!(board.parked_bytes(), 700);
        shown.moved(State::Active, 900, now);
        assert_eq!(board.parked_bytes(), 0);
        assert_eq!((board.counts().active, board.counts().parked, board.counts().starting), (1, 1, 0));
        drop((shown, other));
        assert_eq!(board.counts(), InstanceCounts::default());
        let own: Vec<State> =
            moves.after(0).iter().filter(|moved| moved.instance == id).map(|moved| moved.state).collect();
        assert_eq!(own, [State::Starting, State::Parked, State::Active, State::Stopped]);
        assert_eq!(moves.after(4).len(), 2);
        assert_eq!(moves.newest(2).iter().map(|moved| moved.sequence).collect::<Vec<_>>(), [5, 6]);
        assert!(moves.after(6).is_empty() && moves.after(99).is_empty());
        moves.newer_than(4).await;
    }

    #[tokio::test]
    async fn moves_are_bounded_and_somebody_who_waits_is_told() {
        let moves = Moves::new(MAX);
        let board = Board::new(RevisionId(7), moves.clone());
        let mut shown = Shown::new(board, InstanceId::random(), State::Active, Instant::now());
        for _ in 0..MAX {
            shown.moved(State::Active, 0, Instant::now());
        }
        let kept = moves.after(0);
        assert_eq!((kept.len(), kept[0].sequence), (MAX, 2));
        let newest = kept.last().unwrap().sequence;
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), moves.newer_than(newest));
        assert!(waiting.await.is_err());
        tokio::join!(moves.newer_than(newest), async { shown.moved(State::Parked, 0, Instant::now()) });
    }
}
