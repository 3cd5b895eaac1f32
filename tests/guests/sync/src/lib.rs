//! A guest whose exports are synchronous, written against the WIT alone: what the host owes to toolchains without
//! async. It blocks where it waits, so its instances serve one request at a time.

#![allow(unsafe_code, clippy::too_many_arguments, reason = "what wit-bindgen writes needs both")]

use std::{
    cell::Cell,
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

mod bindings {
    #![allow(unreachable_pub, reason = "written by wit-bindgen")]
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package dormouse:sync-guest;

            world sync-function {
                use dormouse:function/types@0.1.0.{context};
                export handler: func(ctx: context, event: list<u8>) -> result<list<u8>, string>;
                export pre-freeze: func(ctx: context);
                export pre-stop: func(ctx: context);
            }
        ",
        world: "sync-function",
        generate_all,
    });
}

use bindings::{Context, Guest};

thread_local! {
    static REQUESTS: Cell<u64> = const { Cell::new(0) };
    static FREEZES: Cell<u64> = const { Cell::new(0) };
}

struct Sync;

impl Guest for Sync {
    /// Understands `sleep <ms>`, `spin <ms>` and `count`; anything else is echoed.
    fn handler(_: Context, event: Vec<u8>) -> Result<Vec<u8>, String> {
        let requests = increment(&REQUESTS);
        let text = String::from_utf8_lossy(&event);
        match text.split_once(' ') {
            Some(("sleep", ms)) => thread::sleep(duration(ms)?),
            Some(("spin", ms)) => spin(duration(ms)?),
            _ if text == "count" => return Ok(requests.to_string().into()),
            _ => {}
        }
        Ok(event)
    }

    fn pre_freeze(ctx: Context) {
        println!("pre-freeze {} freezes={}", ctx.request_id, increment(&FREEZES));
    }

    fn pre_stop(ctx: Context) {
        println!("pre-stop {} requests={}", ctx.request_id, REQUESTS.get());
    }
}

fn duration(ms: &str) -> Result<Duration, String> {
    ms.parse().map(Duration::from_millis).map_err(|error| format!("expected milliseconds, not {ms:?}: {error}"))
}

#[allow(clippy::disallowed_methods, reason = "a guest has the clock of its instance, and no other")]
fn spin(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        black_box(());
    }
}

fn increment(counter: &'static thread::LocalKey<Cell<u64>>) -> u64 {
    counter.set(counter.get() + 1);
    counter.get()
}

bindings::export!(Sync with_types_in bindings);
