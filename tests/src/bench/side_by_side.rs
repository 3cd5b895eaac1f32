//! `side-by-side`: components that nobody here wrote, each on Dormouse and on `wasmtime serve` as it is at its best: what
//! somebody sees who has a component and looks for a host for it.
//!
//! Both have one core, the load generator has the other, and they take turns. Warm instances are compared with instances that
//! `wasmtime serve` keeps, and so are those that are parked after each request, with a pre-freeze; a fresh instance for each
//! request with the same there. Beside the warm ones, an event function that does as little is called in the same rounds.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::foreign;

use crate::host::{Host, Setup};
use crate::load_generator::{Group, get, request};
use crate::machine::{Cores, SERVER_CORE};
use crate::measure::{self, Round};
use crate::peers::wasmtime_serve::{self, Instances};
use crate::report::{Figure, Target};
use crate::server::Server;
use crate::{Options, clock, report};

const CONNECTIONS: [usize; 2] = [16, 64];

/// A component, and what it answers at `/`.
struct Guest {
    name: &'static str,
    example: &'static foreign::Example,
    reply: &'static [u8],
}

const GUESTS: [Guest; 3] = [
    Guest { name: "0.2", example: &foreign::WASIP2, reply: b"Hello, WASI!" },
    Guest { name: "0.2, wstd", example: &foreign::WSTD, reply: b"Hello, wasi:http/proxy world!\n" },
    Guest { name: "0.3", example: &foreign::WASIP3, reply: b"Hello, WASI!" },
];

impl Guest {
    /// The function that runs it in this way.
    fn function(&self, way: &str) -> String {
        format!("http{}-{way}", self.name.replace(['.', ',', ' '], ""))
    }
}

/// How Dormouse runs it, what is compared with that, and how much faster it has to be.
const WAYS: [(&str, Instances, f64); 3] =
    [("warm", Instances::Reused, 1.3), ("thaw", Instances::Reused, 1.0), ("fresh", Instances::Fresh, 1.5)];

fn settings(way: &str) -> Value {
    match way {
        "warm" => json!({"concurrency": 100}),
        "thaw" => json!({"freezeAfterMs": 0, "lifecycle": {"preFreeze": {"handler": "request"}}}),
        _ => json!({"maxRequestsPerInstance": 1}),
    }
}

/// The event function, what it answers, and how much faster than an HTTP function of another host it has to be.
const EVENT: (&str, &[u8], f64) = ("event", b"Hello, you!\n", 2.0);

/// A server with one of the components.
struct Contestant<'a> {
    server: &'a Server,
    address: SocketAddr,
    request: Vec<u8>,
    reply: &'static [u8],
}

impl Contestant<'_> {
    fn measure(&self, options: &Options, connections: usize) -> Result<Round> {
        let group = Group::closed(self.address, connections, vec![self.request.clone()]);
        let group = Group { expected: Some(self.reply.to_vec()), ..group };
        Ok(measure::round(options.plan, self.server, &group, measure::generator())?.0)
    }
}

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let mut host = Setup::new(Cores::Only(SERVER_CORE), options)?.start()?;
    for guest in &GUESTS {
        let component = guest.example.component();
        for (way, _, _) in WAYS {
            host.deploy(&guest.function(way), &component, &settings(way))?;
        }
    }
    host.deploy(EVENT.0, &tests::component("example-hello"), &settings("warm"))?;
    let mut figures = Vec::new();
    for guest in &GUESTS {
        figures.extend(compare(&host, guest, options).with_context(|| format!("component {}", guest.name))?);
    }
    Ok(figures)
}

fn compare(host: &Host, guest: &Guest, options: &Options) -> Result<Vec<Figure>> {
    let file = options.out.join("side-by-side.wasm");
    fs::write(&file, guest.example.component())?;
    let others =
        [Instances::Reused, Instances::Fresh].map(|instances| wasmtime_serve::start_with(&file, instances, options));
    let mut figures = Vec::new();
    let mut rows = Vec::new();
    for (way, instances, least) in WAYS {
        let (reply, path) = (guest.reply, format!("/fn/{}/", guest.function(way)));
        let ours = Contestant { server: &host.server, address: host.data, request: get(&path), reply };
        let event = Contestant { request: request(EVENT.0, "you"), reply: EVENT.1, ..ours };
        let theirs = others[usize::from(instances == Instances::Fresh)].as_ref();
        let mut theirs =
            theirs.map(|(server, address)| Contestant { server, address: *address, request: get("/"), reply });
        let case = format!("{} {way}", guest.name);
        for connections in CONNECTIONS {
            let (mut mine, mut other, mut events) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..options.plan.rounds {
                mine.push(ours.measure(options, connections)?);
                if way == "warm" {
                    events.push(event.measure(options, connections)?);
                }
                match theirs.as_ref().map(|theirs| theirs.measure(options, connections)).transpose() {
                    Ok(round) => other.extend(round),
                    Err(error) => {
                        println!("  wasmtime serve failed with {case} at {connections}: {error:#}");
                        theirs = None;
                    }
                }
            }
            rows.push(row(&case, connections, &mine, &other));
            figures.extend(figures_of(&case, connections, &mine, &other, least));
            if !events.is_empty() {
                let case = format!("an event beside {case}");
                rows.push(row(&case, connections, &events, &other));
                figures.extend(figures_of(&case, connections, &events, &other, EVENT.2));
            }
        }
    }
    let header = ["case", "connections", "req/s", "CPU us", "p99 us", "theirs: req/s", "CPU us", "p99 us"];
    report::table(&header.map(str::to_owned), &rows);
    Ok(figures)
}

fn median(rounds: &[Round], value: impl Fn(&Round) -> f64) -> f64 {
    clock::median(&rounds.iter().map(value).collect::<Vec<f64>>())
}

fn row(case: &str, connections: usize, mine: &[Round], other: &[Round]) -> Vec<String> {
    let mut row = vec![case.to_owned(), connections.to_string()];
    for rounds in [mine, other] {
        let values: [fn(&Round) -> f64; 3] = [|round| round.per_second, |round| round.cpu_us, |round| round.p99_us];
        for value in values {
            row.push(if rounds.is_empty() { "-".to_owned() } else { report::short(median(rounds, value)) });
        }
    }
    row
}

fn figures_of(case: &str, connections: usize, mine: &[Round], other: &[Round], least: f64) -> Vec<Figure> {
    let noisy = mine.iter().chain(other).any(Round::noisy);
    let figure = |name: String, unit| Figure::new("side-by-side", case, name, unit).noisy(noisy);
    let own = mine.iter().map(|round| round.per_second).collect();
    let mut figures = vec![figure(format!("throughput at {connections}"), "req/s").values(own)];
    if !other.is_empty() {
        let ratios = |value: fn(&Round, &Round) -> f64| -> Vec<f64> {
            mine.iter().zip(other).map(|(ours, theirs)| value(ours, theirs)).collect()
        };
        let throughput = ratios(|ours, theirs| ours.per_second / theirs.per_second);
        let cpu = ratios(|ours, theirs| theirs.cpu_us / ours.cpu_us);
        let target = Target::AtLeast(least);
        figures.push(
            figure(format!("throughput at {connections} against wasmtime serve"), "x")
                .values(throughput)
                .target(target),
        );
        figures.push(
            figure(format!("requests per CPU second at {connections} against it"), "x").values(cpu).target(target),
        );
    }
    figures
}
