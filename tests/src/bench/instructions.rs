//! `instructions`: how many instructions a request takes in user space, warm, thawed, fresh, and of the bare server.
//!
//! Counted by callgrind, so that a change of a percent can be seen on a machine that is busy with other things. Neither
//! time nor the kernel's share is in it, and the server runs many times slower than it would: `http` measures those.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, io, thread};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::Options;
use crate::client::Client;
use crate::host::{Host, Setup};
use crate::machine::{Cores, SERVER_CORE};
use crate::peers;
use crate::report::Figure;
use crate::server::{self, Server};

const EVENT: &str = "you";
const REPLY: &[u8] = b"Hello, you!\n";
/// Threads that work by the clock. Under valgrind a request takes many times longer, so they would count for that much
/// more of it than they are.
const BY_THE_CLOCK: [&str; 3] = ["epoch", "ledger", "ledger-file"];
/// The server runs below this. Guests are code that was made after the start, which valgrind must look at more closely.
/// Without `--fair-sched` a thread that computes, and under valgrind all do for long, keeps the others waiting.
const CALLGRIND: [&str; 6] = [
    "valgrind",
    "--tool=callgrind",
    "--instr-atstart=no",
    "--separate-threads=yes",
    "--smc-check=all-non-file",
    "--fair-sched=yes",
];

/// The share of calls that must start as their case says.
const STARTS_MIN: f64 = 0.98;
/// So long the caller waits where an instance must be parked again, which it is some time after the reply.
const PARKING: Duration = Duration::from_millis(20);

/// A case: the function that is called, how each call must start, and how long to wait before the next one.
struct Case {
    function: &'static str,
    start: Option<&'static str>,
    pause: Duration,
}

const BARE: Case = Case { function: "hello", start: None, pause: Duration::ZERO };
/// Warm calls come last, since their instance stays awake.
const CASES: [Case; 3] = [
    Case { function: "thaw", start: Some("parked"), pause: PARKING },
    Case { function: "fresh", start: Some("cold"), pause: Duration::ZERO },
    Case { function: "warm", start: Some("active"), pause: Duration::ZERO },
];

/// What is missing for this benchmark, if anything is.
pub(crate) fn missing() -> Option<&'static str> {
    let version = Command::new(CALLGRIND[0]).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let absent = version.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    absent.then_some("valgrind is not installed; Debian's package of it is `valgrind`")
}

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    if let Some(missing) = missing() {
        anyhow::bail!("{missing}");
    }
    let plan = options.plan;
    let (warm_up, count) = if plan.quick { (10, 20) } else { (100, 400) };
    let measure = |counter: &mut Counter, caller: &mut Client, case: &Case| -> Result<Vec<f64>> {
        case.call(caller, warm_up)?;
        (0..plan.rounds).map(|_| case.measure(counter, caller, count)).collect()
    };
    let bare = {
        let out = options.out.join("callgrind.bare");
        let peer = peers::bare::start_under(&callgrind(&out), Cores::Only(SERVER_CORE), &options.out)?;
        let mut counter = Counter::new(&peer.server, out);
        measure(&mut counter, &mut Client::connect(peer.address)?, &BARE).context("the bare server")?
    };
    let mut figures = vec![("bare axum".to_owned(), bare.clone())];
    let this = ("dormouse", server::this_program()?);
    for (build, program) in [this].into_iter().chain(options.before.clone().map(|program| ("before", program))) {
        let out = options.out.join(format!("callgrind.{build}"));
        let host = host(options, &program, &out)?;
        let mut counter = Counter::new(&host.server, out);
        let mut caller = host.caller()?;
        for case in &CASES {
            let name = format!("{build} {}", case.function);
            let counts = measure(&mut counter, &mut caller, case).with_context(|| name.clone())?;
            figures.push((name, counts));
        }
        host.stop()?;
    }
    let profile = if cfg!(debug_assertions) { "" } else { "--release " };
    println!("  repeat with: cargo run {profile}-p tests --bin bench -- instructions\n");
    let figure = |case: String, name, unit| Figure::new("instructions", case, name, unit);
    Ok(figures
        .into_iter()
        .flat_map(|(case, counts)| {
            let ratios = counts.iter().zip(&bare).map(|(ours, limit)| ours / limit).collect();
            [
                figure(case.clone(), "instructions per request", "").values(counts),
                figure(case, "against bare", "x").values(ratios),
            ]
        })
        .collect())
}

impl Case {
    /// Calls the function so often; says how many calls did not start as they should.
    fn call(&self, caller: &mut Client, count: usize) -> Result<usize> {
        let mut others = 0;
        for _ in 0..count {
            let reply = caller.invoke(self.function, EVENT)?;
            ensure!(reply.body == REPLY, "the reply was {:?}", String::from_utf8_lossy(&reply.body));
            others += usize::from(reply.field("dormouse-start") != self.start);
            thread::sleep(self.pause);
        }
        Ok(others)
    }

    /// The same, while the server's instructions are counted; says how many a call takes.
    fn measure(&self, counter: &mut Counter, caller: &mut Client, count: usize) -> Result<f64> {
        let (counted, others) = counter.count(|| self.call(caller, count))?;
        let share = 1.0 - others as f64 / count as f64;
        ensure!(share >= STARTS_MIN, "only {share:.2} of the calls were {:?}", self.start);
        Ok(counted / count as f64)
    }
}

fn callgrind(out: &Path) -> Vec<String> {
    let mut command = CALLGRIND.map(str::to_owned).to_vec();
    command.push(format!("--callgrind-out-file={}.%p", out.display()));
    command
}

fn host(options: &Options, program: &Path, out: &Path) -> Result<Host> {
    // Built before the host waits for it.
    let hello = tests::component("example-hello");
    let mut host = Setup::new(Cores::Only(SERVER_CORE), options)?.program(program).start()?;
    host.deploy("warm", &hello, &json!({"concurrency": 100, "freezeAfterMs": 10_000}))?;
    host.deploy("thaw", &hello, &json!({"concurrency": 1, "freezeAfterMs": 0}))?;
    host.deploy("fresh", &hello, &json!({"concurrency": 1, "maxRequestsPerInstance": 1}))?;
    // Compiled before: the compiler is a process of its own, which valgrind cannot start.
    host.stop()?.under(callgrind(out)).start()
}

/// Reads a server's count. Callgrind writes it into a numbered file each time it is asked.
struct Counter {
    pid: u32,
    out: PathBuf,
    dumps: usize,
}

impl Counter {
    fn new(server: &Server, out: PathBuf) -> Counter {
        Counter { pid: server.pid(), out, dumps: 0 }
    }

    /// Instructions during `work`, of all threads but those that work by the clock; and what `work` returns.
    fn count<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
        self.control("--instr=on")?;
        let done = work()?;
        self.control("--instr=off")?;
        self.control("--dump")?;
        self.dumps += 1;
        let left_out = self.threads_by_the_clock()?;
        let (mut counted, mut files) = (0.0, 0);
        // A dump has a file for each thread: its name ends with the process, the dump and the thread, `.4711.1-02`.
        let prefix = format!("{}.{}.{}-", self.out.display(), self.pid, self.dumps);
        for entry in fs::read_dir(self.out.parent().context("a file is in a folder")?)? {
            let path = entry?.path();
            let Some(thread) = path.to_str().and_then(|path| path.strip_prefix(&prefix)) else { continue };
            files += 1;
            if left_out.contains(&thread.parse()?) {
                continue;
            }
            let dump = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let totals = dump.lines().find_map(|line| line.strip_prefix("totals: "));
            let total = totals.and_then(|total| total.trim().parse::<f64>().ok());
            counted += total.with_context(|| format!("{} has no total", path.display()))?;
        }
        ensure!(files > 0, "callgrind wrote no {prefix}*");
        Ok((counted, done))
    }

    /// Numbers that valgrind has given to those threads.
    fn threads_by_the_clock(&self) -> Result<Vec<u32>> {
        let mut command = Command::new("vgdb");
        let output =
            command.arg(format!("--pid={}", self.pid)).args(["v.info", "scheduler"]).output().context("run vgdb")?;
        // Lines such as `Thread 4: status = VgTs_WaitSys syscall 202 (lwpid 14674)`.
        let by_the_clock = |line: &str| {
            let (number, rest) = line.strip_prefix("Thread ")?.split_once(':')?;
            let task = rest.rsplit_once("(lwpid ")?.1.strip_suffix(')')?;
            let name = fs::read_to_string(format!("/proc/{}/task/{task}/comm", self.pid)).ok()?;
            if BY_THE_CLOCK.contains(&name.trim()) { number.parse().ok() } else { None }
        };
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(by_the_clock).collect())
    }

    fn control(&self, order: &str) -> Result<()> {
        let mut command = Command::new("callgrind_control");
        let output = command.arg(order).arg(self.pid.to_string()).output().context("run callgrind_control")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "callgrind_control {order}: {said}");
        Ok(())
    }
}
