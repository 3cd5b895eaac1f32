//! What a call costs inside the host, without HTTP: `cargo bench -p tests --bench engine`.
//!
//! Every figure is measured in the same run as the bare engine doing the same (`anchor`), and shown as a ratio to it:
//! ratios move less than microseconds when the machine is busy. Each case is the median of several rounds.

mod anchor;
mod density;

use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use dormouse::guest::{
    self, Blueprint, Call, CallContext, CallId, CodeFile, Component, Engine, Entry, EntryNames, Event, Guest, HookName,
    Input, Network, Sandbox,
};
use dormouse::ids::{FunctionName, InstanceId, RequestId, VersionLabel};
use dormouse::instance::{Caller, Clock, Instance, Job, Metrics, Outcome, Report, Start, State, Terms};
use dormouse::log::{LogWriter, Logs, Owner};
use dormouse::memory::Governor;
use dormouse::meter::{AcceptedCall, Account, Basis, CalledBy, InvocationMeter, Post, Reading, Rest, WindowMeter};
use dormouse::telemetry::FunctionLabels;
use dormouse::traces::Trace;
use tokio::sync::oneshot;

/// Rounds of each case; the median counts.
const ROUNDS: usize = 7;

fn main() {
    // Cargo passes flags of its own; there is nothing to choose here.
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = Bench::new(folder.path());
    println!("load average: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    println!("{:<44} {:>11} {:>11} {:>7}", "case", "here", "anchor", "ratio");
    runtime.block_on(async {
        bench.warm_call();
        bench.thaw().await;
        bench.cold_start();
        bench.metering();
        bench.executed_against_cpu().await;
    });
    density::show(&bench.hello);
}

/// Maps code that this benchmark compiled.
#[expect(unsafe_code, reason = "compiled code is loaded from a file")]
fn component(engine: &Engine, path: &Path) -> Component {
    // SAFETY: `Bench::new` wrote what the engine compiled into a folder of its own.
    let code = unsafe { CodeFile::new(path.to_owned()) };
    Component::load(engine, &code).expect("it loads")
}

struct Bench {
    engine: Engine,
    compiled: std::path::PathBuf,
    hello: Arc<Blueprint>,
    cpu: Arc<Blueprint>,
    anchor: anchor::Anchor,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    fn now() -> Instant {
        Instant::now()
    }

    fn new(folder: &Path) -> Bench {
        let engine =
            Engine::new(Governor::new(u64::MAX, || 0), Arc::new(Network::new(Vec::new(), 0))).expect("an engine");
        let hello = tests::component("example-hello");
        let load = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, guest::compile(bytes).expect("it compiles").bytes()).expect("it can be written");
            (component(&engine, &path), path)
        };
        let (component, compiled) = load("hello", &hello);
        let (cpu, _) = load("cpu", &tests::component("example-cpu"));
        let anchor = anchor::Anchor::new(&hello);
        Bench { hello: blueprint(&component), cpu: blueprint(&cpu), engine, compiled, anchor }
    }

    /// A call into a guest that is awake.
    fn warm_call(&self) {
        let mut guest = Guest::new(self.hello.clone(), InstanceId::random());
        started(&mut guest);
        let mut id = 0;
        let mut here = || {
            per_call(20_000, || {
                id += 1;
                call(&mut guest, id);
            })
        };
        let mut anchor = self.anchor.warm();
        compare("warm call", &mut here, || anchor.calls(20_000));
    }

    /// A parked instance wakes for a request, answers, runs pre-freeze, and is parked again: the whole driver, and two
    /// calls into the guest.
    async fn thaw(&self) {
        let (mut instance, caller) = (Instance::new(terms(self.hello.clone())), Client::new());
        run(&mut instance, &caller, "").await;
        let mut anchor = self.anchor.warm();
        let here = || per_call(5_000, || now_or_never(run(&mut instance, &caller, "")));
        compare("thaw, request, pre-freeze, park (two calls)", here, || anchor.calls(20_000) * 2);
    }

    /// From compiled code on disk to the first answer; and from mapped code.
    fn cold_start(&self) {
        let names = entry_names();
        let from_disk = || {
            per_call(200, || {
                let component = component(&self.engine, &self.compiled);
                let blueprint = Arc::new(Blueprint::new(&component, &names, sandbox()).expect("it fits"));
                first_call(blueprint);
            })
        };
        compare("cold start from compiled code on disk", from_disk, || self.anchor.cold_starts_from_disk(200));
        let fresh = || per_call(2_000, || first_call(self.hello.clone()));
        compare("fresh instance, one call, drop", fresh, || self.anchor.cold_starts(2_000));
    }

    /// The same warm call with a meter around each poll and without.
    fn metering(&self) {
        let guest = || {
            let mut guest = Guest::new(self.hello.clone(), InstanceId::random());
            started(&mut guest);
            guest
        };
        let account = Account {
            function: "bench".parse().expect("a name"),
            version: "LATEST".into(),
            instance: InstanceId::random(),
            memory_mb: 128,
            basis: Basis::Execution,
        };
        let mut meter = WindowMeter::open(&account, 1, Rest::default(), tokio::time::Instant::now(), Arc::new(|_| {}));
        let (mut metered, mut plain, mut id) = (guest(), guest(), 0);
        let with = || {
            per_call(20_000, || {
                id += 1;
                let from = tokio::time::Instant::now();
                meter.request_began(from);
                call(&mut metered, id);
                let to = tokio::time::Instant::now();
                meter.executed(to - from);
                meter.ended_one(to);
            })
        };
        let mut other = 0;
        let without = || {
            per_call(20_000, || {
                other += 1;
                call(&mut plain, other);
            })
        };
        compare("warm call with meter, against without", with, without);
    }

    /// The executed time of a CPU-bound request against the CPU time of the thread that ran it.
    async fn executed_against_cpu(&self) {
        let (post, readings) = std::sync::mpsc::channel();
        let post = std::sync::Mutex::new(post);
        let mut terms = terms(self.cpu.clone());
        Arc::get_mut(&mut terms).expect("nobody else has it").post = Arc::new(move |reading| {
            let Reading::Window(window) = reading else { return };
            let _ = post.lock().expect("no holder panics").send(window.executed);
        });
        let (mut instance, caller) = (Instance::new(terms), Client::new());
        run(&mut instance, &caller, "10").await;
        let (mut executed, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            readings.try_iter().for_each(drop);
            let before = thread_cpu();
            run(&mut instance, &caller, "3000000").await;
            cpu.push(thread_cpu() - before);
            executed.push(readings.try_iter().last().expect("a window ended"));
        }
        executed.sort();
        cpu.sort();
        show("executed time, against thread CPU time", executed[ROUNDS / 2], cpu[ROUNDS / 2]);
    }
}

/// Measures both in turn, so that a change of the machine's speed meets both, and shows their medians.
fn compare(case: &str, mut here: impl FnMut() -> Duration, mut anchor: impl FnMut() -> Duration) {
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) = (0..ROUNDS).map(|_| (here(), anchor())).unzip();
    ours.sort();
    theirs.sort();
    show(case, ours[ROUNDS / 2], theirs[ROUNDS / 2]);
}

fn show(case: &str, here: Duration, anchor: Duration) {
    let us = |duration: Duration| format!("{:.2} us", duration.as_secs_f64() * 1e6);
    let ratio = here.as_secs_f64() / anchor.as_secs_f64();
    println!("{case:<44} {:>11} {:>11} {ratio:>7.2}", us(here), us(anchor));
}

fn per_call(count: u32, mut work: impl FnMut()) -> Duration {
    let began = Bench::now();
    for _ in 0..count {
        work();
    }
    began.elapsed() / count
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn entry_names() -> EntryNames {
    EntryNames {
        handler: "handler".to_owned(),
        initializer: HookName::Default,
        pre_freeze: HookName::Default,
        pre_stop: HookName::Default,
    }
}

fn log_writer() -> LogWriter {
    let owner = Owner::new("bench".parse().expect("a name"), std::time::UNIX_EPOCH);
    Logs::in_memory().of(owner).of_version(VersionLabel::new("1".into()))
}

fn sandbox() -> Sandbox<'static> {
    static NONE: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    Sandbox { memory_mb: 128, environment: &NONE, outbound_hosts: Vec::new(), log: log_writer() }
}

fn blueprint(component: &Component) -> Arc<Blueprint> {
    Arc::new(Blueprint::new(component, &entry_names(), sandbox()).expect("it fits"))
}

fn context() -> CallContext {
    CallContext {
        request_id: "01a2039f-31e7-7175-8d2d-0819a41f3f33".into(),
        function: "bench".into(),
        version: "LATEST".into(),
        instance_id: "i-0123456789abcdef".into(),
        memory_mb: 128,
        deadline_ms: 0,
        attempt: 1,
        traceparent: None,
    }
}

/// Polls until the next event, which comes without waiting for anything outside.
fn next_event(guest: &mut Guest) -> Event {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Some(event) = guest.take_event() {
            return event;
        }
        guest.poll(&mut cx, || false);
    }
}

fn started(guest: &mut Guest) {
    assert!(matches!(next_event(guest), Event::Started));
}

fn call(guest: &mut Guest, id: u64) {
    guest.call(Call {
        id: CallId(id),
        entry: Entry::Handler,
        request: RequestId::new(),
        key: None,
        context: context(),
        trace: Trace::default(),
        input: Input::Event(b"you".to_vec().into()),
    });
    match next_event(guest) {
        Event::Returned(_, Ok(_)) => {}
        other => panic!("not an answer: {other:?}"),
    }
}

fn first_call(blueprint: Arc<Blueprint>) {
    let mut guest = Guest::new(blueprint, InstanceId::random());
    started(&mut guest);
    call(&mut guest, 1);
}

fn terms(blueprint: Arc<Blueprint>) -> Arc<Terms> {
    let function: FunctionName = "bench".parse().expect("a name");
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default(), FunctionLabels::new(1));
    Arc::new(Terms {
        hook_times: metrics.hook_times(&function),
        function,
        version: VersionLabel::new("LATEST".into()),
        memory_mb: 128,
        basis: Basis::Execution,
        concurrency: 1,
        requests_max: None,
        freeze_after: Duration::ZERO,
        start_timeout: Duration::from_secs(30),
        initializer_timeout: Duration::from_secs(3),
        pre_freeze_timeout: Duration::from_secs(3),
        pre_stop_timeout: Duration::from_secs(3),
        blueprint,
        log: log_writer(),
        post: Arc::new(|_| {}),
        metrics: Arc::new(metrics),
    })
}

/// What a pool has at hand for each request.
struct Client {
    function: FunctionName,
    version: Arc<str>,
    post: Post,
}

impl Client {
    fn new() -> Client {
        let function = "bench".parse().expect("a name");
        Client { function, version: "LATEST".into(), post: Arc::new(|_| {}) }
    }

    fn accept(&self, request: RequestId, now: tokio::time::Instant) -> InvocationMeter {
        let (function, version) = (self.function.clone(), self.version.clone());
        let call = AcceptedCall { request, function, version, called_by: CalledBy::Data, key: None, attempt: 1 };
        InvocationMeter::accept(call, now, self.post.clone())
    }
}

/// Gives a parked or new instance one request and drives it until it is parked.
async fn run(instance: &mut Instance, caller: &Client, event: &str) {
    let (reply, mut answer) = oneshot::channel();
    let now = tokio::time::Instant::now();
    let request = RequestId::new();
    instance.inbox().send(Box::new(Job {
        ticket: 0,
        request: request.clone(),
        input: Input::Event(event.as_bytes().to_vec().into()),
        trace: Trace::default(),
        span: None,
        timeout: Duration::from_secs(60),
        start: Start::Parked,
        accepted: now,
        assigned: now,
        meter: caller.accept(request, now),
        caller: Caller::Waiting(reply),
        is_work: false,
    }));
    instance.wake();
    loop {
        match poll_fn(|cx| instance.poll_next(cx, Clock::Wall, &mut || false)).await {
            Report::Moved(State::Parked) => break,
            Report::Answered(answered) => answered.send(),
            Report::Moved(_) => {}
            Report::Bounced(_) | Report::Stopped(_) => panic!("the instance ended"),
        }
    }
    let answer = answer.try_recv().expect("an answer");
    assert!(matches!(answer.outcome, Outcome::Replied(_)), "{answer:?}");
}

/// Runs a future that never waits for anything outside.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
    }
}
