//! `http`: what a request costs, warm, thawed, fresh and among many functions, beside a bare server and other hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::host::{Host, Setup, Usage};
use crate::load_generator::{Generator, Group, Order, Tally, request};
use crate::machine::{Cores, SERVER_CORE};
use crate::measure::{self, Plan, Round};
use crate::peers::{self, Peer};
use crate::report::{self, Figure, Target};
use crate::server::Server;
use crate::{Options, clock, machine};

const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Connections of the case with two cores.
const TWO_CORES_CONNECTIONS: usize = 16;
const EVENT: &str = "you";
const REPLY: &[u8] = b"Hello, you!\n";
/// How long the first calls of all functions may take.
const FIRST_CALLS_MAX: Duration = Duration::from_secs(300);
/// The share of requests that must start as their case says.
const STARTS_MIN: f64 = 0.9;
/// The same in a quick run, whose host is not optimised: the next request often comes before an instance is parked.
const STARTS_MIN_QUICK: f64 = 0.2;

/// How the requests of a case must start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Nothing is said about it.
    Any,
    Active,
    Parked,
    Cold,
}

/// One case: a server, and what it is asked.
struct Contestant<'a> {
    name: String,
    server: &'a Server,
    address: SocketAddr,
    functions: Vec<String>,
    start: Start,
}

type Rounds = BTreeMap<(usize, usize), Vec<Round>>;

/// The hosts, by what they may use and what they hold.
struct Hosts {
    one_core: Host,
    /// The same as the first, of an earlier build.
    before: Option<Host>,
    many: Host,
    two_cores: Host,
}

pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    let hosts = Hosts::start(options)?;
    let bare = peers::bare::start(Cores::Only(SERVER_CORE), &options.out)?;
    let others = peers::start(options.peers, &options.out);
    let contestants = contestants(&hosts, &bare, &others, options.plan);
    call_each_once(&hosts.many, options.plan).context("first calls of many functions")?;
    let before = hosts.one_core.usage("thaw")?;
    let mut rounds = Rounds::new();
    let mut parked = 0;
    for _ in 0..options.plan.rounds {
        for (index, contestant) in contestants.iter().enumerate() {
            for connections in CONNECTIONS {
                let (round, tally) = contestant.measure(options.plan, connections, measure::generator())?;
                parked += tally.starts.parked;
                rounds.entry((index, connections)).or_default().push(round);
            }
        }
    }
    let used = hosts.one_core.usage("thaw")? - before;
    check_thaws(used, starts_min(options.plan))?;
    println!(
        "  thaw: {} requests, {} hook calls; {parked} measured replies said `parked`",
        used.requests, used.hook_calls
    );
    let names: Vec<String> = contestants.iter().map(|contestant| contestant.name.clone()).collect();
    show(&names, &rounds);
    let mut figures = figures(&names, &rounds);
    figures.extend(against_others(&names, &rounds));
    figures.extend(against_thaw(&names, &rounds));
    figures.extend(two_cores(&hosts, options.plan, &options.out)?);
    Ok(figures)
}

impl Hosts {
    fn start(options: &Options) -> Result<Hosts> {
        let hello = tests::component("example-hello");
        let start = |cores| Setup::new(cores, options)?.start();
        let earlier = |program: &PathBuf| Setup::new(Cores::Only(SERVER_CORE), options)?.program(program).start();
        let mut one_core = start(Cores::Only(SERVER_CORE))?;
        let mut before = options.before.as_ref().map(earlier).transpose().context("start the earlier build")?;
        let mut two_cores = start(Cores::All)?;
        for host in [&mut one_core, &mut two_cores].into_iter().chain(&mut before) {
            host.deploy("warm", &hello, &json!({"concurrency": 100}))?;
            host.deploy("thaw", &hello, &json!({"concurrency": 1, "freezeAfterMs": 0}))?;
            host.deploy("fresh", &hello, &json!({"concurrency": 1, "maxRequestsPerInstance": 1}))?;
        }
        let mut many = start(Cores::Only(SERVER_CORE))?;
        for name in many_functions(options.plan) {
            many.deploy(&name, &hello, &json!({"concurrency": 100})).context("deploy many functions")?;
        }
        Ok(Hosts { one_core, before, many, two_cores })
    }
}

/// How many functions are called at random, in two cases.
fn how_many(plan: Plan) -> [usize; 2] {
    if plan.quick { [50, 200] } else { [1000, 10_000] }
}

fn many_functions(plan: Plan) -> Vec<String> {
    (0..how_many(plan)[1]).map(|index| format!("hello-{index}")).collect()
}

/// So that what is measured is not their first calls, which `cold` measures.
fn call_each_once(host: &Host, plan: Plan) -> Result<()> {
    let requests = many_functions(plan).iter().map(|function| request(function, EVENT)).collect();
    let group = Group { order: Order::Once, ..Group::closed(host.data, 16, requests) };
    Generator::connect(vec![group])?.run(FIRST_CALLS_MAX)?.remove(0).check()
}

fn contestants<'a>(hosts: &'a Hosts, bare: &'a Peer, others: &'a [Peer], plan: Plan) -> Vec<Contestant<'a>> {
    let mut contestants = vec![contestant(bare)];
    for (function, start) in [("warm", Start::Active), ("thaw", Start::Parked), ("fresh", Start::Cold)] {
        contestants.push(dormouse(&hosts.one_core, function, start));
        if let Some(host) = &hosts.before {
            let name = format!("before {function}");
            contestants.push(Contestant { name, ..dormouse(host, function, start) });
        }
    }
    let functions = many_functions(plan);
    for (name, count) in ["some", "many"].into_iter().zip(how_many(plan)) {
        let functions = functions[..count].to_vec();
        contestants.push(Contestant { functions, ..dormouse(&hosts.many, name, Start::Any) });
    }
    contestants.extend(others.iter().map(contestant));
    contestants
}

fn contestant(peer: &Peer) -> Contestant<'_> {
    Contestant {
        name: peer.name.clone(),
        server: &peer.server,
        address: peer.address,
        functions: vec!["hello".to_owned()],
        start: Start::Any,
    }
}

fn dormouse<'a>(host: &'a Host, function: &str, start: Start) -> Contestant<'a> {
    let (name, functions) = (format!("dormouse {function}"), vec![function.to_owned()]);
    Contestant { name, server: &host.server, address: host.data, functions, start }
}

impl Contestant<'_> {
    fn measure(&self, plan: Plan, connections: usize, cores: Cores) -> Result<(Round, Tally)> {
        let requests = self.functions.iter().map(|function| request(function, EVENT)).collect();
        let group = Group { expected: Some(REPLY.to_vec()), ..Group::closed(self.address, connections, requests) };
        let context = || format!("{} with {connections} connections", self.name);
        let (round, tally) = measure::round(plan, self.server, &group, cores).with_context(context)?;
        let starts = match self.start {
            Start::Any => tally.ok,
            Start::Active => tally.starts.active,
            Start::Parked => tally.starts.parked,
            Start::Cold => tally.starts.cold,
        };
        let share = starts as f64 / tally.ok as f64;
        ensure!(share >= starts_min(plan), "{}: only {share:.3} of the requests started as they should", context());
        Ok((round, tally))
    }
}

fn starts_min(plan: Plan) -> f64 {
    if plan.quick { STARTS_MIN_QUICK } else { STARTS_MIN }
}

/// A thaw is a thaw only if pre-freeze ran before the instance was parked again, each time.
fn check_thaws(used: Usage, starts_min: f64) -> Result<()> {
    let share = used.hook_calls / used.requests;
    ensure!(share >= starts_min, "{} hook calls for {} requests: not each was parked", used.hook_calls, used.requests);
    Ok(())
}

/// The quantities of a round, and whether more is better.
fn quantities(round: &Round) -> [(&'static str, &'static str, f64); 5] {
    [
        ("throughput", "req/s", round.per_second),
        ("p50", "us", round.p50_us),
        ("p99", "us", round.p99_us),
        ("p99.9", "us", round.p999_us),
        ("CPU per request", "us", round.cpu_us),
    ]
}

fn figures(names: &[String], rounds: &Rounds) -> Vec<Figure> {
    let mut figures = Vec::new();
    for ((index, connections), mine) in rounds {
        let bare = &rounds[&(0, *connections)];
        let case = &names[*index];
        let noisy = mine.iter().any(Round::noisy);
        for (quantity, (name, unit, _)) in quantities(&mine[0]).into_iter().enumerate() {
            let values =
                |rounds: &[Round]| rounds.iter().map(|round| quantities(round)[quantity].2).collect::<Vec<f64>>();
            let (ours, limit) = (values(mine), values(bare));
            let ratios = ours.iter().zip(&limit).map(|(ours, limit)| ours / limit).collect();
            let figure = |name: String, unit| Figure::new("http", case.clone(), name, unit).noisy(noisy);
            figures.push(figure(format!("{name} at {connections}"), unit).values(ours));
            let target = target(case, name, *connections);
            let noisy = noisy || bare.iter().any(Round::noisy);
            figures.push(
                figure(format!("{name} at {connections} against bare"), "x").values(ratios).noisy(noisy).target(target),
            );
        }
    }
    figures
}

fn target(case: &str, quantity: &str, connections: usize) -> Option<Target> {
    match (case, quantity, connections) {
        ("dormouse warm", "throughput", 16 | 64) => Some(Target::AtLeast(0.7)),
        ("dormouse thaw", "throughput", 16 | 64) => Some(Target::AtLeast(0.5)),
        ("dormouse warm", "p99", 16) => Some(Target::AtMost(2.0)),
        _ => None,
    }
}

/// A build is as fast as an earlier one if it lacks no more than the rounds differ by.
const AS_BEFORE: Target = Target::AtLeast(0.97);

/// Warm is compared with the fastest WebAssembly peer, fresh with `wasmtime serve` as it comes and tuned, and each case
/// with the same of an earlier build.
const COMPARED: [(&str, &str, Option<Target>); 6] = [
    ("dormouse warm", peers::REUSED_WASM, Some(Target::AtLeast(1.7))),
    ("dormouse fresh", peers::FRESH_WASM, Some(Target::AtLeast(2.5))),
    ("dormouse fresh", peers::FRESH_WASM_TUNED, None),
    ("dormouse warm", "before warm", Some(AS_BEFORE)),
    ("dormouse thaw", "before thaw", Some(AS_BEFORE)),
    ("dormouse fresh", "before fresh", Some(AS_BEFORE)),
];

fn against_others(names: &[String], rounds: &Rounds) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (case, other, target) in COMPARED {
        let find = |wanted: &str| names.iter().position(|name| name == wanted);
        let (Some(ours), Some(theirs)) = (find(case), find(other)) else { continue };
        for connections in CONNECTIONS.into_iter().filter(|connections| *connections > 1) {
            let (ours, theirs) = (&rounds[&(ours, connections)], &rounds[&(theirs, connections)]);
            let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours.per_second / theirs.per_second).collect();
            let noisy = ours.iter().chain(theirs).any(Round::noisy);
            let name = format!("throughput at {connections} against {other}");
            figures.push(Figure::new("http", case, name, "x").noisy(noisy).values(ratios).target(target));
        }
    }
    figures
}

/// One of many functions at random, each parked between its calls, against one that is thawed each time.
fn against_thaw(names: &[String], rounds: &Rounds) -> Vec<Figure> {
    let find = |wanted: &str| names.iter().position(|name| name == wanted).expect("it was measured");
    let mut figures = Vec::new();
    for case in ["dormouse some", "dormouse many"] {
        for connections in CONNECTIONS {
            let (many, thaw) = (&rounds[&(find(case), connections)], &rounds[&(find("dormouse thaw"), connections)]);
            let ratios = many.iter().zip(thaw).map(|(many, thaw)| many.cpu_us / thaw.cpu_us).collect();
            let noisy = many.iter().chain(thaw).any(Round::noisy);
            let name = format!("CPU per request at {connections} against a thaw");
            let target = (connections > 1).then_some(Target::AtMost(1.5));
            figures.push(Figure::new("http", case, name, "x").noisy(noisy).values(ratios).target(target));
        }
    }
    figures
}

/// One line a case and number of connections; each quantity with its ratio to the bare server's.
fn show(names: &[String], rounds: &Rounds) {
    let header = [
        "connections",
        "case",
        "req/s",
        "spread",
        "x bare",
        "p50 us",
        "x",
        "p99 us",
        "x",
        "p99.9 us",
        "x",
        "CPU us",
        "x",
        "",
    ];
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        for (index, name) in names.iter().enumerate() {
            let (mine, bare) = (&rounds[&(index, connections)], &rounds[&(0, connections)]);
            let speeds: Vec<f64> = mine.iter().map(|round| round.per_second).collect();
            let spread = format!("{:.0}..{:.0}", clock::quantile(&speeds, 0.0), clock::quantile(&speeds, 1.0));
            let mut row = vec![connections.to_string(), name.clone()];
            for quantity in 0..5 {
                let value = |round: &Round| quantities(round)[quantity].2;
                let ratios: Vec<f64> = mine.iter().zip(bare).map(|(ours, limit)| value(ours) / value(limit)).collect();
                row.push(report::short(clock::median(&mine.iter().map(value).collect::<Vec<f64>>())));
                if quantity == 0 {
                    row.push(spread.clone());
                }
                row.push(format!("{:.2}", clock::median(&ratios)));
            }
            row.push(if mine.iter().any(Round::noisy) { "noisy" } else { "" }.to_owned());
            rows.push(row);
        }
    }
    report::table(&header.map(str::to_owned), &rows);
}

/// CPU per request when the server may use both cores, against one core, in turns. The load generator may use both in
/// either case, and sleeps when it has nothing to do: then what it costs the server to wake it is the same.
fn two_cores(hosts: &Hosts, plan: Plan, out: &Path) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let bare = [peers::bare::start(Cores::Only(SERVER_CORE), out)?, peers::bare::start(Cores::All, out)?];
    let both = |function, start| [&hosts.one_core, &hosts.two_cores].map(|host| dormouse(host, function, start));
    let pairs = [
        (bare.each_ref().map(contestant), None),
        (both("warm", Start::Active), Some(Target::AtMost(1.15))),
        (both("fresh", Start::Cold), Some(Target::AtMost(1.15))),
    ];
    for (pair, target) in pairs {
        let mut measured = [Vec::new(), Vec::new()];
        for _ in 0..plan.rounds {
            for (contestant, rounds) in pair.iter().zip(&mut measured) {
                rounds.push(contestant.measure(plan, TWO_CORES_CONNECTIONS, Cores::All)?.0);
            }
        }
        let [one, two] = &measured;
        let noisy = one.iter().chain(two).any(Round::noisy);
        let case = format!("{}, two cores", pair[0].name);
        let figure = |name: &str, unit| Figure::new("http", case.clone(), name, unit).noisy(noisy);
        let ratios = one.iter().zip(two).map(|(one, two)| two.cpu_us / one.cpu_us).collect();
        figures.push(figure("throughput at 16", "req/s").values(two.iter().map(|round| round.per_second).collect()));
        figures.push(figure("CPU per request at 16", "us").values(two.iter().map(|round| round.cpu_us).collect()));
        let target = target.filter(|_| machine::cores() > 1);
        figures.push(figure("CPU per request at 16 against one core", "x").values(ratios).target(target));
    }
    Ok(figures)
}
