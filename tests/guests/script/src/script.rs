//! The language of the tests, and the walk through a script. What a step does stands in `load`, `outside` and `state`.

use std::{env, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Context, Result, World, load, outside, state::State};

/// Steps, taken in order. The first one that fails ends the script.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    r#do: Vec<Step>,
}

/// One step, as in `{"sleep-ms": 5}` or `"count"`. Each has one result, `null` where there is nothing to tell.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    // Time and computing.
    SleepMs(u64),
    SpinMs(u64),
    /// Spins until so many milliseconds, and parts of one, after the first request since the last freeze began.
    SpinUntilMs(f64),
    SpinForever,
    /// A pure loop of so many iterations; its checksum is the same wherever and however interrupted it runs.
    Work(u64),
    Fib(u64),
    Now,

    // Room.
    GrowMb(usize),
    GrowForever,
    RecurseForever,
    OpenHandlesForever,
    /// Makes the whole reply so many bytes of `x`.
    ReplyBytes(usize),

    // Ends.
    Fail(String),
    /// Fails at every attempt before this one.
    FailUntilAttempt(u32),
    Panic,
    Trap,

    // The world outside.
    Print(String),
    Eprint(String),
    PrintForever,
    HttpGet(String),
    HttpPost(String, String),
    Env,
    ReadFile,
    Context,

    // What the instance remembers.
    SpawnTickerMs(u64),
    /// Prints a text after so many milliseconds, in a task of its own.
    SpawnPrint(u64, String),
    SpawnWork(u64),
    Ticks,
    Count,
    Log,
    MaxInFlight,
}

impl Script {
    pub(crate) async fn run<W: World>(&self, ctx: &Context, state: &State) -> Result<Vec<Value>> {
        let mut results = Vec::new();
        for step in &self.r#do {
            results.push(step.run::<W>(ctx, state).await?);
        }
        Ok(results)
    }

    /// The size that the reply shall have, if a step asks for one.
    pub(crate) fn reply_bytes(&self) -> Option<usize> {
        self.r#do.iter().rev().find_map(|step| if let Step::ReplyBytes(bytes) = step { Some(*bytes) } else { None })
    }
}

impl Step {
    async fn run<W: World>(&self, ctx: &Context, state: &State) -> Result<Value> {
        match self {
            Step::SleepMs(ms) => W::sleep(Duration::from_millis(*ms)).await,
            Step::SpinMs(ms) => load::spin_ms(*ms),
            Step::SpinUntilMs(ms) => load::spin_until(state.awake_since() + Duration::from_secs_f64(ms / 1e3)),
            Step::SpinForever => load::spin_forever(),
            Step::Work(iterations) => return Ok(json!(load::work(*iterations))),
            Step::Fib(n) => return Ok(json!(load::fib(*n))),
            Step::Now => return Ok(json!(outside::now_ms())),

            Step::GrowMb(mb) => state.keep(load::touched_mb(*mb)),
            Step::GrowForever => load::grow_forever(),
            Step::RecurseForever => return Ok(json!(load::recurse_forever(0))),
            Step::OpenHandlesForever => outside::open_handles_forever::<W>(),
            Step::ReplyBytes(_) => {} // The handler looks for it when all steps are done.

            Step::Fail(text) => return Err(text.clone()),
            Step::FailUntilAttempt(attempt) if ctx.attempt < *attempt => return Err("not yet".to_owned()),
            Step::FailUntilAttempt(_) => {}
            Step::Panic => panic!("the script says so"),
            Step::Trap => std::process::abort(), // In a component this is the `unreachable` instruction, with no message.

            Step::Print(text) => println!("{text}"),
            Step::Eprint(text) => eprintln!("{text}"),
            Step::PrintForever => outside::print_forever(),
            Step::HttpGet(url) => return Ok(W::send("GET", url, "").await),
            Step::HttpPost(url, body) => return Ok(W::send("POST", url, body).await),
            Step::Env => return Ok(env::vars().collect()),
            Step::ReadFile => return Ok(outside::read_file("/etc/passwd").into()),
            Step::Context => return Ok(json!(ctx)),

            Step::SpawnTickerMs(ms) => state.spawn_ticker::<W>(Duration::from_millis(*ms)),
            Step::SpawnPrint(ms, text) => outside::spawn_print::<W>(Duration::from_millis(*ms), text.clone()),
            Step::SpawnWork(iterations) => load::spawn_work::<W>(*iterations),
            Step::Ticks => return Ok(json!(state.ticks())),
            Step::Count => return Ok(json!(state.count())),
            Step::Log => return Ok(json!(state.lifecycle())),
            Step::MaxInFlight => return Ok(json!(state.max_in_flight())),
        }
        Ok(Value::Null)
    }
}

/// The script in an environment variable; without one, nothing to do.
pub(crate) fn from_environment(variable: &str) -> Result<Script> {
    match env::var(variable) {
        Ok(text) if !text.is_empty() => serde_json::from_str(&text).map_err(|error| error.to_string()),
        _ => Ok(Script::default()),
    }
}
