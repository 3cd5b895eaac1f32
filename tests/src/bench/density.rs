//! `density`: what a parked instance occupies, that it does nothing, how fast one of many wakes, and what they cost a
//! function that is busy beside them.
//!
//! `called` instances have each answered a request that waited; `kept` ones the host made itself (`minInstances`), and
//! they have only been initialized and frozen. Each called function gets a few instances by as many requests that wait at the same time. Of a function's parked instances
//! the last one wakes first, so random picks of functions are picks among that many instances, not among all.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::Options;
use crate::clock;
use crate::host::{Host, Setup};
use crate::load_generator::{Generator, Group, Order, request};
use crate::machine::{self, Cores, SERVER_CORE, Watch};
use crate::measure::{self, Plan, Round};
use crate::report::{Figure, Target};
use crate::server::Memory;

/// Instances of one function.
const INSTANCES_EACH: usize = 10;
/// Instances of one function that the host keeps by itself.
const KEPT_EACH: usize = 500;
/// How long a request waits, so that others of its function find its instance taken.
const WAIT_MS: &str = "200";
/// Connections for each instance: few, since what a host keeps of them would be counted as the instances'.
const CONNECTIONS_SHARE: f64 = 0.05;
const CONNECTIONS_MAX: usize = 2000;
/// What comes after the last request, such as writing the bill to disk, is over by then.
const REST: Duration = Duration::from_secs(2);
/// Passes over all functions until each has its instances.
const PASSES_MAX: usize = 5;
const PATIENCE: Duration = Duration::from_secs(600);
const HOT_CONNECTIONS: usize = 16;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let plan = options.plan;
    let count = options.count.unwrap_or(if plan.quick { 500 } else { 1000 });
    let functions: Vec<String> = (0..count.div_ceil(INSTANCES_EACH)).map(|index| format!("parked-{index}")).collect();
    // It is gone before the others come: memory holds one population of the largest size.
    let mut figures = kept(options, count)?;
    let empty = start(options, count)?;
    let mut host = start(options, count)?;
    let sleeper = tests::component("example-sleeper");
    let settings = json!({
        "concurrency": 1, "maxInstances": INSTANCES_EACH, "freezeAfterMs": 0, "idleTimeoutMs": 86_400_000,
    });
    for function in &functions {
        host.deploy(function, &sleeper, &settings)?;
    }
    host.deploy("awake", &sleeper, &json!({"freezeAfterMs": 60_000, "idleTimeoutMs": 86_400_000}))?;
    let (occupied, parked) = called(&host, &functions, plan)?;
    figures.extend(occupied);
    let case = format!("{parked:.0} called");
    figures.extend(thaws(&host, &functions, plan, &case)?);
    figures.extend(hot(&host, &empty, plan, &case)?);
    Ok(figures)
}

fn start(options: &Options, count: usize) -> Result<Host> {
    let setup = Setup::new(Cores::Only(SERVER_CORE), options)?.flag(format!("--instances-max={}", 2 * count + 1000));
    let mut host = setup.start()?;
    host.deploy("hot", &tests::component("example-hello"), &json!({"concurrency": 100}))?;
    host.caller()?.invoke("hot", "you")?;
    Ok(host)
}

/// Fills the host with instances that answered a request each, and tells what they occupy and how many they are.
fn called(host: &Host, functions: &[String], plan: Plan) -> Result<(Vec<Figure>, f64)> {
    // The first instance of each function loads its code, so that the difference is that of instances alone.
    wait_together(host, functions, 1, "0")?;
    let first = host.settled()?;
    let before = host.server.memory()?;
    let (took, parked) = clock::timed(|| populate(host, functions, first));
    let parked = parked?;
    let after = host.server.memory()?;
    println!("  {parked} parked instances of {} functions after {:.1} s", functions.len(), took.as_secs_f64());
    std::thread::sleep(REST);
    let idle = Duration::from_secs(if plan.quick { 1 } else { 10 });
    let watch = Watch::start(&[host.server.pid()])?;
    let cpu = host.server.cpu()?;
    std::thread::sleep(idle);
    let cpu = host.server.cpu()?.saturating_sub(cpu);
    let noisy = watch.foreign()? > measure::FOREIGN_MAX;
    let case = format!("{parked:.0} called");
    let mut figures = occupied(&case, &before, &after, parked - first);
    figures.push(
        Figure::new("density", case, "CPU while all are parked", "ms/s")
            .value(clock::millis(cpu) / idle.as_secs_f64())
            .noisy(noisy),
    );
    Ok((figures, parked))
}

/// What instances occupy that were never called.
fn kept(options: &Options, count: usize) -> Result<Vec<Figure>> {
    let mut host = start(options, count)?;
    let hello = tests::component("example-hello");
    let first = host.settled()?;
    // One is started and parked first, so that the code is there.
    host.deploy("kept-0", &hello, &json!({"minInstances": 1}))?;
    host.parked_at_least(first + 1.0)?;
    let before = host.server.memory()?;
    let functions = count.div_ceil(KEPT_EACH);
    for index in 1..=functions {
        let kept = json!({"minInstances": KEPT_EACH, "maxInstances": KEPT_EACH});
        host.deploy(&format!("kept-{index}"), &hello, &kept)?;
    }
    let added = (functions * KEPT_EACH) as f64;
    host.parked_at_least(first + 1.0 + added)?;
    let after = host.server.memory()?;
    Ok(occupied(&format!("{added} kept"), &before, &after, added))
}

fn occupied(case: &str, before: &Memory, after: &Memory, added: f64) -> Vec<Figure> {
    let each = |of: fn(&Memory) -> f64| (of(after) - of(before)) / added;
    let figure = |name: &str, unit| Figure::new("density", case, name, unit);
    vec![
        figure("resident an instance", "KiB").value(each(|memory| memory.resident_kib)),
        figure("proportional an instance", "KiB").value(each(|memory| memory.proportional_kib)),
        figure("page tables an instance", "KiB").value(each(|memory| memory.page_tables_kib)),
        figure("resident and page tables an instance", "KiB")
            .value(each(|memory| memory.resident_kib + memory.page_tables_kib))
            .target(Target::AtMost(36.0)),
        figure("kernel maps an instance", "").value(each(|memory| memory.maps)).target(Target::AtMost(0.01)),
        figure("kernel maps of the host", "").value(after.maps),
    ]
}

/// Calls until every function has its instances, all parked; returns how many there are.
fn populate(host: &Host, functions: &[String], first: f64) -> Result<f64> {
    let wanted = first + (functions.len() * (INSTANCES_EACH - 1)) as f64;
    let mut parked = first;
    for _ in 0..PASSES_MAX {
        wait_together(host, functions, INSTANCES_EACH, WAIT_MS)?;
        parked = host.settled()?;
        if parked >= wanted {
            return Ok(parked);
        }
    }
    // Requests of one function did not all overlap: the machine is slow, but what is there can be measured.
    println!("  only {parked} of {wanted} instances could be made");
    ensure!(parked > wanted / 2.0, "too few instances; the host's log may say why");
    Ok(parked)
}

/// Sends each function so many requests at the same time.
fn wait_together(host: &Host, functions: &[String], each: usize, event: &str) -> Result<()> {
    let one = |function: &String| std::iter::repeat_n(request(function, event), each);
    let requests: Vec<Vec<u8>> = functions.iter().flat_map(one).collect();
    // Whole groups of requests to one function begin together, and so end together.
    let groups = (functions.len() as f64 * CONNECTIONS_SHARE) as usize;
    let connections = (groups * each).clamp(each, CONNECTIONS_MAX);
    let group = Group { order: Order::Once, ..Group::closed(host.data, connections, requests) };
    let mut tallies = machine::on(measure::generator(), || Generator::connect(vec![group])?.run(PATIENCE))?;
    tallies.remove(0).check().context("make instances")
}

/// Latency of one connection's requests to functions chosen at random, against those to one that stays awake.
fn thaws(host: &Host, functions: &[String], plan: Plan, case: &str) -> Result<Vec<Figure>> {
    let (mut warm, mut thaw) = (Vec::new(), Vec::new());
    let picks: Vec<Vec<u8>> = functions.iter().map(|function| request(function, "0")).collect();
    for _ in 0..plan.rounds {
        let group = Group::closed(host.data, 1, vec![request("awake", "0")]);
        warm.push(measure::round(plan, &host.server, &group, measure::generator())?.0);
        let group = Group::closed(host.data, 1, picks.clone());
        let (round, tally) = measure::round(plan, &host.server, &group, measure::generator())?;
        ensure!(tally.starts.parked * 10 >= tally.ok * 9, "only {} of {} were parked", tally.starts.parked, tally.ok);
        thaw.push(round);
    }
    let noisy = warm.iter().chain(&thaw).any(Round::noisy);
    let figure = |name: &str, unit| Figure::new("density", case, name, unit).noisy(noisy);
    let values = |rounds: &[Round], of: fn(&Round) -> f64| rounds.iter().map(of).collect::<Vec<f64>>();
    let ratios = warm.iter().zip(&thaw).map(|(warm, thaw)| thaw.p50_us / warm.p50_us).collect();
    Ok(vec![
        figure("warm p50", "us").values(values(&warm, |round| round.p50_us)),
        figure("thaw p50", "us").values(values(&thaw, |round| round.p50_us)),
        figure("thaw p50 against warm p50", "x").values(ratios).target(Target::AtMost(1.3)),
        figure("thaw p99", "us").values(values(&thaw, |round| round.p99_us)).target(Target::AtMost(1000.0)),
    ])
}

/// Throughput of a busy function beside the parked ones, against the same on a host without them, in turns.
fn hot(host: &Host, empty: &Host, plan: Plan, case: &str) -> Result<Vec<Figure>> {
    let (mut beside, mut alone, mut noisy) = (Vec::new(), Vec::new(), false);
    for _ in 0..plan.rounds {
        for (host, rounds) in [(empty, &mut alone), (host, &mut beside)] {
            let group = Group::closed(host.data, HOT_CONNECTIONS, vec![request("hot", "you")]);
            let (round, _) = measure::round(plan, &host.server, &group, measure::generator())?;
            noisy |= round.noisy();
            rounds.push(round.per_second);
        }
    }
    let ratios = beside.iter().zip(&alone).map(|(beside, alone)| beside / alone).collect();
    let figure = |name: &str, unit| Figure::new("density", case, name, unit).noisy(noisy);
    Ok(vec![
        figure("hot function alone", "req/s").values(alone),
        figure("hot function beside them", "req/s").values(beside),
        figure("beside them against alone", "x").values(ratios).target(Target::AtLeast(0.97)),
    ])
}
