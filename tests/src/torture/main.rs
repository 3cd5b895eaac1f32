//! Torture: a host among people who mean it harm. `cargo run -p tests --bin torture -- hostile`. And a host that is
//! killed in the middle of its work: `-- queue`.

#![expect(clippy::disallowed_methods, reason = "these are the host's enemies, and end with this program")]

mod callers;
mod functions;
mod host;
mod queue;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep};

use crate::host::Host;

/// Be hostile to a host
#[derive(Parser)]
#[command(name = "torture")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hostile functions and callers beside a function that wants to be left alone: what it notices, and what the host holds
    Hostile {
        /// How long the neighbour is watched, alone and then beside the others, in seconds
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// What the host may have, in MB
        #[arg(long, default_value_t = 600)]
        memory_max_mb: u64,
    },
    /// Kill a host again and again while it takes and runs asynchronous invocations: none may be lost, none that ended repeated
    Queue {
        /// What the moments of the kills are drawn from; printed, so that a run can be repeated
        #[arg(long)]
        seed: Option<u64>,
        /// Events that are handed over
        #[arg(long, default_value_t = 5000)]
        events: usize,
        /// Times that the host is killed
        #[arg(long, default_value_t = 20)]
        kills: usize,
    },
}

/// How requests ended: by who sent them, then by status and code, how many there were.
type Ended = Arc<Mutex<BTreeMap<&'static str, BTreeMap<String, u64>>>>;

fn main() -> ExitCode {
    // The host under torture is this program too, so that nothing else must be built.
    if matches!(std::env::args().nth(1).as_deref(), Some("serve" | "compile")) {
        return dormouse::cli::main();
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let tortured = match Arguments::parse().command {
        Command::Hostile { seconds, memory_max_mb } => {
            runtime.block_on(hostile(Duration::from_secs(seconds), memory_max_mb))
        }
        Command::Queue { seed, events, kills } => {
            let seed = seed.unwrap_or_else(date_ns);
            runtime.block_on(queue::torture(seed, events, kills))
        }
    };
    match tortured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A seed that is another one each time.
fn date_ns() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64)
}

async fn hostile(time: Duration, memory_max_mb: u64) -> Result<()> {
    let host = Host::start(memory_max_mb).await?;
    host.deploy("neighbour", tests::component("example-hello"), &serde_json::json!({"concurrency": 16})).await?;
    functions::deploy(&host).await?;
    let alone = watch_neighbour(&host, time).await?;
    let ended = Ended::default();
    let enemies: Vec<_> =
        functions::enemies(&host, &ended).into_iter().chain(callers::enemies(&host, &ended)).collect();
    // They get going first.
    sleep(Duration::from_secs(2)).await;
    let beside = watch_neighbour(&host, time).await?;
    let operator = host.get("/v1/functions").await?;
    enemies.iter().for_each(|enemy| enemy.abort());
    let peak_mb = host.peak_mb()?;

    println!("neighbour, 100 requests a second      alone    beside   ratio");
    for share in [0.5, 0.99] {
        let [alone, beside] = [&alone, &beside].map(|times| times.value_at_quantile(share) as f64 / 1000.0);
        println!(
            "  p{:<4}                         {alone:8.2} ms {beside:6.2} ms  {:6.1}",
            share * 100.0,
            beside / alone
        );
    }
    println!("resident memory at its peak: {peak_mb} MB, with --memory-max-mb {memory_max_mb}");
    println!("operator meanwhile: {operator}");
    println!("what became of whose requests:");
    for (who, outcomes) in &*ended.lock().expect("no holder of this lock panics") {
        let outcomes: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{outcome} x {count}")).collect();
        println!("  {who:24} {}", outcomes.join(", "));
    }
    let stopped = host.stop().await?;
    println!("the host stopped in order: {stopped}");
    Ok(())
}

/// How long the neighbour's requests take, in microseconds, at a rate that does not give way.
async fn watch_neighbour(host: &Host, time: Duration) -> Result<Histogram<u64>> {
    let times = Arc::new(Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3)?));
    let began = Instant::now();
    let mut sent = Vec::new();
    while began.elapsed() < time {
        let (request, times) = (host.call("neighbour", "you"), times.clone());
        sent.push(tokio::spawn(async move {
            let began = Instant::now();
            let reply = request.send().await?;
            let (status, body) = (reply.status(), reply.text().await?);
            anyhow::ensure!(status == 200, "the neighbour got {status} after {:?}: {body}", began.elapsed());
            times.lock().expect("no holder of this lock panics").saturating_record(began.elapsed().as_micros() as u64);
            Ok(())
        }));
        sleep(Duration::from_millis(10)).await;
    }
    for request in sent {
        request.await??;
    }
    let times = times.lock().expect("no holder of this lock panics").clone();
    Ok(times)
}

/// Notes how a request ended.
fn note(ended: &Ended, who: &'static str, outcome: String) {
    let mut ended = ended.lock().expect("no holder of this lock panics");
    *ended.entry(who).or_default().entry(outcome).or_default() += 1;
}
