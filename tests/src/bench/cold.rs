//! `cold`: from code to the first answer, from a start of the host to the first answer, and what a function costs that
//! nobody calls.

use anyhow::Result;
use serde_json::json;

use crate::Options;
use crate::clock::{self, millis, timed};
use crate::host::{Host, Setup};
use crate::machine::Cores;
use crate::report::{Figure, Target};

const EVENT: &str = "you";
/// Functions that are called for the first time, one after the other.
const FIRST_CALLS: usize = 90;

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let hello = tests::component("example-hello");
    let mut figures = deploys(options, &hello)?;
    let counts: &[usize] = if options.plan.quick { &[1, 100] } else { &[1, 100, 10_000] };
    let mut alone_kib = None;
    for count in counts {
        let mut host = Setup::new(Cores::All, options)?.start()?;
        let (deploying, deployed) = timed(|| deploy_all(&mut host, *count, &hello));
        deployed?;
        println!("  {count} functions deployed in {:.1} s", deploying.as_secs_f64());
        figures.extend(starts(host, *count, options.plan.rounds, &mut alone_kib)?);
    }
    Ok(figures)
}

/// New code to its first answer; and a compiled function's first answer after a restart of the host.
fn deploys(options: &Options, component: &[u8]) -> Result<Vec<Figure>> {
    let (mut deploys, mut restarts) = (Vec::new(), Vec::new());
    for _ in 0..options.plan.rounds {
        // A new host each time: it compiles the same code only once.
        let mut host = Setup::new(Cores::All, options)?.start()?;
        let (took, done) =
            timed(|| host.deploy("hello", component, &json!({})).and_then(|()| first_call(&host, "hello")));
        done?;
        deploys.push(millis(took));
        let host = host.stop()?.start()?;
        let mut caller = host.caller()?;
        let (took, reply) = timed(|| caller.invoke("hello", EVENT));
        reply?;
        restarts.push(millis(took));
    }
    let figure = |name: &str| Figure::new("cold", "one function", name, "ms");
    let restarts = figure("compiled code to first answer").values(restarts);
    Ok(vec![figure("deploy to first answer").values(deploys), restarts])
}

fn deploy_all(host: &mut Host, count: usize, component: &[u8]) -> Result<()> {
    (0..count).try_for_each(|index| host.deploy(&format!("hello-{index}"), component, &json!({})))
}

/// Starts of a host that has `count` functions, its memory, and first calls.
fn starts(host: Host, count: usize, rounds: usize, alone_kib: &mut Option<f64>) -> Result<Vec<Figure>> {
    let (mut starts, mut first_calls, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    let mut setup = host.stop()?;
    for _ in 0..rounds {
        let (took, host) = timed(|| -> Result<Host> {
            let host = setup.start()?;
            first_call(&host, "hello-0")?;
            Ok(host)
        });
        let host = host?;
        starts.push(millis(took));
        resident.push(host.server.memory()?.resident_kib);
        let mut caller = host.caller()?;
        for index in (1..count).take(FIRST_CALLS) {
            let (took, reply) = timed(|| caller.invoke(&format!("hello-{index}"), EVENT));
            anyhow::ensure!(reply?.field("dormouse-start") == Some("cold"), "hello-{index} had been called before");
            first_calls.push(millis(took));
        }
        setup = host.stop()?;
    }
    let case = format!("{count} functions");
    let figure = |name: &str, unit| Figure::new("cold", case.clone(), name, unit);
    let most = |count_min: usize, value| (count >= count_min).then_some(Target::AtMost(value));
    let mut figures = vec![figure("process start to first answer", "ms").values(starts).target(most(10_000, 1000.0))];
    if !first_calls.is_empty() {
        figures.push(figure("first call p50", "ms").value(clock::median(&first_calls)).target(most(10_000, 1.0)));
        figures.push(figure("first call p99", "ms").value(clock::quantile(&first_calls, 0.99)));
    }
    let resident_kib = clock::median(&resident);
    figures.push(figure("resident after the first answer", "KiB").values(resident));
    match alone_kib {
        None => *alone_kib = Some(resident_kib),
        Some(alone) => {
            let each = (resident_kib - *alone) / (count - 1) as f64;
            figures.push(figure("resident per idle function", "KiB").value(each).target(most(10_000, 20.0)));
        }
    }
    Ok(figures)
}

fn first_call(host: &Host, function: &str) -> Result<()> {
    host.caller()?.invoke(function, EVENT).map(drop)
}
