//! `queue`: asynchronous invocations. How many are acknowledged in a second, each on disk; how long one takes from there to its
//! end; and what a million of them that wait cost: memory, disk, the host's start, and a neighbour whose callers wait.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::Options;
use crate::clock;
use crate::host::{Host, Setup};
use crate::load_generator::{Group, Tally};
use crate::machine::{Cores, SERVER_CORE};
use crate::measure;
use crate::overload::drive;
use crate::report::{Figure, Target};

/// Connections that hand events over.
const CONNECTIONS: usize = 16;
/// The event: 64 bytes.
const EVENT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NEIGHBOUR_PER_SECOND: f64 = 200.0;

/// How much is done.
struct Size {
    /// Events that wait.
    waiting: usize,
    /// Events whose delay is looked at while nothing else happens.
    idle: usize,
    /// How long the neighbour is watched.
    watched: Duration,
}

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let size = match options.plan.quick {
        true => Size { waiting: 2000, idle: 20, watched: Duration::from_millis(500) },
        false => Size { waiting: 1_000_000, idle: 500, watched: Duration::from_secs(10) },
    };
    let mut figures = accept_rate(options).context("accept rate")?;
    figures.extend(delays(options, &size).context("delays")?);
    figures.extend(many(options, &size).context("many that wait")?);
    Ok(figures)
}

fn start(options: &Options) -> Result<Host> {
    let mut host = Setup::new(Cores::Only(SERVER_CORE), options)?.start()?;
    let hello = tests::component("example-hello");
    host.deploy("worker", &hello, &json!({"concurrency": 100, "async": {"maxQueued": 10_000_000}}))?;
    host.deploy("neighbour", &hello, &json!({"concurrency": 16}))?;
    host.caller()?.invoke("worker", "you")?;
    host.caller()?.invoke("neighbour", "you")?;
    Ok(host)
}

fn hand_over(host: &Host) -> Group {
    let length = EVENT.len();
    let request = format!(
        "POST /invoke/worker HTTP/1.1\r\nhost: bench\r\ndormouse-invocation-type: async\r\ncontent-length: {length}\r\n\r\n{EVENT}"
    );
    Group::closed(host.data, CONNECTIONS, vec![request.into_bytes()])
}

fn order(host: &Host, order: &str) -> Result<()> {
    let reply = host.admin()?.send(&format!("POST /v1/functions/worker/{order}"), "", b"")?;
    ensure!(reply.status == 200, "{order}: {}", reply.status);
    Ok(())
}

/// Twice: while nothing runs, and while what comes is run as well.
fn accept_rate(options: &Options) -> Result<Vec<Figure>> {
    let host = start(options)?;
    let mut figures = Vec::new();
    for (case, running) in [("accepted, none runs", false), ("accepted, all run", true)] {
        order(&host, if running { "resume" } else { "suspend" })?;
        let (mut rates, mut cpu, mut noisy) = (Vec::new(), Vec::new(), false);
        for _ in 0..options.plan.rounds {
            let (round, _) = measure::round(options.plan, &host.server, &hand_over(&host), measure::generator())?;
            rates.push(round.per_second);
            cpu.push(round.cpu_us);
            noisy |= round.noisy();
        }
        let figure = |name, unit| Figure::new("queue", case, name, unit).noisy(noisy);
        let target = (!running).then_some(Target::AtLeast(5000.0));
        figures.push(figure("acknowledged at 16 connections", "events/s").values(rates).target(target));
        figures.push(figure("CPU of the host for each", "us").values(cpu));
    }
    Ok(figures)
}

/// From acceptance to the recorded end, as the host has both.
fn delays(options: &Options, size: &Size) -> Result<Vec<Figure>> {
    let host = start(options)?;
    let mut caller = host.caller()?;
    for _ in 0..size.idle {
        let reply = caller.send("POST /invoke/worker", "dormouse-invocation-type: async\r\n", EVENT.as_bytes())?;
        ensure!(reply.status == 202, "not accepted: {}", reply.status);
        std::thread::sleep(Duration::from_millis(5));
    }
    let idle = ended(&host, size.idle)?;
    let rate = Group { rate: Some(1000.0), ..hand_over(&host) };
    let under_load = drive(vec![rate], size.watched)?.remove(0);
    let count = (under_load.ok as usize).min(1000);
    let busy = ended(&host, count)?;
    let figures = [("idle", idle), ("1,000 events a second", busy)].map(|(case, delays)| {
        [0.5, 0.99].map(|share| {
            Figure::new("queue", case, format!("from acceptance to the end, p{}", share * 100.0), "ms")
                .value(clock::quantile(&delays, share))
        })
    });
    Ok(figures.into_iter().flatten().collect())
}

/// The delays of the newest invocations, in ms, once all have ended.
fn ended(host: &Host, count: usize) -> Result<Vec<f64>> {
    let began = clock::now();
    loop {
        let page = host.admin()?.json(&format!("/v1/functions/worker/invocations?limit={}", count.min(1000)))?;
        let found = page["invocations"].as_array().context("invocations")?;
        if found.len() == count.min(1000) && found.iter().all(|one| one["state"] == "succeeded") {
            return found.iter().map(delay_ms).collect();
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "they do not end");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn delay_ms(invocation: &Value) -> Result<f64> {
    let time = |name: &str| -> Result<std::time::SystemTime> {
        Ok(humantime::parse_rfc3339(invocation[name].as_str().context("a time")?)?)
    };
    Ok(time("endedAt")?.duration_since(time("acceptedAt")?)?.as_secs_f64() * 1e3)
}

fn many(options: &Options, size: &Size) -> Result<Vec<Figure>> {
    let host = start(options)?;
    let neighbour = |host: &Host| Group {
        rate: Some(NEIGHBOUR_PER_SECOND),
        ..Group::closed(host.data, 16, vec![crate::load_generator::request("neighbour", "you")])
    };
    order(&host, "suspend")?;
    let alone = watch(neighbour(&host), size)?;
    let (memory, disk) = (host.server.memory()?.resident_kib, bytes_in(&host)?);
    let mut accepted = 0;
    while accepted < size.waiting {
        accepted += drive(vec![hand_over(&host)], size.watched)?.remove(0).ok as usize;
    }
    let accepted = accepted as f64;
    let beside_waiting = watch(neighbour(&host), size)?;
    let setup = host.stop()?;
    let disk = (bytes_of(setup.state())? - disk) / accepted;
    let began = clock::now();
    let host = setup.start()?;
    let started = began.elapsed().as_secs_f64();
    let started_memory = host.server.memory()?.resident_kib;
    host.caller()?.invoke("neighbour", "you")?;
    order(&host, "resume")?;
    let beside_running = watch(neighbour(&host), size)?;
    let p99 = |tally: &Tally| tally.latency_us(0.99);
    let figure = |name: &str, unit| Figure::new("queue", format!("{accepted} wait"), name, unit);
    Ok(vec![
        figure("memory beyond that of an empty host that ran as long", "MB").value((started_memory - memory) / 1024.0),
        figure("disk for each event of 64 bytes", "bytes").value(disk).target(Target::AtMost(300.0)),
        figure("start of the host", "s").value(started).target(Target::AtMost(2.0)),
        figure("neighbour p99 alone", "us").value(p99(&alone)),
        figure("neighbour p99 while they wait, against alone", "x")
            .value(p99(&beside_waiting) / p99(&alone))
            .target(Target::AtMost(1.3)),
        figure("neighbour p99 while they run, against alone", "x")
            .value(p99(&beside_running) / p99(&alone))
            .target(Target::AtMost(1.3)),
    ])
}

fn watch(neighbour: Group, size: &Size) -> Result<Tally> {
    let tally = drive(vec![neighbour], size.watched)?.remove(0);
    tally.check()?;
    Ok(tally)
}

fn bytes_in(host: &Host) -> Result<f64> {
    bytes_of(host.state())
}

/// Bytes of the queue's file and of its log.
fn bytes_of(state: &Path) -> Result<f64> {
    let mut bytes = 0;
    for entry in fs::read_dir(state)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("queue.sqlite") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes as f64)
}
