//! What the guests of the integration tests do: an event lists steps, the reply their results. The guests in Python and
//! JavaScript understand the same steps.
//!
//! `script` is the language and walks through it, `load` burns and hoards, `outside` looks at what lies beyond the
//! instance, `state` is what the instance remembers, `blocking` is the world of guests without asynchronous tasks. The hooks run scripts as well, from the environment variables
//! `INITIALIZER`, `PRE_FREEZE` and `PRE_STOP`, and report to standard output and to `HOOK_URL` if that is set.
//!
//! A guest puts an [`Instance`] behind its exports, of whatever kind, and says in a [`World`] how it waits and sends.

pub mod blocking;
mod load;
mod outside;
mod script;
mod state;

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

pub use crate::script::Script;
use crate::state::State;

/// What a script returns, or the text of its error.
pub type Result<T> = std::result::Result<T, String>;

/// How a guest waits, starts tasks and reaches others.
#[allow(async_fn_in_trait, reason = "a guest has one thread")]
pub trait World: 'static {
    /// Waits.
    async fn sleep(duration: Duration);
    /// Lets a task run beside the request.
    fn spawn(task: impl Future<Output = ()> + 'static);
    /// Sends a request; returns `{"status", "body"}`, or `{"error"}`.
    async fn send(method: &str, url: &str, body: &str) -> Value;
    /// Takes a handle of the host and forgets it.
    fn leak_handle();
}

/// What the host says about a call.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "as in the WIT file")]
pub struct Context {
    pub request_id: String,
    pub function: String,
    pub version: String,
    pub instance_id: String,
    pub memory_mb: u32,
    pub deadline_ms: u64,
    pub remaining_ms: u64,
    pub attempt: u32,
    pub traceparent: Option<String>,
}

impl Context {
    /// What the fields say that Function Compute, and so this host, sends with each request.
    pub fn from_fields(field: impl Fn(&str) -> Option<String>) -> Context {
        let text = |name: &str| field(name).unwrap_or_default();
        Context {
            request_id: text("x-fc-request-id"),
            function: text("x-fc-function-name"),
            version: text("x-fc-version-id"),
            instance_id: text("x-fc-instance-id"),
            memory_mb: text("x-fc-function-memory").parse().unwrap_or_default(),
            deadline_ms: text("x-fc-function-deadline").parse().unwrap_or_default(),
            attempt: text("x-fc-retry-count").parse::<u32>().unwrap_or_default() + 1,
            traceparent: field("traceparent"),
            ..Context::default()
        }
    }
}

/// The context of the contract, of which each guest has a type of its own, as scripts know it.
#[macro_export]
macro_rules! told {
    ($ctx:expr) => {{
        let ctx = $ctx;
        $crate::Context {
            request_id: ctx.request_id,
            function: ctx.function,
            version: ctx.version,
            instance_id: ctx.instance_id,
            memory_mb: ctx.memory_mb,
            deadline_ms: ctx.deadline_ms,
            attempt: ctx.attempt,
            traceparent: ctx.traceparent,
            ..$crate::Context::default()
        }
    }};
}

/// One instance of a guest.
#[derive(Default)]
pub struct Instance {
    state: State,
}

impl Instance {
    /// The initializer.
    pub async fn initialize<W: World>(&self, ctx: &Context) -> Result<()> {
        self.state.log("initializer".into());
        println!("initializer {}", ctx.request_id);
        self.report::<W>("initializer", ctx).await;
        script::from_environment("INITIALIZER")?.run::<W>(ctx, &self.state).await.map(drop)
    }

    /// A request.
    pub async fn handle<W: World>(&self, ctx: &Context, script: &Script) -> Result<Vec<u8>> {
        let _in_flight = self.state.enter(&ctx.request_id);
        let results = script.run::<W>(ctx, &self.state).await?;
        if let Some(bytes) = script.reply_bytes() {
            return Ok(vec![b'x'; bytes]);
        }
        let reply = json!({ "results": results, "state": self.state.summary() });
        serde_json::to_vec(&reply).map_err(|error| error.to_string())
    }

    /// Before the freeze.
    pub async fn pre_freeze<W: World>(&self, ctx: &Context) -> Result<()> {
        let freezes = self.state.count_freeze();
        self.state.log(format!("pre-freeze:{}", ctx.request_id));
        println!("pre-freeze {} freezes={freezes}", ctx.request_id);
        let ran = self.hook::<W>("pre-freeze", "PRE_FREEZE", ctx).await;
        self.state.froze();
        ran
    }

    /// Before the end.
    pub async fn pre_stop<W: World>(&self, ctx: &Context) -> Result<()> {
        self.state.log(format!("pre-stop:{}", ctx.request_id));
        println!("pre-stop {} requests={}", ctx.request_id, self.state.requests());
        self.hook::<W>("pre-stop", "PRE_STOP", ctx).await
    }

    /// Reports, then runs the hook's script. A hook has nobody to answer to, so a failure goes to standard error.
    async fn hook<W: World>(&self, name: &str, variable: &str, ctx: &Context) -> Result<()> {
        self.report::<W>(name, ctx).await;
        let ran = match script::from_environment(variable) {
            Ok(script) => script.run::<W>(ctx, &self.state).await.map(drop),
            Err(error) => Err(error),
        };
        ran.inspect_err(|error| eprintln!("{name} failed: {error}"))
    }

    /// Tells `HOOK_URL`, if set, that a hook was called. Whether anybody listens is not the hook's concern.
    async fn report<W: World>(&self, hook: &str, ctx: &Context) {
        if let Ok(url) = std::env::var("HOOK_URL") {
            let report = json!({ "hook": hook, "instance": ctx.instance_id, "requests": self.state.requests() });
            let sent = W::send("POST", &url, &report.to_string()).await;
            if let Some(error) = sent.get("error") {
                eprintln!("{hook} could not report: {error}");
            }
        }
    }
}
