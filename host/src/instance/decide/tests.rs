//! Every decision as a table, and random courses of events played against them.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::super::lifecycle::Event;
use super::*;
use State::{Active, Freezing, Initializing, Parked, Starting, Stopped, Stopping, Suspended};

const STATES: [State; 8] = [Starting, Initializing, Active, Freezing, Parked, Suspended, Stopping, Stopped];

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const NOW: Duration = ms(100);

/// When an instance must have started.
const START: Duration = ms(30_000);

/// An instance that has nothing to do.
fn idle(state: State) -> View {
    View {
        now: NOW,
        state,
        start_deadline: (state == Starting).then_some(START),
        order: Order::Run,
        jobs: 0,
        running: 0,
        concurrency: 1,
        requests_left: None,
        request_deadline: None,
        overdue_holds_cpu: false,
        hook: None,
        leftover: false,
        has_pre_freeze: true,
        owes_pre_stop: true,
        freeze_after: ms(10),
        linger_ends: None,
        progress_due: None,
    }
}

fn hook(entry: Entry, deadline: Duration) -> Hook {
    Hook { entry, deadline, earlier: false, holds_cpu: false }
}

fn word(next: Option<Move>) -> String {
    next.map_or("-".to_owned(), |next| format!("{next:?}"))
}

/// A line of a table: what it is about, and the decision in each column.
fn line(table: &mut String, about: &str, columns: impl IntoIterator<Item = Option<Move>>) {
    let words: Vec<String> = columns.into_iter().map(word).collect();
    writeln!(table, "{about}: {}", words.join(" | ")).unwrap();
}

fn rows(table: &str) -> String {
    let rows = table.lines().map(str::trim).filter(|row| !row.is_empty());
    rows.fold(String::new(), |text, row| text + row + "\n")
}

#[test]
fn orders() {
    let mut found = String::new();
    for state in STATES {
        let orders = [Order::Run, Order::Suspend, Order::Stop(StopReason::Updated)];
        let of = |order| decide(Step::Order, &View { order, ..idle(state) });
        line(&mut found, state.as_str(), orders.map(of));
    }
    // Columns: run, suspend, stop.
    let expected = "
        starting: - | - | Stop(Updated)
        initializing: - | - | Stop(Updated)
        active: - | Suspend | Stop(Updated)
        freezing: - | Suspend | Stop(Updated)
        parked: - | - | -
        suspended: - | - | Stop(Updated)
        stopping: - | - | -
        stopped: - | - | -
    ";
    assert_eq!(found, rows(expected));
}

#[test]
fn waking() {
    let mut found = String::new();
    for state in STATES {
        let orders = [Order::Run, Order::Suspend, Order::Stop(StopReason::Idle)];
        line(&mut found, state.as_str(), orders.map(|order| wake(state, order)));
    }
    // Columns: run, suspend, stop.
    let expected = "
        starting: - | - | -
        initializing: - | - | -
        active: - | - | -
        freezing: - | - | -
        parked: Thaw | Thaw | Stop(Idle)
        suspended: Resume | Resume | Stop(Idle)
        stopping: - | - | -
        stopped: - | - | -
    ";
    assert_eq!(found, rows(expected));
}

#[test]
fn jobs_of_an_active_instance() {
    let mut found = String::new();
    for (concurrency, running) in [(1, 0), (1, 1), (3, 0), (3, 2), (3, 3)] {
        for requests_left in [None, Some(0), Some(1), Some(9)] {
            let left = requests_left.map_or("any".to_owned(), |left| left.to_string());
            let of = |jobs| decide(Step::Jobs, &View { jobs, concurrency, running, requests_left, ..idle(Active) });
            line(&mut found, &format!("{running} of {concurrency}, {left} left"), [0, 1, 5].map(of));
        }
    }
    // Columns: no job, 1, 5.
    let expected = "
        0 of 1, any left: - | TakeJobs(1) | TakeJobs(1)
        0 of 1, 0 left: - | - | -
        0 of 1, 1 left: - | TakeJobs(1) | TakeJobs(1)
        0 of 1, 9 left: - | TakeJobs(1) | TakeJobs(1)
        1 of 1, any left: - | - | -
        1 of 1, 0 left: - | - | -
        1 of 1, 1 left: - | - | -
        1 of 1, 9 left: - | - | -
        0 of 3, any left: - | TakeJobs(1) | TakeJobs(3)
        0 of 3, 0 left: - | - | -
        0 of 3, 1 left: - | TakeJobs(1) | TakeJobs(1)
        0 of 3, 9 left: - | TakeJobs(1) | TakeJobs(3)
        2 of 3, any left: - | TakeJobs(1) | TakeJobs(1)
        2 of 3, 0 left: - | - | -
        2 of 3, 1 left: - | TakeJobs(1) | TakeJobs(1)
        2 of 3, 9 left: - | TakeJobs(1) | TakeJobs(1)
        3 of 3, any left: - | - | -
        3 of 3, 0 left: - | - | -
        3 of 3, 1 left: - | - | -
        3 of 3, 9 left: - | - | -
    ";
    assert_eq!(found, rows(expected));
}

#[test]
fn jobs_in_other_states() {
    let mut found = String::new();
    for state in STATES.into_iter().filter(|state| *state != Active) {
        let pre_freeze = Some(hook(Entry::PreFreeze, ms(3000)));
        let cases = [(0, 1, None), (1, 1, None), (1, 1, pre_freeze), (1, 2, pre_freeze)];
        let of = |(jobs, concurrency, hook)| decide(Step::Jobs, &View { jobs, concurrency, hook, ..idle(state) });
        line(&mut found, state.as_str(), cases.map(of));
    }
    // Columns: no job; a job; a job while a hook runs, in an instance of one request at a time, and of two.
    let expected = "
        starting: - | - | - | -
        initializing: - | - | - | -
        freezing: - | CancelFreeze | - | CancelFreeze
        parked: - | - | - | -
        suspended: - | - | - | -
        stopping: - | ReturnJobs | ReturnJobs | ReturnJobs
        stopped: - | - | - | -
    ";
    assert_eq!(found, rows(expected));
}

#[test]
fn deadlines_of_requests_and_figures() {
    let mut found = String::new();
    for state in STATES {
        let of = |(request, progress)| {
            let view = View { request_deadline: request, progress_due: progress, ..idle(state) };
            decide(Step::Deadlines, &View { running: 1, ..view })
        };
        let cases = [(None, None), (Some(NOW + ms(1)), Some(NOW + ms(1))), (Some(NOW), None), (Some(NOW), Some(NOW))];
        line(&mut found, state.as_str(), cases.map(of));
    }
    // Columns: none; not yet; a request is late; and so are figures.
    let expected = "
        starting: - | - | TimeOutRequest { stops: false } | PostProgress
        initializing: - | - | TimeOutRequest { stops: false } | PostProgress
        active: - | - | TimeOutRequest { stops: true } | PostProgress
        freezing: - | - | TimeOutRequest { stops: false } | PostProgress
        parked: - | - | TimeOutRequest { stops: false } | PostProgress
        suspended: - | - | TimeOutRequest { stops: false } | PostProgress
        stopping: - | - | TimeOutRequest { stops: false } | PostProgress
        stopped: - | - | TimeOutRequest { stops: false } | PostProgress
    ";
    assert_eq!(found, rows(expected));
}

#[test]
fn deadlines_of_hooks() {
    let mut found = String::new();
    let hooks = [(Initializing, Entry::Initializer), (Freezing, Entry::PreFreeze), (Stopping, Entry::PreStop)];
    for (state, entry) in hooks {
        let of = |(deadline, holds_cpu)| {
            let hook = Some(Hook { holds_cpu, ..hook(entry, deadline) });
            decide(Step::Deadlines, &View { hook, ..idle(state) })
        };
        line(&mut found, entry.as_str(), [(NOW + ms(1), true), (NOW, false), (NOW, true)].map(of));
    }
    // Columns: not yet; late, while it waits; late, while it holds the CPU.
    let expected = "
        initializer: - | TimeOutHook(FailsInstance) | TimeOutHook(FailsInstance)
        pre-freeze: - | TimeOutHook(IsLeft) | TimeOutHook(Kills)
        pre-stop: - | TimeOutHook(IsLeft) | TimeOutHook(IsLeft)
    ";
    assert_eq!(found, rows(expected));
    // A request is answered before the hook's end is looked at.
    let both = View { request_deadline: Some(NOW), hook: Some(hook(Entry::PreStop, NOW)), ..idle(Stopping) };
    assert_eq!(decide(Step::Deadlines, &both), Some(Move::TimeOutRequest { stops: false }));
    let start = |now| decide(Step::Deadlines, &View { now, ..idle(Starting) });
    assert_eq!([ms(29_999), START].map(start), [None, Some(Move::TimeOutStart)]);
}

#[test]
fn a_request_that_is_late_when_its_instance_is_suspended_is_looked_at_after_the_resume() {
    let view = View { order: Order::Suspend, running: 1, request_deadline: Some(NOW), ..idle(Active) };
    assert_eq!(decide(Step::Order, &view), Some(Move::Suspend));
    assert!(Move::Suspend.ends_turn(Step::Order));
}

#[test]
fn overdue_code_comes_first() {
    for state in STATES {
        for step in Step::ALL {
            let view = View { overdue_holds_cpu: true, jobs: 1, request_deadline: Some(NOW), ..idle(state) };
            assert_eq!(decide(step, &view) == Some(Move::KillOverdue), state != Stopped, "{step:?} {state:?}");
        }
    }
}

#[test]
fn advancing() {
    let mut found = String::new();
    for state in STATES {
        let none = idle(state);
        let awaited = Some(hook(Entry::PreFreeze, ms(3000)));
        let spent = View { requests_left: Some(0), ..none };
        let cases = [
            none,
            View { running: 1, ..none },
            View { jobs: 1, ..none },
            View { hook: awaited, ..none },
            spent,
            View { running: 1, ..spent },
            View { jobs: 1, ..spent },
            View { owes_pre_stop: false, ..none },
        ];
        line(&mut found, state.as_str(), cases.map(|view| decide(Step::Advance, &view)));
    }
    // Columns: nothing to do; a request; a job; a hook; no requests left; and a request; and a job; no pre-stop.
    let expected = "
        starting: - | - | - | - | - | - | - | -
        initializing: - | - | - | - | - | - | - | -
        active: Linger { until: 110ms } | - | - | Linger { until: 110ms } | Stop(Spent) | - | Stop(Spent) | Linger { until: 110ms }
        freezing: Park | Park | Park | - | Park | Park | Park | Park
        parked: - | - | - | - | - | - | - | -
        suspended: - | - | - | - | - | - | - | -
        stopping: CallPreStop | - | CallPreStop | - | CallPreStop | - | CallPreStop | End
        stopped: - | - | - | - | - | - | - | -
    ";
    assert_eq!(found, rows(expected));
}

#[test]
fn lingering() {
    let mut found = String::new();
    for (leftover, has_pre_freeze) in [(false, false), (false, true), (true, false), (true, true)] {
        let idle = View { leftover, has_pre_freeze, ..idle(Active) };
        let cases = [
            idle,
            View { linger_ends: Some(NOW + ms(1)), ..idle },
            View { linger_ends: Some(NOW), ..idle },
            View { freeze_after: Duration::ZERO, ..idle },
        ];
        let about = format!("leftover {leftover}, pre-freeze {has_pre_freeze}");
        line(&mut found, &about, cases.map(|view| decide(Step::Advance, &view)));
    }
    // Columns: it begins; goes on; is over; there is none.
    let expected = "
        leftover false, pre-freeze false: Linger { until: 110ms } | - | Freeze(None) | Freeze(None)
        leftover false, pre-freeze true: Linger { until: 110ms } | - | Freeze(Call) | Freeze(Call)
        leftover true, pre-freeze false: Linger { until: 110ms } | - | Freeze(AwaitEarlier) | Freeze(AwaitEarlier)
        leftover true, pre-freeze true: Linger { until: 110ms } | - | Freeze(AwaitEarlier) | Freeze(AwaitEarlier)
    ";
    assert_eq!(found, rows(expected));
}

#[test]
fn after_hooks() {
    let mut found = String::new();
    for (entry, earlier) in [(Entry::Initializer, false), (Entry::PreFreeze, false), (Entry::PreFreeze, true)] {
        for state in [Initializing, Freezing, Stopping] {
            let of = |(succeeded, jobs)| {
                let hook = Some(Hook { earlier, ..hook(entry, ms(3000)) });
                after_hook(succeeded, &View { hook, jobs, ..idle(state) })
            };
            let [success, job, failure] = [(true, 0), (true, 1), (false, 0)].map(of);
            let about = format!("{}{}", if earlier { "earlier " } else { "" }, entry.as_str());
            writeln!(found, "{about}, {}: {success:?} | {job:?} | {failure:?}", state.as_str()).unwrap();
        }
    }
    // Columns: it succeeded; and a job is there; it failed.
    let expected = "
        initializer, initializing: Ready | Ready | FailInstance
        initializer, freezing: Nothing | Nothing | FailInstance
        initializer, stopping: Nothing | Nothing | FailInstance
        pre-freeze, initializing: Nothing | Nothing | Nothing
        pre-freeze, freezing: Nothing | Nothing | Nothing
        pre-freeze, stopping: Nothing | Nothing | Nothing
        earlier pre-freeze, initializing: Nothing | Nothing | Nothing
        earlier pre-freeze, freezing: CallPreFreeze | Nothing | CallPreFreeze
        earlier pre-freeze, stopping: Nothing | Nothing | Nothing
    ";
    assert_eq!(found, rows(expected));
}

#[test]
fn the_next_deadline_is_the_earliest() {
    let view = View {
        request_deadline: Some(ms(500)),
        hook: Some(hook(Entry::PreFreeze, ms(400))),
        linger_ends: Some(ms(300)),
        progress_due: Some(ms(200)),
        ..idle(Active)
    };
    assert_eq!(next_deadline(&view), Some(ms(200)));
    assert_eq!(next_deadline(&View { progress_due: None, ..view }), Some(ms(300)));
    assert_eq!(next_deadline(&idle(Starting)), Some(START));
    assert_eq!(next_deadline(&idle(Active)), None);
}

/// Something that happens to an instance.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Time(u64),
    Job,
    Ordered(Order),
    Started,
    RequestReturned,
    HookReturned(bool),
    LeftoverReturned,
    /// The guest gave the thread back in the middle of a late request's code, or of the hook's.
    OverduePreempted,
    HookPreempted,
}

/// An instance without a guest: it does what `decide` says, and checks it.
#[derive(Debug)]
struct Played {
    view: View,
    has_initializer: bool,
    has_pre_stop: bool,
    deadlines: Vec<Duration>,
    overdue: usize,
    pre_stops: usize,
}

impl Played {
    fn new(concurrency: usize, requests_max: Option<u64>, exports: [bool; 3]) -> Played {
        let [has_initializer, has_pre_freeze, has_pre_stop] = exports;
        let starting = View { now: Duration::ZERO, owes_pre_stop: false, has_pre_freeze, ..idle(Starting) };
        let view = View { concurrency, requests_left: requests_max, ..starting };
        Played { view, has_initializer, has_pre_stop, deadlines: Vec::new(), overdue: 0, pre_stops: 0 }
    }

    fn step(&mut self, event: Event) {
        self.view.state = self.view.state.next(event).unwrap();
    }

    fn rests(&self) -> bool {
        matches!(self.view.state, Parked | Suspended | Stopped)
    }

    fn call(&mut self, entry: Entry, earlier: bool) {
        assert!(self.view.hook.is_none(), "two hooks at once");
        self.view.hook = Some(Hook { earlier, ..hook(entry, self.view.now + ms(50)) });
    }

    fn abandon(&mut self) {
        if let Some(hook) = self.view.hook.take() {
            self.view.leftover |= hook.entry == Entry::PreFreeze;
        }
        self.view.linger_ends = None;
    }

    fn ready(&mut self) {
        self.view.owes_pre_stop = self.has_pre_stop;
        self.step(Event::Ready);
    }

    fn fail(&mut self) {
        self.abandon();
        self.step(Event::Failed);
        self.deadlines.clear();
    }

    fn happens(&mut self, happening: Happening) {
        let awake = !self.rests();
        match happening {
            Happening::Time(passed) => self.view.now += ms(passed),
            Happening::Job => self.view.jobs += 1,
            Happening::Ordered(order) if order.replaces(self.view.order) => self.view.order = order,
            Happening::Started if self.view.state == Starting => {
                self.step(Event::Booted);
                if self.has_initializer { self.call(Entry::Initializer, false) } else { self.ready() }
            }
            Happening::RequestReturned if awake => drop(self.deadlines.pop()),
            Happening::LeftoverReturned if awake => self.view.leftover = false,
            Happening::HookReturned(succeeded) if awake && self.view.hook.is_some() => {
                let next = after_hook(succeeded, &self.view);
                self.view.hook = None;
                match next {
                    AfterHook::Ready => self.ready(),
                    AfterHook::FailInstance => self.fail(),
                    AfterHook::CallPreFreeze => self.call(Entry::PreFreeze, false),
                    AfterHook::Nothing => {}
                }
            }
            Happening::OverduePreempted if awake => self.view.overdue_holds_cpu = self.overdue > 0,
            Happening::HookPreempted if awake => {
                if let Some(hook) = &mut self.view.hook {
                    hook.holds_cpu = true;
                }
            }
            _ => {}
        }
    }

    fn carry_out(&mut self, next: Move) {
        match next {
            Move::Suspend => {
                self.abandon();
                self.step(Event::Suspend);
            }
            Move::Stop(_) => {
                self.abandon();
                self.step(Event::Stop);
            }
            Move::Thaw => self.step(Event::Wanted),
            Move::Resume => self.step(Event::Resume),
            Move::CancelFreeze => {
                self.abandon();
                self.step(Event::Wanted);
            }
            Move::TakeJobs(count) => {
                assert_eq!(self.view.state, Active, "a request begins in an active instance only");
                self.view.jobs -= count;
                self.view.linger_ends = None;
                self.view.requests_left = self.view.requests_left.map(|left| left - count as u64);
                self.deadlines.extend(std::iter::repeat_n(self.view.now + ms(30), count));
            }
            Move::ReturnJobs => self.view.jobs = 0,
            Move::PostProgress => self.view.progress_due = None,
            Move::TimeOutRequest { stops } => {
                let late = self.deadlines.iter().position(|deadline| *deadline <= self.view.now).unwrap();
                self.deadlines.swap_remove(late);
                self.overdue += 1;
                if stops {
                    self.carry_out(Move::Stop(StopReason::RequestTimedOut));
                }
            }
            Move::KillOverdue
            | Move::TimeOutStart
            | Move::CutOff(_)
            | Move::TimeOutHook(LateHook::FailsInstance | LateHook::Kills) => {
                self.fail();
            }
            Move::TimeOutHook(LateHook::IsLeft) => self.abandon(),
            Move::Linger { until } => self.view.linger_ends = Some(until),
            Move::Freeze(pre_freeze) => {
                assert!(self.deadlines.is_empty(), "pre-freeze comes after all requests");
                self.view.linger_ends = None;
                self.step(Event::Idle);
                match pre_freeze {
                    PreFreeze::None => {}
                    PreFreeze::Call => self.call(Entry::PreFreeze, false),
                    PreFreeze::AwaitEarlier => {
                        assert!(std::mem::take(&mut self.view.leftover));
                        self.call(Entry::PreFreeze, true);
                    }
                }
            }
            Move::Park => self.step(Event::Frozen),
            Move::CallPreStop => {
                self.view.owes_pre_stop = false;
                self.pre_stops += 1;
                self.call(Entry::PreStop, false);
            }
            Move::End => self.step(Event::Gone),
        }
        self.view.running = self.deadlines.len();
        self.view.request_deadline = self.deadlines.iter().min().copied();
        assert!(self.view.running <= self.view.concurrency);
    }

    /// What the pool and the driver do after each event: wake the instance if it is wanted, and run a turn.
    fn turn(&mut self) {
        self.carry_out(Move::PostProgress); // The played instance has counted its requests anew.
        if self.rests() {
            let wanted = match self.view.state {
                Parked => self.view.jobs > 0 || matches!(self.view.order, Order::Stop(_) | Order::CutOff(_)),
                _ => self.view.order != Order::Suspend,
            };
            match wake(self.view.state, self.view.order) {
                Some(next) if wanted => self.carry_out(next),
                _ => return,
            }
        }
        for step in Step::ALL {
            let mut moves = 0;
            while let Some(next) = decide(step, &self.view) {
                self.carry_out(next);
                moves += 1;
                assert!(moves < 100, "{step:?} goes round in circles with {next:?}");
                if next.ends_turn(step) {
                    return;
                }
                assert!(!self.rests() || self.view.state == Stopped, "a turn goes on after {next:?}");
            }
        }
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..40_u64).prop_map(Happening::Time),
        Just(Happening::Job),
        Just(Happening::Started),
        Just(Happening::RequestReturned),
        prop::bool::weighted(0.8).prop_map(Happening::HookReturned),
        Just(Happening::LeftoverReturned),
        Just(Happening::OverduePreempted),
        Just(Happening::HookPreempted),
        prop_oneof![10 => Just(Order::Run), 10 => Just(Order::Suspend), 1 => Just(Order::CutOff(CutOff::DrainOver))]
            .prop_map(Happening::Ordered),
    ]
}

proptest! {
    /// Whatever happens, no move is refused, nothing loops, hooks come one at a time and pre-stop at most once; and an
    /// instance that is told to stop does so as soon as what is in it has returned.
    #[test]
    fn every_course_of_events_ends_well(
        concurrency in 1..4_usize,
        requests_max in prop::option::of(1..4_u64),
        exports in any::<[bool; 3]>(),
        course in prop::collection::vec(happening(), 0..60),
    ) {
        let mut played = Played::new(concurrency, requests_max, exports);
        for happening in course {
            played.happens(happening);
            played.turn();
        }
        played.happens(Happening::Ordered(Order::Stop(StopReason::Operator)));
        for _ in 0..10 {
            played.turn();
            for happening in [Happening::RequestReturned, Happening::HookReturned(true)] {
                played.happens(happening);
            }
        }
        prop_assert_eq!(played.view.state, Stopped);
        prop_assert!(played.pre_stops <= 1);
    }
}
