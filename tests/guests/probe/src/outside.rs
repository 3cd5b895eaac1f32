//! What lies beyond the instance: HTTP, output, files, handles of the host, the clock and the call itself.

use std::{
    fs, mem,
    time::{Duration, SystemTime},
};

use dormouse_sdk::{Context, Result, http};
use serde_json::{Value, json};

use crate::state::State;

pub(crate) async fn get(url: &str) -> Value {
    told(http::get(url).await)
}

pub(crate) async fn post(url: &str, body: &str) -> Value {
    told(http::post(url, body).await)
}

/// Tells `HOOK_URL`, if set, that a hook was called. Whether anybody listens is not the hook's concern.
pub(crate) async fn report_hook(hook: &str, ctx: &Context, state: &State) {
    if let Ok(url) = std::env::var("HOOK_URL") {
        let report = json!({ "hook": hook, "instance": ctx.instance_id, "requests": state.requests() });
        if let Err(error) = http::post(url, report.to_string()).await {
            eprintln!("{hook} could not report: {error}");
        }
    }
}

pub(crate) fn context(ctx: &Context) -> Value {
    json!({
        "requestId": ctx.request_id,
        "function": ctx.function,
        "version": ctx.version,
        "instanceId": ctx.instance_id,
        "memoryMb": ctx.memory_mb,
        "deadlineMs": since_1970(ctx.deadline).as_millis() as u64,
        "remainingMs": ctx.remaining().as_millis() as u64,
        "attempt": ctx.attempt,
        "traceparent": ctx.traceparent,
    })
}

/// Milliseconds since 1970, as the instance's clock has it.
pub(crate) fn now_ms() -> u64 {
    since_1970(SystemTime::now()).as_millis() as u64
}

/// What comes of reading a file, in words: there should be none.
pub(crate) fn read_file(path: &str) -> String {
    match fs::read(path) {
        Ok(bytes) => format!("read {} bytes", bytes.len()),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn print_forever() -> ! {
    loop {
        println!("All work and no sleep makes a dull dormouse.");
    }
}

/// Takes handles of the host and gives none of them back.
pub(crate) fn open_handles_forever() -> ! {
    loop {
        mem::forget(wasip3::http::types::Fields::new());
    }
}

fn told(result: Result<http::Response>) -> Value {
    match result {
        Ok(response) => {
            json!({ "status": response.status, "body": String::from_utf8_lossy(&response.body) })
        }
        Err(error) => json!({ "error": error.to_string() }),
    }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
