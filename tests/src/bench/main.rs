//! The benchmark: `cargo run --release -p tests --bin bench -- all`. Real hosts, real HTTP, one command.
//!
//! Servers run on one core and the load generator on another; servers take turns over several rounds, medians count,
//! and every figure of the data plane stands beside that of a bare server in the same round. What the machine did
//! meanwhile is watched: a round in which others took more than 5 % of the CPU is repeated, and flagged if that does
//! not help. Each file measures one thing; `report` says what came out.

mod bill;
mod bodies;
mod client;
mod clock;
mod cold;
mod console;
mod density;
mod fib;
mod host;
mod http;
mod instructions;
mod interrupt;
mod languages;
mod load_generator;
mod machine;
mod measure;
mod meter;
mod over;
mod overload;
mod peers;
mod plots;
mod queue;
mod report;
mod server;
mod side_by_side;
mod traces;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::measure::Plan;
use crate::report::Figure;

/// Measure Dormouse
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// A minute in all: every case runs and its values are checked, but the figures are worth little
    #[arg(long, global = true)]
    quick: bool,
    /// Other servers to compare with [default: installed, and none with --quick]
    #[arg(long, global = true, value_enum)]
    peers: Option<peers::Choice>,
    /// The build to measure: a `dormouse` [default: the one in this program]
    #[arg(long, global = true, value_name = "PROGRAM")]
    host: Option<PathBuf>,
    /// An earlier build to compare with, in `http` and `instructions`: its `dormouse` or `bench`
    #[arg(long, global = true, value_name = "PROGRAM")]
    before: Option<PathBuf>,
    /// Where `bench.json` and the plots go [default: target/bench]
    #[arg(long, global = true, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

#[derive(Clone, Subcommand)]
enum Command {
    /// Throughput, latency and CPU of a request
    Http {
        /// Instead, what HTTP/2 costs a warm request, beside HTTP/1.1
        #[arg(long)]
        http2: bool,
        /// Instead, what TLS costs a warm request
        #[arg(long)]
        tls: bool,
    },
    /// The same HTTP components on Dormouse and on `wasmtime serve`
    SideBySide,
    /// Large bodies up and down, on Dormouse and on `wasmtime serve`
    Bodies,
    /// Parked instances: their memory, their rest, and how they wake
    Density {
        /// Instances to park: up to 200000 [default: 1000]
        #[arg(long)]
        count: Option<usize>,
    },
    /// Starts: of the host, of a function, of its first instance
    Cold,
    /// What the bill says against what the kernel says
    Meter,
    /// Ten times more requests than there is capacity
    Load,
    /// What it costs callers that the console is open and the metrics are scraped
    Console,
    /// What it costs callers that their requests are traced
    Traces,
    /// How long the bill of a month takes
    Bill,
    /// Asynchronous invocations: how many are accepted, how long they take, and what a million of them cost
    Queue,
    /// Instructions of a request, counted by valgrind
    Instructions,
    /// Memory, cold, thawed and warm calls of each language
    Languages,
    /// All of them
    All,
    /// The bare server, for `http`
    #[command(hide = true)]
    Bare {
        /// With a certificate that it signs itself
        #[arg(long)]
        tls: bool,
    },
}

/// What every benchmark gets.
pub(crate) struct Options {
    pub(crate) plan: Plan,
    pub(crate) peers: peers::Choice,
    /// The build of Dormouse to measure, if not the one in this program.
    pub(crate) host: Option<PathBuf>,
    /// An earlier build of Dormouse, to be measured in the same rounds.
    pub(crate) before: Option<PathBuf>,
    /// Instances that `density` parks, if not its default.
    pub(crate) count: Option<usize>,
    /// Whether `http over` measures HTTP/2, and TLS.
    pub(crate) over: (bool, bool),
    /// For results, and for the servers' logs and state.
    pub(crate) out: PathBuf,
}

type Bench = fn(&Options) -> Result<Vec<Figure>>;

const BENCHES: [(&str, Bench); 14] = [
    ("http", http::run),
    ("http over", over::run),
    ("side-by-side", side_by_side::run),
    ("bodies", bodies::run),
    ("instructions", instructions::run),
    ("density", density::run),
    ("meter", meter::run),
    ("cold", cold::run),
    ("load", overload::run),
    ("console", console::run),
    ("traces", traces::run),
    ("bill", bill::run),
    ("queue", queue::run),
    ("languages", languages::run),
];

fn main() -> ExitCode {
    // The host under test is this program too, so that nothing else must be built.
    if matches!(std::env::args().nth(1).as_deref(), Some("serve" | "compile")) {
        return dormouse::cli::main();
    }
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let (mut count, mut over) = (None, (true, true));
    let chosen = match arguments.command {
        Command::Bare { tls } => return peers::bare::serve(tls),
        Command::Http { http2: false, tls: false } => "http",
        Command::Http { http2, tls } => {
            over = (http2, tls);
            "http over"
        }
        Command::SideBySide => "side-by-side",
        Command::Bodies => "bodies",
        Command::Density { count: instances } => {
            count = instances;
            "density"
        }
        Command::Meter => "meter",
        Command::Cold => "cold",
        Command::Load => "load",
        Command::Console => "console",
        Command::Traces => "traces",
        Command::Bill => "bill",
        Command::Queue => "queue",
        Command::Instructions => "instructions",
        Command::Languages => "languages",
        Command::All => "",
    };
    let out = arguments.out.unwrap_or_else(|| tests::target().join("bench"));
    std::fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    // What a run that was interrupted left behind.
    let state = out.join("state");
    let _ = std::fs::remove_dir_all(&state);
    std::fs::create_dir_all(&state).with_context(|| format!("create {}", state.display()))?;
    interrupt::watch()?;
    let peers = arguments.peers.unwrap_or(if arguments.quick { peers::Choice::None } else { peers::Choice::Installed });
    let options = Options {
        plan: Plan::new(arguments.quick),
        peers,
        host: arguments.host,
        before: arguments.before,
        count,
        over,
        out,
    };
    let machine = machine::describe();
    println!("{machine:#}");
    let mut figures = Vec::new();
    for (name, bench) in BENCHES.into_iter().filter(|(name, _)| chosen.is_empty() || *name == chosen) {
        println!("\n{name}");
        if name == "instructions" && chosen.is_empty() {
            // Under valgrind everything takes many times longer.
            let quick = options.plan.quick.then_some("it takes minutes; `bench instructions` runs it");
            if let Some(reason) = quick.or_else(instructions::missing) {
                println!("  skipped: {reason}");
                continue;
            }
        }
        let measured = bench(&options).with_context(|| format!("benchmark {name}"))?;
        check(&measured).with_context(|| format!("benchmark {name}"))?;
        report::show(&measured.iter().filter(|figure| name != "http" || figure.target.is_some()).collect::<Vec<_>>());
        figures.extend(measured);
    }
    report::summary(&figures);
    report::write(&figures, &machine, options.plan.quick, &options.out)
}

/// Every figure must be there and be a number that time, memory or a ratio can be.
fn check(figures: &[Figure]) -> Result<()> {
    anyhow::ensure!(!figures.is_empty(), "nothing was measured");
    for figure in figures {
        let sane = !figure.rounds.is_empty() && figure.rounds.iter().all(|value| value.is_finite());
        anyhow::ensure!(sane, "{} {}: {:?} is no measurement", figure.case, figure.name, figure.rounds);
    }
    Ok(())
}
