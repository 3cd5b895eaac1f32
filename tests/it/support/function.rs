//! A deployed function, as its callers and its operator see it.

use serde_json::{Value, json};

use super::{Reply, eventually};

/// A handle to one function of a host; clone it to call from several tasks.
#[derive(Clone)]
pub(crate) struct TestFunction {
    pub(crate) name: String,
    client: reqwest::Client,
    data: String,
    admin: String,
}

impl TestFunction {
    pub(crate) fn new(client: reqwest::Client, data: &str, admin: &str, name: &str) -> TestFunction {
        TestFunction { name: name.to_owned(), client, data: data.to_owned(), admin: admin.to_owned() }
    }

    /// The request that `invoke` sends; add header fields or a timeout to it.
    pub(crate) fn request(&self, event: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.client.post(format!("{}/invoke/{}", self.data, self.name)).body(event)
    }

    /// The same under a qualifier.
    pub(crate) fn request_to(&self, qualifier: &str, event: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.client.post(format!("{}/invoke/{}?qualifier={qualifier}", self.data, self.name)).body(event)
    }

    /// Where a path of the function is served.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/fn/{}{path}", self.data, self.name)
    }

    /// A request to a path of the function; add header fields and a body to it.
    pub(crate) fn fetch(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        self.client.request(method, self.url(path))
    }

    /// Invokes the function.
    pub(crate) async fn invoke(&self, event: impl Into<reqwest::Body>) -> Reply {
        Reply::of(self.request(event).send().await.expect("the data plane answers")).await
    }

    /// Invokes the probe with a script of steps; see `tests/guests/probe`.
    pub(crate) async fn script(&self, steps: Value) -> Reply {
        self.invoke(json!({"do": steps}).to_string()).await
    }

    /// The same in a task of its own, on its own connection.
    pub(crate) fn script_in_background(&self, steps: Value) -> tokio::task::JoinHandle<Reply> {
        let function = self.clone();
        tokio::task::spawn(async move { function.script(steps).await })
    }

    /// The function's instances, as the admin plane shows them.
    pub(crate) async fn instances(&self) -> Vec<Value> {
        let url = format!("{}/v1/functions/{}/instances", self.admin, self.name);
        let reply = Reply::of(self.client.get(url).send().await.expect("the admin plane answers")).await;
        reply.json()["instances"].as_array().expect("instances").clone()
    }

    /// The states of the function's instances.
    pub(crate) async fn states(&self) -> Vec<String> {
        let instances = self.instances().await;
        instances.iter().map(|instance| instance["state"].as_str().expect("a state").to_owned()).collect()
    }

    /// Waits until there are instances and all are in `state`; returns them.
    pub(crate) async fn reaches(&self, state: &str) -> Vec<Value> {
        eventually(&format!("{} reaching {state}", self.name), async || {
            let instances = self.instances().await;
            let all = !instances.is_empty() && instances.iter().all(|instance| instance["state"] == state);
            if all { Ok(instances) } else { Err(format!("{instances:?}")) }
        })
        .await
    }

    /// Waits until the function has no instance.
    pub(crate) async fn is_gone(&self) {
        eventually(&format!("{} losing its instances", self.name), async || {
            let states = self.states().await;
            if states.is_empty() { Ok(()) } else { Err(format!("{states:?}")) }
        })
        .await;
    }

    /// Waits until some instance has `count` requests in flight.
    pub(crate) async fn instance_has_in_flight(&self, count: u64) {
        self.in_flight_reach(count, |counts| counts.contains(&count)).await;
    }

    /// Waits until all instances together have `count` requests in flight.
    pub(crate) async fn has_in_flight(&self, count: u64) {
        self.in_flight_reach(count, |counts| counts.iter().sum::<u64>() == count).await;
    }

    async fn in_flight_reach(&self, count: u64, reached: impl Fn(&[u64]) -> bool) {
        eventually(&format!("{count} requests in flight"), async || {
            let instances = self.instances().await;
            let counts: Vec<u64> = instances.iter().filter_map(|instance| instance["inFlight"].as_u64()).collect();
            if reached(&counts) { Ok(()) } else { Err(format!("{instances:?}")) }
        })
        .await;
    }

    /// The newest lines of the function's log.
    pub(crate) async fn lines(&self) -> Vec<Value> {
        let url = format!("{}/v1/functions/{}/logs?tail=100000", self.admin, self.name);
        let reply = Reply::of(self.client.get(url).send().await.expect("the admin plane answers")).await;
        reply.json()["lines"].as_array().expect("lines").clone()
    }

    /// How many lines of the log contain `text`.
    pub(crate) async fn lines_with(&self, text: &str) -> usize {
        self.lines().await.iter().filter(|line| line["text"].as_str().is_some_and(|line| line.contains(text))).count()
    }

    /// Waits until `count` lines of the log contain `text`, and says how many do.
    pub(crate) async fn logs(&self, text: &str, count: usize) -> usize {
        eventually(&format!("{count} lines with {text:?}"), async || {
            let found = self.lines_with(text).await;
            if found >= count { Ok(found) } else { Err(format!("{found} of them in {:?}", self.lines().await)) }
        })
        .await
    }

    /// Changes the configuration by a merge patch.
    pub(crate) async fn configure(&self, patch: Value) -> Reply {
        let url = format!("{}/v1/functions/{}", self.admin, self.name);
        let request = self.client.patch(url).body(patch.to_string());
        Reply::of(request.send().await.expect("the admin plane answers")).await
    }

    /// Deletes the function.
    pub(crate) async fn delete(&self) -> Reply {
        let url = format!("{}/v1/functions/{}", self.admin, self.name);
        Reply::of(self.client.delete(url).send().await.expect("the admin plane answers")).await
    }

    /// The sums of the function's bill.
    pub(crate) async fn usage(&self) -> Value {
        let url = format!("{}/v1/usage?function={}", self.admin, self.name);
        let reply = Reply::of(self.client.get(url).send().await.expect("the admin plane answers")).await;
        reply.json()["total"].clone()
    }
}
