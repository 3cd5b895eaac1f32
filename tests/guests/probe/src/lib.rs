//! The guest that the integration tests script, as an event function: `guest-script` behind the SDK's exports.

use std::{
    mem,
    time::{Duration, SystemTime},
};

use dormouse_sdk::{Context, Function, Json, Result, http};
use guest_script::{Instance, Script, World};
use serde_json::{Value, json};

struct Probe(Instance);

struct Sdk;

impl Function for Probe {
    type Event = Json<Script>;
    type Reply = Vec<u8>;

    async fn initialize(ctx: &Context) -> Result<Self> {
        let probe = Probe(Instance::default());
        probe.0.initialize::<Sdk>(&told(ctx)).await?;
        Ok(probe)
    }

    async fn handle(&self, ctx: &Context, Json(script): Json<Script>) -> Result<Vec<u8>> {
        Ok(self.0.handle::<Sdk>(&told(ctx), &script).await?)
    }

    async fn pre_freeze(&self, ctx: &Context) {
        // It has said on standard error what went wrong, and there is nobody else to tell.
        let _ = self.0.pre_freeze::<Sdk>(&told(ctx)).await;
    }

    async fn pre_stop(&self, ctx: &Context) {
        let _ = self.0.pre_stop::<Sdk>(&told(ctx)).await;
    }
}

impl World for Sdk {
    async fn sleep(duration: Duration) {
        dormouse_sdk::sleep(duration).await;
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        dormouse_sdk::spawn(task);
    }

    async fn send(method: &str, url: &str, body: &str) -> Value {
        let sent = if method == "GET" { http::get(url).await } else { http::post(url, body).await };
        match sent {
            Ok(response) => json!({ "status": response.status, "body": String::from_utf8_lossy(&response.body) }),
            Err(error) => json!({ "error": error.to_string() }),
        }
    }

    fn leak_handle() {
        mem::forget(wasip3::http::types::Fields::new());
    }
}

fn told(ctx: &Context) -> guest_script::Context {
    let deadline = ctx.deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    guest_script::Context {
        request_id: ctx.request_id.clone(),
        function: ctx.function.clone(),
        version: ctx.version.clone(),
        instance_id: ctx.instance_id.clone(),
        memory_mb: ctx.memory_mb,
        deadline_ms: deadline.as_millis() as u64,
        remaining_ms: ctx.remaining().as_millis() as u64,
        attempt: ctx.attempt,
        traceparent: ctx.traceparent.clone(),
    }
}

dormouse_sdk::export!(Probe);
