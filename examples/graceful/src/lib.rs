//! A session with another service, opened before the first request and closed in order before the instance goes.
//!
//! Set `SESSION_URL` to a service that answers `POST $SESSION_URL` with the id of a new session and takes a report at
//! `POST $SESSION_URL/<id>/close`. Then `curl -d '' http://127.0.0.1:8080/invoke/graceful`, stop the host with Ctrl-C,
//! and see the report arrive. Without `SESSION_URL` it only counts.

use std::{cell::Cell, env};

use dormouse_sdk::{Context, Function, Result, http};
use serde_json::json;

struct Graceful {
    session: Option<String>,
    requests: Cell<u64>,
}

impl Function for Graceful {
    type Event = ();
    type Reply = String;

    async fn initialize(_: &Context) -> Result<Self> {
        let session = match env::var("SESSION_URL") {
            Ok(url) => Some(open(&url).await?),
            Err(_) => None,
        };
        Ok(Graceful { session, requests: Cell::new(0) })
    }

    async fn handle(&self, _: &Context, (): ()) -> Result<String> {
        self.requests.set(self.requests.get() + 1);
        let session = self.session.as_deref().unwrap_or("no session");
        Ok(format!("request {} in {session}\n", self.requests.get()))
    }

    async fn pre_stop(&self, ctx: &Context) {
        let Some(session) = &self.session else { return };
        let report = json!({ "instance": ctx.instance_id, "requests": self.requests.get(), "status": "stopped" });
        match http::post(format!("{session}/close"), report.to_string()).await {
            Ok(response) => println!("session closed after {} requests: {}", self.requests.get(), response.status),
            Err(error) => eprintln!("the session stays open: {error}"),
        }
    }
}

/// Opens a session and returns its address.
async fn open(url: &str) -> Result<String> {
    let response = http::post(url, "").await?;
    if !response.is_success() {
        return Err(format!("the session service answered {}", response.status).into());
    }
    Ok(format!("{url}/{}", response.text()?.trim()))
}

dormouse_sdk::export!(Graceful);
