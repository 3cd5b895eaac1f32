//! The guest that the integration tests script: an event lists steps, the reply their results.
//!
//! `script` is the language and walks through it, `load` burns and hoards, `outside` talks to what lies beyond the
//! instance, `state` is what the instance remembers. The hooks run scripts as well, from the environment variables
//! `INITIALIZER`, `PRE_FREEZE` and `PRE_STOP`, and report to standard output and to `HOOK_URL` if that is set.

mod load;
mod outside;
mod script;
mod state;

use dormouse_sdk::{Context, Function, Json, Result};
use serde_json::json;

use crate::{script::Script, state::State};

struct Probe {
    state: State,
}

impl Function for Probe {
    type Event = Json<Script>;
    type Reply = Vec<u8>;

    async fn initialize(ctx: &Context) -> Result<Self> {
        let state = State::default();
        state.log("initializer".into());
        println!("initializer {}", ctx.request_id);
        outside::report_hook("initializer", ctx, &state).await;
        script::from_environment("INITIALIZER")?.run(ctx, &state).await?;
        Ok(Probe { state })
    }

    async fn handle(&self, ctx: &Context, Json(script): Json<Script>) -> Result<Vec<u8>> {
        let _in_flight = self.state.enter(&ctx.request_id);
        let results = script.run(ctx, &self.state).await?;
        if let Some(bytes) = script.reply_bytes() {
            return Ok(vec![b'x'; bytes]);
        }
        Ok(serde_json::to_vec(&json!({ "results": results, "state": self.state.summary() }))?)
    }

    async fn pre_freeze(&self, ctx: &Context) {
        let freezes = self.state.count_freeze();
        self.state.log(format!("pre-freeze:{}", ctx.request_id));
        println!("pre-freeze {} freezes={freezes}", ctx.request_id);
        self.hook("pre-freeze", "PRE_FREEZE", ctx).await;
        self.state.froze();
    }

    async fn pre_stop(&self, ctx: &Context) {
        self.state.log(format!("pre-stop:{}", ctx.request_id));
        println!("pre-stop {} requests={}", ctx.request_id, self.state.requests());
        self.hook("pre-stop", "PRE_STOP", ctx).await;
    }
}

impl Probe {
    /// Reports, then runs the hook's script. A hook has nobody to answer to, so a failure goes to standard error.
    async fn hook(&self, name: &str, variable: &str, ctx: &Context) {
        outside::report_hook(name, ctx, &self.state).await;
        let ran = match script::from_environment(variable) {
            Ok(script) => script.run(ctx, &self.state).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = ran {
            eprintln!("{name} failed: {error}");
        }
    }
}

dormouse_sdk::export!(Probe);
