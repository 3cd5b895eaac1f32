//! `meter`: what the bill says against what the kernel says, what is charged for waiting, and what interruption by
//! epochs costs code that computes.
//!
//! There is no switch that turns the meter off. So what metering costs is measured by itself, meters, ledger and its
//! threads together, and compared with the CPU of a whole request.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse::ids::{FunctionName, InstanceId, LATEST, RequestId};
use dormouse::ledger::{self, Ledger};
use dormouse::meter::{AcceptedCall, Account, Basis, CalledBy, InvocationMeter, Rest, WindowMeter};
use serde_json::json;
use tokio::time::Instant;

use crate::Options;
use crate::clock::{median, micros, millis};
use crate::host::{Host, Setup};
use crate::load_generator::{Group, request};
use crate::machine::{self, Cores, SERVER_CORE, Watch};
use crate::report::{Figure, Target};
use crate::{fib, measure};

/// Counts primes for about a tenth of a second.
const COMPUTE: &str = "500000";
/// Milliseconds that the sleeper waits.
const WAIT_MS: &str = "300";

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let mut host = Setup::new(Cores::Only(SERVER_CORE), options)?.start()?;
    host.deploy("cpu", &tests::component("example-cpu"), &json!({}))?;
    host.deploy("sleeper", &tests::component("example-sleeper"), &json!({}))?;
    host.deploy("hello", &tests::component("example-hello"), &json!({"concurrency": 100}))?;
    host.deploy("fib", &fib::component()?, &json!({"freezeAfterMs": 1000}))?;
    let mut figures = computing(&host, options)?;
    figures.extend(waiting(&host, options)?);
    figures.extend(epochs(&host, options)?);
    figures.extend(metering(&host, options)?);
    Ok(figures)
}

/// CPU that the meters and the ledger take for a request, against that of a whole request over HTTP.
fn metering(host: &Host, options: &Options) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir_in(options.out.join("state"))?;
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite"), ledger::Options::default())?;
    let requests = if options.plan.quick { 20_000 } else { 200_000 };
    let (mut metered, mut whole, mut noisy) = (Vec::new(), Vec::new(), false);
    for _ in 0..options.plan.rounds {
        let watch = Watch::start(&[host.server.pid()])?;
        metered.push(machine::on(Cores::Only(SERVER_CORE), || metered_requests(&ledger, requests))?);
        noisy |= watch.foreign()? > measure::FOREIGN_MAX;
        let group = Group::closed(host.data, 16, vec![request("hello", "you")]);
        let (round, _) = measure::round(options.plan, &host.server, &group, measure::generator())?;
        noisy |= round.noisy();
        whole.push(round.cpu_us);
    }
    let figure = |name: &str, unit| Figure::new("meter", "warm requests", name, unit).noisy(noisy);
    let ratios = metered.iter().zip(&whole).map(|(metered, whole)| metered / whole).collect();
    Ok(vec![
        figure("CPU of metering a request", "us").values(metered),
        figure("CPU of a request", "us").values(whole),
        figure("metering against the request", "x").values(ratios).target(Some(Target::AtMost(0.02))),
    ])
}

/// Meters so many requests as the host does, many in one window; CPU time of one in microseconds.
fn metered_requests(ledger: &Ledger, requests: u32) -> Result<f64> {
    let (function, instance) = ("bench".parse::<FunctionName>()?, InstanceId::random());
    let account = Account {
        function: function.clone(),
        version: LATEST.into(),
        instance,
        memory_mb: 128,
        basis: Basis::Execution,
    };
    let ids: Vec<RequestId> = (0..requests).map(|_| RequestId::new()).collect();
    let before = machine::process_cpu(std::process::id())?;
    let mut window = WindowMeter::open(&account, 1, Rest::default(), Instant::now(), ledger.post());
    for id in ids {
        // Four readings of the clock, as on the host's path of a request.
        let (accepted, version) = (Instant::now(), account.version.clone());
        let called_by = CalledBy::Data;
        let call = AcceptedCall { request: id, function: function.clone(), version, called_by, key: None, attempt: 1 };
        let mut meter = InvocationMeter::accept(call, accepted, ledger.post());
        meter.began(instance, Instant::now());
        let from = Instant::now();
        window.request_began(from);
        let to = Instant::now();
        window.executed(to - from);
        window.ended_one(to);
        meter.ended(to);
        meter.outcome("ok", true);
    }
    window.close(Instant::now());
    ledger.flush().context("store the readings")?;
    let used = machine::process_cpu(std::process::id())?.saturating_sub(before);
    Ok(micros(used) / f64::from(requests))
}

/// Executed time against the CPU time of the host's whole process, HTTP and ledger included.
fn computing(host: &Host, options: &Options) -> Result<Vec<Figure>> {
    let calls = if options.plan.quick { 2 } else { 10 };
    let mut caller = host.caller()?;
    caller.invoke("cpu", COMPUTE)?;
    let (mut executed, mut cpu, mut noisy) = (Vec::new(), Vec::new(), false);
    for _ in 0..options.plan.rounds {
        let watch = Watch::start(&[host.server.pid()])?;
        let (bill, kernel) = (settled_usage(host, "cpu")?, host.server.cpu()?);
        for _ in 0..calls {
            let reply = caller.invoke("cpu", COMPUTE)?;
            ensure!(reply.body == b"41538\n", "there are 41538 primes below {COMPUTE}");
        }
        let spent = host.server.cpu()?.saturating_sub(kernel);
        executed.push((settled_usage(host, "cpu")? - bill).executed_ms / f64::from(calls));
        cpu.push(millis(spent) / f64::from(calls));
        noisy |= watch.foreign()? > measure::FOREIGN_MAX;
    }
    let figure = |name: &str, unit| Figure::new("meter", "computing", name, unit).noisy(noisy);
    let ratios = executed.iter().zip(&cpu).map(|(executed, cpu)| executed / cpu).collect();
    Ok(vec![
        figure("executed time of a call", "ms").values(executed),
        figure("CPU time of a call", "ms").values(cpu),
        figure("executed against CPU time", "x").values(ratios),
    ])
}

/// What is charged for waiting, against what the clock would charge.
fn waiting(host: &Host, options: &Options) -> Result<Vec<Figure>> {
    let mut caller = host.caller()?;
    let (mut charged, mut by_clock) = (Vec::new(), Vec::new());
    for _ in 0..options.plan.rounds {
        let before = settled_usage(host, "sleeper")?;
        caller.invoke("sleeper", WAIT_MS)?;
        let used = settled_usage(host, "sleeper")? - before;
        ensure!(used.requests == 1.0, "one request was billed as {}", used.requests);
        charged.push(used.cu * 1e3);
        by_clock.push(used.duration_cu * 1e3);
    }
    let figure = |name: &str, unit| Figure::new("meter", format!("waiting {WAIT_MS} ms"), name, unit);
    let ratios = charged.iter().zip(&by_clock).map(|(charged, by_clock)| charged / by_clock).collect();
    Ok(vec![
        figure("charged", "mCU").values(charged),
        figure("by the clock", "mCU").values(by_clock),
        figure("charged against by the clock", "x").values(ratios),
    ])
}

/// fib(27): executed time on the host, whose code can be interrupted, against the bare engine's, on the same core.
fn epochs(host: &Host, options: &Options) -> Result<Vec<Figure>> {
    let calls = if options.plan.quick { 20 } else { 200 };
    let mut bare = fib::Bare::new()?;
    let mut caller = host.caller()?;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..options.plan.rounds {
        caller.invoke("fib", "")?;
        let mut executed = Vec::new();
        for _ in 0..calls {
            let reply = caller.invoke("fib", "")?;
            ensure!(reply.body == fib::RESULT.to_le_bytes(), "fib(27) is wrong: {:?}", reply.body);
            let timing = reply.field("server-timing").context("where the time went")?;
            let text = timing.rsplit("exec;dur=").next().context("the executed time")?;
            executed.push(text.parse::<f64>()?);
        }
        here.push(median(&executed));
        let bare = &mut bare;
        let took = machine::on(Cores::Only(SERVER_CORE), move || {
            (0..calls).map(|_| bare.calls(1).map(millis)).collect::<Result<Vec<f64>>>()
        })?;
        there.push(median(&took));
    }
    let figure = |name: &str, unit| Figure::new("meter", "fib(27)", name, unit);
    let ratios = here.iter().zip(&there).map(|(here, there)| here / there).collect();
    Ok(vec![
        figure("executed on the host", "ms").values(here),
        figure("on the bare engine", "ms").values(there),
        figure("host against bare engine", "x").values(ratios).target(Some(Target::AtMost(1.25))),
    ])
}

/// The bill once the instance is parked: a window is billed when it closes.
fn settled_usage(host: &Host, function: &str) -> Result<crate::host::Usage> {
    let mut last = host.usage(function)?;
    loop {
        std::thread::sleep(Duration::from_millis(60));
        let now = host.usage(function)?;
        if (now.requests, now.hook_calls) == (last.requests, last.hook_calls) {
            return Ok(now);
        }
        last = now;
    }
}
