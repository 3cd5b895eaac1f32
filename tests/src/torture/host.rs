//! The host under torture.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A running host. Dropped, it is killed.
pub(crate) struct Host {
    pub(crate) data: SocketAddr,
    admin: SocketAddr,
    client: reqwest::Client,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    state: Arc<TempDir>,
}

impl Host {
    /// A host with little memory.
    pub(crate) async fn start(memory_max_mb: u64) -> Result<Host> {
        let state = Arc::new(tempfile::tempdir().context("a folder for the host's state")?);
        let memory = format!("--memory-max-mb={memory_max_mb}");
        let flags =
            [memory.as_str(), "--write-timeout-ms=5000", "--events-memory-max-mb=64", "--replies-memory-max-mb=64"];
        Host::start_in(state, &flags).await
    }

    /// A host with the state in a folder, where another one may have been before.
    pub(crate) async fn start_in(state: Arc<TempDir>, flags: &[&str]) -> Result<Host> {
        let log = tests::target().join("torture.log");
        let log = fs::File::options().create(true).append(true).open(log).context("open the host's log")?;
        let mut child = Command::new(env::current_exe()?)
            .args(["serve", "--json", "--data-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"])
            .args(flags)
            .args(["--drain-timeout-ms=5000", "--state-dir"])
            .arg(state.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .env_remove("RUST_BACKTRACE")
            .kill_on_drop(true)
            .spawn()
            .context("start the host")?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let first = stdout.next_line().await?.context("the host ended at once; see torture.log")?;
        let addresses: Value = serde_json::from_str(&first)?;
        let address =
            |plane: &str| -> Result<SocketAddr> { Ok(addresses[plane].as_str().context("an address")?.parse()?) };
        let (data, admin) = (address("data")?, address("admin")?);
        Ok(Host { data, admin, client: tests::client(), child, stdout, state })
    }

    /// Kills it; returns its folder.
    pub(crate) async fn kill(mut self) -> Result<Arc<TempDir>> {
        self.child.kill().await?;
        Ok(self.state)
    }

    /// What an operator gets at a path.
    pub(crate) async fn json(&self, path: &str) -> Result<Value> {
        let reply = self.client.get(format!("http://{}{path}", self.admin)).send().await?;
        ensure!(reply.status().is_success(), "{path}: {}", reply.status());
        Ok(serde_json::from_str(&reply.text().await?)?)
    }

    pub(crate) async fn deploy(&self, name: &str, component: Vec<u8>, settings: &Value) -> Result<()> {
        let request = self.client.put(format!("http://{}/v1/functions/{name}/code", self.admin));
        let reply = request.header("dormouse-settings", settings.to_string()).body(component).send().await?;
        let status = reply.status();
        ensure!(status.is_success(), "deploy {name}: {status} {}", reply.text().await?);
        Ok(())
    }

    /// A call of a function with an event.
    pub(crate) fn call(&self, function: &str, event: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.client.post(format!("http://{}/invoke/{function}", self.data)).body(event)
    }

    /// The status of an operator's request.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        Ok(self.client.get(format!("http://{}{path}", self.admin)).send().await?.status().to_string())
    }

    /// The most memory that it ever had.
    pub(crate) fn peak_mb(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id().context("the host runs")?))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
        Ok(peak.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
    }

    /// Stops it and returns what it says at its end.
    pub(crate) async fn stop(mut self) -> Result<String> {
        let pid = self.child.id().context("the host ended before it was told to")?;
        let pid = rustix::process::Pid::from_raw(pid as i32).context("a process identifier")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let last = self.stdout.next_line().await?.context("last words")?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "the host ended with {status}; see torture.log");
        Ok(last)
    }
}
