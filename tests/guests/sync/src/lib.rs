//! The guest that the integration tests script, as exports without `async`, written against the WIT alone: what the host owes
//! to toolchains that know no better. It blocks where it waits, so its instances serve one request at a time.

#![allow(unsafe_code, clippy::too_many_arguments, reason = "what wit-bindgen writes needs both")]

use std::rc::Rc;

use guest_script::blocking::{Blocking, block_on};
use guest_script::{Instance, told};

mod bindings {
    #![allow(unreachable_pub, reason = "written by wit-bindgen")]
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package dormouse:sync-guest;

            world sync-function {
                use dormouse:function/types@0.1.0.{context};
                export initializer: func(ctx: context) -> result<_, string>;
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

/// What scripts begin with.
const SCRIPT: &[u8] = b"{\"do\"";

thread_local! {
    static INSTANCE: Rc<Instance> = Rc::default();
}

struct Sync;

impl Guest for Sync {
    fn initializer(ctx: Context) -> Result<(), String> {
        block_on(INSTANCE.with(Rc::clone).initialize::<Blocking>(&told!(ctx)))
    }

    /// Runs a script; anything else is echoed.
    fn handler(ctx: Context, event: Vec<u8>) -> Result<Vec<u8>, String> {
        if !event.starts_with(SCRIPT) {
            return Ok(event);
        }
        let script = serde_json::from_slice(&event).map_err(|error| error.to_string())?;
        block_on(INSTANCE.with(Rc::clone).handle::<Blocking>(&told!(ctx), &script))
    }

    fn pre_freeze(ctx: Context) {
        // It has said on standard error what went wrong, and there is nobody else to tell.
        let _ = block_on(INSTANCE.with(Rc::clone).pre_freeze::<Blocking>(&told!(ctx)));
    }

    fn pre_stop(ctx: Context) {
        let _ = block_on(INSTANCE.with(Rc::clone).pre_stop::<Blocking>(&told!(ctx)));
    }
}

bindings::export!(Sync with_types_in bindings);
