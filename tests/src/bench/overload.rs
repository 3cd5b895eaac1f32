//! `load`: ten times more requests than a function can answer, sent at a rate that does not give way. What must hold:
//! the function answers as many as it can, the host's memory stays, and a neighbour hardly notices.
//!
//! Twice: with a function that waits, which is full when all of its instances are taken, and with one that computes,
//! which fills the host's core. Only replies of status 200 are goodput; refusals are counted apart.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::Options;
use crate::host::{Host, Setup};
use crate::load_generator::{Generator, Group, Tally, request};
use crate::machine::{self, Cores, SERVER_CORE, Watch};
use crate::measure;
use crate::peers;
use crate::report::{Figure, Target};

/// Connections of the callers, each with one request under way at most.
const CONNECTIONS: usize = 640;
/// How many times the capacity is sent.
const EXCESS: f64 = 10.0;
const NEIGHBOUR_PER_SECOND: f64 = 200.0;
/// Enough for the rate even if a request takes a third of a second.
const NEIGHBOUR_CONNECTIONS: usize = 64;

/// Connections of those who are refused.
const REFUSED_CONNECTIONS: usize = 16;

/// A function under too much load.
struct Case {
    name: &'static str,
    package: &'static str,
    event: &'static str,
    instances: usize,
}

/// One waits for 10 ms, the other computes for about one.
const CASES: [Case; 2] = [
    Case { name: "waiting", package: "example-sleeper", event: "10", instances: 16 },
    Case { name: "computing", package: "example-cpu", event: "20000", instances: 4 },
];

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for case in &CASES {
        figures.extend(case.run(options).with_context(|| format!("overload, {}", case.name))?);
    }
    figures.extend(refusals(options).context("refusals")?);
    Ok(figures)
}

/// What it costs to say no: a function whose only instance is taken is called, beside a bare server that says yes.
fn refusals(options: &Options) -> Result<Vec<Figure>> {
    let mut host = Setup::new(Cores::Only(SERVER_CORE), options)?.start()?;
    let settings = json!({"concurrency": 1, "maxInstances": 1, "queueDepth": 0, "timeoutMs": 600_000});
    host.deploy("full", &tests::component("example-sleeper"), &settings)?;
    host.caller()?.invoke("full", "0")?;
    let mut taking = TcpStream::connect(host.data)?;
    taking.write_all(&request("full", "599000"))?;
    let bare = peers::bare::start(Cores::Only(SERVER_CORE), &options.out)?;
    let (mut ours, mut limit, mut noisy) = (Vec::new(), Vec::new(), false);
    for _ in 0..options.plan.rounds {
        let refuse = Group::closed(host.data, REFUSED_CONNECTIONS, vec![request("full", "0")]);
        let (round, tally) = measure::unchecked_round(options.plan, &host.server, &refuse, measure::generator())?;
        // The first may have come before the one that takes the instance.
        ensure!(tally.refused > 0 && tally.ok <= 1 && tally.others.is_empty(), "not every request was refused");
        let answer = Group::closed(bare.address, REFUSED_CONNECTIONS, vec![request("hello", "you")]);
        let (bare_round, _) = measure::round(options.plan, &bare.server, &answer, measure::generator())?;
        noisy |= round.noisy() || bare_round.noisy();
        ours.push(round.cpu_us);
        limit.push(bare_round.cpu_us);
    }
    let figure = |name: &str, unit| Figure::new("load", "refusal", name, unit).noisy(noisy);
    let ratios = ours.iter().zip(&limit).map(|(ours, limit)| ours / limit).collect();
    Ok(vec![
        figure("CPU", "us").values(ours).target(Target::AtMost(3.0)),
        figure("CPU against a bare server's answer", "x").values(ratios),
    ])
}

impl Case {
    fn run(&self, options: &Options) -> Result<Vec<Figure>> {
        let long = Duration::from_secs(if options.plan.quick { 3 } else { 60 });
        let short = long / 6;
        let host = self.start(options)?;
        let neighbour = Group {
            rate: Some(NEIGHBOUR_PER_SECOND),
            ..Group::closed(host.data, NEIGHBOUR_CONNECTIONS, vec![request("neighbour", "you")])
        };
        let watch = Watch::start(&[host.server.pid()])?;
        let capacity = drive(vec![Group::closed(host.data, self.instances, self.requests())], short)?.remove(0);
        capacity.check().context("capacity")?;
        let alone = drive(vec![neighbour.clone()], 2 * short)?.remove(0);
        alone.check().context("the neighbour alone")?;
        let resident = host.server.memory()?.resident_kib;
        let rate = Some(EXCESS * capacity.per_second());
        let callers = Group { rate, ..Group::closed(host.data, CONNECTIONS, self.requests()) };
        let mut tallies = drive(vec![callers, neighbour], long)?;
        let (beside, overloaded) = (tallies.remove(1), tallies.remove(0));
        beside.check().context("the neighbour under load")?;
        ensure!(overloaded.refused > 0, "nothing was refused: this was no overload");
        ensure!(overloaded.others.is_empty(), "replies by status: {:?}", overloaded.others);
        let peak = host.server.memory()?.peak_kib;
        let noisy = watch.foreign()? > measure::FOREIGN_MAX;
        let figures = self.figures(&capacity, &overloaded, [&alone, &beside]).into_iter();
        let growth =
            Figure::new("load", self.name, "resident at its peak, more than before", "KiB").value(peak - resident);
        Ok(figures.chain([growth]).map(|figure| figure.noisy(noisy)).collect())
    }

    fn start(&self, options: &Options) -> Result<Host> {
        let mut host = Setup::new(Cores::Only(SERVER_CORE), options)?.start()?;
        let settings: Value = json!({"concurrency": 1, "maxInstances": self.instances, "queueDepth": self.instances});
        host.deploy("busy", &tests::component(self.package), &settings)?;
        host.deploy("neighbour", &tests::component("example-hello"), &json!({"concurrency": 16}))?;
        host.caller()?.invoke("busy", self.event)?;
        host.caller()?.invoke("neighbour", "you")?;
        Ok(host)
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        vec![request("busy", self.event)]
    }

    fn figures(&self, capacity: &Tally, overloaded: &Tally, neighbour: [&Tally; 2]) -> Vec<Figure> {
        let figure = |name: &str, unit| Figure::new("load", self.name, name, unit);
        let seconds = overloaded.elapsed.as_secs_f64();
        let goodput = overloaded.per_second() / capacity.per_second();
        let [alone, beside] = neighbour.map(|tally| tally.latency_us(0.99));
        vec![
            figure("capacity", "req/s").value(capacity.per_second()),
            figure("sent", "req/s").value(overloaded.replies() as f64 / seconds),
            figure("due and not sent: no connection was free", "req/s").value(overloaded.unsent as f64 / seconds),
            figure("refused", "req/s").value(overloaded.refused as f64 / seconds),
            figure("goodput", "req/s").value(overloaded.per_second()),
            figure("goodput against capacity", "x").value(goodput).target(Target::AtLeast(0.9)),
            figure("accepted p50", "us").value(overloaded.latency_us(0.5)),
            figure("accepted p99", "us").value(overloaded.latency_us(0.99)),
            figure("neighbour p99 alone", "us").value(alone),
            figure("neighbour p99 beside the load", "us").value(beside),
            figure("neighbour p99 against alone", "x").value(beside / alone).target(Target::AtMost(2.0)),
        ]
    }
}

/// Runs groups from the load generator's core, after a short warm-up.
pub(crate) fn drive(groups: Vec<Group>, duration: Duration) -> Result<Vec<Tally>> {
    machine::on(measure::generator(), || {
        let mut generator = Generator::connect(groups)?;
        generator.run(duration / 10)?;
        generator.run(duration)
    })
}
